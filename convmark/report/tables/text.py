"""Tables as text for a terminal, as Markdown, and as CSV."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Sequence

from convmark.core.cells import to_cell
from convmark.core.fitting import wrapped
from convmark.core.table import Table, grid
from convmark.core.text import markdown_cell, shown

__all__ = ["CSV_HEADER", "csv_text", "markdown_text", "terminal_text"]

CSV_HEADER = ("table", "row", "column", "unit", "value")

WHOLE = "`convmark report -o report.html`"
"""What shows every row."""


def terminal_text(tables: Sequence[Table]) -> str:
    """Return the tables one below the other, each under its title, its caption below it."""
    return "\n\n".join(
        f"{shown(table.title)}\n{'=' * len(shown(table.title))}\n\n"
        + "".join(f"{wrapped(shown(line))}\n\n" for line in table.lead)
        + f"{_grid(table, 'simple')}\n\n{wrapped(shown(table.caption))}"
        for table in tables
    )


def markdown_text(
    tables: Sequence[Table], *, folded: Sequence[Table] = (), most_bytes: int | None = None
) -> str:
    """Return the tables as Markdown, `folded` ones below in a `<details>` each.

    Args:
        most_bytes: of the whole text; a folded table that would exceed it says so in its place.
    """
    parts = [f"## {_prose(table.title)}\n\n{_body(table)}" for table in tables]
    left = None if most_bytes is None else most_bytes - sum(map(_bytes_of, parts))
    for table in folded:
        part = _folded(table, _body(table))
        if left is not None and _bytes_of(part) > left:
            part = _folded(table, f"Too long for here. {WHOLE} has it.")
        if left is not None:
            left -= _bytes_of(part)
        parts.append(part)
    return "\n\n".join(parts)


def _body(table: Table) -> str:
    lead = "".join(f"{markdown_cell(line)}\n\n" for line in table.lead)
    return f"{lead}{_grid(table, 'pipe')}\n\n{_prose(table.caption)}"


def _folded(table: Table, text: str) -> str:
    summary = f"{_prose(table.title)}: {_count(table)}"
    return f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>"


def _bytes_of(part: str) -> int:
    return len(part.encode()) + 2  # and the empty line behind it


def _count(table: Table) -> str:
    """Return how many rows a reader would unfold."""
    return f"{len(table.rows):,} row{'s' * (len(table.rows) != 1)}" if table.rows else "none"


def csv_text(tables: Sequence[Table]) -> str:
    """Return all cells of all tables as one CSV: table, row from 1, column, unit, value.

    Values are unrounded in the stored unit; absent cells have no line. A text that a spreadsheet
    would take for a formula has an apostrophe before it.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for table in tables:
        for number, row in enumerate(table.rows, 1):
            for heading, value in zip(table.headings, row, strict=True):
                if value is not None:
                    cells = (table.key, number, heading.key, heading.unit, to_cell(value))
                    writer.writerow(cells)
    return text.getvalue().removesuffix("\n")


def _grid(table: Table, style: str) -> str:
    if not table.rows:
        return table.empty or "nothing to show"
    return grid(table, style, markdown_cell if style == "pipe" else shown)


def _prose(text: str) -> str:
    """Return a title or a caption as one line without HTML."""
    return html.escape(shown(text), quote=False)
