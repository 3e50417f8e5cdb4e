"""Analytic FLOPs: every rule worked out by hand, every style of model, published networks."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import pytest

import models
from convmark.worker import flops as flops_of_layers
from convmark.worker.flops import LayerRecord, call_flops, flops_per_sample, layer_records
from convmark.worker.traced import traced_calls

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="the zoo needs Keras"),
    # Keras 2.12's own docstrings, compiled afresh where byte code is not kept
    pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning"),
]

DIGIT = (28, 28, 1)


@pytest.fixture(scope="module")
def keras() -> Any:
    return importlib.import_module("models.keras_api").keras


def release(keras: Any) -> tuple[int, ...]:
    return tuple(map(int, keras.__version__.split(".")[:2]))


def counted(keras: Any, model: Any, sample_shape: tuple[int, ...]) -> int | None:
    return flops_per_sample(layer_records(model, keras, sample_shape))


def of_one_layer(keras: Any, layer: Any, sample_shape: tuple[int, ...]) -> int | None:
    model = keras.Sequential([keras.Input(sample_shape), layer])
    return counted(keras, model, sample_shape)


LENET5 = (
    2 * 28 * 28 * 25 * 6  # C1
    + 2 * 10 * 10 * 25 * 6 * 16  # C3
    + 2 * 25 * 16 * 120  # C5
    + 2 * 120 * 84  # F6
    + 2 * 84 * 10
)
MINI_INCEPTION = (
    2 * 28 * 28 * 25 * 16  # stem
    + 2 * 28 * 28 * (1 + 9 + 25) * 16 * 32  # branches
    + 2 * 28 * 28 * 112 * 10
)
MINI_RESNET = (
    2 * 28 * 28 * 25 * 32  # stem
    + 2 * (2 * 28 * 28 * 9 * 32 * 32)  # block
    + 2 * 28 * 28 * 32 * 10
)


@pytest.mark.parametrize(
    ("name", "flops"),
    [
        ("lenet5", LENET5),
        ("mini_inception", MINI_INCEPTION),
        ("mini_resnet", MINI_RESNET),
        ("mini_resnet_norm", MINI_RESNET),
        ("conv_layer", 2 * 26 * 26 * 9 * 8),
        ("separable_layer", 2 * 26 * 26 * (9 + 8)),
    ],
)
def test_a_lecture_model_counts_as_worked_out_by_hand(keras: Any, name: str, flops: int) -> None:
    model = models.builder(name)()
    records = layer_records(model, keras, DIGIT)
    assert flops_per_sample(records) == flops
    assert sum(record.parameters for record in records) == model.count_params()


def test_lenet5_counts_833040() -> None:
    assert LENET5 == 833_040


@pytest.mark.parametrize(
    ("name", "size", "multiply_adds", "tolerance"),
    [
        ("resnet50", 224, 3.8e9, 0.02),  # He et al. (2015), table 1
        ("mobilenetv2", 224, 300e6, 0.01),  # Sandler et al. (2018), table 4
        ("efficientnetb0", 224, 0.39e9, 0.02),  # Tan and Le (2019), table 2
        ("regnetx004", 224, 0.4e9, 0.02),  # Radosavovic et al. (2020): RegNetX-400MF
    ],
)
def test_a_published_network_counts_as_its_paper_says(
    keras: Any,
    built: Callable[[str], Any],
    name: str,
    size: int,
    multiply_adds: float,
    tolerance: float,
) -> None:
    if name not in models.names():
        pytest.skip(f"{name} is not in keras.applications of Keras {keras.__version__}")
    flops = counted(keras, built(name), (size, size, 3))
    assert flops == pytest.approx(2 * multiply_adds, rel=tolerance)
    if name == "resnet50":
        assert flops == 7_715_946_496


Maker = Callable[[Any], Any]

IMAGE = (8, 8, 4)


@pytest.mark.parametrize(
    ("make", "sample_shape", "flops"),
    [
        (lambda k: k.Conv2D(6, 3, padding="same"), IMAGE, 2 * 64 * 9 * 4 * 6),
        (lambda k: k.Conv2D(6, 3, padding="same", strides=2), IMAGE, 2 * 16 * 9 * 4 * 6),
        (lambda k: k.Conv2D(6, 3, dilation_rate=2), IMAGE, 2 * 16 * 9 * 4 * 6),
        (lambda k: k.Conv2D(6, 3, padding="same", groups=2), IMAGE, 2 * 64 * 9 * 2 * 6),
        (
            lambda k: k.Conv2D(6, 3, padding="same", data_format="channels_first"),
            (4, 8, 8),
            2 * 64 * 9 * 4 * 6,
        ),
        (lambda k: k.Conv1D(3, 3), (10, 4), 2 * 8 * 3 * 4 * 3),
        (lambda k: k.Conv3D(3, 2), (4, 4, 4, 2), 2 * 27 * 8 * 2 * 3),
        (lambda k: k.Conv1DTranspose(5, 3, strides=2), (10, 4), 2 * 10 * 3 * 4 * 5),
        (lambda k: k.Conv2DTranspose(5, 3, strides=2), IMAGE, 2 * 64 * 9 * 4 * 5),
        (lambda k: k.Conv3DTranspose(3, 2), (4, 4, 4, 2), 2 * 64 * 8 * 2 * 3),
        (lambda k: k.DepthwiseConv1D(3), (10, 4), 2 * 8 * 3 * 4),
        (
            lambda k: k.DepthwiseConv2D(3, padding="same", depth_multiplier=2),
            IMAGE,
            2 * 64 * 9 * 4 * 2,
        ),
        (lambda k: k.SeparableConv1D(6, 3), (10, 4), 2 * 8 * (3 * 4 + 4 * 6)),
        (lambda k: k.SeparableConv2D(6, 3, padding="same"), IMAGE, 2 * 64 * (9 * 4 + 4 * 6)),
        (lambda k: k.Dense(7), IMAGE, 2 * 64 * 4 * 7),
        (lambda k: k.EinsumDense("...x,xy->...y", output_shape=7), IMAGE, 2 * 64 * 4 * 7),
        (
            lambda k: k.EinsumDense("abc,cde->abde", output_shape=(None, 2, 3)),
            (6, 4),
            2 * 6 * 4 * 2 * 3,
        ),
        (lambda k: k.Embedding(10, 3), (5,), 0),
        (lambda k: k.BatchNormalization(), IMAGE, 0),
        (lambda k: k.PReLU(), IMAGE, 0),
        (lambda k: k.MaxPooling2D(), IMAGE, 0),
    ],
)
def test_a_layer_counts_as_worked_out_by_hand(
    keras: Any, make: Maker, sample_shape: tuple[int, ...], flops: int
) -> None:
    assert of_one_layer(keras, make(keras.layers), sample_shape) == flops


def quantized(
    keras: Any, make: Maker, mode: str, *, lora: bool, sample: tuple[int, ...]
) -> LayerRecord:
    """Return the record of a layer whose kernel is quantised, as a model's file brings it."""
    if release(keras) < (3, 14):
        pytest.skip(f"Keras {keras.__version__} has not all of these modes")
    layer = make(keras.layers)
    if mode:
        layer = type(layer).from_config({**layer.get_config(), "dtype": f"{mode}_from_float32"})
    layer.build((None, *sample))
    setattr(layer, f"is_{mode.partition('/')[0]}_calibrated", True)
    if lora:
        layer.enable_lora(2)
    return layer_records(keras.Sequential([keras.Input(sample), layer]), keras, sample)[0]


