"""Nodes of one kind compared by plain step times: shows a bad fan or a wrong governor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convmark.compare.outliers import LEAST_CHANGE, LEAST_NODES, Deviation, deviations
from convmark.core.table import Table, heading, table_of
from convmark.report.tables.points import text_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["differing", "nodes"]

RECENT_DAYS = 7
"""A node that was measured so long before the newest of its kind is not compared: hosts come, go
and are given new names."""


def nodes(frame: pd.DataFrame) -> Table:
    """Return one row per node of each kind that has enough of them, those that differ first."""
    records = []
    if "node" in frame:
        measured = frame[frame["measured"] & frame["node"].notna() & (frame["step_time_p50_s"] > 0)]
        for hardware, rows in measured.groupby("hardware", observed=True):
            newest = _newest(rows)
            records += [
                _record(str(hardware), one, newest[newest["node"] == one.node])
                for one in deviations(_times(newest))
            ]
    records.sort(key=lambda one: (not one["differs"], one["hardware"], -abs(one["change"])))
    return table_of(
        "nodes",
        "Nodes against others of their kind",
        f"Hosts with the same machine name are one kind; of {LEAST_NODES} or more, each one's "
        "step times stand beside those of the others, over all cases, by plain step times. A node "
        "differs where it lies outside the interval that the others predict and by more than "
        f"{100 * LEAST_CHANGE:.0f} %. Of the newest run of each case on each node, within "
        f"{RECENT_DAYS} days of the newest of its kind.",
        [
            heading("hardware", "hardware"),
            heading("node", "node"),
            heading("differs", "differs"),
            heading("change", "step time against its kind", "change"),
            heading("within", "a good node lies within", "share"),
            heading("cases", "cases", "count"),
            heading("processes", "processes", "count"),
            heading("other_cpu_share", "CPU time of others", "share"),
            heading("sm_clock_mhz", "clock, MHz", "number"),
            heading("temperature_c", "temperature, degrees Celsius", "number"),
            heading("throttled", "throttled"),
        ],
        records,
        empty=f"No kind has {LEAST_NODES} nodes.",
    )


def differing(table: Table) -> list[dict[str, Any]]:
    """Return what is said of the nodes that differ, as rows of the troubles."""
    return [
        {
            "what": "node differs",
            "hardware": row["hardware"],
            "case": f"{row['cases']:,} cases",
            "detail": f"{row['node']}: {100 * row['change']:+.1f} % against its kind, where a good "
            f"node lies within {100 * row['within']:.1f} %",
        }
        for row in table.records()
        if row.get("differs")
    ]


def _newest(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of each case's newest run on each node, of nodes that were there lately."""
    import pandas as pd

    started = pd.to_datetime(rows["started"], utc=True, errors="coerce", format="ISO8601")
    recent = rows[started >= started.max() - pd.Timedelta(days=RECENT_DAYS)]
    keys = ["node", "case", "framework"]
    last = recent.sort_values("source", kind="stable").groupby(keys, observed=True, dropna=False)
    return recent[recent["source"] == last["source"].transform("last")]


def _times(rows: pd.DataFrame) -> dict[str, dict[str, list[float]]]:
    found: dict[str, dict[str, list[float]]] = {}
    names = ("node", "case", "framework", "step_time_p50_s")
    for node, case, framework, seconds in zip(*(rows[name] for name in names), strict=True):
        found.setdefault(node, {}).setdefault(f"{case} {framework}", []).append(seconds)
    return found


def _record(hardware: str, one: Deviation, rows: pd.DataFrame) -> dict[str, Any]:
    medians = {
        name: rows[name].median()
        for name in ("other_cpu_share", "sm_clock_mhz", "temperature_c")
        if name in rows
    }
    reasons = {text_of(value) for value in rows.get("throttle_reasons", ())} - {"", "none"}
    return {
        "hardware": hardware,
        "node": one.node,
        "differs": ("slower" if one.value > 0 else "faster") if one.differs else "",
        "change": one.change,
        "within": one.half_width,
        "cases": one.cases,
        "processes": one.processes,
        "throttled": ", ".join(sorted(reasons)),
        **medians,
    }
