"""What the rows of a file must agree in: they are of one run, and each is a measurement of its own.

A copy would narrow the spread of its case, and a row of another run would count in the wrong place.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convmark.core.case import Case
from convmark.core.errors import StoreError
from convmark.results.record import FRAMEWORK_COLUMNS, MEASURED, Record

__all__ = ["ONE_RUN", "RUN_NAME", "SOFTWARE", "RowsOfOneRun", "rows_agree", "shared_columns"]

RUN_NAME = re.compile(r"[0-9]{4,}")

ONE_FILE = ("run", "machine")
"""Columns that all rows of one file share, where they have a value."""

ONE_RUN = (
    *("commit", "dirty", "convmark", "time_budget_s", "isolation"),
    *("measurement_version", "reference_version"),
)
"""Columns that all parts of one run share too."""

ONE_SUITE = ("seed", "processes")
"""Columns that all rows of one run share but those of the task accuracy."""

SOFTWARE = ("python", *FRAMEWORK_COLUMNS, "keras", "numpy", "flags")
"""Columns that the measured rows of one backend share, where they have a value."""

_LEARNING = "accuracy"
"""The task whose processes have a seed each."""

_AXES = tuple(Case.__dataclass_fields__)
_OWN = ("started", "step_time_mean_s", "step_time_p50_s", "throughput_samples_per_s")
"""No two processes of a case have the same ones, to the millisecond and the last digit."""


def shared_columns(record: Record) -> list[tuple[str, str]]:
    """Return the columns that a row shares with others of its run, and with whom, empty for all."""
    shared = [(name, "") for name in ONE_RUN]
    if record.task != _LEARNING:
        shared += [(name, "") for name in ONE_SUITE]
    return shared + [(name, record.backend) for name in SOFTWARE if record.measured]


class RowsOfOneRun:
    """The rows of a file, each held against those before it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._shared: dict[tuple[str, str], tuple[Any, int]] = {}
        self._lines: dict[tuple[Any, ...], int] = {}

    def check(self, line: int, record: Record) -> None:
        """Hold a row against the file and the rows before it.

        Raises:
            StoreError: it is of another run, or no measurement of its own; the message names both
                lines.
        """
        if RUN_NAME.fullmatch(self._path.stem) and record.run != self._path.stem:
            raise StoreError(
                f"{self._path}:{line}: column 'run' must be the file's number, {self._path.stem}, "
                f"got {record.run[:40]!r}; give the file of another run its own number back"
            )
        for key in (*((name, "") for name in ONE_FILE), *shared_columns(record)):
            value = getattr(record, key[0])
            if value is None:
                continue
            known, first = self._shared.setdefault(key, (value, line))
            if known != value:
                raise StoreError(
                    f"{self._path}:{line}: must have the {key[0]} of line {first} to be of the "
                    f"same run: {_shown(known)} there, {_shown(value)} here"
                )
        if record.measured:
            self._check_once(line, record)

    def _check_once(self, line: int, record: Record) -> None:
        """Hold every process of a case to one measured row, and every row to figures of its own."""
        case, at = record.asked_case, f"{self._path}:{line}"
        first = self._lines.setdefault((case, record.process), line)
        if first != line:
            raise StoreError(
                f"{at}: must hold a process once, {case.name} #{record.process} is in line {first} "
                "too; remove one of them"
            )
        if record.step_time_mean_s is None:
            return
        figures = tuple(getattr(record, name) for name in _OWN)
        first = self._lines.setdefault((case, *figures), line)
        if first != line:
            raise StoreError(
                f"{at}: must be a measurement of its own, its start and its step times are "
                f"those of line {first} to the last digit; remove the copy"
            )


def _shown(value: Any) -> str:
    return str(value)[:80]


def rows_agree(found: Mapping[str, Any], path: Path) -> bool:
    """Whether the rows of a file, given as columns, would all pass `RowsOfOneRun.check`."""
    rows = len(found["status"])
    if RUN_NAME.fullmatch(path.stem) and any(run != path.stem for run in set(found["run"])):
        return False
    everywhere = np.ones(rows, dtype=bool)
    suite = found["task"] != _LEARNING
    measured = np.isin(found["status"], MEASURED)
    groups = [(name, everywhere) for name in (*ONE_FILE, *ONE_RUN)]
    groups += [(name, suite) for name in ONE_SUITE]
    for backend in set(found["backend"]):
        groups += [(name, measured & (found["backend"] == backend)) for name in SOFTWARE]
    if any(len(_values(found[name][where])) > 1 for name, where in groups):
        return False
    once = [*map(found.get, (*_AXES, "process"))]
    own = [*map(found.get, (*_AXES, *_OWN))]
    timed = measured & ~np.isnan(found["step_time_mean_s"])
    return _distinct(once, measured) and _distinct(own, timed)


def _values(column: np.ndarray[Any, Any]) -> set[Any]:
    """Return the values of a column, the absent ones left out; NaN equals nothing."""
    return {value for value in column.tolist() if value is not None and value == value}


def _distinct(columns: list[Any], where: np.ndarray[Any, Any]) -> bool:
    """Whether no two of the rows have the same values in all columns; NaN is the same as NaN."""
    rows = list(itertools.compress(zip(*(one.tolist() for one in columns), strict=True), where))
    texts = {repr(row) for row in rows}
    return len(texts) == len(rows)
