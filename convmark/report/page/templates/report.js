"use strict";
(function () {
  const drawings = JSON.parse(document.getElementById("drawings").textContent, units.expanded);

  // Rows: from the table in the page, or, of the long table, from the data beside the drawings.

  function rowsOfPage(key) {
    const table = document.getElementById("table-" + key);
    const heads = Array.from(table.tHead.rows[0].cells);
    return Array.from(table.tBodies[0].rows, (line) => {
      const row = {};
      heads.forEach((head, place) => {
        const cell = line.cells[place];
        if (head.classList.contains("n")) {
          row[head.dataset.key] = "v" in cell.dataset ? Number(cell.dataset.v) : null;
          row[head.dataset.key + "_text"] = cell.textContent;
        } else {
          row[head.dataset.key] = cell.textContent;
        }
      });
      return row;
    });
  }

  function rowsOfData(data, column, choice) {
    const chooser = data.columns[column];
    const wanted = chooser.values.indexOf(choice);
    const rows = [];
    chooser.at.forEach((at, place) => {
      if (at !== wanted) return;
      const row = {};
      for (const [key, one] of Object.entries(data.columns)) {
        const at = one.at[place];
        if (one.values) {
          row[key] = one.values[at];
        } else {
          row[key] = one.raw[at];
          row[key + "_text"] = one.text ? one.text[at] : units.seconds(one.raw[at]);
        }
      }
      rows.push(row);
    });
    return rows;
  }

  function fillTable(key, rows) {
    const table = document.getElementById("table-" + key);
    const heads = Array.from(table.tHead.rows[0].cells);
    const lines = rows.map((row) => {
      const line = document.createElement("tr");
      for (const head of heads) {
        const cell = line.insertCell();
        const name = head.dataset.key;
        if (head.classList.contains("n")) {
          cell.className = "n";
          if (row[name] !== null) cell.dataset.v = String(row[name]);
          cell.textContent = row[name + "_text"];
        } else {
          cell.textContent = row[name];
          if (name === "verdict" && row[name]) cell.className = "mark-" + row[name].split(" ")[0];
        }
      }
      return line;
    });
    table.tBodies[0].replaceChildren(...lines);
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    const summary = table.closest("details").querySelector("summary");
    summary.textContent = "The numbers: " + rows.length + (rows.length === 1 ? " row" : " rows");
    filter(document.querySelector('input[data-table="' + table.id + '"]'));
  }

  // Drawings

  const ROOM = 16; // above each line of a narrow drawing, for its name

  function heightOf(spec, rows, narrow) {
    if (!spec.height.step) return spec.height;
    const lines = new Set(rows.map((row) => spec.usermeta.lines.map((key) => row[key]).join("|")));
    return (spec.height.step + (narrow ? ROOM : 0)) * lines.size;
  }

  // On a phone the names of lines stand above them, so that neither they nor the drawing are cut.
  function narrowed(config, width) {
    config.legend.labelLimit = width - 130;
    config.axis.labelLimit = 120;
    config.axisYDiscrete = {
      labelAlign: "left", labelPadding: -8, labelOffset: -ROOM, labelLimit: width - 30,
      ticks: false, domain: false, grid: false,
    };
  }

  const NARROW = { columns: 2, minExtent: 56, maxExtent: 56 };

  function specOf(spec, narrow) {
    const text = JSON.stringify(spec);
    return JSON.parse(text, (key, value) => (narrow && key in NARROW ? NARROW[key] : value));
  }

  function draw(key) {
    const drawing = drawings[key];
    const select = document.querySelector('select[data-choose="' + key + '"]');
    const choice = select ? select.value : null;
    let rows;
    if (drawing.data) {
      rows = rowsOfData(drawing.data, drawing.choose_by, choice);
      fillTable(key, rows);
    } else {
      rows = rowsOfPage(key).filter((row) => choice === null || row[drawing.choose_by] === choice);
    }
    drawing.specs.forEach((spec, number) => {
      const place = document.getElementById("figure-" + key + "-" + number);
      drawPanels(place, spec, rows, drawing.panels).then(
        () => place.setAttribute("data-drawn", choice === null ? "all" : choice),
        (error) => {
          place.textContent = "This figure could not be drawn: " + error.message;
          place.className = "drawing error";
          console.error(key, error);
        }
      );
    });
  }

  // Small multiples: one drawing for each value of a column. After the first ones the page is
  // drawn, and the others follow one by one.

  const FIRST_PANELS = 12;

  function drawPanels(place, spec, rows, by) {
    if (!by) return embed(place, spec, rows);
    const groups = new Map();
    for (const row of rows) groups.set(row[by], [...(groups.get(row[by]) || []), row]);
    const panels = Array.from(groups, ([name, own]) => {
      const panel = document.createElement("div");
      const title = document.createElement("h3");
      title.textContent = name;
      const drawn = document.createElement("div");
      panel.append(title, drawn);
      return [panel, () => embed(drawn, spec, own)];
    });
    place.classList.add("panels");
    place.setAttribute("role", "group");
    place.setAttribute("aria-label", spec.description);
    place.replaceChildren(...panels.map(([panel]) => panel));
    const drawn = Promise.all(panels.slice(0, FIRST_PANELS).map(([, start]) => start()));
    drawn.then(() => drawOthers(panels.slice(FIRST_PANELS)));
    return drawn;
  }

  async function drawOthers(panels) {
    for (const [panel, start] of panels) {
      await new Promise((resolve) => setTimeout(resolve)); // the reader comes first
      if (!panel.isConnected) return; // another choice is drawn by now
      await start();
    }
  }

  function embed(place, spec, rows) {
    const narrow = place.clientWidth < 560;
    const height = heightOf(spec, rows, narrow);
    place.classList.toggle("tall", height > 640 && height <= 1600); // of a page in print
    place.classList.toggle("endless", height > 1600);
    const config = structuredClone(drawings.config);
    if (narrow) narrowed(config, place.clientWidth);
    const whole = Object.assign(specOf(spec, narrow), {
      data: { values: rows },
      width: "container",
      padding: narrow ? { left: 14, right: 10, top: 5, bottom: 5 } : 5,
      height: height,
      config: config,
    });
    return vegaEmbed(place, whole, {
      actions: false,
      renderer: "svg",
      ast: true, // expressions are interpreted: the page's policy forbids evaluation
      tooltip: { theme: "custom" },
      logLevel: 1, // errors alone: a case without intervals is no reason for a warning
    });
  }

  // Tables: sorting and filtering

  function sort(head) {
    const table = head.closest("table");
    const place = head.cellIndex;
    const down = head.getAttribute("aria-sort") === "ascending";
    const numeric = head.classList.contains("n");
    const value = (line) => {
      const cell = line.cells[place];
      if (!numeric) return cell.textContent === "" ? null : cell.textContent;
      return "v" in cell.dataset ? Number(cell.dataset.v) : null;
    };
    const collator = new Intl.Collator("en", { numeric: true });
    const lines = Array.from(table.tBodies[0].rows, (line) => [value(line), line]);
    lines.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null); // absent cells come last
      const order = numeric ? a - b : collator.compare(a, b);
      return down ? -order : order;
    });
    table.tBodies[0].replaceChildren(...lines.map(([, line]) => line));
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
  }

  function filter(input) {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const table = document.getElementById(input.dataset.table);
    let shown = 0;
    for (const line of table.tBodies[0].rows) {
      const text = Array.from(line.cells, (cell) => cell.textContent).join(" ").toLowerCase();
      line.hidden = !words.every((word) => text.includes(word));
      shown += !line.hidden;
    }
    const all = table.tBodies[0].rows.length;
    const count = input.closest(".filter").querySelector(".count");
    count.textContent = words.length ? shown + " of " + all + " rows" : "";
  }

  document.addEventListener("click", (event) => {
    const head = event.target.closest("th");
    if (head && head.closest("main")) sort(head);
  });
  document.addEventListener("input", (event) => {
    if (event.target.matches("input[data-table]")) filter(event.target);
  });
  document.addEventListener("change", (event) => {
    if (event.target.matches("select[data-choose]")) draw(event.target.dataset.choose);
  });
  window.addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details")) part.open = true;
  });
  for (const key of Object.keys(drawings)) if (key !== "config") draw(key);
})();
