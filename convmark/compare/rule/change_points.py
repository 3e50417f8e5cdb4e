"""Change points of a case: the runs at which its series steps, its creeps, and its levels.

The largest two-sample t over all splits is held against what chance alone makes of a flat series
of that length. Where it is larger, the series is cut there and each part is searched again.
Neighbouring steps to one side are then held against a straight slope: where that fits better, the
stretch is named, not the one run that crossed a line. A part without a step may be a slope too: a
creep from the first runs on has no level before it for a step to leave.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from convmark.core.errors import MeasurementError
from convmark.core.interval import NOT_KNOWN, Interval
from convmark.core.statistics import interval_around, t_quantile

Array = npt.NDArray[np.float64]

FALSE_RATE = 0.001
"""Chance that a flat series has a step, whatever its length, and as much that it has a creep."""
FEWEST_RUNS = 3
"""Runs on either side of a step: one or two odd runs at an end are no level."""
_CRITICAL = (
    *((6, 19.98), (7, 23.38), (8, 12.77), (9, 14.59), (10, 9.90), (12, 8.26), (15, 7.32)),
    *((20, 5.69), (30, 4.93), (50, 4.55), (100, 4.39), (200, 4.35), (500, 4.34), (1000, 4.30)),
    *((3000, 4.53), (10000, 4.48)),
)
"""Number of runs, and the largest t that a flat series of normal values exceeds at `FALSE_RATE`.

Printed by `python tests/benchmarks/change_points.py --critical`: between two numbers of runs the
logarithm of the number is interpolated, beyond the last its value stays."""
_ROUNDING = 1e-9
"""Values that differ by so small a share of the largest are equal."""
_CLIPPED_BEYOND = 5.0
"""Scaled median absolute deviations from the running median: a single odd run is moved there."""
LEAST_STRETCH = 4
"""A slope over fewer runs is called a step."""
_PART_DISADVANTAGE = 6.0
"""A slope beside steps to its own side must be better by so much of BIC than one slope alone."""
_SLOPE_ENDS = 40
"""Places that are tried for either end of a slope."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run's value of a case, such as ln of its step time over the reference's."""

    value: float
    processes: int = 1
    """Its weight: the value is their mean."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.value) or self.processes < 1:
            raise MeasurementError(
                "a run must have a finite value and at least one process, "
                f"got {self.value} and {self.processes}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of level in a series of runs."""

    first: int
    """Index of the first run that has left the old level."""
    last: int
    """Index of the first run that has reached the new level: `first`, but for a creep."""
    size: float
    """New level less old level, in the values' unit."""

    @property
    def gradual(self) -> bool:
        """Whether it is a creep, which no one commit made."""
        return self.last > self.first


def change_points(runs: Sequence[Run]) -> list[Change]:
    """Return the changes of level in a series of runs, oldest first.

    Source:
        Hawkins (1977), the maximal two-sample t; binary segmentation after Vostrikova (1981);
        Schwarz (1978), BIC, for step or slope.
    """
    raw = np.array([run.value for run in runs], np.float64)
    values = cleaned(raw)
    weights = np.array([run.processes for run in runs], np.float64)
    places = _relocated(values, weights, sorted(_splits(values, weights, 0, len(values))))
    edges = [0, *places, len(values)]
    levels = _means(values, weights, edges)
    found = [
        change
        for group in _one_sided(places, levels)
        for change in _steps_or_slope(values, weights, edges, levels, group)
    ]
    for begin, end in itertools.pairwise(edges):
        known = any(change.first < end and begin < change.last for change in found)
        if not known and _rises_or_falls(raw[begin:end], weights[begin:end]):
            _, place = largest_t(values[begin:end], weights[begin:end])  # none is sure by itself
            parts = [begin, begin + int(place), end]
            found += _steps_or_slope(values, weights, parts, _means(values, weights, parts), [0])
    return sorted(found, key=lambda change: change.first)


def _means(values: Array, weights: Array, edges: Sequence[int]) -> list[float]:
    """Return the weighted mean of each part of the series that is not empty."""
    return [
        float(np.average(values[begin:end], weights=weights[begin:end]))
        for begin, end in itertools.pairwise(edges)
        if end > begin
    ]


def _rises_or_falls(part: Array, shares: Array) -> bool:
    """Return whether a regression line through the values is not level by chance.

    Args:
        part: as they are; cleaned ones lie closer to the line than chance has them.

    Source:
        Student's t of the slope of a weighted regression on the runs' places.
    """
    count = len(part)
    if count < 2 * FEWEST_RUNS:
        return False
    place, centred = _centred(np.arange(count, dtype=np.float64), shares), _centred(part, shares)
    scale = float(shares @ place**2)
    along = float((shares * place) @ centred)
    squares = float(shares @ centred**2)
    left = max(squares - along**2 / scale, 1e-12 * squares + _rounding(part, shares))
    error = math.sqrt(left / (count - 2) / scale)
    reach = t_quantile(1 - FALSE_RATE / 2, count - 2) * error
    return abs(along / scale) > reach


