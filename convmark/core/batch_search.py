"""The search for batch sizes by doubling and halving: the fastest one, and the largest that fits.

Pure: what a size gives is asked of `measure`, so that a test can answer for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["FIRST", "Found", "search"]

FIRST = 32
MOST = 1 << 20
RESOLUTION = 8
"""The largest size that fits is found to an eighth of itself."""

Measure = Callable[[int], float | None]
Affordable = Callable[[int], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What came of a search."""

    throughputs: dict[int, float | None] = field(default_factory=dict)
    """Samples/s by size, in the order of asking; None where the size was out of memory."""
    limited: bool = False
    """Whether memory set the limit; else a larger size may fit, but was not worth its time."""

    @property
    def largest(self) -> int | None:
        """The largest size that fits; None where not even one sample does."""
        return max(_fitting(self.throughputs), default=None)

    @property
    def best(self) -> int | None:
        """The size of the highest throughput; the smaller of two alike."""
        fitting = _fitting(self.throughputs)
        return min(fitting, key=lambda size: (-fitting[size], size), default=None)


def search(
    measure: Measure,
    affordable: Affordable = lambda size: True,
    *,
    first: int = FIRST,
    most: int = MOST,
) -> Found:
    """Return what the sizes give, from `first` on.

    Doubles while a size fits, halves from the first on until one does; then halves the gap between
    what fits and what does not; and goes on below the smallest size while that is the fastest.

    Args:
        measure: throughput of a size, samples/s; None where it is out of memory.
        affordable: whether a size larger than all so far is worth its time.
        most: the largest size that is tried at all.
    """
    asked = _Search(measure)
    fits = asked.fits(first)
    refused = asked.double(first, affordable, most) if fits else asked.halve(first)
    if refused is not None:
        asked.close_in(refused)
    asked.go_below()
    return Found(throughputs=asked.throughputs, limited=refused is not None)


class _Search:
    """What has been asked so far; each size once."""

    def __init__(self, measure: Measure) -> None:
        self._measure = measure
        self.throughputs: dict[int, float | None] = {}

    @property
    def found(self) -> Found:
        return Found(throughputs=self.throughputs)

    def fits(self, size: int) -> bool:
        if size not in self.throughputs:
            self.throughputs[size] = self._measure(size)
        return self.throughputs[size] is not None

    def double(self, size: int, affordable: Affordable, most: int) -> int | None:
        """Double while it fits; return the size that does not, None where none was met."""
        while (size := 2 * size) <= most and affordable(size):
            if not self.fits(size):
                return size
        return None

    def halve(self, size: int) -> int:
        """Halve until it fits; return the smallest size that does not."""
        while size > 1 and not self.fits(size // 2):
            size //= 2
        return size

    def close_in(self, refused: int) -> None:
        """Halve the gap between the largest size that fits and the smallest that does not."""
        while (largest := self.found.largest) is not None:
            if refused - largest <= max(1, largest // RESOLUTION):
                return
            middle = (largest + refused) // 2
            if not self.fits(middle):
                refused = middle

    def go_below(self) -> None:
        """Try smaller sizes while the smallest that fits is the fastest."""
        while (best := self.found.best) is not None and best > 1:
            if best != min(_fitting(self.throughputs)) or not self.fits(best // 2):
                return


def _fitting(throughputs: dict[int, float | None]) -> dict[int, float]:
    return {size: rate for size, rate in throughputs.items() if rate is not None}
