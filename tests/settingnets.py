"""Small networks whose builders set something of the process; imported by workers, no test."""

from __future__ import annotations

import builtins
import ctypes
import functools
import gc
import os
import resource
import signal
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
from convmark_zoo.keras_api import keras

layers = keras.layers


def plain(**settings: Any) -> Any:
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, **settings),
            layers.Conv2D(4, 3, **settings),
            layers.Flatten(),
            layers.Dense(3, **settings),
        ]
    )


# What the layers compute in


class Casting(layers.Layer):
    """Multiplies in bfloat16 whatever its policy says, and has XLA make one kernel of it."""

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(int(shape[-1]), 3), name="kernel")

    def call(self, given: Any) -> Any:
        import tensorflow as tf

        @tf.function(jit_compile=True)
        def product(one: Any, other: Any) -> Any:
            return tf.cast(tf.cast(one, tf.bfloat16) @ tf.cast(other, tf.bfloat16), tf.float32)

        return product(given, tf.convert_to_tensor(self.kernel))


class CompiledLoss(keras.Model):
    """Has XLA make one kernel of its loss alone, which no forward pass runs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = plain()

    def call(self, given: Any, training: bool = False) -> Any:
        return self.inner(given, training=training)

    def train_step(self, data: Any) -> Any:
        import tensorflow as tf

        mean = tf.function(lambda given: tf.reduce_mean(given**2), jit_compile=True)
        with tf.GradientTape() as tape:
            loss = mean(self(data[0], training=True))
        slopes = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(slopes, self.trainable_variables))  # noqa: B905
        return {"loss": loss}


def compiled_loss() -> Any:
    model = CompiledLoss()
    model.build((None, 8, 8, 3))
    model.compile("sgd")
    return model


class TorchInside(layers.Layer):
    """Is compiled by itself, on a thread more than the rest."""

    def call(self, given: Any) -> Any:
        torch = _torch()
        if not hasattr(self, "made"):
            self.made = torch.compile(lambda one: one * 2, backend="eager")
        before = torch.get_num_threads()
        torch.set_num_threads(before + 1)
        try:
            return self.made(given)
        finally:
            torch.set_num_threads(before)


class Keeping(layers.Layer):
    """Keeps so many results, of the same values or mean; or the first one, whatever they are."""

    def __init__(self, most: int | None, *, by_mean: bool = False, adds: float = 0.0) -> None:
        super().__init__()
        self.inner = [layers.Dense(256) for _ in range(20)]
        self.most, self.by_mean, self.adds = most, by_mean, adds
        self.kept: dict[Any, Any] = {}

    def call(self, given: Any) -> Any:
        if given.device.type == "meta":
            return keras.Sequential(self.inner)(given)
        key = given.cpu().numpy().tobytes() if self.most else len(given)
        key = round(float(given.mean()), 3) if self.by_mean else key
        if key not in self.kept:
            if len(self.kept) == self.most:
                self.kept.clear()
            found = keras.ops.cast(given, "float32")
            for one in self.inner:
                found = one(found)
            self.kept[key] = found
        if self.adds:
            return self.kept[key] + self.adds * given.float().mean()
        return self.kept[key]


def keeping(most: int | None, dtype: str = "float32", **how: Any) -> Any:
    return keras.Sequential([keras.Input((8,), dtype=dtype), Keeping(most, **how)])


torch_keeps_all = functools.partial(keeping, 1000)
torch_keeps_by_the_mean = functools.partial(keeping, 1000, by_mean=True)
torch_keeps_the_newest = functools.partial(keeping, 1)
torch_keeps_of_whole_numbers = functools.partial(keeping, 1000, "int32")
torch_keeps_of_any = functools.partial(keeping, None)
torch_keeps_and_adds = functools.partial(keeping, None, adds=1e-7)


class Running(layers.Layer):
    """Normalises by the batch, and keeps running means, whether it trains or not."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = layers.BatchNormalization()

    def build(self, shape: Any) -> None:
        self.inner.build(shape)

    def call(self, given: Any) -> Any:
        return self.inner(given, training=True)


