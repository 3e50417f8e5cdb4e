"""Settings that one of two codes changes for the process, and so for the other code.

Such codes cannot share a process: a setting would slow both, or speed both up, and no ratio of the
two would tell. Settings of Python that each code can have for itself are not asked here.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType, ModuleType
from typing import Any

from convmark.core.backends import packages_shared
from convmark.worker.process_state import process_settings

__all__ = ["Environ", "differing", "patched", "process_wide", "what_was_set"]

MOST_NAMED = 3
_PATCHED = packages_shared()
_OWN_OF_A_SIDE = {"PWD", "OLDPWD"}
_OF_A_COMPILER = {"python_threads", "child_processes"}

Settings = Mapping[str, str]
Environ = dict[str, str]


def process_wide(backend: Any) -> Settings:
    """Return the settings that hold for the whole process as text, by name."""
    intra, inter = backend.thread_counts()
    threads = {"intra_op_threads": str(intra), "inter_op_threads": str(inter)}
    found = {**process_settings(), **backend.settings(), **threads}
    if backend.has_compiler:
        found = {name: value for name, value in found.items() if name not in _OF_A_COMPILER}
    return found


def what_was_set(side: str, before: Settings, now: Settings, held: Iterable[str]) -> str | None:
    """Return in one line what a code has set for the whole process; None where nothing.

    Args:
        held: names of settings that each code has for itself.
    """
    names = sorted((before.keys() & now.keys()) - set(held))
    pairs = [f"{name}={now[name]}" for name in names if before[name] != now[name]]
    if not pairs:
        return None
    return f"the {side} code changes settings of the process: {_some(pairs)}"


def differing(*environs: Environ) -> str:
    """Return the names of the variables that are not the same in all; empty where all are."""
    names = set().union(*environs) - _OWN_OF_A_SIDE
    values = {name: {environ.get(name) for environ in environs} for name in names}
    return _some(sorted(name for name, found in values.items() if len(found) > 1))


def patched(owner: Callable[[str], str | None]) -> str | None:
    """Return in one line which of the framework's functions a code has replaced; None where none.

    A function counts by the file of its code, whatever name it goes by.

    Args:
        owner: gives the name of the code that a file is of, None for any other file.
    """
    owner_of = functools.cache(owner)
    found: dict[str, str] = {}

    def look(place: str, attribute: str, function: FunctionType) -> None:
        if side := owner_of(function.__code__.co_filename):
            found[f"{place}.{attribute}"] = side

    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in _PATCHED or not isinstance(module, ModuleType):
            continue
        for attribute, value in list(vars(module).items()):
            if isinstance(value, FunctionType):
                look(name, attribute, value)
            elif isinstance(value, type) and value.__module__ == name:
                for method, function in list(vars(value).items()):
                    if isinstance(function, FunctionType):
                        look(f"{name}.{value.__name__}", method, function)
    if not found:
        return None
    names = sorted(found)
    return f"the {found[names[0]]} code replaces functions of the framework: {_some(names)}"


def _some(parts: list[str]) -> str:
    more = len(parts) - MOST_NAMED
    return ", ".join(parts[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
