"""How log ratios of identical code scatter between processes and runs: of all cases, or of one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from convmark.judging.processes import Run

__all__ = ["Spread", "mean_of", "pooled_spread", "stricter", "variance_of_mean"]

_LEAST_BETWEEN_PROCESSES = 0.01
_EARLY_BETWEEN_PROCESSES = 0.025
_EARLY_BETWEEN_RUNS = 0.017
"""Assumed at least, until `_ENOUGH_FREEDOM`: the largest seen on a quiet machine."""

_ENOUGH_FREEDOM = 20
_ENOUGH_CASES = 4
"""From here on the typical case's spread is told by the median."""
_OWN_FREEDOM = 4
"""From here on a case's own spread counts where it exceeds the pool's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Standard deviations of log ratios on identical code, and what they rest on."""

    between_processes: float
    """Beyond what the processes' own errors explain."""
    process_freedom: int
    between_runs: float
    """Beyond what the spread between processes explains."""
    run_freedom: int


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
        mean = mean_of(run)
        squares += sum((process.log_ratio - mean) ** 2 for process in run)
        errors += (len(run) - 1) * _mean_square_error(run)
        freedom += len(run) - 1
    return (max(0.0, (squares - errors) / freedom) if freedom else 0.0), freedom


def _between_runs(baselines: Sequence[Sequence[Run]], process_variance: float) -> tuple[float, int]:
    """Return the variance between a case's runs, less their processes'; and its freedom."""
    squares, explained, freedom = 0.0, 0.0, 0
    for runs in baselines:
        means = [mean_of(run) for run in runs]
        centre = sum(means) / len(means) if means else 0.0
        squares += sum((mean - centre) ** 2 for mean in means)
        within = [variance_of_mean(run, process_variance) for run in runs]
        explained += (len(runs) - 1) * sum(within) / len(runs) if runs else 0.0
        freedom += max(0, len(runs) - 1)
    return (max(0.0, (squares - explained) / freedom) if freedom else 0.0), freedom


def mean_of(run: Run) -> float:
    return sum(process.log_ratio for process in run) / len(run)


def _mean_square_error(run: Run) -> float:
    return sum(process.error**2 for process in run) / len(run)


def variance_of_mean(run: Run, process_variance: float) -> float:
    return (process_variance + _mean_square_error(run)) / len(run)


def stricter(pool: Spread, processes: Run, baseline: Sequence[Run]) -> Spread:
    """Return the pool's spread, or the case's own where that is larger and well enough known."""
    own, freedom = _between_processes([*baseline, processes])
    if freedom >= _OWN_FREEDOM and own > pool.between_processes**2:
        pool = replace(pool, between_processes=own**0.5, process_freedom=freedom)
    own, freedom = _between_runs([baseline], pool.between_processes**2)
    if freedom >= _OWN_FREEDOM and own > pool.between_runs**2:
        pool = replace(pool, between_runs=own**0.5, run_freedom=freedom)
    return pool
