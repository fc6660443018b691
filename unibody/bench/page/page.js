// The page: what is shown of the data, in which order.
const data = JSON.parse(document.getElementById("data").textContent);
const page = document.getElementById("page");
const metrics = Object.keys(data.units);
const commits = Object.keys(data.commits);
const configs = [...new Set(data.rows.map((row) => row.config))];
const models = [...new Set(data.rows.map((row) => row.model))];
const name = (row) => [models.length > 1 ? row.model : "", configs.length > 1 || commits.length < 2 ? row.config : "", commits.length > 1 ? row.commit : ""].filter(Boolean).join(" · ") || row.model;
const tint = (row) => colour(configs.length > 1 ? configs.indexOf(row.config) : commits.indexOf(row.commit));

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

function chooser(names, chosen, changed) {
  const select = make("select", { "aria-label": "metric", onchange: () => changed(select.value) });
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

function comparison() {
  if (!metrics.length) return;
  let metric = metrics.find((one) => one.startsWith("decode.throughput")) || metrics.find((one) => one.includes("throughput")) || metrics.find((one) => one.startsWith("decode")) || metrics[0];
  const items = () => models.flatMap((model) => data.rows.filter((row) => row.model === model)).filter((row) => row.failed || row.metrics[metric] !== null).map((row) => ({ group: row.model, label: [row.config, commits.length > 1 ? row.commit : ""].filter(Boolean).join(" · "), value: row.metrics[metric], values: row.values[metric], colour: tint(row), text: row.failed ? "failed" : "not measured" }));
  const plot = live((width) => bars(width, items(), data.units[metric]));
  const note = make("p", { class: "note" });
  const tell = () => { note.textContent = `${data.better[metric] === "more" ? "More" : "Less"} is better. Dots are single measurements.`; };
  card("Throughput and times by configuration", false, chooser(metrics, metric, (chosen) => { metric = chosen; tell(); plot.again(); }), plot, note);
  tell();
}

function history() {
  if (commits.length < 2 || !metrics.length) return;
  let metric = metrics.find((one) => one.includes("latency.p50")) || metrics[0];
  const series = () => models.flatMap((model) => configs.map((config, index) => ({
    label: models.length > 1 ? `${model} · ${config}` : config, colour: colour(index), line: true, dots: true,
    points: commits.flatMap((commit, at) => data.rows.filter((row) => row.model === model && row.config === config && row.commit === commit && row.metrics[metric] !== null).map((row) => [at, row.metrics[metric], `${commit} ${data.commits[commit].subject}\n${config}\n${format(row.metrics[metric], data.units[metric])}`])),
  }))).filter((one) => one.points.length);
  const plot = live((width) => [plane(width, 280, series(), { zero: true, unit: data.units[metric], names: commits, x: [-0.3, commits.length - 0.7] }), legend(series())]);
  card("History by commit", false, chooser(metrics, metric, (chosen) => { metric = chosen; plot.again(); }), plot);
}

function overTime(half) {
  const rows = data.rows.filter((row) => row.timeline.seconds.length > 1);
  if (!rows.length) return;
  const kinds = { "memory of the process, MB": "memory", "processor, % of a core": "cpu", "memory of the GPU, MB": "gpu" };
  const there = Object.keys(kinds).filter((kind) => rows.some((row) => row.timeline[kinds[kind]].some((value) => value !== null)));
  let kind = there[0];
  const series = () => rows.slice(0, 12).map((row) => ({ label: name(row), colour: tint(row), line: true, dashed: configs.length > 1 && commits.indexOf(row.commit) > 0, points: row.timeline.seconds.map((second, at) => [second, row.timeline[kinds[kind]][at], null, row.timeline.round[at]]).filter((point) => point[1] !== null) })).filter((one) => one.points.length);
  const plot = live((width) => [plane(width, 280, series(), { zero: true, xTitle: "seconds, each round from its beginning" }), legend(series())]);
  card("Memory over time", half, chooser(there, kind, (chosen) => { kind = chosen; plot.again(); }), plot, rows.length > 12 ? make("p", { class: "note" }, `The first 12 of ${rows.length}.`) : "");
}

function quality(half) {
  const phase = metrics.map((one) => one.split(".")[0]).find((one) => metrics.includes(`${one}.quality.bits_per_weight`));
  if (!phase) return;
  const rows = data.rows.filter((row) => row.metrics[`${phase}.quality.bits_per_weight`] !== null && row.metrics[`${phase}.quality.perplexity`] !== null);
  const series = rows.map((row) => {
    const [bits, value] = [row.metrics[`${phase}.quality.bits_per_weight`], row.metrics[`${phase}.quality.perplexity`]];
    return { label: row.config.replace(/^quantizer=/, ""), colour: tint(row), dots: true, named: true, points: [[bits, value, `${name(row)}\nperplexity ${figures(value)}, ${figures(bits)} bits per weight`]] };
  });
  if (series.length) card("Perplexity against bits", half, null, live((width) => plane(width, 300, series, { log: true, xTitle: "bits per weight" })), make("p", { class: "note" }, "Less is better on both axes; the vertical one is logarithmic."));
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
  const rows = data.rows.map((row) => [[row.model, row.model], [row.config, row.config], [row.commit, row.commit], ...metrics.map((metric) => [format(row.metrics[metric], data.units[metric]), row.metrics[metric] ?? -Infinity, "number"])]);
  card("All numbers", false, null, table([["model"], ["configuration"], ["commit"], ...metrics.map((metric) => [metric, "number"])], rows));
}

function problems() {
  for (const failure of data.failures) card(`Failed: ${failure.config} at ${failure.commit}`, false, make("span", { class: "chip bad" }, failure.model), make("p", {}, failure.message), failure.traceback ? make("pre", {}, failure.traceback) : "");
  for (const one of data.disagreements) card("Not comparable", false, make("span", { class: "chip bad" }, one.model), make("p", {}, `${one.sides.join(" and ")} generate different tokens, so their times are of different work.`));
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
problems();
comparison();
history();
const both = data.rows.some((row) => row.timeline.seconds.length > 1) && metrics.some((metric) => metric.endsWith("quality.bits_per_weight"));
overTime(both);
quality(both);
changes();
numbers();
facts();
