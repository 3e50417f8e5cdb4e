"""The step of a case: batch sizes, quantiles, replicas, what Keras adds to it, and the roofline.

Source:
    of the roofline: Williams, Waterman and Patterson, "Roofline: an insightful visual performance
    model for multicore architectures" (2009): attainable FLOP/s = min(peak, FLOP per byte x
    bytes/s).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convmark.core.statistics import QUANTILE_STEPS, grouped, median_of
from convmark.core.table import Heading, Table, headings, table_of
from convmark.core.tasks import TASKS
from convmark.core.text import counted, natural_order
from convmark.report.rows import group_of, newest_rows, text_of, with_versions
from convmark.results.record import shown_in
from convmark.session.learning import WAYS

if TYPE_CHECKING:
    import pandas as pd

QUANTILES = ("min", "p10", "p25", "p50", "p75", "p90", "p95", "p99", "max")

_AXES = (
    *("hardware", "model", "task", "batch_size", "precision", "jit", "threads", "backend"),
    *("cpus", "runtime", "recipe", "asked_shape", "framework"),
)


def groups_but(
    rows: Iterable[dict[str, Any]], but: Sequence[str]
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows that agree in all axes but those named, and in the version.

    Of several codes those of the newest run count.
    """
    names = [name for name in (*_AXES, "replicas", "cluster") if name not in but]
    found = grouped((tuple(text_of(row[name]) for name in names), row) for row in rows)
    for its_own in found.values():
        newest = max(its_own, key=lambda row: row["source"])
        yield [row for row in its_own if _ran_the_same(row, newest)]


