"""The signed-rank test: how often chance alone makes so many sessions point one way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

__all__ = ["chance_of_slower", "least_shift"]

_EXACT_UP_TO = 100
"""Sessions from which the normal approximation does."""


def chance_of_slower(log_ratios: Sequence[float] | npt.NDArray[np.float64]) -> float:
    """Return the chance that sessions of identical code are as surely above 0 as these.

    The order in which the two codes are built is drawn for each session, so on identical code
    each log ratio has either sign with equal chance, whatever its size: modes, outliers, drift
    and load change the sizes alone. Of n sessions that are all above 0 it is 2^-n. A zero counts
    as below, and of equal sizes the one below counts as the larger.

    Source:
        Wilcoxon (1945), one-sided, exact up to 100 sessions.
    """
    values = np.asarray(log_ratios, np.float64)
    count = len(values)
    below = values <= 0
    order = np.lexsort((below, np.abs(values)))
    against = int((np.flatnonzero(below[order]) + 1).sum())
    if count <= _EXACT_UP_TO:
        return float(_chances(count)[against])
    mean = count * (count + 1) / 4
    spread = math.sqrt(mean * (2 * count + 1) / 6)
    return math.erfc((mean - against - 0.5) / spread / math.sqrt(2)) / 2


@lru_cache(maxsize=1024)
def least_shift(count: int, rate: float) -> float:
    """Return how far above 0, in their standard deviations, normal sessions lie that just convict.

    The sum of the ranks of those below 0 is then, on average, the largest of which chance alone
    makes no more than the rate.

    Args:
        count: of sessions, at most a hundred; more are taken for a hundred.
    """
    from scipy.special import ndtr  # type: ignore[import-untyped] # it ships no types

    count = min(count, _EXACT_UP_TO)
    against = int(np.searchsorted(_chances(count), rate, side="right")) - 1
    low, high = 0.0, 10.0
    while high - low > 1e-3:
        shift = (low + high) / 2
        pairs = count * (count - 1) / 2 * ndtr(-math.sqrt(2) * shift)
        low, high = (shift, high) if pairs + count * ndtr(-shift) > against + 0.5 else (low, shift)
    return high


@lru_cache(maxsize=128)
def _chances(count: int) -> npt.NDArray[np.float64]:
    """Return the chance that the ranks of the negative ones sum to at most 0, 1, 2, ..."""
    chances = np.ones(1)
    for rank in range(1, count + 1):
        longer = np.zeros(len(chances) + rank)
        longer[: len(chances)] += chances / 2
        longer[rank:] += chances / 2
        chances = longer
    return np.minimum(np.cumsum(chances), 1.0)
