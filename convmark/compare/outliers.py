"""Outlier detection: finds nodes whose plain step times differ from others of their kind.

A paired ratio hides a slow node, for its reference network is as slow; so plain step times are
compared. What scatters between the good nodes of a kind is estimated from the others, never from
the node that is looked at, so that a bad node does not hide itself.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from convmark.compare.rule.statistics import pooled_variance
from convmark.core.statistics import t_quantile, trimmed_mean

ERROR_RATE = 0.001
"""Of calling any good node of a kind different, for noise alone: kinds are many, and are looked at
often."""
LEAST_CHANGE = math.log(1.03)
"""What is smaller is of no interest, however sure."""
LEAST_NODES = 3
"""Of fewer it cannot be told which of them differs."""
USUAL_SPREAD = 0.02
"""Standard deviation between good nodes of a kind that is assumed until they tell their own."""
USUAL_FREEDOM = 4
"""Degrees of freedom that the assumption counts as much as."""
MOST_NAMED = 0.25
"""Share of a kind that may be called different from it: more are no exception."""

Times = Mapping[str, Mapping[str, Sequence[float]]]
"""By node and case the step time of each process, seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """How a node's step times lie beside those of its kind, in ln(step time)."""

    node: str
    cases: int
    processes: int
    value: float
    half_width: float
    """Of the interval in which a good node lies, all nodes of the kind together."""
    differs: bool

    @property
    def change(self) -> float:
        """Its step times / those of its kind - 1."""
        return math.exp(self.value) - 1


@dataclass(frozen=True, slots=True)
class _Point:
    value: float
    own_variance: float
    """What its own cases and processes leave open beyond that of a usual node."""


_Sums = tuple[int, float, float]
"""Of the values of some nodes: how many there are, their sum and the sum of their squares."""


def _sums(points: Iterable[_Point]) -> _Sums:
    values = [point.value for point in points]
    return len(values), sum(values), sum(value * value for value in values)


def _deviation(kind: _Sums, point: _Point, chance: float) -> tuple[float, float]:
    """Return a node's distance from the mean of the others, and the half-width they predict.

    Args:
        kind: of all nodes, itself among them.
        chance: that a good node lies beyond the half-width, to either side.
    """
    count = kind[0] - 1
    mean = (kind[1] - point.value) / count
    squares = max(0.0, kind[2] - point.value**2 - count * mean**2)
    freedom = USUAL_FREEDOM + count - 1
    variance = (USUAL_FREEDOM * USUAL_SPREAD**2 + squares) / freedom
    variance = variance * (1 + 1 / count) + point.own_variance
    return point.value - mean, _quantile(1 - chance, freedom) * math.sqrt(variance)


def deviations(times: Times) -> list[Deviation]:
    """Return every node's deviation from its kind, the largest first; none for too few nodes.

    Of each case a node has the mean of ln(step time) over its processes, less the median over the
    nodes; of these a node has the trimmed mean over the cases. A node differs where it lies outside
    the interval that the other nodes predict, and by more than `LEAST_CHANGE`.

    Source:
        Rosner (1983), the generalised extreme studentised deviate: the farthest is taken out and
        the rest looked at again, so that two bad nodes do not hide each other; and Smyth (2004),
        "moderated" variances, so that three nodes which happen to agree prove nothing.
    """
    points = _points(times)
    if len(points) < LEAST_NODES:
        return []
    rest, removed, different = dict(points), list[str](), 0
    for _ in range(max(1, int(MOST_NAMED * len(points)))):
        if len(rest) < LEAST_NODES:
            break
        kind, chance = _sums(rest.values()), ERROR_RATE / len(rest) / 2
        scores = {name: _deviation(kind, point, chance) for name, point in rest.items()}
        worst = max(scores, key=lambda name: (abs(scores[name][0]) / scores[name][1], name))
        removed.append(worst)
        del rest[worst]
        if abs(scores[worst][0]) > max(scores[worst][1], LEAST_CHANGE):
            different = len(removed)
    named = set(removed[:different])
    good = {name: point for name, point in points.items() if name not in named}
    found = []
    for name, point in points.items():
        kind = _sums({**good, name: point}.values())
        value, half = _deviation(kind, point, ERROR_RATE / len(points) / 2)
        counted = [count for times_s in times[name].values() if (count := len(_logs(times_s)))]
        found.append(
            Deviation(
                node=name,
                cases=len(counted),
                processes=sum(counted),
                value=value,
                half_width=half,
                differs=name in named,
            )
        )
    return sorted(found, key=lambda one: (-abs(one.value), one.node))


_quantile = functools.lru_cache(maxsize=4096)(t_quantile)


def _points(times: Times) -> dict[str, _Point]:
    """Return each node's place beside its kind, over the cases that enough nodes have."""
    by_case: dict[str, dict[str, float]] = {}
    for node, cases in times.items():
        for case, times_s in cases.items():
            if known := _logs(times_s):
                by_case.setdefault(case, {})[node] = sum(known) / len(known)
    beside: dict[str, list[float]] = {}
    for values in by_case.values():
        if len(values) >= LEAST_NODES:
            middle = median(values.values())
            for node, value in values.items():
                beside.setdefault(node, []).append(value - middle)
    if not beside:
        return {}
    usual = median(map(len, beside.values()))
    scatter, _ = pooled_variance(beside.values())  # of a node's cases around the node
    return {
        node: _Point(
            trimmed_mean(beside[node]).value,
            max(0.0, scatter / len(beside[node]) - scatter / usual),
        )
        for node in times
        if node in beside
    }


def _logs(times_s: Sequence[float]) -> list[float]:
    return [math.log(time_s) for time_s in times_s if 0 < time_s < math.inf]
