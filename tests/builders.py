"""Builders that behave well, and all sorts that do not; imported by workers, not a test itself.

What a builder has to tell is written to a file in the folder that `CONVMARK_TEST_FOLDER` names.
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from convmark_zoo import builder
from convmark_zoo.keras_api import keras


def well() -> Any:
    """A small network; tells which process this is, and which has started it."""
    _tell("worker", os.getpid())
    _tell("parent", os.getppid())
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])


def compiled_digits(loss: str = "sparse_categorical_crossentropy") -> Any:
    """A network of digits with an optimizer and a loss of its own."""
    layers = [keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")]
    model = keras.Sequential([keras.Input((28, 28, 1)), *layers])
    model.compile("adam", loss)
    return model


class _Lazy(keras.layers.Layer):
    """A product that is left out once it has been made twelve times."""

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], 3))
        self.calls = self.add_weight(shape=(), dtype="int32", trainable=False)

    def call(self, values: Any) -> Any:
        self.calls.assign(self.calls + 1)
        return keras.ops.cond(
            self.calls <= 12,
            lambda: keras.ops.matmul(values, self.kernel),
            lambda: keras.ops.zeros((keras.ops.shape(values)[0], 3)),
        )


def stops_working() -> Any:
    return keras.Sequential([keras.Input((4,)), _Lazy()])


def several_inputs() -> Any:
    """An image, tokens of open length, and a mask by name; tells what the tokens must be below."""
    image = keras.Input((8, 8, 3), dtype="uint8", name="image")
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    mask = keras.Input((4,), dtype="bool", name="mask")
    pooled = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(1000, 4)(tokens))
    pixels = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image))
    parts = [pooled, pixels, keras.layers.Rescaling(1.0)(mask)]
    scores = keras.layers.Dense(3)(keras.layers.Concatenate()(parts))
    return keras.Model({"image": image, "tokens": tokens, "mask": mask}, scores)


def raises() -> None:
    raise ValueError("a shape\nthat cannot be")


def raises_at_length() -> None:
    """As TensorFlow does: the place first, the reason last."""
    raise ValueError(f"at some node {'of some layer ' * 100}: shapes differ")


def returns_no_model() -> int:
    return 3


class Predictor:
    """Keeps its network in an attribute."""

    def __init__(self) -> None:
        self.keras_model = keras.Sequential([keras.Input((4,))])


def returns_a_pair() -> Any:
    return str, keras.Sequential([keras.Input((4,))])


def returns_a_layer() -> Any:
    return keras.layers.Dense(3)


def turns_eager_execution_off() -> Any:
    """As code of TensorFlow 1 does when it is imported."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    importlib.import_module("tensorflow").compat.v1.disable_eager_execution()
    return model


def tells_no_input() -> Any:
    return keras.Sequential([keras.layers.Dense(3)])


def overflows() -> Any:
    return keras.Sequential([keras.Input((4,)), keras.layers.Rescaling(1e38), _Squared()])


def diverges() -> Any:
    """A classifier of digits whose scores overflow."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Rescaling(1e30),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )


class _Squared(keras.layers.Layer):  # type: ignore[misc]
    def call(self, inputs: Any) -> Any:
        return inputs * inputs


def aborts() -> None:
    os.abort()


def reads_address_zero() -> None:
    ctypes.string_at(0)


def kills_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def exits() -> None:
    sys.exit(3)


def leaves_without_a_word() -> None:
    os._exit(0)


def sleeps() -> None:
    _tell("sleeper", os.getpid())
    time.sleep(3600)


def sleeps_deaf() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleeps()


def floods() -> Any:
    for _ in range(1 << 12):
        print("x" * (1 << 13))
        os.write(2, b"y" * (1 << 10))
    return well()


def writes_no_json() -> None:
    _write_events(b"this is no event\n")


def writes_no_text() -> None:
    _write_events(b"\xff\xfe\x00{\n")


def writes_a_list() -> None:
    _write_events(b'["event"]\n')


def writes_a_failure_without_a_status() -> None:
    _write_events(b'{"event":"failed"}\n')
    os._exit(0)


def writes_an_endless_line() -> None:
    for _ in range(40):
        _write_events(b"z" * (1 << 20))


def runs_out_of_host_memory() -> None:
    bytearray(1 << 60)


def runs_out_of_device_memory() -> None:
    import tensorflow as tf

    raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")


def eats_memory() -> Any:
    """Takes memory and writes to it until it is refused, or killed."""
    eaten = []
    while True:
        eaten.append(bytearray(b"x" * (64 << 20)))


def asks_for_more_than_there_is() -> Any:
    """Asks Keras's framework for 256 TiB, more than a process can address."""
    return keras.ops.zeros((1 << 46,))


