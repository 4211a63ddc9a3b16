// The graph: laid out by dagre, colored by format or by share of the error, folded where it is large.

const CHAR = 6.6; // pixels of a letter
const graphState = { folding: null, model: 0, coloring: "format", zoom: 1, marked: null, width: 0, box: null, places: new Map() };

function graphSection() {
  if (!data.graph.nodes.length) return null;
  graphState.folding = makeFolding();
  graphState.box = el("div", { class: "graph scroll", tabindex: "0", role: "region", "aria-label": "Graph of the model" });
  const choose = el("div", { class: "choices" },
    data.views.length > 1 ? choices("Model", data.views.map((view) => data.models[modelOf(view)].name), (at) => {
      graphState.model = at;
      paintGraph();
    }) : null,
    data.views.some((view) => view.errors) ? choices("Color", ["format", "share of the error"], (at) => {
      graphState.coloring = at ? "share" : "format";
      paintGraph();
    }) : null,
    el("div", { class: "buttons" },
      zoomButton("−", "Smaller", () => graphState.zoom / 1.3), zoomButton("+", "Larger", () => graphState.zoom * 1.3),
      zoomButton("Fit", "As wide as the box", fitting),
      graphState.folding.folds ? [
        actionButton("Unfold all", () => { graphState.folding.openAll(); layGraph(); }),
        actionButton("Fold", () => { graphState.folding.reset(); layGraph(); })] : null));
  graphState.legend = el("p", { class: "small" });
  graphState.opened = el("p", { class: "small opened" });
  const section = el("div", null,
    el("p", { class: "small soft" }, "Data flow from top to bottom; edges carry the shapes of tensors. A click, or Enter, on a node opens its details, on a folder (dashed) what is in it. Arrow keys walk along the edges."),
    choose, graphState.legend, graphState.opened, graphState.box);
  whenSeen(graphState.box, layGraph);
  return section;
}

function actionButton(words, act) {
  return el("button", { type: "button", class: "action", onclick: act }, words);
}

function zoomButton(words, title, next) {
  return el("button", { type: "button", class: "action", title, onclick: () => zoomTo(next()) }, words);
}

function zoomTo(zoom) {
  graphState.zoom = Math.max(0.1, Math.min(3, zoom));
  const drawing = graphState.box.querySelector("svg");
  if (!drawing) return;
  drawing.setAttribute("width", graphState.width * graphState.zoom);
  drawing.setAttribute("height", graphState.height * graphState.zoom);
}

function fitting() {
  return Math.min(1, (graphState.box.clientWidth - 4) / graphState.width);
}

// --- layout ---------------------------------------------------------------------------------

// The end of a name; where that only repeats the operator, the folder it is in.
function shortName(name, operator) {
  const parts = name.split("/").filter(Boolean), last = parts[parts.length - 1] || name;
  const told = parts.length > 1 && last.replace(/_\d+$/, "") === operator ? parts.slice(-3, -1).join("/") : last;
  return told.length > 22 ? told.slice(0, 10) + "…" + told.slice(-11) : told;
}

// What is shown: a node of the graph by its place, or a folder by its name.
function shownItems() {
  const items = new Map();
  data.graph.nodes.forEach((node, at) => {
    const folder = graphState.folding.visible(at), key = folder ?? at;
    if (!items.has(key)) items.set(key, { key, folder, members: [] });
    items.get(key).members.push(at);
  });
  for (const item of items.values()) {
    const node = data.graph.nodes[item.members[0]];
    if (item.folder !== null) {
      item.first = item.folder.split("/").pop();
      item.second = count(item.members.length, "node") + " ▸";
    } else if (typeof node === "number") {
      item.first = data.nodes[node].operator;
      item.second = shortName(data.nodes[node].name, data.nodes[node].operator);
    } else {
      item.first = node.name.length > 22 ? node.name.slice(0, 21) + "…" : node.name;
      item.second = node.kind;
    }
    item.width = Math.max(70, 18 + CHAR * Math.max(item.first.length * 1.06, item.second.length * 0.98));
  }
  return items;
}

