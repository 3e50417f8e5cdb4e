"""Points: the processes of one case in one run, aggregated to one row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from convmark.compare.rule.statistics import t_quantile
from convmark.core.case import Case
from convmark.core.table import FACETS
from convmark.results.record import COLUMNS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BUSY_SHARE", "CONFIDENCE", "POINT", "axes_of", "latest", "points", "text_of"]

CONFIDENCE = 0.95
"""Of every interval in a report."""

BUSY_SHARE = 0.1
"""Others took this share of the CPUs' time or more: the step times are longer than on an idle
machine, and their ratio to the reference moves too (see `ALIKE_LOAD`)."""

POINT = ["source", "hardware", "case"]
_NOT_OF_POINTS = ("", "accuracy", "machines")
"""Tables that are made of rows."""

_MEDIANS = (
    *(
        column.name
        for column in COLUMNS
        if column.table not in _NOT_OF_POINTS
        and column.group != "size"
        and (column.type is float or (column.type is int and column.title is not None))
    ),
    "bytes_per_sample",
)
_FIRST = (
    *("run", "started", "commit", "dirty", "framework", "keras", "machine", "not_judged"),
    *("plan", "asked_shape"),
    *Case.__dataclass_fields__,
    *(
        column.name
        for column in COLUMNS
        if column.title is not None
        and column.table not in _NOT_OF_POINTS
        and column.name not in _MEDIANS
    ),
)
"""Facts that the processes of a point share: of the first that has one."""


def points(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per run, hardware and case, newest last.

    Figures are medians over the measured processes, NaN where there are none. Added: `n` measured
    processes, `failed`, `unsteady`, `trouble` (status and error of the first that failed),
    `why_unsteady` (of the first that says so), and of the step time `spread` (half the range over
    the median), `log_mean`, `log_var` over processes; `load` is the other programs' share of the
    CPUs' time, where it is large.
    """
    import pandas as pd

    groups = frame.groupby(POINT, observed=True, sort=False)
    first = groups[[name for name in _FIRST if name in frame]].first()
    first["cluster"] = first["cluster"].where(first["cluster"].notna(), "")  # to group by
    measured = frame[frame["measured"]]
    figures = measured.groupby(POINT, observed=True, sort=False)
    names = [name for name in dict.fromkeys(_MEDIANS) if name in frame and name not in first]
    table = first.join(figures[names].median()).join(_step_time(measured))
    table["n"] = figures.size().reindex(table.index).fillna(0)
    flags = pd.DataFrame(
        {
            "failed": ~frame["measured"],
            "unsteady": frame["status"] == "unsteady",
            **{name: frame[name] for name in POINT},
        }
    )
    counts = flags.groupby(POINT, observed=True, sort=False).sum()
    table = table.join(counts).join(_trouble(frame)).join(_throttled(measured))
    table = table.join(_why_unsteady(measured))
    table["load"] = table["other_cpu_share"].where(table["other_cpu_share"] >= BUSY_SHARE)
    return table.reset_index().sort_values("source", kind="stable", ignore_index=True)


def _step_time(measured: pd.DataFrame) -> pd.DataFrame:
    """Return spread, mean and variance of the step time between the processes of each point."""
    times = measured[[*POINT, "step_time_p50_s"]].copy()
    times["log"] = np.log(times["step_time_p50_s"].where(times["step_time_p50_s"] > 0))
    groups = times.groupby(POINT, observed=True, sort=False)
    plain, logs = groups["step_time_p50_s"], groups["log"]
    found = plain.agg(["min", "max", "median", "count"])
    found["spread"] = ((found["max"] - found["min"]) / 2 / found["median"]).where(
        found["count"] > 1
    )
    found["log_mean"], found["log_var"] = logs.mean(), logs.var(ddof=1)
    return found[["spread", "log_mean", "log_var"]]


def _trouble(frame: pd.DataFrame) -> pd.DataFrame:
    failed = frame[~frame["measured"]]
    first = failed.groupby(POINT, observed=True, sort=False)[["status", "error"]].first()
    first["trouble"] = [
        f"{status}: {error or 'no reason given'}"
        for status, error in zip(first["status"], first["error"], strict=True)
    ]
    return first[["trouble"]]


def _why_unsteady(measured: pd.DataFrame) -> pd.DataFrame:
    """Return why figures did not hold still, of the first process that says so."""
    if "unsteady" not in measured:
        return measured[POINT].iloc[:0].set_index(POINT).assign(why_unsteady=None)
    said = measured[measured["unsteady"].notna()]
    first = said.groupby(POINT, observed=True, sort=False)[["unsteady"]].first()
    return first.rename(columns={"unsteady": "why_unsteady"})


def _throttled(measured: pd.DataFrame) -> pd.DataFrame:
    """Return why clocks were lowered, of the first process that tells a reason."""
    if "throttle_reasons" not in measured:
        return measured[POINT].iloc[:0].set_index(POINT).assign(throttled=None)
    reasons = measured["throttle_reasons"]
    told = measured[reasons.notna() & (reasons != "none")]
    first = told.groupby(POINT, observed=True, sort=False)[["throttle_reasons"]].first()
    return first.rename(columns={"throttle_reasons": "throttled"})


def latest(table: pd.DataFrame, *, measured: bool = True) -> pd.DataFrame:
    """Return the newest point of each case on each hardware, of those with figures by default."""
    chosen = table[table["n"] > 0] if measured else table
    return chosen.groupby(["hardware", "case"], observed=True, sort=False).tail(1)


def axes_of(row: Any) -> dict[str, Any]:
    """Return what a page chooses a row of a table by, of a point."""
    return {name: getattr(row, name) for name in FACETS}


def pooled_half_widths(table: pd.DataFrame) -> np.ndarray[Any, Any]:
    """Return half of each point's interval on ln(step time); NaN where no spread is known.

    The spread between processes is pooled over the runs of the case on the hardware, so that a
    point of few processes has an interval too; what differs between runs is not in it.
    """
    groups = [table["hardware"].astype(str), table["case"].astype(str)]
    freedom = (table["n"] - 1).clip(lower=0).where(table["log_var"].notna(), 0)
    total = (table["log_var"].fillna(0) * freedom).groupby(groups).transform("sum")
    pooled = freedom.groupby(groups).transform("sum")
    known = {int(df): t_quantile((1 + CONFIDENCE) / 2, df) for df in set(pooled[pooled > 0])}
    factor = pooled.map(lambda df: known.get(int(df), math.nan))
    variance = total / pooled.where(pooled > 0)
    return np.asarray(factor * np.sqrt(variance / table["n"].where(table["n"] > 0)))


def text_of(value: Any) -> str:
    """Return a text cell; empty where it is absent."""
    return "" if value is None or value != value else str(value)


def records_of(table: pd.DataFrame, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows by name, of the columns that are there."""
    there = [name for name in names if name in table]
    columns = [table[name].tolist() for name in there]
    return [dict(zip(there, values, strict=True)) for values in zip(*columns, strict=True)]
