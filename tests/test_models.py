"""The zoo: published sizes, shapes and styles, the registry's names, and what it refuses."""

from __future__ import annotations

import importlib
import importlib.util
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import models
from convmark.core.option_values import did_you_mean
from convmark.interpreter.inspection import zoo_names

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="the zoo needs Keras"),
    # Keras 2.12's own docstrings, compiled afresh where byte code is not kept
    pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning"),
]

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def keras() -> Any:
    return importlib.import_module("models.keras_api").keras


def parameters(weights: list[Any]) -> int:
    return sum(math.prod(weight.shape) for weight in weights)


@pytest.mark.parametrize(
    ("name", "all_parameters", "trainable", "output_shape"),
    [
        ("lenet5", 61_706, 61_706, (10,)),
        ("mini_inception", 896_522, 896_522, (10,)),
        ("mini_resnet", 270_218, 270_218, (10,)),
        ("mini_resnet_norm", 270_410, 270_282, (10,)),
        ("conv_layer", 72, 72, (26, 26, 8)),
        ("separable_layer", 17, 17, (26, 26, 8)),
    ],
)
def test_a_lecture_model_has_its_published_size_and_shape(
    keras: Any, name: str, all_parameters: int, trainable: int, output_shape: tuple[int, ...]
) -> None:
    model = models.builder(name)()
    assert model.name == name
    assert parameters(model.weights) == all_parameters
    assert parameters(model.trainable_weights) == trainable
    assert tuple(model(keras.Input((28, 28, 1))).shape) == (None, *output_shape)


@pytest.mark.parametrize(
    ("name", "all_parameters", "size"),
    [  # https://keras.io/api/applications and, for 3,538,984, Sandler et al. (2018), 3.4 M
        ("resnet50", 25_636_712, 224),
        ("mobilenetv2", 3_538_984, 224),
        ("efficientnetv2b0", 7_200_312, 224),
    ],
)
def test_a_model_of_keras_applications_has_its_published_size_and_own_input(
    keras: Any, built: Callable[[str], Any], name: str, all_parameters: int, size: int
) -> None:
    model = built(name)
    assert parameters(model.weights) == all_parameters
    assert model.input_shape == (None, size, size, 3)
    assert model.output_shape == (None, 1000)


def test_sequential_models_show_their_layers(keras: Any) -> None:
    lenet = models.builder("lenet5")()
    assert type(lenet) is keras.Sequential
    names = ["C1", "S2", "C3", "S4", "C5", "flatten", "F6", "classifier"]
    assert [layer.name for layer in lenet.layers] == names
    assert type(models.builder("conv_layer")()) is keras.Sequential
    assert type(models.builder("separable_layer")()) is keras.Sequential


def test_functional_models_show_their_layers(keras: Any) -> None:
    inception = models.builder("mini_inception")()
    assert type(inception).__name__ == "Functional"
    branches = {"branch_1x1", "branch_3x3", "branch_5x5", "branch_pool"}
    assert branches < {layer.name for layer in inception.layers}
    residual = models.builder("mini_resnet_norm")()
    assert type(residual).__name__ == "Functional"
    assert type(residual.get_layer("block")).__name__ == "NormalisedResidualBlock"


def test_the_subclassed_model_is_a_class_of_its_own(keras: Any) -> None:
    model = models.builder("mini_resnet")()
    assert isinstance(model, keras.Model)
    assert type(model).__name__ == "MiniResNet"
    assert type(model.block).__name__ == "ResidualBlock"


def test_a_builder_gives_a_fresh_model_each_time(keras: Any) -> None:
    build = models.builder("conv_layer")
    assert build() is not build()


def test_importing_the_zoo_imports_no_framework() -> None:
    script = "import sys, models; print({'keras', 'tensorflow', 'numpy'} & set(sys.modules))"
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_names_are_sorted_unique_and_lower_case_and_each_has_a_builder(keras: Any) -> None:
    known = models.names()
    assert list(known) == sorted(set(known))
    assert all(name == name.lower() for name in known)
    assert {"lenet5", "resnet50", "mobilenetv2", "convnexttiny", "vgg16"} < set(known)
    assert all(callable(models.builder(name)) for name in known)


