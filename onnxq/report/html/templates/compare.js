// The sections on all models, in the order of a reader's questions.

// The number of a view's model among all models.
const offset = candidates.length ? 1 : 0;

function modelOf(view) {
  return data.views.indexOf(view) + offset;
}

function sizeOf(node, model) {
  return data.sizes[model]?.layers[node] ?? NaN;
}

function errorOf(node, model, key) {
  return data.views[model - offset]?.nodes[node]?.error?.[key] ?? NaN;
}

// How even a weight's channels are; the float model's are those before equalization.
function evenness(node, model) {
  if (model >= offset && candidates.length && model > 0) return data.views[model - offset].nodes[node]?.weights?.after?.median ?? NaN;
  const there = data.views.map((view) => view.nodes[node]?.weights).find(Boolean);
  return (candidates.length ? there?.before : there?.after)?.median ?? NaN;
}

// What layers are compared by.
const MEASURES = [
  { key: "share", header: "share of the error", unit: "%", exact: false, worse: "high", places: 1,
    of: (node, model) => errorOf(node, model, "share"), text: (value) => fixed(value, 1),
    says: "How much of the error of the model's output this layer makes; all layers of a model make 100 %. What is high hurts." },
  { key: "alone", header: "output if only it is quantized", unit: "dB", exact: false, worse: "low", places: 1,
    of: (node, model) => errorOf(node, model, "alone"), text: decibels,
    says: "Signal against error (SQNR) of the model's output where only this layer is quantized. What is low hurts." },
  { key: "own", header: "its own error", unit: "dB", exact: false, worse: "low", places: 1,
    of: (node, model) => errorOf(node, model, "own"), text: decibels,
    says: "Signal against error (SQNR) of this layer's output, computed from exact inputs: what its own weights and input ranges do to it, whether the output of the model cares or not." },
  { key: "standing", header: "its output as it stands", unit: "dB", exact: false, worse: "low", places: 1,
    of: (node, model) => errorOf(node, model, "standing"), text: decibels,
    says: "Signal against error (SQNR) of this layer's output in the quantized model, with the errors of all layers before it." },
  { key: "even", header: "evenness of its channels", unit: "%", exact: true, worse: "low", places: 1,
    of: evenness, text: (value) => fixed(value, 1),
    says: "The largest weight of the median output channel against that of the widest one. With one scale for all channels, a channel of 1 % is left with 1 % of the numbers. Equalization raises this." },
  { key: "size", header: "size", unit: "kB", exact: true, worse: "high", places: 1,
    of: (node, model) => sizeOf(node, model) / 1e3, text: (value) => number(value, 4),
    says: "What the layer's weights, biases, scales and zero points take in the file." },
];

function heading(measure) {
  return measure.header.charAt(0).toUpperCase() + measure.header.slice(1) + " (" + measure.unit + ")";
}

// Buttons of which one is chosen.
function choices(label, words, act, at) {
  const buttons = words.map((word, index) => el("button", {
    type: "button", "aria-pressed": String(index === (at || 0)), onclick: () => {
      buttons.forEach((each, other) => each.setAttribute("aria-pressed", String(other === index)));
      act(index);
    } }, word));
  return el("div", { class: "choice", role: "group", "aria-label": label }, el("span", { class: "soft small" }, label), buttons);
}

// --- what to try next -----------------------------------------------------------------------

function nextSection() {
  if (!data.advice.some((each) => each.length)) return null;
  const nodes = new Map(data.nodes.map((node, index) => [node.name, index]));
  return el("div", null,
    el("p", { class: "small soft" }, "From what was measured on this page. Each is an option of onnxq quantize; try one at a time and compare again."),
    el("div", { class: "advices" }, data.advice.map((found, at) => found.length ? el("div", { class: "advice" },
      el("h3", null, dot(at + 1), data.models[at + 1].name),
      el("ol", null, found.map((each) => el("li", null, each.found, " ",
        each.option ? [el("code", null, each.option), " ", each.effect, "."] : [each.effect, "."],
        each.layer && nodes.has(each.layer) ? [" ", el("a", { href: "#n" + nodes.get(each.layer) }, "See the layer")] : null)))) : null)));
}

