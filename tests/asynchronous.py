"""Runs the timed loops on a CPU that answers before it has finished; for test_synchronisation.

Its arguments are the backend and the bounds of the test. JAX answers so by itself, TensorFlow when
told to; `replicas` is TensorFlow with two replicas on logical CPUs.

Prints one JSON object: for each kind of step, loop and backend, a step's seconds as the loop
reports them over a step's seconds by the wall, taken until the device is idle. A loop that waits
for every step gives about 1; one that does not, the share of the bare calls.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from convmark_zoo.keras_api import keras

from convmark.worker import backends, timing
from convmark.worker.turns import timed_turn

Step = Callable[[], Any]
Loop = Callable[[Step, Any], tuple[float, int]]


TRIES = 3
"""A busy machine may pause any of the few steps of a loop; one without its wait fails them all."""


class Careless:
    """A backend that waits for nothing."""

    @staticmethod
    def synchronise(token: Any) -> None:
        pass

    @staticmethod
    def agreed(seconds: float) -> float:
        return seconds


def network() -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((48, 48, 16)),
            layers.Conv2D(64, 3, padding="same"),
            layers.Conv2D(64, 3, padding="same"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10),
        ]
    )


def shorten_the_loops() -> None:
    """Make every loop end after a few steps, waited for or not."""
    timing.MIN_STEPS = 10
    timing.MIN_WARM_UP_STEPS = 4
    timing.MIN_ROUNDS = 3
    # two steps a window and no search for longer ones: JAX waits after some 32 steps ahead
    timing.WINDOW_S, timing.MIN_WINDOW_S = 2e-6, 1e-6


def timed_step(step: Step, backend: Any) -> tuple[float, int]:
    return sum(timing.timed_step(step, backend)[0] for _ in range(5)), 5


def steps(step: Step, backend: Any) -> tuple[float, int]:
    times_s = timing.steps(step, backend, 0.0, silent()).wall_s
    return sum(times_s), len(times_s)


def windows(step: Step, backend: Any) -> tuple[float, int]:
    result = timing.windows(step, backend, timing.MIN_WINDOW_S, silent(), number=3)
    return sum(result.times_s), result.steps * len(result.times_s)


def rounds(step: Step, backend: Any) -> tuple[float, int]:
    """The step is the case and the reference too."""
    result = timing.rounds(step, lambda: step(), backend, 0.0, random.Random(0), silent())
    times_s = result.case_wall_s + result.reference_wall_s
    return sum(times_s), len(times_s)


def turn(step: Step, backend: Any) -> tuple[float, int]:
    times_s = timed_turn(step, backend, 5).wall_s
    return sum(times_s), len(times_s)


def silent() -> timing.Pulse:
    return timing.Pulse(lambda phase: None, time.monotonic)


def reported_over_true(loop: Loop, step: Step, backend: Any) -> float:
    tokens: list[Any] = []

    def remembered() -> Any:
        tokens.append(step())
        return tokens[-1]

    began = time.perf_counter()
    seconds, count = loop(remembered, backend)
    wait(tokens)
    wall_s = time.perf_counter() - began
    return (seconds / count) / (wall_s / len(tokens))


def both(loop: Loop, step: Step, backend: Any, tries: int) -> dict[str, float]:
    """Return the ratio with the loop's waits and without, of the first tries that are as wished."""
    low, high, fraction = map(float, sys.argv[2:])
    for _ in range(TRIES):
        careful = reported_over_true(loop, step, backend)
        if low < careful < high:
            break
    for _ in range(tries):
        careless = reported_over_true(loop, step, Careless())
        if careless < fraction * careful:
            break
    return {"careful": careful, "careless": careless}


def wait(tokens: list[Any]) -> None:
    """Wait for all of these, by other means than the backend's own."""
    for array in keras.tree.flatten(tokens):
        np.asarray(array)


class Probe:
    """A replica's probe that tells whether it was waited for."""

    read = False

    def numpy(self) -> float:
        self.read = True
        return 0.0


def backend_of(name: str) -> Any:
    """Return the backend, answering before it has finished."""
    if name == "jax":
        return backends.load(name)
    import tensorflow as tf

    backend = backends.load("tensorflow")
    if name == "replicas":
        backend = backends.replicated(2, None)
        backend.configure(device="cpu", threads="default", precision="float32", seed=0)
        backend.join()
        probes = Probe(), Probe()
        backend.synchronise((probes, None))
        assert all(probe.read for probe in probes), "a step ends when every replica has finished"
    tf.config.experimental.set_synchronous_execution(False)
    return backend


def main() -> None:
    backend = backend_of(sys.argv[1])
    shorten_the_loops()
    with backend.scope():
        trained, asked = network(), network()
    kinds = {
        "training": backend.training_step(trained, 1, 0, 0.01, False),
        "inference": backend.inference_step(asked, 3, 0, False),
        "reference": backend.reference_step("large"),
    }
    timing.quiet_collector()  # rounds and turns collect garbage between their steps
    ratios: dict[str, dict[str, dict[str, float]]] = {}
    for kind, step in kinds.items():
        wait([step() for _ in range(3)])
        tries = 1 if (sys.argv[1], kind) == ("replicas", "training") else TRIES  # waits by itself
        ratios[kind] = {
            loop.__name__: both(loop, step, backend, tries)
            for loop in (timed_step, steps, windows, rounds, turn)
        }
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
