"""Models with one thing changed: other channels, or without batch normalisation."""

from __future__ import annotations

import importlib
import importlib.util
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from convmark.session import advice
from convmark.worker.builders import Builder
from convmark.worker.failure import CaseFailure
from convmark.worker.inputs import Inputs
from convmark.worker.variants import MULTIPLE

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("keras") is None, reason="the models need Keras"
)
IMAGE = (6, 6, 4)


@pytest.fixture(scope="module")
def keras() -> Any:
    found = importlib.import_module("models.keras_api").keras
    if not hasattr(found, "KerasTensor"):
        pytest.skip("Keras 2 rebuilds no model so")
    return found


def varied(keras: Any, model: Any, variant: str) -> Any:
    backend = SimpleNamespace(
        keras=keras,
        inputs=lambda model: Inputs.of(IMAGE),
        leaves=keras.tree.flatten,
        take_inputs=lambda model, spec: None,
    )
    return Builder(lambda: model).varied(variant, backend)()


def gated(keras: Any) -> Any:
    """Return a model with a residual, channels that gate others, one gate for all, and a head."""
    layer = keras.layers
    image = keras.Input(IMAGE)
    maps = layer.Conv2D(6, 3, padding="same", name="stem")(image)
    maps = layer.DepthwiseConv2D(3, padding="same")(maps)
    gate = layer.GlobalAveragePooling2D(keepdims=True)(maps)
    gate = layer.Conv2D(6, 1, activation="sigmoid", name="gate")(
        layer.Conv2D(3, 1, name="squeeze")(gate)
    )
    maps = maps * gate + layer.Conv2D(6, 1, name="same")(maps)
    maps = maps * layer.Conv2D(1, 1, name="one")(maps)
    maps = layer.Conv2D(16, 1, name="even")(maps)
    return keras.Model(image, layer.Dense(10, name="head")(layer.GlobalMaxPooling2D()(maps)))


def test_channels_are_rounded_up_but_for_single_ones_and_those_of_the_outputs(keras: Any) -> None:
    model = gated(keras)
    found = varied(keras, model, "channels")
    filters = {
        one.name: getattr(one, "filters", None) or one.units
        for one in found.layers
        if hasattr(one, "filters") or hasattr(one, "units")
    }
    wide = {"stem": 8, "gate": 8, "squeeze": 8, "same": 8, "one": 1, "even": 16, "head": 10}
    assert filters == wide
    assert model.get_layer("stem").filters == 6
    image = np.ones((2, *IMAGE), np.float32)
    assert tuple(found(image).shape) == tuple(model(image).shape)
    assert MULTIPLE == advice.MULTIPLE


def test_a_model_is_trained_as_it_was_compiled_with_other_channels_too(
    keras: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, clone_model = gated(keras), keras.models.clone_model
    model.compile("adam", "mse")

    def without(*given: Any, **more: Any) -> Any:
        found = clone_model(*given, **more)  # as Keras had it at first
        found.compiled, found.optimizer = False, None
        return found

    for clone in (clone_model, without):
        monkeypatch.setattr(keras.models, "clone_model", clone)
        found = varied(keras, model, "channels")
        assert (type(found.optimizer).__name__, found.loss) == ("Adam", "mse")


def refused(keras: Any) -> dict[str, Any]:
    layer = keras.layers

    class Own(keras.Model):
        def call(self, image: Any) -> Any:
            return image

    def made(*layers: Any) -> Any:
        return keras.Sequential([keras.Input(IMAGE), *layers])

    image = keras.Input(IMAGE)
    samples = keras.ops.reshape(layer.Conv2D(6, 1)(image), (-1, 6, 1))
    return {
        "its own code makes its layers": Own(),
        "has no Input": keras.Sequential([layer.Dense(6)]),
        "no channels are left": made(layer.Conv2D(16, 1), layer.Dense(10)),
        "cannot be rebuilt: .*total size of the tensor must be unchanged": made(
            layer.Conv2D(6, 1), layer.Reshape((36, 6)), layer.Dense(4)
        ),
        "results would have another shape": keras.Model(image, samples),
    }


def test_a_model_that_cannot_be_rebuilt_or_would_give_another_shape_is_refused(
    keras: Any,
) -> None:
    for words, model in refused(keras).items():
        with pytest.raises(CaseFailure, match=words):
            varied(keras, model, "channels")


def test_a_batch_normalisation_that_folds_is_a_bias_and_others_stay(keras: Any) -> None:
    layer = keras.layers

    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.conv = layer.Conv2D(5, 1, use_bias=False)
            self.norm = layer.BatchNormalization()
            self.biased, self.other = layer.Conv2D(5, 1), layer.BatchNormalization()
            self.relu, self.last = layer.ReLU(), layer.BatchNormalization()

        def call(self, image: Any) -> Any:
            maps = self.other(self.biased(self.norm(self.conv(image))))
            return self.last(self.relu(maps))

    model, image = Net(), np.ones((2, *IMAGE), np.float32)
    model(image)
    for norm in (model.norm, model.other, model.last):
        norm.moving_mean.assign(np.full(5, 0.5, np.float32))
        norm.gamma.assign(np.full(5, 3.0, np.float32))
    found = varied(keras, model, "folded")
    maps = model.relu(model.biased(model.conv(image) + 0.5))
    wanted = model.last(maps, training=False)
    np.testing.assert_allclose(np.asarray(found(image)), np.asarray(wanted), rtol=1e-5)
    with pytest.raises(CaseFailure, match="has no batch normalisation that the layer before"):
        varied(keras, gated(keras), "folded")
