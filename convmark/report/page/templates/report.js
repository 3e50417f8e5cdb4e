"use strict";
(function () {
  const data = JSON.parse(document.getElementById("drawings").textContent, units.expanded);
  const figures = data.figures;
  const { sort, fit, partOf, unfoldColumns, valueIn } = tableParts;
  const tables = Array.from(document.querySelectorAll("main table"));
  const chooser = document.getElementById("facets");
  const boxes = Array.from(chooser.querySelectorAll("input"));
  const valueOf = (box) => data.facets.values[box.name][Number(box.dataset.at)];

  // The state: what is chosen, how tables are sorted. The address has all of it, so that a link
  // shows the same; of an address nothing is used but values that are in the page.

  const picked = new Map(); // by figure: the choice that the reader has made
  const asked = new URLSearchParams(location.search);

  function remember() {
    const found = new URLSearchParams();
    for (const box of boxes) if (box.checked) found.append(box.name, valueOf(box));
    for (const table of tables) {
      const head = table.tHead.querySelector("th[aria-sort]");
      if (!head) continue;
      const sign = head.getAttribute("aria-sort") === "descending" ? "-" : "";
      found.set("sort." + table.id.slice("table-".length), sign + head.dataset.key);
    }
    for (const [key, choice] of picked) found.set("show." + key, choice);
    const search = found.toString() ? "?" + found : location.pathname;
    try {
      history.replaceState(null, "", search + location.hash);
    } catch (error) {
      if (error.name !== "SecurityError") throw error; // a frame without an address of its own
    }
  }

  function recall() {
    for (const box of boxes) box.checked = asked.getAll(box.name).includes(valueOf(box));
    for (const select of document.querySelectorAll("select[data-choose]")) {
      const choice = asked.get("show." + select.dataset.choose);
      const there = Array.from(select.options).some((option) => option.textContent === choice);
      if (there) picked.set(select.dataset.choose, choice);
    }
    for (const table of tables) {
      const words = asked.get("sort." + table.id.slice("table-".length)) || "";
      const down = words.startsWith("-");
      const key = down ? words.slice(1) : words;
      const head = Array.from(table.tHead.rows[0].cells).find((one) => one.dataset.key === key);
      if (head) sort(head, down);
    }
  }

  // Facets: a row is shown where each facet in which something is chosen has its value. A facet
  // that no row of a table has leaves the table as it is.

  let chosen = []; // by place of the facet: the chosen values, or null
  const has = new Map(); // by table: the facets that some row has

  function facetsOf(key, numbers) {
    if (!has.has(key)) {
      const found = data.facets.labels.map(() => false);
      for (const number of new Set(numbers)) {
        data.facets.rows[number].forEach((value, place) => (found[place] ||= value !== ""));
      }
      has.set(key, found);
    }
    return has.get(key);
  }

  function isShown(number, own) {
    return data.facets.rows[number].every(
      (value, place) => !chosen[place] || !own[place] || chosen[place].has(value)
    );
  }

  function choose() {
    chosen = data.facets.labels.map((label) => {
      const own = boxes.filter((box) => box.checked && box.name === label);
      const values = own.map(valueOf);
      return values.length ? new Set(values) : null;
    });
    const words = [];
    data.facets.labels.forEach((label, place) => {
      const part = chooser.querySelector('[data-facet="' + label + '"] .chosen');
      if (part) part.textContent = chosen[place] ? " (" + chosen[place].size + ")" : "";
      if (chosen[place]) words.push(label + " " + Array.from(chosen[place]).join(" or "));
    });
    const told = chooser.querySelector(".words");
    told.replaceChildren();
    units.prose(told, words.length ? "Only " + words.join("; ") : "");
    const reset = chooser.querySelector("button");
    if (reset) reset.hidden = !words.length;
    const all = document.querySelector(".tiles .all");
    if (all) all.hidden = !words.length;
    document.querySelector("main").classList.toggle("chosen", words.length > 0);
    const models = chosen[data.facets.labels.indexOf("model")];
    document.querySelectorAll("details.model").forEach((model, place) => {
      model.hidden = Boolean(models) && !models.has(data.models[place]);
    });
    for (const table of tables) filter(table);
    for (const key of Object.keys(figures)) draw(key);
    const pairs = data.facets.labels.map((label, place) => [label, chosen[place]]);
    chooser.chosen = new Map(pairs.filter(([, values]) => values)); // for the sides
    chooser.dispatchEvent(new Event("chosen"));
    fitAll();
  }

  function filter(table) {
    const lines = Array.from(table.tBodies[0].rows).filter((line) => "f" in line.dataset);
    const own = facetsOf(table.id, lines.map((line) => Number(line.dataset.f)));
    let shown = 0;
    for (const line of lines) {
      line.hidden = !isShown(Number(line.dataset.f), own);
      shown += !line.hidden;
    }
    const all = lines.length;
    partOf(table, ".count").textContent = shown < all ? shown + " of " + all + " rows" : "";
  }

  // Rows: from the table in the page, or, of the long table, from the data beside the drawings.

  function rowsOfPage(key) {
    const table = document.getElementById("table-" + key);
    const heads = Array.from(table.tHead.rows[0].cells);
    const shared = {};
    for (const one of table.closest("section").querySelectorAll(".same b")) {
      const name = one.dataset.key;
      shared[name] = "v" in one.dataset ? valueIn(one) : one.textContent;
      if ("v" in one.dataset) shared[name + "_text"] = one.textContent;
    }
    return Array.from(table.tBodies[0].rows)
      .filter((line) => !line.hidden)
      .map((line) => {
        const row = { ...shared };
        heads.forEach((head, place) => {
          const cell = line.cells[place];
          if (head.classList.contains("n")) {
            row[head.dataset.key] = "v" in cell.dataset ? valueIn(cell) : null;
            row[head.dataset.key + "_text"] = cell.textContent;
          } else {
            row[head.dataset.key] = cell.textContent;
          }
        });
        return row;
      });
  }

  function choiceOf(by, row) {
    return by.includes("{") ? by.replace(/\{(\w+)\}/g, (all, key) => String(row[key])) : row[by];
  }

  function rowsOfData(long, choice, by) {
    const chooser = long.columns[by];
    const wanted = chooser.values.indexOf(choice);
    const own = facetsOf("data", long.facets);
    const rows = [];
    chooser.at.forEach((at, place) => {
      if (at !== wanted || !isShown(long.facets[place], own)) return;
      const row = {};
      for (const [key, one] of Object.entries(long.columns)) {
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

  function choicesOfData(long, by) {
    const chooser = long.columns[by];
    const own = facetsOf("data", long.facets);
    const found = new Set();
    chooser.at.forEach((at, place) => {
      if (!found.has(at) && isShown(long.facets[place], own)) found.add(at);
    });
    return new Set(Array.from(found, (at) => chooser.values[at]));
  }

  // The text as it is: a select's value has its spaces collapsed.
  const choiceIn = (select) => select.options[select.selectedIndex].textContent;

  // Only choices that have rows can be made; while the reader's has none, the first stands for it.
  function limit(select, there) {
    const options = Array.from(select.options);
    for (const one of options) one.hidden = one.disabled = !there.has(one.textContent);
    const own = options.find((one) => one.textContent === picked.get(select.dataset.choose));
    const wanted = own || options.find((one) => one.defaultSelected);
    const shown = wanted.disabled ? options.find((one) => !one.disabled) : wanted;
    if (shown) shown.selected = true;
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
          units.prose(cell, row[name]);
          if (name === "verdict" && row[name]) cell.className = "mark-" + row[name].split(" ")[0];
        }
      }
      return line;
    });
    table.tBodies[0].replaceChildren(...lines);
    const head = table.tHead.querySelector("th[aria-sort]");
    if (head) sort(head, head.getAttribute("aria-sort") === "descending");
    const summary = table.closest("details").querySelector("summary");
    summary.textContent = "The numbers: " + rows.length + (rows.length === 1 ? " row" : " rows");
    fit(table);
  }

  // Drawings

  const ROOM = 16; // above each line of a narrow drawing, for its name

  function heightOf(spec, rows, narrow) {
    if (!spec.height.step) return spec.height;
    const { lines, several } = spec.usermeta; // several: what of a line more than one must have
    const counts = new Map();
    for (const row of rows.filter((row) => !several || row[several] !== null)) {
      const name = lines.map((key) => row[key]).join("|");
      counts.set(name, (counts.get(name) || 0) + (row.task ? 1 : 2));
    }
    const drawn = Array.from(counts.values()).filter((count) => !several || count > 1);
    return (spec.height.step + (narrow ? ROOM : 0)) * drawn.length;
  }

  // On a phone the names of lines stand above them, so that neither they nor the drawing are cut.
  function narrowed(config, width) {
    config.legend.labelLimit = width - 110;
    config.axis.labelLimit = 120;
    config.axisTop = { offset: ROOM }; // the first line's name stands below it
    config.axisYDiscrete = {
      labelAlign: "left", labelPadding: -8, labelOffset: -ROOM, labelLimit: width - 30,
      ticks: false, domain: false, grid: false,
    };
  }

  const NARROW = { columns: 2, minExtent: 56, maxExtent: 56 };

  const LETTERS = 44; // of a title's line that a phone has room for

  function folded(title) {
    const lines = [""];
    for (const word of title.split(" ")) {
      if ((lines.at(-1) + " " + word).length > LETTERS) lines.push("");
      lines.push((lines.pop() + " " + word).trim());
    }
    return lines;
  }

  // One value of a field has one colour and shape in every drawing: figures/figure.py.
  function painted(spec, rows) {
    return JSON.parse(JSON.stringify(spec), (key, value) => {
      const range = data.ranges[key];
      const slots = range && value && !value.scale && data.slots[value.field];
      if (!slots) return value;
      const there = new Set(rows.map((row) => row[value.field] || data.unknown));
      const domain = Object.keys(slots).filter((one) => there.has(one));
      return { ...value, scale: { domain, range: domain.map((one) => range[slots[one] % range.length]) } };
    });
  }

  function specOf(spec, narrow) {
    if (!narrow) return spec;
    return JSON.parse(JSON.stringify(spec), (key, value) => {
      if (key === "title" && typeof value === "string" && value.length > LETTERS) return folded(value);
      if (key === "color" && value.field && value.legend !== null) { // no name of a line is cut
        return { ...value, legend: { ...value.legend, labelExpr: "split(datum.label, ', ')" } };
      }
      return key in NARROW ? NARROW[key] : value;
    });
  }

  function rowsOf(key, select) {
    const drawing = figures[key];
    const by = drawing.choose_by;
    if (drawing.data) {
      limit(select, choicesOfData(drawing.data, by));
      const rows = rowsOfData(drawing.data, choiceIn(select), by);
      fillTable(key, rows);
      return rows;
    }
    const rows = rowsOfPage(key);
    if (!select) return rows;
    limit(select, new Set(rows.map((row) => choiceOf(by, row))));
    return rows.filter((row) => choiceOf(by, row) === choiceIn(select));
  }

  function draw(key) {
    const drawing = figures[key];
    const select = document.querySelector('select[data-choose="' + key + '"]');
    const rows = rowsOf(key, select);
    drawing.specs.forEach((spec, number) => {
      const place = document.getElementById("figure-" + key + "-" + number);
      place.hidden = !rows.length;
      drawPanels(place, spec, rows, drawing.panels).then(
        () => place.setAttribute("data-drawn", select ? choiceIn(select) : "all"),
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
  const waiting = new Map(); // panels that are not drawn yet, with what draws them

  function drawPanels(place, spec, rows, by) {
    if (!by) return embed(place, spec, rows);
    const groups = new Map();
    for (const row of rows) groups.set(row[by], [...(groups.get(row[by]) || []), row]);
    const panels = Array.from(groups, ([name, own]) => {
      const panel = document.createElement("div");
      const title = document.createElement("h3");
      units.prose(title, name);
      const drawn = document.createElement("div");
      panel.append(title, drawn);
      return [panel, () => embed(drawn, spec, own)];
    });
    place.classList.add("panels");
    place.setAttribute("role", "group");
    place.setAttribute("aria-label", spec.description);
    place.replaceChildren(...panels.map(([panel]) => panel));
    const others = panels.slice(FIRST_PANELS);
    for (const [panel, start] of others) waiting.set(panel, start);
    const drawn = Promise.all(panels.slice(0, FIRST_PANELS).map(([, start]) => start()));
    drawn.then(() => drawOthers(others.map(([panel]) => panel)));
    return drawn;
  }

  async function drawOthers(panels) {
    for (const panel of panels) {
      await new Promise((resolve) => setTimeout(resolve)); // the reader comes first
      await drawWaiting(panel);
    }
  }

  function drawWaiting(panel) {
    const start = waiting.get(panel);
    waiting.delete(panel);
    return start && panel.isConnected ? start() : null; // else another choice is drawn by now
  }

  function embed(place, spec, rows) {
    const narrow = place.clientWidth < 560;
    const height = heightOf(spec, rows, narrow);
    place.hidden ||= !height; // no line to draw under this choice
    if (!height) return Promise.resolve(place.replaceChildren());
    place.classList.toggle("tall", height > 640 && height <= 1600); // of a page in print
    place.classList.toggle("endless", height > 1600);
    const config = structuredClone(data.config);
    if (narrow) narrowed(config, place.clientWidth);
    const whole = Object.assign(specOf(painted(spec, rows), narrow), {
      data: { values: rows },
      width: "container",
      padding: { left: narrow ? 14 : 5, right: 26, top: 5, bottom: 5 }, // half of the last label
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

  function fitAll() {
    tables.forEach(fit);
  }

  function unfold() {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    if (!target) return;
    for (const part of target.querySelectorAll(":scope > details")) part.open = true;
  }

  document.addEventListener("click", (event) => {
    const head = event.target.closest("th");
    const more = event.target.closest(".more");
    if (event.target.matches("#facets button")) {
      for (const box of boxes) box.checked = false;
      choose();
      remember();
    }
    if (head && head.closest("main")) {
      const before = head.getAttribute("aria-sort");
      sort(head, before ? before === "ascending" : true);
      remember();
    } else if (more) {
      const table = more.parentNode.nextElementSibling.querySelector("table");
      unfoldColumns(table);
    }
    for (const open of chooser.querySelectorAll("details[open]")) {
      if (!open.contains(event.target)) open.open = false;
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const open of chooser.querySelectorAll("details[open]")) open.open = false;
  });
  document.addEventListener("change", (event) => {
    if (event.target.matches("select[data-choose]")) {
      picked.set(event.target.dataset.choose, choiceIn(event.target));
      draw(event.target.dataset.choose);
    } else if (chooser.contains(event.target)) choose();
    remember();
  });
  document.addEventListener("toggle", (event) => {
    if (event.target.open) event.target.querySelectorAll("table").forEach(fit);
  }, true);
  window.addEventListener("hashchange", unfold);
  window.addEventListener("resize", fitAll);
  window.addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("main details:not(.facet)")) part.open = true;
    for (const panel of Array.from(waiting.keys())) drawWaiting(panel);
  });
  recall();
  choose();
  unfold();
})();
