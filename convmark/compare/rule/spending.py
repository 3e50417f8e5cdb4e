"""How a run's error rate is spent: over its cases, and over the looks at each.

A case is looked at after every session, but may be convicted at few of them: each look spends a
part of the rate, and the parts sum to the case's share whatever is decided in between.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from convmark.core.errors import MeasurementError

__all__ = [
    "CASE_ERROR_RATE",
    "FEWEST_BEYOND_MODES",
    "NAMED_RATE",
    "RUN_ERROR_RATE",
    "UNCHANGED_RATE",
    "UNCHANGED_RATE_WITH_CPU",
    "Look",
    "case_error_rate",
    "look_at",
    "sign_looks",
]

RUN_ERROR_RATE = 0.01
"""Chance that a run of identical code has a `regressed` case, over all cases and looks; and as
much for `improved`."""

CASE_ERROR_RATE = 0.001
"""The most of it that one case has, where the run has fewer than ten."""

UNCHANGED_RATE = 0.004
"""Rate of one look at `unchanged`. Over all looks a change of exactly 5 % is missed in none of the
cases up to 1 % of noise, and in about 2 % of cases at 4 to 6 % (tests/benchmarks/decision_rule.py):
a one-sided 98 to 98.5 %."""

NAMED_RATE = 0.0005
"""Rate of one look at a change within the margin, to either side: naming it fails nothing."""

UNCHANGED_RATE_WITH_CPU = 0.010
"""The same where CPU time has ruled a change out: over all looks about 4 % of the changes that CPU
time does not see are missed."""

FEWEST_BEYOND_MODES = 5
"""Sessions from which a change beyond all modes convicts."""

_EARLY_SHARE = 0.2
"""Share of a case's rate for such changes; each look at the signs then spends half of the rest."""

_LOOK_GROWTH = 4 / 3
"""Each look at the signs has so many times the sessions of the one before."""

_MOST_SESSIONS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a case may be convicted by at some number of sessions."""

    sessions: int
    """The sessions whose signs are looked at; 0 while they are too few to rule out chance."""
    rate: float
    """What this look spends."""


def case_error_rate(cases: int) -> float:
    """Return each case's share of `RUN_ERROR_RATE` (Bonferroni), at most `CASE_ERROR_RATE`.

    Raises:
        MeasurementError: no case.
    """
    if cases < 1:
        raise MeasurementError(f"a run's error rate is shared by at least one case, got {cases}")
    return min(CASE_ERROR_RATE, RUN_ERROR_RATE / cases)


@lru_cache(maxsize=64)
def sign_looks(case_rate: float) -> tuple[Look, ...]:
    """Return the looks at the signs: the first where all sessions on one side are rare enough."""
    rate = case_rate * (1 - _EARLY_SHARE) / 2
    sessions = math.ceil(-math.log2(rate))
    looks = []
    while sessions <= _MOST_SESSIONS:
        looks.append(Look(sessions=sessions, rate=rate))
        sessions, rate = math.ceil(sessions * _LOOK_GROWTH), rate / 2
    return tuple(looks)


@lru_cache(maxsize=4096)
def look_at(sessions: int, case_rate: float) -> Look:
    """Return the last look at the signs up to so many sessions, or the early one before it."""
    looks = sign_looks(case_rate)
    passed = [look for look in looks if look.sessions <= sessions]
    if passed:
        return passed[-1]
    early = looks[0].sessions - FEWEST_BEYOND_MODES
    return Look(sessions=0, rate=case_rate * _EARLY_SHARE / early)
