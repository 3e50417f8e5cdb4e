"""The GPUs as their drivers report them, and their columns of a row.

NVIDIA's are read by nvidia-ml-py, asked so that no refusal is an error; those of AMD and Apple from
kernel files and from other programs with a time limit.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convmark.core.text import command_text, file_text, plain_text

_NOT_AVAILABLE = (2**32 - 1, 2**64 - 1)
"""NVML_VALUE_NOT_AVAILABLE is -1, which unsigned answers show as their largest value."""

Say = Callable[[Sequence[str]], str]
"""Runs a command and returns what it prints, nothing where it fails."""


def load_nvml() -> Any:
    """Return nvidia-ml-py's module, None where it is not installed."""
    try:
        return importlib.import_module("pynvml")
    except ImportError:
        return None


@contextlib.contextmanager
def opened(nvml: Any) -> Iterator[Any]:
    """Yield NVML, initialised, and shut it down after the block; None where there is none."""
    if nvml is None:
        yield None
        return
    try:
        nvml.nvmlInit()
    except (nvml.NVMLError, OSError):
        yield None
        return
    try:
        yield nvml
    finally:
        answer(nvml, "nvmlShutdown")


def answer(nvml: Any, question: str, *arguments: Any) -> Any:
    """Return what a function answers.

    None where the driver or this nvidia-ml-py lacks the function, or it fails, or answers text that
    is none.
    """
    function = getattr(nvml, question, None)
    if function is None:
        return None
    # no NVMLError: what nvidia-ml-py raises where a driver lacks the version of a function it wants
    mismatch = getattr(nvml, "NVMLLibraryMismatchError", nvml.NVMLError)
    try:
        return function(*arguments)
    except (nvml.NVMLError, mismatch, UnicodeDecodeError):
        return None


def number(nvml: Any, question: str, *arguments: Any) -> int | None:
    """Return a function's whole number, None where it has none to give."""
    return available(answer(nvml, question, *arguments))


def available(found: int | None) -> int | None:
    """Return a whole number, None where it is the one that stands for none."""
    return None if found is None or found in _NOT_AVAILABLE else int(found)


def text(nvml: Any, question: str, *arguments: Any) -> str | None:
    """Return a function's text as one printable line, None where it gives none."""
    found = answer(nvml, question, *arguments)
    # Versions of nvidia-ml-py before 11.515 answer in bytes.
    decoded = found.decode(errors="replace") if isinstance(found, bytes) else found
    return plain_text(decoded) or None if decoded else None


MILLIWATTS = 1000
_LONGEST_MIG_LIST = 64
"""NVML's own limit is 8 slices to a GPU; a wrong count must not keep the harness busy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One MIG slice of a GPU: what a process is given in place of the whole."""

    index: int
    name: str
    memory_bytes: int | None
    uuid: str | None
    gpu_instance: int | None = None
    compute_instance: int | None = None

    @property
    def profile(self) -> str:
        """The slice's size, such as `1g.20gb`; `slice` where its name does not tell."""
        return self.name.partition(" MIG ")[2] or "slice"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU as its driver shows it; None where the driver does not tell."""

    index: int
    """The driver's order, by PCI bus; the framework's order may differ."""
    name: str
    memory_bytes: int | None
    """None where the GPU shares the host's memory and its driver gives no figure."""
    uuid: str | None
    vendor: str = "nvidia"
    """nvidia, amd or apple."""
    compute_capability: str | None = None
    driver_cuda: str | None = None
    """The newest CUDA version that the driver runs."""
    pcie: str | None = None
    """The fastest generation that GPU and slot allow, and the lanes in use, such as `gen4 x16`."""
    ecc: bool | None = None
    mig: bool | None = None
    slices: tuple[Slice, ...] = ()
    power_limit_w: float | None = None
    max_sm_clock_mhz: int | None = None
    max_memory_clock_mhz: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What `gpu:N` of a case stands for: a whole GPU, or one MIG slice of it."""

    gpu: Gpu
    slice: Slice | None = None

    @property
    def name(self) -> str:
        """The name of the MIG slice, or else of the card."""
        return self.slice.name if self.slice else self.gpu.name

    @property
    def memory_bytes(self) -> int | None:
        """The memory of the MIG slice, or else of the card; None where it is not known."""
        return self.slice.memory_bytes if self.slice else self.gpu.memory_bytes

    @property
    def uuid(self) -> str | None:
        """The UUID of the MIG slice, or else of the card; None where it is not known."""
        return self.slice.uuid if self.slice else self.gpu.uuid

    @property
    def mig(self) -> str | None:
        """`off`, the slice's profile, or None where the GPU has no MIG."""
        if self.slice:
            return self.slice.profile
        return None if self.gpu.mig is None else "on" if self.gpu.mig else "off"


