"""Scaling over cores: the speed of a case by its number of threads.

The processes of one run are set side by side, never those of two: what slows a machine for a day
is none of the threads'. Paired ratios tell nothing here, for the reference has as many threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from convmark.core.statistics import is_known
from convmark.core.table import Table, headings, table_of
from convmark.core.text import counted, load_text, natural_order
from convmark.report.ratios import LEAST_PROCESSES, Ratio, fastest_marks, ratio
from convmark.report.rows import group_of, judged_rows, left_out_text, records_of, text_of
from convmark.results.record import large_load

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
