"""Duets are right: the change that a duet prints beside that of separate fresh processes.

Run it from a checkout: `python tests/benchmarks/duet_truth.py --cases lenet5:infer:1 --changes 0,10
--sessions 12 --folder F`. The new code of each case is the old one with real work beside it: as
many products of small matrices in the model as take the given per cent of a step. Printed are the
change by duets and by separate processes that take turns with them, each as mean +- standard
error, by wall and by CPU time, and how many of the two errors lie between duets and separate
processes. Each session is one line of `duets.csv` in the folder; started again, the script goes on
where it was stopped.
"""

from __future__ import annotations

import argparse
import csv
import math
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from convmark.compare.live.session import DuetSide, SessionPlan, duet_session
from convmark.core.case import Case
from convmark.interpreter import Interpreter

DEFAULT_FOLDER = Path(tempfile.gettempdir()) / "convmark-duets"
PROBE_PRODUCTS, PROBE_SHARE = 8, 0.2
"""Products of the duets that tell what one takes; eight times as many until they show."""
COLUMNS = ("case", "change", "session", "way", "wall", "cpu", "seconds")
WAYS = ("duet", "separate")

MODULE = '''\
"""The zoo's models with real work beside them: as many products as work.txt says."""
from pathlib import Path

from convmark_zoo import builder
from convmark_zoo.keras_api import keras
from convmark_zoo.shape import input_shape

PRODUCTS = int(Path("work.txt").read_text())


class Work(keras.layers.Layer):
    def build(self, shape):
        self.square = self.add_weight(
            shape=(96, 96), initializer="orthogonal", trainable=False, name="square"
        )  # its powers stay finite
        super().build(shape)

    def call(self, values):
        product = self.square + 1e-30 * keras.ops.mean(values)
        for _ in range(PRODUCTS):
            product = keras.ops.matmul(product, self.square)
        added = 1e-30 * keras.ops.stop_gradient(keras.ops.mean(product))
        return values + keras.ops.cast(added, values.dtype)


def __getattr__(name):
    def build():
        base = builder(name)()
        pictures = keras.Input(tuple(input_shape(base)))
        return keras.Model(pictures, Work()(base(pictures)))

    return build
'''