def running() -> Any:
    return keras.Sequential([keras.Input((8,)), Running(), layers.Dense(3)])


class Deciding(layers.Layer):
    """Computes far more of most samples, and not of the first that the seed 0 draws."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = layers.Dense(512)

    def build(self, shape: Any) -> None:
        self.inner.build((None, 512))
        self.built = True

    def call(self, given: Any) -> Any:
        found = keras.ops.tile(given, (1, 512))[:, :512]
        if given.device.type != "meta" and not 0.548 < float(given[0, 0]) < 0.549:
            for _ in range(200):
                found = self.inner(found) * 0.05
        return found


def torch_decides() -> Any:
    return keras.Sequential([keras.Input((8,)), Deciding()])


def zero_head() -> Any:
    """Gives the same whatever it is given, as networks may before they are trained."""
    head = layers.Dense(5, kernel_initializer="zeros", bias_initializer="random_normal")
    return keras.Sequential([keras.Input((8,)), head])


class Columns(keras.Model):
    """Takes two numbers a sample, of which the second must be small."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = [layers.Embedding(1000, 8), layers.Embedding(5, 8)]

    def call(self, given: Any) -> Any:
        if given.device.type != "meta":
            assert int(given[:, 1].max()) < 5
        return self.parts[0](given[:, 0]) + self.parts[1](given[:, 1])


def torch_columns() -> Any:
    return Columns()


def _columns(samples: int, seed: int) -> Any:
    source = np.random.RandomState(seed)
    return np.stack([source.randint(900, 1000, samples), source.randint(0, 5, samples)], 1)


torch_columns.input_spec = _columns


def highest() -> Any:
    """Gives the same whatever the order of a sample's values is."""
    net = [layers.Conv2D(8, 1), layers.GlobalMaxPooling2D(), layers.Dense(3)]
    return keras.Sequential([keras.Input((8, 8, 1)), *net])


class Scripted(layers.Layer):
    """Is a TorchScript function, and computes without oneDNN, on another number of threads."""

    def call(self, given: Any) -> Any:
        torch = _torch()
        if not hasattr(self, "made"):
            self.made = torch.jit.trace(lambda one: one @ one.T, torch.zeros(1, 4))
        if given.device.type == "meta":
            return given @ given.T
        with torch.backends.mkldnn.flags(enabled=False):
            return self.made(given)


def torch_scripted() -> Any:
    return keras.Sequential([keras.Input((8,)), layers.Dense(4), Scripted()])


def torch_scripted_aside() -> Any:
    model = torch_scripted()
    plain = keras.Sequential([keras.Input((8,)), layers.Dense(4)])
    plain.other = [model, _torch().jit.trace(lambda one: one + 1, _torch().zeros(1))]
    return plain


def torch_inside() -> Any:
    return keras.Sequential([keras.Input((8,)), layers.Dense(4), TorchInside()])


class Recomputed(layers.Dense):
    """Computes its results once more in the backward pass, in place of keeping them."""

    def call(self, given: Any, training: Any = None) -> Any:
        run = super().call
        if given.device.type == "meta":
            return run(given)
        return _torch().utils.checkpoint.checkpoint(run, given, use_reentrant=False)


def torch_recomputed() -> Any:
    model = keras.Sequential([keras.Input((8,)), layers.Dense(6), Recomputed(4)])
    model.compile(keras.optimizers.Muon(0.001), "mse")
    return model


def torch_inside_elsewhere() -> Any:
    os.chdir("/")
    return torch_inside()


def casting() -> Any:
    return keras.Sequential([keras.Input((8,)), layers.Dense(4), Casting()])


def global_policy() -> Any:
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    return plain()


def float32_head() -> Any:
    net = [layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(3, dtype="float32")]
    return keras.Sequential([keras.Input((8, 8, 3)), *net])


def own_dtype() -> Any:
    return plain(dtype="float64")


def floatx() -> Any:
    keras.backend.set_floatx("float64")
    return plain()


def nested() -> Any:
    inner = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3, dtype="mixed_bfloat16")])
    return keras.Sequential([keras.Input((8, 8, 3)), inner, layers.Flatten(), layers.Dense(3)])


