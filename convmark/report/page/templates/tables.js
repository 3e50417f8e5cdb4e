"use strict";
// Numbers as the tables print them: core/text.py, for what would be too long to stand in a page twice.
const units = (function () {
  const SCALES = [[1, "s"], [1e-3, "ms"], [1e-6, "us"]];

  function digits(value) {
    let places = value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
    if (value > 0 && value < 0.9995) places = 2 - Math.floor(Math.log10(value));
    return value.toFixed(places);
  }

  function seconds(value) {
    if (value === null) return "";
    const [size, unit] = SCALES.find(([one]) => value >= one * 0.9995) || SCALES[2];
    return digits(value / size) + " " + unit;
  }

  // For JSON.parse: numbers that stand as number and count of each stretch of equal ones.
  function expanded(key, value) {
    if (!value || !Array.isArray(value.runs)) return value;
    return value.runs.flatMap((one, place) => (place % 2 ? [] : Array(value.runs[place + 1]).fill(one)));
  }

  // Puts a text into an element. A number and its unit, or a name with hyphens, is broken only where
  // a line has no room for it; as in page/__init__.py.
  const TOGETHER = /[+-]?[\d.,]+ (?:%|[mu]?s)(?!\w)[,.;:)\]]*|\S*-\w\S*/g;

  function prose(element, words) {
    const text = String(words ?? "");
    let end = 0;
    for (const found of text.matchAll(TOGETHER)) {
      const word = document.createElement("span");
      word.className = "whole";
      word.textContent = found[0];
      element.append(text.slice(end, found.index), word);
      end = found.index + found[0].length;
    }
    element.append(text.slice(end));
    return element;
  }

  return { seconds, expanded, prose };
})();

// Tables: sorting, the columns for which the window has no room, and links of commits.
const tableParts = (function () {
  // What a cell of numbers holds, of which some are words: "default (2)" threads.
  function valueIn(cell) {
    const number = Number(cell.dataset.v);
    return Number.isNaN(number) ? cell.textContent : number;
  }

  function sort(head, down) {
    const table = head.closest("table");
    const place = head.cellIndex;
    const numeric = head.classList.contains("n");
    const value = (line) => {
      const cell = line.cells[place];
      if (!numeric) return cell.textContent === "" ? null : cell.textContent;
      return "v" in cell.dataset ? valueIn(cell) : null;
    };
    const collator = new Intl.Collator("en", { numeric: true });
    const lines = Array.from(table.tBodies[0].rows, (line) => [value(line), line]);
    lines.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null); // absent cells come last
      const numbers = typeof a === "number" && typeof b === "number";
      const order = numbers ? a - b : collator.compare(a, b); // words stand beyond numbers
      return down ? -order : order;
    });
    table.tBodies[0].replaceChildren(...lines.map(([, line]) => line));
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
  }

  const whole = new Set(); // tables of which all columns were asked for

  // What a row is of stands below its first cell where its columns have no room.
  function name(table, heads) {
    if (!heads.length && !table.querySelector("[data-also]")) return;
    const places = heads.map((head) => head.cellIndex).sort((a, b) => a - b);
    const words = (cell, at) => (cell.className === "n" ? table.tHead.rows[0].cells[at].textContent + " " : "") + cell.textContent;
    for (const line of table.tBodies[0].rows) {
      const found = places.filter((at) => line.cells[at].textContent).map((at) => words(line.cells[at], at));
      if (found.length) line.cells[0].dataset.also = found.join(", ").replaceAll("-", "-\u2060"); // names stay whole
      else delete line.cells[0].dataset.also;
    }
  }

  // The two ends of an interval are shown and hidden together.
  const ENDS = { low: "high", high: "low" };

  function withOtherEnd(head, heads) {
    const other = head.dataset.key.split("_").map((word) => ENDS[word] || word).join("_");
    return heads.filter((one) => one === head || one.dataset.key === other);
  }

  function fit(table) {
    const box = table.closest(".scroll");
    if (!box.clientWidth) return; // folded
    const heads = Array.from(table.tHead.rows[0].cells);
    table.className = "";
    name(table, []);
    const more = partOf(table, ".more");
    const hidden = [];
    const rest = heads.slice(1).reverse();
    const is = (word) => rest.filter((head) => head.classList.contains(word));
    const others = rest.filter((head) => !head.matches(".main, .who"));
    for (const head of [...others, ...is("who"), ...is("main")]) {
      if (table.scrollWidth <= box.clientWidth) break;
      if (heads.length - hidden.length <= 2) break;
      if (hidden.includes(head)) continue;
      for (const one of withOtherEnd(head, heads)) {
        table.classList.add("h" + (one.cellIndex + 1));
        hidden.push(one);
      }
      if (head.matches(".who")) name(table, hidden.filter((one) => one.matches(".who")));
    }
    more.hidden = !hidden.length;
    const names = heads.filter((head) => hidden.includes(head)).map((head) => head.textContent);
    more.textContent = whole.has(table)
      ? "Show the columns that fit"
      : "Show " + names.length + (names.length === 1 ? " more column: " : " more columns: ") + names.join(", ");
    if (whole.has(table)) {
      table.className = "";
      name(table, []);
    }
  }

  function partOf(table, what) {
    return table.closest(".scroll").previousElementSibling.querySelector(what);
  }

  function unfoldColumns(table) {
    if (!whole.delete(table)) whole.add(table);
    fit(table);
  }

  return { sort, fit, partOf, unfoldColumns, valueIn };
})();

(function () {
  const data = document.getElementById("commit-links");
  if (!data) return;
  const { url, commits } = JSON.parse(data.textContent);
  const known = new Set(commits);

  function link(table) {
    const heads = Array.from(table.tHead.rows[0].cells);
    const places = heads.flatMap((head, place) => (/^(last_)?commit$/.test(head.dataset.key) ? [place] : []));
    for (const line of table.tBodies[0].rows) {
      for (const place of places) {
        const cell = line.cells[place];
        const name = cell.textContent.split(" ")[0];
        if (!known.has(name) || cell.firstElementChild) continue;
        const found = document.createElement("a");
        found.href = url + name;
        found.rel = "noreferrer";
        found.textContent = name;
        cell.firstChild.splitText(name.length);
        cell.firstChild.replaceWith(found);
      }
    }
  }

  for (const table of document.querySelectorAll("main table")) {
    link(table);
    const watch = new MutationObserver(() => link(table)); // the table of runs is filled anew
    watch.observe(table.tBodies[0], { childList: true });
  }
})();
