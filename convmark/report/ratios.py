"""Ratios of plain step times with intervals: numbers in, numbers out; the process is the unit.

A unit is what is independent of the others of its side: a process of one run, or a whole run where
there are several. All cases of a machine share its runs, and in a run the n-th processes of all
cases are measured in one round: what slows a machine for a day or a minute slows all its cases.
So the geometric mean of several cases takes its error from the units, and not from the cases.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from convmark.core.interval import NOT_KNOWN, Interval
from convmark.core.statistics import interval_around

LEAST_PROCESSES = 3
"""Of fewer units on either side no interval is given: two tell a spread by luck."""

Units = Mapping[Hashable, Sequence[float]]
"""By unit the median step time of each of its processes, seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """One side of a ratio."""

    mean: float
    """Of the logarithms of its units."""
    errors: Mapping[Hashable, float] = field(default_factory=lambda: MappingProxyType({}))
    """What each unit adds to the error of the mean; empty where the units are too few to tell."""

    @property
    def freedom(self) -> int:
        return len(self.errors) - 1

    @classmethod
    def of(cls, times_s: Units | Sequence[float]) -> _Side | None:
        """Return a side; None where no time is above 0. Of a sequence each place is a unit."""
        units = times_s if isinstance(times_s, Mapping) else {n: [t] for n, t in enumerate(times_s)}
        logs = {
            unit: float(np.mean(known))
            for unit, times in units.items()
            if (known := [math.log(time) for time in times if time > 0])
        }
        if not logs:
            return None
        mean = sum(logs.values()) / len(logs)
        if len(logs) < LEAST_PROCESSES:
            return cls(mean=mean)
        scale = math.sqrt(len(logs) * (len(logs) - 1))
        return cls(mean=mean, errors={unit: (log - mean) / scale for unit, log in logs.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A ratio and its interval, dimensionless."""

    value: float
    interval: Interval = NOT_KNOWN
    freedom: float | None = None
    sides: tuple[_Side, _Side] | None = field(default=None, repr=False, compare=False)
    """Of what it is the ratio; None of a number alone."""

    @property
    def contains_1(self) -> bool:
        """Whether its interval is known and contains 1: the two sides cannot be told apart."""
        return self.interval.known and 1 in self.interval


def ratio(over_s: Units | Sequence[float], under_s: Units | Sequence[float]) -> Ratio | None:
    """Return the ratio of the geometric means of two sides' step times.

    The units of a side are assumed to be independent and alike, and the sides to be independent of
    each other. Processes of one run say nothing of how the machine differs from run to run.

    Args:
        over_s, under_s: the median step time of each process, seconds, by unit; in a sequence each
            process is a unit, which its place names.

    Returns:
        None where a side has no time above 0.

    Source:
        Welch (1947) on the logarithms: each side has a variance of its own.
    """
    over, under = _Side.of(over_s), _Side.of(under_s)
    if over is None or under is None:
        return None
    return _with_interval(over.mean - under.mean, [(over, under)])


def efficiency(rates: Sequence[float], replicas: int, alone: Sequence[float]) -> Ratio | None:
    """Return the throughput of replicas over that of as many perfect ones, with its interval.

    At a fixed batch size per replica, so that the work grows with their number (weak scaling).

    Args:
        rates: of all replicas together, of one replica alone: samples/s of each process.

    Returns:
        None where a side has no throughput above 0.
    """
    found = ratio(*([1 / rate for rate in one if rate > 0] for one in (alone, rates)))
    if found is None:
        return None
    interval = found.interval.mapped(lambda end: end / replicas)
    return Ratio(value=found.value / replicas, interval=interval)


def mean_rate(rates: Sequence[float]) -> float | None:
    """Return the geometric mean of throughputs; None where none is above 0."""
    side = _Side.of(rates)
    return None if side is None else math.exp(side.mean)


def level(times_s: Units) -> Ratio | None:
    """Return the geometric mean of the units' step times with its interval, seconds.

    Returns:
        None where no time is above 0.

    Source:
        Student's t on the logarithms.
    """
    side = _Side.of(times_s)
    if side is None:
        return None
    if side.freedom < LEAST_PROCESSES - 1:
        return Ratio(value=math.exp(side.mean))
    interval = interval_around(side.mean, math.sqrt(_variance([side])), side.freedom)
    return Ratio(value=math.exp(side.mean), interval=interval.mapped(math.exp))


def geometric_mean(ratios: Sequence[Ratio]) -> Ratio | None:
    """Return the geometric mean of the ratios of several cases; None of none.

    The interval is of these cases: it comes from the units, and not from how the cases differ. It
    is given where every ratio has one. Units of one name on one side are one unit, whatever the
    case: its errors in all cases are added before they are squared, so that what the cases of a
    machine share widens the interval as it should.

    Source:
        Liang and Zeger (1986) for errors summed within clusters; each is scaled as for the
        variance of a mean of few units, and the degrees of freedom are those of the case with the
        fewest, so that the interval is rather too wide than too narrow
        (tests/benchmarks/machine_ratios.py prints how often it holds the truth).
    """
    if not ratios:
        return None
    difference = sum(math.log(one.value) for one in ratios) / len(ratios)
    pairs = [one.sides for one in ratios if one.sides is not None]
    if len(pairs) < len(ratios):
        return Ratio(value=math.exp(difference))
    return _with_interval(difference, pairs)


def _with_interval(difference: float, pairs: Sequence[tuple[_Side, _Side]]) -> Ratio:
    """Return the ratio with its interval.

    Args:
        pairs: both sides of each case, whose mean the difference is.

    Source:
        Satterthwaite (1946) for the degrees of freedom of the sum over the two sides.
    """
    sides = pairs[0] if len(pairs) == 1 else None
    columns = list(zip(*pairs, strict=True))
    freedoms = [min(side.freedom for side in column) for column in columns]
    if min(freedoms) < LEAST_PROCESSES - 1:
        return Ratio(value=math.exp(difference), sides=sides)
    parts = [_variance(column) for column in columns]
    variance = sum(parts)
    squares = sum(part**2 / freedom for part, freedom in zip(parts, freedoms, strict=True))
    freedom = variance**2 / squares if squares else float(min(freedoms))
    return Ratio(
        value=math.exp(difference),
        interval=interval_around(difference, math.sqrt(variance), freedom).mapped(math.exp),
        freedom=freedom,
        sides=sides,
    )


def _variance(cases: Sequence[_Side]) -> float:
    """Return the variance of the mean over the cases of one machine."""
    errors: dict[Hashable, float] = {}
    for side in cases:
        for unit, error in side.errors.items():
            errors[unit] = errors.get(unit, 0.0) + error / len(cases)
    return sum(error**2 for error in errors.values())


PERHAPS, NOT_COMPARABLE = "perhaps", "not comparable"


def fastest_marks(
    times_s: Sequence[Sequence[float]], best: int, alike: Callable[[int], bool] = lambda place: True
) -> list[str]:
    """Return whether each side is the fastest: yes, perhaps, not comparable, or empty for no.

    Args:
        times_s: by side the median step time of each process, seconds.
        best: the place of the side with the shortest time.
        alike: whether the side at a place was measured as the best one was.
    """
    marks = [""] * len(times_s)
    for place, its_own_s in enumerate(times_s):
        found = ratio(its_own_s, times_s[best])
        if not alike(place) or found is None or not found.interval.known:
            marks[place] = NOT_COMPARABLE
        elif found.interval.low <= 1:
            marks[place] = PERHAPS
    marks[best] = ""
    marks[best] = next((mark for mark in (PERHAPS, NOT_COMPARABLE) if mark in marks), "yes")
    return marks


# -- as text ---------------------------------------------------------------------------------------


def brackets_text(found: Ratio) -> str:
    """Return the interval in square brackets, or why there is none."""
    if not found.interval.known:
        return f"(no interval: fewer than {LEAST_PROCESSES} processes)"
    return f"[{figure_text(found.interval.low)}, {figure_text(found.interval.high)}]"


def times_as_fast(found: Ratio) -> str:
    """Return a ratio in words; those of one whose interval contains 1 have no figure."""
    return (
        "not distinguishable" if found.contains_1 else f"{figure_text(found.value)} times as fast"
    )


def figure_text(value: float) -> str:
    """Return a ratio to three digits, or whole."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def times_text(mean: Ratio, factor: float = 1.0) -> str:
    """Return a ratio times a factor, with as many digits as its interval lets be told."""
    return _digits(mean.value * factor, mean, factor)


def ends_text(mean: Ratio, factor: float = 1.0) -> str:
    """Return the interval times a factor, in brackets; empty where none is known."""
    if not mean.interval.known:
        return ""
    ends = (mean.interval.low, mean.interval.high)
    low, high = (_digits(end * factor, mean, factor) for end in ends)
    return f" ({low} to {high})"


def _digits(value: float, mean: Ratio, factor: float) -> str:
    """Return a ratio with as many digits as its interval lets be told, at least one decimal."""
    half = mean.interval.half_width * factor
    if not mean.interval.known or half == 0:
        return f"{value:,.3g}"
    places = math.ceil(-math.log10(half))
    text = f"{value:,.{min(max(places, 1), 6)}f}"
    return text if float(text.replace(",", "")) else f"{value:.2g}"  # no end of a ratio is 0


def intervals_with_1(speedups: Sequence[Ratio]) -> str:
    """Say of how many cases the interval contains 1."""
    known = [one for one in speedups if one.interval.known]
    if not known:
        return f"no interval is known: fewer than {LEAST_PROCESSES} processes"
    count = sum(one.contains_1 for one in known)
    if len(known) == 1:
        return f"the interval of its one case {'contains' if count else 'does not contain'} 1"
    number = f"{count} of {len(known)}" if count else f"none of {len(known)}"
    untold = " (no difference is shown there)" * bool(count)
    return f"{number} intervals contain{'s' * (count <= 1)} 1{untold}"
