"""The levels of a series of runs: from which run to which, and how far from the one before."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from convmark.compare.rule.change_points import Change, Run, change_points, cleaned
from convmark.compare.rule.pooling import t_quantile

__all__ = ["CONFIDENCE", "Level", "levels"]

Array = npt.NDArray[np.float64]

CONFIDENCE = 0.95
"""Of the interval of a change."""


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
    low: float | None = None
    high: float | None = None


def levels(runs: Sequence[Run], process_variance: float = 0.0) -> list[Level]:
    """Return the levels of a series, oldest first; a series without a change is one.

    Args:
        process_variance: of one process's value within a run; a run is not believed to scatter
            less than its processes do.
    """
    parts = list(_parts(change_points(runs), len(runs)))
    if len(parts) < 2:
        return [Level(first=first, last=last) for first, last, _ in parts]
    values = cleaned(np.array([run.value for run in runs], np.float64))
    weights = np.array([run.processes for run in runs], np.float64)
    squares = sum(_squares(values, weights, part) for part in parts)
    freedom = len(runs) - sum(2 if change and change.gradual else 1 for *_, change in parts)
    variance = max(squares / freedom, process_variance)
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
        half = t_quantile((1 + CONFIDENCE) / 2, freedom) * math.sqrt(variance * shares)
        low, high = change.size - half, change.size + half
        found.append(
            Level(first=first, last=last, creep=creep, change=change.size, low=low, high=high)
        )
    return found


def _parts(changes: Sequence[Change], count: int) -> Iterator[tuple[int, int, Change | None]]:
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


def _squares(values: Array, weights: Array, part: tuple[int, int, Change | None]) -> float:
    """Return the weighted squares that a level or a creep leaves."""
    first, last, change = part
    left, shares = values[first : last + 1].copy(), weights[first : last + 1]
    if change is not None and change.gradual:
        left -= np.linspace(0.0, change.size, len(left) + 1)[1:]
    left -= left @ shares / shares.sum()
    return float(shares @ left**2)
