"""Results of all kinds of rows on five machines, for what a report must show; not a test itself."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from histories import keep_said
from report_rows import keep_run, measured, written_once
from test_verdicts_file import judgement

from convmark.results.record import Record

__all__ = ["rich_results"]

CPU, GPU, OTHER = "xeon-2", "rtx-box", "workstation-of-the-second-floor-amd-ryzen-9-7950x"
KIND, LONG_HISTORY = "node-kind", "old-faithful"

VERSIONS = ("2.12.1", "2.13.1", "2.14.1", "2.15.1", "2.16.2", "2.17.1", "2.18.1", "2.19.1",
            "2.20.0", "2.21.0")  # fmt: skip
PARAMETERS = {"lenet5": 61_706, "mini_resnet": 270_218, "mini_inception": 896_522,
              "mobilenetv2": 3_538_984, "efficientnetb0": 5_330_571, "resnet50": 25_636_712,
              "my_company.vision.models:build_the_large_one": 143_667_240}  # fmt: skip
FLOPS = {"lenet5": 833_040, "mini_resnet": 30_700_000, "mini_inception": 30_500_000,
         "mobilenetv2": 600_000_000, "efficientnetb0": 780_000_000, "resnet50": 7_715_900_000,
         "my_company.vision.models:build_the_large_one": 39_000_000_000}  # fmt: skip
VERDICTS = ("new", "unchanged", "inconclusive", "regressed", "improved", "unchanged",
            "inconclusive", "unchanged", "regressed", "unchanged")  # fmt: skip


def commit_of(run: int) -> str:
    """Two runs of each commit."""
    return hashlib.sha1(str(run // 2).encode(), usedforsecurity=False).hexdigest()


def _process(machine: str, run: int, model: str, number: int, **changes: Any) -> Record:
    flops = FLOPS[model]
    batch, replicas = changes.get("batch_size", 32), changes.get("replicas", 1)
    rate = 2e12 if changes.get("device", "cpu") != "cpu" else 8e10 if machine == CPU else 3e11
    noise = random.Random(f"{machine}{run}{model}{number}{batch}{replicas}").uniform(-0.03, 0.03)
    passes = 3 if changes.get("task", "train") == "train" else 1
    step_s = (0.0008 + passes * flops * batch / rate) * math.exp(noise) * replicas**0.15
    facts = {
        "commit": commit_of(run),
        "code": "0123456789abcdef",
        "input_shape": "28x28x1",
        "parameters": PARAMETERS[model],
        "trainable_parameters": PARAMETERS[model],
        "model_bytes": 4 * PARAMETERS[model],
        "flops_per_sample": flops,
        "training_flops_per_sample": passes * flops if passes > 1 else None,
        "throughput_samples_per_s": replicas * batch / step_s,
        "step_s": step_s,
        "peak_host_memory_bytes": 50_000_000 + 5 * PARAMETERS[model],
        "time_to_first_step_s": 0.4 + step_s,
    }
    return measured(machine, run, model, number, **{**facts, **changes})


def _processes(machine: str, run: int, model: str, n: int = 3, **changes: Any) -> list[Record]:
    return [_process(machine, run, model, number, **changes) for number in range(1, n + 1)]


def _started(day: int, hour: int, number: int = 0) -> str:
    return f"2026-03-{day:02d}T{hour:02d}:10:{number:02d}.000+00:00"


def _versions(results: Path) -> None:
    """Ten versions within an afternoon, then the newest one for two weeks."""
    days = [(1, 10 + place) for place in range(10)] + [(2 + 2 * place, 9) for place in range(6)]
    for run, (day, hour) in enumerate(days, 1):
        version = VERSIONS[min(run, 10) - 1]
        rows = []
        for model in ("lenet5", "mini_resnet"):
            for task, batch in (("train", 32), ("infer", 1), ("infer", 32)):
                rows += _processes(CPU, run, model, task=task, batch_size=batch,
                                   tensorflow=version, started=_started(day, hour))  # fmt: skip
        rows += _batches(CPU, run) if run == len(days) else []
        path = keep_run(results, rows)
        if run <= len(VERDICTS):
            verdict = judgement(run=f"{run:04d}", verdict=VERDICTS[run - 1], fails=False)
            keep_said(path.parent, verdict)


def _batches(machine: str, run: int, **changes: Any) -> list[Record]:
    """Batch sizes, and what went wrong."""
    rows = []
    for model in ("mini_inception", "mobilenetv2", "efficientnetb0", "resnet50"):
        for task in ("train", "infer"):
            for batch in (1, 2, 8, 32, 128):
                rows += _processes(machine, run, model, task=task, batch_size=batch, **changes)
    rows += [
        _process(machine, run, "resnet50", 1, batch_size=512, status="out_of_memory",
                 error="RESOURCE_EXHAUSTED: OOM when allocating tensor with shape[512,64,112,112]",
                 step_time_p50_s=None, throughput_samples_per_s=None, **changes),
        _process(machine, run, "mobilenetv2", 1, batch_size=256, status="unsteady", **changes),
        _process(machine, run, "my_company.vision.models:build_the_large_one", 1, status="crashed",
                 error="ended by signal 11 (SIGSEGV) while it built the model",
                 step_time_p50_s=None, throughput_samples_per_s=None, **changes),
    ]  # fmt: skip
    return rows


def _gpus(results: Path) -> None:
    """A machine with a CPU and four GPUs: energy, ceilings, precisions, replicas, heat."""
    card = {"gpu": "NVIDIA GeForce RTX 3080", "gpu_memory_bytes": 10 * 2**30, "driver": "550.54",
            "tensorflow": "2.21.0", "peak_flops_per_s": 2.4e13, "peak_bytes_per_s": 7.1e11,
            "sm_clock_mhz": 1755.0, "temperature_c": 71.0, "power_w": 301.0}  # fmt: skip
    started = {"started": _started(12, 7)}
    rows = _batches(GPU, 1, device="gpu:0", peak_device_memory_bytes=3 * 2**30,
                    joules_per_sample=0.21, efficiency=0.3, **card, **started)  # fmt: skip
    for model in ("lenet5", "resnet50"):
        for precision in ("tf32", "mixed_float16"):
            rows += _processes(GPU, 1, model, device="gpu:0", precision=precision, **card,
                               joules_per_sample=0.11, **started)  # fmt: skip
        rows += _processes(GPU, 1, model, device="gpu:0", jit="on", **card, **started)
        for replicas in (2, 4):
            rows += _processes(GPU, 1, model, device="gpu:0", replicas=replicas, **card, **started,
                               effective_batch_size=32 * replicas)  # fmt: skip
        rows += _processes(GPU, 1, model, device="cpu", threads="1", tensorflow="2.21.0", **started)
        rows += _processes(GPU, 1, model, tensorflow="2.21.0", peak_flops_per_s=5e11,
                           peak_bytes_per_s=4e10, **started)  # fmt: skip
    rows += _processes(GPU, 1, "lenet5", task="infer", device="gpu:0", **card, **started,
                       throttle_reasons="sw_thermal_slowdown", not_judged="slowed")  # fmt: skip
    keep_run(results, rows)


def _other(results: Path) -> None:
    """A machine with a long name, other frameworks, two processes a case and one that is wide."""
    started = {"started": _started(13, 7)}
    rows = []
    for model in ("lenet5", "mini_resnet"):
        for task, batch in (("train", 32), ("infer", 1), ("infer", 32)):
            rows += _processes(OTHER, 1, model, 2, task=task, batch_size=batch, **started)
        rows += _processes(OTHER, 1, model, backend="jax", tensorflow="2.21.0", jax="0.9.0",
                           **started)  # fmt: skip
        rows += _processes(OTHER, 1, model, backend="torch", torch="2.11.0", **started)
    rows += [_process(OTHER, 1, "mini_resnet", number, task="infer", batch_size=8, **started,
                      step_s=0.02 * number) for number in (1, 2, 3)]  # fmt: skip
    keep_run(results, rows)


def _nodes(results: Path) -> None:
    """Five nodes of one kind, one of them slow."""
    for run, node in enumerate(("node-a", "node-b", "node-c", "node-d", "node-e"), 1):
        slow = 1.4 if node == "node-c" else 1.0
        rows = []
        for model in ("lenet5", "mini_resnet", "mini_inception"):
            rows += [
                _process(KIND, run, model, number, node=node, started=_started(14, run),
                         tensorflow="2.21.0",
                         step_s=0.01 * slow * math.exp(0.004 * number))
                for number in (1, 2, 3)
            ]  # fmt: skip
        keep_run(results, rows)


def _learnt(results: Path) -> None:
    """Accuracy of the lecture's networks, a seed that failed, and a waterfall."""
    started = {"started": _started(15, 7)}
    common = {"batch_size": 256, "task": "accuracy", "fraction": 1.0, "epochs": 5,
              "target_accuracy": 0.97, "step_time_p50_s": None,
              "throughput_samples_per_s": None, **started}  # fmt: skip
    rows = []
    for place, model in enumerate(("lenet5", "mini_resnet", "mini_inception")):
        for seed in (0, 1, 2):
            rows.append(_process(
                CPU, 17, model, seed + 1, seed=seed, accuracy=0.979 + 0.001 * seed - 0.002 * place,
                loss=0.06 + 0.01 * place, epoch_time_s=9.0 * (1 + place),
                time_to_target_s=30.0 + seed, samples_to_target=150_000, **common))  # fmt: skip
    rows[-1] = _process(CPU, 17, "mini_inception", 3, seed=2, status="error",
                        error="the loss is not finite in epoch 1", **common)  # fmt: skip
    ways = {"compiled_train_step_s": 0.010, "fed_train_step_s": 0.0108,
            "train_on_batch_step_s": 0.0125, "fit_step_s": 0.0118, "fit_call_s": 0.35,
            "compiled_infer_step_s": 0.0031, "predict_on_batch_step_s": 0.0043,
            "predict_step_s": 0.0029, "predict_call_s": 0.12}  # fmt: skip
    for model, factor in (("lenet5", 1.0), ("mini_resnet", 4.0)):
        rows += [
            _process(CPU, 17, model, number, task="waterfall", step_time_p50_s=None,
                     throughput_samples_per_s=None, **started,
                     **{name: value * factor for name, value in ways.items()})
            for number in (1, 2)
        ]  # fmt: skip
    keep_run(results, rows)


