"""The decision rule: from the sessions of all cases so far to the verdict of each case.

A session is one fresh process in which the old and the new code took turns; its value is the
20 % trimmed mean of ln(new / old). The session is the unit: what happened to its process happened
to all its steps. The rule is asked again after every session.

`regressed` needs all of these:

- the estimate is above the margin, and its interval above 0, by wall time;
- the signs of the sessions rule out chance, at a few fixed numbers of sessions: 12, 16, 22, 30 and
  so on in a run of 16 cases. The order of the two codes is drawn anew for each session, so on
  identical code this holds whatever the noise is. A change beyond what modes of a process do need
  not wait: from five sessions up an interval above 8 % is enough, by Student's t on the case's own
  sessions, none trimmed.

`unchanged` needs two sessions: a change of 5 % slower or 4.8 % faster (the same as a log ratio)
is ruled out by a one-sided bound of 98 to 98.5 % over all looks, the variance shrunk over the
cases. A wrong `unchanged` is a missed change, which later comparisons with the same anchor see
again; a wrong `regressed` costs the belief in the tool. So one is quick and parametric, and the
other assumes nothing of the noise.

Between the two lies `slower_within_margin`: above 1 %, not above the margin, and no chance by a t
interval of 99.9 %. CPU time convicts nobody. Where it rules a change out, wall time needs about
96 % for `unchanged`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import itemgetter
from typing import Literal

import numpy as np

from convmark.compare.rule.statistics import (
    ASSUMED,
    FEWEST_BEYOND_MODES,
    Look,
    Prior,
    Summary,
    case_error_rate,
    chance_of_slower,
    look_at,
    pooled_prior,
    ranks_below,
    shift_of,
    summary,
)
from convmark.core.errors import MeasurementError
from convmark.core.interval import NOT_KNOWN, Interval, interval_text, share_of
from convmark.core.statistics import t_quantile
from convmark.core.text import share_text

Verdict = Literal[
    "regressed",
    "improved",
    "unchanged",
    "slower_within_margin",
    "faster_within_margin",
    "undecided",
]

UNCHANGED_RATE = 0.004
"""Rate of one look at `unchanged`. Over all looks a change of exactly 5 % is missed in 0.1 % of the
cases at 1 % of noise, and in about 2 % at 4 to 6 % (tests/benchmarks/decision_rule.py): a one-sided
98 to 98.5 %."""
UNCHANGED_RATE_WITH_CPU = 0.010
"""The same where CPU time has ruled a change out: about 4 % that it does not see are missed."""
NAMED_RATE = 0.0005
"""Rate of one look at a change within the margin, to either side: naming it fails nothing."""
NAMED_FROM = math.log(1.01)
"""A smaller change is not called slower or faster: duets of identical code differ by 0.4 %."""
WITHIN_MARGIN = "within the margin"
"""Ends what is said of such a change."""
FEWEST_SESSIONS = 2
"""Fewer decide nothing. Two rule a change out where four cases or more tell the noise."""
_FEWEST_OF_CONTROL = 3
"""Sessions from which a control is held against the old code, by its own noise."""
BEYOND_MODES = math.log(1.08)
"""Processes of one case fall into modes that lie up to this far apart."""
CROSS_CHECKED_BY = 3
"""Sessions of separate processes that a conviction by duets is held against."""
_CONTRADICTED_BEYOND = 3.0
"""Errors of the two together beyond which they contradict each other."""
_LEAST_APART_SPREAD = 0.02
"""Sessions of two processes that agree better than this do so by luck: they scatter by 1.3 to 4.7 %
on identical code, with a bias of up to 3.5 %."""
_UNSURE_OF_SIZE = 0.05
"""Share of a change that counts as an error too: what the two share a cache with tells on its size,
and that does not contradict it."""
_SEEN = 0.95
"""How surely a change of the smallest visible size is seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What counts as a change, as log ratios."""

    margin: float = math.log(1.03)
    """A smaller change convicts nobody, however surely it was seen."""
    unchanged_within: float = math.log(1.05)
    """`unchanged` says that a change of this size is ruled out: 5 % slower, or 4.8 % faster."""
    slower_within: float = math.log(1.05)
    """A slowdown within the margin is called so once a change of this size is ruled out."""

    def __post_init__(self) -> None:
        if not 0 < self.margin < self.slower_within < math.inf:
            raise MeasurementError(
                "the margin must lie above 0 and below what is ruled out with it, "
                f"got {self.margin} and {self.slower_within}"
            )
        if not 0 < self.unchanged_within <= self.slower_within:
            raise MeasurementError(
                "what `unchanged` rules out must lie above 0 and not above what is ruled out of a "
                f"slowdown within the margin, got {self.unchanged_within} and {self.slower_within}"
            )

    @classmethod
    def around(cls, margin: float) -> Limits:
        """Return the limits of a margin of the user's, a share: what is ruled out scales with it.

        Raises:
            MeasurementError: a margin of 0 or below, or that is not finite.
        """
        if not (math.isfinite(margin) and margin > 0):
            raise MeasurementError(
                f"the margin must be a share above 0, such as 0.03, got {margin}"
            )
        within = math.log1p(margin * 5 / 3)
        return cls(margin=math.log1p(margin), unchanged_within=within, slower_within=within)

    def sharp(self) -> Limits:
        """Return the limits for an unlimited budget: `unchanged` rules the margin itself out."""
        return replace(self, unchanged_within=self.margin)


USUAL = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseSessions:
    """The sessions of one case so far, those carried in from an earlier run first."""

    wall: Sequence[float]
    """ln(new / old) by wall time."""
    cpu: Sequence[float] | None = None
    """The same by CPU time, session by session; None where it was not measured."""
    bar: float = 0.0
    """The level that `regressed` counts from, at most 0: below 0 where the code has been faster
    than the anchor meanwhile (`bar`)."""
    apart: bool = False
    """Whether each is of two processes, which scatter more: no duet tells their noise."""

    def __post_init__(self) -> None:
        values = [*self.wall, *(self.cpu or ()), self.bar]
        if not all(map(math.isfinite, values)) or self.bar > 0:
            raise MeasurementError(
                "sessions and bar must be finite and the bar at most 0, "
                f"got {list(self.wall)}, {self.cpu} and {self.bar}"
            )
        if self.cpu is not None and len(self.cpu) != len(self.wall):
            raise MeasurementError(
                f"each session must have both clocks, got {len(self.wall)} and {len(self.cpu)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What may be said of a case now. Changes are ln(new / old) by wall time: above 0 is slower."""

    verdict: Verdict
    sessions: int
    estimate: float | None = None
    """Trimmed mean of the sessions; None below two."""
    interval: Interval = NOT_KNOWN
    """What the verdict rests on: of `regressed`, `improved` and undecided cases at their share of
    the run's error rate, of the others the two one-sided bounds; not known below two sessions."""
    smallest_visible: float = math.inf
    """The slowdown that these sessions would have told from 0 in 95 of 100 cases."""
    spread: float
    """Standard deviation of a session, shrunk over the cases."""
    freedom: float
    """Degrees of freedom of the spread."""
    bar: float = 0.0
    signs_behind: float = 0.0
    """How much smaller the change is by the ranks of the sessions than by the estimate, which trims
    the largest; at least 0."""

    @property
    def decided(self) -> bool:
        return self.verdict != "undecided"

    @property
    def within_margin(self) -> bool:
        """Whether a change is named that is not above the margin."""
        return self.verdict in ("slower_within_margin", "faster_within_margin")

    @property
    def plain_verdict(self) -> str:
        """The verdict where nothing more is to come: a change within the margin is none."""
        plain = {"undecided": "inconclusive"}.get(self.verdict, self.verdict)
        return "unchanged" if self.within_margin else plain

    @property
    def text(self) -> str:
        """The change with its interval, as per cent; empty below two sessions."""
        if self.estimate is None:
            return ""
        return interval_text(share_of(self.estimate), self.interval.shares())

    @property
    def margin_text(self) -> str:
        """What is said of a change within the margin; empty where none is named."""
        if not self.within_margin or self.estimate is None:
            return ""
        way = "slower" if self.estimate > 0 else "faster"
        return f"{way} by {share_text(abs(share_of(self.estimate)))}, {WITHIN_MARGIN}"


