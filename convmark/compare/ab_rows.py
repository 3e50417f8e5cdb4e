"""The rows of an A/B comparison's files, which `convmark.compare.live.ab_files` writes."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convmark.core.cells import column
from convmark.core.interval import Interval
from convmark.results.table_file import TableFile

_column = functools.partial(column, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ends:
    """What both files tell of the two sides."""

    ab: str = _column("number of the comparison")
    started: str = _column("when the case was begun", "UTC, ISO 8601")
    convmark: str | None = _column("version of the harness")
    machine: str | None = _column("fingerprint of the hardware")
    a: str = _column("side A as it was asked for, with its settings")
    b: str = _column("side B")
    a_commit: str | None = _column("commit of A's models, where one was asked for")
    b_commit: str | None = _column("commit of B's models")
    a_python: str | None = _column("version of A's Python")
    b_python: str | None = _column("version of B's Python")
    a_tensorflow: str | None = _column("version of A's TensorFlow")
    b_tensorflow: str | None = _column("version of B's TensorFlow")
    a_keras: str | None = _column("version of A's Keras")
    b_keras: str | None = _column("version of B's Keras")
    a_framework: str | None = _column("what ran A's steps, where it is not TensorFlow: JAX 0.9")
    b_framework: str | None = _column("what ran B's steps, where it is not TensorFlow")
    case: str = _column("name of the case, without the settings that differ")
    model: str = _column("model by name, or package.module:builder")
    task: str = _column("train or infer")
    device: str = _column("cpu or gpu:N")
    batch_size: int = _column("samples per replica per step", "samples")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow(_Ends):
    """One session: ratios are ln(B / A), the trimmed mean over its rounds, and Yuen's error.

    The logarithm of A is the mean of those of A and of its control.
    """

    session: int = _column("number of the session, from 1")
    together: bool = _column("whether both codes ran in one process")
    log_ratio: float = _column("ln(B / A), wall time")
    log_ratio_se: float = _column("its standard error")
    log_ratio_cpu: float | None = _column("ln(B / A), CPU time; empty where its clock is coarse")
    log_ratio_cpu_se: float | None = _column("its standard error")
    control_log_ratio: float | None = _column("ln(second A / A), wall time")
    control_log_ratio_se: float | None = _column("its standard error")
    control_log_ratio_cpu: float | None = _column("ln(second A / A), CPU time")
    control_log_ratio_cpu_se: float | None = _column("its standard error")
    not_judged: str | None = _column("why the session is left out of the verdict")


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictRow(_Ends):
    """What a case's sessions amount to. Shares are of A's step time: 0.1 is 10 % slower."""

    verdict: str = _column("of B against A: regressed, improved, unchanged, inconclusive")
    decided_by: str | None = _column(
        "the clock that decided: wall; rows of older versions have cpu too"
    )
    change: float | None = _column("B / A - 1 of the step time, by that clock")
    low: float | None = _column("lower end of its interval")
    high: float | None = _column("upper end of its interval")
    smallest_visible: float | None = _column("the smallest change that would have been seen")
    wall_change: float | None = _column("B / A - 1 by wall time")
    cpu_change: float | None = _column("B / A - 1 by CPU time")
    control_change: float | None = _column("second A / A - 1, by wall time")
    sessions: int = _column("sessions that were run")
    void: bool = _column("whether the control differed from its twin")
    a_parameters: int | None = _column("elements of all weights of A's model")
    b_parameters: int | None = _column("elements of all weights of B's model")
    note: str | None = _column("reason, and what to try")

    @property
    def interval(self) -> Interval:
        return Interval.of_cells(self.low, self.high)


def ab_table(kind: type[Any]) -> TableFile[Any]:
    names = [one.name for one in dataclasses.fields(kind)]
    return TableFile(kind, [name for name in names if not name.endswith("_framework")])


def read_verdicts(path: Path) -> list[VerdictRow]:
    """Return the verdicts of a file; an interrupted comparison may have fewer than cases."""
    return ab_table(VerdictRow).read(path)
