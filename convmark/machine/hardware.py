"""The machine's static fingerprint: what stays the same between two runs; and its description.

Sources: Linux, Documentation/ABI/stable/sysfs-devices-system-cpu and testing/sysfs-devices-edac;
SMBIOS 3.7, 7.18 "Memory Device (Type 17)".
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from convmark.core.errors import ConvmarkError
from convmark.core.files import read_regular
from convmark.core.text import command_text, counted, file_text, plain_text
from convmark.machine.gpu.devices import Gpu, load_nvml, read_amd, read_apple, read_gpus
from convmark.machine.state import cpu_quota, read_governors

GIB = 1024**3

_NAME_LENGTH = 80
_NAME = re.compile(rf"[a-z0-9-]{{1,{_NAME_LENGTH}}}")
_MAKERS_CARD = re.compile(r"(?:\d+x-)?(?:nvidia|tesla|geforce|quadro|titan|amd|radeon|instinct)\b")
"""How a card's part of a machine's name begins."""
_CPU_NOISE = re.compile(r"\((?:r|tm|c)\)|@.*|\bwith\b.*|\b\d+-core\b|\bcpu\b|\bprocessor\b")

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
    """The GPU driver's version."""
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


def read_machine(*, root: Path = Path("/"), nvml: Callable[[], Any] | None = None) -> Machine:
    """Return this machine's fingerprint.

    Args:
        root: the folder that holds `proc`, `sys` and `dev`.
        nvml: returns the NVML module, or None where there is none; `load_nvml` by default.
    """
    gpus, driver = _read_gpus(root, (nvml or load_nvml)())
    cpu = cpu_model(file_text(root / "proc/cpuinfo")) or _cpu_model_elsewhere()
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = own or 1
    ram_bytes = psutil.virtual_memory().total
    return Machine(
        name=machine_name(
            cpu=cpu,
            cores=cores,
            ram_bytes=ram_bytes,
            # Apple's GPU is part of the chip that the CPU is named after
            gpu_names=[gpu.name for gpu in gpus if gpu.vendor != "apple"],
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


def has_other_cards(name: str, without_cards: str, card: str) -> bool:
    """Whether a machine of this name may have cards of several kinds, this one among them.

    Its hash is of all of them, which nobody can work out from one. A long name has lost its end.

    Args:
        without_cards: the name that the machine would have without any.
    """
    known, found = without_cards[:-9], name[:-9]
    cards = found.removeprefix(f"{known}-")
    if cards == found or not _MAKERS_CARD.match(cards):
        return False
    slug, is_cut = _slug(card), len(found) >= _NAME_LENGTH - 10
    if whole := re.fullmatch(rf"(?:(.+)-)?(?:\d+x-)?{slug}(?:-(.+))?", cards):
        others = [one for one in whole.groups() if one]
        return all(map(_MAKERS_CARD.match, others)) and (bool(others) or is_cut)
    return is_cut and re.sub(r"^\d+x-", "", cards) < slug  # cards are in alphabetical order


def cpu_model(cpuinfo: str) -> str | None:
    """Return the CPU's name from the text of /proc/cpuinfo, None where it holds none."""
    fields: dict[str, list[str]] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), []).append(plain_text(value))
    parts = zip(fields.get("cpu implementer", []), fields.get("cpu part", []), strict=False)
    arm = {
        f"{_ARM_IMPLEMENTERS.get(maker, maker)} {_ARM_PARTS.get((maker, part), f'part {part}')}"
        for maker, part in parts
    }
    # `cpu` is POWER's key, `uarch` RISC-V's.
    names = [fields.get(key, [""])[0] for key in ("model name", "cpu", "uarch")]
    return next((name for name in [names[0], " + ".join(sorted(arm)), *names[1:]] if name), None)


def _read_gpus(root: Path, nvml: Any) -> tuple[tuple[Gpu, ...], str | None]:
    """Return the GPUs of the first vendor that has any: a framework is built for one of them."""
    gpus, driver = read_gpus(nvml)
    if gpus or driver:
        return gpus, driver
    gpus, driver = read_amd(root)
    return (gpus, driver) if gpus else (read_apple(), None)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "unknown"


def _cpu_model_elsewhere() -> str:
    sysctl = ("/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string")
    macos = plain_text(command_text(sysctl)) if sys.platform == "darwin" else ""
    others = (platform.processor, platform.machine)
    return macos or next((name for read in others if (name := plain_text(read()))), "unknown")


