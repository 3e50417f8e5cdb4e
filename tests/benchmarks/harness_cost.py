"""What the harness itself costs: the price of a fresh process, and what it does to the figures.

Run it from the checkout: `python tests/benchmarks/harness_cost.py`. It prints three sections, what
is compared alternating within one run, and exits 0 when every goal is met, 1 when one is not. On a
quiet machine with two cores it takes about a quarter of an hour.

    start     from the request to a usable framework: a fork of the zygote, a cold start
    fork      the six lecture models, measured in forked and in cold-started processes
    overhead  one step of LeNet-5, timed by the worker's loop and by a bare `for` loop
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convmark.core.case import Case
from convmark.core.statistics import paired_log_ratio, quantile, trimmed_mean
from convmark.interpreter import Answer, Interpreter

MODELS = (
    "lenet5",
    "mini_inception",
    "mini_resnet",
    "mini_resnet_norm",
    "conv_layer",
    "separable_layer",
)
BATCH_SIZE = 32
BUDGET_S = 2.0
"""Seconds of timed steps, and of rounds, of one process of the section `fork`."""

START_SHARE = 0.1
OVERHEAD_SHARE = 0.02
SURPRISE = 0.01
"""Forked and spawned processes disagree where identical ones would do so this seldom."""

PAIRS = {"start": 12, "fork": 4, "overhead": 40}
OVERHEAD_BATCH_SIZE = 256
BLOCK_STEPS = 30


def main() -> int:
    options = _options()
    chosen = [options.only] if options.only else list(PAIRS)
    print(f"load average at the start {os.getloadavg()[0]:.2f}, {os.cpu_count()} logical CPUs")
    missed = []
    with tempfile.TemporaryDirectory(prefix="convmark-cost-") as folder:
        environ = _environ(Path(folder))
        for name in chosen:
            pairs = options.pairs or PAIRS[name]
            met = _SECTIONS[name](pairs, options, environ)
            missed += [] if met else [name]
    print(f"\nload average at the end {os.getloadavg()[0]:.2f}")
    print(f"missed: {', '.join(missed)}" if missed else f"goals met: {', '.join(chosen)}")
    return 1 if missed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, metavar="N", help="alternations in each section")
    parser.add_argument("--only", choices=list(PAIRS), help="this section alone")
    parser.add_argument("--models", default=",".join(MODELS), metavar="NAMES", help="of fork")
    parser.add_argument("--budget", type=float, default=BUDGET_S, metavar="S", help="of a process")
    options = parser.parse_args()
    if options.pairs is not None and options.pairs < 2:
        parser.error(f"--pairs: a spread needs at least 2, got {options.pairs}")
    return options


def _environ(folder: Path) -> dict[str, str]:
    """Return an environment in which byte code is kept, as in an ordinary installation.

    Without it every cold start would compile all of TensorFlow's modules again.
    """
    environ = dict(os.environ)
    if environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        environ["PYTHONPYCACHEPREFIX"] = str(folder)
    environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    return environ


# -- the price of a fresh process ---------------------------------------------------------------


def start_section(pairs: int, options: argparse.Namespace, environ: Mapping[str, str]) -> bool:
    _title("start: a fresh process, from the request to `ready`")
    request = _request("lenet5", options.budget, smoke=True)
    seconds: dict[str, list[float]] = {"fork": [], "spawn": []}
    with _both(environ) as interpreters:
        for interpreter in interpreters.values():
            _served(interpreter, request)  # files read and byte code written, once
        for isolation in _alternated(pairs):
            answer = _served(interpreters[isolation], request)
            seconds[isolation].append(answer.ready_s or math.nan)
    for isolation, times_s in seconds.items():
        print(f"{isolation:8} {_spread([1e3 * value for value in times_s], 'ms')}")
    share = quantile(seconds["fork"], 0.5) / quantile(seconds["spawn"], 0.5)
    print(f"fork / spawn {share:.4f}; goal: at most one tenth")
    return share <= START_SHARE


# -- fork changes nothing -----------------------------------------------------------------------


def fork_section(pairs: int, options: argparse.Namespace, environ: Mapping[str, str]) -> bool:
    models = options.models.split(",")
    _title(
        f"fork: paired log ratio of a training step, batch {BATCH_SIZE}, {pairs} forked and "
        f"{pairs} spawned processes each"
    )
    order = random.Random(0)
    values: dict[tuple[str, str], list[float]] = {}
    with _both(environ) as interpreters:
        for _ in range(pairs):
            for model in order.sample(models, len(models)):
                for isolation in order.sample(list(interpreters), 2):
                    answer = _served(interpreters[isolation], _request(model, options.budget))
                    values.setdefault((model, isolation), []).append(_paired_ratio(answer))
    scores = []
    differences = []
    print(f"{'model':18} {'fork - spawn, %':>16} {'sd fork':>8} {'sd spawn':>9} {'|z|':>6}")
    for model in models:
        forked, spawned = (np.asarray(values[model, way]) for way in ("fork", "spawn"))
        difference = float(forked.mean() - spawned.mean())
        error = math.sqrt((forked.var(ddof=1) + spawned.var(ddof=1)) / pairs)
        scores.append(abs(difference) / error)
        differences.append((difference, error))
        deviations = [100 * float(each.std(ddof=1)) for each in (forked, spawned)]
        print(
            f"{model:18} {100 * difference:+7.2f} +- {100 * error:5.2f} {deviations[0]:8.2f} "
            f"{deviations[1]:9.2f} {scores[-1]:6.2f}"
        )
    return _agree(scores, differences, pairs)


def _agree(scores: list[float], differences: list[tuple[float, float]], pairs: int) -> bool:
    """Print and return whether the differences are those of identical processes.

    Each |z| is then Student's t of 2 (pairs - 1) degrees of freedom; the bound of the mean square
    comes from as many of them drawn at random.
    """
    draws = np.random.default_rng(0).standard_t(2 * (pairs - 1), (200_000, len(scores)))
    squares = (draws**2).mean(axis=1)
    expected, bound = float(np.median(squares)), float(np.quantile(squares, 1 - SURPRISE))
    mean_square = float(np.mean(np.square(scores)))
    mean = float(np.mean([difference for difference, _ in differences]))
    error = math.sqrt(sum(error**2 for _, error in differences)) / len(differences)
    agree = mean_square <= bound
    print(
        f"mean of the {len(scores)} {100 * mean:+.2f} +- {100 * error:.2f} %: a common difference "
        f"beyond {300 * error:.1f} % would have shown"
    )
    print(
        f"mean z^2 {mean_square:.2f}; of identical processes half lie below {expected:.2f}, "
        f"{1 - SURPRISE:.0%} below {bound:.2f}; goal: below that; they "
        f"{'agree' if agree else 'do not agree'} within their errors"
    )
    return agree


def _paired_ratio(answer: Answer) -> float:
    rounds = answer.event("rounds") or {}
    estimate = paired_log_ratio(rounds["case_wall_s"], rounds["reference_wall_s"])
    return math.nan if estimate is None else estimate.value


# -- the harness adds nothing -------------------------------------------------------------------


def overhead_section(pairs: int, options: argparse.Namespace, environ: Mapping[str, str]) -> bool:
    _title(
        f"overhead: a training step of LeNet-5, batch {OVERHEAD_BATCH_SIZE}, {pairs} pairs of "
        f"blocks of {BLOCK_STEPS} steps, in one process"
    )
    blocks = _blocks(pairs, options.budget)
    for way, name in (("harness", "worker's loop"), ("bare", "bare loop")):
        times_ms = [1e3 * seconds for block in blocks for seconds in block[way]]
        middle = [quantile(times_ms, share) for share in (0.5, 0.1, 0.9)]
        print(
            f"{name:14} median {middle[0]:.3f} ms, p10 to p90 {middle[1]:.3f} to {middle[2]:.3f} "
            f"ms, n = {len(times_ms)}"
        )
    ratios = [quantile(block["harness"], 0.5) / quantile(block["bare"], 0.5) for block in blocks]
    mean = trimmed_mean([math.log(ratio) for ratio in ratios])
    quartiles = [quantile(ratios, share) for share in (0.25, 0.75)]
    error = "" if mean.error is None else f" +- {mean.error:.4f}"
    print(
        f"worker's / bare, by pairs of blocks: {math.exp(mean.value):.4f}{error}, quartiles "
        f"{quartiles[0]:.4f} to {quartiles[1]:.4f}; goal: within 2 %"
    )
    return abs(math.exp(mean.value) - 1) <= OVERHEAD_SHARE


def _blocks(pairs: int, budget_s: float) -> list[dict[str, list[float]]]:
    """Return step times, seconds, of alternating blocks; only this, the last section, loads the
    framework into this process."""
    import convmark_zoo

    from convmark.worker import timing
    from convmark.worker.backends.tensorflow import TensorFlow

    backend = TensorFlow()
    backend.configure(device="cpu", threads="default", precision="float32", seed=0)
    model = convmark_zoo.builder("lenet5")()
    step = backend.training_step(model, OVERHEAD_BATCH_SIZE, 0, 0.01, False)
    pulse = timing.Pulse(lambda phase: None, time.monotonic)

    def harness() -> list[float]:
        timing.quiet_collector()
        return timing.steps(step, backend, 0.0, pulse).wall_s

    def bare() -> list[float]:
        times_s = []
        for _ in range(BLOCK_STEPS):
            began = time.perf_counter()
            probe, _ = step.run(*step.batch)  # the compiled function itself
            probe.numpy()
            times_s.append(time.perf_counter() - began)
        return times_s

    timing.warm_up(step, backend, budget_s, pulse)
    order = random.Random(0)
    ways: list[Callable[[], list[float]]] = [harness, bare]
    return [{way.__name__: way() for way in order.sample(ways, 2)} for _ in range(pairs)]


# -- what the sections share --------------------------------------------------------------------


@contextlib.contextmanager
def _both(environ: Mapping[str, str]) -> Iterator[dict[str, Interpreter]]:
    with (
        Interpreter(isolation="fork", environ=environ) as forking,
        Interpreter(isolation="spawn", environ=environ) as spawning,
    ):
        forking.start()
        yield {"fork": forking, "spawn": spawning}


def _alternated(pairs: int) -> Iterator[str]:
    """Give each isolation once a pair, in random order."""
    order = random.Random(0)
    for _ in range(pairs):
        yield from order.sample(["fork", "spawn"], 2)


def _request(model: str, budget_s: float, *, smoke: bool = False) -> dict[str, Any]:
    case = Case(model=model, task="train", batch_size=BATCH_SIZE)
    return {
        "kind": "measure",
        "case": case.as_fields(),
        "seed": 0,
        "time_budget_s": budget_s,
        "smoke": smoke,
    }


def _served(interpreter: Interpreter, request: Mapping[str, Any]) -> Answer:
    answer = interpreter.answer(request)
    if answer.status != "ok":
        sys.exit(f"{interpreter.isolation}: {answer.status}: {answer.message}")
    return answer


def _spread(values: list[float], unit: str) -> str:
    return (
        f"median {quantile(values, 0.5):.1f} {unit}, {min(values):.1f} to {max(values):.1f} "
        f"{unit}, n = {len(values)}"
    )


def _title(text: str) -> None:
    print(f"\n{text}", flush=True)


_SECTIONS: dict[str, Callable[[int, argparse.Namespace, Mapping[str, str]], bool]] = {
    "start": start_section,
    "fork": fork_section,
    "overhead": overhead_section,
}

if __name__ == "__main__":
    sys.exit(main())
