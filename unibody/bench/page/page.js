// The page: what is shown of the data, in which order.
const data = JSON.parse(document.getElementById("data").textContent);
const MOST_LINES = 12;
const page = document.getElementById("page");
const metrics = Object.keys(data.units);
const commits = Object.keys(data.commits);
const configs = [...new Set(data.rows.map((row) => row.config))];
const models = [...new Set(data.rows.map((row) => row.model))];
const name = (row) => [models.length > 1 ? row.model : "", configs.length > 1 || commits.length < 2 ? row.config : "", commits.length > 1 ? row.commit : ""].filter(Boolean).join(" · ") || row.model;
// More configurations than colours: they are coloured by the first thing that differs, such as the backend, and sorted by the others.
const side = (config) => config.split(",")[0];
const rest = (config) => config.split(",").slice(1).join(",");
const sides = [...new Set(configs.map(side))];
const rests = [...new Set(configs.map(rest))];
const bySide = configs.length > COLOURS && rests.length > 1;
const shade = (config) => colour(bySide ? sides.indexOf(side(config)) : configs.indexOf(config));
const tint = (row) => configs.length > 1 ? shade(row.config) : colour(commits.indexOf(row.commit));

function card(title, half, control, ...content) {
  const element = make("section", { class: half ? "card half" : "card" }, make("div", { class: "head" }, make("h2", {}, title), control || ""), content);
  page.append(element);
  return element;
}

// A plot that is drawn anew when its width changes; `paint(width)` gives its elements.
function live(paint) {
  const box = make("div", {});
  let last = 0;
  const again = () => { if (box.clientWidth) box.replaceChildren(...[paint(box.clientWidth)].flat()); };
  new ResizeObserver(() => { if (Math.abs(box.clientWidth - last) > 8) { last = box.clientWidth; again(); } }).observe(box);
  box.again = again;
  return box;
}

function chooser(names, chosen, changed, label = "metric") {
  const select = make("select", { "aria-label": label, onchange: () => changed(select.value) });
  for (const one of names) select.append(make("option", one === chosen ? { value: one, selected: "" } : { value: one }, one));
  return select;
}

function tiles() {
  const beyond = data.changes.filter((change) => change.beyond_noise);
  const worse = beyond.filter((change) => change.worse).length;
  const told = [
    [data.rows.length, data.rows.length === 1 ? "result" : "results"],
    [configs.length, configs.length === 1 ? "configuration" : "configurations"],
    [commits.length, commits.length === 1 ? "state of the code" : "states of the code"],
  ];
  if (data.changes.length) told.push([beyond.length - worse, "better, beyond the noise"], [worse, "worse, beyond the noise", worse > 0]);
  if (data.failures.length) told.push([data.failures.length, "failed", true]);
  page.append(make("div", { class: "tiles" }, told.map(([number, text, bad]) => make("div", { class: bad ? "tile bad" : "tile" }, make("b", {}, String(number)), text))));
}

function sorted(rows) {
  return bySide ? [...rows].sort((a, b) => rests.indexOf(rest(a.config)) - rests.indexOf(rest(b.config))) : rows;
}

function comparison() {
  if (!metrics.length) return;
  let metric = metrics.find((one) => one.startsWith("decode.throughput")) || metrics.find((one) => one.includes("throughput")) || metrics.find((one) => one.startsWith("decode")) || metrics[0];
  const items = () => models.flatMap((model) => sorted(data.rows.filter((row) => row.model === model))).filter((row) => row.failed || row.metrics[metric] !== null).map((row) => ({ group: row.model, label: [row.config, commits.length > 1 ? row.commit : ""].filter(Boolean).join(" · "), value: row.metrics[metric], values: row.values[metric], colour: tint(row), text: row.failed ? "failed" : "not measured" }));
  const plot = live((width) => bars(width, items(), data.units[metric]));
  const note = make("p", { class: "note" });
  const tell = () => { note.textContent = `${data.better[metric] === "more" ? "More" : "Less"} is better. Dots are single measurements.${models.length > 1 ? " Each model has a scale of its own." : ""}`; };
  card("Throughput and times by configuration", false, chooser(metrics, metric, (chosen) => { metric = chosen; tell(); plot.again(); }), plot, note);
  tell();
}

