"""The time of a step by each way to call a model, timed in turn in one process.

    training    compiled step -> the same fed by tf.data -> train_on_batch -> fit
    inference   compiled step -> predict_on_batch -> predict

The compiled step is the framework's own; what a way takes beyond it is Keras's, the input
pipeline's, or the copy of the batch from host memory. Ways take turns in random order, so that
noise hits all alike; each ends when the device has finished.
"""

from __future__ import annotations

import contextlib
import functools
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convmark.core.case import Case
from convmark.worker import host, timing
from convmark.worker.failure import CaseFailure
from convmark.worker.inputs import mapped
from convmark.worker.learning import check_count
from convmark.worker.measurement import Builder, Emit, Plan, build

WINDOW_SHARE, CALL_SHARE = 1 / 8, 1 / 2
"""Of the time budget, what the steps of a window, and those of a call of fit or predict, take in a
round, about: a call's own costs move by some hundredths of a second, which its steps outweigh."""
MOST_STEPS, LEAST_STEPS = 1000, 2
MOST_BYTES = 1 << 28
"""Of the images that `fit` and `predict` are given."""

WARM_UP_STEPS = (2, 10)

LEAST_ROUNDS, WANTED_ROUNDS = 3, 5
BUDGETS = 10
"""Time budgets after which the least rounds must do."""

Clock = Callable[[], float]


@dataclass(frozen=True)
class Times:
    """Seconds per step, and of a call but for its steps, where a call takes several."""

    step_s: float
    call_s: float = 0.0


@dataclass(frozen=True)
class Way:
    """A way to call a model."""

    run: Callable[[int], Times]
    """Takes so many steps and returns what they took."""
    steps: int
    """Steps of a round."""


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


def serve(
    case: Case, builder: Builder, request: Mapping[str, Any], backend: Any, emit: Emit
) -> None:
    """Answer a request of the task waterfall."""
    plan = Plan(seed=request["seed"], time_budget_s=request["time_budget_s"])
    measure(case, builder, plan, backend, emit)


def measure(case: Case, builder: Builder, plan: Plan, backend: Any, emit: Emit) -> None:
    """Time every way to call the case's model, in turn, reporting the seconds of each.

    Raises:
        CaseFailure: the builder returns no model, or its loss is not finite.
    """
    pulse = timing.Pulse(lambda phase: emit("progress", phase=phase), time.monotonic)
    model = build(case, builder, plan.seed, backend, emit)
    if backend.brings_training(model):
        raise CaseFailure(
            f"{case.model}: the task waterfall compiles the model itself, but this model has its "
            "own training; leave out compile() and train_step, or measure the task train"
        )
    state = host.state_from_now()
    timing.quiet_collector()
    with contextlib.ExitStack() as stack:
        stack.enter_context(backend.limits_lifted())
        step = backend.training_step(
            model, case.batch_size, plan.seed, backend.learning_rate, case.jit == "on"
        )
        feed = backend.feed(model, "train", case.batch_size, plan.seed)
        stack.enter_context(contextlib.closing(feed))
        ways = _ways(case, model, step, feed, backend, plan)
        taken = turns(ways, plan.time_budget_s, random.Random(plan.seed), pulse)
        token = step()
        backend.synchronise(token)
    if not math.isfinite(loss := backend.fingerprint(token)):
        raise CaseFailure(
            f"{case.model}: the loss must be finite, but it is {loss} after the last way"
        )
    emit(
        "waterfall",
        rounds=len(next(iter(taken.values()))),
        steps={name: way.steps for name, way in ways.items()},
        step_s={name: [round(one.step_s, 9) for one in times] for name, times in taken.items()},
        call_s={name: [round(one.call_s, 9) for one in times] for name, times in taken.items()},
    )
    emit("state", **state())
    emit("finished")


def turns(
    ways: Mapping[str, Way],
    budget_s: float,
    order: random.Random,
    pulse: timing.Pulse,
    clock: Clock = time.perf_counter,
) -> dict[str, list[Times]]:
    """Return what each way took in each round; every way once a round, in random order.

    Two short rounds come first and are dropped: each way is traced, compiled and warmed up in them.
    """
    for most in WARM_UP_STEPS:
        for way in ways.values():
            way.run(min(most, way.steps))
            pulse.beat("warm-up")
    taken: dict[str, list[Times]] = {name: [] for name in ways}
    began, rounds = clock(), 0
    while not _enough(rounds, clock() - began, budget_s):
        for name in order.sample(list(ways), len(ways)):
            taken[name].append(ways[name].run(ways[name].steps))
            pulse.beat("waterfall")
        rounds += 1
    return taken


def _enough(rounds: int, spent_s: float, budget_s: float) -> bool:
    if rounds < WANTED_ROUNDS:
        return rounds >= LEAST_ROUNDS and spent_s >= BUDGETS * budget_s
    return spent_s >= budget_s


