"use strict";
(function () {
  function key(cell) {
    if (!cell) return "";
    var value = cell.getAttribute("data-v");
    return value === null ? cell.textContent.trim() : value;
  }

  function compare(a, b, numeric, sign) {
    if (a === b) return 0;
    if (!numeric) return sign * a.localeCompare(b, "en", { numeric: true });
    var x = parseFloat(a.replace(/,/g, "")), y = parseFloat(b.replace(/,/g, ""));
    if (isNaN(x) && isNaN(y)) return compare(a, b, false, sign);
    if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y); // what is not known comes last
    return x === y ? 0 : sign * (x < y ? -1 : 1);
  }

  function sort(head) {
    var table = head.closest("table"), body = table.tBodies[0];
    var numeric = head.classList.contains("n"), index = head.cellIndex;
    var was = head.getAttribute("aria-sort");
    // A second click turns the order; numbers begin with the largest.
    var down = was === null ? numeric : was === "ascending";
    table.querySelectorAll("th[aria-sort]").forEach(function (each) {
      each.removeAttribute("aria-sort");
    });
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    Array.from(body.rows)
      .map(function (row) { return [key(row.cells[index]), row]; })
      .sort(function (a, b) { return compare(a[0], b[0], numeric, down ? -1 : 1); })
      .forEach(function (pair) { body.appendChild(pair[1]); });
  }

  document.querySelectorAll("table.sortable thead th button").forEach(function (button) {
    button.addEventListener("click", function () { sort(button.closest("th")); });
  });

  document.querySelectorAll("input[type=search]").forEach(function (input) {
    var scope = document.getElementById(input.getAttribute("data-for"));
    var output = input.parentElement.parentElement.querySelector("output");
    var items = Array.from(scope.tBodies ? scope.tBodies[0].rows : scope.children);
    function filter() {
      var words = input.value.toLowerCase().split(/\s+/).filter(Boolean), shown = 0;
      items.forEach(function (item) {
        var text = (item.getAttribute("data-text") || item.textContent).toLowerCase();
        item.hidden = !words.every(function (word) { return text.indexOf(word) >= 0; });
        shown += item.hidden ? 0 : 1;
      });
      output.textContent = shown + " of " + items.length;
    }
    input.addEventListener("input", filter);
    filter();
  });

  document.querySelectorAll(".find").forEach(function (each) { each.hidden = false; });

  // A link to a layer opens its details, even while a search hides it.
  function open() {
    var target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target || target.tagName !== "DETAILS") return;
    target.hidden = false;
    target.open = true;
    target.scrollIntoView();
    target.querySelector("summary").focus({ preventScroll: true });
  }
  window.addEventListener("hashchange", open);
  document.addEventListener("click", function (event) {
    var link = event.target.closest && event.target.closest("a");
    var address = link && link.getAttribute("href");
    if (address && address === location.hash) open();
  });
  open();

  document.querySelectorAll(".strip").forEach(function (strip) {
    strip.addEventListener("keydown", function (event) {
      var step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
      var links = Array.from(strip.querySelectorAll("a")), at = links.indexOf(document.activeElement);
      if (!step || at < 0) return;
      event.preventDefault();
      links[Math.max(0, Math.min(links.length - 1, at + step))].focus();
    });
  });
})();
