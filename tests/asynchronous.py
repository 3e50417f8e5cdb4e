"""Times heavy steps on a CPU that answers before it has finished; run by test_synchronisation.

Prints one JSON object: for each kind of step and each of the worker's loops the share of the wall
time, taken until the device is idle, that the loop's own figures account for. Loops that wait for
every step account for nearly all of it; loops that do not, for the time of the calls alone.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from convmark_zoo.keras_api import keras

from convmark.worker import timing
from convmark.worker.backends.tensorflow import TensorFlow

BATCH_SIZE = 8
STEPS_PER_WINDOW = 4
MOST_STEPS = 200

Loop = Callable[[Any, Any], list[float]]


class Counted:
    """A step that refuses to be queued without end."""

    def __init__(self, step: Callable[[], Any]) -> None:
        self._step = step
        self._left = MOST_STEPS

    def __call__(self) -> Any:
        self._left -= 1
        if self._left < 0:
            raise RuntimeError(f"more than {MOST_STEPS} steps: the loop does not wait for them")
        return self._step()


class Careless:
    """A backend that waits for nothing."""

    @staticmethod
    def synchronise(token: Any) -> None:
        pass


def network() -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((64, 64, 16)),
            layers.Conv2D(64, 3, padding="same"),
            layers.Conv2D(64, 3, padding="same"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10),
        ]
    )


def finish(token: Any) -> None:
    """Wait by other means than the backend's."""
    for array in tf.nest.flatten(token):
        array.numpy()


def steps(step: Any, backend: Any) -> list[float]:
    return timing.steps(step, backend, 0.0, silent())


def timed_steps(step: Any, backend: Any) -> list[float]:
    return [timing.timed_step(step, backend)[0] for _ in range(5)]


def windows(step: Any, backend: Any) -> list[float]:
    shortest_s = timing.MIN_WINDOW_S / STEPS_PER_WINDOW * 1.05
    return timing.windows(step, backend, shortest_s, silent()).times_s


def rounds(step: Any, backend: Any) -> list[float]:
    """The step as the case and as its own reference, without the ten that only warm it up."""
    result = timing.rounds(step, lambda: step(), backend, 0.0, random.Random(0), silent())
    return result.case_wall_s + result.reference_wall_s


def silent() -> timing.Pulse:
    return timing.Pulse(lambda phase: None, time.monotonic)


def accounted_share(loop: Loop, step: Callable[[], Any], backend: Any) -> float:
    """Return the loop's own seconds per step over those of the wall, the device idle at the end."""
    taken = [0]
    last: list[Any] = []

    def counted() -> Any:
        taken[0] += 1
        last[:] = [step()]
        return last[0]

    began = time.perf_counter()
    times_s = loop(Counted(counted), backend)
    finish(last)
    wall_s = time.perf_counter() - began
    return 0.0


if __name__ == "__main__":
    pass
