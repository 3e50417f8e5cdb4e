"""The shape of one sample: that of the lecture's networks, and how any model tells its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .keras_api import keras

__all__ = ["MNIST_CLASSES", "MNIST_SHAPE", "input_shape"]

MNIST_SHAPE: tuple[int, int, int] = (28, 28, 1)
"""Height, width and channels of an MNIST digit, pixels (LeCun et al., 1998)."""

MNIST_CLASSES = 10


def input_shape(model: keras.Model) -> tuple[int, ...]:
    """Return the shape of one sample of a model, without the batch axis.

    Sequential, functional and subclassed models tell it, on Keras 2 and 3, once they have been
    given an input or called.

    Args:
        model: a model of one input.

    Raises:
        ValueError: the model was never called, has several inputs, or leaves an axis open.
    """
    batch_shape = _batch_shape(model)
    if not batch_shape:
        raise ValueError(
            f"{model.name}: the input shape is not known; call the model on keras.Input(shape)"
            " in its builder"
        )
    if not all(axis is None or isinstance(axis, int) for axis in batch_shape):
        raise ValueError(f"{model.name}: one input is supported, got shapes {batch_shape}")
    if None in batch_shape[1:]:
        raise ValueError(
            f"{model.name}: every axis of a sample must be fixed, got {tuple(batch_shape[1:])}"
        )
    return tuple(batch_shape[1:])


def _batch_shape(model: keras.Model) -> Any:
    """Return the input shape with its batch axis, a structure of several, or None."""
    declared = getattr(model, "input_shape", None)
    if declared:
        return declared
    built = model.get_build_config() or {}
    return built.get("input_shape", built.get("shapes_dict"))
