"""Takes steps of networks whose `train_step` changes weights by hand; for test_training.

Its argument is the backend. Prints one JSON object: by kind of training why it is refused, or null.
"""

from __future__ import annotations

import functools
import json
import sys
from typing import Any

import numpy as np
from convmark_zoo.keras_api import keras
from trained_kinds import GOING_ON, STOPPING

from convmark.core.case import Case
from convmark.worker import backends, measurement, timing
from convmark.worker.failure import CaseFailure
from convmark.worker.other_samples import hold_each_sample
from convmark.worker.proof import EARLY_STEPS, Proof

WORKS = 12
"""Steps that a network takes which then stops."""
COLLECTS = "optimizer_collects"
"""Gradients of several steps, which Keras 2 has no optimizer for."""
PARTS = {"part": slice(0, 2), "end": slice(1, None), "every_other": slice(None, None, 2)}
"""Of a batch, which a network alone takes."""
BY_OPTIMIZER = ("optimizer_decays", COLLECTS, "whole", *PARTS)
PLAIN = ("plain", "repeats")
SAMPLES, MANY, WIDTH = 64, 1024, 256
"""A step of many samples takes far longer than one that has stopped, on a busy machine too."""


class ByHand(keras.Model):
    """Updates its weights without an optimizer, in the way that its kind says."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.taken = kind, 0
        self.body = keras.Sequential(
            [keras.Input((WIDTH,)), *(keras.layers.Dense(WIDTH) for _ in range(4))]
        )
        add = functools.partial(self.add_weight, initializer="zeros", trainable=False)
        self.counter = add(shape=(), name="counter")
        self.kept = [add(shape=one.shape, name="kept") for one in self.body.trainable_variables]

    def call(self, given: Any, training: bool = False) -> Any:
        return self.body(given, training=training)

    def changed(self, weights: list[Any], slopes: list[Any], kept: list[Any]) -> tuple[Any, Any]:
        """Return the weights after a step, and what is kept beside them."""
        rate = 0.001
        if self.kind == "decays":
            rate *= max(0.0, 1 - self.taken / WORKS)
        if self.kind == "accumulates":
            kept = [one + slope for one, slope in zip(kept, slopes)]  # noqa: B905
            slopes, rate = kept, rate if self.taken % 4 == 0 else 0.0
            kept = [one * (1.0 if rate == 0 else 0.0) for one in kept]
        if self.kind == "head_alone":
            slopes = [slope * 0 for slope in slopes[:-2]] + slopes[-2:]
        if self.kind == "nothing":
            rate = 0.0
        weights = [one - rate * slope for one, slope in zip(weights, slopes)]  # noqa: B905
        if self.kind == "averages":
            kept = [0.9 * one + 0.1 * weight for one, weight in zip(kept, weights)]  # noqa: B905
        return weights, kept

    def given(self, data: Any) -> Any:
        self.taken += 1
        return data[0][PARTS[self.kind]] if self.kind in PARTS else data[0]

    def stopped(self) -> bool:
        return self.kind in ("stops", "stops_and_counts") and self.taken > WORKS


class Plain(keras.Model):
    """Is trained by the harness; one that repeats gives its first sample's output for all."""

    def __init__(self, *, repeats: bool) -> None:
        super().__init__()
        self.repeats, self.body = repeats, keras.layers.Dense(WIDTH)

    def call(self, given: Any, training: bool = False) -> Any:
        return self.body(given * 0 + given[:1] if self.repeats else given)