def read_gpus(nvml: Any) -> tuple[tuple[Gpu, ...], str | None]:
    """Return the GPUs and the driver's version, `((), None)` where NVML is None or fails.

    A GPU that cannot be read (fallen off the bus) is left out: no framework can use it.
    """
    with opened(nvml) as ready:
        if ready is None:
            return (), None
        count = answer(ready, "nvmlDeviceGetCount")
        if count is None:
            return (), None
        cuda = number(ready, "nvmlSystemGetCudaDriverVersion")  # 1000 x major + 10 x minor
        driver_cuda = f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None
        found = [_read_gpu(ready, index, driver_cuda) for index in range(count)]
        return tuple(gpu for gpu in found if gpu), text(ready, "nvmlSystemGetDriverVersion")


def card_columns(card: Card) -> dict[str, Any]:
    """Return what a row keeps of the card that it was measured on."""
    gpu = card.gpu
    return {
        "gpu": card.name,
        "gpu_memory_bytes": card.memory_bytes,
        "gpu_uuid": card.uuid,
        "compute_capability": gpu.compute_capability,
        "driver_cuda": gpu.driver_cuda,
        "pcie": gpu.pcie,
        "ecc": None if gpu.ecc is None else "on" if gpu.ecc else "off",
        "mig": card.mig,
        "power_limit_w": gpu.power_limit_w,
        "max_sm_clock_mhz": gpu.max_sm_clock_mhz,
        "max_memory_clock_mhz": gpu.max_memory_clock_mhz,
    }


def _read_gpu(nvml: Any, index: int, driver_cuda: str | None) -> Gpu | None:
    handle = answer(nvml, "nvmlDeviceGetHandleByIndex", index)
    if handle is None:
        return None
    ecc = answer(nvml, "nvmlDeviceGetEccMode", handle)
    mig = answer(nvml, "nvmlDeviceGetMigMode", handle)
    capability = answer(nvml, "nvmlDeviceGetCudaComputeCapability", handle)
    limit_mw = number(nvml, "nvmlDeviceGetEnforcedPowerLimit", handle)
    return Gpu(
        index=index,
        name=text(nvml, "nvmlDeviceGetName", handle) or "unknown GPU",
        memory_bytes=_memory_bytes(nvml, handle),
        uuid=text(nvml, "nvmlDeviceGetUUID", handle),
        compute_capability=f"{capability[0]}.{capability[1]}" if capability else None,
        driver_cuda=driver_cuda,
        pcie=_link(nvml, handle),
        ecc=bool(ecc[0]) if ecc else None,
        mig=bool(mig[0]) if mig else None,
        slices=_slices(nvml, handle) if mig and mig[0] else (),
        power_limit_w=None if limit_mw is None else limit_mw / MILLIWATTS,
        max_sm_clock_mhz=_most_mhz(nvml, handle, "NVML_CLOCK_SM"),
        max_memory_clock_mhz=_most_mhz(nvml, handle, "NVML_CLOCK_MEM"),
    )


def _slices(nvml: Any, handle: Any) -> tuple[Slice, ...]:
    """Return the slices there are; places on the GPU without one are left out."""
    most = number(nvml, "nvmlDeviceGetMaxMigDeviceCount", handle) or 0
    found = []
    for index in range(min(most, _LONGEST_MIG_LIST)):
        slice_handle = answer(nvml, "nvmlDeviceGetMigDeviceHandleByIndex", handle, index)
        if slice_handle is None:
            continue
        found.append(
            Slice(
                index=index,
                name=text(nvml, "nvmlDeviceGetName", slice_handle) or "unknown MIG slice",
                memory_bytes=_memory_bytes(nvml, slice_handle),
                uuid=text(nvml, "nvmlDeviceGetUUID", slice_handle),
                gpu_instance=number(nvml, "nvmlDeviceGetGpuInstanceId", slice_handle),
                compute_instance=number(nvml, "nvmlDeviceGetComputeInstanceId", slice_handle),
            )
        )
    return tuple(found)


def _memory_bytes(nvml: Any, handle: Any) -> int | None:
    memory = answer(nvml, "nvmlDeviceGetMemoryInfo", handle)
    return None if memory is None else available(memory.total)


