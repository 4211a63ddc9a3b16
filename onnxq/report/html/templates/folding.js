// Which nodes of a large graph are shown as one: folders of their names, else runs of the order.

const MOST_SHOWN = 80; // nodes and folders at first
const FEW = 12; // so few boxes are opened even if more than that come of it
const RUN = 20; // nodes of a run, where names have no folders

// The folders around a node, the outermost first.
function foldersOf(index, total, scoped) {
  if (!scoped) {
    const first = Math.floor(index / RUN) * RUN;
    return ["nodes " + (first + 1) + "–" + Math.min(first + RUN, total)];
  }
  const parts = data.nodes[index].name.split("/").filter(Boolean).slice(0, -1);
  return parts.map((_, at) => "/" + parts.slice(0, at + 1).join("/"));
}

// How nodes fold. `open` holds the folders that are open, `byHand` those of them that a reader opened;
// `visible(i)` is the folder that stands for
// node i of the graph, or null where it is shown by itself.
function makeFolding() {
  const nodes = data.graph.nodes;
  const scoped = nodes.filter((each) => typeof each === "number" && data.nodes[each].name.includes("/")).length
    > nodes.length / 2;
  const paths = nodes.map((each, at) => typeof each === "number" ? foldersOf(each, nodes.length, scoped) : []);
  const sizes = new Map();
  for (const path of paths) for (const folder of path) sizes.set(folder, (sizes.get(folder) || 0) + 1);
  // A folder of one node, or of one folder, says no more than what is in it.
  const trees = paths.map((path) => path.filter((folder, at) =>
    sizes.get(folder) > 1 && !(at + 1 < path.length && sizes.get(path[at + 1]) === sizes.get(folder))));
  const open = new Set(), byHand = new Set();

  function visible(at) {
    return trees[at].find((folder) => !open.has(folder)) ?? null;
  }

  function shownNow() {
    const seen = new Set();
    trees.forEach((_, at) => seen.add(visible(at) ?? at));
    return seen;
  }

  function reset() {
    open.clear();
    byHand.clear();
    if (nodes.length <= MOST_SHOWN) return openAll();
    // Open the largest folders as long as what is shown stays readable.
    for (;;) {
      const shown = shownNow();
      const folders = [...shown].filter((each) => typeof each === "string")
        .sort((a, b) => sizes.get(b) - sizes.get(a));
      let opened = false;
      for (const folder of folders) {
        open.add(folder);
        const size = shownNow().size;
        // One box for the whole model says nothing: many layers are better.
        if (size <= MOST_SHOWN || (shown.size < FEW && size <= 4 * MOST_SHOWN)) { opened = true; break; }
        open.delete(folder);
      }
      if (!opened) return undefined;
    }
  }

  function openAll() {
    for (const folder of sizes.keys()) open.add(folder);
  }

  reset();
  return { open, byHand, visible, reset, openAll, folds: nodes.length > MOST_SHOWN && trees.some((tree) => tree.length) };
}
