"""The metrics that are judged, one table, and the rules of those that are not paired."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, median, stdev
from typing import Literal

from convmark.case import TASKS
from convmark.record import Record

__all__ = ["METRICS", "Metric", "middle", "plain_verdict"]

MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """How one metric is judged."""

    name: str
    column: str
    unit: str
    rule: Literal["paired", "exact", "tolerance", "spread"]
    """paired: as the paired step time; exact: any difference counts; tolerance: a difference
    beyond both tolerances; spread: beyond the absolute one and twice the metric's own spread."""
    higher_is_better: bool = False
    relative: float = 0.0
    absolute: float = 0.0
    tasks: tuple[str, ...] = TASKS
    convicts: bool = True
    """Whether it fails a run; without, a change beyond the tolerances is inconclusive."""


METRICS = (
    Metric(name="step_time", column="step_time_p50_s", unit="s", rule="paired"),
    Metric(
        name="throughput",
        column="throughput_samples_per_s",
        unit="samples/s",
        rule="paired",
        higher_is_better=True,
        convicts=False,  # the step time does
    ),
    Metric(
        name="latency_p50",
        column="step_time_p50_s",
        unit="s",
        rule="paired",
        tasks=("infer",),
        convicts=False,  # the step time does
    ),
    Metric(
        name="latency_p99",
        column="step_time_p99_s",
        unit="s",
        rule="tolerance",
        relative=0.25,
        tasks=("infer",),
        convicts=False,
    ),
    Metric(
        name="time_to_first_step",
        column="time_to_first_step_s",
        unit="s",
        rule="tolerance",
        relative=0.5,
        absolute=0.5,
        convicts=False,
    ),
    Metric(
        name="peak_device_memory",
        column="peak_device_memory_bytes",
        unit="bytes",
        rule="tolerance",
        relative=0.03,
        absolute=MIB,
    ),
    Metric(
        name="peak_host_memory",
        column="peak_host_memory_bytes",
        unit="bytes",
        rule="tolerance",
        relative=0.15,
        absolute=16 * MIB,
    ),
    Metric(name="parameters", column="parameters", unit="", rule="exact"),
    Metric(name="flops_per_sample", column="flops_per_sample", unit="FLOPs", rule="exact"),
    Metric(name="model_bytes", column="model_bytes", unit="bytes", rule="exact"),
    Metric(
        name="accuracy",
        column="accuracy",
        unit="",
        rule="spread",
        higher_is_better=True,
        absolute=0.005,
    ),
)
"""Every metric that is judged, in the order in which it is shown."""


def plain_verdict(
    metric: Metric, baseline: float, value: float, groups: Iterable[Sequence[Record]]
) -> tuple[str, float, str]:
    """Return verdict, the largest difference allowed, in the metric's unit, and a note.

    Args:
        groups: the rows of this run, and of each baseline run, for the metric's own spread.
    """
    allowed = max(metric.absolute, metric.relative * baseline)
    if metric.rule == "spread":
        allowed = metric.absolute + 2 * _own_spread(metric, groups)
    if abs(value - baseline) <= allowed:
        return "unchanged", allowed, ""
    if not metric.convicts:
        return "inconclusive", allowed, "shown, never convicts"
    worse = (value < baseline) == metric.higher_is_better
    exact = f"was {baseline:,.0f}, is {value:,.0f}" if metric.rule == "exact" else ""
    return "regressed" if worse else "improved", allowed, exact


def _own_spread(metric: Metric, groups: Iterable[Sequence[Record]]) -> float:
    """Return the largest standard deviation between the processes of one run."""
    values = [_values(rows, metric) for rows in groups]
    return max((stdev(group) for group in values if len(group) > 1), default=0.0)


def _values(rows: Sequence[Record], metric: Metric) -> list[float]:
    return [value for row in rows if (value := getattr(row, metric.column)) is not None]


def middle(rows: Sequence[Record], metric: Metric) -> float | None:
    """Return the median over processes, of accuracy the mean; None where no row has a value."""
    values = _values(rows, metric)
    if not values:
        return None
    return float(mean(values) if metric.rule == "spread" else median(values))
