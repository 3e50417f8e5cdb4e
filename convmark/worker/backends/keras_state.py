"""Keras's settings: read, set, suspended for the harness's own calls, and kept for two codes.

The values of a model's variables: looked at between its steps, kept, and given back.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import itertools
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
from convmark_zoo.keras_api import KERAS_VERSION, keras

from convmark.worker.backends.keras_parts import elements, item_bytes
from convmark.worker.backends.own_training import OPTIMIZERS, counted, held
from convmark.worker.precisions import kind_of

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

_SETTINGS = ("floatx", "image_data_format", "epsilon")
_NAMES = "object_name_uids"
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def read_all(readers: Mapping[str, Callable[[], object]]) -> dict[str, str]:
    """Return what the readers give as text; one whose subject is not there gives nothing.

    An object's address is left out: each process has another one.
    """
    found = {}
    for name, read in readers.items():
        with contextlib.suppress(Exception):  # private names move between versions
            found[name] = _ADDRESS.sub("", str(read()))
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
            "traceback_filtering": lambda: keras.config.is_traceback_filtering_enabled(),
            "autocast_scope": lambda: getattr(_state().get("autocast_scope"), "dtype", None),
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
    keep_setting("dtype_policy")


def _global_state() -> Any:
    from keras.src.backend.common import global_state

    return global_state


_KEPT = "convmark_keeps"
"""In Keras's state: what the harness has set in it for the case, by Keras's names."""


def keep_setting(name: str) -> None:
    """Have `clear_session`, which builders call first, leave a setting as it is now.

    Keras 3 keeps its policy, and PyTorch's device, in the state which that throws away.
    """
    if KERAS_VERSION >= (3, 0):
        _global_state().threading = SimpleNamespace(local=_cleared)  # what it makes a state with
        _state()[_KEPT] = {**_state().get(_KEPT, {}), name: _state().get(name)}


def _cleared() -> Any:
    """Return a new state of Keras that has what the harness has set."""
    kept, state = _state().get(_KEPT, {}), threading.local()
    vars(state).update({**kept, _KEPT: kept})
    return state


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


MOST_RUNNING_BYTES, MOST_RUNNING_BYTES_EACH = 1 << 22, 1 << 17
"""Of weights that no gradient changes; such as the means of batch normalisation are smaller."""


def running_weights(model: Any) -> dict[int, bytes]:
    """Return hashes of the smaller weights that no gradient changes, by the weight's identity.

    Empty where the model does not tell, such as one whose weights no framework holds.
    """
    found: dict[int, bytes] = {}
    left = MOST_RUNNING_BYTES
    with contextlib.suppress(Exception):  # a model's own variables may raise any
        for weight in model.non_trainable_weights:
            size = elements(weight) * item_bytes(weight.dtype)
            if size <= min(left, MOST_RUNNING_BYTES_EACH):
                left -= size
                found[id(weight)] = hashlib.sha256(weight.numpy().tobytes()).digest()
    return found


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
    names = {str(getattr(weight.dtype, "name", weight.dtype)) for weight in own}
    stored = {one.removeprefix("torch.") for one in names if "float" in one or "complex" in one}
    return [kind_of(str(layer.compute_dtype or name), name) for name in sorted(stored)[:1]]


class KerasContext:
    """Keras as one code has it: at first as it is now."""

    held = frozenset([*_SETTINGS, "dtype_policy"])
    """Names of the settings that it holds."""

    def __init__(self) -> None:
        self._state = {
            name: copy.copy(value) if isinstance(value, (dict, list, set)) else value
            for name, value in _state().items()
        }
        self._saved = _Saved()

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Have Keras be this code's."""
        others = _Saved()
        others_state = dict(_state())
        self._saved.restore()
        _replace(_state(), self._state)
        try:
            yield
        finally:
            self._saved = _Saved()
            self._state = dict(_state())
            _replace(_state(), others_state)
            others.restore()

    @staticmethod
    def forget_names() -> None:
        """Have the code that is active name its layers as in a fresh process."""
        if KERAS_VERSION < (3, 0):
            keras.backend.reset_uids()
        else:
            _state().pop(_NAMES, None)

    @staticmethod
    def set_policy(name: str) -> None:
        """Set the global dtype policy of the code that is active."""
        set_policy(name)


