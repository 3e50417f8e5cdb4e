"""The first step: tracing is timed separately from compilation and execution."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from convmark.worker.timing import Clock, timed_step

__all__ = ["FirstStep", "first_step"]


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
