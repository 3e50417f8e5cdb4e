"""A model cut at its layers: the pieces give what the model gives; what cannot be cut says so."""

from __future__ import annotations

import importlib
import importlib.util
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from convmark.core.case import Case
from convmark.worker import layers, measurement
from convmark.worker.backends.step import Piece
from convmark.worker.cuts import Cut, cut, groups_of
from convmark.worker.failure import CaseFailure
from convmark.worker.inputs import Inputs, Leaf, flat
from convmark.worker.layer_facts import moved_bytes, unit_facts
from convmark.worker.layer_mode import held_to_the_layers, held_to_the_pieces
from convmark.worker.work import Work

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="the zoo needs Keras"),
    pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning"),
]

SAMPLES, IMAGE = 2, (8, 8, 3)


@pytest.fixture(scope="module")
def keras() -> Any:
    return importlib.import_module("models.keras_api").keras


def was_cut(
    keras: Any, model: Any, depth: int | None = None, *, training: bool = False, inputs: Any = IMAGE
) -> Cut:
    leaves = keras.tree.flatten if hasattr(keras, "tree") else lambda one: list(flat(one))
    backend = SimpleNamespace(keras=keras, inputs=lambda model: Inputs.of(inputs), leaves=leaves)
    return cut(model, backend, SAMPLES, depth, training=training)


def values_of(found: Cut, batch: Any, places: list[tuple[int, int]]) -> dict[int, Any]:
    values = dict(zip(found.inputs, [batch], strict=True))
    for begin, end in places:
        taken = [values[value] for value in found.taken(found.units[begin:end])]
        values.update(zip(found.given(begin, end), found.function(begin, end)(taken), strict=True))
    return values


def in_pieces(found: Cut, batch: Any, places: list[tuple[int, int]]) -> list[Any]:
    values = values_of(found, batch, places)
    return [values[value] for value in found.outputs]


def residual(keras: Any) -> Any:
    """Return a functional model with a nested block, a branch, and an operation without a layer."""
    inner = keras.Sequential(
        [keras.layers.Conv2D(4, 3, padding="same", name="conv"), keras.layers.ReLU(name="relu")],
        name="inner",
    )
    image = keras.Input(IMAGE)
    maps = keras.layers.Conv2D(4, 1, name="stem")(image)
    maps = keras.layers.BatchNormalization(name="norm")(maps)
    maps = inner(inner(maps)) + maps
    return keras.Model(image, keras.layers.Flatten(name="flat")(maps))


