"""A node that differs from its kind: plain step times of many cases in, named nodes out.

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

from convmark.compare.rule.pooling import t_quantile
from convmark.core.statistics import trimmed_mean

__all__ = [
    "ERROR_RATE",
    "LEAST_CHANGE",
    "LEAST_NODES",
    "Deviation",
    "deviations",
]

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


@dataclass(frozen=True, slots=True)
class _Kind:
    """The nodes that one of them is held against, itself among them."""

    count: int
    total: float
    squares: float

    @classmethod
    def of(cls, points: Iterable[_Point]) -> _Kind:
        values = [point.value for point in points]
        return cls(len(values), sum(values), sum(value * value for value in values))

    def beside(self, point: _Point, error_rate: float, looked_at: int) -> tuple[float, float]:
        """Return the node's distance from the mean of the others, and the half-width they predict.

        Args:
            looked_at: nodes among which the error rate is shared.
        """
        count = self.count - 1
        mean = (self.total - point.value) / count
        squares = max(0.0, self.squares - point.value**2 - count * mean**2)
        freedom = USUAL_FREEDOM + count - 1
        variance = (USUAL_FREEDOM * USUAL_SPREAD**2 + squares) / freedom
        variance = variance * (1 + 1 / count) + point.own_variance
        chance = error_rate / looked_at / 2
        return point.value - mean, _quantile(1 - chance, freedom) * math.sqrt(variance)


def deviations(times: Times, *, error_rate: float = ERROR_RATE) -> list[Deviation]:
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
    rest = dict(points)
    removed: list[str] = []
    named = 0
    for _ in range(max(1, int(MOST_NAMED * len(points)))):
        if len(rest) < LEAST_NODES:
            break
        kind = _Kind.of(rest.values())
        scores = {name: kind.beside(rest[name], error_rate, len(rest)) for name in rest}
        worst = max(scores, key=lambda name: (abs(scores[name][0]) / scores[name][1], name))
        value, half = scores[worst]
        removed.append(worst)
        if abs(value) > half and abs(value) > LEAST_CHANGE:
            named = len(removed)
        del rest[worst]
    named_nodes = removed[:named]
    good = {name: point for name, point in points.items() if name not in named_nodes}
    found = []
    for name, point in points.items():
        kind = _Kind.of({**good, name: point}.values())
        value, half = kind.beside(point, error_rate, len(points))
        found.append(_deviation(name, times[name], value, half, name in named_nodes))
    return sorted(found, key=lambda one: (-abs(one.value), one.node))


def _deviation(
    name: str, cases: Mapping[str, Sequence[float]], value: float, half: float, differs: bool
) -> Deviation:
    counted = [times_s for times_s in cases.values() if _logs(times_s)]
    return Deviation(
        node=name,
        cases=len(counted),
        processes=sum(len(_logs(times_s)) for times_s in counted),
        value=value,
        half_width=half,
        differs=differs,
    )


@functools.lru_cache(maxsize=4096)
def _quantile(probability: float, freedom: int) -> float:
    return t_quantile(probability, freedom)


def _points(times: Times) -> dict[str, _Point]:
    """Return each node's place beside its kind, over the cases that enough nodes have."""
    logs = {
        node: {case: sum(known) / len(known) for case, times_s in cases.items()
               if (known := _logs(times_s))}
        for node, cases in times.items()
    }  # fmt: skip
    by_case: dict[str, list[float]] = {}
    for cases in logs.values():
        for case, value in cases.items():
            by_case.setdefault(case, []).append(value)
    middle = {
        case: median(values) for case, values in by_case.items() if len(values) >= LEAST_NODES
    }
    beside = {
        node: [value - middle[case] for case, value in cases.items() if case in middle]
        for node, cases in logs.items()
    }
    beside = {node: values for node, values in beside.items() if values}
    if not beside:
        return {}
    scatter = _scatter(list(beside.values()))
    usual = median(len(values) for values in beside.values())
    return {
        node: _Point(trimmed_mean(values).value, max(0.0, scatter / len(values) - scatter / usual))
        for node, values in beside.items()
    }


def _scatter(beside: Sequence[Sequence[float]]) -> float:
    """Return the variance of a node's cases around the node, pooled over the nodes."""
    freedom = sum(len(values) - 1 for values in beside)
    if freedom < 1:
        return 0.0
    squares = 0.0
    for values in beside:
        mean = sum(values) / len(values)
        squares += sum((value - mean) ** 2 for value in values)
    return squares / freedom


def _logs(times_s: Sequence[float]) -> list[float]:
    return [math.log(time_s) for time_s in times_s if 0 < time_s < math.inf]
