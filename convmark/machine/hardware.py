"""The machine's static fingerprint: what stays the same between two runs."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from convmark.core.errors import ConvmarkError
from convmark.core.text import command_text, file_text, plain_text
from convmark.machine.gpu.devices import Gpu, load_nvml, read_amd, read_apple, read_gpus

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
