"""Makes the tables of a report from rows, in reading order."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from convmark.compare.ab_rows import VerdictRow
from convmark.compare.files import step_time_verdicts
from convmark.core.table import FACETS, Table
from convmark.core.tasks import TASKS, TIMED_TASKS
from convmark.core.text import counted, listed, natural_order
from convmark.report.comparison import Comparison, of_machines
from convmark.report.describe import DescribedModel, described_models
from convmark.report.noise import noise
from convmark.report.rows import Rows, newest_rows, points, read_rows
from convmark.report.sides import Sides, newest_versions, sides_of
from convmark.report.tables.accuracy import accuracy
from convmark.report.tables.answers import answers
from convmark.report.tables.comparisons import comparisons, comparisons_of
from convmark.report.tables.cost import COST, TRAINING_COST, cost_tables, energy
from convmark.report.tables.hardware import BEST_BATCHES, hardware_tables
from convmark.report.tables.history import history, levels, marks, runs_of_levels, trends
from convmark.report.tables.layers import CaseLayers, newest_layers
from convmark.report.tables.models import (
    applications,
    architectures,
    pareto,
    published,
    published_times,
    task_figures,
)
from convmark.report.tables.overview import differing, machines, nodes, troubles
from convmark.report.tables.runtimes import runtimes
from convmark.report.tables.scaling import cores_of_runs, scaling
from convmark.report.tables.steps import (
    batch_sizes,
    distribution,
    latency_limit,
    roofline,
    sustained,
    waterfall,
)
from convmark.report.wall import with_wall_power

VERDICTS = "verdicts"
"""Of a job summary the one table that is shown unfolded."""

FIRST = ("answers", "architectures", "applications", "accuracy")
"""Tables that Markdown without verdicts shows unfolded."""

_WHERE_KNOWN = (
    *(BEST_BATCHES, "comparisons", "cores", COST, TRAINING_COST, "energy", "latency_limit"),
    *("nodes", "noise", "published"),
    *("published_times", "roofline", "runtimes", "scaling", "sustained"),
    *TASKS,
)
"""Tables that appear only where rows have what they need."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a report says, whatever its format."""

    title: str
    """What was measured, and where."""
    when: str
    """When, and by which versions of the frameworks."""
    lead: str
    tables: tuple[Table, ...]
    models: tuple[DescribedModel, ...] = field(default=())
    layers: tuple[CaseLayers, ...] = field(default=())
    sides: Sides | None = None
    sources: str


def build(
    places: Sequence[Path],
    *,
    style: str = "full",
    comparison: Comparison | None = None,
    verdicts: Table | None = None,
    power_logs: Sequence[str] = (),
) -> Report:
    """Return the report of all runs in the places.

    Args:
        places: results folders, machine folders or run files.
        comparison: what machines are compared by.
        verdicts: a table that comes first.
        power_logs: files of wall meters, or `MACHINE=FILE`.

    Raises:
        StoreError: as `read_rows`.
        OptionError: a price, a log or a reference of a machine that is not there; or a log that
            does not fit.
    """
    rows = read_rows(places)
    frame, wall = with_wall_power(rows, power_logs)
    rows = dataclasses.replace(rows, frame=frame)
    table = points(rows.frame)
    comparison = of_machines(comparison or Comparison(), rows.names, rows.frame)
    paths = [run.path for run in rows.runs]
    described = described_models(paths)
    labels = [run.label for run in rows.runs]
    sides: Sides | None = None
    if style == "accuracy":
        found = [accuracy(rows.frame, labels)]
    elif style == "applications":
        depths = {model.model: model.depth for model in described}
        found = [applications(table, depths)]
    else:
        sides = sides_of(rows.frame[rows.frame["task"].isin(TIMED_TASKS)], rows.runs)
        compared = comparisons_of(places)
        found = _every_table(rows, table, described, comparison, sides, wall, compared)
    return Report(
        title=_title(rows) if style == "full" else found[0].title,
        when=_when(rows),
        lead=_lead(rows),
        tables=(*([verdicts] if verdicts else []), *found),
        models=tuple(described) if style == "full" else (),
        layers=tuple(newest_layers(paths, described)) if style == "full" else (),
        sides=sides,
        sources=f"{counted(len(rows.runs), 'run file')} in {listed(list(map(str, places)), 3)}",
    )


