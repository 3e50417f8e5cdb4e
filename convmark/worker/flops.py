"""A model layer by layer, as `--describe` shows it, with the analytic FLOPs of one sample.

Biases, activations, pooling and normalisation are not counted. The model is called once on a
symbolic sample while `Layer.__call__` keeps every layer's shapes, so that Sequential, functional,
nested, shared and subclassed models count alike on Keras 2 and 3, on any backend. What a model
multiplies outside of layers (`ops.matmul`) is not seen here; the FLOPs of a row are counted by
operation, in the backends.

Source:
    He et al., "Deep residual learning for image recognition" (2015), arXiv:1512.03385, section
    3.3, counts multiply-adds so; a FLOP here is half of one, as in a device's data sheet.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from convmark.worker.inputs import Inputs, item_bytes, symbols
from convmark.worker.traced import LayerCall, Shape, tensors, traced_calls, with_operations


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRecord:
    """One call of one layer on one sample."""

    name: str
    kind: str
    """The layer's class."""
    output_shape: Shape | None
    """Without the batch axis; of the first output where there are several."""
    parameters: int
    """Elements of the weights that the layer holds itself; 0 when a shared one is called again."""
    flops: int | None
    """FLOPs per sample; None where no rule covers the layer."""
    weight_bytes: int = field(default=0, compare=False)
    """Those weights as they are stored."""
    inputs: tuple[int, ...] = field(default=(), compare=False)
    """Places of the records whose outputs it takes, as far as layers hand them on themselves."""


def layer_records(model: Any, keras: Any, inputs: Inputs | Sequence[int]) -> list[LayerRecord]:
    """Return one record per layer call of a forward pass, in the order of execution.

    Only layers that do work themselves have a record; a block made of layers has none. The model
    gains no inbound node; the class `Layer` is as before, also after an error.

    Args:
        model: a Keras model; weights that it lacks are made.
        keras: the Keras that made the model.
        inputs: what it takes, or the shape of one sample of floats, without the batch axis.

    Raises:
        Whatever the model's call raises on a sample of this shape.
    """
    sample = symbols(keras, Inputs.of(inputs), 1)
    calls = traced_calls(model, keras, sample)
    if not all(call.was_built for call in calls):  # building may call a layer once more
        calls = traced_calls(model, keras, sample)
    rules = {getattr(keras.layers, name, None): rule for name, rule in _RULES.items()}
    counted: set[int] = set()
    makers: dict[int, int] = {}
    records: list[LayerRecord] = []
    for call in calls:
        held = _held_weights(call)
        rule = _rule(call.layer, rules, held)
        if call.inner and not held and rule is _nothing:
            for value in call.made:  # what the block itself computed last
                makers.setdefault(id(value), len(records) - 1)
            continue
        new = [weight for weight in held if id(weight) not in counted]
        counted.update(id(weight) for weight in held)
        sources = dict.fromkeys(makers[id(value)] for value in call.taken if id(value) in makers)
        makers.update((id(value), len(records)) for value in call.made)
        records.append(_record(call, new, rule(call, held), tuple(sources)))
    return records


def flops_per_sample(records: Sequence[LayerRecord]) -> int | None:
    """Return the FLOPs of all records, or None where those of one are unknown."""
    known = [record.flops for record in records if record.flops is not None]
    return sum(known) if len(known) == len(records) else None


def call_flops(call: LayerCall, keras: Any) -> int | None:
    """Return the FLOPs of a call and of those inside it; None where no rule covers one of them.

    Nor is it known what a user's own function computes beside the layers and operations of Keras
    that it calls.
    """
    rules = {getattr(keras.layers, name, None): rule for name, rule in _RULES.items()}
    is_layer, kind = isinstance(call.layer, keras.layers.Layer), type(call.layer)
    if not is_layer and kind.__name__ in _PRODUCTS:
        return None
    inside = call.inner if not is_layer or is_kerass(kind) else _all_inside(call, keras)
    if inside is None:
        return None
    held = _held_weights(call)
    own = _rule(call.layer, rules, held)(call, held)
    parts = [own, *(call_flops(inner, keras) for inner in inside)]
    return None if None in parts else sum(part or 0 for part in parts)


def _all_inside(call: LayerCall, keras: Any) -> Sequence[LayerCall] | None:
    """Return the calls that a user's own layer amounts to; None where it computes otherwise too."""
    known = {id(one) for one in tensors([call.args, call.kwargs])}
    given = True
    for one in call.inner:
        given = given and all(id(value) in known for value in tensors([one.args, one.kwargs]))
        known.update(id(value) for value in tensors(one.result))
    if call.inner and given and all(id(value) in known for value in tensors(call.result)):
        return call.inner
    found = with_operations(call, keras, reads=True) if call.inner else None
    return None if found is None else [one for one, _ in found[:-1]]


