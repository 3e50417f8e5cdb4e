"""Quantiles, trimmed means and their errors: numbers in, numbers out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Any, TypeGuard, TypeVar

import numpy as np
import numpy.typing as npt

from convmark.core.errors import MeasurementError
from convmark.core.interval import NOT_KNOWN, Interval

CONFIDENCE = 0.95
"""Of every interval that is shown."""

TRIM = 0.2
"""Share cut from each end of a trimmed mean."""

QUANTILE_STEPS = {"p95": 100, "p99": 1000}
"""The fewest steps from which a high percentile is given at all."""

Key = TypeVar("Key")
Known = TypeVar("Known")
Values = Sequence[float] | npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value and its standard error, in the same unit."""

    value: float
    error: float | None
    """None where too few values remain to know it."""


def is_known(value: Known | None) -> TypeGuard[Known]:
    """Whether a cell has a value: neither None nor NaN."""
    return value is not None and value == value


def median_of(values: Iterable[float | None]) -> float | None:
    """Return the median of the values that are known, a float; None where none is."""
    known = [value for value in values if is_known(value)]
    return float(median(known)) if known else None


def middle_of(values: Iterable[Any]) -> Any:
    """Return the median of numbers as a float, of texts the first; None where none is known."""
    known = [value for value in values if is_known(value)]
    return known[0] if known and isinstance(known[0], str) else median_of(known)


def grouped(pairs: Iterable[tuple[Key, Known]]) -> dict[Key, list[Known]]:
    """Return the values of each key, keys and values in the order of the pairs."""
    found: dict[Key, list[Known]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found


def quantile(values: Values, share: float) -> float:
    """Return the quantile by linear interpolation, in the values' unit.

    Raises:
        MeasurementError: no values.

    Source:
        Hyndman and Fan (1996), type 7: what NumPy, pandas and R use unless told otherwise.
    """
    if len(values) == 0:
        raise MeasurementError(f"a quantile needs at least one value, got none (share {share})")
    return float(np.quantile(np.asarray(values, np.float64), share))


def t_quantile(probability: float, freedom: float) -> float:
    """Return Student's t quantile, dimensionless; a normal's for infinite degrees of freedom.

    SciPy is imported here: a run without verdicts does not pay for it.
    """
    from scipy.special import stdtrit  # type: ignore[import-untyped] # SciPy ships no types

    return float(stdtrit(min(freedom, 1e6), probability))


def t_probability(value: float, freedom: float) -> float:
    """Return the probability that Student's t is at most a value."""
    from scipy.special import stdtr

    return float(stdtr(min(freedom, 1e6), value))


def interval_around(estimate: float, error: float, freedom: float) -> Interval:
    """Return the 95 % interval of an estimate by Student's t, in its unit.

    Args:
        error: the estimate's standard error.
        freedom: degrees of freedom of the error.
    """
    return Interval.around(estimate, t_quantile((1 + CONFIDENCE) / 2, freedom) * error)


def interval_of_mean(values: Sequence[float]) -> Interval:
    """Return the 95 % interval of a mean by Student's t; not known of fewer than two values."""
    if len(values) < 2:
        return NOT_KNOWN
    error = stdev(values) / len(values) ** 0.5
    return interval_around(fmean(values), error, len(values) - 1)


def spread(values: Sequence[float]) -> float | None:
    """Return half the range over the median, dimensionless; None below two values."""
    if len(values) < 2:
        return None
    return (max(values) - min(values)) / 2 / quantile(values, 0.5)


def trimmed_mean(values: Values, trim: float = TRIM) -> Estimate:
    """Return the mean without the lowest and highest `trim` share, and its standard error.

    Raises:
        MeasurementError: no values.

    Source:
        Yuen (1974): the winsorised standard deviation over (1 - 2 trim) sqrt(n).
    """
    count = len(values)
    if count == 0:
        raise MeasurementError("a trimmed mean needs at least one value, got none")
    ordered = np.sort(np.asarray(values, np.float64))
    cut = int(trim * count)
    value = float(ordered[cut : count - cut].mean())
    if count - 2 * cut < 2:
        return Estimate(value=value, error=None)
    winsorised = ordered.copy()
    winsorised[:cut] = ordered[cut]
    winsorised[count - cut :] = ordered[count - cut - 1]
    spread = float(winsorised.std(ddof=1))
    return Estimate(value=value, error=spread / ((1 - 2 * trim) * count**0.5))


def paired_log_ratio(case_s: Values, reference_s: Values) -> Estimate | None:
    """Return the trimmed mean of ln(case / reference) over rounds, dimensionless.

    Args:
        case_s, reference_s: seconds of the case's and the reference's step, one each per round.

    Returns:
        None where a clock too coarse for the steps has given a time of zero.

    Raises:
        MeasurementError: the two differ in length, or are empty.
    """
    case = np.asarray(case_s, np.float64)
    reference = np.asarray(reference_s, np.float64)
    if case.shape != reference.shape or case.size == 0:
        raise MeasurementError(
            f"rounds must pair each case step with a reference step, got {case.size} and "
            f"{reference.size}"
        )
    if (case <= 0).any() or (reference <= 0).any():
        return None
    return trimmed_mean(np.log(case) - np.log(reference))


def step_time_summary(times_s: Values) -> dict[str, float | None]:
    """Return min, max, mean, std, p10 ... p99 of step times, seconds, by those names.

    p95 is None below 100 steps and p99 below 1,000; std is None below two.

    Raises:
        MeasurementError: no values.
    """
    times = np.asarray(times_s, np.float64)
    shares = {"p10": 0.10, "p25": 0.25, "p50": 0.50, "p75": 0.75, "p90": 0.90}
    summary: dict[str, float | None] = {
        name: quantile(times, share) for name, share in shares.items()
    }
    for name, share in (("p95", 0.95), ("p99", 0.99)):
        enough = times.size >= QUANTILE_STEPS[name]
        summary[name] = quantile(times, share) if enough else None
    summary["min"] = float(np.min(times))
    summary["max"] = float(np.max(times))
    summary["mean"] = float(np.mean(times))
    summary["std"] = float(np.std(times, ddof=1)) if times.size > 1 else None
    return summary
