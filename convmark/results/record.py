"""Record: one row, one process of one case of one run; and its cells.

What the cells of a row must agree in, with how far apart the worker's figures may lie.

A rule reads figures by the names of their columns, NaN where absent: the numbers of one row, or the
arrays of a whole file, so that both readers hold a file to the same.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

import numpy as np

from convmark.core.backends import BACKENDS
from convmark.core.case import Case
from convmark.core.cells import Column, columns_of, fit_text, from_cell, to_cell
from convmark.core.errors import StoreError
from convmark.core.statistics import QUANTILE_STEPS, median_of
from convmark.core.text import counted
from convmark.results.schema import Schema

STATUSES = ("ok", "error", "out_of_memory", "timeout", "crashed", "unsteady")
MEASURED = ("ok", "unsteady")
"""The statuses of rows that hold figures."""

BUSY_SHARE = 0.1
"""Others took this share of the CPUs' time or more: step times are longer than on an idle machine,
their ratio to the reference moves too (see `ALIKE_LOAD`), and a CPU's ceiling would be theirs."""


def large_load(shares: Iterable[float | None]) -> float | None:
    """Return the load that some processes were measured under; None where it was little.

    Args:
        shares: of the CPUs' time that others took, of each process; None where it is not known.
    """
    share = median_of(shares)
    return share if share is not None and share >= BUSY_SHARE else None


def doubts_text(n: float, failed: int, unsteady: int, unjudged: int, concurrent: int) -> str:
    """Return what of some processes to be wary of, beside their load and spread.

    Args:
        n: how many were measured; those that failed are none of them.
    """
    told = (
        (failed, n + failed, "failed"),
        (unsteady, n, "unsteady"),
        (unjudged, n, "not judged"),
        (concurrent, n + failed, "beside other runs"),
    )
    return ", ".join(f"{count} of {whole:.0f} {word}" for count, whole, word in told if count)


_Measured = TypeVar("_Measured")
"""A measured row, of whatever type."""
Fact = Callable[[Any, str], Any]
"""Returns a row's value of a column."""


def steady_rows(rows: Sequence[_Measured], fact: Fact = getattr) -> list[_Measured]:
    """Return of measured rows those that may be judged: the steady ones, or without any the others.

    Rows that say why they are no ground for a verdict are left out.
    """
    judged = [row for row in rows if not fact(row, "not_judged")]
    return [row for row in judged if fact(row, "status") != "unsteady"] or judged


def that_count(runs: Sequence[Sequence[_Measured]], fact: Fact = getattr) -> list[list[_Measured]]:
    """Return of each run of a case the measured rows that ratios of step times are of.

    As in `steady_rows`; none of a run that is no ground for a verdict. Where all runs are none, all
    rows count.
    """
    kept = [steady_rows(rows, fact) for rows in runs]
    return kept if any(kept) else [list(rows) for rows in runs]


def doubt_words(rows: Sequence[_Measured], used: Sequence[_Measured], fact: Fact = getattr) -> str:
    """Say how many rows are in no ratio and why, and what is doubtful of those that are in it.

    Args:
        rows: measured ones, of one case or several.
        used: those of them that ratios are of, as `that_count` chooses them.
    """
    kept = set(map(id, used))
    every, left = counted(len(rows), "process"), [row for row in rows if id(row) not in kept]
    parts = [f"without {len(left)} of {every}, {_causes(left, fact)}"] if left else []
    if unsteady := sum(fact(row, "status") == "unsteady" for row in used):
        parts.append(f"{unsteady} of {every} unsteady")
    parts += [f"not judged: {reason}" for reason in _reasons(used, fact)[:1]]
    return "; ".join(parts)


def _causes(left: Sequence[Any], fact: Fact) -> str:
    judged = [row for row in left if not fact(row, "not_judged")]
    unsteady = any(fact(row, "status") == "unsteady" for row in judged)
    reasons = [f"not judged: {reason}" for reason in _reasons(left, fact)[:1]]
    return " or ".join(["unsteady"] * unsteady + reasons) or "measured otherwise"


def _reasons(rows: Sequence[Any], fact: Fact) -> list[str]:
    return list(dict.fromkeys(str(why) for row in rows if (why := fact(row, "not_judged"))))


OF_MANY_STEPS = ("step_time_p95_s", "step_time_p99_s")
"""What a process has that has taken many steps: the quicker ones of a case, where not all have. A
median over these is not to stand beside one over all, and is left out."""


