// One model at a time: how it was made, ranges, weights, equalization, parameters, what stays in float.

function modelSection() {
  const panel = el("div", { class: "panel", role: "tabpanel", id: "model-panel", tabindex: "-1" });
  const tabs = data.views.map((view, at) => el("button", { type: "button", role: "tab", id: "tab-" + view.id,
    "aria-controls": "model-panel", onclick: () => choose(at), onkeydown: (event) => {
      const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
      if (!step) return;
      event.preventDefault();
      const to = (at + step + tabs.length) % tabs.length;
      choose(to);
      tabs[to].focus();
    } }, dot(modelOf(view)), data.models[modelOf(view)].name));

  function choose(at) {
    tabs.forEach((tab, index) => {
      tab.setAttribute("aria-selected", String(index === at));
      tab.setAttribute("tabindex", index === at ? "0" : "-1");
    });
    panel.setAttribute("aria-labelledby", tabs[at].id);
    put(panel, modelPanel(data.views[at]));
  }

  choose(0);
  return el("div", null,
    data.views.length > 1 ? el("div", { class: "tabs", role: "tablist", "aria-label": "Models" }, tabs) : null, panel);
}

function modelPanel(view) {
  const parts = [
    ["How it was made", made(view)],
    ["Ranges of activations", ranges(view)],
    ["Channels of weights", channels(view)],
    ["Equalization", candidates.length || view.tables.Barriers || view.equalized ? equalization(view) : null],
    ["Parameters of quantized layers", view.tables.Learnables ? () => [plainTable(view.id + "-learnables", "Parameters", view.tables.Learnables, nodesByName)] : null],
    ["Left in float", view.tables["Left in float"] ? () => [plainTable(view.id + "-float", "Left in float", view.tables["Left in float"], nodesByName)] : null],
    ["All nodes", allNodes(view)],
  ].filter(([, content]) => content);
  const first = el("div", { class: "choices" });
  const holder = el("div");
  const show = (at) => {
    put(holder, el("h3", null, parts[at][0]), parts[at][1]());
    redrawSoon();
  };
  first.append(choices("Part", parts.map(([title]) => title), show));
  show(0);
  return [first, holder];
}

const nodesByName = new Map(data.nodes.map((node, index) => [node.name, index]));

function made(view) {
  return () => [
    el("ul", { class: "small plain" }, view.summary.map((line) => el("li", null, line))),
    view.command ? [el("p", null, "To make it again, save the recipe and run"),
      el("div", { class: "code" }, el("pre", { tabindex: "0" }, el("code", null, view.command)), copyButton(view.command)),
      el("div", { class: "code" }, el("pre", { tabindex: "0" }, el("code", null, view.recipe)),
        el("div", { class: "buttons" }, copyButton(view.recipe),
          el("button", { type: "button", class: "action", onclick: () => save("recipe.toml", view.recipe, "application/toml") }, "Save recipe.toml")))] : null,
    view.settings.length ? el("details", { class: "facts", open: !view.command }, el("summary", null, "Settings and what came of them"),
      el("dl", null, view.settings.map(([name, value]) => [el("dt", null, name), el("dd", null, value)]))) : null,
  ];
}

function ranges(view) {
  if (!view.tensors.length) return null;
  return () => [
    el("p", { class: "small soft" }, data.calibrated ? "Values over " + data.calibrated + ", as this model scales its channels; heights are counts on a logarithmic scale, the dashed line is 0. " : "",
      "Red lines bound what the numbers stand for; what lies in the tinted part is clipped to it."),
    makeTable({ id: view.id + "-ranges", label: "Ranges of activations", find: "tensor or reader", rows: view.tensors, kind: "ranges", columns: [
      { header: "Tensor", key: (tensor) => tensor.name },
      ...(view.tensors.some((tensor) => tensor.histogram) ? [
        { header: "Values", key: () => "", show: (tensor) => histogram(tensor) || "–" },
        { header: "Least", numeric: true, key: (tensor) => tensor.low, show: (tensor) => number(tensor.low, 4) },
        { header: "Largest", numeric: true, key: (tensor) => tensor.high, show: (tensor) => number(tensor.high, 4) }] : []),
      { header: "From", numeric: true, title: "What the smallest number stands for", key: (tensor) => tensor.range?.[0], show: (tensor) => tensor.range ? number(tensor.range[0], 4) : "float" },
      { header: "To", numeric: true, title: "What the largest number stands for", key: (tensor) => tensor.range?.[1], show: (tensor) => tensor.range ? number(tensor.range[1], 4) : "float" },
      { header: "Clipped (%)", numeric: true, key: (tensor) => tensor.clipped, show: (tensor) => number(tensor.clipped, 2) },
      { header: "Format", word: true, key: (tensor) => tensor.format ?? "float" },
      { header: "Read by", key: (tensor) => tensor.readers.map((index) => data.nodes[index].name).join(", "),
        show: (tensor) => tensor.readers.map((index, at) => [at ? ", " : "", nodeLink(index)]) },
    ] }),
  ];
}

