"""The screen: a run's processes against accepted history. It picks what a live comparison judges.

History alone convicts nobody but where nothing can be run beside (`unconfirmed`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from convmark.errors import MeasurementError
from convmark.judging.confirm import (
    DETECTION,
    ERROR_RATE,
    UNCHANGED_WITHIN,
    Decision,
    Verdict,
    t_quantile,
)

__all__ = [
    "ALIKE_LOAD",
    "BASELINE_RUNS",
    "CONVICTED_BEYOND",
    "EXTRA_PROCESSES",
    "FLAGGED_BEYOND",
    "Process",
    "Run",
    "Screening",
    "Spread",
    "baseline_runs",
    "loads_alike",
    "pooled_spread",
    "screen",
    "unconfirmed",
]

BASELINE_RUNS = 10
"""The most runs that a baseline is the mean of."""

FLAGGED_BEYOND = 1.5
"""Standard errors beyond which a case goes to the live comparison."""

CONVICTED_BEYOND = math.log(1.10)
"""History alone may convict beyond this change, and no nearer."""

EXTRA_PROCESSES = 2
"""Fresh processes that a flagged case gets before history alone may convict it."""

ALIKE_LOAD = 0.1
"""Loads are alike where they differ by no more than this share of the CPUs' time.

From a quiet machine to one with three rivals per CPU, which take three quarters of its time, the
paired log ratio of identical code moved by up to 21 %: 0.1 leaves 3 %, and `UNCHANGED_WITHIN` is 5.
"""

_CONFIDENCE = 0.975
"""Two-sided 95 %: what `unchanged` needs."""

_LEAST_BETWEEN_PROCESSES = 0.01
_EARLY_BETWEEN_PROCESSES = 0.025
_EARLY_BETWEEN_RUNS = 0.017
"""Assumed at least, until `_ENOUGH_FREEDOM`: the largest seen on a quiet machine."""

_ENOUGH_FREEDOM = 20
_ENOUGH_CASES = 4
"""From here on the typical case's spread is told by the median."""
_OWN_FREEDOM = 4
"""From here on a case's own spread counts where it exceeds the pool's."""

_HISTORY_SHARE = 0.5
"""Share of the error rate that history alone may spend: its noise is known less well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process of a case: the trimmed mean of ln(case / reference), and Yuen's error."""

    log_ratio: float
    error: float
    load: float | None
    """Share of the CPUs' time that others took; None where the system does not tell."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.log_ratio) and math.isfinite(self.error) and self.error >= 0):
            raise MeasurementError(
                "a process must have a finite log ratio and an error of at least 0, "
                f"got {self.log_ratio} and {self.error}"
            )


Run = Sequence[Process]
"""The processes of one case in one run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Standard deviations of log ratios on identical code, and what they rest on."""

    between_processes: float
    """Beyond what the processes' own errors explain."""
    process_freedom: int
    between_runs: float
    """Beyond what the spread between processes explains."""
    run_freedom: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Screening:
    """A case against its history: changes are ln(now / before), so above 0 is slower."""

    estimate: float
    error: float
    freedom: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    own_error: float | None
    """The error by the scatter of the case's own runs; None below two of them."""
    runs: int
    """Runs of the baseline."""
    loads_alike: bool
    smallest_visible: float
    """The change, as a log ratio, that would be flagged 97.5 times in 100."""

    @property
    def flagged(self) -> bool:
        """Whether a live comparison must speak."""
        return abs(self.estimate) > FLAGGED_BEYOND * self.error

    @property
    def unchanged(self) -> bool:
        """Whether history alone may say so."""
        sure = _rules_out_change(self.low, self.high)
        return sure and self.loads_alike and not self.flagged

    @property
    def verdict(self) -> Verdict | None:
        """None where flagged: the live comparison, or `unconfirmed`, gives it."""
        if self.flagged:
            return None
        return "unchanged" if self.unchanged else "inconclusive"


def baseline_runs(history: Sequence[Run], load_now: float | None) -> list[Run]:
    """Return the runs to judge against: the last ten under a like load, else the ten nearest.

    Args:
        history: the accepted comparable runs, oldest first.
        load_now: mean load of the run that is judged.
    """
    alike = [run for run in history if loads_alike(_load(run), load_now)]
    if alike or load_now is None:
        return (alike or list(history))[-BASELINE_RUNS:]
    latest_first = list(history)[::-1]
    return sorted(latest_first, key=lambda run: _distance(_load(run), load_now))[:BASELINE_RUNS]


