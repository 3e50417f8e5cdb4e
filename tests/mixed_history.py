"""A history as users have it, for tests of the page: two machines, three versions, three backends,
a model that fails, verdicts, a run under load and one of a single model; not a test itself.
"""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

from histories import keep_said
from report_rows import keep_run, measured
from test_verdicts_file import judgement

from convmark.results.record import Record

__all__ = ["DESKTOP", "FAILED", "RUNS", "SERVER", "mixed_history"]

DESKTOP, SERVER = "ryzen-9-7950x-64gib-3f2a", "xeon-e5-2680-32gib-a19c"
"""As machines are named: `32` is a part of one of them, and a batch size."""
RUNS = 30
VERSIONS = ("2.19.1", "2.20.0", "2.21.0")
STEPS_S = {"lenet5": 0.0021, "mini_resnet": 0.0094, "mini_inception": 0.0152,
           "mobilenetv2": 0.061, "resnet50": 0.31}  # fmt: skip
"""Seconds of a training step of 32 samples on the desktop."""
PARAMETERS = {"lenet5": 61_706, "mini_resnet": 270_218, "mini_inception": 896_522,
              "mobilenetv2": 3_538_984, "resnet50": 25_636_712, "vgg16": 138_357_544}  # fmt: skip
FAILED = "vgg16"
CASES = (("train", 32), ("infer", 1), ("infer", 32))
MOVED, MOVED_AT = "mobilenetv2-infer-cpu-b1-float32", 12
LOAD = 0.82


def _process(machine: str, run: int, model: str, number: int, **changes: Any) -> Record:
    task, batch = changes["task"], changes["batch_size"]
    backend = changes.get("backend", "tensorflow")
    step_s = STEPS_S.get(model, 1.0) * (0.35 if task == "infer" else 1.0) * (batch / 32) ** 0.7
    step_s *= 2.3 if machine == SERVER else 1.0
    step_s *= {"tensorflow": 1.0, "jax": 0.84, "torch": 1.09}[backend]
    if model == "mobilenetv2" and (task, batch) == ("infer", 1) and run >= MOVED_AT:
        step_s *= 1.12
    if changes.get("other_cpu_share", 0) > 0.5:
        step_s *= 1.7
    noise = random.Random(f"{machine}{run}{model}{number}{task}{batch}{backend}")
    step_s *= math.exp(noise.gauss(0, 0.012))
    facts = {
        "step_s": step_s,
        "parameters": PARAMETERS[model],
        "trainable_parameters": PARAMETERS[model],
        "model_bytes": 4 * PARAMETERS[model],
        "flops_per_sample": 14 * PARAMETERS[model],
        "peak_host_memory_bytes": 40_000_000 + 9 * PARAMETERS[model],
        "time_to_first_step_s": 0.3 + 8 * step_s,
        "cpu": "Intel Xeon E5-2680 v4" if machine == SERVER else "AMD Ryzen 9 7950X",
        "cores": 28 if machine == SERVER else 16,
        "paired_log_ratio": math.log(step_s / 0.0021),
        "code": f"{run // 3:064x}",
        "plan": "1a2b3c4d",
        "started": f"2026-0{2 + run // 25}-{1 + run % 25:02d}T02:{run:02d}:{number:02d}.000+00:00",
    }
    return measured(machine, run, model, number, **{**facts, **changes})


def _suite(machine: str, run: int, **changes: Any) -> list[Record]:
    rows = [
        _process(machine, run, model, number, task=task, batch_size=batch, **changes)
        for model in STEPS_S
        for task, batch in CASES
        for number in (1, 2, 3)
    ]
    failed = {"status": "out_of_memory", "step_time_p50_s": None, "throughput_samples_per_s": None,
              "error": "ResourceExhaustedError: failed to allocate 3.2 GiB"}  # fmt: skip
    rows += [
        _process(machine, run, FAILED, number, task="train", batch_size=32, **{**changes, **failed})
        for number in (1, 2, 3)
    ]
    return rows


def _backends(machine: str, run: int) -> list[Record]:
    return [
        _process(machine, run, model, number, task=task, batch_size=batch, backend=backend,
                 tensorflow=None, **{backend: version})
        for backend, version in (("jax", "0.9.0"), ("torch", "2.11.0"))
        for model in ("lenet5", "mini_resnet", "mobilenetv2")
        for task, batch in CASES
        for number in (1, 2, 3)
    ]  # fmt: skip


def mixed_history(folder: Path) -> Path:
    """Write twenty runs of the desktop and ten of the server, and return the results folder.

    The newest run of the server was under load, the newest of the desktop has one model alone.
    """
    results = folder / "results"
    for run in range(1, 20):
        rows = _suite(DESKTOP, run, tensorflow=VERSIONS[min(2, run // 7)])
        keep_run(results, rows + (_backends(DESKTOP, run) if run >= 18 else []))
    subset = [
        _process(DESKTOP, 20, "lenet5", number, task="train", batch_size=32,
                 tensorflow=VERSIONS[2], plan="9f8e7d6c")
        for number in (1, 2, 3)
    ]  # fmt: skip
    keep_run(results, subset)
    for run in range(1, 11):
        load = {"other_cpu_share": LOAD} if run == 10 else {}
        rows = _suite(SERVER, run, tensorflow=VERSIONS[1 + run // 6], **load)
        if load:
            why = "step time changed level by +60% after step 25"
            rows[4] = _process(SERVER, run, "lenet5", 2, task="infer", batch_size=1, **load,
                               tensorflow=VERSIONS[2], status="unsteady", unsteady=why)  # fmt: skip
        keep_run(results, rows)
    said = [
        judgement(run="0019", case=f"{model}-{task}-cpu-b{batch}-float32", model=model, task=task,
                  batch_size=batch, verdict="unchanged", change=0.004, low=-0.01, high=0.02,
                  fails=False)
        for model in STEPS_S
        for task, batch in CASES
    ]  # fmt: skip
    moved = judgement(run="0012", case=MOVED, model="mobilenetv2", change=0.12, low=0.1, high=0.14)
    keep_said(results / DESKTOP, moved)
    slower = {"change": 0.121, "low": 0.098, "high": 0.144, "verdict": "regressed", "fails": True}
    said = [judgement(**{**_facts(one), **slower}) if one.case == MOVED else one for one in said]
    keep_said(results / DESKTOP, *said)
    return results


def _facts(one: Any) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__dataclass_fields__}
