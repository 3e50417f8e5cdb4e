"""The framework that two codes share in one process: whose files it is of, and who replaces it.

And Python's own functions, which the harness measures with: who replaces those.
"""

from __future__ import annotations

import builtins
import functools
import gc
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from types import FunctionType, ModuleType
from typing import Any

from convmark.core.backends import packages_shared
from convmark.worker.code_watch import real_folder

MOST_NAMED = 3
MOST_WRAPPED = 9
"""Functions around each other that are looked through."""
_SHARED = packages_shared()
_WRAPPERS = (functools.partial, staticmethod, classmethod)
_LOOKED_AT = (FunctionType, *_WRAPPERS)
Owner = Callable[[str], "str | None"]
"""Gives the name of the code that a file is of, None for any other file."""
Content = Mapping[str, tuple[Any, Mapping[str, Any]]]
"""Modules and classes by their places, and what each held."""
_PYTHONS: Mapping[str, Any] = {
    f"{module.__name__}.{name}": (vars(module), name, value)
    for module in (builtins, gc, math, time)
    for name, value in vars(module).items()
    if callable(value)
}
"""Python's own functions as they were before any code of a user's was imported."""


def framework_folders() -> list[str]:
    """Return the folders of the frameworks' packages, without symbolic links."""
    modules = map(sys.modules.get, sorted(_SHARED))
    return [real_folder(folder) for one in modules for folder in getattr(one, "__path__", ())]


def own_framework(owner: Owner) -> str | None:
    """Return in one line that a framework is of the files of one code; None where none is."""
    for folder in framework_folders():
        if side := owner(os.path.join(folder, "__init__.py")):
            return f"the {side} code has a {os.path.basename(folder)} of its own"
    return None


def framework_content() -> Content:
    """Return what the framework's modules and classes hold, for `patched` to compare with."""
    found: dict[str, tuple[Any, Mapping[str, Any]]] = {}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in _SHARED or not isinstance(module, ModuleType):
            continue
        found[name] = module, dict(vars(module))
        for attribute, value in found[name][1].items():
            if issubclass(type(value), type) and value.__module__ == name:
                found[f"{name}.{attribute}"] = value, dict(vars(value))
    return found


def _exchanged(before: Content) -> list[str]:
    """Return the places where something else is called now than before.

    A framework may put functions in the place of its own, as torch.compile does: they are new.
    """
    found, known = [], None
    for place, (holder, content) in before.items():
        now = vars(holder)
        for name, value in content.items():
            instead = now.get(name, value)
            if instead is value or not (_is_called(value) and _is_called(instead)):
                continue
            if known is None:
                known = {id(one) for _, content in before.values() for one in content.values()}
            if type(instead) is not FunctionType or id(instead) in known:
                found.append(f"{place}.{name}")
    return found


def _is_called(value: Any) -> bool:
    return callable(value) or hasattr(type(value), "__get__")


def patched(owner: Owner, before: Content) -> str | None:
    """Return in one line which of the framework's functions a code has replaced; None where none.

    A function counts by the file of its code, whatever name it goes by, and by that of each that it
    wraps; a class by its functions. Anything else that is called, such as a partial of one of the
    framework's own functions, counts where it was not before.

    Args:
        before: what the framework held before the codes were imported.
    """
    owner_of = functools.cache(owner)
    found: dict[str, str] = {}
    seen: set[int] = set()

    def look(place: str, value: Any) -> None:
        for _ in range(MOST_WRAPPED):
            if isinstance(value, FunctionType):
                if side := owner_of(value.__code__.co_filename):
                    found[place] = side
                value = getattr(value, "__wrapped__", None)
                if value is None:
                    return
            elif isinstance(value, _WRAPPERS):
                value = value.func if isinstance(value, functools.partial) else value.__func__
            else:
                return

    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in _SHARED or not isinstance(module, ModuleType):
            continue
        for attribute, value in list(vars(module).items()):
            if type(value) in _LOOKED_AT:
                look(f"{name}.{attribute}", value)
            elif issubclass(type(value), type):  # another framework module's is looked at there
                known = id(value) in seen or str(value.__module__).partition(".")[0] in _SHARED
                seen.add(id(value))
                if value.__module__ != name and known:
                    continue
                for method, function in list(vars(value).items()):
                    if type(function) in _LOOKED_AT:
                        look(f"{name}.{attribute}.{method}", function)
    for place in _exchanged(before):
        found.setdefault(place, "")
    if not found:
        return None
    names = sorted(found)
    code = f"the {found[names[0]]}" if found[names[0]] else "a"
    return f"{code} code replaces functions of the framework: {some_of(names)}"


def pythons_replaced() -> list[str]:
    """Return the names of Python's own functions in whose places there are others by now."""
    return [place for place, (now, name, own) in _PYTHONS.items() if now.get(name) is not own]


def some_of(parts: list[str]) -> str:
    """Return the first of the parts in one line, and how many more there are."""
    more = len(parts) - MOST_NAMED
    return ", ".join(parts[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
