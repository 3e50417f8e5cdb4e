"""Architectures on each hardware: the newest figures of every case; the Pareto front among them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convmark.core.backends import DEFAULT_BACKEND
from convmark.core.runtimes import DEFAULT_RUNTIME
from convmark.core.table import Heading, Table, heading, table_of
from convmark.core.tasks import TASKS, Task
from convmark.report.tables.points import latest, records_of, text_of
from convmark.results.record import shown_in

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["architectures", "pareto", "pareto_front", "setting", "task_figures"]

_FIGURES = shown_in(
    "architectures",
    first=(
        *("step_time_p50_s", "throughput_samples_per_s", "input_bound_throughput_samples_per_s"),
        *("step_time_p99_s", "time_to_first_step_s", "peak_host_memory_bytes"),
        *("peak_device_memory_bytes", "parameters", "flops_per_sample", "flops_note"),
        *("training_flops_per_sample", "model_bytes", "joules_per_sample", "efficiency"),
    ),
)
_AXES = (
    *("hardware", "model", "task", "batch_size", "precision", "jit", "replicas", "cluster"),
    *(
        "threads",
        "backend",
        "runtime",
        "n",
        "source",
        "framework",
        "case",
        "machine",
        "device",
        "load",
    ),
)
_COLUMNS = (*_AXES, "spread", *(column.name for column in _FIGURES))


def setting(row: Any) -> str:
    """Return what of a case is beyond model, task, device, batch size; empty at the defaults."""
    parts = [] if row["precision"] == "float32" else [row["precision"]]
    if row["jit"] == "on":
        parts.append("jit")
    if row["threads"] != "default":
        parts.append(f"{row['threads']} thread" + "s" * (row["threads"] != "1"))
    if row["replicas"] > 1:
        parts.append(f"{int(row['replicas'])} replicas{_spread(text_of(row['cluster']))}")
    if row["backend"] != DEFAULT_BACKEND:
        parts.append(row["backend"])
    if row["runtime"] != DEFAULT_RUNTIME:
        parts.append(row["runtime"])
    return ", ".join(parts)


def _spread(cluster: str) -> str:
    if not cluster:
        return ""
    return f" over {cluster.removeprefix('hosts')} machines" if cluster != "local" else " (local)"


def architectures(table: pd.DataFrame, labels: Sequence[str]) -> Table:
    """Return the newest measured figures of each case on each hardware."""
    return table_of(
        "architectures",
        "Architectures",
        "Of each case the newest run that measured it, the fastest first. Figures are medians over "
        "n fresh processes, the step time and its 99th percentile of each process's own; spread is "
        "half the range of the processes' medians over their median. Other load is the share of "
        "the CPUs' time that other programs took, where it was 10 % or more: such a step time is "
        "longer than on an idle machine. p99 needs 1,000 steps. FLOPs are "
        "2 x multiply-adds, forward, per sample; peak memory is above the process's baseline. Fed "
        "is the throughput of steps whose batches come from host memory.",
        [
            heading("model", "model"),
            heading("task", "task"),
            heading("batch_size", "batch", "count"),
            heading("setting", "setting"),
            heading("hardware", "hardware"),
            Heading.of(_FIGURES[0]),
            heading("spread", "spread", "share"),
            heading("load", "other load", "share"),
            Heading.of(_FIGURES[1]),
            heading("n", "n", "count"),
            heading("run", "run"),
            heading("framework", "framework"),
            *map(Heading.of, _FIGURES[2:]),
        ],
        _newest(table, labels, _COLUMNS),
        empty="No case has figures.",
    )


def task_figures(table: pd.DataFrame, labels: Sequence[str], task: Task) -> Table:
    """Return the newest figures of each case of a task: the columns that name its table."""
    figures = shown_in(task.name)
    names = [*_AXES, *(column.name for column in figures)]
    return table_of(
        task.name,
        task.title,
        "Of each case the newest run that measured it: medians over n fresh processes.",
        [
            heading("model", "model"),
            heading("batch_size", "batch", "count"),
            heading("setting", "setting"),
            heading("hardware", "hardware"),
            *map(Heading.of, figures),
            heading("load", "other load", "share"),
            heading("n", "n", "count"),
            heading("framework", "framework"),
            heading("run", "run"),
        ],
        _newest(table[table["task"] == task.name], labels, names),
    )


def _newest(
    table: pd.DataFrame, labels: Sequence[str], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the newest measured points of each case by task and batch size, the fastest first."""
    records = [
        {**row, "setting": setting(row), "run": labels[int(row["source"])]}
        for row in records_of(latest(table), names)
    ]
    records.sort(key=_order)
    return records


def _order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what rows are sorted by: a step time that is not known comes last."""
    step_s = row.get("step_time_p50_s", math.nan)
    time = step_s if step_s == step_s else math.inf
    names = ("model", "case", "hardware")
    place = list(TASKS).index(row["task"])
    return (place, row["batch_size"], time, *(str(row[name]) for name in names))


def pareto_front(points: Iterable[tuple[float, float]]) -> list[bool]:
    """Return for each (parameters, throughput) whether none has fewer of one and more of other.

    A point that equals another is on the front where that one is.
    """
    found = list(points)
    order = sorted(range(len(found)), key=lambda i: (found[i][0], -found[i][1]))
    front = [False] * len(found)
    best, size_of_best = float("-inf"), None
    for i in order:
        size, rate = found[i]
        if rate > best or (rate == best and size == size_of_best):
            front[i], best, size_of_best = True, rate, size
    return front


def pareto(table: pd.DataFrame) -> Table:
    """Return throughput against parameters, with the front of each group of like cases."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in records_of(latest(table), _COLUMNS):
        if row["parameters"] > 0 and row["throughput_samples_per_s"] > 0:
            words = [row["hardware"], row["task"], f"batch {int(row['batch_size'])}", setting(row)]
            groups.setdefault(", ".join(filter(None, words)), []).append(row)
    records = []
    for name, rows in sorted(groups.items()):
        if len(rows) < 2:
            continue
        front = pareto_front((row["parameters"], row["throughput_samples_per_s"]) for row in rows)
        for row, on_front in zip(rows, front, strict=True):
            records.append({**row, "group": name, "front": "on the front" if on_front else ""})
    records.sort(key=lambda row: (row["group"], row["parameters"], row["throughput_samples_per_s"]))
    return table_of(
        "pareto",
        "Throughput against parameters",
        "The newest figures of like cases: the same hardware, task, batch size and setting. A "
        "model is on the Pareto front where no other has fewer parameters and more throughput: "
        "large points, joined by the dashed line. "
        "Both axes are logarithmic.",
        [
            heading("model", "model"),
            heading("group", "cases"),
            heading("parameters", "parameters", "count"),
            heading("throughput_samples_per_s", "samples/s", "rate"),
            heading("load", "other load", "share"),
            heading("front", "Pareto front"),
        ],
        records,
        keep=["front"],
    )
