"""TensorFlow versions and commits over time: a case's step time, run by run, with verdicts."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from convmark.compare.files import read_step_time_verdicts, verdicts_paths
from convmark.core.table import Table, heading, table_of
from convmark.report.tables.points import pooled_half_widths, records_of, text_of
from convmark.results.store import RunSource

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DIRTY", "MOST_POINTS", "commit_text", "history", "step_time_verdicts"]

DIRTY = " (dirty)"
"""Ends a commit whose files were changed."""

MOST_POINTS = 20_000
"""Points of all cases together; beyond them each keeps its newest, so that a page stays small."""

_FEWEST, _MOST = 10, 100
"""Points that a case keeps at least, and at most."""

_DIGITS = 6
"""Significant digits of a kept point; the process-to-process spread is in the second."""

_COLUMNS = (
    *("case", "hardware", "source", "started", "commit", "dirty", "framework", "keras"),
    *("step_time_p50_s", "low", "high", "n", "trouble", "load"),
    *("model", "task", "batch_size", "device", "backend", "precision", "machine"),
)

VerdictKey = tuple[Path, str]
RunKey = tuple[str, str, int]
"""Hardware, case and source."""


def step_time_verdicts(runs: Sequence[RunSource]) -> dict[VerdictKey, str]:
    """Return the last verdict on each step time, by the run's file and case.

    Raises:
        StoreError: a verdicts file does not fit; the message names file and line.
    """
    words_of = functools.cache(lambda path: list(read_step_time_verdicts(path)))
    found: dict[VerdictKey, str] = {}
    for path in dict.fromkeys(source.path.resolve() for source in runs):
        for place in verdicts_paths(path):
            words = {(path, case): said for case, run, said in words_of(place) if run == path.stem}
            if words:
                found |= words
                break
    return found


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
    groups = known.groupby(["hardware", "case"], observed=True, sort=False)
    kept = int(min(_MOST, max(_FEWEST, MOST_POINTS // max(1, groups.ngroups))))
    newest = groups.tail(kept).sort_values(["case", "hardware", "source"], kind="stable")
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
                "run": runs[source].label,
                "commit": commit_text(row["commit"], row["dirty"]),
                "started": row["started"][:19].replace("T", " "),
                "level": number,
                "moved": marks.get(key, ""),
                "verdict": verdicts.get((paths[source], row["case"]), ""),
            }
        )
    left = len(table) - len(newest)
    limit = (
        f" The newest {kept} runs of each case; {left:,} earlier points are left out."
        if left
        else ""
    )
    return _table(records, limit)


def commit_text(commit: str | None, dirty: bool | None) -> str:
    """Return a commit as tables show it; empty where it is not known."""
    return text_of(commit)[:12] + DIRTY * (dirty is True)


def _rounded(row: Mapping[str, Any]) -> dict[str, float]:
    names = ("step_time_p50_s", "low", "high", "level_s")
    return {name: float(f"{row[name]:.{_DIGITS}g}") for name in names if row[name] == row[name]}


def _table(records: Sequence[Mapping[str, Any]], limit: str) -> Table:
    return table_of(
        "history",
        "History by version and commit",
        "Each version and commit has one step of the axis, in the order of the first run; the line "
        "is the median over its runs. A point is a run: the median step time over its processes, "
        "to six digits. The 95 % interval is for the mean over processes, from their spread pooled "
        "over the case's runs; what moves a whole run, such as load, is not in it, so that the "
        "verdict and not the line tells a regression. A bar is a level: the median step time over "
        "the runs in which the ratio to the reference network has not moved; a dashed line is a "
        f"change point. Times are UTC.{limit}",
        [
            heading("case", "case"),
            heading("hardware", "hardware"),
            heading("run", "run"),
            heading("started", "started"),
            heading("commit", "commit"),
            heading("framework", "framework"),
            heading("keras", "Keras"),
            heading("step_time_p50_s", "step p50", "seconds"),
            heading("low", "interval from", "seconds"),
            heading("high", "to", "seconds"),
            heading("load", "other load", "share"),
            heading("n", "n", "count"),
            heading("level", "level"),
            heading("level_s", "level p50", "seconds"),
            heading("verdict", "verdict"),
            heading("moved", "change point"),
            heading("trouble", "trouble"),
        ],
        records,
    )
