// What comes out of the models: outputs, classes, the worst samples.

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
    // Metrics of several values, and other ways to run the models.
    measured.metrics && (measured.executions > 1 || measured.metrics.columns.length > 4 + Object.keys(data.models[1].metrics).length)
      ? [el("h3", null, "All metrics"), plainTable("metrics", "All metrics", measured.metrics)] : null,
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