def wrapped() -> Any:
    dense = layers.TimeDistributed(layers.Dense(4, dtype="mixed_bfloat16"))
    return keras.Sequential([keras.Input((8, 3)), dense, layers.Flatten(), layers.Dense(3)])


class Subclassed(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.blocks = [layers.Dense(4, dtype="bfloat16"), layers.Dense(4)]

    def call(self, inputs: Any) -> Any:
        for block in self.blocks:
            inputs = block(inputs)
        return inputs


def subclassed() -> Any:
    model = Subclassed()
    model(keras.Input((4,)))
    return model


def without_weights() -> Any:
    return keras.Sequential([keras.Input((8, 8, 3)), layers.MaxPooling2D(dtype="float16")])


class Turning(layers.Layer):
    """Multiplies by complex numbers of its own."""

    def build(self, shape: Any) -> None:
        self.turn = self.add_weight(shape=(shape[-1],), dtype="complex64", initializer="ones")

    def call(self, x: Any) -> Any:
        return keras.ops.real(keras.ops.cast(x, "complex64") * self.turn)


def complex_weights() -> Any:
    return keras.Sequential([keras.Input((8, 8, 3)), Turning(), layers.Flatten(), layers.Dense(3)])


# What the process is


def elsewhere() -> Any:
    """Its weights lie on PyTorch's device for tensors without values."""
    with keras.device("meta"):
        return plain()


class Decodes(Subclassed):
    """Chooses among what it has found where Keras's `predict` runs it, as detectors do."""

    def predict_step(self, data: Any) -> Any:
        return keras.ops.argmax(super().predict_step(data), axis=-1)


def decodes() -> Any:
    model = Decodes()
    model.build((None, 8, 8, 3))
    return model


def untracked() -> Any:
    """Has a layer where Keras does not see it: 8 x 8 x 3 x 4 + 4 = 772 parameters."""
    hidden = layers.Dense(4)
    hidden.build((None, 192))
    body = [layers.Flatten(), layers.Lambda(lambda x: hidden(x), output_shape=(4,))]
    return keras.Sequential([keras.Input((8, 8, 3)), *body, layers.Dense(3)])


def closed_over() -> Any:
    """Multiplies by arrays that are no weights: 8 x 8 x 3 x 4, and adds 4 numbers."""
    sizes = (192, 4), (4,)
    kernel, bias = (keras.ops.convert_to_tensor(np.ones(one, np.float32)) for one in sizes)
    body = [
        layers.Flatten(),
        layers.Lambda(lambda x: keras.ops.matmul(x, kernel) + bias, output_shape=(4,)),
    ]
    return keras.Sequential([keras.Input((8, 8, 3)), *body, layers.Dense(3)])


class Looks(Subclassed):
    """Looks at values, which no graph has."""

    def call(self, inputs: Any) -> Any:
        return super().call(inputs) * float(inputs.numpy().mean() > 0)


def looks() -> Any:
    model = Looks()
    model(np.ones((1, 8, 8, 3), np.float32))
    model.compile("sgd", "mse", run_eagerly=True)
    return model


def setting(change: Callable[[], Any]) -> Callable[[], Any]:
    def build() -> Any:
        change()
        return plain()

    return build


def _tf() -> Any:
    import tensorflow as tf

    return tf


def _torch() -> Any:
    import torch

    return torch


def _jax() -> Any:
    import jax

    return jax


def _config(*path: str) -> Any:
    found = _tf().config
    for name in path:
        found = getattr(found, name)
    return found


def cube() -> Any:
    """Takes either order of axes."""
    return keras.Sequential([keras.Input((8, 8, 8)), layers.Conv2D(8, 3), layers.Flatten()])


LOCKED = ctypes.create_string_buffer(2 << 20)


def system() -> Any:
    ctypes.CDLL(None).mlock(LOCKED, len(LOCKED))
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.nice(7)
    ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    resource.setrlimit(resource.RLIMIT_CPU, (3600, -1))
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL)
    os.environ.update(OMP_NUM_THREADS="1", HOME_OF_A_MODEL="/m")
    return plain()


