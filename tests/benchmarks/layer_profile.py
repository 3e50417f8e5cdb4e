"""Shares of the blocks of a model: `convmark layers` against TensorFlow's own trace.

    python tests/benchmarks/layer_profile.py --models=resnet50,mobilenetv2 --batch-sizes=1

The trace is that of `tf.profiler`. An operation is of the block whose layer's name is in its own.
The printed table has, for each block, its share of all layers by both; below it stand the largest
difference and, of the step time, `convmark run`'s and the sum of the layers and the rest, each with
the 95 % interval over its processes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from slowed import CHECKOUT, run

sys.path.insert(0, str(CHECKOUT))

from tabulate import tabulate

from convmark.core.case import Case
from convmark.core.options import Options
from convmark.interpreter import Interpreter
from convmark.session.layers import layer_request
from convmark.session.run import request_of

MOST_POINTS = 10
"""By which a block's two shares may differ."""
BLOCK = re.compile(r"(?:conv\d+_block\d+|expanded_conv|block_\d+|block\d+)(?=_)")
TRACE = """
import collections, glob, importlib, json, sys, tempfile
import tensorflow as tf
from models.registry import builder

for place in ("tensorflow.tsl", "tensorflow.core"):
    try:
        planes = importlib.import_module(place + ".profiler.protobuf.xplane_pb2")
        break
    except ImportError:
        pass
name, samples, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
module, _, own = name.partition(":")
model = getattr(importlib.import_module(module), own)() if own else builder(name)()
images = tf.random.uniform([samples, *model.input_shape[1:]])
step = tf.function(lambda batch: model(batch, training=False))
for _ in range(5):
    step(images)
folder = tempfile.mkdtemp()
every = tf.profiler.experimental.ProfilerOptions(host_tracer_level=3)
tf.profiler.experimental.start(folder, every)
for _ in range(rounds):
    step(images)
tf.profiler.experimental.stop()
(path,) = glob.glob(folder + "/**/*.xplane.pb", recursive=True)
space, lasted = planes.XSpace(), collections.Counter()
space.ParseFromString(open(path, "rb").read())
for plane in space.planes:
    for line in plane.lines:
        for event in line.events:
            lasted[plane.event_metadata[event.metadata_id].name] += event.duration_ps
print(json.dumps(lasted))
"""
"""Prints picoseconds by the name of an event; those of operations are `path/of/layer/op:Kind`."""
NO_WORK = ("Const", "Identity", "NoOp", "ReadVariableOp", "_Arg", "_Retval")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="resnet50,mobilenetv2")
    parser.add_argument("--batch-sizes", default="1")
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=30, help="traced steps")
    parser.add_argument("--time-budget", type=float, default=Options().time_budget_s)
    given = parser.parse_args()
    worst = 0.0
    for model in given.models.split(","):
        for samples in map(int, given.batch_sizes.split(",")):
            case = Case(model=model, task="infer", batch_size=samples)
            worst = max(worst, compared(case, given))
    return int(worst > MOST_POINTS)


def compared(case: Case, given: argparse.Namespace) -> float:
    """Print the blocks of a case; return the largest difference between two shares, points."""
    layers, steps_s, sums_s = measured(case, given)
    ours = shares(layers)
    theirs = shares(traced(case, given.rounds))
    rows = [
        [block, 100 * ours[block], 100 * theirs[block], 100 * (ours[block] - theirs[block])]
        for block in ours
    ]
    heads = ["block", "convmark layers, %", "TensorFlow's trace, %", "difference, points"]
    print(f"{case.name}\n{tabulate(rows, headers=heads, floatfmt='.1f')}")
    worst = max(abs(row[-1]) for row in rows)
    print(f"largest difference: {worst:.1f} points")
    for name, values in (("convmark run", steps_s), ("layers and rest", sums_s)):
        print(f"step time, {name}: {interval(values)}")
    rest = [1 - sum(one.values()) / sum_s for one, sum_s in zip(layers, sums_s, strict=True)]
    print(f"rest: {', '.join(f'{100 * one:.1f} %' for one in rest)} of the step\n", flush=True)
    return worst


def measured(
    case: Case, given: argparse.Namespace
) -> tuple[list[dict[str, float]], list[float], list[float]]:
    """Return each session's layers, seconds; the step times of `convmark run`; and the sums."""
    options = Options(time_budget_s=given.time_budget)
    layers, steps_s, sums_s = [], [], []
    with Interpreter() as interpreter:
        for process in range(given.processes):
            answer = interpreter.answer(request_of(case, options, smoke=False))
            steps_s.append(statistics.median(event_of(answer, "steps")["times_s"]))
            answer = interpreter.answer(layer_request(case, options, None, process))
            found = event_of(answer, "layers")
            names = [unit["name"] for unit in found["units"]]
            layers.append(dict(zip(names, found["forward_s"], strict=True)))
            sums_s.append(found["step_s"])
    return layers, steps_s, sums_s


def event_of(answer: Any, name: str) -> Mapping[str, Any]:
    """Return an event of an answer that went well."""
    found: Mapping[str, Any] | None = answer.event(name)
    if answer.status != "ok" or found is None:
        raise SystemExit(answer.message or answer.status)
    return found


def traced(case: Case, rounds: int) -> list[dict[str, float]]:
    """Return the time of each operation over the traced steps."""
    done = run(
        *(sys.executable, "-c", TRACE, case.model, str(case.batch_size), str(rounds)),
        folder=CHECKOUT,
        env={**os.environ, "PYTHONPATH": f"{CHECKOUT}{os.pathsep}{os.getcwd()}"},
    )
    if done.returncode:
        raise SystemExit(f"{case.model}: cannot be traced: {done.stderr.strip()[-300:]}")
    events = json.loads(done.stdout.splitlines()[-1])
    found = {
        name: lasted
        for name, lasted in events.items()
        if "/" in name.rpartition(":")[0] and not name.endswith(NO_WORK)
    }
    if not any(BLOCK.search(name) for name in found):
        raise SystemExit(f"{case.model}: no operation of a block is in the trace")
    return [found]


def shares(sessions: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean share of each block, in the order of execution."""
    blocks = [Counter(dict(_sums(one))) for one in sessions]
    names = dict.fromkeys(name for one in blocks for name in one)
    totals = [sum(one.values()) for one in blocks]
    return Counter(
        {
            name: statistics.fmean(
                one[name] / total for one, total in zip(blocks, totals, strict=True)
            )
            for name in names
        }
    )


def _sums(times: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    found: Counter[str] = Counter()
    for name, lasted in times.items():
        block = BLOCK.search(name)
        found[block[0] if block else "outside blocks"] += lasted
    return iter(found.items())


def interval(values: Sequence[float]) -> str:
    """Return the mean of times with its 95 % interval."""
    from scipy.special import stdtrit

    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{1e3 * mean:.3g} ms"
    error = statistics.stdev(values) / math.sqrt(len(values))
    half = float(stdtrit(len(values) - 1, 0.975)) * error
    return f"{1e3 * mean:.3g} ms [{1e3 * (mean - half):.3g}, {1e3 * (mean + half):.3g}]"


if __name__ == "__main__":
    sys.exit(main())