DENSE, HEADS = 5 * 12 * 7, 5 * 12 * 2 * 3
GROUPS = {"int4/128": 2 * 7 + 12, "gptq/4/128": 2 * 7 + 12, "awq/4/128": 2 * 7 + 2 * 12}
"""Scales and zeros of the outputs in one group, the group of each row, and awq's scales of rows."""


@pytest.mark.parametrize(
    ("make", "mode", "lora", "products"),
    [
        *((lambda k: k.Dense(7), mode, False, DENSE) for mode in GROUPS),
        (lambda k: k.EinsumDense("abc,cde->abde", (None, 2, 3)), "int4/128", False, HEADS),
        (lambda k: k.Dense(7), "", True, DENSE + 12 * 2 * 7),
        (lambda k: k.Dense(7), "int8", True, DENSE + 5 * (12 * 2 + 2 * 7)),
        (lambda k: k.Dense(7), "int4/128", True, DENSE + 5 * (12 * 2 + 2 * 7)),
        (lambda k: k.Conv1D(4, 3), "", True, 3 * 3 * 12 * 4 + 3 * 12 * 2 * 4),
        (
            lambda k: k.EinsumDense("abc,cde->abde", (None, 2, 3)),
            "int8",
            True,
            HEADS + 5 * (12 * 2 * 2 + 2 * 2 * 3),
        ),
    ],
)
def test_a_quantised_layer_and_one_with_lora_count_as_worked_out_by_hand(
    keras: Any, make: Maker, mode: str, lora: bool, products: int
) -> None:
    record = quantized(keras, make, mode, lora=lora, sample=(5, 12))
    assert record.flops == 2 * products
    if mode in GROUPS and not lora and record.kind == "Dense":
        assert record.parameters == 12 * 7 + 7 + GROUPS[mode]


