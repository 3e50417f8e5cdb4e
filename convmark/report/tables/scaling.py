"""Scaling over cores: the speed of a case by its number of threads.

The processes of one run are set side by side, never those of two: what slows a machine for a day
is none of the threads'. Paired ratios tell nothing here, for the reference has as many threads.

Scaling over replicas: the throughput of several against that of as many perfect ones.

Source:
    of the interval: as of every ratio, `convmark.report.ratios`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from convmark.core.case import Case
from convmark.core.statistics import is_known, spread
from convmark.core.table import Heading, Table, headings, table_of
from convmark.core.text import counted, load_text, natural_order
from convmark.report.measured import BURST, of_processes
from convmark.report.ratios import (
    LEAST_PROCESSES,
    Ratio,
    efficiency,
    fastest_marks,
    mean_rate,
    ratio,
)
from convmark.report.rows import (
    group_of,
    judged_rows,
    left_out_text,
    newest_rows,
    records_of,
    text_of,
    with_versions,
)
from convmark.report.tables.steps import groups_but
from convmark.results.record import Record, large_load, that_count

if TYPE_CHECKING:
    import pandas as pd


DEFAULT = "default"

_SERIES = (
    *("machine", "device", "model", "task", "batch_size", "precision", "jit", "replicas"),
    *("cluster", "backend", "runtime", "recipe", "asked_shape", "cpus"),
)
"""What cases share that differ in threads alone."""
_ALIKE = ("code", "state")
"""What must be alike besides for a ratio to be that of the threads."""
_COLUMNS = (
    *_SERIES,
    *_ALIKE,
    *("hardware", "source", "process", "status", "not_judged", "threads", "pool_threads"),
    *("step_time_p50_s", "throughput_samples_per_s", "cpus_in_use", "cores", "physical_cores"),
    "other_cpu_share",
)

Row = Mapping[str, Any]


def cores_of_runs(frame: pd.DataFrame) -> Table:
    """Return the table of the newest run of each case that measured several numbers of threads."""
    measured = frame[frame["measured"] & (frame["step_time_p50_s"] > 0)]
    several = measured.groupby("source")["threads"].transform("nunique") > 1
    measured = measured[several]  # of the other runs no case has two numbers
    return cores(records_of(measured, _COLUMNS), _in_words)


def _in_words(row: Row) -> str:
    return group_of({**row, "threads": DEFAULT}, "hardware", "model", "task")


def cores(rows: Iterable[Row], name: Callable[[Row], str]) -> Table:
    """Return a row for each number of threads of each case that was measured with several.

    Args:
        rows: of measured processes, by column; `source` tells their run, the newest highest.
        name: the words for a case without its threads.
    """
    series: dict[tuple[Hashable, ...], dict[Any, dict[str, list[Row]]]] = {}
    for row in rows:
        key = tuple(text_of(row.get(column)) for column in _SERIES)
        runs = series.setdefault(key, {})
        runs.setdefault(row["source"], {}).setdefault(row["threads"], []).append(row)
    records = []
    for runs in series.values():
        if several := [run for run, threads in runs.items() if len(threads) > 1]:
            records += _records(list(runs[max(several)].values()), name)
    return table_of(
        "cores",
        "Scaling over cores",
        "Mean step is the geometric mean of the median step times of the processes of one run; "
        "speed-up is that with the fewest threads over that with more. The 95 % interval is "
        f"Welch's on the logarithms, from {LEAST_PROCESSES} processes on. Efficiency is the "
        "speed-up over the ratio of the threads: 100 % is perfect. CPUs in use is the process's "
        "CPU time over the time of its steps; threads that wait in a loop use CPUs too. Fastest is "
        "yes where it was shown to be faster than each other, else perhaps, as those that it was "
        "not shown to be faster than. default (N) is the framework's own choice.",
        headings(
            "series threads mean_s throughput_samples_per_s speedup low high efficiency in_use "
            "fastest n note",
            series="case",
            mean_s=("mean step", "seconds"),
            threads=("threads", "figure"),
            speedup=("speed-up", "ratio"),
            low=("interval from", "ratio"),
            high=("to", "ratio"),
            in_use=("CPUs in use", "number", "CPUs"),
        ),
        # the threads of a case keep their order
        sorted(records, key=lambda row: natural_order(row["series"])),
    )


def _records(groups: list[list[Row]], name: Callable[[Row], str]) -> list[dict[str, Any]]:
    """Return the rows of one case, the fewest threads first."""
    groups = sorted(groups, key=lambda rows: _order(judged_rows(rows)))
    left_out = [left_out_text(rows, judged_rows(rows)).removeprefix("speed-up ") for rows in groups]
    groups = [judged_rows(rows) for rows in groups]
    times = [[row["step_time_p50_s"] for row in rows] for rows in groups]
    means = [fmean(map(math.log, times_s)) for times_s in times]
    marks = fastest_marks(times, means.index(min(means)))
    base = groups[0]
    found = []
    for rows, times_s, mean, mark, without in zip(
        groups, times, means, marks, left_out, strict=True
    ):
        speedup = None
        if rows is not base and not _unlike(rows, base):
            speedup = ratio(times[0], times_s)
        few, many = _count(base), _count(rows)
        found.append(
            {
                **rows[0],
                "series": name(rows[0]),
                "threads": _threads_text(rows),
                "mean_s": math.exp(mean),
                "throughput_samples_per_s": median(rates)
                if (rates := _values(rows, "throughput_samples_per_s"))
                else None,
                **({"speedup": speedup.value, **speedup.interval.cells} if speedup else {}),
                "efficiency": 1.0
                if rows is base and few
                else (speedup.value * few / many if speedup and few and many else None),
                "in_use": fmean(known) if (known := _values(rows, "cpus_in_use")) else None,
                "fastest": mark,
                "n": len(rows),
                "note": "; ".join(filter(None, [*_notes(rows, base, speedup), without])),
            }
        )  # fmt: skip
    return found


def _order(rows: Sequence[Row]) -> tuple[float, bool]:
    """Return the place of a number of threads: a default that is not known comes last."""
    return _count(rows) or float("inf"), rows[0]["threads"] == DEFAULT


def _count(rows: Sequence[Row]) -> int | None:
    """Return the number of threads; None where a default is not known, or differs."""
    if rows[0]["threads"] != DEFAULT:
        return int(rows[0]["threads"])
    counts = {int(value) for value in _values(rows, "pool_threads")}
    return counts.pop() if len(counts) == 1 else None


def _threads_text(rows: Sequence[Row]) -> str:
    if rows[0]["threads"] != DEFAULT:
        return str(rows[0]["threads"])
    count = _count(rows)
    return DEFAULT if count is None else f"{DEFAULT} ({count})"


def _values(rows: Sequence[Row], column: str) -> list[float]:
    return list(filter(is_known, (row.get(column) for row in rows)))


def _unlike(rows: Sequence[Row], base: Sequence[Row]) -> list[str]:
    """Return what differs besides the threads."""
    told = {name: [{text_of(row.get(name)) for row in one} for one in (rows, base)]
            for name in _ALIKE}  # fmt: skip
    return [name for name, (ours, theirs) in told.items() if ours != theirs]


def _notes(rows: Sequence[Row], base: Sequence[Row], speedup: Ratio | None) -> Iterator[str]:
    """Yield what the figures of a number of threads must be read with."""
    fewest = counted(_count(base) or 0, "thread") if _count(base) else "the fewest threads"
    if unlike := _unlike(rows, base):
        yield f"no speed-up: other {' and '.join(unlike)} than with {fewest}"
    if speedup is not None and not speedup.interval.known:
        yield f"fewer than {LEAST_PROCESSES} processes: no interval"
    elif speedup is not None and speedup.contains_1:
        yield f"not distinguishable from {fewest}"
    yield from _of_the_machine(rows)
    if load := large_load(row.get("other_cpu_share") for row in rows):
        yield f"other load {load_text(load)}"


def _of_the_machine(rows: Sequence[Row]) -> Iterator[str]:
    """Yield why so many threads cannot run at once, each on a core of its own."""
    count = _count(rows)
    logical, physical = (min(_values(rows, name), default=None) for name in
                         ("cores", "physical_cores"))  # fmt: skip
    if count is None:
        return
    if logical is not None and count > logical:
        yield f"more threads than the {counted(int(logical), 'logical CPU')}"
    elif physical is not None and count > physical:
        yield f"more threads than the {counted(int(physical), 'core')}: hyperthreads share them"
    quota = _quota(rows)
    if quota is not None and quota < min(count, logical or count):
        yield f"more threads than the CPU quota of {quota:g}: they pause when it is used up"


def _quota(rows: Sequence[Row]) -> float | None:
    """Return the quota that the state of a row tells, CPUs."""
    for part in text_of(rows[0].get("state")).split():
        name, _, value = part.partition("=")
        if name == "cpu_quota":
            return float(value)
    return None


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
