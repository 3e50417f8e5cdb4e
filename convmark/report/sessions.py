"""What a comparison of two sides says, as text: one line while it runs, a table at its end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from convmark.core.text import shown
from convmark.core.units import change_text
from convmark.report.markup import markdown_cell

__all__ = ["comparison_table"]

HEADERS = ("case", "B against A", "interval", "verdict", "control", "n", "note")


def comparison_table(rows: Sequence[Any], form: str = "table") -> str:
    """Return the verdicts of a comparison as a table, Markdown or JSON.

    Args:
        rows: of `convmark.compare.live.ab_files.VerdictRow`.
        form: table, markdown or json.
    """
    if form == "json":
        names = (name for name in type(rows[0]).__dataclass_fields__) if rows else ()
        fields = list(names)
        return json.dumps([{name: getattr(row, name) for name in fields} for row in rows], indent=2)
    cells = [
        (
            row.case,
            change_text(row.change),
            f"[{100 * row.low:+.1f}, {100 * row.high:+.1f}]" if row.low is not None else "",
            row.verdict,
            change_text(row.control_change),
            str(row.sessions),
            row.note or "",
        )
        for row in rows
    ]
    markdown = form == "markdown"
    kept = [0, *(i for i in range(1, len(HEADERS)) if any(row[i] for row in cells))]
    right = {"B against A", "control", "n"}
    return tabulate(
        [
            [markdown_cell(row[i], code=True) if markdown else shown(row[i]) for i in kept]
            for row in cells
        ],
        headers=[HEADERS[i] for i in kept],
        colalign=["right" if HEADERS[i] in right else "left" for i in kept],
        tablefmt="pipe" if markdown else "simple",
        disable_numparse=True,
    )