def test_rows_of_a_table_with_lora_count_its_small_kernels(keras: Any) -> None:
    sizes = [("", 10 * 2 * 6), ("int8", 5 * 2 * 6)]
    for mode, products in sizes:
        record = quantized(keras, lambda k: k.Embedding(10, 6), mode, lora=True, sample=(5,))
        assert record.flops == 2 * products


def test_a_table_counts_where_it_is_the_last_product_too(keras: Any) -> None:
    if not hasattr(keras.layers, "ReversibleEmbedding"):
        pytest.skip(f"Keras {keras.__version__} has no such table")
    tokens, table = keras.Input((5,), dtype="int32"), keras.layers.ReversibleEmbedding(10, 6)
    records = layer_records(keras.Model(tokens, table(table(tokens), reverse=True)), keras, (5,))
    assert [(one.flops, one.parameters) for one in records] == [(0, 60), (2 * 5 * 6 * 10, 0)]


def test_attention_counts_its_projections_and_both_products(keras: Any) -> None:
    tokens = keras.Input((6, 4))  # 6 queries
    pooled = keras.layers.AveragePooling1D(2)(tokens)  # 3 keys and values
    attention = keras.layers.MultiHeadAttention(num_heads=2, key_dim=3, value_dim=5)
    model = keras.Model(tokens, attention(tokens, pooled))
    projections = 6 * 4 * 2 * 3 + 3 * 4 * 2 * 3 + 3 * 4 * 2 * 5 + 6 * 2 * 5 * 4
    products = 2 * 6 * 3 * (3 + 5)  # heads x queries x keys x depth
    assert counted(keras, model, (6, 4)) == 2 * (projections + products)


def test_attention_of_groups_counts_the_scores_of_each_query_head(keras: Any) -> None:
    if not hasattr(keras.layers, "GroupQueryAttention"):
        pytest.skip(f"Keras {keras.__version__} has no groups of queries")
    tokens = keras.Input((6, 4))
    pooled = keras.layers.AveragePooling1D(2)(tokens)
    attention = keras.layers.GroupQueryAttention(3, 4, 2)
    model = keras.Model(tokens, attention(tokens, pooled))
    projections = 6 * 4 * 4 * 3 + 2 * 3 * 4 * 2 * 3 + 6 * 4 * 3 * 4
    assert counted(keras, model, (6, 4)) == 2 * (projections + 2 * 4 * 6 * 3 * 3)


