"""Energy of the CPU packages by RAPL, and the power of packages and cards before a run.

The harness reads the kernel's counters, at the worker's events. A counter is of a whole package:
whatever runs on it is in the figure, and so is what the package uses while it is idle.

Source: Linux, Documentation/power/powercap/powercap.rst, and drivers/powercap/intel_rapl_common.c,
which has AMD's packages under the same names.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import psutil

from convmark.core.text import file_text
from convmark.machine.gpu.cards import reader_of
from convmark.machine.gpu.devices import Card, load_nvml, opened

MICROJOULES = 1_000_000

MOST_W = 1000.0
"""No package takes more. A counter that has grown faster was reset, and one that could have gone
round twice at this power says nothing."""
RENEWAL_S = 0.01
"""Counters are renewed every millisecond or so: over a shorter time a power means nothing."""
WITHIN = 0.05
"""The readings at both ends of the windows lie as far apart as the windows took, within this."""
MOST_OTHERS = 0.1
"""Share of the CPUs that the process may not use, above which others' energy is in the figure."""
IDLE_S = 2.0
_LOOKS = 4
_MOST_ROUNDS = 10
_FALLING = 0.03
"""Of the power of the round before. An H100 whose last user had just ended drew 113 to 124 W, and
74 W where nobody had used it."""

_ZONES = "sys/class/powercap"
_PACKAGE = re.compile(r"intel-rapl:\d+")
"""Not `intel-rapl-mmio`, which is the same package read another way."""

