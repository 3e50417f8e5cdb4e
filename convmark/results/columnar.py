"""Fast reading of a run's file by columns; every cell is checked against the schema.

Where anything in a file is not as it should be, it is read again row by row, which says what is
wrong and where.
"""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convmark.core.case import Case
from convmark.core.cells import from_cell
from convmark.core.errors import CaseError
from convmark.core.files import as_store_error, read_regular
from convmark.results.reading import HEADER, LAYOUTS, MEASUREMENT_VERSIONS, read_run, rows_agree
from convmark.results.record import COLUMNS, FIGURES, STATUSES, figures_agree, words_broken
from convmark.results.schema import SCHEMA_VERSION

MOST_NUMBER = 400
"""Characters of a number; `convmark.core.cells` takes one more."""

MOST_WHOLE_BYTES = 1 << 26
"""Of a file that is read at one go: some 30,000 rows."""

_FIRST_LINES = {",".join(names).encode(): (names, schema) for names, schema in LAYOUTS.items()}
_AXES = tuple(Case.__dataclass_fields__)


def whole_file(path: Path) -> bytes | None:
    """Return what is in a file; None where it is too large for that, and is read by lines."""
    with as_store_error(path, "read"):
        data = read_regular(path, MOST_WHOLE_BYTES + 1)
    return data if len(data) <= MOST_WHOLE_BYTES else None


def read_columns(path: Path, data: bytes | None) -> dict[str, Any]:
    """Return a file's columns by name.

    Numbers are float64 with NaN for an empty cell, others have None for one.

    Args:
        data: what is in the file; None where it is too large for memory, and is read by lines.
    """
    return (_typed(data, path) if data else None) or _from_records(path)


def _typed(data: bytes, path: Path) -> dict[str, Any] | None:
    """Return the columns of a file; None where the store must say what is wrong with it."""
    header, schema = _FIRST_LINES.get(data.partition(b"\n")[0], ((), 0))
    if not schema or not data.endswith(b"\n") or b"\0" in data:
        return None
    try:
        reader = csv.reader(io.StringIO(data.decode(), newline=""), strict=True)
        rows = list(reader)[1:]
        cells = list(zip(*rows, strict=True)) if rows else [()] * len(header)
        if len(cells) != len(header) or any(len(row) != len(cells) for row in rows):
            return None
        if len(rows) + 1 != data.count(b"\n"):  # a row is one line
            return None
        if any(cell != str(schema) for cell in cells[0]):
            return None
        if schema != SCHEMA_VERSION:
            cells = _as_today(dict(zip(header, cells, strict=True)), len(rows))
        if any(cells[HEADER.index("asked")]):  # few files have it, and its rule is a row's
            return None
        for axes in set(zip(*(cells[HEADER.index(name)] for name in _AXES), strict=True)):
            case_name(*axes)
        found = {COLUMNS[place].name: _values(place, one) for place, one in enumerate(cells)}
        return found if _agree(found, path) else None
    except (ValueError, ArithmeticError, CaseError, csv.Error):
        return None


def _as_today(found: dict[str, tuple[str, ...]], rows: int) -> list[tuple[str, ...]]:
    """Return the cells of an earlier schema's columns in today's; what it lacks is empty."""
    version = "measurement_version"
    found["schema"] = (str(SCHEMA_VERSION),) * rows
    found[version] = tuple(MEASUREMENT_VERSIONS.get(one, one) for one in found[version])
    return [found.get(name, ("",) * rows) for name in HEADER]


def _agree(found: Mapping[str, Any], path: Path) -> bool:
    """Whether the cells of each row agree, and the rows with each other and with their file."""
    names = ("started", "status", "unsteady")
    texts = set(zip(*(found[name].tolist() for name in names), strict=True))
    return (
        figures_agree({name: found[name] for name in FIGURES}, found["status"])
        and not any(words_broken(*words) for words in texts)
        and rows_agree(found, path)
    )


