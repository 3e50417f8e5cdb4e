"""A row's throughput beside that of a bare loop that was written without the harness.

Run it from a checkout: `python tests/benchmarks/bare_loop.py --folder F`. The harness measures a
case as it always does, in a forked process; the bare loop runs in a process of its own. Both are
there at once and take turns in random order, so that both meet the same moments of the machine. A
turn of the harness is its phase `windows`, whole, as a row has it; one of the bare loop takes as
many seconds. Printed for each cell is harness / bare, less 1, per cent: the throughput, and the
CPU time of a step, which other programs disturb less. The error is that between pairs of processes.

`--control` runs the bare loop on both sides: its figures show what the errors are worth. Each pair
of processes is one line of `pairs.csv` in the folder; started again, the script goes on where it
was stopped. It exits 0 where every throughput is within 1 % by its interval's nearer end.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, TextIO

from convmark.core.case import Case
from convmark.core.statistics import interval_of_mean, trimmed_mean
from convmark.interpreter import Interpreter

CELLS = "lenet5:train:256,lenet5:train:32,mini_resnet:train:32,mobilenetv2:train:1"
SHARE = 0.01
SIDES = ("harness", "bare")
COLUMNS = ("cell", "control", "pair", "throughput", "cpu", "turns")
DROPPED = 2
"""Turns of each side that come first and do not count."""
RUNNING: list[subprocess.Popen[bytes]] = []
"""The bare loops that were started."""
BUDGET_S = 1.0
"""Of the steps that the harness takes before its windows."""

GATE = '''\
"""Takes turns with another process: a turn for each line of one pipe, its figures into another."""
import json, os, time


class Gate:
    def __init__(self, side):
        folder = os.environ["GATE_FOLDER"]
        self.done = open(f"{folder}/{side}.done", "w", buffering=1)
        self.go = open(f"{folder}/{side}.go")

    def turns(self, work):
        for line in self.go:
            began_s = time.process_time()
            steps, seconds, all_steps = work()
            cpu_s = (time.process_time() - began_s) / all_steps
            self.done.write(json.dumps({"steps_per_s": steps / seconds, "cpu_s": cpu_s}) + "\\n")
'''

GATED = '''\
"""The zoo's models, in a worker whose phase `windows` is taken again for each turn."""
from convmark_zoo import builder
from gate import Gate


def gated(windows):
    def turns(step, backend, step_time_s, pulse, **options):
        found = None

        def turn():
            nonlocal found
            found = windows(step, backend, step_time_s, pulse, **options)
            return found.steps * len(found.times_s), sum(found.times_s), found.run_steps

        Gate("harness").turns(turn)
        return found

    return turns


def __getattr__(name):
    if name.startswith("_"):
        raise AttributeError(name)

    def build():
        from convmark.worker import timing

        timing.windows = gated(timing.windows)
        return builder(name)()

    return build
