"""Reads a run's file: its columns by its schema, and only complete rows.

Each schema has its columns; those of an earlier one are lifted to today's, what it lacks is absent.
A later one is refused. Everything else that does not fit is refused by file and line.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from convmark.core.case import Case
from convmark.core.cells import Column
from convmark.core.errors import CaseError, StoreError
from convmark.core.files import as_store_error
from convmark.results.record import COLUMNS, FRAMEWORK_COLUMNS, MEASURED, Record, from_cells
from convmark.results.schema import OLDEST_SCHEMA, SCHEMA_VERSION
from convmark.results.table_file import csv_rows

RUN_NAME = re.compile(r"[0-9]{4,9}")
"""A number of more digits is no run's: whoever writes a file of the results may write any."""

ONE_FILE = ("run", "machine")
"""Columns that all rows of one file share, where they have a value."""

ONE_RUN = (
    *("commit", "dirty", "convmark", "time_budget_s", "isolation"),
    *("measurement_version", "reference_version", "counting_version"),
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
        """Check a row against the file and the rows before it.

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
        """Check that a process of a case has one measured row, and that no row is a copy."""
        case, at = record.asked_case, f"{self._path}:{line}"
        first = self._lines.setdefault((case, record.process), line)
        if first != line:
            raise StoreError(
                f"{at}: must have each process once, but {case.name} #{record.process} is in "
                f"line {first} too; remove one of them"
            )
        if record.step_time_mean_s is None:
            return
        figures = tuple(getattr(record, name) for name in _OWN)
        first = self._lines.setdefault((case, *figures), line)
        if first != line:
            raise StoreError(
                f"{at}: must be a measurement of its own, but its start and step times equal "
                f"those of line {first}; remove the copy"
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
    groups = [(everywhere, (*ONE_FILE, *ONE_RUN)), (suite, ONE_SUITE)]
    groups += [(measured & (found["backend"] == one), SOFTWARE) for one in set(found["backend"])]
    if not all(_one_value(found[name][where]) for where, names in groups for name in names):
        return False
    once = [*map(found.get, (*_AXES, "process"))]
    own = [*map(found.get, (*_AXES, *_OWN))]
    timed = measured & ~np.isnan(found["step_time_mean_s"])
    return _distinct(once, measured) and _distinct(own, timed)


def _one_value(column: np.ndarray[Any, Any]) -> bool:
    """Whether a column has at most one value, the absent ones left out."""
    if column.dtype == object:
        return len({*column.tolist()} - {None}) <= 1
    known = column[~np.isnan(column)]
    return not len(known) or bool(known.min() == known.max())


def _distinct(columns: list[Any], where: np.ndarray[Any, Any]) -> bool:
    """Whether no two of the rows have the same values in all columns; absent ones are the same."""
    rows = list(zip(*(_hashed(column[where]) for column in columns), strict=True))
    return len(set(rows)) == len(rows)


def _hashed(column: np.ndarray[Any, Any]) -> list[Any]:
    """Return the values of a column with None for NaN, which equals nothing."""
    known = column.astype(object)
    if column.dtype != object:
        known[np.isnan(column)] = None
    values: list[Any] = known.tolist()
    return values


HEADER = [column.name for column in COLUMNS]

MEASUREMENT_VERSIONS = MappingProxyType({"6eb0880a51a8": "1"})
"""Rows once had a hash of the measuring code in place of its version: which one it was."""

_MEASUREMENT_VERSION = HEADER.index("measurement_version")

Torn = Callable[[int], None]


class StoreWarning(UserWarning):
    """Something in a results file was left out; the text names file and line."""


def layouts(columns: Sequence[Column], newest: int) -> Mapping[tuple[str, ...], int]:
    """Return the schema of each header that there was."""
    return MappingProxyType(
        {
            tuple(column.name for column in columns if column.since <= schema): schema
            for schema in range(newest, OLDEST_SCHEMA - 1, -1)
        }
    )


_READ = f"{OLDEST_SCHEMA} to {SCHEMA_VERSION}"

LAYOUTS = layouts(COLUMNS, SCHEMA_VERSION)


def read_run(path: Path) -> list[Record]:
    """Return the rows of a run's file.

    A last line without its newline is what a killed writer leaves: it is left out with a
    `StoreWarning`. Everything else that does not fit the schema is refused.
    """

    def warn(line: int) -> None:
        text = f"{path}:{line}: a torn last line was left out"
        warnings.warn(text, StoreWarning, stacklevel=2)

    records: list[Record] = []
    one_run = RowsOfOneRun(path)
    for line, cells in read_cells(path, warn):
        records.append(_record(path, line, cells))
        one_run.check(line, records[-1])
    return records


def read_head(path: Path) -> Record | None:
    """Return the first row of a run's file, the rest unread; None where there is none yet."""
    for line, cells in read_cells(path):
        return _record(path, line, cells)
    return None


def read_schema(path: Path) -> int:
    """Return the schema that a run's file was written in."""
    with as_store_error(path, "read"):
        _, header = next(csv_rows(path), (0, [""]))
    schema = LAYOUTS.get(tuple(header))
    if schema is None:
        raise StoreError(_other_columns(path, header, []))
    return schema


def head_cells(path: Path) -> list[str] | None:
    """Return the cells of the first row, none of them looked at; None where there is none yet."""
    return next((cells for _, cells in read_cells(path)), None)


def _record(path: Path, line: int, cells: Sequence[str]) -> Record:
    try:
        record = from_cells(cells)
        _ = record.case, record.asked_case  # a row of no case is none
    except (StoreError, CaseError) as error:
        raise StoreError(f"{path}:{line}: {error}") from None
    return record


def read_cells(path: Path, torn: Torn = lambda line: None) -> Iterator[tuple[int, list[str]]]:
    """Yield line and cells of each row, as many as `COLUMNS` and in their order.

    The cells themselves are not looked at, but for the schema.

    Args:
        torn: is told the line of a torn last line, which is left out.
    """
    torn_at: list[int] = []

    def noted(line: int) -> None:
        torn_at.append(line)
        torn(line)

    with as_store_error(path, "read"), contextlib.closing(csv_rows(path, torn=noted)) as rows:
        yield from _cells(path, rows, torn_at)


def _cells(
    path: Path, lines: Iterator[tuple[int, list[str]]], torn_at: Sequence[int]
) -> Iterator[tuple[int, list[str]]]:
    line, header = next(lines, (0, []))
    if not header:
        what = "it ends in its header" if torn_at else "it is empty"
        raise StoreError(f"{path}:1: must hold a run's rows, {what}")
    first = next(lines, None)
    schema = LAYOUTS.get(tuple(header))
    if schema is None:
        raise StoreError(_other_columns(path, header, first[1] if first else []))
    while first is not None:
        line, cells = first
        if len(cells) != len(header):
            raise StoreError(f"{path}:{line}: must have {len(header)} cells, has {len(cells)}")
        if cells[0] != str(schema):
            raise StoreError(f"{path}:{line}: {_other_schema(cells[0], schema)}")
        if schema != SCHEMA_VERSION:  # to today's columns
            held = {**dict(zip(header, cells, strict=True)), "schema": str(SCHEMA_VERSION)}
            cells = [held.get(name, "") for name in HEADER]
        found = cells[_MEASUREMENT_VERSION]
        cells[_MEASUREMENT_VERSION] = MEASUREMENT_VERSIONS.get(found, found)
        yield line, cells
        first = next(lines, None)


def _other_columns(path: Path, header: Sequence[str], first: Sequence[str]) -> str:
    """Say what differs from the columns of the schema that the first row says it is of."""
    told = first[0] if first and header[0] == "schema" else ""
    if told == "1":
        return f"{path}:2: must be of schema {_READ}, got '1'; measure it again"
    if _is_later(told):
        return f"{path}:2: {_other_schema(told, SCHEMA_VERSION)}"
    of_schema = {str(schema): columns for columns, schema in LAYOUTS.items()}
    schema = told if told in of_schema else str(SCHEMA_VERSION)
    columns = of_schema[schema]
    missing = [name for name in columns if name not in header]
    unknown = [name for name in header if name not in columns]
    twice = [name for name in header if header.count(name) > 1]
    detail = "the order of the columns differs"
    if missing:
        detail = f"column {missing[0]!r} is missing"
    elif unknown:
        detail = f"column {unknown[0][:40]!r} is unknown"
    elif twice:
        detail = f"column {twice[0]!r} is there twice"
    return f"{path}:1: must have the columns of schema {schema}: {detail}"


def _is_later(schema: str) -> bool:
    return schema.isascii() and schema.isdecimal() and int(schema[:9]) > SCHEMA_VERSION


def _other_schema(found: str, schema: int) -> str:
    if _is_later(found):
        return (
            f"must be of schema {_READ}, got {found[:40]!r}; a later convmark wrote it: upgrade "
            "convmark to read it"
        )
    return f"must be of schema {schema}, whose columns the file has, got {found[:40]!r}"
