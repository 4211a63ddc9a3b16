// The sections in order, the table of contents, links to nodes, other colors and paper.

// Charts that were put into the page while nothing was laid out.
function redrawSoon() {
  requestAnimationFrame(() => redraws.forEach((draw) => draw()));
}

// Calls `act` when an element first comes near the screen: layouts of graphs take a moment.
function whenSeen(element, act) {
  const watch = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    watch.disconnect();
    act();
  }, { rootMargin: "600px" });
  watch.observe(element);
}

function dataSection() {
  return el("div", null,
    el("p", null, "All numbers of this page: ", el("button", { type: "button", class: "action", onclick: () =>
      save(fileName("report", ".json"), document.getElementById("facts").textContent, "application/json") }, "Save as JSON"),
    " Each table has a button that saves the rows it shows as CSV."),
    el("h3", null, "Libraries in this page"),
    data.libraries.map((library) => el("details", { class: "facts" },
      el("summary", null, library.name + " " + library.version + ", MIT licence: " + library.purpose), el("pre", { class: "small" }, library.licence))));
}

const SECTIONS = [
  ["next", "What to try next", nextSection],
  ["trade", "Accuracy, size and time", tradeSection],
  ["layers", "Which layers hurt", layersSection],
  ["graph", "Graph", graphSection],
  ["outputs", "Outputs and classes", outputsSection],
  ["samples", "Worst samples", samplesSection],
  ["size", "What is big", sizeSection],
  ["latency", "What is slow", latencySection],
  ["model", data.views.length > 1 ? "Each model" : "The model", modelSection],
  ["data", "Data and libraries", dataSection],
];

const main = document.getElementById("main"), contents = document.getElementById("contents");
for (const [id, title, make] of SECTIONS) {
  const content = make();
  if (!content) continue;
  contents.append(el("li", null, el("a", { href: "#" + id }, title)));
  main.append(el("section", { id, "aria-labelledby": id + "-title" }, el("h2", { id: id + "-title" }, title), content));
}

// The table of contents shows where one is: the last section whose heading has come up to the top.
const links = new Map([...contents.querySelectorAll("a")].map((link) => [link.hash.slice(1), link]));

function whereWeAre() {
  const sections = [...main.querySelectorAll("section")];
  const end = window.scrollY > 0 && window.innerHeight + window.scrollY >= document.documentElement.scrollHeight - 4;
  const above = sections.filter((section) => section.getBoundingClientRect().top < 140);
  const here = end ? sections[sections.length - 1] : above[above.length - 1] || sections[0];
  for (const [id, link] of links) {
    if (id !== here.id) link.removeAttribute("aria-current");
    else if (!link.hasAttribute("aria-current")) {
      link.setAttribute("aria-current", "true");
      const bar = link.closest("ul");
      bar.scrollLeft = link.offsetLeft - (bar.clientWidth - link.offsetWidth) / 2;
    }
  }
}

let waiting = false;
window.addEventListener("scroll", () => {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; whereWeAre(); });
}, { passive: true });
whereWeAre();

// #n12 opens the details of node 12.
function follow(hash) {
  const node = /^#n(\d+)$/.exec(hash);
  if (node && data.nodes[Number(node[1])]) openDrawer(Number(node[1]));
  else if (inFrame && hash) document.getElementById(hash.slice(1))?.scrollIntoView();
}

window.addEventListener("hashchange", () => follow(location.hash));
document.addEventListener("click", (event) => {
  const address = event.target.closest?.("a")?.getAttribute("href");
  if (!address?.startsWith("#")) return;
  // In a notebook's frame "#" would lead out of the page; and the same link again changes no address.
  if (inFrame) event.preventDefault();
  if (inFrame || address === location.hash) follow(address);
});
follow(location.hash);

window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawSoon);
for (const event of ["beforeprint", "afterprint"]) {
  window.addEventListener(event, () => {
    document.documentElement.classList.toggle("paper", event === "beforeprint");
    redraws.forEach((draw) => draw());
    if (event === "beforeprint" && graphState.box && !graphState.items) layGraph();
  });
}
