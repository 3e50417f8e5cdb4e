"""What is known of a unit without running it: its FLOPs, its bytes, and in what it computes."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from convmark.worker.blocks import OUTSIDE, OWN
from convmark.worker.cuts import Cut, Unit, path_of
from convmark.worker.flops import call_flops
from convmark.worker.traced import LayerCall, is_variable, tensors

_READS_PART = {
    *("Embedding", "Take", "TakeAlongAxis", "GetItem", "Slice"),
    *("Cropping1D", "Cropping2D", "Cropping3D"),
}
"""What reads no more of a table, or of what it is given, than it gives."""
_VIEWS = {"InputLayer", "Flatten", "Reshape", "Identity", "ExpandDims", "Squeeze", "StopGradient"}
"""What hands on the values that it is given."""


def unit_facts(unit: Unit, keras: Any) -> dict[str, Any]:
    """Return what is known of a unit without running it: FLOPs and bytes are those of a step."""
    call = unit.call
    return {
        "name": unit.name,
        "label": path_of(call, _label) + unit.name[len(path_of(call)) :],
        "kind": type(call.layer).__name__,
        "shape": [None if axis is None else int(axis) for axis in call.output or ()],
        "flops": None if unit.note == OUTSIDE else call_flops(call, keras),
        "moved_bytes": moved_bytes([unit]),
        "weight_bytes": _read(unit, unit.weights),
        "operations": operations(call),
        "computes": " + ".join(sorted(_computes(call))),
        "settings": _settings(call.layer),
        "note": unit.note,
    }


def operations(call: LayerCall) -> int:
    """Return how many layers' calls a call amounts to, at least; a recurrent one's for each step of
    time."""
    inside = max(1, sum(map(operations, call.inner)))
    shape = next(iter(call.positional), None) or ()
    steps = shape[1] if hasattr(call.layer, "cell") and len(shape) > 2 else 1
    return inside * (steps or 1)


_LINEAR = {
    *("Conv1D", "Conv2D", "Conv3D", "DepthwiseConv1D", "DepthwiseConv2D", "Dense"),
    *("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"),
    *("SeparableConv1D", "SeparableConv2D"),
}
"""Layers whose kernel and bias can hold what a batch normalisation after them multiplies and adds.
"""


def folded(found: Cut) -> dict[int, Unit]:
    """Return the batch normalisations, by place, that the layer before them could do in inference.

    That must be linear, give its result to nothing else, and be called once. One that the model's
    own code calls as in training has the batch's own mean, which no kernel can hold.
    """
    makers = {value: unit for unit in found.units for value in unit.gives}
    taken = Counter([*found.outputs, *(value for unit in found.units for value in unit.takes)])
    called = Counter(id(unit.call.layer) for unit in found.units)
    pairs = {
        place: makers.get(unit.takes[0])
        for place, unit in enumerate(found.units)
        if len(unit.takes) == 1
        and _is_one_of(unit, ["BatchNormalization"])
        and not unit.call.training
    }
    return {
        place: before
        for place, before in pairs.items()
        if before is not None
        and _is_one_of(before, _LINEAR)
        and _is_linear(before.call.layer.activation)
        and taken[found.units[place].takes[0]] == 1
        and called[id(before.call.layer)] == called[id(found.units[place].call.layer)] == 1
        and channel_axis(found.units[place]) == channel_axis(before)
    }


def _is_linear(activation: Any) -> bool:
    """Whether it is none; an activation may be a layer too."""
    return activation is None or getattr(activation, "__name__", "") == "linear"


def channel_axis(unit: Unit) -> int:
    """Return the axis of a unit's result that its weights are of."""
    layer, axes = unit.call.layer, len(unit.call.output or ())
    axis = getattr(layer, "axis", None)
    if axis is None:
        axis = 1 if getattr(layer, "data_format", None) == "channels_first" else -1
    return (axis if isinstance(axis, int) else axis[0]) % axes


def _label(layer: Any) -> str:
    """Return a layer's name without the number that Keras gave it: one more layer moves those."""
    words = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", type(layer).__name__))
    words = re.sub("([a-z])([A-Z])", r"\1_\2", words).lower()
    return words if re.fullmatch(rf"{words}(_\d+)?", layer.name) else str(layer.name)


def moved_bytes(units: Sequence[Unit]) -> int | None:
    """Return the bytes that a chain of units takes, holds as weights and gives, once each.

    Of a table, such as that of an Embedding, those that it reads; of mere views none.
    """
    if all(_is_one_of(unit, _VIEWS) for unit in units):
        return 0
    taken = [one for one in tensors(units[0].call.taken) if not is_variable(one)]  # a weight
    parts = [_read(units[0], taken), *(_read(unit, unit.weights) for unit in units)]
    parts.append(_bytes(tensors(units[-1].call.made)))
    return None if None in parts else sum(part or 0 for part in parts)


def _read(unit: Unit, values: Sequence[Any]) -> int | None:
    """Return the bytes of what a unit reads of some values."""
    if not _is_one_of(unit, _READS_PART):
        return _bytes(values)
    shapes = [tuple(one.shape) for one in tensors(unit.call.made)]
    if any(not isinstance(axis, int) for shape in shapes for axis in shape):
        return None
    return _bytes(values, sum(map(math.prod, shapes)))


def _is_one_of(unit: Unit, names: Collection[str]) -> bool:
    """Whether a unit's layer or operation is Keras's own of such a name."""
    kind = type(unit.call.layer)
    return kind.__name__ in names and kind.__module__.split(".")[0] in OWN


def _bytes(values: Sequence[Any], most: float = math.inf) -> int | None:
    """Return the bytes of values, of each at most so many elements; None for an unknown shape."""
    shapes = [tuple(one.shape) for one in values]
    if any(not isinstance(axis, int) for shape in shapes for axis in shape):
        return None
    names = (str(getattr(one.dtype, "name", one.dtype)) for one in values)
    bits = [next((int(one) for one in ("64", "32", "16") if one in name), 8) for name in names]
    sizes = (int(min(math.prod(one), most)) for one in shapes)
    return sum(size * width // 8 for size, width in zip(sizes, bits, strict=True))


def _computes(call: LayerCall) -> set[str]:
    """Return in what the layers of a call multiply that have weights for it."""
    found = set().union(*map(_computes, call.inner))
    held = getattr(call.layer, "weights", None) or ()
    dtype = getattr(call.layer, "compute_dtype", None)
    if not found and dtype and any(len(weight.shape) >= 2 for weight in held):
        found = {str(getattr(call.layer, "quantization_mode", None) or dtype)}
    return found


def _settings(layer: Any) -> dict[str, Any]:
    """Return what advice on a convolution goes by."""
    kernel = getattr(layer, "kernel_size", None)
    filters = getattr(layer, "filters", None) or getattr(layer, "units", None)
    return {"kernel": list(kernel) if kernel else None, "channels": filters}
