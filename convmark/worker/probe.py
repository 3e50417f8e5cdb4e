"""Checks of a device: does a step's sync wait, and is the allocator's count correct.

Asked for by scripts/gpu_check; no row comes of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from convmark.worker import timing

__all__ = ["Synchronised", "held_bytes", "synchronised"]

BLOCKS, BLOCK_STEPS = 8, 5
WARM_UP_STEPS = 10

Step = Callable[[], Any]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Synchronised:
    """Seconds of one step, three ways."""

    unsynchronised_s: float
    """The call alone, median: on an asynchronous device the time to queue the step."""
    synchronised_s: float
    """Ended by a sync, median."""
    window_s: float
    """Wall seconds of a block of unsynchronised calls and one sync at its end / their number."""


def synchronised(step: Step, backend: Any, clock: Clock = time.perf_counter) -> Synchronised:
    """Time the step without a sync, with one sync at the end of a block, and with one each.

    Blocks of both kinds take turns, so that a noisy machine slows both.
    """
    for _ in range(WARM_UP_STEPS):
        backend.synchronise(step())
    calls_s: list[float] = []
    each_s: list[float] = []
    windows_s: list[float] = []
    for _ in range(BLOCKS):
        began = clock()
        for _ in range(BLOCK_STEPS):
            called = clock()
            token = step()
            calls_s.append(clock() - called)
        backend.synchronise(token)
        windows_s.append((clock() - began) / BLOCK_STEPS)
        each_s += [timing.timed_step(step, backend, clock)[0] for _ in range(BLOCK_STEPS)]
    return Synchronised(*(timing.median(times) for times in (calls_s, each_s, windows_s)))


def held_bytes(allocate: Callable[[], Any], backend: Any) -> int | None:
    """Return by how much the device's peak grows while something is allocated and held.

    None where the device's allocator does not count.
    """
    backend.reset_peak_memory()
    before = backend.peak_memory()
    held = allocate()
    after = backend.peak_memory()
    del held
    return None if before is None or after is None else after - before
