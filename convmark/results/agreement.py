"""What the cells of a row must agree in, with how far apart the worker's figures may lie.

A rule reads figures by the names of their columns, NaN where absent: the numbers of one row, or the
arrays of a whole file, so that both readers hold a file to the same.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np

from convmark.core.statistics import QUANTILE_STEPS

ASCENDING = tuple(
    f"step_time_{name}_s"
    for name in ("min", "p10", "p25", "p50", "p75", "p90", "p95", "p99", "max")
)

ROUNDING = 1 + 1e-9
"""A mean or a deviation of floating-point numbers may lie so far beyond what bounds it."""

CLOCK_S = 1e-6
"""The parts of the first step are read off the same clock as the whole of it."""

MOST_APART = 100
"""Steps, windows and rounds are timed one after the other, each with its own synchronisation.

Of 5,700 measured rows of 620 runs, on CPUs at rest and under load and on GPUs, they lay at most 6
times apart. In a row that is not unsteady, more than this is another unit, another batch or another
row.
"""

UNSTEADY = "unsteady"
"""The status of a row whose figures did not hold still."""

Figures = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rule:
    """What a column must be beside others."""

    column: str
    text: str
    """What it must be, with the figures of other columns by their names in braces."""
    broken: Callable[[Figures], Any]


def _at_least(low: str, high: str) -> Rule:
    return Rule(high, f"must be at least {low!r}, {{{low}:.10g}}", lambda row: row[high] < row[low])


def _at_most(low: str, high: str) -> Rule:
    return Rule(low, f"must be at most {high!r}, {{{high}:.10g}}", lambda row: row[low] > row[high])


def _enough_steps(name: str, steps: int) -> Rule:
    """Require the steps that a high percentile needs: with fewer steps there is none."""
    column = f"step_time_{name}_s"
    text = f"needs {steps:,} steps, column 'steps' has {{steps:.10g}}"
    return Rule(column, text, lambda row: (row["steps"] < steps) & (row[column] > 0))


def _far(one: Any, other: Any) -> Any:
    """Whether two times are too far apart."""
    return (one > MOST_APART * other) | (other > MOST_APART * one)


RULES = (
    *(_at_least(low, high) for low, high in itertools.combinations(ASCENDING, 2)),
    Rule(
        "step_time_mean_s",
        "must lie between the shortest step time, {step_time_min_s:.10g}, and the longest, "
        "{step_time_max_s:.10g}",
        lambda row: (
            (row["step_time_mean_s"] * ROUNDING < row["step_time_min_s"])
            | (row["step_time_mean_s"] > row["step_time_max_s"] * ROUNDING)
        ),
    ),
    Rule(  # of two steps it is the difference over the square root of 2, of more it is less
        "step_time_std_s",
        "must fit step times from {step_time_min_s:.10g} to {step_time_max_s:.10g}",
        lambda row: (
            row["step_time_std_s"] * math.sqrt(2)
            > row["step_time_max_s"] * ROUNDING - row["step_time_min_s"]
        ),
    ),
    *(_enough_steps(name, steps) for name, steps in QUANTILE_STEPS.items()),
    _at_most("trainable_parameters", "parameters"),
    _at_most("process", "processes"),
    Rule(
        "effective_batch_size",
        "must be 'batch_size' x 'replicas', {batch_size:.10g} x {replicas:.10g}",
        lambda row: (
            (row["effective_batch_size"] > row["batch_size"] * row["replicas"])
            | (row["effective_batch_size"] < row["batch_size"] * row["replicas"])
        ),
    ),
    Rule(
        "time_to_first_step_s",
        "must be at least its parts, 'trace_s', {trace_s:.10g}, and 'first_execution_s', "
        "{first_execution_s:.10g}",
        lambda row: (
            (row["trace_s"] > row["time_to_first_step_s"] + CLOCK_S)
            | (row["first_execution_s"] > row["time_to_first_step_s"] + CLOCK_S)
            | (row["trace_s"] + row["first_execution_s"] > row["time_to_first_step_s"] + CLOCK_S)
        ),
    ),
    _at_most("peak_host_memory_bytes", "ram_bytes"),
    _at_most("build_peak_host_memory_bytes", "ram_bytes"),
)

PHASES = (
    Rule(
        "throughput_samples_per_s",
        f"must be within a factor of {MOST_APART} of the samples of a step over its time, "
        "{batch_size:.10g} x {replicas:.10g} / {step_time_p50_s:.10g}",
        lambda row: _far(
            row["throughput_samples_per_s"] * row["step_time_p50_s"],
            row["batch_size"] * row["replicas"],
        ),
    ),
    Rule(
        "paired_step_time_p50_s",
        f"must be within a factor of {MOST_APART} of 'step_time_p50_s', {{step_time_p50_s:.10g}}",
        lambda row: _far(row["paired_step_time_p50_s"], row["step_time_p50_s"]),
    ),
    Rule(
        "paired_log_ratio",
        "must be near ln('paired_step_time_p50_s' / 'reference_step_time_p50_s'), "
        "{paired_step_time_p50_s:.10g} / {reference_step_time_p50_s:.10g}",
        lambda row: _far(
            np.exp(row["paired_log_ratio"]) * row["reference_step_time_p50_s"],
            row["paired_step_time_p50_s"],
        ),
    ),
)
"""Between what is timed one after the other; a process that was stopped meanwhile breaks them, and
its row is unsteady."""

FIGURES = (
    *ASCENDING,
    *("batch_size", "build_peak_host_memory_bytes", "effective_batch_size", "first_execution_s"),
    *("paired_log_ratio", "paired_step_time_p50_s", "parameters", "peak_host_memory_bytes"),
    *("process", "processes", "ram_bytes", "reference_step_time_p50_s", "replicas", "steps"),
    *("step_time_mean_s", "step_time_std_s", "throughput_samples_per_s", "time_to_first_step_s"),
    *("trace_s", "trainable_parameters"),
)
"""The columns that rules read."""


def broken_rule(row: Any) -> str:
    """Return the first rule that a row's figures break, and the value; empty where they agree."""
    figures = {name: getattr(row, name) for name in FIGURES}
    return _broken(RULES, figures) or ("" if row.status == UNSTEADY else phases_apart(figures))


