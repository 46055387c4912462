(function () {
"use strict";
var SEVERITIES = ["critical", "high", "medium", "low", "info"];
var COVER = ["lost", "dark", "one", "thin", "good", "off"];

function value(row, column) {
  var text = row.cells[column].textContent.trim();
  var severity = SEVERITIES.indexOf(text);
  if (severity >= 0) return String(severity);
  // Cover sorts by how bad it is, not by its name.
  if (column === 3 && row.closest(".cover") && COVER.indexOf(row.className) >= 0) return String(COVER.indexOf(row.className));
  return text;
}

function compare(a, b) {
  if (a === "" || b === "") return a === b ? 0 : a === "" ? 1 : -1;
  var m = Number(a.replace(/,/g, "")), n = Number(b.replace(/,/g, ""));
  return isNaN(m) || isNaN(n) ? a.localeCompare(b) : m - n;
}

function sort(table, heads, head, column) {
  var down = head.getAttribute("aria-sort") === "ascending", body = table.tBodies[0];
  heads.forEach(function (other) { other.removeAttribute("aria-sort"); });
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  Array.from(body.rows)
    .map(function (row) { return [value(row, column), row]; })
    .sort(function (a, b) {
      if (a[0] === "" || b[0] === "") return compare(a[0], b[0]);
      return down ? compare(b[0], a[0]) : compare(a[0], b[0]);
    })
    .forEach(function (pair) { body.appendChild(pair[1]); });
}

document.querySelectorAll("table[data-sort]").forEach(function (table) {
  var heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach(function (head, column) {
    var button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.textContent = "";
    head.appendChild(button);
    button.addEventListener("click", function () { sort(table, heads, head, column); });
  });
});

var tools = document.getElementById("tools");
if (tools) {
  var rows = Array.from(document.getElementById("found").tBodies[0].rows);
  var texts = rows.map(function (row) { return row.textContent.toLowerCase(); });
  var words = document.getElementById("words");
  var severity = document.getElementById("severity");
  var shown = document.getElementById("shown");
  // An option "!X" is for rows whose first cell is anything but X.
  var chosen = function (text, option) {
    return option[0] === "!" ? text !== option.slice(1) : !option || text === option;
  };
  var apply = function () {
    var wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean), left = 0;
    rows.forEach(function (row, i) {
      var ok = chosen(row.cells[0].textContent.trim(), severity.value) &&
        wanted.every(function (word) { return texts[i].indexOf(word) >= 0; });
      row.hidden = !ok;
      if (ok) left++;
    });
    shown.textContent = left.toLocaleString("en") + " of " + rows.length.toLocaleString("en") + " rows";
  };
  words.addEventListener("input", apply);
  severity.addEventListener("change", apply);
  // A link to a rule shows all of its findings, and nothing else.
  document.querySelectorAll("a.rule").forEach(function (link) {
    link.addEventListener("click", function () {
      words.value = link.getAttribute("href").slice(1);
      severity.value = "";
      apply();
    });
  });
  tools.hidden = false;
  apply();
}

function reveal() {
  var target = document.getElementById(location.hash.slice(1));
  var closed = target && target.closest("details");
  if (closed) {
    closed.open = true;
    closed.scrollIntoView({block: "nearest"});
  }
}
addEventListener("hashchange", reveal);
reveal();
})();
