"""An epoch of training against its throughput: do both tell the same, once fit's overhead counts?

    python tests/benchmarks/epoch_times.py --mnist PATH [--models lenet5,mini_resnet] [--rounds 11]

In one process, in turn, in random order each round: an epoch of the task accuracy (its own fit, its
own callback), windows of the compiled step on a batch of the same size, and the waterfall's fit.
What an epoch should take is

    samples / throughput + steps x (step of fit - compiled step)

and the two agree where the median over the rounds of their ratio is within 10 % of 1. Exits 1 where
it is not. A fifth of the data by default: what is alternated must be short beside what disturbs the
machine. Where that cannot be had, `--clock cpu --threads 1` counts the process's own time. What a
call of fit costs besides is spent before its first epoch begins. Needs TensorFlow.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import convmark_zoo

from convmark.core.case import Case
from convmark.worker import backends, learning, mnist, timing, waterfall

AGREE_WITHIN = 0.10
BATCH_SIZE = 256
WINDOW_STEPS = 20
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass
class Round:
    """Seconds of one round."""

    epoch_s: float = math.nan
    step_s: float = math.nan
    """Of the compiled step in a window: the throughput is the batch size over it."""
    fit_step_s: float = math.nan
    fit_call_s: float = math.nan

    def expected_s(self, steps: int, samples: int) -> float:
        """Return what the epoch should have taken by the throughput and fit's overhead, seconds."""
        plain_s = samples * self.step_s / BATCH_SIZE
        return plain_s + steps * (self.fit_step_s - self.step_s)


def main() -> int:
    options = _options()
    backend = backends.load("tensorflow")
    backend.configure(device="cpu", threads=options.threads, precision="float32", seed=0)
    backend.make_deterministic()
    digits = mnist.split(mnist.read(options.mnist), 0, options.fraction)
    agreed = [
        _told(model, _rounds(model, digits, backend, options), len(digits.training.labels))
        for model in options.models.split(",")
    ]
    return 0 if all(agreed) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mnist", required=True, metavar="PATH", help="file of the digits")
    parser.add_argument("--models", default="lenet5,mini_resnet", metavar="NAMES")
    parser.add_argument("--rounds", type=int, default=11, metavar="N")
    parser.add_argument("--fraction", type=float, default=0.2, metavar="SHARE")
    parser.add_argument("--threads", default="default", metavar="N")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    return parser.parse_args()


def _rounds(
    model_name: str, digits: mnist.Split, backend: Any, options: argparse.Namespace
) -> list[Round]:
    """Return so many rounds; one more comes first and is dropped, as it traces and compiles."""
    case = Case(model=model_name, task="accuracy", batch_size=BATCH_SIZE)
    model = convmark_zoo.builder(model_name)()
    learning.compiled_model(case, model, backend)
    step = backend.training_step(model, BATCH_SIZE, 0, learning.LEARNING_RATE, False)
    part = mnist.Digits(*(array[: BATCH_SIZE * WINDOW_STEPS] for array in _arrays(digits.training)))

    clock = CLOCKS[options.clock]

    def epoch(found: Round) -> None:
        found.epoch_s = _epoch(case, model, digits, backend, clock)

    def windows(found: Round) -> None:
        found.step_s = waterfall.window(step, backend.synchronise, WINDOW_STEPS, clock).step_s

    def fit(found: Round) -> None:
        times = waterfall.calls(lambda steps: _fit(model, part, steps), WINDOW_STEPS, clock)
        found.fit_step_s, found.fit_call_s = times.step_s, times.call_s

    parts: Sequence[Callable[[Round], None]] = (epoch, windows, fit)
    order, rounds = random.Random(0), [Round() for _ in range(options.rounds + 1)]
    for found in rounds:
        for run in order.sample(parts, len(parts)):
            run(found)
    return rounds[1:]


def _arrays(digits: mnist.Digits) -> tuple[Any, Any]:
    return digits.images, digits.labels


def _fit(model: Any, digits: mnist.Digits, steps: int) -> None:
    part = mnist.Digits(*(array[: BATCH_SIZE * steps] for array in _arrays(digits)))
    learning.fit(model, part, BATCH_SIZE, [])


def _epoch(
    case: Case, model: Any, digits: mnist.Split, backend: Any, clock: Callable[[], float]
) -> float:
    """Return the training seconds of an epoch, as the task accuracy reports them."""
    told: list[dict[str, Any]] = []

    def emit(event: str, **fields: Any) -> None:
        told.append({"event": event, **fields})

    pulse = timing.Pulse(lambda phase: None, time.monotonic)
    samples = len(digits.training.labels)
    validated = len(digits.validation.labels)
    watch = learning.callback(learning.EpochWatch, backend.keras)(
        case, backend, emit, pulse, 1, samples, clock, validation_samples=validated
    )
    learning.fit(model, digits.training, BATCH_SIZE, [watch], 1, digits.validation)
    return float(told[-1]["epoch_time_s"])


def _told(model: str, rounds: Sequence[Round], samples: int) -> bool:
    """Print both sides; return whether they agree."""
    epoch_s, step_s, fit_step_s, call_s = (
        median(getattr(found, name) for found in rounds)
        for name in ("epoch_s", "step_s", "fit_step_s", "fit_call_s")
    )
    steps = math.ceil(samples / BATCH_SIZE)
    plain_s = samples * step_s / BATCH_SIZE
    ratios = sorted(found.epoch_s / found.expected_s(steps, samples) for found in rounds)
    plain = median(found.epoch_s / (samples * found.step_s / BATCH_SIZE) for found in rounds)
    ratio = median(ratios)
    agree = abs(ratio - 1) <= AGREE_WITHIN
    spread = (max(one.epoch_s for one in rounds) - min(one.epoch_s for one in rounds)) / 2 / epoch_s
    print(
        f"{model}: {len(rounds)} rounds of {samples:,} samples, batch {BATCH_SIZE}\n"
        f"  epoch                   {epoch_s:8.3f} s (half its range {spread:.1%})\n"
        f"  samples / throughput    {plain_s:8.3f} s ({BATCH_SIZE / step_s:,.0f} samples/s)\n"
        f"  fit beyond it, {steps} steps {steps * (fit_step_s - step_s):+8.3f} s\n"
        f"  a call of fit, before   {call_s:+8.3f} s\n"
        f"  epoch / (samples / throughput), median of the rounds {plain:.3f}\n"
        f"  the same with fit's overhead counted                 {ratio:.3f}"
        f" ({ratios[0]:.3f} to {ratios[-1]:.3f}): {'agree' if agree else 'DIFFER'}",
        flush=True,
    )
    return agree


if __name__ == "__main__":
    sys.exit(main())
