// The chart of a history: a point for each run, a line for their moving median, numbered lines where something changed.
import { axis, colour, figure, keepDrawn, load, size } from "./plotting.js";

const section = document.querySelector("[data-history]");
const data = await load(section.dataset.history);
const plot = section.querySelector("[data-plot]");
const at = section.querySelector("[data-at]");
const byTime = data.by === "time";
const NEAR = 24;

// Of one version the runs lie side by side, in their order, from one number to the next.
function places() {
  if (byTime) return data.time;
  const counts = new Map();
  for (const version of data.version) counts.set(version, (counts.get(version) ?? 0) + 1);
  const seen = new Map();
  return data.version.map((version) => {
    const place = seen.get(version) ?? 0;
    seen.set(version, place + 1);
    return version + (0.8 * (place + 0.5)) / counts.get(version) - 0.4;
  });
}

const x = places();
// uPlot wants its places in order.
const order = x.map((_, i) => i).sort((a, b) => x[a] - x[b]);
const of = (column) => order.map((i) => column[i]);
const values = of(data.value);

const swatch = (mark) => colour(section.querySelector(`.mark.${mark}`));

function shape(ctx, mark, left, top, radius) {
  ctx.beginPath();
  if (mark === "baseline") {
    ctx.moveTo(left, top - radius);
    ctx.lineTo(left + radius, top);
    ctx.lineTo(left, top + radius);
    ctx.lineTo(left - radius, top);
    ctx.closePath();
  } else if (mark === "starred") {
    for (let i = 0; i < 10; i += 1) {
      const far = i % 2 ? radius * 0.45 : radius;
      const angle = (Math.PI * (i - 2.5)) / 5;
      ctx.lineTo(left + far * Math.cos(angle), top + far * Math.sin(angle));
    }
    ctx.closePath();
  } else ctx.arc(left, top, radius, 0, 2 * Math.PI);
}

function points(u) {
  const { ctx } = u;
  const scale = devicePixelRatio;
  const marks = of(data.mark);
  ctx.save();
  ctx.beginPath();
  ctx.rect(u.bbox.left - 8 * scale, u.bbox.top - 8 * scale, u.bbox.width + 16 * scale, u.bbox.height + 16 * scale);
  ctx.clip();
  ctx.lineWidth = 1.5 * scale;
  // The special ones last, so that none hides them.
  for (const [names, mark, radius] of [
    [["valid", ""], "valid", 2.5],
    [["suspect", "invalid"], "suspect", 2.5],
    [["starred"], "starred", 6],
    [["baseline"], "baseline", 6],
  ]) {
    ctx.fillStyle = ctx.strokeStyle = swatch(mark);
    values.forEach((value, i) => {
      if (value === null || !names.includes(marks[i])) return;
      shape(ctx, mark, u.valToPos(u.data[0][i], "x", true), u.valToPos(value, "y", true), radius * scale);
      if (mark === "suspect") ctx.stroke();
      else ctx.fill();
    });
  }
  ctx.restore();
}

// A change lies between two runs. By version it has no place of its own.
function changes(u) {
  if (!byTime) return;
  const { ctx } = u;
  const scale = devicePixelRatio;
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = colour(plot);
  ctx.setLineDash([4 * scale, 4 * scale]);
  ctx.lineWidth = scale;
  ctx.font = `${11 * scale}px Inter, system-ui, sans-serif`;
  let free = -Infinity;
  for (const [place, number] of data.changes) {
    const left = Math.round(u.valToPos((data.time[place - 1] + data.time[place]) / 2, "x", true));
    ctx.beginPath();
    ctx.moveTo(left, u.bbox.top);
    ctx.lineTo(left, u.bbox.top + u.bbox.height);
    ctx.stroke();
    // A number where there is room for one.
    if (left > free) {
      ctx.fillText(String(number), left + 3 * scale, u.bbox.top + 10 * scale);
      free = left + 20 * scale;
    }
  }
  ctx.restore();
}

function nearest(u, left, top) {
  let best = null;
  let distance = NEAR;
  values.forEach((value, i) => {
    if (value === null) return;
    const far = Math.hypot(u.valToPos(u.data[0][i], "x") - left, u.valToPos(value, "y") - top);
    if (far < distance) [best, distance] = [i, far];
  });
  return best;
}

const day = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 10);
// As the pages write it: 26 Sep; within a few days with the hour.
function dated(tick, { min, max }) {
  const short = max - min < 4 * 86400;
  const [, date, month, , hour] = new Date(tick * 1000).toUTCString().split(" ");
  return `${Number(date)} ${month}${short ? ` ${hour.slice(0, 5)}` : ""}`;
}

const shared = axis(plot);
let here = null;
const known = values.filter((value) => value !== null);

if (known.length) {
  const drawn = new uPlot(
    {
      ...size(plot),
      padding: [12, 18, 0, 0],
      legend: { show: false },
      cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
      scales: {
        x: { time: byTime, ...(byTime ? {} : { range: [-0.6, data.versions.length - 0.4] }) },
        y: { range: (u, low, high) => [0, high > 0 ? high * 1.08 : 1] },
      },
      axes: [
        byTime
          ? { ...shared, size: 28, space: 96, values: (u, ticks) => ticks.map((tick) => dated(tick, u.scales.x)) }
          : {
              ...shared,
              size: 28,
              splits: (u) => {
                // As many names as there is room for.
                const step = Math.ceil((data.versions.length * 90) / u.width);
                return data.versions.map((_, i) => i).filter((i) => i % step === 0);
              },
              values: (u, ticks) => ticks.map((tick) => data.versions[tick]),
            },
        { ...shared, size: 62, values: (u, ticks) => ticks.map((tick) => figure(tick, data.unit)) },
      ],
      series: [
        {},
        { paths: () => null, points: { show: false } },
        { stroke: () => swatch("line"), width: 1.5, spanGaps: false, show: byTime, points: { show: false } },
      ],
      // The axis is in UTC, as all times here.
      tzDate: (stamp) => uPlot.tzDate(new Date(stamp * 1000), "Etc/UTC"),
      hooks: {
        drawClear: [changes],
        draw: [points],
        setCursor: [
          (u) => {
            here = u.cursor.left < 0 ? null : nearest(u, u.cursor.left, u.cursor.top);
            u.over.classList.toggle("on-run", here !== null);
            at.textContent = here === null ? "" : `${of(data.id)[here]} · ${data.versions[of(data.version)[here]]} · ${day(of(data.time)[here])} · ${figure(values[here], data.unit)}`;
          },
        ],
      },
    },
    [of(x), values, of(data.smoothed)],
    plot,
  );
  drawn.over.addEventListener("click", () => {
    if (here !== null) location.assign(data.run.replace("RUN", of(data.id)[here]));
  });
  keepDrawn(plot, drawn);
}