def test_the_rules_are_of_layers_that_keras_has(keras: Any) -> None:
    if release(keras) < (3, 14):
        pytest.skip(f"Keras {keras.__version__} has not all of them")
    assert [name for name in flops_of_layers._RULES if not hasattr(keras.layers, name)] == []


def test_an_operation_that_runs_a_function_or_an_algorithm_has_unknown_flops(keras: Any) -> None:
    if release(keras) < (3, 0):
        pytest.skip("Keras 2 has none")
    ops, image = keras.ops, keras.Input((4, 4), batch_size=1)
    made = [ops.cholesky(image), ops.map(lambda one: one @ one, image), *ops.rfft(image), image + 1]
    sample = keras.Input((4, 4), batch_size=1)
    calls = traced_calls(keras.Model(image, made), keras, sample, operations=True)
    found = {type(one.layer).__name__: call_flops(one, keras) for one in calls}
    assert [found[name] for name in ("Cholesky", "Map", "RFFT", "Add")] == [None, None, None, 0]


def test_an_operation_that_filters_or_scales_pictures_has_unknown_flops(keras: Any) -> None:
    if release(keras) < (3, 14):
        pytest.skip(f"Keras {keras.__version__} has not all of them")
    image = keras.Input((8, 8, 3), batch_size=1)
    made = keras.ops.image.elastic_transform(image)
    scaled = keras.ops.image.scale_and_translate(
        *(made, (1, 4, 4, 3), keras.ops.ones(2), keras.ops.zeros(2), (1, 2), "linear")
    )
    sample = keras.Input((8, 8, 3), batch_size=1)
    calls = traced_calls(keras.Model(image, scaled), keras, sample, operations=True)
    found = {type(one.layer).__name__: call_flops(one, keras) for one in calls}
    assert [found[name] for name in ("ElasticTransform", "ScaleAndTranslate")] == [None, None]


def test_a_layer_that_filters_pictures_in_training_has_unknown_flops_there(keras: Any) -> None:
    if release(keras) < (3, 14):
        pytest.skip(f"Keras {keras.__version__} has not all of them")
    k = keras.layers
    layers = [k.RandomGaussianBlur(), k.RandomSharpness(0.5), k.RandomRotation(0.1), k.RandomFlip(),
              k.MixUp(), k.Rescaling(2.0), k.Resizing(4, 4)]  # fmt: skip
    model = keras.Sequential([keras.Input((*IMAGE[:2], 3)), *layers])
    found = {}
    for training in (True, False):
        sample = keras.Input((8, 8, 3), batch_size=1)

        def called(model: Any, sample: Any, training: bool = training) -> Any:
            return model(sample, training=training)

        calls = traced_calls(model, keras, sample, call_model=called, operations=True)
        flops = {id(one.layer): call_flops(one, keras) for one in calls}
        found[training] = [flops[id(one)] for one in layers]
    assert found == {True: [None] * 3 + [0] * 4, False: [0] * 7}


def test_a_shared_layer_counts_each_call_and_its_parameters_once(keras: Any) -> None:
    image = keras.Input(DIGIT)
    shared = keras.layers.Conv2D(1, 3, padding="same", use_bias=False, name="shared")
    records = layer_records(keras.Model(image, shared(shared(image))), keras, DIGIT)
    one = LayerRecord(
        name="shared", kind="Conv2D", output_shape=DIGIT, parameters=9, flops=2 * 28 * 28 * 9
    )
    assert records[0] == one
    assert [record.flops for record in records] == [one.flops, one.flops]
    assert [record.parameters for record in records] == [9, 0]


