"""A run against its baseline: records in, judgements out; no file is read and nothing measured.

review(records, history) -> live comparisons, by the caller -> conclude(...)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median
from typing import Any

from convmark.compare.earlier import by_name, steady
from convmark.compare.history import BASELINE_RUNS, CaseHistory, History, same_code
from convmark.compare.intended import changed_sizes
from convmark.compare.judgement import (
    METRICS,
    NO_EARLIER,
    PRECISION,
    Judgement,
    LiveComparison,
    Metric,
    applies,
    joined,
    middle,
    plain_verdict,
)
from convmark.compare.rule.decision import Decision
from convmark.compare.step_time import machine_judgements, step_time
from convmark.core.interval import share_of
from convmark.core.tasks import TASKS
from convmark.core.text import reasons_text
from convmark.results.record import Record, doubt_words

STEP_TIME = METRICS[0]
_ACCURACY = next(metric for metric in METRICS if metric.name == "accuracy")


@dataclass(frozen=True)
class CaseReview:
    """One case of the run beside its baseline."""

    every_row: tuple[Record, ...]
    history: CaseHistory

    @cached_property
    def rows(self) -> tuple[Record, ...]:
        """The rows that count: the steady ones if any, and none that says why it is not judged."""
        return steady(self.every_row)

    @cached_property
    def measured(self) -> list[Record]:
        """All rows with figures: a step time is shown of these, as in the tables of the run."""
        return [row for row in self.every_row if row.measured]

    @property
    def baseline(self) -> tuple[tuple[Record, ...], ...]:
        """The runs of the history that it is judged against."""
        return self.history.runs[-BASELINE_RUNS:]

    @property
    def anchor_rows(self) -> tuple[tuple[Record, ...], ...]:
        """The anchor's run alone; where the history has no such run, the newest of the baseline."""
        anchor = self.history.anchor
        found = [rows for rows in self.history.runs if anchor and rows[0].run == anchor.run]
        return tuple(found or self.baseline[-1:])

    @property
    def same_code(self) -> bool:
        """Whether it is known that the anchor ran the same code, by its hash."""
        now = self.measured
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
        name: CaseReview(tuple(group), history.cases[name])
        for name, group in by_name(records).items()
    }
    return Review(cases=cases, absent=history.absent)


