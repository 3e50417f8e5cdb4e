"""What the user's code looks for without opening it: files that may be there, folders' names, and
the environment variables that decide what runs, read by the code or for it.

A flag that is there, or one file more in a folder, decides what a model is as a line of code does.
`os.stat`, `os.lstat`, `os.access` and TensorFlow's `tf.io.gfile` tell no audit hook of themselves,
so witnesses stand in their place while the code is watched; `os.path`, `pathlib` and `glob` all
come by these or by `os.scandir`.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import glob
import hashlib
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

from convmark.worker.packages import tree_of
from convmark.worker.protocol import ABSENT, names_digest

MOST = 1000
"""Paths that are told: more are no names that somebody has thought of."""
_LISTINGS = ("os.listdir", "os.scandir")
_LOOKS = ("stat", "lstat", "access")
"""Functions of `os` that tell whether a path is there."""
_FOLLOWERS = ("realpath", "_joinrealpath")
"""Functions of the standard library that ask of each folder on the way to a path."""
_GFILE = {"exists": False, "isdir": False, "stat": False, "listdir": True, "glob": True}
"""Functions of `tf.io.gfile`, whether they tell of a folder's names."""
_SETS = ("supports_dir_fd", "supports_effective_ids", "supports_fd", "supports_follow_symlinks")
"""In `os`: what its functions can do, by the functions themselves."""
_STANDARD = os.path.dirname(os.path.abspath(os.__file__))
_INSTALLED = tuple(os.path.join(_STANDARD, name, "") for name in ("site-packages", "dist-packages"))
_OWN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")
_HOOK = "_note"
"""The audit hook of the code that watches."""
_MAKERS = ("makedirs", "mkdir")
"""Functions of the standard library that look for what they are about to make."""

_FINDERS = "__editable__"
"""How the names of the modules begin by which Python finds what `pip install -e` has installed."""
_METADATA = os.path.join(_STANDARD, "importlib", "metadata")
"""What reads the names in each folder of `sys.path` to find a package's version, once a process: of
two codes in one process the first would seem to read them, and the second not."""

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
        self._restore: list[Callable[[], None]] = []
        for name in _LOOKS:
            self._stand_in(os, name, self._noting(getattr(os, name)))
        if accessor := getattr(pathlib, "_normal_accessor", None):  # Python 3.10 keeps its own
            self._stand_in(accessor, "stat", os.stat)
        gfile = getattr(getattr(sys.modules.get("tensorflow"), "io", None), "gfile", None)
        for name, is_listing in _GFILE.items():
            if original := getattr(gfile, name, None):
                self._stand_in(gfile, name, self._noting_gfile(original, is_listing))

    def _stand_in(self, holder: Any, name: str, witness: Any) -> None:
        """Put a witness in a function's place, and in what `os` says that it can do."""
        original = getattr(holder, name)
        setattr(holder, name, witness)
        able = [one for known in _SETS if original in (one := getattr(os, known))]
        for one in able:
            one.add(witness)

        def restore() -> None:
            if getattr(holder, name) is witness:
                setattr(holder, name, original)
            for one in able:
                one.discard(witness)

        self._restore.append(restore)

    def _noting(self, original: Any) -> Any:
        """Return a function of `os` that notes the path which it is asked of."""

        @functools.wraps(original)
        def asked(path: Any, *more: Any, **how: Any) -> Any:
            counts = how.get("dir_fd") is None and isinstance(path, (str, bytes, os.PathLike))
            if not counts or sys._getframe(1).f_code.co_name in _FOLLOWERS:
                return self._followed(original, path, *more, **how)
            self.note_path(path)
            return original(path, *more, **how)

        return asked

    def _followed(self, original: Any, path: Any, *more: Any, **how: Any) -> Any:
        """Call a function of `os` on the way to a path, which counts where it ends there."""
        try:
            return original(path, *more, **how)
        except FileNotFoundError:
            if isinstance(path, (str, bytes, os.PathLike)) and how.get("dir_fd") is None:
                self.note_path(path)
            raise

    def _noting_gfile(self, original: Any, is_listing: bool) -> Any:
        """Return a function of `tf.io.gfile` that notes the path, or the folder of a pattern."""

        @functools.wraps(original)
        def asked(*paths: Any, **named: Any) -> Any:
            path = next(iter((*paths, *named.values())), None)
            for one in path if isinstance(path, (list, tuple)) else [path]:
                if isinstance(one, (str, bytes, os.PathLike)):
                    place = os.fsdecode(one)
                    while is_listing and glob.has_magic(place):
                        place = os.path.dirname(place) or "."
                    if "://" not in place:  # else it is on another machine
                        self.note_path(place, self._folders if is_listing else self._paths)
            return original(*paths, **named)

        return asked

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
        """Put the functions back."""
        while self._restore:
            self._restore.pop()()

    def close(
        self, counts: Callable[[str], bool], counts_in_folder: Callable[[str], bool] | None = None
    ) -> tuple[set[str], dict[str, str], str]:
        """Return the files that were found, what was told of the other paths, and why it is less.

        A path that is not there is `ABSENT`; a folder whose names were read has their hash. A
        folder that was only looked for tells nothing: most often it is to be written to.

        Args:
            counts: whether a real path counts.
            counts_in_folder: whether a name in a folder that was read counts; by default as before.
        """
        files = {os.path.realpath(path) for path in self._paths if os.path.isfile(path)}
        told = {}
        for path in self._paths:
            real = os.path.realpath(path)
            if not os.path.exists(real) and counts(real):
                told[real] = ABSENT
        in_folder = counts_in_folder or counts
        for path in map(os.path.realpath, self._folders):
            if in_folder(path):
                told[path] = _hash_of_names(path, in_folder)
        if len(told) <= MOST:
            return files, told, ""
        return files, {}, f"the code looks for more than {MOST} files"


def asker() -> FrameType | None:
    """Return the nearest frame that is neither of the standard library nor of the worker.

    None where it is the import system's or a finder's, which look for modules and packages, or the
    worker's own.
    Code without a file, as `exec` runs it, stands for the code that called it.
    """
    for frame in _frames():
        file = frame.f_code.co_filename
        if file.startswith(("<frozen importlib", _METADATA)):
            return None
        if file.startswith(_STANDARD + os.sep) and not file.startswith(_INSTALLED):
            if frame.f_code.co_name in _MAKERS:
                return None
        elif file.startswith(_OWN):
            if file != __file__ and frame.f_code.co_name != _HOOK:
                return None
        elif os.path.basename(file).startswith(_FINDERS):
            return None
        elif not file.startswith("<"):
            return frame
    return None


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _hash_of_names(folder: str, counts: Callable[[str], bool]) -> str:
    """Return a hash of a folder's names, without those of tools and of what does not count."""
    try:
        names = os.listdir(folder)
    except OSError:
        return ABSENT
    return names_digest(name for name in names if counts(os.path.join(folder, name)))


# -- environment variables -------------------------------------------------------------------------


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
