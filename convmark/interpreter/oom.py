"""Detects kills by the kernel's OOM killer; the killed worker itself shows only SIGKILL."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["oom_kills"]

_VMSTAT = Path("/proc/vmstat")


def oom_kills(vmstat: Path = _VMSTAT) -> int:
    """Return how many processes the kernel has killed for memory since boot; 0 where it is silent.

    It counts those of the whole machine and those of a memory-limited cgroup alike, each before the
    process is gone.

    Source: mm/oom_kill.c of Linux, which counts OOM_KILL in vmstat since 4.13.
    """
    try:
        found = re.search(r"^oom_kill (\d+)$", vmstat.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found.group(1)) if found else 0