Key = tuple[str, float]
Value = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--cases", default="lenet5:infer:1,lenet5:train:32", help="MODEL:TASK:BATCH"
    )
    parser.add_argument("--changes", default="0,3,10,50", help="per cent of a step")
    parser.add_argument("--sessions", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=1.0, help="of turns, and of steps alone")
    parser.add_argument("--builds", type=int, default=4, help="of a session, at most")
    parser.add_argument("--backend", default="tensorflow")
    parser.add_argument("--threads", default="default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    diary = Diary(options.folder / "duets.csv")
    for text in options.cases.split(","):
        model, task, batch = text.split(":")
        case = Case(
            model=f"truth_nets:{model}", task=task, batch_size=int(batch),
            backend=options.backend, threads=options.threads, device=options.device,
        )  # fmt: skip
        products = products_per_cent(case, options)
        for change in map(float, options.changes.split(",")):
            follow(case, change, round(change * products), options, diary)
            print(shown(case.name, change, diary.sessions(case.name, change)), flush=True)


def trees(folder: Path, products: int) -> dict[str, DuetSide]:
    """Return the two codes: without the work, and with it."""
    found = {}
    for side, count in (("old", 0), ("new", products)):
        tree = folder / f"{side}-{count}"
        tree.mkdir(exist_ok=True)
        (tree / "truth_nets.py").write_text(MODULE)
        (tree / "work.txt").write_text(str(count))
        found[side] = DuetSide(folder=tree, import_roots=[tree])
    return found


def products_per_cent(case: Case, options: argparse.Namespace) -> float:
    """Return how many products take one per cent of a step, by duets.

    On the CPU they are counted by CPU time, on a GPU by wall time.
    """
    kept = options.folder / f"{case.name.replace(':', '.')}.products"
    products = PROBE_PRODUCTS
    clock = "cpu" if case.device == "cpu" else "wall"
    while not kept.exists():
        sides = trees(options.folder, products)
        with opened(case, sides["new"]) as interpreter:
            ratios = [
                session(interpreter, case, sides, seed, options)[0][clock]
                for seed in range(min(3, options.sessions))
            ]
        share = math.expm1(statistics.median(ratios))
        if share > PROBE_SHARE:
            kept.write_text(str(products / (100 * share)))
        products *= 8
    return float(kept.read_text())


def opened(case: Case, side: DuetSide) -> Interpreter:
    roots = list(side.import_roots)
    return Interpreter(backend=case.backend, folder=side.folder, import_roots=roots)


def follow(
    case: Case, change: float, products: int, options: argparse.Namespace, diary: Diary
) -> None:
    """Take the sessions that are not in the diary yet."""
    done = len(diary.sessions(case.name, change)["separate"])
    if done >= options.sessions:
        return
    sides = trees(options.folder, products)
    with ExitStack() as stack:
        interpreters = {
            side: stack.enter_context(opened(case, where)) for side, where in sides.items()
        }
        for number in range(done, options.sessions):
            value, seconds = session(interpreters["new"], case, sides, number, options)
            diary.keep(case.name, change, number, "duet", value, seconds)
            began = time.perf_counter()
            value = separate(interpreters, case, number, options)
            taken_s = time.perf_counter() - began
            diary.keep(case.name, change, number, "separate", value, taken_s)


def session(
    interpreter: Interpreter,
    case: Case,
    sides: dict[str, DuetSide],
    number: int,
    options: argparse.Namespace,
) -> tuple[Value, float]:
    """Return ln(new / old) by a duet, and the seconds it took."""
    plan = SessionPlan(seed=number, seconds=options.seconds, builds=options.builds)
    began = time.perf_counter()
    found = duet_session(interpreter, case, sides, plan)
    seconds = time.perf_counter() - began
    if found.wall is None or found.cpu is None:
        raise SystemExit(f"{case.name}: {found.refusal or found.failure}")
    return {"wall": found.wall.value, "cpu": found.cpu.value}, seconds


def separate(
    interpreters: dict[str, Interpreter], case: Case, seed: int, options: argparse.Namespace
) -> Value:
    """Return ln(new / old) of the median step times of two processes, taken one after the other."""
    request = {
        "kind": "measure", "case": case.as_fields(), "seed": seed,
        "time_budget_s": options.seconds, "smoke": False, "fed": False,
    }  # fmt: skip
    medians: dict[str, Value] = {}
    for side in random.Random(seed).sample(["old", "new"], 2):
        answer = interpreters[side].answer(request)
        steps, rounds = answer.event("steps"), answer.event("rounds")
        if steps is None or rounds is None:
            raise SystemExit(f"{case.name}: {answer.message}")
        medians[side] = {
            "wall": statistics.median(steps["times_s"]),
            "cpu": statistics.median(rounds["case_cpu_s"]),
        }
    return {clock: math.log(medians["new"][clock] / medians["old"][clock])
            for clock in ("wall", "cpu")}  # fmt: skip


class Diary:
    """The sessions that were taken, one line each and way."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.exists():
            path.write_text(",".join(COLUMNS) + "\n")

    def keep(
        self, case: str, change: float, number: int, way: str, value: Value, seconds: float
    ) -> None:
        row = (case, change, number, way, value["wall"], value["cpu"], round(seconds, 2))
        with self._path.open("a", newline="") as lines:
            csv.writer(lines).writerow(row)

    def sessions(self, case: str, change: float) -> dict[str, list[Value]]:
        """Return the values by way; a session without its separate processes is left out."""
        numbered: dict[str, dict[str, Value]] = defaultdict(dict)
        for row in self._rows():
            if (row["case"], float(row["change"])) == (case, change):
                value = {name: float(row[name]) for name in ("wall", "cpu", "seconds")}
                numbered[row["way"]][row["session"]] = value
        whole = numbered["separate"].keys()
        return {way: [numbered[way][number] for number in whole if number in numbered[way]]
                for way in WAYS}  # fmt: skip

    def _rows(self) -> Iterator[dict[str, str]]:
        with self._path.open(newline="") as lines:
            yield from csv.DictReader(lines)


def shown(case: str, change: float, ways: dict[str, list[Value]]) -> str:
    """Return one line of what the ways say of a change."""
    parts = [f"{case:<36} {change:g} %:"]
    for clock in ("wall", "cpu"):
        for way, found in ways.items():
            values = [value[clock] for value in found]
            if len(values) > 1:
                parts.append(f"{way} {clock} {_shown(values)}")
        between = apart(*(([value[clock] for value in ways[way]]) for way in ("duet", "separate")))
        parts.append(f"apart by {between:.1f} errors |")
    mean_s = statistics.fmean(value["seconds"] for value in ways["duet"])
    return " ".join([*parts, f"{mean_s:.1f} s a duet, {len(ways['duet'])} sessions"])


def _shown(values: list[float]) -> str:
    error = statistics.stdev(values) / math.sqrt(len(values))
    return f"{100 * math.expm1(statistics.fmean(values)):+.1f} +- {100 * error:.1f} %"


def apart(one: list[float], other: list[float]) -> float:
    """Return the difference of two means over its standard error."""
    if min(len(one), len(other)) < 2:
        return math.nan
    error = math.sqrt(sum(statistics.variance(each) / len(each) for each in (one, other)))
    return abs(statistics.fmean(one) - statistics.fmean(other)) / max(error, 1e-12)


if __name__ == "__main__":
    main()
