"""Exported models: what they cost beside Keras, and whether a bare loop agrees.

    python tests/benchmarks/runtimes.py --folder FOLDER [--only table,bare,tools] [--models NAMES]
        [--batch-sizes 1,8] [--rounds 5] [--runtimes NAMES]

table   every model and batch size through every runtime: latency, error, file and load time
bare    the median step time of the harness and of a loop of ten lines around the runtime, in fresh
        processes that alternate: they agree where the median ratio is within 5 % of 1
tools   the same against the runtime's own benchmark, where one is installed: within 10 %

What is done is kept in FOLDER and not done again: the script can be stopped and taken up. Exits 1
where a figure misses its goal or a runtime computes something else. Needs TensorFlow and the
runtimes; what is not installed is left out with a line.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from convmark.core.case import Case
from convmark.core.runtimes import EXPORTS, RUNTIMES
from convmark.interpreter import Interpreter

MODELS = "lenet5,mini_resnet,mobilenetv2,resnet50,efficientnetb0"
BARE_WITHIN, TOOL_WITHIN = 0.05, 0.10
SECONDS = 2.0
SMALL = ("lenet5", "mini_resnet")
"""The tools print hundredths of a millisecond, too coarse for these."""

Interpreters = Mapping[str, Interpreter]
"""By backend."""

_LOOP = """
import statistics, sys, time
import numpy as np
path, threads = sys.argv[1], sys.argv[2]
batch = np.load(sys.argv[3])
{load}
def loop(steps):
    times = []
    for _ in range(steps):
        began = time.perf_counter()
        {step}
        times.append(time.perf_counter() - began)
    return times
loop({before})
print(statistics.median(loop({steps})))
"""
"""It takes as many steps before those that count, and of these, as the harness has taken: the steps
of a process become quicker in its first seconds."""
_BARE: Mapping[str, tuple[str, str]] = {
    "savedmodel": (
        "import tensorflow as tf\n"
        "loaded = tf.saved_model.load(path); call = loaded.signatures['serving_default']",
        "call(input_00=tf.constant(batch))['output_00'].numpy()",
    ),
    "litert": (
        "from ai_edge_litert.interpreter import Interpreter\n"
        "one = Interpreter(path); one.allocate_tensors()\n"
        "into = one.get_input_details()[0]['index']; out = one.get_output_details()[0]['index']",
        "one.set_tensor(into, batch); one.invoke(); one.get_tensor(out)",
    ),
    "onnxruntime": (
        "import onnxruntime\n"
        "one = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])\n"
        "name = one.get_inputs()[0].name",
        "one.run(None, {name: batch})",
    ),
    "openvino": (
        "sys.modules['openvino_telemetry'] = None\n"
        "import openvino\n"
        "hints = {'PERFORMANCE_HINT': 'LATENCY', 'INFERENCE_PRECISION_HINT': 'f32'}\n"
        "one = openvino.Core().compile_model(path, 'CPU', hints).create_infer_request()",
        "one.infer(batch, share_inputs=True, share_outputs=False).to_tuple()[0]",
    ),
    "torchexport": (
        "import torch\none = torch.export.load(path).module()",
        "with torch.inference_mode(): one(torch.from_numpy(batch))[0].numpy()",
    ),
}
_FLOAT32 = ["-infer_precision", "f32", "-ip", "f32"]
"""Without these benchmark_app takes u8 and computes in bfloat16 where the CPU can."""

_TOOLS: Mapping[str, tuple[list[str], str, float]] = {
    "litert": (
        ["litert-benchmark", "--model", "{path}", "--num_runs", "200", "--warmup_runs", "30"],
        r"Inference \(median\): +([0-9.]+) ms",
        1e-3,
    ),
    "openvino": (
        ["benchmark_app", "-m", "{path}", "-hint", "latency", "-api", "sync", "-t", "5", *_FLOAT32],
        r"Median: +([0-9.]+) ms",
        1e-3,
    ),
}
"""By runtime its own benchmark, where the median stands in what it prints, and the unit in s."""


class Done:
    """What is done, by its name: a line of JSON each, so that a script can be taken up."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "done.jsonl"
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        self._found = dict(json.loads(line) for line in lines)

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        """Return what the work has given, now or earlier."""
        if name not in self._found:
            self._found[name] = work()
            with self._path.open("a") as file:
                file.write(json.dumps([name, self._found[name]]) + "\n")
        return self._found[name]


def main() -> int:
    options = _options()
    os.environ[EXPORTS] = str((options.folder / "exports").absolute())
    done = Done(options.folder)
    cases = [
        Case(
            model=model,
            task="infer",
            batch_size=int(size),
            runtime=runtime,
            backend=RUNTIMES[runtime].backend,
        )
        for model in options.models.split(",")
        for size in options.batch_sizes.split(",")
        for runtime in options.runtimes.split(",")
        if _is_there(runtime)
    ]
    missed = 0
    with contextlib.ExitStack() as stack:
        interpreters = {
            backend: stack.enter_context(Interpreter(backend=backend))
            for backend in sorted({case.backend for case in cases})
        }
        if "table" in options.only:
            missed += _table(cases, interpreters, done)
        exported = [case for case in cases if case.runtime in _BARE]
        if "bare" in options.only:
            missed += _against("bare", exported, done, options, _bare, BARE_WITHIN)
        if "tools" in options.only:
            tooled = [one for one in exported if _tool(one.runtime) and one.model not in SMALL]
            missed += _against("tool", tooled, done, options, _by_tool, TOOL_WITHIN)
    return 1 if missed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--only", default="table,bare,tools")
    parser.add_argument("--models", default=MODELS, metavar="NAMES")
    parser.add_argument("--batch-sizes", default="1,8", metavar="SIZES")
    parser.add_argument("--runtimes", default=",".join(RUNTIMES), metavar="NAMES")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    return parser.parse_args()