Clock = Callable[[], float]
Busy = Callable[[], tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """One counter, which goes from 0 to `range_uj` and begins again."""

    path: Path
    range_uj: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """All counters at one time."""

    time_s: float
    energies_uj: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rapl:
    """The counters of this machine, each part of it counted once."""

    counters: tuple[Counter, ...] = ()
    scope: str = ""
    """What they are of: `package`, `package+dram`, `2 packages`, `2 packages+dram`."""
    missing: str = ""
    """Why there are none and what to do; empty where there are."""

    def read(self, clock: Clock = time.monotonic) -> Reading | None:
        """Return the counters now; None where one of them cannot be read."""
        found = [_number(counter.path) for counter in self.counters]
        values = tuple(value for value in found if value is not None)
        whole = values and len(values) == len(found)
        return Reading(time_s=clock(), energies_uj=values) if whole else None

    def joules(self, readings: Sequence[Reading | None]) -> float | None:
        """Return the energy from the first reading to the last, None where it is not known.

        It is not where a reading is missing, or where a counter was reset or may have gone round
        twice between two readings.
        """
        total_uj = 0
        for before, now in pairwise(readings):
            if before is None or now is None:
                return None
            took_s = now.time_s - before.time_s
            pairs = zip(self.counters, before.energies_uj, now.energies_uj, strict=True)
            for counter, first, last in pairs:
                spent_uj = last - first if last >= first else last + counter.range_uj - first
                most_uj = MOST_W * (took_s + RENEWAL_S) * MICROJOULES
                if not 0 <= spent_uj <= most_uj or counter.range_uj <= most_uj:
                    return None
                total_uj += spent_uj
        return total_uj / MICROJOULES if len(readings) > 1 else None

    def mean_power_w(self, readings: Sequence[Reading | None]) -> float | None:
        """Return the power from the first reading to the last, None where it is not known."""
        joules = self.joules(readings)
        ends = [reading for reading in (*readings[:1], *readings[-1:]) if reading is not None]
        took_s = ends[-1].time_s - ends[0].time_s if ends else 0.0
        return None if joules is None or not took_s else joules / took_s


def find_rapl(root: Path = Path("/")) -> Rapl:
    """Return the counters of all packages, with their memory where each package has it."""
    zones = root / _ZONES
    folders = sorted(path for path in _listed(zones) if _PACKAGE.fullmatch(path.name))
    packages = [path for path in folders if file_text(path / "name").startswith("package-")]
    if not packages:
        return Rapl(missing=_why_none(root))
    inner = [
        [zone for zone in _listed(path) if file_text(zone / "name").strip() == "dram"]
        for path in packages
    ]
    memory = [zones[0] for zones in inner if zones]
    if len(memory) < len(packages):
        memory = []  # part of the machine's would be called the whole
    chosen = [*packages, *memory]
    for path in chosen:
        if _number(path / "energy_uj") is None:
            return Rapl(missing=_unreadable(path / "energy_uj"))
    ranges = [(path / "energy_uj", _number(path / "max_energy_range_uj")) for path in chosen]
    count = len(packages)
    return Rapl(
        counters=tuple(Counter(path=path, range_uj=most or 0) for path, most in ranges),
        scope=("package" if count == 1 else f"{count} packages") + "+dram" * bool(memory),
    )


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _number(path: Path) -> int | None:
    text = file_text(path).strip()
    return int(text) if re.fullmatch(r"[0-9]{1,20}", text) else None


def _why_none(root: Path) -> str:
    """Return in one line why there are no counters, and what to do."""
    if (root / ".dockerenv").exists():
        return "hidden by the container: docker run --security-opt systempaths=unconfined"
    if re.search(r"^flags\s*:.*\bhypervisor\b", file_text(root / "proc/cpuinfo"), re.M):
        return "none in a virtual machine: measure on the machine itself, or with a wall meter"
    if not (root / "sys").is_dir():
        return "no counters are read on this system: measure with a wall meter"
    return "no driver has made them: sudo modprobe intel_rapl_msr (Intel, and AMD from Linux 5.8)"


def _unreadable(path: Path) -> str:
    try:
        path.read_bytes()
    except PermissionError:
        return (
            f"only root can read {path}: sudo chmod a+r /{_ZONES}/intel-rapl:*/energy_uj "
            f"/{_ZONES}/intel-rapl:*/intel-rapl:*/energy_uj (until the next boot)"
        )
    except OSError as error:
        return f"{path} cannot be read: {error.strerror or error}"
    return f"{path} has no number: measure with a wall meter"


def others_busy(cpus: Collection[int] = ()) -> tuple[float, float]:
    """Return the busy and all seconds so far of the CPUs that the measured process may not use.

    Args:
        cpus: those that it is bound to; without any, those of this process.
    """
    own = cpus or (os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ())
    times = psutil.cpu_times(percpu=True)
    others = [one for number, one in enumerate(times) if own and number not in own]
    idle = [one.idle + getattr(one, "iowait", 0.0) for one in others]
    whole = [sum(one) - getattr(one, "guest", 0.0) - getattr(one, "guest_nice", 0.0)
             for one in others]  # fmt: skip
    return sum(whole) - sum(idle), sum(whole)


class PackageWatch:
    """Measures the packages' energy over the windows of a case, from the worker's events."""

    def __init__(
        self,
        rapl: Rapl,
        idle_w: float | None = None,
        clock: Clock = time.monotonic,
        others: Busy = others_busy,
    ) -> None:
        self._rapl, self._idle_w, self._clock, self._others = rapl, idle_w, clock, others
        self._readings: list[Reading | None] = []
        self._busy: list[tuple[float, float]] = []
        self._windows: Mapping[str, Any] | None = None

    def see(self, event: Mapping[str, Any]) -> None:
        """Note an event; from the start of the windows to their end each one is a reading."""
        if not self._rapl.counters or self._windows is not None:
            return
        begins = event["event"] == "phase" and event.get("phase") == "windows"
        if begins or self._readings:
            self._readings.append(self._rapl.read(self._clock))
            self._busy.append(self._others())
        if event["event"] == "windows" and self._readings:
            self._windows = event

    def columns(self, samples_per_step: int) -> dict[str, Any]:
        """Return the row's columns; those of the energy only where it is the windows'."""
        found = {"cpu_power_scope": self._rapl.scope or None, "cpu_idle_power_w": self._idle_w}
        power_w, step_s = self._rapl.mean_power_w(self._readings), self._mean_step_s()
        if power_w is None or step_s is None or self._others_share() > MOST_OTHERS:
            return found
        joules_per_sample = power_w * step_s / samples_per_step
        return {**found, "cpu_power_w": power_w, "cpu_joules_per_sample": joules_per_sample}

    def _mean_step_s(self) -> float | None:
        """Return the mean step time of the windows, s; None where they are not what was read."""
        told = self._windows or {}
        times_s, steps, run = (told.get(name) for name in ("times_s", "steps", "run_steps"))
        ends = [one.time_s for one in self._readings if one is not None]
        if not (isinstance(times_s, list) and times_s and steps and run and ends):
            return None
        step_s = float(sum(times_s) / (steps * len(times_s)))
        apart_s = abs(ends[-1] - ends[0] - run * step_s)
        return step_s if apart_s <= WITHIN * run * step_s else None

    def _others_share(self) -> float:
        (before, began), (now, ended) = self._busy[0], self._busy[-1]
        if ended < began:  # a CPU went offline
            return 1.0
        return (now - before) / (ended - began) if ended > began else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """The power before a run, W, while nothing was measured; None where it is not known."""

    cpu_w: float | None = None
    cards_w: Mapping[Card, float] = field(default_factory=dict)
    line: str = ""
    """What is said of it; empty where nothing was measured."""

    def of_cards(self, cards: Sequence[Card]) -> float | None:
        """Return that of these cards together, None where one of them is not known."""
        known = [self.cards_w[card] for card in dict.fromkeys(cards) if card in self.cards_w]
        return sum(known) if known and len(known) == len(set(cards)) else None


def idle_power(
    rapl: Rapl,
    cards: Sequence[Card],
    *,
    busy_percent: Callable[[float], float] = psutil.cpu_percent,
    clock: Clock = time.monotonic,
) -> Idle:
    """Wait for `IDLE_S` and return the mean power; at once where nothing can be read.

    Cards are looked at again until their power no longer falls.

    Args:
        cards: those that will be measured.
        busy_percent: waits so many seconds and returns how busy all CPUs were.
    """
    known = [card for card in dict.fromkeys(cards) if card.gpu.vendor == "nvidia"]
    rounds: list[list[dict[Card, Any]]] = []
    with opened(load_nvml() if known else None) as ready:
        readers = {card: reader_of(ready, card) for card in known} if ready else {}
        looks = {card: reader for card, reader in readers.items() if reader is not None}
        if not rapl.counters and not looks:
            return Idle()
        while len(rounds) < (_MOST_ROUNDS if looks else 1) and not _have_settled(rounds):
            readings, busy, samples = [rapl.read(clock)], [], []
            for _ in range(_LOOKS):
                busy.append(busy_percent(IDLE_S / _LOOKS))
                samples.append({card: reader.sample() for card, reader in looks.items()})
            readings.append(rapl.read(clock))
            rounds.append(samples)
    if mean(busy) > 100 * MOST_OTHERS:
        return Idle(line=f"idle power: unknown, {mean(busy):.0f} % of the CPUs' time was used")
    cpu_w = rapl.mean_power_w(readings)
    has_settled = _have_settled(rounds)
    powers = {card: _idle_card_w([one[card] for one in samples]) for card in looks if has_settled}
    cards_w = {card: power_w for card, power_w in powers.items() if power_w is not None}
    parts = [] if cpu_w is None else [f"{rapl.scope} {cpu_w:.1f} W"]
    parts += [f"card {card.name} {power_w:.1f} W" for card, power_w in cards_w.items()]
    if looks and not has_settled:
        parts.append(f"of the cards unknown, still falling after {len(rounds) * IDLE_S:.0f} s")
    return Idle(cpu_w=cpu_w, cards_w=cards_w, line=f"idle power: {', '.join(parts) or 'unknown'}")


def _have_settled(rounds: Sequence[Sequence[Mapping[Card, Any]]]) -> bool:
    """Whether no card's power has fallen since the round before: one that was just used cools."""
    if len(rounds) < 2:
        return False
    for card in rounds[-1][0]:
        before_w, now_w = (_idle_card_w([one[card] for one in last]) for last in rounds[-2:])
        if now_w is not None and (before_w is None or now_w < (1 - _FALLING) * before_w):
            return False
    return True


def _idle_card_w(samples: Sequence[Any]) -> float | None:
    """Return the mean power of a card, None where somebody used it or it does not tell."""
    powers = [one.power_w for one in samples if one.power_w is not None]
    used = any((one.utilisation or 0.0) > MOST_OTHERS for one in samples)
    return mean(powers) if powers and not used else None