function channels(view) {
  const rows = Object.keys(view.nodes).map(Number).filter((node) => view.nodes[node].weights);
  if (!rows.length) return null;
  const weights = (node) => view.nodes[node].weights, folder = sharedFolder(rows);
  // Before and after only where equalization changed any weight.
  const changed = rows.some((node) => weights(node).changed);
  const after = changed ? "after equalization" : "as they are";
  return () => [
    el("p", { class: "small soft" }, "The largest weight of each output channel against that of the widest channel, from 1/256 at the left to 1 at the right on a logarithmic axis. Lines span all channels, boxes the middle half, the bar is the median. With one scale for the whole weight, a channel at 1 % is left with 1 % of the numbers."),
    makeTable({ id: view.id + "-spreads", label: "Channels of weights", find: "layer", rows, kind: "spreads", columns: [
      { header: "Layer", key: (node) => data.nodes[node].name, show: (node) => nodeLink(node, folder) },
      { header: "Spread", key: () => "", show: (node) => [changed ? spread(weights(node).before, "before") : null, spread(weights(node).after, "after")] },
      { header: "Channels", numeric: true, key: (node) => weights(node).channels },
      ...(changed ? [{ header: "Median before (%)", numeric: true, key: (node) => weights(node).before?.median, show: (node) => fixed(weights(node).before?.median, 1) }] : []),
      { header: changed ? "Median after (%)" : "Median (%)", numeric: true, key: (node) => weights(node).after?.median, show: (node) => fixed(weights(node).after?.median, 1) },
    ] }),
    el("p", { class: "small" }, changed ? el("span", { class: "key" }, el("span", { class: "swatch before" }), "before equalization") : null,
      el("span", { class: "key" }, el("span", { class: "swatch after" }), after)),
  ];
}

const CLASSES = "Groups of channels that were scaled";

function equalization(view) {
  return () => {
    const classes = view.tables["Scale classes"];
    const scaled = classes ? classes.rows.reduce((sum, row) => sum + numeric(row[2]), 0) : 0;
    return [
      el("p", null, view.equalized
        ? "Equalization scaled " + scaled.toLocaleString("en") + " channels in " + count(classes ? classes.rows.filter((row) => numeric(row[2]) > 0).length : 0, "group") + " of tensors by powers of two, so that channels are more alike; what the model computes in float stays the same."
        : "No channel of this model was scaled."),
      classes ? [el("h4", null, CLASSES), el("p", { class: "small soft" }, "Least and most log2 s: the powers of two that channels were scaled by. Spread: the largest weight of the widest channel over that of the median one; the nearer to 1 the better. Gain: by how many dB the error is expected to fall."), plainTable(view.id + "-classes", CLASSES, classes, nodesByName)] : null,
      view.tables["Saturating Clips"] ? [el("h4", null, "Saturating Clips"), el("p", { class: "small soft" }, "Activations with an upper bound, such as ReLU6, whose bound moved along with a channel."), plainTable(view.id + "-clips", "Saturating Clips", view.tables["Saturating Clips"], nodesByName)] : null,
      view.tables.Barriers ? [el("h4", null, "Where scales stop"), plainTable(view.id + "-barriers", "Barriers", view.tables.Barriers, nodesByName)] : null,
    ];
  };
}

function allNodes(view) {
  const rows = Object.keys(view.nodes).map(Number);
  return () => [makeTable({ id: view.id + "-nodes", label: "All nodes", find: "name, operator, quantized, float…", rows, columns: [
    { header: "Node", key: (node) => data.nodes[node].name, show: (node) => nodeLink(node) },
    { header: "Operator", word: true, key: (node) => data.nodes[node].operator },
    { header: "Becomes", word: true, key: (node) => view.nodes[node].becomes, show: (node) => state(view.nodes[node]) },
    { header: "Why", long: true, key: (node) => view.nodes[node].reason ?? "" },
  ] })];
}
