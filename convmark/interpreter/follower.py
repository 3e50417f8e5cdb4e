"""Follows a worker's events until the end of a request, and makes the answer from them."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from convmark.core.errors import WorkerError
from convmark.worker.protocol import LINE_BYTES, UNSAFE_FORK, decode_event, one_line

LOG_TAIL_BYTES = 1 << 16
"""A dying framework tells why, then the stacks of all its threads, some 5 KB each."""
LOG_BYTES = 1 << 24
"""A log that grows beyond it is cut down to its end: a model may print without end."""
LOOK_AT_LOG_S = 1.0
NOISE = re.compile(
    r"cuInit|cudart_stub|absl::InitializeLog|TF-TRT|cpu_feature_guard|rebuild Tensor"
)
"""What TensorFlow logs wherever there is no GPU, and no reason for anything."""

MOST_EVENTS = 10_000
"""Kept of one process; a whole measurement has twenty."""
MOST_LINES = 200_000
"""Read of one process, signs of life included, which come once a second."""

OnEvent = Callable[[dict[str, Any]], None]


_VMSTAT = Path("/proc/vmstat")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of one request."""

    status: str
    """`ok`, `error`, `out_of_memory`, `timeout` or `crashed`."""
    message: str
    """One line for the user; empty when the status is `ok`."""
    events: list[dict[str, Any]] = field(default_factory=list)
    ready_s: float | None
    """Seconds from the request to `ready`: the price of a fresh process."""

    def event(self, name: str) -> dict[str, Any] | None:
        return next((event for event in reversed(self.events) if event["event"] == name), None)


class Followed(Protocol):
    """The process behind the events."""

    events_fd: int
    control: socket.socket
    """Readable when the process may have ended."""

    def wait(self, limit_s: float = ...) -> int | None:
        """Return the exit status, None where the process has not ended within the limit."""

    def end(self) -> None:
        """End the process and its group."""


