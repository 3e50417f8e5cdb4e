"""One benchmark run at a time: two runs on a machine disturb each other's figures.

    /tmp/convmark-<user>/<process>.lock   held by a run from before its first worker to its end
    /tmp/convmark-<user>/guard.lock       held for the moment in which a run looks who else is there

The folder follows from the user's number alone, so that runs of one user meet whatever TMPDIR and
XDG_RUNTIME_DIR say; `CONVMARK_RUNTIME` names another. Everybody may read it, so that another user's
run is seen too; its owner alone may write to it. The system lets go of a lock however its holder
ends, so that a run which was killed keeps nobody waiting.

Others may write to /tmp: whatever is a symbolic link, or belongs to another than its name says, is
not followed, opened or believed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from convmark.core.errors import BusyError
from convmark.core.files import PASSING_S, close_locked, lock
from convmark.core.text import Say

SHARED_FOLDERS = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))  # no TMPDIR here
"""The first that can be written to. All users of a machine must come to the same."""
GUARD_LIMIT_S = 10.0
"""Looking takes a millisecond; a guard that is held for longer is not to be waited for."""
LOOK_AGAIN_S = 0.5
_LOOK_ONCE_MORE_S = 0.05

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_LOCK = re.compile(r"([1-9][0-9]{0,9})\.lock", re.ASCII)
_USER = re.compile(r"convmark-(0|[1-9][0-9]{0,9})", re.ASCII)


def runtime_folder() -> Path:
    """Return where runs are known to each other: `CONVMARK_RUNTIME`, or the user's own folder."""
    if given := os.environ.get("CONVMARK_RUNTIME"):
        return Path(given)
    writable = (path for path in SHARED_FOLDERS if path.is_dir() and os.access(path, os.W_OK))
    return next(writable, SHARED_FOLDERS[0]) / f"convmark-{os.getuid()}"


@contextlib.contextmanager
def alone(
    *, wait: bool, concurrent: bool, say: Say, folder: Path | None = None
) -> Iterator[list[int]]:
    """Hold the machine's lock until the block ends; yield the processes of other runs.

    Runs inside this process, and one that a holder has started itself, are no others.

    Args:
        wait: whether to wait for another run's end, instead of being refused.
        concurrent: whether to go on beside another run.
        say: is told of what is waited for, and where it cannot be told who is there.
    """
    folder = folder or runtime_folder()
    name = f"{os.getpid()}.lock"
    with contextlib.ExitStack() as held:
        others: list[int] = []
        own = None
        try:
            place = _opened(folder)
            held.callback(os.close, place)
            others, own = _taken(folder, place, name, wait=wait, concurrent=concurrent, say=say)
        except OSError as error:
            reason = error.strerror or error
            say(f"{folder}: cannot check for other benchmark runs: {reason}")
        if own is not None:
            held.callback(close_locked, own)
            held.callback(_remove, name, place)
        yield others


def _opened(folder: Path) -> int:
    """Return a descriptor of the folder, made if need be."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o755, parents=True)
        folder.chmod(0o755)  # whatever the umask is: others are to see the locks
    try:
        place = os.open(folder, _FOLDER)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise OSError(error.errno, f"it must be a folder and no link; {_REMEDY}") from None
        raise
    found = os.fstat(place)
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        os.close(place)
        raise PermissionError(
            errno.EPERM,
            f"it must be owned by user {os.getuid()} and writable by nobody else, but it is owned "
            f"by user {found.st_uid}, mode {stat.S_IMODE(found.st_mode):o}; {_REMEDY}",
        )
    return place


_REMEDY = "remove it, or set CONVMARK_RUNTIME to another folder"


def _taken(
    folder: Path, place: int, name: str, *, wait: bool, concurrent: bool, say: Say
) -> tuple[list[int], int | None]:
    """Take the run's own lock once the machine is free, or at once beside others.

    Returns:
        the others, and the lock's descriptor; None where a run inside this process has it.
    """
    told: list[int] = []
    refused_at = time.monotonic() + PASSING_S
    while True:
        with _guarded(place):
            others = _others(place)
            if concurrent or not others:
                own = _locked(place, name)
                # only now: of two users who begin at once, one at least sees the other
                others += _others_of_other_users(folder)
                if concurrent or not others:
                    return others, own
                if own is not None:
                    _remove(name, place)
                    close_locked(own)
        if not wait:
            if time.monotonic() < refused_at:
                time.sleep(_LOOK_ONCE_MORE_S)
                continue
            raise BusyError(
                f"another benchmark run is active, {_named(others)}, and the two would disturb "
                "each other: wait for it with --wait, or measure anyway with --allow-concurrent"
            )
        if others != told:
            told = others
            say(f"waiting for another benchmark run, {_named(others)}")
        time.sleep(LOOK_AGAIN_S)


@contextlib.contextmanager
def _guarded(place: int) -> Iterator[None]:
    """Hold the guard file's lock; only this user may open the file."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    guard = os.open("guard.lock", flags, 0o600, dir_fd=place)
    try:
        if not lock(guard, within_s=GUARD_LIMIT_S):
            raise TimeoutError(
                errno.ETIMEDOUT, "guard.lock is locked for too long by another process"
            )
        yield
    finally:
        close_locked(guard)


def _locked(place: int, name: str) -> int | None:
    """Return the descriptor of the run's own lock, taken; None where this process has it."""
    own = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600, dir_fd=place)
    if not lock(own):
        close_locked(own)
        return None
    os.fchmod(own, 0o644)  # not before it is taken: whoever can read it can lock it
    return own


def _others(place: int) -> list[int]:
    """Return the processes of the user's other runs, and remove what dead ones left; guarded."""
    found = []
    for name, pid in _locks(place):
        if _is_held(place, name):
            found.append(pid)
        else:
            _remove(name, place)
    return found


def _others_of_other_users(folder: Path) -> list[int]:
    """Return the processes of the runs that other users' folders show, where they can be read."""
    if not _USER.fullmatch(folder.name):
        return []
    found = []
    for beside in sorted(folder.parent.iterdir()):
        user = _USER.fullmatch(beside.name)
        if user is None or beside.name == folder.name:
            continue
        with contextlib.suppress(OSError):
            place = os.open(beside, _FOLDER)
            try:
                if os.fstat(place).st_uid == int(user[1]):
                    found += [pid for name, pid in _locks(place) if _is_held(place, name)]
            finally:
                os.close(place)
    return found


def _locks(place: int) -> list[tuple[str, int]]:
    """Return names and processes of the locks in a folder, but those of this run's own line."""
    ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    names = filter(None, map(_LOCK.fullmatch, sorted(os.listdir(place))))
    return [(name[0], pid) for name in names if (pid := int(name[1])) not in ours]


def _is_held(place: int, name: str) -> bool:
    """Whether a process holds the lock; False of what is no file, or cannot be opened."""
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=place)
    except OSError:
        return False
    try:
        return stat.S_ISREG(os.fstat(file).st_mode) and not lock(file, shared=True)
    finally:
        close_locked(file)


def _remove(name: str, place: int) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=place)


def _named(pids: list[int]) -> str:
    return f"process{'es' * (len(pids) > 1)} {', '.join(map(str, pids))}"
