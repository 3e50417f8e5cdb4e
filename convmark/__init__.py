"""convmark: a benchmark harness for Keras ConvNets.

`measure`, `compare`, `read_results` and `report` are the commands as functions, for scripts and
notebooks; they return `Measurement`, `Comparison`, a table and `Shown`, and their errors are
`ConvmarkError`. `Suite` and `Measured` are what a project's own suites need. Loading this package
imports nothing else: the measured interpreter loads it too, and must need nothing but the framework
and the standard library.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable

__all__ = [
    "Comparison",
    "ConvmarkError",
    "Measured",
    "Measurement",
    "Shown",
    "Suite",
    "__version__",
    "compare",
    "measure",
    "read_results",
    "report",
]

__version__ = "0.1.0"

_FUNCTIONS = "convmark.cli.python"
_PLACES = {
    "Comparison": _FUNCTIONS,
    "ConvmarkError": "convmark.core.errors",
    "Measured": "convmark.plugin.replay",
    "Measurement": _FUNCTIONS,
    "Shown": _FUNCTIONS,
    "Suite": "convmark.core.suites",
    "measure": _FUNCTIONS,
    "read_results": _FUNCTIONS,
}
_CALLED = ("compare", "report")
"""Functions that have the name of a package."""
_MOVED = {"convmark.suites": "convmark.core.suites"}
"""Modules that suites written for earlier versions import, and where they are now."""


def __getattr__(name: str) -> object:
    if name in _CALLED:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class CalledPackage(types.ModuleType):
    """A package that is also called, as the function of its name: `convmark.report("results")`."""

    def __call__(self, *places: object, **options: object) -> object:
        return self._function(*places, **options)

    def __reduce__(self) -> tuple[object, ...]:
        return importlib.import_module, (self.__name__,)

    @property
    def _function(self) -> Callable[..., object]:
        functions = importlib.import_module(_FUNCTIONS)
        function: Callable[..., object] = getattr(functions, self.__name__.rpartition(".")[2])
        return function

    @property
    def __signature__(self) -> object:
        return importlib.import_module("inspect").signature(self._function)

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return self._function.__doc__


class _Moved(types.ModuleType):
    """A module under its old name, imported when something of it is asked for."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module(_MOVED[self.__name__]), name)


for _old in _MOVED:
    sys.modules.setdefault(_old, _Moved(_old))
