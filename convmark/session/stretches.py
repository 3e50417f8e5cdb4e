"""When a process was measured, by the clock of the machine: a wall meter's log is joined by it.

The row keeps seconds since `started`, of the windows and of the last quarter of sustained steps. A
clock that was set meanwhile, which a second clock tells, leaves them empty.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

import psutil

__all__ = ["Stretches", "command_started", "utc_now"]

MOST_APART_S = 0.5
"""Of the two clocks over the time of a process."""


def utc_now() -> datetime:
    """Return the time now."""
    return datetime.now(timezone.utc)


def command_started() -> str:
    """Return when this process was started, UTC, ISO 8601."""
    began = datetime.fromtimestamp(psutil.Process().create_time(), timezone.utc)
    return began.isoformat(timespec="milliseconds")


class Stretches:
    """Notes the times of a worker's events."""

    def __init__(
        self,
        started: datetime,
        now: Callable[[], datetime] = utc_now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin at the time at which the process was asked for."""
        self._started, self._now, self._clock = started, now, clock
        self._began_s = clock()
        self._windows: list[float] = []
        self._intervals: list[float] = []
        """Ends of the sustained intervals; the first is where their steps began."""

    def see(self, event: Mapping[str, Any]) -> None:
        """Take note of an event."""
        name, phase = event["event"], event.get("phase")
        if name == "windows" or (name == "phase" and phase == "windows"):
            self._windows.append(self._since_s())
        elif name == "interval" or (name == "phase" and phase == "sustained"):
            self._intervals.append(self._since_s())

    def _since_s(self) -> float:
        return round((self._now() - self._started).total_seconds(), 3)

    def columns(self, samples_per_step: int) -> dict[str, Any]:
        """Return the row's columns; none where the clock was set meanwhile."""
        took_s = self._since_s()
        if abs(took_s - (self._clock() - self._began_s)) > MOST_APART_S:
            return {}
        found = {"command_started": command_started(), "took_s": took_s}
        if len(self._windows) == 2:
            found |= dict(zip(("windows_from_s", "windows_until_s"), self._windows, strict=True))
        late = max(1, (len(self._intervals) - 1) // 4)
        if len(self._intervals) > 1:
            found["sustained_from_s"] = self._intervals[-1 - late]
            found["sustained_until_s"] = self._intervals[-1]
        return found
