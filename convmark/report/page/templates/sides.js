"use strict";
(function () {
  const section = document.getElementById("sides");
  if (!section) return;
  const data = JSON.parse(document.getElementById("sides-data").textContent);
  const form = section.querySelector(".sides-form");
  const chosen = Object.fromEntries(Array.from(form.querySelectorAll("select"), (one) => [one.name, one]));
  const answer = section.querySelector(".sides-answer");
  answer.after(section.querySelector("template").content);
  const box = section.querySelector(".sides-table");
  const table = box.querySelector("table");
  box.hidden = true;
  const {
    ratio, geometricMean, fact, codeOf, commitOf, timesOf, indexed, pairs, leftOut, besides, factAt,
  } = pairing(data);

  // A pair is shown where each facet in which something is chosen has the value of A or of B.

  const FACETS = { model: "model", task: "task", batch_size: "batch", backend: "backend", precision: "precision", framework: "version" };
  const chooser = document.getElementById("facets"); // has by its label the chosen values

  function facetsOf(side) {
    const hardware = fact(side, factAt.get("hardware"));
    const cut = hardware.lastIndexOf(" ");
    const own = Object.entries(FACETS).map(([key, label]) => [label, fact(side, factAt.get(key))]);
    return new Map([...own, ["machine", hardware.slice(0, cut)], ["device", hardware.slice(cut + 1)]]);
  }

  function isWanted(pair) {
    const values = pair.map(facetsOf);
    return Array.from(chooser.chosen).every(([label, chosen]) => values.some((own) => chosen.has(own.get(label))));
  }

  // Words

  const ratioText = (value) => value.toFixed(value < 9.9995 ? 3 : 2);
  const interval = (one) => (one.low === undefined ? "" : `${ratioText(one.low)} to ${ratioText(one.high)}`);

  function words(one) {
    if (one.low === undefined) return "no interval";
    if (one.low <= 1 && one.high >= 1) return "not distinguishable";
    return one.value > 1 ? "B is faster" : "B is slower";
  }

  const PLAIN = { precision: "float32", jit: "off", threads: "default", cpus: "", replicas: "1", cluster: "", recipe: "", asked_shape: "" };
  const NAMED = ["model", "task", "batch_size", ...Object.keys(PLAIN), "backend", "framework", "hardware"];

  function partOf(name, text) {
    if (text === PLAIN[name]) return "";
    const worded = { batch_size: "batch " + text, jit: "jit", threads: text + " threads", cpus: "CPUs " + text, replicas: text + " replicas", hardware: "on " + text };
    return worded[name] || text;
  }

  // The names of the pairs, and what all of them share.
  function named(index, found) {
    const free = [index.axis.key, ...index.axis.along];
    const names = NAMED.filter((name) => !free.includes(name));
    const textOf = (side, name) => (name === "backend" && names.includes("framework") && fact(side, factAt.get("framework")) ? "" : partOf(name, fact(side, factAt.get(name))));
    const texts = found.map(([side]) => names.map((name) => textOf(side, name)));
    const alike = names.map((name, place) => name !== "model" && texts.every((one) => one[place] === texts[0][place]));
    const join = (parts, wanted) => parts.filter((text, place) => text && alike[place] === wanted).join(" ");
    return { names: texts.map((parts) => join(parts, false)), shared: texts.length ? join(texts[0], true) : "" };
  }

  // Where the sides differ in what a step holds, the time of a sample is compared, else that of a step.
  const timeOf = (index) => (["batch_size", "replicas"].includes(index.axis.key) ? "sample" : "step");
  const perSample = (side) => Number(fact(side, factAt.get("batch_size"))) * Number(fact(side, factAt.get("replicas")));

  // The table

  function ticks(low, high) {
    const found = [];
    const span = Math.log10(high / low);
    const steps = span > 3 ? [1] : span > 0.9 ? [1, 2, 5] : span > 0.3 ? [1, 1.5, 2, 3, 5, 7] : [1, 1.1, 1.2, 1.4, 1.6, 1.8, 2, 3, 4, 5, 6, 7, 8, 9, 9.5];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      for (const step of steps) {
        const value = step * 10 ** power;
        if (value >= low && value <= high) found.push(value);
      }
    }
    while (found.length > 5) {
      const kept = found.filter((value, place) => value === 1 || place % 2 === 0);
      if (kept.length === found.length) break;
      found.splice(0, found.length, ...kept);
    }
    return found;
  }

  function scale(rows) {
    const ends = rows.flatMap(({ one }) => [one.low, one.high, one.value]).filter((end) => end !== undefined);
    const [low, high] = [Math.min(1, ...ends), Math.max(1, ...ends)];
    const room = Math.max(0.05, 0.06 * Math.log(high / low));
    const [from, to] = [Math.log(low) - room, Math.log(high) + room];
    const at = (value) => (100 * (Math.log(value) - from)) / (to - from);
    return { at, ticks: ticks(Math.exp(from), Math.exp(to)) };
  }

  function put(strip, name, left, width) {
    const mark = strip.appendChild(document.createElement("i"));
    mark.className = name;
    mark.style.left = left + "%";
    if (width !== undefined) mark.style.width = width + "%";
    return mark;
  }

  function strip(axis, one) {
    const found = document.createElement("div");
    found.className = "strip";
    found.setAttribute("aria-hidden", "true"); // the columns beside it say it
    if (one !== null) for (const tick of axis.ticks) put(found, tick === 1 ? "tick one" : "tick", axis.at(tick));
    if (one === null) {
      for (const tick of axis.ticks) put(found, "label", axis.at(tick)).textContent = String(Number(tick.toPrecision(3)));
      return found;
    }
    if (one.low !== undefined) put(found, "range", axis.at(one.low), axis.at(one.high) - axis.at(one.low));
    put(found, words(one).startsWith("B is") ? "dot" : "dot unsure", axis.at(one.value));
    return found;
  }

  function line(axis, row) {
    const found = document.createElement("tr");
    const said = words(row.one);
    const times = row.times || [];
    const texts = [
      row.name, "", ratioText(row.one.value), interval(row.one), said,
      ...(row.pair ? times.map(units.seconds) : ["", ""]),
      row.pair ? row.pair.map((side, at) => (row.units[at] ? row.units[at].size + " runs" : timesOf(side).length)).join(", ") : "",
    ];
    const numbers = [null, null, row.one.value, null, null, ...times];
    const heads = table.tHead.rows[0].cells;
    texts.forEach((text, place) => {
      const cell = found.insertCell();
      units.prose(cell, text);
      if (place > 4 && text) cell.dataset.label = heads[place].textContent; // where the window is narrow
      if (typeof numbers[place] === "number") {
        cell.className = "n";
        cell.dataset.v = String(numbers[place]);
      }
    });
    if (row.note) found.cells[0].append(paragraph(row.note, "doubt"));
    found.cells[1].className = "plot";
    found.cells[1].append(strip(axis, row.one));
    if (said.startsWith("B is")) found.cells[4].className = said.slice(5);
    return found;
  }

  function note(pair) {
    const told = pair.map((side, place) => {
      const doubt = data.doubts[data.sides.doubt[side]];
      return doubt && "AB"[place] + ": " + doubt;
    });
    const [code] = codeOf(pair[0]);
    if (!code && !commitOf(pair[0])) told.push("which code ran is not known");
    else if (!code && commitOf(pair[0]).endsWith("(dirty)")) told.push("ran with changes that are in no commit");
    return told.filter(Boolean).join("; ");
  }

  // The form

  const indexes = new Map();

  function indexOf(key) {
    if (!indexes.has(key)) indexes.set(key, indexed(data.axes.find((one) => one.key === key)));
    return indexes.get(key);
  }

  // By value how many cases it has with another one.
  function shared(index, value) {
    const found = new Map();
    for (const other of index.values.keys()) {
      if (other !== value) found.set(other, pairs(index, value, other).size);
    }
    return found;
  }

  const newestFirst = (index) =>
    Array.from(index.values.keys()).sort((x, y) => index.values.get(y).newest - index.values.get(x).newest);

  function most(index, value) {
    const found = shared(index, value);
    return newestFirst(index).filter((one) => found.get(one)).reduce(
      (best, one) => (best === null || found.get(one) > found.get(best) ? one : best), null);
  }

  const LOOKED_AT = 20; // values, for the first pair of an axis

  function firstPair(index) {
    const values = newestFirst(index).slice(0, LOOKED_AT);
    let best = [values[1], values[0]];
    let cases = 0;
    values.forEach((b, place) => {
      for (const a of values.slice(place + 1)) {
        const { size } = pairs(index, a, b);
        if (size > cases) [best, cases] = [[a, b], size];
      }
    });
    return best;
  }

  function fill(select, options, chosen) {
    select.replaceChildren(...options.map(([value, text]) => {
      const option = document.createElement("option");
      option.value = value;
      option.textContent = text;
      return option;
    }));
    select.value = chosen;
  }

  function optionsOf(index, against) {
    const found = against === null ? null : shared(index, against);
    return newestFirst(index).filter((value) => value !== against).map((value) => {
      const day = index.axis.key === "commit" ? ", " + data.runs[index.values.get(value).newest][1] : "";
      const number = found && found.get(value);
      const cases = found ? ` (${number} case${number === 1 ? "" : "s"})` : "";
      return [value, value + day + cases];
    });
  }

  function paragraph(text, name) {
    const found = document.createElement("p");
    units.prose(found, text);
    if (name) found.className = name;
    return found;
  }

  const cases = (number) => `${number} case${number === 1 ? "" : "s"}`;

  function show(index, a, b) {
    fill(chosen.a, optionsOf(index, null), a);
    fill(chosen.b, optionsOf(index, a), b);
    const every = pairs(index, a, b);
    const found = new Map(Array.from(every).filter(([, pair]) => isWanted(pair)));
    const runs = new Map(Array.from(found.values()).flat().map((side) => [side, index.runsOf(side)]));
    const byRun = [0, 1].map((place) => Array.from(found.values()).every((pair) => runs.get(pair[place]).size >= data.fewest));
    const { names, shared: alike } = named(index, Array.from(found.values()));
    const rows = Array.from(found.values(), (pair, place) => {
      const factor = perSample(pair[1]) / perSample(pair[0]);
      const units = pair.map((side, at) => (byRun[at] ? runs.get(side) : null));
      const one = ratio(pair[0], pair[1], factor, units);
      const of = (side) => (timeOf(index) === "sample" ? perSample(side) : 1);
      const times = pair.map((side, at) => Math.exp(one.pairs[0][at].mean) / of(side));
      return { pair, one, units, times, name: names[place], note: note(pair) };
    });
    const collator = new Intl.Collator("en", { numeric: true });
    rows.sort((x, y) => collator.compare(x.name, y.name));
    const { missed, told } = leftOut(index, a, b, every);
    const parts = [];
    box.hidden = !rows.length;
    if (rows.length) {
      const known = rows.filter((row) => row.one.low !== undefined);
      const counted = known.length ? known : rows;
      const mean = geometricMean(counted.map((row) => row.one));
      const others = rows.length - counted.length;
      const without = others ? ` (${others} without an interval not counted)` : "";
      const said = words(mean);
      const verdict = (said === "not distinguishable" ? "A and B are not distinguishable: " : "") +
        `B (${b}) is ${ratioText(mean.value)} times as fast as A (${a})`;
      const range = interval(mean) ? `, 95 % interval ${interval(mean)}` : `; no interval, for a side has fewer than ${data.fewest} processes`;
      parts.push(paragraph(`Geometric mean over ${cases(counted.length)}${without}: ${verdict}${range}.`, "main"));
      const axis = scale([{ one: mean }, ...rows]);
      const first = line(axis, { name: "geometric mean", one: mean, note: "" });
      first.className = "mean";
      const heads = Array.from(table.tHead.rows[0].cells);
      heads.forEach((head) => head.removeAttribute("aria-sort"));
      [5, 6].forEach((place) => {
        heads[place].firstElementChild.textContent = `${"AB"[place - 5]}: mean ${timeOf(index)}`;
      });
      heads[1].className = "plot";
      heads[1].replaceChildren(heads[1].querySelector("span"), strip(axis, null));
      table.tHead.replaceChildren(table.tHead.rows[0], first); // stays first, however rows are sorted
      table.tBodies[0].replaceChildren(...rows.map((row) => line(axis, row)));
    } else {
      parts.push(paragraph(every.size ? "None of the chosen rows is of a case of A and B." : `No case of A (${a}) has a like one of B (${b}).`, "main"));
    }
    const { key, title } = index.axis;
    const any = [data.case.includes(key) && title, key !== "hardware" && "machine"].filter(Boolean).join(" or ");
    const all = `${cases(missed + every.size)} of A or B${any && `, each counted once whatever its ${any}`}`;
    parts.push(paragraph(missed ? `Left out: ${missed} of ${all}: ${told.join("; ")}.` : `None is left out of ${all}.`));
    if (alike) parts.push(paragraph(`All of them: ${alike}.`));
    const single = ["A", "B"].filter((name, place) => !byRun[place]);
    if (rows.length && single.length) parts.push(paragraph(`Fewer than ${data.fewest} runs are alike on ${single.join(" and ")}: how a machine differs from run to run is not in the intervals.`));
    if (every.size > rows.length) parts.push(paragraph(`Shown are ${rows.length} of ${cases(every.size)}, those chosen above.`));
    const more = besides(index, found);
    if (more.length) parts.push(paragraph(`With the ${index.axis.title} differ: ${more.join("; ")}.`));
    if (data.left_out) {
      const [kept, older] = [data.kept, data.left_out].map((one) => one.toLocaleString("en"));
      parts.push(paragraph(`This page has the newest ${kept} runs of each case on each machine and version; ${older} older measurements are not in it.`));
    }
    answer.replaceChildren(...parts);
    section.dataset.shown = [index.axis.key, a, b].join("|");
  }

  // The choice is kept in the page's address, after the name of a section where one was gone to.

  const NAMES = ["side", "side-a", "side-b"];
  let kept = false; // the reader or the address has chosen

  function remember() {
    kept = true;
    const address = new URLSearchParams(location.hash.slice(1));
    const { axis, a, b } = chosen;
    [axis, a, b].forEach((select, place) => address.set(NAMES[place], select.value));
    try {
      history.replaceState(null, "", "#" + address);
    } catch (error) {
      if (error.name !== "SecurityError") throw error; // a frame without an address of its own
    }
  }

  function recalled() {
    const address = new URLSearchParams(location.hash.slice(1));
    const [key, a, b] = NAMES.map((name) => address.get(name));
    if (!axes.includes(key)) return null;
    const { values } = indexOf(key);
    if (a === b || !values.has(a) || !values.has(b)) return null;
    const goal = Array.from(address.keys()).find((name) => address.get(name) === "");
    (document.getElementById(goal) || section).scrollIntoView();
    kept = true;
    return [key, a, b];
  }

  function choose(key, a, b) {
    chosen.axis.value = key;
    show(indexOf(key), a, b);
  }

  const axes = data.axes.map((one) => one.key).filter((key) => indexOf(key).values.size > 1);
  if (!axes.length) {
    answer.replaceChildren(paragraph("All rows are of one machine, version, backend, precision, batch size and commit: there is nothing to set side by side."));
    return;
  }
  fill(chosen.axis, axes.map((key) => [key, indexOf(key).axis.title]), axes[0]);
  form.hidden = false;
  // Machines first, were it to say why none of their cases are alike.
  const opening = axes.map((key) => [key, ...firstPair(indexOf(key))]);
  const first = recalled() || opening.find(([key, a, b]) => key === "hardware" || pairs(indexOf(key), a, b).size) || opening[0];
  choose(...first);

  form.addEventListener("change", (event) => {
    event.stopPropagation();
    const key = chosen.axis.value;
    let [a, b] = [chosen.a.value, chosen.b.value];
    if (event.target.name === "axis") [a, b] = firstPair(indexOf(key));
    else if (event.target.name === "a") {
      const index = indexOf(key);
      if (a === b || !pairs(index, a, b).size) b = most(index, a) || newestFirst(index).find((one) => one !== a);
    }
    choose(key, a, b);
    remember();
  });
  chooser.addEventListener("chosen", () => {
    show(indexOf(chosen.axis.value), chosen.a.value, chosen.b.value);
  });
  window.addEventListener("hashchange", () => {
    if (kept) remember(); // a section was gone to
  });
  form.querySelector("button").addEventListener("click", () => {
    const [key, a, b] = [chosen.axis.value, chosen.a.value, chosen.b.value];
    choose(key, b, a);
    remember();
  });
})();
