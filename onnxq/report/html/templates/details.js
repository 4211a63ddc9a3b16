// A node's details, all models beside each other, in a drawer that leaves the page usable.

const drawer = document.getElementById("drawer");
const tensors = new Map(data.views.map((view) =>
  [view.id, new Map(view.tensors.map((tensor) => [tensor.name, tensor]))]));
const readers = new Map(), sources = new Map();
for (const [from, to] of data.graph.edges) {
  const source = data.graph.nodes[from], target = data.graph.nodes[to];
  if (typeof source !== "number" || typeof target !== "number") continue;
  readers.set(source, (readers.get(source) || []).concat(target));
  sources.set(target, (sources.get(target) || []).concat(source));
}

let opener = null;

function openDrawer(index) {
  if (drawer.hidden) opener = document.activeElement;
  put(drawer, drawerContent(index));
  drawer.hidden = false;
  drawer.scrollTop = 0;
  drawer.querySelector("h2").focus({ preventScroll: true });
  markNode(index);
}

function closeDrawer() {
  if (drawer.hidden) return;
  drawer.hidden = true;
  markNode(null);
  if (!inFrame) history.replaceState(null, "", location.pathname + location.search);
  if (opener && opener.isConnected) opener.focus({ preventScroll: true });
}

function drawerContent(index) {
  const node = data.nodes[index];
  const step = (to, words) => to >= 0 && to < data.nodes.length
    ? el("a", { href: "#n" + to, title: data.nodes[to].name }, words) : el("span", { class: "soft" }, words);
  return [
    el("div", { class: "drawer-head" },
      step(index - 1, "← before"), step(index + 1, "behind →"),
      el("button", { type: "button", class: "action", onclick: closeDrawer, "aria-label": "Close the details" }, "Close ✕")),
    el("h2", { id: "drawer-title", tabindex: "-1" }, node.name, " ", el("span", { class: "soft" }, node.operator)),
    neighborsOf(index),
    numbersOf(index),
    data.views.map((view) => inModel(view, index)),
  ];
}

function neighborsOf(index) {
  const links = (found, words) => found && found.length
    ? el("p", { class: "small" }, words, found.map((each, at) => [at ? ", " : "", nodeLink(each)])) : null;
  return el("div", null, links(sources.get(index), "Reads from "), links(readers.get(index), "Is read by "));
}

// The measures of all models in one small table.
function numbersOf(index) {
  const rows = MEASURES.filter((measure) =>
    data.views.some((_, at) => !Number.isNaN(real(measure.of(index, at + offset)))));
  if (!rows.length) return null;
  return el("div", { class: "scroll" }, el("table", null,
    el("thead", null, el("tr", null, el("th", null, ""),
      data.views.map((_, at) => el("th", { class: "n" }, dot(at + offset), data.models[at + offset].name)))),
    el("tbody", null, rows.map((measure) => el("tr", null, el("td", { class: "name" }, heading(measure)),
      data.views.map((_, at) => el("td", { class: "n" }, measure.text(measure.of(index, at + offset)))))))));
}

function inModel(view, index) {
  const found = view.nodes[index];
  const title = el("h3", null, dot(modelOf(view)), data.models[modelOf(view)].name);
  if (!found) return [title, el("p", { class: "soft" }, "This model has no such node: another one took it up.")];
  const seen = (found.tensors || []).map((name) => tensors.get(view.id).get(name));
  return [
    title,
    el("p", null, state(found), found.reason ? " " + found.reason : ""),
    found.error && found.error.from ? el("p", { class: "small" }, "Its error comes from ", found.error.from, ".") : null,
    found.weights ? weightsOf(view, found.weights) : null,
    seen.length ? [el("h4", null, "Values it reads and writes"), seen.map((tensor) => el("div", { class: "tensor" },
      el("div", { class: "small" }, tensor.name, el("span", { class: "soft" }, " " + rangeText(tensor))),
      histogram(tensor)))] : null,
    facts("Quantization", found.quantization), facts("Equalization", found.equalization),
  ];
}

function state(found) {
  return el("span", { class: "state-" + found.becomes },
    found.becomes === "quantized" ? "quantized, " + found.format : found.becomes);
}

function rangeText(tensor) {
  const parts = [];
  if (tensor.low !== null) parts.push(number(tensor.low) + " to " + number(tensor.high));
  parts.push(tensor.range
    ? tensor.format + " stands for " + number(tensor.range[0]) + " to " + number(tensor.range[1]) : "float");
  if (!Number.isNaN(real(tensor.clipped))) parts.push(number(tensor.clipped, 2) + " % clipped");
  return parts.join("; ");
}

function weightsOf(view, weights) {
  const shown = weights.boxes_after.quartiles.length;
  const which = shown + " of " + count(weights.channels, "output channel") + ", from the narrowest to the widest";
  return [
    el("h4", null, "Weights by channel"),
    el("p", { class: "soft small" }, which, ". Lines reach from the least to the largest weight of a channel, boxes hold the middle half."),
    el("div", { class: "pair" },
      weights.boxes_before ? boxplots(weights.boxes_before, "before", "before equalization") : null,
      boxplots(weights.boxes_after, "after", weights.boxes_before ? "after equalization" : "as they are")),
  ];
}

function facts(title, list) {
  if (!list) return null;
  return el("details", { class: "facts" }, el("summary", null, title),
    el("dl", null, list.map(([label, text]) => [el("dt", null, data.texts[label]), el("dd", null, data.texts[text])])));
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") closeDrawer();
});
