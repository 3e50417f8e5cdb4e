"""Levels in the ratios that gates have seen: each is of a run's code beside an earlier code.

Such a ratio is sharper than what the runs' own step times say of two runs, and it tells by how much
their levels differ, whether all gates have one anchor or each has the main branch as it was then.
So a change of level, a step or a slope, is fitted to the ratios themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from convmark.compare.rule.change_points import (
    FALSE_RATE,
    FEWEST_RUNS,
    LEAST_STRETCH,
    Change,
    Level,
    parts_between,
)
from convmark.compare.rule.decision import RUNS_DIFFER
from convmark.compare.rule.statistics import MOST_FREEDOM, Prior, Summary
from convmark.core.statistics import interval_around, t_quantile

Array = npt.NDArray[np.float64]

_LEAST_CHANGE = math.log(1.02)
"""A smaller one is not named: the noise of a run is taken from its sessions, and their means differ
by up to 0.4 % on identical code."""
_SLOPE_FIRST = 1.0
"""Squares, in units of the noise, by which a step must explain the ratios better than a slope."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """What the sessions of one run have seen of its code beside another one."""

    sessions: Summary
    """Of ln(run's code / the other one)."""
    new: int
    """The run's place in the series."""
    old: int | None
    """The place of an earlier run that had the other code; None where none had."""
    beside: str = ""
    """Tells codes that no run had apart."""


@dataclass(frozen=True, slots=True)
class _Fit:
    """Ratios in units of their noise, with a change of level in them."""

    change: Change
    left: float
    """Squares that the change leaves."""
    scale: float
    """One over the square of the size's error, at a noise of 1."""
    variance: float
    """Of the noise: 1, or what the ratios scatter by around the change."""
    freedom: float

    def is_sure(self, rate: float) -> bool:
        """Whether chance makes so large a change of a flat series at this rate at most."""
        reach = t_quantile(1 - rate / 2, self.freedom) * math.sqrt(self.variance / self.scale)
        return abs(self.change.size) > reach


def ratio_levels(ratios: Sequence[Ratio], count: int) -> list[Level]:
    """Return the levels of a series of runs by its gates' ratios; none where it has not moved.

    The change is a step, or a slope over `LEAST_STRETCH` runs or more where that explains the
    ratios as well. A straight line from the first run to the last is asked first, which a slow
    creep follows; then each step and slope, at a rate that all of them share.
    """
    if count < 2 * FEWEST_RUNS or len(ratios) < 2 * FEWEST_RUNS - 1:
        return []
    begins, ends = np.array(
        [
            (begin, end)
            for begin in range(count)
            for end in range(begin + 1, count)
            if end == begin + 1 or end - begin >= LEAST_STRETCH
        ]
    ).T
    fits = _fits(ratios, count, [0, *begins], [count - 1, *ends])
    line, others = fits[:1], fits[1:]
    if not others:
        return []
    noise = max(1.0, min(one.variance for one in others))

    def criterion(one: _Fit) -> float:
        """Return what is left: a slope that is called a step names a commit that cost little."""
        return one.left / noise - _SLOPE_FIRST * one.change.gradual

    best, rate = min(others, key=criterion), FALSE_RATE / 2
    sure = any(one.is_sure(rate) for one in line) or best.is_sure(rate / len(others))
    if not sure or abs(best.change.size) < _LEAST_CHANGE:
        return []
    error = math.sqrt(best.variance / best.scale)
    interval = interval_around(best.change.size, error, best.freedom)
    return [
        Level(first=first, last=last)
        if change is None
        else Level(
            first=first, last=last, creep=change.gradual, change=change.size, interval=interval
        )
        for first, last, change in parts_between([best.change], count)
    ]


def _fits(
    ratios: Sequence[Ratio], count: int, begins: Sequence[int], ends: Sequence[int]
) -> list[_Fit]:
    """Return the fit of each slope from a run's level to another's, those that a ratio crosses.

    Source:
        weighted least squares on the differences of two levels; a code that no run had has a
        level of its own, which takes its group's mean away.
    """
    values = np.array([one.sessions.estimate for one in ratios])
    weights, known = _weights([one.sessions for one in ratios])
    begin, end = np.array(begins)[:, None], np.array(ends)[:, None]
    levels = np.clip((np.arange(count) - begin) / (end - begin), 0.0, 1.0)
    levels = np.column_stack([levels, np.zeros(len(levels))])  # a code that no run had
    old = [count if one.old is None else one.old for one in ratios]
    differences = levels[:, [one.new for one in ratios]] - levels[:, old]
    groups = {one.beside for one in ratios if one.old is None}
    for group in groups:
        mine = np.array([one.old is None and one.beside == group for one in ratios])
        share = weights * mine / weights[mine].sum()
        values = values - mine * (values @ share)
        differences = differences - mine * (differences @ share)[:, None]
    along, scale = differences @ (weights * values), differences**2 @ weights
    own = max(len(ratios) - len(groups) - 1, 1)
    found = []
    for place in np.flatnonzero(scale > 1e-9 * weights.max()).tolist():
        left = max(0.0, float(weights @ values**2 - along[place] ** 2 / scale[place]))
        shrunk = (known + left) / (known + own)
        found.append(
            _Fit(
                Change(
                    first=int(begins[place]) + 1,
                    last=int(ends[place]),
                    size=float(along[place] / scale[place]),
                ),
                left=left,
                scale=float(scale[place]),
                variance=max(1.0, left / own, shrunk),
                freedom=known + own,
            )
        )
    return found


def _weights(runs: Sequence[Summary]) -> tuple[Array, float]:
    """Return one over the variance of each run's ratio, and the degrees of freedom of the noise.

    A run's sessions are believed to scatter as those of all runs, and no less than by themselves.
    """
    freedom = float(sum(one.freedom for one in runs))
    scatter = sum(one.freedom * one.variance for one in runs) / freedom
    known = min(freedom, MOST_FREEDOM)
    prior = Prior(variance=scatter, freedom=known)
    variances = [one.shrunk(prior)[0] / one.count + RUNS_DIFFER**2 for one in runs]
    return 1 / np.array(variances), known
