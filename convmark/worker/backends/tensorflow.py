"""TensorFlow, 2.12 and later, with the Keras it brings: Keras 2 up to 2.15, Keras 3 from 2.16."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import tensorflow as tf
from convmark_zoo.keras_api import KERAS_VERSION, keras

from convmark.core.runtimes import parted_signature
from convmark.worker import reference
from convmark.worker.backends.keras_model import KerasBackend
from convmark.worker.backends.keras_parts import loose, root_mean_square, untracked
from convmark.worker.backends.keras_state import dtype_policy, read_all, set_policy
from convmark.worker.backends.losses import Batch, square_matrices
from convmark.worker.backends.own_methods import own_function
from convmark.worker.backends.own_training import JIT_AND_EAGER, Made, OwnData
from convmark.worker.backends.saved_model import (
    SavedModel,
    digest_of,
    forward_function,
    outputs_of,
    signature_words,
)
from convmark.worker.backends.step import Chain, Piece, Step
from convmark.worker.backends.tensorflow_graph import forward_work, graph_work, held_tensors
from convmark.worker.backends.tensorflow_identity import step_digest
from convmark.worker.backends.tensorflow_layers import backward_piece, clocked, piece
from convmark.worker.backends.tensorflow_settings import (
    DEFAULTS,
    READERS,
    check_eager,
    told_if_too_late,
)
from convmark.worker.backends.tensorflow_training import (
    built_optimizer,
    fit_function,
    gradients_of,
    iterated_step,
    leaves,
    loss_of,
    pairs,
    probe_of,
    products,
    tensors,
)
from convmark.worker.failure import CaseFailure
from convmark.worker.work import Work, per_sample


class TensorFlow(KerasBackend):
    """The framework's side of a measurement; one instance serves one process.

    The probe of a step's token is of the same compiled call: a scalar, or on the host an output.
    """

    name = "tensorflow"
    _graph_digest, products = staticmethod(step_digest), staticmethod(products)
    piece, backward_piece = staticmethod(piece), staticmethod(backward_piece)
    _plain_path = "tf.function"
    compile_options = MappingProxyType({"jit_compile": False})
    """XLA is there where the case asks for it; Keras alone would have it on every GPU."""

    def __init__(self) -> None:
        super().__init__()
        self._device = "CPU:0"
        self._variable: str | None = None
        """TF_NUM_INTRAOP_THREADS as it was when the pool of threads was made; None before."""

    @property
    def call_path(self) -> str:
        """How a step is called now: a model's code may have functions run eagerly."""
        return "eager" if tf.config.functions_run_eagerly() else self._call_path

    def untouched(self) -> bool:
        from tensorflow.python.eager import context

        return getattr(context.context(), "_context_handle", None) is None

    def versions(self) -> dict[str, str | None]:
        build = tf.sysconfig.get_build_info()
        return {
            "tensorflow": tf.__version__,
            "keras": self.keras_version,
            "numpy": np.__version__,
            "cuda": build.get("cuda_version"),
            "cudnn": build.get("cudnn_version"),
        }

    def architectures(self) -> list[str]:
        """The GPU architectures that this build was compiled for, such as `sm_80`."""
        return list(tf.sysconfig.get_build_info().get("cuda_compute_capabilities") or ())

    def devices(self) -> list[str]:
        gpus = tf.config.list_physical_devices("GPU")
        return ["cpu", *(f"gpu:{index}" for index in range(len(gpus)))]

    def configure(self, *, device: str, threads: str, precision: str, seed: int) -> None:
        """Make one device alone visible and set threads, precision and seeds, before any work."""
        if threads != "default":
            tf.config.threading.set_intra_op_parallelism_threads(int(threads))
            tf.config.threading.set_inter_op_parallelism_threads(int(threads))
        self._make_visible(device)
        tf.config.experimental.enable_tensor_float_32_execution(precision == "tf32")
        set_policy(dtype_policy(precision))
        self.seed(seed)

    def default_settings(self, precision: str) -> dict[str, str]:
        return {
            **super().default_settings(precision),
            **DEFAULTS,
            "tensor_float_32": str(precision == "tf32"),
        }

    def settings(self) -> dict[str, str]:
        return {**super().settings(), **read_all(READERS)}

    def load_model(self, path: str, *, trusted: bool, compiled: bool) -> Any:
        folder, signature = parted_signature(path)
        if folder.endswith("/"):
            return SavedModel(folder, signature)
        return super().load_model(path, trusted=trusted, compiled=compiled)

    def thread_counts(self) -> tuple[int, int]:
        threading = tf.config.threading
        return (
            threading.get_intra_op_parallelism_threads(),
            threading.get_inter_op_parallelism_threads(),
        )

    def pool_threads(self) -> int | None:
        asked = _threads_variable() if self._variable is None else self._variable
        by_variable = int(asked) if asked.isdecimal() else 0
        return self.thread_counts()[0] or by_variable or super().pool_threads()

    def layer_precisions(self, model: Any) -> list[str]:
        is_graph = isinstance(model, SavedModel)
        kinds = [model.precision] if is_graph else super().layer_precisions(model)
        on_gpu = self._device != "CPU:0"
        if on_gpu and tf.config.experimental.tensor_float_32_execution_enabled():
            return ["tf32" if kind == "float32" else kind for kind in kinds]
        return kinds

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

    def is_out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, tf.errors.ResourceExhaustedError)

    def synchronise(self, token: tuple[Any, Any]) -> None:
        token[0]._numpy()  # which copies nothing on the host, as `numpy` would

    def fingerprint(self, token: tuple[Any, Any]) -> float:
        return root_mean_square(
            tf.strings.length(one) if one.dtype == tf.string else one
            for one in self.leaves(token[1])
        )

    def device_of(self, value: Any) -> str | None:
        name = str(getattr(value, "device", ""))
        return next((kind for kind in ("gpu", "cpu") if kind.upper() in name), None)

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """What a model is built in; the pool of threads is made before."""
        self._make_pool()
        check_eager()
        with told_if_too_late():
            yield
        check_eager()

    @contextlib.contextmanager
    def as_written(self) -> Iterator[None]:
        """Eagerly: a graph is traced twice where the first trace makes variables."""
        eagerly = tf.config.functions_run_eagerly()
        tf.config.run_functions_eagerly(True)
        try:
            yield
        finally:
            tf.config.run_functions_eagerly(eagerly)

    def _make_pool(self) -> None:
        if self.untouched():
            self._variable = _threads_variable()
            tf.config.list_logical_devices()

    def reset_peak_memory(self) -> None:
        self._make_pool()
        with contextlib.suppress(ValueError):
            tf.config.experimental.reset_memory_stats(self._device)

    def peak_memory(self) -> int | None:
        return self._allocated("peak")

    def held_memory(self) -> int | None:
        return self._allocated("current")

    def _allocated(self, key: str) -> int | None:
        try:
            return int(tf.config.experimental.get_memory_info(self._device)[key])
        except ValueError:
            return None

    def _training_step(
        self, model: Any, batch: Batch, new_optimizer: Callable[[], Any], compiled: bool
    ) -> Step:
        self._refuse_strategy(model)
        variables = model.trainable_variables
        optimizer = built_optimizer(new_optimizer, model)
        differentiated = gradients_of(model, loss_of(model, batch), optimizer)

        @tf.function(jit_compile=compiled)  # type: ignore[untyped-decorator]
        def train(pictures: Any, targets: Any) -> Any:
            loss, gradients = differentiated(pictures, targets)
            optimizer.apply_gradients(pairs(gradients, variables))
            return loss, loss

        return self._step(train, (batch.images, batch.targets))

    def _refuse_strategy(self, model: Any) -> None:
        """Hold a model of Keras 2 to no strategy, in whose replicas alone its optimizers update."""
        name, _ = self.spread(model)
        if name and KERAS_VERSION < (3, 0):
            raise CaseFailure(
                f"its own code has built it for a {name}, whose step Keras 2 takes in its fit "
                "alone; build it without, or measure the task infer"
            )

    def _fit_step(self, model: Any, data: OwnData, batch: tuple[Any, ...], compiled: bool) -> Step:
        self._refuse_strategy(model)
        placed = self._on_device(batch)
        if own_function(model):
            self._call_path = "train_function"
            return iterated_step(model, data, placed)

        def make() -> Made:
            function, self._call_path = fit_function(model, data, compiled)
            return function, getattr(function, "get_concrete_function", None)

        return data.step(make, placed, any_batch=True)

    def _inference_step(self, model: Any, pictures: Any, compiled: bool) -> Step:
        on_cpu = self._device == "CPU:0"
        eager = bool(model.run_eagerly)  # as its compile says, and `predict` does
        if eager and compiled:
            raise CaseFailure(JIT_AND_EAGER)

        def infer(batch: Any) -> Any:
            output = tensors(model(batch, training=False))
            if on_cpu:
                return output
            # a scalar of the same call: cheap to read, there only when the call has finished
            return probe_of(output[0]), output

        if eager:
            self._call_path = "eager"
            step = Step(infer, (self._on_device(pictures),))
        else:
            infer = tf.function(infer, jit_compile=compiled)
            step = self._step(infer, (pictures,))
        self._call_path += signature_words(model)

        def run(batch: Any) -> Any:
            return (output := infer(batch))[0], output

        # on the host an output is read where it lies: a probe would take a short step's 5 to 8 %
        return replace(step, run=run) if on_cpu else step

    def clocked(
        self, pieces: Sequence[Piece], inputs: Sequence[int], outputs: Sequence[int], compiled: bool
    ) -> Chain | None:
        """Return the pieces as one graph with clocks, on a CPU."""
        if self._device != "CPU:0":  # a clock on the host does not wait for a GPU
            return None
        return clocked(pieces, inputs, outputs, compiled)

    def _step(self, function: Any, batch: tuple[Any, ...]) -> Step:
        placed = self._on_device(batch)
        return Step(function, placed, lambda: function.get_concrete_function(*placed))

    def feed(self, model: Any, task: str, batch_size: int, seed: int) -> Iterator[tuple[Any, ...]]:
        """Yield batches without end, from host memory through tf.data, as a step takes them."""
        with tf.device("/CPU:0"):
            pool = self._pool(model, task, batch_size, seed)
            samples = tf.data.Dataset.from_tensor_slices(tuple(tf.nest.flatten(pool)))
            batches = samples.repeat().batch(batch_size, drop_remainder=True)
            for parts in batches.prefetch(tf.data.AUTOTUNE):  # which knows no lists
                yield tf.nest.pack_sequence_as(pool, parts)

    def work(self, model: Any, samples: int) -> Work:
        """What a forward pass of so many samples computes, counted in its graph, per sample."""

        @tf.function(jit_compile=False)  # type: ignore[untyped-decorator]
        def infer(batch: Any) -> Any:
            return model(batch, training=False)

        batch = self._on_device(self.inputs(model).batch(samples, 0))
        used, held = dict[int, Any](), dict[int, Any]()

        def trace() -> Any:
            function = infer.get_concrete_function(batch)
            used.update((id(one), one) for one in function.graph.variables)
            held.update((id(one), one) for one in held_tensors(function.graph))
            return function

        found = per_sample(forward_work(trace), samples)
        hidden = untracked(model, [*used.values(), *loose(model, held.values())])
        return replace(found, untracked=hidden)

    def training_work(self, step: Step, samples: int) -> Work:
        if step.trace is None:
            return Work(None, "a training step that runs eagerly cannot be traced")
        return per_sample(graph_work(step.trace), samples)

    def exported_function(self, model: Any, batch: Sequence[Any]) -> Any:
        """A forward pass of this batch's size, for the runtimes to be converted from."""
        return forward_function(model, self.inputs(model).structure, batch)

    def exported_outputs(self, function: Any, batch: Sequence[Any]) -> list[Any]:
        return outputs_of(function, batch)

    def exported_digest(self, function: Any, model: Any) -> str:
        """A hash of all that an export is made of."""
        return digest_of(function)

    def matrix_product(self, size: int) -> Callable[[], Any]:
        dtype = keras.mixed_precision.global_policy().compute_dtype
        left, right = self._on_device(square_matrices(size))
        left, right = tf.cast(left, dtype), tf.cast(right, dtype)

        @tf.function(jit_compile=False)  # type: ignore[untyped-decorator]
        def product(first: Any, second: Any) -> Any:
            output = tf.matmul(first, second)
            return tf.reshape(output, [-1])[0], output

        return lambda: product(left, right)

    def copy(self, size: int) -> Callable[[], Any]:
        with self._scope():
            source = tf.ones([size // 4])

        @tf.function(jit_compile=False)  # type: ignore[untyped-decorator]
        def copied(values: Any) -> Any:
            output = values + 1.0
            return output[0], output

        return lambda: copied(source)

    def reference_step(self, kind: str) -> Callable[[], Any]:
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

    def leaves(self, structure: Any) -> list[Any]:
        return leaves(structure)

    def packed(self, structure: Any, leaves: list[Any]) -> Any:
        return tf.nest.pack_sequence_as(structure, leaves)

    def tensor(self, array: Any) -> Any:
        return self._on_device(array)


def _threads_variable() -> str:
    return os.environ.get("TF_NUM_INTRAOP_THREADS", "")


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
