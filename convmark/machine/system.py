"""The description of a machine that a buyer asks for, each part one line of text.

Sources: Linux, Documentation/ABI/stable/sysfs-devices-system-cpu and testing/sysfs-devices-edac;
SMBIOS 3.7, 7.18 "Memory Device (Type 17)".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from convmark.core.files import read_regular
from convmark.core.text import counted, file_text, plain_text
from convmark.machine.hardware import GIB
from convmark.machine.state import cpu_quota, read_governors

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
        """The row's columns."""
        return asdict(self)

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Its parts, each with its name in words."""
        return [
            (name.replace("_", " "), value or "unknown") for name, value in self.columns.items()
        ]


def read_system(root: Path = Path("/")) -> System:
    """Return the description of this machine; nothing is asked of a network.

    Args:
        root: the folder that holds `proc`, `sys` and `run`.
    """
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