def _ways(case: Case, model: Any, step: Any, feed: Any, backend: Any, plan: Plan) -> dict[str, Way]:
    """Return every way to call the model, each on batches like the others'."""
    size, seed, budget_s = case.batch_size, plan.seed, plan.time_budget_s
    infer = backend.inference_step(model, size, seed, case.jit == "on")
    step_s, infer_s = _quick_s(step, backend), _quick_s(infer, backend)
    batch_bytes: int = size * backend.inputs(model).sample_bytes
    fits = max(LEAST_STEPS, min(MOST_STEPS, MOST_BYTES // batch_bytes))
    steps = {
        way: max(LEAST_STEPS, min(fits, math.ceil(seconds / quick_s)))
        for way, seconds, quick_s in (
            ("train", budget_s * WINDOW_SHARE, step_s),
            ("fit", budget_s * CALL_SHARE, step_s),
            ("infer", budget_s * WINDOW_SHARE, infer_s),
            ("predict", budget_s * CALL_SHARE, infer_s),
        )
    }
    batch = backend.host_batch(model, size * max(steps.values()), seed)
    _compile(case, model, batch.classes, backend)
    first, first_targets = _first(batch.images, size), _part(batch.targets, size)

    def fit(count: int) -> None:
        targets = _part(batch.targets, size * count)
        pictures = _first(batch.images, size * count)
        history = model.fit(pictures, targets, batch_size=size, verbose=0)
        check_count(case, "epochs of fit", len(getattr(history, "epoch", ())), 1)

    def predict(count: int) -> None:
        found = model.predict(_first(batch.images, size * count), batch_size=size, verbose=0)
        for output in backend.leaves(found):
            check_count(case, "samples of predict", len(output), size * count)

    per_step = _updates_per_step(case, model, batch, backend)

    def counted_fit(count: int) -> Times:
        """Time calls of fit; the optimiser counts their steps too, where it takes them."""
        before = _updates(model)
        times = calls(fit, count)
        if per_step:
            came = round((_updates(model) - before) / per_step)
            check_count(case, "steps of fit", came, count + 1)
        return times

    def windows(run: Callable[[], Any], synchronise: Callable[[Any], None], count: int) -> Way:
        return Way(lambda steps: window(run, synchronise, steps), count)

    train_on_batch = functools.partial(model.train_on_batch, first, first_targets)
    predict_on_batch = functools.partial(model.predict_on_batch, first)
    return {
        "compiled_train": windows(step, backend.synchronise, steps["train"]),
        "fed_train": windows(lambda: step.run(*next(feed)), backend.synchronise, steps["train"]),
        "train_on_batch": windows(train_on_batch, _there, steps["train"]),
        "fit": Way(counted_fit, steps["fit"]),
        "compiled_infer": windows(infer, backend.synchronise, steps["infer"]),
        "predict_on_batch": windows(predict_on_batch, _there, steps["infer"]),
        "predict": Way(lambda count: calls(predict, count), steps["predict"]),
    }


def _updates(model: Any) -> int:
    """Return how often the model's optimiser has changed the weights."""
    return int(model.optimizer.iterations.numpy())


def _updates_per_step(case: Case, model: Any, batch: Any, backend: Any) -> float:
    """Return the updates of a step of fit, one unless the model's own step takes others.

    Raises:
        CaseFailure: fit takes other steps than it is asked for.
    """

    class Count(backend.keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
        steps = 0

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.steps = batch + 1  # of several that ran as one the last is named

    count, before, samples = Count(), _updates(model), LEAST_STEPS * case.batch_size
    images, targets = batch.images[:samples], _part(batch.targets, samples)
    model.fit(images, targets, batch_size=case.batch_size, verbose=0, callbacks=[count])
    check_count(case, "steps of fit", count.steps, LEAST_STEPS)
    return (_updates(model) - before) / LEAST_STEPS


def _quick_s(step: Any, backend: Any) -> float:
    """Return about what a step takes, the least of a few after the first."""
    times_s = [timing.timed_step(step, backend)[0] for _ in range(6)]
    return min(times_s[1:])


def _part(targets: Sequence[Any], samples: int) -> Any:
    """Return the first samples' targets: an array, or one for each output."""
    taken = [array[:samples] for array in targets]
    return taken[0] if len(taken) == 1 else taken


def _first(inputs: Any, samples: int) -> Any:
    return mapped(lambda array: array[:samples], inputs)


def _there(result: Any) -> None:
    """Nothing to wait for: numbers and arrays of the host are there when Keras returns them."""


def _compile(case: Case, model: Any, classes: bool, backend: Any) -> None:
    """Compile the model with the loss of the compiled step; accuracy is counted as users do."""
    keras = backend.keras
    loss: Any = "mean_squared_error"
    if classes:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=not backend.is_softmax(model))
    model.compile(
        optimizer=keras.optimizers.SGD(backend.learning_rate),
        loss=loss,
        metrics=["accuracy"] if classes else None,
        jit_compile=case.jit == "on",
    )
