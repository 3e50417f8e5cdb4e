"""The GPUs as the driver reports them, and their columns of a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from convmark.machine.gpu.nvml import answer, available, number, opened, text

__all__ = ["Card", "Gpu", "Slice", "card_columns", "read_gpus"]

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
        driver_cuda = _cuda_version(number(ready, "nvmlSystemGetCudaDriverVersion"))
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


def _cuda_version(found: int | None) -> str | None:
    """Return `12.2` of 12020: 1000 x major + 10 x minor, as NVML's reference has it."""
    return f"{found // 1000}.{found % 1000 // 10}" if found else None


def _link(nvml: Any, handle: Any) -> str | None:
    """Return generation and lanes: a link at rest lowers its generation, but keeps its lanes."""
    generation = number(nvml, "nvmlDeviceGetMaxPcieLinkGeneration", handle)
    width = number(nvml, "nvmlDeviceGetCurrPcieLinkWidth", handle)
    if not width:
        width = number(nvml, "nvmlDeviceGetMaxPcieLinkWidth", handle)
    return f"gen{generation} x{width}" if generation and width else None


def _most_mhz(nvml: Any, handle: Any, clock: str) -> int | None:
    return number(nvml, "nvmlDeviceGetMaxClockInfo", handle, getattr(nvml, clock, None))