def leaves_a_program() -> Any:
    """Starts a program that ignores a polite end."""
    program = subprocess.Popen(["sh", "-c", "trap '' TERM; while :; do sleep 1; done"])
    _tell("left", program.pid)
    return well()


def leaves_a_daemon() -> Any:
    """Starts a program in a session of its own, whose parent ends at once."""
    command = "sleep 3600 > /dev/null 2>&1 & echo $!"
    started = subprocess.run(
        ["sh", "-c", command], start_new_session=True, stdout=subprocess.PIPE, check=True
    )
    _tell("left", int(started.stdout))
    return well()


def returns_twice() -> Any:
    os.fork()
    return well()


def leaves_a_fork() -> Any:
    """Forks a process that keeps every descriptor, the one for events included, open."""
    pid = os.fork()
    if pid == 0:
        time.sleep(3600)
        os._exit(0)
    _tell("left", pid)
    return well()


def fails_beside_the_first() -> Any:
    """Fails in every process of a cluster but the first, which goes on and waits for them."""
    if _place_in_cluster() > 0:
        raise ValueError("no room here")
    return well()


def dies_beside_the_first() -> Any:
    if _place_in_cluster() > 0:
        kills_itself()
    return well()


def _place_in_cluster() -> int:
    return int(json.loads(os.environ["TF_CONFIG"])["task"]["index"])


def prints_and_fails_with_its_log() -> None:
    """Fails with all that has come into its own log so far, its own line included."""
    print("a line of", os.environ["CONVMARK_TEST_FOLDER"])
    sys.stdout.flush()
    raise RuntimeError(Path(f"/proc/{os.getpid()}/fd/1").read_text())


def lenet5_without_tensorflow() -> Any:
    """Fails where TensorFlow is loaded, and has its import fail from here on."""
    if sys.modules.setdefault("tensorflow", None) is not None:  # type: ignore[arg-type]
        raise RuntimeError("TensorFlow is loaded beside another framework")
    return builder("lenet5")()


def tells_its_path() -> Any:
    _tell("path", sys.path)
    return well()


def _tell(name: str, value: Any) -> None:
    Path(os.environ["CONVMARK_TEST_FOLDER"], name).write_text(json.dumps(value))


def _write_events(data: bytes) -> None:
    """Write to every pipe there is, for the one of the events has no name."""
    for name in os.listdir("/dev/fd"):
        descriptor = int(name)
        try:
            kind = os.fstat(descriptor).st_mode
            mode = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
        except OSError:  # the listing's own
            continue
        if stat.S_ISFIFO(kind) and mode == os.O_WRONLY:
            os.write(descriptor, data)


class Growing(keras.layers.Layer):  # type: ignore[misc]
    """Multiplies 20 times, from its 24th call on ten times more with each call, up to 200.

    The calls before outlast a warm-up that is given 0.1 s.
    """

    def build(self, shape: Any) -> None:
        self.calls = self.add_weight(shape=(), dtype="int32", trainable=False, initializer="zeros")

    def call(self, inputs: Any) -> Any:
        import tensorflow as tf

        self.calls.assign(self.calls + 1)
        times = tf.clip_by_value(10 * tf.cast(self.calls, tf.int32) - 220, 20, 200)
        square = tf.fill([200, 200], 5e-3)
        _, product = tf.while_loop(
            lambda number, _: number < times,
            lambda number, last: (number + 1, tf.matmul(last, square)),
            (0, square),
        )
        return inputs + 1e-30 * tf.reduce_sum(product)


def growing() -> Any:
    """Return a model whose step takes longer from call to call, but not while it warms up."""
    inputs = keras.Input((4,))
    return keras.Model(inputs, Growing()(inputs))


class Room(keras.layers.Layer):
    """Takes 512 MiB of addresses a sample and touches none: too much in no time, under a limit."""

    def call(self, inputs: Any) -> Any:
        import tensorflow as tf

        room = tf.raw_ops.Empty(shape=[tf.shape(inputs)[0], 1 << 27], dtype=tf.float32)
        with tf.control_dependencies([room]):
            return tf.identity(inputs)


def roomy() -> Any:
    """Return a model that takes 512 MiB a sample."""
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(2)(Room()(inputs)))
