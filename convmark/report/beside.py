"""Whether a row's figures are those of the files beside its run: epochs, intervals, tries.

A file that is not there has nothing of a row.
"""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from convmark.core.case import Case
from convmark.core.errors import StoreError
from convmark.core.text import counted
from convmark.report.plausible import there
from convmark.report.unlikely import lacking
from convmark.results.columnar import case_name
from convmark.results.record import MEASURED
from convmark.results.table_file import TableBeside
from convmark.session import latency_limit, learning, sustained
from convmark.session.latency_limit import MOST_LOAD, RISK, Tried
from convmark.session.learning import Epoch
from convmark.session.sustained import Interval

Row = Mapping[str, Any]
Figures = Mapping[str, Any]

CASE_AXES = tuple(Case.__dataclass_fields__)

ROUNDING = 1e-9

CLOCK_S = 2e-6
"""Times of intervals are rounded to a microsecond, and each begins where the last has ended."""

MOST_LATE = 0.01
"""The limit is of the 99th percentile."""

LAST_STALL = 1.1
"""Of a try's time: by so much, and the limit, its last step may end after the last request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of rows beside a run, and what a row of the run has of them."""

    rule: str
    """A key of `REMEDIES`, and what they are called."""
    table: TableBeside[Any]
    has: Callable[[Row], bool]
    """Whether a measured row must have some."""
    may_lack: Callable[[Row], bool] = lambda row: False
    """Whether such a row need have none after all."""
    wrong: Callable[[Row, Sequence[Any]], str]
    """Return what contradicts the row; empty for nothing."""

    def apart(self, run: Path, rows: Sequence[Row]) -> Iterator[tuple[int, Row, str]]:
        """Yield the line of each row of a run's file that is not of its own, the row, and why."""
        told = [
            (line, row)
            for line, row in enumerate(rows, 2)
            if row["status"] in MEASURED and self.has(row)
        ]
        if not told:
            return
        found: dict[int, list[Any]] = defaultdict(list)
        with contextlib.suppress(StoreError):  # a finding of that file
            for one in self.table.of(run):
                found[one.order].append(one)
        name = self.table.path(run).name
        for line, row in told:
            own = found[int(row["order"])]
            why = "" if self.may_lack(row) else f"has no {self.rule} of it"
            if own:
                why = _of_another(run, row, own) or self.wrong(row, own)
            if why:
                yield line, row, f"{name} {why}"


def _of_another(run: Path, row: Row, own: Sequence[Any]) -> str:
    """Return what says that rows with the order of a row are of another; empty for nothing."""
    facts = {**row, "run": run.stem, "case": case_name(*(row[name] for name in CASE_AXES))}
    names = [name for name in _SHARED if hasattr(own[0], name)]
    if row["asked"]:  # the model's own code has made another case of what was asked for
        names = [name for name in names if name not in (*CASE_AXES, "case")]
    for one in own:
        for name in names:
            if getattr(one, name) != facts[name]:
                return f"has {name} {getattr(one, name)} in a row of it"
    return ""


_SHARED = ("run", "case", "process", "seed", "fraction", *CASE_AXES)
"""Columns in which a row beside a run is like the run's, where it has them."""


def _unlike(row: Row, figures: Figures) -> str:
    """Return the first figure that a row has otherwise; None and NaN are none."""
    for name, value in figures.items():
        expected = math.nan if value is None else float(value)
        own = row[name] if there(row, name) else math.nan
        same = abs(expected - own) <= ROUNDING * abs(expected)
        if not same and not (expected != expected and own != own):
            return f"gives {name} {expected:.6g}, the row has {own:.6g}"
    return ""


# -- epochs ----------------------------------------------------------------------------------------


def _of_epochs(row: Row, epochs: Sequence[Epoch]) -> str:
    found = learning.figures([asdict(one) for one in epochs], row["target_accuracy"])
    return _unlike(row, {"epochs": len(epochs), "fraction": epochs[-1].fraction, **found})


# -- sustained steps, and rates at a latency limit -------------------------------------------------


def _of_intervals(row: Row, intervals: Sequence[Interval]) -> str:
    samples, ended_s = row["batch_size"] * row["replicas"], 0.0
    for number, one in enumerate(intervals, 1):
        if not abs(one.began_s - ended_s) <= CLOCK_S:
            return f"has interval {number} at {one.began_s:.6g} s, not at {ended_s:.6g} s"
        ended_s = one.began_s + one.seconds
        rate = one.steps * samples / one.seconds if one.seconds > 0 else math.nan
        if not abs(one.throughput_samples_per_s - rate) <= ROUNDING * rate:
            told = f"{one.throughput_samples_per_s:.6g} samples/s"
            return f"has {told} in interval {number}, of its steps {rate:.6g} follow"
    figures = sustained.figures(intervals, samples)
    if figures["sustained_drop"] is None and row["sustained_drop"] == 0:
        figures["sustained_drop"] = 0.0  # as earlier versions wrote it of too few intervals
    return sustained.leak(intervals) or _unlike(row, figures)