def cleaned(values: Array) -> Array:
    """Return the values with single odd ones moved towards their neighbours' median."""
    from scipy.ndimage import median_filter  # type: ignore[import-untyped] # it ships no types

    if values.shape[-1] < 2 * FEWEST_RUNS:
        return values
    size = (1,) * (values.ndim - 1) + (5,)
    middle = median_filter(values, size=size, mode="mirror")
    spread = 1.4826 * np.median(np.abs(values - middle), axis=-1, keepdims=True)
    reach = _CLIPPED_BEYOND * spread
    return np.asarray(np.clip(values, middle - reach, middle + reach))


def largest_t(values: Array, weights: Array) -> tuple[Array, npt.NDArray[np.int64]]:
    """Return the largest two-sample t over all splits along the last axis, and its place.

    Args:
        values: at least `2 * FEWEST_RUNS` along the last axis.
        weights: of each value; its variance is the common one over its weight.

    Returns:
        The absolute t, and the index of the first value after the split.
    """
    count = values.shape[-1]
    total = weights.sum()
    centred = values - (values @ weights / total)[..., None]
    splits = slice(FEWEST_RUNS - 1, count - FEWEST_RUNS)
    left = np.cumsum(weights)[splits]
    sums = np.cumsum(centred * weights, axis=-1)[..., splits]
    between = sums**2 * total / (left * (total - left))
    squares = (centred**2 @ weights)[..., None]
    rounding = total * (_ROUNDING * np.abs(values).max(axis=-1, keepdims=True)) ** 2
    within = np.maximum(squares - between, 1e-12 * squares + rounding + 1e-300) / (count - 2)
    found = np.sqrt(between / within)
    place = found.argmax(axis=-1)
    return np.take_along_axis(found, place[..., None], -1)[..., 0], place + FEWEST_RUNS


def _critical_value(count: int) -> float:
    counts, found = zip(*_CRITICAL, strict=True)
    return float(np.interp(math.log(count), np.log(counts), found))


def _splits(values: Array, weights: Array, begin: int, end: int) -> Iterator[int]:
    """Yield the first index of each new level in a part of the series."""
    parts = [(begin, end)]
    while parts:
        begin, end = parts.pop()
        if end - begin < 2 * FEWEST_RUNS:
            continue
        found, place = largest_t(values[begin:end], weights[begin:end])
        if float(found) > _critical_value(end - begin):
            middle = begin + int(place)
            yield middle
            parts += [(begin, middle), (middle, end)]


def _relocated(values: Array, weights: Array, places: Sequence[int]) -> list[int]:
    """Return the places, each found again between its neighbours, or dropped as chance."""
    kept = list(places)
    for place in places:
        at = kept.index(place)
        begin = kept[at - 1] if at else 0
        end = kept[at + 1] if at + 1 < len(kept) else len(values)
        found, again = largest_t(values[begin:end], weights[begin:end])
        if float(found) > _critical_value(end - begin):
            kept[at] = begin + int(again)
        else:
            del kept[at]
    return kept


def _one_sided(places: Sequence[int], levels: Sequence[float]) -> Iterator[list[int]]:
    """Yield the numbers of neighbouring changes that go to the same side."""
    group: list[int] = []
    for number in range(len(places)):
        up = levels[number + 1] > levels[number]
        if group and up != (levels[group[-1] + 1] > levels[group[-1]]):
            yield group
            group = []
        group.append(number)
    if group:
        yield group


def _steps_or_slope(
    values: Array,
    weights: Array,
    edges: Sequence[int],
    levels: Sequence[float],
    group: Sequence[int],
) -> list[Change]:
    """Return the steps of a group, some neighbours of them as a slope where that is better."""
    if not group:
        return []
    begin, end = edges[group[0]], edges[group[-1] + 2]
    squares = {
        number: _squares(values[part], weights[part])
        for number in (*group, group[-1] + 1)
        for part in [slice(edges[number], edges[number + 1])]
    }
    least = _rounding(values[begin:end], weights[begin:end])
    by_steps = _criterion(max(sum(squares.values()), least), end - begin, 2 * len(group))
    best = (by_steps, 0, 0, (0, 0, 0.0))
    for first, last in itertools.combinations_with_replacement(range(len(group)), 2):
        a, b = edges[group[first]], edges[group[last] + 2]
        left, *slope = _best_slope(values[a:b], weights[a:b])
        left += sum(squares[n] for n in squares if not group[first] <= n <= group[last] + 1)
        parameters = 3 + 2 * (len(group) - 1 - (last - first))
        found = _criterion(max(left, least), end - begin, parameters)
        if last - first < len(group) - 1:
            found += _PART_DISADVANTAGE
        if found <= best[0]:
            best = (found, first, last, (a + int(slope[0]), a + int(slope[1]), slope[2]))
    _, first, last, (begins, ends, size) = best
    if ends:
        return [
            *_steps_or_slope(values, weights, edges, levels, group[:first]),
            Change(first=begins, last=ends, size=size),
            *_steps_or_slope(values, weights, edges, levels, group[last + 1 :]),
        ]
    return [
        Change(
            first=edges[number + 1],
            last=edges[number + 1],
            size=levels[number + 1] - levels[number],
        )
        for number in group
    ]


