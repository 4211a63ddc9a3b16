// Tables that sort by a click on a header, search, show many rows on demand and save as CSV.
//
// A column: { header, numeric, key: row => what CSV holds,
//             sort: row => what it sorts by (the key by default),
//             show: row => what the cell shows (the key by default),
//             long: a sentence, or word: what must not break }.

const FIRST_ROWS = 60;

function compareKeys(a, b, numeric, sign) {
  if (!numeric) return sign * String(a).localeCompare(String(b), "en", { numeric: true });
  const x = real(a), y = real(b);
  if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y); // unknown last
  return x === y ? 0 : sign * (x < y ? -1 : 1);
}

function csv(columns, rows) {
  const cell = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\n\r]/.test(text) ? '"' + text.replace(/"/g, '""') + '"' : text;
  };
  const lines = [columns.map((column) => cell(column.header))];
  for (const row of rows) lines.push(columns.map((column) => cell(column.key(row))));
  return lines.map((line) => line.join(",")).join("\n") + "\n";
}

function makeTable(options) {
  const { id, label, columns, rows } = options;
  const state = { column: options.sorted ?? null, down: true, words: [], limit: FIRST_ROWS };
  const body = el("tbody"), told = el("output", { class: "soft small", "aria-live": "polite" });
  const more = el("button", { type: "button", class: "action", onclick: () => {
    state.limit = Infinity;
    draw();
  } });
  let shown = rows;

  const texts = new Map();
  function textOf(row) {
    if (!texts.has(row)) texts.set(row, columns.map((column) => column.key(row)).join(" ").toLowerCase());
    return texts.get(row);
  }

  function cellOf(column, row) {
    const content = column.show ? column.show(row) : column.key(row);
    const kind = column.numeric ? "n" : column.long ? "long" : column.word ? "whole" : "name";
    return el("td", { class: kind }, content === null || content === undefined ? "–" : content);
  }

  function draw() {
    shown = rows.filter((row) => state.words.every((word) => textOf(row).includes(word)));
    if (state.column !== null) {
      const column = columns[state.column], sign = state.down ? -1 : 1, of = column.sort ?? column.key;
      shown = shown.slice().sort((a, b) => compareKeys(of(a), of(b), column.numeric, sign));
    }
    body.replaceChildren(...shown.slice(0, state.limit).map((row) =>
      el("tr", options.attributes ? options.attributes(row) : null,
        columns.map((column) => cellOf(column, row)))));
    told.textContent = state.words.length ? shown.length + " of " + rows.length : "";
    more.hidden = shown.length <= state.limit;
    more.textContent = "Show all " + shown.length + " rows";
    heads.forEach((head, index) => {
      if (index === state.column) head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  }

  const heads = columns.map((column, index) => el("th",
    { scope: "col", class: column.numeric ? "n" : null, title: column.title },
    el("button", { type: "button", onclick: () => {
      // Numbers begin with the largest; a second click turns the order.
      state.down = state.column === index ? !state.down : Boolean(column.numeric);
      state.column = index;
      draw();
    } }, column.mark ?? "", column.header)));

  const search = el("label", null, "Find ", el("input", {
    type: "search", placeholder: options.find || "name", autocomplete: "off", "data-for": id,
    oninput: (event) => {
      state.words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
      draw();
    },
  }));
  const tools = el("div", { class: "tools" },
    rows.length > (options.find ? 4 : 8) ? search : null, told,
    el("button", { type: "button", class: "action", title: "Save the rows shown as CSV",
      onclick: () => save(fileName(id, ".csv"), csv(columns, shown), "text/csv") }, "CSV"));
  draw();
  return el("div", { class: "table" }, tools,
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label },
      el("table", { id, class: options.kind }, el("thead", null, el("tr", null, heads)), body)),
    more);
}

// A table as Python made it: cells are text.
function plainTable(id, label, table, links) {
  if (!table) return el("p", { class: "soft" }, "None.");
  const columns = table.columns.map((column, at) => {
    // Such as "int8 64×3×3×3" is written like a number and is none.
    const counts = column.numeric && table.rows.some((row) => numeric(row[at]) !== null);
    return {
      header: column.header,
      numeric: counts,
      key: (row) => row[at],
      sort: (row) => counts ? numeric(row[at]) : row[at],
      show: (row) => links && links.has(row[at]) ? nodeLink(links.get(row[at])) : row[at],
      long: table.rows.some((row) => row[at].length > 40),
    };
  });
  return makeTable({ id, label, columns, rows: table.rows });
}

function numeric(text) {
  if (text === "identical") return Infinity;
  const found = parseFloat(text.replace(/,/g, "").replace("−", "-"));
  return Number.isNaN(found) ? null : found;
}
