"""Roofline: the speed of each case against the measured ceilings of its hardware.

Source:
    Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for
    multicore architectures" (2009): attainable FLOP/s = min(peak, FLOP per byte x bytes/s).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from convmark.core.table import Table, heading, table_of
from convmark.core.tasks import TASKS
from convmark.report.tables.architectures import setting
from convmark.report.tables.points import latest, records_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["attainable", "bytes_per_sample", "roofline"]

CEILINGS = ("peak_flops_per_s", "peak_bytes_per_s")
_COLUMNS = (
    *("hardware", "model", "task", "batch_size", "precision", "jit", "threads", "replicas"),
    "cluster",
    *("backend", "runtime", "throughput_samples_per_s", "flops_per_sample", "parameters", "n"),
    *("bytes_per_sample", "training_flops_per_sample", *CEILINGS),
    *("machine", "device", "framework"),
)


def attainable(intensity: float, peak_flops_per_s: float, peak_bytes_per_s: float) -> float:
    """Return the most FLOP/s that the ceilings allow at so many FLOP per byte."""
    return min(peak_flops_per_s, intensity * peak_bytes_per_s)


def bytes_per_sample(
    traffic_elements: int, parameters: float, batch_size: float, precision: str
) -> float:
    """Return the bytes that a forward pass must move per sample, bytes.

    Every layer reads its inputs and its weights and writes its output once; a step's samples
    share the weights. Caches hold some of it and kernels move some twice: an estimate.
    """
    element = max(map(_element_bytes, precision.split("+")))
    return element * (traffic_elements + parameters / batch_size)


def _element_bytes(precision: str) -> int:
    """Return the bytes of what layers of a precision compute in: 2 of mixed_float16."""
    computed = precision.partition("_from_")[0]
    bits = re.search(r"\d+", computed)
    return max(1, int(bits.group()) // 8) if bits else 4


def roofline(table: pd.DataFrame, traffic_elements: Mapping[str, int | None]) -> Table:
    """Return the newest figures of the cases whose ceilings, FLOPs and bytes are all known.

    Args:
        traffic_elements: by model, of those that were described; a column `bytes_per_sample`
            of the rows comes before it.
    """
    known = all(name in table for name in CEILINGS)
    rows = records_of(latest(table), _COLUMNS) if known else []
    records = []
    for row in rows:
        moved = _bytes(row, traffic_elements.get(str(row["model"])))
        alone = row["replicas"] == 1  # the ceilings are one device's
        needed = (*CEILINGS, "flops_per_sample", _work(row))
        if alone and moved and all((row.get(name) or 0) > 0 for name in needed):
            records.append(_record(row, moved))
    records.sort(key=lambda row: (row["group"], row["model"]))
    return table_of(
        "roofline",
        "Roofline",
        "FLOP per byte against FLOP/s, under the ceilings that were measured on the same "
        "hardware. FLOP/s are those of the steps; a case in training is left out where its "
        "backward pass could not be counted. FLOP per byte is that of the forward pass. Bytes are "
        "an estimate for models that were described (convmark run --describe): every layer reads "
        "its inputs and weights and writes its output once. Both axes are logarithmic.",
        [
            heading("model", "model"),
            heading("group", "cases"),
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


def _bytes(row: Mapping[str, Any], traffic: int | None) -> float | None:
    """Return the bytes of a forward pass; None where they are not known."""
    told = row.get("bytes_per_sample")
    if told is not None and told > 0:
        return float(told)
    if traffic is None or not row["parameters"] >= 0:
        return None
    return bytes_per_sample(traffic, row["parameters"], row["batch_size"], row["precision"])


def _work(row: Mapping[str, Any]) -> str:
    """Return the column of what a step computes."""
    return "training_flops_per_sample" if TASKS[row["task"]].trains else "flops_per_sample"


def _record(row: dict[str, Any], moved: float) -> dict[str, Any]:
    intensity = row["flops_per_sample"] / moved
    reached = row[_work(row)] * row["throughput_samples_per_s"]
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