def decide(
    cases: Sequence[CaseSessions],
    limits: Limits = USUAL,
    final: Sequence[Decision | None] = (),
    decided_before: int = 0,
) -> list[Decision]:
    """Judge all cases of a run by their sessions so far; call it again after every session.

    A case that needs no further session is judged for the last time. Its sessions still tell the
    noise of the others, whose later sessions change nothing about its decision.

    Args:
        cases: all cases that the run compares, also those without a session yet; their number
            sets each case's share of the error rate.
        limits: what counts as a change.
        final: the final decision of each case, None where it has none yet; empty where no case has.
        decided_before: cases of the run that have had their share before it was interrupted.
    """
    rate = case_error_rate(len(cases) + decided_before)
    kinds = {one.apart: _priors([two for two in cases if two.apart == one.apart]) for one in cases}
    return [
        decided or _judged(case, *kinds[case.apart], rate, limits)
        for case, decided in zip(cases, final or [None] * len(cases), strict=True)
    ]


def _priors(cases: Sequence[CaseSessions]) -> tuple[Prior, Prior]:
    """Return what cases tell together of the noise of each, by wall and by CPU time."""
    of_clocks = [one.wall for one in cases], [one.cpu for one in cases if one.cpu is not None]
    wall, cpu = ([summary(one) for one in found if len(one) > 1] for found in of_clocks)
    return pooled_prior(wall), pooled_prior(cpu)


