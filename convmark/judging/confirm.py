"""The live comparison: today's code beside the anchor's, in lock-step, judged at three looks.

A session is a fresh process on each side; its rounds pair one step of either side. The session,
not the round, is the unit: rounds of one session share what happened to its processes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from convmark.errors import MeasurementError

__all__ = [
    "CHANGED",
    "CONTROL_LIMIT",
    "DETECTION",
    "ERROR_RATE",
    "LEAST_CHANGE",
    "LOOKS",
    "PRIMARY_SHARE",
    "UNCHANGED_WITHIN",
    "Clock",
    "Clocks",
    "Decision",
    "Session",
    "Verdict",
    "beyond_margin",
    "control_alarms",
    "error_rate_per_case",
    "judge",
    "judge_clocks",
    "t_quantile",
]

Verdict = Literal["regressed", "improved", "unchanged", "inconclusive"]
Clock = Literal["wall", "cpu"]

CHANGED: tuple[Verdict, ...] = ("regressed", "improved")

LOOKS = (5, 8, 12)
"""Sessions at which a verdict may fall; the last one always gives one."""

ERROR_RATE = 0.01
"""Chance that identical code is called changed, over all looks and all confirmed cases."""

LEAST_CHANGE = math.log(1.03)
"""A smaller change convicts nobody, however surely it was seen."""

UNCHANGED_WITHIN = math.log(1.05)
"""`unchanged` says that a change of this size, either way, is ruled out."""

CONTROL_LIMIT = math.log(1.01)
"""An A/A difference that is sure, but smaller than this, decides no verdict."""

DETECTION = 0.975
"""How surely a change of the smallest visible size is seen by the screen, and again by this test:
0.95 by both in turn."""

PRIMARY_SHARE = 0.8
"""Share of the error rate that the primary clock spends; the other clock has the rest."""

_ERROR_FLOOR = 0.7
"""Sessions that agree better than this share of their own errors do so by luck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One session's ln(today / anchor): the trimmed mean over its rounds, and Yuen's error."""

    log_ratio: float
    error: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.log_ratio) and math.isfinite(self.error) and self.error >= 0):
            raise MeasurementError(
                "a session must have a finite log ratio and an error of at least 0, "
                f"got {self.log_ratio} and {self.error}"
            )


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """The decision of two clocks together, and of each."""

    decision: Decision
    """The deciding clock's figures with the common verdict."""
    decided_by: Clock
    wall: Decision
    cpu: Decision

    def without_verdict(self) -> Clocks:
        """Return the same figures as inconclusive: they are not to be believed."""
        decision = dataclasses.replace(self.decision, verdict="inconclusive")
        return dataclasses.replace(self, decision=decision)


def t_quantile(probability: float, freedom: float) -> float:
    """Return Student's t quantile, dimensionless.

    SciPy is imported here: a run without verdicts does not pay for it.
    """
    from scipy.special import stdtrit  # type: ignore[import-untyped] # SciPy ships no types

    return float(stdtrit(min(freedom, 1e6), probability))


def beyond_margin(low: float, high: float) -> bool:
    """Return whether an interval leaves out every change within `LEAST_CHANGE`.

    `unchanged` is never said of such an interval, whatever else is known.
    """
    return low > LEAST_CHANGE or high < -LEAST_CHANGE


def error_rate_per_case(confirmed: int) -> float:
    """Return each case's share of `ERROR_RATE` where so many cases are confirmed (Bonferroni)."""
    return ERROR_RATE / max(1, confirmed)


def judge(
    sessions: Sequence[Session], error_rate: float, look: int, *, last: bool = False
) -> Decision:
    """Judge the sessions so far; an error rate of `error_rate / len(LOOKS)` is spent.

    Call it once per look, from 0 up, with all sessions so far: `LOOKS[look]` of them, or fewer
    at a last look that a budget has cut short.

    Args:
        error_rate: chance of calling identical code changed, over all looks of this case.
        last: no further session will be measured.

    Raises:
        MeasurementError: fewer than two sessions, no such look, or no such rate.

    Source:
        Student's t on the session means; Bonferroni over the looks.
    """
    estimate, error = _mean_and_error(sessions)
    critical = _critical(len(sessions), error_rate, look)
    half = critical * error
    verdict = _verdict(estimate, half)
    if verdict is None and (last or look == len(LOOKS) - 1):
        verdict = "inconclusive"
    reach = t_quantile(DETECTION, len(sessions) - 1) * error
    return Decision(
        verdict=verdict,
        estimate=estimate,
        low=estimate - half,
        high=estimate + half,
        smallest_visible=max(LEAST_CHANGE, half) + reach,
    )