def loads_alike(one: float | None, other: float | None) -> bool:
    """Return whether two loads differ too little to matter; an unknown one never does."""
    return _distance(one, other) <= ALIKE_LOAD


def _distance(one: float | None, other: float | None) -> float:
    return math.inf if one is None or other is None else abs(one - other)


def _load(run: Run) -> float | None:
    loads = [process.load for process in run if process.load is not None]
    return sum(loads) / len(loads) if len(loads) == len(run) > 0 else None


def pooled_spread(baselines: Sequence[Sequence[Run]], current: Sequence[Run] = ()) -> Spread:
    """Return the spread pooled over cases: one-way analysis of variance, nested, by moments.

    Args:
        baselines: per case its baseline runs.
        current: the run to be judged, per case: its processes tell of the spread between
            processes too, whatever their common shift.

    Source:
        Searle, Casella and McCulloch (1992), analysis of variance estimators.
    """
    of_cases = [list(runs) for runs in baselines]
    for place, now in enumerate(current):
        if place < len(of_cases):
            of_cases[place].append(now)
        else:
            of_cases.append([now])
    process_variance, process_freedom = _typical(of_cases)
    if process_freedom < _ENOUGH_FREEDOM:
        process_variance = max(process_variance, _EARLY_BETWEEN_PROCESSES**2)
    process_variance = max(process_variance, _LEAST_BETWEEN_PROCESSES**2)
    run_variance, run_freedom = _between_runs(baselines, process_variance)
    if run_freedom < _ENOUGH_FREEDOM:
        run_variance = max(run_variance, _EARLY_BETWEEN_RUNS**2)
    return Spread(
        between_processes=process_variance**0.5,
        process_freedom=process_freedom,
        between_runs=run_variance**0.5,
        run_freedom=run_freedom,
    )


def _typical(of_cases: Sequence[Sequence[Run]]) -> tuple[float, int]:
    """Return the variance between processes of a typical case, and its freedom.

    One noisy case must not hide what the others show, so where there are `_ENOUGH_CASES` their
    weighted median counts where it is below their mean. A case that is noisier than that is held
    against its own spread once that is known (`_OWN_FREEDOM`); until then it is looked at live in
    vain, which costs time, and convicts nobody.

    Source:
        Wilson and Hilferty (1931) for the median of chi-squared.
    """
    pooled, freedom = _between_processes([run for runs in of_cases for run in runs])
    known = [found for found in map(_between_processes, of_cases) if found[1]]
    if len(known) < _ENOUGH_CASES:
        return pooled, freedom
    unbiased = sorted((variance / (1 - 2 / (9 * own)) ** 3, own) for variance, own in known)
    passed = itertools.accumulate(own for _, own in unbiased)
    middle = next(
        variance
        for (variance, _), so_far in zip(unbiased, passed, strict=True)
        if 2 * so_far >= freedom
    )
    return min(middle, pooled), freedom


def _between_processes(runs: Sequence[Run]) -> tuple[float, int]:
    """Return the variance between processes of a run, less their own errors'; and its freedom."""
    squares, errors, freedom = 0.0, 0.0, 0
    for run in runs:
        mean = _mean(run)
        squares += sum((process.log_ratio - mean) ** 2 for process in run)
        errors += (len(run) - 1) * _mean_square_error(run)
        freedom += len(run) - 1
    return (max(0.0, (squares - errors) / freedom) if freedom else 0.0), freedom


def _between_runs(baselines: Sequence[Sequence[Run]], process_variance: float) -> tuple[float, int]:
    """Return the variance between a case's runs, less their processes'; and its freedom."""
    squares, explained, freedom = 0.0, 0.0, 0
    for runs in baselines:
        means = [_mean(run) for run in runs]
        centre = sum(means) / len(means) if means else 0.0
        squares += sum((mean - centre) ** 2 for mean in means)
        within = [_variance_of_mean(run, process_variance) for run in runs]
        explained += (len(runs) - 1) * sum(within) / len(runs) if runs else 0.0
        freedom += max(0, len(runs) - 1)
    return (max(0.0, (squares - explained) / freedom) if freedom else 0.0), freedom


def _mean(run: Run) -> float:
    return sum(process.log_ratio for process in run) / len(run)


def _mean_square_error(run: Run) -> float:
    return sum(process.error**2 for process in run) / len(run)


def _variance_of_mean(run: Run, process_variance: float) -> float:
    return (process_variance + _mean_square_error(run)) / len(run)


