"use strict";
// The site: groups are filtered and sorted here; the rows of a group come from the parts that hold them.
const site = (function () {
  const AT_ONCE = 200; // rows of a table that are drawn at once
  const MOST_MODELS = 400, MOST_COLUMNS = 60; // of the grid
  const WIDE = 2 ** 26; // more than there are columns
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
  const OTHERS = { alike: "rows of the median", rows: "all rows", unclean: "not clean" };
  const IDENTITY = ["case", "cases", "machine", "framework", "source"]; // of a group, in the address of its rows

  let data, keys, starts; // the groups, their columns, and of each the number of its first row
  const chosen = new Map(); // by column: the places of the values that are chosen
  let found = [], shown = 0, sorted = null, down = false;
  let opened = null; // the group whose rows are shown
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
    keras();
    order();
  }

  // The address keeps what is chosen; of an address nothing is used but values that are in the data.

  function remember() {
    const asked = new URLSearchParams();
    for (const [key, places] of chosen) for (const place of places) asked.append(key, data.columns[key].values[place]);
    if (byId("search").value) asked.set("search", byId("search").value);
    for (const key of opened === null ? [] : IDENTITY) asked.append("open", valueOf(key, opened));
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
    const wanted = asked.getAll("open");
    const places = IDENTITY.map((key, place) => data.columns[key].values.indexOf(wanted[place]));
    if (places.includes(-1)) return;
    opened = data.rows.findIndex((_, group) => IDENTITY.every((key, place) => data.columns[key].at[group] === places[place]));
    if (opened < 0) opened = null;
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

  // Places and labels of what stands side by side: a machine's devices are columns of their own.
  const ACROSS = {
    machine: {
      at: (group) => data.columns.machine.at[group] * data.columns.device.values.length + data.columns.device.at[group],
      label(place) {
        const { machine, device } = data.columns, kind = device.values[place % device.values.length];
        return machine.values[Math.floor(place / device.values.length)] + (kind === "cpu" ? "" : " " + kind);
      },
    },
    framework: { at: (group) => data.columns.framework.at[group], label: (place) => data.columns.framework.values[place] },
  };

  // Of each row and column the group to show: of the newest version, and of those the one of most rows.
  function crossed(groups, across, figures) {
    const { model, framework } = data.columns;
    const best = new Map(), models = new Set(), heads = new Set();
    for (const group of groups) {
      if (figures[group] === null) continue;
      const row = model.at[group], column = ACROSS[across].at(group);
      models.add(row);
      heads.add(column);
      const key = row * WIDE + column, before = best.get(key);
      const newer = before === undefined ? 1 : framework.at[group] - framework.at[before] || data.rows[group] - data.rows[before];
      if (newer > 0) best.set(key, group);
    }
    return {
      models: [...models].sort((a, b) => a - b),
      heads: [...heads].sort((a, b) => a - b),
      at: (row, column) => best.get(row * WIDE + column),
    };
  }

  // What of a table is drawn, in words; nothing where all is.
  function cut(name, where, kinds) {
    const some = kinds.filter(([, drawn, all]) => drawn < all);
    const number = (value) => value.toLocaleString("en");
    byId("cut-" + name).textContent = where + (some.length
      ? "Of " + some.map(([kind, drawn, all]) => number(all) + " " + kind + " the first " + number(drawn)).join(" and of ") + " are drawn: search or choose to see the others."
      : "");
  }

  function opens(one, group) {
    if (group === undefined) return one;
    one.title = ["framework", "machine", "source", "newest"].map((key) => valueOf(key, group)).join(", ");
    one.dataset.group = group;
    return one;
  }

  function table(name, heads, lines) {
    const head = element("tr", "");
    head.append(element("th", "model"), ...heads.map((text) => element("th", text, { className: "n" })));
    byId(name).tHead.replaceChildren(head);
    byId(name).tBodies[0].replaceChildren(...lines.map((cells) => {
      const line = element("tr", "");
      line.append(...cells);
      return line;
    }));
  }

  // The groups of the hardware that has most of them: versions are compared on one.
  function onOne(groups) {
    const counts = new Map();
    for (const group of groups) counts.set(ACROSS.machine.at(group), (counts.get(ACROSS.machine.at(group)) || 0) + 1);
    const [place] = [...counts].reduce((best, one) => (best && best[1] >= one[1] ? best : one), null) || [];
    const name = counts.size > 1 ? "On " + ACROSS.machine.label(place) + ": choose another machine by its box. " : "";
    return [groups.filter((group) => ACROSS.machine.at(group) === place), name];
  }

  function grid() {
    const cases = Number(byId("cases").value), across = byId("across").value;
    const rates = data.figures.throughput_samples_per_s, { label } = ACROSS[across];
    const alike = found.filter((group) => data.columns.cases.at[group] === cases && rates[group] !== null);
    const [groups, where] = across === "machine" ? [alike, ""] : onOne(alike);
    const { models, heads, at } = crossed(groups, across, rates);
    const rows = models.slice(0, MOST_MODELS), columns = heads.slice(0, MOST_COLUMNS);
    const kinds = [["models", rows.length, models.length], [across === "machine" ? "machines" : "versions", columns.length, heads.length]];
    cut("grid", where, kinds);
    table("table-grid", columns.map(label), rows.map((row) => [
      cell(data.columns.model.values[row]),
      ...columns.map((column) => {
        const group = at(row, column);
        return group === undefined ? cell("", true) : opens(figure("throughput_samples_per_s", rates[group]), group);
      }),
    ]));
  }

  function keras() {
    const times = data.figures.step_time_p50_s, { hardware } = data.keras, { values } = data.columns.model;
    const published = new Map(Object.entries(data.keras.models));
    const { models, heads, at } = crossed(found.filter((group) => data.of_keras[group]), "machine", times);
    const columns = heads.slice(0, MOST_COLUMNS);
    byId("keras").hidden = models.length === 0;
    cut("keras", "", [["machines", columns.length, heads.length]]);
    const kinds = Object.entries(hardware).map(([kind, name]) => "published: " + kind.toUpperCase() + ", " + name);
    table("table-keras", [...kinds, ...columns.map(ACROSS.machine.label)], models.map((row) => [
      cell(values[row]),
      ...(published.get(values[row]) || []).map((value) => element("td", value.toFixed(1), { className: "n published" })),
      ...columns.map((column) => {
        const group = at(row, column);
        return group === undefined ? cell("", true) : opens(figure("step_time_p50_s", times[group]), group);
      }),
    ]));
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
    opened = group;
    remember();
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
        line.append(cell(Array.isArray(column) ? column[at] : column.values[column.at[at]]));
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
    const show = (across) => ({ target }) => {
      if (!target.dataset.group) return;
      for (const key of ["model", across(), "cases", "device"]) choose(key, data.columns[key].at[target.dataset.group]);
      filter();
      open(Number(target.dataset.group));
    };
    byId("table-grid").addEventListener("click", show(() => byId("across").value));
    byId("table-keras").addEventListener("click", show(() => "machine"));
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
      for (const name of [...Object.keys(OTHERS), "of_keras"]) data[name] = expanded(data[name]);
      for (const name of Object.keys(FIGURES)) {
        if (data.figures[name].every((value) => value === null)) delete FIGURES[name];
      }
      starts = [];
      data.rows.reduce((sum, count) => (starts.push(sum), sum + count), 0);
      facets();
      recall();
      heads();
      listen();
      filter();
      if (opened !== null) open(opened);
    },
    part(number, given) {
      waiting.get(number)(given);
    },
  };
})();
