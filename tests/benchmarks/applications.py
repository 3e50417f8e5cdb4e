"""Every builder of keras.applications: a step of inference and one of training at batch 1.

    python tests/benchmarks/applications.py --state=FILE [--models=resnet50,vgg16]

Prints each model's parameters and FLOPs, and beside them `count_params()` and the FLOPs of the
operations that TensorFlow ran (`eager_counts.py`). Exits 1 where one fails or they differ. A part
of a model that is in the state's file is not taken again, so that the work can be cut short at any
time; on two quiet cores all of it takes about half an hour.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import convmark_zoo
from tabulate import tabulate

from convmark.core.case import Case
from convmark.core.errors import WorkerError
from convmark.interpreter import Interpreter

TESTS = Path(__file__).resolve().parents[1]
LECTURE = (
    *("lenet5", "mini_inception", "mini_resnet", "mini_resnet_norm"),
    *("conv_layer", "separable_layer"),
)
TOLERANCE = 0.001
TIME_LIMIT_S = 900.0


def one_step(interpreter: Interpreter, name: str, task: str) -> dict[str, Any]:
    """Return the sizes of a model that has taken a step."""
    case = Case(model=name, task=task, batch_size=1).as_fields()
    request = {
        "kind": "measure",
        "case": case,
        "seed": 0,
        "time_budget_s": 0.1,
        "smoke": False,
        "with_sizes": True,
    }
    with interpreter.live(request) as worker:
        sizes = worker.expect("sizes")
        worker.command(steps=0, dropped=0)
        worker.expect("finished")
    return sizes


def measured(name: str, task: str) -> dict[str, Any]:
    """Return what the worker says of a model."""
    with Interpreter(time_limit_s=TIME_LIMIT_S) as interpreter:
        try:
            sizes = one_step(interpreter, name, task)
        except WorkerError as error:
            return {task: str(error)}
    return {task: "ok", "parameters": sizes["parameters"], "flops": sizes["flops_per_sample"]}


def counted(name: str) -> dict[str, Any]:
    """Return what eager execution counts."""
    command = [sys.executable, str(TESTS / "eager_counts.py"), "1", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = json.loads((done.stdout.splitlines() or ["{}"])[-1])
    return {"count_params": found.get("parameters"), "eager": found.get("flops")}


PARTS: dict[str, Callable[[str], dict[str, Any]]] = {
    "infer": lambda name: measured(name, "infer"),
    "train": lambda name: measured(name, "train"),
    "eager": counted,
}


def is_right(row: dict[str, Any]) -> bool:
    if (row["infer"], row["train"]) != ("ok", "ok") or row["parameters"] != row["count_params"]:
        return False
    flops, eager = row["flops"], row["eager"]
    return flops is None or abs(flops - eager) <= TOLERANCE * eager


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--models", default=",".join(sorted({*convmark_zoo.names()} - {*LECTURE})))
    options = parser.parse_args()
    wanted = options.models.split(",")
    rows: dict[str, dict[str, Any]] = {name: {} for name in wanted}
    for line in options.state.read_text().splitlines() if options.state.exists() else []:
        part = json.loads(line)
        rows.setdefault(part["model"], {}).update(part)
    for name, part in itertools.product(wanted, PARTS):
        if part not in rows[name]:
            found = {"model": name, **PARTS[part](name)}
            rows[name].update(found)
            with options.state.open("a") as file:
                file.write(json.dumps(found) + "\n")
    chosen = [{**rows[name], "right": is_right(rows[name])} for name in wanted]
    print(tabulate(chosen, headers="keys", intfmt=","))
    return 0 if all(row["right"] for row in chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
