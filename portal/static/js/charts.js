// Draws the charts of a run from its series: one shared cursor, values in the head, a table on demand, and a stretch
// that is chosen by dragging or with the keyboard.
"use strict";

// --- numbers, as portal/runs/figures.py writes them ------------------------------------------------------------------
function digits(value, most = 3) {
  if (value === 0) return "0";
  const decimals = Math.max(0, most - 1 - Math.floor(Math.log10(Math.abs(value))));
  return value.toLocaleString("en", { maximumFractionDigits: Math.min(decimals, 20) });
}

function figure(value, unit) {
  if (value === null || value === undefined) return "–";
  if (unit === "1/s") return `${digits(value)}/s`;
  if (unit === "cores") return `${digits(value)} cores`;
  if (unit !== "s") return digits(value);
  if (value === 0) return "0 s";
  const [scale, name] = [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]].find(([s]) => value >= s * 0.9995) ?? [1e-9, "ns"];
  return `${digits(value / scale)} ${name}`;
}

// A place on the axis of percentiles: 1 is p90, 2 is p99, 3 is p99.9.
function percentile(nines) {
  return `p${(100 * (1 - 10 ** -nines)).toFixed(Math.max(0, Math.ceil(nines - 1e-9) - 2))}`;
}

const AXES = {
  second: { column: "second", name: "Second", at: (x) => `${x} s`, tick: (x) => (Number.isInteger(x) ? `${x} s` : "") },
  nines: { column: "nines", name: "Percentile", at: percentile, tick: (x) => (Number.isInteger(x) ? percentile(x) : "") },
};
const NAMES = { response_time: "response time", service_time: "service time", write_wait: "write wait", scheduler_lag: "scheduler lag" };

// --- colours: the canvas takes what the style sheet has resolved for this theme --------------------------------------
const colour = (element, property) => getComputedStyle(element)[property];

function faded(element, property, alpha) {
  const resolved = colour(element, property);
  return resolved.replace(/^rgb\((.+)\)$/, `rgb($1 / ${alpha})`).replaceAll(",", "");
}

const make = (tag, text = "", name = "") => {
  const element = document.createElement(tag);
  if (text) element.textContent = text;
  if (name) element.className = name;
  return element;
};

class Chart {
  constructor(section, series) {
    this.section = section;
    this.series = series;
    this.unit = section.dataset.unit;
    this.axis = AXES[section.dataset.axis ?? "second"];
    this.plot = section.querySelector("[data-plot]");
    this.keys = section.querySelector("[data-keys]");
    this.lines = [];
    this.columns = null;
    const table = section.querySelector("details");
    table.addEventListener("toggle", () => table.open && this.tabulate());
    new ResizeObserver(() => this.drawn?.setSize(this.size())).observe(this.plot);
    // A chart is a slider for those who have no pointer: each step is a point, read out with all its values.
    this.plot.tabIndex = 0;
    this.plot.setAttribute("role", "slider");
    this.plot.setAttribute("aria-label", `${section.querySelector("h2").textContent}, cursor`);
    this.plot.addEventListener("keydown", (event) => this.steer(event));
    this.point(null);
  }

  get title() {
    return this.section.querySelector("h2").textContent;
  }

  size() {
    return { width: Math.max(120, this.plot.clientWidth), height: this.plot.clientHeight };
  }

  // `until`: a run that goes on is drawn on the whole of its time from the begin, so that nothing shifts.
  show(columns, lines, summary) {
    this.columns = columns;
    if (summary) this.section.querySelector("[data-summary]").textContent = summary;
    const known = this.lines.map((line) => line.key).join();
    if (lines.map((line) => line.key).join() !== known || !this.drawn) {
      this.draw(lines);
    } else {
      this.drawn.setData(this.data());
    }
    if (this.section.querySelector("details").open) this.tabulate();
  }

  data() {
    return [this.columns[this.axis.column], ...this.lines.map((line) => this.columns[line.key])];
  }

  draw(lines) {
    this.drawn?.destroy();
    this.keys.replaceChildren(make("li", "", "at"));
    this.at = this.keys.firstChild;
    this.at.dataset.at = "";
    this.lines = lines.map((line) => {
      const item = make("li");
      item.dataset.line = line.key;
      const swatch = item.appendChild(make("span", "", `swatch c${line.colour}${line.dashed ? " dashed" : ""}`));
      item.append(line.label, " ");
      const value = item.appendChild(make("b"));
      this.keys.append(item);
      return { ...line, swatch, value };
    });
    this.drawn = new uPlot(this.options(), this.data(), this.plot);
  }