def _every_table(
    rows: Rows,
    table: pd.DataFrame,
    described: Sequence[DescribedModel],
    comparison: Comparison,
    sides: Sides,
    wall: Sequence[str],
    compared: Sequence[VerdictRow],
) -> list[Table]:
    """Return the tables of a full report; those with nothing to show only where they say so."""
    labels = [run.label for run in rows.runs]
    timed = table[table["task"].isin(TIMED_TASKS)]
    frame = rows.frame[rows.frame["task"].isin(TIMED_TASKS)]
    beside = nodes(frame)
    moved = trends(frame, rows.runs)
    folders = dict.fromkeys(run.path.resolve().parent for run in rows.runs)
    machine_ratios = hardware_tables(frame, comparison)
    changed = len({key[:2] for key in marks(moved)})
    versions = newest_versions(sides.sides)
    found = [
        answers(frame, timed, machine_ratios[0], versions, rows.runs, changed, compared),
        architectures(timed, labels),
        *machine_ratios,
        *cost_tables(rows.frame, comparison),
        energy(timed, wall),
        history(
            timed,
            rows.runs,
            step_time_verdicts([run.path for run in rows.runs]),
            marks(moved),
            runs_of_levels(moved),
        ),
        levels(moved, Path.cwd(), _axes(timed)),
        comparisons(compared, rows.names),
        accuracy(rows.frame, labels),
        batch_sizes(timed),
        distribution(timed),
        latency_limit(timed),
        pareto(timed),
        published(timed),
        published_times(timed),
        roofline(timed, {(one.model, one.input_shape): one.traffic_elements for one in described}),
        runtimes(frame, timed),
        scaling(timed, frame),
        cores_of_runs(frame),
        sustained(timed),
        waterfall(table),
        beside,
        noise(folders),
        machines(rows.frame),
        troubles(table, labels, differing(beside)),
    ]
    known = {one.key for one in found}
    others = [one for one in TASKS.values() if not one.timed and one.name not in known]
    after_accuracy = [one.key for one in found].index("accuracy") + 1
    found[after_accuracy:after_accuracy] = [task_figures(table, labels, task) for task in others]
    return [one for one in found if one.rows or one.key not in _WHERE_KNOWN]


def _axes(timed: pd.DataFrame) -> dict[tuple[str, str], dict[str, Any]]:
    """Return what the rows of each hardware and case are chosen by."""
    return {
        (str(row["hardware"]), str(row["case"])): {name: row[name] for name in FACETS}
        for row in newest_rows(timed)
    }


def _title(rows: Rows) -> str:
    models = [str(name) for name in rows.frame["model"].cat.categories]
    machines = [str(name) for name in rows.frame["machine"].cat.categories]
    what = models[0] if len(models) == 1 else counted(len(models), "model")
    return f"Benchmark of {what} on {_listed(machines)}"


def _listed(names: Sequence[str], most: int = 3) -> str:
    """Return names as in a sentence, those beyond the first few as a number."""
    if len(names) > most:
        return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _when(rows: Rows) -> str:
    """Return the days and the frameworks of the rows, such as `TensorFlow 2.19.1 to 2.21.0`."""
    started = rows.frame["started"]
    days = list(dict.fromkeys([started.min()[:10], started.max()[:10]]))
    versions: dict[str, list[str]] = {}
    for words in rows.frame["framework"].dropna().unique():
        label, _, version = str(words).rpartition(" ")
        versions.setdefault(label, []).append(version)
    frameworks = [
        f"{label} {' to '.join(dict.fromkeys([ordered[0], ordered[-1]]))}"
        for label, found in versions.items()
        if (ordered := sorted(found, key=natural_order))
    ]
    return f"{', '.join([' to '.join(days) + ' (UTC)', *frameworks])}"


def _lead(rows: Rows) -> str:
    frame = rows.frame
    failed = int((~frame["measured"]).sum())
    parts = [
        counted(len(rows.runs), "run"),
        counted(frame["machine"].nunique(), "machine"),
        counted(frame["case"].nunique(), "case"),
        counted(len(frame), "process"),
    ]
    none = "all of them with figures" if len(frame) > 1 else "with figures"
    return f"{', '.join(parts)}, {f'{failed:,} without figures' if failed else none}."
