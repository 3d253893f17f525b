// Overlays of what is compared: a line for each side, of a group the median of its runs.
import { axis, colour, figure, keepDrawn, load, median, size, table } from "./plotting.js";

const root = document.querySelector("[data-overlays]");
const unique = (lists) => [...new Set(lists.flat())].sort((a, b) => a - b);

// Of several runs the median at each place that any of them has.
function sideOf(runs, places, column) {
  const at = runs.map(({ x, columns }) => new Map(x.map((place, i) => [place, columns[column][i]])));
  return places.map((place) => median(at.filter((one) => one.has(place)).map((one) => one.get(place))));
}

const nines = (value) => (value === 0 ? "p0" : `p${Number((100 * (1 - 10 ** -value)).toFixed(4))}`);

class Overlay {
  constructor(section) {
    this.section = section;
    this.key = section.dataset.chart;
    this.unit = section.dataset.unit;
    this.plot = section.querySelector("[data-plot]");
    this.at = section.querySelector("[data-at]");
    this.sides = [...section.querySelectorAll("[data-side]")].map((item) => ({
      ids: item.dataset.side.split(" ").filter(Boolean),
      label: item.textContent.trim(),
      swatch: item.querySelector(".swatch"),
      value: item.appendChild(document.createElement("b")),
    }));
  }

  get isCurve() {
    return this.key === "curve";
  }

  place(x) {
    return this.isCurve ? nines(x) : `${x} s`;
  }

  show(runs) {
    const having = this.sides.map((side) => side.ids.map((id) => runs.get(id)).filter((run) => run?.columns[this.key]));
    let places = unique(having.flat().map((run) => run.x));
    const columns = having.map((of) => sideOf(of, places, this.key));
    if (this.isCurve) {
      // Beyond the last nine that any side has there is nothing to see.
      const last = places.findLastIndex((_, i) => columns.some((values) => values[i] !== null));
      places = places.slice(0, last + 1);
      columns.forEach((values) => values.splice(last + 1));
    }
    this.data = [places, ...columns];
    this.section.querySelector("[data-summary]").textContent = this.summary();
    const fold = this.section.querySelector("details");
    fold.addEventListener("toggle", () => fold.open && this.tabulate());
    if (!places.length) return;
    const drawn = new uPlot(this.options(), this.data, this.plot);
    keepDrawn(this.plot, drawn);
  }

  summary() {
    const [places, ...columns] = this.data;
    const parts = columns.flatMap((values, i) => {
      const known = values.filter((value) => value !== null);
      if (!known.length) return [`${this.sides[i].label}: none`];
      const last = values.findLastIndex((value) => value !== null);
      return this.isCurve
        ? [`${this.sides[i].label}: up to ${figure(values[last], this.unit)} at ${this.place(places[last])}`]
        : [`${this.sides[i].label}: ${figure(Math.min(...known), this.unit)} to ${figure(Math.max(...known), this.unit)}`];
    });
    return `${parts.join("; ")}.`;
  }

  options() {
    const shared = axis(this.plot);
    const curve = this.isCurve;
    return {
      ...size(this.plot),
      padding: [8, 18, 0, 0],
      legend: { show: false },
      cursor: { ...(curve ? {} : { sync: { key: "overlays" } }), y: false, points: { size: 6 } },
      scales: {
        x: { time: false },
        // A tail is worth its decades; what begins at nothing is drawn from nothing.
        y: curve ? { distr: 3 } : { range: (u, low, high) => [0, high > 0 ? high * 1.08 : 1] },
      },
      axes: [
        { ...shared, size: 28, values: (u, ticks) => ticks.map((tick) => (curve || Number.isInteger(tick) ? this.place(tick) : "")), ...(curve && { splits: (u) => this.data[0].filter(Number.isInteger) }) },
        { ...shared, size: 62, values: (u, ticks) => ticks.map((tick) => (tick === null ? "" : figure(tick, this.unit))) },
      ],
      series: [
        {},
        ...this.sides.map((side) => ({
          label: side.label,
          stroke: () => colour(side.swatch, "backgroundColor"),
          width: 1.5,
          points: { show: false },
        })),
      ],
      hooks: { setCursor: [(u) => this.read(u.cursor.idx)] },
    };
  }

  read(index) {
    const known = index !== null && index !== undefined;
    this.at.textContent = known ? this.place(this.data[0][index]) : "";
    this.sides.forEach((side, i) => {
      side.value.textContent = known ? figure(this.data[i + 1][index], this.unit) : "";
    });
  }

  tabulate() {
    const [places, ...columns] = this.data ?? [[]];
    const rows = places.map((place, row) => [this.place(place), ...columns.map((values) => figure(values[row], this.unit))]);
    const heads = [this.isCurve ? "Percentile" : "Second", ...this.sides.map((side) => side.label)];
    this.section.querySelector("[data-table]").replaceChildren(table(heads, rows));
  }
}

const overlays = [...root.querySelectorAll("[data-chart]")].map((section) => new Overlay(section));
const ids = unique(overlays[0].sides.map((side) => side.ids));

// A run's seconds, and its percentile curve: each with its own places.
async function seriesOf(id) {
  const { tables } = await load(root.dataset.series.replace("RUN", id));
  const { run, curve } = tables;
  return [id, { seconds: { x: run.second, columns: run }, curve: { x: curve.nines, columns: { curve: curve.response_time } } }];
}

// A run without an archive has no lines; the others are drawn all the same.
Promise.allSettled(ids.map(seriesOf)).then((settled) => {
  const found = new Map(settled.filter((one) => one.status === "fulfilled").map((one) => one.value));
  const part = (name) => new Map([...found].map(([id, run]) => [id, run[name]]));
  for (const one of overlays) one.show(part(one.isCurve ? "curve" : "seconds"));
});
