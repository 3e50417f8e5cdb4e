"""What a comparison of two sides says, as text: one line while it runs, a table at its end."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from convmark.report.markup import markdown_cell
from convmark.report.units import share_text
from convmark.text import shown

__all__ = ["change_text", "comparison_table", "interval_text"]

HEADERS = ("case", "B against A", "interval", "verdict", "by", "control", "n", "note")


def interval_text(estimate: float, low: float, high: float) -> str:
    """Return a change and its interval, log ratios, as per cent."""
    return f"{_percent(estimate)} % [{_percent(low)}, {_percent(high)}]"


def _percent(log_ratio: float) -> str:
    return f"{100 * math.expm1(log_ratio):+.1f}" if abs(log_ratio) < 50 else f"{log_ratio:+.0e}"


def change_text(share: float | None) -> str:
    """Return a change, a share, with its sign."""
    return "" if share is None else f"{'+' if share >= 0 else '-'}{share_text(abs(share))}"


def comparison_table(rows: Sequence[Any], form: str = "table") -> str:
    """Return the verdicts of a comparison as a table, Markdown or JSON.

    Args:
        rows: of `convmark.lockstep.ab_files.VerdictRow`.
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
            row.decided_by or "",
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
