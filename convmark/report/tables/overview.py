"""Summary: what is missing or unsteady, first; then what was measured, where, when, by how many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from convmark.core.table import Heading, Table, heading, table_of
from convmark.core.tasks import TIMED_TASKS
from convmark.report.tables.points import latest, text_of
from convmark.results.record import shown_in

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["machines", "troubles"]

FEW_PROCESSES = 3
"""Fewer tell no interval worth the name: plain step times move by 5 to 10 % between processes."""
WIDE_SPREAD = 0.10

_FACTS = shown_in("machines")

_RANK = (
    *("failed", "missing", "node differs", "unsteady", "throttled", "not judged", "wide spread"),
    "few processes",
)


def troubles(table: pd.DataFrame, labels: list[str], more: Sequence[dict[str, Any]] = ()) -> Table:
    """Return what is missing, failed, unsteady or thin in the newest figures of each case.

    Args:
        table: points of all runs.
        labels: the runs' names by `source`.
        more: rows of what else is found.
    """
    records = [
        {"hardware": row.hardware, "case": row.case, "what": what, "detail": detail,
         "run": labels[int(row.source)]}
        for row in latest(table, measured=False).itertuples()
        for what, detail in _of(row)
    ]  # fmt: skip
    records += [*_missing(table, labels), *_few(table), *more]
    records.sort(key=lambda row: (_RANK.index(row["what"]), str(row["hardware"]), str(row["case"])))
    return table_of(
        "troubles",
        "What is missing or unsteady",
        f"Of the newest run of each case on each hardware. Missing: the hardware's newest run of "
        f"such tasks has not measured a case that an earlier one has. Unsteady: the step "
        f"time did not hold still. Wide spread: half the range of the processes' medians is above "
        f"{WIDE_SPREAD:.0%}. Few processes: fewer than {FEW_PROCESSES}, so intervals are wide or "
        f"not known.",
        [
            heading("what", "what"),
            heading("hardware", "hardware"),
            heading("case", "case"),
            heading("run", "run"),
            heading("detail", "detail"),
        ],
        records,
        empty="Nothing is missing, failed or unsteady.",
    )


def _of(row: Any) -> Iterator[tuple[str, str]]:
    if row.failed:
        count = int(row.failed + row.n)
        yield "failed", f"{int(row.failed)} of {count}: {text_of(row.trouble)}"
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
    tasks = table["task"].astype(str)
    keyed = table.assign(kind=tasks.where(~tasks.isin(TIMED_TASKS), "timed"))
    newest = keyed.groupby(["hardware", "kind"], observed=True)["source"].last()
    found = []
    for row in latest(keyed, measured=False).itertuples():
        last = int(newest[row.hardware, row.kind])
        if int(row.source) != last:
            detail = f"not in run {labels[last]}, the newest; last in {labels[int(row.source)]}"
            found.append(
                {"hardware": row.hardware, "case": row.case, "what": "missing", "detail": detail,
                 "run": labels[int(row.source)]}
            )  # fmt: skip
    return found


def _few(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """One line per hardware: by default every case has two processes."""
    newest = latest(table)
    few = newest[newest["n"] < FEW_PROCESSES]
    for name, rows in few.groupby("hardware", observed=True):
        cases = rows["case"].iloc[0] if len(rows) == 1 else f"{len(rows)} cases"
        detail = f"fewer than {FEW_PROCESSES}: try --processes {FEW_PROCESSES}"
        yield {"hardware": name, "case": cases, "what": "few processes", "detail": detail}


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
