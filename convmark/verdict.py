"""A run against its baseline: records in, judgements out; no file is read and nothing measured.

review(records, history) -> flagged(...) -> live comparisons, by the caller -> conclude(...)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean, median, stdev
from typing import Any, Literal

from convmark.case import TASKS
from convmark.judgement import Confirmation, Judgement
from convmark.machine import machine_judgements
from convmark.paired import Finding, confirmed, from_history
from convmark.record import Record
from convmark.review import CaseReview, Review, flagged, review

__all__ = [
    "METRICS",
    "CaseReview",
    "Confirmation",
    "Judgement",
    "Metric",
    "Review",
    "conclude",
    "flagged",
    "review",
]

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

STEP_TIME = METRICS[0]


def conclude(
    review: Review,
    confirmations: Mapping[str, Confirmation] | None = None,
    *,
    report_missing: bool = False,
) -> list[Judgement]:
    """Return the judgements of a run: case by case, then the machine, then what is missing.

    Args:
        confirmations: by case name, what the live comparison gave or why there was none.
        report_missing: whether the whole suite was asked for.
    """
    given = confirmations or {}
    alone = {name for name, found in given.items() if found.decision is None}
    undecided = {name for name in flagged(review) if name not in given}
    found = []
    for name, case in review.cases.items():
        found += _case(case, given.get(name), len(alone | undecided))
    compared = [(case.rows, case.baseline) for case in review.cases.values()]
    found += machine_judgements(compared)
    if report_missing and review.cases:
        run = next(iter(review.cases.values())).every_row[0].run
        found += [_missing(row, run) for row in review.absent]
    return found


def _case(
    case: CaseReview, confirmation: Confirmation | None, flagged_cases: int
) -> list[Judgement]:
    first = case.every_row[0]
    if (failed := case.failed) is not None:
        note = f"{failed.status} in process {failed.process}: {failed.error or 'no reason given'}"
        failure = _judgement(first, STEP_TIME, verdict="inconclusive", note=note, fails=True)
        return [replace(failure, value=_middle(case.rows, STEP_TIME)), *_others(case)]
    finding = confirmed(case.step, confirmation) if confirmation else None
    if finding is None and not case.baseline:
        note = case.history.difference or (
            f"no earlier run of it: `convmark accept {first.run}` would make this its baseline"
        )
        value = _middle(case.rows, STEP_TIME)
        return [_judgement(first, STEP_TIME, value=value, verdict="new", note=note)]
    if finding is None and case.step is not None:
        finding = from_history(case.step, flagged_cases, confirmation)
    return [*_paired(case, finding), *_others(case)]


def _paired(case: CaseReview, finding: Finding | None) -> list[Judgement]:
    """Return the step time's judgement, and of what follows it."""
    first = case.rows[0]
    metrics = [metric for metric in METRICS if metric.rule == "paired"]
    if finding is None:
        note = "no paired rounds on both sides: `convmark ab` compares live"
        value = _middle(case.rows, STEP_TIME)
        return [
            _judgement(first, STEP_TIME, value=value, verdict="inconclusive", note=note),
        ]
    found = []
    for metric in metrics:
        value = _middle(case.rows, metric)
        if value is None or first.task not in metric.tasks:
            continue
        sign = -1 if metric.higher_is_better else 1
        low, high = sorted((sign * finding.low, sign * finding.high))
        change = _share(sign * finding.estimate)
        found.append(
            _judgement(
                first,
                metric,
                baseline=None if change is None else value / (1 + change),
                value=value,
                change=change,
                low=_share(low),
                high=_share(high),
                verdict=finding.verdict,
                unconfirmed=finding.unconfirmed,
                smallest_visible=_share(finding.smallest_visible),
                baseline_runs=_runs(case),
                note=finding.note if metric.convicts else "",
                fails=metric.convicts and finding.verdict == "regressed",
            )
        )
    return found


def _others(case: CaseReview) -> list[Judgement]:
    """Return the judgements of the metrics that are not paired, where both sides have them."""
    if not case.rows or not case.baseline:
        return []
    found = []
    for metric in METRICS:
        if metric.rule == "paired" or case.rows[0].task not in metric.tasks:
            continue
        runs = [value for rows in case.baseline if (value := _middle(rows, metric)) is not None]
        value = _middle(case.rows, metric)
        if value is None or not runs:
            continue
        baseline = runs[-1] if metric.rule == "exact" else median(runs)
        verdict, allowed, note = _plain_verdict(metric, baseline, value, case)
        found.append(
            _judgement(
                case.rows[0],
                metric,
                baseline=baseline,
                value=value,
                change=value / baseline - 1 if baseline else None,
                verdict=verdict,
                smallest_visible=allowed / baseline if baseline and allowed else None,
                baseline_runs=_runs(case),
                note=note,
                fails=metric.convicts and verdict == "regressed",
            )
        )
    return found


def _plain_verdict(
    metric: Metric, baseline: float, value: float, case: CaseReview
) -> tuple[str, float, str]:
    """Return verdict, the smallest difference that would count, in the metric's unit, and note."""
    allowed = max(metric.absolute, metric.relative * baseline)
    if metric.rule == "spread":
        allowed = metric.absolute + 2 * _own_spread(metric, case)
    if abs(value - baseline) <= allowed:
        return "unchanged", allowed, ""
    if not metric.convicts:
        return "inconclusive", allowed, "shown, never convicts"
    worse = (value < baseline) == metric.higher_is_better
    exact = f"was {baseline:,.0f}, is {value:,.0f}" if metric.rule == "exact" else ""
    return "regressed" if worse else "improved", allowed, exact


def _own_spread(metric: Metric, case: CaseReview) -> float:
    """Return the larger standard deviation between processes, of this run or of a baseline run."""
    groups = [_values(rows, metric) for rows in (case.rows, *case.baseline)]
    return max((stdev(values) for values in groups if len(values) > 1), default=0.0)


def _missing(row: Record, run: str) -> Judgement:
    missing = _judgement(row, STEP_TIME, baseline=row.step_time_p50_s, verdict="missing")
    return replace(
        missing, run=run, baseline_runs=(row.run,), note=f"run {row.run} has it, this run has not"
    )


def _judgement(row: Record, metric: Metric, **values: Any) -> Judgement:
    return Judgement(
        run=row.run,
        case=row.case.name,
        model=row.model,
        task=row.task,
        device=row.device,
        batch_size=row.batch_size,
        precision=row.precision,
        jit=row.jit,
        threads=row.threads,
        metric=metric.name,
        unit=metric.unit,
        **values,
    )


def _values(rows: Sequence[Record], metric: Metric) -> list[float]:
    return [value for row in rows if (value := getattr(row, metric.column)) is not None]


def _middle(rows: Sequence[Record], metric: Metric) -> float | None:
    """Return the median over processes, of accuracy the mean; None where no row has a value."""
    values = _values(rows, metric)
    if not values:
        return None
    return float(mean(values) if metric.rule == "spread" else median(values))


def _runs(case: CaseReview) -> tuple[str, ...]:
    return tuple(rows[0].run for rows in case.baseline)


def _share(log_ratio: float) -> float | None:
    """Return a change from its logarithm; None where it is not finite."""
    return math.expm1(log_ratio) if abs(log_ratio) < 50 else None
