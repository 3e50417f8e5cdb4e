"""The files that a process opens: from Python, from the kernel, and from native readers."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from convmark.core.installed import is_environment, is_installed

__all__ = ["Opened"]

_READERS = (
    ("h5py", "File.__init__", 1),
    ("tensorflow", "io.read_file", 0),
    ("tensorflow", "io.gfile.GFile.__init__", 1),
    ("tensorflow", "saved_model.load", 0),
    ("tensorflow", "train.load_checkpoint", 0),
    ("tensorflow", "data.TFRecordDataset.__init__", 1),
    ("tensorflow", "data.TextLineDataset.__init__", 1),
    ("tensorflow", "lookup.TextFileInitializer.__init__", 1),
    ("torch", "_C.PyTorchFileReader.__init__", 1),
    ("safetensors", "safe_open.__init__", 1),
)
"""Functions that read a file in native code: module, name in it, place of the file's argument."""

_OPEN, _WRITTEN, _IS_FOLDER = 0x20, 0x2 | 0x100 | 0x80, 0x40000000
_NONBLOCK_CLOEXEC = 0o4000 | 0o2000000
"""Of inotify(7); written is what was modified, made, or moved there."""
_MOST_FOLDERS = 2000
"""Watched at most, the nearest first: a tree may be endless."""
_NOT_WATCHED = {
    *(".git", ".hg", ".svn", "__pycache__", "node_modules"),
    *(".tox", ".nox", ".eggs", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".ipynb_checkpoints"),
}


_OF_TOOLS = re.compile(
    r"\..*|.*(\.pyc|\.lock|\.log|\.md|\.rst|~)|(pyproject|ruff|mypy)\.toml|setup\.(cfg|py)|"
    r"(tox|pytest|mypy)\.ini|conftest\.py|test_.*\.py"
)
"""Files that editors, git, linters and test runners open beside a measurement: the kernel does not
say who opened a file. Where Python opens one of them in the model's process, it counts."""
_STARTING = ("subprocess.Popen", "os.posix_spawn", "os.exec", "os.system", "os.fork", "os.forkpty")
"""Audit events of a process that starts another one. Until then a module that Python itself has not
opened here was opened by another program."""
_OF_INSTALLERS = (".egg-info", ".dist-info")
"""Folders that any Python reads when it looks for what is installed."""


class Opened:
    """The files that were opened since it was made, until `close`."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._read: set[str] = set()
        self._written: set[str] = set()
        self._kernel = _Kernel(folders)
        self._started_another = False
        self._restore = list(_wrapped(self._note_native))

    def note(self, event: str, arguments: Any) -> None:
        """Note what an audit event tells of a file; a file of no sense is no file."""
        self._started_another |= event in _STARTING
        with contextlib.suppress(TypeError, ValueError, OSError):
            if event == "open":
                path, mode, flags = arguments
                writes = isinstance(mode, str) and set("wax") & set(mode)
                creates = isinstance(flags, int) and flags & (os.O_CREAT | os.O_TRUNC)
                self._note_path(path, written=bool(writes or creates))
            elif event in ("sqlite3.connect", "ctypes.dlopen"):
                self._note_path(arguments[0])
            elif event in ("subprocess.Popen", "os.posix_spawn", "os.exec"):
                words = arguments[1].split() if hasattr(arguments[1], "split") else arguments[1]
                for path in (arguments[0], *words):
                    self._note_path(path)

    def _note_path(self, path: Any, *, written: bool = False) -> None:
        if isinstance(path, int) or path is None:
            return
        real = os.path.realpath(os.fsdecode(path))
        if written or os.path.isfile(real):
            (self._written if written else self._read).add(real)

    def _note_native(self, path: Any) -> None:
        """Note a file, a folder that is read as one, or the files of a checkpoint's prefix."""
        with contextlib.suppress(ValueError, OSError):
            real = os.path.realpath(os.fsdecode(path))
            if os.path.isdir(real):
                self._read.update(_files_of(real))
            elif os.path.isfile(real):
                self._read.add(real)
            else:
                parent, name = os.path.split(real)
                begins = f"{name}."
                there = [one for one in os.listdir(parent) if one.startswith(begins)]
                self._read.update(os.path.join(parent, one) for one in there)

    def close(self) -> tuple[set[str], set[str]]:
        """Stop; return the files that were opened to be read, and those that were written."""
        for restore in self._restore:
            restore()
        read, written = self._kernel.close()
        if not self._started_another:
            read = {path for path in read if not path.endswith((".py", ".pyi"))}
        return self._read | read, self._written | written


