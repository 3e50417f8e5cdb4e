"""Keras's settings, on Keras 2 and 3: read, set, and suspended for the harness's own calls."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from convmark_zoo.keras_api import KERAS_VERSION, keras

__all__ = [
    "DEFAULTS",
    "Conventions",
    "keras_settings",
    "layer_precisions",
    "limits_lifted",
    "read_all",
    "set_policy",
]

DEFAULTS: Mapping[str, str] = {
    "floatx": "float32",
    "image_data_format": "channels_last",
    "epsilon": "1e-07",
    "max_epochs": "None",
    "max_steps_per_epoch": "None",
    "flash_attention": "None",
    "nnx": "False",
    "distribution": "None",
}

_LOW = ("float16", "bfloat16")


def read_all(readers: Mapping[str, Callable[[], object]]) -> dict[str, str]:
    """Return what the readers give as text; one whose subject is not there gives nothing."""
    found = {}
    for name, read in readers.items():
        with contextlib.suppress(Exception):  # private names move between versions
            found[name] = str(read())
    return found


def keras_settings() -> dict[str, str]:
    """Return Keras's settings as text, by name."""
    return read_all(
        {
            "floatx": keras.backend.floatx,
            "image_data_format": keras.backend.image_data_format,
            "epsilon": keras.backend.epsilon,
            "dtype_policy": _policy_name,
            "max_epochs": lambda: keras.config.max_epochs(),
            "max_steps_per_epoch": lambda: keras.config.max_steps_per_epoch(),
            "flash_attention": lambda: keras.config.is_flash_attention_enabled(),
            "nnx": lambda: keras.config.is_nnx_enabled(),
            "distribution": lambda: keras.distribution.distribution(),
        }
    )


def set_policy(name: str) -> None:
    """Set the global dtype policy.

    float32 is left as the default, so that a floatx that the model's code sets counts.
    """
    if name != "float32":
        keras.mixed_precision.set_global_policy(name)
    elif KERAS_VERSION < (3, 0):
        keras.mixed_precision.set_global_policy(None)
    else:
        _global_state().set_global_attribute("dtype_policy", None)


def _global_state() -> Any:
    from keras.src.backend.common import global_state

    return global_state


def _policy_name() -> str:
    """Return the global policy's name; on Keras 3 asking for the default would fix it."""
    if KERAS_VERSION < (3, 0):
        return str(keras.mixed_precision.global_policy().name)
    policy = _global_state().get_global_attribute("dtype_policy", None)
    return str(policy.name) if policy is not None else str(keras.backend.floatx())


class Conventions:
    """Order of axes, floatx and epsilon as Keras had them when it was imported."""

    def __init__(self) -> None:
        self._own = {name: getattr(keras.backend, name)() for name in _CONVENTIONS}

    def begin(self, *, of_the_zoo: bool) -> None:
        """Set them for a case: the zoo's networks have Keras's defaults whatever keras.json says.

        A case in the same process may have changed them before.
        """
        for name, value in (_CONVENTIONS if of_the_zoo else self._own).items():
            getattr(keras.backend, f"set_{name}")(value)


_CONVENTIONS: Mapping[str, Any] = {
    "floatx": "float32",
    "image_data_format": "channels_last",
    "epsilon": 1e-7,
}


@contextlib.contextmanager
def limits_lifted() -> Iterator[None]:
    """Have Keras train as many epochs and steps as it is asked for, whatever limits are set."""
    config = getattr(keras, "config", None)
    names = [name for name in ("max_epochs", "max_steps_per_epoch") if hasattr(config, name)]
    limits = {name: getattr(config, name)() for name in names}
    try:
        for name in names:
            getattr(config, f"set_{name}")(None)
        yield
    finally:
        for name, limit in limits.items():
            getattr(config, f"set_{name}")(limit)


def layer_precisions(model: Any) -> list[str]:
    """Return what each layer with weights computes in; where none has weights, each layer."""
    layers = [
        layer
        for layer in model._flatten_layers()
        if not isinstance(layer, keras.metrics.Metric)  # a layer too, on Keras 2
    ]
    kinds = [kind for layer in layers for kind in _kinds(layer)]
    if kinds:
        return kinds
    leaves = [layer for layer in layers if not list(layer._flatten_layers(include_self=False))]
    return [
        str(layer.compute_dtype)
        for layer in leaves
        if not isinstance(layer, keras.layers.InputLayer) and layer.compute_dtype
    ]


def _kinds(layer: Any) -> list[str]:
    """Return the layer's kind by its own weights: none where it has none of numbers."""
    if getattr(layer, "quantization_mode", None):
        return [str(layer.dtype_policy.name).replace("/", "_")]
    own = [
        weight
        for kind in ("trainable", "non_trainable")
        for suffix in ("variables", "weights")
        for weight in vars(layer).get(f"_{kind}_{suffix}") or ()
    ]
    stored = {_dtype_name(weight.dtype) for weight in own}
    stored = {name for name in stored if "float" in name}
    return [_kind(str(layer.compute_dtype or name), name) for name in sorted(stored)[:1]]


def _dtype_name(dtype: Any) -> str:
    return str(getattr(dtype, "name", dtype)).removeprefix("torch.")


def _kind(computed: str, stored: str) -> str:
    """Return a precision's name: of one dtype, mixed as Keras mixes them, or both dtypes."""
    if computed == stored:
        return computed
    if stored == "float32" and computed in _LOW:
        return f"mixed_{computed}"
    return f"{computed}_from_{stored}"
