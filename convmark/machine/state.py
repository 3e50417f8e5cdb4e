"""The machine's state during a run: what changes between two runs."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import psutil

from convmark.core.errors import ConvmarkError
from convmark.core.text import file_text, plain_text
from convmark.machine.cgroups import cpu_quota, memory_left_bytes

__all__ = [
    "CpuTicks",
    "State",
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
    available = psutil.virtual_memory().available
    membership, mount = file_text(root / "proc/self/cgroup"), root / "sys/fs/cgroup"
    left = memory_left_bytes(membership, mount)
    return State(
        load_average_1min=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        available_memory_bytes=available if left is None else min(available, left),
        governors=tuple(sorted(governors - {""})),
        on_battery=_on_battery(),
        steal_fraction=stolen_fraction(read_cpu_ticks(root), earlier),
        cpu_temperature_c=_cpu_temperature_c(),
        cpu_quota_cores=cpu_quota(membership, mount),
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


def _on_battery() -> bool | None:
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    return None if battery is None or battery.power_plugged is None else not battery.power_plugged


def _cpu_temperature_c() -> float | None:
    if not hasattr(psutil, "sensors_temperatures"):
        return None
    sensors = psutil.sensors_temperatures()
    return max((s.current for name in _CPU_SENSORS for s in sensors.get(name, [])), default=None)
