"""What was measured, where, when, by how many; and what makes the figures less reliable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from convmark.core.table import Heading, Table, heading, table_of
from convmark.report.tables.points import axes_of, latest, text_of
from convmark.results.record import shown_in

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CAUSES", "FEW_PROCESSES", "WIDE_SPREAD", "machines", "troubles"]

FEW_PROCESSES = 3
"""Fewer tell no interval worth the name: plain step times move by 5 to 10 % between processes."""
WIDE_SPREAD = 0.10

_FACTS = shown_in("machines")

CAUSES: Mapping[str, str] = MappingProxyType(
    {
        "failed": "The process ended without a figure, with the error in the detail.",
        "missing": "The newest run of a plan lacks a case that an earlier run of the same plan "
        "has: it was interrupted, or a file was removed.",
        "node differs": "A node is slower or faster than the others of its kind.",
        "other load": "Other programs used the CPUs during the measurement, so the step times are "
        "longer than on an idle machine: close them and measure again.",
        "unsteady": "The step time changed during the measurement.",
        "throttled": "The GPU lowered its clocks.",
        "not judged": "The figures are no ground for a verdict, for the reason in the detail.",
        "wide spread": f"Half the range of the processes' medians is above {WIDE_SPREAD:.0%} of "
        "their median: measure again on an idle machine.",
        "few processes": f"Fewer than {FEW_PROCESSES} processes, so intervals are wide or not "
        f"known: try --processes {FEW_PROCESSES}.",
    }
)
"""Why a figure is less reliable, by the word of the note; the worst first."""

_RANK = tuple(CAUSES)


def troubles(table: pd.DataFrame, labels: list[str], more: Sequence[dict[str, Any]] = ()) -> Table:
    """Return what is missing, failed, unsteady or thin in the newest figures of each case.

    Args:
        table: points of all runs.
        labels: the runs' names by `source`.
        more: rows of what else is found.
    """
    records = [
        {"hardware": row.hardware, "case": row.case, "what": what, "detail": detail,
         "run": labels[int(row.source)], **axes_of(row)}
        for row in latest(table, measured=False).itertuples()
        for what, detail in _of(row)
    ]  # fmt: skip
    records += [*_missing(table, labels), *_few(table), *more]
    there = {row["what"] for row in records}
    records.sort(key=lambda row: (_RANK.index(row["what"]), str(row["hardware"]), str(row["case"])))
    return table_of(
        "troubles",
        "Data quality",
        "Of the newest run of each case on each hardware. "
        + " ".join(f"{what.capitalize()}: {CAUSES[what]}" for what in _RANK if what in there),
        [
            heading("what", "what"),
            heading("case", "case"),
            heading("hardware", "hardware"),
            heading("run", "run"),
            heading("detail", "detail"),
        ],
        records,
        empty="Nothing is failed, missing, unsteady or measured under other load.",
    )


def _of(row: Any) -> Iterator[tuple[str, str]]:
    if row.failed:
        count = int(row.failed + row.n)
        yield "failed", f"{int(row.failed)} of {count}: {text_of(row.trouble)}"
    if row.load == row.load:
        yield "other load", f"other programs took {row.load:.0%} of the CPUs' time"
    if row.unsteady:
        reason = text_of(row.why_unsteady)
        affected = f"{int(row.unsteady)} of {int(row.n)} processes"
        yield "unsteady", f"{affected}: {reason}" if reason else affected
    if throttled := text_of(row.throttled):
        clock = getattr(row, "sm_clock_mhz", None)
        reached = f", the multiprocessors' to {clock:.0f} MHz" if clock and clock == clock else ""
        yield "throttled", f"clocks were lowered{reached}: {throttled}"
    if reason := text_of(getattr(row, "not_judged", None)):
        yield "not judged", reason
    if row.spread == row.spread and row.spread > WIDE_SPREAD:
        yield "wide spread", f"{row.spread:.1%} between {int(row.n)} processes: try an idle machine"


def _missing(table: pd.DataFrame, labels: list[str]) -> list[dict[str, Any]]:
    """Return the cases that the newest run of a plan lacks, which no later run measured either."""
    planned = table[table["plan"].notna()]
    newest = planned.groupby(["hardware", "plan"], observed=True)["source"].last()
    found = []
    for row in latest(table, measured=False).itertuples():
        last = int(newest.get((row.hardware, row.plan), -1))
        if int(row.source) < last:
            found.append(
                {"hardware": row.hardware, "case": row.case, "what": "missing",
                 "detail": f"not in run {labels[last]}, the newest of the plan",
                 "run": labels[int(row.source)], **axes_of(row)}
            )  # fmt: skip
    return found


def _few(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """One line per hardware: by default every case has two processes."""
    newest = latest(table)
    few = newest[newest["n"] < FEW_PROCESSES]
    for name, rows in few.groupby("hardware", observed=True):
        cases = rows["case"].iloc[0] if len(rows) == 1 else f"{len(rows)} cases"
        detail = f"fewer than {FEW_PROCESSES}: try --processes {FEW_PROCESSES}"
        machine, device = rows["machine"].iloc[0], rows["device"].iloc[0]
        yield {"hardware": name, "case": cases, "what": "few processes", "detail": detail,
               "machine": machine, "device": device}  # fmt: skip


def machines(frame: pd.DataFrame) -> Table:
    """Return one row per hardware: what it is, and what was measured on it."""
    return table_of(
        "machines",
        "What was measured",
        "One row per machine and device. A process is one row of the results: a fresh "
        "operating-system process that measured one case once. Times are UTC.",
        [
            heading("hardware", "hardware"),
            *map(Heading.of, _FACTS),
            heading("framework", "frameworks"),
            heading("python", "Python"),
            heading("runs", "runs", "count"),
            heading("commits", "commits", "count"),
            heading("cases", "cases", "count"),
            heading("processes", "processes", "count"),
            heading("without_figures", "of them without figures", "count"),
            heading("first", "first"),
            heading("last", "last"),
        ],
        [_machine(str(name), rows) for name, rows in frame.groupby("hardware", observed=True)],
    )


def _machine(name: str, rows: pd.DataFrame) -> dict[str, Any]:
    started = rows["started"]
    return {
        "hardware": name,
        "machine": _newest(rows, "machine"),
        "device": _newest(rows, "device"),
        **{column.name: _newest(rows, column.name) for column in _FACTS},
        "framework": _distinct(rows["framework"]),
        "python": _distinct(rows["python"]),
        "runs": rows["source"].nunique(),
        "commits": rows["commit"].nunique(),
        "cases": rows["case"].nunique(),
        "processes": len(rows),
        "without_figures": int((~rows["measured"]).sum()),
        "first": _minute(started.min()),
        "last": _minute(started.max()),
    }


def _newest(rows: pd.DataFrame, key: str) -> Any:
    values = rows[key].dropna()
    return values.iloc[-1] if len(values) else None


MOST_LISTED = 6


def _distinct(values: pd.Series) -> str:
    """Return the distinct values in the order of their first use, the middle ones folded."""
    found = [str(value) for value in values.dropna().unique()]
    if len(found) > MOST_LISTED:
        found = [*found[:2], f"({len(found) - 4} more)", *found[-2:]]
    return ", ".join(found)


def _minute(started: str) -> str:
    return started[:16].replace("T", " ")