def _os_name() -> str:
    try:
        release = platform.freedesktop_os_release()
        product = f"{release['NAME']} {release.get('VERSION_ID', '')}".strip()
    except OSError:
        product = platform.mac_ver()[0] or platform.win32_ver()[1]
    kernel = f"{platform.system()} {platform.release()}"
    return plain_text(f"{kernel} ({product})" if product else kernel)


# -- the description that a buyer asks for ---------------------------------------------------------


MIB = 1024**2

# Source: SMBIOS 3.7, table 78, and where a version of LPDDR has none, none is named.
_MEMORY_TYPES = {
    **{0x18: "DDR3", 0x1A: "DDR4", 0x1B: "LPDDR", 0x1C: "LPDDR2", 0x1D: "LPDDR3", 0x1E: "LPDDR4"},
    **{0x20: "HBM", 0x21: "HBM2", 0x22: "DDR5", 0x23: "LPDDR5", 0x24: "HBM3"},
}
_NO_PRODUCT = re.compile(r"|to be filled by o\.e\.m\.|system (product name|manufacturer)|default.*"
                         r"|none|not specified|o\.e\.m\.", re.IGNORECASE)  # fmt: skip
_CONTAINERS = (("kubepods", "Kubernetes"), ("docker", "Docker"), ("libpod", "Podman"),
               ("lxc", "LXC"))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """What a machine is, by the names of the columns; None where it cannot be read."""

    topology: str | None = None
    """Sockets, cores, logical CPUs and NUMA nodes of the whole machine."""
    memory_modules: str | None = None
    frequency: str | None = None
    """Governor and turbo."""
    product: str | None = None
    """Vendor and product; of an instance of Amazon EC2 its type."""
    virtualisation: str | None = None
    """Hypervisor, container and quota, or none."""

    @property
    def columns(self) -> dict[str, str | None]:
        return asdict(self)

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Its parts, each with its name in words."""
        return [
            (name.replace("_", " "), value or "unknown") for name, value in self.columns.items()
        ]


def read_system(root: Path = Path("/")) -> System:
    """Return the description of this machine; nothing is asked of a network."""
    return System(
        topology=_topology(root / "sys/devices/system") or None,
        memory_modules=_modules(root) or None,
        frequency=", ".join(_frequency(root)) or None,
        product=_product(root / "sys/class/dmi/id") or None,
        virtualisation=", ".join(_virtualisation(root)) or None,
    )


def _topology(system: Path) -> str:
    cpus = list(system.glob("cpu/cpu[0-9]*/topology"))
    places = {
        (file_text(one / "physical_package_id").strip(), file_text(one / "core_id").strip())
        for one in cpus
    }
    sockets = {socket for socket, _ in places}
    if not cpus or "" in sockets:  # macOS
        physical, logical = psutil.cpu_count(logical=False), psutil.cpu_count()
        return f"{counted(physical, 'core')}, {logical} logical CPUs" if physical else ""
    nodes = len(list(system.glob("node/node[0-9]*"))) or 1
    counts = counted(len(sockets), "socket"), counted(len(places), "core")
    return ", ".join(
        [*counts, counted(len(cpus), "logical CPU"), counted(nodes, "NUMA node")],
    )


def _modules(root: Path) -> str:
    """Return the memory's modules, with their speed where the firmware's table can be read."""
    listed = list(_dmi_modules(root / "sys/firmware/dmi/tables/DMI"))
    dimms = sorted((root / "sys/devices/system/edac/mc").glob("mc*/dimm*"))
    found = Counter(module for module, _ in listed) or Counter(
        filter(None, map(_edac_module, dimms))
    )
    texts = [f"{number} x {module}" for module, number in sorted(found.items())]
    channels = {
        (one.parent.name, *re.findall(r"channel (\d+)", file_text(one / "dimm_location")))
        for one in dimms
        if file_text(one / "size").strip() not in ("", "0")
    }
    known = {channel for channel in channels if len(channel) == 2}
    by_name = {channel for _, channel in listed}
    count = len(known) or (len(by_name) if "" not in by_name else 0)
    return ", ".join([*texts, *([counted(count, "channel")] if texts and count else [])])


def _edac_module(dimm: Path) -> str:
    size, kind = file_text(dimm / "size").strip(), file_text(dimm / "dimm_mem_type").strip()
    known = size.isdecimal() and int(size) > 0
    return plain_text(f"{_size_text(int(size) * MIB)} {kind}") if known else ""


def _dmi_modules(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the modules that the firmware's table lists, each with its channel; for root alone."""
    try:
        table = read_regular(path)
    except OSError:
        return
    place = 0
    while place + 4 <= len(table):
        length = table[place + 1]
        entry = table[place : place + length]
        if length < 4 or len(entry) < length:
            return
        end = table.find(b"\0\0", place + length)  # of the entry's texts
        if end < 0:
            return
        if entry[0] == 17 and (module := _dmi_module(entry)):
            texts = table[place + length : end].decode("latin-1").split("\0")
            yield (
                module,
                _channel_of([texts[n - 1] for n in entry[0x10:0x12] if n and n <= len(texts)]),
            )
        place = end + 2


