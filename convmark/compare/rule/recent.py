"""The level that a slowdown counts from: the anchor's, or a faster one that the code has since had.

Two things keep a slow creep from passing, 1 % a commit. The anchor stays where it is until somebody
accepts a change, so the steps add up against it. And what has become faster meanwhile, accepted or
not, must not be lost again unseen: the code is held against its recent level too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from convmark.core.errors import MeasurementError

__all__ = ["Level", "bar"]

_RECENT = 3
"""Earlier runs that make the recent level."""

_SURELY = 2.17
"""Standard errors of a one-sided 98.5 %."""

_LEAST_ERROR = 0.004
"""Two runs of the same two codes may differ so much: the means of their duets do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What an earlier run found of a case: ln(its code / today's anchor), by wall time."""

    log_ratio: float
    error: float
    """Standard error of the log ratio."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.log_ratio) and math.isfinite(self.error) and self.error >= 0):
            raise MeasurementError(
                "a level must have a finite log ratio and an error of at least 0, "
                f"got {self.log_ratio} and {self.error}"
            )


def bar(earlier: Sequence[Level]) -> float:
    """Return the log ratio to the anchor that a slowdown counts from, at most 0.

    The upper bound of 98.5 % of the last three runs' common level, or 0 where that is above it.

    Args:
        earlier: the runs of earlier commits of this branch against the same anchor, oldest first.
    """
    recent = earlier[-_RECENT:]
    if not recent:
        return 0.0
    weights = [1 / (level.error**2 + _LEAST_ERROR**2) for level in recent]
    total = sum(weights)
    mean = sum(w * level.log_ratio for w, level in zip(weights, recent, strict=True)) / total
    return min(0.0, mean + _SURELY / math.sqrt(total))
