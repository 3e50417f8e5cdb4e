"""Trains the lecture's models with one backend from weights made by NumPy; for test_backends.

Its argument is the backend. Prints one JSON object: by model its sizes, the output's root mean
square before training, the losses of the first steps and the weights after them; the reference
network's results; what the process has loaded and when it had been touched.
"""

from __future__ import annotations

import gc
import json
import sys
from typing import Any

import numpy as np
from convmark_zoo import builder
from convmark_zoo.keras_api import keras
from convmark_zoo.registry import LECTURE

from convmark.worker import backends, flops

BATCH_SIZE = 8
STEPS = 3


def weights(model: Any) -> list[Any]:
    """Return weights for a model: kernels of like outputs, biases about 0, scales about 1."""
    generator = np.random.RandomState(5)
    made = []
    for weight in model.weights:
        shape = tuple(weight.shape)
        if len(shape) < 2:
            scale = any(word in weight.name for word in ("gamma", "variance"))
            made.append(generator.uniform(-0.1, 0.1, shape) + scale)
        else:
            deviation = np.sqrt(1 / np.prod(shape[:-1]))
            made.append(generator.standard_normal(shape) * deviation)
    return made


def root_mean_square(arrays: list[Any]) -> list[float]:
    return [float(np.sqrt(np.mean(np.square(array, dtype=np.float64)))) for array in arrays]


def results(backend: Any, step: Any) -> list[float]:
    found = []
    for _ in range(STEPS):
        token = step()
        backend.synchronise(token)
        found.append(backend.fingerprint(token))
    return found


def of_model(backend: Any, name: str) -> dict[str, Any]:
    model = builder(name)()
    model.set_weights(weights(model))
    output = results(backend, backend.inference_step(model, BATCH_SIZE, 0, False))
    step = backend.training_step(model, BATCH_SIZE, 0, 0.001, False)
    losses = results(backend, step)
    held = [backend.weights_by_device(model), backend.outputs_by_device(step())]
    backend.settle(model)
    layers = flops.layer_records(model, backend.keras, backend.sample_shape(model))
    return {
        **backend.sizes(model),
        "flops_per_sample": flops.flops_per_sample(layers),
        "output": output,
        "losses": losses,
        "held": held,
        "weights": root_mean_square(model.get_weights()),
    }


class Counting(keras.layers.Layer):  # type: ignore[misc]
    """Counts how often Python runs it: once where it is traced, at every step where it is not."""

    calls = 0

    def call(self, inputs: Any) -> Any:
        Counting.calls += 1
        return inputs


def traces(backend: Any, task: str) -> list[int]:
    """Return how often the model was run by Python in tracing, the first step and the second."""
    model = keras.Sequential([keras.Input((4,)), Counting(), keras.layers.Dense(3)])
    if task == "train":
        step = backend.training_step(model, BATCH_SIZE, 0, 0.01, False)
    else:
        step = backend.inference_step(model, BATCH_SIZE, 0, False)
    counts = []
    for act in (step.trace or (lambda: None), step, step):
        before = Counting.calls
        act()
        counts.append(Counting.calls - before)
    return counts


def operations(backend: Any) -> list[str]:
    """Return the kinds of operations in TensorFlow's inference step of one dense layer."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    graph = backend.inference_step(model, BATCH_SIZE, 0, False).trace().graph
    return sorted({operation.type for operation in graph.get_operations()})


class Counter(keras.layers.Layer):  # type: ignore[misc]
    """Adds the number of its calls so far, which it keeps in a variable."""

    def build(self, shape: Any) -> None:
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, inputs: Any) -> Any:
        self.calls.assign(self.calls + 1)
        return keras.ops.zeros_like(inputs) + self.calls


class Mode(keras.Model):  # type: ignore[misc]
    """Tells whether a module of PyTorch in it that no layer calls is in training mode."""

    def call(self, inputs: Any) -> Any:
        return keras.ops.zeros_like(inputs) + getattr(self, "training", False)


def inferred(backend: Any, model: Any) -> list[float]:
    """Return what a model of four numbers gives, step by step."""
    model(keras.Input((4,)))
    return results(backend, backend.inference_step(model, BATCH_SIZE, 0, False))


def fed(backend: Any, task: str) -> list[Any]:
    """Return the shapes of the first batches of a feed, and whether the step takes them."""
    layers = keras.layers
    scores = layers.Dense(10, activation="softmax")
    model = keras.Sequential([keras.Input((28, 28, 1)), layers.Flatten(), scores])
    if task == "train":
        step = backend.training_step(model, BATCH_SIZE, 0, 0.01, False)
    else:
        step = backend.inference_step(model, BATCH_SIZE, 0, False)
    feed = backend.feed(model, task, BATCH_SIZE, 0)
    batches = [next(feed) for _ in range(6)]
    feed.close()
    values = [backend.fingerprint(step.run(*batch)) for batch in batches]
    shapes = [[list(part.shape) for part in keras.tree.flatten(batch)] for batch in batches]
    first = [float(np.asarray(batch[0]).mean()) for batch in batches]
    return [shapes, values, first]


def device_of_a_gpu() -> str:
    """Return where Keras puts PyTorch's variables once a worker has chosen a GPU."""
    from keras.src.backend.torch import core

    backend = backends.load("torch")
    backend.seed = lambda seed: None  # there need be no GPU
    backend.configure(device="gpu:0", threads="default", precision="float32", seed=0)
    gc.collect()
    return str(core.get_device())


def draw_by_numpy() -> None:
    """Have Keras draw first weights by NumPy: JAX compiles for each shape, and all are replaced."""
    from keras.src.backend import random

    generator = np.random.RandomState(7)
    for name in ("uniform", "truncated_normal"):
        setattr(random, name, lambda shape, *_, **__: generator.uniform(-0.1, 0.1, shape))


def main() -> None:
    backend = backends.load(sys.argv[1])
    untouched = [backend.untouched()]
    if sys.argv[1] == "jax":
        draw_by_numpy()
    backend.configure(device="cpu", threads="default", precision="float32", seed=0)
    models = {name: of_model(backend, name) for name in LECTURE}
    untouched.append(backend.untouched())
    reference = {kind: results(backend, backend.reference_step(kind)) for kind in REFERENCES}
    print(
        json.dumps(
            {
                "models": models,
                "reference": reference,
                "untouched": untouched,
                "fed": {task: fed(backend, task) for task in ("train", "infer")},
                "traces": {task: traces(backend, task) for task in ("train", "infer")},
                "counted": inferred(backend, keras.Sequential([Counter()])),
                "mode": inferred(backend, Mode()),
                "tensorflow": "tensorflow" in sys.modules,
                "versions": backend.versions(),
                "operations": operations(backend) if sys.argv[1] == "tensorflow" else None,
                "device_of_a_gpu": device_of_a_gpu() if sys.argv[1] == "torch" else None,
            }
        )
    )


REFERENCES = ("small", "large")

if __name__ == "__main__":
    main()
