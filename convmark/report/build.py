"""Makes the tables of a report from rows, in reading order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from convmark.core.table import Table
from convmark.core.tasks import TASKS, TIMED_TASKS
from convmark.report.describe import DescribedModel, described_models
from convmark.report.rows import Rows, read_rows
from convmark.report.sides import Sides, sides_of
from convmark.report.tables.accuracy import accuracy
from convmark.report.tables.applications import applications
from convmark.report.tables.architectures import architectures, pareto, task_figures
from convmark.report.tables.hardware import BEST_BATCHES, Comparison, hardware_tables, of_machines
from convmark.report.tables.history import history, step_time_verdicts
from convmark.report.tables.levels import levels, marks, noise, runs_of_levels, trends
from convmark.report.tables.nodes import differing, nodes
from convmark.report.tables.overview import machines, troubles
from convmark.report.tables.points import points
from convmark.report.tables.published import published
from convmark.report.tables.roofline import roofline
from convmark.report.tables.shapes import batch_sizes, distribution, scaling
from convmark.report.tables.waterfall import waterfall

__all__ = ["FIRST", "STYLES", "VERDICTS", "Report", "build"]

STYLES = ("full", "applications", "accuracy")

VERDICTS = "verdicts"
"""Of a job summary the one table that is shown unfolded."""

FIRST = ("troubles", "machines", "applications", "accuracy")
"""Tables that Markdown without verdicts shows unfolded."""

_WHERE_KNOWN = (BEST_BATCHES, "nodes", "noise", "published", "roofline", "scaling", *TASKS)
"""Tables that appear only where rows have what they need."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a report says, whatever its format."""

    title: str
    lead: str
    tables: tuple[Table, ...]
    models: tuple[DescribedModel, ...] = field(default=())
    sides: Sides | None = None
    sources: str


def build(
    places: Sequence[Path],
    *,
    style: str = "full",
    comparison: Comparison | None = None,
    verdicts: Table | None = None,
) -> Report:
    """Return the report of all runs in the places.

    Args:
        places: results folders, machine folders or run files.
        comparison: what machines are compared by.
        verdicts: a table that comes first.

    Raises:
        StoreError: as `read_rows`.
        OptionError: a price or a reference of a machine that is not there.
    """
    rows = read_rows(places)
    table = points(rows.frame)
    comparison = of_machines(comparison or Comparison(), rows.names, rows.frame)
    described = described_models([run.path for run in rows.runs])
    labels = [run.label for run in rows.runs]
    if style == "accuracy":
        found = [accuracy(rows.frame, labels)]
    elif style == "applications":
        depths = {model.model: model.depth for model in described}
        found = [applications(table, depths)]
    else:
        found = _every_table(rows, table, described, comparison)
    return Report(
        title="Benchmark report" if style == "full" else found[0].title,
        lead=_lead(rows),
        tables=(*([verdicts] if verdicts else []), *found),
        models=tuple(described) if style == "full" else (),
        sides=_sides(rows) if style == "full" else None,
        sources=_sources(places, rows),
    )


def _sides(rows: Rows) -> Sides:
    return sides_of(rows.frame[rows.frame["task"].isin(TIMED_TASKS)], rows.runs)


def _every_table(
    rows: Rows,
    table: pd.DataFrame,
    described: Sequence[DescribedModel],
    comparison: Comparison,
) -> list[Table]:
    """Return the tables of a full report; those with nothing to show only where they say so."""
    labels = [run.label for run in rows.runs]
    timed = table[table["task"].isin(TIMED_TASKS)]
    frame = rows.frame[rows.frame["task"].isin(TIMED_TASKS)]
    beside = nodes(frame)
    moved = trends(frame, rows.runs)
    folders = dict.fromkeys(run.path.resolve().parent for run in rows.runs)
    found = [
        troubles(table, labels, differing(beside)),
        machines(rows.frame),
        beside,
        architectures(timed, labels),
        accuracy(rows.frame, labels),
        *hardware_tables(frame, comparison),
        history(
            timed, rows.runs, step_time_verdicts(rows.runs), marks(moved), runs_of_levels(moved)
        ),
        levels(moved, Path.cwd()),
        noise(folders),
        batch_sizes(timed),
        distribution(timed),
        pareto(timed),
        published(frame, timed),
        roofline(timed, {model.model: model.traffic_elements for model in described}),
        scaling(timed),
        waterfall(table),
    ]
    known = {one.key for one in found}
    others = [one for one in TASKS.values() if not one.timed and one.name not in known]
    found += [task_figures(table, labels, task) for task in others]
    return [one for one in found if one.rows or one.key not in _WHERE_KNOWN]


def _lead(rows: Rows) -> str:
    frame = rows.frame
    failed = int((~frame["measured"]).sum())
    parts = [
        _count(len(rows.runs), "run"),
        _count(frame["machine"].nunique(), "machine"),
        _count(frame["case"].nunique(), "case"),
        _count(len(frame), "process", "es"),
    ]
    none = "all of them with figures" if len(frame) > 1 else "with figures"
    return f"{', '.join(parts)}, {f'{failed:,} without figures' if failed else none}."


def _count(number: int, noun: str, plural: str = "s") -> str:
    return f"{number:,} {noun}{plural * (number != 1)}"


def _sources(places: Sequence[Path], rows: Rows) -> str:
    names = ", ".join(str(place) for place in places[:3])
    more = f" and {len(places) - 3} more" if len(places) > 3 else ""
    return f"{_count(len(rows.runs), 'run file')} in {names}{more}"
