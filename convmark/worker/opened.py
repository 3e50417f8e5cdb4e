"""The files that a process opens: from Python, from the kernel, and from native readers."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from convmark.worker.kernel_opens import KernelOpens
from convmark.worker.protocol import file_digest

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

_OF_TOOLS = re.compile(
    r"\..*|.*(\.pyc|\.lock|\.log|\.md|\.rst|~)|(pyproject|ruff|mypy)\.toml|setup\.(cfg|py)|"
    r"(tox|pytest|mypy)\.ini|conftest\.py|test_.*\.py"
)
"""Files that editors, git, linters and test runners open beside a measurement. They count where the
model's own process is known to have opened them."""
_STARTING = ("subprocess.Popen", "os.posix_spawn", "os.exec", "os.system", "os.fork", "os.forkpty")
"""Audit events of a process that starts another one."""
MOST_FILES = 1000
"""Of a folder that is read as one."""


class Opened:
    """The files that were opened since it was made, until `close`."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._read: set[str] = set()
        self._written: set[str] = set()
        self._kernel = KernelOpens(folders)
        self.missed = ""
        """Why more files may have been opened; known once it is closed."""
        self.own_written: set[str] = set()
        """Files that this process or one that it started is known to have written; once closed."""
        self.rewritten: dict[str, tuple[int, str]] = {}
        """Size and digest of files that this process has read and then written, as it read them."""
        self.asked: set[str] = set()
        """Files that this process is known to have read itself; once closed."""
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
        if real.endswith(".pyc") and not written:  # stands for its source, where it has one
            with contextlib.suppress(ValueError):
                real = importlib.util.source_from_cache(real)
        if written or os.path.isfile(real):
            if written and real in self._read - self._written and (found := file_digest(real)):
                self.rewritten[real] = found
            (self._written if written else self._read).add(real)

    def _note_native(self, path: Any) -> None:
        """Note a file, a folder that is read as one, or the files of a checkpoint's prefix."""
        with contextlib.suppress(ValueError, OSError):
            real = os.path.realpath(os.fsdecode(path))
            if os.path.isdir(real):
                files = list(itertools.islice(_files_of(real), MOST_FILES + 1))
                if len(files) > MOST_FILES:
                    self.missed = f"{real} has more than {MOST_FILES} files"
                self._read.update(files)
            elif os.path.isfile(real):
                self._read.add(real)
            else:
                parent, name = os.path.split(real)
                begins = f"{name}."
                there = [one for one in os.listdir(parent) if one.startswith(begins)]
                self._read.update(os.path.join(parent, one) for one in there)

    def close(self) -> tuple[set[str], set[str]]:
        """Stop; return the files that were opened to be read, and those that were written.

        Where the kernel does not tell who has opened a file, one of another program counts too.
        """
        for restore in self._restore:
            restore()
        seen = self._kernel.close(started_another=self._started_another)
        self.missed = self.missed or seen.missed
        self.own_written = self._written | (seen.written if self._kernel.tells_whose else set())
        self.asked = self._read | seen.own
        others = {path for path in seen.others if not _OF_TOOLS.fullmatch(os.path.basename(path))}
        if not seen.by_children:
            others = {path for path in others if not path.endswith((".py", ".pyi"))}
        return self._read | seen.own | others, self._written | seen.written


def _files_of(folder: str) -> Iterator[str]:
    """Yield the files in a folder that is read as one thing, such as a SavedModel."""
    for parent, _, names in os.walk(folder):
        for name in sorted(names):
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
