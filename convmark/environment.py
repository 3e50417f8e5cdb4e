"""The machine: its static fingerprint, and its state during a run."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import platform
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import psutil

from convmark.errors import ConvmarkError

__all__ = [
    "GIB",
    "CpuTicks",
    "Gpu",
    "Machine",
    "State",
    "cpu_model",
    "cpu_quota",
    "cpu_ticks",
    "load_nvml",
    "machine_name",
    "plain_text",
    "read_cpu_ticks",
    "read_gpus",
    "read_machine",
    "read_state",
    "stolen_fraction",
]

GIB = 1024**3

_NAME_LENGTH = 80
_NAME = re.compile(rf"[a-z0-9-]{{1,{_NAME_LENGTH}}}")
_CPU_NOISE = re.compile(r"\((?:r|tm|c)\)|@.*|\bwith\b.*|\b\d+-core\b|\bcpu\b|\bprocessor\b")
_TERMINAL_ESCAPE = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b[ -/]*[0-~]"
)
_CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal")
_LEAST_TICKS = 100

# Source: Linux, arch/arm64/include/asm/cputype.h. A new entry renames the machines that have it,
# and so parts them from their history.
_ARM_IMPLEMENTERS = {
    "0x41": "ARM",
    "0x42": "Broadcom",
    "0x43": "Cavium",
    "0x46": "Fujitsu",
    "0x48": "HiSilicon",
    "0x4e": "NVIDIA",
    "0x51": "Qualcomm",
    "0x61": "Apple",
    "0xc0": "Ampere",
}
_ARM_PARTS = {
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd40"): "Neoverse-V1",
    ("0x41", "0xd49"): "Neoverse-N2",
    ("0x41", "0xd4f"): "Neoverse-V2",
    ("0xc0", "0xac3"): "1",
    ("0xc0", "0xac4"): "1A",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU as its driver shows it."""

    index: int
    """The driver's order, by PCI bus; the framework's order may differ."""
    name: str
    memory_bytes: int | None
    """None where the GPU shares the host's memory and its driver gives no figure."""
    uuid: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What stays the same between two runs on one machine."""

    name: str
    """The fingerprint and the results folder's name; made of hardware facts alone."""
    cpu: str
    cores: int
    """Logical CPUs that this process may use."""
    physical_cores: int | None
    ram_bytes: int
    gpus: tuple[Gpu, ...]
    driver: str | None
    """The NVIDIA driver's version."""
    os: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConvmarkError(
                f"machine name: must be 1 to {_NAME_LENGTH} of a-z, 0-9 and '-', got {self.name!r}"
            )
        if self.cores < 1:
            raise ConvmarkError(f"{self.name}: cores must be at least 1, got {self.cores}")
        if self.ram_bytes < 1:
            raise ConvmarkError(f"{self.name}: RAM must be at least 1 byte, got {self.ram_bytes}")


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


def read_machine(*, root: Path = Path("/"), nvml: Callable[[], Any] | None = None) -> Machine:
    """Return this machine's fingerprint.

    Args:
        root: the folder that holds `proc`.
        nvml: returns the NVML module, or None where there is none; `load_nvml` by default.
    """
    gpus, driver = read_gpus((nvml or load_nvml)())
    cpu = cpu_model(_text(root / "proc/cpuinfo")) or _cpu_model_elsewhere()
    cores = _usable_cores()
    ram_bytes = psutil.virtual_memory().total
    return Machine(
        name=machine_name(
            cpu=cpu, cores=cores, ram_bytes=ram_bytes, gpu_names=[gpu.name for gpu in gpus]
        ),
        cpu=cpu,
        cores=cores,
        physical_cores=psutil.cpu_count(logical=False),
        ram_bytes=ram_bytes,
        gpus=gpus,
        driver=driver,
        os=_os_name(),
    )


def machine_name(*, cpu: str, cores: int, ram_bytes: int, gpu_names: Sequence[str]) -> str:
    """Return a name such as `intel-xeon-platinum-8259cl-2cpu-24gib-1a2b3c4d`.

    RAM counts in whole GiB, rounded up: the kernel keeps back a part, which differs from one kernel
    to the next, and shows a little less than is built in. The order of the GPUs does not count.
    """
    gib = -(-ram_bytes // GIB)
    facts = json.dumps([cpu, cores, gib, sorted(gpu_names)])
    digest = hashlib.sha256(facts.encode()).hexdigest()[:8]
    gpus = [
        f"{count}x-{_slug(name)}" if count > 1 else _slug(name)
        for name, count in sorted(Counter(gpu_names).items())
    ]
    cpu_slug = _slug(_CPU_NOISE.sub(" ", cpu.lower()))[:40].strip("-")
    readable = "-".join([cpu_slug, f"{cores}cpu", f"{gib}gib", *gpus])
    return f"{readable[: _NAME_LENGTH - 9].strip('-')}-{digest}"


def cpu_model(cpuinfo: str) -> str | None:
    """Return the CPU's name from the text of /proc/cpuinfo, None where it holds none."""
    fields: dict[str, list[str]] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), []).append(plain_text(value))
    parts = zip(fields.get("cpu implementer", []), fields.get("cpu part", []), strict=False)
    arm = " + ".join(sorted({_arm_name(*part) for part in parts}))
    # `cpu` is POWER's key, `uarch` RISC-V's.
    names = [fields.get(key, [""])[0] for key in ("model name", "cpu", "uarch")]
    return next((name for name in [names[0], arm, *names[1:]] if name), None)


