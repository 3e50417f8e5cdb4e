"""Whether a ratio that is shown is that of the figures shown beside it; not a test itself."""

from __future__ import annotations

import re
from typing import Any

from report_rows import measured

from convmark.core.table import Table
from convmark.results.record import Record

__all__ = ["agree", "shown_rows", "skewed"]

UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "": 1.0}
SKEW = (1.0, 1.1, 4.0)
"""Times of three processes: their median is 1.1, the geometric mean 1.64, the mean 2.03."""


def skewed(machine: str, run: int, model: str, step_s: float, **changes: Any) -> list[Record]:
    """Return three processes of a case whose mean, median and geometric mean are far apart."""
    batch = changes.get("batch_size", 32) * changes.get("replicas", 1)
    return [
        measured(
            machine, run, model, number, step_s=step_s * skew,
            **{"throughput_samples_per_s": batch / step_s / skew, "code": "c1",
               "tensorflow": "2.21.0", **changes},
        )
        for number, skew in enumerate(SKEW, 1)
    ]  # fmt: skip


def _ends(text: str) -> tuple[float, float]:
    """Return between what a figure lies that is printed so."""
    found = re.fullmatch(r"([\d,]+)(\.\d+)?(?: ?(s|ms|us))?", text)
    assert found, text
    half = 0.5 * 10 ** -(len(found[2] or ".") - 1)
    value, unit = float(f"{found[1]}{found[2] or ''}".replace(",", "")), UNITS[found[3] or ""]
    return (value - half) * unit, (value + half) * unit


def agree(ratio: float, digits: int, over: str, under: str) -> bool:
    """Whether a ratio, printed to some decimals, may be that of two printed figures."""
    (least_over, most_over), (least_under, most_under) = _ends(over), _ends(under)
    half = 0.5 * 10**-digits
    return least_over / most_under <= ratio + half and ratio - half <= most_over / least_under


def shown_rows(table: Table) -> list[dict[str, str]]:
    """Return the rows by key as they are printed."""
    keys = [heading.key for heading in table.headings]
    return [dict(zip(keys, row, strict=True)) for row in table.texts()]
