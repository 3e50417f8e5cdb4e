"""Table: headings, rows and a caption; every printed table is made from one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from convmark.core.cells import Column
from convmark.core.errors import MeasurementError
from convmark.core.fitting import Grid, fitted, terminal_width, wrapped
from convmark.core.text import (
    bytes_text,
    change_text,
    count_text,
    load_text,
    rate_text,
    seconds_text,
    share_text,
    shown,
    spread_text,
)


def _plain_number(value: float) -> str:
    return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


KINDS: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "text": ("", str),
    "texts": ("", " ".join),
    "seconds": ("s", seconds_text),
    "bytes": ("bytes", bytes_text),
    "rate": ("samples/s", rate_text),
    "count": ("", lambda value: f"{value:,.0f}"),
    "flops": ("FLOPs", count_text),
    "flops_rate": ("FLOP/s", count_text),
    "intensity": ("FLOP/byte", _plain_number),
    "share": ("", share_text),
    "spread": ("", spread_text),
    "load": ("", load_text),
    "change": ("", change_text),
    "ratio": ("", lambda value: f"{value:.3f}" if value < 9.9995 else f"{value:.2f}"),
    "number": ("", _plain_number),
    "whole": ("", lambda value: f"{value:.0f}"),
    "figure": ("", str),
    "error": ("", lambda value: f"{value:.1e}" if value else "within rounding"),
    "score": ("", lambda value: f"{value:.4f}"),
    "flag": ("", lambda value: "yes" if value else "no"),
    "difference": ("", lambda value: f"{value:+.4f}"),
    "joules": ("J/sample", _plain_number),
    "per_joule": ("samples/J", _plain_number),
}
"""By kind of a column: the unit in which its values are stored, and how one is printed. A `figure`
is a text that stands to the right as numbers do; a `flag` is true or false, `texts` are a tuple."""


FACETS: Mapping[str, str] = {
    "model": "model",
    "task": "task",
    "batch_size": "batch",
    "device": "device",
    "backend": "backend",
    "precision": "precision",
    "framework": "version",
    "machine": "machine",
}
"""What the rows of a page are chosen by: the key of a record, and its label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """One column of a table."""

    key: str
    label: str
    kind: str = "text"
    about: str = ""
    """What it means, where the label does not say it all."""
    measured_in: str = ""
    """The unit, where the kind tells none: of a `number`, or of a `figure`."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise MeasurementError(
                f"{self.key}: kind must be one of {', '.join(KINDS)}, got {self.kind!r}"
            )

    @classmethod
    def of(cls, column: Column) -> Heading:
        """Return the heading of a column of the schema, as its declaration says."""
        label = column.title or column.name
        return cls(key=column.name, label=label, kind=column.kind, measured_in=column.unit)

    @property
    def numeric(self) -> bool:
        """Whether the column holds numbers."""
        return self.kind not in ("text", "texts", "flag")

    @property
    def unit(self) -> str:
        """The unit in which the values are stored."""
        return KINDS[self.kind][0] or self.measured_in


NAMING = frozenset(
    ("batch_size", "replicas", "threads", "limit", "process", "number", "place", "part", "target")
)
"""Keys of columns of numbers that say what a row is of."""


USUAL: Mapping[str, tuple[str, str]] = {
    "accuracy": ("accuracy", "score"),
    "accuracy_sd": ("sd", "score"),
    "batch_size": ("batch", "count"),
    "cases": ("cases", "count"),
    "change": ("change", "change"),
    "doubts": ("doubts", "text"),
    "earlier_load": ("load of earlier runs", "load"),
    "efficiency": ("efficiency", "share"),
    "epoch_time_s": ("epoch", "seconds"),
    "group": ("cases", "text"),
    "high": ("to", "change"),
    "load": ("other load", "load"),
    "loss": ("loss", "score"),
    "loss_sd": ("sd", "score"),
    "low": ("interval from", "change"),
    "n": ("n", "count"),
    "parameters": ("parameters", "count"),
    "peak_host_memory_bytes": ("host peak", "bytes"),
    "processes": ("processes", "count"),
    "replicas": ("replicas", "count"),
    "runs": ("runs", "count"),
    "spread": ("spread", "spread"),
    "step_time_p50_s": ("step p50", "seconds"),
    "throughput_samples_per_s": ("samples/s", "rate"),
    "time_to_first_step_s": ("first step", "seconds"),
}
"""Label and kind of columns that several tables have."""

SAMPLES_PER_S = (
    "samples/s is measured over windows of steps that do not wait for each other, so it is not the "
    "batch size / step p50."
)
"""Stands below tables that have both."""


def headings(keys: str, **own: str | tuple[str, ...]) -> list[Heading]:
    """Return the headings of the columns whose keys are given, divided by spaces.

    Args:
        own: by key the label of a text, or label, kind and perhaps the unit, where they are not the
            usual ones. A column that has none is a text, and its key is its label.
    """
    found = []
    for key in keys.split():
        given = own.get(key, USUAL.get(key, key.replace("_", " ")))
        label, kind, *unit = (given, "text") if isinstance(given, str) else given
        found.append(Heading(key=key, label=label, kind=kind, measured_in="".join(unit)))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What one section of a report says; a cell is None where nothing is known."""

    key: str
    title: str
    caption: str
    headings: tuple[Heading, ...]
    rows: tuple[tuple[Any, ...], ...]
    empty: str = ""
    """What is said in place of a table without rows."""
    lead: tuple[str, ...] = ()
    """What the rows amount to, a line each: it stands under the title."""
    drawing: str = ""
    """What the marks of its figure mean; it stands only where the figure does."""
    facets: tuple[tuple[str, ...], ...] = ()
    """Of each row its values by `FACETS`, empty where it has none, shown in a column or not."""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.headings):
                raise MeasurementError(
                    f"{self.key}: a row must have {len(self.headings)} cells, has {len(row)}"
                )

    def column(self, key: str) -> list[Any]:
        """Return the values of a column, None for each absent one."""
        place = [heading.key for heading in self.headings].index(key)
        return [row[place] for row in self.rows]

    def records(self) -> list[dict[str, Any]]:
        keys = [heading.key for heading in self.headings]
        return [dict(zip(keys, row, strict=True)) for row in self.rows]

    def texts(self) -> list[list[str]]:
        """Return the rows as they are printed."""
        return [
            [cell_text(heading, cell) for heading, cell in zip(self.headings, row, strict=True)]
            for row in self.rows
        ]


