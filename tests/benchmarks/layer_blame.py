"""Blame live: one layer of a model is slowed by real work; is it named, first, and it alone?

Each trial takes a layer of the model at random, has it work longer, and measures the layers of both
codes as `convmark ab --layers` does, in four sessions of each. The work is sized once for a share
of the step, in the middle one of the layers. All trials share one warm interpreter for each side.
Trials are kept in the folder, so that the script goes on where it was ended.

    python tests/benchmarks/layer_blame.py --folder=/tmp/blame --trials=25 --time-budget=0.1

The printed table has, for each model: trials, those that named the slowed layer first, those that
named it at all, and other layers that were named; by how much the step grew, the median; pairs of
sessions, and those in which no other layer's difference was as large, each session held to the
reference network as `blame` does; and the median seconds of a trial.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from slowed import CHECKOUT, Diary, run

sys.path.insert(0, str(CHECKOUT))

from tabulate import tabulate

from convmark.compare.live.blame import blame
from convmark.compare.live.session import LiveSide
from convmark.core.case import Case
from convmark.core.options import Options
from convmark.interpreter import Answer, Interpreter, import_roots
from convmark.session.layers import REST

MODELS = {"lenet5": 32, "mini_resnet": 32, "mobilenetv2": 4}
"""Batch sizes of inference."""
NETS = '''"""A model of the zoo, one of whose layers works longer."""

import functools
import json
import statistics
import sys
import time

import tensorflow as tf

from models.keras_api import keras
from models.registry import builder

SLOWED, ELEMENTS = "", 0


def work(maps, elements):
    flat = tf.reshape(maps, [-1])[:64]
    tiled = tf.tile(flat, [elements // 64 + 1])[:elements]
    return tf.reduce_mean(tf.tanh(tf.tanh(tiled)))


def heavy(model):
    found = [one for one in model._flatten_layers() if not list(one._flatten_layers())[1:]]
    return [one for one in found if any(len(weight.shape) >= 2 for weight in one.weights)]


def slowed(name):
    model = builder(name)()
    for layer in heavy(model):
        if layer.name == SLOWED and ELEMENTS:
            layer.call = functools.wraps(layer.call)(functools.partial(more, layer.call))
    return model


def more(call, maps, *args, **kwargs):
    return call(maps, *args, **kwargs) + 1e-30 * work(maps, ELEMENTS)


def lenet5():
    return slowed("lenet5")


def mini_resnet():
    return slowed("mini_resnet")


def mobilenetv2():
    return slowed("mobilenetv2")


def seconds(function, images):
    function(images)
    times = []
    for _ in range(50):
        began = time.perf_counter()
        function(images).numpy()
        times.append(time.perf_counter() - began)
    return min(times)


if __name__ == "__main__":
    name, samples, share = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    model = builder(name)()
    shape = getattr(model, "input_shape", (None, 28, 28, 1))
    images = tf.random.uniform([samples, *shape[1:]])
    step_s = seconds(tf.function(model), images)
    few, many = 20_000, 400_000  # a call costs something however little it works
    few_s, many_s = (seconds(tf.function(lambda x, n=n: work(x, n)), images) for n in (few, many))
    elements = max(1_000, round(share * step_s * (many - few) / (many_s - few_s)))
    layers = [one.name for one in heavy(model)]
    SLOWED = layers[len(layers) // 2]
    for _ in range(2):  # work in the model takes another time than by itself
        ELEMENTS = elements
        keras.utils.clear_session()  # the names of layers are counted anew
        both = tf.function(model), tf.function(slowed(name))
        times_s = [[seconds(one, images) for one in both] for _ in range(7)]
        grown = statistics.median(longer_s / step_s - 1 for step_s, longer_s in times_s)
        elements = max(1_000, round(elements * share / max(grown, share / 4)))
    print(json.dumps({"step_s": step_s, "elements": elements, "layers": layers}))
'''


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--trials", type=int, default=3, help="of each model")
    parser.add_argument("--share", type=float, default=0.2, help="of the step")
    parser.add_argument("--time-budget", type=float, default=Options().time_budget_s)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    diary = Diary(given.folder / "trials.json")
    models = given.models.split(",")
    folders = [code_folder(given.folder / side, "", 0) for side in ("old", "new")]
    with contextlib.ExitStack() as stack:
        sides = [
            stack.enter_context(Interpreter(folder=one, import_roots=[one, *import_roots()]))
            for one in folders
        ]
        for trial, model in itertools.product(range(given.trials), models):
            size = f"size of {model} {given.share:g}"
            if size not in diary.done:
                diary.keep(size, size_of(given, model))
            name = f"{model} {given.share:g} {given.time_budget:g} {trial}"
            if name not in diary.done:
                diary.keep(name, one_trial(given, sides, diary.done[size], model, trial))
            print(f"{name}: {json.dumps(diary.done[name])}", flush=True)
    print(tabulate([summary(model, diary.done) for model in models], headers="keys"))


class Recorded:
    """An interpreter of one side, whose sessions of layers are kept."""

    def __init__(self, interpreter: Interpreter) -> None:
        self._interpreter = interpreter
        self.found: list[Mapping[str, Any]] = []

    def answer(self, request: Mapping[str, Any]) -> Answer:
        answer = self._interpreter.answer(request)
        if (event := answer.event("layers")) is not None:
            self.found.append(event)
        return answer


def one_trial(
    given: argparse.Namespace, sides: Sequence[Interpreter], sized: Any, model: str, trial: int
) -> dict[str, Any]:
    """Slow one layer, measure the layers of both codes, and return what was named."""
    began = time.monotonic()
    layer = random.Random(f"{model} {trial}").choice(sized["layers"])
    code_folder(given.folder / "new", layer, sized["elements"])
    case = Case(model=f"nets:{model}", task="infer", batch_size=MODELS[model])
    old, new = map(Recorded, sides)
    live = [LiveSide(case=case, interpreter=cast("Interpreter", one)) for one in (old, new)]
    rows = blame(*live, Options(time_budget_s=given.time_budget))
    return {
        "slowed": layer,
        "elements": sized["elements"],
        "step_grew": sum(row.new_s or 0 for row in rows) / sum(row.old_s or 0 for row in rows) - 1,
        "words": [row.words for row in rows if row.moved],
        "first": bool(rows[0].moved and is_of(rows[0].layer, layer)),
        "found": any(row.moved and is_of(row.layer, layer) for row in rows),
        "others": sum(row.moved and not is_of(row.layer, layer) for row in rows),
        "sessions_first": [
            is_of(most_moved(*pair), layer) for pair in zip(old.found, new.found, strict=True)
        ],
        "load": os.getloadavg()[0],
        "seconds": time.monotonic() - began,
    }


def most_moved(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return the layer with the largest difference between two sessions, or what is the rest.

    On a machine that is equally fast in both, else the largest layer may differ most.
    """
    both = [
        [seconds * one["step_per_reference"] / one["step_s"] for seconds in times_s]
        for one in (old, new)
        for times_s in [[*one["forward_s"], one["step_s"] - sum(one["forward_s"])]]
    ]
    moved_s = [abs(after - before) for before, after in zip(*both, strict=True)]
    names = [*(unit["name"] for unit in new["units"]), REST]
    return str(names[moved_s.index(max(moved_s))])


