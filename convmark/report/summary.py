"""The summary table of a run: one line per case, each figure with its spread and its count."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median

from tabulate import tabulate

from convmark.core.case import TIMED_TASKS
from convmark.core.statistics import spread
from convmark.core.text import shown
from convmark.core.units import (
    bytes_text,
    count_text,
    rate_text,
    seconds_text,
    share_text,
)
from convmark.report.learned import learned_table, waterfall_table
from convmark.results.record import Record

__all__ = ["by_case", "case_name", "spread", "summary_table"]

HEADERS = (
    "case",
    "step p50",
    "spread",
    "p99",
    "samples/s",
    "first step",
    "host peak",
    "device peak",
    "parameters",
    "FLOPs",
    "n",
    "note",
)


def case_name(record: Record) -> str:
    """The name of the record's case."""
    return record.case.name


def by_case(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Return the records of each case, cases in order of model, task and batch size."""
    ordered = sorted(
        records,
        key=lambda row: (
            *(row.model, row.task != "train", row.device, row.batch_size),
            *(row.replicas, row.process),
        ),
    )
    groups: dict[str, list[Record]] = {}
    for record in ordered:
        groups.setdefault(case_name(record), []).append(record)
    return groups


def summary_table(records: Sequence[Record]) -> str:
    """Return the table as text; a case that failed has its reason in place of figures.

    The step time is the median over processes of each one's median; `spread` is half the range of
    those; `n` is the number of processes measured. What was learned and waterfalls have tables of
    their own below it.
    """
    tables = []
    for table, tasks in ((_timed, TIMED_TASKS), (_learned, ("accuracy",)), (_ways, ("waterfall",))):
        groups = by_case([record for record in records if record.task in tasks])
        tables += [table(groups)] if groups or (table is _timed and not records) else []
    return "\n\n".join(tables)


def _learned(groups: Mapping[str, Sequence[Record]]) -> str:
    return learned_table(list(groups.values()))


def _ways(groups: Mapping[str, Sequence[Record]]) -> str:
    return waterfall_table(list(groups.values()))


def _timed(groups: Mapping[str, Sequence[Record]]) -> str:
    rows = [_row(name, group) for name, group in groups.items()]
    _say_once(rows, groups)
    kept = [0, *(i for i in range(1, len(HEADERS)) if any(row[i] for row in rows))]
    return tabulate(
        [[row[i] for i in kept] for row in rows],
        headers=[HEADERS[i] for i in kept],
        colalign=["left" if HEADERS[i] in ("case", "note") else "right" for i in kept],
        disable_numparse=True,
    )


def _row(name: str, records: Sequence[Record]) -> list[str]:
    measured = [record for record in records if record.measured]

    def middle(value_of: Callable[[Record], float | None]) -> float | None:
        values = [value for record in measured if (value := value_of(record)) is not None]
        return median(values) if values else None

    step_times_s = [row.step_time_p50_s for row in measured if row.step_time_p50_s is not None]
    parameters = next((row.parameters for row in records if row.parameters is not None), None)
    flops = next((n for row in records if (n := row.flops_per_sample) is not None), None)
    return [
        shown(name),
        seconds_text(median(step_times_s)) if step_times_s else "",
        share_text(spread(step_times_s)),
        seconds_text(middle(lambda row: row.step_time_p99_s)),
        rate_text(middle(lambda row: row.throughput_samples_per_s)),
        seconds_text(middle(lambda row: row.time_to_first_step_s)),
        bytes_text(middle(lambda row: row.peak_host_memory_bytes)),
        bytes_text(middle(lambda row: row.peak_device_memory_bytes)),
        "" if parameters is None else f"{parameters:,}",
        count_text(flops),
        str(len(measured)),
        shown(_note(records)),
    ]


def _say_once(rows: list[list[str]], groups: Mapping[str, Sequence[Record]]) -> None:
    """Have the reason why a model fails said in its first case alone."""
    said: set[tuple[str, str | None]] = set()
    for row, records in zip(rows, groups.values(), strict=True):
        for record in [one for one in records if not one.measured][:1]:
            if (record.model, record.error) in said:
                row[-1] = f"{record.status}: as above"
            said.add((record.model, record.error))


def _note(records: Sequence[Record]) -> str:
    failed = [row for row in records if not row.measured]
    if failed:
        return f"{failed[0].status}: {(failed[0].error or '')[:80]}"
    unjudged = [row for row in records if row.not_judged]
    if unjudged:
        return f"{len(unjudged)} of {len(records)} not judged: {unjudged[0].not_judged}"
    unsteady = [row for row in records if row.status == "unsteady"]
    if unsteady:
        reason = next((f": {row.unsteady}" for row in unsteady if row.unsteady), "")
        return f"{len(unsteady)} of {len(records)} unsteady{reason}"
    unknown = next((row.flops_note for row in records if row.flops_note), None)
    return f"no FLOPs: {unknown[:80]}" if unknown else ""
