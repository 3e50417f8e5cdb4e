"""Sustained speed: a case's steps go on for minutes, and each interval is reported as it ends.

The case has been measured by then: these are the same steps, one synchronisation after as many as
a window has.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from convmark.worker import host, timing

__all__ = ["INTERVALS", "sustain"]

INTERVALS = 60
LEAST_INTERVAL_S = 1.0
PART_S = 0.25
"""Of steps between two looks at the clock."""


def sustain(
    step: timing.Step,
    backend: Any,
    step_time_s: float,
    seconds: float,
    emit: Callable[..., None],
    pulse: timing.Pulse,
    *,
    clock: timing.Clock = time.perf_counter,
    usage: Callable[[], host.Usage | None] = host.usage,
    memory_bytes: Callable[[], int] = lambda: host.HostMemory().anonymous_bytes,
) -> None:
    """Take steps for so many seconds of steps, reporting an event for each interval.

    Args:
        step_time_s: a step's seconds, from which follows how many go without a synchronisation.
        memory_bytes: gives what the process holds of its own now.
    """
    interval_s = max(LEAST_INTERVAL_S, seconds / INTERVALS)
    count = max(1, round(PART_S / max(step_time_s, 1e-6)))
    emit("phase", phase="sustained")
    before, done_s = usage(), 0.0
    while done_s < seconds:
        took_s, steps = 0.0, 0
        while took_s < interval_s:
            began = clock()
            for _ in range(count):
                token = step()
            backend.synchronise(token)
            took_s += backend.agreed(clock() - began)
            steps += count
            pulse.beat(f"sustained, {min(done_s + took_s, seconds):.0f} of {seconds:.0f} s")
        now = usage()
        emit(
            "interval",
            began_s=round(done_s, 6),
            seconds=round(took_s, 6),
            steps=steps,
            memory_bytes=memory_bytes(),
            device_memory_bytes=backend.held_memory(),
            other_cpu_share=host.other_cpu_share(before, now),
        )
        before, done_s = now, done_s + took_s
