"""The environment variables that decide what runs: read by the user's code, or for it."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any

from convmark.worker.packages import tree_of

MOST_VARIABLES = 40
"""Read one by one: more are a copy of them all, as for a child process."""

_HARMLESS = re.compile(
    r"HOME|PATH|PWD|OLDPWD|USER|LOGNAME|SHELL|TERM|COLUMNS|LINES|LANG|LC_.*|TZ|DISPLAY|TMPDIR|TEMP|"
    r"TMP|HOSTNAME|XDG_.*|PYTHON.*|PYTEST_.*|CONVMARK_.*|NO_COLOR|FORCE_COLOR"
)
"""Variables that say where things are, not what is computed."""
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH", re.IGNORECASE)
_PLAIN = re.compile(r"[\w.,:/+-]{1,40}")


class VariableWatch:
    """Notes which variables are looked up, in texts or bytes, until `stop`."""

    def __init__(self, asks: Callable[[FrameType | None], bool]) -> None:
        """Begin.

        Args:
            asks: whether what a frame looks up counts.
        """
        self.read: dict[str, Any] = {}
        """The raw values by name; None where none is set."""
        self._asks = asks
        self._classes: list[tuple[Any, type]] = [
            (one, one.__class__) for one in (os.environ, os.environb)
        ]
        for environ, base in self._classes:
            environ.__class__ = _reading(base, self._note)

    def _note(self, name: Any, frame: FrameType) -> None:
        if isinstance(name, (str, bytes)) and self._asks(frame):
            text = os.fsdecode(name)
            self.read[text] = os.environ._data.get(os.environ.encodekey(text))  # type: ignore[attr-defined]

    def stop(self) -> None:
        """Put the classes back."""
        for environ, base in self._classes:
            environ.__class__ = base


def _reading(base: type, note: Callable[[Any, FrameType], None]) -> type:
    """Return the class of `os.environ` with a witness of what is looked up."""

    class Reading(base):  # type: ignore[misc]  # os._Environ, which has no public name
        def __getitem__(self, key: Any) -> Any:
            note(key, sys._getframe(1))
            return super().__getitem__(key)

        def __contains__(self, key: Any) -> bool:
            note(key, sys._getframe(1))
            return bool(super().__contains__(key))

    return Reading


def told_variables(variables: Mapping[str, Any], users: Sequence[str]) -> dict[str, str]:
    """Return the variables that were read and are set, a long or secret value as its hash.

    Where so many were read that the environment was copied as a whole, those count that begin with
    a word between quotes in the user's own files, or are a name there as of a setting's field; in
    letters of either case.
    """
    told: dict[str, str] = {}
    copied = len(variables) > MOST_VARIABLES
    begins, names = _words(users) if copied else ((), set())
    for name, raw in sorted(variables.items()):
        low = name.lower()
        if copied and not (low.startswith(begins) or low in names):
            continue
        value = os.fsdecode(raw) if raw is not None else ""
        if not value or _HARMLESS.fullmatch(name):
            continue
        plain = _PLAIN.fullmatch(value) and not _SECRET.search(name)
        told[name] = value if plain else f"sha256:{hashlib.sha256(value.encode()).hexdigest()[:8]}"
    return told


def _words(paths: Sequence[str]) -> tuple[tuple[str, ...], set[str]]:
    """Return the words in texts of Python files that may begin a variable's name, and names."""
    begins: set[str] = set()
    names: set[str] = set()
    for node in (node for path in paths for node in ast.walk(tree_of(path))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            begins |= set(re.findall(r"[a-z][a-z0-9_]{2,}", node.value.lower()))
        elif isinstance(node, (ast.Name, ast.Attribute)):
            names.add((node.id if isinstance(node, ast.Name) else node.attr).lower())
    return tuple(begins), names