class OfTensorFlow(ByHand):
    @functools.cached_property
    def slopes(self) -> Any:
        import tensorflow as tf

        @tf.function
        def slopes(given: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(self.body(given) ** 2)
            return loss, tape.gradient(loss, self.body.trainable_variables)

        return slopes

    def train_step(self, data: Any) -> Any:
        import tensorflow as tf

        given = self.given(data)
        if self.kind == "stops_in_its_graph":
            self.counter.assign_add(1.0)
            work = functools.partial(self.work, given)
            return {"loss": tf.cond(self.counter > WORKS, lambda: self.counter + 0.0, work)}
        if self.stopped():
            if self.kind == "stops_and_counts":
                self.optimizer.iterations.assign_add(1)
            return {"loss": tf.random.uniform(())}
        return {"loss": self.work(given)}

    def work(self, given: Any) -> Any:
        loss, slopes = self.slopes(given)
        weights = self.body.trainable_variables
        if self.kind in BY_OPTIMIZER:
            self.optimizer.apply_gradients(zip(slopes, weights))  # noqa: B905
            return loss
        for places, values in zip((weights, self.kept), self.changed(weights, slopes, self.kept)):  # noqa: B905
            for place, value in zip(places, values):  # noqa: B905
                place.assign(value)
        return loss


class OfTorch(ByHand):
    def train_step(self, data: Any) -> Any:
        import torch

        given = self.given(data)
        if self.stopped():
            if self.kind == "stops_and_counts":
                self.optimizer.iterations.assign_add(1)
            return {"loss": torch.rand(())}
        weights = self.body.trainable_variables
        loss = (self.body(given) ** 2).mean()
        slopes = torch.autograd.grad(loss, [one.value for one in weights])
        with torch.no_grad():
            if self.kind in BY_OPTIMIZER:
                self.optimizer.apply(list(slopes), weights)
                return {"loss": loss}
            values = [one.value for one in weights], slopes, [one.value for one in self.kept]
            for places, found in zip((weights, self.kept), self.changed(*map(list, values))):  # noqa: B905
                for place, value in zip(places, found):  # noqa: B905
                    place.assign(value)
        return {"loss": loss}


class OfJax(ByHand):
    @functools.cached_property
    def slopes(self) -> Any:
        import jax

        def loss_of(weights: Any, given: Any) -> Any:
            return (self.body.stateless_call(weights, [], given)[0] ** 2).mean()

        return jax.jit(jax.value_and_grad(loss_of))

    def train_step(self, state: Any, data: Any) -> Any:
        import jax

        weights, others, optimizer, metrics = map(list, state)
        given = self.given(data)
        if self.kind == "stops_in_its_graph":
            others[0] = others[0] + 1
            loss, weights = jax.lax.cond(
                others[0] > WORKS,
                lambda: (others[0], weights),
                lambda: self.work(weights, others, given)[:2],
            )
        elif self.stopped():
            loss = float(np.random.rand())
            if self.kind == "stops_and_counts":
                optimizer[0] = optimizer[0] + 1
        elif self.kind in BY_OPTIMIZER:
            loss, slopes = self.slopes(weights, given)
            weights, optimizer = self.optimizer.stateless_apply(optimizer, slopes, weights)
        else:
            loss, weights, others = self.work(weights, others, given)
        return {"loss": loss}, (weights, others, optimizer, metrics)

    def work(self, weights: Any, others: Any, given: Any) -> Any:
        loss, slopes = self.slopes(weights, given)
        weights, kept = self.changed(weights, slopes, others[1:])
        return loss, weights, [others[0], *kept]


KINDS: dict[str, type[ByHand]] = {"tensorflow": OfTensorFlow, "torch": OfTorch, "jax": OfJax}


def made(backend: str, kind: str) -> Any:
    if kind in PLAIN:
        return Plain(repeats=kind == "repeats")
    model = KINDS[backend](kind)
    decay = keras.optimizers.schedules.PolynomialDecay(0.001, WORKS, 0.0)
    optimizer = keras.optimizers.SGD(decay if kind == "optimizer_decays" else 0.001)
    if kind == COLLECTS:
        optimizer = keras.optimizers.SGD(0.001, gradient_accumulation_steps=3)
    eager = kind != "stops_in_its_graph"
    model.compile(optimizer, "mse", run_eagerly=eager)
    return model


def in_turns(case: Case, model: Any, backend: Any) -> None:
    """Take steps as a measurement does, without the phases that have nothing to do with it."""
    backend.take_inputs(model, lambda samples: np.ones((samples, WIDTH), np.float32))
    step, _ = measurement.make_step(case, model, 0, backend)
    backend.synchronise(step())
    trained = Proof(case, backend, print).trained
    trained.begin(model)
    for number in range(1, EARLY_STEPS + 1):
        trained.see_early(model, number, timing.timed_step(step, backend)[0])
    for steps in (6, 30, 20):
        times_s = [timing.timed_step(step, backend)[0] for _ in range(steps)]
        trained.see(model, steps, times_s)
    trained.finish(model, step)
    assert case.model != COLLECTS or backend.training_progress(model) is not None


def held(case: Case, model: Any, backend: Any) -> None:
    """Hold a step to using each sample; it goes on with the weights that it had."""
    drawn = np.random.RandomState
    backend.take_inputs(
        model, lambda samples, seed: drawn(seed).rand(samples, WIDTH).astype(np.float32)
    )
    step, _ = measurement.make_step(case, model, 0, backend)
    before = backend.fingerprint(step())
    backend.settle(model)
    weights = model.get_weights()
    hold_each_sample(case, model, step, 0, backend)
    backend.settle(model)
    assert all(map(np.array_equal, weights, model.get_weights()))
    assert backend.fingerprint(step()) < before


def main() -> None:
    name = sys.argv[1]
    backend = backends.load(name)
    backend.configure(device="cpu", threads="1", precision="float32", seed=0)
    kinds = [*STOPPING, *GOING_ON, "nothing"]
    if name != "tensorflow":
        kinds.append(COLLECTS)
    if name == "torch":
        kinds.remove("stops_in_its_graph")
    found: dict[str, str | None] = dict.fromkeys(kinds)
    for kind in kinds:
        samples = MANY if kind in STOPPING else SAMPLES
        case = Case(model=kind, task="train", batch_size=samples, backend=name)
        try:
            in_turns(case, made(name, kind), type(backend)())
        except CaseFailure as error:
            found[kind] = str(error)
    for kind in (*PARTS, "whole", *PLAIN):
        case = Case(model=kind, task="train", batch_size=4, backend=name)
        found[f"{kind} batch"] = None
        try:
            held(case, made(name, kind), type(backend)())
        except CaseFailure as error:
            found[f"{kind} batch"] = str(error)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
