"""The CPUs of this machine: which a run may bind its processes to, and how many are enough.

Sources: Linux, Documentation/ABI/stable/sysfs-devices-system-cpu and sysfs-devices-node; proc(5).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from convmark.core.case import NUMA, cpu_list, cpu_numbers
from convmark.core.errors import OptionError
from convmark.core.text import counted, file_text


def bound(cpus: str | None, root: Path = Path("/")) -> dict[str, Any] | None:
    """Return what a worker is told to bind itself to; None for nothing.

    Args:
        cpus: of a case.
        root: the folder that holds `proc` and `sys`.

    Returns:
        `cpus`, and `node` where the memory is bound too.

    Raises:
        OptionError: the system binds no process, a CPU or a node is not there, or a container's
            cpuset or whoever started this process keeps it from it.
    """
    if cpus is None:
        return None
    of_a_node = cpus.startswith(NUMA)
    flag, value = ("--numa", cpus.removeprefix(NUMA)) if of_a_node else ("--cpus", cpus)
    if not hasattr(os, "sched_setaffinity"):
        raise OptionError(
            f"{flag}: needs Linux, because {sys.platform} cannot bind a process to CPUs, "
            f"got {value}; leave it out"
        )
    if of_a_node:
        numbers = _cpus_of_node(int(value), root)
    else:
        numbers = cpu_numbers(value)
        online = _numbers(root / "sys/devices/system/cpu/online")
        if online and (absent := set(numbers) - online):
            raise OptionError(
                f"{flag}: there is no CPU {cpu_list(absent)}, got {value}; online are "
                f"{cpu_list(online)}"
            )
    allowed = os.sched_getaffinity(0)
    if excluded := set(numbers) - allowed:
        raise OptionError(
            f"{flag}: this process may not use CPU {cpu_list(excluded)}, got {value}; its "
            f"container, cpuset or taskset leaves it {cpu_list(allowed)}"
        )
    return {"cpus": numbers, **({"node": int(value)} if of_a_node else {})}


def _cpus_of_node(node: int, root: Path) -> list[int]:
    """Return the CPUs of a NUMA node."""
    nodes = root / "sys/devices/system/node"
    online = _numbers(nodes / "online")
    if not online:
        raise OptionError(f"--numa: this kernel reports no NUMA nodes, got {node}; use --cpus")
    if node not in online:
        raise OptionError(f"--numa: there is no node {node}, online are {cpu_list(online)}")
    found = re.search(
        r"^Mems_allowed_list:\s*(\S+)", file_text(root / "proc/self/status"), re.MULTILINE
    )
    if found and node not in (allowed := cpu_numbers(found[1])):
        raise OptionError(
            f"--numa: this process may not use the memory of node {node}: its container "
            f"or cpuset leaves it {cpu_list(allowed)}"
        )
    numbers = _numbers(nodes / f"node{node}/cpulist")
    if not numbers:
        raise OptionError(f"--numa: node {node} has memory but no CPUs; choose CPUs with --cpus")
    return sorted(numbers)


def _numbers(path: Path) -> set[int]:
    """Return the numbers of one of the kernel's lists; none where it cannot be read."""
    try:
        return set(cpu_numbers(file_text(path).strip()))
    except ValueError:
        return set()


def thread_cautions(threads: Iterable[str], cpus: int, quota: float | None) -> Iterator[str]:
    """Yield a line for the numbers of threads that cannot all run at once.

    Args:
        threads: as cases have them.
        cpus: logical CPUs that the measured processes may use.
        quota: CPU seconds per second that a container allows; None where unlimited.
    """
    numbers = sorted(int(one) for one in threads if one != "default")
    if more := [one for one in numbers if one > cpus]:
        yield (
            f"--threads {','.join(map(str, more))}: more than the {counted(cpus, 'logical CPU')} "
            "that the process may use: the threads take turns"
        )
    held = [one for one in numbers if quota is not None and quota < one <= cpus]
    if held:
        yield (
            f"--threads {','.join(map(str, held))}: more than the container's quota of {quota:g} "
            "CPUs: the threads pause when it is used up"
        )
