"""What was measured, where, when, by how many; and what makes the figures less reliable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convmark.compare.outliers import LEAST_CHANGE, LEAST_NODES, Deviation, deviations
from convmark.core.table import FACETS, Heading, Table, headings, table_of
from convmark.core.text import counted, load_text, natural_order, spread_text
from convmark.report.rows import latest, newest_rows, text_of
from convmark.results.record import shown_in

if TYPE_CHECKING:
    import pandas as pd

FEW_PROCESSES = 3
"""Fewer tell no interval worth the name: plain step times move by 5 to 10 % between processes."""
WIDE_SPREAD = 0.10

_FACTS = shown_in("machines")

CAUSES: Mapping[str, str] = {
    "failed": "The process ended without a figure, with the error in the detail.",
    "missing": "The newest run of a plan lacks a case that an earlier run of the same plan "
    "has: it was interrupted, or a file was removed.",
    "node differs": "A node is slower or faster than the others of its kind.",
    "other load": "Other programs used the CPUs during the measurement, so the step times are "
    "longer than on an idle machine: close them and measure again.",
    "concurrent": "Other benchmark runs were allowed beside it (--allow-concurrent), and slow "
    "it: measure it alone.",
    "unsteady": "The step time changed during the measurement.",
    "throttled": "The GPU lowered its clocks.",
    "not judged": "The figures do not count in verdicts, for the reason in the detail.",
    "wide spread": "Half the range of the processes' medians is above "
    f"{load_text(WIDE_SPREAD)} of their median: measure again on an idle machine.",
    "few processes": f"Fewer than {FEW_PROCESSES} processes, so intervals are wide or not "
    f"known: try --processes {FEW_PROCESSES}.",
}
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
        {**row, "what": what, "detail": detail, "run": labels[int(row["source"])]}
        for row in newest_rows(table, measured=False)
        for what, detail in _of(row)
    ]
    records += [*_missing(table, labels), *_few(table), *more]
    there = {row["what"] for row in records}
    records.sort(key=lambda row: (_RANK.index(row["what"]), str(row["hardware"]),
                                  natural_order(str(row["case"]))))  # fmt: skip
    return table_of(
        "troubles",
        "Data quality",
        "From the newest run of each case on each hardware. "
        + " ".join(f"{what.capitalize()}: {CAUSES[what]}" for what in _RANK if what in there),
        headings("what case hardware run detail"),
        records,
        empty="Nothing is failed, missing, unsteady or measured under other load.",
    )


def _of(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    n, failed, unsteady = (int(row[name]) for name in ("n", "failed", "unsteady"))
    if failed:
        yield "failed", f"{failed} of {failed + n}: {text_of(row['trouble'])}"
    if row["load"] == row["load"]:
        yield "other load", f"other programs took {load_text(row['load'])} of the CPUs' time"
    if row["concurrent"]:
        yield "concurrent", f"{int(row['concurrent'])} of {counted(failed + n, 'process')}"
    if unsteady:
        reason = text_of(row["why_unsteady"])
        affected = f"{unsteady} of {counted(n, 'process')}"
        yield "unsteady", f"{affected}: {reason}" if reason else affected
    if throttled := text_of(row["throttled"]):
        clock = row.get("sm_clock_mhz")
        reached = f", the multiprocessors' to {clock:.0f} MHz" if clock and clock == clock else ""
        yield "throttled", f"clocks were lowered{reached}: {throttled}"
    if reason := text_of(row.get("not_judged")):
        yield "not judged", reason
    if row["spread"] > WIDE_SPREAD:
        yield (
            "wide spread",
            f"{spread_text(row['spread'])} between {counted(n, 'process')}: try an idle machine",
        )


def _missing(table: pd.DataFrame, labels: list[str]) -> list[dict[str, Any]]:
    """Return the cases that the newest run of a plan lacks, which no later run measured either."""
    planned = table[table["plan"].notna()]
    newest = planned.groupby(["hardware", "plan"], observed=True)["source"].last()
    found = []
    for row in newest_rows(table, measured=False):
        last, source = int(newest.get((row["hardware"], row["plan"]), -1)), int(row["source"])
        if source < last:
            detail = f"not in run {labels[last]}, the newest of the plan"
            found.append({**row, "what": "missing", "detail": detail, "run": labels[source]})
    return found


def _few(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """One line per hardware: by default every case has two processes."""
    newest = latest(table)
    few = newest[newest["n"] < FEW_PROCESSES]
    for name, rows in few.groupby("hardware", observed=True):
        cases = rows["case"].iloc[0] if len(rows) == 1 else counted(len(rows), "case")
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
        "operating-system process that measured one case once. Rows without the name of their "
        "host, such as published ones, are kept apart from rows with it. Times are UTC.",
        [
            *headings("hardware"),
            *map(Heading.of, _FACTS),
            *headings(
                "framework python runs commits cases processes without_figures first last",
                framework="frameworks",
                python="Python",
                commits=("commits", "count"),
                without_figures=("of them without figures", "count"),
            ),
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
        "cores": rows["cores"].max(),  # a process that is bound to some has fewer
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


# -- nodes of one kind: shows a bad fan or a wrong governor ----------------------------------------


RECENT_DAYS = 7
"""A node that was measured so long before the newest of its kind is not compared: hosts come, go
and are given new names."""


def nodes(frame: pd.DataFrame) -> Table:
    """Return one row per node of each kind that has enough of them, those that differ first."""
    records = []
    if "node" in frame:
        measured = frame[frame["measured"] & frame["node"].notna() & (frame["step_time_p50_s"] > 0)]
        for hardware, rows in measured.groupby("hardware", observed=True):
            newest = _newest_of_nodes(rows)
            records += [
                _record(str(hardware), one, newest[newest["node"] == one.node])
                for one in deviations(_times(newest))
            ]
    records.sort(key=lambda one: (not one["differs"], one["hardware"], -abs(one["change"])))
    return table_of(
        "nodes",
        "Nodes against others of their kind",
        f"Hosts with the same machine name are one kind. If a kind has {LEAST_NODES} or more, the "
        "step times of each host are compared with those of the others, over all cases. A node "
        "differs if it lies outside the interval that the others predict and by more than "
        f"{100 * LEAST_CHANGE:.0f} %. From the newest run of each case on each node, within "
        f"{RECENT_DAYS} days of the newest run of its kind.",
        headings(
            "hardware node differs change within cases processes other_cpu_share sm_clock_mhz "
            "temperature_c throttled",
            change=("step time against its kind", "change"),
            within=("a good node lies within", "share"),
            other_cpu_share=("CPU time of others", "share"),
            sm_clock_mhz=("clock, MHz", "number", "MHz"),
            temperature_c=("temperature, degrees Celsius", "number", "degrees Celsius"),
        ),
        records,
        empty=f"No kind has {LEAST_NODES} nodes.",
    )


def differing(table: Table) -> list[dict[str, Any]]:
    """Return what is said of the nodes that differ, as rows of the troubles."""
    at = dict(zip(FACETS, range(len(FACETS)), strict=True))
    return [
        {
            "what": "node differs",
            "hardware": row["hardware"],
            **{name: of_row[at[name]] for name in ("machine", "device")},
            "case": counted(row["cases"], "case"),
            "detail": f"{row['node']}: {100 * row['change']:+.1f} % against its kind, where a good "
            f"node lies within {100 * row['within']:.1f} %",
        }
        for row, of_row in zip(table.records(), table.facets, strict=True)
        if row.get("differs")
    ]


def _newest_of_nodes(rows: pd.DataFrame) -> pd.DataFrame:
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
        **{name: rows[name].iloc[0] for name in ("machine", "device")},
        "node": one.node,
        "differs": ("slower" if one.value > 0 else "faster") if one.differs else "",
        "change": one.change,
        "within": one.half_width,
        "cases": one.cases,
        "processes": one.processes,
        "throttled": ", ".join(sorted(reasons)),
        **medians,
    }
