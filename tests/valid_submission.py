"""A valid submission to a repository with results of two people; not a test itself."""

from __future__ import annotations

import csv
import io
import math
import random
import zipfile
from datetime import datetime, timezone
from typing import Any

import numpy as np
from report_rows import measured

from convmark.machine.hardware import machine_name
from convmark.results.reading import HEADER
from convmark.results.record import Record, to_cells
from convmark.results.schema import MEASUREMENT_VERSION

NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)
MODELS = {"lenet5": (0.010, 833_040), "mini_resnet": (0.040, 82_000_000)}
"""Seconds of a training step of 32 samples on the slow machine, and FLOPs of a sample."""
CORES = {"slow": 2, "fast": 64}
CPUS = {kind: f"CPU {kind}" for kind in CORES}
NAMES = {
    kind: machine_name(cpu=CPUS[kind], cores=cores, ram_bytes=2**34, gpu_names=[])
    for kind, cores in CORES.items()
}

Files = dict[str, bytes]
"""Of a submission, by path."""


def honest(kind: str, run: int, **changes: Any) -> list[Record]:
    """Return a run as the harness writes it: four cases, two processes of each."""
    rows = []
    cases = [("lenet5", "train", 32), ("lenet5", "infer", 1), ("lenet5", "infer", 32),
             ("mini_resnet", "train", 32)]  # fmt: skip
    for number in (1, 2):
        for model, task, batch in cases:
            base_s, flops = MODELS[model]
            noise = math.exp(
                random.Random(f"{kind}{run}{model}{task}{batch}{number}").gauss(0, 0.02)
            )
            step_s = base_s * noise * (batch / 32) ** 0.8 * (1 if task == "train" else 0.4)
            step_s /= 4 if kind == "fast" else 1
            train = task == "train"
            rows.append(measured(
                NAMES[kind], run, model, number, task=task, batch_size=batch, step_s=step_s,
                order=len(rows) + 1, processes=2, cpu=CPUS[kind], cores=CORES[kind],
                flops_per_sample=flops, training_flops_per_sample=3 * flops if train else None,
                loss_first=2.3 if train else None, loss=2.0 if train else None,
                output_rms=None if train else 0.1, code="c0de" * 4, plan="91a4", seed=0,
                convmark="1.0.0", measurement_version=str(MEASUREMENT_VERSION), rounds=100,
                time_to_first_step_s=0.3 * noise + step_s, process_start_s=0.05 * noise,
                paired_step_time_p50_s=step_s, reference_step_time_p50_s=0.01 / noise,
                paired_log_ratio=math.log(step_s * noise / 0.01), **timed(step_s, 1.0), **changes,
            ))  # fmt: skip
    return rows


def timed(step_s: float, budget_s: float) -> dict[str, Any]:
    """Return the counts of steps and windows that the harness would choose."""
    mean_s = 1.01 * step_s
    steps = 1000 if mean_s <= budget_s / 2000 else 100
    if 100 * mean_s >= budget_s / 2:
        steps = min(100, max(30, math.ceil(budget_s / 2 / mean_s)))
    window = max(1, math.ceil(0.066 / step_s))
    return {"time_budget_s": budget_s, "steps": steps, "windows": 5, "window_steps": window,
            "step_time_p99_s": None if steps < 1000 else 1.3 * step_s,
            "step_time_p95_s": None if steps < 100 else 1.1 * step_s}  # fmt: skip


def run_file(rows: list[Record]) -> bytes:
    return csv_file([HEADER, *map(to_cells, rows)])


def csv_file(lines: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().encode(errors="surrogatepass")


def raw_steps(rows: list[Record]) -> bytes:
    """Return raw step times that have each row's own figures."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for row in rows:
            array = io.BytesIO()
            np.save(array, steps_of(row))
            archive.writestr(f"{row.order:05d}.npy", array.getvalue())
    return data.getvalue()


def steps_of(row: Any) -> np.ndarray[Any, Any]:
    count, low, middle = int(row.steps), row.step_time_min_s, row.step_time_p50_s
    times = np.full(count, middle)
    times[0], times[1] = low, row.step_time_max_s
    rest = row.step_time_mean_s * count - times.sum()
    times[-(count // 3) :] += rest / (count // 3)  # above the median, so that it stays
    return times


ACCEPTED = b"run,accepted,commit,reason,case\n0002,2026-01-03,,first,\n"
OWN, OTHER = f"{NAMES['slow']}/0002", f"{NAMES['fast']}/0001"


def submission() -> Files:
    """Return what Ada brings: a new run beside a published one, and what lies beside it."""
    return {
        f"{NAMES['slow']}/0001.csv": run_file(honest("slow", 1)),
        f"{OWN}.csv": run_file(honest("slow", 2)),
        f"{OWN}.steps.npz": raw_steps(honest("slow", 2)),
        f"{OWN}.log": b"1 run\n",
        f"{NAMES['slow']}/name.txt": b"desk\n",
        f"{NAMES['slow']}/accepted.csv": ACCEPTED,
    }


def published() -> Files:
    ada = {f"ada/{NAMES['slow']}/0001.csv": run_file(honest("slow", 1))}
    grace = {f"grace/{NAMES[kind]}/0001.csv": run_file(honest(kind, run)[:4])
             for kind, run in (("slow", 11), ("fast", 12))}  # fmt: skip
    grace = {name: data.replace(b",0011,", b",0001,").replace(b",0012,", b",0001,")
             for name, data in grace.items()}  # fmt: skip
    return ada | grace