  options() {
    const plot = this.plot;
    const axis = {
      stroke: () => colour(plot, "color"),
      grid: { stroke: () => colour(plot, "borderTopColor"), width: 1 },
      ticks: { show: false },
      font: '11px Inter, system-ui, sans-serif',
    };
    const inTime = this.axis === AXES.second;
    const until = inTime ? this.series.until : null;
    return {
      ...this.size(),
      padding: [8, 18, 0, 0],
      legend: { show: false },
      cursor: {
        ...(inTime && { sync: { key: "run", scales: ["x", null] } }),
        y: false,
        points: { size: 6 },
        drag: { x: inTime && this.series.canCut, y: false, setScale: false, dist: 4 },
      },
      scales: {
        x: { time: false, ...(until && { range: () => [0, until] }) },
        y: { range: (u, low, high) => [0, high > 0 ? high * 1.08 : 1] },
      },
      axes: [
        { ...axis, size: 28, values: (u, ticks) => ticks.map(this.axis.tick) },
        { ...axis, size: 62, values: (u, ticks) => ticks.map((tick) => figure(tick, this.unit)) },
      ],
      series: [
        {},
        ...this.lines.map((line) => ({
          label: line.label,
          stroke: () => colour(line.swatch, "backgroundColor"),
          width: 1.5,
          dash: line.dashed ? [5, 5] : undefined,
          fill: this.lines.length === 1 ? () => faded(line.swatch, "backgroundColor", 0.1) : undefined,
          points: { size: 4 },
        })),
      ],
      hooks: {
        drawClear: [(u) => this.shade(u)],
        setCursor: [(u) => this.point(u.cursor.idx)],
        setSelect: [(u) => this.select(u)],
      },
    };
  }

  // The measured window lies on a tinted ground, the chosen stretch on a stronger one.
  shade(u) {
    if (this.axis !== AXES.second) return;
    if (this.series.window) this.band(u, this.series.window, "caretColor", 0.07);
    for (const [from, to] of this.series.windows) this.band(u, [from, to], "caretColor", 0.07);
    if (this.series.stretch) this.band(u, this.series.stretch, "caretColor", 0.2);
  }

  band(u, seconds, property, alpha) {
    const [left, right] = seconds.map((second) => u.valToPos(second, "x", true));
    const { left: low, top, width, height } = u.bbox;
    const from = Math.max(left, low);
    const to = Math.min(right, low + width);
    if (to <= from) return;
    u.ctx.fillStyle = faded(this.plot, property, alpha);
    u.ctx.fillRect(from, top, to - from, height);
  }

  select(u) {
    if (u.select.width <= 0) return;
    const from = u.posToVal(u.select.left, "x");
    const to = u.posToVal(u.select.left + u.select.width, "x");
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.series.cut(Math.floor(from), Math.ceil(to));
  }

  point(index) {
    const known = index !== null && index !== undefined && this.columns;
    const x = known ? this.columns[this.axis.column][index] : null;
    if (this.at) this.at.textContent = known ? this.axis.at(x) : "";
    for (const line of this.lines) {
      line.value.textContent = known ? figure(this.columns[line.key][index], this.unit) : "";
    }
    const xs = this.columns?.[this.axis.column] ?? [];
    this.plot.setAttribute("aria-valuemin", xs[0] ?? 0);
    this.plot.setAttribute("aria-valuemax", xs.at(-1) ?? 0);
    this.plot.setAttribute("aria-valuenow", x ?? xs[0] ?? 0);
    const said = this.lines.map((line) => `${line.label} ${known ? figure(this.columns[line.key][index], this.unit) : "–"}`);
    this.plot.setAttribute("aria-valuetext", known ? `${this.axis.at(x)}: ${said.join(", ")}` : "no point chosen");
    this.index = known ? index : null;
  }

  // Arrows go from point to point, with Shift they draw a stretch along, Enter shows it, Escape lets go.
  steer(event) {
    const last = (this.columns?.[this.axis.column].length ?? 0) - 1;
    if (last < 0 || !this.drawn) return;
    const far = Math.max(1, Math.round(last / 10));
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -far, PageDown: far, Home: -last, End: last };
    if (event.key in steps) {
      const before = this.index ?? 0;
      const index = this.index === null ? 0 : Math.min(last, Math.max(0, before + steps[event.key]));
      const x = this.columns[this.axis.column][index];
      if (this.axis === AXES.second && this.series.canCut) {
        if (!event.shiftKey) this.anchor = null;
        else {
          this.anchor ??= this.columns.second[before];
          const from = Math.min(this.anchor, x) - 1;
          this.series.mark(Math.max(0, from), Math.max(this.anchor, x));
        }
      }
      this.drawn.setCursor({ left: this.drawn.valToPos(x, "x"), top: this.drawn.over.clientHeight / 2 }, true, true);
      this.point(index);
    } else if (event.key === "Enter" && this.series.stretch) {
      this.series.cut(...this.series.stretch);
    } else if (event.key === "Escape") {
      this.anchor = null;
      this.series.mark(null);
      this.drawn.setCursor({ left: -10, top: -10 }, true, true);
    } else return;
    event.preventDefault();
  }

  tabulate() {
    if (!this.columns) return;
    const row = (tag, cells) => {
      const tr = make("tr");
      cells.forEach((text, i) => {
        const cell = make(i === 0 ? "th" : tag, text);
        if (tag === "th") cell.scope = "col";
        else if (i === 0) cell.scope = "row";
        if (i > 0) cell.className = "num";
        tr.append(cell);
      });
      return tr;
    };
    const table = make("table", "", "table");
    table.createTHead().append(row("th", [this.axis.name, ...this.lines.map((line) => line.label)]));
    const body = table.createTBody();
    this.columns[this.axis.column].forEach((x, i) => {
      const first = this.axis === AXES.second ? String(x) : this.axis.at(x);
      body.append(row("td", [first, ...this.lines.map((line) => figure(this.columns[line.key][i], this.unit))]));
    });
    this.section.querySelector("[data-values]").replaceChildren(table);
  }
}