def _files_of(folder: str, most: int = 1000) -> Iterator[str]:
    """Yield the files in a folder that is read as one thing, such as a SavedModel."""
    for parent, _, names in os.walk(folder):
        for name in sorted(names):
            most -= 1
            if most < 0:
                return
            yield os.path.join(parent, name)


def _wrapped(note: Callable[[Any], None]) -> Iterator[Callable[[], None]]:
    """Put a witness before each native reader that is imported; yield what takes it away."""
    for module, name, place in _READERS:
        holder: Any = sys.modules.get(module)
        *path, last = name.split(".")
        for part in path:
            holder = getattr(holder, part, None)
        original = getattr(holder, last, None)
        if holder is None or original is None:
            continue
        with contextlib.suppress(AttributeError, TypeError):  # a class of native code refuses it
            setattr(holder, last, _noting(original, place, note))
            yield _restorer(holder, last, original)


def _noting(function: Any, place: int, note: Callable[[Any], None]) -> Any:
    def noted(*arguments: Any, **named: Any) -> Any:
        chosen = arguments[place] if len(arguments) > place else next(iter(named.values()), None)
        for path in chosen if isinstance(chosen, (list, tuple)) else [chosen]:
            if isinstance(path, (str, bytes, os.PathLike)):
                note(path)
        return function(*arguments, **named)

    return noted


def _restorer(holder: Any, name: str, original: Any) -> Callable[[], None]:
    return lambda: setattr(holder, name, original)


class _Kernel:
    """What any process opens in some folders and those below, as inotify tells it."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders: dict[int, str] = {}
        self._descriptor = -1
        if sys.platform != "linux":
            return
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(_NONBLOCK_CLOEXEC)
        if self._descriptor < 0:
            return
        for folder in _below(folders):
            name = os.fsencode(folder)
            watch = libc.inotify_add_watch(self._descriptor, name, _OPEN | _WRITTEN)
            if watch >= 0:
                self._folders[watch] = folder

    def close(self) -> tuple[set[str], set[str]]:
        """Return the files that were opened, and those of them that were written."""
        read: set[str] = set()
        written: set[str] = set()
        if self._descriptor < 0:
            return read, written
        for watch, mask, name in self._events():
            folder = self._folders.get(watch)
            if folder is not None and name and not mask & _IS_FOLDER:
                path = os.path.realpath(os.path.join(folder, name))
                if mask & _WRITTEN:
                    written.add(path)
                elif not _OF_TOOLS.fullmatch(name):
                    read.add(path)
        os.close(self._descriptor)
        return read, written

    def _events(self) -> Iterator[tuple[int, int, str]]:
        """Yield watch, mask and name of each event that waits."""
        while True:
            try:
                data = os.read(self._descriptor, 1 << 16)
            except BlockingIOError:
                return
            place = 0
            while place < len(data):
                watch, mask, _, length = struct.unpack_from("iIII", data, place)
                place += 16
                yield watch, mask, os.fsdecode(data[place : place + length].rstrip(b"\0"))
                place += length


def _below(folders: Iterable[str]) -> Iterator[str]:
    """Yield folders and those below, nearest first, but for those that hold no code."""
    left = [folder for folder in dict.fromkeys(folders) if folder != os.sep]
    seen: set[str] = set()
    for folder in left:
        if folder in seen or len(seen) >= _MOST_FOLDERS:
            continue
        seen.add(folder)
        yield folder
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False) and not _is_left_out(entry):
                    left.append(entry.path)


def _is_left_out(entry: os.DirEntry[str]) -> bool:
    if entry.name in _NOT_WATCHED or entry.name.endswith(_OF_INSTALLERS):
        return True
    return is_environment(entry.path) or is_installed(Path(entry.path))
