"""Cases over time: the step time run by run with its verdicts, levels and change points."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from convmark.compare.comparability import Comparability, facts_of
from convmark.compare.files import VerdictKey
from convmark.compare.rule.change_points import FEWEST_RUNS
from convmark.compare.sessions_file import MOST_LOOKED_INTO, LiveLevel, live_levels
from convmark.compare.trend import (
    SHARED,
    Commits,
    Point,
    Stretch,
    Trend,
    live_comparison,
    trend,
)
from convmark.core.fitting import wrapped
from convmark.core.interval import interval_text, share_of
from convmark.core.statistics import grouped, is_known
from convmark.core.table import Table, headings, printed, table_of
from convmark.core.text import (
    commit_text,
    counted,
    listed,
    load_text,
    natural_order,
    shown,
)
from convmark.report.rows import (
    POINT,
    SERIES,
    alike,
    case_of,
    pooled_half_widths,
    records_of,
    text_of,
)
from convmark.results.record import COLUMNS
from convmark.results.store import RunSource

if TYPE_CHECKING:
    import pandas as pd

COMMAND = "convmark "
"""Begins a command among the lines of a change."""

_LIVE = re.compile(r": `convmark (ab [^`]+)` compares them live$")
"""Ends the difference of two series that can be compared live."""

MOST_POINTS = 20_000
"""Points of all cases together; beyond them each keeps its newest, so that a page stays small."""

_FEWEST, _MOST = 10, 100
"""Points that a case keeps at least, and at most."""

_DIGITS = 6
"""Significant digits of a kept point; the process-to-process spread is in the second."""

_COLUMNS = (
    *("case", "hardware", "source", "started", "commit", "dirty", "framework", "keras"),
    *("step_time_p50_s", "low", "high", "n", "trouble", "load", "doubts", "asked_shape"),
    *("model", "task", "batch_size", "device", "backend", "precision", "machine"),
)

RunKey = tuple[str, str, int]
"""Hardware, case and source."""


def history(
    table: pd.DataFrame,
    runs: Sequence[RunSource],
    verdicts: Mapping[VerdictKey, str],
    marks: Mapping[RunKey, str] = MappingProxyType({}),
    levels: Mapping[RunKey, tuple[str, float]] = MappingProxyType({}),
) -> Table:
    """Return the newest points of each case on each hardware, oldest first.

    Args:
        table: points of all runs.
        runs: the files by `source`.
        marks: what is said of the first run of a change, by hardware, case and source.
        levels: the number of each run's level, and the level's step time, seconds.
    """
    half = pooled_half_widths(table)
    known = table.assign(
        low=np.exp(table["log_mean"] - half), high=np.exp(table["log_mean"] + half)
    )
    groups = known.groupby(SERIES, observed=True, sort=False)
    kept = int(min(_MOST, max(_FEWEST, MOST_POINTS // max(1, groups.ngroups))))
    newest = groups.tail(kept)  # in the order of the runs, as the table is
    paths = [source.path.resolve() for source in runs]
    records = []
    for row in records_of(newest, _COLUMNS):
        source = int(row["source"])
        key = (row["hardware"], row["case"], source)
        number, level_s = levels.get(key, ("", math.nan))
        records.append(
            {
                **row,
                **_rounded({**row, "level_s": level_s}),
                "case": case_of(row),
                "run": runs[source].label,
                "commit": commit_text(text_of(row["commit"]), row["dirty"]),
                "started": row["started"][:19].replace("T", " "),
                "level": number,
                "moved": marks.get(key, ""),
                "verdict": verdicts.get((paths[source], row["case"]), ""),
            }
        )
    records.sort(key=lambda row: (natural_order(row["case"]), str(row["hardware"])))
    left = len(table) - len(newest)
    limit = f" The newest {kept} runs of each case; {left:,} earlier points are left out."
    return _history_table(records, limit if left else "")


def _rounded(row: Mapping[str, Any]) -> dict[str, float]:
    known = {name: row[name] for name in ("step_time_p50_s", "low", "high", "level_s")}
    return {name: float(f"{one:.{_DIGITS}g}") for name, one in known.items() if one == one}


def _history_table(records: Sequence[Mapping[str, Any]], limit: str) -> Table:
    return table_of(
        "history",
        "History by version and commit",
        "A run's step time is the median over its processes, to six digits. The 95 % interval is "
        "for the mean over processes, from their spread pooled over the case's runs. It does not "
        "contain what affects a whole run, such as load, so only the verdict shows a regression. "
        "A level is the median step time over the runs in which the ratio to the reference "
        f"network has not moved; the oldest has the number 1. Times are UTC.{limit}",
        headings(
            "case hardware run started commit framework keras step_time_p50_s low high load n "
            "doubts level level_s verdict moved trouble",
            keras="Keras",
            low=("interval from", "seconds"),
            high=("to", "seconds"),
            level_s=("level p50", "seconds"),
            moved="change point",
        ),
        records,
        drawing="Each version and commit has one place on the axis, in the order of the first run. "
        "A point is a run, its thin bar the interval; the line is the median over the runs of a "
        "place. A wide bar is a level, a dashed line a change point.",
    )


# -- levels and change points, and commands to compare them live -----------------------------------


_FACTS = tuple(field.name for field in dataclasses.fields(Comparability))
_WHOLE = frozenset(column.name for column in COLUMNS if column.type is int)

_OF_RATIO = "A change is of the ratio to the reference network; a p50 moves with the load too."

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
    every = frame[frame["measured"]].groupby(POINT, observed=True, sort=True)
    found = groups.agg(
        log_ratio=("paired_log_ratio", "mean"),
        variance=("paired_log_ratio", "var"),
        processes=("paired_log_ratio", "size"),
        load=("other_cpu_share", "median"),
        loads=("other_cpu_share", "count"),
    ).join(every["step_time_p50_s"].median())  # the figure of the run, as all tables have it
    own = ["commit", "dirty", "code", "counting_version", *SHARED]
    table = found.join(judged.drop_duplicates(POINT).set_index(POINT)[[*_FACTS, *own]])
    folders = grouped((run.path.parent, source) for source, run in enumerate(runs))
    looked = {source for those in folders.values() for source in those[-MOST_LOOKED_INTO:]}
    live = {source: live_levels(runs[source].path) for source in looked}
    points: dict[tuple[str, str], list[Point]] = {}
    rows = table[[*own, *found.columns]].itertuples()
    for row, facts in zip(rows, _facts(table), strict=True):
        source, hardware, case = row.Index
        level = live.get(source, {}).get(case)
        point = _point(source, runs[source].label, row, facts, level)
        points.setdefault((hardware, case), []).append(point)
    return {key: trend(its_own) for key, its_own in points.items()}


def _facts(table: pd.DataFrame) -> Iterator[Comparability]:
    """Yield what makes each row comparable; rows that are alike in all of it are read once."""
    numbers = alike(table, _FACTS)
    _, firsts = np.unique(numbers, return_index=True)
    distinct = table[list(_FACTS)].iloc[firsts]
    cells = zip(*(_cells(distinct, name) for name in _FACTS), strict=True)
    known = [facts_of(dict(zip(_FACTS, one, strict=True))) for one in cells]
    return (known[number] for number in numbers.tolist())


def _cells(table: pd.DataFrame, name: str) -> list[Any]:
    """Return a column's values as a row of a file has them, None where absent."""
    values = [value if is_known(value) else None for value in table[name].tolist()]
    return [value and int(value) for value in values] if name in _WHOLE else values


