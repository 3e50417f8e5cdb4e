"""Models as people write them: opened into pieces that give what the model gives."""

from __future__ import annotations

import importlib
import importlib.util
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from convmark.core.case import Case
from convmark.worker.cuts import Cut, cut, groups_of
from convmark.worker.inputs import Inputs, Leaf, flat
from convmark.worker.layer_facts import folded, unit_facts
from convmark.worker.layer_passes import Passes

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("keras") is None, reason="the models need Keras"
)
IMAGE, SAMPLES = Leaf("image", (6, 6, 4)), 3
TOKENS = Leaf("tokens", (7,), "int32", below=3)


@pytest.fixture(scope="module")
def keras() -> Any:
    found = importlib.import_module("models.keras_api").keras
    if not hasattr(found, "KerasTensor"):
        pytest.skip("Keras 2 has no operations of its own")
    return found


def blocks(keras: Any) -> Any:
    """Return a block with a residual and weights of its own, and a model of two in a dictionary."""

    class Block(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.scale = self.add_weight(shape=(4,), initializer="random_normal", name="scale")
            self.parts = [keras.layers.Conv2D(4, 3, padding="same", name="conv")]
            self.parts.append(keras.layers.BatchNormalization(name="norm"))
            self.parts[0].build(shape)
            self.parts[1].build(shape)

        def call(self, maps: Any) -> Any:
            return keras.ops.relu(self.scale * maps + self.parts[1](self.parts[0](maps)))

    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.parts = {"one": Block(name="one"), "two": Block(name="two")}
            self.table = self.add_weight(shape=(4, 2), initializer="random_normal", name="table")

        def call(self, image: Any) -> Any:
            maps = self.parts["two"](self.parts["one"](image))
            return {"mean": keras.ops.mean(maps, axis=(1, 2)), "wide": maps @ self.table}

    return Net()


def frozen(keras: Any) -> Any:
    """Return a model with a part that never trains, though the model does."""
    image = keras.Input(IMAGE.shape)
    base = keras.Sequential([image, keras.layers.BatchNormalization(name="frozen")], name="base")

    class Closed(keras.layers.Layer):
        def __init__(self, **more: Any) -> None:
            super().__init__(**more)
            self.norm = keras.layers.BatchNormalization()

        def call(self, maps: Any) -> Any:
            return raw(self.norm(maps))

    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.base, self.opaque, self.told = base, Closed(name="opaque"), Closed(name="told")
            self.own = keras.layers.BatchNormalization(name="own")

        def call(self, image: Any) -> Any:
            maps = self.opaque(self.own(image))
            return self.told(self.base(maps, training=False), training=False)

    return Net()


def raw(maps: Any) -> Any:
    """Compute by the framework's own function."""
    return importlib.import_module("tensorflow").nn.relu(maps) * 2.0


def masked(keras: Any) -> Any:
    """Return a model whose layers hand on a mask: a third of all tokens is padding."""

    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.embed = keras.layers.Embedding(3, 4, mask_zero=True)
            self.drop = keras.layers.Dropout(0.0)
            self.cell = keras.layers.LSTM(4, return_sequences=True)
            self.mean = keras.layers.GlobalAveragePooling1D()

        def call(self, tokens: Any) -> Any:
            return self.mean(self.cell(self.drop(self.embed(tokens))))

    return Net()


def nested(keras: Any) -> Any:
    """Return a model inside another, with two inputs of one shape that it converts."""
    left, right = keras.Input((5,), name="left"), keras.Input((5,), name="right")
    inner = keras.Model([left, right], keras.layers.Dense(3)(left - 2 * right), name="inner")
    given = [keras.Input((5,), dtype="int32", name=name) for name in ("first", "second")]
    return keras.Model(given, inner(given))


def was_cut(keras: Any, model: Any, leaves: Any, *, training: bool = False) -> Cut:
    backend = SimpleNamespace(
        keras=keras, inputs=lambda model: Inputs(leaves), leaves=keras.tree.flatten
    )
    return cut(model, backend, SAMPLES, None, training=training)


def in_pieces(keras: Any, found: Cut, batch: Any, places: list[tuple[int, int]]) -> list[Any]:
    """Return what the pieces give; no attribute of a tensor passes from piece to piece."""
    values = dict(zip(found.inputs, flat(batch), strict=True))
    for begin, end in places:
        taken = [values[value] for value in found.taken(found.units[begin:end])]
        made = map(keras.ops.copy, found.function(begin, end)(taken))
        values.update(zip(found.given(begin, end), made, strict=True))
    return [values[value] for value in found.outputs]


MODELS = {
    blocks: (IMAGE, "one/multiply one/conv one/norm one/add one/relu"),
    frozen: (IMAGE, "own opaque base/frozen told"),
    masked: (TOKENS, "embedding dropout lstm global_average_pooling1d"),
    nested: (
        [Leaf(name, (5,), "int32") for name in ("first", "second")],
        "inner/convert_to_tensor",
    ),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("make", MODELS)
def test_pieces_give_what_the_model_gives(keras: Any, make: Any, training: bool) -> None:
    leaves, names = MODELS[make]
    keras.backend.clear_session()
    model = make(keras)
    batch = Inputs(leaves).batch(SAMPLES, 0)
    found = was_cut(keras, model, leaves, training=training)
    assert " ".join(unit.name for unit in found.units).startswith(names)
    wanted = keras.tree.flatten(model(batch, training=training))
    for places in ([(one, one + 1) for one in range(len(found.units))], groups_of(found.units)):
        for got, want in zip(in_pieces(keras, found, batch, places), wanted, strict=True):
            np.testing.assert_allclose(np.asarray(got), np.asarray(want), rtol=1e-4, atol=1e-6)


def test_operations_have_the_weights_that_they_are_given(keras: Any) -> None:
    model = blocks(keras)
    found = was_cut(keras, model, IMAGE, training=True)
    holders = [part for unit in found.units for part in unit.holders]
    held = {id(one) for part in holders for one in getattr(part, "variables", [])}
    assert held == {id(one) for one in model.variables}
    scaled, *_, product = found.units
    assert set(scaled.gives) <= found.trained()
    assert (product.name, unit_facts(product, keras)["flops"]) == ("matmul", None)


def test_a_cut_leaves_the_model_without_new_nodes(keras: Any) -> None:
    model = blocks(keras)
    model(np.zeros((1, *IMAGE.shape), np.float32))
    layers = [model, *model._flatten_layers()]
    before = [len(one._inbound_nodes) for one in layers]
    was_cut(keras, model, IMAGE)
    assert [len(one._inbound_nodes) for one in layers] == before


def test_a_block_in_low_precision_converts_what_it_is_given_in_a_row_of_its_own(
    keras: Any,
) -> None:
    class Block(keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__(name="block", dtype="mixed_bfloat16")
            self.scale = self.add_weight(shape=(4,), initializer="random_normal")
            self.conv = keras.layers.Conv2D(4, 1, name="conv", dtype="mixed_bfloat16")
            self.conv.build((None, *IMAGE.shape))

        def call(self, maps: Any) -> Any:
            return self.conv(maps) + self.scale * maps

    image = keras.Input(IMAGE.shape)
    model = keras.Model(image, Block()(image))
    batch = Inputs(IMAGE).batch(SAMPLES, 0)
    found = was_cut(keras, model, IMAGE)
    assert [unit.name for unit in found.units][:2] == ["block/cast", "block/conv"]
    (got,) = in_pieces(keras, found, batch, [(place, place + 1) for place in range(4)])
    want = model(batch)
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(np.asarray(got, np.float32), np.asarray(want, np.float32))


def test_a_model_that_computes_by_its_framework_is_one_row_that_says_so(keras: Any) -> None:
    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="net")
            self.conv = keras.layers.Conv2D(4, 1)

        def call(self, image: Any) -> Any:
            return raw(self.conv(image))

    model, batch = Net(), Inputs(IMAGE).batch(SAMPLES, 0)
    found = was_cut(keras, model, IMAGE)
    (unit,) = found.units
    assert (unit.name, unit.note[:27]) == ("net", "computes outside its layers")
    (got,) = in_pieces(keras, found, batch, [(0, 1)])
    np.testing.assert_allclose(np.asarray(got), np.asarray(model(batch)))


def test_what_is_computed_of_weights_alone_is_in_the_rest_and_not_without_its_gradient(
    keras: Any,
) -> None:
    class Tied(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="tied")
            self.table = keras.layers.Embedding(3, 4, name="table")

        def call(self, tokens: Any) -> Any:
            return self.table(tokens) @ keras.ops.transpose(self.table.embeddings)

    model, batch = Tied(), Inputs(TOKENS).batch(SAMPLES, 0)
    found = was_cut(keras, model, TOKENS)
    assert [unit.name for unit in found.units] == ["table", "matmul"]
    assert "in the rest" in found.units[1].note
    (got,) = in_pieces(keras, found, batch, [(0, 1), (1, 2)])
    np.testing.assert_allclose(np.asarray(got), np.asarray(model(batch)), rtol=1e-5)
    (closed,) = was_cut(keras, model, TOKENS, training=True).units
    assert closed.name == "tied"


def test_a_table_moves_the_rows_that_are_read_and_a_view_moves_nothing(keras: Any) -> None:
    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.embed = keras.layers.Embedding(1000, 4)
            self.table = self.add_weight(shape=(4, 2), name="table")

        def call(self, tokens: Any) -> Any:
            made = self.embed(tokens)[:, 0] @ self.table
            return keras.ops.reshape(made, (-1, 1))

    found = was_cut(keras, Net(), TOKENS)
    moved = {unit.name: unit_facts(unit, keras)["moved_bytes"] for unit in found.units}
    assert moved == {
        "embedding": 4 * (7 * SAMPLES + 2 * 7 * SAMPLES * 4),
        "get_item": 4 * 2 * SAMPLES * 4,
        "matmul": 4 * (SAMPLES * 4 + 4 * 2 + SAMPLES * 2),
        "reshape": 0,
    }


def test_a_unit_tells_in_what_it_multiplies(keras: Any) -> None:
    image = keras.Input(IMAGE.shape)
    maps = keras.layers.Conv2D(4, 1, dtype="float64", name="wide")(image)
    maps = keras.layers.ReLU(name="relu")(keras.layers.Conv2D(4, 1, name="plain")(maps))
    found = was_cut(keras, keras.Model(image, maps), IMAGE)
    told = {unit.name: unit_facts(unit, keras)["computes"] for unit in found.units}
    assert (told["wide"], told["plain"], told["relu"]) == ("float64", "float32", "")


def test_what_no_loss_reaches_has_no_backward_pass(keras: Any) -> None:
    """A step has no gradients of what a `stop_gradient` ends, nor of outputs without a loss."""
    image = keras.Input((6,))
    base = keras.layers.Dense(4, name="base")(image)
    target = keras.ops.stop_gradient(keras.layers.Dense(4, name="target")(image))
    main = keras.layers.Dense(2, name="main")(base * target)
    aside = keras.layers.Dense(2, name="aside")(keras.layers.Dense(3, name="before")(base))
    model = keras.Model(image, {"main": main, "aside": aside})
    leaves = Leaf("image", (6,))
    for loss, reached in (("mse", True), ({"main": "mse"}, False)):
        model.compile("sgd", loss)
        found = was_cut(keras, model, leaves, training=True)
        gives = {unit.name: set(unit.gives) for unit in found.units}
        followed = found.followed()
        assert not followed & gives["target"]
        assert gives["base"] | gives["main"] <= followed
        assert (gives["before"] <= followed) == reached
        notes = {unit.name: unit.note for unit in found.units}
        assert notes["aside"].startswith("the loss does not") == (not reached)
        assert notes["main"] == ""


def test_a_batch_normalisation_folds_into_the_linear_layer_whose_result_nothing_else_takes(
    keras: Any,
) -> None:
    layer = keras.layers
    image = keras.Input(IMAGE.shape)

    def normed(maps: Any, name: str, **more: Any) -> Any:
        made = layer.Conv2D(4, 1, name=name, **more)(maps)
        return layer.BatchNormalization(name=f"of_{name}")(made), made

    plain, _ = normed(image, "plain")
    active, _ = normed(plain, "active", activation="relu")
    both, taken = normed(active, "taken")
    dense = layer.Dense(4, name="dense")
    again = dense(dense(both + taken))
    first = layer.BatchNormalization(name="of_shared")(again)
    again, _ = normed(first, "second")
    last = layer.BatchNormalization(axis=1, name="of_axis")(layer.Conv2D(4, 1)(again))
    found = was_cut(keras, keras.Model(image, last), IMAGE)
    names = {found.units[place].name: before.name for place, before in folded(found).items()}
    assert names == {"of_plain": "plain", "of_second": "second"}


def test_a_batch_normalisation_by_the_mean_of_its_batch_folds_into_nothing(keras: Any) -> None:
    layer = keras.layers

    class Net(keras.Model):  # type: ignore[misc]  # Keras is a fixture
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = layer.Conv2D(4, 1), layer.BatchNormalization()
            self.more: dict[str, bool] = {}

        def call(self, image: Any) -> Any:
            return self.norm(self.conv(image), **self.more)

    model = Net()
    assert list(folded(was_cut(keras, model, IMAGE))) == [1]
    model.more = {"training": True}
    assert folded(was_cut(keras, model, IMAGE)) == {}


def test_a_recurrent_layer_has_an_operation_for_each_step_of_time(keras: Any) -> None:
    found = was_cut(keras, masked(keras), TOKENS)
    facts = [unit_facts(unit, keras) for unit in found.units]
    counts = {one["kind"]: one["operations"] for one in facts}
    assert counts["LSTM"] >= 7
    assert counts["Embedding"] == 1


def test_no_gradient_passes_what_ends_it(keras: Any) -> None:
    """A block's own code, a Lambda, a function as activation, an operation without a gradient; what
    a block's own weights give goes on where only its input is stopped."""
    tf = pytest.importorskip("tensorflow")

    class Stops(keras.layers.Layer):
        def __init__(self, at_its_end: bool, **more: Any) -> None:
            super().__init__(**more)
            self.inner, self.at_its_end = keras.layers.Dense(4), at_its_end

        def call(self, values: Any) -> Any:
            if self.at_its_end:
                return tf.stop_gradient(self.inner(values))
            return self.inner(tf.stop_gradient(values))

    image = keras.Input((6,))
    base = keras.layers.Dense(4, name="base")(image)
    first = Stops(at_its_end=False, name="first")(base)
    aside = keras.layers.Dense(4, name="aside")(image)
    last = Stops(at_its_end=True, name="last")(aside)
    other = keras.layers.Dense(4, name="other")(image)
    ended = keras.layers.Lambda(tf.stop_gradient, name="ended")(other)
    ends = [keras.ops.floor(keras.layers.Dense(4, name="before_floor")(image))]
    for name, end in {"own": tf.stop_gradient, "of_keras": keras.ops.stop_gradient}.items():
        before = keras.layers.Dense(4, name=f"before_{name}")(image)
        ends.append(keras.layers.Dense(4, activation=end, name=name)(before))
    both = keras.layers.Add(name="both")([first, last, ended, *ends])
    model = keras.Model(image, keras.layers.Dense(2, name="head")(both))
    found = was_cut(keras, model, Leaf("image", (6,)), training=True)
    backend = SimpleNamespace(
        clocked=lambda *_: None,
        piece=lambda *_: None,
        backward_piece=lambda *_: None,
        of_layers=lambda: importlib.import_module("convmark.worker.backends.tensorflow_layers"),
    )
    case = Case(model="net", task="train", batch_size=SAMPLES)
    Passes(case, found, [tf.ones((SAMPLES, 6))], backend).prepare([[(0, len(found.units))]])
    gives = {unit.name: unit.gives[0] for unit in found.units}
    stopped = {"base", "aside", "other", *(name for name in gives if name.startswith("before"))}
    assert found.followed() == {gives[name] for name in {*gives} - stopped}
    untrained = {"last", "ended", "floor", "own", "of_keras"}
    assert found.trained() == {gives[name] for name in {*gives} - untrained}
