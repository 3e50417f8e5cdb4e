"""`--batch-sizes auto`: the search of each case; every size is a row, measured in one process.

The search doubles and halves, for the fastest size and the largest that fits. What was out of
memory is a row of the size that was asked for. On a CPU, which answers too large a batch by
swapping, a size is not tried that the machine's free memory would not hold; on any device none
whose step would take longer than the time budget.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from convmark.core.case import Case
from convmark.core.options import Options
from convmark.core.statistics import median_of
from convmark.core.suites import FIRST, auto_name
from convmark.core.table import headings, printed
from convmark.core.text import Say, bytes_text, load_text, seconds_text
from convmark.machine.state import read_state
from convmark.results.record import Record
from convmark.session.facts import Job, most_processes, plan
from convmark.session.progress import RunProgress
from convmark.session.result import Result
from convmark.session.resume import missing

MOST = 1 << 20
RESOLUTION = 8
"""The largest size that fits is found to an eighth of itself."""

Measure = Callable[[int], float | None]
Affordable = Callable[[int], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What came of a search."""

    throughputs: dict[int, float | None] = field(default_factory=dict)
    """Samples/s by size, in the order of asking; None where the size was out of memory."""
    limited: bool = False
    """Whether memory set the limit; else a larger size may fit, but was not worth its time."""

    @property
    def largest(self) -> int | None:
        """The largest size that fits; None where not even one sample does."""
        return max(_fitting(self.throughputs), default=None)

    @property
    def best(self) -> int | None:
        """The size of the highest throughput; the smaller of two alike."""
        fitting = _fitting(self.throughputs)
        return min(fitting, key=lambda size: (-fitting[size], size), default=None)


def search(
    measure: Measure,
    affordable: Affordable = lambda size: True,
    *,
    first: int = FIRST,
    most: int = MOST,
) -> Found:
    """Return what the sizes give, from `first` on.

    Doubles while a size fits, halves from the first on until one does; then halves the gap between
    what fits and what does not; and goes on below the smallest size while that is the fastest.

    Args:
        measure: throughput of a size, samples/s; None where it is out of memory.
        affordable: whether a size larger than all so far is worth its time.
        most: the largest size that is tried at all.
    """
    asked = _Search(measure)
    fits = asked.fits(first)
    refused = asked.double(first, affordable, most) if fits else asked.halve(first)
    if refused is not None:
        asked.close_in(refused)
    asked.go_below()
    return Found(throughputs=asked.throughputs, limited=refused is not None)