_ASKED = re.compile(r"(?:precision=(?P<precision>\S+))?(?:(?:^|(?<=\S) )threads=(?P<threads>\S+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record(Schema):
    """One row, whose values fit their columns and agree with each other."""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise StoreError(
                f"{self.model}: status must be one of {', '.join(STATUSES)}, got {self.status!r}"
            )
        for column in COLUMNS:
            value = getattr(self, column.name)
            if isinstance(value, str) and fit_text(value) != value:
                value = fit_text(value) or None
                object.__setattr__(self, column.name, value)  # as the file will hold it
            _check_value(column, value)
        rule = words_broken(self.started, self.status, self.unsteady)
        if rule or (rule := broken_rule(self)):
            raise StoreError(rule)

    @property
    def measured(self) -> bool:
        """Whether the row holds figures."""
        return self.status in MEASURED

    @property
    def asked_case(self) -> Case:
        """The case of the plan: where the model's own code made it another, as it was asked for.

        Raises:
            StoreError: the column does not tell it.
        """
        return dataclasses.replace(self.case, **asked_axes(self.asked))

    @property
    def case(self) -> Case:
        """The case that the row is of, as it ran."""
        return Case(
            model=self.model,
            task=self.task,
            device=self.device,
            batch_size=self.batch_size,
            precision=self.precision,
            jit=self.jit,
            replicas=self.replicas,
            cluster=self.cluster,
            threads=self.threads,
            backend=self.backend,
            recipe=self.recipe,
            runtime=self.runtime or "",
            cpus=self.cpus,
        )


COLUMNS = columns_of(Record)

FRAMEWORK_COLUMNS = tuple(column.name for column in COLUMNS if column.name in BACKENDS)
"""Versions of backends; that of a backend without a column stands in `packages`."""


def shown_in(table: str, first: Sequence[str] = ()) -> list[Column]:
    """Return the columns that a report's table shows by their declaration.

    Args:
        first: those that come first, in their order; the others keep the schema's.
    """
    found = [column for column in COLUMNS if column.table == table and column.title is not None]
    places = {name: place for place, name in enumerate(first)}
    return sorted(found, key=lambda column: places.get(column.name, len(places)))


def _check_value(column: Column, value: Any) -> None:
    """Refuse what could be written but not read again."""
    if value is None or value == "":
        if column.required:
            raise StoreError(f"column {column.name!r} must not be empty")
        return
    kinds = (int, float) if column.type is float else column.type
    if not isinstance(value, kinds) or isinstance(value, bool) != (column.type is bool):
        raise StoreError(
            f"column {column.name!r} must be of type {column.type.__name__}, "
            f"got {str(value)[:40]!r}"
        )
    if isinstance(value, (int, float)) and (rule := column.range_broken(value)):
        raise StoreError(f"column {column.name!r} {rule}, got {str(value)[:40]!r}")


def to_cells(record: Record) -> list[str]:
    """Return the record's cells in the order of `COLUMNS`."""
    return [to_cell(getattr(record, column.name)) for column in COLUMNS]


def asked_axes(asked: str | None) -> dict[str, Any]:
    """Return the axes that the column `asked` tells, by name.

    Raises:
        StoreError: the column does not tell them.
    """
    found = _ASKED.fullmatch(asked or "")
    if found is None:
        raise StoreError(
            "column 'asked' must be precision=VALUE, threads=VALUE or both, "
            f"got {str(asked)[:40]!r}"
        )
    return {name: value for name, value in found.groupdict().items() if value}


def from_cells(cells: Sequence[str] | Mapping[str, str]) -> Record:
    """Return the record that the cells hold, in the order of `COLUMNS`.

    Raises:
        StoreError: a cell breaks its column's rule; the message names the column and the value.
    """
    values = list(cells.values()) if isinstance(cells, Mapping) else list(cells)
    if len(values) != len(COLUMNS):
        raise StoreError(f"must have {len(COLUMNS)} cells, has {len(values)}")
    fields: dict[str, Any] = {}
    for column, cell in zip(COLUMNS, values, strict=True):
        try:
            fields[column.name] = from_cell(column, cell)
        except ValueError as error:
            rule = str(error) if "must" in str(error) else f"must be of type {column.type.__name__}"
            raise StoreError(f"column {column.name!r} {rule}, got {cell[:40]!r}") from None
    return Record(**fields)


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
