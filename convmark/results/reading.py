"""Reads a run's file: its columns by its schema, and only complete rows.

Each schema has its columns; those of an earlier one are lifted to today's, what it lacks is absent.
A later one is refused. Everything else that does not fit is refused by file and line.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from convmark.core.cells import Column
from convmark.core.errors import CaseError, StoreError
from convmark.results.csv_lines import csv_rows
from convmark.results.one_run import RowsOfOneRun
from convmark.results.record import COLUMNS, OLDEST_SCHEMA, SCHEMA_VERSION, Record, from_cells

__all__ = [
    "HEADER",
    "StoreWarning",
    "head_cells",
    "read_cells",
    "read_head",
    "read_run",
    "read_schema",
]

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


def read_run(
    path: Path, keep: Callable[[Sequence[str]], bool] = lambda cells: True
) -> list[Record]:
    """Return the rows of a run's file, all or those whose cells are to be kept.

    A last line without its newline is what a killed writer leaves: it is left out with a
    `StoreWarning`. Everything else that does not fit the schema is refused.

    Raises:
        StoreError: the file cannot be read, or does not fit; the message names file and line.
    """
    rows = read_cells(path, functools.partial(_warn_of_torn_line, path))
    records: list[Record] = []
    one_run = RowsOfOneRun(path)
    for line, cells in rows:
        if keep(cells):
            records.append(_record(path, line, cells))
            one_run.check(line, records[-1])
    return records


def _warn_of_torn_line(path: Path, line: int) -> None:
    warnings.warn(f"{path}:{line}: a torn last line was left out", StoreWarning, stacklevel=2)


def read_head(path: Path) -> Record | None:
    """Return the first row of a run's file, the rest unread; None where there is none yet.

    Raises:
        StoreError: the file cannot be read, or its beginning does not fit the schema.
    """
    for line, cells in read_cells(path):
        return _record(path, line, cells)
    return None


def read_schema(path: Path) -> int:
    """Return the schema that a run's file was written in.

    Raises:
        StoreError: the file cannot be read, or has the columns of none.
    """
    try:
        _, header = next(csv_rows(path), (0, [""]))
    except FileNotFoundError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from None
    schema = LAYOUTS.get(tuple(header))
    if schema is None:
        raise StoreError(_other_columns(path, header, []))
    return schema


def head_cells(path: Path) -> list[str] | None:
    """Return the cells of the first row, none of them looked at; None where there is none yet.

    Raises:
        StoreError: as `read_head`.
    """
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

    Raises:
        StoreError: the file cannot be read, or its columns do not fit the schema.
    """
    torn_at: list[int] = []

    def noted(line: int) -> None:
        torn_at.append(line)
        torn(line)

    try:
        yield from _cells(path, csv_rows(path, torn=noted), torn_at)
    except FileNotFoundError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from None


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
        lifted = cells if schema == SCHEMA_VERSION else _lifted(header, cells)
        found = lifted[_MEASUREMENT_VERSION]
        lifted[_MEASUREMENT_VERSION] = MEASUREMENT_VERSIONS.get(found, found)
        yield line, lifted
        first = next(lines, None)


def _lifted(header: Sequence[str], cells: Sequence[str]) -> list[str]:
    """Return the cells of an earlier schema in today's columns."""
    found = {**dict(zip(header, cells, strict=True)), "schema": str(SCHEMA_VERSION)}
    return [found.get(name, "") for name in HEADER]


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
