"""Phases beside the timed loops: the first step, and windows of steps that wait for their batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from convmark.worker.timing import Clock, Pulse, Windows, timed_step, windows

__all__ = [
    "FED_WINDOWS",
    "fed_windows",
    "first_step",
]

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
