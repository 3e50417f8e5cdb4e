"""From a model's name to its builder: the lecture's six and keras.applications."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .keras_api import keras

__all__ = ["UnknownModelError", "builder", "names"]

LECTURE: dict[str, str] = {
    "conv_layer": "layers",
    "lenet5": "lenet",
    "mini_inception": "inception",
    "mini_resnet": "resnet",
    "mini_resnet_norm": "resnet",
    "separable_layer": "layers",
}
"""The lecture's models, each with the module here that holds its builder."""


FLOATX, DATA_FORMAT = "float32", "channels_last"
"""What the networks are built in."""


class UnknownModelError(LookupError):
    """A model's name leads to no builder; the message is one line and says what to do."""


def names() -> tuple[str, ...]:
    """Return every known name, sorted; which ones depends on the version of Keras."""
    return tuple(sorted({*LECTURE, *_applications()}))


def builder(name: str) -> Callable[[], keras.Model]:
    """Return the builder of a model: called without arguments, it gives a fresh model.

    A model of keras.applications has random weights, its classifier and its own input size.
    What building raises is the caller's matter.

    Args:
        name: one of `names()`.

    Raises:
        UnknownModelError: no such name.
    """
    if name in LECTURE:
        module = importlib.import_module(f".{LECTURE[name]}", __package__)
        return functools.partial(_built, getattr(module, name))
    applications = _applications()
    if name in applications:
        return functools.partial(_built, functools.partial(applications[name], weights=None))
    raise UnknownModelError(unknown(name, names()))


def _built(build: Callable[[], keras.Model]) -> keras.Model:
    """Return a model built under Keras's own defaults, whatever keras.json or a program has set.

    They are the order of axes and the dtype, which a network's shapes and sizes depend on. A
    global dtype policy that differs from floatx was chosen, and counts.
    """
    from .keras_api import keras

    backend, precision = keras.backend, keras.mixed_precision
    floatx, data_format = backend.floatx(), backend.image_data_format()
    policy = precision.global_policy()
    default = floatx != FLOATX and policy.name == floatx
    try:
        backend.set_floatx(FLOATX)
        backend.set_image_data_format(DATA_FORMAT)
        if default:
            precision.set_global_policy(FLOATX)
        return build()
    finally:
        backend.set_floatx(floatx)
        backend.set_image_data_format(data_format)
        if default:
            precision.set_global_policy(policy)


def _applications() -> dict[str, Callable[..., keras.Model]]:
    """Return the builders of keras.applications by lower-case name: those that take weights."""
    from .keras_api import keras  # costs seconds, so not before it is asked for

    return {
        attribute.lower(): value
        for attribute, value in vars(keras.applications).items()
        if callable(value) and "weights" in inspect.signature(value).parameters
    }


def unknown(name: str, known: Iterable[str]) -> str:
    """Return the message for a name that is not known: what else it may be, the nearest names."""
    near = difflib.get_close_matches(name.lower(), sorted(known), n=3)
    question = f"; did you mean {' or '.join(near)}?" if near else ""
    return (
        f"{name}: no such model; a model of your own is package.module:attribute, or a file such "
        f"as net.keras{question}"
    )
