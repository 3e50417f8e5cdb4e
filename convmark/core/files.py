"""Files: read as regular ones, written whole, locked; and temporary folders."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import math
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from convmark.core.errors import StoreError

PREFIX = "convmark-"
_LOCK = ".convmark_in_use"
"""In each temporary folder of ours, and in no folder of anybody else's."""


@contextlib.contextmanager
def as_store_error(path: Path, done: str) -> Iterator[None]:
    """Raise a `StoreError` that names the file where the system refuses what is done with it.

    Args:
        done: read or written.
    """
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path}: cannot be {done}: {error.strerror or error}") from None


@contextlib.contextmanager
def writing(what: str, remedy: str = "") -> Iterator[None]:
    """Raise a `StoreError` where the system refuses to write what a user has named.

    Args:
        what: the option and the place, such as `--output: report.html`.
        remedy: what the message ends in.
    """
    try:
        yield
    except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise StoreError(f"{what} must be writable: {reason}{remedy}") from None


def open_regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY, mode: int = 0o666) -> int:
    """Return the descriptor of a regular file; made for `open(path, opener=open_regular)`.

    A pipe, a socket or a device would keep a reader waiting for ever, or do something when read.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        raise _is_special(path) from None
    found = os.fstat(descriptor).st_mode
    if stat.S_ISREG(found):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(found):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    raise _is_special(path)


def open_kept(path: str | os.PathLike[str], flags: int = os.O_RDWR, mode: int = 0o666) -> int:
    """Return the descriptor of a file of the results that is written in place.

    A link is refused: what it leads to may be anything, and no other process would find it locked.

    Raises:
        OSError: it cannot be opened, or is a link or no regular file.
    """
    try:
        return open_regular(path, flags | os.O_NOFOLLOW, mode)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EMLINK) or not os.path.islink(path):
            raise
        reason = f"is a link to {os.readlink(path)}; put the file itself there, or name it"
        raise OSError(errno.ELOOP, reason, os.fspath(path)) from None


def read_regular(path: Path, most_bytes: int = -1) -> bytes:
    """Return what a regular file holds, or its first bytes.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    with open(path, "rb", opener=open_regular) as file:
        return file.read(most_bytes)


def write_through(descriptor: int, data: bytes) -> None:
    """Write all of the data to an open file, through to the disk.

    Raises:
        OSError: the disk takes no more; a part may be written.
    """
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
    os.fsync(descriptor)


def write_output(path: Path, content: bytes) -> None:
    """Write a file that the user has named: links are followed, and devices are written to.

    Raises:
        OSError: it cannot be written; a regular file that was there is whole.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(content)  # such as /dev/stdout
    else:
        write_whole(path.resolve(), content)


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file in one step; a link, a pipe or a device of that name is replaced itself.

    Raises:
        OSError: it cannot be written; what was there is as it was.
    """
    part, descriptor = new_part(path)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISREG(mode := path.lstat().st_mode):
                    part.chmod(stat.S_IMODE(mode))
            part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    finally:
        close_locked(descriptor)


def new_part(path: Path, mode: int = 0o666) -> tuple[Path, int]:
    """Make an empty file that is to replace another; return it and its descriptor, locked.

    Such files that killed processes of this user left for the same name are removed.

    Raises:
        OSError: it cannot be made.
    """
    for left in _left_parts(path):
        with contextlib.suppress(OSError), lock_of_nobody(left):
            left.unlink()
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    while True:
        part = _part(path)
        descriptor = os.open(part, flags, mode)
        with contextlib.suppress(OSError):  # a file system without locks
            lock(descriptor, within_s=math.inf)
        if is_at(descriptor, part):
            return part, descriptor
        close_locked(descriptor)  # another process locked it first, and removed it


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; it gets the path's name where the block ends without error.

    Its parents are made. Folders that killed processes of this user left for the same name are
    removed.

    Raises:
        OSError: it cannot be made, or something of that name is there.
    """
    for left in _left_parts(path):
        with contextlib.suppress(OSError), lock_of_nobody(left, os.O_RDONLY | os.O_DIRECTORY):
            shutil.rmtree(left, ignore_errors=True)
    part, descriptor = _new_part_folder(path)
    try:
        yield part
        part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        close_locked(descriptor)


def _new_part_folder(path: Path) -> tuple[Path, int]:
    """Make an empty folder that is to get another's name; return it and its descriptor, locked."""
    while True:
        part = _part(path)
        part.mkdir(parents=True)
        try:
            descriptor = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # another process locked it first, and removed it
        with contextlib.suppress(OSError):  # a file system without locks
            lock(descriptor, within_s=math.inf)
        if is_at(descriptor, part):
            return part, descriptor
        close_locked(descriptor)


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.urandom(4).hex()}.part")


