// Charts: lines with uPlot, the rest as SVG and boxes.

// What to draw again where colors change: another scheme, or paper.
const redraws = [];

function axisFont() {
  return "12px system-ui, sans-serif";
}

// Lines over whole numbers, one for each model: zoom by dragging, hover for values.
//
// options: { label, x: words, y: words, names: x => words, places,
//            series: [{ model, values: [y, null for none] }], points: whether marks only }
function lineChart(options) {
  const box = el("div", { class: "chart", role: "img", "aria-label": options.label });
  const tip = el("div", { class: "tip", hidden: true });
  const xs = Array.from({ length: Math.max(...options.series.map((each) => each.values.length)) },
    (_, index) => index);
  let plot = null;

  function axis(words, size) {
    return {
      label: words, size, labelSize: 20, gap: 4, font: axisFont(), labelFont: axisFont(),
      stroke: color("--soft"), grid: { stroke: color("--line"), width: 1 },
      ticks: { stroke: color("--line"), width: 1, size: 5 },
    };
  }

  function hover(u) {
    const at = u.cursor.idx;
    if (at === null || at === undefined || u.cursor.left < 0) {
      tip.hidden = true;
      return;
    }
    put(tip,
      el("strong", null, options.names(at)),
      ...options.series.map((each) => el("div", null, dot(each.model),
        data.models[each.model].name + ": " + fixed(each.values[at], options.places) + " " + options.unit)));
    tip.hidden = false;
    const right = u.over.offsetLeft + u.cursor.left + 14;
    tip.style.left = Math.max(0, Math.min(right, box.clientWidth - tip.offsetWidth - 4)) + "px";
    tip.style.top = u.over.offsetTop + 6 + "px";
  }

  function draw() {
    if (!box.isConnected || box.clientWidth === 0) return;
    if (plot) plot.destroy();
    // A sheet of paper is narrower than most screens.
    const paper = document.documentElement.classList.contains("paper");
    plot = new uPlot({
      width: paper ? Math.min(box.clientWidth, 680) : box.clientWidth,
      height: 260,
      legend: { show: false },
      cursor: { points: { size: 7 }, drag: { x: true, y: false }, focus: { prox: 30 } },
      scales: { x: { time: false, range: (u, low, high) => low === high ? [low - 1, high + 1] : [low, high] } },
      axes: [
        Object.assign(axis(options.x, 30), { incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] }),
        axis(options.y, 52),
      ],
      series: [{}].concat(options.series.map((each) => ({
        label: data.models[each.model].name,
        stroke: color(modelColor(each.model)),
        width: options.points ? 1 : 2,
        points: { show: options.points || xs.length < 60, size: 6, fill: color(modelColor(each.model)) },
        spanGaps: true,
      }))),
      hooks: { setCursor: [hover] },
    }, [xs].concat(options.series.map((each) => xs.map((at) => {
      const value = real(each.values[at]);
      return Number.isFinite(value) ? value : null;
    }))), box);
    box.append(tip);
    box.onmouseleave = () => { tip.hidden = true; };
  }

  new ResizeObserver(() => {
    if (!plot) draw();
    else if (plot.width !== box.clientWidth) plot.setSize({ width: box.clientWidth, height: 260 });
  }).observe(box);
  redraws.push(draw);
  return el("figure", null,
    el("figcaption", null, options.label, " ",
      options.series.map((each) => el("span", { class: "key" }, dot(each.model), data.models[each.model].name))),
    box,
    el("p", { class: "soft small" }, options.note || "", " Drag over a part to enlarge it; double-click to see all again."));
}

// --- trade-off ------------------------------------------------------------------------------

