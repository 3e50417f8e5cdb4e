"""The host during a measurement: this process's memory, the CPU time that others took, and what
the process computes while it takes no step: it would slow the code that has its turn.

A load average also counts the measuring process's own threads; the share of others does not.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from convmark.worker.binding import siblings
from convmark.worker.timing import Clock
from convmark.worker.turns import BUSY_CPUS, python_threads

STATUS = "/proc/self/status"


class HostMemory:
    """A reading of the process's memory.

    Attributes:
        anonymous_bytes: memory of its own, without pages of files (Linux; elsewhere its peak).
        peak_bytes: the most that was ever resident, without the file pages resident now.
    """

    __slots__ = ("anonymous_bytes", "peak_bytes")

    def __init__(self) -> None:
        status = _status()
        if status:
            self.anonymous_bytes = status["RssAnon"]
            self.peak_bytes = status["VmHWM"] - status["RssFile"]
        else:
            unit = 1 if sys.platform == "darwin" else 1024
            resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
            self.anonymous_bytes = self.peak_bytes = resident


def peak_above(baseline: HostMemory, now: HostMemory) -> int:
    """Return the peak above the baseline, bytes, at least 0.

    Library pages are left out: they are shared between forked children and fault in late.
    """
    return max(0, now.peak_bytes - baseline.anonymous_bytes)


def forget_peak() -> None:
    """Have the kernel count the peak from here on, where it can (Linux)."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def give_back() -> None:
    """Give what is free of the process's memory back to the kernel, where the C library can.

    A process that is forked from this one would fill it without a higher peak.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _status() -> dict[str, int]:
    """Return the sizes in /proc/self/status, bytes; empty where there is no such file.

    Raises:
        OSError: it is there and cannot be read, as of a process without a free descriptor: the
            other measure of memory would be another figure.
    """
    try:
        with open(STATUS, encoding="ascii", errors="replace") as lines:
            pairs = [line.split() for line in lines]
    except FileNotFoundError:
        return {}
    return {
        words[0].rstrip(":"): int(words[1]) * 1024
        for words in pairs
        if len(words) == 3 and words[2] == "kB"
    }


_USER_TO_STEAL = (0, 1, 2, 5, 6, 7)
"""Fields of a CPU's line that are time not idle: user, nice, system, irq, softirq, steal."""


@dataclass(frozen=True)
class Usage:
    """CPU time up to now, of the cores that this process may run on.

    A program on the other hyperthread of a core slows this one down, so that CPU counts too.
    """

    busy_s: float
    """Not idle, of all programs, stolen time included."""
    own_s: float
    """Of this process, its children that have ended, and others that are the case's too."""
    wall_s: float
    cpus: int


def usage(read: Callable[[], str] | None = None, companions: Iterable[int] = ()) -> Usage | None:
    """Return the CPU time up to now; None where the kernel does not tell it.

    Args:
        read: gives the text of /proc/stat.
        companions: other processes of the same case, which are no rivals.

    Source: proc_stat(5), proc_pid_stat(5); their unit is the clock tick.
    """
    try:
        text = (read or _proc_stat)()
    except OSError:
        return None
    allowed = siblings(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else set()
    ticks, cpus = 0, 0
    for match in re.finditer(r"^cpu(\d+) ((?:\d+ ?)+)", text, re.MULTILINE):
        fields = [int(word) for word in match.group(2).split()]
        if int(match.group(1)) in allowed and len(fields) > max(_USER_TO_STEAL):
            ticks += sum(fields[place] for place in _USER_TO_STEAL)
            cpus += 1
    if not cpus:
        return None
    own_s = sum(os.times()[:4]) + sum(map(_cpu_s, companions))
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), own_s, time.monotonic(), cpus)


def other_cpu_share(before: Usage | None, now: Usage | None) -> float | None:
    """Return the share of the CPUs' time that others took, from 0 to 1; None where unknown.

    The counts of other CPUs, after one went offline or a cpuset was changed, say nothing of it.
    """
    if before is None or now is None or now.wall_s <= before.wall_s or now.cpus != before.cpus:
        return None
    others_s = (now.busy_s - before.busy_s) - (now.own_s - before.own_s)
    return min(1.0, max(0.0, others_s / (now.cpus * (now.wall_s - before.wall_s))))


