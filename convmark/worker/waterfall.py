"""Where the seconds of a step go: each way to call a model, timed in turn in one process.

    training    compiled step -> the same fed by tf.data -> train_on_batch -> fit
    inference   compiled step -> predict_on_batch -> predict

The compiled step is the framework's own; what a way takes beyond it is Keras's, the input
pipeline's, or the copy of the batch from host memory. Ways take turns in random order, so that
noise hits all alike; each ends when the device has finished.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from convmark.case import Case
from convmark.worker import rivals, timing
from convmark.worker.failure import CaseFailure
from convmark.worker.measurement import LEARNING_RATE, Builder, Emit, Plan, build

__all__ = ["Times", "calls", "measure", "turns", "window"]

LEAST_WINDOW_S = 0.25
"""Seconds that the steps of a way take in a round, about."""
MOST_STEPS, LEAST_STEPS = 100, 2
MOST_BYTES = 1 << 28
"""Of the images that `fit` and `predict` are given."""

LEAST_ROUNDS, WANTED_ROUNDS = 3, 5
BUDGETS = 10
"""Time budgets after which the least rounds must do."""

Clock = Callable[[], float]


@dataclass(frozen=True)
class Times:
    """Seconds per step, and of a call but for its steps, where a call takes several."""

    step_s: float
    call_s: float = 0.0


Way = Callable[[int], Times]
"""Takes so many steps and returns what they took."""


def window(
    step: Callable[[], Any],
    synchronise: Callable[[Any], None],
    steps: int,
    clock: Clock = time.perf_counter,
) -> Times:
    """Return what a step took, of so many with one synchronisation at their end."""
    began = clock()
    for _ in range(steps):
        token = step()
    synchronise(token)
    return Times((clock() - began) / steps)


def calls(call: Callable[[int], Any], steps: int, clock: Clock = time.perf_counter) -> Times:
    """Return what one more step of a call took, and the call itself.

    Both follow from a call of so many steps, at least two, and a call of one step.

    Args:
        call: takes so many steps and returns when the device has finished.
    """
    began = clock()
    call(1)
    one_s = clock() - began
    began = clock()
    call(steps)
    step_s = (clock() - began - one_s) / (steps - 1)
    return Times(step_s, one_s - step_s)


def measure(case: Case, builder: Builder, plan: Plan, backend: Any, emit: Emit) -> None:
    """Time every way to call the case's model, in turn, reporting the seconds of each.

    Raises:
        CaseFailure: the builder returns no model, or its loss is not finite.
    """
    pulse = timing.Pulse(lambda phase: emit("progress", phase=phase), time.monotonic)
    model = build(case, builder, plan.seed, backend, emit)
    switches, before = _involuntary_switches(), rivals.usage()
    with contextlib.ExitStack() as stack:
        stack.enter_context(timing.quiet_collector())
        step = backend.training_step(
            model, case.batch_size, plan.seed, LEARNING_RATE, case.jit == "on"
        )
        steps = _steps(case, model, step, backend, pulse)
        feed = backend.feed(model, "train", case.batch_size, plan.seed)
        stack.enter_context(contextlib.closing(feed))
        ways = _ways(case, model, step, feed, backend, plan.seed, steps)
        taken = turns(ways, steps, plan.time_budget_s, random.Random(plan.seed), pulse)
        token = step()
        backend.synchronise(token)
    if not math.isfinite(loss := backend.fingerprint(token)):
        raise CaseFailure(f"{case.model}: the loss must be finite, it is {loss} after the last way")
    emit(
        "waterfall",
        rounds=len(next(iter(taken.values()))),
        steps=steps,
        step_s={name: [round(one.step_s, 9) for one in times] for name, times in taken.items()},
        call_s={name: [round(one.call_s, 9) for one in times] for name, times in taken.items()},
    )
    emit(
        "state",
        load_average_1min=os.getloadavg()[0],
        other_cpu_share=rivals.other_cpu_share(before, rivals.usage()),
        involuntary_context_switches=_involuntary_switches() - switches,
    )
    emit("finished")


def turns(
    ways: Mapping[str, Way],
    steps: int,
    budget_s: float,
    order: random.Random,
    pulse: timing.Pulse,
    clock: Clock = time.perf_counter,
) -> dict[str, list[Times]]:
    """Return what each way took in each round; every way once a round, in random order.

    Two rounds come first and are dropped: each way is traced, compiled and warmed up in them.
    """
    for count in (2, steps):
        for way in ways.values():
            way(count)
            pulse.beat("warm-up")
    taken: dict[str, list[Times]] = {name: [] for name in ways}
    began, rounds = clock(), 0
    while not _enough(rounds, clock() - began, budget_s):
        for name in order.sample(list(ways), len(ways)):
            taken[name].append(ways[name](steps))
            pulse.beat("waterfall")
        rounds += 1
    return taken


def _enough(rounds: int, spent_s: float, budget_s: float) -> bool:
    if rounds < WANTED_ROUNDS:
        return rounds >= LEAST_ROUNDS and spent_s >= BUDGETS * budget_s
    return spent_s >= budget_s


def _steps(case: Case, model: Any, step: Any, backend: Any, pulse: timing.Pulse) -> int:
    """Return how many steps a way takes in a round, from a quick look at the compiled step."""
    backend.synchronise(step())
    times_s = []
    for _ in range(5):
        times_s.append(timing.timed_step(step, backend)[0])
        pulse.beat("warm-up")
    batch_bytes = 4 * case.batch_size * math.prod(backend.sample_shape(model))
    most = min(MOST_STEPS, MOST_BYTES // batch_bytes)
    return max(LEAST_STEPS, min(most, math.ceil(LEAST_WINDOW_S / min(times_s))))


def _ways(
    case: Case, model: Any, step: Any, feed: Any, backend: Any, seed: int, steps: int
) -> dict[str, Way]:
    """Return every way to call the model, each on batches like the others'."""
    size = case.batch_size
    batch = backend.host_batch(model, size * steps, seed)
    images, targets = batch.images, list(batch.targets)
    _compile(case, model, batch.classes, backend)
    infer = backend.inference_step(model, size, seed, case.jit == "on")

    def part(arrays: list[Any], count: int) -> Any:
        taken = [array[: size * count] for array in arrays]
        return taken[0] if len(taken) == 1 else taken

    first, first_targets = images[:size], part(targets, 1)

    def finished(result: Any) -> None:
        """What Keras returns as numbers and arrays of the host is there."""
        np.asarray(result if not isinstance(result, (list, tuple)) else result[0])

    def of_windows(run: Callable[[], Any], synchronise: Callable[[Any], None]) -> Way:
        return lambda count: window(run, synchronise, count)

    def fit(count: int) -> None:
        model.fit(part([images], count), part(targets, count), batch_size=size, verbose=0)

    def predict(count: int) -> None:
        model.predict(part([images], count), batch_size=size, verbose=0)

    return {
        "compiled_train": of_windows(step, backend.synchronise),
        "fed_train": of_windows(lambda: step.run(*next(feed)), backend.synchronise),
        "train_on_batch": of_windows(lambda: model.train_on_batch(first, first_targets), finished),
        "fit": lambda count: calls(fit, count),
        "compiled_infer": of_windows(infer, backend.synchronise),
        "predict_on_batch": of_windows(lambda: model.predict_on_batch(first), finished),
        "predict": lambda count: calls(predict, count),
    }


def _compile(case: Case, model: Any, classes: bool, backend: Any) -> None:
    """Compile the model with the loss of the compiled step; accuracy is counted as users do."""
    keras = backend.keras
    loss: Any = "mean_squared_error"
    if classes:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=not backend.is_softmax(model))
    model.compile(
        optimizer=keras.optimizers.SGD(LEARNING_RATE),
        loss=loss,
        metrics=["accuracy"] if classes else None,
        jit_compile=case.jit == "on",
    )


def _involuntary_switches() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