def _link(nvml: Any, handle: Any) -> str | None:
    """Return generation and lanes: a link at rest lowers its generation, but keeps its lanes."""
    generation = number(nvml, "nvmlDeviceGetMaxPcieLinkGeneration", handle)
    width = number(nvml, "nvmlDeviceGetCurrPcieLinkWidth", handle)
    if not width:
        width = number(nvml, "nvmlDeviceGetMaxPcieLinkWidth", handle)
    return f"gen{generation} x{width}" if generation and width else None


def _most_mhz(nvml: Any, handle: Any, clock: str) -> int | None:
    return number(nvml, "nvmlDeviceGetMaxClockInfo", handle, getattr(nvml, clock, None))


def json_object(text: str) -> dict[str, Any]:
    """Return the JSON object that a text holds, an empty one where it holds none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


AMD_VENDOR = "0x1002"
_ROCM_SMI = ("rocm-smi", "--showproductname", "--showmeminfo", "vram", "--showuniqueid", "--json")
_NAMES = ("card series", "card model", "device name")
_MEMORY = ("vram total memory (b)",)


def read_amd(root: Path = Path("/"), ask: Say = command_text) -> tuple[tuple[Gpu, ...], str | None]:
    """Return AMD's GPUs and the driver's version.

    A GPU counts where the kernel lets programs compute on it (/dev/kfd), as ROCm needs.
    """
    if not (root / "dev/kfd").exists():
        return (), None
    folders = [
        folder
        for folder in (root / "sys/class/drm").glob("card[0-9]*/device")
        if file_text(folder / "vendor").strip() == AMD_VENDOR
    ]
    folders.sort(key=lambda folder: _card_number(folder.parent.name))
    if not folders:
        return (), None
    found = json_object(ask(_ROCM_SMI))
    names = sorted((name for name in found if re.fullmatch(r"card\d+", name)), key=_card_number)
    told = [
        {key.lower(): plain_text(str(value)) for key, value in found[name].items()}
        for name in names
        if isinstance(found[name], dict)
    ]
    told += [{}] * (len(folders) - len(told))
    gpus = [_gpu(index, folder, told[index]) for index, folder in enumerate(folders)]
    return tuple(gpus), plain_text(file_text(root / "sys/module/amdgpu/version")) or None


def _card_number(name: str) -> int:
    digits = re.search(r"\d+", name)
    return int(digits.group()) if digits else 0


def _gpu(index: int, folder: Path, told: dict[str, str]) -> Gpu:
    product = plain_text(file_text(folder / "product_name"))
    named = [told[key] for key in _NAMES if told.get(key, "N/A") != "N/A"]
    memory = file_text(folder / "mem_info_vram_total").strip()
    size = next((text for text in (memory, *(told.get(key, "") for key in _MEMORY)) if text), "")
    device = plain_text(file_text(folder / "device")).removeprefix("0x")
    return Gpu(
        index=index,
        name=next(iter([*filter(None, [product]), *named]), f"AMD GPU {device}".strip()),
        memory_bytes=int(size) if size.isdecimal() else None,
        uuid=plain_text(file_text(folder / "unique_id")) or told.get("unique id") or None,
        vendor="amd",
    )


_PROFILER = ("/usr/sbin/system_profiler", "SPDisplaysDataType", "-json")
_UNITS = {"MB": 1024**2, "GB": 1024**3}


def read_apple(ask: Say = command_text, platform: str = sys.platform) -> tuple[Gpu, ...]:
    """Return the GPUs of a Mac, none elsewhere."""
    if platform != "darwin":
        return ()
    found = json_object(ask(_PROFILER)).get("SPDisplaysDataType")
    cards = [card for card in found or () if isinstance(card, dict) and card.get("sppci_model")]
    return tuple(_apple_gpu(index, card) for index, card in enumerate(cards))


def _apple_gpu(index: int, card: dict[str, Any]) -> Gpu:
    """Return a GPU; Apple's own share the host's memory, others tell theirs as text."""
    cores = plain_text(str(card.get("sppci_cores") or ""))
    name = plain_text(str(card["sppci_model"]))
    memory = re.match(r"(\d+) (MB|GB)", str(card.get("spdisplays_vram") or ""))
    return Gpu(
        index=index,
        name=f"{name} ({cores} GPU cores)" if cores else name,
        memory_bytes=int(memory.group(1)) * _UNITS[memory.group(2)] if memory else None,
        uuid=None,
        vendor="apple",
    )