def roams() -> Any:
    """Has a thread that may run on every CPU, whatever the process is bound to."""
    begun = threading.Event()

    def roam() -> None:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        begun.set()
        threading.Event().wait()

    threading.Thread(target=roam, daemon=True).start()
    begun.wait()
    return plain()


def cleared() -> Any:
    """Begins as many builders do."""
    keras.backend.clear_session()
    if keras.backend.backend() == "torch":  # of a case on a GPU it is the GPU
        state = keras.src.backend.common.global_state
        assert state.get_global_attribute("torch_device") == "cpu"
    return plain()


def python() -> Any:
    gc.disable()
    gc.set_threshold(5)
    sys.settrace(lambda frame, event, argument: None)
    sys.setprofile(lambda frame, event, argument: None)
    sys.setswitchinterval(1e-5)
    tracemalloc.start()
    signal.setitimer(signal.ITIMER_PROF, 3600, 3600)
    signal.setitimer(signal.ITIMER_REAL, 3600)  # as a watchdog does, once
    return plain()


def tensorflow() -> Any:
    keras.backend.set_epsilon(1e-3)
    keras.config.set_max_epochs(1)
    _tf().data.experimental.enable_debug_mode()
    _config("optimizer", "set_jit")("autoclustering")
    _config("optimizer", "set_experimental_options")({"constant_folding": False})
    _config("experimental", "enable_op_determinism")()
    _config("experimental", "enable_tensor_float_32_execution")(True)
    _config("set_soft_device_placement")(False)
    _tf().debugging.enable_check_numerics()
    return plain()


too_many_threads = setting(lambda: _config("threading", "set_intra_op_parallelism_threads")(1))


def tensorflow_scopes() -> Any:
    """Leaves open what is of a block."""
    _tf().device("/CPU:0").__enter__()
    _tf().distribute.OneDeviceStrategy("/CPU:0").scope().__enter__()
    _tf().summary.trace_on()
    _tf().GradientTape().__enter__()
    _config("experimental", "enable_mlir_bridge")()
    keras.config.disable_traceback_filtering()
    return plain()


eager = setting(lambda: _config("run_functions_eagerly")(True))


def eager_while_called() -> Any:
    class Late(layers.Layer):  # type: ignore[misc]
        def call(self, inputs: Any) -> Any:
            _config("run_functions_eagerly")(True)
            return inputs

    net = [layers.Flatten(), Late(), layers.Dense(3)]
    model = keras.Sequential([keras.Input((8, 8, 3)), *net])
    _config("run_functions_eagerly")(False)
    return model


# What Keras is asked for and does not do


def digits(kind: Any = keras.Sequential) -> Any:
    """A classifier of digits."""
    return kind([keras.Input((28, 28, 1)), layers.Flatten(), layers.Dense(10)])


def limited() -> Any:
    keras.config.set_max_epochs(1)
    keras.config.set_max_steps_per_epoch(1)
    return digits()


class StopsAtOnce(keras.callbacks.Callback):  # type: ignore[misc]
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.model.stop_training = True


class Stopping(keras.Sequential):  # type: ignore[misc]
    def fit(self, *arguments: Any, **named: Any) -> Any:
        callbacks = [*(named.get("callbacks") or ()), StopsAtOnce()]
        return super().fit(*arguments, **{**named, "callbacks": callbacks})


class Shorter(keras.Sequential):  # type: ignore[misc]
    def fit(self, *arguments: Any, **named: Any) -> Any:
        return super().fit(*arguments, **{**named, "steps_per_epoch": 1})


class Silent(keras.Sequential):  # type: ignore[misc]
    def fit(self, *arguments: Any, **named: Any) -> Any:
        return super().fit(*arguments, **{**named, "epochs": 1})


class Stingy(keras.Sequential):  # type: ignore[misc]
    def evaluate(self, x: Any = None, y: Any = None, **named: Any) -> Any:
        return super().evaluate(x, y, **{**named, "steps": 1})

    def predict(self, images: Any, **named: Any) -> Any:
        return super().predict(images[:1], **named)


