"""What change this machine lets be seen, case by case, as `convmark noise` has found it.

results/<machine>/noise.csv    one row per case and number of threads, for each time it was asked
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convmark.cells import columns_of, from_cell, to_cell
from convmark.errors import StoreError
from convmark.judging.tablefile import append_rows, read_rows

__all__ = ["FILE", "NoiseRow", "append_noise", "read_noise"]

FILE = "noise.csv"


def _column(unit: str, meaning: str) -> Any:
    return field(metadata={"group": "noise", "unit": unit, "meaning": meaning})


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseRow:
    """An A/A of one case; changes are shares, 0.05 is 5 % slower."""

    measured: str = _column("UTC, ISO 8601", "when it ended")
    convmark: str = _column("", "version")
    case: str = _column("", "name of the case, its threads among it")
    cases: int = _column("", "cases of the suite, which share time and error rate")
    sessions: int = _column("", "sessions of two copies of one code")
    session_s: float | None = _column("s", "median of a session, with start and builds")
    scatter: float | None = _column("", "root mean square of the sessions' log ratios")
    mean: float | None = _column("", "mean of the sessions' log ratios; the truth is 0")
    budget_s: float = _column("s", "time for all cases that the next two columns are for")
    found_from: float | None = _column("", "smallest slowdown that is called one in 95 of 100")
    rules_out: float | None = _column("", "change that unchanged rules out in 95 of 100")
    seconds_for_3_percent: float | None = _column("s", "until 3 % is called slower, 8 of 10 times")
    seconds_for_5_percent: float | None = _column("s", "the same of 5 %")
    seconds_for_10_percent: float | None = _column("s", "the same of 10 %")
    note: str | None = _column("", "why sessions are few, or took two processes; what disturbed")


_COLUMNS = columns_of(NoiseRow)
_HEADER = [column.name for column in _COLUMNS]


def append_noise(path: Path, rows: Iterable[NoiseRow]) -> None:
    """Append rows to a file.

    Raises:
        StoreError: it cannot be written, or has other columns.
    """
    cells = [[to_cell(getattr(row, column.name)) for column in _COLUMNS] for row in rows]
    append_rows(path, _HEADER, cells)


def read_noise(path: Path) -> dict[str, NoiseRow]:
    """Return the newest row of each case by its name; none where there is no file.

    Raises:
        StoreError: it does not fit; the message names file and line.
    """
    found = {}
    for line, cells in read_rows(path, _HEADER):
        pairs = zip(_COLUMNS, cells, strict=True)
        try:
            row = NoiseRow(**{column.name: from_cell(column, cell) for column, cell in pairs})
        except ValueError as error:
            raise StoreError(f"{path}:{line}: {error}") from None
        found[row.case] = row
    return found
