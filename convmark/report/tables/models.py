"""Models against each other: the newest figures of every case, the Pareto front among them, and
what Keras publishes of its applications beside what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convmark.core.backends import DEFAULT_BACKEND
from convmark.core.runtimes import DEFAULT_RUNTIME
from convmark.core.table import SAMPLES_PER_S, Heading, Table, explained, headings, table_of
from convmark.core.tasks import TASKS, Task
from convmark.core.text import load_text, natural_order
from convmark.report.keras_applications import (
    BATCH_SIZE,
    HARDWARE,
    PUBLISHED,
    SOURCE,
    is_of_the_times,
    is_published,
)
from convmark.report.rows import group_of, newest_rows, text_of, with_versions
from convmark.results.record import shown_in

if TYPE_CHECKING:
    import pandas as pd

_FIGURES = shown_in(
    "architectures",
    first=(
        *("step_time_p50_s", "throughput_samples_per_s", "input_bound_throughput_samples_per_s"),
        *("step_time_p99_s", "time_to_first_step_s", "peak_host_memory_bytes"),
        *("peak_device_memory_bytes", "parameters", "flops_per_sample", "flops_note"),
        *("training_flops_per_sample", "model_bytes", "joules_per_sample", "efficiency"),
    ),
)


def architectures(table: pd.DataFrame, labels: Sequence[str]) -> Table:
    """Return the newest measured figures of each case on each hardware."""
    found = table_of(
        "architectures",
        "Architectures",
        "",
        [
            *headings("model task batch_size setting hardware"),
            Heading.of(_FIGURES[0]),
            *headings("spread load doubts"),
            Heading.of(_FIGURES[1]),
            *headings("n run framework"),
            *map(Heading.of, _FIGURES[2:]),
        ],
        _newest(table, labels),
        empty="No case has figures.",
        drawing="A grey line reaches from the step time divided by 1 + spread to that times it.",
    )
    return explained(
        found,
        model="The newest run of each case, the fastest first. Figures are medians over n fresh "
        "processes: step p50 of their median step times.",
        step_time_p99_s="p99 is the median of their 99th percentiles, which need 1,000 steps.",
        spread="Spread is half the range of the processes' medians divided by their median.",
        load="Other load is the share of the CPUs' time that other programs took, shown from 10 % "
        "on: such a step time is longer than on an idle machine.",
        doubts="Doubts count the processes that are failed, unsteady, not judged or beside other "
        "runs.",
        throughput_samples_per_s=SAMPLES_PER_S,
        flops_per_sample="FLOPs are 2 x multiply-adds, forward, per sample.",
        peak_host_memory_bytes="Peak memory is above the process's baseline.",
        peak_device_memory_bytes="Device peak is what the framework's allocator held; it is empty "
        "where that counts nothing, as on a CPU of the smallest models, JAX, PyTorch and exported "
        "models.",
        input_bound_throughput_samples_per_s="Fed is the throughput of steps whose batches come "
        "from host memory. The first process alone measures it, after samples/s, so that it may "
        "be higher where the load has changed.",
    )


def task_figures(table: pd.DataFrame, labels: Sequence[str], task: Task) -> Table:
    """Return the newest figures of each case of a task: the columns that name its table."""
    figures = shown_in(task.name)
    return table_of(
        task.name,
        task.title,
        "The newest run of each case: medians over n fresh processes.",
        [
            *headings("model batch_size setting hardware"),
            *map(Heading.of, figures),
            *headings("load doubts n framework run"),
        ],
        _newest(table[table["task"] == task.name], labels),
    )


def _newest(table: pd.DataFrame, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return the newest measured points of each case by task and batch size, the fastest first."""
    records = [{**row, "run": labels[int(row["source"])]} for row in newest_rows(table)]
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