'''

BARE = """
import os, sys, time
sys.path.insert(0, os.environ["GATE_FOLDER"])
import tensorflow as tf
import keras
from convmark_zoo import builder
from convmark_zoo.shape import input_shape
from gate import Gate
side, name, task, batch, seconds = *sys.argv[1:4], int(sys.argv[4]), float(sys.argv[5])
model = builder(name)()
pictures = tf.random.stateless_normal((batch, *input_shape(model)), (0, 0))
classes = model(pictures).shape[-1]
labels = tf.random.stateless_uniform((batch,), (1, 1), 0, classes, tf.int32)
optimizer = keras.optimizers.SGD(0.01)
loss_of = keras.losses.SparseCategoricalCrossentropy()
@tf.function
def train(pictures, labels):
    with tf.GradientTape() as tape:
        loss = loss_of(labels, model(pictures, training=True))
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    return loss
@tf.function
def infer(pictures):
    return model(pictures, training=False)
step = (lambda: train(pictures, labels)) if task == "train" else (lambda: infer(pictures))
def steps(count):
    began = time.perf_counter()
    for _ in range(count):
        result = step()
    result.numpy()
    return time.perf_counter() - began
steps(30)
count = max(1, round(10 * seconds / 5 / steps(10)))
def turn():
    taken, took_s = 0, 0.0
    while took_s < seconds:
        took_s += steps(count)
        taken += count
    return taken, took_s, taken
Gate(side).turns(turn)
"""
"""Training as anybody would write it: consecutive steps without waiting, the mean over all."""


@dataclass(frozen=True)
class Cell:
    """What is measured: `lenet5:train:32`."""

    model: str
    task: str
    batch: int

    @classmethod
    def of(cls, text: str) -> Cell:
        model, task, batch = text.split(":")
        return cls(model, task, int(batch))

    @property
    def name(self) -> str:
        return f"{self.model}:{self.task}:{self.batch}"

    def request(self) -> dict[str, Any]:
        case = Case(model=f"gated:{self.model}", task=self.task, batch_size=self.batch)
        fixed = {"kind": "measure", "seed": 0, "smoke": False, "fed": False}
        return {**fixed, "case": case.as_fields(), "time_budget_s": BUDGET_S}


@dataclass(frozen=True)
class Pipes:
    """The ends of one side's pipes that are here."""

    go: TextIO
    done: TextIO

    def turn(self) -> dict[str, float]:
        self.go.write("go\n")
        line = self.done.readline()
        if not line:
            sys.exit("a process ended before its turn; see what it wrote")
        found: dict[str, float] = json.loads(line)
        return found


def main() -> int:
    options = _options()
    options.folder.mkdir(parents=True, exist_ok=True)
    diary = options.folder / "pairs.csv"
    if not diary.exists():
        diary.write_text(",".join(COLUMNS) + "\n")
    print(f"load average at the start {os.getloadavg()[0]:.2f}, {os.cpu_count()} logical CPUs")
    within = True
    for cell in map(Cell.of, options.cells.split(",")):
        _follow(cell, options, diary)
        within &= _printed(cell, _rows(diary, cell, options.control))
    print(f"load average at the end {os.getloadavg()[0]:.2f}")
    return 0 if within else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cells", default=CELLS, help="MODEL:TASK:BATCH")
    parser.add_argument("--pairs", type=int, default=6, help="of processes, for each cell")
    parser.add_argument("--turns", type=int, default=40, help="of each side, in a pair")
    parser.add_argument("--seconds", type=float, default=0.35, help="of a turn of the bare loop")
    parser.add_argument("--control", action="store_true", help="the bare loop on both sides")
    parser.add_argument("--isolation", choices=("fork", "spawn"), default="fork")
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()) / "convmark-bare-loop"
    )
    return parser.parse_args()


def _rows(diary: Path, cell: Cell, control: bool) -> list[dict[str, str]]:
    with diary.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    return [row for row in rows if row["cell"] == cell.name and row["control"] == str(int(control))]


def _follow(cell: Cell, options: argparse.Namespace, diary: Path) -> None:
    """Take the pairs that are not in the diary yet."""
    done = len(_rows(diary, cell, options.control))
    if done >= options.pairs:
        return
    with tempfile.TemporaryDirectory(prefix="convmark-gate-") as place:
        folder = Path(place)
        (folder / "gate.py").write_text(GATE)
        (folder / "gated.py").write_text(GATED)
        for side in SIDES:
            for kind in ("go", "done"):
                os.mkfifo(folder / f"{side}.{kind}")
        environ = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, "GATE_FOLDER": place}
        for pair in range(done, options.pairs):
            # one of its own: all forks of an interpreter have its layout of memory
            with Interpreter(
                environ=environ, isolation=options.isolation, import_roots=[folder]
            ) as interpreter:
                interpreter.start()  # here: it would end with the thread that asks
                row = _pair(cell, pair, options, interpreter, environ)
            with diary.open("a", newline="") as lines:
                csv.writer(lines).writerow((cell.name, int(options.control), pair, *row))


def _pair(
    cell: Cell,
    pair: int,
    options: argparse.Namespace,
    interpreter: Interpreter,
    environ: dict[str, str],
) -> tuple[float, float, int]:
    """Return the mean log ratios of throughput and of CPU time, and how many turns they are of."""
    order = random.Random(pair)
    with ExitStack() as stack:
        pipes: dict[str, Pipes] = {}
        for side in order.sample(SIDES, 2):  # one is started when the other is up
            bare = side == "bare" or options.control
            started = _bare(side, cell, options.seconds, environ) if bare else None
            stack.enter_context(started or _measured(cell, interpreter))
            pipes[side] = stack.enter_context(_pipes(Path(environ["GATE_FOLDER"]), side))
            for _ in range(DROPPED):
                pipes[side].turn()
        turns = [
            {side: pipes[side].turn() for side in order.sample(SIDES, 2)}
            for _ in range(options.turns)
        ]
    rate, cpu = (
        trimmed_mean([math.log(turn["harness"][name] / turn["bare"][name]) for turn in turns])
        for name in ("steps_per_s", "cpu_s")
    )
    print(
        f"{cell.name} pair {pair}: throughput {_shown(rate.value, rate.error)}, CPU time of a "
        f"step {_shown(cpu.value, cpu.error)}",
        flush=True,
    )
    return rate.value, cpu.value, len(turns)


@contextmanager
def _pipes(folder: Path, side: str) -> Iterator[Pipes]:
    with (folder / f"{side}.done").open() as done, (folder / f"{side}.go").open("w", 1) as go:
        yield Pipes(go, done)


@contextmanager
def _measured(cell: Cell, interpreter: Interpreter) -> Iterator[None]:
    """Have the harness measure the cell; its answer is awaited at the end of the block."""

    def ask() -> None:
        answer = interpreter.answer(cell.request())
        if answer.status != "ok":  # the main thread may wait for its pipe without end
            print(f"{cell.name}: {answer.status}: {answer.message}", file=sys.stderr, flush=True)
            for process in RUNNING:
                process.kill()
            os._exit(1)

    thread = threading.Thread(target=ask)
    thread.start()
    yield
    thread.join()


@contextmanager
def _bare(side: str, cell: Cell, seconds: float, environ: dict[str, str]) -> Iterator[None]:
    arguments = [side, cell.model, cell.task, str(cell.batch), str(seconds)]
    command = [sys.executable, "-c", BARE, *arguments]
    # a session of its own, as the worker has: Linux may share the cores out by sessions
    with subprocess.Popen(command, env=environ, start_new_session=True) as process:
        RUNNING.append(process)
        yield
    if process.returncode:
        sys.exit(f"{cell.name}: the bare loop ended with exit status {process.returncode}")


def _printed(cell: Cell, rows: Sequence[dict[str, str]]) -> bool:
    """Print a cell's means over its pairs; return whether its throughput may be within 1 %."""
    texts, within = [], True
    for name, words in (("throughput", "throughput"), ("cpu", "CPU time of a step")):
        values = [float(row[name]) for row in rows]
        if len(values) < 2:
            return True
        interval, mean = interval_of_mean(values), fmean(values)
        error = stdev(values) / math.sqrt(len(values))
        texts.append(f"{words} {_shown(mean, error)}")
        if name == "throughput":
            within = interval.low <= SHARE and interval.high >= -SHARE
    print(f"{cell.name}, {len(rows)} pairs: {', '.join(texts)}", flush=True)
    return within


def _shown(value: float, error: float | None) -> str:
    return f"{100 * math.expm1(value):+.2f} +- {100 * (error or math.nan):.2f} %"


if __name__ == "__main__":
    sys.exit(main())
