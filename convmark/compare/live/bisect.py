"""Bisection over an ordered list of candidates, where single steps may be inconclusive.

Each step compares two candidates and may be inconclusive, or impossible where a candidate cannot be
measured. What cannot be told narrows nothing; the answer is then the range that is left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from convmark.core.interval import Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a step found: ln(later / earlier) of the step time, and its interval."""

    estimate: float
    interval: Interval
    void: bool = False
    """Whether it is not to be believed: its control alarmed."""

    def exceeds(self, threshold: float, *, slower: bool) -> bool | None:
        """Whether it is larger than the threshold in a direction; None where that is not sure."""
        interval = self.interval if slower else -self.interval
        if self.void:
            return None
        if interval.low > 0 and (self.estimate if slower else -self.estimate) > threshold:
            return True
        return False if interval.high <= threshold else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bisection:
    """The answer."""

    verdict: str
    """`found`, `no change` or `inconclusive`."""
    last_good: str
    first_bad: str
    """The change came in after `last_good`, and by `first_bad` at the latest."""
    between: tuple[str, ...]
    """Candidates in between of which nothing could be told; empty where the answer is exact."""
    change: Change | None
    """From `last_good` to `first_bad`; None where they were not compared."""
    whole: Change | None
    """From the first candidate to the last one."""


Compare = Callable[[str, str], Change | None]
"""Compares two candidates, the earlier one first; None where one of them cannot be measured."""


def bisect(candidates: Sequence[str], compare: Compare, threshold: float) -> Bisection:
    """Find the first candidate by which a change larger than the threshold came in.

    Args:
        candidates: from good to bad, at least two.
        threshold: as a log ratio, above 0.

    A candidate belongs to the bad side where it differs from the first by more than the threshold,
    in the direction of the whole change and surely (the interval is clear of 0); to the good side
    where the interval rules such a change out. Where neither is so, the last candidate is asked in
    the same way. In the end the two neighbours are compared with each other.
    """
    last = len(candidates) - 1
    whole = compare(candidates[0], candidates[last])

    def answer(verdict: str, low: int, high: int, change: Change | None) -> Bisection:
        """Return the result once the candidates from `low` to `high` are left."""
        return Bisection(
            verdict=verdict,
            last_good=candidates[low],
            first_bad=candidates[high],
            between=tuple(candidates[low + 1 : high]),
            change=change,
            whole=whole,
        )

    if whole is None or whole.void:
        return answer("inconclusive", 0, last, None)
    if abs(whole.estimate) <= threshold:
        surely = max(-whole.interval.low, whole.interval.high) <= threshold
        return answer("no change" if surely else "inconclusive", 0, last, whole)
    if 0 in whole.interval:
        return answer("inconclusive", 0, last, None)
    slower = whole.estimate > 0
    low, high = 0, last
    unknown: set[int] = set()
    while inside := [place for place in range(low + 1, high) if place not in unknown]:
        middle = min(inside, key=lambda place: abs(2 * place - low - high))
        is_bad = _is_bad(candidates, middle, compare, threshold, slower=slower)
        if is_bad is None:
            unknown.add(middle)
        elif is_bad:
            high = middle
        else:
            low = middle
    change = whole if (low, high) == (0, last) else compare(candidates[low], candidates[high])
    exact = high - low == 1 and change is not None and change.exceeds(threshold, slower=slower)
    return answer("found" if exact else "inconclusive", low, high, change)


def _is_bad(
    candidates: Sequence[str], place: int, compare: Compare, threshold: float, *, slower: bool
) -> bool | None:
    """Return whether a candidate is on the bad side; None where it cannot be told."""
    from_good = compare(candidates[0], candidates[place])
    if from_good is None:
        return None
    found = from_good.exceeds(threshold, slower=slower)
    if found is not None:
        return found
    to_bad = compare(candidates[place], candidates[-1])
    good = to_bad.exceeds(threshold, slower=slower) if to_bad is not None else None
    return None if good is None else not good