def is_kerass(kind: Any) -> bool:
    """Whether what a layer of a class computes is Keras's own code, as that of a Lambda is not."""
    return _is_of_keras(kind.call) and kind.__name__ != "Lambda"


def _is_of_keras(one: Any) -> bool:
    return one.__module__.partition(".")[0] in ("keras", "tf_keras", "tensorflow")


_ASIDE = {
    *("build", "get_config", "from_config", "get_build_config", "build_from_config"),
    *("compute_output_shape", "compute_output_spec", "compute_mask", "save_own_variables"),
    "load_own_variables",
}
"""Methods of a layer that compute nothing of a forward pass."""


def _changes(kind: Any) -> bool:
    """Whether a user's class of a layer has its own of what the `call` of Keras's may call.

    Such as the `convolution_op` of a convolution, or the `transform_images` of an augmentation.
    """
    if not _is_of_keras(kind.call) or hasattr(kind, "train_step"):  # a model calls its layers
        return False
    place, known = next(pair for pair in enumerate(kind.__mro__) if _is_of_keras(pair[1]))
    own = (pair for one in kind.__mro__[:place] for pair in vars(one).items())
    names = {name for name, value in own if callable(value) and not name.startswith("__")}
    return any(hasattr(known, name) for name in names - _ASIDE)


def _record(
    call: LayerCall, weights: Sequence[Any], flops: int | None, inputs: tuple[int, ...]
) -> LayerRecord:
    """Return the record of one call.

    Args:
        weights: those that the layer holds itself and no earlier record has counted.
    """
    sizes = [_elements(weight.shape) for weight in weights]
    dtypes = (getattr(weight.dtype, "name", weight.dtype) for weight in weights)  # texts on Keras 3
    pairs = zip(sizes, map(item_bytes, dtypes), strict=True)
    return LayerRecord(
        name=call.layer.name,
        kind=type(call.layer).__name__,
        output_shape=None if call.output is None else call.output[1:],
        parameters=sum(sizes) + (packed_elements(call.layer) if weights else 0),
        flops=flops,
        weight_bytes=sum(size * one_bytes for size, one_bytes in pairs),
        inputs=inputs,
    )


def _elements(shape: Any) -> int:
    return math.prod(int(axis) for axis in shape)


def packed_elements(layer: Any) -> int:
    """Return by how many elements a layer's kernels are more than stored bytes: two each of int4.

    By the names that Keras has for what it has packed; 0 where it has others.
    """
    if getattr(layer, "quantization_mode", None) not in ("int4", "gptq", "awq"):
        return 0
    with contextlib.suppress(AttributeError, LookupError, TypeError, ValueError):
        names = ("quantized_kernel", "_kernel", "_embeddings", "reverse_embeddings")
        found = [one for name in names if (one := getattr(layer, name, None)) is not None]
        whole = getattr(layer, "original_kernel_shape", None)  # of an EinsumDense
        whole = whole or getattr(layer, "kernel_shape", None)  # of gptq and awq
        if whole is None and hasattr(layer, "_orig_output_dim"):
            whole = (*found[0].shape[:-1], layer._orig_output_dim)
        elif whole is None:
            whole = (layer._orig_input_dim, *found[0].shape[1:])
        return sum(max(0, _elements(whole) - _elements(one.shape)) for one in found)
    return 0


def _held_weights(call: LayerCall) -> list[Any]:
    """Return the weights that a layer holds itself: those of no layer that it called."""
    inner = {id(weight) for part in call.inner for weight in _weights(part.layer)}
    return [weight for weight in _weights(call.layer) if id(weight) not in inner]


def _weights(layer: Any) -> Sequence[Any]:
    """Return the weights of a layer; an operation that is no layer has none."""
    return getattr(layer, "weights", None) or ()


def _kernel_elements(held: Sequence[Any]) -> int:
    """Return the elements of the weights that multiply: those of rank 2 and more."""
    return sum(_elements(weight.shape) for weight in held if len(weight.shape) >= 2)


def _product(axes: Sequence[int | None] | None) -> int | None:
    if axes is None or None in axes:
        return None
    return math.prod(axis for axis in axes if axis is not None)


def _twice(*factors: int | None) -> int | None:
    """Return 2 x the multiply-adds; None where a factor is not known."""
    product = _product(factors)
    return None if product is None else 2 * product


# rules: a call and the weights that the layer holds give FLOPs per sample


