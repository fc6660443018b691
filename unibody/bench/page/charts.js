// Drawing: elements, scales, and the four kinds of plot. Texts are always set as text, never as markup.
const SVG = "http://www.w3.org/2000/svg";
const COLOURS = 8;

function make(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function draw(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(key, value);
  }
  element.append(...children.flat());
  return element;
}

const colour = (index) => `var(--c${index % COLOURS})`;

function figures(value) {
  const size = Math.abs(value);
  if (size === 0 || size >= 100) return value.toLocaleString("en", { maximumFractionDigits: 0 });
  return value.toFixed(size < 10 ? 2 : 1);
}

function format(value, unit) {
  if (value === null || value === undefined) return "–";
  if (value === 0 && unit === "s") return "0 s";
  if (unit === "s") {
    const scales = [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]];
    const [size, name] = scales.find(([least]) => Math.abs(value) >= least) || scales[3];
    return `${figures(value / size)} ${name}`;
  }
  return `${figures(value)} ${unit}`.trim();
}

function ticks(low, high, count = 5) {
  const raw = (high - low) / count || Math.abs(high) || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= raw);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-6; at += step) found.push(Math.abs(at) < step * 1e-9 ? 0 : at);
  return found;
}

const tip = make("div", { class: "tip", role: "tooltip" });

function explain(element, text) {
  element.append(draw("title", {}, text));
  element.addEventListener("pointermove", (event) => {
    tip.textContent = text;
    tip.style.opacity = 1;
    tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${event.clientY + 14}px`;
  });
  element.addEventListener("pointerleave", () => { tip.style.opacity = 0; });
  return element;
}

function shorten(text, most) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

// Bars, one for each item {group, label, value, values, colour, text}, each group on a scale of its own; the dots are the single
// measurements.
function bars(width, items, unit) {
  const left = Math.min(340, width * 0.36), right = 110, row = 30, head = 28;
  let scale;
  const parts = [];
  let at = 4, group = null;
  for (const item of items) {
    if (item.group !== group) {
      group = item.group;
      const most = Math.max(...items.filter((other) => other.group === group).flatMap((other) => [other.value || 0, ...other.values]), 0) || 1;
      scale = (value) => (width - left - right) * value / most;
      parts.push(draw("text", { class: "group", x: 0, y: at + 17 }, group));
      at += head;
    }
    const shown = draw("g", {});
    shown.append(draw("text", { x: left - 10, y: at + 15, "text-anchor": "end" }, shorten(item.label, Math.floor(left / 6.6))));
    if (item.value !== null) {
      shown.append(draw("rect", { x: left, y: at + 2, width: Math.max(1, scale(item.value)), height: 18, rx: 4, fill: item.colour, "fill-opacity": 0.82 }));
      for (const value of item.values.slice(0, 120)) {
        shown.append(draw("circle", { cx: left + scale(value), cy: at + 11, r: 2.2, fill: "var(--card)", stroke: item.colour, "stroke-opacity": 0.9 }));
      }
    }
    const end = item.value === null ? 0 : scale(Math.max(item.value, ...item.values));
    shown.append(draw("text", { x: left + end + 9, y: at + 15, class: item.value === null ? "soft" : "" }, item.value === null ? item.text || "–" : format(item.value, unit)));
    parts.push(explain(shown, `${item.group}\n${item.label}\n${item.value === null ? item.text || "not measured" : format(item.value, unit)}${item.values.length ? `, ${item.values.length} values` : ""}`));
    at += row;
  }
  return draw("svg", { viewBox: `0 0 ${width} ${at}`, role: "img", "aria-label": "bars" }, parts);
}

// Lines or points over two axes: series {label, colour, points: [[x, y, text?]], line, dots}.
function plane(width, height, series, options) {
  const left = 64, right = 18, top = options.yTitle ? 30 : 12, bottom = 40;
  const all = series.flatMap((one) => one.points);
  const xs = all.map((point) => point[0]), ys = all.map((point) => point[1]);
  const warp = options.log ? Math.log10 : (value) => value;
  let [x0, x1] = options.x || [Math.min(...xs), Math.max(...xs)];
  let y0 = options.zero ? 0 : warp(Math.min(...ys)), y1 = warp(Math.max(...ys));
  if (x0 === x1) [x0, x1] = [x0 - 1, x1 + 1];
  const margin = (y1 - y0) * 0.08 || Math.abs(y1) * 0.1 || 1;
  [y0, y1] = [options.zero ? 0 : y0 - margin, y1 + margin];
  const px = (x) => left + (width - left - right) * (x - x0) / (x1 - x0);
  const py = (y) => height - bottom - (height - top - bottom) * (warp(y) - y0) / (y1 - y0);
  const parts = [];
  const marks = options.log ? ticks(10 ** y0, 10 ** y1, 5).filter((mark) => mark > 0) : ticks(y0, y1, 4);
  for (const y of marks) {
    parts.push(draw("line", { class: "grid", x1: left, x2: width - right, y1: py(y), y2: py(y) }));
    parts.push(draw("text", { class: "soft", x: left - 8, y: py(y) + 4, "text-anchor": "end" }, format(y, options.unit === "s" ? "s" : "")));
  }
  const below = options.names ? options.names.map((name, index) => [index, name]) : ticks(x0, x1, Math.max(2, Math.floor(width / 110))).map((x) => [x, figures(x)]);
  for (const [x, name] of below) parts.push(draw("text", { class: "soft", x: px(x), y: height - bottom + 18, "text-anchor": "middle" }, shorten(name, 16)));
  parts.push(draw("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }));
  parts.push(draw("text", { class: "soft", x: width - right, y: height - 4, "text-anchor": "end" }, options.xTitle || ""));
  parts.push(draw("text", { class: "soft", x: 0, y: 12 }, options.yTitle || ""));
  for (const one of series) {
    if (one.line) {
      const path = one.points.map((point, index) => `${index && point[3] === one.points[index - 1][3] ? "L" : "M"}${px(point[0]).toFixed(1)} ${py(point[1]).toFixed(1)}`).join("");
      parts.push(explain(draw("path", { d: path, fill: "none", stroke: one.colour, "stroke-width": 2, "stroke-dasharray": one.dashed ? "6 4" : null, "stroke-linejoin": "round" }), one.label));
    }
    for (const point of one.dots ? one.points : []) {
      const text = point[2] || `${one.label}\n${format(point[1], options.unit || "")}`;
      parts.push(explain(draw("circle", { cx: px(point[0]), cy: py(point[1]), r: 4.5, fill: one.colour, stroke: "var(--card)", "stroke-width": 1.5 }), text));
      if (one.named) parts.push(draw("text", { class: "soft", x: px(point[0]) + 8, y: py(point[1]) + 4, "text-anchor": px(point[0]) > width - 140 ? "end" : "start", dx: px(point[0]) > width - 140 ? -16 : 0 }, shorten(one.label, 26)));
    }
  }
  return draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "plot" }, parts);
}

function legend(series) {
  return make("div", { class: "legend" }, series.map((one) => make("span", {}, make("i", { class: one.line ? "line" : "", style: `border-top-style:${one.dashed ? "dashed" : "solid"};color:${one.colour}` }), one.label)));
}
