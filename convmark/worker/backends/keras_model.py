"""What every backend asks of a Keras model alike, whatever the framework and Keras 2 or 3."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from convmark_zoo.keras_api import keras
from convmark_zoo.shape import input_shape

from convmark.worker.backends.synthetic import Batch, images, pool_batches, training_batch
from convmark.worker.work import Work

__all__ = ["KerasBackend", "dtype_policy", "ends_in_softmax", "root_mean_square"]


class KerasBackend:
    """The part of a backend that no framework's own operation is needed for."""

    keras = keras
    chooses_gpus = True
    """Whether `configure` chooses among the GPUs that are seen; else the environment must."""
    companions: tuple[int, ...] = ()
    """Other processes on this machine that share the case."""

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """What a model is built in."""
        return contextlib.nullcontext()

    def agreed(self, seconds: float) -> float:
        """The seconds that all processes of the case go by: the slowest one's."""
        return seconds

    def is_model(self, candidate: Any) -> bool:
        return isinstance(candidate, keras.Model)

    def sample_shape(self, model: Any) -> tuple[int | None, ...]:
        """The shape of one sample, without the batch axis."""
        return tuple(input_shape(model))

    def is_softmax(self, model: Any) -> bool:
        """Whether the model gives probabilities of classes, and not scores."""
        return ends_in_softmax(model)

    def sizes(self, model: Any) -> dict[str, int]:
        """Parameters (elements) and model size (bytes, all weights as they are stored)."""
        return {
            "parameters": sum(_elements(weight) for weight in model.weights),
            "trainable_parameters": sum(_elements(weight) for weight in model.trainable_weights),
            "model_bytes": sum(
                _elements(weight) * _item_bytes(weight.dtype) for weight in model.weights
            ),
        }

    def _pool(self, model: Any, task: str, batch_size: int, seed: int) -> tuple[Any, ...]:
        """Return the samples of a few batches in host memory: images, in training targets too."""
        shape = self.sample_shape(model)
        count = batch_size * pool_batches(shape, batch_size)
        if task != "train":
            return (images(shape, count, seed),)
        batch = training_batch(shape, self.output_shapes(model), count, seed)
        return batch.images, batch.targets

    def host_batch(self, model: Any, samples: int, seed: int) -> Batch:
        """Return so many samples to train the model on, in host memory."""
        return training_batch(self.sample_shape(model), self.output_shapes(model), samples, seed)

    def output_shapes(self, model: Any) -> list[tuple[Any, ...]]:
        """The shapes of all outputs, with the batch axis."""
        outputs = getattr(model, "outputs", None)
        if not outputs:  # a subclassed model tells only when it is called
            outputs = model(keras.Input(self.sample_shape(model)))
        return [tuple(output.shape) for output in self._flat(outputs)]

    def _flat(self, structure: Any) -> list[Any]:
        """Return the leaves of a nested structure; Keras 2 has no `tree`."""
        return list(keras.tree.flatten(structure))

    def training_work(self, step: Any, samples: int) -> Work:
        """What a training step of so many samples computes, backward too, per sample."""
        return Work(None, "the backward pass is not followed")

    def settle(self, model: Any) -> None:
        """Have the model hold its weights as they are now, where the steps keep them apart."""


def dtype_policy(precision: str) -> str:
    """Return the Keras dtype policy of a precision: TF32 stores float32 and only multiplies so."""
    return "float32" if precision == "tf32" else precision


def ends_in_softmax(model: Any) -> bool:
    """Whether the last layer turns its scores into probabilities itself."""
    layers = getattr(model, "layers", None)
    if not layers:
        return False
    last = layers[-1]
    if isinstance(last, keras.Model):
        return ends_in_softmax(last)
    activation = getattr(getattr(last, "activation", None), "__name__", "")
    return activation == "softmax" or isinstance(last, keras.layers.Softmax)


def root_mean_square(arrays: Iterable[Any]) -> float:
    """Return the root mean square over arrays of equal weight; not finite where any value is."""
    squares = [np.mean(np.square(np.asarray(array, np.float64))) for array in arrays]
    return float(np.sqrt(np.mean(squares)))


def _elements(weight: Any) -> int:
    return int(np.prod(tuple(weight.shape), dtype=np.int64))


def _item_bytes(dtype: Any) -> int:
    """Return the bytes of one element: 4 of float32, 2 of bfloat16, 1 of bool."""
    bits = re.search(r"\d+", getattr(dtype, "name", str(dtype)))
    return int(bits.group()) // 8 if bits else 1
