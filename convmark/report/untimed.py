"""Whether a row of a task without step times can have been measured: accuracy and waterfall.

As in `plausible`, functions yield the rule that a row breaks and the value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from convmark.core.runtimes import DEFAULT_RUNTIME, RUNTIME_PRECISIONS
from convmark.report.plausible import there
from convmark.results.record import BUSY_SHARE, COLUMNS
from convmark.session.learning import TASK, WATERFALL, WAYS

Row = Mapping[str, Any]
Found = Iterator[tuple[str, str]]

_SHARED_TIMES = ("process_start_s", "measurement_version")
"""Columns of times that every row has."""

_NEEDED: Mapping[str, tuple[str, ...]] = {
    TASK: (
        *("dataset", "fraction", "training_samples", "epochs", "epoch_time_s", "training_loss"),
        *("training_accuracy", "validation_loss", "validation_accuracy", "accuracy"),
        "target_accuracy",
    ),
    WATERFALL: (
        *("waterfall_rounds", "waterfall_steps", "fit_call_s", "predict_call_s"),
        *("compiled_train_step_s", "compiled_infer_step_s"),
    ),
}

_OTHER_GROUPS: Mapping[str, tuple[str, ...]] = {
    TASK: ("time", "sustained", "latency limit", "waterfall"),
    WATERFALL: ("time", "sustained", "latency limit", "export", "check", "learning"),
}
_ENERGY = ("joules_per_sample", "cpu_joules_per_sample")

_INFER = "compiled_infer_step_s"

WAYS_APART = 3
"""A way that contains the compiled step is at most so many times as fast, for chance."""

MOST_OF_TRAINING = 100
"""Times that a step of training is at most as long as one of inference; three is common."""

ACCURACIES_APART = 0.05
"""Accuracy on the test digits from that on the validation digits, besides chance: in the rows of
docs/results/accuracy.md they lie at most 0.01 apart."""

LEAST_VALIDATED = 10
"""The training samples are at most so many times the validation samples."""

STANDARD_ERRORS = 5


def untimed(row: Row) -> Found:
    """Yield what of a measured row of these tasks cannot be."""
    task = row["task"]
    if absent := lacking(row):
        yield "incomplete", f"has no {', '.join(absent[:3])}"
        return
    groups = _OTHER_GROUPS.get(task, ())
    others = [column.name for column in COLUMNS if column.group in groups]
    if task == TASK and (row["runtime"] or DEFAULT_RUNTIME) == DEFAULT_RUNTIME:
        others += [column.name for column in COLUMNS if column.group == "export"]
    for name in (*others, *_ENERGY):
        if name not in _SHARED_TIMES and there(row, name):
            yield "contradicts", f"{name} {row[name]}, which the task {task} has not"
            return
    if task == WATERFALL:
        yield from _ways(row)
    elif task == TASK:
        yield from _accuracy(row)


def lacking(row: Row) -> list[str]:
    """Return the columns that a measured row of these tasks has, and this one lacks."""
    return [name for name in _NEEDED.get(row["task"], ()) if not there(row, name)]


def _ways(row: Row) -> Found:
    """Yield a way to call a model that would be far faster than its compiled step alone."""
    if row["other_cpu_share"] >= BUSY_SHARE:
        return
    for way, name in WAYS.items():
        least = "compiled_train_step_s" if "train" in way or way == "fit" else _INFER
        if there(row, name) and row[name] < row[least] / WAYS_APART:
            yield "contradicts", f"{name} {row[name]:.3g}, {least} is {row[least]:.3g}"
            return
    infer_s, train_s = row[_INFER], row["compiled_train_step_s"]
    if not train_s / MOST_OF_TRAINING <= infer_s <= WAYS_APART * train_s:
        yield "contradicts", f"{_INFER} {infer_s:.3g}, a step of training took {train_s:.3g}"


def _accuracy(row: Row) -> Found:
    """Yield an accuracy that the validation of the same weights makes improbable."""
    validated, found = row["validation_accuracy"], row["accuracy"]
    samples = max(1.0, row["training_samples"] / LEAST_VALIDATED)
    share = min(max(validated, 1 / samples), 1 - 1 / samples)
    apart = ACCURACIES_APART + STANDARD_ERRORS * math.sqrt(share * (1 - share) / samples)
    lost = 1.0 if row["precision"] in RUNTIME_PRECISIONS else apart  # by weights of fewer bits
    if not -lost <= found - validated <= apart:
        yield "contradicts", f"accuracy {found:.4g}, validation_accuracy is {validated:.4g}"