def _values(place: int, cells: Sequence[str]) -> np.ndarray[Any, Any]:
    """Return the values of the column at a place of the header."""
    if cells and cells.count(cells[0]) == len(cells):  # a fact of the whole run, as most are
        return _repeated(place, cells[0], len(cells))
    column = COLUMNS[place]
    if column.required and "" in cells:
        raise ValueError("must not be empty")
    if column.type in (str, bool):
        known = {cell: _value(place, cell) for cell in set(cells)}
        return np.array([known[cell] for cell in cells], dtype=object)
    numbers = np.array([column.type(cell) if cell else np.nan for cell in cells], np.float64)
    finite = numbers[np.isfinite(numbers)]
    if len(finite) != sum(map(bool, cells)):
        raise ValueError("must be finite")
    if max(map(len, cells), default=0) > MOST_NUMBER:
        raise ValueError("must be a number of so many characters")
    together = "".join(cells)
    if not (together.isascii() and together.isprintable()) or "_" in together or " " in together:
        raise ValueError("must be plain digits")
    if column.type is int and any(str(int(cell)) != cell for cell in cells if cell):
        raise ValueError("must be written as it is here")
    if len(finite) and any(column.range_broken(end) for end in (finite.min(), finite.max())):
        raise ValueError("must be in its range")
    return numbers


@functools.lru_cache(maxsize=4096)
def _repeated(place: int, cell: str, times: int) -> np.ndarray[Any, Any]:
    """Return a column of one value; the same array for the same cell, which nobody writes to."""
    column, value = COLUMNS[place], _value(place, cell)
    if column.type in (str, bool):
        return np.full(times, value, dtype=object)
    if value is not None and column.range_broken(value):
        raise ValueError("must be in its range")
    return np.full(times, np.nan if value is None else value, np.float64)


@functools.lru_cache(maxsize=65536)
def _value(place: int, cell: str) -> Any:
    """Return a cell's value, the same object for the same cell; a status must be one there is."""
    column = COLUMNS[place]
    if column.required and not cell:
        raise ValueError("must not be empty")
    if column.name == "status" and cell not in STATUSES:
        raise ValueError("must be a status")
    return from_cell(column, cell)


def _from_records(path: Path) -> dict[str, Any]:
    """Read a file as the store does, which says what is wrong with it."""
    records = read_run(path)
    columns: dict[str, Any] = {}
    for column in COLUMNS:
        values = [getattr(record, column.name) for record in records]
        numbers = column.type in (int, float)
        columns[column.name] = np.array(values, np.float64) if numbers else values
    return columns


@functools.lru_cache(maxsize=4096)
def case_name(*axes: Any) -> str:
    """Return the name of a case, from the cells of its axes or from their values.

    Raises:
        CaseError, ValueError: there is no such case.
    """
    columns = (COLUMNS[HEADER.index(name)] for name in _AXES)
    values = [
        from_cell(column, axis) if isinstance(axis, str) else axis
        for column, axis in zip(columns, axes, strict=True)
    ]
    fields = dict(zip(_AXES, values, strict=True))
    counts = {name: int(fields[name]) for name in ("batch_size", "replicas")}
    return Case(**{**fields, **counts}).name


def without_earlier_copies(
    paths: list[Path], parts: list[dict[str, Any]], warn: Callable[[str], None]
) -> tuple[list[Path], list[dict[str, Any]]]:
    """Return the files without those that were copied while their run went on.

    Args:
        parts: the columns of each.
        warn: is told of each that is left out.
    """
    largest: dict[tuple[str, str], int] = {}
    copies = set()
    for place, path in enumerate(paths):
        key = path.name, parts[place]["started"][0]
        known = largest.setdefault(key, place)
        fewer, more = sorted((known, place), key=lambda one: len(parts[one]["started"]))
        if known != place and _lines(paths[fewer]) <= _lines(paths[more]):
            warn(f"{paths[fewer]}: is an earlier copy of {paths[more]}, left out")
            copies.add(fewer)
            largest[key] = more
    kept = [place for place in range(len(paths)) if place not in copies]
    return [paths[place] for place in kept], [parts[place] for place in kept]


def _lines(path: Path) -> set[bytes]:
    """Return the lines of a run's file, each a row; of one that is too large its name alone."""
    data = whole_file(path)
    return {str(path).encode()} if data is None else set(data.splitlines())