// --- data ---------------------------------------------------------------------------------------------------------------
class Series {
  constructor(root) {
    this.root = root;
    this.url = root.dataset.charts;
    this.live = "live" in root.dataset;
    this.form = document.querySelector("[data-stretch-form]");
    this.canCut = !this.live && this.form !== null;
    this.tables = {};
    this.window = this.stretch = this.until = null;
    this.windows = [];
    this.charts = [...root.querySelectorAll("[data-chart]")].map((section) => new Chart(section, this));
  }

  last(table) {
    return this.tables[table]?.second.at(-1) ?? 0;
  }

  async load() {
    const after = this.live ? `?after=${this.last("run")}&hosts_after=${this.last("hosts")}` : "";
    const response = await fetch(this.url + after);
    if (!response.ok || response.redirected) throw new Error(`${this.url}: ${response.status}`);
    const { tables, charts, window, windows, until, over } = await response.json();
    if (over && this.live) return;
    Object.assign(this, { window, windows, until });
    for (const [name, table] of Object.entries(tables)) this.append(name, table);
    if (this.last("run")) this.root.hidden = false;
    for (const chart of this.charts) {
      const { chart: key, tableOf } = chart.section.dataset;
      const table = this.tables[tableOf];
      const lines = key === "curve" ? this.curves(table) : charts[key].lines.filter((line) => line.key in table);
      chart.show(table, lines, this.live ? this.upTo(tableOf) : charts[key]?.summary);
    }
  }

  upTo(name) {
    return this.last(name) ? `Up to second ${this.last(name)}.` : "No second yet.";
  }

  curves(table) {
    return Object.keys(table).filter((key) => key in NAMES).map((key, i) => ({ key, label: NAMES[key], colour: i + 1, dashed: i > 1 }));
  }

  // A column that comes later was not there before: errors of a kind that nobody had seen count as none.
  append(name, more) {
    const table = (this.tables[name] ??= { [Object.keys(more)[0]]: [] });
    const [axis] = Object.keys(table);
    const [before, added] = [table[axis].length, more[axis].length];
    const missing = name === "run" ? 0 : null;
    for (const key of Object.keys(more)) table[key] ??= Array(before).fill(missing);
    for (const key of Object.keys(table)) table[key].push(...(more[key] ?? Array(added).fill(missing)));
  }

  async follow() {
    for (;;) {
      if (!document.hidden) await this.load().catch(() => {});
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }

  redraw() {
    for (const chart of this.charts) chart.drawn?.redraw(false);
  }

  mark(from, to) {
    this.stretch = from === null ? null : [from, to];
    if (this.stretch) {
      this.form.elements.from.value = from;
      this.form.elements.to.value = to;
    }
    this.redraw();
  }

  // Each chart that follows the cursor reports the same drag: one of them is enough.
  cut(from, to) {
    const last = this.last("run");
    const begin = Math.max(0, Math.min(from, last - 1));
    this.mark(begin, Math.min(last, Math.max(to, begin + 1)));
    clearTimeout(this.asking);
    this.asking = setTimeout(() => this.form.requestSubmit(), 20);
  }
}

const all = [...document.querySelectorAll("[data-charts]")].map((root) => new Series(root));
for (const series of all) {
  if (series.live) series.follow();
  else {
    series.load().catch((error) => {
      for (const chart of series.charts) chart.section.querySelector("[data-summary]").textContent = `Not loaded: ${error.message}`;
    });
  }
}

// What the page names as a stretch to look at is looked at here, where there are charts.
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("[data-look]");
  const series = all.find((one) => one.canCut);
  if (!link || !series) return;
  event.preventDefault();
  series.cut(...link.dataset.look.split(" ").map(Number));
  document.getElementById("stretch").scrollIntoView({ block: "start" });
});
document.addEventListener("submit", (event) => {
  if (!event.target.matches?.("[data-stretch-form]")) return;
  const { from, to } = event.target.elements;
  const series = all.find((one) => one.canCut);
  if (series && from.value && to.value) series.mark(Number(from.value), Number(to.value));
});

// Colours are read when a chart is drawn: draw again when the theme changes.
const redraw = () => all.forEach((series) => series.redraw());
new MutationObserver(redraw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
