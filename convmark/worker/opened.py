"""The files that a process opens: from Python, from native readers, and by the kernel's word.

On Linux fanotify tells whether this process or another one has opened a file; anyone may ask since
Linux 5.13, but many containers forbid it. inotify tells of opens alone, whoever they are of.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import importlib.util
import itertools
import os
import re
import resource
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convmark.core.installed import is_environment, is_installed
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
            yield functools.partial(setattr, holder, last, original)


def _noting(function: Any, place: int, note: Callable[[Any], None]) -> Any:
    def noted(*arguments: Any, **named: Any) -> Any:
        chosen = arguments[place] if len(arguments) > place else next(iter(named.values()), None)
        for path in chosen if isinstance(chosen, (list, tuple)) else [chosen]:
            if isinstance(path, (str, bytes, os.PathLike)):
                note(path)
        return function(*arguments, **named)

    return noted


# -- what the kernel tells -------------------------------------------------------------------------


_OPEN, _WRITTEN, _IS_FOLDER = 0x20, 0x2 | 0x100 | 0x80, 0x40000000
"""Of inotify(7) and fanotify(7); written is what was modified, made, or moved there."""
_INOTIFY_OVERFLOW, _INOTIFY_FLAGS = 0x4000, 0o4000 | 0o2000000  # not blocking, closed by exec
_FANOTIFY_OVERFLOW = 0x4000
_FANOTIFY_FLAGS = 0x1 | 0x2 | 0x400 | 0x800
"""Closed by exec, not blocking, and told by the folder's handle and the file's name."""
_MARK_ADD, _EVENT_ON_CHILD, _AT_FDCWD = 0x1, 0x8000000, -100
_FOLDER_AND_NAME = b"\2"
"""How a record that has both begins."""
_RECORD = "=BBHQIi"
"""Kind, length, file system, and bytes and kind of a handle, before the handle and the name."""
_MOST_HANDLE_BYTES = 128
_GONE = (errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.ELOOP)
"""A folder that nobody here can read any more."""
MOST_FOLDERS = 8192
"""Watched at most, the nearest first: a tree may be endless."""
_NOT_WATCHED = {
    *(".git", ".hg", ".svn", "__pycache__", "node_modules"),
    *(".tox", ".nox", ".eggs", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".ipynb_checkpoints"),
}
_OF_INSTALLERS = (".egg-info", ".dist-info")
"""Folders that any Python reads when it looks for what is installed."""
_OVERFLOW = "more files were opened at once than the kernel can report"


@dataclass
class Seen:
    """The files that were opened, by their real paths."""

    own: set[str] = field(default_factory=set)
    """By this process; none where the kernel does not tell whose an opening is."""
    others: set[str] = field(default_factory=set)
    """By another process, or where the kernel does not tell by any."""
    written: set[str] = field(default_factory=set)
    """Of those that count, the ones that were written."""
    missed: str = ""
    """Why others may have been opened; empty where none can have been."""
    by_children: bool = False
    """Whether some of the other processes may have been started by this one."""


class KernelOpens:
    """Watches from when it is made until `close`."""

    def __init__(self, folders: Sequence[str], *, by_process: bool = True) -> None:
        """Begin; where the kernel cannot be asked, `missed` says why.

        Args:
            by_process: ask first for a way to tell this process from others.
        """
        self.tells_whose = False
        """Whether the kernel tells this process from others."""
        self._missed = ""
        self._descriptor = -1
        self._names: dict[bytes, list[str]] = {}
        self._children = _children_so_far()
        if sys.platform != "linux":
            return
        self._libc = ctypes.CDLL(None, use_errno=True)
        found = list(_below(folders))
        if len(found) > MOST_FOLDERS:
            self._missed = f"the folders of the code are more than {MOST_FOLDERS}"
        watched = found[:MOST_FOLDERS]
        self.tells_whose = by_process and self._begin_fanotify(watched)
        if not self.tells_whose:
            self._begin_inotify(watched)

    def close(self, *, started_another: bool) -> Seen:
        """Stop; return what was opened.

        Args:
            started_another: whether this process is known to have started another one. Else what
                other processes open is no business of its own, where the kernel tells them apart.
        """
        by_children = started_another or _children_so_far() != self._children
        seen = Seen(missed=self._missed, by_children=by_children)
        if self._descriptor < 0:
            return seen
        events = self._fanotify_events() if self.tells_whose else self._inotify_events()
        for place, mask, is_own in events:
            if place is None:
                seen.missed = seen.missed or _OVERFLOW
            elif not mask & _IS_FOLDER and (is_own or by_children or not self.tells_whose):
                path = os.path.realpath(place)
                opened = seen.own if is_own else seen.others
                (seen.written if mask & _WRITTEN else opened).add(path)
        os.close(self._descriptor)
        self._descriptor = -1
        return seen

    def _blocks(self) -> Iterator[bytes]:
        while True:
            try:
                yield os.read(self._descriptor, 1 << 16)
            except BlockingIOError:
                return

    # -- fanotify ----------------------------------------------------------------------------------

    def _begin_fanotify(self, folders: Iterable[str]) -> bool:
        """Watch all of the folders; False where the kernel or a file system does not have it."""
        try:
            mark, name = self._libc.fanotify_mark, self._libc.name_to_handle_at
            descriptor = self._libc.fanotify_init(_FANOTIFY_FLAGS, os.O_RDONLY)
        except AttributeError:  # a C library without them
            return False
        if descriptor < 0:
            return False
        mark.argtypes = [
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_uint64,
            ctypes.c_int,
            ctypes.c_char_p,
        ]
        for folder in folders:
            path, handle, mount = os.fsencode(folder), _Handle(_MOST_HANDLE_BYTES), ctypes.c_int()
            events = _OPEN | _WRITTEN | _EVENT_ON_CHILD
            failed = name(_AT_FDCWD, path, ctypes.byref(handle), ctypes.byref(mount), 0) or mark(
                descriptor, _MARK_ADD, events, _AT_FDCWD, path
            )
            if not failed:
                known = bytes(handle.content[: handle.size])
                self._names.setdefault(known, []).append(folder)
            elif ctypes.get_errno() not in _GONE:
                os.close(descriptor)
                self._names.clear()
                return False
        self._descriptor = descriptor
        return True

    def _fanotify_events(self) -> Iterator[tuple[str | None, int, bool]]:
        """Yield path, mask and whether it is this process's; no path where events were lost."""
        for data in self._blocks():
            place = 0
            while place < len(data):
                length, _, _, head, mask, _, pid = struct.unpack_from("IBBHQii", data, place)
                record = data[place + head : place + length]
                place += length
                paths = [] if mask & _FANOTIFY_OVERFLOW else self._paths(record)
                if not paths:
                    yield None, mask, False
                for path in paths:
                    yield path, mask, pid == os.getpid()

    def _paths(self, record: bytes) -> list[str]:
        """Return what a record of a folder's handle and a name may stand for.

        The same handle may be known of folders of two file systems.
        """
        if not record.startswith(_FOLDER_AND_NAME):
            return []
        size = struct.unpack_from(_RECORD, record)[-2]
        start = struct.calcsize(_RECORD)
        begin = start + size
        name = os.fsdecode(record[begin:].split(b"\0", 1)[0])
        folders = self._names.get(record[start:begin], [])
        return [os.path.join(folder, name) for folder in folders]

    # -- inotify -----------------------------------------------------------------------------------

    def _begin_inotify(self, folders: Iterable[str]) -> None:
        self._descriptor = self._libc.inotify_init1(_INOTIFY_FLAGS)
        if self._descriptor < 0:
            self._missed = f"inotify: {os.strerror(ctypes.get_errno())}"
            return
        for folder in folders:
            name = os.fsencode(folder)
            watch = self._libc.inotify_add_watch(self._descriptor, name, _OPEN | _WRITTEN)
            if watch >= 0:
                self._names[struct.pack("i", watch)] = [folder]
            elif ctypes.get_errno() not in _GONE:
                self._missed = f"inotify: {os.strerror(ctypes.get_errno())}"

    def _inotify_events(self) -> Iterator[tuple[str | None, int, bool]]:
        """Yield path, mask and False; no path where events were lost."""
        for data in self._blocks():
            place = 0
            while place < len(data):
                _, mask, _, length = struct.unpack_from("iIII", data, place)
                (folder,) = self._names.get(data[place : place + 4], [""])
                name = os.fsdecode(data[place + 16 : place + 16 + length].rstrip(b"\0"))
                place += 16 + length
                if mask & _INOTIFY_OVERFLOW:
                    yield None, mask, False
                elif folder and name:
                    yield os.path.join(folder, name), mask, False


class _Handle(ctypes.Structure):
    """A file_handle of open_by_handle_at(2)."""

    _fields_ = (
        ("size", ctypes.c_uint),
        ("kind", ctypes.c_int),
        ("content", ctypes.c_ubyte * _MOST_HANDLE_BYTES),
    )


def _children_so_far() -> tuple[int, list[str]]:
    """Return what changes once this process has a child more, whatever has started it."""
    waited_for, there = resource.getrusage(resource.RUSAGE_CHILDREN), []
    for path in sorted(Path("/proc/self/task").glob("*/children")):
        with contextlib.suppress(OSError):  # the thread has ended
            there += path.read_text().split()
    return waited_for.ru_minflt, sorted(there)


def _below(folders: Iterable[str]) -> Iterator[str]:
    """Yield folders and those below, nearest first, but for those that hold no code.

    It ends soon after the most that are watched.
    """
    left = [folder for folder in dict.fromkeys(folders) if folder != os.sep]
    seen: set[str] = set()
    for folder in left:
        if folder in seen or len(seen) > MOST_FOLDERS:
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