function layGraph() {
  const items = shownItems(), keyOf = (at) => graphState.folding.visible(at) ?? at;
  const layout = new dagre.graphlib.Graph();
  layout.setGraph({ rankdir: "TB", nodesep: 16, ranksep: 26, edgesep: 10, marginx: 12, marginy: 12,
    ranker: items.size > 300 ? "longest-path" : "network-simplex" });
  for (const item of items.values()) layout.setNode(String(item.key), { width: item.width, height: 38, item });
  const labelled = new Set();
  for (const [from, to, shape] of data.graph.edges) {
    const source = String(keyOf(from)), target = String(keyOf(to));
    if (source === target || layout.hasEdge(source, target)) continue;
    // A tensor's shape once, however many read it.
    const label = shape && !labelled.has(source + shape) ? shape : "";
    labelled.add(source + shape);
    layout.setEdge(source, target, { label, width: label ? CHAR * label.length + 6 : 0, height: label ? 13 : 0, labelpos: "r" });
  }
  dagre.layout(layout);
  drawGraph(layout, items);
}

function drawGraph(layout, items) {
  const { width, height } = layout.graph();
  Object.assign(graphState, { width, height, items, layout });
  graphState.places = new Map();
  const edges = layout.edges().map((edge) => {
    const drawn = layout.edge(edge);
    return [svg("path", { class: "edge", d: curve(drawn.points), "marker-end": "url(#arrow)" }),
      drawn.label ? svg("text", { class: "shape", x: drawn.x - drawn.width / 2 + 2, y: drawn.y + 4 }, drawn.label) : null];
  });
  const nodes = layout.nodes().map((key) => {
    const { x, y, width: wide, height: high, item } = layout.node(key);
    item.box = svg("g", { class: "node", tabindex: "-1", role: "button",
      transform: "translate(" + (x - wide / 2).toFixed(1) + " " + (y - high / 2).toFixed(1) + ")",
      "data-key": key, onclick: () => pick(item), onkeydown: (event) => walk(event, item) },
    svg("title", null, nameOf(item)),
    svg("rect", { width: wide.toFixed(1), height: high, rx: 5 }),
    svg("text", { class: "op", x: wide / 2, y: 16, "text-anchor": "middle" }, item.first),
    svg("text", { x: wide / 2, y: 30, "text-anchor": "middle" }, item.second));
    for (const member of item.members) graphState.places.set(member, item);
    return item.box;
  });
  if (nodes.length) nodes[0].setAttribute("tabindex", "0");
  put(graphState.box, svg("svg", { viewBox: "0 0 " + width + " " + height },
    svg("defs", null, svg("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" },
      svg("path", { class: "arrow", d: "M0 0L8 4L0 8z" }))),
    edges, nodes));
  graphState.zoom = Math.max(fitting(), Math.min(1, 0.55));
  zoomTo(graphState.zoom);
  graphState.box.scrollLeft = (width * graphState.zoom - graphState.box.clientWidth) / 2;
  tellOpened();
  paintGraph();
}

function curve(points) {
  const [first, ...rest] = points;
  let path = "M" + first.x.toFixed(1) + " " + first.y.toFixed(1);
  for (let at = 0; at < rest.length - 1; at += 1) {
    const here = rest[at], next = rest[at + 1];
    path += "Q" + here.x.toFixed(1) + " " + here.y.toFixed(1) + " " +
      ((here.x + next.x) / 2).toFixed(1) + " " + ((here.y + next.y) / 2).toFixed(1);
  }
  const last = rest[rest.length - 1];
  return path + "L" + last.x.toFixed(1) + " " + last.y.toFixed(1);
}

// The folders that were opened one by one, to close them again.
function tellOpened() {
  const { folding } = graphState, open = [...folding.byHand];
  put(graphState.opened, open.length ? ["Open: ", open.map((folder) => actionButton(folder + " ✕", () => {
    folding.open.delete(folder);
    folding.byHand.delete(folder);
    layGraph();
  }))] : null);
}

// --- what is seen ---------------------------------------------------------------------------

function nodesIn(item) {
  return item.members.map((at) => data.graph.nodes[at]).filter((node) => typeof node === "number");
}

function nameOf(item) {
  if (item.folder !== null) return item.folder + ", " + count(item.members.length, "node");
  const node = data.graph.nodes[item.members[0]];
  return typeof node === "number" ? data.nodes[node].name + " (" + data.nodes[node].operator + ")" : node.kind + " " + node.name;
}

