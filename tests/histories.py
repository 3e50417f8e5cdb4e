"""Histories of generated rows for tests; not a test itself."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rows import row

from convmark.compare.comparability import Comparability, Conditions
from convmark.compare.files import keep_verdicts
from convmark.compare.judgement import Judgement
from convmark.results.reading import HEADER
from convmark.results.record import Record, to_cells
from convmark.results.store import Store

MACHINE = "xeon-2"
A_COMMIT, ANOTHER_COMMIT = "1234567" + "a" * 33, "89abcde" + "b" * 33


def process(**changes: Any) -> Record:
    """Return a measured process: 10 ms a step, as long as the reference's, on an idle machine."""
    fields: dict[str, Any] = {
        "machine": MACHINE,
        "commit": A_COMMIT,
        "dirty": False,
        "cores": 2,
        "load_average_1min": 0.2,
        "other_cpu_share": 0.05,
        "tensorflow": "2.21.0",
        "keras": "3.15.0",
        "python": "3.13.2",
        "isolation": "fork",
        "reference": "large",
        "reference_version": 1,
        "measurement_version": "abc",
        "parameters": 61706,
        "flops_per_sample": 833040,
        "model_bytes": 246824,
        "step_time_p50_s": 0.010,
        "throughput_samples_per_s": 3200.0,
        "time_to_first_step_s": 1.0,
        "peak_device_memory_bytes": 100 * 2**20,
        "peak_host_memory_bytes": 200 * 2**20,
        "reference_step_time_p50_s": 0.010,
        "paired_log_ratio": 0.0,
        "paired_log_ratio_se": 0.001,
    }
    return row(**{**fields, **changes})


def comparability(row: Record) -> Comparability:
    """Return the facts of a row."""
    return Conditions.of(row).facts


def run_of(run: str, *log_ratios: float, **changes: Any) -> list[Record]:
    """Return the processes of one case in one run, one for each paired log ratio."""
    return [
        process(
            run=run,
            process=number,
            order=number,
            paired_log_ratio=value,
            step_time_p50_s=0.010 * math.exp(value),
            **changes,
        )
        for number, value in enumerate(log_ratios, 1)
    ]


def keep(store: Store, records: Iterable[Record]) -> Path:
    """Write the rows of one run where its file belongs."""
    rows = list(records)
    path = store.folder / MACHINE / f"{rows[0].run}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(to_cells(record) for record in rows)
    return path


def keep_said(folder: Path, *judgements: Judgement) -> None:
    """Keep what was judged of the runs in a machine's folder, beside the file of each."""
    folder.mkdir(parents=True, exist_ok=True)
    for run in dict.fromkeys(one.run for one in judgements):
        keep_verdicts(folder / f"{run}.csv", [one for one in judgements if one.run == run])