// --- accuracy, size and time ----------------------------------------------------------------

function tradeSection() {
  if (!candidates.length) return null;
  const metrics = data.models[1].metrics ? Object.keys(data.models[1].metrics) : [];
  const timed = data.models.every((model) => model.milliseconds !== null);
  const chart = el("div"), area = el("span");
  const shown = { metric: 0, time: false };

  function draw() {
    const name = metrics[shown.metric], points = [];
    data.models.forEach((model, index) => {
      const y = real(model.metrics[name].value);
      if (!Number.isFinite(y)) return;
      points.push({ model: index, y, x: shown.time ? model.milliseconds : model.size / 1e6,
        weight: timed ? (shown.time ? model.size : model.milliseconds) : 0,
        text: [metricText(model.metrics[name]), bytes(model.size), timed ? number(model.milliseconds) + " ms" : null].filter(Boolean).join(" · ") });
    });
    const best = pareto(name);
    points.forEach((point) => { point.best = best.has(point.model); });
    const unit = data.models[1].metrics[name].unit;
    area.textContent = !timed ? "" : shown.time ? "The larger a circle, the larger the file." : "The larger a circle, the longer a run takes.";
    put(chart, points.length ? scatter({ points, label: "Models by " + metricName(name) + " and size",
      x: shown.time ? "time of a run on this machine (ms)" : "size of the file (MB)",
      y: metricName(name) + (unit ? " (" + unit + ")" : "") }) : el("p", { class: "soft" }, "Nothing that can be drawn."));
  }

  const told = [];
  if (metrics.length) {
    draw();
    told.push(el("div", { class: "choices" },
      metrics.length > 1 ? choices("Vertical", metrics.map(metricName), (at) => { shown.metric = at; draw(); }) : null,
      timed ? choices("Horizontal", ["size", "time"], (at) => { shown.time = at === 1; draw(); }) : null), chart,
    el("p", { class: "small soft" }, "Better is further up and further left. Ringed: no other model here is as good or better in everything that was measured. ", area));
  }
  return el("div", null, told, modelTable(metrics, timed));
}

function metricName(name) {
  return name === "sqnr" ? "SQNR" : name;
}

function metricText(metric) {
  if (metric.unit === "dB") return decibels(metric.value) + (real(metric.value) === Infinity ? "" : " dB");
  return number(metric.value, 4) + (metric.unit ? " " + metric.unit : "");
}

// Models that no other one beats in accuracy, size and time together.
function pareto(name) {
  const values = data.models.map((model) => {
    const found = real(model.metrics?.[name]?.value);
    // The float model's outputs are its own.
    return [Number.isNaN(found) ? (model.quantized ? -Infinity : Infinity) : found, -model.size, -(model.milliseconds ?? 0)];
  });
  const beaten = (mine) => values.some((other) => other !== mine &&
    other.every((each, at) => each >= mine[at]) && other.some((each, at) => each > mine[at]));
  return new Set(values.flatMap((each, index) => beaten(each) ? [] : [index]));
}

