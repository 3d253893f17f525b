// What charts beside the run page share: numbers as the pages write them, axes in the theme's colours, a table on demand.

// --- numbers, as portal/runs/figures.py writes them ------------------------------------------------------------------
export function digits(value, most = 3) {
  if (value === 0) return "0";
  const decimals = Math.max(0, most - 1 - Math.floor(Math.log10(Math.abs(value))));
  return value.toLocaleString("en", { maximumFractionDigits: Math.min(decimals, 20) });
}

const TIMES = [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]];

export function figure(value, unit) {
  if (value === null || value === undefined) return "–";
  if (unit === "1/s") return `${digits(value)}/s`;
  if (unit === "ratio") return `${digits(value * 100)} %`;
  if (unit !== "s") return digits(value);
  if (value === 0) return "0 s";
  const [scale, name] = TIMES.find(([s]) => Math.abs(value) >= s * 0.9995) ?? TIMES.at(-1);
  return `${digits(value / scale)} ${name}`;
}

export function median(values) {
  const known = values.filter((value) => value !== null && value !== undefined).sort((a, b) => a - b);
  // Where most runs have no value, their median has none.
  if (known.length * 2 <= values.length) return null;
  const middle = known.length >> 1;
  return known.length % 2 ? known[middle] : (known[middle - 1] + known[middle]) / 2;
}

// --- colours: the canvas takes what the style sheet has resolved for this theme --------------------------------------
export const colour = (element, property = "color") => getComputedStyle(element)[property];

export const axis = (plot) => ({
  stroke: () => colour(plot),
  grid: { stroke: () => colour(plot, "borderTopColor"), width: 1 },
  ticks: { show: false },
  font: "11px Inter, system-ui, sans-serif",
});

export const size = (plot) => ({ width: Math.max(120, plot.clientWidth), height: plot.clientHeight });

// Draws again when the width or the theme changes.
export function keepDrawn(plot, drawn) {
  new ResizeObserver(() => drawn.setSize(size(plot))).observe(plot);
  const redraw = () => drawn.redraw(false);
  new MutationObserver(redraw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

// --- the same as a table ------------------------------------------------------------------------------------------------
export function table(heads, rows) {
  const made = document.createElement("table");
  made.className = "table";
  const line = (section, tag, cells) => {
    const tr = section.insertRow();
    cells.forEach((text, i) => {
      const cell = document.createElement(i === 0 ? "th" : tag);
      if (tag === "th") cell.scope = "col";
      else if (i === 0) cell.scope = "row";
      if (i > 0) cell.className = "num";
      cell.textContent = text;
      tr.append(cell);
    });
  };
  line(made.createTHead(), "th", heads);
  const body = made.createTBody();
  for (const cells of rows) line(body, "td", cells);
  return made;
}

export async function load(url) {
  const response = await fetch(url);
  if (!response.ok || response.redirected) throw new Error(`${url}: ${response.status}`);
  return response.json();
}