def screen(processes: Run, baseline: Sequence[Run], spread: Spread) -> Screening:
    """Judge a case's processes against its baseline.

    The variance of the difference adds sigma^2 (1 + 1/m) for the runs, tau^2 over each mean's
    number for their processes, and the processes' own errors. Where the case's own history is
    noisier than the pool, it counts: pooled alone, a quiet suite would convict its noisy case.

    Args:
        spread: of all cases of the suite, from `pooled_spread`.

    Raises:
        MeasurementError: no process, or no baseline run with one.

    Source:
        Satterthwaite (1946) for the degrees of freedom of a sum of variances.
    """
    if not processes or not baseline or not all(baseline):
        raise MeasurementError("a screen needs a process of this run and of each baseline run")
    spread = _stricter(spread, processes, baseline)
    count = len(baseline)
    shares = 1 / len(processes) + sum(1 / len(run) for run in baseline) / count**2
    by_processes = spread.between_processes**2 * shares
    by_runs = spread.between_runs**2 * (1 + 1 / count)
    errors = _variance_of_mean(processes, 0) + sum(
        _variance_of_mean(run, 0) / count**2 for run in baseline
    )
    error = (by_processes + by_runs + errors) ** 0.5
    freedom = error**4 / (
        by_processes**2 / max(1, spread.process_freedom) + by_runs**2 / max(1, spread.run_freedom)
    )
    estimate = _mean(processes) - sum(_mean(run) for run in baseline) / count
    half = t_quantile(_CONFIDENCE, freedom) * error
    return Screening(
        estimate=estimate,
        error=error,
        freedom=freedom,
        low=estimate - half,
        high=estimate + half,
        own_error=_own_error(baseline),
        runs=count,
        loads_alike=all(loads_alike(_load(run), _load(processes)) for run in baseline),
        smallest_visible=(FLAGGED_BEYOND + t_quantile(DETECTION, freedom)) * error,
    )


def _stricter(pool: Spread, processes: Run, baseline: Sequence[Run]) -> Spread:
    """Return the pool's spread, or the case's own where that is larger and well enough known."""
    own, freedom = _between_processes([*baseline, processes])
    if freedom >= _OWN_FREEDOM and own > pool.between_processes**2:
        pool = replace(pool, between_processes=own**0.5, process_freedom=freedom)
    own, freedom = _between_runs([baseline], pool.between_processes**2)
    if freedom >= _OWN_FREEDOM and own > pool.between_runs**2:
        pool = replace(pool, between_runs=own**0.5, run_freedom=freedom)
    return pool


def _own_error(baseline: Sequence[Run]) -> float | None:
    """Return the standard error of one more run's mean less the baseline's, by the case alone."""
    count = len(baseline)
    if count < 2:
        return None
    means = [_mean(run) for run in baseline]
    centre = sum(means) / count
    variance = sum((mean - centre) ** 2 for mean in means) / (count - 1)
    return float((variance * (1 + 1 / count)) ** 0.5)


def unconfirmed(screening: Screening, error_rate: float = ERROR_RATE) -> Decision:
    """Judge by history alone, after `EXTRA_PROCESSES` more processes of a flagged case.

    A conviction needs loads alike, a change beyond `CONVICTED_BEYOND`, and an interval clear of 0
    twice: by the pooled spread, and by the scatter of the case's own runs, which assumes nothing
    of other cases; so one baseline run convicts nobody (smallest visible change infinite).
    Whatever this says is to be shown as unconfirmed.

    Args:
        error_rate: chance of calling identical code changed; split it over the flagged cases.

    Source:
        the t prediction interval for one more observation.
    """
    level = 1 - error_rate * _HISTORY_SHARE / 2
    half = t_quantile(level, screening.freedom) * screening.error
    least = math.inf
    if screening.own_error is not None:
        half = max(half, t_quantile(level, screening.runs - 1) * screening.own_error)
        least = max(half, CONVICTED_BEYOND)
    verdict: Verdict = "inconclusive"
    if screening.loads_alike and abs(screening.estimate) > least:
        verdict = "regressed" if screening.estimate > 0 else "improved"
    elif screening.loads_alike and _rules_out_change(screening.low, screening.high):
        verdict = "unchanged"
    reach = t_quantile(DETECTION, screening.freedom) * screening.error
    return Decision(
        verdict=verdict,
        estimate=screening.estimate,
        low=screening.estimate - half,
        high=screening.estimate + half,
        smallest_visible=least + reach,
    )


def _rules_out_change(low: float, high: float) -> bool:
    return low >= -UNCHANGED_WITHIN and high <= UNCHANGED_WITHIN