def is_of(row: str, layer: str) -> bool:
    """Whether a row is a layer's, or that of layers that are run as one with it."""
    return layer in [name.rpartition("/")[2] for name in row.split(" + ")]


def size_of(given: argparse.Namespace, model: str) -> dict[str, Any]:
    """Return the work that takes the share of the model's step, and the layers it may be put in."""
    folder = code_folder(given.folder / "size", "", 0)
    done = run(
        *(sys.executable, "nets.py", model, str(MODELS[model]), str(given.share)),
        folder=folder,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    if done.returncode:
        raise SystemExit(f"{model}: cannot be sized: {done.stderr.strip()[-300:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def code_folder(folder: Path, layer: str, elements: int) -> Path:
    """Return a folder with a code in it."""
    folder.mkdir(parents=True, exist_ok=True)
    text = NETS.replace('SLOWED, ELEMENTS = "", 0', f"SLOWED, ELEMENTS = {layer!r}, {elements}")
    (folder / "nets.py").write_text(text)
    return folder


def summary(model: str, done: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's line of the table."""
    trials: Sequence[Any] = [one for name, one in done.items() if name.split()[0] == model]
    sessions = [first for one in trials for first in one["sessions_first"]]
    return {
        "model": model,
        "trials": len(trials),
        "named first": sum(one["first"] for one in trials),
        "named": sum(one["found"] for one in trials),
        "other layers named": sum(one["others"] for one in trials),
        "step grew": statistics.median(one["step_grew"] for one in trials) if trials else None,
        "sessions": len(sessions),
        "first in": sum(sessions),
        "seconds": statistics.median(one["seconds"] for one in trials) if trials else None,
    }


if __name__ == "__main__":
    main()
