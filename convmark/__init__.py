"""convmark: a benchmark harness for Keras ConvNets.

`Suite` and `Measured` are what a project's own suites need. Loading this package imports nothing
else: the measured interpreter loads it too, and must need nothing but the framework and the
standard library.
"""

import importlib
import sys
import types

__all__ = ["Measured", "Suite", "__version__"]

__version__ = "0.1.0"

_PLACES = {"Measured": "convmark.plugin.replay", "Suite": "convmark.core.suites"}
_MOVED = {"convmark.suites": "convmark.core.suites"}
"""Modules that suites written for earlier versions import, and where they are now."""


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


class _Moved(types.ModuleType):
    """A module under its old name, imported when something of it is asked for."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module(_MOVED[self.__name__]), name)


for _old in _MOVED:
    sys.modules.setdefault(_old, _Moved(_old))