class _Search:
    """What has been asked so far; each size once."""

    def __init__(self, measure: Measure) -> None:
        self._measure = measure
        self.throughputs: dict[int, float | None] = {}

    @property
    def found(self) -> Found:
        return Found(throughputs=self.throughputs)

    def fits(self, size: int) -> bool:
        if size not in self.throughputs:
            self.throughputs[size] = self._measure(size)
        return self.throughputs[size] is not None

    def double(self, size: int, affordable: Affordable, most: int) -> int | None:
        """Double while it fits; return the size that does not, None where none was met."""
        while (size := 2 * size) <= most and affordable(size):
            if not self.fits(size):
                return size
        return None

    def halve(self, size: int) -> int:
        """Halve until it fits; return the smallest size that does not."""
        while size > 1 and not self.fits(size // 2):
            size //= 2
        return size

    def close_in(self, refused: int) -> None:
        """Halve the gap between the largest size that fits and the smallest that does not."""
        while (largest := self.found.largest) is not None:
            if refused - largest <= max(1, largest // RESOLUTION):
                return
            middle = (largest + refused) // 2
            if not self.fits(middle):
                refused = middle

    def go_below(self) -> None:
        """Try smaller sizes while the smallest that fits is the fastest."""
        while (best := self.found.best) is not None and best > 1:
            if best != min(_fitting(self.throughputs)) or not self.fits(best // 2):
                return


def _fitting(throughputs: dict[int, float | None]) -> dict[int, float]:
    return {size: rate for size, rate in throughputs.items() if rate is not None}


FREE_SHARE = 0.8
"""Share of the free memory that a batch may be expected to take."""

MeasureCase = Callable[[Case], Record]
MeasureJobs = Callable[[Sequence[Job], RunProgress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What came of one case's search."""

    case: Case
    """With the first size that was tried."""
    found: Found
    failure: str = ""
    """Why the search was given up, where it was: a size that failed, but not for memory."""
    failed_size: int | None = None
    """That size."""
    limit: str = ""
    """Why no larger size was tried, where memory has not set the limit."""

    @property
    def whole(self) -> bool:
        """Whether there is a size to name."""
        return not self.failure and self.found.best is not None

    @property
    def failed_sizes(self) -> frozenset[int]:
        """Sizes whose failures are the search's own: not those that showed where memory ends."""
        chosen = {size for size in (self.found.best, self.found.largest) if size is not None}
        if not chosen:
            return frozenset(self.found.throughputs)
        return frozenset(chosen | ({self.failed_size} if self.failed_size else set()))

    def by_medians(self, records: Sequence[Record]) -> Choice:
        """Return the choice by the medians over the processes of each size."""
        throughputs = dict(self.found.throughputs)
        for size, rate in throughputs.items():
            rates = _rates(replace(self.case, batch_size=size), records)
            if rate is not None and rates:
                throughputs[size] = median(rates)
        return replace(self, found=replace(self.found, throughputs=throughputs))

    def is_of(self, case: Case) -> bool:
        """Whether a case is this one at any size."""
        return replace(case, batch_size=self.case.batch_size) == self.case


class _Failed(Exception):
    """A size failed, and not for memory."""

    def __init__(self, size: int, row: Record) -> None:
        super().__init__(f"batch size {size}: {row.status}: {row.error}")
        self.size = size


def find_sizes(
    cases: Iterable[Case],
    measure: MeasureJobs,
    options: Options,
    results: Sequence[Result],
    *,
    say: Say,
    progress: Callable[[], contextlib.AbstractContextManager[RunProgress]],
) -> list[Choice]:
    """Find each case's batch sizes, and give those found the rest of their processes.

    Where these show that another size is the fastest after all, it is given its own: the fastest of
    many single figures is a lucky one. The steps of `--sustain` are those of one more process, of
    the fastest size.

    Args:
        measure: measures jobs, whose results are then among `results`.
        results: all of the run so far, of a run that goes on too.
        say: is told of each size that is tried.
        progress: shows how the rest of the processes go.
    """
    there = {(result.case, result.record.process): result.record for result in results}

    def place() -> int:
        return max((result.record.order for result in results), default=0)

    def records() -> list[Record]:
        return [result.record for result in results]

    def row(case: Case) -> Record:
        if (case, 1) in there:
            return there[case, 1]
        say(f"trying {case.name}")
        measure([Job(case=case, process=1, order=place() + 1)], RunProgress(None))
        return results[-1].record

    choices = explore(
        cases,
        row,
        longest_step_s=options.time_budget_s,
        free_bytes=lambda: read_state().available_memory_bytes,
    )

    def of_medians() -> list[Choice]:
        # of a run that goes on too; the process that was sustained comes after the choice
        rows = [row for row in records() if row.process <= options.processes]
        return [choice.by_medians(rows) for choice in choices]

    while left := _left(choices := of_medians(), options, results, place()):
        with progress() as observer:
            measure(left, observer)
    if options.sustain_s and (last := _sustained(choices, options, records(), place())):
        with progress() as observer:
            measure(last, observer)
    return choices


def _left(
    choices: Sequence[Choice], options: Options, results: Sequence[Result], place: int
) -> list[Job]:
    """Return the processes that the sizes found so far still lack."""
    jobs = plan(chosen_cases(choices), options.processes - 1, options.seed, after=(1, place))
    left = missing(jobs, [result.record for result in results])
    return [replace(job, order=place + number) for number, job in enumerate(left, 1)]


def _sustained(
    choices: Sequence[Choice], options: Options, records: Sequence[Record], place: int
) -> list[Job]:
    """Return a process of each case's fastest size whose steps go on, unless it is there."""
    fastest = [
        replace(choice.case, batch_size=choice.found.best)
        for choice in choices
        if not choice.failure and choice.found.best is not None
    ]
    last = most_processes(options)
    jobs = [
        Job(case=case, process=last, order=place + number, goes_on=True)
        for number, case in enumerate(fastest, 1)
    ]
    return missing(jobs, records)


def explore(
    cases: Iterable[Case],
    measure: MeasureCase,
    *,
    longest_step_s: float,
    free_bytes: Callable[[], int],
) -> list[Choice]:
    """Return each case's choice, searched from its own batch size on.

    Args:
        measure: measures a case in a fresh process, and keeps its row.
        longest_step_s: no size is tried whose step is expected to take longer.
        free_bytes: host memory that is free now.
    """
    return [_explored(case, measure, longest_step_s, free_bytes) for case in dict.fromkeys(cases)]


def _explored(
    case: Case, measure: MeasureCase, longest_step_s: float, free_bytes: Callable[[], int]
) -> Choice:
    rows: dict[int, Record] = {}
    limits: list[str] = []
    throughputs: dict[int, float | None] = {}

    def throughput(size: int) -> float | None:
        """Measure a size; None where it is out of memory."""
        row = measure(replace(case, batch_size=size))
        if row.measured:
            rows[size] = row
            throughputs[size] = row.throughput_samples_per_s or 0.0
        elif row.status == "out_of_memory":
            throughputs[size] = None
        else:
            raise _Failed(size, row)
        return throughputs[size]

    def affordable(size: int) -> bool:
        """Whether a larger size is worth its step time and fits the free memory; note why not."""
        largest = rows[max(rows)]
        times = size / largest.batch_size
        if (step_s := times * (largest.step_time_p50_s or 0.0)) > longest_step_s:
            limits.append(
                f"a step of {size} would take {seconds_text(step_s)}: raise --time-budget to try it"
            )
            return False
        processes = case.replicas if case.cluster == "local" else 1
        needed_bytes = times * processes * (largest.peak_host_memory_bytes or 0)
        if case.device == "cpu" and needed_bytes > (most := FREE_SHARE * free_bytes()):
            limits.append(
                f"{size} would take {bytes_text(needed_bytes)}, above {load_text(FREE_SHARE)} of "
                f"the free memory, {bytes_text(most)}"
            )
            return False
        return True

    try:
        found = search(throughput, affordable, first=case.batch_size)
    except _Failed as failed:
        so_far = Found(throughputs=throughputs)
        return Choice(case=case, found=so_far, failure=str(failed), failed_size=failed.size)
    return Choice(case=case, found=found, limit="".join(limits[-1:]))


def chosen_cases(choices: Sequence[Choice]) -> list[Case]:
    """Return each case at its best size and at the largest that fits."""
    return [
        replace(choice.case, batch_size=size)
        for choice in choices
        for size in dict.fromkeys((choice.found.best, choice.found.largest))
        if size is not None
    ]


def choices_table(choices: Sequence[Choice], records: Sequence[Record] = ()) -> str:
    """Return the choices as a table.

    Args:
        records: all rows; the throughput of a size is the median of its processes'.
    """
    columns = headings(
        "case best rate n largest note",
        best=("best batch", "whole"),
        rate=("samples/s", "rate"),
        largest=("largest that fits", "figure"),
        note="",
    )
    rows = [_row(choice, records) for choice in choices]
    return printed(columns, rows, drop_empty=False)


def _row(choice: Choice, records: Sequence[Record]) -> dict[str, Any]:
    found, best, largest = choice.found, choice.found.best, choice.found.largest
    if choice.failure:
        note = choice.failure
    elif best is None:
        note = "not even one sample fits"
    else:
        note = choice.limit
    rates = _rates(replace(choice.case, batch_size=best), records) if best is not None else []
    rate = median_of(rates) or found.throughputs.get(best or 0)
    at_least = "" if found.limited else "at least "
    return {
        "case": auto_name(choice.case),
        "best": best or None,
        "rate": rate,
        "n": len(rates) or None,
        "largest": f"{at_least}{largest}" if largest is not None else "",
        "note": note,
    }


def _rates(case: Case, records: Sequence[Record]) -> list[float]:
    return [
        row.throughput_samples_per_s
        for row in records
        if row.asked_case == case and row.measured and row.throughput_samples_per_s
    ]
