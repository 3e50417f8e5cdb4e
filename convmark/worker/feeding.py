"""Input-bound throughput: windows in which every step waits for a batch from the host."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from convmark.worker.timing import Clock, Pulse, Windows, windows

__all__ = ["FED_WINDOWS", "fed_windows"]

FED_WINDOWS = 3
"""On a CPU, where steps and their feeding share the cores, one must do: each costs time."""


def fed_windows(
    step: Any,
    feed: Iterator[tuple[Any, ...]],
    backend: Any,
    step_time_s: float,
    pulse: Pulse,
    clock: Clock = time.perf_counter,
    *,
    number: int = FED_WINDOWS,
    see: Callable[[Any], None] = lambda token: None,
) -> Windows:
    """Return so many windows of steps that each take the next batch of the feed.

    Args:
        see: called with the result of the first step that is dropped.
        feed: yields batches from host memory; it is filled by three steps that are dropped.
    """

    def fed() -> Any:
        return step.run(*next(feed))

    for dropped in range(FED_WINDOWS):
        token = fed()
        backend.synchronise(token)
        if not dropped:
            see(token)
        del token
        pulse.beat("windows")
    return windows(fed, backend, step_time_s, pulse, clock, number=number)
