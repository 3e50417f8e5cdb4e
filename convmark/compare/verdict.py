"""A run against its baseline: records in, judgements out; no file is read and nothing measured.

review(records, history) -> live comparisons, by the caller -> conclude(...)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from convmark.compare.history import (
    BASELINE_RUNS,
    CaseHistory,
    History,
    by_name,
    same_code,
    steady,
)
from convmark.compare.judgement import Confirmation, Judgement
from convmark.compare.machine import machine_judgements
from convmark.compare.meant import changed_sizes
from convmark.compare.metrics import METRICS, Metric, applies, middle, plain_verdict
from convmark.compare.step_time import Finding, step_time
from convmark.core.statistics import share_of
from convmark.core.tasks import TASKS
from convmark.results.record import Record

__all__ = [
    "METRICS",
    "CaseReview",
    "Confirmation",
    "Judgement",
    "Metric",
    "Review",
    "conclude",
    "review",
]

STEP_TIME = METRICS[0]
_ACCURACY = next(metric for metric in METRICS if metric.name == "accuracy")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseReview:
    """One case of the run beside its baseline."""

    rows: tuple[Record, ...]
    """The rows of this run that count: the steady ones where there are any; none where each says
    why it is not judged."""
    every_row: tuple[Record, ...]
    history: CaseHistory
    baseline: tuple[tuple[Record, ...], ...]
    """The runs of the history that it is judged against."""

    @property
    def anchor_rows(self) -> tuple[tuple[Record, ...], ...]:
        """The anchor's run alone; where the history has no such run, the newest of the baseline."""
        anchor = self.history.anchor
        found = [rows for rows in self.history.runs if anchor and rows[0].run == anchor.run]
        return tuple(found or self.baseline[-1:])

    @property
    def same_code(self) -> bool:
        """Whether it is known that the anchor ran the same code, by its hash."""
        now = [row for row in self.every_row if row.measured]
        return any(
            all(row.code for row in (*now, *rows)) and same_code(now, rows)
            for rows in self.anchor_rows
        )

    @property
    def failed(self) -> Record | None:
        """The first process that failed."""
        return next((row for row in self.every_row if not row.measured), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A run beside its history, by the cases' names."""

    cases: Mapping[str, CaseReview]
    absent: tuple[Record, ...]
    """Rows of the cases that the history has and the run has not."""


def review(records: Sequence[Record], history: History) -> Review:
    """Return each case of a run beside its history."""
    cases = {
        name: CaseReview(
            rows=steady(group),
            every_row=tuple(group),
            history=history.cases[name],
            baseline=history.cases[name].runs[-BASELINE_RUNS:],
        )
        for name, group in by_name(records).items()
    }
    return Review(cases=cases, absent=history.absent)


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
    found = [
        _with_unsteadiness(one, case)
        for name, case in review.cases.items()
        for one in _case(case, given.get(name))
    ]
    compared = [(case.rows, case.baseline) for case in review.cases.values()]
    found += machine_judgements(compared)
    if report_missing and review.cases:
        run = next(iter(review.cases.values())).every_row[0].run
        found += [_missing(row, run) for row in review.absent if TASKS[row.task].judged]
    return _without_hollow_improvements(found)


def _with_unsteadiness(judged: Judgement, case: CaseReview) -> Judgement:
    """Add to the step time's note that no process held still: then no one figure is the case's."""
    reasons = [row.unsteady for row in case.rows if row.status == "unsteady" and row.unsteady]
    if judged.metric != STEP_TIME.name or not reasons or len(reasons) < len(case.rows):
        return judged
    note = f"every process was unsteady: {reasons[0]}"
    return replace(judged, note=f"{judged.note}; {note}" if judged.note else note)


def _headline(task: str) -> Metric:
    """Return the metric that tells of a case that has no other judgement."""
    return _ACCURACY if task == _ACCURACY.tasks[0] else STEP_TIME


def _case(case: CaseReview, confirmation: Confirmation | None) -> list[Judgement]:
    first = case.every_row[0]
    if (failed := case.failed) is not None:
        note = f"{failed.status} in process {failed.process}: {failed.error or 'no reason given'}"
        # a size that is too large, and was too large or not tried before, is a result, no loss
        loss = failed.status != "out_of_memory" or bool(case.rows or case.baseline)
        metric = _headline(first.task)
        failure = _judgement(first, metric, verdict="inconclusive", note=note, fails=loss)
        others = [found for found in _others(case, {}) if found.metric != metric.name]
        return [replace(failure, value=middle(case.rows, metric)), *others]
    if not TASKS[first.task].judged:
        return []
    if not case.rows:
        return [_not_judged(case)]
    if confirmation is None and case.history.anchor is None:
        return [_without_anchor(case)]
    sizes = confirmation.sizes if confirmation else {}
    return [*_paired(case, confirmation), *_others(case, sizes)]


def _not_judged(case: CaseReview) -> Judgement:
    """Return the judgement of a case none of whose rows may be judged."""
    first = case.every_row[0]
    metric = _headline(first.task)
    value = middle(case.every_row, metric)
    note = f"not judged: {first.not_judged}; measure it again when that has ended"
    return _judgement(first, metric, value=value, verdict="inconclusive", note=note)


def _without_anchor(case: CaseReview) -> Judgement:
    first = case.rows[0]
    note = case.history.difference or (
        "no earlier run of it: later runs are judged against this one"
    )
    metric = _headline(first.task)
    value = middle(case.rows, metric)
    return _judgement(first, metric, value=value, verdict="new", note=note)


def _paired(case: CaseReview, confirmation: Confirmation | None) -> list[Judgement]:
    """Return the step time's judgement, and of what follows it."""
    first = case.rows[0]
    if first.task not in STEP_TIME.tasks:
        return []
    anchor, history = case.history.anchor, case.history.runs
    finding = step_time(
        case.rows,
        history,
        confirmation,
        same_code=case.same_code,
        anchor=anchor,
        difference=case.history.difference,
    )
    metrics = [STEP_TIME] if finding.estimate is None else METRICS
    found = []
    for metric in metrics:
        value = middle(case.rows, metric)
        if metric.rule != "paired" or value is None or first.task not in metric.tasks:
            continue
        found.append(_of_step_time(first, metric, value, finding, case))
    return found


def _of_step_time(
    first: Record, metric: Metric, value: float, finding: Finding, case: CaseReview
) -> Judgement:
    sign = -1 if metric.higher_is_better else 1
    low, high = sorted((sign * finding.low, sign * finding.high))
    change = None if finding.estimate is None else _share(sign * finding.estimate)
    return _judgement(
        first,
        metric,
        baseline=None if change is None else value / (1 + change),
        value=value,
        change=change,
        low=_share(low),
        high=_share(high),
        verdict=finding.verdict,
        smallest_visible=_share(finding.smallest_visible),
        baseline_runs=tuple(rows[0].run for rows in case.anchor_rows),
        note=finding.note if metric.convicts else "",
        fails=metric.convicts and finding.verdict == "regressed",
    )


def _others(case: CaseReview, sizes: Mapping[str, int | None]) -> list[Judgement]:
    """Return the judgements of the metrics that are not paired, where both sides have them.

    Args:
        sizes: the exact metrics of the anchor's own model, where it was run beside today's.
    """
    if not case.rows:
        return []
    found = []
    for metric in METRICS:
        if metric.rule == "paired" or not applies(metric, case.rows[0]):
            continue
        against = case.anchor_rows if metric.rule == "exact" else case.baseline
        live = sizes.get(metric.column) if metric.rule == "exact" else None
        runs = [value for rows in against if (value := middle(rows, metric)) is not None]
        value = middle(case.rows, metric)
        if value is None or (live is None and not runs):
            continue
        baseline = float(live) if live is not None else median(runs)
        groups = (case.rows, *against)
        verdict, allowed, note = plain_verdict(metric, baseline, value, groups)
        if case.same_code and verdict in ("regressed", "improved", "changed"):
            verdict, note = "inconclusive", "same code: no change of it is to blame"
        found.append(
            _judgement(
                case.rows[0],
                metric,
                baseline=baseline,
                value=value,
                change=value / baseline - 1 if baseline else None,
                verdict=verdict,
                smallest_visible=allowed / baseline if baseline and allowed else None,
                baseline_runs=tuple(rows[0].run for rows in against),
                note=note,
                fails=metric.convicts and verdict == "regressed",
            )
        )
    return [*changed_sizes(found), *found]


def _missing(row: Record, run: str) -> Judgement:
    metric = _headline(row.task)
    missing = _judgement(row, metric, baseline=getattr(row, metric.column), verdict="missing")
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


def _without_hollow_improvements(judgements: Sequence[Judgement]) -> list[Judgement]:
    """Return the judgements, an improvement of a model that learns less taken back.

    It becomes inconclusive, with the reason, and the accuracy's own row says what was taken back.
    A model is known by its name, device, precision, compilation and threads.
    """
    worse = {
        _model(found): found
        for found in judgements
        if found.metric == _ACCURACY.name and found.verdict == "regressed"
    }
    hollow: dict[tuple[str, ...], list[Judgement]] = {}
    for found in judgements:
        if (
            found.verdict == "improved"
            and found.metric != _ACCURACY.name
            and _model(found) in worse
        ):
            hollow.setdefault(_model(found), []).append(found)
    return [_retold(found, worse, hollow) for found in judgements]


def _retold(
    found: Judgement,
    worse: dict[tuple[str, ...], Judgement],
    hollow: dict[tuple[str, ...], list[Judgement]],
) -> Judgement:
    taken_back = hollow.get(_model(found), [])
    if found in taken_back:
        less = worse[_model(found)]
        note = (
            f"no improvement, for it learns less: accuracy {less.baseline:.4f} -> {less.value:.4f}"
        )
        return replace(found, verdict="inconclusive", note=_joined(note, found.note))
    if taken_back and found.metric == _ACCURACY.name:
        names = ", ".join(dict.fromkeys(one.metric for one in taken_back))
        return replace(found, note=_joined(found.note, f"so better in {names} is no improvement"))
    return found


def _joined(*notes: str) -> str:
    return "; ".join(filter(None, notes))


def _model(found: Judgement) -> tuple[str, ...]:
    return found.model, found.device, found.precision, found.jit, found.threads


def _share(log_ratio: float) -> float | None:
    """Return a change from its logarithm; None at the open end of an interval."""
    return share_of(log_ratio) if math.isfinite(log_ratio) else None
