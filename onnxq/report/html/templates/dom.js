// Elements, numbers as text, files to save. All texts become text nodes: names may hold markup.

const data = JSON.parse(document.getElementById("facts").textContent);

// Whether the page is shown inside a notebook, where it has no address of its own.
const inFrame = location.protocol === "about:";

// The quantized models; a page on one model has none, and shows that one.
const candidates = data.models.filter((model) => model.quantized);
const floatModel = data.models[0];

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false && child !== "") {
      element.append(child);
    }
  }
  return element;
}

function el(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

// Other content in an element.
function put(element, ...children) {
  element.replaceChildren();
  return fill(element, null, children);
}

// --- numbers --------------------------------------------------------------------------------

// JSON has no infinity: the document writes it as text.
function real(value) {
  if (value === null || value === undefined) return NaN;
  return value === "inf" ? Infinity : value === "-inf" ? -Infinity : value;
}

function number(value, digits) {
  const found = real(value);
  if (Number.isNaN(found)) return "–";
  if (!Number.isFinite(found)) return found > 0 ? "∞" : "−∞";
  const text = String(Number(found.toPrecision(digits || 3)));
  return text.replace("-", "−");
}

function fixed(value, places) {
  const found = real(value);
  return Number.isFinite(found) ? found.toFixed(places).replace("-", "−") : number(found);
}

function decibels(value) {
  const found = real(value);
  return found === Infinity ? "identical" : fixed(found, 1);
}

function bytes(value) {
  if (value === undefined || value === null) return "–";
  if (value >= 1e6) return number(value / 1e6) + " MB";
  return value >= 1e3 ? number(value / 1e3) + " kB" : value + " B";
}

function count(value, noun) {
  return value.toLocaleString("en") + " " + noun + (value === 1 ? "" : "s");
}

// --- colors ---------------------------------------------------------------------------------

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// The float model is number 0.
function modelColor(index) {
  return "--model-" + (index === 0 ? 0 : 1 + ((index - 1) % 6));
}

function dot(index) {
  return el("span", { class: "dot", style: "background:var(" + modelColor(index) + ")" });
}

// --- files ----------------------------------------------------------------------------------

function save(name, text, type) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}

function fileName(what, ending) {
  return (data.title.replace(/\.onnx$/, "") + "." + what).replace(/[^\w.-]+/g, "-") + ending;
}

function copyButton(text) {
  const button = el("button", { type: "button", class: "action", onclick: () => {
    const told = (word) => {
      button.textContent = word;
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    };
    if (!navigator.clipboard) return told("Select it by hand");
    return navigator.clipboard.writeText(text).then(() => told("Copied"), () => told("Not allowed"));
  } }, "Copy");
  return button;
}

// A link to a node's details, without the folder that it shares with all that it is listed with.
function nodeLink(index, shared) {
  const { name } = data.nodes[index];
  const text = shared && name.startsWith(shared) ? "…/" + name.slice(shared.length) : name;
  return el("a", { href: "#n" + index, title: text === name ? null : name }, text);
}

// The folder of names that all of these nodes lie in, where it is long enough to be worth leaving out.
function sharedFolder(nodes) {
  let folder = nodes.length > 1 ? data.nodes[nodes[0]].name : "";
  for (const node of nodes) {
    while (folder && !data.nodes[node].name.startsWith(folder)) folder = folder.slice(0, folder.slice(0, -1).lastIndexOf("/") + 1);
  }
  folder = folder.slice(0, folder.lastIndexOf("/") + 1);
  return folder.length > 8 ? folder : "";
}