def controls_differ(controls: Sequence[Sequence[float]]) -> list[bool]:
    """Return for each case whether its control differs from the old code, which it is a copy of.

    It does where a change would be named: above 1 %, and no chance by a t interval of 99.9 %. Then
    the sessions tell of more than the codes, and nothing that they say of the new one holds. Ask
    it once no further session is run: each look may alarm by chance.

    Args:
        controls: of each case ln(control / old) of its sessions; fewer than three tell nothing.
    """
    known = [summary(one) if len(one) >= _FEWEST_OF_CONTROL else None for one in controls]
    prior = pooled_prior([one for one in known if one is not None])
    return [
        one is not None and abs(one.estimate) > max(one.bound(prior, NAMED_RATE), NAMED_FROM)
        for one in known
    ]


def slower_by_all_steps(
    changes: Sequence[tuple[float, float]], beyond: float = USUAL.margin
) -> float:
    """Return ln(new / old) of the time of all steps where it is surely above a bound; else 0.

    A session's value is that of its usual steps. Work that is done in one step of many tells in
    their sum alone, by CPU time too: other programs make single steps longer by wall time.

    Args:
        changes: of each session the mean of all steps, by wall and by CPU time.
        beyond: the bound, as a log ratio.
    """
    if len(changes) < FEWEST_SESSIONS:
        return 0.0
    found = [summary(values) for values in zip(*changes, strict=True)]
    least = min(one.estimate - one.bound(ASSUMED, UNCHANGED_RATE) for one in found)
    return found[0].estimate if least > beyond else 0.0


def contradicts(decision: Decision, separate: Sequence[float]) -> bool:
    """Return whether sessions of separate processes contradict what duets have decided.

    Args:
        decision: by duets, with an estimate.
        separate: ln(new / old) of the sessions, at least two.
    """
    found = summary(separate)
    spread = max(found.variance**0.5, _LEAST_APART_SPREAD)
    assert decision.estimate is not None
    error = math.hypot(
        spread / math.sqrt(found.count),
        decision.spread / math.sqrt(decision.sessions),
        _UNSURE_OF_SIZE * decision.estimate,
    )
    return abs(found.estimate - decision.estimate) > _CONTRADICTED_BEYOND * error


def _judged(
    case: CaseSessions, prior: Prior, cpu_prior: Prior, case_rate: float, limits: Limits
) -> Decision:
    if len(case.wall) > 1:
        found = summary(case.wall)
        variance, freedom = found.shrunk(prior)
        error = math.sqrt(variance / found.count)
        return _Question(case, found, error, freedom, case_rate, limits, cpu_prior).answer()
    return Decision(
        verdict="undecided",
        sessions=len(case.wall),
        spread=math.sqrt(prior.variance),
        freedom=prior.freedom,
        bar=case.bar,
    )


