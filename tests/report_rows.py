"""Results of several machines, generated for tests of reports; not a test itself."""

from __future__ import annotations

import csv
import functools
import math
import random
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from histories import process

from convmark.results.reading import HEADER
from convmark.results.record import Record, to_cells

SLOW, FAST = "xeon-2", "epyc-64"
HOSTILE = "<script>alert(1)</script>"
MODELS = {"lenet5": (61_706, 0.010), "mini_resnet": (270_218, 0.040), HOSTILE: (1_000, 0.080)}
"""Parameters, and seconds of a training step of 32 samples on the slow machine."""

SHARES = {"min": 0.90, "p10": 0.95, "p25": 0.97, "p50": 1.0, "p75": 1.03, "p90": 1.08, "p95": 1.1,
          "p99": 1.3, "max": 1.5, "mean": 1.01}  # fmt: skip


def measured(machine: str, run: int, model: str, number: int, **changes: Any) -> Record:
    """Return a measured process with every quantile; the spread is that of its seed."""
    parameters, base_s = MODELS.get(model, (5_000, 0.02))
    task, batch = changes.get("task", "train"), changes.get("batch_size", 32)
    noise = random.Random(f"{machine}{run}{model}{number}{task}{batch}").uniform(-0.03, 0.03)
    step_s = changes.pop("step_s", None) or (
        base_s * (batch / 32) ** 0.8 * (0.4 if task == "infer" else 1.0) * math.exp(noise)
    ) * (0.25 if machine == FAST else 1.0)
    fields: dict[str, Any] = {
        "run": f"{run:04d}",
        "started": f"2026-{1 + run // 28:02d}-{1 + run % 28:02d}T03:04:{number:02d}.000+00:00",
        "machine": machine,
        "process": number,
        "order": number,
        "model": model,
        "commit": f"{run // 2:040x}",
        "tensorflow": "2.20.0" if run < 3 else "2.21.0",
        "cpu": f"CPU of {machine}",
        "cores": 64 if machine == FAST else 2,
        "ram_bytes": 2**34,
        "os": "Linux",
        "parameters": parameters,
        "model_bytes": 4 * parameters,
        "throughput_samples_per_s": batch / step_s * 1.02,
        **{f"step_time_{name}_s": step_s * share for name, share in SHARES.items()},
    }
    return process(**{**fields, **changes})


def suite(machine: str, run: int, models: Iterable[str] = tuple(MODELS)) -> list[Record]:
    """Return three processes of each case: training at 32, inference at 1 and 32."""
    cases = [("train", 32), ("infer", 1), ("infer", 32)]
    return [
        measured(machine, run, model, number, task=task, batch_size=batch)
        for model in models
        for task, batch in cases
        for number in (1, 2, 3)
    ]


def keep_run(results: Path, records: Sequence[Record], *, name: str = "") -> Path:
    """Write the rows of one run where its file belongs."""
    path = results / str(records[0].machine) / f"{name or records[0].run}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(to_cells(record) for record in records)
    return path


def written_once(write: Callable[[Path], Path]) -> Callable[[Path], Path]:
    """Have this process write the rows of a folder's results once, and copy them from then on."""

    @functools.cache
    def first() -> tempfile.TemporaryDirectory[str]:
        made = tempfile.TemporaryDirectory(prefix="convmark-rows-")
        write(Path(made.name))
        return made

    @functools.wraps(write)
    def copied(folder: Path) -> Path:
        shutil.copytree(first().name, folder, dirs_exist_ok=True)
        return folder / "results"

    return copied


@written_once
def results_of_two_machines(folder: Path) -> Path:
    """Write four runs of the slow machine and two of the fast one, which lacks a model.

    The newest run of the slow machine has a failed process and an unsteady one.
    """
    results = folder / "results"
    for run in (1, 2, 3):
        keep_run(results, suite(SLOW, run))
    last = suite(SLOW, 4)
    last[0] = measured(SLOW, 4, "lenet5", 1, status="timeout", error="hung, at step 3",
                       step_time_p50_s=None)  # fmt: skip
    last[3] = measured(SLOW, 4, "lenet5", 1, task="infer", batch_size=1, status="unsteady")
    keep_run(results, last)
    for run in (1, 2):
        keep_run(results, suite(FAST, run, models=("lenet5", HOSTILE)))
    return results


def keep_prices(folder: Path, *machines: str) -> Path:
    """Write prices of machines: 2.50 USD an hour each."""
    path = folder / "prices.toml"
    shared = 'currency = "USD"\ndate = 2026-01-31\nsource = "the invoice"\n'
    path.write_text(shared + "".join(f'["{machine}"]\nper_hour = 2.5\n' for machine in machines))
    return path
