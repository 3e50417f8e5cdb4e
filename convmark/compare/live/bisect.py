"""Which of an ordered row of candidates brought a change in: bisection whose steps may not know.

Each step compares two candidates and may be inconclusive, or impossible where a candidate cannot be
measured. What cannot be told narrows nothing; the answer is then the range that is left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Change", "Found", "bisect"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a step found: ln(later / earlier) of the step time, and its interval."""

    estimate: float
    low: float
    high: float
    void: bool = False
    """Whether it is not to be believed: its control alarmed."""

    def turned(self) -> Change:
        """Return the same change seen from the other direction."""
        return Change(estimate=-self.estimate, low=-self.high, high=-self.low, void=self.void)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found(Generic[T]):
    """The answer."""

    verdict: str
    """`found`, `no change` or `inconclusive`."""
    last_good: T
    first_bad: T
    """The change came in after `last_good`, and by `first_bad` at the latest."""
    between: tuple[T, ...]
    """Candidates in between of which nothing could be told; empty where the answer is exact."""
    change: Change | None
    """From `last_good` to `first_bad`; None where they were not compared."""
    whole: Change | None
    """From the first candidate to the last one."""


Compare = Callable[[T, T], Change | None]
"""Compares two candidates, the earlier one first; None where one of them cannot be measured."""


def bisect(candidates: Sequence[T], compare: Compare[T], threshold: float) -> Found[T]:
    """Find the first candidate by which a change larger than the threshold came in.

    Args:
        candidates: from good to bad, at least two.
        threshold: as a log ratio, above 0.

    A candidate belongs to the bad side where it differs from the first by more than the threshold,
    in the direction of the whole change and surely (the interval is clear of 0); to the good side
    where the interval rules such a change out. Where neither is so, the last candidate is asked in
    the same way. In the end the two neighbours are compared with each other.
    """
    good, bad = candidates[0], candidates[-1]
    whole = compare(good, bad)
    if whole is None or whole.void or (abs(whole.estimate) > threshold and _covers_0(whole)):
        return _answer("inconclusive", candidates, 0, len(candidates) - 1, None, whole)
    if abs(whole.estimate) <= threshold:
        surely = max(abs(whole.low), abs(whole.high)) <= threshold
        verdict = "no change" if surely else "inconclusive"
        return _answer(verdict, candidates, 0, len(candidates) - 1, whole, whole)
    slower = whole.estimate > 0
    low, high = 0, len(candidates) - 1
    unknown: set[int] = set()
    while (middle := _middle(low, high, unknown)) is not None:
        is_bad = _side(candidates, middle, compare, threshold, slower)
        if is_bad is None:
            unknown.add(middle)
        elif is_bad:
            high = middle
        else:
            low = middle
    if (low, high) == (0, len(candidates) - 1):
        change: Change | None = whole
    else:
        change = compare(candidates[low], candidates[high])
    exact = high - low == 1 and change is not None and _is_changed(change, threshold, slower)
    return _answer("found" if exact else "inconclusive", candidates, low, high, change, whole)


def _middle(low: int, high: int, unknown: set[int]) -> int | None:
    """Return the candidate nearest to the middle that is not known to tell nothing."""
    inside = [place for place in range(low + 1, high) if place not in unknown]
    return min(inside, key=lambda place: abs(2 * place - low - high), default=None)


def _side(
    candidates: Sequence[T], place: int, compare: Compare[T], threshold: float, slower: bool
) -> bool | None:
    """Return whether a candidate is on the bad side; None where it cannot be told."""
    from_good = compare(candidates[0], candidates[place])
    if from_good is None:
        return None
    if _is_changed(from_good, threshold, slower):
        return True
    if _is_unchanged(from_good, threshold, slower):
        return False
    to_bad = compare(candidates[place], candidates[-1])
    if to_bad is None:
        return None
    if _is_changed(to_bad, threshold, slower):
        return False
    return True if _is_unchanged(to_bad, threshold, slower) else None


def _is_changed(change: Change, threshold: float, slower: bool) -> bool:
    seen = change if slower else change.turned()
    return not change.void and seen.low > 0 and seen.estimate > threshold


def _is_unchanged(change: Change, threshold: float, slower: bool) -> bool:
    seen = change if slower else change.turned()
    return not change.void and seen.high <= threshold


def _covers_0(change: Change) -> bool:
    return change.low <= 0 <= change.high


def _answer(
    verdict: str,
    candidates: Sequence[T],
    low: int,
    high: int,
    change: Change | None,
    whole: Change | None,
) -> Found[T]:
    return Found(
        verdict=verdict,
        last_good=candidates[low],
        first_bad=candidates[high],
        between=tuple(candidates[low + 1 : high]),
        change=change,
        whole=whole,
    )