def _dmi_module(entry: bytes) -> str:
    """Return the size, type and speed of a memory device; empty for a slot without one."""

    def number(offset: int, size: int = 2) -> int:
        return int.from_bytes(entry[offset : offset + size], "little")

    size = number(0x0C)
    if size in (0, 0xFFFF) or len(entry) < 0x15:
        return ""
    large = size == 0x7FFF and len(entry) >= 0x20
    size_bytes = number(0x1C, 4) * MIB if large else (size & 0x7FFF) * (1024 if size >> 15 else MIB)
    speed = number(0x20) if len(entry) >= 0x22 else 0
    speed = speed or (number(0x15) if len(entry) >= 0x17 else 0)
    words = [_size_text(size_bytes), _MEMORY_TYPES.get(entry[0x12], "")]
    return " ".join(filter(None, [*words, f"at {speed} MT/s" if 0 < speed < 0xFFFF else ""]))


def _channel_of(locators: Sequence[str]) -> str:
    """Return the channel that a module's locators name, with its socket; empty where none does.

    Such as `P0 CHANNEL A` in a bank's, or `P0_Node0_Channel1_Dimm0`.
    """
    found = (re.match(r".*?channel[ _]?[a-z0-9]+", one, re.IGNORECASE) for one in locators)
    return next((one[0].casefold() for one in found if one), "")


def _size_text(size_bytes: int) -> str:
    whole = size_bytes % GIB == 0
    return f"{size_bytes // GIB} GiB" if whole else f"{size_bytes // MIB} MiB"


def _frequency(root: Path) -> Iterator[str]:
    if governors := read_governors(root):
        yield f"governor {' and '.join(governors)}"
    cpu = root / "sys/devices/system/cpu"
    no_turbo = file_text(cpu / "intel_pstate/no_turbo").strip()
    boost = file_text(cpu / "cpufreq/boost").strip() or {"0": "1", "1": "0"}.get(no_turbo, "")
    each = {file_text(one).strip() for one in (cpu / "cpufreq").glob("policy*/boost")}
    states = {"1": "on", "0": "off"}
    if boost in states:
        yield f"turbo {states[boost]}"
    elif each and each <= states.keys():
        yield f"turbo {' and '.join(sorted(states[one] for one in each))}"


def _product(dmi: Path) -> str:
    words = [plain_text(file_text(dmi / name)) for name in ("sys_vendor", "product_name")]
    if file_text(dmi / "chassis_asset_tag").strip() == "7783-7084-3265-9085-8269-3286-77":
        words = ["Microsoft Azure"]
    known = [word for word in words if not _NO_PRODUCT.fullmatch(word)]
    return " ".join(dict.fromkeys(known))


def _virtualisation(root: Path) -> Iterator[str]:
    """Yield what stands between the process and the machine; `none` on bare Linux."""
    cpuinfo, cgroup = (file_text(root / name) for name in ("proc/cpuinfo", "proc/self/cgroup"))
    found = []
    if re.search(r"^flags\s*:.*\bhypervisor\b", cpuinfo, re.M):
        kind = plain_text(file_text(root / "sys/hypervisor/type"))
        found.append(f"virtual machine ({kind})" if kind else "virtual machine")
    container = next((name for word, name in _CONTAINERS if word in cgroup), "")
    if (root / ".dockerenv").exists():
        container = container or "Docker"
    elif (root / "run/.containerenv").exists():
        container = container or "Podman"
    if container:
        found.append(f"container ({container})")
    quota = cpu_quota(cgroup, root / "sys/fs/cgroup")
    if quota is not None:
        found.append(f"quota {quota:g} CPU{'s' * (quota != 1)}")
    yield from found or (["none"] if cpuinfo else [])
