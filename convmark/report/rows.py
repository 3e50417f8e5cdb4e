"""The rows of results folders as one data frame, every cell held to the schema.

A file is read column by column, which is quick; where anything in it is not as it should be, the
store reads it again, row by row, and says what and where.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convmark.core.backends import BACKENDS
from convmark.core.case import Case
from convmark.core.errors import CaseError, StoreError
from convmark.report.runs import RunSource, labelled, oldest_first, run_files
from convmark.results.record import (
    COLUMNS,
    FRAMEWORK_COLUMNS,
    MEASURED,
    SCHEMA_VERSION,
    STATUSES,
    from_cell,
)
from convmark.results.store import HEADER, StoreWarning, read_run

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Rows", "read_rows"]

MOST_NUMBER = 400
"""Characters of a number; `convmark.core.cells` takes one more."""

MOST_WHOLE_BYTES = 1 << 26
"""Of a file that is read at one go: some 30,000 rows."""

_FIRST_LINE = ",".join(HEADER).encode() + b"\n"
_AXES = tuple(Case.__dataclass_fields__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """All rows, and the files that they came from."""

    frame: pd.DataFrame
    """The schema's columns, numbers as float64 with NaN for an empty cell, texts as objects with
    None for one; and `source`, `case`, `hardware` (machine and device), `framework` (name and
    version of what ran the step) and `measured`."""
    runs: tuple[RunSource, ...]
    """Oldest first, so that the highest `source` is the newest run."""


def read_rows(places: Sequence[Path]) -> Rows:
    """Return the rows of all runs in the places; a copy of a file counts once.

    What may be left out is: a file without rows, a torn last line, a copy; a `StoreWarning` names
    it. Everything else that does not fit the schema is refused.

    Raises:
        StoreError: nothing is there, no file has a row, or a file does not fit; the message names
            file and line.
    """
    import pandas as pd

    parts: list[dict[str, Any]] = []
    paths: list[Path] = []
    seen: dict[bytes, Path] = {}
    empty: list[Path] = []
    for path in run_files(places):
        data = _bytes(path)
        first = seen.setdefault(hashlib.sha256(data).digest(), path) if data else path
        if first is not path and first.name == path.name:
            _warn(f"{path}: is a copy of {first}, left out")
            continue
        part = (_typed(data) if data else None) or _from_records(path)
        if not len(part["status"]):
            empty.append(path)
            continue
        if not all(part["machine"]):
            folder = path.resolve().parent.name
            part["machine"] = [name or folder for name in part["machine"]]
        paths.append(path)
        parts.append(part)
    if not parts:
        raise StoreError(f"{empty[0]}:1: must hold the rows of a run after its header, it has none")
    for path in empty:
        _warn(f"{path}:1: holds no rows, left out")
    if len(parts) == 1 and len(parts[0]["status"]) == 1:
        _warn(f"{paths[0]}:2: is the only row, so no spread can be told; try --processes 3")
    order = oldest_first(
        [(path, part["started"][0]) for path, part in zip(paths, parts, strict=True)]
    )
    paths, parts = [paths[place] for place in order], [parts[place] for place in order]
    for place, part in enumerate(parts):
        part["source"] = np.full(len(part["status"]), place)
    machines = [part["machine"][0] for part in parts]
    columns: dict[str, Any] = {name: _joined(parts, name) for name in list(parts[0])}
    frame = pd.DataFrame({**columns, **_names(columns)}, copy=False)
    return Rows(frame=frame, runs=labelled(paths, machines))


def _warn(text: str) -> None:
    warnings.warn(text, StoreWarning, stacklevel=3)


def _bytes(path: Path) -> bytes | None:
    """Return what is in a file; None where it is too large for that, and is read by lines."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_WHOLE_BYTES + 1)
        return data if len(data) <= MOST_WHOLE_BYTES else None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from None


