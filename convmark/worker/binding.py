"""The CPUs and the memory that this process is bound to, and whether its threads have stayed there.

The process is bound before it imports the framework, which counts its CPUs then, and every thread
and fork inherits that. A framework, a runtime or the model's own code may set an affinity of its
own: so all threads are looked at again once they exist, and at the end.

Source: set_mempolicy(2), get_mempolicy(2), which need no library; proc_pid_status(5).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from convmark.core.case import NUMA, Case, cpu_list, cpu_numbers
from convmark.worker.failure import CaseFailure

LOOKED_AT = frozenset(["first_step", "turns", "finished"])
"""Events before which the threads are looked at: no step is timed then."""

_MPOL_BIND = 2
_CALLS: Mapping[str, tuple[int, int]] = {"x86_64": (238, 239), "aarch64": (237, 236)}
"""The numbers of set_mempolicy and get_mempolicy, by the machine's architecture."""
_WORD = 8 * ctypes.sizeof(ctypes.c_ulong)
_MOST_NODES = 1024
"""Linux, include/linux/numa.h: no kernel is built for more."""

Bound = Mapping[str, Any]
"""`cpus`, and `node` where the memory is bound too."""


def bind(bound: Bound | None) -> None:
    """Bind this process to CPUs, and to the memory of their node where the kernel lets it.

    Raises:
        OSError: the kernel refuses the CPUs.
    """
    if bound is None:
        return
    os.sched_setaffinity(0, bound["cpus"])
    memory_trouble(bound)


def memory_trouble(bound: Bound) -> str:
    """Take memory of the node alone from here on; return why not, empty where it is so."""
    if "node" not in bound:
        return ""
    node = bound["node"]
    numbers = _CALLS.get(platform.machine())
    if numbers is None:
        return f"not known how on {platform.machine()}"
    words = (ctypes.c_ulong * (_MOST_NODES // _WORD))()
    words[node // _WORD] = 1 << node % _WORD
    return _called(numbers[0], _MPOL_BIND, words, ctypes.c_ulong(_MOST_NODES + 1))


def memory_state(case: Case) -> dict[str, str]:
    """Return what a row says of memory that was to be bound to a node, and is not."""
    if case.cpus is None or not case.cpus.startswith(NUMA):
        return {}
    return {} if _memory_nodes() == [int(case.cpus.removeprefix(NUMA))] else {"memory": "not bound"}


def _memory_nodes() -> list[int]:
    """Return the nodes that this thread's memory is bound to; none where it is not."""
    numbers = _CALLS.get(platform.machine())
    mode, words = ctypes.c_int(), (ctypes.c_ulong * (_MOST_NODES // _WORD))()
    if numbers is None or _called(
        numbers[1], ctypes.byref(mode), words, ctypes.c_ulong(_MOST_NODES + 1), None, 0
    ):
        return []
    bits = [node for node in range(_MOST_NODES) if words[node // _WORD] >> node % _WORD & 1]
    return bits if mode.value == _MPOL_BIND else []


def _called(number: int, *arguments: Any) -> str:
    """Make a system call; return what went wrong, empty where nothing did."""
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    return os.strerror(ctypes.get_errno()) if library.syscall(number, *arguments) < 0 else ""


def check_process(case: Case, bound: Bound | None) -> None:
    """Refuse a process that was started with other CPUs than its case says."""
    if bound is None and case.cpus is None:
        return
    has, wanted = os.sched_getaffinity(0), set(bound["cpus"] if bound else ())
    if case.cpus is None or has != wanted:
        raise CaseFailure(
            f"{case.model}: asked for cpus {case.cpus or 'of any number'}, but the worker "
            f"is bound to {cpu_list(has)}; start the run again"
        )


def check_threads(case: Case, bound: Bound) -> None:
    """Refuse a process of which a thread may run on other CPUs than it is bound to."""
    outside = [set(cpus).difference(bound["cpus"]) for cpus in _cpus_of_threads()]
    if strays := [cpus for cpus in outside if cpus]:
        where = cpu_list(set().union(*strays))
        raise CaseFailure(
            f"{case.model}: cpus {case.cpus} was asked for, {len(strays)} of {len(outside)} "
            f"threads may run on CPU {where}; the model's code, the framework or the runtime has "
            "set their affinity: have it set none, or ask for a number of --threads"
        )


def _cpus_of_threads() -> Iterator[list[int]]:
    """Yield the CPUs that each thread of this process may run on."""
    folder = "/proc/self/task"
    for thread in os.listdir(folder):
        try:
            with open(f"{folder}/{thread}/status", encoding="ascii", errors="replace") as lines:
                found = [line for line in lines if line.startswith("Cpus_allowed_list:")]
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
        for line in found:
            yield cpu_numbers(line.split()[1])


def of_other_threads() -> dict[str, Callable[[], str]]:
    """Return what reads the settings that some threads have otherwise than the one that asks.

    A model's code may bind the threads of a pool alone, or have them give way to others.
    """

    def differing(read: Callable[[int], object]) -> str:
        found = set()
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(OSError):  # it has ended
                found.add(str(read(int(thread))))
        return ",".join(sorted(found - {str(read(0))}))

    return {
        "affinity_of_threads": lambda: differing(lambda one: cpu_list(os.sched_getaffinity(one))),
        "nice_of_threads": lambda: differing(lambda one: os.getpriority(os.PRIO_PROCESS, one)),
        "scheduler_of_threads": lambda: differing(lambda one: os.sched_getscheduler(one)),
    }


# -- cores and hyperthreads ------------------------------------------------------------------------


def cores_of(cpus: Iterable[int]) -> int | None:
    """Return how many cores these logical CPUs are of; None where the kernel does not tell."""
    try:
        return len({_topology(cpu, "thread_siblings_list") for cpu in cpus})
    except OSError:
        return None


_CPUS = "/sys/devices/system/cpu"


def kinds_of(cpus: Iterable[int], folder: str = _CPUS) -> str:
    """Return how many of each kind these logical CPUs are, where they are not all of the machine.

    Empty where the machine has one kind of core, or the kernel tells none. A run that may use the
    small cores of a processor alone has the machine's name, and as many CPUs, as one on the large.
    """
    kinds = {}
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith("cpu") and name[3:].isdecimal():
                kinds[int(name[3:])] = _kind(f"{folder}/{name}")
    own = set(cpus)
    if len(set(kinds.values())) < 2 or own >= kinds.keys():
        return ""
    counts = Counter(kinds.get(cpu, "unknown") for cpu in own)
    return ",".join(f"{kind}:{count}" for kind, count in sorted(counts.items()))


def _kind(folder: str) -> str:
    """Return a core's capacity, 1024 of the largest kind, and its highest clock, as far as told."""
    found = []
    for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        with contextlib.suppress(OSError), open(f"{folder}/{name}", encoding="ascii") as file:
            found.append(file.read().strip())
    return "/".join(found) or "unknown"


def siblings(cpus: Iterable[int]) -> set[int]:
    """Return these logical CPUs and those that share a core with one of them."""
    found = set(cpus)
    for cpu in tuple(found):
        with contextlib.suppress(OSError, ValueError):
            found.update(cpu_numbers(_topology(cpu, "thread_siblings_list")))
    return found


def _topology(cpu: int, name: str) -> str:
    path = f"/sys/devices/system/cpu/cpu{cpu}/topology/{name}"
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read().strip()
