"""FLOPs by operation: every product by its rule, worked out by hand; no rule, no figure."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from forks import Forks, printed

import models
from convmark.worker.flops import flops_per_sample, layer_records
from convmark.worker.work import NoRule, Work, einsum, per_sample, real_numbers

ROOT = Path(__file__).resolve().parent.parent
CASES = ROOT.parent / "shared" / "cases" / "15-flops"

Maker = Callable[[Any], Any]


@pytest.fixture(scope="module")
def keras() -> Any:
    pytest.importorskip("tensorflow")
    return importlib.import_module("models.keras_api").keras


def work(model: Any, *sample_shape: int, dtype: str = "float32") -> Work:
    tf = importlib.import_module("tensorflow")
    graphs = importlib.import_module("convmark.worker.backends.tensorflow_graph")
    function = tf.function(lambda batch: model(batch, training=False), autograph=False)
    sample = tf.TensorSpec((1, *sample_shape), dtype)
    found: Work = graphs.graph_work(lambda: function.get_concrete_function(sample))
    return found


def one_layer(keras: Any, call: Callable[[Any], Any], *sample_shape: int) -> Work:
    class Own(keras.layers.Layer):  # type: ignore[misc]  # Keras is a fixture
        def call(self, sample: Any) -> Any:
            return call(sample)

    layer = Own()
    return work(layer, *sample_shape)


@pytest.mark.parametrize(
    "name",
    [
        *("lenet5", "mini_inception", "mini_resnet", "mini_resnet_norm", "conv_layer"),
        *("separable_layer", pytest.param("mobilenetv2", marks=pytest.mark.long)),
    ],
)
def test_the_operations_of_a_network_count_as_its_layers_do(keras: Any, name: str) -> None:
    model = models.builder(name)()
    shape = importlib.import_module("models.shape").input_shape(model)
    assert work(model, *shape) == Work(flops_per_sample(layer_records(model, keras, shape)))


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not beside this checkout")
@pytest.mark.parametrize(
    ("name", "shape", "flops"),
    [
        ("attention", (256, 64), 23_069_952),
        ("low_rank", (128,), 2 * (128 * 4 + 4 * 64 + 64 * 10)),
    ],
)
def test_products_outside_of_layers_count(
    keras: Any, monkeypatch: pytest.MonkeyPatch, name: str, shape: tuple[int, ...], flops: int
) -> None:
    monkeypatch.syspath_prepend(str(CASES))
    monkeypatch.delitem(sys.modules, "flopnets", raising=False)
    model = getattr(importlib.import_module("flopnets"), name)()
    assert work(model, *shape) == Work(flops)


@pytest.mark.parametrize(
    ("make", "shape", "flops"),
    [
        (lambda k: k.Conv2D(6, 3, padding="same", groups=2), (8, 8, 4), 2 * 64 * 9 * 2 * 6),
        (lambda k: k.Conv2D(6, 3, padding="same", dilation_rate=3), (8, 8, 4), 2 * 64 * 36 * 6),
        (lambda k: k.DepthwiseConv2D(3, padding="same", dilation_rate=3), (8, 8, 4), 2 * 64 * 36),
        (lambda k: k.Conv2DTranspose(5, 3, strides=2), (8, 8, 4), 2 * 64 * 36 * 5),
        (lambda k: k.Conv3D(3, 2), (4, 4, 4, 2), 2 * 27 * 8 * 2 * 3),
        (lambda k: k.SeparableConv1D(6, 3), (10, 4), 2 * 8 * (3 * 4 + 4 * 6)),
        (lambda k: k.LSTM(5), (20, 8), 20 * 2 * (8 + 5) * 5 * 4),
        (lambda k: k.Bidirectional(k.GRU(5)), (20, 8), 2 * 20 * 2 * (8 + 5) * 5 * 3),
        (lambda k: k.ConvLSTM2D(3, 3, padding="same"), (6, 8, 8, 2), 6 * 2 * 64 * 9 * 5 * 12),
        (lambda k: k.TimeDistributed(k.Dense(3)), (5, 4), 2 * 5 * 4 * 3),
    ],
)
def test_a_layer_counts_its_operations(
    keras: Any, make: Maker, shape: tuple[int, ...], flops: int
) -> None:
    assert work(keras.Sequential([keras.Input(shape), make(keras.layers)]), *shape) == Work(flops)


def test_what_no_layer_does_counts(keras: Any) -> None:
    tf = importlib.import_module("tensorflow")
    halves = tf.ones((4, 3))
    assert one_layer(keras, lambda x: tf.einsum("bij,jk->bik", x, halves), 6, 4) == Work(144)
    assert one_layer(keras, lambda x: tf.tensordot(x, halves, 1), 6, 4) == Work(144)
    assert one_layer(keras, lambda x: tf.matmul(x, x, transpose_a=True), 6, 4) == Work(192)
    kernel = tf.ones((3, 3, 2, 5))
    assert one_layer(keras, lambda x: tf.nn.conv2d(x, kernel, 2, "SAME"), 8, 8, 2) == Work(2880)
    assert one_layer(keras, lambda x: x * x + 1.0, 8, 8, 2) == Work(0)


def test_a_picture_that_is_turned_counts_as_on_the_other_backends(keras: Any) -> None:
    """A matrix of 3 x 3 for each place and channel, as Keras multiplies on JAX and PyTorch."""
    tf = importlib.import_module("tensorflow")
    turn = tf.constant([[0.0, -1.0, 7.0, 1.0, 0.0, 0.0, 0.0, 0.0]])

    def turned(pictures: Any) -> Any:
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=tf.cast(pictures, tf.uint8),
            transforms=turn,
            output_shape=[8, 6],
            fill_value=0.0,
            interpolation="BILINEAR",
        )

    assert one_layer(keras, turned, 8, 8, 3) == Work(2 * 9 * 8 * 6 * 3)


def test_tensors_that_a_graph_has_from_outside_are_found_in_its_functions_too(keras: Any) -> None:
    tf = importlib.import_module("tensorflow")
    graphs = importlib.import_module("convmark.worker.backends.tensorflow_graph")
    outside, variable = tf.ones((50, 50)), tf.Variable(tf.ones((50, 50)))

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def inner(x: Any) -> Any:
        return x @ tf.constant(np.ones((50, 40), np.float32)) + tf.zeros((50, 20))[:, :1]

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def outer(x: Any) -> Any:
        return inner(x @ outside @ variable) + inner(x)

    found = graphs.held_tensors(outer.get_concrete_function(tf.TensorSpec((50, 50))).graph)
    floats = [tuple(one.shape) for one in found if one.dtype == tf.float32]
    assert sorted(floats) == [(50, 40), (50, 50)]


def test_a_loop_counts_by_its_trips_and_an_unused_product_not_at_all(keras: Any) -> None:
    tf = importlib.import_module("tensorflow")

    def seven(x: Any) -> Any:
        def body(i: Any, j: Any, x: Any) -> Any:
            return i + 2, j + i, tf.matmul(x, x)

        return tf.while_loop(lambda i, j, x: (i < 20) & (j < 50), body, (0, 0, x))[2]

    def unused(x: Any) -> Any:
        tf.matmul(x, x)
        return x

    # j is 0, 0, 2, 6, 12, 20, 30, 42, 56
    assert one_layer(keras, seven, 4, 4) == Work(8 * 2 * 64)
    assert one_layer(keras, lambda x: tf.map_fn(lambda y: y @ y, x), 5, 4, 4).flops == 5 * 128
    assert one_layer(keras, unused, 4, 4) == Work(0)


def test_branches_that_count_unlike_leave_the_count_empty_with_variables_as_constants_too(
    keras: Any,
) -> None:
    tf = importlib.import_module("tensorflow")
    graphs = importlib.import_module("convmark.worker.backends.tensorflow_graph")
    inner = keras.layers.Dense(4)
    inner.build((4, 4))

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def either(x: Any) -> Any:
        return tf.cond(tf.reduce_sum(x) < 9.0, lambda: inner(x), lambda: x)

    sample = tf.TensorSpec((4, 4), "float32")
    found = graphs.forward_work(lambda: either.get_concrete_function(sample))
    assert found.flops is None
    assert "count unlike" in found.note


def test_what_has_no_rule_leaves_the_count_empty_and_says_why(keras: Any) -> None:
    tf = importlib.import_module("tensorflow")

    def until_large(x: Any) -> Any:
        return tf.while_loop(lambda x: tf.reduce_sum(x) < 9.0, lambda x: (x @ x,), (x,))[0]

    def either(x: Any) -> Any:
        return tf.cond(tf.reduce_sum(x) < 9.0, lambda: x @ x, lambda: x)

    def python(x: Any) -> Any:
        return tf.py_function(lambda y: y, [x], tf.float32)

    def eight_bits(x: Any) -> Any:
        y = tf.cast(x, tf.int8)
        return tf.matmul(y, y, output_type=tf.int32)

    for call, reason in (
        (until_large, "depends on the data"),
        (either, "the branches of"),
        (python, "EagerPyFunc has no rule"),
        (eight_bits, "of int8 is no floating-point product"),
        (tf.linalg.inv, "MatrixInverse has no rule"),
        (lambda x: tf.signal.rfft(x), "RFFT has no rule"),
        (lambda x: tf.raw_ops.AudioSpectrogram(input=x, window_size=2, stride=1), "AudioSpec"),
        (lambda x: x.no_such, "the model cannot be traced: AttributeError"),
    ):
        found = one_layer(keras, call, 4, 4)
        assert found.flops is None
        assert reason in str(found.note)
        assert "int8" in found.dtypes or call is not eight_bits


def test_a_training_step_counts_its_backward_pass(keras: Any) -> None:
    """The gradient for the first layer's input is needed by nobody."""
    tf = importlib.import_module("tensorflow")
    graphs = importlib.import_module("convmark.worker.backends.tensorflow_graph")
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Conv2D(3, 3), keras.layers.Flatten()]
    )
    model.add(keras.layers.Dense(2))

    @tf.function  # type: ignore[untyped-decorator]
    def train(batch: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(batch, training=True))
        return loss, tape.gradient(loss, model.trainable_variables)

    batch = tf.TensorSpec((4, 8, 8, 1))
    found = per_sample(graphs.graph_work(lambda: train.get_concrete_function(batch)), 4)
    convolution, dense = 2 * 36 * 9 * 3, 2 * 108 * 2
    assert found == Work(2 * convolution + 3 * dense)