def _joined(parts: Sequence[dict[str, Any]], name: str) -> np.ndarray[Any, Any]:
    """Take a column out of all parts, so that it is in memory once."""
    taken = [part.pop(name) for part in parts]
    return np.concatenate(
        [one if isinstance(one, np.ndarray) else np.array(one, dtype=object) for one in taken]
    )


def _typed(data: bytes) -> dict[str, Any] | None:
    """Return the columns of a file; None where the store must say what is wrong with it."""
    if not data.startswith(_FIRST_LINE) or not data.endswith(b"\n") or b"\0" in data:
        return None
    try:
        reader = csv.reader(io.StringIO(data.decode(), newline=""), strict=True)
        rows = list(reader)[1:]
        cells = list(zip(*rows, strict=True)) if rows else [()] * len(COLUMNS)
        if len(cells) != len(COLUMNS) or any(len(row) != len(cells) for row in rows):
            return None
        if len(rows) + 1 != data.count(b"\n"):  # a row is one line
            return None
        if any(cell != str(SCHEMA_VERSION) for cell in cells[0]):
            return None
        if any(cells[HEADER.index("asked")]):  # few files have it, and its rule is a row's
            return None
        for axes in set(zip(*(cells[HEADER.index(name)] for name in _AXES), strict=True)):
            _case_name(*axes)
        return {COLUMNS[place].name: _values(place, one) for place, one in enumerate(cells)}
    except (ValueError, ArithmeticError, CaseError, csv.Error):
        return None


def _values(place: int, cells: Sequence[str]) -> np.ndarray[Any, Any]:
    """Return the values of the column at a place of the header.

    Raises:
        ValueError: a cell breaks its column's rule.
    """
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
        if column.type in (int, float):
            columns[column.name] = np.array(
                [np.nan if value is None else value for value in values], np.float64
            )
        else:
            columns[column.name] = values
    return columns


def _names(columns: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
    """Return what the tables group by: the case's name, the hardware, whether there are figures."""
    import pandas as pd

    clusters = ["" if name is None else name for name in columns["cluster"].tolist()]
    known = {name: columns[name].tolist() for name in _AXES} | {"cluster": clusters}
    axes = zip(*known.values(), strict=True)
    pairs = zip(columns["machine"].tolist(), columns["device"].tolist(), strict=True)
    statuses = columns["status"].tolist()
    named = {
        "case": np.array([_case_name(*values) for values in axes], dtype=object),
        "hardware": np.array([_hardware(*pair) for pair in pairs], dtype=object),
        **{name: columns[name] for name in ("machine", "model", "task", "status")},
    }
    return {
        "measured": np.array([status in MEASURED for status in statuses], dtype=bool),
        "framework": _frameworks(columns),
        **{name: pd.Categorical(values) for name, values in named.items()},
    }


def _frameworks(columns: Mapping[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Return name and version of what runs each row's step."""
    names = ("backend", "packages", *FRAMEWORK_COLUMNS)
    rows = zip(*(columns[name].tolist() for name in names), strict=True)
    return np.array([_framework(*values) for values in rows], dtype=object)


@functools.cache
def _framework(backend: str, packages: str | None, *versions: str | None) -> str | None:
    known = dict(zip(FRAMEWORK_COLUMNS, versions, strict=True))
    version = known.get(backend) or dict(
        part.split("==", 1) for part in (packages or "").split() if "==" in part
    ).get(backend)
    return f"{BACKENDS[backend].label} {version}" if version else None


@functools.cache
def _case_name(*values: Any) -> str:
    """Return the name of a case, from its cells or from their values.

    Raises:
        CaseError, ValueError: there is no such case.
    """
    fields = dict(zip(_AXES, values, strict=True))
    counts = {name: int(fields.pop(name)) for name in ("batch_size", "replicas")}
    return Case(**fields, **counts).name  # type: ignore[arg-type] # texts are texts here


@functools.cache
def _hardware(machine: str, device: str) -> str:
    return f"{machine} {device}"