function modelTable(metrics, timed) {
  const best = metrics.length ? pareto(metrics[0]) : new Set();
  const columns = [
    { header: "Model", word: true, key: (index) => data.models[index].name, show: (index) => [dot(index), data.models[index].name, best.has(index) ? el("span", { class: "tag", title: "No other model here is as good or better in everything" }, "not beaten") : null] },
    ...metrics.map((name) => ({ header: metricName(name) + (data.models[1].metrics[name].unit ? " (" + data.models[1].metrics[name].unit + ")" : ""),
      numeric: true, key: (index) => data.models[index].metrics[name].value,
      show: (index) => data.models[index].metrics[name].unit === "dB" ? decibels(data.models[index].metrics[name].value) : number(data.models[index].metrics[name].value, 5) })),
    { header: "Size (MB)", numeric: true, key: (index) => data.models[index].size / 1e6, show: (index) => number(data.models[index].size / 1e6) },
    { header: "Size by float", numeric: true, key: (index) => data.models[index].size / floatModel.size, show: (index) => fixed(100 * data.models[index].size / floatModel.size, 0) + " %" },
  ];
  if (timed) {
    columns.push(
      { header: "Time (ms)", numeric: true, key: (index) => data.models[index].milliseconds, show: (index) => number(data.models[index].milliseconds) },
      { header: "Time by float", numeric: true, key: (index) => data.models[index].ratio, show: (index) => number(data.models[index].ratio) + " ×" });
  }
  return makeTable({ id: "models", label: "Models", columns, rows: data.models.map((_, index) => index) });
}

// --- layers ---------------------------------------------------------------------------------

function comparedLayers() {
  return data.nodes.map((_, index) => index).filter((node) =>
    data.views.some((view) => view.nodes[node]?.error || view.nodes[node]?.weights));
}

function layersSection() {
  const rows = comparedLayers();
  if (!rows.length) return null;
  const measures = MEASURES.filter((measure) => rows.some((node) => data.views.some((_, at) => Number.isFinite(real(measure.of(node, at + offset))))));
  if (!measures.length) return null;
  const holder = el("div"), says = el("p", { class: "small soft" });

  function show(at) {
    const measure = measures[at];
    says.textContent = measure.says;
    put(holder, layerTable(measure, rows), layerChart(measure, rows));
    redrawSoon();
  }

  show(0);
  return el("div", null,
    el("div", { class: "choices" }, choices("Compare by", measures.map((measure) => measure.header), show)), says, holder,
    layerNotes());
}

function layerTable(measure, rows) {
  const folder = sharedFolder(rows);
  const models = data.models.map((_, index) => index).filter((index) => index >= offset || measure.exact);
  const most = Math.max(...rows.flatMap((node) => models.map((index) => real(measure.of(node, index))).filter(Number.isFinite)));
  const columns = [
    { header: "Layer", key: (node) => data.nodes[node].name, show: (node) => nodeLink(node, folder) },
    { header: "Operator", word: true, key: (node) => data.nodes[node].operator },
    ...models.map((index) => ({ header: data.models[index].name + " (" + measure.unit + ")", mark: dot(index), numeric: true,
      key: (node) => measure.of(node, index),
      show: (node) => bar(measure.of(node, index), most, estimated(node, index, measure) + measure.text(measure.of(node, index)), "background:var(" + modelColor(index) + ")") })),
  ];
  if (models.length > 1) {
    const [first, last] = [models[0], models[models.length - 1]];
    columns.push({ header: models.length > 2 ? "Spread (" + measure.unit + ")" : "Difference (" + measure.unit + ")", numeric: true,
      title: models.length > 2 ? "The largest less the smallest" : data.models[last].name + " less " + data.models[first].name,
      key: (node) => difference(models.map((index) => real(measure.of(node, index)))),
      show: (node) => signed(difference(models.map((index) => real(measure.of(node, index)))), measure.places, models.length > 2) });
  }
  const formats = rows.some((node) => new Set(data.views.map((view) => view.nodes[node]?.format)).size > 1)
    ? data.views.map((view) => view) : data.views.slice(0, 1);
  formats.forEach((view) => columns.push({ header: formats.length > 1 ? "Format, " + data.models[modelOf(view)].name : "Format",
    key: (node) => view.nodes[node]?.format ?? "folded" }));
  if (measure.key === "share") {
    columns.push({ header: "Error from", long: true, key: cause });
  }
  return makeTable({ id: "layers-table", label: "Layers, compared", find: "layer, operator or cause", columns, rows, sorted: 2, kind: "layers" });
}

