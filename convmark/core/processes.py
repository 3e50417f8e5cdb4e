"""Processes that end with the one that started them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

__all__ = ["die_with_parent"]

_PR_SET_PDEATHSIG = 1


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