def test_nested_models_count_as_their_layers_do(keras: Any) -> None:
    image = keras.Input(DIGIT)
    stack = keras.Sequential([models.builder("conv_layer")()])
    model = keras.Model(image, [models.builder("mini_resnet")()(image), stack(image)])
    assert counted(keras, model, DIGIT) == MINI_RESNET + 2 * 26 * 26 * 9 * 8


def test_what_a_function_of_the_users_computes_is_not_taken_for_nothing(keras: Any) -> None:
    class Own(keras.layers.Layer):  # type: ignore[misc]  # Keras is a fixture
        def call(self, image: Any) -> Any:
            return image * image

    class Renamed(keras.layers.ReLU):  # type: ignore[misc]
        """Computes what Keras's own does."""

    kinds = [Own(), keras.layers.Lambda(lambda image: image + 1), Renamed(), keras.layers.ReLU()]
    model = keras.Sequential([keras.Input(DIGIT), *kinds])
    calls = traced_calls(model, keras, keras.Input(DIGIT, batch_size=1))
    found = {id(one.layer): call_flops(one, keras) for one in calls}
    assert [found[id(layer)] for layer in kinds] == [None, None, 0, 0]
    assert found[id(model)] is None


def test_a_product_between_the_layers_of_a_block_is_not_left_out_of_its_flops(keras: Any) -> None:
    class Block(keras.layers.Layer):  # type: ignore[misc]
        def __init__(self, joined: Any) -> None:
            super().__init__()
            self.joined, self.dense = joined, keras.layers.Dense(4)

        def call(self, vectors: Any) -> Any:
            return self.joined(vectors, self.dense(vectors))

    dense = 2 * 4 * 4 * 4
    for joined, expected in [
        (lambda vectors, made: made, dense),
        (lambda vectors, made: vectors + made, dense if hasattr(keras, "ops") else None),
        (lambda vectors, made: vectors @ made, None),
    ]:
        block = Block(joined)
        model = keras.Sequential([keras.Input((4, 4)), block])
        calls = traced_calls(model, keras, keras.Input((4, 4), batch_size=1))
        assert [call_flops(one, keras) for one in calls if one.layer is block] == [expected]


def test_a_layer_called_inside_time_distributed_is_not_undercounted(keras: Any) -> None:
    layer = keras.layers.TimeDistributed(keras.layers.Dense(3))
    assert of_one_layer(keras, layer, (5, 4)) is None


def unbuilt_sequential(keras: Any) -> Any:
    return keras.Sequential([keras.layers.Conv2D(8, 3, use_bias=False)])


def sequential_built_on_another_batch(keras: Any) -> Any:
    model = unbuilt_sequential(keras)
    model(keras.Input(DIGIT, batch_size=8))
    return model


def uncalled_model(keras: Any) -> Any:
    class Net(keras.Model):  # type: ignore[misc]  # Keras is a fixture
        def __init__(self) -> None:
            super().__init__()
            self.inner = unbuilt_sequential(keras)

        def call(self, image: Any) -> Any:
            return self.inner(image)

    return Net()


@pytest.mark.parametrize(
    "build", [unbuilt_sequential, sequential_built_on_another_batch, uncalled_model]
)
def test_a_model_that_is_built_on_the_way_counts_once(keras: Any, build: Maker) -> None:
    records = layer_records(build(keras), keras, DIGIT)
    assert [record.flops for record in records] == [2 * 26 * 26 * 9 * 8]
    assert [record.parameters for record in records] == [72]


def own_product(keras: Any) -> Any:
    class Product(keras.layers.Layer):  # type: ignore[misc]  # Keras is a fixture
        def build(self, shape: Any) -> None:
            self.matrix = self.add_weight(name="matrix", shape=(4, 4), initializer="zeros")
            super().build(shape)

        def call(self, maps: Any) -> Any:
            return maps @ self.matrix

    return Product()


def own_convolution(keras: Any) -> Any:
    class Twice(keras.layers.Conv2D):  # type: ignore[misc]  # Keras is a fixture
        def call(self, maps: Any) -> Any:
            return super().call(maps) + super().call(maps)

    return Twice(4, 1)


