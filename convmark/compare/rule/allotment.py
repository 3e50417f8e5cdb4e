"""Which case gets the next session, when to stop, and what further sessions would decide.

That is predicted from the sessions so far: the estimate moves by chance alone, and its error
shrinks with the square root of their number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from convmark.compare.rule.decision import (
    BEYOND_MODES,
    FEWEST_SESSIONS,
    NAMED_FROM,
    NAMED_RATE,
    UNCHANGED_RATE,
    USUAL,
    CaseSessions,
    Decision,
    Limits,
    decide,
)
from convmark.compare.rule.statistics import (
    FEWEST_BEYOND_MODES,
    Look,
    case_error_rate,
    least_shift,
    look_at,
)
from convmark.core.statistics import t_quantile

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

_LIKELY = 0.8
"""A time is named in which a case would be decided as often as this."""
_LEFT_OVER = 4.0
"""A case that the last run left undecided counts as much as so many others."""
_HOPELESS = 0.01
"""A chance below which a case is as good as none: of two such, neither is the more likely one."""
_HORIZON = tuple(range(1, 61))
"""Further sessions of one case that are thought of when the next one is chosen."""
_MOST_FREEDOM = 1e6
"""Degrees beyond which Student's t is a normal deviate."""
_FAR_HORIZON = (*_HORIZON, *range(65, 200, 5), *range(200, 1000, 25))


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A case that may get the next session."""

    decision: Decision
    session_s: float
    """Seconds above 0 that one session takes, with the start of its process and both builds."""
    left_over: bool = False
    """The last run left it undecided."""
    target: float = math.inf
    """Half-width of the interval, as a log ratio, that is wanted beside the verdict."""
    closed: bool = False
    """It gets no further session: its code cannot be built, or its sessions failed too often."""

    @property
    def open(self) -> bool:
        """Whether another session may be taken of it."""
        done = self.decision.decided and self.decision.interval.half_width <= self.target
        return not (self.closed or done)

    @property
    def missing(self) -> int:
        """How many sessions it lacks of the fewest that decide."""
        return max(0, FEWEST_SESSIONS - self.decision.sessions)


def next_session(
    candidates: Sequence[Candidate], left_s: float, limits: Limits = USUAL
) -> int | None:
    """Return the place of the case whose next sessions decide most per second.

    First each case gets those without which nothing is known of its noise, what the last run left
    undecided before the others, then the cheaper ones. After that it is the chance to be decided
    by one or more further sessions over their seconds, at the best number of them. Sessions that
    would end after the budget do not count.

    Args:
        candidates: all cases that the run compares.
        left_s: what is left of the budget, seconds; infinite without one.

    Returns:
        None where every case is decided or closed, or no session fits what is left.
    """
    affordable = [
        place
        for place, candidate in enumerate(candidates)
        if candidate.open and candidate.session_s <= left_s
    ]

    def first(place: int) -> tuple[bool, float]:
        one = candidates[place]
        return not one.left_over, one.missing * one.session_s

    def worth(place: int) -> tuple[float, float]:
        """Return the best chance per second to need no more after further sessions."""
        one, further = candidates[place], np.array(_HORIZON)
        takes_s = further * one.session_s
        chances = _chances_to_be_done(one, further, len(candidates), limits)
        counts = (takes_s <= left_s) & (chances >= _HOPELESS)
        best = float(np.where(counts, chances / takes_s, 0.0).max())
        best *= _LEFT_OVER if one.left_over else 1.0
        return best, -one.decision.sessions * one.session_s

    if new := [place for place in affordable if candidates[place].missing]:
        return min(new, key=first)
    return max(affordable, key=worth, default=None)


def seconds_to_decide(candidate: Candidate, cases: int, limits: Limits = USUAL) -> float | None:
    """Return the further seconds in which the case would be decided in 8 of 10 runs.

    Where the sessions do not rule out that there is no change, it is decided then in that event as
    well: else a noisier case, whose estimate lies further off by chance, would need less.

    Returns:
        0 where it is decided, None where it is closed, about a thousand sessions would not do, or
        fewer than two leave its noise unknown.
    """
    decision = candidate.decision
    if decision.decided:
        return 0.0
    if candidate.missing:
        return None
    further, events = np.array(_FAR_HORIZON), [decision]
    if decision.estimate is not None and decision.interval.low <= 0 <= decision.interval.high:
        events.append(replace(decision, estimate=None, signs_behind=0.0))
    chances = [chances_to_decide(event, further, cases, limits) for event in events]
    enough = np.flatnonzero(np.maximum.accumulate(chances, axis=1).min(axis=0) >= _LIKELY)
    if candidate.closed or not len(enough):
        return None
    return float(further[enough[0]]) * candidate.session_s


def _chances_to_be_done(candidate: Candidate, further: Counts, cases: int, limits: Limits) -> Array:
    """Return, for each number of further sessions, the chance that the case needs none after them.

    What is decided stays so, and the interval narrows with the root of the number of sessions.
    """
    decision, target = candidate.decision, candidate.target
    chances = np.ones(len(further))
    if not decision.decided:
        chances = chances_to_decide(decision, further, cases, limits)
    if math.isinf(target):
        return chances
    half = decision.interval.half_width * np.sqrt(decision.sessions / (decision.sessions + further))
    return np.where(half <= target, chances, 0.0)


def chances_to_decide(
    decision: Decision, further: Counts, cases: int, limits: Limits = USUAL
) -> Array:
    """Return, for each number of further sessions, the chance that the case is decided then.

    Before a case's second session it is taken to be unchanged, with the noise of the others.
    """
    then = decision.sessions + further
    errors = decision.spread / np.sqrt(then)
    centre, moves = 0.0, errors
    if decision.estimate is not None:
        centre, moves = decision.estimate, errors * np.sqrt(further / decision.sessions)
    freedom = np.minimum(decision.freedom + further, _MOST_FREEDOM)  # they tell the noise too
    return np.asarray(sum(_chances(decision, then, centre, moves, cases, limits, freedom)))


def _chances(
    decision: Decision,
    then: Counts,
    centre: float,
    moves: Array,
    cases: int,
    limits: Limits,
    freedom: Array,
) -> tuple[Array, Array, Array]:
    """Return the chances to be unchanged, slower and faster at numbers of sessions.

    Args:
        centre: the estimate that is expected then.
        moves: how far chance moves it, as a standard deviation.
        freedom: degrees of freedom of the spread then.
    """
    from scipy.special import ndtr, stdtrit  # type: ignore[import-untyped] # SciPy ships no types

    case_rate = case_error_rate(cases)
    errors = decision.spread / np.sqrt(then)
    looks = [look_at(int(sessions), case_rate) for sessions in then]
    half = stdtrit(freedom, 1 - np.array([look.rate for look in looks])) * errors
    bound = stdtrit(freedom, 1 - UNCHANGED_RATE) * errors

    def between(low: Array, high: Array) -> Array:
        chance = np.maximum(ndtr((high - centre) / moves) - ndtr((low - centre) / moves), 0)
        return np.where(then < FEWEST_SESSIONS, 0.0, chance)

    named = np.maximum(bound, NAMED_FROM)
    still = np.minimum(np.minimum(limits.margin, limits.unchanged_within - bound), named)
    inner = np.minimum(limits.margin, limits.slower_within - bound)
    named = np.maximum(named, stdtrit(freedom, 1 - NAMED_RATE) * errors)
    bar, everything = decision.bar, np.full(len(then), math.inf)
    least = _least_convicted(decision, then, looks, errors, np.maximum(half, limits.margin))
    unchanged = between(-still, np.minimum(bar + inner, still))
    slower = between(named, bar + inner) + between(bar + least, everything)
    faster = between(-inner, np.minimum(-named, bar + inner)) + between(-everything, -least)
    return unchanged, slower, faster


def _least_convicted(
    decision: Decision, then: Counts, looks: Sequence[Look], errors: Array, least: Array
) -> Array:
    """Return the least estimate that would convict, infinite where no look comes by then."""
    from scipy.special import stdtrit

    rates = np.array([look.rate for look in looks])
    signs = np.array([look.sessions for look in looks])
    early = BEYOND_MODES + stdtrit(np.maximum(then - 1, 1), 1 - rates) * errors
    early = np.where(then < FEWEST_BEYOND_MODES, math.inf, np.maximum(early, least))
    shifts = np.array([least_shift(one.sessions, one.rate) if one.sessions else 0 for one in looks])
    least = np.maximum(least, shifts * decision.spread + decision.signs_behind)
    return np.where(signs == 0, early, np.where(signs > decision.sessions, least, math.inf))


# -- what change a case's noise lets be seen, and in how much time: from an A/A of its code --------

CHANGES = (0.03, 0.05, 0.10)
"""Slowdowns for which the time is given."""
_SURELY = 0.95
_NO_CHANCE = 0.9995
_LARGEST = 1.0
"""The largest slowdown that is looked for, as a log ratio."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
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


