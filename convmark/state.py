"""The machine's state during a run: what changes between two runs."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import psutil

from convmark.errors import ConvmarkError
from convmark.text import file_text, plain_text

__all__ = [
    "CpuTicks",
    "State",
    "cpu_quota",
    "cpu_ticks",
    "read_cpu_ticks",
    "read_state",
    "stolen_fraction",
]

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
    governors: tuple[str, ...] = ()
    """The distinct frequency governors of the CPUs, sorted."""
    on_battery: bool | None = None
    steal_fraction: float | None = None
    """Stolen CPU time / wanted CPU time, 0 to 1."""
    cpu_temperature_c: float | None = None
    """The hottest CPU sensor, degrees Celsius."""
    cpu_quota_cores: float | None = None
    """CPU seconds per second that the strictest cgroup allows; None where unlimited."""

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
    cpus = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    governors = {plain_text(file_text(path)) for path in cpus}
    return State(
        load_average_1min=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        available_memory_bytes=psutil.virtual_memory().available,
        governors=tuple(sorted(governors - {""})),
        on_battery=_on_battery(),
        steal_fraction=stolen_fraction(read_cpu_ticks(root), earlier),
        cpu_temperature_c=_cpu_temperature_c(),
        cpu_quota_cores=cpu_quota(file_text(root / "proc/self/cgroup"), root / "sys/fs/cgroup"),
    )


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


def cpu_quota(membership: str, mount: Path) -> float | None:
    """Return the cores' worth of CPU time that the strictest cgroup allows, None if unlimited.

    In a container the path in `membership` may be the host's, which does not exist below `mount`;
    its ancestors are looked at too, and the last of them is the container's own cgroup.

    Args:
        membership: the text of /proc/self/cgroup.
        mount: where the cgroups are mounted, usually /sys/fs/cgroup.
    """
    folders: dict[Path, None] = {}
    for line in membership.splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        bases = [mount / "cpu", mount / controllers] if controllers else [mount, mount / "unified"]
        inner = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
        for depth in range(len(inner) + 1):
            folders.update({base.joinpath(*inner[:depth]): None for base in bases})
    quotas = [quota for folder in folders if (quota := _folder_quota(folder)) is not None]
    return min(quotas, default=None)


def _on_battery() -> bool | None:
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    return None if battery is None or battery.power_plugged is None else not battery.power_plugged


def _cpu_temperature_c() -> float | None:
    if not hasattr(psutil, "sensors_temperatures"):
        return None
    sensors = psutil.sensors_temperatures()
    return max((s.current for name in _CPU_SENSORS for s in sensors.get(name, [])), default=None)


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
