"""What a comparison of two sides says, as text: one line while it runs, a table at its end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

from convmark.core.table import heading, printed
from convmark.core.text import markdown_cell

__all__ = ["comparison_table"]


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
    headings = [
        heading("case", "case"),
        heading("change", "B against A", "change"),
        heading("interval", "interval"),
        heading("verdict", "verdict"),
        heading("control_change", "control", "change"),
        heading("sessions", "n", "count"),
        heading("note", "note"),
    ]
    records = [
        {
            **{one.key: getattr(row, one.key) for one in headings if one.key != "interval"},
            "interval": f"[{100 * row.low:+.1f}, {100 * row.high:+.1f}]"
            if row.low is not None
            else "",
        }
        for row in rows
    ]
    if form == "markdown":
        return printed(headings, records, "pipe", clean=partial(markdown_cell, code=True))
    return printed(headings, records)