def _left_parts(path: Path) -> list[Path]:
    """Return the parts for a name that lie about, whether or not a process still fills them."""
    name = f".{glob.escape(path.name)}.{'[0-9a-f]' * 8}"
    return [*path.parent.glob(name), *path.parent.glob(f"{name}.part")]  # earlier versions' first


def is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def lock_of_nobody(path: Path, flags: int = os.O_RDWR) -> Iterator[None]:
    """Take the lock of a file or folder of this user.

    Raises:
        OSError: there is none, it is another user's, or a process holds it.
    """
    file = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if os.fstat(file).st_uid != os.getuid():
            raise PermissionError(f"{path}: another user's")
        if not lock(file):
            raise BlockingIOError(errno.EWOULDBLOCK, f"{path}: another process has locked it")
        yield
    finally:
        close_locked(file)


def _is_special(path: str | os.PathLike[str]) -> OSError:
    reason = "must be a regular file, it is a pipe, a socket or a device"
    return OSError(errno.EINVAL, reason, os.fspath(path))


def cache_folder() -> Path:
    """Return where what can be made again is kept: `CONVMARK_CACHE`, or the user's cache folder."""
    import platformdirs  # here, for most commands and every stand-in worker need no such folder

    given = os.environ.get("CONVMARK_CACHE")
    return Path(given) if given else platformdirs.user_cache_path("convmark", appauthor=False)


class TemporaryFolder:
    """A folder for this process, and a context manager that removes it.

    Its lock is the process's own while it lives: of a process that was killed the kernel gives the
    lock up, and the next one to make such a folder removes what is left.
    """

    def __init__(self, prefix: str = PREFIX) -> None:
        """Make it, its name beginning with `PREFIX` or a longer prefix that begins so."""
        _remove_abandoned(Path(tempfile.gettempdir()))
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=prefix)).resolve()
            flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
            self._lock = os.open(self.path / _LOCK, flags, 0o600)
            lock(self._lock, within_s=math.inf)
            if is_at(self._lock, self.path / _LOCK):
                return
            close_locked(self._lock)  # another process locked it first, and removed the folder

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the folder and all that is in it; harmless when done twice."""
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            close_locked(self._lock)
            self._lock = -1


def _remove_abandoned(temporary: Path) -> None:
    """Remove the folders of this user whose processes have ended, known by the file of the lock."""
    for folder in temporary.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), lock_of_nobody(folder / _LOCK):
            if not folder.is_symlink():
                shutil.rmtree(folder, ignore_errors=True)


# -- locks on open files that are the process's own, and not its children's ------------------------
#
# The kernel gives a lock up once nobody has the open file any more. A forked process has it too:
# one that lives on, such as a worker of multiprocessing, would hold the lock of a run that was
# killed. So a forked process drops what it inherits. One that becomes another program a moment
# later, as `subprocess` makes them, can only be waited for.


PASSING_S = 0.5
"""A killed process's children that were about to become other programs have done so by then."""
_AGAIN_S = 0.01

_OWN: dict[int, os.stat_result] = {}
"""Descriptors whose files are locked here; a number that has another file by now is left alone."""


def lock(
    descriptor: int,
    *,
    shared: bool = False,
    within_s: float = 0.0,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Take the lock of an open file for this process; False where another holds it for longer.

    Raises:
        OSError: the file system has no locks.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    deadline = time.monotonic() + within_s
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            sleep(_AGAIN_S)
        else:
            _OWN[descriptor] = os.fstat(descriptor)
            return True


def close_locked(descriptor: int) -> None:
    """Close a file that may be locked here; what gets its number next, a forked process keeps.

    `os.close` would leave the number among the locked ones, and the same file may be opened again.
    """
    _OWN.pop(descriptor, None)
    os.close(descriptor)


def _drop_inherited() -> None:
    """Put nothing in the place of the files that the parent has locked; their numbers stay."""
    for descriptor, locked in _OWN.items():
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), locked):
                nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
                os.dup2(nothing, descriptor, inheritable=False)
                os.close(nothing)
    _OWN.clear()


os.register_at_fork(after_in_child=_drop_inherited)
