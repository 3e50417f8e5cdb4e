"""The machine's state during a run: what changes between two runs, the limits of cgroups, and the
CPUs that a run may bind its processes to.

Sources: Linux, Documentation/ABI/stable/sysfs-devices-system-cpu and sysfs-devices-node; proc(5).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import psutil

from convmark.core.case import NUMA, cpu_list, cpu_numbers
from convmark.core.errors import ConvmarkError, OptionError
from convmark.core.text import counted, file_text, plain_text

_RECLAIMABLE = ("inactive_file", "total_inactive_file")
"""Of memory.stat: file pages that the kernel drops before it lets an allocation fail."""


def cpu_quota(membership: str, mount: Path) -> float | None:
    """Return the cores' worth of CPU time that the strictest cgroup allows, None if unlimited.

    Args:
        membership: the text of /proc/self/cgroup.
        mount: where the cgroups are mounted, usually /sys/fs/cgroup.
    """
    folders = _folders(membership, mount, "cpu")
    quotas = [quota for folder in folders if (quota := _folder_quota(folder)) is not None]
    return min(quotas, default=None)


def own_cpu_quota() -> float | None:
    """Return the cores' worth of CPU time that this process may use, None if unlimited."""
    return cpu_quota(file_text(Path("/proc/self/cgroup")), Path("/sys/fs/cgroup"))


def limiting_quota(cores: int) -> float | None:
    """Return the same where it is less than so many cores."""
    quota = own_cpu_quota()
    return quota if quota is not None and quota < cores else None


def memory_left_bytes(membership: str, mount: Path) -> int | None:
    """Return how much more memory the strictest cgroup allows, None where none limits it."""
    folders = _folders(membership, mount, "memory")
    left = [size for folder in folders if (size := _folder_left(folder)) is not None]
    return min(left, default=None)


def _folders(membership: str, mount: Path, controller: str) -> list[Path]:
    """Return where a controller's files of the process's cgroup and its ancestors may lie."""
    folders: dict[Path, None] = {}
    for line in membership.splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        bases = [mount, mount / "unified"]
        if controllers:
            bases = [mount / controller, mount / controllers]
        inner = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
        for depth in range(len(inner) + 1):
            folders.update({base.joinpath(*inner[:depth]): None for base in bases})
    return list(folders)


def _folder_quota(folder: Path) -> float | None:
    """Read one cgroup: `cpu.max` of version 2, or the pair of files of version 1."""
    words = file_text(folder / "cpu.max").split() or [
        *file_text(folder / "cpu.cfs_quota_us").split(),
        *file_text(folder / "cpu.cfs_period_us").split(),
    ]
    if len(words) != 2 or not all(word.isdecimal() for word in words):
        return None  # no limit: `max` in version 2, -1 in version 1
    quota_us, period_us = map(int, words)
    return quota_us / period_us if quota_us and period_us else None


def _folder_left(folder: Path) -> int | None:
    """Read one cgroup's limit and use; version 1 has no limit as a number that no machine has."""
    for most, now in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        limit, used = _bytes(folder / most), _bytes(folder / now)
        if limit is not None and used is not None:
            stat = dict(re.findall(r"^(\w+) (\d+)$", file_text(folder / "memory.stat"), re.M))
            kept = next((stat[name] for name in reversed(_RECLAIMABLE) if name in stat), 0)
            return max(0, limit - used + int(kept))
    return None


def _bytes(path: Path) -> int | None:
    text = file_text(path).strip()
    return int(text) if text.isdecimal() else None


_CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal")
_LEAST_TICKS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuTicks:
    """CPU time of all cores since boot, in the kernel's ticks (10 ms on most machines)."""

    stolen: int
    """Wanted by this machine, given by the hypervisor to another."""
    wanted: int
    """Busy or stolen; idle time and waiting for disks left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What changes between two runs on one machine; None or empty where it cannot be read."""

    load_average_1min: float | None
    available_memory_bytes: int
    """Of the machine, and no more than the strictest cgroup leaves."""
    governors: tuple[str, ...] = ()
    """The distinct frequency governors of the CPUs, sorted."""
    on_battery: bool | None = None
    steal_fraction: float | None = None
    """Stolen CPU time / wanted CPU time, 0 to 1."""
    cpu_temperature_c: float | None = None
    """The hottest CPU sensor, degrees Celsius."""
    cpu_quota_cores: float | None = None
    """CPU seconds per second that the strictest cgroup allows; None where unlimited."""
    cpus: tuple[int, ...] = ()
    """The logical CPUs that this process may use, sorted."""

    def __post_init__(self) -> None:
        if self.available_memory_bytes < 0:
            raise ConvmarkError(
                f"state: available memory must not be negative, got {self.available_memory_bytes}"
            )
        if self.steal_fraction is not None and not 0 <= self.steal_fraction <= 1:
            raise ConvmarkError(f"state: steal fraction must be 0 to 1, got {self.steal_fraction}")


def read_state(*, earlier: CpuTicks | None = None, root: Path = Path("/")) -> State:
    """Return the machine's state now.

    Args:
        earlier: `read_cpu_ticks()` of some time ago, to count stolen time from there; None counts
            from boot.
        root: the folder that holds `proc` and `sys`.
    """
    available = psutil.virtual_memory().available
    membership, mount = file_text(root / "proc/self/cgroup"), root / "sys/fs/cgroup"
    left = memory_left_bytes(membership, mount)
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    plugged = battery and battery.power_plugged
    return State(
        load_average_1min=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        available_memory_bytes=available if left is None else min(available, left),
        governors=read_governors(root),
        on_battery=None if plugged is None else not plugged,
        steal_fraction=stolen_fraction(read_cpu_ticks(root), earlier),
        cpu_temperature_c=cpu_temperature_c(),
        cpu_quota_cores=cpu_quota(membership, mount),
        cpus=tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else (),
    )


def read_governors(root: Path = Path("/")) -> tuple[str, ...]:
    """Return the distinct frequency governors of the CPUs, sorted."""
    cpus = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    return tuple(sorted({plain_text(file_text(path)) for path in cpus} - {""}))


def read_cpu_ticks(root: Path = Path("/")) -> CpuTicks | None:
    """Return the CPU time since boot, None where the kernel does not tell."""
    return cpu_ticks(file_text(root / "proc/stat"))


def cpu_ticks(stat: str) -> CpuTicks | None:
    """Return the CPU time in the text of /proc/stat, None where it holds none.

    Source: proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice;
    guest time is in user time already.
    """
    match = re.match(r"cpu +((?:\d+ +){7}\d+)", stat)
    if match is None:
        return None
    user, nice, system, _, _, irq, softirq, stolen = map(int, match.group(1).split())
    return CpuTicks(stolen=stolen, wanted=user + nice + system + irq + softirq + stolen)


def stolen_fraction(now: CpuTicks | None, earlier: CpuTicks | None = None) -> float | None:
    """Return stolen / wanted CPU time, what a busy core loses; `top` divides by idle time too.

    None where fewer than 100 ticks were wanted: one tick would be more than 1 % of them.
    """
    if now is None:
        return None
    start = earlier or CpuTicks(stolen=0, wanted=0)
    stolen, wanted = now.stolen - start.stolen, now.wanted - start.wanted
    # Some hypervisors let the counter run backwards after a migration.
    return stolen / wanted if wanted >= _LEAST_TICKS and 0 <= stolen <= wanted else None


def cpu_temperature_c() -> float | None:
    """Return the hottest CPU sensor, degrees Celsius; None where there is none."""
    if not hasattr(psutil, "sensors_temperatures"):
        return None
    sensors = psutil.sensors_temperatures()
    return max((s.current for name in _CPU_SENSORS for s in sensors.get(name, [])), default=None)


# -- the CPUs that a run may bind its processes to -------------------------------------------------


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
