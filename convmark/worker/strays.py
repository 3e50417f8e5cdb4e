"""Processes that a model started and left running: found, ended with the case, and named.

A process that leaves the worker's process group (a daemon, `start_new_session=True`) would take CPU
time from every later case. On Linux the kernel hands it to the zygote, once its own parent has
ended; elsewhere such a process is not found.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator

__all__ = ["adopt_orphans", "children", "end_strays"]

_PR_SET_CHILD_SUBREAPER = 36
MOST_GENERATIONS = 50
"""Ended one after another: the children of a process that was ended come here in their turn."""


def adopt_orphans() -> None:
    """Have the kernel make this process the parent of its descendants whose own has ended."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def children() -> set[int]:
    """Return this process's children, those that have ended and were not waited for included."""
    return {pid for pid, parent in _parents() if parent == os.getpid()}


def end_strays(kept: set[int], group: int = 0) -> list[str]:
    """End every child that is not kept; return the names of those that had left the group.

    Args:
        group: the process group of the worker, whose processes are ended with it as a rule.
    """
    names = []
    for _ in range(MOST_GENERATIONS):
        strays = children() - kept
        if not strays:
            break
        for pid in strays:
            if os.waitpid(pid, os.WNOHANG)[0]:
                continue  # it had ended by itself
            if os.getpgid(pid) != group:
                names.append(_name(pid))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return sorted(names)


def _parents() -> Iterator[tuple[int, int]]:
    """Yield each process and its parent, where the kernel lists them."""
    if not os.path.isdir("/proc/self"):
        return
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with contextlib.suppress(OSError):  # it may have ended meanwhile
                with open(f"/proc/{entry}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
                yield int(entry), int(fields[1])


def _name(pid: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm") as file:
        return file.read().strip()
    return "a process"
