"""Tables as text for a terminal, as Markdown, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from tabulate import tabulate

from convmark.record import to_cell
from convmark.report.markup import markdown_cell, markdown_prose
from convmark.report.tables.table import Table
from convmark.text import shown

__all__ = ["CSV_HEADER", "csv_text", "markdown_text", "terminal_text"]

CSV_HEADER = ("table", "row", "column", "unit", "value")


def terminal_text(tables: Sequence[Table]) -> str:
    """Return the tables one below the other, each under its title, its caption below it."""
    return "\n\n".join(
        f"{shown(table.title)}\n{'=' * len(shown(table.title))}\n\n{_grid(table, 'simple')}\n\n"
        f"{shown(table.caption)}"
        for table in tables
    )


def markdown_text(tables: Sequence[Table], *, folded: Sequence[Table] = ()) -> str:
    """Return the tables as Markdown, `folded` ones below in a `<details>` each."""
    open_parts = [
        f"## {markdown_prose(table.title)}\n\n{_grid(table, 'pipe')}\n\n"
        f"{markdown_prose(table.caption)}"
        for table in tables
    ]
    folded_parts = [
        f"<details><summary>{markdown_prose(table.title)}</summary>\n\n{_grid(table, 'pipe')}\n\n"
        f"{markdown_prose(table.caption)}\n\n</details>"
        for table in folded
    ]
    return "\n\n".join([*open_parts, *folded_parts])


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
    clean = markdown_cell if style == "pipe" else shown
    return tabulate(
        [[clean(cell) for cell in row] for row in table.texts()],
        headers=[heading.label for heading in table.headings],
        colalign=["right" if heading.numeric else "left" for heading in table.headings],
        tablefmt=style,
        disable_numparse=True,
    )