def outside(keras: Any) -> Any:
    """Return a subclassed model whose block computes outside its layers."""

    class Block(keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__(name="block")
            self.conv = keras.layers.Conv2D(4, 1)

        def call(self, image: Any) -> Any:
            return importlib.import_module("tensorflow").nn.relu(self.conv(image))

    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = Block(), keras.layers.Flatten(name="flat")

        def call(self, image: Any) -> Any:
            return self.second(self.first(image))

    return Net()


@pytest.mark.parametrize("make", [outside, residual])
def test_units_one_by_one_and_in_groups_give_what_the_model_gives(keras: Any, make: Any) -> None:
    model = make(keras)
    batch = np.random.default_rng(0).random((SAMPLES, *IMAGE), np.float32)
    found = was_cut(keras, model)
    alone = [(place, place + 1) for place in range(len(found.units))]
    want = next(flat(model(batch, training=False)))
    for places in (alone, groups_of(found.units)):
        (got,) = in_pieces(found, batch, places)
        np.testing.assert_allclose(np.asarray(got), np.asarray(want), rtol=1e-5)


def test_inputs_and_outputs_by_name_are_in_the_order_of_their_keys(keras: Any) -> None:
    if not hasattr(keras, "tree"):
        pytest.skip("needs Keras 3, whose own order is that of a batch on the device")
    zeta, alpha = keras.Input((4,), name="zeta"), keras.Input((4,), name="alpha")
    made = keras.layers.Dense(3)(zeta) - keras.layers.Dense(3)(alpha)
    last = keras.layers.ReLU(name="last")(made)
    model = keras.Model({"zeta": zeta, "alpha": alpha}, {"raw": made, "clear": last})
    leaves = {name: Leaf(name, (4,)) for name in ("zeta", "alpha")}
    found = was_cut(keras, model, inputs=Inputs(leaves))
    batch = {name: np.full((SAMPLES, 4), number) for number, name in enumerate(leaves, 1)}
    values = dict(zip(found.inputs, keras.tree.flatten(batch), strict=True))
    taken = [values[value] for value in found.taken(found.units)]
    made_now = found.function(0, len(found.units))(taken)
    values.update(zip(found.given(0, len(found.units)), made_now, strict=True))
    got = [np.asarray(values[value]) for value in found.outputs]
    for one, want in zip(got, keras.tree.flatten(model(batch)), strict=True):
        np.testing.assert_allclose(one, np.asarray(want), rtol=1e-5)


def test_blocks_are_opened_to_the_depth_that_is_asked_for(keras: Any) -> None:
    model = residual(keras)
    opened = [unit.name for unit in was_cut(keras, model).units]
    assert opened[2:6] == ["inner/conv", "inner/relu", "inner/conv#2", "inner/relu#2"]
    folded = was_cut(keras, model, 1)
    assert [unit.name for unit in folded.units[2:4]] == ["inner", "inner#2"]
    facts = unit_facts(folded.units[2], keras)
    assert facts["flops"] == 2 * SAMPLES * 8 * 8 * 9 * 4 * 4
    assert facts["moved_bytes"] == 4 * (2 * SAMPLES * 8 * 8 * 4 + 9 * 4 * 4 + 4)


def test_a_block_that_computes_outside_its_layers_is_one_row_that_says_so(keras: Any) -> None:
    block, flat_layer = was_cut(keras, outside(keras)).units
    assert (block.name, block.note) == (
        "block",
        "computes outside its layers, so they cannot be called separately",
    )
    assert flat_layer.note == ""


def test_a_group_is_a_convolution_with_what_follows_it(keras: Any) -> None:
    units = was_cut(keras, residual(keras)).units
    groups = [[unit.name for unit in units[begin:end]] for begin, end in groups_of(units)]
    assert groups[:3] == [
        ["stem", "norm"],
        ["inner/conv", "inner/relu"],
        ["inner/conv#2", "inner/relu#2"],
    ]


def test_a_group_moves_what_it_takes_its_weights_and_what_its_last_layer_gives(keras: Any) -> None:
    image = keras.Input(IMAGE)
    maps = keras.layers.Conv2D(4, 1)(image)
    maps = keras.layers.BatchNormalization()(maps)
    units = was_cut(keras, keras.Model(image, keras.layers.MaxPooling2D(2)(maps))).units
    weights = 3 * 4 + 4 + 4 * 4
    assert moved_bytes(units) == 4 * (SAMPLES * 8 * 8 * 3 + weights + SAMPLES * 4 * 4 * 4)


def test_a_piece_returns_what_is_taken_and_all_of_a_layer_that_nothing_takes(keras: Any) -> None:
    class Two(keras.layers.Layer):
        def call(self, maps: Any) -> Any:
            return maps * 2.0, maps * 3.0

    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.conv = keras.layers.Conv2D(4, 1, name="conv")
            self.taken, self.unused = Two(name="taken"), Two(name="unused")

        def call(self, image: Any) -> Any:
            maps = self.conv(image)
            self.unused(maps)
            return self.taken(maps)[1]

    found = was_cut(keras, Net())
    assert [len(found.given(place, place + 1)) for place in range(3)] == [1, 2, 1]
    assert len(found.given(0, 3)) == 3
    notes = {unit.name: unit.note for unit in found.units}
    assert notes.pop("unused").startswith("the output does not depend on it")
    assert set(notes.values()) == {""}


def test_a_layer_is_told_whether_it_trains_unless_the_model_says_so(keras: Any) -> None:
    told: list[Any] = []

    class Told(keras.layers.Layer):
        def call(self, image: Any, training: Any = None) -> Any:
            told.append(training)
            return image

    class Frozen(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = Told(), Told(), Told()

        def call(self, image: Any, training: Any = None) -> Any:
            image = self.second(self.first(image, training=False), training=training)
            return self.third(image)

    found = was_cut(keras, Frozen(), training=True)
    told.clear()
    in_pieces(found, np.zeros((SAMPLES, *IMAGE), np.float32), [(0, 3)])
    assert told == [False, True, True]


def test_gradients_are_passed_on_to_what_comes_after_a_weight_that_is_trained(keras: Any) -> None:
    image = keras.Input(IMAGE)
    frozen = keras.layers.Conv2D(4, 1, trainable=False)(image)
    relu = keras.layers.ReLU()(frozen)
    trained = keras.layers.ReLU()(keras.layers.Conv2D(4, 1)(relu))
    found = was_cut(keras, keras.Model(image, keras.layers.Add()([relu, trained])), training=True)
    conv, activation, last = (unit.gives[0] for unit in found.units[2:])
    assert found.trained() == {conv, activation, last}
    assert not found.trained() & {*found.inputs, *found.units[1].gives}


def test_a_backward_pass_waits_for_all_that_the_piece_computes(keras: Any) -> None:
    """As in a step it waits for the loss; beside it, work would be missing from the time."""
    pytest.importorskip("tensorflow")
    pieces = importlib.import_module("convmark.worker.backends.tensorflow_layers")
    tf = pieces.tf
    weight = tf.Variable(2.0)
    one = Piece(
        function=lambda values: [values[0] * weight + tf.tanh(tf.stop_gradient(values[0]))],
        layers=[SimpleNamespace(trainable_variables=[weight])],
        takes=[0],
        gives=[1],
        inner=[True],
    )
    piece = pieces.backward_piece(one, compiled=False)
    _, _, gradients = piece.get_concrete_function([tf.ones(3)], [tf.ones(3)]).structured_outputs
    before, found = [one.op for one in gradients], set()
    while before:
        op = before.pop()
        if op.name not in found:
            found.add(op.name)
            before += [one.op for one in op.inputs] + list(op.control_inputs)
    assert "Tanh" in found


def served(
    net: Any, batch: Any, task: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[Case, SimpleNamespace]:
    """Return what `layers.serve` measures a model by that is built and compiled by no framework."""
    whole = lambda *_: lambda: (None, [net(batch)])  # noqa: E731
    backend = SimpleNamespace(
        keras=importlib.import_module("models.keras_api").keras,
        call_path="tf.function",
        settings=dict,
        companions=[],
        always_compiles=False,
        inputs=lambda model: Inputs.of(IMAGE),
        device_batch=lambda *_: [batch],
        leaves=lambda one: list(flat(one)),
        array=np.asarray,
        synchronise=lambda token: None,
        piece=lambda one, compiled: lambda values: (None, one.function(values)),
        backward_piece=lambda *_: None,
        as_written=nullcontext,
        clocked=lambda *_: None,
        inference_step=whole,
        reference_step=whole,
        settle=lambda model: None,
        work=lambda *_: Work(None, "not counted here"),
    )
    monkeypatch.setattr(measurement, "build", lambda *_: net)
    monkeypatch.setattr(measurement, "make_step", lambda *_: (whole(), None))
    return Case(model="net", task=task, batch_size=SAMPLES), backend


@pytest.mark.parametrize("task", ["infer", "train"])
def test_layers_that_do_not_give_what_the_model_gives_are_not_measured(
    task: str, keras: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Scaled(keras.layers.Layer):
        factor = 1.0

        def call(self, image: Any) -> Any:
            return image * self.factor

    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.scaled = Scaled()

        def call(self, image: Any) -> Any:
            self.scaled.factor = 2.0
            made = self.scaled(image)
            self.scaled.factor = 1.0
            return made

    net = Net()
    batch = np.full((SAMPLES, *IMAGE), 1e-4, np.float32)  # as probabilities of many classes are
    case, backend = served(net, batch, task, monkeypatch)
    with pytest.raises(CaseFailure, match="net: its layers, called one by one, give other results"):
        layers.serve(case, None, {"seed": 0, "seconds": 0.0}, backend, lambda *_, **__: None)


@pytest.mark.parametrize("kind", ["counts", "recurrent"])
def test_a_layer_with_state_has_a_time_too(
    kind: str, keras: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counts(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.seen = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, image: Any) -> Any:
            self.seen.assign(self.seen + 1)
            return image * self.seen

    layer = keras.layers
    kinds = {
        "counts": [Counts()],
        "recurrent": [layer.Reshape((64, 3)), layer.GRU(2, stateful=True, return_sequences=True)],
    }
    image = keras.Input(batch_shape=(SAMPLES, *IMAGE))
    net = keras.Sequential([image, *kinds[kind], layer.Flatten()])
    case, backend = served(net, np.ones((SAMPLES, *IMAGE), np.float32), "infer", monkeypatch)
    found: list[Any] = []
    monkeypatch.setattr(layers._Rounds, "take", lambda rounds, seconds: found.append(rounds))
    monkeypatch.setattr(layers._Rounds, "fields", lambda rounds: {"step_s": 1.0})
    layers.serve(case, None, {"seed": 0, "seconds": 0.0}, backend, lambda *_, **__: None)
    assert len(found) == 1


@pytest.mark.parametrize("task", ["infer", "train"])
def test_what_is_opened_while_layers_are_timed_is_no_code_of_the_case(
    task: str, keras: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BegunError(Exception):
        """The rounds have begun."""

    def begin(rounds: Any, seconds: float) -> None:
        raise BegunError

    net = keras.Sequential([keras.Input(IMAGE), keras.layers.Flatten(), keras.layers.Dense(2)])
    batch = np.ones((SAMPLES, *IMAGE), np.float32)
    case, backend = served(net, batch, task, monkeypatch)
    monkeypatch.setattr(layers._Rounds, "take", begin)
    events: list[str] = []
    watch: Any = SimpleNamespace(report=lambda emit: events.append("code"))
    watched = importlib.import_module("convmark.worker.child")._Watched
    emit = watched(watch, lambda event, **_: events.append(event))
    with pytest.raises(BegunError):
        layers.serve(case, None, {"seed": 0, "seconds": 0.0}, backend, emit)
    assert events == ["code", "first_step"]


def test_what_has_no_layers_or_is_not_so_deep_is_refused_in_one_line(keras: Any) -> None:
    class Bare(keras.Model):
        def call(self, image: Any) -> Any:
            return image * 2.0

    for model, depth, words in (
        (Bare(), None, "has no layers: it computes only in its own call"),
        (residual(keras), 3, "--depth: must be at most 2, its levels of layers, got 3"),
    ):
        with pytest.raises(CaseFailure, match=words.replace("+", r"\+")):
            was_cut(keras, model, depth)


def test_pieces_in_one_graph_give_what_the_model_gives_and_each_is_timed(keras: Any) -> None:
    from convmark.worker.backends.tensorflow_layers import clocked

    model = residual(keras)
    batch = np.random.default_rng(0).random((SAMPLES, *IMAGE), np.float32)
    found = was_cut(keras, model)
    places = groups_of(found.units)
    values = values_of(found, batch, places)
    for inner in (None, True):
        pieces = [
            Piece(
                function=found.function(*place),
                layers=[unit.call.layer for unit in found.units[slice(*place)]],
                takes=(takes := found.taken(found.units[slice(*place)])),
                gives=found.given(*place),
                inner=inner and [value not in found.inputs for value in takes],
            )
            for place in places
        ]
        targets = [[values[value] for value in one.gives] if inner else [] for one in pieces]
        chain = clocked(pieces, found.inputs, found.outputs, compiled=False)
        assert chain is not None
        (got,), seconds, cuts_s = chain([batch], targets)
        want = next(flat(model(batch, training=False)))
        np.testing.assert_allclose(np.asarray(got), np.asarray(want), rtol=1e-5)
        assert len(seconds) == len(cuts_s) == len(places)
        assert min(seconds) > 0


def test_layers_with_state_give_in_one_graph_what_their_first_call_gives(keras: Any) -> None:
    """As the model does in the step that they are compared with."""
    tf = importlib.import_module("tensorflow")
    from convmark.worker.backends.tensorflow_layers import clocked

    seen = tf.Variable(0.0)
    piece = Piece(
        function=lambda values: [values[0] * seen.assign_add(1.0)],
        layers=[], takes=[0], gives=[1], inner=None,
    )  # fmt: skip
    chain = clocked([piece], [0], [1], compiled=False)
    assert chain is not None
    (got,), _, _ = chain([np.ones((SAMPLES, 2), np.float32)], [[]])
    assert np.asarray(got).tolist() == [[1.0, 1.0]] * SAMPLES


def test_layers_that_python_chooses_anew_when_it_traces_have_no_times(keras: Any) -> None:
    class Net(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.blocks = [keras.layers.Dense(3, name=f"block{place}") for place in range(3)]
            self.norm = keras.layers.BatchNormalization(name="norm")
            self.chosen = [0, 2]

        def call(self, image: Any, training: bool = False) -> Any:
            for place in self.chosen if training else range(3):
                image = self.blocks[place](image)
            return self.norm(image, training=False)

    model, batch = Net(), np.ones((SAMPLES, *IMAGE), np.float32)
    model(batch)
    found = was_cut(keras, model, training=True)
    with held_to_the_layers("net", model, found):
        model(batch, training=False)  # to make its variables, perhaps
        model(batch, training=True)
    model.chosen = [0, 1]
    words = r"net: calls other layers each time it is traced \(block1, block2\)"
    with pytest.raises(CaseFailure, match=words), held_to_the_layers("net", model, found):
        model(batch, training=True)
    with held_to_the_layers("net", model, was_cut(keras, model)):
        model(batch, training=True)  # in inference the results are compared


def test_a_step_of_the_models_own_that_calls_layers_otherwise_has_no_layers(keras: Any) -> None:
    class Net(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.norm = keras.layers.BatchNormalization(name="norm")
            self.head = keras.layers.Dense(2, name="head")

        def call(self, image: Any, training: bool = False) -> Any:
            return self.head(self.norm(image, training=training))

        def train_step(self, data: Any) -> Any:
            return {}

    model, batch = Net(), np.ones((SAMPLES, *IMAGE), np.float32)
    model(batch)
    found = was_cut(keras, model, training=True)
    with held_to_the_pieces("net", model, found):
        keras.layers.Dense(2)(model(batch, training=True))  # what it calls besides is in the rest
    words = r"net: its own training step calls norm 0 times in training, but model\(.* 1 times;"
    with pytest.raises(CaseFailure, match=words), held_to_the_pieces("net", model, found):
        model(batch, training=False)
    words = "calls norm 2 times in training"
    with pytest.raises(CaseFailure, match=words), held_to_the_pieces("net", model, found):
        model(model(batch, training=True)[:, :1, :1, :1] + batch, training=True)
    plain = residual(keras)
    with held_to_the_pieces("plain", plain, was_cut(keras, plain, training=True)):
        pass  # Keras's own step is what is timed