def _ran_the_same(row: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two rows are of one run, or of one code: of the commit where that is not known."""
    codes = [
        (text_of(one["code"]) or text_of(one["commit"]), text_of(one["keras"]))
        for one in (row, other)
    ]
    return bool(row["source"] == other["source"]) or codes[0] == codes[1]


def batch_sizes(table: pd.DataFrame) -> Table:
    """Return the newest figures of what was measured at two batch sizes or more."""
    groups = groups_but(newest_rows(table), but=["batch_size"])
    several = [rows for rows in groups if len({row["batch_size"] for row in rows}) > 1]
    records = with_versions(
        [row for rows in several for row in rows],
        "series",
        lambda row: ", ".join(filter(None, (row["hardware"], row["task"], row["setting"]))),
    )
    records.sort(key=lambda row: (row["model"], natural_order(row["series"]), row["batch_size"]))
    return table_of(
        "batch",
        "Batch size against throughput and step time",
        "The newest figures of each batch size, of one version and code. "
        "Throughput is the median over processes of the samples per second in "
        "windows; the step time is the median of the processes' medians.",
        headings(
            "model series batch_size throughput_samples_per_s step_time_p50_s load doubts n",
            series="measured",
        ),
        records,
        empty="No model was measured at two batch sizes.",
    )


def _of_task(row: Mapping[str, Any]) -> str:
    return group_of(row, "hardware", "task")


def distribution(table: pd.DataFrame) -> Table:
    """Return the quantiles of the step time of each case's newest run."""
    rows = [
        {**row, **{name: row[f"step_time_{name}_s"] for name in QUANTILES}}
        for row in newest_rows(table)
    ]
    records = with_versions(rows, "group", _of_task)
    records.sort(key=lambda row: (natural_order(row["group"]), row["model"]))
    needed = "".join(
        f" {name} needs {counted(steps, 'step')} in every process."
        for name, steps in QUANTILE_STEPS.items()
        if any(row.get(name) == row.get(name) is not None for row in records)
    )
    return table_of(
        "distribution",
        "Distribution of the step time",
        "From the newest run of each case: each quantile is the median over the "
        f"processes of their own quantile. In inference this is the latency.{needed}",
        headings(
            f"model group {' '.join(QUANTILES)} load doubts n",
            **{name: (name, "seconds") for name in QUANTILES},
        ),
        records,
        drawing="The blue bar spans the middle half of the steps, the blue line p10 to p90; the "
        "orange tick is p50, the purple triangle p95, the purple diamond p99.",
    )


# -- what Keras and the input pipeline add ---------------------------------------------------------


_MORE = shown_in("waterfall")
"""Columns that are of no way: each row of a case has them."""

_SHOWN: Mapping[str, tuple[str, str, str]] = {
    "compiled_train": ("training", "compiled step", "the framework"),
    "fed_train": ("training", "compiled step, fed by tf.data", "the input pipeline"),
    "train_on_batch": ("training", "train_on_batch", "Keras, a batch from host memory"),
    "fit": ("training", "fit", "Keras and its input pipeline"),
    "compiled_infer": ("inference", "compiled step", "the framework"),
    "predict_on_batch": ("inference", "predict_on_batch", "Keras, a batch from host memory"),
    "predict": ("inference", "predict", "Keras and its input pipeline"),
}
"""By way: its direction, its name, and what it adds to the compiled step."""


def sustained(table: pd.DataFrame) -> Table:
    """Return what became of each case in the newest run in which its steps went on for minutes."""
    rows = newest_rows(table[table["sustained_s"].notna()])
    rows.sort(key=lambda row: -row["sustained_throughput_samples_per_s"])
    return table_of(
        "sustained",
        "Sustained",
        "Cases whose steps continued after the measurement (--sustain), by sustained throughput. "
        "Burst is the throughput that the other tables show, sustained that of the last quarter "
        "of the time. Drop is the fall from the earlier level of the intervals to the later one, "
        "if a drop was found. Heat, a power limit and a used-up CPU quota cause drops; so does "
        "other load, which is shown. Clock, temperature and power of each interval are in "
        "<run>.sustained.csv.",
        [
            *headings(
                "model task batch_size setting hardware throughput_samples_per_s",
                throughput_samples_per_s=("burst samples/s", "rate"),
            ),
            *map(Heading.of, shown_in("sustained")),
            *headings("doubts run framework"),
        ],
        rows,
    )


def latency_limit(table: pd.DataFrame) -> Table:
    """Return the newest rate of arriving requests at a limit of their latency, highest first.

    A case has a row for each limit.
    """
    found = table[table["latency_limit_s"].notna()]
    rows = [row for limit in found["latency_limit_s"].unique()
            for row in newest_rows(found[found["latency_limit_s"] == limit])]  # fmt: skip
    rows.sort(key=lambda row: -(median_of([row["latency_limit_rate_per_s"]]) or 0.0))
    rows.sort(key=lambda row: (str(row["model"]), row["latency_limit_s"]))
    return table_of(
        "latency_limit",
        "At a latency limit",
        "The highest rate of arriving requests (--latency-limit) whose 99th percentile of "
        "latency, waiting included, is within the limit: by model and limit, the fastest first. A "
        "step answers the waiting requests, at most a batch; per step is their average number. "
        "Requests/s is found to 2 %. Proved is the highest rate with so few late requests that 1 "
        "% or more is improbable. p50 and p99 are those at the proved rate, or at the found one "
        "without a proof.",
        [
            *headings("model limit hardware batch_size setting", limit=("limit", "seconds")),
            *(
                Heading.of(one)
                for one in shown_in("latency_limit")
                if one.name != "latency_limit_s"
            ),
            *headings("doubts run framework"),
        ],
        [{**row, "limit": row["latency_limit_s"]} for row in rows],
    )


def waterfall(table: pd.DataFrame) -> Table:
    """Return a row for each way to call each case's model, of its newest run."""
    records = [
        record
        for row in newest_rows(table)
        if (row.get("compiled_train_step_s") or 0) > 0
        for record in _ways(row)
    ]
    records.sort(key=lambda row: natural_order(row["group"]))  # its ways keep their order
    return table_of(
        "waterfall",
        "Overhead of a step",
        "Seconds per step of each way to call the same model, timed in turns in one process: the "
        "median over the processes of their medians over rounds. Adds is what a way adds to the "
        "compiled step. fit and predict also cost the seconds of a call, once for all its steps.",
        [
            *headings(
                "model group direction way step_s compiled_s added_s added_share adds call_s load "
                "doubts",
                way="called by",
                step_s=("per step", "seconds"),
                compiled_s=("compiled step", "seconds"),
                added_s=("added", "seconds"),
                added_share=("added, share", "change"),
                adds="what it adds",
                call_s=("per call", "seconds"),
            ),
            *map(Heading.of, _MORE),
            *headings("n"),
        ],
        records,
    )


def _ways(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    compiled_s: dict[str, float] = {}
    for way, (direction, name, adds) in _SHOWN.items():
        step_s = row[WAYS[way]]
        base_s = compiled_s.setdefault(direction, step_s)
        is_base = name == "compiled step"
        yield {
            **row,
            "group": group_of(row, "model", "hardware"),
            "direction": direction,
            "way": name,
            "step_s": step_s,
            "compiled_s": base_s,
            "added_s": None if is_base else step_s - base_s,
            "added_share": None if is_base else step_s / base_s - 1,
            "adds": adds,
            "call_s": row.get(f"{way}_call_s"),
        }


# -- the roofline ----------------------------------------------------------------------------------


CEILINGS = ("peak_flops_per_s", "peak_bytes_per_s")


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


def roofline(table: pd.DataFrame, traffic_elements: Mapping[tuple[str, str], int | None]) -> Table:
    """Return the newest figures of the cases whose ceilings, FLOPs and bytes are all known.

    Args:
        traffic_elements: by model and input shape, of those that were described; a column
            `bytes_per_sample` of the rows comes before it.
    """
    known = all(name in table for name in CEILINGS)
    records = []
    for row in newest_rows(table) if known else ():
        described = (str(row["model"]), text_of(row["input_shape"]))
        moved = _bytes(row, traffic_elements.get(described))
        alone = row["replicas"] == 1  # the ceilings are one device's
        needed = (*CEILINGS, "flops_per_sample", _work(row))
        if alone and moved and all((row.get(name) or 0) > 0 for name in needed):
            records.append(_record(row, moved))
    records = with_versions(records, "group", _of_task)
    records.sort(key=lambda row: (natural_order(row["group"]), row["model"]))
    return table_of(
        "roofline",
        "Roofline",
        "FLOP per byte against FLOP/s, with the ceilings that were measured on the same hardware. "
        "FLOP/s are those of the steps; a training case is left out if its backward pass could "
        "not be counted. FLOP per byte is that of the forward pass. Bytes are an estimate for "
        "models measured with convmark run --describe: every layer reads its inputs and weights "
        "and writes its output once.",
        headings(
            "model group intensity flops_per_s attainable_flops_per_s share load doubts "
            "peak_flops_per_s peak_bytes_per_s n",
            intensity=("FLOP/byte", "intensity"),
            flops_per_s=("FLOP/s", "flops_rate"),
            attainable_flops_per_s=("attainable", "flops_rate"),
            share=("share of it", "share"),
            peak_flops_per_s=("peak FLOP/s", "flops_rate"),
            peak_bytes_per_s=("peak bytes/s", "bytes"),
        ),
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
    return {
        **row,
        "intensity": intensity,
        "flops_per_s": reached,
        "attainable_flops_per_s": limit,
        "share": reached / limit,
    }