def _nothing(call: LayerCall, held: Sequence[Any]) -> int | None:
    """Count a layer that neither convolves nor multiplies matrices."""
    return 0


def _unknown(call: LayerCall, held: Sequence[Any]) -> int | None:
    """Refuse a layer whose products cannot be told from its shapes."""
    return None


def _per_output_position(call: LayerCall, held: Sequence[Any]) -> int | None:
    """Count a convolution: each kernel element once per output position, whatever the groups."""
    return _convolved(call, call.output, held)


def _per_input_position(call: LayerCall, held: Sequence[Any]) -> int | None:
    """Count a transposed convolution: each kernel element once per input position."""
    return _convolved(call, call.argument(0, "inputs"), held)


def _convolved(call: LayerCall, shape: Shape | None, held: Sequence[Any]) -> int | None:
    """Count each kernel element once per position of a shape."""
    small = set(map(id, _lora_kernels(call.layer)))
    kernels = [one for one in held if id(one) not in small]
    positions = _product(_positions(call.layer, shape))
    return _with_lora(call, _twice(positions, _kernel_elements(kernels)))


def _positions(layer: Any, shape: Shape | None) -> Shape | None:
    """Return every axis of a shape but that of the channels."""
    if shape is None:
        return None
    return shape[:1] + shape[2:] if layer.data_format == "channels_first" else shape[:-1]


def _per_vector(call: LayerCall, held: Sequence[Any]) -> int | None:
    """Count a dense layer: each output is a sum over a vector of the input.

    The kernel's shape is not asked: one of int4 is packed, and has scales of rank 2 beside it.
    """
    inputs = call.argument(0, "inputs")
    if inputs is None or call.output is None:
        return None
    return _with_lora(call, _twice(*call.output, inputs[-1]))


def _with_lora(call: LayerCall, flops: int | None) -> int | None:
    """Add the products with the small kernels of LoRA, where a layer has some.

    Their product is added to a kernel once a call, but to one of whole numbers at each place.
    """
    if flops is None or not (small := _lora_kernels(call.layer)):
        return flops
    first, (rank, *_, last) = _elements(small[0].shape), map(int, small[1].shape)
    if getattr(call.layer, "quantization_mode", None) not in ("int8", "int4"):
        return flops + 2 * first * last
    at_places = flops // (first // rank * last) * first
    outputs = _twice(*(call.output or [None]), rank)
    return None if outputs is None else flops + at_places + outputs


def _lora_kernels(layer: Any) -> list[Any]:
    """Return the two small kernels of a layer whose LoRA is enabled."""
    if not getattr(layer, "lora_enabled", False):
        return []
    kind = "embeddings" if hasattr(layer, "lora_embeddings_a") else "kernel"
    return [getattr(layer, f"lora_{kind}_{one}") for one in "ab"]


def _of_table(call: LayerCall, held: Sequence[Any]) -> int | None:
    """Count a table, of which rows are read."""
    return _with_lora(call, 0)


def _of_table_or_to_it(call: LayerCall, held: Sequence[Any]) -> int | None:
    """Count a table that is a language model's last product too, where it is told to be."""
    inputs, to_it = call.argument(0, "inputs"), [*call.args[1:], call.kwargs.get("reverse")]
    if not any(one is True for one in to_it):
        return _of_table(call, held)
    if inputs is None or call.output is None or _lora_kernels(call.layer):
        return None
    return _twice(*call.output, inputs[-1])


def _einsum(call: LayerCall, held: Sequence[Any]) -> int | None:
    """Count an einsum with a kernel: the product of every axis that its equation names.

    The axes are the kernel's and those of the input that the kernel does not have.
    """
    inputs = call.argument(0, "inputs")
    if inputs is None:
        return None
    input_labels, kernel_labels = call.layer.equation.split("->")[0].split(",")
    # one label per axis; an axis under an ellipsis gets `*`
    before, ellipsis, after = input_labels.replace(" ", "").partition("...")
    hidden = len(inputs) - len(before) - len(after) if ellipsis else 0
    labels = [*before, *["*"] * hidden, *after]
    own = [axis for label, axis in zip(labels, inputs, strict=True) if label not in kernel_labels]
    flops = _twice(_product(own), _elements(call.layer.kernel.shape))  # its bias has rank 2, too
    return _with_lora(call, flops)


