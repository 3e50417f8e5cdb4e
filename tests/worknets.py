"""Small networks that work elsewhere, later or in another dtype; imported by workers, no test."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from convmark_zoo.keras_api import keras

layers, ops = keras.layers, keras.ops


class Aside(layers.Layer):
    """Passes on what it is given, and does something else where there are values."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__()
        self.work = work

    def call(self, given: Any) -> Any:
        if given.device.type != "meta":
            self.work()
        return given * 1


def _with(work: Callable[[], Any]) -> Any:
    return keras.Sequential([keras.Input((64,)), layers.Dense(64), Aside(work), layers.Dense(4)])


_CODE = "import sys\nfor line in sys.stdin: print(sum(range(100_000)), flush=True)"


def torch_in_a_child() -> Any:
    """Has a process of its own do a part of the work."""
    child = subprocess.Popen(
        [sys.executable, "-c", _CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdin is not None
    assert child.stdout is not None
    asks, answers = child.stdin, child.stdout

    def work() -> None:
        asks.write(b"go\n")
        asks.flush()
        answers.readline()

    return _with(work)


def _spin(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def torch_afterwards() -> Any:
    """Leaves the work to a thread that goes on once the step has returned."""
    thread = threading.Thread(target=_spin, args=(60,), daemon=True)
    return _with(lambda: None if thread.ident else thread.start())


def torch_bound_pool() -> Any:
    """Binds the threads of PyTorch's pool to one CPU, and not the first thread."""
    model = _with(lambda: None)
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    for thread in os.listdir("/proc/self/task"):
        if int(thread) != os.getpid():
            os.sched_setaffinity(int(thread), {min(os.sched_getaffinity(0))})
            os.setpriority(os.PRIO_PROCESS, int(thread), 7)
    return model


class Half(layers.Layer):
    """Uses one half of the samples, twice."""

    def call(self, given: Any) -> Any:
        half = given[: given.shape[0] // 2] if given.device.type != "meta" else given[:1]
        return given * 0 + ops.mean(half)


def torch_half() -> Any:
    return keras.Sequential([keras.Input((64,)), layers.Dense(4), Half()])


class Widened(layers.Layer):
    """Multiplies in float32 whatever its policy says."""

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(int(shape[-1]), 64), name="kernel")

    def call(self, given: Any) -> Any:
        wide = ops.matmul(ops.cast(given, "float32"), ops.cast(self.kernel, "float32"))
        return ops.cast(wide, self.compute_dtype)


def widened() -> Any:
    """Multiplies 64 x 64 in bfloat16 and 2 x 64 x 64 in float32."""
    net = [layers.Dense(64), Widened(), Widened()]
    return keras.Sequential([keras.Input((64,)), *net])


def narrowed_head() -> Any:
    """Multiplies 2 x 64 x 64 in bfloat16 and 64 x 64 in float32."""
    net = [layers.Dense(64), layers.Dense(64), Widened()]
    return keras.Sequential([keras.Input((64,)), *net])


class OfAnAlgorithm(layers.Layer):
    """Has JAX round the operands of a product to bfloat16."""

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(int(shape[-1]), 64), name="kernel")

    def call(self, given: Any) -> Any:
        import jax

        return jax.numpy.matmul(given, self.kernel.value, precision="BF16_BF16_F32")


def jax_algorithm() -> Any:
    return keras.Sequential([keras.Input((64,)), OfAnAlgorithm()])


def with_variable() -> Any:
    """Sets a variable of a library that multiplies, which changes nothing."""
    os.environ["ONEDNN_VERBOSE"] = "0"
    return keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.Flatten()])