function difference(values) {
  if (values.some(Number.isNaN)) return null;
  if (values.length > 2) return Math.max(...values) - Math.min(...values);
  return values[0] === values[1] ? 0 : values[1] - values[0];
}

function signed(value, places, alike) {
  if (value === null || value === undefined) return "–";
  return (value > 0 && !alike ? "+" : "") + fixed(value, places);
}

function estimated(node, index, measure) {
  return (measure.key === "share" || measure.key === "alone") && errorOf(node, index, "estimated") === true ? "~" : "";
}

// Where the error comes from, in the model in which the layer makes the larger share.
function cause(node) {
  const found = data.views.map((view) => view.nodes[node]?.error).filter(Boolean).sort((a, b) => real(b.share) - real(a.share))[0];
  return found ? found.from : "";
}

function layerChart(measure, rows) {
  const models = data.models.map((_, index) => index).filter((index) => index >= offset || measure.exact);
  return lineChart({
    label: heading(measure) + " in the order of the graph", x: "layers in the order of the graph", y: heading(measure).replace(/^(.{34}).+ \(/, "$1… ("),
    names: (at) => data.nodes[rows[at]].name, unit: measure.unit, places: measure.places, points: true,
    series: models.map((model) => ({ model, values: rows.map((node) => measure.of(node, model)) })),
  });
}

function layerNotes() {
  const told = data.views.filter((view) => view.errors).map((view) => {
    const { errors } = view, rough = Object.values(view.nodes).some((node) => node.error?.estimated);
    return el("li", null, dot(modelOf(view)), data.models[modelOf(view)].name, ": ", decibels(errors.together), " dB at the worst output on ", count(errors.probes, "sample"),
      "; the errors of all layers add up to ", decibels(errors.sum_of_parts), " dB.",
      rough ? " The worst layers were run on all of these, the others (~) are estimated." : "",
      errors.unmatched.length ? [" Not measured by itself: ", errors.unmatched.map((each) => each.name + " (" + each.reason + ")").join("; "), "."] : null);
  });
  if (!told.length) return null;
  const curves = data.views.filter((view) => view.curve.length > 1);
  return el("div", null,
    el("p", { class: "small soft" }, "“Levels” in the causes are the numbers that a format has: int8 has 255 of them, and a channel that stays far below the end of the range uses few."),
    el("ul", { class: "small" }, told),
    curves.length ? [el("h3", null, "If the worst layers stayed in float"), lineChart({
      label: "SQNR of the output to expect with the worst layers in float",
      x: "layers left in float, the worst first", y: "SQNR to expect (dB)", unit: "dB", places: 1,
      names: (at) => count(at, "layer") + " in float",
      note: "If errors of different layers are independent; onnxq quantize --max-drop measures instead.",
      series: curves.map((view) => ({ model: modelOf(view), values: view.curve })),
    })] : null);
}

// --- outputs and classes --------------------------------------------------------------------

function outputsSection() {
  const { measured } = data;
  if (!measured || !candidates.length) return null;
  const rows = measured.outputs, models = candidates.map((_, at) => at);
  const table = makeTable({ id: "outputs-table", label: "Outputs", rows, find: "output", columns: [
    { header: "Output", key: (row) => row.part },
    ...models.map((at) => ({ header: data.models[at + 1].name + " SQNR (dB)", mark: dot(at + 1), numeric: true, key: (row) => row.models[at]?.sqnr,
      show: (row) => row.models[at] ? decibels(row.models[at].sqnr) + (Number.isNaN(real(row.models[at].error)) ? "" : " ± " + number(row.models[at].error, 2)) : "–" })),
    ...(models.length === 2 ? [{ header: "Difference (dB)", numeric: true, key: (row) => difference(row.models.map((each) => real(each?.sqnr))),
      show: (row) => signed(difference(row.models.map((each) => real(each?.sqnr))), 1) }] : []),
    ...models.map((at) => ({ header: data.models[at + 1].name + " largest error", mark: dot(at + 1), numeric: true, key: (row) => row.models[at]?.largest, show: (row) => number(row.models[at]?.largest) })),
    ...models.map((at) => ({ header: data.models[at + 1].name + " cosine", mark: dot(at + 1), numeric: true, key: (row) => row.models[at]?.cosine, show: (row) => number(row.models[at]?.cosine, 6) })),
  ] });
  return el("div", null,
    el("p", { class: "small soft" }, "SQNR: the power of the float model's values over that of the error, in dB; 20 dB are an error of 10 %, 40 dB one of 1 %. Parts of an output that differ much in size, such as boxes and scores, are told apart."),
    table, classTable(),
    measured.gates ? [el("h3", null, "Gates"), plainTable("gates", "Gates", measured.gates)] : null,
    measured.executions > 1 ? [el("h3", null, "All executions"), plainTable("executions", "All executions", measured.metrics)] : null,
    measured.kernels.map((each, at) => [el("p", null, each.told), plainTable("kernels-" + at, "Kernels", each.table)]));
}

function classTable() {
  const found = data.samples;
  if (!found || !found.classes.length) return null;
  return [el("h3", null, "Classes"), makeTable({ id: "classes", label: "Classes", find: "class", rows: found.classes, columns: [
    { header: "Class", key: (row) => row.name },
    { header: "Samples", numeric: true, key: (row) => row.samples },
    ...data.models.map((model, at) => ({ header: model.name + " right (%)", mark: dot(at), numeric: true, key: (row) => row.right[at],
      show: (row) => bar(row.right[at], 100, fixed(row.right[at], 1), "background:var(" + modelColor(at) + ")") })),
    ...candidates.map((model, at) => ({ header: model.name + " − float", numeric: true, key: (row) => row.right[at + 1] - row.right[0], show: (row) => signed(row.right[at + 1] - row.right[0], 1) })),
  ] })];
}

// --- samples --------------------------------------------------------------------------------

function samplesSection() {
  const found = data.samples;
  if (!found || !found.worst.length) return null;
  const answers = found.worst.some((each) => each.float);
  const flips = answers ? found.flipped.map((each, at) => el("li", null, dot(at + 1), data.models[at + 1].name, " answers ", count(each, "sample"), " of " + found.counted.toLocaleString("en") + " differently from the float model.")) : [];
  return el("div", null,
    el("p", { class: "small soft" }, "The samples whose outputs are furthest from the float model's, of ", found.counted.toLocaleString("en"), ". The dB are the signal of an average sample over the error of this one, in the worst output."),
    el("ul", { class: "small" }, flips),
    el("div", { class: "samples" }, found.worst.map((sample) => el("figure", { class: "sample" },
      sample.picture ? el("img", { src: sample.picture, alt: sample.name }) : null,
      sample.text ? el("blockquote", null, sample.text) : null,
      el("figcaption", null, el("div", { class: "small sample-name", title: sample.name }, sample.name.split(/[\\/]/).slice(-2).join("/")),
        sample.label ? el("div", { class: "small" }, "is ", el("strong", null, sample.label), ", float says ", sample.float) : null,
        sample.models.map((each, at) => el("div", { class: "small" }, dot(at + 1), data.models[at + 1].name + ": " + decibels(each.error) + " dB",
          each.answer ? [", ", el("span", { class: each.answer === sample.float ? "" : "changed" }, each.answer)] : null)))))));
}

// --- size -----------------------------------------------------------------------------------

function sizeSection() {
  // What takes most first; what no tensor takes last, and in one color with what is small.
  const total = (kind) => data.sizes.reduce((sum, each) => sum + (each.kinds[kind] ?? 0), 0);
  const rest = (kind) => kind.startsWith("graph") ? 1 : 0;
  const kinds = [...new Set(data.sizes.flatMap((each) => Object.keys(each.kinds)))]
    .sort((a, b) => rest(a) - rest(b) || total(b) - total(a));
  const large = kinds.filter((kind) => !rest(kind) && total(kind) > 0.004 * total(kinds[0])).slice(0, 7);
  const parts = (each) => large.map((kind) => [kind, each.kinds[kind] ?? 0])
    .concat([["all else", kinds.filter((kind) => !large.includes(kind)).reduce((sum, kind) => sum + (each.kinds[kind] ?? 0), 0)]]);
  const most = Math.max(...data.sizes.map((each) => each.whole));
  const nodes = data.nodes.map((_, index) => index).filter((node) => data.sizes.some((each) => each.layers[node]));
  const folder = sharedFolder(nodes);
  const largest = Math.max(...nodes.flatMap((node) => data.models.map((_, at) => sizeOf(node, at) || 0)));
  return el("div", null,
    stacked(data.sizes.map((each, model) => ({ model, whole: each.whole, parts: parts(each) })), most),
    el("p", { class: "small" }, large.concat("all else").map((kind, index) => el("span", { class: "key" }, el("span", { class: "swatch", style: "background:" + kindColor(index, large.length) }), kind))),
    makeTable({ id: "kinds", label: "Sizes by kind", rows: kinds, columns: [
      { header: "What", key: (kind) => kind },
      ...data.models.map((model, at) => ({ header: model.name + " (kB)", mark: dot(at), numeric: true, key: (kind) => (data.sizes[at].kinds[kind] ?? 0) / 1e3, show: (kind) => number((data.sizes[at].kinds[kind] ?? 0) / 1e3, 4) })),
    ] }),
    nodes.length ? [el("h3", null, "By layer"), makeTable({ id: "sizes", label: "Sizes by layer", find: "layer", rows: nodes, sorted: 2, columns: [
      { header: "Layer", key: (node) => data.nodes[node].name, show: (node) => nodeLink(node, folder) },
      { header: "Operator", word: true, key: (node) => data.nodes[node].operator },
      ...data.models.map((model, at) => ({ header: model.name + " (kB)", mark: dot(at), numeric: true, key: (node) => sizeOf(node, at) / 1e3,
        show: (node) => bar(sizeOf(node, at), largest, number(sizeOf(node, at) / 1e3, 4), "background:var(" + modelColor(at) + ")") })),
      { header: "Stored as", word: true, key: (node) => [...new Set(data.sizes.map((each) => each.stored[node]).filter(Boolean))].join(", ") },
    ] })] : null);
}

// --- time -----------------------------------------------------------------------------------

function latencySection() {
  const found = data.latency;
  if (!found) return null;
  const rows = found.rows.slice(0, data.models.length);
  const times = rows.map((row) => new Map((row.operators || []).map((each) => [each.operator, each])));
  const names = [...new Set(times.flatMap((each) => [...each.keys()]))];
  const most = Math.max(0, ...times.flatMap((each) => [...each.values()].map((one) => one.milliseconds)));
  return el("div", null,
    plainTable("latencies", "Times", found.table),
    el("p", { class: "small soft" }, "On the machine that made this page: " + found.told + ". Against the first: the time by that of the first model in the same round, with its quartiles."),
    names.length ? [el("h3", null, "By operator"),
      makeTable({ id: "latency-operators", label: "Time by operator", find: "operator", rows: names, sorted: 1, columns: [
        { header: "Operator", word: true, key: (name) => name },
        ...rows.map((_, at) => ({ header: data.models[at].name + " (ms)", mark: dot(at), numeric: true, key: (name) => times[at].get(name)?.milliseconds,
          show: (name) => bar(times[at].get(name)?.milliseconds, most, number(times[at].get(name)?.milliseconds), "background:var(" + modelColor(at) + ")") })),
        ...rows.map((_, at) => ({ header: data.models[at].name + " nodes", numeric: true, key: (name) => times[at].get(name)?.nodes })),
      ] }),
      el("p", { class: "small soft" }, "The operators that ONNX Runtime really runs, timed by its profiler, which itself takes some time at each node.")] : null);
}
