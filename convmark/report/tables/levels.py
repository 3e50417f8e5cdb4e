"""Levels and change points of each case, commands to compare them live, and the noise."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convmark.compare.comparability import Comparability, facts_of
from convmark.compare.files import NOISE, read_noise
from convmark.compare.trend import Commits, Point, Stretch, Trend, live_comparison, trend
from convmark.core.statistics import share_of
from convmark.core.table import Table, heading, table_of
from convmark.report.tables.points import POINT, text_of
from convmark.report.trend import change_text, left_out_text
from convmark.results.names import read_name
from convmark.results.record import COLUMNS
from convmark.results.store import RunSource

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Trends", "levels", "marks", "noise", "runs_of_levels", "trends"]

_FACTS = tuple(field.name for field in dataclasses.fields(Comparability))
_WHOLE = frozenset(column.name for column in COLUMNS if column.type is int)

Trends = Mapping[tuple[str, str], Trend]
"""By hardware and case."""


def trends(frame: pd.DataFrame, runs: Sequence[RunSource]) -> Trends:
    """Return the levels of each case on each hardware.

    Args:
        frame: rows of timed tasks.
        runs: the files by `source`.
    """
    judged = frame[frame["measured"] & frame["paired_log_ratio"].notna()]
    judged = judged[judged["not_judged"].isna()]
    steady = judged["status"] == "ok"
    any_steady = steady.groupby([judged[name] for name in POINT], observed=True).transform("any")
    judged = judged[steady | ~any_steady]
    groups = judged.groupby(POINT, observed=True, sort=True)
    found = groups.agg(
        log_ratio=("paired_log_ratio", "mean"),
        variance=("paired_log_ratio", "var"),
        processes=("paired_log_ratio", "size"),
        load=("other_cpu_share", "mean"),
        loads=("other_cpu_share", "count"),
        step_time_p50_s=("step_time_p50_s", "median"),
    )
    names = [*_FACTS, "commit", "dirty", "code"]
    table = found.join(judged.drop_duplicates(POINT).set_index(POINT)[names])
    facts = zip(*(_cells(table, name) for name in _FACTS), strict=True)
    known: dict[tuple[Any, ...], Comparability] = {}
    points: dict[tuple[str, str], list[Point]] = {}
    rows = table[["commit", "dirty", "code", *found.columns]].itertuples()
    for row, cells in zip(rows, facts, strict=True):
        source, hardware, case = row.Index
        if cells not in known:
            known[cells] = facts_of(dict(zip(_FACTS, cells, strict=True)))
        point = _point(source, runs[source].label, row, known[cells])
        points.setdefault((hardware, case), []).append(point)
    return {key: trend(its_own) for key, its_own in points.items()}


def _cells(table: pd.DataFrame, name: str) -> list[Any]:
    """Return a column's values as a row of a file has them, None where absent."""
    values = [None if value is None or value != value else value for value in table[name].tolist()]
    return [value and int(value) for value in values] if name in _WHOLE else values


def _point(source: int, run: str, row: Any, conditions: Comparability) -> Point:
    clean = bool(text_of(row.code)) or row.dirty is False
    return Point(
        run=run,
        commit=text_of(row.commit) if clean else "",
        log_ratio=float(row.log_ratio),
        variance=None if np.isnan(row.variance) else float(row.variance),
        processes=int(row.processes),
        load=float(row.load) if row.loads == row.processes else None,
        step_time_p50_s=float(row.step_time_p50_s),
        conditions=conditions,
        source=source,
    )


