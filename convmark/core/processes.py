"""What ends with a process, however it ends: its children, its temporary folders, its run.

SIGTERM and SIGHUP end a run like Ctrl-C: workers end, rows are kept, the exit status is set. A
service manager, a batch system and a closed terminal send them; by default they end a process on
the spot, without a word about where its rows are.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from convmark.core.files import is_at, lock_of_nobody
from convmark.core.installed import TREE_PREFIX

__all__ = [
    "ReceivedSignal",
    "TemporaryFolder",
    "as_interrupts",
    "die_with_parent",
]

_PR_SET_PDEATHSIG = 1

PREFIX = "convmark-"
_LOCK = ".in_use"


_TAKEN = (signal.SIGTERM, signal.SIGHUP)


def die_with_parent(parent: int | None = None, how: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel end this process when its parent ends, where the kernel can (Linux).

    Args:
        parent: the process that has forked this one; where it has ended meanwhile, so does this
            one: the kernel tells of later ends alone.
        how: the signal that this process is sent then.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, how)
    if parent is not None and os.getppid() != parent:
        os._exit(1)


class ReceivedSignal:
    """Which signal has come, if any."""

    def __init__(self) -> None:
        self.number: int | None = None

    @property
    def status(self) -> int:
        """The exit status of a process that a signal has ended; of Ctrl-C, where none was taken."""
        return 128 + (self.number or signal.SIGINT)


@contextlib.contextmanager
def as_interrupts() -> Iterator[ReceivedSignal]:
    """Raise KeyboardInterrupt in the main thread at the first of the signals; later ones are void.

    A signal that is ignored, as SIGHUP is under nohup, or that somebody else handles is left alone.
    """
    received = ReceivedSignal()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if received.number is not None:
            return  # what it asks for is under way, and must not be interrupted
        received.number = number
        if number == signal.SIGHUP:
            _leave_terminals()
        raise KeyboardInterrupt

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in _TAKEN:
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, interrupt)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave_terminals() -> None:
    """Send to nowhere what would go to a terminal: it is gone, and writing to it fails."""
    for descriptor in (1, 2):
        if os.isatty(descriptor):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)


class TemporaryFolder:
    """A folder for this process, and a context manager that removes it.

    Its lock is the process's own while it lives: of a process that was killed the kernel gives the
    lock up, and the next one to make such a folder removes what is left.
    """

    def __init__(self, prefix: str = PREFIX) -> None:
        """Make it, its name beginning with `PREFIX` or a longer prefix that begins so."""
        import tempfile  # the command line needs the signals alone

        _remove_abandoned(Path(tempfile.gettempdir()))
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=prefix)).resolve()
            self._lock = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            if is_at(self._lock, self.path / _LOCK):
                return
            os.close(self._lock)  # another process locked it first, and removed the folder

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the folder and all that is in it; harmless when done twice."""
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


def _remove_abandoned(temporary: Path) -> None:
    """Remove the folders of this user whose processes have ended."""
    for folder in temporary.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), lock_of_nobody(folder / _LOCK):
            if not folder.is_symlink():
                shutil.rmtree(folder, ignore_errors=True)
    for folder in temporary.glob(f"{TREE_PREFIX}[0-9]*-*"):
        if _is_abandoned_without_lock(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned_without_lock(folder: Path) -> bool:
    """Whether an earlier version made the folder, which named its process, and that has ended."""
    found = re.fullmatch(rf"{TREE_PREFIX}([0-9]{{1,7}})-\w+", folder.name)
    if found is None or folder.is_symlink() or (folder / _LOCK).exists():
        return False
    try:
        if folder.stat().st_uid == os.getuid():
            os.kill(int(found[1]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False
