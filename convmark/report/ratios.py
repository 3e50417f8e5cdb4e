"""Ratios of plain step times with intervals: numbers in, numbers out; the process is the unit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from convmark.compare.rule.statistics import t_quantile

__all__ = ["LEAST_PROCESSES", "Ratio", "geometric_mean", "ratio"]

LEAST_PROCESSES = 3
"""Of fewer on either side no interval is given: two tell a spread by luck."""

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A ratio and its interval, dimensionless; the ends are None where they are not known."""

    value: float
    low: float | None = None
    high: float | None = None
    log_variance: float | None = None
    """Of the logarithm of the ratio."""
    freedom: float | None = None


def ratio(over_s: Sequence[float], under_s: Sequence[float]) -> Ratio | None:
    """Return the ratio of the geometric means of two machines' step times.

    Args:
        over_s, under_s: the median step time of each process, seconds.

    Returns:
        None where a side has no time above 0.

    Source:
        Welch (1947) on the logarithms: each side has a variance of its own.
    """
    over, under = _logs(over_s), _logs(under_s)
    if not len(over) or not len(under):
        return None
    difference = float(over.mean() - under.mean())
    if min(len(over), len(under)) < LEAST_PROCESSES:
        return Ratio(value=math.exp(difference))
    parts = [float(side.var(ddof=1)) / len(side) for side in (over, under)]
    weights = [len(over) - 1, len(under) - 1]
    return _with_interval(difference, parts, [float(weight) for weight in weights])


def geometric_mean(ratios: Sequence[Ratio]) -> Ratio | None:
    """Return the geometric mean of the ratios of several cases; None of none.

    The interval is of these cases: it comes from the processes, and not from how the cases differ.
    It is given where every ratio has one.
    """
    if not ratios:
        return None
    difference = sum(math.log(one.value) for one in ratios) / len(ratios)
    variances = [one.log_variance for one in ratios if one.log_variance is not None]
    freedoms = [one.freedom for one in ratios if one.freedom is not None]
    if len(variances) < len(ratios) or len(freedoms) < len(ratios):
        return Ratio(value=math.exp(difference))
    return _with_interval(difference, [v / len(ratios) ** 2 for v in variances], freedoms)


def _logs(times_s: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.log(np.array([time for time in times_s if time > 0], np.float64))


def _with_interval(difference: float, parts: Sequence[float], freedoms: Sequence[float]) -> Ratio:
    """Return the ratio with its interval.

    Args:
        parts: variances whose sum is that of the difference, each with its degrees of freedom.

    Source:
        Satterthwaite (1946) for the degrees of freedom of the sum.
    """
    variance = sum(parts)
    squares = sum(part**2 / freedom for part, freedom in zip(parts, freedoms, strict=True))
    freedom = variance**2 / squares if squares else min(freedoms)
    half = t_quantile((1 + CONFIDENCE) / 2, freedom) * math.sqrt(variance)
    return Ratio(
        value=math.exp(difference),
        low=math.exp(difference - half),
        high=math.exp(difference + half),
        log_variance=variance,
        freedom=freedom,
    )