function formatsIn(view, item) {
  const found = new Map();
  for (const node of nodesIn(item)) {
    const there = view.nodes[node], format = there ? there.format : "folded";
    found.set(format, (found.get(format) || 0) + 1);
  }
  return [...found.entries()].sort((a, b) => b[1] - a[1]);
}

function shareOf(view, item) {
  return nodesIn(item).reduce((sum, node) => sum + (view.nodes[node]?.error?.share || 0), 0);
}

function formatClass(format) {
  return format === "fused" ? "fused" : format === "float" || format === "folded" ? format
    : /16/.test(format) ? "wide" : "quantized";
}

function paintGraph() {
  if (!graphState.items) return;
  const view = data.views[graphState.model], byShare = graphState.coloring === "share";
  const most = Math.max(1e-9, ...[...graphState.items.values()].map((item) => shareOf(view, item)));
  const seen = new Map();
  for (const item of graphState.items.values()) {
    const formats = formatsIn(view, item), share = shareOf(view, item);
    // Of a folder what computes counts before what is fused into it.
    const main = (formats.find(([format]) => !["fused", "folded", "float"].includes(format)) || formats[0] || [""])[0];
    const kind = main ? formatClass(main) : "end";
    if (main) seen.set(kind, (seen.get(kind) || new Set()).add(main));
    item.box.setAttribute("class", "node " + (byShare && main ? "by-share" : kind) + (item.folder !== null ? " folder" : ""));
    item.box.querySelector("rect").style.setProperty("--heat", byShare ? (100 * Math.sqrt(share / most)).toFixed(0) + "%" : "0%");
    const told = formats.map(([format, times]) => format + (item.folder !== null ? " ×" + times : "")).join(", ");
    item.box.querySelector("title").textContent = nameOf(item) + (told ? "\n" + told : "") +
      (view.errors ? "\n" + number(share, 2) + " % of the error of the output" : "");
    item.box.setAttribute("aria-label", item.box.querySelector("title").textContent.replace(/\n/g, ", "));
  }
  put(graphState.legend, byShare
    ? ["Share of the error of the output: ", el("span", { class: "ramp" }), " 0 to " + number(most, 2) + " %"]
    : [...seen.entries()].map(([kind, words]) => el("span", { class: "key" }, el("span", { class: "swatch " + kind }), [...words].map((word) => ({
      fused: "fused into the one before", folded: "folded into another", float: "float",
    })[word] || word).join(", "))));
  markNode(graphState.marked);
}

// --- going around ---------------------------------------------------------------------------

function pick(item) {
  if (item.folder !== null) {
    graphState.folding.open.add(item.folder);
    graphState.folding.byHand.add(item.folder);
    layGraph();
    focusItem(graphState.places.get(item.members[0]));
    return;
  }
  const node = data.graph.nodes[item.members[0]];
  if (typeof node !== "number") return;
  if (inFrame) openDrawer(node);
  else location.hash = "n" + node;
}

function focusItem(item) {
  graphState.box.querySelectorAll("g.node[tabindex='0']").forEach((each) => each.setAttribute("tabindex", "-1"));
  item.box.setAttribute("tabindex", "0");
  item.box.focus();
  item.box.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function walk(event, item) {
  const { layout } = graphState, key = String(item.key), here = layout.node(key);
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    pick(item);
    return;
  }
  let to = null;
  if (event.key === "ArrowDown") to = (layout.successors(key) || [])[0];
  else if (event.key === "ArrowUp") to = (layout.predecessors(key) || [])[0];
  else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
    const sign = event.key === "ArrowLeft" ? -1 : 1;
    to = layout.nodes().filter((each) => Math.abs(layout.node(each).y - here.y) < 4 && sign * (layout.node(each).x - here.x) > 0)
      .sort((a, b) => sign * (layout.node(a).x - layout.node(b).x))[0];
  } else return;
  event.preventDefault();
  if (to !== undefined && to !== null) focusItem(layout.node(to).item);
}

// Shows in the graph which node's details are open.
function markNode(index) {
  graphState.marked = index;
  if (!graphState.items) return;
  graphState.box.querySelectorAll(".node.marked").forEach((each) => each.classList.remove("marked"));
  const at = data.graph.nodes.indexOf(index);
  if (index !== null && at >= 0 && graphState.places.has(at)) graphState.places.get(at).box.classList.add("marked");
}
