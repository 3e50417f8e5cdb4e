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
from convmark.worker.backends.keras_model import (
    KerasBackend,
    dtype_policy,
    ends_in_softmax,
    root_mean_square,
)
from convmark.worker.backends.step import Step
from convmark.worker.backends.synthetic import Batch, images, square_matrices, training_batch

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
        if device == "cpu":
            tf.config.set_visible_devices([], "GPU")
        else:
            chosen = tf.config.list_physical_devices("GPU")[int(device.removeprefix("gpu:"))]
            tf.config.set_visible_devices([chosen], "GPU")
            tf.config.experimental.set_memory_growth(chosen, True)
            self._device = "GPU:0"
        tf.config.experimental.enable_tensor_float_32_execution(precision == "tf32")
        keras.mixed_precision.set_global_policy(dtype_policy(precision))
        keras.utils.set_random_seed(seed)

    def make_deterministic(self) -> None:
        """Have every operation from here on give the same bits for the same seed; before any."""
        tf.config.experimental.enable_op_determinism()

    def wait_for(self, variable: Any) -> None:
        """Wait until the device has finished what last changed the variable."""
        variable.numpy()

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
        self, model: Any, batch_size: int, seed: int, learning_rate: float, compiled: bool
    ) -> Step:
        """Return a step: forward, backward and SGD update of one synthetic batch on the device."""
        batch = training_batch(
            self.sample_shape(model), self.output_shapes(model), batch_size, seed
        )
        loss_of = _loss(model, batch)
        optimizer = keras.optimizers.SGD(learning_rate)
        if keras.mixed_precision.global_policy().name == "mixed_float16":
            optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer)
        variables = model.trainable_variables
        optimizer.build(variables)

        @tf.function(jit_compile=compiled)  # type: ignore[untyped-decorator]
        def train(pictures: Any, targets: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = loss_of(model(pictures, training=True), targets)
                if model.losses:
                    loss += tf.add_n([tf.cast(term, tf.float32) for term in model.losses])
                scaled = _scaled(optimizer, loss)
            gradients = _unscaled(optimizer, tape.gradient(scaled, variables))
            optimizer.apply_gradients(_pairs(gradients, variables))
            return loss, loss

        return self._step(train, (batch.images, batch.targets))

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
            for variable, gradient in _pairs(variables, tape.gradient(loss, variables)):
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

    def _flat(self, structure: Any) -> list[Any]:
        return list(tf.nest.flatten(structure))


def _loss(model: Any, batch: Batch) -> Callable[[Any, Any], Any]:
    """Return the loss of outputs and targets: cross-entropy of classes, else squared error."""
    if batch.classes:
        cross_entropy = keras.losses.SparseCategoricalCrossentropy(
            from_logits=not ends_in_softmax(model)
        )

        def class_loss(output: Any, targets: Any) -> Any:
            (scores,) = tf.nest.flatten(output)
            return cross_entropy(targets[0], tf.cast(scores, tf.float32))

        return class_loss

    def squared_error(output: Any, targets: Any) -> Any:
        pairs = _pairs(tf.nest.flatten(output), targets)
        return tf.add_n(
            [tf.reduce_mean(tf.square(tf.cast(got, tf.float32) - want)) for got, want in pairs]
        )

    return squared_error


@tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]  # TensorFlow's
def _pairs(first: Any, second: Any) -> list[tuple[Any, Any]]:
    """Pair equally many; in traced code TensorFlow 2.12's own zip, without `strict`, would run."""
    return list(zip(first, second, strict=True))


def _scaled(optimizer: Any, loss: Any) -> Any:
    if hasattr(optimizer, "get_scaled_loss"):  # Keras 2
        return optimizer.get_scaled_loss(loss)
    return optimizer.scale_loss(loss) if hasattr(optimizer, "scale_loss") else loss


def _unscaled(optimizer: Any, gradients: Any) -> Any:
    if hasattr(optimizer, "get_unscaled_gradients"):  # Keras 2; Keras 3 does it when applying
        return optimizer.get_unscaled_gradients(gradients)
    return gradients


def _reference_logits(images: Any, variables: Any) -> Any:
    kernel_1, bias_1, kernel_2, bias_2, *dense = variables
    maps = tf.tanh(tf.nn.conv2d(images, kernel_1, 1, "SAME") + bias_1)
    maps = tf.nn.avg_pool2d(maps, 2, 2, "VALID")
    maps = tf.tanh(tf.nn.conv2d(maps, kernel_2, 1, "VALID") + bias_2)
    maps = tf.nn.avg_pool2d(maps, 2, 2, "VALID")
    values = tf.reshape(maps, [-1, 400])
    for weight, bias in _pairs(dense[:-2:2], dense[1:-2:2]):
        values = tf.tanh(tf.matmul(values, weight) + bias)
    return tf.matmul(values, dense[-2]) + dense[-1]
