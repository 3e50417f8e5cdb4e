"""What ends with a process, however it ends: its children, its run.

SIGTERM and SIGHUP end a run like Ctrl-C: workers end, rows are kept, the exit status is set. A
service manager, a batch system and a closed terminal send them; by default they end a process on
the spot, without a word about where its rows are.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

_PR_SET_PDEATHSIG = 1

_TAKEN = (signal.SIGTERM, signal.SIGHUP)


def die_with_parent(parent: int | None = None, how: signal.Signals = signal.SIGKILL) -> None:
    """Make the kernel end this process when its parent ends, where the kernel can (Linux).

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


class Terminated(KeyboardInterrupt):
    """One of these signals has come: unlike Ctrl-C, which a step may take for itself, it is sent to
    end the whole process, and not once more."""


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
        raise Terminated

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
