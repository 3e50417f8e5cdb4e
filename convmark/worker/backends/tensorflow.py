"""TensorFlow, 2.12 and later, with the Keras it brings: Keras 2 up to 2.15, Keras 3 from 2.16."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from convmark_zoo.keras_api import keras

from convmark.worker import reference
from convmark.worker.backends.keras_model import KerasBackend, dtype_policy, root_mean_square
from convmark.worker.backends.own_training import Made, OwnData
from convmark.worker.backends.recipe import PLAIN, Recipe
from convmark.worker.backends.step import Step
from convmark.worker.backends.synthetic import images, square_matrices, training_batch
from convmark.worker.backends.tensorflow_training import (
    built_optimizer,
    fit_function,
    gradients_of,
    iterated_step,
    loss_of,
    own_function,
    pairs,
)
from convmark.worker.membership import Place

__all__ = ["TensorFlow"]


class TensorFlow(KerasBackend):
    """The framework's side of a measurement; one instance serves one process.

    The probe of a step's token is a scalar of the same compiled call.
    """

    name = "tensorflow"
    call_path = "tf.function"

    def __init__(self) -> None:
        self._device = "CPU:0"

    def untouched(self) -> bool:
        """Whether no operation has run yet, so that forking is safe."""
        from tensorflow.python.eager import context

        return getattr(context.context(), "_context_handle", None) is None

    def versions(self) -> dict[str, str | None]:
        """Versions of what is loaded, and of the CUDA libraries this build wants."""
        build = tf.sysconfig.get_build_info()
        return {
            "tensorflow": tf.__version__,
            "keras": importlib.metadata.version("keras"),
            "numpy": np.__version__,
            "cuda": build.get("cuda_version"),
            "cudnn": build.get("cudnn_version"),
        }

    def architectures(self) -> list[str]:
        """The GPU architectures that this build was compiled for, such as `sm_80`."""
        return list(tf.sysconfig.get_build_info().get("cuda_compute_capabilities") or ())

    def devices(self) -> list[str]:
        """The devices by convmark's names. Initialises CUDA: never in a zygote."""
        gpus = tf.config.list_physical_devices("GPU")
        return ["cpu", *(f"gpu:{index}" for index in range(len(gpus)))]

    def configure(self, *, device: str, threads: str, precision: str, seed: int) -> None:
        """Make one device alone visible and set threads, precision and seeds, before any work."""
        if threads != "default":
            tf.config.threading.set_intra_op_parallelism_threads(int(threads))
            tf.config.threading.set_inter_op_parallelism_threads(int(threads))
        self._make_visible(device)
        tf.config.experimental.enable_tensor_float_32_execution(precision == "tf32")
        keras.mixed_precision.set_global_policy(dtype_policy(precision))
        keras.utils.set_random_seed(seed)

    def make_deterministic(self) -> None:
        """Have every operation from here on give the same bits for the same seed; before any."""
        tf.config.experimental.enable_op_determinism()

    def wait_for(self, variable: Any) -> None:
        """Wait until the device has finished what last changed the variable."""
        variable.numpy()

    def _make_visible(self, device: str) -> None:
        if device == "cpu":
            tf.config.set_visible_devices([], "GPU")
        else:
            self._make_gpus_visible(int(device.removeprefix("gpu:")), 1)

    def _make_gpus_visible(self, first: int, count: int) -> None:
        chosen = tf.config.list_physical_devices("GPU")[first : first + count]
        if len(chosen) < count:
            raise RuntimeError(f"TensorFlow sees no {count} GPUs from gpu:{first} on")
        tf.config.set_visible_devices(chosen, "GPU")
        for gpu in chosen:
            tf.config.experimental.set_memory_growth(gpu, True)
        self._device = "GPU:0"

    def replicated(self, replicas: int, place: Place | None) -> TensorFlow:
        """Return the backend of a case of several replicas, in place of this one."""
        from convmark.worker.backends.tensorflow_replicas import ReplicatedTensorFlow

        return ReplicatedTensorFlow(replicas, place)

    def is_out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, tf.errors.ResourceExhaustedError)

    def synchronise(self, token: tuple[Any, Any]) -> None:
        """Wait until the device has finished the step that gave this token."""
        token[0].numpy()

    def fingerprint(self, token: tuple[Any, Any]) -> float:
        """The loss, or the output's root mean square; not finite where any output is not."""
        return root_mean_square(tf.nest.flatten(token[1]))

    def reset_peak_memory(self) -> None:
        """Forget the allocator's peak so far, where the device counts one."""
        with contextlib.suppress(ValueError):
            tf.config.experimental.reset_memory_stats(self._device)

    def peak_memory(self) -> int | None:
        """Peak bytes held by the device's allocator, or None where it does not count."""
        try:
            return int(tf.config.experimental.get_memory_info(self._device)["peak"])
        except ValueError:
            return None

    def training_step(
        self,
        model: Any,
        batch_size: int,
        seed: int,
        learning_rate: float,
        compiled: bool,
        recipe: Recipe = PLAIN,
    ) -> Step:
        """Return a step: forward, backward and update of one synthetic batch on the device."""
        batch = training_batch(
            self.sample_shape(model), self.output_shapes(model), batch_size, seed
        )
        variables = model.trainable_variables
        optimizer = built_optimizer(recipe, learning_rate, variables)
        differentiated = gradients_of(model, loss_of(model, batch), optimizer)

        @tf.function(jit_compile=compiled)  # type: ignore[untyped-decorator]
        def train(pictures: Any, targets: Any) -> Any:
            loss, gradients = differentiated(pictures, targets)
            optimizer.apply_gradients(pairs(gradients, variables))
            return loss, loss

        return self._step(train, (batch.images, batch.targets))

    def _fit_step(self, model: Any, data: OwnData, batch: tuple[Any, ...], compiled: bool) -> Step:
        placed = self._on_device(batch)
        if own_function(model):
            self.call_path = "train_function"
            return iterated_step(model, data, placed)

        def make() -> Made:
            function, self.call_path = fit_function(model, data, compiled)
            return function, getattr(function, "get_concrete_function", None)

        return data.step(make, placed, any_batch=True)

    def inference_step(self, model: Any, batch_size: int, seed: int, compiled: bool) -> Step:
        """Return a step: one synthetic batch on the device through the model."""
        pictures = images(self.sample_shape(model), batch_size, seed)

        @tf.function(jit_compile=compiled)  # type: ignore[untyped-decorator]
        def infer(batch: Any) -> Any:
            output = model(batch, training=False)
            first = tf.nest.flatten(output)[0]
            # a scalar of the same call: cheap to read, there only when the call has finished
            return tf.reshape(first, [-1])[0], output

        return self._step(infer, (pictures,))

    def _step(self, function: Any, batch: tuple[Any, ...]) -> Step:
        placed = self._on_device(batch)
        return Step(function, placed, lambda: function.get_concrete_function(*placed))

    def feed(self, model: Any, task: str, batch_size: int, seed: int) -> Iterator[tuple[Any, ...]]:
        """Yield batches without end, from host memory through tf.data, as a step takes them."""
        with tf.device("/CPU:0"):
            samples = tf.data.Dataset.from_tensor_slices(self._pool(model, task, batch_size, seed))
            batches = samples.repeat().batch(batch_size, drop_remainder=True)
            yield from batches.prefetch(tf.data.AUTOTUNE)

    def matrix_product(self, size: int) -> Callable[[], Any]:
        """Return the product of two square matrices of the precision's compute dtype."""
        dtype = keras.mixed_precision.global_policy().compute_dtype
        left, right = self._on_device(square_matrices(size))
        left, right = tf.cast(left, dtype), tf.cast(right, dtype)

        @tf.function(jit_compile=False)  # type: ignore[untyped-decorator]
        def product(first: Any, second: Any) -> Any:
            output = tf.matmul(first, second)
            return tf.reshape(output, [-1])[0], output

        return lambda: product(left, right)

    def copy(self, size: int) -> Callable[[], Any]:
        """Return a copy of this many bytes: each float32 read, increased and written elsewhere."""
        with self._scope():
            source = tf.ones([size // 4])

        @tf.function(jit_compile=False)  # type: ignore[untyped-decorator]
        def copied(values: Any) -> Any:
            output = values + 1.0
            return output[0], output

        return lambda: copied(source)

    def reference_step(self, kind: str) -> Callable[[], Any]:
        """Return the reference network's step (see reference.py), in raw operations."""
        pictures, labels = self._on_device(reference.batch(kind))
        with self._scope():
            variables = [tf.Variable(array) for array in reference.weights()]

        @tf.function(jit_compile=False)  # type: ignore[untyped-decorator]
        def infer(batch: Any) -> Any:
            output = _reference_logits(batch, variables)
            return tf.reshape(output, [-1])[0], output

        @tf.function(jit_compile=False)  # type: ignore[untyped-decorator]
        def train(batch: Any, classes: Any) -> Any:
            with tf.GradientTape() as tape:
                logits = _reference_logits(batch, variables)
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits)
                loss = tf.reduce_mean(losses)
            for variable, gradient in pairs(variables, tape.gradient(loss, variables)):
                variable.assign_sub(reference.LEARNING_RATE * gradient)
            return loss, loss

        if kind == "small":
            return lambda: infer(pictures)
        return lambda: train(pictures, labels)

    def _scope(self) -> Any:
        return tf.device(f"/{self._device}")

    def _on_device(self, structure: Any) -> Any:
        with self._scope():
            return tf.nest.map_structure(tf.identity, structure)

    def flat(self, structure: Any) -> list[Any]:
        return list(tf.nest.flatten(structure))

    def packed(self, structure: Any, leaves: list[Any]) -> Any:
        return tf.nest.pack_sequence_as(structure, leaves)

    def tensor(self, array: Any) -> Any:
        """Return the array on the device."""
        return self._on_device(array)


def _reference_logits(images: Any, variables: Any) -> Any:
    kernel_1, bias_1, kernel_2, bias_2, *dense = variables
    maps = tf.tanh(tf.nn.conv2d(images, kernel_1, 1, "SAME") + bias_1)
    maps = tf.nn.avg_pool2d(maps, 2, 2, "VALID")
    maps = tf.tanh(tf.nn.conv2d(maps, kernel_2, 1, "VALID") + bias_2)
    maps = tf.nn.avg_pool2d(maps, 2, 2, "VALID")
    values = tf.reshape(maps, [-1, 400])
    for weight, bias in pairs(dense[:-2:2], dense[1:-2:2]):
        values = tf.tanh(tf.matmul(values, weight) + bias)
    return tf.matmul(values, dense[-2]) + dense[-1]
