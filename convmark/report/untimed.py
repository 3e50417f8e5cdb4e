"""Whether a row of a task without step times can have been measured: accuracy and waterfall.

As in `plausible`, functions yield the rule that a row breaks and the value. An accuracy is held
against the epochs beside its run.
"""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from convmark.core.errors import StoreError
from convmark.core.runtimes import DEFAULT_RUNTIME, RUNTIME_PRECISIONS
from convmark.report.plausible import there
from convmark.results.record import BUSY_SHARE, COLUMNS, MEASURED
from convmark.session.learning import TABLE, TASK, WATERFALL, WAYS, Epoch

__all__ = ["epochs_apart", "untimed"]

Row = Mapping[str, Any]
Found = Iterator[tuple[str, str]]

ROUNDING = 1e-9

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
    if lacking := _lacking(row):
        yield "incomplete", f"has no {', '.join(lacking[:3])}"
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


def _lacking(row: Row) -> list[str]:
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


# -- the epochs beside a run -----------------------------------------------------------------------


def _time_s(epochs: Sequence[Epoch]) -> float:
    times_s = [one.epoch_time_s for one in epochs]
    return median(times_s[1:] or times_s)


def _reached(epochs: Sequence[Epoch], target: float) -> Sequence[Epoch]:
    """Return the epochs up to the first that reaches the target; none where none does."""
    first = next((n for n, one in enumerate(epochs, 1) if one.validation_accuracy >= target), 0)
    return epochs[:first]


_OF_EPOCHS: Mapping[str, Callable[[Sequence[Epoch]], float]] = {
    "epochs": len,
    "fraction": lambda epochs: epochs[-1].fraction,
    "training_samples": lambda epochs: epochs[-1].samples,
    "epoch_time_s": _time_s,
    "training_loss": lambda epochs: epochs[-1].loss,
    "training_accuracy": lambda epochs: epochs[-1].accuracy,
    "validation_loss": lambda epochs: epochs[-1].validation_loss,
    "validation_accuracy": lambda epochs: epochs[-1].validation_accuracy,
}
"""By column what it is of the epochs."""


def epochs_apart(run: Path, rows: Sequence[Row]) -> Iterator[tuple[int, Row, str]]:
    """Yield the line of each row of an accuracy that is not of its epochs, the row, and why not.

    A file of epochs that is not there has none of them.

    Args:
        run: the file of the rows.
    """
    learned = [
        (line, row)
        for line, row in enumerate(rows, 2)
        if row["task"] == TASK and row["status"] in MEASURED and not _lacking(row)
    ]
    if not learned:
        return
    epochs: dict[int, list[Epoch]] = defaultdict(list)
    with contextlib.suppress(StoreError):  # a finding of that file
        for one in TABLE.of(run):
            epochs[one.order].append(one)
    name = TABLE.path(run).name
    for line, row in learned:
        own = epochs.get(int(row["order"]), [])
        yield from ((line, row, f"{name} {why}") for why in _apart(row, own))


def _apart(row: Row, epochs: Sequence[Epoch]) -> Iterator[str]:
    """Yield the first figure of a row that is not that of its epochs."""
    if not epochs:
        yield "has no epochs of it"
        return
    found = {name: float(of(epochs)) for name, of in _OF_EPOCHS.items()}
    until = _reached(epochs, row["target_accuracy"])
    found["time_to_target_s"] = sum(one.epoch_time_s for one in until) or math.nan
    found["samples_to_target"] = sum(one.samples for one in until) or math.nan
    for name, value in found.items():
        own = row[name] if there(row, name) else math.nan
        same = abs(value - own) <= ROUNDING * abs(value) or (value != value and own != own)
        if not same:
            yield f"gives {name} {value:.6g}, the row has {own:.6g}"
            return
