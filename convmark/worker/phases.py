"""Phases beside the timed loops: the first step, windows that are fed, and sustained steps.

Sustained steps go on for minutes once the case has been measured: the same steps, one
synchronisation after as many as a window has. Each interval is reported as it ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from convmark.worker import host, timing
from convmark.worker.timing import Clock, Pulse, Windows, timed_step, windows

FED_WINDOWS = 3
"""On a CPU, where steps and their feeding share the cores, one must do: each costs time."""


@dataclass(frozen=True)
class FirstStep:
    """Seconds of making the graph, and of the first execution, compilation included."""

    trace_s: float | None
    """None where nothing is traced."""
    execution_s: float

    @property
    def total_s(self) -> float:
        """The time to the first step."""
        return (self.trace_s or 0.0) + self.execution_s


def first_step(step: Any, backend: Any, clock: Clock = time.perf_counter) -> tuple[FirstStep, Any]:
    """Take the first step, its tracing apart where it has one, and return its result too.

    What was lost with batches that the step does not take is in neither.
    """
    if step.trace is None:
        seconds, token = timed_step(step, backend, clock)
        return FirstStep(None, seconds - step.failed_s()), token
    began = clock()
    step.trace()
    trace_s = clock() - began - step.failed_s()
    seconds, token = timed_step(step, backend, clock)
    return FirstStep(trace_s, seconds), token


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
) -> int:
    """Take steps for so many seconds of steps, reporting an event for each interval.

    Returns:
        how many steps were taken.

    Args:
        step_time_s: a step's seconds, from which follows how many go without a synchronisation.
        memory_bytes: gives what the process holds of its own now.
    """
    interval_s = max(LEAST_INTERVAL_S, seconds / INTERVALS)
    count = max(1, round(PART_S / max(step_time_s, 1e-6)))
    emit("phase", phase="sustained")
    before, done_s, taken = usage(), 0.0, 0
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
        before, done_s, taken = now, done_s + took_s, taken + steps
    return taken