def levels(found: Trends, folder: Path, axes: Mapping[tuple[str, str], Mapping[str, Any]]) -> Table:
    """Return the levels of the cases that have moved, or of which runs differ in conditions.

    Args:
        folder: where git is asked for the commits between two levels.
        axes: what a page chooses the rows of each hardware and case by.
    """
    commits = Commits(folder)
    moved = {key: one for key, one in found.items() if len(one.stretches) > 1}
    records = [
        {
            **axes.get((hardware, case), {}),
            "framework": None,  # a level may be of several versions
            "case": case,
            "hardware": hardware,
            **_record(stretch, commits),
        }
        for (hardware, case), one in sorted(moved.items(), key=lambda item: item[0][::-1])
        for stretch in one.stretches
    ]
    busy = [
        f"{case} on {hardware}: {left_out_text(one.left_out)}"
        for (hardware, case), one in found.items()
        if one.left_out
    ]
    left_out = f" {'; '.join(busy[:3])}{' and others' * (len(busy) > 3)}." if busy else ""
    flat = len(found) - len(moved)
    rest = f" {flat} other case{'s' * (flat != 1)} did not move." if flat else ""
    return table_of(
        "levels",
        "Levels and change points",
        "Where the ratio of a case to the reference network has moved, over the runs of all "
        "commits under the same conditions; a step names the first run of the new level, a creep "
        "the stretch. The change is to the level before, with its 95 % interval; the search finds "
        "a change in one of 500 flat series. Runs under other conditions are a series of their "
        f"own.{rest}{left_out}",
        [
            heading("case", "case"),
            heading("hardware", "hardware"),
            heading("first", "from run"),
            heading("last", "to run"),
            heading("commit", "from commit"),
            heading("last_commit", "to commit"),
            heading("runs", "runs", "count"),
            heading("step_time_p50_s", "step p50, median of runs", "seconds"),
            heading("change", "change", "change"),
            heading("low", "from", "change"),
            heading("high", "to", "change"),
            heading("kind", "kind"),
            heading("live", "compare live, or why not"),
        ],
        records,
        empty="no case has moved",
    )


def _record(stretch: Stretch, commits: Commits) -> dict[str, Any]:
    level, first, last = stretch.level, stretch.points[0], stretch.points[-1]
    kind = "creep" if level.creep else "step" if level.change is not None else ""
    if stretch.conditions:
        kind = "new series"
    return {
        "first": first.run,
        "last": last.run,
        "commit": first.commit[:12],
        "last_commit": last.commit[:12],
        "runs": len(stretch.points),
        "step_time_p50_s": stretch.step_time_p50_s,
        "change": None if level.change is None else share_of(level.change),
        **level.interval.shares().cells,
        "kind": kind,
        "live": stretch.conditions or "; ".join(live_comparison(stretch, commits)),
    }


def marks(found: Trends) -> dict[tuple[str, str, int], str]:
    """Return what a figure marks, by hardware, case and source: the first run of each change."""
    return {
        (
            hardware,
            case,
            stretch.points[0].source,
        ): f"{stretch.points[0].run}: {change_text(stretch)}"
        for (hardware, case), one in found.items()
        for stretch in one.stretches
        if stretch.level.change is not None
    }


def runs_of_levels(found: Trends) -> dict[tuple[str, str, int], tuple[str, float]]:
    """Return each run's level, by hardware, case and source: its number, and its seconds per step.

    They are the median over the level's runs.
    """
    return {
        (hardware, case, point.source): (str(number), stretch.step_time_p50_s)
        for (hardware, case), one in found.items()
        for number, stretch in enumerate(one.stretches, 1)
        if stretch.step_time_p50_s is not None
        for point in stretch.points
    }


def noise(folders: Iterable[Path]) -> Table:
    """Return what `convmark noise` has found of the machines whose folders these are."""
    rows = [
        {"machine": read_name(folder) or folder.name, **dataclasses.asdict(row)}
        for folder in folders
        for row in read_noise(folder / NOISE).values()
    ]
    return table_of(
        "noise",
        "Changes that this machine can detect",
        "From sessions of one code and a copy of it (`convmark noise`). `sees` is the "
        "smallest slowdown that is found in 95 of 100 comparisons within the budget of all "
        "cases, `excludes` the change that `unchanged` rules out in as many; the last columns are "
        "the time until a slowdown of that size is found in 8 of 10.",
        [
            heading("machine", "machine"),
            heading("case", "case"),
            heading("measured", "measured"),
            heading("sessions", "sessions", "count"),
            heading("session_s", "a session", "seconds"),
            heading("scatter", "scatter", "share"),
            heading("budget_s", "budget", "seconds"),
            heading("found_from", "sees", "share"),
            heading("rules_out", "excludes", "share"),
            heading("seconds_for_3_percent", "3 % in", "seconds"),
            heading("seconds_for_5_percent", "5 % in", "seconds"),
            heading("seconds_for_10_percent", "10 % in", "seconds"),
            heading("note", "note"),
        ],
        rows,
    )
