"""TensorFlow, 2.12 and later, with the Keras it brings: Keras 2 up to 2.15, Keras 3 from 2.16."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from convmark_zoo.keras_api import keras
from convmark_zoo.shape import input_shape

from convmark.worker import reference

__all__ = ["TensorFlow"]

Step = Callable[[], Any]


class TensorFlow:
    """The framework's side of a measurement; one instance serves one process.

    A step returns a token, (probe, result): `synchronise` waits for the probe, a scalar of the same
    compiled call, and `fingerprint` reads the result.
    """

    name = "tensorflow"
    call_path = "tf.function"
    keras = keras

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
        keras.mixed_precision.set_global_policy(precision)
        keras.utils.set_random_seed(seed)

    def is_model(self, candidate: Any) -> bool:
        return isinstance(candidate, keras.Model)

    def is_out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, tf.errors.ResourceExhaustedError)

    def sample_shape(self, model: Any) -> tuple[int | None, ...]:
        """The shape of one sample, without the batch axis."""
        return tuple(input_shape(model))

    def sizes(self, model: Any) -> dict[str, int]:
        """Parameters (elements) and model size (bytes, all weights as they are stored)."""
        return {
            "parameters": sum(_elements(weight) for weight in model.weights),
            "trainable_parameters": sum(_elements(weight) for weight in model.trainable_weights),
            "model_bytes": sum(
                _elements(weight) * tf.as_dtype(weight.dtype).size for weight in model.weights
            ),
        }

    def synchronise(self, token: tuple[Any, Any]) -> None:
        """Wait until the device has finished the step that gave this token."""
        token[0].numpy()

    def fingerprint(self, token: tuple[Any, Any]) -> float:
        """The loss, or the output's root mean square; not finite where any output is not."""
        arrays = [np.asarray(array, np.float64) for array in tf.nest.flatten(token[1])]
        return float(np.sqrt(np.mean([np.mean(np.square(array)) for array in arrays])))

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
        images, targets, loss_of = self._training_batch(model, batch_size, seed)
        optimizer = keras.optimizers.SGD(learning_rate)
        if keras.mixed_precision.global_policy().name == "mixed_float16":
            optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer)
        variables = model.trainable_variables
        optimizer.build(variables)

        @tf.function(jit_compile=compiled)  # type: ignore[untyped-decorator]
        def train(batch: Any, labels: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = loss_of(model(batch, training=True), labels)
                if model.losses:
                    loss += tf.add_n([tf.cast(term, tf.float32) for term in model.losses])
                scaled = _scaled(optimizer, loss)
            gradients = _unscaled(optimizer, tape.gradient(scaled, variables))
            optimizer.apply_gradients(_pairs(gradients, variables))
            return loss

        def step() -> tuple[Any, Any]:
            loss = train(images, targets)
            return loss, loss

        return step

    def inference_step(self, model: Any, batch_size: int, seed: int, compiled: bool) -> Step:
        """Return a step: one synthetic batch on the device through the model."""
        images = self._images(model, batch_size, np.random.RandomState(seed))

        @tf.function(jit_compile=compiled)  # type: ignore[untyped-decorator]
        def infer(batch: Any) -> Any:
            output = model(batch, training=False)
            first = tf.nest.flatten(output)[0]
            # a scalar of the same call: cheap to read, there only when the call has finished
            return tf.reshape(first, [-1])[0], output

        return lambda: infer(images)

    def reference_step(self, kind: str) -> Step:
        """Return the reference network's step (see reference.py), in raw operations."""
        images, labels = reference.batch(kind)
        with self._scope():
            images, labels = tf.identity(images), tf.identity(labels)
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
            return lambda: infer(images)
        return lambda: train(images, labels)

    def _scope(self) -> Any:
        return tf.device(f"/{self._device}")

    def _images(self, model: Any, batch_size: int, generator: Any) -> Any:
        shape = (batch_size, *self.sample_shape(model))
        with self._scope():
            return tf.identity(generator.random_sample(shape).astype(np.float32))

    def _output_shapes(self, model: Any) -> list[tuple[Any, ...]]:
        outputs = getattr(model, "outputs", None)
        if not outputs:  # a subclassed model tells only when it is called
            outputs = model(keras.Input(self.sample_shape(model)))
        return [tuple(output.shape) for output in tf.nest.flatten(outputs)]

    def _training_batch(
        self, model: Any, batch_size: int, seed: int
    ) -> tuple[Any, Any, Callable[[Any, Any], Any]]:
        """Return images, targets and the loss: cross-entropy of classes, else squared error."""
        generator = np.random.RandomState(seed)
        images = self._images(model, batch_size, generator)
        shapes = self._output_shapes(model)
        if len(shapes) == 1 and len(shapes[0]) == 2 and shapes[0][1] > 1:
            classes = generator.randint(0, shapes[0][1], batch_size).astype(np.int64)
            cross_entropy = keras.losses.SparseCategoricalCrossentropy(
                from_logits=not _ends_in_softmax(model)
            )

            def class_loss(output: Any, labels: Any) -> Any:
                (scores,) = tf.nest.flatten(output)
                return cross_entropy(labels, tf.cast(scores, tf.float32))

            with self._scope():
                return images, tf.identity(classes), class_loss

        def squared_error(output: Any, targets: Any) -> Any:
            pairs = _pairs(tf.nest.flatten(output), targets)
            return tf.add_n(
                [tf.reduce_mean(tf.square(tf.cast(got, tf.float32) - want)) for got, want in pairs]
            )

        with self._scope():
            targets = [
                tf.identity(generator.standard_normal((batch_size, *shape[1:])).astype(np.float32))
                for shape in shapes
            ]
        return images, targets, squared_error


@tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]  # TensorFlow's
def _pairs(first: Any, second: Any) -> list[tuple[Any, Any]]:
    """Pair equally many; in traced code TensorFlow 2.12's own zip, without `strict`, would run."""
    return list(zip(first, second, strict=True))


def _elements(weight: Any) -> int:
    return int(np.prod(tuple(weight.shape), dtype=np.int64))


def _ends_in_softmax(model: Any) -> bool:
    """Whether the last layer turns its scores into probabilities itself."""
    layers = getattr(model, "layers", None)
    if not layers:
        return False
    last = layers[-1]
    if isinstance(last, keras.Model):
        return _ends_in_softmax(last)
    activation = getattr(getattr(last, "activation", None), "__name__", "")
    return activation == "softmax" or isinstance(last, keras.layers.Softmax)


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
