"""What every backend asks of a Keras model alike, whatever the framework and Keras 2 or 3."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from convmark_zoo.keras_api import keras

from convmark.worker.backends.keras_context import KerasContext
from convmark.worker.backends.keras_inputs import inputs_of
from convmark.worker.backends.keras_state import (
    DEFAULTS,
    Conventions,
    keras_settings,
    layer_precisions,
    limits_lifted,
)
from convmark.worker.backends.synthetic import Batch, images, pool_batches, training_batch
from convmark.worker.inputs import Inputs, Leaf, own_inputs, symbols
from convmark.worker.work import Work

__all__ = ["KerasBackend", "dtype_policy", "ends_in_softmax", "root_mean_square"]


class KerasBackend:
    """The part of a backend that no framework's own operation is needed for."""

    keras = keras
    takes_strings = True
    chooses_gpus = True
    """Whether `configure` chooses among the GPUs that are seen; else the environment must."""
    asked_shapes: Mapping[str, Sequence[int]] = MappingProxyType({})
    """Of --input-shape: by the input's name, by the empty name that of the only input."""
    _inputs: Mapping[int, Inputs] = MappingProxyType({})
    """What models take, by their identity: they live as long as the process."""
    companions: tuple[int, ...] = ()
    """Other processes on this machine that share the case."""

    conventions = Conventions()
    """As they were when Keras was imported."""

    def default_settings(self, precision: str) -> dict[str, str]:
        """What the settings are where nobody has changed them, as far as that is fixed."""
        return {**DEFAULTS, "dtype_policy": dtype_policy(precision)}

    def settings(self) -> dict[str, str]:
        """The settings of the framework and of Keras as they are now, as text."""
        return keras_settings()

    def thread_counts(self) -> tuple[int, int]:
        """The threads within and between operations; 0 is the framework's own choice."""
        return 0, 0

    def layer_precisions(self, model: Any) -> list[str]:
        """What each layer with weights computes in, such as `mixed_bfloat16`."""
        return layer_precisions(model)

    def limits_lifted(self) -> contextlib.AbstractContextManager[None]:
        """Keras's limits of epochs and steps, put aside."""
        return limits_lifted()

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """What a model is built in."""
        return contextlib.nullcontext()

    def seed(self, seed: int) -> None:
        """Seed the random numbers of Python, NumPy and Keras."""
        keras.utils.set_random_seed(seed)

    def context(self) -> KerasContext:
        """Keras as it is now, for one of two codes that share the process."""
        return KerasContext()

    def agreed(self, seconds: float) -> float:
        """The seconds that all processes of the case go by: the slowest one's."""
        return seconds

    def is_model(self, candidate: Any) -> bool:
        return isinstance(candidate, keras.Model)

    def take_inputs(self, model: Any, input_spec: Callable[..., Any] | None) -> Inputs:
        """Find out what the model takes, or have it from the user's own function; once a model.

        Raises:
            ValueError: the model does not tell, or the function gives no batch.
        """
        found = (
            inputs_of(model, keras, self.asked_shapes)
            if input_spec is None
            else own_inputs(input_spec)
        )
        texts = [leaf.name for leaf in found.leaves if leaf.dtype == "string"]
        if texts and not self.takes_strings:
            raise ValueError(f"{texts[0]}: an input of strings needs TensorFlow")
        self._inputs = {**self._inputs, id(model): found}
        if not model.built and all(None not in leaf.shape for leaf in found.leaves):
            with self.scope():
                model(symbols(keras, found))  # JAX makes no weights inside a step
        return found

    def inputs(self, model: Any) -> Inputs:
        """What the model takes."""
        return self._inputs.get(id(model)) or self.take_inputs(model, None)

    def sample_shape(self, model: Any) -> tuple[int | None, ...]:
        """The shape of one sample of a model's only input, without the batch axis."""
        structure = self.inputs(model).structure
        return tuple(structure.shape) if isinstance(structure, Leaf) else ()

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
        inputs = self.inputs(model)
        count = batch_size * pool_batches(inputs, batch_size)
        if task != "train":
            return (images(inputs, count, seed),)
        batch = training_batch(inputs, self.output_shapes(model), count, seed)
        return batch.images, batch.targets

    def host_batch(self, model: Any, samples: int, seed: int) -> Batch:
        """Return so many samples to train the model on, in host memory."""
        return training_batch(self.inputs(model), self.output_shapes(model), samples, seed)

    def output_shapes(self, model: Any) -> list[tuple[Any, ...]]:
        """The shapes of all outputs, with the batch axis."""
        outputs = getattr(model, "outputs", None)
        known = outputs and all(None not in tuple(one.shape)[1:] for one in self.leaves(outputs))
        if not known:  # a subclassed model, or one of open axes, tells only when it is called
            outputs = model(symbols(keras, self.inputs(model)))
        return [tuple(output.shape) for output in self.leaves(outputs)]

    def leaves(self, structure: Any) -> list[Any]:
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
