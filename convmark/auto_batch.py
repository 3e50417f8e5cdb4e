"""`--batch-sizes auto`: each case's search, every size a row of its own, measured by one process.

What was out of memory is a row of the size that was asked for. On a CPU, which answers too large a
batch by swapping, a size is not tried that the machine's free memory would not hold; on any device
none whose step would take longer than the time budget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from tabulate import tabulate

from convmark.batch_search import Found, search
from convmark.case import Case
from convmark.record import Record

__all__ = ["Choice", "choices_table", "chosen_cases", "explore"]

FREE_SHARE = 0.8
"""Share of the free memory that a batch may be expected to take."""

MeasureCase = Callable[[Case], Record]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What came of one case's search."""

    case: Case
    """With the first size that was tried."""
    found: Found
    failure: str = ""
    """Why the search was given up, where it was: a size that failed, but not for memory."""

    @property
    def whole(self) -> bool:
        """Whether there is a size to name."""
        return not self.failure and self.found.best is not None


class _Failed(Exception):
    """A size failed, and not for memory."""


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
    throughputs: dict[int, float | None] = {}

    def throughput(size: int) -> float | None:
        row = measure(replace(case, batch_size=size))
        if row.measured:
            rows[size] = row
            throughputs[size] = row.throughput_samples_per_s or 0.0
        elif row.status == "out_of_memory":
            throughputs[size] = None
        else:
            raise _Failed(f"batch size {size}: {row.status}: {row.error}")
        return throughputs[size]

    def affordable(size: int) -> bool:
        largest = rows[max(rows)]
        times = size / largest.batch_size
        if times * (largest.step_time_p50_s or 0.0) > longest_step_s:
            return False
        processes = case.replicas if case.cluster == "local" else 1
        needed_bytes = times * processes * (largest.peak_host_memory_bytes or 0)
        return case.device != "cpu" or needed_bytes <= FREE_SHARE * free_bytes()

    try:
        found = search(throughput, affordable, first=case.batch_size)
    except _Failed as failed:
        return Choice(case=case, found=Found(throughputs=throughputs), failure=str(failed))
    return Choice(case=case, found=found)


def chosen_cases(choices: Sequence[Choice]) -> list[Case]:
    """Return each case at its best size and at the largest that fits."""
    return [
        replace(choice.case, batch_size=size)
        for choice in choices
        for size in dict.fromkeys((choice.found.best, choice.found.largest))
        if size is not None
    ]


def choices_table(choices: Sequence[Choice]) -> str:
    """Return the choices as a table."""
    headers = ("case", "best batch", "samples/s", "largest that fits", "")
    align = ("left", "right", "right", "right", "left")
    rows = [_row(choice) for choice in choices]
    return tabulate(rows, headers=headers, colalign=align, disable_numparse=True)


def _row(choice: Choice) -> list[str]:
    found, size = choice.found, f"-b{choice.case.batch_size}-"
    best, largest = found.best, found.largest
    if choice.failure:
        note = choice.failure
    elif best is None:
        note = "not even one sample fits"
    else:
        note = "" if found.limited else "larger ones were not tried: too slow, or too large"
    rate = found.throughputs[best] if best is not None else None
    return [
        choice.case.name.replace(size, "-", 1),
        str(best or ""),
        f"{rate:,.0f}" if rate is not None else "",
        str(largest or ""),
        note,
    ]
