"use strict";
// What is set side by side: pairs of like cases, and the ratios of their step times.
const pairing = function (data) {
  const factAt = new Map(data.facts.map((fact, place) => [fact.key, place]));
  const count = data.sides.kind.length;

  // Statistics: the same as report/ratios.py, whose quantiles stand in the data

  function quantile(freedom) {
    const last = data.quantiles.length - 1;
    const at = Math.min(1 / freedom, 0.5) * 2 * last;
    const low = Math.min(Math.floor(at), last - 1);
    return data.quantiles[low] + (at - low) * (data.quantiles[low + 1] - data.quantiles[low]);
  }

  const sum = (values) => values.reduce((all, one) => all + one, 0);

  // What each unit adds to the error of the mean: each run, or, where runs are few, each process by
  // its run and its number there.
  function sideOf(side, runs) {
    const logs = (runs ? Array.from(runs.values()) : timesOf(side)).map(Math.log);
    const mean = sum(logs) / logs.length;
    if (logs.length < data.fewest) return { mean, errors: null };
    const size = Math.sqrt(logs.length * (logs.length - 1));
    const names = runs ? Array.from(runs.keys()) : processesOf(side).map((number) => runOf(side) + ":" + number);
    return { mean, errors: new Map(logs.map((one, place) => [names[place], (one - mean) / size])) };
  }

  // All cases of a run share it and its processes: their errors are added before they are squared.
  function variance(cases) {
    const errors = new Map();
    for (const side of cases) {
      for (const [unit, error] of side.errors) errors.set(unit, (errors.get(unit) || 0) + error / cases.length);
    }
    return sum(Array.from(errors.values(), (error) => error ** 2));
  }

  function withInterval(difference, pairs) {
    const found = { log: difference, value: Math.exp(difference), pairs };
    if (pairs.flat().some((side) => side.errors === null)) return found;
    const columns = [0, 1].map((place) => pairs.map((pair) => pair[place]));
    const freedoms = columns.map((cases) => Math.min(...cases.map((side) => side.errors.size - 1)));
    const parts = columns.map(variance);
    const whole = sum(parts);
    const squares = sum(parts.map((part, place) => part ** 2 / freedoms[place]));
    const half = quantile(squares ? whole ** 2 / squares : Math.min(...freedoms)) * Math.sqrt(whole);
    return { ...found, low: Math.exp(difference - half), high: Math.exp(difference + half) };
  }

  function ratio(over, under, factor, [ofOver, ofUnder]) {
    const [a, b] = [sideOf(over, ofOver), sideOf(under, ofUnder)];
    return withInterval(a.mean - b.mean + Math.log(factor), [[a, b]]);
  }

  function geometricMean(ratios) {
    const difference = sum(ratios.map((one) => one.log)) / ratios.length;
    return withInterval(difference, ratios.flatMap((one) => one.pairs));
  }

  // Sides and pairs

  const runOf = (side) => data.sides.run[side];
  const fact = (side, place) => data.values[place][data.kinds[data.sides.kind[side]][place]];
  const codeOf = (side) => data.codes[data.sides.code[side]];
  const commitOf = (side) => data.commits[data.sides.commit[side]];
  const processesOf = (side) => data.processes[data.sides.processes[side]];
  const timesOf = (side) => data.sides.times[side];

  const MOST_RUNS = 10; // as in report/sides.py

  // The runs of a side and of those of the same facts and code, by place, each with the mean of its times.
  function runsOf(sides) {
    const found = new Map();
    for (const side of sides) {
      for (const [place, time] of data.sides.earlier[side]) found.set(place, time);
      const logs = timesOf(side).map(Math.log);
      found.set(data.places[runOf(side)], Math.exp(sum(logs) / logs.length));
    }
    return new Map(Array.from(found).sort(([a], [b]) => a - b).slice(-MOST_RUNS));
  }

  function valueOf(axis, side) {
    return axis.key === "commit" ? commitOf(side) : fact(side, factAt.get(axis.key));
  }

  // Which code ran; where other versions of packages come with the axis, which files. Where the
  // files are not known the packages count too, and where no code is known, the commit does.
  function identity(axis, side) {
    if (axis.key === "commit") return "";
    const [code, files] = codeOf(side);
    return (axis.along.includes("packages") && files) || code || "commit " + commitOf(side);
  }

  function places(axis, names) {
    const free = new Set([axis.key, ...axis.along]);
    return names.filter((name) => !free.has(name)).map((name) => factAt.get(name));
  }

  function indexed(axis) {
    const rest = places(axis, data.facts.map((one) => one.key));
    const own = places(axis, data.case);
    const keys = data.kinds.map((kind) => rest.map((place) => kind[place]).join());
    const cases = data.kinds.map((kind) => own.map((place) => kind[place]).join());
    const values = new Map(); // by value of the axis: by key the newest side
    const alike = new Map(); // by value, all facts and code all sides
    const nameOf = (side) => valueOf(axis, side) + "|" + data.sides.kind[side] + "|" + (codeOf(side)[0] || commitOf(side));
    for (let side = 0; side < count; side++) {
      const value = valueOf(axis, side);
      if (value === "") continue;
      if (!values.has(value)) values.set(value, { sides: new Map(), newest: 0 });
      const found = values.get(value);
      const key = keys[data.sides.kind[side]] + "|" + identity(axis, side);
      const before = found.sides.get(key);
      if (before === undefined || runOf(before) <= runOf(side)) found.sides.set(key, side);
      found.newest = Math.max(found.newest, runOf(side));
      const name = nameOf(side);
      alike.set(name, [...(alike.get(name) || []), side]);
    }
    return { axis, rest, cases, values, runsOf: (side) => runsOf(alike.get(nameOf(side))) };
  }

  const caseOf = (index, side) => index.cases[data.sides.kind[side]];

  // Of each case the pair that was measured last.
  function pairs(index, a, b) {
    const found = new Map();
    const [ours, theirs] = [index.values.get(a).sides, index.values.get(b).sides];
    for (const [key, one] of ours) {
      const other = theirs.get(key);
      if (other === undefined) continue;
      const name = caseOf(index, one);
      const before = found.get(name);
      const when = (pair) => Math.min(runOf(pair[0]), runOf(pair[1]));
      if (!before || when(before) <= when([one, other])) found.set(name, [one, other]);
    }
    return found;
  }

  function newestByCase(index, value) {
    const found = new Map();
    for (const side of index.values.get(value).sides.values()) {
      const name = caseOf(index, side);
      if (!found.has(name) || runOf(found.get(name)) <= runOf(side)) found.set(name, side);
    }
    return found;
  }

  function whyNot(index, one, other) {
    for (const place of index.rest) {
      const [mine, its] = [fact(one, place), fact(other, place)];
      if (mine !== its) {
        const title = data.facts[place].title;
        return `other ${title} (${short(mine)} against ${short(its)})`;
      }
    }
    const known = [one, other].every((side) => !index.axis.along.includes("packages") || codeOf(side)[1]);
    const commits = [one, other].map((side) => commitOf(side) || "not known");
    return `${known ? "other code" : "code not known to be the same"} (commit ${commits.join(" against ")})`;
  }

  const short = (text) => (text === "" ? "none" : text.length > 60 ? text.slice(0, 59) + "…" : text);

  function leftOut(index, a, b, paired) {
    const [ours, theirs] = [newestByCase(index, a), newestByCase(index, b)];
    const reasons = new Map();
    let missed = 0;
    const add = (reason) => {
      missed += 1;
      reasons.set(reason, (reasons.get(reason) || 0) + 1);
    };
    for (const [name, side] of ours) {
      if (paired.has(name)) continue;
      if (theirs.has(name)) add(whyNot(index, side, theirs.get(name)));
      else add("not measured on B");
    }
    for (const name of theirs.keys()) if (!ours.has(name)) add("not measured on A");
    const ordered = Array.from(reasons).sort((x, y) => y[1] - x[1]);
    const told = ordered.slice(0, 5).map(([reason, number]) => `${number} ${reason}`);
    const rest = sum(ordered.slice(5).map(([, number]) => number));
    if (rest) told.push(`${rest} for other reasons`);
    return { missed, told };
  }

  // What came with the axis, and differs.
  function besides(index, found) {
    const told = [];
    for (const name of index.axis.along) {
      const place = factAt.get(name);
      const pair = Array.from(found.values()).find(([a, b]) => fact(a, place) !== fact(b, place));
      if (pair) {
        const [mine, its] = pair.map((side) => short(fact(side, place)));
        told.push(`${data.facts[place].title} (${mine} against ${its})`);
      }
    }
    return told;
  }

  return {
    ratio, geometricMean, fact, codeOf, commitOf, timesOf, indexed, pairs, leftOut, besides, factAt,
  };
};