@pytest.mark.parametrize(
    ("make", "shape", "products"),
    [
        (lambda k: k.Conv2D(6, 3, padding="same", dilation_rate=3), (8, 8, 4), 64 * 36 * 6),
        (lambda k: k.DepthwiseConv2D(3, padding="same", dilation_rate=3), (8, 8, 4), 64 * 36),
        (lambda k: k.Conv1D(6, 3, padding="causal", dilation_rate=4), (10, 4), 10 * 12 * 6),
        (lambda k: k.Conv3D(2, 2, dilation_rate=2), (5, 5, 5, 2), 27 * 8 * 2 * 2),
        (lambda k: k.Conv2D(6, 3, padding="same", strides=2), (7, 7, 4), 16 * 36 * 6),
        (lambda k: k.Conv2D(6, 3, padding="same", groups=2), (8, 8, 4), 64 * 18 * 6),
        (lambda k: k.Conv2DTranspose(5, 3, strides=2, padding="same"), (8, 8, 4), 64 * 36 * 5),
    ],
)
def test_a_convolution_counts_alike_in_each_of_its_gradients(
    keras: Any, make: Maker, shape: tuple[int, ...], products: int
) -> None:
    tf = importlib.import_module("tensorflow")
    graphs = importlib.import_module("convmark.worker.backends.tensorflow_graph")
    layer = make(keras.layers)
    layer.build((None, *shape))

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def train(batch: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(batch)
            loss = tf.reduce_sum(layer(batch))
        return loss, tape.gradient(loss, [batch, *layer.trainable_variables])

    batch = tf.TensorSpec((2, *shape))
    found = per_sample(graphs.graph_work(lambda: train.get_concrete_function(batch)), 2)
    assert (work(layer, *shape), found) == (Work(2 * products), Work(2 * 3 * products))


JAX = """
import json, jax
from convmark.worker.backends.jaxpr import jaxpr_work

jnp, axes = jax.numpy, ("NHWC", "HWIO", "NHWC")
square, image, kernel = jnp.ones((4, 4)), jnp.ones((1, 8, 8, 2)), jnp.ones((3, 3, 2, 5))


def scanned(x):
    return jax.lax.scan(lambda x, _: (x @ x, None), x, None, 7)[0]


def until_large(x):
    return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ x, x)


def unused(x):
    _ = x @ x
    return x + 1


def convolved(x):
    return jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=axes)


def transposed(x):
    return jax.lax.conv_transpose(x, kernel, (1, 1), "VALID", dimension_numbers=axes)


runs = [
    (scanned, square),
    (unused, square),
    (jax.jit(lambda x: jnp.einsum("ij,kj->ik", x, x)), square),
    (convolved, image),
    (transposed, image),
    (until_large, square),
    (jnp.linalg.cholesky, square),
    (lambda x: x.astype(int) @ x.astype(int), square),
]
found = [jaxpr_work(lambda: jax.make_jaxpr(function)(given)) for function, given in runs]
print(json.dumps([[work.flops, work.note] for work in found]))
"""


def test_jax_counts_by_equation(forks_of: Callable[[str], Forks]) -> None:
    """In a process of its own: no test could fork beside JAX's threads."""
    flops, notes = zip(*printed(forks_of("jax").run(JAX)), strict=True)
    assert flops == (7 * 128, 0, 128, 2 * 16 * 90, 2 * 64 * 90, None, None, None)
    assert "depends on" in notes[5]
    assert notes[6] == "cholesky has no rule"


PYTORCH = """
import _thread, json, threading, torch
from concurrent.futures import ThreadPoolExecutor
from torch.nn import functional
from torch.utils._python_dispatch import _get_current_dispatch_mode
from convmark.worker.backends.torch_dispatch import dispatched_work

square, image, heads = torch.ones(4, 4), torch.ones(1, 2, 8, 8), torch.ones(1, 2, 6, 4)
learnt = torch.ones(1, 2, 6, 4, requires_grad=True)
kernel = torch.ones(5, 2, 3, 3, requires_grad=True)

def in_another_thread():
    # as the gradients of a GPU are computed, by a thread that is not Python's
    counting, ended = _get_current_dispatch_mode(), threading.Event()

    def work():
        with counting:
            square @ square
        ended.set()

    _thread.start_new_thread(work, ())
    assert ended.wait(60)

def aside(file):
    names = dict(globals())
    code = "run = lambda: torch.from_numpy(square.numpy() @ square.numpy())"
    exec(compile(code, file, "exec"), names)
    return names["run"]

encoder = torch.nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval()

runs = [
    lambda: square @ square,
    lambda: torch.einsum("ij,kj->ik", square, square),
    lambda: functional.linear(square, square, square[0]),
    lambda: functional.conv2d(image, kernel.detach(), padding=1),
    lambda: functional.conv_transpose2d(image, torch.ones(2, 5, 3, 3)),
    lambda: functional.conv2d(image, kernel).sum().backward(),
    lambda: functional.scaled_dot_product_attention(heads, heads, heads),
    lambda: functional.scaled_dot_product_attention(learnt, heads, heads).sum().backward(),
    lambda: (square.sqrt() * square.rsqrt()).sum(),
    lambda: torch.fft.fft(square),
    lambda: torch.linalg.inv(square + torch.eye(4)),
    lambda: square.int() @ square.int(),
    lambda: torch.from_numpy(square.numpy() @ square.numpy()),
    aside("/home/her/keras/nets.py"),
    aside("/home/her/torch/nets.py"),
    lambda: torch._int_mm(torch.ones(32, 32).char(), torch.ones(32, 32).char()),
    lambda: ThreadPoolExecutor(1).submit(lambda: square @ square).result(),
    lambda: encoder(heads[0]),
    in_another_thread,
]
with torch.no_grad():  # the fast path of an encoder is one operation
    encoded = dispatched_work(runs[-2])
works = [dispatched_work(run) for run in runs]
works[-2] = encoded
print(json.dumps([[one.flops for one in works], sorted(works[-1].dtypes | works[-4].dtypes)]))
"""


def test_pytorch_counts_by_what_it_dispatches(forks_of: Callable[[str], Forks]) -> None:
    """In a process of its own: PyTorch and TensorFlow do not go well together in one."""
    convolutions = [2 * 64 * 90, 2 * 64 * 90, 2 * 2 * 36 * 90]
    attention = [2 * 2 * 288, (2 + 5) * 2 * 288]  # scores once more, then four products
    expected = [128, 128, 128, *convolutions, *attention, 0, *[None] * 9, 128]
    assert printed(forks_of("torch").run(PYTORCH)) == [expected, ["float32", "int8"]]


def test_an_einsum_sums_over_what_its_output_lacks() -> None:
    assert einsum("e", "...x,xy->...y", [(2, 3, 4), (4, 5)]) == 2 * 2 * 3 * 4 * 5
    assert einsum("e", "bhqd,bhkd->bhqk", [(1, 2, 3, 4), (1, 2, 5, 4)]) == 2 * 2 * 3 * 4 * 5
    assert einsum("e", "bc,c->bc", [(3, 4), (4,)]) == 0
    assert einsum("e", "ij->ji", [(3, 4)]) == 0
    with pytest.raises(NoRule, match="3 operands"):
        einsum("e", "i,i,i->", [(3,), (3,), (3,)])
    with pytest.raises(NoRule, match="only while it runs"):
        einsum("e", "ij,jk->ik", [(None, 4), (4, 4)])
    with pytest.raises(NoRule, match="MatMul of complex64"):
        real_numbers("MatMul", ["complex64"])


def test_the_hash_of_an_export_is_of_all_that_its_graph_holds(
    keras: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables of no layer, large tensors, and tables, which cannot be read; Keras's version."""
    tf = importlib.import_module("tensorflow")
    exports = importlib.import_module("convmark.worker.backends.saved_model")

    def digest(*held: Any, variables: Sequence[Any] = ()) -> str:
        graph = tf.Graph()
        return str(exports.digest_of(SimpleNamespace(
            graph=graph, captured_inputs=held, variables=variables
        )))  # fmt: skip

    ones = tf.fill([300], 1.0)
    assert digest(ones) == digest(tf.fill([300], 1.0)) != digest(2 * ones)
    one, two = tf.Variable(ones), tf.Variable(2 * ones)
    handles = one.handle, two.handle
    assert digest(*handles, variables=[one, two]) == digest(*handles, variables=[two, one])
    assert digest(*handles, variables=[one, two]) != digest(*handles[::-1], variables=[one, two])
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([1], [2]), 0)
    assert digest(table.resource_handle) != digest(table.resource_handle)
    layer = keras.layers.Dense(2, name="dense")
    function = exports.forward_function(layer, 0, [np.ones((1, 3), np.float32)])
    assert (before := exports.digest_of(function)) == exports.digest_of(function)
    monkeypatch.setattr(exports, "KERAS_RELEASE", "99.0")
    assert exports.digest_of(function) != before
