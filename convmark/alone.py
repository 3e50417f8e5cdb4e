"""One benchmark run at a time: two runs on a machine disturb each other's figures.

    <runtime>/<process>.lock   held by a run from before its first worker to its end
    <runtime>/guard.lock       held for the moment in which a run looks who else is there

The folder is the user's own runtime folder, or what `CONVMARK_RUNTIME` names. The system lets go of
a lock however its holder ends, so that a run which was killed keeps nobody waiting.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import platformdirs
import psutil
from filelock import FileLock, Timeout

from convmark.errors import BusyError

__all__ = ["alone", "runtime_folder"]

GUARD_LIMIT_S = 10.0
"""Looking takes a millisecond; a guard that is held for longer is not to be waited for."""
LOOK_AGAIN_S = 0.5

Say = Callable[[str], None]


def runtime_folder() -> Path:
    """Return where runs are known to each other: `CONVMARK_RUNTIME`, or the user's own folder."""
    if given := os.environ.get("CONVMARK_RUNTIME"):
        return Path(given)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that XDG_RUNTIME_DIR is not set, as in most containers
        folder = platformdirs.user_runtime_path("convmark", appauthor=False)
    if folder.is_dir() or os.access(folder.parent, os.W_OK):
        return folder
    return Path(tempfile.gettempdir()) / f"convmark-{os.getuid()}"


@contextlib.contextmanager
def alone(
    *, wait: bool, concurrent: bool, say: Say, folder: Path | None = None
) -> Iterator[list[int]]:
    """Have the machine to this run until the block ends; give the processes of others beside it.

    Runs inside this process, and one that a holder has started itself, are no others.

    Args:
        wait: whether to wait for another run's end, instead of being refused.
        concurrent: whether to go on beside another run.
        say: is told of what is waited for, and where it cannot be told who is there.

    Raises:
        BusyError: another run is there, with its process number.
    """
    folder = folder or runtime_folder()
    own = FileLock(folder / f"{os.getpid()}.lock")
    others: list[int] = []
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        others = _taken(folder, own, wait=wait, concurrent=concurrent, say=say)
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        say(f"{folder}: whether other benchmark runs are there cannot be told: {reason}")
    try:
        yield others
    finally:
        if own.is_locked:
            Path(own.lock_file).unlink(missing_ok=True)
            own.release()


def _taken(folder: Path, own: FileLock, *, wait: bool, concurrent: bool, say: Say) -> list[int]:
    """Take the run's own lock once the machine is free, or at once beside others; return them."""
    told: list[int] = []
    while True:
        with FileLock(folder / "guard.lock").acquire(timeout=GUARD_LIMIT_S):
            others = _others(folder)
            if concurrent or not others:
                with contextlib.suppress(Timeout):  # a run inside this process has it
                    own.acquire(timeout=0)
                return others
        if not wait:
            raise BusyError(
                f"another benchmark run is going on, {_named(others)}, and each would disturb the "
                "other: wait for it with --wait, or measure beside it with --allow-concurrent"
            )
        if others != told:
            told = others
            say(f"waiting for another benchmark run, {_named(others)}")
        time.sleep(LOOK_AGAIN_S)


def _others(folder: Path) -> list[int]:
    """Return the processes of other runs, and remove what dead ones have left; guarded."""
    ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for path in sorted(folder.glob("*.lock")):
        if not path.stem.isdecimal() or int(path.stem) in ours:
            continue
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            found.append(int(path.stem))
            continue
        path.unlink(missing_ok=True)
        lock.release()
    return found


def _named(pids: list[int]) -> str:
    return f"process{'es' * (len(pids) > 1)} {', '.join(map(str, pids))}"