def _long_history(results: Path) -> None:
    """Sixty runs of one case, three versions, which moved twice."""
    for run in range(1, 61):
        version = "2.19.1" if run < 20 else "2.20.0" if run < 45 else "2.21.0"
        factor = 1.0 if run < 30 else 1.12
        noise = random.Random(run)
        rows = [
            measured(LONG_HISTORY, run, "lenet5", number, tensorflow=version, commit=commit_of(run),
                     paired_log_ratio=math.log(factor) + 0.002 * noise.gauss(0, 1),
                     step_s=0.01 * factor * math.exp(noise.gauss(0, 0.02)))
            for number in (1, 2, 3)
        ]  # fmt: skip
        keep_run(results, rows)


def _described(results: Path, machines: Sequence[str]) -> None:
    """Descriptions, so that there is a roofline and a depth."""
    for machine in machines:
        folder = results / machine / "models"
        folder.mkdir(exist_ok=True)
        for model in ("lenet5", "resnet50", "mobilenetv2", "efficientnetb0", "mini_inception"):
            shape = [112, 112, 64] if model == "resnet50" else [28, 28, 6]
            layers = [
                {"name": f"layer_{place}", "kind": "Conv2D", "output_shape": shape,
                 "parameters": 156, "weight_bytes": 624, "flops": FLOPS[model] // 12,
                 "inputs": [place - 1] if place else []}
                for place in range(12)
            ]  # fmt: skip
            value = {"schema": 1, "model": model, "input_shape": [28, 28, 1],
                     "tensorflow": "2.21.0", "keras": "3.15.0", "layers": layers}  # fmt: skip
            (folder / f"{model}.json").write_text(json.dumps(value))


@written_once
def rich_results(folder: Path) -> Path:
    """Write the runs of five machines and return the results folder."""
    results = folder / "results"
    _versions(results)
    _gpus(results)
    _other(results)
    _nodes(results)
    _learnt(results)
    _long_history(results)
    _described(results, [CPU, GPU])
    return results
