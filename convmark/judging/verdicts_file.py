"""The verdicts of a machine: every judgement of every run, appended as the run is judged.

    results/<machine>/verdicts.csv    one row per (run, case, metric); columns as `Judgement`

The rules of a run's file hold: an empty cell is absent, `true` or `false`, an apostrophe before a
text that a spreadsheet would take for a formula. `baseline_runs` is a list parted by spaces;
changes, intervals and the smallest visible change are shares (0.1 is 10 %).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from convmark.errors import ConvmarkError, StoreError
from convmark.judging.judgement import Judgement
from convmark.judging.tablefile import append_rows, read_rows
from convmark.record import Column, from_cell, to_cell
from convmark.store import Store

__all__ = ["append_verdicts", "read_verdicts", "said_of", "verdicts_path"]

FILE = "verdicts.csv"
_MAY_BE_EMPTY = ("note", "unit", "task", "precision", "jit", "baseline_runs")
_TYPES = {"str": str, "int": int, "float": float, "bool": bool, "tuple[str, ...]": str}


def _columns() -> list[Column]:
    columns = []
    for field in fields(Judgement):
        kind, _, optional = str(field.type).partition(" | ")
        required = not optional and field.name not in _MAY_BE_EMPTY
        columns.append(
            Column(
                name=field.name,
                type=_TYPES[kind],
                required=required,
                group="verdict",
                unit="",
                meaning="",
            )
        )
    return columns


_COLUMNS = _columns()
HEADER = [column.name for column in _COLUMNS]
_CASE = HEADER.index("case")


def verdicts_path(store: Store, machine: str) -> Path:
    """Return where a machine's verdicts are kept."""
    return store.folder / machine / FILE


def append_verdicts(path: Path, judgements: Iterable[Judgement]) -> None:
    """Append judgements; whole also where several runs do so at once.

    Raises:
        StoreError: the file cannot be written, or has other columns.
    """
    append_rows(path, HEADER, [_cells(judgement) for judgement in judgements])


def _cells(judgement: Judgement) -> list[str]:
    values = [getattr(judgement, name) for name in HEADER]
    return [to_cell(" ".join(value) if isinstance(value, tuple) else value) for value in values]


def said_of(store: Store, machine: str, run: str) -> list[Judgement]:
    """Return what was said last of each metric of a run, as its own session has judged it.

    Raises:
        StoreError: as `read_verdicts`.
    """
    last: dict[tuple[str, str], Judgement] = {}
    for one in read_verdicts(verdicts_path(store, machine)):
        if one.run == run:
            last[one.case, one.metric] = one
    return list(last.values())


def read_verdicts(path: Path, case: str | None = None) -> list[Judgement]:
    """Return the judgements, of one case or all, as they were made; none where there is no file.

    Raises:
        StoreError: the file cannot be read, or does not fit; the message names file and line.
    """
    found = []
    for line, cells in read_rows(path, HEADER):
        if case is not None and cells[_CASE] != to_cell(case):
            continue
        values: dict[str, Any] = {}
        for column, cell in zip(_COLUMNS, cells, strict=True):
            try:
                value = from_cell(column, cell)
            except ValueError as error:
                raise StoreError(f"{path}:{line}: column {column.name!r}: {error}") from None
            values[column.name] = "" if value is None and column.type is str else value
        values["baseline_runs"] = tuple(values["baseline_runs"].split())
        try:
            found.append(Judgement(**values))
        except ConvmarkError as error:
            raise StoreError(f"{path}:{line}: {error}") from None
    return found
