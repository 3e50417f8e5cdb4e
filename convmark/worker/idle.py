"""What a process computes while it takes no step: it would slow the code that has its turn."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from convmark.worker.host import children_cpu_s
from convmark.worker.timing import Clock
from convmark.worker.turns import BUSY_CPUS

_WINDOW_S = 0.05
_MOST_WINDOWS = 6
"""Threads of OpenMP spin on after a step, for 0.2 s by the longest of their defaults."""


def idle_cpus(
    sleep: Callable[[float], None] = time.sleep,
    clock: Clock = time.perf_counter,
    cpu_clock: Clock | None = None,
) -> float:
    """Return how many CPUs the process and those that it has started keep busy while it waits."""
    used_s = cpu_clock or _used_s
    least = float(os.cpu_count() or 1)
    for _ in range(_MOST_WINDOWS):
        began, used = clock(), used_s()
        sleep(_WINDOW_S)
        least = min(least, (used_s() - used) / (clock() - began))
        if least < BUSY_CPUS:
            break
    return least


def _used_s() -> float:
    """Return the CPU seconds of the process and of those that it has started."""
    return time.process_time() + children_cpu_s()