@dataclass(frozen=True)
class _Question:
    """One case's sessions and all that judging them needs."""

    case: CaseSessions
    found: Summary
    error: float
    """Of the estimate, with the variance shrunk."""
    freedom: float
    case_rate: float
    limits: Limits
    cpu_prior: Prior

    @cached_property
    def look(self) -> Look:
        return look_at(self.found.count, self.case_rate)

    @cached_property
    def half(self) -> float:
        """Half the interval's width."""
        return t_quantile(1 - self.look.rate, self.freedom) * self.error

    @cached_property
    def bound(self) -> float:
        """How far beyond the estimate a change is ruled out, one-sided.

        Where CPU time rules a change out, wall time needs to be less sure.
        """
        rate = UNCHANGED_RATE
        if self.case.cpu is not None:
            cpu = summary(self.case.cpu)
            reach = abs(cpu.estimate) + cpu.bound(self.cpu_prior, UNCHANGED_RATE)
            if reach <= self.limits.unchanged_within:
                rate = UNCHANGED_RATE_WITH_CPU
        return t_quantile(1 - rate, self.freedom) * self.error

    def answer(self) -> Decision:
        """Return the verdict and its figures."""
        verdict = self.verdict()
        reach = self.half if verdict in ("regressed", "improved", "undecided") else self.bound
        return Decision(
            verdict=verdict,
            sessions=self.found.count,
            estimate=self.found.estimate,
            interval=Interval.around(self.found.estimate, reach),
            smallest_visible=self.half + t_quantile(_SEEN, self.freedom) * self.error,
            spread=self.error * math.sqrt(self.found.count),
            freedom=self.freedom,
            bar=self.case.bar,
            signs_behind=self.signs_behind
            if verdict == "undecided" and self.look.sessions  # ranks of fewer tell little
            else 0.0,
        )

    @property
    def signs_behind(self) -> float:
        """As of `Decision`: a conviction waits for the ranks, whatever the estimate is."""
        estimate, wall = self.found.estimate, np.asarray(self.case.wall)
        slower = estimate - self.case.bar
        change, values = max((slower, wall - self.case.bar), (-estimate, -wall), key=itemgetter(0))
        shift = shift_of(self.found.count, ranks_below(values))
        return max(0.0, change - shift * self.error * math.sqrt(self.found.count))

    def verdict(self) -> Verdict:
        estimate = self.found.estimate
        if self._convicts(estimate - self.case.bar, 1.0, self.case.bar):
            return "regressed"
        if self._convicts(-estimate, -1.0, 0.0):
            return "improved"
        return self._within_margin()

    def _convicts(self, change: float, side: float, bar: float) -> bool:
        """Return whether the sessions convict of a change to this side, counted from the bar."""
        if change <= self.limits.margin or change <= self.half:
            return False
        values = side * (np.asarray(self.case.wall) - bar)
        if self.look.sessions:
            return chance_of_slower(values[: self.look.sessions]) <= self.look.rate
        if len(values) < FEWEST_BEYOND_MODES:
            return False
        error = float(values.std(ddof=1)) / math.sqrt(len(values))
        least = float(values.mean()) - t_quantile(1 - self.look.rate, len(values) - 1) * error
        return least > BEYOND_MODES

    def _within_margin(self) -> Verdict:
        estimate, bar, bound = self.found.estimate, self.case.bar, self.bound
        furthest = max(estimate - bar, -estimate)
        if furthest > self.limits.margin or furthest + bound > self.limits.slower_within:
            return "undecided"
        if abs(estimate) <= max(bound, NAMED_FROM):
            return "unchanged" if furthest + bound <= self.limits.unchanged_within else "undecided"
        if abs(estimate) <= t_quantile(1 - NAMED_RATE, self.freedom) * self.error:
            return "undecided"
        return "slower_within_margin" if estimate > 0 else "faster_within_margin"


_RECENT = 3
"""Earlier runs that make the recent level."""
_SURELY = 2.17
"""Standard errors of a one-sided 98.5 %."""
RUNS_DIFFER = 0.004
"""Two runs of the same two codes may differ so much: the means of their duets do."""


def bar(earlier: Sequence[tuple[float, float]]) -> float:
    """Return the log ratio to the anchor that a slowdown counts from, at most 0.

    The upper bound of 98.5 % of the last three runs' common level, or 0 where that is above it.
    Two things keep a slow creep from passing, 1 % a commit: the anchor stays where it is until
    somebody accepts a change, so the steps add up against it; and what has become faster meanwhile,
    accepted or not, must not be lost again unseen.

    Args:
        earlier: of the runs of earlier commits of this branch against the same anchor, oldest
            first, ln(code / anchor) by wall time and its standard error.
    """
    recent = earlier[-_RECENT:]
    if not recent:
        return 0.0
    weights = [1 / (error**2 + RUNS_DIFFER**2) for _, error in recent]
    total = sum(weights)
    mean = sum(weight * level for weight, (level, _) in zip(weights, recent, strict=True)) / total
    return min(0.0, mean + _SURELY / math.sqrt(total))