def read_gpus(nvml: Any) -> tuple[tuple[Gpu, ...], str | None]:
    """Return the GPUs and the driver's version, `((), None)` where NVML is None or fails.

    A GPU that cannot be read (fallen off the bus) is left out: no framework can use it.
    """
    if nvml is None:
        return (), None
    try:
        nvml.nvmlInit()
    except (nvml.NVMLError, OSError):
        return (), None
    try:
        driver = _nvml_text(nvml, nvml.nvmlSystemGetDriverVersion)
        gpus = [_read_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
        return tuple(gpu for gpu in gpus if gpu), driver
    except nvml.NVMLError:
        return (), None
    finally:
        _nvml_answer(nvml, nvml.nvmlShutdown)


def load_nvml() -> Any:
    """Return nvidia-ml-py's module, None where it is not installed."""
    try:
        return importlib.import_module("pynvml")
    except ImportError:
        return None


def read_state(*, earlier: CpuTicks | None = None, root: Path = Path("/")) -> State:
    """Return the machine's state now.

    Args:
        earlier: `read_cpu_ticks()` of some time ago, to count stolen time from there; None counts
            from boot.
        root: the folder that holds `proc` and `sys`.
    """
    cpus = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    governors = {plain_text(_text(path)) for path in cpus}
    return State(
        load_average_1min=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        available_memory_bytes=psutil.virtual_memory().available,
        governors=tuple(sorted(governors - {""})),
        on_battery=_on_battery(),
        steal_fraction=stolen_fraction(read_cpu_ticks(root), earlier),
        cpu_temperature_c=_cpu_temperature_c(),
        cpu_quota_cores=cpu_quota(_text(root / "proc/self/cgroup"), root / "sys/fs/cgroup"),
    )


def read_cpu_ticks(root: Path = Path("/")) -> CpuTicks | None:
    """Return the CPU time since boot, None where the kernel does not tell."""
    return cpu_ticks(_text(root / "proc/stat"))


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


def plain_text(text: str) -> str:
    """Return one printable line: no terminal escape, control or invisible character."""
    bare = _TERMINAL_ESCAPE.sub("", text)
    kept = (c for c in bare if c.isspace() or not unicodedata.category(c).startswith("C"))
    return " ".join("".join(kept).split())


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "unknown"


def _arm_name(implementer: str, part: str) -> str:
    maker = _ARM_IMPLEMENTERS.get(implementer, implementer)
    return f"{maker} {_ARM_PARTS.get((implementer, part), f'part {part}')}"


def _cpu_model_elsewhere() -> str:
    names = (_macos_cpu_model, platform.processor, platform.machine)
    return next((name for read in names if (name := plain_text(read()))), "unknown")


def _macos_cpu_model() -> str:
    if sys.platform != "darwin":
        return ""
    command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _os_name() -> str:
    try:
        release = platform.freedesktop_os_release()
        product = f"{release['NAME']} {release.get('VERSION_ID', '')}".strip()
    except OSError:
        product = platform.mac_ver()[0] or platform.win32_ver()[1]
    kernel = f"{platform.system()} {platform.release()}"
    return plain_text(f"{kernel} ({product})" if product else kernel)


def _read_gpu(nvml: Any, index: int) -> Gpu | None:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
    except nvml.NVMLError:
        return None
    memory = _nvml_answer(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    return Gpu(
        index=index,
        name=_nvml_text(nvml, nvml.nvmlDeviceGetName, handle) or "unknown GPU",
        memory_bytes=None if memory is None else int(memory.total),
        uuid=_nvml_text(nvml, nvml.nvmlDeviceGetUUID, handle),
    )


def _nvml_answer(nvml: Any, question: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return question(*arguments)
    except nvml.NVMLError:
        return None


def _nvml_text(nvml: Any, question: Callable[..., Any], *arguments: Any) -> str | None:
    answer = _nvml_answer(nvml, question, *arguments)
    # Versions of nvidia-ml-py before 11.515 answer in bytes.
    text = answer.decode(errors="replace") if isinstance(answer, bytes) else answer
    return plain_text(text) or None if text else None


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
    words = _text(folder / "cpu.max").split() or [
        *_text(folder / "cpu.cfs_quota_us").split(),
        *_text(folder / "cpu.cfs_period_us").split(),
    ]
    if len(words) != 2 or not all(word.isdecimal() for word in words):
        return None  # no limit: `max` in version 2, -1 in version 1
    quota_us, period_us = map(int, words)
    return quota_us / period_us if quota_us and period_us else None
