"""Roofline: what a case reaches, against what the measured ceilings of its hardware allow.

Source:
    Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for
    multicore architectures" (2009): attainable FLOP/s = min(peak, FLOP per byte x bytes/s).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convmark.report.tables.architectures import setting
from convmark.report.tables.points import latest, records_of
from convmark.report.tables.table import Table, heading, table_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["STEP_FLOPS", "attainable", "roofline"]

STEP_FLOPS = {"infer": 1, "train": 3}
"""Forward FLOPs in a step: training computes two gradients of about a forward pass each."""

CEILINGS = ("peak_flops_per_s", "peak_bytes_per_s")
_COLUMNS = (
    *("hardware", "model", "task", "batch_size", "precision", "jit", "threads", "replicas"),
    *("backend", "throughput_samples_per_s", "flops_per_sample", "bytes_per_sample", "n"),
    *CEILINGS,
)


def attainable(intensity: float, peak_flops_per_s: float, peak_bytes_per_s: float) -> float:
    """Return the most FLOP/s that the ceilings allow at so many FLOP per byte."""
    return min(peak_flops_per_s, intensity * peak_bytes_per_s)


def roofline(table: pd.DataFrame) -> Table:
    """Return the newest figures of the cases whose ceilings, FLOPs and bytes are all known."""
    needed = (*CEILINGS, "flops_per_sample", "bytes_per_sample")
    known = all(name in table for name in needed)
    rows = records_of(latest(table), _COLUMNS) if known else []
    records = [_record(row) for row in rows if all(row[name] > 0 for name in needed)]
    records.sort(key=lambda row: (row["group"], row["model"]))
    return table_of(
        "roofline",
        "Roofline",
        "FLOP per byte against FLOP/s, under the ceilings that were measured on the same "
        "hardware. FLOPs are the forward pass's, three times those in training; bytes are those "
        "that the column bytes_per_sample tells. Both axes are logarithmic.",
        [
            heading("group", "cases"),
            heading("model", "model"),
            heading("intensity", "FLOP/byte", "intensity"),
            heading("flops_per_s", "FLOP/s", "flops_rate"),
            heading("attainable_flops_per_s", "attainable", "flops_rate"),
            heading("share", "share of it", "share"),
            heading("peak_flops_per_s", "peak FLOP/s", "flops_rate"),
            heading("peak_bytes_per_s", "peak bytes/s", "bytes"),
            heading("n", "n", "count"),
        ],
        records,
    )


def _record(row: dict[str, Any]) -> dict[str, Any]:
    flops = row["flops_per_sample"] * STEP_FLOPS[row["task"]]
    intensity = flops / row["bytes_per_sample"]
    reached = flops * row["throughput_samples_per_s"]
    limit = attainable(intensity, row["peak_flops_per_s"], row["peak_bytes_per_s"])
    words = [row["hardware"], row["task"], f"batch {int(row['batch_size'])}", setting(row)]
    return {
        **row,
        "group": ", ".join(filter(None, words)),
        "intensity": intensity,
        "flops_per_s": reached,
        "attainable_flops_per_s": limit,
        "share": reached / limit,
    }