def _rounding(values: Array, weights: Array) -> float:
    """Return the weighted squares that equal values may leave."""
    return float(weights.sum()) * (_ROUNDING * float(np.abs(values).max())) ** 2


def _centred(part: Array, shares: Array) -> Array:
    """Return what one level leaves of a part of the series."""
    return np.asarray(part - part @ shares / shares.sum())


def _squares(part: Array, shares: Array) -> float:
    """Return the weighted squares that one level leaves of a part of the series."""
    return float(shares @ _centred(part, shares) ** 2)


def _criterion(squares: float, count: int, parameters: int) -> float:
    return count * math.log(squares + 1e-300) + parameters * math.log(count)


def _best_slope(values: Array, weights: Array) -> tuple[float, int, int, float]:
    """Return the squares left by the best level, slope and level; where it begins, ends; its size.

    It begins at the first run that has left the old level, and ends at the first on the new one.
    """
    count = len(values)
    ends = np.unique(np.linspace(0, count - 1, min(count, _SLOPE_ENDS)).astype(int))
    pairs = np.array([(a, b) for a in ends for b in ends if b - a >= LEAST_STRETCH])
    if not len(pairs):
        return math.inf, 0, 0, 0.0
    centred = _centred(values, weights)
    best = (math.inf, 0, 0, 0.0)
    place = np.arange(count)
    for a, b in pairs.tolist():
        slope = _centred(np.clip((place - a) / (b - a), 0.0, 1.0), weights)
        along = float((slope * weights) @ centred)
        scale = float((slope * weights) @ slope)
        squares = float((weights * centred) @ centred) - along**2 / scale
        if squares < best[0]:
            best = (squares, a + 1, b, along / scale)
    return best


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """Neighbouring runs on one level, or a stretch over which a level creeps to the next."""

    first: int
    """Index of its first run."""
    last: int
    """Index of its last run; of a creep the first that has reached the new level."""
    creep: bool = False
    change: float | None = None
    """From the level before; of a creep from the level before to its end. None for the first
    level, and for one that a creep led to."""
    interval: Interval = NOT_KNOWN
    """Of the change, at 95 %."""


def levels(runs: Sequence[Run], process_variance: float = 0.0) -> list[Level]:
    """Return the levels of a series, oldest first; a series without a change is one.

    Args:
        process_variance: of one process's value within a run; a run is not believed to scatter
            less than its processes do.
    """
    parts = list(parts_between(change_points(runs), len(runs)))
    if len(parts) < 2:
        return [Level(first=first, last=last) for first, last, _ in parts]
    values = cleaned(np.array([run.value for run in runs], np.float64))
    weights = np.array([run.processes for run in runs], np.float64)
    squares = sum(_left_by(values, weights, part) for part in parts)
    freedom = len(runs) - sum(2 if change and change.gradual else 1 for *_, change in parts)
    variance = max(squares / max(freedom, 1), process_variance)
    found = []
    for number, (first, last, change) in enumerate(parts):
        creep = change is not None and change.gradual
        if change is None:
            found.append(Level(first=first, last=last))
            continue
        begin = parts[number - 1][0] if number else 0
        end = parts[number + 1][1] if creep and number + 1 < len(parts) else last
        shares = (
            1 / weights[begin:first].sum() + 1 / weights[last if creep else first : end + 1].sum()
        )
        interval = interval_around(change.size, math.sqrt(variance * shares), max(freedom, 1))
        found.append(
            Level(first=first, last=last, creep=creep, change=change.size, interval=interval)
        )
    return found


def parts_between(
    changes: Sequence[Change], count: int
) -> Iterator[tuple[int, int, Change | None]]:
    """Yield the first and last run of each level and creep, and what led to it."""
    begin: int = 0
    led: Change | None = None
    for change in changes:
        if change.first > begin:
            yield begin, change.first - 1, led
        begin, led = change.first, change
        if change.gradual:
            yield change.first, change.last, change
            begin, led = change.last + 1, None
    if begin < count:
        yield begin, count - 1, led


def _left_by(values: Array, weights: Array, part: tuple[int, int, Change | None]) -> float:
    """Return the weighted squares that a level or a creep leaves."""
    first, last, change = part
    left, shares = values[first : last + 1].copy(), weights[first : last + 1]
    if change is not None and change.gradual:
        left -= np.linspace(0.0, change.size, len(left) + 1)[1:]
    return _squares(left, shares)
