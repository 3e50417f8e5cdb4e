"use strict";
// The site: groups are filtered and sorted here; the rows of a group come from the parts that hold them.
const site = (function () {
  const AT_ONCE = 200; // rows of a table that are drawn at once
  const MOST_MODELS = 400, MOST_COLUMNS = 60; // of the grid
  const byId = (name) => document.getElementById(name);
  const FIGURES = {
    throughput_samples_per_s: ["samples/s", (value) => value.toLocaleString("en", { maximumSignificantDigits: 4 })],
    step_time_p50_s: ["step p50, ms", (value) => (1000 * value).toLocaleString("en", { maximumSignificantDigits: 4 })],
    accuracy: ["accuracy", (value) => value.toFixed(4)],
  };
  const WHO = {
    model: "model", cases: "cases", device: "device", machine: "machine", framework: "version",
    source: "contributor", newest: "newest",
  };
  const OTHERS = { rows: "rows", unclean: "not clean" };

  let data, keys, starts; // the groups, their columns, and of each the number of its first row
  const chosen = new Map(); // by column: the places of the values that are chosen
  let found = [], shown = 0, sorted = null, down = false;
  const parts = new Map(), waiting = new Map(); // by number: a part that is asked for, and what it is handed to

  const valueOf = (key, group) => data.columns[key].values[data.columns[key].at[group]];

  // Numbers may stand as number and count of each stretch of equal ones.
  function expanded(numbers) {
    const { runs } = numbers;
    if (!runs) return numbers;
    return runs.flatMap((one, place) => (place % 2 ? [] : Array(runs[place + 1]).fill(one)));
  }

  function element(name, text, more) {
    return Object.assign(document.createElement(name), { textContent: text }, more);
  }

  function cell(text, numeric) {
    return element("td", text, { className: numeric ? "n" : "" });
  }

  function figure(name, value) {
    return cell(value === null ? "" : FIGURES[name][1](value), true);
  }

  // What is chosen

  function matching() {
    const tests = [];
    for (const [key, places] of chosen) {
      if (!places.size) continue;
      const { at } = data.columns[key];
      tests.push((group) => places.has(at[group]));
    }
    for (const word of byId("search").value.toLowerCase().split(/\s+/).filter(Boolean)) {
      const having = keys.map((key) => {
        const { at, values } = data.columns[key];
        return { at, has: Uint8Array.from(values, (value) => value.toLowerCase().includes(word)) };
      }).filter(({ has }) => has.includes(1));
      tests.push((group) => having.some(({ at, has }) => has[at[group]]));
    }
    const groups = [];
    for (let group = 0; group < data.rows.length; group++) {
      if (tests.every((test) => test(group))) groups.push(group);
    }
    return groups;
  }

  function filter() {
    found = matching();
    const rows = found.reduce((sum, group) => sum + data.rows[group], 0);
    byId("found").textContent = found.length.toLocaleString("en") + " cases, " + rows.toLocaleString("en") + " rows";
    for (const box of document.querySelectorAll("#facets details")) {
      const { size } = chosen.get(box.dataset.facet);
      box.querySelector(".chosen").textContent = size ? ": " + size : "";
    }
    remember();
    choices();
    grid();
    order();
  }

  // The address keeps what is chosen; of an address nothing is used but values that are in the data.

  function remember() {
    const asked = new URLSearchParams();
    for (const [key, places] of chosen) for (const place of places) asked.append(key, data.columns[key].values[place]);
    if (byId("search").value) asked.set("search", byId("search").value);
    try {
      history.replaceState(null, "", "#" + asked);
    } catch (error) {
      if (error.name !== "SecurityError") throw error;
    }
  }

  function recall() {
    const asked = new URLSearchParams(location.hash.slice(1));
    for (const [key, places] of chosen) {
      for (const value of asked.getAll(key)) {
        const place = data.columns[key].values.indexOf(value);
        if (place >= 0) places.add(place);
      }
    }
    byId("search").value = asked.get("search") || "";
  }

  function facets() {
    for (const [key, label] of Object.entries(data.facets)) {
      const { values } = data.columns[key];
      chosen.set(key, new Set());
      if (values.length < 2) continue;
      const box = element("details", "", { className: "facet" });
      box.dataset.facet = key;
      const summary = element("summary", label);
      summary.append(element("span", "", { className: "chosen" }));
      box.append(summary);
      box.addEventListener("toggle", () => box.childElementCount > 1 || box.append(boxes(key, label, values)));
      byId("facets").append(box);
    }
    const all = element("button", "Show all", { type: "button" });
    all.addEventListener("click", () => {
      for (const places of chosen.values()) places.clear();
      for (const input of document.querySelectorAll("#facets input")) input.checked = false;
      byId("search").value = "";
      filter();
    });
    byId("facets").append(all);
  }

  function boxes(key, label, values) {
    const fieldset = element("fieldset", "");
    fieldset.append(element("legend", label));
    const places = chosen.get(key);
    values.forEach((value, place) => {
      const label = element("label", "");
      const input = element("input", "", { type: "checkbox", checked: places.has(place), name: key, value });
      input.addEventListener("change", () => {
        if (input.checked) places.add(place);
        else places.delete(place);
        filter();
      });
      label.append(input, " " + value);
      fieldset.append(label);
    });
    return fieldset;
  }

  function choose(key, place) {
    const places = chosen.get(key);
    places.clear();
    places.add(place);
    for (const input of document.querySelectorAll("#facets input")) {
      if (input.name === key) input.checked = input.value === data.columns[key].values[place];
    }
  }

  // The grid

  function choices() {
    const { values, at } = data.columns.cases;
    const counts = new Map();
    for (const group of found) counts.set(at[group], (counts.get(at[group]) || 0) + 1);
    const most = [...counts].sort(([one, a], [other, b]) => b - a || one - other).map(([place]) => place);
    const before = byId("cases").value;
    byId("cases").replaceChildren(...most.map((place) => element("option", values[place], { value: place })));
    if (counts.has(Number(before)) && before) byId("cases").value = before;
  }

  function grid() {
    const cases = Number(byId("cases").value), across = byId("across").value;
    const { model, framework } = data.columns, columns = data.columns[across];
    const best = new Map(), models = new Set(), heads = new Set(), rates = data.figures.throughput_samples_per_s;
    for (const group of found) {
      if (data.columns.cases.at[group] !== cases || rates[group] === null) continue;
      const row = model.at[group], column = columns.at[group];
      models.add(row);
      heads.add(column);
      const key = row * columns.values.length + column, before = best.get(key);
      const newer = before === undefined ? 1 : framework.at[group] - framework.at[before] || data.rows[group] - data.rows[before];
      if (newer > 0) best.set(key, group);
    }
    const places = [...heads].sort((a, b) => a - b).slice(0, MOST_COLUMNS);
    const head = element("tr", "");
    head.append(element("th", "model"), ...places.map((place) => element("th", columns.values[place], { className: "n" })));
    const lines = [...models].sort((a, b) => a - b).slice(0, MOST_MODELS).map((row) => {
      const line = element("tr", "");
      line.append(element("td", model.values[row]));
      for (const column of places) {
        const group = best.get(row * columns.values.length + column);
        const one = group === undefined ? cell("", true) : figure("throughput_samples_per_s", rates[group]);
        if (group !== undefined) {
          one.title = valueOf("framework", group) + ", " + valueOf("machine", group) + ", " + valueOf("newest", group);
          one.dataset.group = group;
        }
        line.append(one);
      }
      return line;
    });
    const table = byId("table-grid");
    table.tHead.replaceChildren(head);
    table.tBodies[0].replaceChildren(...lines);
  }

  // The cases

  function order() {
    if (sorted) {
      const by = data.columns[sorted] ? data.columns[sorted].at : data.figures[sorted] || data[sorted];
      const sign = down ? -1 : 1;
      found.sort((a, b) => {
        const [one, other] = [by[a], by[b]];
        if (one === null || other === null) return (one === null) - (other === null);
        return sign * (one < other ? -1 : one > other ? 1 : 0) || a - b;
      });
    }
    shown = 0;
    byId("table-cases").tBodies[0].replaceChildren();
    more();
  }

  function more() {
    const lines = found.slice(shown, shown + AT_ONCE).map((group) => {
      const line = element("tr", "", { tabIndex: 0 });
      line.dataset.group = group;
      line.append(...Object.keys(WHO).map((key) => cell(valueOf(key, group))));
      line.append(...Object.keys(FIGURES).map((name) => figure(name, data.figures[name][group])));
      line.append(...Object.keys(OTHERS).map((name) => cell(data[name][group], true)));
      return line;
    });
    shown += lines.length;
    byId("table-cases").tBodies[0].append(...lines);
    byId("more").hidden = shown >= found.length;
  }

  function heads() {
    const labels = { ...WHO };
    for (const [name, [label]] of Object.entries(FIGURES)) labels[name] = label;
    const line = element("tr", "");
    for (const [key, label] of Object.entries({ ...labels, ...OTHERS })) {
      const head = element("th", "", { scope: "col" });
      const button = element("button", label, { type: "button" });
      button.addEventListener("click", () => {
        down = sorted === key ? !down : key in FIGURES;
        sorted = key;
        for (const other of line.cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        order();
      });
      head.append(button);
      line.append(head);
    }
    byId("table-cases").tHead.replaceChildren(line);
  }

  // The rows of one group

  function load(number) {
    if (!parts.has(number)) {
      parts.set(number, new Promise((resolve) => {
        waiting.set(number, resolve);
        const script = element("script", "");
        script.src = "parts/" + String(number).padStart(4, "0") + ".js";
        document.body.append(script);
      }));
    }
    return parts.get(number);
  }

  async function open(group) {
    for (const line of byId("table-cases").tBodies[0].rows) line.setAttribute("aria-selected", Number(line.dataset.group) === group);
    const line = element("tr", "");
    const labels = [...Object.values(FIGURES).map(([label]) => label), ...Object.values(data.shown)];
    line.append(...labels.map((label) => element("th", label)));
    const table = byId("table-rows");
    table.tHead.replaceChildren(line);
    table.tBodies[0].replaceChildren();
    byId("of").textContent = Object.keys(WHO).map((key) => valueOf(key, group)).filter(Boolean).join(", ");
    byId("rows").hidden = false;
    table.dataset.group = group;
    await rows(group, 0);
    byId("rows").scrollIntoView({ block: "nearest" });
  }

  async function rows(group, from) {
    const end = Math.min(from + AT_ONCE, data.rows[group]);
    const lines = [];
    for (let row = starts[group] + from; row < starts[group] + end; row++) {
      const part = await load(Math.floor(row / data.part));
      const at = row % data.part;
      const line = element("tr", "");
      line.append(...Object.keys(FIGURES).map((name) => figure(name, part[name][at])));
      for (const key of Object.keys(data.shown)) {
        const column = part[key];
        line.append(cell(column.values ? column.values[column.at[at]] : column[at]));
      }
      lines.push(line);
    }
    const table = byId("table-rows");
    if (Number(table.dataset.group) !== group) return; // another was opened meanwhile
    table.tBodies[0].append(...lines);
    byId("more-rows").hidden = end >= data.rows[group];
    byId("more-rows").onclick = () => rows(group, end);
  }

  function listen() {
    byId("search").addEventListener("input", filter);
    byId("cases").addEventListener("change", grid);
    byId("across").addEventListener("change", grid);
    byId("more").addEventListener("click", more);
    byId("table-grid").addEventListener("click", ({ target }) => {
      if (!target.dataset.group) return;
      const across = byId("across").value;
      for (const key of ["model", across, "cases"]) choose(key, data.columns[key].at[target.dataset.group]);
      filter();
      open(Number(target.dataset.group));
    });
    const pick = ({ target, key }) => {
      const line = target.closest("tr");
      if (line && (key === undefined || key === "Enter")) open(Number(line.dataset.group));
    };
    byId("table-cases").tBodies[0].addEventListener("click", pick);
    byId("table-cases").tBodies[0].addEventListener("keydown", pick);
  }

  return {
    groups(given) {
      data = given;
      keys = Object.keys(data.columns);
      for (const column of Object.values(data.columns)) column.at = expanded(column.at);
      for (const name of Object.keys(OTHERS)) data[name] = expanded(data[name]);
      starts = [];
      data.rows.reduce((sum, count) => (starts.push(sum), sum + count), 0);
      facets();
      recall();
      heads();
      listen();
      filter();
    },
    part(number, given) {
      waiting.get(number)(given);
    },
  };
})();
