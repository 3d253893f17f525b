// Draws the charts of a run from its series: one shared cursor, values in the head, a table on demand.
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
  if (unit !== "s") return digits(value);
  if (value === 0) return "0 s";
  const [scale, name] = [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]].find(([s]) => value >= s * 0.9995) ?? [1e-9, "ns"];
  return `${digits(value / scale)} ${name}`;
}

// --- colours: the canvas takes what the style sheet has resolved for this theme --------------------------------------
const colour = (element, property) => getComputedStyle(element)[property];

function faded(element, property, alpha) {
  const resolved = colour(element, property);
  return resolved.replace(/^rgb\((.+)\)$/, `rgb($1 / ${alpha})`).replaceAll(",", "");
}

class Chart {
  constructor(section) {
    this.section = section;
    this.unit = section.dataset.unit;
    this.plot = section.querySelector("[data-plot]");
    this.lines = [...section.querySelectorAll("[data-line]")].map((item) => ({
      key: item.dataset.line,
      label: item.textContent.trim(),
      dashed: item.dataset.dashed === "yes",
      swatch: item.querySelector(".swatch"),
      value: item.appendChild(document.createElement("b")),
    }));
    this.at = section.querySelector("[data-at]");
    this.window = null;
    this.columns = null;
    const table = section.querySelector("details");
    table.addEventListener("toggle", () => table.open && this.tabulate());
    new ResizeObserver(() => this.drawn?.setSize(this.size())).observe(this.plot);
  }

  size() {
    return { width: Math.max(120, this.plot.clientWidth), height: this.plot.clientHeight };
  }

  // `until`: a run that goes on is drawn on the whole of its time from the begin, so that nothing shifts.
  show(columns, window, summary, until) {
    this.columns = columns;
    this.until = until;
    this.window = window;
    this.section.querySelector("[data-summary]").textContent = summary;
    const data = [columns.second, ...this.lines.map((line) => columns[line.key])];
    if (this.drawn) this.drawn.setData(data);
    else this.drawn = new uPlot(this.options(), data, this.plot);
    if (this.section.querySelector("details").open) this.tabulate();
  }

  options() {
    const plot = this.plot;
    const axis = {
      stroke: () => colour(plot, "color"),
      grid: { stroke: () => colour(plot, "borderTopColor"), width: 1 },
      ticks: { show: false },
      font: '11px Inter, system-ui, sans-serif',
    };
    return {
      ...this.size(),
      padding: [8, 18, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: "run" }, y: false, points: { size: 6 } },
      scales: { x: { time: false, ...(this.until && { range: () => [0, this.until] }) }, y: { range: (u, low, high) => [0, high > 0 ? high * 1.08 : 1] } },
      axes: [
        { ...axis, size: 28, values: (u, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? `${tick} s` : "")) },
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
        setCursor: [(u) => this.read(u.cursor.idx)],
      },
    };
  }

  // The measured window lies on a tinted ground.
  shade(u) {
    if (!this.window) return;
    const [left, right] = this.window.map((second) => u.valToPos(second, "x", true));
    const { left: low, top, width, height } = u.bbox;
    const from = Math.max(left, low);
    const to = Math.min(right, low + width);
    if (to <= from) return;
    u.ctx.fillStyle = faded(this.plot, "caretColor", 0.07);
    u.ctx.fillRect(from, top, to - from, height);
  }

  read(index) {
    const known = index !== null && index !== undefined && this.columns;
    this.at.textContent = known ? `${this.columns.second[index]} s` : "";
    for (const line of this.lines) {
      line.value.textContent = known ? figure(this.columns[line.key][index], this.unit) : "";
    }
  }

  tabulate() {
    if (!this.columns) return;
    const row = (tag, cells) => {
      const tr = document.createElement("tr");
      cells.forEach((text, i) => {
        const cell = document.createElement(i === 0 ? "th" : tag);
        cell.scope = tag === "th" ? "col" : i === 0 ? "row" : "";
        if (!cell.scope) cell.removeAttribute("scope");
        if (i > 0) cell.className = "num";
        cell.textContent = text;
        tr.append(cell);
      });
      return tr;
    };
    const table = document.createElement("table");
    table.className = "table";
    table.createTHead().append(row("th", ["Second", ...this.lines.map((line) => line.label)]));
    const body = table.createTBody();
    this.columns.second.forEach((second, i) => {
      body.append(row("td", [String(second), ...this.lines.map((line) => figure(this.columns[line.key][i], this.unit))]));
    });
    this.section.querySelector("[data-table]").replaceChildren(table);
  }
}

// --- data ---------------------------------------------------------------------------------------------------------------
class Series {
  constructor(root) {
    this.url = root.dataset.charts;
    this.live = "live" in root.dataset;
    this.columns = null;
    this.charts = [...root.querySelectorAll("[data-chart]")].map((section) => new Chart(section));
  }

  get last() {
    return this.columns?.second.at(-1) ?? 0;
  }

  async load() {
    const response = await fetch(this.live ? `${this.url}?after=${this.last}` : this.url);
    if (!response.ok || response.redirected) throw new Error(`${this.url}: ${response.status}`);
    const { columns, window, summaries, until, over } = await response.json();
    if (over && this.live) return;
    if (this.columns) {
      for (const key of Object.keys(columns)) this.columns[key].push(...columns[key]);
    } else this.columns = columns;
    for (const chart of this.charts) {
      const key = chart.section.dataset.chart;
      chart.show(this.columns, window, summaries[key] ?? (this.last ? `Up to second ${this.last}.` : "No second yet."), until);
    }
  }

  async follow() {
    for (;;) {
      if (!document.hidden) await this.load().catch(() => {});
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
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

// Colours are read when a chart is drawn: draw again when the theme changes.
const redraw = () => all.forEach((series) => series.charts.forEach((chart) => chart.drawn?.redraw(false)));
new MutationObserver(redraw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
