"""How often a step of the model's own calls its layers, on TensorFlow itself."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from forks import Forks, printed

from convmark.core.case import Case
from convmark.worker import layers, measurement
from convmark.worker.cuts import cut
from convmark.worker.failure import CaseFailure
from convmark.worker.layer_mode import check_compiled, held_to_the_layers, held_to_the_pieces

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="traces graphs of TensorFlow"
)

SAMPLES, IMAGE = 2, (8, 8, 3)


def net(times: int) -> Any:
    """Return a model whose step is that of Keras's guide, so many times in a loop of its graph."""
    keras = importlib.import_module("models.keras_api").keras
    tf = importlib.import_module("tensorflow")

    class Net(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.norm = keras.layers.BatchNormalization(name="norm")
            self.head = keras.layers.Dense(2, name="head")

        def call(self, image: Any, training: bool = False) -> Any:
            return self.head(self.norm(image, training=training))

        def once(self, data: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(self(data[0], training=True) ** 2)
            weights = self.trainable_variables
            self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))  # noqa: B905
            return loss

        def train_step(self, data: Any) -> Any:
            if times == 1:
                return {"loss": self.once(data)}
            return {
                "loss": tf.while_loop(
                    lambda taken, _: taken < times,
                    lambda taken, _: (taken + 1, self.once(data)),
                    (0, tf.constant(0.0)),
                )[1]
            }

    model = Net()
    model(np.ones((SAMPLES, *IMAGE), np.float32))
    model.compile("adam", "mse")
    return model


@pytest.mark.parametrize("times", [1, 3])
def test_calls_are_counted_as_they_happen_and_not_as_they_are_traced(times: int) -> None:
    """A graph is traced twice where the first trace makes an optimizer's variables."""
    from convmark.worker.backends.tensorflow import TensorFlow

    backend, model = TensorFlow(), net(times)
    backend.configure(device="cpu", threads="default", precision="float32", seed=0)
    backend.take_inputs(model, lambda samples: np.ones((samples, *IMAGE), np.float32))
    found = cut(model, backend, SAMPLES, None, training=True)
    case = Case(model="net", task="train", batch_size=SAMPLES)
    step, _ = measurement.make_step(case, model, 0, backend)
    step()
    words = f"calls norm {times} times in training"
    refused = nullcontext() if times == 1 else pytest.raises(CaseFailure, match=words)
    with refused, held_to_the_pieces("net", model, found, backend.as_written):
        step()
    step()


def test_layers_that_show_in_the_first_trace_alone_are_not_taken_for_others() -> None:
    from convmark.worker.backends.tensorflow import TensorFlow

    keras = importlib.import_module("models.keras_api").keras
    function = importlib.import_module("tensorflow").function

    class Net(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.head = keras.layers.Dense(2, name="head")

        @function  # type: ignore[untyped-decorator]
        def call(self, image: Any, training: bool = False) -> Any:
            return self.head(image)

    backend, model = TensorFlow(), Net()
    backend.configure(device="cpu", threads="default", precision="float32", seed=0)
    model(np.ones((SAMPLES, *IMAGE), np.float32))
    backend.take_inputs(model, lambda samples: np.ones((samples, *IMAGE), np.float32))
    found = cut(model, backend, SAMPLES, None, training=True)
    step, _ = measurement.make_step(
        Case(model="net", task="train", batch_size=SAMPLES), model, 0, backend
    )
    with held_to_the_layers("net", model, found):
        step()


@pytest.mark.parametrize("task", ["infer", "train"])
def test_the_layers_of_a_step_that_runs_eagerly_are_not_timed_compiled(task: Any) -> None:
    from convmark.worker.backends.tensorflow import TensorFlow

    backend, model = TensorFlow(), net(1)
    backend.configure(device="cpu", threads="default", precision="float32", seed=0)
    backend.take_inputs(model, lambda samples: np.ones((samples, *IMAGE), np.float32))
    case = Case(model="net", task=task, batch_size=SAMPLES)
    measurement.make_step(case, model, 0, backend)
    check_compiled("net", backend)
    model.compile("adam", "mse", run_eagerly=True)
    measurement.make_step(case, model, 0, backend)
    with pytest.raises(CaseFailure, match="net: its step runs eagerly"):
        check_compiled("net", backend)
    backend.plainly_eager = True  # as PyTorch is
    check_compiled("net", backend)


def test_an_output_of_several_parts_is_in_no_layers_time() -> None:
    chain: Any = object.__new__(layers._Chain)
    chain.case = Case(model="net", task="infer", batch_size=SAMPLES)
    chain.cut, chain._backend = SimpleNamespace(outputs=[7]), SimpleNamespace(leaves=list)
    with pytest.raises(CaseFailure, match="net: has a ragged or sparse output"):
        chain.check((None, ["values", "row splits"]), [])


JAX = """
import jax
from convmark.worker.backends.jaxpr import as_written

calls = []

def step(value, _):
    calls.append(1)
    return value + 1, None

scanned = jax.jit(lambda value: jax.lax.scan(step, value, None, 3)[0])
scanned(1.0)
calls.clear()
with as_written():
    scanned(1.0)
print(len(calls))
"""


def test_calls_in_a_scan_of_jax_count_as_often_as_they_happen(
    forks_of: Callable[[str], Forks],
) -> None:
    assert printed(forks_of("jax").run(JAX)) == 3