def renamed_convolution(keras: Any) -> Any:
    class Renamed(keras.layers.Conv2D):  # type: ignore[misc]  # Keras is a fixture
        pass

    return Renamed(4, 1)


@pytest.mark.parametrize("make", [own_product, own_convolution])
def test_a_layer_without_a_rule_makes_the_count_unknown(keras: Any, make: Maker) -> None:
    layers = [keras.Input(IMAGE), keras.layers.Conv2D(4, 1), make(keras)]
    records = layer_records(keras.Sequential(layers), keras, IMAGE)
    assert [record.flops for record in records] == [2 * 64 * 4 * 4, None]
    assert flops_per_sample(records) is None


def test_a_layer_that_changes_what_its_inherited_call_calls_has_unknown_flops(keras: Any) -> None:
    class Twice(keras.layers.Conv2D):  # type: ignore[misc]  # Keras is a fixture
        def convolution_op(self, maps: Any, kernel: Any) -> Any:
            return super().convolution_op(maps, kernel) + super().convolution_op(maps, kernel)

    class Configured(keras.layers.Conv2D):  # type: ignore[misc]
        def get_config(self) -> Any:
            return super().get_config()

        def own(self) -> None:
            """Keras calls no method of this name."""

    assert of_one_layer(keras, Configured(4, 1), IMAGE) == 2 * 64 * 4 * 4
    assert of_one_layer(keras, Twice(4, 1), IMAGE) is None


def test_a_layer_that_inherits_its_call_inherits_its_rule(keras: Any) -> None:
    assert of_one_layer(keras, renamed_convolution(keras), IMAGE) == 2 * 64 * 4 * 4


def test_a_weight_that_a_block_uses_itself_makes_the_count_unknown(keras: Any) -> None:
    class Block(keras.layers.Layer):  # type: ignore[misc]  # Keras is a fixture
        def __init__(self) -> None:
            super().__init__()
            self.product = own_product(keras)
            self.convolution = keras.layers.Conv2D(4, 1)

        def build(self, shape: Any) -> None:
            self.product.build(shape)
            super().build(shape)

        def call(self, maps: Any) -> Any:
            return self.convolution(maps) @ self.product.matrix

    assert of_one_layer(keras, Block(), IMAGE) is None


def test_attention_without_weights_makes_the_count_unknown(keras: Any) -> None:
    tokens = keras.Input((6, 4))
    model = keras.Model(tokens, keras.layers.Attention()([tokens, tokens]))
    assert counted(keras, model, (6, 4)) is None


def test_no_records_count_nothing() -> None:
    assert flops_per_sample([]) == 0


def test_counting_leaves_the_layer_class_and_the_model_as_they_were(keras: Any) -> None:
    original = keras.layers.Layer.__call__
    model = models.builder("mini_resnet")()
    before = importlib.import_module("models.shape").input_shape(model), len(model.weights)
    layer_records(model, keras, DIGIT)
    assert keras.layers.Layer.__call__ is original
    after = importlib.import_module("models.shape").input_shape(model), len(model.weights)
    assert after == before


def test_a_model_that_fails_leaves_the_layer_class_as_it_was(keras: Any) -> None:
    class Broken(keras.layers.Layer):  # type: ignore[misc]  # Keras is a fixture
        def call(self, maps: Any) -> Any:
            raise RuntimeError("broken on purpose")

    class Net(keras.Model):  # type: ignore[misc]  # Keras is a fixture
        def __init__(self) -> None:
            super().__init__()
            self.broken = Broken()

        def call(self, image: Any) -> Any:
            return self.broken(image)

    original = keras.layers.Layer.__call__
    with pytest.raises(RuntimeError, match="broken on purpose"):
        layer_records(Net(), keras, DIGIT)
    assert keras.layers.Layer.__call__ is original