def _mean_and_error(sessions: Sequence[Session]) -> tuple[float, float]:
    if len(sessions) < 2:
        raise MeasurementError(f"a verdict needs at least two sessions, got {len(sessions)}")
    values = np.array([session.log_ratio for session in sessions])
    floor = _ERROR_FLOOR * float(np.median([session.error for session in sessions]))
    spread = max(float(values.std(ddof=1)), floor)
    return float(values.mean()), spread / len(sessions) ** 0.5


def _critical(sessions: int, error_rate: float, look: int) -> float:
    if not 0 <= look < len(LOOKS):
        raise MeasurementError(f"look must be 0 to {len(LOOKS) - 1}, got {look}")
    if not 0 < error_rate < 1:
        raise MeasurementError(f"error rate must lie between 0 and 1, got {error_rate}")
    return t_quantile(1 - error_rate / len(LOOKS) / 2, sessions - 1)


def _verdict(estimate: float, half: float) -> Verdict | None:
    if abs(estimate) > half and abs(estimate) > LEAST_CHANGE:
        return "regressed" if estimate > 0 else "improved"
    return "unchanged" if abs(estimate) + half <= UNCHANGED_WITHIN else None


def control_alarms(control: Sequence[Session], error_rate: float, look: int) -> bool:
    """Return whether two copies of the same code differ, so that the comparison is void.

    Args:
        control: ln(anchor / second anchor) of the same sessions.
        error_rate, look: as for `judge`, whose looks these are.

    Raises:
        MeasurementError: as `judge`.
    """
    estimate, error = _mean_and_error(control)
    half = _critical(len(control), error_rate, look) * error
    return abs(estimate) > half and abs(estimate) > CONTROL_LIMIT


def judge_clocks(
    wall: Sequence[Session],
    cpu: Sequence[Session],
    error_rate: float,
    look: int,
    *,
    primary: Clock,
    last: bool = False,
) -> Clocks:
    """Judge by wall and CPU time together, at the error rate of one.

    The primary clock spends `PRIMARY_SHARE` of the rate and the other the rest. Wall time, which
    is what is waited for, convicts alone; CPU time only where wall time points the same way, as
    spinning threads burn CPU time and save wall time. `unchanged` needs the primary's interval,
    and of the other clock an estimate within `LEAST_CHANGE`.

    Args:
        primary: `cpu` where the case has one thread, else `wall`; fixed before the sessions run.

    Raises:
        MeasurementError: as `judge`.
    """
    shares = {"wall": 1 - PRIMARY_SHARE, "cpu": 1 - PRIMARY_SHARE, primary: PRIMARY_SHARE}
    last = last or look == len(LOOKS) - 1
    by_wall = judge(wall, error_rate * shares["wall"], look, last=last)
    by_cpu = judge(cpu, error_rate * shares["cpu"], look, last=last)
    decided_by, verdict = _common_verdict(by_wall, by_cpu, primary)
    if verdict is None and last:
        verdict = "inconclusive"
    chosen = by_wall if decided_by == "wall" else by_cpu
    decision = dataclasses.replace(chosen, verdict=verdict)
    return Clocks(decision=decision, decided_by=decided_by, wall=by_wall, cpu=by_cpu)


def _common_verdict(wall: Decision, cpu: Decision, primary: Clock) -> tuple[Clock, Verdict | None]:
    if wall.verdict in CHANGED:
        return "wall", wall.verdict
    if cpu.verdict in CHANGED and wall.estimate * cpu.estimate > 0:
        return "cpu", cpu.verdict
    first, other = (cpu, wall) if primary == "cpu" else (wall, cpu)
    if first.verdict in CHANGED:
        return primary, None
    if first.verdict == "unchanged" and abs(other.estimate) > LEAST_CHANGE:
        return primary, None
    return primary, first.verdict
