"""Locks on open files that are the process's own, and not its children's.

The kernel gives a lock up once nobody has the open file any more. A forked process has it too: one
that lives on, such as a worker of multiprocessing, would hold the lock of a run that was killed. So
a forked process drops what it inherits. One that becomes another program a moment later, as
`subprocess` makes them, can only be waited for.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable

__all__ = ["PASSING_S", "close_locked", "lock"]

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