def conclude(
    review: Review,
    comparisons: Mapping[str, LiveComparison] | None = None,
    *,
    report_missing: bool = False,
    must_fit: bool = False,
) -> list[Judgement]:
    """Return the judgements of a run: case by case, then the machine, then what is missing.

    Args:
        comparisons: by case name, what the live comparison gave or why there was none.
        report_missing: whether the whole suite was asked for.
        must_fit: whether a size that is too large fails though it was never known to fit.
    """
    given = comparisons or {}
    found = [
        _with_unsteadiness(one, case)
        for name, case in review.cases.items()
        for one in _case(case, given.get(name), must_fit=must_fit)
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
    why = f"every process was unsteady: {reasons_text(reasons)}"
    return replace(judged, note=joined(judged.note, why))


def _headline(task: str) -> Metric:
    """Return the metric that tells of a case that has no other judgement."""
    return _ACCURACY if task == _ACCURACY.tasks[0] else STEP_TIME


def _case(
    case: CaseReview, comparison: LiveComparison | None, *, must_fit: bool
) -> list[Judgement]:
    first, anchor = case.every_row[0], case.history.anchor
    if (failed := case.failed) is not None:
        note = f"{failed.status} in process {failed.process}: {failed.error or 'no reason given'}"
        # a size that is too large, and was too large or not tried before, is a result, no loss
        loss = failed.status != "out_of_memory" or bool(must_fit or case.rows or case.baseline)
        failure = _only(case.measured, "inconclusive", note, first)
        others = [found for found in _others(case, {}) if found.metric != failure.metric]
        return [replace(failure, fails=loss), *others]
    if not TASKS[first.task].judged:
        return []
    if not case.rows:
        why = reasons_text([row.not_judged for row in case.every_row if row.not_judged])
        note = f"not judged: {why}; measure it again later"
        return [_only(case.every_row, "inconclusive", note, first)]
    if comparison is None and anchor is None:
        none = f"{NO_EARLIER}; later runs are compared with this one"
        return [_only(case.measured, "new", case.history.difference or none, first)]
    sizes = comparison.sizes if comparison else {}
    return [*_paired(case, comparison), *_precision(case, comparison), *_others(case, sizes)]


def _only(rows: Sequence[Record], verdict: str, note: str, row: Record) -> Judgement:
    """Return the judgement by its headline metric of a case that cannot be compared."""
    metric = _headline(row.task)
    return _judgement(row, metric, value=middle(rows, metric), verdict=verdict, note=note)


def _paired(case: CaseReview, comparison: LiveComparison | None) -> list[Judgement]:
    """Return the step time's judgement, and of what follows it where the codes were compared."""
    first = case.rows[0]
    if first.task not in STEP_TIME.tasks:
        return []
    finding = step_time(
        case.rows,
        case.history.runs,
        comparison,
        same_code=case.same_code,
        anchor=case.history.anchor,
        difference=case.history.difference,
    )
    found = []
    for metric in [STEP_TIME] if finding.decision is None else METRICS:
        value = middle(case.measured, metric)
        if metric.rule != "paired" or value is None or first.task not in metric.tasks:
            continue
        one = _judgement(
            first,
            metric,
            value=value,
            verdict=finding.verdict,
            baseline_runs=tuple(rows[0].run for rows in case.anchor_rows),
            note=finding.note if metric.convicts else "",
            fails=metric.convicts and finding.verdict == "regressed",
        )
        found.append(one if finding.decision is None else _measured(one, metric, finding.decision))
    return found


def _precision(case: CaseReview, comparison: LiveComparison | None) -> list[Judgement]:
    """Return the judgement by which a case fails whose code computes in another precision."""
    if comparison is None or comparison.precisions is None:
        return []
    old, new = comparison.precisions
    runs = tuple(rows[0].run for rows in case.anchor_rows)
    told: dict[str, Any] = {"note": f"{old} -> {new}", "baseline_runs": runs, "fails": True}
    found = _judgement(case.rows[0], STEP_TIME, verdict="changed", **told)
    return [replace(found, metric=PRECISION, unit="")]


def _measured(found: Judgement, metric: Metric, decision: Decision) -> Judgement:
    """Return a judgement with the change that the sessions have found."""
    sign = -1 if metric.higher_is_better else 1
    interval, smallest = decision.interval, decision.smallest_visible
    change = share_of(sign * (decision.estimate or 0.0))
    return replace(
        found,
        baseline=(found.value or 0.0) / (1 + change),
        change=change,
        **(-interval if metric.higher_is_better else interval).shares().cells,
        smallest_visible=share_of(smallest) if math.isfinite(smallest) else None,
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
        if verdict == "changed" and live is None and _counted_otherwise(metric, groups):
            verdict, note = "inconclusive", "counted by the rules of another version"
        if case.same_code and verdict in ("regressed", "improved", "changed"):
            verdict, note = "inconclusive", "same code, so the code is not the cause"
        if value != middle(case.measured, metric):
            note = joined(note, doubt_words(case.measured, case.rows))
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


def _counted_otherwise(metric: Metric, groups: Iterable[Sequence[Record]]) -> bool:
    """Whether a metric is of FLOPs that rows have counted by unlike rules."""
    counted = metric.column == "flops_per_sample"
    return counted and len({row.counting_version for rows in groups for row in rows}) > 1


def _missing(row: Record, run: str) -> Judgement:
    metric = _headline(row.task)
    missing = _judgement(row, metric, baseline=getattr(row, metric.column), verdict="missing")
    return replace(
        missing, run=run, baseline_runs=(row.run,), note=f"run {row.run} has it, this run does not"
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
    accuracy = [one for one in judgements if one.metric == _ACCURACY.name]
    worse = {_model(one): one for one in accuracy if one.verdict == "regressed"}
    taken_back: dict[tuple[str, ...], list[str]] = {}
    found = []
    for one in judgements:
        less = worse.get(_model(one))
        if less and one.verdict == "improved" and one.metric != _ACCURACY.name:
            taken_back.setdefault(_model(one), []).append(one.metric)
            note = f"accuracy {less.baseline:.4f} -> {less.value:.4f}"
            note = joined(f"no improvement, because it learns less: {note}", one.note)
            found.append(replace(one, verdict="inconclusive", note=note))
        else:
            found.append(one)
    for place, one in enumerate(found):
        names = ", ".join(dict.fromkeys(taken_back.get(_model(one), [])))
        if names and one.metric == _ACCURACY.name:
            note = joined(one.note, f"so better in {names} is no improvement")
            found[place] = replace(one, note=note)
    return found


def _model(found: Judgement) -> tuple[str, ...]:
    return found.model, found.device, found.precision, found.jit, found.threads
