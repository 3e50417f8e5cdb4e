"""The table of a run that measured several replicas: how throughput grows with their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from tabulate import tabulate

from convmark.core.case import Case
from convmark.core.statistics import scaling_efficiency
from convmark.core.units import rate_text, share_text
from convmark.report.summary import spread
from convmark.results.record import Record

__all__ = ["scaling_table"]

HEADERS = ("case", "replicas", "samples/s", "spread", "efficiency", "n")


def scaling_table(records: Sequence[Record]) -> str:
    """Return throughput and scaling efficiency as text; empty without several replicas.

    Throughput is the median over processes, `spread` half their range over it, `n` their number.
    Efficiency is the throughput over that of one replica and over the number of replicas, at the
    same batch size per replica; there is none where one replica was not measured.
    """
    rates: dict[Case, list[float]] = {}
    for record in records:
        if record.measured and record.throughput_samples_per_s:
            rates.setdefault(record.case, []).append(record.throughput_samples_per_s)
    several = [case for case in rates if case.replicas > 1]
    if not several:
        return ""
    series: dict[tuple[Case, str], list[Case]] = {}
    for case in several:
        series.setdefault((_alone(case), case.cluster or ""), []).append(case)
    rows = [
        _row(case, alone, cluster, rates)
        for (alone, cluster), cases in series.items()
        for case in [alone, *sorted(cases, key=lambda case: case.replicas)]
        if case in rates
    ]
    align = ["left" if name == "case" else "right" for name in HEADERS]
    return tabulate(rows, headers=HEADERS, colalign=align, disable_numparse=True)


def _alone(case: Case) -> Case:
    return replace(case, replicas=1, cluster=None)


def _row(case: Case, alone: Case, cluster: str, rates: dict[Case, list[float]]) -> list[str]:
    rate, single = median(rates[case]), rates.get(alone)
    efficiency = scaling_efficiency(rate, case.replicas, median(single)) if single else None
    return [
        " ".join(filter(None, [alone.name, cluster])),
        str(case.replicas),
        rate_text(rate),
        share_text(spread(rates[case])),
        share_text(efficiency),
        str(len(rates[case])),
    ]