function history() {
  if (commits.length < 2 || !metrics.length) return;
  let metric = metrics.find((one) => one.includes("latency.p50")) || metrics[0];
  const series = () => models.flatMap((model) => configs.map((config) => ({
    label: models.length > 1 ? `${model} · ${config}` : config, colour: shade(config), line: true, dots: true,
    points: commits.flatMap((commit, at) => data.rows.filter((row) => row.model === model && row.config === config && row.commit === commit && row.metrics[metric] !== null).map((row) => [at, row.metrics[metric], `${commit} ${data.commits[commit].subject}\n${config}\n${format(row.metrics[metric], data.units[metric])}`])),
  }))).filter((one) => one.points.length);
  const plot = live((width) => [plane(width, 280, series(), { zero: true, unit: data.units[metric], yTitle: data.units[metric] === "s" ? metric : `${metric}${data.units[metric] ? `, ${data.units[metric]}` : ""}`, names: commits, x: [-0.3, commits.length - 0.7] }), legend(series())]);
  card("History by commit", false, chooser(metrics, metric, (chosen) => { metric = chosen; plot.again(); }), plot);
}

function overTime(half) {
  const rows = data.rows.filter((row) => row.timeline.seconds.length > 1);
  if (!rows.length) return;
  const kinds = { "memory of the process, MB": "memory", "processor, % of a core": "cpu", "memory of the GPU, MB": "gpu" };
  const there = Object.keys(kinds).filter((kind) => rows.some((row) => row.timeline[kinds[kind]].some((value) => value !== null)));
  const drawn = models.filter((model) => rows.some((row) => row.model === model));
  let kind = there[0], model = drawn[0];
  const label = (row) => [configs.length > 1 || commits.length < 2 ? row.config : "", commits.length > 1 ? row.commit : ""].filter(Boolean).join(" · ");
  const dashed = (row) => (configs.length > 1 && commits.indexOf(row.commit) > 0) || (bySide ? rests.indexOf(rest(row.config)) % 2 === 1 : configs.indexOf(row.config) >= COLOURS);
  const shown = () => sorted(rows.filter((row) => row.model === model));
  const series = () => shown().slice(0, MOST_LINES).map((row) => ({ label: label(row), colour: tint(row), line: true, dashed: dashed(row), points: row.timeline.seconds.map((second, at) => [second, row.timeline[kinds[kind]][at], null, row.timeline.round[at]]).filter((point) => point[1] !== null) })).filter((one) => one.points.length);
  const note = () => shown().length > MOST_LINES ? make("p", { class: "note" }, `The first ${MOST_LINES} of ${shown().length}.`) : "";
  const plot = live((width) => [plane(width, 280, series(), { zero: true, xTitle: "seconds, each round from its beginning", yTitle: kind }), legend(series()), note()]);
  const controls = make("div", { class: "controls" }, chooser(there, kind, (chosen) => { kind = chosen; plot.again(); }, "device"), drawn.length > 1 ? chooser(drawn, model, (chosen) => { model = chosen; plot.again(); }, "model") : "");
  card("Memory over time", half, controls, plot);
}

function quality(half) {
  const phase = metrics.map((one) => one.split(".")[0]).find((one) => metrics.includes(`${one}.quality.bits_per_weight`));
  if (!phase) return;
  const rows = data.rows.filter((row) => row.metrics[`${phase}.quality.bits_per_weight`] !== null && row.metrics[`${phase}.quality.perplexity`] !== null);
  const series = rows.map((row) => {
    const [bits, value] = [row.metrics[`${phase}.quality.bits_per_weight`], row.metrics[`${phase}.quality.perplexity`]];
    return { label: row.config.replace(/^quantizer=/, ""), colour: tint(row), dots: true, named: true, points: [[bits, value, `${name(row)}\nperplexity ${figures(value)}, ${figures(bits)} bits per weight`]] };
  });
  if (series.length) card("Perplexity against bits", half, null, live((width) => plane(width, 300, series, { log: true, xTitle: "bits per weight", yTitle: "perplexity" })), make("p", { class: "note" }, "Less is better on both axes; the vertical one is logarithmic."));
}

function table(heads, rows) {
  const body = make("tbody", {});
  const show = (list) => body.replaceChildren(...list.map((row) => make("tr", {}, row.map(([content, , cls]) => make("td", { class: cls || "" }, content)))));
  let order = 1;
  const head = heads.map(([text, cls], column) => make("th", { class: `sortable ${cls || ""}`, onclick: () => {
    order = -order;
    show([...rows].sort((a, b) => order * (a[column][1] > b[column][1] ? 1 : a[column][1] < b[column][1] ? -1 : 0)));
  } }, text));
  show(rows);
  return make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, head)), body));
}