def _point(
    source: int, run: str, row: Any, conditions: Comparability, live: LiveLevel | None
) -> Point:
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
        live=live,
        counting_version=text_of(row.counting_version),
        **{
            name: None if np.isnan(size) else size
            for name in SHARED
            for size in [getattr(row, name)]
        },
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
        for hardware, case in sorted(moved, key=lambda key: [*map(natural_order, key[::-1])])
        for stretch in moved[hardware, case].stretches
    ]
    busy = _first_told(
        f"{case} on {hardware}: {left_out_text(one.left_out)}"
        for (hardware, case), one in found.items()
        if one.left_out
    )
    flat = len(found) - len(moved)
    other = counted(flat, "other case" if moved else "case")
    rest = f" No change can be shown of {other}." if flat else ""
    return table_of(
        "levels",
        "Levels and change points",
        "Where the ratio of a case to the reference network has moved, over the runs of all "
        "commits under the same conditions; a step names the first run of the new level, a creep "
        "the stretch. The change is to the level before, with its 95 % interval; the search finds "
        f"a change in one of 500 flat series. {_OF_RATIO} A change seen live is one of the ratios "
        "that gates have measured beside earlier code, which are sharper. Runs under "
        "other conditions, of a model of other sizes or of another time budget are a series of "
        f"their own.{rest}{busy}",
        headings(
            "case hardware first last commit last_commit runs step_time_p50_s change low high "
            "kind live",
            first="from run",
            last="to run",
            commit="from commit",
            last_commit="to commit",
            step_time_p50_s=("step p50, median of runs", "seconds"),
            low=("from", "change"),
            live="compare live, or why not",
        ),
        records,
        empty="no change of a case can be shown",
    )


def _first_told(lines: Iterable[str]) -> str:
    told = list(lines)
    return f" {'; '.join(told[:3])}{' and others' * (len(told) > 3)}." if told else ""


