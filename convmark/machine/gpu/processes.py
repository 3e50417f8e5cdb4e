"""Who else is on the card: its processes, less those that this run has started."""

from __future__ import annotations

import contextlib
from collections.abc import Set
from typing import Any

import psutil

from convmark.machine.gpu.nvml import answer

__all__ = ["foreign", "own_processes", "processes_on"]


def own_processes() -> frozenset[int]:
    """Return this process and all that descend from it."""
    me = psutil.Process()
    children: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        children = me.children(recursive=True)
    return frozenset([me.pid, *(child.pid for child in children)])


def processes_on(nvml: Any, handle: Any, kind: str) -> frozenset[int] | None:
    """Return the process ids on the card, None where the driver does not tell.

    Args:
        kind: `Compute` or `Graphics`.
    """
    found = answer(nvml, f"nvmlDeviceGet{kind}RunningProcesses", handle)
    # A driver older than nvidia-ml-py's version of the structure has the earlier one.
    if found is None:
        found = answer(nvml, f"nvmlDeviceGet{kind}RunningProcesses_v2", handle)
    return None if found is None else frozenset(int(process.pid) for process in found)


def foreign(now: Set[int], before: Set[int], own: Set[int], workers: int = 1) -> frozenset[int]:
    """Return the processes on the card that are not the run's own.

    In a container the driver may show ids of the host, among which the run's own are not known.
    Then whoever was there before the run's workers is foreign, and of the newcomers all but as many
    as it has workers there.

    Args:
        now: the ids on the card while the case was measured.
        before: those before the case's workers were started.
        own: the ids of this run, as this process sees them.
        workers: how many the case has on the card.
    """
    newcomers = now - before
    if not now & own:
        newcomers = frozenset(sorted(newcomers)[workers:])
    return frozenset((newcomers | (now & before)) - own)