def test_the_names_that_are_read_without_importing_keras_are_those_of_the_zoo(keras: Any) -> None:
    found = zoo_names()
    if found or not keras.__name__.startswith("keras") or not keras.__version__.startswith("2."):
        assert found == set(models.names())


def test_an_unknown_name_is_asked_about_in_the_words_of_every_option(keras: Any) -> None:
    with pytest.raises(models.UnknownModelError) as caught:
        models.builder("ResNet51")
    message = str(caught.value)
    assert message.startswith("ResNet51: no such model; ")
    assert message.endswith(f"; {did_you_mean('resnet51', models.names(), cutoff=0.6)}")
    assert "did you mean resnet50 or resnet" in message
    assert "package.module:attribute" in message
    assert "\n" not in message


def test_a_name_like_no_other_is_answered_without_a_guess(keras: Any) -> None:
    with pytest.raises(models.UnknownModelError, match=r"zzzzzzzz: no such model; .*net\.keras$"):
        models.builder("zzzzzzzz")


@pytest.mark.parametrize("name", ["lenet5", "mini_inception", "mini_resnet", "separable_layer"])
def test_every_style_of_model_tells_its_input_shape(keras: Any, name: str) -> None:
    shape = importlib.import_module("models.shape")
    assert shape.input_shape(models.builder(name)()) == (28, 28, 1)


def test_a_subclassed_model_called_on_several_shapes_of_batch_tells_its_input_shape(
    keras: Any,
) -> None:
    shape = importlib.import_module("models.shape")
    model = models.builder("mini_resnet")()
    model(keras.Input((28, 28, 1), batch_size=3))
    assert shape.input_shape(model) == (28, 28, 1)


def uncalled(keras: Any) -> Any:
    return importlib.import_module("models.resnet").MiniResNet(4, name="uncalled")


def without_input(keras: Any) -> Any:
    return keras.Sequential([keras.layers.Dense(2)], name="without_input")


def with_two_inputs(keras: Any) -> Any:
    inputs = [keras.Input((3,)), keras.Input((3,))]
    return keras.Model(inputs, keras.layers.Add()(inputs), name="with_two_inputs")


def with_open_axes(keras: Any) -> Any:
    image = keras.Input((None, None, 3))
    return keras.Model(image, keras.layers.Conv2D(2, 1)(image), name="with_open_axes")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (uncalled, "uncalled: the input shape is not known; call the model on keras.Input"),
        (without_input, "without_input: the input shape is not known"),
        (with_two_inputs, r"with_two_inputs: one input is supported, got shapes \[\(None, 3\)"),
        (with_open_axes, r"with_open_axes: every axis .* must be fixed, got \(None, None, 3\)"),
    ],
)
def test_a_model_without_one_fixed_input_shape_is_refused(
    keras: Any, build: Any, message: str
) -> None:
    shape = importlib.import_module("models.shape")
    with pytest.raises(ValueError, match=message) as caught:
        shape.input_shape(build(keras))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["lenet5", "mini_resnet", "mini_resnet_norm", "mobilenetv2"])
def test_the_zoos_networks_are_the_same_whatever_keras_is_set_to(
    name: str, keras: Any, built: Callable[[str], Any]
) -> None:
    shapes = [tuple(weight.shape) for weight in built(name).weights]
    backend, precision = keras.backend, keras.mixed_precision
    policy = precision.global_policy()
    try:
        backend.set_floatx("float64")
        precision.set_global_policy("float64")
        backend.set_image_data_format("channels_first")
        odd = models.builder(name)()
        assert [tuple(weight.shape) for weight in odd.weights] == shapes
        assert "float64" not in {str(weight.dtype) for weight in odd.weights}
        assert (backend.floatx(), backend.image_data_format()) == ("float64", "channels_first")
        assert precision.global_policy().name == "float64"
    finally:
        backend.set_floatx("float32")
        backend.set_image_data_format("channels_last")
        precision.set_global_policy(policy)


def test_a_dtype_policy_that_was_chosen_counts(keras: Any) -> None:
    precision = keras.mixed_precision
    policy = precision.global_policy()
    try:
        precision.set_global_policy("mixed_bfloat16")
        assert models.builder("lenet5")().layers[0].compute_dtype == "bfloat16"
    finally:
        precision.set_global_policy(policy)
