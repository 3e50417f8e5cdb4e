"""The rules in common use that call a benchmark slower, to be compared with this project's own.

Each takes the step times before and now, seconds, those of all processes pooled, as the tools do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from scipy.stats import mannwhitneyu, ttest_ind

__all__ = ["COMMON_RULES", "Rule"]

Times = npt.NDArray[np.float64]
Rule = Callable[[Times, Times], bool]
"""Takes the step times before and now; says whether it calls the second slower."""

THRESHOLD = 1.05
SIGNIFICANCE = 0.05
ASV_SIGNIFICANCE = 0.002
ASV_FACTOR = 1.1


def mean_slower(before_s: Times, now_s: Times) -> bool:
    """pytest-benchmark's `--benchmark-compare-fail=mean:5%`."""
    return bool(now_s.mean() > THRESHOLD * before_s.mean())


def median_slower(before_s: Times, now_s: Times) -> bool:
    """pytest-benchmark's `--benchmark-compare-fail=median:5%`."""
    return bool(np.median(now_s) > THRESHOLD * np.median(before_s))


def min_slower(before_s: Times, now_s: Times) -> bool:
    """pytest-benchmark's `--benchmark-compare-fail=min:5%`."""
    return bool(now_s.min() > THRESHOLD * before_s.min())


def mann_whitney_slower(before_s: Times, now_s: Times) -> bool:
    """Two-sided Mann-Whitney on pooled step times, p < 0.05, and the median is higher."""
    p_value = mannwhitneyu(before_s, now_s, method="asymptotic").pvalue
    return bool(p_value < SIGNIFICANCE and np.median(now_s) > np.median(before_s))


def welch_slower(before_s: Times, now_s: Times) -> bool:
    """Two-sided Welch t test on pooled step times, p < 0.05, and the mean is higher."""
    p_value = ttest_ind(before_s, now_s, equal_var=False).pvalue
    return bool(p_value < SIGNIFICANCE and now_s.mean() > before_s.mean())


def asv_slower(before_s: Times, now_s: Times) -> bool:
    """`asv continuous`: Mann-Whitney p < 0.002, and the median is over 1.1 times as high.

    Source:
        airspeed velocity: `is_different` of statistics.py, `_is_result_better` of
        commands/compare.py; `--factor` is 1.1 unless told otherwise.
    """
    p_value = mannwhitneyu(before_s, now_s, method="asymptotic").pvalue
    higher = np.median(now_s) > ASV_FACTOR * np.median(before_s)
    return bool(p_value < ASV_SIGNIFICANCE and higher)


COMMON_RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "mean > 5 %": mean_slower,
        "median > 5 %": median_slower,
        "min > 5 %": min_slower,
        "Mann-Whitney p < 0.05": mann_whitney_slower,
        "Welch t p < 0.05": welch_slower,
        "asv": asv_slower,
    }
)
