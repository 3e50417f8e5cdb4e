"""The card's state while a case is measured, sampled by a thread of the harness.

Nothing of this runs in the measured process: a sample costs it no time.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import reduce
from operator import or_
from statistics import mean, median
from typing import Any

import psutil

from convmark.machine.gpu.devices import MILLIWATTS, answer, available, number

# Source: NVML API reference, "Clocks Event Reasons"; the old name is throttle reasons.
_NAMES = (
    (0x001, "idle"),
    (0x002, "application_clocks"),
    (0x004, "power_cap"),
    (0x008, "hardware_slowdown"),
    (0x010, "sync_boost"),
    (0x020, "software_thermal"),
    (0x040, "hardware_thermal"),
    (0x080, "hardware_power_brake"),
    (0x100, "display_clocks"),
)

SLOWED = {"hardware_slowdown", "software_thermal", "hardware_thermal", "hardware_power_brake"}
"""Heat, or a brake that the hardware pulled: a run under them says nothing of the code. A power cap
is how a card works under full load, and idling and set clocks are the user's own."""


def own_processes() -> frozenset[int]:
    """Return this process and all that descend from it."""
    me = psutil.Process()
    children: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        children = me.children(recursive=True)
    return frozenset([me.pid, *(child.pid for child in children)])


def processes_on(nvml: Any, handle: Any, kind: str) -> frozenset[int] | None:
    """Return the process ids on the card, None where the driver does not tell."""
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
        self.handle = gpu_handle if slice_handle is None else slice_handle
        """What the driver knows the card by, or the slice of it."""
        self._is_slice = slice_handle is not None

    def sample(self) -> Sample:
        """Return the card's state now."""
        nvml = self._nvml
        power_mw = self._number("nvmlDeviceGetPowerUsage")
        rates = answer(nvml, "nvmlDeviceGetUtilizationRates", self._gpu)
        memory = answer(nvml, "nvmlDeviceGetMemoryInfo", self.handle)
        return Sample(
            sm_clock_mhz=self._number("nvmlDeviceGetClockInfo", "NVML_CLOCK_SM"),
            memory_clock_mhz=self._number("nvmlDeviceGetClockInfo", "NVML_CLOCK_MEM"),
            temperature_c=self._number("nvmlDeviceGetTemperature", "NVML_TEMPERATURE_GPU"),
            power_w=None if power_mw is None else power_mw / MILLIWATTS,
            utilisation=None if rates is None or rates.gpu > 100 else rates.gpu / 100,
            reasons=self._reasons(),
            used_bytes=None if memory is None else available(memory.used),
            compute=processes_on(nvml, self.handle, "Compute"),
            graphics=processes_on(nvml, self.handle, "Graphics"),
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
        "used_bytes": of("used_bytes", lambda values: int(median(values))),
        "gpu_utilisation": of("utilisation", mean),
        "reasons": of("reasons", lambda values: reduce(or_, values)),
        "compute": of("compute", lambda values: frozenset().union(*values)),
        "graphics": of("graphics", lambda values: frozenset().union(*values)),
    }


def reason_names(bits: int) -> tuple[str, ...]:
    """Return the names of the bits that are set; one without a name as `bit_0x200`."""
    known = 0
    names = []
    for bit, name in _NAMES:
        known |= bit
        if bits & bit:
            names.append(name)
    rest = bits & ~known
    while rest:
        lowest = rest & -rest
        names.append(f"bit_{lowest:#x}")
        rest &= ~lowest
    return tuple(names)


def why_not_judged(reasons: tuple[str, ...], foreign_processes: int | None) -> str | None:
    """Return in one line why a row's figures are no ground for a verdict, None where they are."""
    said = []
    slowed = [name for name in reasons if name in SLOWED]
    if slowed:
        said.append(f"the card was slowed ({', '.join(slowed)})")
    if foreign_processes:
        plural = "es" if foreign_processes > 1 else ""
        said.append(f"{foreign_processes} process{plural} not the run's own used the card")
    return "; ".join(said) or None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was seen of one card; None where the driver does not tell."""

    samples: int
    """Looks at it while the case was timed."""
    figures: Mapping[str, Any]
    """Clocks in MHz, temperature, power and utilisation, by the names of their columns."""
    reasons: int | None
    """Bits of why its clock was lowered, of all looks."""
    strangers: frozenset[int] | None
    """Processes that computed on it and are not the run's own."""
    drawing: frozenset[int] | None
    """Those that drew."""
    spent_j: float | None
    """Energy over the windows."""
    steps: int | None
    """Steps of the windows."""
    peak_bytes: int | None
    """Highest memory in use, by everybody."""


def card_state_columns(cards: Sequence[Seen], samples_per_step: int) -> dict[str, Any]:
    """Return the row's columns of the state of its cards, none where there are none.

    Of several cards the lowest clocks count, the highest temperature and memory in use, the sum of
    power and energy, and all that any of them has been slowed by or shared with.

    Args:
        samples_per_step: of all the cards together.
    """
    if not cards:
        return {}
    figures = [card.figures for card in cards]
    reasons = _any_of((card.reasons for card in cards), or_)
    names = reason_names(reasons or 0)
    strangers = _any_of((card.strangers for card in cards), or_)
    drawing = _any_of((card.drawing for card in cards), or_)
    count = None if strangers is None else len(strangers)
    return {
        **{name: all_of(figures, name, how) for name, how in _FIGURES.items()},
        "gpu_samples": min(card.samples for card in cards),
        "throttle_reasons": None if reasons is None else " ".join(names) or "none",
        "joules_per_sample": _energy_per_sample(cards, samples_per_step),
        "foreign_gpu_processes": count,
        "foreign_graphics_processes": None if drawing is None else len(drawing),
        "card_peak_memory_bytes": _any_of((card.peak_bytes for card in cards), max),
        "not_judged": why_not_judged(names, count),
    }


_FIGURES: Mapping[str, Callable[[list[float]], float]] = {
    "sm_clock_mhz": min,
    "memory_clock_mhz": min,
    "temperature_c": max,
    "power_w": sum,
    "gpu_utilisation": mean,
}


def _any_of(values: Iterable[Any], how: Callable[[Any, Any], Any]) -> Any:
    """Return what the known values amount to, None where none is known."""
    known = [value for value in values if value is not None]
    return reduce(how, known) if known else None


def all_of(
    figures: Sequence[Mapping[str, Any]], name: str, how: Callable[[list[float]], float]
) -> float | None:
    """Return what a figure of all cards amounts to, None where one of them does not tell."""
    values = [of_card.get(name) for of_card in figures]
    known = [value for value in values if value is not None]
    return how(known) if len(known) == len(values) else None


def _energy_per_sample(cards: Sequence[Seen], samples_per_step: int) -> float | None:
    total_j = 0.0
    for card in cards:
        if card.spent_j is None or card.steps is None:
            return None
        total_j += card.spent_j / (card.steps * samples_per_step)
    return total_j