def sensitivities(
    sessions: Sequence[Sequence[float]], session_s: Sequence[float], budget_s: float
) -> list[Sensitivity | None]:
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
        _sensitivity(decision, wall, seconds, count, len(sessions)) if len(wall) > 1 else None
        for decision, wall, seconds in zip(decisions, sessions, session_s, strict=True)
    ]


def _sensitivity(
    decision: Decision, wall: Sequence[float], session_s: float, count: int, cases: int
) -> Sensitivity:
    # identical code: what its sessions scatter around is known to be 0
    scatter = math.sqrt(sum(value**2 for value in wall) / len(wall))
    spread = max(decision.spread, scatter)
    noise = replace(decision, spread=spread, sessions=0, bar=0.0, signs_behind=0.0)
    mean, error = float(np.mean(wall)), float(np.std(wall, ddof=1)) / math.sqrt(len(wall))
    # how far the sessions surely lie from 0: no number of them averages that out
    offset = abs(mean) if abs(mean) > t_quantile(_NO_CHANCE, len(wall) - 1) * error else 0.0
    found_from = rules_out = None
    if count >= FEWEST_SESSIONS:
        found_from = _found_from(noise, count, cases)
        surely = t_quantile(1 - UNCHANGED_RATE, noise.freedom)
        surely += t_quantile((1 + _SURELY) / 2, math.inf)
        rules_out = surely * noise.spread / math.sqrt(count)
    sessions = np.array(_FAR_HORIZON)
    seconds = []
    for change in CHANGES:
        seen = _chances_to_see(noise, math.log1p(change), sessions, cases) >= _LIKELY
        seconds.append(float(sessions[seen.argmax()]) * session_s if seen.any() else None)
    return Sensitivity(
        scatter=scatter,
        mean=sum(wall) / len(wall),
        found_from=None if found_from is None else math.expm1(found_from + offset),
        rules_out=None if rules_out is None else math.expm1(rules_out + offset),
        seconds=tuple(seconds),
    )


def _found_from(noise: Decision, count: int, cases: int) -> float | None:
    """Return the smallest log ratio that is called slower; None where not even the largest is."""
    sessions = np.arange(1, count + 1)
    low, middle, high = 0.0, _LARGEST, _LARGEST
    while high - low > 1e-4:
        seen = bool(_chances_to_see(noise, middle, sessions, cases).max() >= _SURELY)
        if not seen and middle == _LARGEST:
            return None
        low, high = (low, middle) if seen else (middle, high)
        middle = (low + high) / 2
    return high


def _chances_to_see(noise: Decision, change: float, sessions: Counts, cases: int) -> Array:
    """Return, for each number of sessions, the chance that code so much slower is called so."""
    errors = noise.spread / np.sqrt(sessions)
    freedom = np.full(len(sessions), min(noise.freedom, _MOST_FREEDOM))
    return _chances(noise, sessions, change, errors, cases, USUAL, freedom)[1]
