"""What the user's code looks for without opening it: files that may be there, and folders' names.

A flag that is there, or one file more in a folder, decides what a model is as a line of code does.
`os.stat` tells no audit hook of itself, so a witness stands in its place while the code is watched;
`os.path`, `pathlib` and `glob` all come by it or by `os.scandir`.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from convmark.worker.protocol import ABSENT, names_digest

__all__ = ["Looked", "asker"]

MOST = 1000
"""Paths that are told: more are no names that somebody has thought of."""
_LISTINGS = ("os.listdir", "os.scandir")
_SETS = ("supports_dir_fd", "supports_fd", "supports_follow_symlinks")
"""In `os`: what its functions can do, by the functions themselves."""
_STANDARD = os.path.dirname(os.path.abspath(os.__file__))
_INSTALLED = tuple(os.path.join(_STANDARD, name, "") for name in ("site-packages", "dist-packages"))
_OWN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")
_HOOK = "_note"
"""The audit hook of the code that watches."""
_MAKERS = ("makedirs", "mkdir")
"""Functions of the standard library that look for what they are about to make."""

Asks = Callable[[FrameType], bool]


class Looked:
    """What was looked for since it was made, until `close`."""

    def __init__(self, asks: Asks) -> None:
        """Begin.

        Args:
            asks: whether a frame, of no machinery, is of code that counts.
        """
        self._asks = asks
        self._paths: set[str] = set()
        self._folders: set[str] = set()
        self._stat = os.stat
        self._instead = self._noting()
        for name in _SETS:
            getattr(os, name).add(self._instead)
        os.stat = self._instead

    def _noting(self) -> Any:
        original = self._stat

        def stat(path: Any, **how: Any) -> os.stat_result:
            follows = how.get("dir_fd") is None and how.get("follow_symlinks", True)
            if follows and isinstance(path, (str, bytes, os.PathLike)):
                self.note_path(path)
            return original(path, **how)

        return stat

    def note(self, event: str, arguments: Any) -> None:
        """Note what an audit event tells: a file to be opened, or a folder whose names are read."""
        if event == "open" or event in _LISTINGS:
            path = "." if arguments[0] is None else arguments[0]
            if isinstance(path, (str, bytes, os.PathLike)):
                self.note_path(path, self._folders if event in _LISTINGS else self._paths)

    def note_path(self, path: Any, among: set[str] | None = None) -> None:
        """Note that the calling code looks for a path, if it counts."""
        frame = asker()
        if frame is not None and self._asks(frame):
            with contextlib.suppress(TypeError, ValueError):
                found = os.path.abspath(os.fsdecode(path))
                (self._paths if among is None else among).add(found)

    def stop(self) -> None:
        """Put `os.stat` back."""
        if os.stat is self._instead:
            os.stat = self._stat
        for name in _SETS:
            getattr(os, name).discard(self._instead)

    def close(self, counts: Callable[[str], bool]) -> tuple[set[str], dict[str, str], str]:
        """Return the files that were found, what was told of the other paths, and why it is less.

        A path that is not there is `ABSENT`; a folder whose names were read has their hash. A
        folder that was only looked for tells nothing: most often it is to be written to.

        Args:
            counts: whether a real path counts.
        """
        files = {os.path.realpath(path) for path in self._paths if os.path.isfile(path)}
        told = {}
        for path in self._paths:
            real = os.path.realpath(path)
            if not os.path.exists(real) and counts(real):
                told[real] = ABSENT
        for path in map(os.path.realpath, self._folders):
            if counts(path):
                told[path] = _hash_of_names(path, counts)
        if len(told) <= MOST:
            return files, told, ""
        return files, {}, f"the code looks for more than {MOST} files"


def asker() -> FrameType | None:
    """Return the nearest frame that is neither of the standard library nor of the worker.

    None where it is the import system's, which looks for modules, or the worker's own. Code without
    a file, as `exec` runs it, stands for the code that called it.
    """
    for frame in _frames():
        file = frame.f_code.co_filename
        if file.startswith("<frozen importlib"):
            return None
        if _is_standard(file):
            if frame.f_code.co_name in _MAKERS:
                return None
        elif file.startswith(_OWN):
            if file != __file__ and frame.f_code.co_name != _HOOK:
                return None
        elif not file.startswith("<"):
            return frame
    return None


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_standard(file: str) -> bool:
    return file.startswith(_STANDARD + os.sep) and not file.startswith(_INSTALLED)


def _hash_of_names(folder: str, counts: Callable[[str], bool]) -> str:
    """Return a hash of a folder's names, without those of tools and of what does not count."""
    try:
        names = os.listdir(folder)
    except OSError:
        return ABSENT
    return names_digest(name for name in names if counts(os.path.join(folder, name)))