def _is_there(runtime: str) -> bool:
    package = RUNTIMES[runtime].package
    if package and importlib.util.find_spec(package) is None:
        print(f"{runtime}: {package} is not installed, left out", file=sys.stderr)
        return False
    return True


def _measured(case: Case, interpreter: Interpreter, seconds: float) -> dict[str, Any]:
    """Return the figures of one process of the harness."""
    request = {"kind": "measure", "case": case.as_fields(), "seed": 0, "smoke": False}
    answer = interpreter.answer({**request, "time_budget_s": seconds, "fed": False})
    found: dict[str, Any] = {"status": answer.status, "message": answer.message}
    for name in ("exported", "loaded", "agreement", "first_step", "peaks"):
        found |= answer.event(name) or {}
    steps, warm_up = answer.event("steps"), answer.event("warm_up")
    if steps is None or warm_up is None:
        return {**found, "p50_s": None}
    counts = {"before": 1 + warm_up["steps"], "steps": len(steps["times_s"])}
    return {**found, **counts, "p50_s": median(steps["times_s"])}


def _table(cases: list[Case], interpreters: Interpreters, done: Done) -> int:
    print("| case | step p50 (ms) | first call (ms) | load (ms) | export (s) | file (MB) "
          "| error | top-1 |")  # fmt: skip
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    failed = 0
    for case in cases:
        row = done(
            f"table {case.name}",
            lambda case=case: _measured(case, interpreters[case.backend], SECONDS),
        )
        if row["status"] != "ok":
            print(f"| {case.name} | {row['message']} | | | | | | |")
            failed += 1
            continue
        cells = [
            _scaled(row["p50_s"], 1e3, ".3f"),
            _scaled(row["seconds"], 1e3, ".1f"),
            _scaled(row.get("load_s"), 1e3, ".1f"),
            _scaled(row.get("export_s"), 1, ".1f"),
            _scaled(row.get("exported_bytes"), 1e-6, ".1f"),
            _scaled(row.get("largest_rel_error"), 1, ".1e"),
            _scaled(row.get("top1_agreement"), 1, ".2f"),
        ]
        print(f"| {case.name} | {' | '.join(cells)} |", flush=True)
    return failed


def _scaled(value: float | None, factor: float, form: str) -> str:
    return "" if value is None else format(value * factor, form)


def _against(
    what: str,
    cases: list[Case],
    done: Done,
    options: argparse.Namespace,
    other: Callable[[Case, Path, Mapping[str, Any]], float],
    within: float,
) -> int:
    """Alternate the harness and something else; return how many cases lie further apart."""
    missed = 0
    for case in cases:
        ratios = []
        for number in range(options.rounds):

            def pair(case: Case = case) -> list[float]:
                # one of its own: all forks of an interpreter have its layout of memory
                with Interpreter(backend=case.backend) as interpreter:
                    ours = _measured(case, interpreter, SECONDS)
                if ours["p50_s"] is None:
                    raise SystemExit(f"{case.name}: {ours['message']}")
                return [ours["p50_s"], other(case, options.folder, ours)]

            ours_s, others_s = done(f"{what} {case.name} {number}", pair)
            ratios.append(ours_s / others_s)
        ratio = median(ratios)
        missed += abs(ratio - 1) > within
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        print(f"{what}: {case.name}: harness / {what} {ratio:.3f} ({spread})", flush=True)
    return missed


def _file(case: Case, folder: Path) -> str:
    """Return the exported file of a case, which was measured just now."""
    for told in sorted(
        (folder / "exports").glob("*/export.json"), key=lambda one: -one.stat().st_mtime
    ):
        if json.loads(told.read_text())["case"] == case.name:
            return str(told.parent / ("model" + RUNTIMES[case.runtime].suffix))
    raise SystemExit(f"{case.name}: no file was exported")


def _bare(case: Case, folder: Path, ours: Mapping[str, Any]) -> float:
    """Return the median step time of a bare loop in a fresh process, s."""
    load, step = _BARE[case.runtime]
    code = _LOOP.format(load=load, step=step, before=ours["before"], steps=ours["steps"])
    batch = folder / f"{case.model}-b{case.batch_size}.npy"
    if not batch.exists():
        import numpy as np

        shape = (28, 28, 1) if case.model in SMALL else (224, 224, 3)
        np.save(batch, np.random.RandomState(0).rand(case.batch_size, *shape).astype("float32"))
    command = [sys.executable, "-c", code, _file(case, folder), case.threads, str(batch)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=280)
    return float(done.stdout.splitlines()[-1])


def _tool(runtime: str) -> str | None:
    """Return the path of a runtime's own benchmark; None where there is none."""
    name = _TOOLS[runtime][0][0] if runtime in _TOOLS else ""
    beside = Path(sys.executable).parent / name
    return str(beside) if name and beside.exists() else shutil.which(name) if name else None


def _by_tool(case: Case, folder: Path, ours: Mapping[str, Any]) -> float:
    """Return the median latency that the runtime's own benchmark prints, s."""
    command, pattern, unit = _TOOLS[case.runtime]
    filled = [word.format(path=_file(case, folder)) for word in command]
    filled[0] = str(_tool(case.runtime))
    done = subprocess.run(filled, capture_output=True, text=True, check=True, timeout=280)
    found = re.search(pattern, done.stdout)
    if found is None:
        raise SystemExit(f"{filled[0]}: prints no median")
    return float(found.group(1)) * unit


if __name__ == "__main__":
    sys.exit(main())