def cell_text(heading: Heading, value: Any) -> str:
    """Return a cell as it is printed; empty where nothing is known."""
    return "" if value is None else KINDS[heading.kind][1](value)


def table_of(
    key: str,
    title: str,
    caption: str,
    headings: Sequence[Heading],
    records: Iterable[Mapping[str, Any]],
    *,
    empty: str = "",
    keep: Iterable[str] = (),
    lead: Sequence[str] = (),
    drawing: str = "",
) -> Table:
    """Return a table of records, without the columns in which no record has a value.

    Args:
        records: by key of the headings; a missing key, None, NaN and an empty text are absent.
        keep: keys of columns that stay though they are empty.
        lead: what the rows amount to, a line each.
        drawing: what the marks of its figure mean.
    """
    records = list(records)
    rows = [[_value(record.get(heading.key)) for heading in headings] for record in records]
    kept = [
        place
        for place, heading in enumerate(headings)
        if heading.key in keep or any(row[place] is not None for row in rows)
    ]
    return Table(
        key=key,
        title=title,
        caption=caption,
        headings=tuple(headings[place] for place in kept),
        rows=tuple(tuple(row[place] for place in kept) for row in rows),
        empty=empty,
        lead=tuple(lead),
        drawing=drawing,
        facets=tuple(
            tuple(
                str(value) if (value := _value(record.get(key))) is not None else ""
                for key in FACETS
            )
            for record in records
        ),
    )


def explained(table: Table, **about: str) -> Table:
    """Return the table with a caption: the sentences, by key, of the columns that it has."""
    there = {heading.key for heading in table.headings}
    return replace(table, caption=" ".join(about[key] for key in about if key in there))


def printed(
    headings: Sequence[Heading],
    records: Iterable[Mapping[str, Any]],
    style: str = "simple",
    *,
    clean: Callable[[str], str] = shown,
    drop_empty: bool = True,
) -> str:
    """Return a table that has no title as text; as those of `table_of` and `grid`.

    Args:
        drop_empty: whether columns in which no record has a value are left out.
    """
    keep = () if drop_empty else [heading.key for heading in headings]
    first = [heading.key for heading in headings][:1]
    table = table_of("", "", "", headings, records, keep=[*first, *keep])
    return grid(table, style, clean)


def plain(table: Table) -> str:
    """Return a table for a terminal without its title, its caption below it."""
    text = grid(table, "simple", shown)
    return f"{text}\n\n{wrapped(shown(table.caption))}" if table.caption else text


def grid(table: Table, style: str, clean: Callable[[str], str]) -> str:
    """Return the headings and rows as text, those for a terminal no wider than it is.

    Args:
        style: `simple`, or `pipe` for Markdown: styles of tabulate.
        clean: makes a cell fit to stand there.
    """
    whole = Grid(
        [heading.label for heading in table.headings],
        [heading.numeric for heading in table.headings],
        [[clean(cell) for cell in row] for row in table.texts()],
        [heading.numeric and heading.key not in NAMING for heading in table.headings],
    )
    width = terminal_width() if style == "simple" else None
    drawn = partial(_drawn, style=style)
    return drawn(whole) if width is None else fitted(whole, width, drawn)


def _drawn(part: Grid, style: str) -> str:
    from tabulate import tabulate

    return str(
        tabulate(
            part.rows,
            headers=part.labels,
            colalign=["right" if numeric else "left" for numeric in part.numeric],
            tablefmt=style,
            disable_numparse=True,
        )
    )


def _value(value: Any) -> Any:
    """Return a plain Python value, None for what is absent; a whole number as int."""
    if value is None or value == "":
        return None
    if isinstance(value, (str, bool, tuple)):
        return value
    number = float(value)
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() and abs(number) < 2**53 else number