def state_from_now(companions: Iterable[int] = ()) -> Callable[[], dict[str, Any]]:
    """Return what gives the fields of the event `state`, of the time from this call on.

    Args:
        companions: as for `usage`; so are processes that this one has started.
    """
    switches, before = _involuntary_switches(), usage(companions=children().union(companions))

    def state() -> dict[str, Any]:
        return {
            "load_average_1min": os.getloadavg()[0],
            "other_cpu_share": other_cpu_share(
                before, usage(companions=children().union(companions))
            ),
            "involuntary_context_switches": _involuntary_switches() - switches,
        }

    return state


def _involuntary_switches() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def children() -> set[int]:
    """Return the processes that this one has started and that go on, and those that these have."""
    found: set[int] = set()
    waiting = [os.getpid()]
    while waiting:
        tasks = f"/proc/{waiting.pop()}/task"
        with contextlib.suppress(OSError):
            for thread in os.listdir(tasks):
                with contextlib.suppress(OSError), open(f"{tasks}/{thread}/children") as file:
                    started = set(map(int, file.read().split())) - found
                    found |= started
                    waiting += started
    return found


def children_cpu_s(companions: Iterable[int] = ()) -> float:
    """Return the CPU time of the processes that this one has started, those that ended included."""
    return sum(os.times()[2:4]) + sum(map(_cpu_s, children().difference(companions)))


ELSEWHERE = 0.05
"""Share of the CPU time from which processes that this one has started work for it."""


def elsewhere_from_now(companions: Iterable[int] = ()) -> Callable[[], bool]:
    """Return what tells whether processes that this one has started work for it from this call on.

    Args:
        companions: as for `usage`.
    """
    own_s, others_s = time.process_time(), children_cpu_s(companions)

    def is_elsewhere() -> bool:
        other_s = children_cpu_s(companions) - others_s
        return other_s > ELSEWHERE * (time.process_time() - own_s + other_s)

    return is_elsewhere


REST_S, SLICE_S, BUSY = 0.5, 0.025, 0.3
_SPINNING = frozenset(["GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY", "OMP_WAIT_POLICY"])
"""Variables by which a pool's threads keep their CPUs busy while they wait."""


def _wanted_s() -> float:
    """Return the CPU time that other threads and processes of this one took, or waited for.

    Of those that are there; on a busy machine they wait far longer than they run.

    Source: Linux, Documentation/scheduler/sched-stats.rst, "/proc/<pid>/schedstat".
    """
    own, found_s = threading.get_native_id(), 0.0
    for pid in (os.getpid(), *children()):
        with contextlib.suppress(OSError):
            others = {int(thread) for thread in os.listdir(f"/proc/{pid}/task")} - {own}
            found_s += sum(sum(_scheduled_s(pid, thread)) for thread in others)
    return found_s


def _scheduled_s(pid: int, thread: int) -> tuple[float, float]:
    """Return the CPU time that a thread took, and that it waited for; 0 where nobody tells."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/schedstat") as file:
        took_ns, waited_ns = map(int, file.read().split()[:2])
        return took_ns / 1e9, waited_ns / 1e9
    return 0.0, 0.0


def threads_of_python_s() -> float:
    """Return the CPU time that the other threads of this process took which Python has started.

    Not what they waited for: on a busy machine that is work of others.
    """
    others = {thread.native_id for thread in python_threads()} - {threading.get_native_id()}
    return sum(_scheduled_s(os.getpid(), thread)[0] for thread in others if thread is not None)


def busy_at_rest(
    wanted_s: Callable[[], float] = _wanted_s, sleep: Callable[[float], None] = time.sleep
) -> float:
    """Return the CPU time that is wanted while nothing is asked of the process; 0 once it rests."""
    taken_s = 0.0
    for _ in range(0 if _SPINNING & os.environ.keys() else round(REST_S / SLICE_S)):
        before = wanted_s()
        sleep(SLICE_S)
        slice_s = wanted_s() - before
        if slice_s < BUSY * SLICE_S:
            return 0.0
        taken_s += slice_s
    return taken_s


def _cpu_s(pid: int) -> float:
    """Return the CPU time of a process and of its children that have ended; 0 where it has."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as line:
            fields = line.read().rpartition(")")[2].split()  # its name may hold spaces
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _proc_stat() -> str:
    with open("/proc/stat", encoding="ascii", errors="replace") as lines:
        return lines.read()


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
