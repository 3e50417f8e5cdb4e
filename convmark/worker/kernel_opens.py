"""What the kernel tells of the files that are opened in some folders and those below, on Linux.

fanotify tells whether this process or another one has opened a file; anyone may ask since Linux
5.13, but many containers forbid it. inotify tells of opens alone, whoever they are of.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from convmark.core.installed import is_environment, is_installed

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
