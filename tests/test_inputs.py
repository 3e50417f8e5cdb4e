"""What a model is fed: its own structure, shapes, dtypes and ranges."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from workers import measured

from convmark.interpreter import Interpreter
from convmark.worker.inputs import Inputs, Leaf, flat, own_inputs, sized

ROOT = Path(__file__).resolve().parent.parent
CASES = ROOT.parent / "shared" / "cases" / "05-integer-inputs"


@pytest.fixture(scope="module")
def keras() -> Any:
    pytest.importorskip("tensorflow")
    return importlib.import_module("models.keras_api").keras


def taken(model: Any, keras: Any, **asked: tuple[int, ...]) -> Inputs:
    inputs_of = importlib.import_module("convmark.worker.backends.keras_inputs").inputs_of
    found: Inputs = inputs_of(model, keras, asked)
    return found


def test_floats_are_what_they_always_were() -> None:
    """The batches of the lecture's networks, to the last bit."""
    expected = np.random.RandomState(7).random_sample((5, 28, 28, 1)).astype(np.float32)
    drawn = Inputs.of((28, 28, 1)).batch(5, 7)
    assert drawn.dtype == np.float32
    assert drawn.tobytes() == expected.tobytes()


def test_each_dtype_has_its_range() -> None:
    leaves = [
        Leaf("bytes", (64, 64), "uint8"),
        Leaf("flags", (64,), "bool"),
        Leaf("segments", (64,), "int32"),
        Leaf("tokens", (64, 64), "int64", below=30_000),
        Leaf("small", (64, 64), "int8", below=30_000),
        Leaf("whole", (64, 64), "float32", below=9),
        Leaf("half", (64,), "float16"),
        Leaf("words", (64,), "string", choices=("ape", "bee")),
        Leaf("texts", (), "string", choices=("ape", "bee"), texts=True),
    ]
    batch = Inputs({leaf.name: leaf for leaf in leaves}).batch(4, 0)
    assert [str(batch[leaf.name].dtype) for leaf in leaves] == [
        *("uint8", "bool", "int32", "int64", "int8", "float32", "float16", "object", "object"),
    ]
    assert (batch["bytes"].min(), batch["bytes"].max()) == (0, 255)
    assert set(batch["flags"].flat) == {False, True}
    assert set(batch["segments"].flat) == {0, 1}
    assert 29_000 < batch["tokens"].max() < 30_000
    assert batch["small"].max() == 127
    assert set(batch["whole"].flat) == set(range(9))
    assert 0 <= batch["half"].min() < batch["half"].max() <= 1
    assert set(batch["words"].flat) == {"ape", "bee"}
    assert batch["texts"].shape == (4,)
    assert set(" ".join(batch["texts"]).split()) == {"ape", "bee"}


def test_ragged_rows_have_lengths_up_to_the_longest_that_are_the_same_for_every_seed() -> None:
    leaf = Leaf("rows", (128, 2), "int32", below=9, ragged=lambda *rows: rows)
    drawn = [leaf.drawn(4, np.random.RandomState(seed)) for seed in (0, 1)]
    assert [sorted(lengths) for _, lengths in drawn] == [[16, 48, 80, 112]] * 2
    assert [values.shape for values, _ in drawn] == [(256, 2)] * 2
    assert leaf.drawn(1, np.random.RandomState(0))[1].tolist() == [64]


def test_open_axes_have_a_default_or_what_is_asked_for() -> None:
    image, tokens = Leaf("image", (None, None, 3)), Leaf("tokens", (None,), "int32")
    planes, series = Leaf("planes", (3, None, None)), Leaf("series", (None, 6))
    volume = Leaf("volume", (None, None, None, 1))
    shapes = [leaf.shape for leaf in sized([image, tokens, planes, series, volume], {})]
    assert shapes == [(224, 224, 3), (128,), (3, 224, 224), (128, 6), (32, 32, 32, 1)]
    asked = {"image": (64, 48, 3)}
    assert [leaf.shape for leaf in sized([image, tokens], asked)] == [(64, 48, 3), (128,)]
    assert sized([image], {"": (64, 48, 3)})[0].shape == (64, 48, 3)
    for given, message in (
        ({"": (8, 8, 3)}, "must name the input, as in image=..., of image, tokens"),
        ({"picture": (8, 8, 3)}, "no input is named picture, only image, tokens"),
        ({"image": (8, 8, 1)}, r"image takes \?x\?x3, got 8x8x1"),
        ({"image": (8, 8)}, r"image takes \?x\?x3, got 8x8"),
    ):
        with pytest.raises(ValueError, match=message):
            sized([image, tokens], given)


