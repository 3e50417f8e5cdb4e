"""The card's state while a case is measured, sampled by a thread of the harness.

Nothing of this runs in the measured process: a sample costs it no time.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from functools import reduce
from operator import or_
from statistics import mean, median
from typing import Any

import psutil

from convmark.machine.gpu.devices import MILLIWATTS
from convmark.machine.gpu.nvml import answer, available, number

__all__ = [
    "PERIOD_S",
    "CardReader",
    "Sample",
    "Sampler",
    "foreign",
    "own_processes",
    "processes_on",
    "union",
]


def own_processes() -> frozenset[int]:
    """Return this process and all that descend from it."""
    me = psutil.Process()
    children: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        children = me.children(recursive=True)
    return frozenset([me.pid, *(child.pid for child in children)])


def processes_on(nvml: Any, handle: Any, kind: str) -> frozenset[int] | None:
    """Return the process ids on the card, None where the driver does not tell.

    Args:
        kind: `Compute` or `Graphics`.
    """
    found = answer(nvml, f"nvmlDeviceGet{kind}RunningProcesses", handle)
    # A driver older than nvidia-ml-py's version of the structure has the earlier one.
    if found is None:
        found = answer(nvml, f"nvmlDeviceGet{kind}RunningProcesses_v2", handle)
    return None if found is None else frozenset(int(process.pid) for process in found)


def foreign(now: Set[int], before: Set[int], own: Set[int], workers: int = 1) -> frozenset[int]:
    """Return the processes on the card that are not the run's own.

    In a container the driver may show ids of the host, among which the run's own are not known.
    Then whoever was there before the run's workers is foreign, and of the newcomers all but as many
    as it has workers there.

    Args:
        now: the ids on the card while the case was measured.
        before: those before the case's workers were started.
        own: the ids of this run, as this process sees them.
        workers: how many the case has on the card.
    """
    newcomers = now - before
    if not now & own:
        newcomers = frozenset(sorted(newcomers)[workers:])
    return frozenset((newcomers | (now & before)) - own)


PERIOD_S = 0.1
"""The driver itself renews most figures every 20 to 100 ms."""
MILLIJOULES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One look at the card; None where the driver does not tell."""

    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    utilisation: float | None = None
    """Share of the driver's last period in which any kernel ran, 0 to 1."""
    reasons: int | None = None
    """Bits of why the clock is below what it could be."""
    used_bytes: int | None = None
    """Memory in use on the card, by everybody."""
    compute: frozenset[int] | None = None
    """Ids of the processes that compute on it."""
    graphics: frozenset[int] | None = None


class CardReader:
    """Reads one card: clocks, heat and power of the GPU; memory and processes of the slice."""

    def __init__(self, nvml: Any, gpu_handle: Any, slice_handle: Any = None) -> None:
        self._nvml = nvml
        self._gpu = gpu_handle
        self._card = gpu_handle if slice_handle is None else slice_handle
        self._is_slice = slice_handle is not None

    def sample(self) -> Sample:
        """Return the card's state now."""
        nvml = self._nvml
        power_mw = self._number("nvmlDeviceGetPowerUsage")
        rates = answer(nvml, "nvmlDeviceGetUtilizationRates", self._gpu)
        memory = answer(nvml, "nvmlDeviceGetMemoryInfo", self._card)
        return Sample(
            sm_clock_mhz=self._number("nvmlDeviceGetClockInfo", "NVML_CLOCK_SM"),
            memory_clock_mhz=self._number("nvmlDeviceGetClockInfo", "NVML_CLOCK_MEM"),
            temperature_c=self._number("nvmlDeviceGetTemperature", "NVML_TEMPERATURE_GPU"),
            power_w=None if power_mw is None else power_mw / MILLIWATTS,
            utilisation=None if rates is None or rates.gpu > 100 else rates.gpu / 100,
            reasons=self._reasons(),
            used_bytes=None if memory is None else available(memory.used),
            compute=processes_on(nvml, self._card, "Compute"),
            graphics=processes_on(nvml, self._card, "Graphics"),
        )

    def energy_j(self) -> float | None:
        """Return the energy since the driver was loaded; None where the card has no counter.

        The counter is of the whole GPU, so a slice has none.
        """
        if self._is_slice:
            return None
        spent_mj = number(self._nvml, "nvmlDeviceGetTotalEnergyConsumption", self._gpu)
        return None if spent_mj is None else spent_mj / MILLIJOULES

    def _number(self, question: str, constant: str = "") -> int | None:
        arguments = [getattr(self._nvml, constant)] if constant else []
        return number(self._nvml, question, self._gpu, *arguments)

    def _reasons(self) -> int | None:
        """Return the bits by the new name, and by the old one where the driver has that alone."""
        for name in ("Event", "Throttle"):
            bits = answer(self._nvml, f"nvmlDeviceGetCurrentClocks{name}Reasons", self._gpu)
            if bits is not None:
                return int(bits)
        return None


class Sampler:
    """Takes samples in a thread from `start` to `stop`, and marks those of the measuring."""

    def __init__(self, read: Callable[[], Sample], period_s: float = PERIOD_S) -> None:
        self._read = read
        self._period_s = period_s
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gpu-sampler", daemon=True)
        self.measuring = False
        """Whether the case is being measured now; set from outside."""
        self.every: list[Sample] = []
        self.measured: list[Sample] = []

    def start(self) -> None:
        """Begin to sample, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a driver that hangs is waited for no longer than a few periods."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(max(5.0, 10 * self._period_s))

    def _run(self) -> None:
        while not self._end.is_set():
            during = self.measuring
            sample = self._read()
            self.every.append(sample)
            if during and self.measuring:
                self.measured.append(sample)
            self._end.wait(self._period_s)


def union(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return what samples amount to: medians, means and maxima, and the OR of all reasons."""

    def known(name: str) -> list[Any]:
        return [value for sample in samples if (value := getattr(sample, name)) is not None]

    def of(name: str, how: Callable[[list[Any]], Any]) -> Any:
        values = known(name)
        return how(values) if values else None

    return {
        "sm_clock_mhz": of("sm_clock_mhz", lambda values: float(median(values))),
        "memory_clock_mhz": of("memory_clock_mhz", lambda values: float(median(values))),
        "temperature_c": of("temperature_c", lambda values: float(max(values))),
        "power_w": of("power_w", mean),
        "gpu_utilisation": of("utilisation", mean),
        "reasons": of("reasons", lambda values: reduce(or_, values)),
        "compute": of("compute", lambda values: frozenset().union(*values)),
        "graphics": of("graphics", lambda values: frozenset().union(*values)),
    }