class Follower:
    """Reads one request's events up to the worker's end, and concludes what came of it."""

    def __init__(
        self, on_event: OnEvent, began: float, time_limit_s: float, log: Path | None = None
    ) -> None:
        self._on_event = on_event
        self._log = log
        self._began = began
        self._limit_s = time_limit_s
        self._events: list[dict[str, Any]] = []
        self._ready_s: float | None = None
        self._violation = ""
        self._lines = 0
        self._oom_kills = oom_kills()
        self._buffer = bytearray()
        self.overrun = ""

    def follow(self, worker: Followed, until: str = "") -> dict[str, Any] | None:
        """Take events until the worker has ended, is silent for too long or writes what is none.

        The end of the pipe is not enough: a process that the model started may hold it open.
        With `until`, stop at the first event of that name that was not returned yet, and return
        it; what came together with it is kept for the next call.
        """
        if (found := self._awaited(until)) is not None:
            return found
        ended = worker.wait(0) is not None
        heard = time.monotonic()
        while True:
            sources: list[Any] = [worker.events_fd] if ended else [worker.events_fd, worker.control]
            left_s = 0 if ended else max(0.0, heard + self._limit_s - time.monotonic())
            readable = select.select(sources, [], [], min(left_s, LOOK_AT_LOG_S))[0]
            shorten(self._log)
            if worker.events_fd not in readable:
                if ended:
                    return None
                if readable:
                    ended = worker.wait(0) is not None
                if readable or left_s > LOOK_AT_LOG_S:
                    continue
                self.overrun = self._silence()
                worker.end()
                return None
            data = os.read(worker.events_fd, 1 << 16)
            if not data:
                return None
            heard = time.monotonic()
            self._buffer += data
            lines: list[bytes] = []
            if b"\n" in data:
                *lines, rest = bytes(self._buffer).split(b"\n")
                self._buffer = bytearray(rest)
            if not all(self._take(line) for line in lines) or len(self._buffer) > LINE_BYTES:
                self._violation = self._violation or "the worker wrote an endless line"
                worker.end()
                return None
            if lines and (found := self._awaited(until)) is not None:
                return found

    def _awaited(self, name: str) -> dict[str, Any] | None:
        for place, event in enumerate(self._events):
            if name and event["event"] == name:
                return self._events.pop(place)
        return None

    def _silence(self) -> str:
        last = self._events[-1] if self._events else {"event": "start"}
        if last["event"] == "waiting":
            return (
                f"{last['what']}: did not connect within {self._limit_s:g} s; the worker was "
                "ended (start the same command there, with its own --index)"
            )
        return (
            f"no progress for {self._limit_s:g} s after {last['event']!r}; the worker was "
            "ended (raise --time-limit for slow models)"
        )

    def _take(self, line: bytes) -> bool:
        try:
            event = decode_event(line)
        except WorkerError as error:
            self._violation = one_line(error)
            return False
        self._lines += 1
        if self._lines > MOST_LINES or len(self._events) >= MOST_EVENTS:
            self._violation = f"the worker sends too many events: {self._lines:,} without an end"
            return False
        if event["event"] == "ready":
            self._ready_s = time.perf_counter() - self._began
        if event["event"] == "progress" and self._events[-1:] == [event]:
            self._events.pop()  # signs of life need not pile up
        self._events.append(event)
        self._on_event(event)
        return True

    def note_left(self, names: list[str]) -> None:
        """Put an event before all others that names the processes that the worker left running."""
        if names:
            self._events.insert(0, {"event": "left_running", "names": names})

    def answer(self, status: str, message: str) -> Answer:
        """Return the answer with the events that have come, its message one line."""
        return Answer(
            status=status,
            message=one_line(message),
            events=self._events,
            ready_s=self._ready_s,
        )

    def told(self) -> Answer | None:
        """Return the failure that the worker told of, None where it told of none.

        It need not be the last event: another thread of the worker may have gone on for a moment.
        """
        for event in reversed(self._events):
            if event["event"] == "failed" and event.get("status") in ("error", "out_of_memory"):
                return self.answer(event["status"], str(event.get("message", "")))
        return None

    def conclude(self, status: int | None, tail: str) -> Answer:
        """Return the answer of a worker that has ended with this exit status."""
        if self._violation:
            return self.answer("crashed", self._violation + tail)
        if (told := self.told()) is not None:
            return told
        last = self._events[-1] if self._events else {"event": ""}
        if status == UNSAFE_FORK and not self._events:
            return self.answer(
                "error",
                "the framework had already run something when it was imported, so no worker can be "
                "forked; measure with --isolation=spawn",
            )
        if last["event"] in ("finished", "inspected") and status == 0:
            return self.answer("ok", "")
        phase = last["event"] or "start"
        return self.death(f"the worker ended ({cause(status)}) after {phase!r}", status, tail)

    def death(self, what: str, status: int | None, tail: str) -> Answer:
        """Return the answer of a process that has died of itself: for want of memory, or not."""
        starved = status == -signal.SIGKILL and oom_kills() > self._oom_kills
        if starved:
            what += ", killed by the kernel for memory"
        died = "out_of_memory" if starved or "bad_alloc" in tail else "crashed"
        return self.answer(died, what + tail)


def cause(status: int | None) -> str:
    """Say why a process ended: its exit status, or the signal's name where it is negative."""
    if status is None:
        return "no exit status"
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def shorten(log: Path | None) -> None:
    """Cut a log that has grown beyond `LOG_BYTES` down to its end; its writers append to it."""
    if log is None or not log.is_file() or log.stat().st_size <= LOG_BYTES:
        return
    with log.open("r+b") as lines:
        lines.seek(-LOG_TAIL_BYTES, os.SEEK_END)
        end = lines.read()
        lines.truncate(0)
        lines.seek(0)
        lines.write(end)


def tail(log: Path | None) -> str:
    """What a log ends with, as the end of a message: a fatal error and its place, or a line."""
    if log is None or not log.is_file():
        return ""
    with log.open("rb") as lines:
        lines.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
        text = lines.read().decode(errors="replace")
    lines_said = [line.strip() for line in text.splitlines() if line.strip()]
    lines_said = [line for line in lines_said if not NOISE.search(line)]
    for index, line in enumerate(lines_said):
        if line.startswith("Fatal Python error"):
            place = next((word for word in lines_said[index:] if word.startswith("File ")), "")
            why = next((word for word in lines_said if "bad_alloc" in word), "")
            return f": {one_line(f'{why} {line} {place}')}"
    return f": {one_line(lines_said[-1])}" if lines_said else ""


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