def _attention_products(call: LayerCall, held: Sequence[Any]) -> int | None:
    """Count the two products of attention; its projections are layers and count themselves.

    Source:
        Vaswani et al., "Attention is all you need" (2017), arXiv:1706.03762, equation 1: scores
        of T queries against S keys, then their weighted sums of values.
    """
    query, value = call.argument(0, "query"), call.argument(1, "value")
    if query is None or value is None:
        return None
    config = call.layer.get_config()
    axes = config.get("attention_axes") or range(1, len(query) - 1)
    beside = _product([a for i, a in enumerate(query[:-1]) if i not in axes])
    queries, keys = _product([query[i] for i in axes]), _product([value[i] for i in axes])
    depth = config["key_dim"] + (config["value_dim"] or config["key_dim"])
    return _twice(beside, queries, keys, config["num_heads"], depth)


def _of_pictures(call: LayerCall, held: Sequence[Any]) -> int | None:
    """Refuse a layer that filters, turns or warps pictures in training; else it hands them on."""
    return None if call.training else 0


def _grouped_products(call: LayerCall, held: Sequence[Any]) -> int | None:
    """Count the same of queries in groups: each head of them has its scores."""
    query, value = call.argument(0, "query"), call.argument(1, "value")
    if query is None or value is None:
        return None
    depth = 2 * call.layer.head_dim
    return _twice(*query[:-1], *value[1:-1], call.layer.num_query_heads, depth)


_Rule = Callable[[LayerCall, Sequence[Any]], int | None]

_RULES: dict[str, _Rule] = {
    "Conv1D": _per_output_position,
    "Conv2D": _per_output_position,
    "Conv3D": _per_output_position,
    "DepthwiseConv1D": _per_output_position,
    "DepthwiseConv2D": _per_output_position,
    "SeparableConv1D": _per_output_position,
    "SeparableConv2D": _per_output_position,
    "Conv1DTranspose": _per_input_position,
    "Conv2DTranspose": _per_input_position,
    "Conv3DTranspose": _per_input_position,
    "Dense": _per_vector,
    "EinsumDense": _einsum,
    "MultiHeadAttention": _attention_products,
    "GroupQueryAttention": _grouped_products,
    # weights of rank 2 and more that do not multiply a matrix
    "Embedding": _of_table,
    "ReversibleEmbedding": _of_table_or_to_it,
    "PReLU": _nothing,
    "LayerNormalization": _nothing,
    "Normalization": _nothing,
    # products in training alone
    **dict.fromkeys(
        [
            *("AugMix", "RandAugment", "RandomColorDegeneration", "RandomElasticTransform"),
            *("RandomGaussianBlur", "RandomGrayscale", "RandomPerspective", "RandomRotation"),
            *("RandomSharpness", "RandomShear", "RandomTranslation", "RandomZoom"),
        ],
        _of_pictures,
    ),
    # products without a weight, layers that call another in a loop, and code of a framework
    "AdditiveAttention": _unknown,
    "Attention": _unknown,
    "Dot": _unknown,
    "FlaxLayer": _unknown,
    "JaxLayer": _unknown,
    "MelSpectrogram": _unknown,
    "RNN": _unknown,
    "TFSMLayer": _unknown,
    "TimeDistributed": _unknown,
    "TorchModuleWrapper": _unknown,
}

_PRODUCTS = {
    *("Matmul", "Einsum", "Dot", "Tensordot", "Inner", "Outer", "Vdot", "Cross", "Kron"),
    *("Conv", "ConvTranspose", "DepthwiseConv", "SeparableConv", "Correlate", "Convolve"),
    *("DotProductAttention", "CDist", "Corrcoef", "GaussianBlur", "SobelEdges", "SSIM"),
    *("FFT", "FFT2", "IFFT2", "RFFT", "IRFFT", "STFT", "ISTFT"),
    *("Cholesky", "CholeskyInverse", "Det", "Eig", "Eigh", "Inv", "Logdet", "Lstsq", "LuFactor"),
    *("MatrixRank", "Pinv", "Qr", "Slogdet", "Solve", "SolveTriangular", "SVD"),
    *("AssociativeScan", "Cond", "ForiLoop", "JVP", "Map", "Scan", "Switch", "VectorizedMap"),
    *("WhileLoop", "ElasticTransform", "PerspectiveTransform", "ScaleAndTranslate"),
}
"""Operations of Keras that multiply or call a function, whose products no shape tells here."""


def _rule(layer: Any, rules: dict[Any, _Rule], held: Sequence[Any]) -> _Rule:
    """Return the rule of a layer: that of its nearest Keras class, unless it has its own `call`."""
    ancestry: tuple[Any, ...] = type(layer).__mro__
    for ancestor in ancestry:
        if ancestor in rules:
            is_its = type(layer).call is ancestor.call and not _changes(type(layer))
            return rules[ancestor] if is_its else _unknown
    return _unknown if _kernel_elements(held) or _changes(type(layer)) else _nothing
