"""What the screen of the history and its verdicts share: limits, and what a decision is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from convmark.comparing.pooling import t_quantile

__all__ = [
    "CHANGED",
    "DETECTION",
    "ERROR_RATE",
    "LEAST_CHANGE",
    "PRIMARY_SHARE",
    "UNCHANGED_WITHIN",
    "Clock",
    "Decision",
    "Verdict",
    "beyond_margin",
    "error_rate_per_case",
    "t_quantile",
]

Verdict = Literal["regressed", "improved", "unchanged", "inconclusive"]
Clock = Literal["wall", "cpu"]

CHANGED: tuple[Verdict, ...] = ("regressed", "improved")

ERROR_RATE = 0.01
"""Chance that identical code is called changed, over all looks and all confirmed cases."""

LEAST_CHANGE = math.log(1.03)
"""A smaller change convicts nobody, however surely it was seen."""

UNCHANGED_WITHIN = math.log(1.05)
"""`unchanged` says that a change of this size, either way, is ruled out."""

DETECTION = 0.975
"""How surely a change of the smallest visible size is seen by the screen, and again by this test:
0.95 by both in turn."""

PRIMARY_SHARE = 0.8
"""Share of the error rate that the primary clock spends; the other clock has the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What may be said now: changes are ln(today / before), so above 0 is slower."""

    verdict: Verdict | None
    """None where more sessions are to be measured first."""
    estimate: float
    low: float
    high: float
    smallest_visible: float
    """The slowdown, as a log ratio, that would be found at this look 97.5 times in 100."""


def beyond_margin(low: float, high: float) -> bool:
    """Return whether an interval leaves out every change within `LEAST_CHANGE`.

    `unchanged` is never said of such an interval, whatever else is known.
    """
    return low > LEAST_CHANGE or high < -LEAST_CHANGE


def error_rate_per_case(confirmed: int) -> float:
    """Return each case's share of `ERROR_RATE` where so many cases are confirmed (Bonferroni)."""
    return ERROR_RATE / max(1, confirmed)