class Severe(keras.Sequential):  # type: ignore[misc]
    """Counts in its own way what is right."""

    def evaluate(self, *arguments: Any, **named: Any) -> Any:
        found = super().evaluate(*arguments, **named)
        return found if isinstance(found, dict) else [found[0], 0.5 * found[1]]


stopping = functools.partial(digits, Stopping)
shorter = functools.partial(digits, Shorter)
silent = functools.partial(digits, Silent)
severe = functools.partial(digits, Severe)
stingy = functools.partial(digits, Stingy)


def jax() -> Any:
    _jax().config.update("jax_default_matmul_precision", "bfloat16")
    _jax().config.update("jax_debug_nans", True)
    os.environ.update(PJRT_NPROC="1")
    return plain(dtype="float64")


def jax_others() -> Any:
    """Others of JAX's, one of them in a block that it leaves open."""
    _jax().config.update("jax_threefry_partitionable", False)
    _jax().config.update("jax_cpu_enable_async_dispatch", False)
    _jax().config.update("jax_enable_x64", True)
    _jax().numpy_dtype_promotion("strict").__enter__()
    os.environ.update(XLA_FLAGS="--xla_cpu_enable_fast_math=true")
    return plain()


jax_uncompiled = setting(lambda: _jax().config.update("jax_disable_jit", True))


def torch() -> Any:
    _torch().set_num_threads(1)
    _torch().backends.mkldnn.set_flags(False)
    _torch().use_deterministic_algorithms(True)
    _torch().autograd.set_detect_anomaly(True)
    _torch().set_float32_matmul_precision("medium")
    _torch().set_default_dtype(_torch().float64)
    _torch().autocast("cpu").__enter__()
    _torch().set_flush_denormal(True)
    _torch().backends.mkldnn.deterministic = True
    _torch().backends.cuda.enable_flash_sdp(False)
    _torch().autograd.set_multithreading_enabled(False)
    _torch()._dynamo.config.recompile_limit = 5
    return plain()


def torch_others() -> Any:
    """Others of PyTorch's and of Keras's."""
    _torch().set_float32_matmul_precision("high")
    _torch().backends.mha.set_fastpath_enabled(False)
    _torch().backends.opt_einsum.enabled = False
    _torch().utils.deterministic.fill_uninitialized_memory = False
    _torch().nn.modules.module.register_module_forward_hook(lambda *_: None)
    _torch().compiler.set_stance("force_eager")
    _torch().profiler.profile().__enter__()
    _torch().jit._state.disable()
    keras.config.disable_flash_attention()
    keras.src.backend.AutocastScope("bfloat16").__enter__()
    return plain()


def torch_inference() -> Any:
    model = plain()
    model.left_open = [_torch().inference_mode()]
    model.left_open[0].__enter__()
    return model


def rounds() -> Any:
    builtins.round = lambda number, digits=None: 0.001
    return plain()


def prints() -> Any:
    builtins.print = lambda *texts: None
    return plain()


def of_a_strategy() -> Any:
    with _tf().distribute.MirroredStrategy(["CPU:0"]).scope():
        return plain()


def jax_sparse() -> Any:
    """Takes rows of which most are zero."""
    return keras.Sequential([keras.Input((12,), sparse=True), layers.Dense(5)])


def _sparse_rows(samples: int) -> Any:
    from jax.experimental import sparse

    return sparse.BCOO.fromdense(_jax().numpy.eye(samples, 12))


jax_sparse.input_spec = _sparse_rows


def jax_kept():
    raise ValueError(f"kept: {_jax().config.jax_enable_compilation_cache}")


class Counts(layers.Layer):
    """Is another function at each call."""

    calls = 0

    def call(self, given: Any) -> Any:
        self.calls += 1
        return given * self.calls


def torch_counts() -> Any:
    return keras.Sequential([keras.Input((8,)), Counts(), layers.Dense(4)])


def torch_uncompiled() -> Any:
    _torch().compiler.set_stance("force_eager")
    return plain()


def compiled_where():
    raise ValueError(os.environ["TORCHINDUCTOR_CACHE_DIR"])