// One line for each pair of sides, one column for each metric.
function changes() {
  if (!data.changes.length) return;
  const pairs = new Map();
  for (const change of data.changes) {
    const key = [change.model, change.config, change.commit, change.baseline].join("\n");
    if (!pairs.has(key)) pairs.set(key, { first: change, found: {} });
    pairs.get(key).found[change.metric] = change;
  }
  const used = metrics.filter((metric) => data.changes.some((change) => change.metric === metric));
  const rows = [...pairs.values()].map(({ first, found }) => {
    const side = first.of === "commit" && configs.length < 2 ? first.commit : `${first.config}${commits.length > 1 ? ` · ${first.commit}` : ""}`;
    return [[first.model, first.model], [side, side], [first.baseline, first.baseline], ...used.map((metric) => found[metric] ? [chip(found[metric]), found[metric].percent, "number"] : ["–", -Infinity, "number"])];
  });
  card("Changes", false, null, table([["model"], ["measured"], ["against"], ...used.map((metric) => [metric, "number"])], rows), make("p", { class: "note" }, "± is half the width of the interval that holds 95 % of resampled changes; a change is beyond the noise, and coloured, if that interval does not hold zero. Grey: within the noise, or too few values to tell."));
}

function chip(change) {
  const kind = !change.beyond_noise ? "" : change.worse ? "bad" : "good";
  const noise = change.noise === null ? "" : ` ± ${change.noise.toFixed(1)}`;
  const verdict = change.beyond_noise === null ? "too few values to tell the noise" : !change.beyond_noise ? "within the noise" : change.worse ? "worse" : "better";
  const unit = data.units[change.metric];
  return make("span", { class: `chip ${kind}`, title: `${format(change.before, unit)} → ${format(change.after, unit)}: ${verdict}` }, `${change.percent > 0 ? "+" : ""}${change.percent.toFixed(1)} %${noise}`);
}

function numbers() {
  const rows = sorted(data.rows).map((row) => [[row.model, row.model], [row.config, row.config], [row.commit, row.commit], ...metrics.map((metric) => [format(row.metrics[metric], data.units[metric]), row.metrics[metric] ?? -Infinity, "number"])]);
  card("All numbers", false, null, table([["model"], ["configuration"], ["commit"], ...metrics.map((metric) => [metric, "number"])], rows));
}

// One line for each failure; where it comes from unfolds.
function problems() {
  if (data.failures.length) {
    const lines = data.failures.map((failure) => make("li", {},
      make("b", {}, [models.length > 1 ? failure.model : "", failure.config, commits.length > 1 ? failure.commit : ""].filter(Boolean).join(" · ")),
      make("p", {}, failure.message),
      failure.traceback ? make("details", {}, make("summary", {}, "where"), make("pre", {}, failure.traceback)) : ""));
    card("Failed", false, make("span", { class: "chip bad" }, `${data.failures.length} of ${data.rows.length}`), make("ul", { class: "failures" }, lines));
  }
  if (data.disagreements.length) {
    const lines = data.disagreements.map((one) => make("li", {}, make("b", {}, one.model), make("p", {}, one.sides.join(" and "))));
    card("Not comparable", false, null, make("p", { class: "note" }, "These generate different tokens, so their times are of different work."), make("ul", { class: "failures" }, lines));
  }
}

function facts() {
  const machine = data.machine || {};
  const missing = Object.assign({}, ...data.rows.map((row) => row.not_measured));
  const costs = data.rows.flatMap((row) => row.sampling).map((cost) => cost.cpu_percent).filter((value) => value !== undefined);
  const pairs = [["processor", `${machine.cpu}, ${machine.cpu_count} cores, ${figures((machine.cpu_ram_mb || 0) / 1000)} GB`], ["GPU", (machine.gpu || []).join(", ") || "none"], ["system", `${machine.system} ${machine.machine}, Python ${machine.python_version}`]];
  for (const [backend, found] of Object.entries(data.environments || {})) pairs.push([backend, `threads ${found.threads ?? "not set"}; Python ${found.python_version}; ${Object.entries(found.packages || {}).map((pair) => pair.join(" ")).join(", ")}`]);
  for (const commit of commits) if (data.commits[commit].subject) pairs.push([commit, `${data.commits[commit].subject} (${data.commits[commit].date.slice(0, 10)})`]);
  if (costs.length) pairs.push(["sampling", `took ${figures(Math.max(...costs))} % of a core at most, outside of the measured process where that is one of its own`]);
  for (const [what, why] of Object.entries(missing)) pairs.push([`no ${what}`, why]);
  card("How it was measured", false, null, make("dl", {}, pairs.flatMap(([key, value]) => [make("dt", {}, key), make("dd", {}, value)])), make("pre", {}, data.command || ""));
}

function theme() {
  const root = document.documentElement;
  root.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  document.getElementById("theme").addEventListener("click", () => { root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark"; });
}

theme();
document.body.append(tip);
document.getElementById("told").textContent = `${(data.created || "").replace("T", " ").slice(0, 16)} UTC · ${models.join(", ")}`;
tiles();
comparison();
history();
const both = data.rows.some((row) => row.timeline.seconds.length > 1) && metrics.some((metric) => metric.endsWith("quality.bits_per_weight"));
overTime(both);
quality(both);
problems();
changes();
numbers();
facts();