def test_a_users_own_function_gives_the_batch() -> None:
    def spec(samples: int, seed: int) -> Any:
        counts = np.random.RandomState(seed).randint(0, 9, (samples, 2))
        return {"counts": counts, "parts": [np.zeros((samples, 3), np.float32)]}

    inputs = own_inputs(spec)
    assert inputs.shapes == {"counts": [2], "parts.0": [3]}
    assert [leaf.dtype for leaf in inputs.leaves] == ["int64", "float32"]
    assert [len(array) for array in flat(inputs.batch(5, 0))] == [5, 5]
    assert (inputs.batch(5, 0)["counts"] != inputs.batch(5, 1)["counts"]).any()
    wrong: tuple[tuple[Any, str], ...] = (
        (lambda samples: np.zeros((3, 2)), r"must return a batch of size 1, got \(3, 2\)"),
        (lambda samples: [1.0], "must return a batch of size 1, got float"),
        (lambda samples: samples // 0, r"input_spec\(1\) failed: ZeroDivisionError: "),
        (lambda: np.zeros((1, 2)), r"input_spec\(1\) failed: TypeError: .* takes 0 positional"),
        (np.zeros((1, 2)), "must be a function from a number of samples to a batch, got ndarray"),
    )
    for function, reason in wrong:
        with pytest.raises(ValueError, match=reason):
            own_inputs(function)
    with pytest.raises(ValueError, match=r"^target_spec must return a batch of size 1"):
        own_inputs(lambda samples: np.zeros((3, 2)), "target_spec")


def test_a_users_own_function_gives_as_many_inputs_as_a_functional_model_takes(keras: Any) -> None:
    check = importlib.import_module("convmark.worker.backends.keras_inputs").check_count
    one = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
    pair = [keras.Input((6,)), keras.Input((6,))]
    two = keras.Model(pair, keras.layers.Add()(pair))
    spec = Inputs([Leaf("0", (6,)), Leaf("1", (6,))])
    with pytest.raises(ValueError, match="the model's inputs, which are 1, got 2"):
        check(one, spec)
    with pytest.raises(ValueError, match="the model's inputs, which are 2, got 1"):
        check(two, Inputs(Leaf("0", (6,))))
    check(two, spec)


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not beside this checkout")
@pytest.mark.parametrize("name", ["embedding_int32", "embedding_watched"])
def test_token_numbers_are_below_the_vocabulary(
    keras: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.syspath_prepend(str(CASES))
    monkeypatch.delitem(sys.modules, "tokens", raising=False)
    model = getattr(importlib.import_module("tokens"), name)()
    tokens = taken(model, keras).batch(32, 0)
    assert (tokens.shape, tokens.dtype) == ((32, 256), np.int32)
    assert len(np.unique(tokens)) > 1000
    assert 150_000 < tokens.max() < 200_000


def test_an_embedding_is_found_through_layers_and_models(keras: Any) -> None:
    layers = keras.layers

    class Positions(layers.Layer):  # type: ignore[misc]  # Keras is a fixture
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = layers.Embedding(777, 8), layers.Embedding(50, 8)

        def call(self, tokens: Any) -> Any:
            return self.words(tokens) + self.places(np.arange(40))

    class Table(layers.Layer):  # type: ignore[misc]  # Keras is a fixture
        def build(self, shape: Any) -> None:
            self.rows = self.add_weight(name="rows", shape=(61, 5))

        def call(self, places: Any) -> Any:
            return importlib.import_module("tensorflow").gather(self.rows, places)

    class Net(keras.Model):  # type: ignore[misc]  # Keras is a fixture
        def __init__(self) -> None:
            super().__init__()
            self.text, self.user = Positions(), layers.Embedding(33, 8)
            self.old, self.scores = layers.Embedding(12, 8), layers.Dense(2)

        def call(self, given: Any) -> Any:
            both = self.old(given["text"][:, :4] % 12)
            user = self.user(given["user"])[:, 0]
            return self.scores(self.text(given["text"])[:, 0] + both[:, 0] + user)

    net = Net()
    net({"text": keras.Input((40,), dtype="int64"), "user": keras.Input((1,), dtype="int32")})
    assert [leaf.below for leaf in taken(net, keras).leaves] == [777, 33]

    tokens = keras.Input((6,), dtype="int32")
    inner = keras.Sequential([keras.Input((6,), dtype="int32"), layers.Embedding(21, 3)])
    nested = keras.Model(tokens, [inner(tokens), layers.Embedding(34, 3)(tokens)])
    assert taken(nested, keras).leaves[0].below == 21  # the smallest

    numbers = keras.Input((12,))  # floats, as many write it
    careless = keras.Model(numbers, layers.Embedding(90, 4)(numbers))
    assert taken(careless, keras).leaves[0].below == 90

    places = keras.Input((12,), dtype="int32")
    assert taken(keras.Model(places, Table()(places)), keras).leaves[0].below == 61

    image = keras.Input((4,))
    book = layers.Embedding(5, 2)(layers.Lambda(lambda x: x > 0)(layers.Dense(3)(image)))
    assert taken(keras.Model(image, book), keras).leaves[0].below is None  # not the image's


def test_strings_are_a_vocabularys_own_words(keras: Any) -> None:
    words = keras.Input((3,), dtype="string", name="words")
    lookup = keras.layers.StringLookup(vocabulary=["ape", "bee"])
    text = keras.Input((), dtype="string", name="text")
    split = keras.layers.TextVectorization(vocabulary=["cat", "dog"], output_sequence_length=5)
    inputs = taken(keras.Model([words, text], [lookup(words), split(text)]), keras)
    assert [(leaf.choices, leaf.texts) for leaf in inputs.leaves] == [
        (("ape", "bee"), False),
        (("cat", "dog"), True),
    ]
    assert inputs.shapes == {"words": [3], "text": []}


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_a_model_of_several_inputs_is_measured(
    backend: str, interpreter_of: Callable[[str], Interpreter]
) -> None:
    interpreter = interpreter_of(backend)
    asked = measured("builders:several_inputs", task="train", batch_size=4, backend=backend)
    asked["input_shapes"] = {"tokens": [17]}
    answer = interpreter.answer(asked)
    other = interpreter.answer({**asked, "input_shapes": {"token": [17]}})
    assert (answer.status, answer.message) == ("ok", "")
    shapes = {"image": [8, 8, 3], "tokens": [17], "mask": [4]}
    assert (answer.event("built") or {})["input_shape"] == shapes
    work = answer.event("work") or {}
    assert work["flops_per_sample"] == 2 * (4 + 192 + 4) * 3
    assert work["training_flops_per_sample"] == 3 * work["flops_per_sample"]
    assert (answer.event("input_bound") or {})["times_s"]
    assert "--input-shape: no input is named token, only image, tokens, mask" in other.message