def _record(stretch: Stretch, commits: Commits) -> dict[str, Any]:
    level, first, last = stretch.level, stretch.points[0], stretch.points[-1]
    kind = "creep" if level.creep else "step" if level.change is not None else ""
    if stretch.beside:
        kind = f"{kind}, seen live beside {stretch.beside}"
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
        (*key, one.points[0].source): f"{one.points[0].run}: {change_text(one)}"
        for key, its_own in found.items()
        for one in its_own.stretches
        if one.level.change is not None
    }


def runs_of_levels(found: Trends) -> dict[tuple[str, str, int], tuple[str, float]]:
    """Return each run's level, by hardware, case and source: its number, and its seconds per step.

    They are the median over the level's runs.
    """
    known = {
        (hardware, case): [(stretch, stretch.step_time_p50_s) for stretch in one.stretches]
        for (hardware, case), one in found.items()
    }
    return {
        (hardware, case, point.source): (str(number), level_s)
        for (hardware, case), its_own in known.items()
        for number, (stretch, level_s) in enumerate(its_own, 1)
        if level_s is not None
        for point in stretch.points
    }


# -- the levels of one case as text ----------------------------------------------------------------


_COMMIT = 8
"""Characters of a commit in the table, so that it fits."""

MOST_NAMED = 5
"""Runs that are left out and named; more are counted."""


def trend_text(
    trend: Trend, commits: Commits, typed: Callable[[str], str] = COMMAND.__add__
) -> str:
    """Return the levels, what compares their changes live, and what is left out.

    Args:
        typed: makes of a command, without the program's name, what a user pastes.
    """
    stretches = trend.stretches
    parts = [_levels_text(stretches)] if len(stretches) > 1 else list(_one_level(stretches))
    for number, stretch in enumerate(stretches):
        parts += _notes(stretch, first=number == 0, commits=commits, typed=typed)
    if trend.left_out:
        parts.append(wrapped(left_out_text(trend.left_out)))
    return "\n\n".join(parts)


def _one_level(stretches: Sequence[Stretch]) -> Iterator[str]:
    for stretch in stretches:
        count = len(stretch.points)
        if count < 2 * FEWEST_RUNS:
            need = f"change points need {2 * FEWEST_RUNS} comparable runs"
            yield wrapped(f"{need}, there {'is' if count == 1 else 'are'} {count}")
        else:
            yield f"no change can be shown with {counted(count, 'run')}"


def _levels_text(stretches: Sequence[Stretch]) -> str:
    records = [
        {
            "from": stretch.points[0].run,
            "to": stretch.points[-1].run,
            "commit": stretch.points[0].commit[:_COMMIT],
            "to_commit": stretch.points[-1].commit[:_COMMIT],
            "n": len(stretch.points),
            "p50": stretch.step_time_p50_s,
            "change": change_text(stretch),
        }
        for stretch in stretches
    ]
    columns = headings(
        "from to commit to_commit n p50 change",
        to_commit="to",
        p50=("p50", "seconds"),
        change="change",
    )
    return f"{printed(columns, records, drop_empty=False)}\n\n{wrapped(_OF_RATIO)}"


def change_text(stretch: Stretch) -> str:
    """Return such as `+5.1 % [+4.2, +6.0]`; a creep says that it is one."""
    level = stretch.level
    if level.change is None:
        return "new series" if stretch.conditions else ""
    return "creep " * level.creep + interval_text(share_of(level.change), level.interval.shares())


def _notes(
    stretch: Stretch, *, first: bool, commits: Commits, typed: Callable[[str], str]
) -> Iterator[str]:
    run = stretch.points[0].run
    if stretch.conditions and not first:
        words, live = stretch.conditions, _LIVE.search(stretch.conditions)
        command = [f"  {shown(typed(live[1]))}"] if live else []
        words = f"{words[: live.start()]}, compared live by:" if live else words
        said = shown(f"from run {run}, a series of its own: {words}")
        yield "\n".join([wrapped(said), *command])
    if lines := live_comparison(stretch, commits):
        last = stretch.points[-1].run
        what = f"{run} to {last}, creep" if stretch.level.creep else f"{run}, step"
        if stretch.beside:
            what += f", seen by the live sessions beside {stretch.beside}"
        lines = [
            typed(one.removeprefix(COMMAND)) if one.startswith(COMMAND) else one for one in lines
        ]
        yield "\n  ".join([f"run {what}:", *map(shown, lines)])


def left_out_text(points: Sequence[Point]) -> str:
    """Say which runs are left out and why."""
    runs = "runs" if len(points) > 1 else "run"
    names = listed([point.run for point in points], MOST_NAMED)
    loads = [point.load or 0.0 for point in points]
    told = " to ".join(dict.fromkeys(map(load_text, (min(loads), max(loads)))))
    return f"left out, under another load ({told} of the CPUs' time): {runs} {names}"
