"""TensorFlow versions and commits over time: a case's step time, run by run, with verdicts."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from convmark.compare.files import read_step_time_verdicts, verdicts_paths
from convmark.core.table import Table, heading, table_of
from convmark.report.runs import RunSource
from convmark.report.tables.points import pooled_half_widths, records_of, text_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MOST_POINTS", "history", "step_time_verdicts"]

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
    marks: Mapping[tuple[str, str, str], str] = MappingProxyType({}),
) -> Table:
    """Return the newest points of each case on each hardware, oldest first.

    Args:
        table: points of all runs.
        runs: the files by `source`.
        marks: what is said of the first run of a change, by hardware, case and run.
    """
    half = pooled_half_widths(table)
    known = table.assign(
        low=np.exp(table["log_mean"] - half), high=np.exp(table["log_mean"] + half)
    )
    groups = known.groupby(["hardware", "case"], observed=True, sort=False)
    kept = int(min(_MOST, max(_FEWEST, MOST_POINTS // max(1, groups.ngroups))))
    newest = groups.tail(kept).sort_values(["case", "hardware", "source"], kind="stable")
    paths = [source.path.resolve() for source in runs]
    records = [
        {
            **row,
            **_rounded(row),
            "run": runs[int(row["source"])].label,
            "commit": text_of(row["commit"])[:12] + " (dirty)" * (row["dirty"] is True),
            "started": row["started"][:19].replace("T", " "),
            "moved": marks.get((row["hardware"], row["case"], runs[int(row["source"])].label), ""),
            "verdict": verdicts.get((paths[int(row["source"])], row["case"]), ""),
        }
        for row in records_of(newest, _COLUMNS)
    ]
    left = len(table) - len(newest)
    limit = (
        f" The newest {kept} runs of each case; {left:,} earlier points are left out."
        if left
        else ""
    )
    return _table(records, limit)


def _rounded(row: Mapping[str, Any]) -> dict[str, float]:
    names = ("step_time_p50_s", "low", "high")
    return {name: float(f"{row[name]:.{_DIGITS}g}") for name in names if row[name] == row[name]}


def _table(records: Sequence[Mapping[str, Any]], limit: str) -> Table:
    return table_of(
        "history",
        "Versions and commits over time",
        "The median step time of each run, to six digits. The 95 % interval is for the mean over "
        "processes, from their spread pooled over the case's runs; what moves a whole run, such "
        "as load, is not in it, so that the verdict and not the line tells a regression. Times "
        f"are UTC.{limit}",
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
            heading("verdict", "verdict"),
            heading("moved", "change point"),
            heading("trouble", "trouble"),
        ],
        records,
    )
