"""What change a case's noise lets be seen, and in how much time: from an A/A of its code."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from convmark.compare.rule.allotment import chances_to_see, sessions_to_see
from convmark.compare.rule.decision import FEWEST_SESSIONS, CaseSessions, Decision, decide
from convmark.compare.rule.pooling import t_quantile
from convmark.compare.rule.spending import UNCHANGED_RATE

__all__ = ["CHANGES", "Sight", "sights"]

CHANGES = (0.03, 0.05, 0.10)
"""Slowdowns for which the time is told."""

_SURELY = 0.95
_NO_CHANCE = 0.9995
_LARGEST = 1.0
"""A slowdown that is looked for, as a log ratio; a larger one is told as none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What is seen of one case. Changes are shares: 0.05 is 5 % slower."""

    scatter: float
    """Root mean square of the sessions' log ratios, whose truth is 0."""
    mean: float
    found_from: float | None
    """The smallest slowdown that is called one in 95 of 100 runs, in the case's part of a budget;
    None where none is."""
    rules_out: float | None
    """The change that `unchanged` rules out in 95 of 100 runs, in the same time."""
    seconds: tuple[float | None, ...]
    """In how many each of `CHANGES` is called slower in 8 of 10 runs; None where no time would."""


def sights(
    sessions: Sequence[Sequence[float]], session_s: Sequence[float], budget_s: float
) -> list[Sight | None]:
    """Return what is seen of each case of a suite; None for one with fewer than two sessions.

    Args:
        sessions: log ratios of identical code, case by case.
        session_s: seconds of one session of each case.
        budget_s: of a comparison of all cases, each of which gets as many sessions.
    """
    if not sessions:
        return []
    decisions = decide([CaseSessions(wall=one) for one in sessions])
    count = int(budget_s / sum(session_s))
    return [
        _sight(decision, wall, seconds, count, len(sessions)) if len(wall) > 1 else None
        for decision, wall, seconds in zip(decisions, sessions, session_s, strict=True)
    ]


def _sight(
    decision: Decision, wall: Sequence[float], session_s: float, count: int, cases: int
) -> Sight:
    # identical code: what its sessions scatter around is known to be 0
    scatter = math.sqrt(sum(value**2 for value in wall) / len(wall))
    decision = replace(decision, spread=max(decision.spread, scatter))
    numbers = [sessions_to_see(decision, math.log1p(change), cases) for change in CHANGES]
    enough, offset = count >= FEWEST_SESSIONS, _offset(wall)
    found_from = _found_from(decision, count, cases) if enough else None
    return Sight(
        scatter=scatter,
        mean=sum(wall) / len(wall),
        found_from=None if found_from is None else math.expm1(found_from + offset),
        rules_out=math.expm1(_rules_out(decision, count) + offset) if enough else None,
        seconds=tuple(None if number is None else number * session_s for number in numbers),
    )


def _offset(wall: Sequence[float]) -> float:
    """Return how far the sessions surely lie from 0: no number of them averages that out."""
    mean, freedom = float(np.mean(wall)), len(wall) - 1
    error = float(np.std(wall, ddof=1)) / math.sqrt(len(wall))
    return abs(mean) if abs(mean) > t_quantile(_NO_CHANCE, freedom) * error else 0.0


def _found_from(decision: Decision, count: int, cases: int) -> float | None:
    """Return the smallest log ratio that is called slower; None where not even the largest is."""

    sessions = np.arange(1, count + 1)

    def is_seen(change: float) -> bool:
        return bool(chances_to_see(decision, change, sessions, cases).max() >= _SURELY)

    low, high = 0.0, _LARGEST
    if not is_seen(high):
        return None
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if is_seen(middle) else (middle, high)
    return high


def _rules_out(decision: Decision, count: int) -> float:
    error = decision.spread / math.sqrt(count)
    surely = t_quantile(1 - UNCHANGED_RATE, decision.freedom) + t_quantile(
        (1 + _SURELY) / 2, math.inf
    )
    return surely * error
