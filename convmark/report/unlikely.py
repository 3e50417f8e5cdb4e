"""What cannot be in a row of a small table: of a machine, or beside a run.

The bounds of single columns are the table's own. Rows of epochs, intervals and tries are held
against the rows of their run in `beside`. And whether a row of a task without step times (accuracy
and waterfall) can have been measured. As in `plausible`, functions yield the rule that a row breaks
and the value.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from convmark.compare.files import Acceptance, LayerChange, NoiseRow
from convmark.compare.judgement import Judgement
from convmark.core.runtimes import DEFAULT_RUNTIME, RUNTIME_PRECISIONS
from convmark.core.text import counted
from convmark.report.plausible import HIGHEST_BYTES, WINOGRAD, highest_flops, there
from convmark.results.record import BUSY_SHARE, COLUMNS, utc_of
from convmark.session.ceilings import Ceiling
from convmark.session.layers import LayerRow
from convmark.session.learning import TASK, WATERFALL, WAYS, Epoch
from convmark.session.sustained import Interval

Found = Iterator[tuple[str, str]]

CLOCK = timedelta(hours=1)
"""By so much a clock may be fast."""

ROUNDING = 1e-9

_TIMES = ("measured", "accepted")


def unlikely(row: Any, path: Path, now: datetime) -> Found:
    """Yield the rule that a row of a table breaks, a key of `REMEDIES`, and the value."""
    for name in _TIMES if not isinstance(row, Judgement) else ():
        if (told := getattr(row, name, None)) is None:
            continue
        try:
            when = utc_of(told)
        except ValueError:
            yield "schema", f"{name} must be a time of ISO 8601 in UTC, got {told[:40]}"
        else:
            if when > now + CLOCK:
                yield "future", f"{name} {told}"
    folder = path.resolve().parent.name
    if (machine := getattr(row, "machine", folder)) != folder:
        yield "machine", machine
    if why := next((of(row) for kind, of in _RULES.items() if isinstance(row, kind)), ""):
        yield "contradicts", why


def _ascending(**figures: float | None) -> str:
    """Return the first figure that is below the one before it, with both; empty for none."""
    there = [(name, value) for name, value in figures.items() if value is not None]
    for (low, least), (high, most) in itertools.pairwise(there):
        if most < least - ROUNDING * abs(least):
            return f"{high} {most:.6g}, {low} is {least:.6g}"
    return ""


def _of_epoch(row: Epoch) -> str:
    full = row.steps * row.batch_size
    if not full - row.batch_size < row.samples <= full:
        return f"samples {row.samples} in {counted(row.steps, 'step')} of {row.batch_size}"
    return ""


def _of_change(row: LayerChange) -> str:
    new_s, old_s = row.new_s or 0.0, row.old_s or 0.0  # less than nothing where it is fused
    expected = new_s - old_s
    if abs(row.difference_s - expected) > ROUNDING * max(abs(new_s), abs(old_s)):
        return f"difference_s {row.difference_s:.6g}, of new_s and old_s {expected:.6g}"
    return _ascending(low_s=row.low_s, difference_s=row.difference_s, high_s=row.high_s)


def _of_layer(row: LayerRow) -> str:
    if (row.of_peak or 0) > WINOGRAD:
        return f"of_peak {row.of_peak:.4g}, at most {WINOGRAD} are plausible"
    return _ascending(time_low_s=row.time_low_s, time_s=row.time_s, time_high_s=row.time_high_s)


def _of_interval(row: Interval) -> str:
    for name, most in (("clock_mhz", 12_000), ("temperature_c", 150), ("power_w", 50_000)):
        if abs(getattr(row, name) or 0) > most:
            return f"{name} {getattr(row, name):.4g}, at most {most:,} are plausible"
    return ""


def _of_noise(row: NoiseRow) -> str:
    if row.scatter is not None and row.mean is not None:
        return _ascending(mean=abs(row.mean), scatter=row.scatter)
    return ""


def _of_judgement(row: Judgement) -> str:
    if row.baseline and row.value is not None and row.change is not None:
        expected = row.baseline * (1 + row.change)
        if not math.isclose(row.value, expected, rel_tol=SHARES_APART, abs_tol=0):
            return f"value {row.value:.6g}, of baseline and change {expected:.6g}"
    if row.batch_size is not None and row.batch_size < 1:
        return f"batch_size {row.batch_size}"
    return _ascending(low=row.low, change=row.change, high=row.high)


SHARES_APART = 1e-6


def _of_ceiling(row: Ceiling) -> str:
    most = highest_flops(row.device, row.precision)
    if row.peak_flops_per_s > most:
        return f"peak_flops_per_s {row.peak_flops_per_s:.3g}, the highest plausible is {most:.3g}"
    copied = HIGHEST_BYTES["cpu" if row.device == "cpu" else "gpu"]
    if row.peak_bytes_per_s > copied:
        return f"peak_bytes_per_s {row.peak_bytes_per_s:.3g}, the highest plausible is {copied:.3g}"
    return ""


_RULES: Mapping[type, Callable[[Any], str]] = {
    Acceptance: lambda row: "" if row.reason else "reason is empty",
    Ceiling: _of_ceiling,
    Epoch: _of_epoch,
    Interval: _of_interval,
    Judgement: _of_judgement,
    LayerChange: _of_change,
    LayerRow: _of_layer,
    NoiseRow: _of_noise,
}
"""By the kind of a row, what returns which of its figures contradict each other."""


Row = Mapping[str, Any]

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
