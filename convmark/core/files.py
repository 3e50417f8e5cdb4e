"""Opens files that others may have written, only if they are regular files."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from convmark.core.errors import StoreError

__all__ = [
    "as_store_error",
    "cache_folder",
    "open_regular",
    "read_regular",
    "write_whole",
]


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


def read_regular(path: Path, most_bytes: int = -1) -> bytes:
    """Return what a regular file holds, or its first bytes.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    with open(path, "rb", opener=open_regular) as file:
        return file.read(most_bytes)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is as it was until all of it is written: beside it, then in its place.

    What is no regular file, such as /dev/stdout, is written to as it is.

    Raises:
        OSError: it cannot be written; a file that was there is whole.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    target = path.resolve()  # what a link leads to is replaced, not the link
    part = target.with_name(f".{target.name}.{os.urandom(4).hex()}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            part.chmod(stat.S_IMODE(target.stat().st_mode))
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _is_special(path: str | os.PathLike[str]) -> OSError:
    reason = "must be a regular file, it is a pipe, a socket or a device"
    return OSError(errno.EINVAL, reason, os.fspath(path))


def cache_folder() -> Path:
    """Return where what can be made again is kept: `CONVMARK_CACHE`, or the user's cache folder."""
    import platformdirs  # here, for most commands and every stand-in worker need no such folder

    given = os.environ.get("CONVMARK_CACHE")
    return Path(given) if given else platformdirs.user_cache_path("convmark", appauthor=False)
