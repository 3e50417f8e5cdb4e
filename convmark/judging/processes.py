"""A case's processes in a run, and the runs that they are held against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from convmark.errors import MeasurementError

__all__ = [
    "ALIKE_LOAD",
    "BASELINE_RUNS",
    "Process",
    "Run",
    "baseline_runs",
    "load_of",
    "loads_alike",
]

BASELINE_RUNS = 10
"""The most runs that a baseline is the mean of."""

ALIKE_LOAD = 0.1
"""Loads are alike where they differ by no more than this share of the CPUs' time.

From a quiet machine to one with three rivals per CPU, which take three quarters of its time, the
paired log ratio of identical code moved by up to 21 %: 0.1 leaves 3 %, and `UNCHANGED_WITHIN` is 5.
"""


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


def baseline_runs(history: Sequence[Run], load_now: float | None) -> list[Run]:
    """Return the runs to judge against: the last ten under a like load, else the ten nearest.

    Args:
        history: the accepted comparable runs, oldest first.
        load_now: mean load of the run that is judged.
    """
    alike = [run for run in history if loads_alike(load_of(run), load_now)]
    if alike or load_now is None:
        return (alike or list(history))[-BASELINE_RUNS:]
    latest_first = list(history)[::-1]
    return sorted(latest_first, key=lambda run: _distance(load_of(run), load_now))[:BASELINE_RUNS]


def loads_alike(one: float | None, other: float | None) -> bool:
    """Return whether two loads differ too little to matter; an unknown one never does."""
    return _distance(one, other) <= ALIKE_LOAD


def _distance(one: float | None, other: float | None) -> float:
    return math.inf if one is None or other is None else abs(one - other)


def load_of(run: Run) -> float | None:
    loads = [process.load for process in run if process.load is not None]
    return sum(loads) / len(loads) if len(loads) == len(run) > 0 else None
