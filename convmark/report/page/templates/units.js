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

  return { seconds, expanded };
})();
