"""Temporary folders that are removed with their process, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["TemporaryFolder"]

PREFIX = "convmark-"
_LOCK = ".in_use"


class TemporaryFolder:
    """A folder for this process, and a context manager that removes it.

    Its lock is the process's own while it lives: of a process that was killed the kernel gives the
    lock up, and the next one to make such a folder removes what is left.
    """

    def __init__(self, prefix: str = PREFIX) -> None:
        """Make it, its name beginning with `PREFIX` or a longer prefix that begins so."""
        _remove_abandoned()
        self.path = Path(tempfile.mkdtemp(prefix=prefix)).resolve()
        self._lock = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

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


def _remove_abandoned() -> None:
    """Remove the folders of this user whose processes have ended."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), _lock_of_nobody(folder / _LOCK):
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _lock_of_nobody(path: Path) -> Iterator[None]:
    """Take the lock.

    Raises:
        OSError: there is none, it is another user's, or a process holds it.
    """
    lock = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(lock).st_uid != os.getuid() or os.path.islink(path.parent):
            raise PermissionError(f"{path}: another user's")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)
