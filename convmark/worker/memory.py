"""Host memory of this process, bytes, as the kernel counts it."""

from __future__ import annotations

import contextlib
import resource
import sys

__all__ = ["HostMemory", "forget_peak", "peak_above"]


class HostMemory:
    """A reading of the process's memory.

    Attributes:
        anonymous_bytes: memory of its own, without pages of files (Linux; elsewhere its peak).
        peak_bytes: the most that was ever resident, without the file pages resident now.
    """

    __slots__ = ("anonymous_bytes", "peak_bytes")

    def __init__(self) -> None:
        status = _status()
        if status:
            self.anonymous_bytes = status["RssAnon"]
            self.peak_bytes = status["VmHWM"] - status["RssFile"]
        else:
            unit = 1 if sys.platform == "darwin" else 1024
            resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
            self.anonymous_bytes = self.peak_bytes = resident


def peak_above(baseline: HostMemory, now: HostMemory) -> int:
    """Return the peak above the baseline, bytes, at least 0.

    Library pages are left out: they are shared between forked children and fault in late.
    """
    return max(0, now.peak_bytes - baseline.anonymous_bytes)


def forget_peak() -> None:
    """Have the kernel count the peak from here on, where it can (Linux)."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def _status() -> dict[str, int]:
    """Return the sizes in /proc/self/status, bytes; empty where there is no such file."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
            pairs = [line.split() for line in lines]
    except OSError:
        return {}
    return {
        words[0].rstrip(":"): int(words[1]) * 1024
        for words in pairs
        if len(words) == 3 and words[2] == "kB"
    }