// Models as circles; points: { model, x, y, weight, text, best }.
function scatter(options) {
  const box = el("div", { class: "chart scatter" });
  const { points } = options;
  const height = 300, left = 64, right = 24, top = 20, bottom = 46;

  function draw() {
    const width = box.clientWidth;
    if (!box.isConnected || width === 0) return;
    const [xLow, xHigh] = around(points.map((each) => each.x), true);
    const [yLow, yHigh] = around(points.map((each) => each.y), false);
    const px = (x) => left + (width - left - right) * (x - xLow) / (xHigh - xLow);
    const py = (y) => height - bottom - (height - top - bottom) * (y - yLow) / (yHigh - yLow);
    const heaviest = Math.max(...points.map((each) => each.weight || 0));
    const xTicks = ticks(xLow, xHigh, Math.max(2, Math.floor(width / 90)));
    const yTicks = ticks(yLow, yHigh, 5);
    put(box, svg("svg", { width, height, role: "img", "aria-label": options.label },
      yTicks.map((y) => [
        svg("line", { class: "grid", x1: left, x2: width - right, y1: py(y), y2: py(y) }),
        svg("text", { x: left - 8, y: py(y) + 4, "text-anchor": "end" }, number(y, 4))]),
      xTicks.map((x) => [
        svg("line", { class: "grid", x1: px(x), x2: px(x), y1: top, y2: height - bottom }),
        svg("text", { x: px(x), y: height - bottom + 18, "text-anchor": "middle" }, number(x, 4))]),
      svg("text", { class: "axis", x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, options.x),
      svg("text", { class: "axis", x: 14, y: (top + height - bottom) / 2, "text-anchor": "middle",
        transform: "rotate(-90 14 " + (top + height - bottom) / 2 + ")" }, options.y),
      points.map((each) => circle(each, px(each.x), py(each.y), heaviest, width))));
  }

  function circle(each, x, y, heaviest, width) {
    const radius = heaviest ? 5 + 11 * Math.sqrt((each.weight || 0) / heaviest) : 8;
    const after = x < width * 0.6;
    const name = data.models[each.model].name;
    return svg("g", null, svg("title", null, name + ": " + each.text),
      svg("circle", { cx: x, cy: y, r: radius, style: "fill:var(" + modelColor(each.model) + ")", class: "bubble" }),
      each.best ? svg("circle", { cx: x, cy: y, r: radius + 4, class: "ring" }) : null,
      svg("text", { class: "name", x: x + (after ? radius + 8 : -radius - 8), y: y - 1,
        "text-anchor": after ? "start" : "end" }, name),
      svg("text", { x: x + (after ? radius + 8 : -radius - 8), y: y + 13,
        "text-anchor": after ? "start" : "end" }, each.text));
  }

  new ResizeObserver(draw).observe(box);
  return box;
}

function around(values, fromZero) {
  let low = fromZero ? 0 : Math.min(...values), high = Math.max(...values);
  const room = (high - low) * 0.15 || Math.abs(high) * 0.1 || 1;
  high += room;
  if (!fromZero) low -= room;
  return [low, high];
}

function ticks(low, high, most) {
  const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((each) => each * power >= rough);
  const found = [];
  for (let at = Math.ceil(low / step); at * step <= high + 1e-9 * step; at += 1) found.push(at * step);
  return found;
}

// --- bars -----------------------------------------------------------------------------------

// A bar in a table's cell with what it stands for behind it; most is the longest.
function bar(value, most, text, style) {
  const found = real(value);
  const share = Number.isFinite(found) && most > 0 ? Math.max(0, Math.min(1, found / most)) : 0;
  return el("span", { class: "barred" },
    share > 0 && el("span", { class: "bar", style: "width:" + (100 * share).toFixed(1) + "%;" + (style || "") }),
    el("span", { class: "value" }, text));
}

// The color of part `index`; what is behind the last large one is grey.
function kindColor(index, large) {
  return "var(--kind-" + (index >= large ? "rest" : index) + ")";
}

// Parts of wholes, one bar for each model on one axis; parts: [kind, bytes], the last "all else".
function stacked(rows, most) {
  return el("div", { class: "stacks" }, rows.map((row) => el("div", { class: "stack" },
    el("div", { class: "stack-name" }, dot(row.model), data.models[row.model].name, " ",
      el("span", { class: "soft" }, bytes(row.whole))),
    el("div", { class: "stack-bar" }, row.parts.map(([kind, size], index) => size ? el("span", {
      style: "width:" + (100 * size / most).toFixed(2) + "%;background:" + kindColor(index, row.parts.length - 1),
      title: kind + ": " + bytes(size),
    }) : null)))));
}

// --- one tensor, one weight -----------------------------------------------------------------

const FULL = 1000; // places from one end of a chart to the other, see charts.py

function histogram(tensor) {
  const drawn = tensor.histogram, width = 240, height = 56;
  if (!drawn) return null;
  const px = (value) => Math.max(0, Math.min(width, width * (value - drawn.low) / (drawn.high - drawn.low || 1)));
  const step = width / drawn.columns.length;
  const outline = drawn.columns.map((each, index) =>
    "V" + (height - each / FULL * (height - 4)).toFixed(1) + "H" + ((index + 1) * step).toFixed(1));
  const ends = tensor.range ? tensor.range.map((value) => px(real(value))) : null;
  const told = "values of " + tensor.name + ", " + number(tensor.low) + " to " + number(tensor.high) +
    (tensor.range ? "; numbers stand for " + number(tensor.range[0]) + " to " + number(tensor.range[1]) : "");
  return svg("svg", { class: "histogram", viewBox: "0 0 " + width + " " + height, preserveAspectRatio: "none",
    role: "img", "aria-label": told },
  svg("title", null, told),
  ends && ends[0] > 0.5 ? svg("rect", { class: "outside", x: 0, y: 0, width: ends[0], height }) : null,
  ends && ends[1] < width - 0.5 ? svg("rect", { class: "outside", x: ends[1], y: 0, width: width - ends[1], height }) : null,
  svg("path", { class: "columns", d: "M0 " + height + outline.join("") + "V" + height + "Z" }),
  svg("path", { class: "zero", d: "M" + px(0) + " 0V" + height }),
  ends ? svg("path", { class: "end", d: "M" + ends[0] + " 0V" + height + "M" + ends[1] + " 0V" + height }) : null);
}

// How even a weight's channels are: all of them, the middle half, the median.
function spread(quartiles, kind) {
  if (!quartiles) return null;
  const [low, first, middle, third, high] = quartiles.places.map((place) => place * 240 / FULL);
  const told = (kind ? kind + ": " : "") + "the median channel reaches " + number(quartiles.median) + " % of the widest";
  return svg("svg", { class: "spread " + kind, viewBox: "0 0 240 12", preserveAspectRatio: "none", role: "img", "aria-label": told },
    svg("title", null, told),
    svg("line", { x1: low, x2: high, y1: 6, y2: 6 }),
    svg("rect", { x: first, y: 2, width: Math.max(third - first, 1), height: 8 }),
    svg("line", { class: "middle", x1: middle, x2: middle, y1: 1, y2: 11 }));
}

// Boxplots of a weight's channels; it fills its box.
function boxplots(boxes, kind, caption) {
  const height = 110, step = 8, width = step * boxes.quartiles.length;
  const py = (place) => (height * (1 - place / FULL)).toFixed(1);
  const whiskers = [], middles = [], medians = [];
  boxes.quartiles.forEach(([low, first, middle, third, high], index) => {
    const left = index * step + 1, x = index * step + step / 2, right = left + step - 2;
    whiskers.push("M" + x + " " + py(low) + "V" + py(high));
    middles.push("M" + left + " " + py(third) + "H" + right + "V" + py(first) + "H" + left + "Z");
    medians.push("M" + left + " " + py(middle) + "H" + right);
  });
  return el("figure", { class: "boxes-figure" },
    el("figcaption", { class: "soft small" }, caption),
    el("div", { class: "boxes-row" },
      el("div", { class: "boxes-axis soft small" },
        el("span", null, number(boxes.limit)), el("span", null, "0"), el("span", null, number(-boxes.limit))),
      svg("svg", { class: "boxes " + kind, viewBox: "0 0 " + width + " " + height, preserveAspectRatio: "none",
        role: "img", "aria-label": caption },
      svg("line", { class: "grid", x1: 0, x2: width, y1: height / 2, y2: height / 2 }),
      svg("path", { d: whiskers.join("") }), svg("path", { class: "box", d: middles.join("") }),
      svg("path", { class: "median", d: medians.join("") }))));
}