class _Saved:
    """What Keras's public functions give, to be set again."""

    def __init__(self) -> None:
        self._settings = {name: getattr(keras.backend, name)() for name in _SETTINGS}
        self._objects = dict(keras.utils.get_custom_objects())
        # Keras 3 keeps its policy in the state; asking for the default would fix it
        self._policy = keras.mixed_precision.global_policy() if KERAS_VERSION < (3, 0) else None

    def restore(self) -> None:
        for name, value in self._settings.items():
            getattr(keras.backend, f"set_{name}")(value)
        _replace(keras.utils.get_custom_objects(), self._objects)
        if KERAS_VERSION < (3, 0):
            keras.mixed_precision.set_global_policy(self._policy)


def _state() -> dict[str, Any]:
    """Return the attributes that Keras 3 keeps for this thread; Keras 2 has none of them."""
    if KERAS_VERSION < (3, 0):
        return {}
    from keras.src.backend.common import global_state

    attributes: dict[str, Any] = vars(global_state.GLOBAL_STATE_TRACKER)
    return attributes


def _replace(attributes: dict[str, Any], by: dict[str, Any]) -> None:
    attributes.clear()
    attributes.update(by)


def dtype_policy(precision: str) -> str:
    """Return the Keras dtype policy of a precision: TF32 stores float32 and only multiplies so."""
    return "float32" if precision == "tf32" else precision


MOST_KEPT_BYTES = 1 << 29


def kept_values(model: Any) -> Callable[[], None]:
    """Return what gives a model's, its metrics' and its optimizers' variables the values of now.

    Raises:
        MemoryError: these are of too many bytes to keep them a second time.
    """
    optimizers = held(model, OPTIMIZERS)
    inner = [getattr(one, "inner_optimizer", one) for one in optimizers]
    holders = (model, *getattr(model, "metrics", ()), *optimizers, *inner)
    found = [one for holder in holders for one in _variables(holder)]
    each = list({id(one): one for one in found}.values())
    check_size(elements(one) * item_bytes(one.dtype) for one in each)
    values = [np.array(one.numpy()) for one in each]  # PyTorch's share the memory of the weights

    def restore() -> None:
        for one, value in zip(each, values, strict=True):
            one.assign(value)

    return restore


def check_size(sizes: Iterable[int]) -> None:
    """Raise a MemoryError where values of these numbers of bytes are too many to keep."""
    if sum(sizes) > MOST_KEPT_BYTES:
        raise MemoryError("too many values to keep")


def _variables(holder: Any) -> list[Any]:
    found = holder.variables
    return [*(found() if callable(found) else found)]


MOST_WATCHED, MOST_WATCHED_BYTES, LAST = 12, 1 << 17, 4
"""Trainable weights that are looked at: the last few, which train where all else is frozen, and
the smallest; so that no copy shows in the memory."""


def training_progress(model: Any, *, whole: bool = False) -> tuple[int, str] | None:
    """Return the updates that the model's optimizers have counted, and a hash of some weights.

    Args:
        whole: whether of all trainable weights and all that the optimizers keep, such as gradients
            that are collected; each may be copied.

    Returns:
        None where it does not tell, such as a model whose values are with a step of JAX.
    """
    with contextlib.suppress(Exception):  # a model's own variables and optimizers may raise any
        optimizers = held(model, OPTIMIZERS)
        inner = [getattr(one, "inner_optimizer", one) for one in optimizers]
        updates = sum(counted(one) for one in inner)
        weights = list(model.trainable_variables)
        values = hashlib.sha256()
        kept = [*weights, *itertools.chain(*map(_kept_by, inner))]
        for weight in kept if whole else _watched(weights):
            values.update(weight.numpy().tobytes())
        return updates, values.hexdigest()
    return None


def _kept_by(optimizer: Any) -> list[Any]:
    """Return an optimizer's own variables but for its counts and rates, which tell of no work."""
    return [one for one in _variables(optimizer) if len(one.shape)]


def _watched(weights: list[Any]) -> list[Any]:
    """Return those that are looked at between steps."""
    last, others = weights[-LAST:], weights[:-LAST]
    left, found = MOST_WATCHED_BYTES, list[Any]()
    for weight in [*last, *sorted(others, key=elements)]:
        size = elements(weight) * item_bytes(weight.dtype)
        if size <= left and len(found) < MOST_WATCHED:
            left -= size
            found.append(weight)
    return found
