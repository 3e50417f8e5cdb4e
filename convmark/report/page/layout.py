"""How a table is laid out on the page: its columns, the values that all rows share, its facets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from convmark.core.table import FACETS, Heading, Table, cell_text
from convmark.core.text import natural_order
from convmark.report.tables.answers import CHANGED, FASTEST, RATIOS, TRUST
from convmark.report.tables.hardware import GEOMETRIC_MEAN

MAIN = {
    *("model", "case", "step_time_p50_s", "throughput_samples_per_s", "spread", "load"),
    *("speedup", "accuracy", "p50", "step_s", "share", "efficiency", "change", "verdict"),
    *("run", "first", "kind", "detail", "cost", "cost_epoch", "gross_j", "mean_s", "mean_rate"),
}
"""Columns that a narrow window keeps longest; the first column always stays."""

WHO = {
    *("task", "batch_size", "setting", "hardware", "group", "series", "direction", "way"),
    *("threads", "replicas", "doubts", "comparison", "a", "b"),
}
"""Columns that say what a row is of: where the window has no room, below the first cell."""

MOST_WIDTH, MOST_NAME = 14, 30
"""Characters of a text column that are never broken, longer texts wrap; and of a word with hyphens,
such as a machine's name, for which a wide window has room."""


SEEN = 200
"""Rows that tell the width of the columns where a script fills the table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The parts of one table."""

    same: tuple[tuple[Heading, Any, str], ...]
    """Columns in which every row has the same value, the value, and how it is printed."""
    headings: tuple[Heading, ...]
    classes: tuple[str, ...]
    """Of each column: to the right for numbers, and the width that a text keeps."""
    rows: tuple[tuple[tuple[Heading, Any, str], ...], ...]
    """Per row the cells of the columns that differ, each with its text."""


def layout(table: Table, *, whole: bool = False) -> Layout:
    """Return a table's parts; a column in which all rows agree is named once, above the table.

    Args:
        whole: whether every column stays, and rows are left out as a script fills them in.
    """
    columns = list(zip(*(table.rows[:SEEN] if whole else table.rows), strict=True))
    same = [] if whole or len(table.rows) < 2 else _same(columns)
    # without an end of an interval whose other end is not among them
    keys = [heading.key for heading in table.headings]
    lone = set(keys) - {keys[place] for place in same}
    ends = {key: "_".join(_ENDS.get(word, word) for word in key.split("_")) for key in keys}
    same = [place for place in same if ends[keys[place]] not in lone]
    kept = [place for place in range(len(table.headings)) if place not in same]
    texts = [
        [cell_text(heading, value) for value in column]
        for heading, column in zip(table.headings, columns, strict=False)
    ]
    rows = [] if whole else range(len(table.rows))
    return Layout(
        same=tuple((table.headings[at], columns[at][0], texts[at][0]) for at in same),
        headings=tuple(table.headings[at] for at in kept),
        classes=tuple(_class(table.headings[at], texts[at] if texts else []) for at in kept),
        rows=tuple(
            tuple((table.headings[at], table.rows[row][at], texts[at][row]) for at in kept)
            for row in rows
        ),
    )


def _same(columns: Sequence[Sequence[Any]]) -> list[int]:
    """Return the places of columns with one value, but never the first."""
    return [
        place
        for place, values in enumerate(columns)
        if place and values[0] is not None and all(value == values[0] for value in values)
    ]


_ENDS = {"low": "high", "high": "low"}


def _class(heading: Heading, texts: Sequence[str]) -> str:
    main = " main" if heading.key in MAIN else " who" if heading.key in WHO else ""
    if heading.numeric:
        return f"n{main}"
    longest = max(map(len, texts), default=0)
    names = (len(word) for text in texts for word in text.split() if "-" in word)
    width = min(MOST_WIDTH, max(longest, len(heading.label)))
    return f"w{max(width, min(MOST_NAME, max(names, default=0)))}{main}"


# Facets


@dataclass(frozen=True, slots=True, kw_only=True)
class Facet:
    """One thing that rows are chosen by, and the values that occur."""

    label: str
    values: tuple[str, ...]


class Facets:
    """The values of all rows of all tables, each combination once."""

    def __init__(self, tables: Sequence[Table]) -> None:
        """Collect the combinations that occur."""
        found = dict.fromkeys(row for table in tables for row in table.facets)
        self._places = {row: place for place, row in enumerate(found)}
        values = list(zip(*found, strict=True)) or [()] * len(FACETS)
        no_choice = {"", GEOMETRIC_MEAN}  # a mean over models is none of them
        occurring = [sorted(set(column) - no_choice, key=natural_order) for column in values]
        self._all = [
            Facet(label=label, values=tuple(column))
            for label, column in zip(FACETS.values(), occurring, strict=True)
        ]

    def __iter__(self) -> Iterator[Facet]:
        """Yield the facets in which rows differ."""
        return (facet for facet in self._all if len(facet.values) > 1)

    def place(self, row: tuple[str, ...]) -> int:
        """Return the number of a row's combination."""
        return self._places[row]

    def as_data(self) -> dict[str, Any]:
        """Return labels and combinations for the page's script."""
        return {
            "labels": list(FACETS.values()),
            "values": {facet.label: list(facet.values) for facet in self},
            "rows": [list(row) for row in self._places],
        }


# Tiles and notes


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One answer; of each line what it is of, what was found, and the detail."""

    title: str
    section: str
    """The key of the table that has more of it."""
    lines: tuple[Mapping[str, str], ...]


_SECTIONS = {FASTEST: "architectures", RATIOS: "hardware", CHANGED: "history", TRUST: "troubles"}


def tiles(table: Table) -> list[Tile]:
    records = [{**row, "detail": row.get("detail") or ""} for row in table.records()]
    return [
        Tile(title=title, section=_SECTIONS.get(title, ""), lines=tuple(rows))
        for title, rows in groupby(records, key=lambda row: row["answer"])
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """The data-quality notes of one kind."""

    what: str
    cause: str
    table: Table


def kinds(table: Table, causes: Mapping[str, str]) -> list[Kind]:
    """Return the notes by kind, in the order of the table, each with its cause."""
    what = table.column("what") if table.rows else []
    places = groupby(range(len(what)), key=what.__getitem__)
    return [
        Kind(what=word, cause=causes.get(word, ""), table=_part(table, list(rows)))
        for word, rows in places
    ]


def _part(table: Table, places: Sequence[int]) -> Table:
    """Return some rows of the notes, without the word of their kind."""
    return Table(
        key=table.key,
        title=table.title,
        caption="",
        headings=table.headings[1:],
        rows=tuple(table.rows[place][1:] for place in places),
        facets=tuple(table.facets[place] for place in places),
    )