def phases_apart(figures: Figures) -> str:
    """Return the first rule between phases of a process that its figures break, and the value.

    Args:
        figures: by column, those that there are.
    """
    return _broken(PHASES, figures)


def _broken(rules: Sequence[Rule], given: Figures) -> str:
    figures = dict.fromkeys(FIGURES, math.nan)
    figures |= {name: float(given[name]) for name in FIGURES if given.get(name) is not None}
    for rule in rules:
        if rule.broken(figures):
            found = figures[rule.column]
            return f"column {rule.column!r} {rule.text.format_map(figures)}, got {found:.10g}"
    return ""


def figures_agree(columns: Figures, statuses: Any) -> bool:
    """Whether the figures of all rows of a file agree, given as arrays."""
    judged = statuses != UNSTEADY
    return not (
        any(np.any(rule.broken(columns)) for rule in RULES)
        or any(np.any(rule.broken(columns) & judged) for rule in PHASES)
    )


def words_broken(started: str, status: str, unsteady: str | None) -> str:
    """Return the rule that the texts of a row break, and the value; empty where they agree."""
    try:
        utc_of(started)
    except ValueError:
        return f"column 'started' must be a time of ISO 8601 in UTC, got {started[:40]!r}"
    if status == "ok" and unsteady:
        return f"column 'unsteady' must be empty where the status is ok, got {unsteady[:40]!r}"
    return ""


def utc_of(started: str) -> datetime:
    """Return when a row's process was started; a time that names no zone is in UTC.

    Times are ordered as texts, so one of another zone would be in the wrong place; and no clock
    shows one before 1970.

    Raises:
        ValueError: the text is no date or time of ISO 8601, of no day that there is, or not in UTC.
    """
    found = datetime.fromisoformat(started.replace("Z", "+00:00"))
    if found.year < 1970 or found.utcoffset() not in (None, timedelta(0)):
        raise ValueError(started)
    return found.replace(tzinfo=timezone.utc)
