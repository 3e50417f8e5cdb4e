"""Scaling over replicas: the throughput of several against that of as many perfect ones.

Source:
    of the interval: as of every ratio, `convmark.report.ratios`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from convmark.core.case import Case
from convmark.core.statistics import spread
from convmark.core.table import Heading, Table, headings, table_of
from convmark.core.text import natural_order
from convmark.report.measured import BURST, of_processes
from convmark.report.ratios import LEAST_PROCESSES, efficiency, mean_rate
from convmark.report.rows import group_of, newest_rows, with_versions
from convmark.report.tables.steps import groups_but
from convmark.results.record import Record, that_count

if TYPE_CHECKING:
    import pandas as pd

_ABOUT = (
    "Efficiency is the throughput over that of one replica, over the number of replicas: 100 % is "
    "perfect. Throughputs are geometric means over n processes; the 95 % interval is Welch's on "
    f"the logarithms, from {LEAST_PROCESSES} processes on. The batch size is per replica."
)


def _headings(keys: str) -> list[Heading]:
    ends = {"low": ("interval from", "share"), "high": ("to", "share")}
    return headings(keys, series="case", mean_rate=("mean samples/s", "rate"), **ends)


def _figures(
    rates: Sequence[float], replicas: int, alone: Sequence[float] | None
) -> dict[str, Any]:
    """Return the figures of a number of replicas.

    Args:
        rates: samples/s of each of its processes.
        alone: the same of one replica; None where these are they.
    """
    found = {"replicas": replicas, "mean_rate": mean_rate(rates), "n": len(rates)}
    if alone is None:
        return {**found, "efficiency": 1.0}
    own = efficiency(rates, replicas, alone)
    return {**found, "efficiency": own.value, **own.interval.cells} if own else found


def scaling(table: pd.DataFrame, frame: pd.DataFrame) -> Table:
    """Return the efficiency of each number of replicas against one replica of the same case."""
    records = []
    for rows in groups_but(newest_rows(table), but=["replicas", "cluster"]):
        known = [row for row in rows if row[BURST] > 0]
        single = next((row for row in known if row["replicas"] == 1), None)
        several = [row for row in known if row["replicas"] > 1]
        if single is None or not several:
            continue
        alone, *rates = of_processes(frame, [single, *several], BURST)
        figures = [
            _figures(its, int(row["replicas"]), alone)
            for row, its in zip(several, rates, strict=True)
        ]
        shown = list(zip(several, figures, strict=True))
        for cluster in sorted({str(row["cluster"]) for row in several}):
            same = [(row, own) for row, own in shown if row["cluster"] == cluster]
            records += [
                {**row, **own, "series": _series(row, cluster)}
                for row, own in [(single, _figures(alone, 1, None)), *same]
            ]
    records = with_versions(records, "series", lambda row: str(row["series"]))
    records.sort(key=lambda row: (natural_order(row["series"]), row["replicas"]))
    return table_of(
        "scaling",
        "Scaling over replicas",
        f"{_ABOUT} Both are of the same version and code.",
        _headings("series replicas mean_rate efficiency low high load doubts n"),
        records,
        drawing="A grey line is the interval of an efficiency.",
    )


def _series(row: Mapping[str, Any], cluster: str) -> str:
    """Return the case on one hardware and one way of spreading it, in words."""
    # replicas have a device each, so the device's number is no part of the series
    alone = {
        **row,
        "replicas": 1,
        "cluster": "",
        "hardware": str(row["hardware"]).partition(":")[0],
    }
    return ", ".join(filter(None, [group_of(alone, "hardware", "model", "task"), cluster]))


def scaling_of_run(records: Iterable[Record]) -> list[Table]:
    """Return the same of a run's rows; none without several replicas.

    `spread` is half the range of the processes' throughputs over their median. Where one replica
    was not measured there is no efficiency.
    """
    measured: dict[Case, list[Record]] = {}
    for record in records:
        if record.measured and record.throughput_samples_per_s:
            measured.setdefault(record.case, []).append(record)
    rates = {
        case: [row.throughput_samples_per_s or 0.0 for row in that_count([rows])[0]]
        for case, rows in measured.items()
    }
    series: dict[tuple[Case, str], list[Case]] = {}
    for case in rates:
        if case.replicas > 1:
            alone = replace(case, replicas=1, cluster=None)
            series.setdefault((alone, case.cluster or ""), []).append(case)
    rows = [
        {
            **_figures(rates[case], case.replicas, None if case == alone else rates.get(alone, ())),
            "case": " ".join(filter(None, [alone.name, cluster])),
            "spread": spread(rates[case]),
        }
        for (alone, cluster), cases in series.items()
        for case in [alone, *sorted(cases, key=lambda case: case.replicas)]
        if case in rates
    ]
    columns = _headings("case replicas mean_rate spread efficiency low high n")
    keep = [one.key for one in columns if one.key not in ("low", "high")]
    return [table_of("scaling", "Replicas", _ABOUT, columns, rows, keep=keep)] if rows else []
