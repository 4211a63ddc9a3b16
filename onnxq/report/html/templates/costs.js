// What models cost: accuracy against size and time, what is big, what is slow.

// --- accuracy, size and time ----------------------------------------------------------------

function tradeSection() {
  if (!candidates.length) return null;
  const metrics = data.models[1].metrics ? Object.keys(data.models[1].metrics) : [];
  const timed = data.models.every((model) => model.milliseconds !== null);
  const chart = el("div"), area = el("span"), way = el("span");
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
    way.textContent = data.models[1].metrics[name].lower ? "down" : "up";
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
    el("p", { class: "small soft" }, "Better is further ", way, " and further left. Ringed: no other model here is as good or better in everything that was measured. ", area));
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
    const sign = model.metrics?.[name]?.lower ? -1 : 1;
    // The float model's outputs are its own.
    return [Number.isNaN(found) ? (model.quantized ? -Infinity : Infinity) : sign * found, -model.size, -(model.milliseconds ?? 0)];
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
