"""Keras's process-wide settings, kept separately for each of two codes in one process.

Policy, floatx, order of axes, epsilon, the names given so far, the random seeds and the registered
classes are Python's alone: they can be exchanged whenever the other code gets its turn.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

from convmark_zoo.keras_api import KERAS_VERSION, keras

from convmark.worker.backends.keras_state import set_policy

__all__ = ["KerasContext"]

_SETTINGS = ("floatx", "image_data_format", "epsilon")
_NAMES = "object_name_uids"


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
