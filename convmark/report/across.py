"""One table of the same cases over the values of a column, such as TensorFlow's version."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from convmark.core.backends import BACKENDS
from convmark.core.case import Case
from convmark.core.statistics import spread
from convmark.core.table import heading, printed
from convmark.core.tasks import TIMED_TASKS
from convmark.core.text import markdown_cell, natural_order
from convmark.results.record import Record, to_cell

__all__ = ["COLUMNS", "FORMS", "Cell", "across", "across_report"]

COLUMNS = ("tensorflow", "keras", "python", "backend", "commit", "machine", "gpu", "driver")
"""The columns that a table may run over."""

_AGELESS = ("backend", "machine", "gpu")
"""Columns none of whose values is older than another: all are set beside the first."""

FORMS = ("table", "markdown", "csv", "json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One case at one value; medians over processes. Changes are shares of the step time."""

    case: str
    value: str
    run: str
    """The newest run that has it."""
    processes: int
    throughput_samples_per_s: float | None
    step_time_p50_s: float | None
    step_time_spread: float | None
    """Half the range of the processes' medians over their median; None from one process."""
    time_to_first_step_s: float | None
    peak_host_memory_bytes: float | None
    parameters: int | None
    to_oldest: float | None
    """step time / that of the first value - 1; None for the first value."""
    to_previous: float | None
    """step time / that of the value before - 1; None where no value is older than another."""


def across(records: Iterable[Record], column: str) -> list[Cell]:
    """Return a cell per case and value; the newest run speaks.

    Versions are in their order, commits in that of their first runs, backends in that of
    `BACKENDS`, machines and GPUs in that of their names.

    Args:
        records: measured rows, in the order of their runs.
        column: one of `COLUMNS`.
    """
    newest: dict[tuple[str, str], list[Record]] = {}
    first_seen: dict[str, int] = {}
    for record in records:
        value = str(getattr(record, column) or "")
        if not record.measured or not value or record.task not in TIMED_TASKS:
            continue
        key = (_name(record, column), value)
        first_seen.setdefault(value, len(first_seen))
        if key in newest and newest[key][0].run != record.run:
            newest[key] = []
        newest.setdefault(key, []).append(record)
    in_order: Callable[[str], Any] = _ORDERS.get(column, natural_order)
    if column == "commit":
        in_order = first_seen.__getitem__
    cells: list[Cell] = []
    for name in sorted({name for name, _ in newest}):
        values = sorted((value for case, value in newest if case == name), key=in_order)
        oldest_s = previous_s = None
        for value in values:
            rows = newest[name, value]
            step_s = _middle(rows, lambda row: row.step_time_p50_s)
            to_previous = None if column in _AGELESS else _change(step_s, previous_s)
            cells.append(_cell(name, value, rows, _change(step_s, oldest_s), to_previous))
            oldest_s, previous_s = oldest_s or step_s, step_s or previous_s
    return cells


def _name(record: Record, column: str) -> str:
    """Return the case's name, without what the table runs over."""
    if column == "backend":
        return Case(
            **{**record.case.as_fields(), "backend": Case.__dataclass_fields__["backend"].default}
        ).name
    return record.case.name


_ORDERS: Mapping[str, Callable[[str], Any]] = {
    "backend": lambda value: [*BACKENDS, value].index(value),
    "machine": str,
    "gpu": str,
}


def _cell(
    name: str,
    value: str,
    rows: Sequence[Record],
    to_oldest: float | None,
    to_previous: float | None,
) -> Cell:
    return Cell(
        case=name,
        value=value,
        run=rows[0].run,
        processes=len(rows),
        throughput_samples_per_s=_middle(rows, lambda row: row.throughput_samples_per_s),
        step_time_p50_s=_middle(rows, lambda row: row.step_time_p50_s),
        step_time_spread=spread(_values(rows, lambda row: row.step_time_p50_s)),
        time_to_first_step_s=_middle(rows, lambda row: row.time_to_first_step_s),
        peak_host_memory_bytes=_middle(rows, lambda row: row.peak_host_memory_bytes),
        parameters=rows[0].parameters,
        to_oldest=to_oldest,
        to_previous=to_previous,
    )


def _values(rows: Sequence[Record], figure: Callable[[Record], float | None]) -> list[float]:
    return [value for row in rows if (value := figure(row)) is not None]


def _middle(rows: Sequence[Record], figure: Callable[[Record], float | None]) -> float | None:
    values = _values(rows, figure)
    return float(median(values)) if values else None


def _change(value: float | None, before: float | None) -> float | None:
    return value / before - 1 if value and before else None


def across_report(cells: Sequence[Cell], column: str, form: str = "table") -> str:
    """Return the cells in one of `FORMS`."""
    names = list(Cell.__dataclass_fields__)
    if form == "json":
        return json.dumps(
            [{name: getattr(cell, name) for name in names} for cell in cells], indent=2
        )
    if form == "csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([to_cell(getattr(cell, name)) for name in names] for cell in cells)
        return text.getvalue().rstrip("\n")
    changes = ["to the oldest", "to the one before"]
    if column in _AGELESS:
        changes = ["to the first"]
    headings = [
        heading("case", "case"),
        heading("value", column),
        heading("throughput_samples_per_s", "samples/s", "rate"),
        heading("step_time_p50_s", "step p50", "seconds"),
        heading("step_time_spread", "spread", "share"),
        *(
            heading(name, label, "change")
            for name, label in zip(("to_oldest", "to_previous"), changes, strict=False)
        ),
        heading("time_to_first_step_s", "first step", "seconds"),
        heading("peak_host_memory_bytes", "host peak", "bytes"),
        heading("parameters", "parameters", "count"),
        heading("processes", "n", "count"),
    ]
    before = ["", *(cell.case for cell in cells)]
    records = [
        {
            **{name: getattr(cell, name) for name in names},
            "case": cell.case if cell.case != last else "",
        }
        for cell, last in zip(cells, before, strict=False)
    ]
    if form == "markdown":
        return printed(headings, records, "pipe", clean=markdown_cell, drop_empty=False)
    return printed(headings, records, drop_empty=False)