def _of_tries(row: Row, tries: Sequence[Tried]) -> str:
    samples, limit_s = row["batch_size"] * row["replicas"], row["latency_limit_s"]
    for number, each in enumerate(tries, 1):
        if each.number != number or (why := _impossible(each, samples, limit_s)):
            return f"has a try {each.number} {why if each.number == number else 'out of order'}"
    spent_s = math.fsum(one.seconds for one in tries)
    if row["latency_limit_search_s"] < spent_s * (1 - ROUNDING):
        return f"has tries of {spent_s:.6g} s, the search took {row['latency_limit_search_s']:.6g}"
    by_rate = {one.rate_per_s: one for one in tries}
    best, proved = (by_rate.get(row[f"latency_limit_{name}_per_s"]) for name in ("rate", "proved"))
    for one in filter(None, (best, proved)):
        if not (one.holds and one.late <= MOST_LATE * one.requests and one.p99_s <= limit_s):
            return f"has no {one.rate_per_s:.6g} requests/s that hold the limit"
        if not (one.rate_per_s > 0 and one.steps > 0):
            return f"has {one.rate_per_s:.6g} requests/s by {counted(one.steps, 'step')}"
        due_s = one.requests / one.rate_per_s  # when the last is due, by the schedule of arrivals
        if not (1 - ROUNDING) * due_s <= one.seconds <= LAST_STALL * due_s + limit_s:
            told = f"{one.requests} requests in {one.seconds:.4g} s"
            return (
                f"has {told}, at {one.rate_per_s:.6g} requests/s the last is due at {due_s:.4g} s"
            )
    if proved and not proved.proved:
        return f"has no proof of {proved.rate_per_s:.6g} requests/s"
    if bool(row["latency_limit_note"]) == bool(proved):
        return f"has {'a' if proved else 'no'} proved rate, latency_limit_note says otherwise"
    figures = {name: latency_limit.figures(best, proved).get(name) for name in _AT_LIMIT}
    others = [one.other_cpu_share or 0.0 for one in latency_limit.deciding(tries, best, proved)]
    return _unlike(row, {**figures, "latency_limit_other_cpu_share": max(others, default=None)})


def _impossible(one: Tried, samples: int, limit_s: float) -> str:
    """Return what the figures of a try contradict each other in; empty for nothing."""
    from scipy.special import bdtr  # type: ignore[import-untyped]  # SciPy ships no types

    if not (one.late <= one.requests and one.p50_s <= one.p99_s):
        return f"of {one.requests} requests, {one.late} late, p50 {one.p50_s:g}, p99 {one.p99_s:g}"
    if not one.steps <= one.requests <= one.steps * samples:
        return f"of {one.requests} requests answered by {counted(one.steps, 'step')}"
    few = one.late <= MOST_LATE * one.requests
    if few != (one.p99_s <= limit_s) or one.holds != (few and one.load <= MOST_LOAD):
        return f"that {'holds' if one.holds else 'fails'}: {one.late} of {one.requests} late"
    most = one.rate_per_s * one.seconds / (one.steps * samples) if one.steps else math.nan
    if not one.load <= most / (1 - ROUNDING):
        return f"of load {one.load:.3g}, its steps would have taken longer than it"
    if one.proved and not (one.holds and bdtr(one.late, one.requests, MOST_LATE) < RISK):
        return f"that {one.late} late ones of {one.requests} requests do not prove"
    return ""


_AT_LIMIT = tuple(
    f"latency_limit_{name}"
    for name in ("rate_per_s", "proved_per_s", "p50_s", "p99_s", "requests", "requests_per_step",
                 "confidence")
)  # fmt: skip


_SEARCHED = tuple(f"latency_limit_{name}" for name in ("s", "note", "search_s", "other_cpu_share"))


def _rated(row: Row) -> bool:
    return any(there(row, name) for name in _AT_LIMIT)


KINDS = (
    Kind(
        rule="epochs",
        table=learning.TABLE,
        has=lambda row: row["task"] == learning.TASK and not lacking(row),
        wrong=_of_epochs,
    ),
    Kind(
        rule="intervals",
        table=sustained.TABLE,
        has=lambda row: any(there(row, name) for name in sustained.FIGURES),
        wrong=_of_intervals,
    ),
    Kind(
        rule="tries",
        table=latency_limit.TABLE,
        has=lambda row: _rated(row) or any(there(row, name) for name in _SEARCHED),
        may_lack=lambda row: (
            bool(row["latency_limit_note"]) and row["latency_limit_s"] > 0 and not _rated(row)
        ),
        wrong=_of_tries,
    ),
)
