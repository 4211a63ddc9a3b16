// What models are compared by, what to try next, and which layers hurt.

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
