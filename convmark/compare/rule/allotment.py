"""Which case gets the next session, when to stop, and how long the undecided ones still need.

What sessions would tell is predicted from those so far: the estimate moves by chance alone, and
its error shrinks with the square root of their number.
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
    Decision,
    Limits,
)
from convmark.compare.rule.signs import least_shift
from convmark.compare.rule.spending import (
    FEWEST_BEYOND_MODES,
    NAMED_RATE,
    UNCHANGED_RATE,
    Look,
    case_error_rate,
    look_at,
)
from convmark.core.errors import MeasurementError

__all__ = [
    "SURE",
    "Candidate",
    "chances_to_decide",
    "chances_to_see",
    "next_session",
    "seconds_to_decide",
    "sessions_to_see",
]

Array = npt.NDArray[np.float64]

SURE = 0.8
"""A time is named in which a case would be decided as often as this."""

_LEFT_OVER = 4.0
"""A case that the last run left undecided counts as much as so many others."""

_HORIZON = tuple(range(1, 61))
"""Further sessions of one case that are thought of when the next one is chosen."""

_FAR_HORIZON = (*_HORIZON, *range(65, 200, 5), *range(200, 1000, 25))


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A case that may get the next session."""

    decision: Decision
    session_s: float
    """Seconds that one session takes, with the start of its process and both builds."""
    left_over: bool = False
    """The last run left it undecided."""
    target: float = math.inf
    """Half-width of the interval, as a log ratio, that is wanted beside the verdict."""
    closed: bool = False
    """It gets no further session: its code cannot be built, or its sessions failed too often."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.session_s) and self.session_s > 0):
            raise MeasurementError(f"a session must take more than 0 s, got {self.session_s}")

    @property
    def open(self) -> bool:
        done = self.decision.decided and self.decision.half_width <= self.target
        return not (self.closed or done)

    @property
    def missing(self) -> int:
        """How many sessions it lacks of the fewest that decide."""
        return max(0, FEWEST_SESSIONS - self.decision.sessions)

    @property
    def first_turn(self) -> tuple[bool, float]:
        """The order in which cases get their first sessions: left over first, then cheap ones."""
        return not self.left_over, self.missing * self.session_s


def next_session(
    candidates: Sequence[Candidate], left_s: float, limits: Limits | None = None
) -> int | None:
    """Return the place of the case whose next sessions decide most per second.

    First each case gets the three without which nothing is known of its noise, those that were
    left over before the others, then the cheaper ones. After that it is the chance to be decided
    by one or more further sessions over their seconds, at the best number of them. Sessions that
    would end after the budget do not count.

    Args:
        candidates: all cases that the run compares.
        left_s: what is left of the budget, seconds; infinite without one.

    Returns:
        None where every case is decided or closed, or no session fits what is left.
    """
    open_ones = [
        place
        for place, candidate in enumerate(candidates)
        if candidate.open and candidate.session_s <= left_s
    ]
    new = [place for place in open_ones if candidates[place].missing]
    if new:
        return min(new, key=lambda place: candidates[place].first_turn)
    return max(
        open_ones,
        key=lambda place: _worth(candidates[place], left_s, len(candidates), limits),
        default=None,
    )


def _worth(candidate: Candidate, left_s: float, cases: int, limits: Limits | None) -> float:
    """Return the best chance per second to be decided by further sessions."""
    further = np.array(_HORIZON)
    chances = _chances_to_be_done(candidate, further, cases, limits)
    takes_s = further * candidate.session_s
    worth = float(np.where(takes_s <= left_s, chances / takes_s, 0.0).max())
    return worth * _LEFT_OVER if candidate.left_over else worth


def seconds_to_decide(
    candidate: Candidate, cases: int, limits: Limits | None = None
) -> float | None:
    """Return the further seconds in which the case would be decided in 8 of 10 runs.

    Args:
        cases: how many cases the run compares.

    Returns:
        0 where it is decided, None where it is closed or about a thousand sessions would not do.
    """
    if candidate.decision.decided:
        return 0.0
    further = np.array(_FAR_HORIZON)
    chances = chances_to_decide(candidate.decision, further, cases, limits)
    enough = np.flatnonzero(np.maximum.accumulate(chances) >= SURE)
    if candidate.closed or not len(enough):
        return None
    return float(further[enough[0]]) * candidate.session_s


def _chances_to_be_done(
    candidate: Candidate,
    further: npt.NDArray[np.int64],
    cases: int,
    limits: Limits | None,
) -> Array:
    """Return, for each number of further sessions, the chance that the case needs none after them.

    What is decided stays so, and the interval narrows with the root of the number of sessions.
    """
    decision, target = candidate.decision, candidate.target
    chances = np.ones(len(further))
    if not decision.decided:
        chances = chances_to_decide(decision, further, cases, limits)
    if math.isinf(target):
        return chances
    half = decision.half_width * np.sqrt(decision.sessions / (decision.sessions + further))
    return np.where(half <= target, chances, 0.0)


def chances_to_decide(
    decision: Decision,
    further: npt.NDArray[np.int64],
    cases: int,
    limits: Limits | None = None,
) -> Array:
    """Return, for each number of further sessions, the chance that the case is decided then.

    Before a case's second session it is taken to be unchanged, with the noise of the others.

    Args:
        cases: how many cases the run compares.
    """
    then = decision.sessions + further
    errors = decision.spread / np.sqrt(then)
    centre, moves = 0.0, errors
    if decision.estimate is not None:
        centre, moves = decision.estimate, errors * np.sqrt(further / decision.sessions)
    return np.asarray(sum(_chances(decision, then, centre, moves, cases, limits)))


def chances_to_see(
    decision: Decision, change: float, sessions: npt.NDArray[np.int64], cases: int
) -> Array:
    """Return, for each number of sessions, the chance that code so much slower is called so.

    Args:
        decision: of a case, for its noise alone.
        change: ln(new / old).
        cases: how many cases the run compares.
    """
    begun = replace(decision, sessions=0, bar=0.0)
    errors = decision.spread / np.sqrt(sessions)
    return _chances(begun, sessions, change, errors, cases, None)[1]


def sessions_to_see(decision: Decision, change: float, cases: int) -> int | None:
    """Return in how many sessions such a change is seen in 8 of 10 runs; None where none do."""
    sessions = np.array(_FAR_HORIZON)
    seen = np.maximum.accumulate(chances_to_see(decision, change, sessions, cases)) >= SURE
    return int(sessions[seen.argmax()]) if seen.any() else None


def _chances(
    decision: Decision,
    then: npt.NDArray[np.int64],
    centre: float,
    moves: Array,
    cases: int,
    limits: Limits | None,
) -> tuple[Array, Array, Array]:
    """Return the chances to be unchanged, slower and faster at numbers of sessions.

    Args:
        centre: the estimate that is expected then.
        moves: how far chance moves it, as a standard deviation.
    """
    from scipy.special import ndtr, stdtrit  # type: ignore[import-untyped] # SciPy ships no types

    limits = limits or Limits()
    case_rate = case_error_rate(cases)
    errors = decision.spread / np.sqrt(then)
    looks = [look_at(int(sessions), case_rate) for sessions in then]
    half = stdtrit(decision.freedom, 1 - np.array([look.rate for look in looks])) * errors
    bound = stdtrit(decision.freedom, 1 - UNCHANGED_RATE) * errors

    def between(low: Array, high: Array) -> Array:
        chance = np.maximum(ndtr((high - centre) / moves) - ndtr((low - centre) / moves), 0)
        return np.where(then < FEWEST_SESSIONS, 0.0, chance)

    named = np.maximum(bound, NAMED_FROM)
    still = np.minimum(np.minimum(limits.margin, limits.unchanged_within - bound), named)
    inner = np.minimum(limits.margin, limits.slower_within - bound)
    named = np.maximum(named, stdtrit(decision.freedom, 1 - NAMED_RATE) * errors)
    bar, everything = decision.bar, np.full(len(then), math.inf)
    least = _least_convicted(decision, then, looks, errors, np.maximum(half, limits.margin))
    unchanged = between(-still, np.minimum(bar + inner, still))
    slower = between(named, bar + inner) + between(bar + least, everything)
    faster = between(-inner, np.minimum(-named, bar + inner)) + between(-everything, -least)
    return unchanged, slower, faster


def _least_convicted(
    decision: Decision,
    then: npt.NDArray[np.int64],
    looks: Sequence[Look],
    errors: Array,
    least: Array,
) -> Array:
    """Return the least estimate that would convict, infinite where no look comes by then."""
    from scipy.special import stdtrit

    rates = np.array([look.rate for look in looks])
    signs = np.array([look.sessions for look in looks])
    early = BEYOND_MODES + stdtrit(np.maximum(then - 1, 1), 1 - rates) * errors
    early = np.where(then < FEWEST_BEYOND_MODES, math.inf, np.maximum(early, least))
    shifts = np.array([least_shift(one.sessions, one.rate) if one.sessions else 0 for one in looks])
    least = np.maximum(least, shifts * decision.spread)
    return np.where(signs == 0, early, np.where(signs > decision.sessions, least, math.inf))