def _with_front(
    records: Sequence[Mapping[str, Any]], less: str, more: str, *facts: str
) -> list[dict[str, Any]]:
    """Return the records of each group of several, with whether they are on its front.

    Args:
        less: key of what is better where it is less.
        more: key of what is better where it is more.
        facts: what those of a group share, beside batch size, setting and version.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in with_versions(records, "group", lambda row: group_of(row, *facts)):
        groups.setdefault(row["group"], []).append(row)
    return [
        {**row, "front": "on the front" if on_front else ""}
        for rows in groups.values()
        if len(rows) > 1
        for row, on_front in zip(
            rows, pareto_front((row[less], row[more]) for row in rows), strict=True
        )
    ]


_FRONT = "Large points, joined by the dashed line, are on the front."


def pareto(table: pd.DataFrame) -> Table:
    """Return throughput against parameters, with the front of each group of like cases."""
    known = [
        row
        for row in newest_rows(table)
        if row["parameters"] > 0 and row["throughput_samples_per_s"] > 0
    ]
    records = _with_front(known, "parameters", "throughput_samples_per_s", "hardware", "task")
    by = ("parameters", "throughput_samples_per_s")
    records.sort(key=lambda row: (natural_order(row["group"]), *(row[name] for name in by)))
    return table_of(
        "pareto",
        "Throughput against parameters",
        "The newest figures of comparable cases: the same hardware, task, batch "
        "size, setting and version. A model is on the Pareto front if no other model "
        "has fewer parameters and more throughput by these medians, however little.",
        headings(
            "model group parameters throughput_samples_per_s load doubts front",
            front="Pareto front",
        ),
        records,
        keep=["front"],
        drawing=_FRONT,
    )


# -- as Keras lists its applications ---------------------------------------------------------------


def applications(table: pd.DataFrame, depths: Mapping[str, int]) -> Table:
    """Return one row per model: its size, and the time of an inference step of 32 samples.

    Args:
        depths: layers with weights, by model, where a model has been described.
    """
    models: dict[str, dict[str, Any]] = {}
    rows = newest_rows(table[table["task"] == "infer"])
    rows.sort(key=lambda row: (row["source"], row["backend"] == DEFAULT_BACKEND))
    for row in rows:
        if text_of(row["asked_shape"]) or row["runtime"] != DEFAULT_RUNTIME:
            continue  # another network: its size may be another one
        model = models.setdefault(row["model"], {"model": row["model"]})
        if row["precision"] in _PRECISIONS:
            sizes = ("parameters", "model_bytes")
            model |= {key: row[key] for key in sizes if row[key] == row[key]}
        if is_of_the_times(row):
            kind = _kind(row)
            load = f"{load_text(row['load'])} other load" if row["load"] > 0 else ""
            measured_on = (row["hardware"], text_of(row["framework"]), load, row["doubts"])
            model[f"{kind}_step_s"] = row["step_time_p50_s"]
            model[f"{kind}_hardware"] = ", ".join(filter(None, measured_on))
            model[f"{kind}_n"] = row["n"]
    for name, model in models.items():
        model["depth"] = depths.get(name)
        if (known := PUBLISHED.get(name)) and is_published(name, model.get("parameters", 0)):
            model |= {f"{kind}_published_s": known.step_s(kind) for kind in HARDWARE}
    return table_of(
        "applications",
        "Models, as Keras lists its applications",
        "Time per inference step: the median of the newest run's processes, of the "
        f"default backend if that run has several, batch size {BATCH_SIZE}, float32, "
        "without XLA, default threads. Depth is the number of layers with weights; "
        f"it is known for models measured with --describe. {_PUBLISHED_TIMES} Fill it "
        f"by: {filling_command()}",
        headings(
            "model model_bytes parameters depth cpu_step_s cpu_published_s gpu_step_s "
            "gpu_published_s cpu_n gpu_n cpu_hardware gpu_hardware",
            model_bytes=("size", "bytes"),
            depth=("depth", "count"),
            cpu_step_s=("time per step (CPU)", "seconds"),
            gpu_step_s=("time per step (GPU)", "seconds"),
            cpu_published_s=("published (CPU)", "seconds"),
            gpu_published_s=("published (GPU)", "seconds"),
            cpu_n=("n (CPU)", "count"),
            gpu_n=("n (GPU)", "count"),
            cpu_hardware="CPU measured on",
            gpu_hardware="GPU measured on",
        ),
        sorted(models.values(), key=lambda model: model.get("model_bytes", 0)),
        empty=f"No inference was measured. Fill it by: {filling_command()}",
        keep=["cpu_step_s", "gpu_step_s", "depth"],
    )


def filling_command() -> str:
    """Return the command whose run fills the table."""
    return (
        "convmark run --tasks infer --batch-sizes 32 --processes 3 --describe "
        "--models resnet50,mobilenetv2,efficientnetb0"
    )


# -- published accuracy ----------------------------------------------------------------------------


_PRECISIONS = ("float32", "tf32")
"""The published accuracy is of no other."""


def published(table: pd.DataFrame) -> Table:
    """Return the newest inference of each model whose accuracy is published, by like cases.

    A model of another input size, another precision or another number of parameters than the
    published one has no published accuracy.
    """
    known = [
        {**row, "top_1": PUBLISHED[row["model"]].top_1}
        for row in newest_rows(table)
        if _is_published(row)
    ]
    records = _with_front(known, "step_time_p50_s", "top_1", "hardware")
    by = ("batch_size", "group", "step_time_p50_s")
    records.sort(key=lambda row: (str(row["hardware"]), *(row[name] for name in by)))
    return table_of(
        "published",
        "Published accuracy against step time",
        "Top-1 accuracy on ImageNet is published, not measured here: that of the "
        f"weights of keras.applications, from the table on {SOURCE}. Step time is "
        "measured: the median over the processes of the newest run, inference, "
        "float32, with random weights. A model is on the front if no other model is "
        "both faster, by these medians, and more accurate.",
        headings(
            "model group step_time_p50_s load doubts top_1 parameters n front",
            step_time_p50_s=("step p50, measured", "seconds"),
            top_1=("top-1, published", "share"),
        ),
        records,
        keep=["front"],
        drawing=_FRONT,
    )


def _is_published(row: Mapping[str, Any]) -> bool:
    return bool(
        is_published(row["model"], row["parameters"])
        and row["task"] == "infer"
        and row["precision"] in _PRECISIONS
        and row["step_time_p50_s"] > 0
        and not text_of(row["asked_shape"])
    )


# -- published times -------------------------------------------------------------------------------


_PUBLISHED_TIMES = (
    f"Published is the table of {SOURCE}, not measured here: CPU {HARDWARE['cpu']}, GPU "
    f"{HARDWARE['gpu']}, batch size {BATCH_SIZE}."
)


def published_times(table: pd.DataFrame) -> Table:
    """Return the newest time of an inference step that Keras publishes too, on each hardware."""
    records = []
    for row in newest_rows(table):
        known = _is_published(row) and is_of_the_times(row)
        published_s = PUBLISHED[row["model"]].step_s(_kind(row)) if known else None
        if published_s is not None:
            records.append(
                {
                    **row,
                    "published_s": published_s,
                    "on": HARDWARE[_kind(row)],
                    "ratio": row["step_time_p50_s"] / published_s,
                }
            )
    records.sort(key=lambda row: (str(row["hardware"]), row["step_time_p50_s"]))
    return table_of(
        "published_times",
        "Published and measured inference times",
        f"Time of an inference step of {BATCH_SIZE} samples, float32. "
        f"{_PUBLISHED_TIMES} Measured is the median over the processes of the newest "
        "run, with random weights. The ratio compares two machines and two ways to "
        "measure.",
        headings(
            "model hardware framework step_time_p50_s load doubts n published_s on ratio",
            step_time_p50_s=("step p50, measured", "seconds"),
            published_s=("published", "seconds"),
            on="published on",
            ratio=("measured / published", "ratio"),
        ),
        records,
    )


def _kind(row: Mapping[str, Any]) -> str:
    return "cpu" if row["device"] == "cpu" else "gpu"
