"use strict";
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
