"""The case's model with one thing changed that is known to help some: to be timed, not to be used.

channels  the filters and units of its layers rounded up to a multiple of `MULTIPLE`, rebuilt from
          their configurations with new weights
folded    a batch normalisation adds a bias alone, as what is left of it in inference where the
          layer before it holds the rest

Each takes a builder and the backend, and returns the model.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from convmark.worker.blocks import OWN
from convmark.worker.cuts import cut
from convmark.worker.failure import CaseFailure
from convmark.worker.layer_facts import channel_axis, folded
from convmark.worker.protocol import one_line

MULTIPLE = 8
"""Of channels: as tensor cores need it for float16, and the vectors of a CPU for float32."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_SAMPLES = 7
"""Of the batch on which the shapes of two models are compared: a reshape may take samples for
channels."""


def _rounded(builder: Any, backend: Any) -> Any:
    """Return the model rebuilt with other channels; those of inputs and outputs stay.

    A single channel stays too: it is no vector, but a score of what has many.

    Raises:
        CaseFailure: it cannot be rebuilt, or would give results of another shape.
    """
    keras, model = backend.keras, builder()
    if not hasattr(keras, "KerasTensor") or not _is_made_of_layers(model):
        raise CaseFailure(
            "cannot be rebuilt: it is no functional or sequential model of Keras 3, so its own "
            "code makes its layers"
        )
    if not getattr(model, "inputs", None):
        raise CaseFailure("cannot be rebuilt: it has no Input, so its shapes are not known yet")
    place = 1 if keras.config.image_data_format() == "channels_first" else -1
    shapes = [tuple(one.shape) for one in (*model.inputs, *model.outputs)]
    kept = {1, *(shape[place] for shape in shapes if len(shape) > 1)}
    changed: list[str] = []

    def copied(layer: Any) -> Any:
        if not isinstance(layer, keras.layers.Layer):
            return layer  # an operation, which has no weights
        if _is_made_of_layers(layer):
            return keras.models.clone_model(layer, clone_function=copied)
        config = layer.get_config()
        for name in ("filters", "units"):
            number = config.get(name)
            if isinstance(number, int) and number not in kept and number % MULTIPLE:
                config[name] = -(-number // MULTIPLE) * MULTIPLE
                changed.append(layer.name)
        return type(layer).from_config(config)

    try:
        found = keras.models.clone_model(model, clone_function=copied)
        same = _results(found, keras) == _results(model, keras)
        if model.compiled and not found.compiled:  # by an earlier Keras
            found.compile_from_config(model.get_compile_config())
    except Exception as error:  # whatever a layer says that does not take other shapes
        text = _COLOUR.sub("", str(error)).partition("Arguments received")[0]  # by Keras
        raise CaseFailure(f"cannot be rebuilt: {one_line(text)}") from error
    if not changed:
        raise CaseFailure("no channels are left to round up but those of inputs and outputs")
    if not same:
        raise CaseFailure("cannot be rebuilt: its results would have another shape")
    return found


def _is_made_of_layers(layer: Any) -> bool:
    """Whether it is a model by its layers alone, and no class of the user's."""
    kind = type(layer)
    is_own = kind.__module__.split(".")[0] in OWN
    return is_own and kind.__name__ in ("Functional", "Sequential")


def _results(model: Any, keras: Any) -> list[tuple[int | None, ...]]:
    """Return the shapes of what a model gives of some samples."""
    is_one = type(model).__name__ == "Sequential"
    sample = keras.tree.map_structure(
        lambda one: keras.KerasTensor((_SAMPLES, *one.shape[1:]), one.dtype),
        model.inputs[0] if is_one else model.input,
    )
    made = keras.tree.flatten(model.compute_output_spec(sample))
    return [tuple(one.shape) for one in made]


def _without_normalisation(builder: Any, backend: Any) -> Any:
    """Return the model, whose batch normalisations add a bias where a layer could do the rest.

    Raises:
        CaseFailure: it has none of these.
    """
    keras, model = backend.keras, builder()
    if not hasattr(keras, "KerasTensor"):
        raise CaseFailure("a batch normalisation is left out with Keras 3 alone")
    backend.take_inputs(model, builder.input_spec)
    found = cut(model, backend, 1, None, training=False)
    pairs = folded(found)
    if not pairs:
        raise CaseFailure("has no batch normalisation that the layer before it could do")
    for place, before in pairs.items():
        unit = found.units[place]
        has_bias = bool(getattr(before.call.layer, "use_bias", False))
        shape = [1] * len(unit.call.output or ())
        shape[channel_axis(unit)] = -1
        unit.call.layer.call = _adds_bias(unit.call.layer, keras, None if has_bias else shape)
    return model


def _adds_bias(layer: Any, keras: Any, shape: list[int] | None) -> Callable[..., Any]:
    """Return a `call` that adds a bias of so many numbers as the layer has; None where the layer
    before it adds its own."""

    def call(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if shape is None:
            return inputs
        bias = keras.ops.cast(layer.moving_mean, inputs.dtype)
        return inputs + keras.ops.reshape(bias, shape)

    return call


VARIANTS = {"channels": _rounded, "folded": _without_normalisation}
"""By the name that a request has."""
