"""Tables of batch sizes, the distribution of the step time, and replicas."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from convmark.core.statistics import scaling_efficiency
from convmark.core.table import Table, heading, table_of
from convmark.report.tables.architectures import setting
from convmark.report.tables.points import latest, records_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["QUANTILES", "batch_sizes", "distribution", "scaling"]

QUANTILES = ("min", "p10", "p25", "p50", "p75", "p90", "p95", "p99", "max")

_AXES = (
    "hardware",
    "model",
    "task",
    "batch_size",
    "precision",
    "jit",
    "threads",
    "backend",
    "runtime",
)
_COLUMNS = (
    *(*_AXES, "replicas", "cluster", "case", "throughput_samples_per_s", "n", "load"),
    *("machine", "device", "framework"),
    *(f"step_time_{name}_s" for name in QUANTILES),
)


def _groups(
    rows: Iterable[dict[str, Any]], but: Sequence[str]
) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Return the rows that agree in all axes but those named."""
    names = [name for name in (*_AXES, "replicas", "cluster") if name not in but]
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    return found


def batch_sizes(table: pd.DataFrame) -> Table:
    """Return the newest figures of what was measured at two batch sizes or more."""
    groups = _groups(records_of(latest(table), _COLUMNS), but=["batch_size"])
    records = []
    for rows in groups.values():
        if len({row["batch_size"] for row in rows}) > 1:
            first = rows[0]
            series = ", ".join(filter(None, [first["hardware"], first["task"], setting(first)]))
            records += [{**row, "series": series} for row in rows]
    records.sort(key=lambda row: (row["model"], row["series"], row["batch_size"]))
    return table_of(
        "batch",
        "Batch size against throughput and step time",
        "The newest figures of each batch size: throughput is the median over processes of the "
        "samples per second in windows, the step time the median of medians. Both axes are "
        "logarithmic.",
        [
            heading("model", "model"),
            heading("series", "measured"),
            heading("batch_size", "batch", "count"),
            heading("throughput_samples_per_s", "samples/s", "rate"),
            heading("step_time_p50_s", "step p50", "seconds"),
            heading("load", "other load", "share"),
            heading("n", "n", "count"),
        ],
        records,
        empty="No model was measured at two batch sizes.",
    )


def distribution(table: pd.DataFrame) -> Table:
    """Return the quantiles of the step time of each case's newest run."""
    records = []
    for row in records_of(latest(table), _COLUMNS):
        figures = {name: row[f"step_time_{name}_s"] for name in QUANTILES}
        words = [row["hardware"], row["task"], f"batch {int(row['batch_size'])}", setting(row)]
        group = ", ".join(filter(None, words))
        records.append({**row, "group": group, **figures})
    records.sort(key=lambda row: (row["group"], row["model"]))
    return table_of(
        "distribution",
        "Distribution of the step time",
        "Of the newest run of each case: each quantile is the median over processes of the "
        "process's own. In inference this is the latency. The bar spans the middle half of the "
        "steps, the line p10 to p90; p95 needs 100 steps, p99 1,000.",
        [
            heading("model", "model"),
            heading("group", "cases"),
            *(heading(name, name, "seconds") for name in QUANTILES),
            heading("load", "other load", "share"),
            heading("n", "n", "count"),
        ],
        records,
    )


def scaling(table: pd.DataFrame) -> Table:
    """Return the efficiency of each number of replicas against one replica of the same case."""
    groups = _groups(records_of(latest(table), _COLUMNS), but=["replicas", "cluster"])
    records = []
    for rows in groups.values():
        known = [row for row in rows if row["throughput_samples_per_s"] > 0]
        single = next((row for row in known if row["replicas"] == 1), None)
        if single is None:
            continue
        spread = [row for row in known if row["replicas"] > 1]
        for cluster in sorted({str(row["cluster"]) for row in spread}):
            same = [single, *(row for row in spread if row["cluster"] == cluster)]
            records += [_efficiency(row, single, cluster) for row in same]
    records.sort(key=lambda row: (row["series"], row["replicas"]))
    return table_of(
        "scaling",
        "Scaling over replicas",
        "Efficiency is the throughput over that of one replica, over the number of replicas: 100 % "
        "is perfect. The batch size is per replica.",
        [
            heading("series", "case"),
            heading("replicas", "replicas", "count"),
            heading("throughput_samples_per_s", "samples/s", "rate"),
            heading("efficiency", "efficiency", "share"),
            heading("n", "n", "count"),
        ],
        records,
    )


def _efficiency(row: dict[str, Any], single: dict[str, Any], cluster: str) -> dict[str, Any]:
    """Return a row of the series of the case on one hardware and one way of spreading it."""
    alone = {**row, "replicas": 1}
    # replicas have a device each, so the device's number is no part of the series
    machine = str(row["hardware"]).partition(":")[0]
    words = [machine, row["model"], row["task"], f"batch {int(row['batch_size'])}", setting(alone)]
    ratio = scaling_efficiency(
        row["throughput_samples_per_s"], int(row["replicas"]), single["throughput_samples_per_s"]
    )
    return {**row, "series": ", ".join(filter(None, [*words, cluster])), "efficiency": ratio}
