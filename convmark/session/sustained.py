"""Sustained speed on the harness side: the intervals of a process, and what became of its speed.

    results/<machine>/0007.sustained.csv     throughput, clock, temperature, power of each interval

An interval is on the disk when it ends. The row has the throughput of the last quarter, and the
drop: where the intervals' rates are best parted in two levels, and the second is lower.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from convmark.core.cells import column, columns_of
from convmark.core.text import load_text
from convmark.machine.gpu.cards import CardsWatch
from convmark.machine.power import Reading
from convmark.machine.state import cpu_temperature_c
from convmark.results.table_file import TableBeside
from convmark.session.facts import Facts, Job

LEAST_DROP = 0.03
ERRORS = 4.0
"""A drop is this many standard errors of the difference of the levels: the best of some fifty
places to part them is taken, which finds two in nothing but noise."""
LEAST_INTERVALS = 3
"""On either side of a drop: fewer are a disturbance."""
MOST_GROWTH = 0.02
"""Of the process's memory, from the second quarter of the time to the last."""
LEAST_FOR_LEAK = 12
"""Intervals, below which memory is not judged: a quarter would be fewer than three."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """One row of the intervals' file."""

    run: str = column("name of the run")
    order: int = column("place in the run's plan, as in the run's file")
    case: str = column("name of the case")
    process: int = column("number of the case's process, from 1")
    began_s: float = column(
        "from the first sustained step to the interval's first", "s", bounds="at least 0"
    )
    seconds: float = column(
        "steps of the interval, until the device has finished", "s", bounds="above 0"
    )
    steps: int = column("steps of the interval", bounds="above 0")
    throughput_samples_per_s: float = column(
        "its samples over its seconds", "samples/s", bounds="above 0"
    )
    clock_mhz: float | None = column(
        "of the card's multiprocessors, or mean of the CPUs", "MHz", bounds="at least 0"
    )
    temperature_c: float | None = column("of the card, or the hottest CPU's", "degrees Celsius")
    power_w: float | None = column("mean power", "W", bounds="at least 0")
    power_scope: str | None = column("what power_w is of: card, package, package+dram, ...")
    memory_bytes: int | None = column(
        "host memory that the process holds of its own", "bytes", bounds="at least 0"
    )
    other_cpu_share: float | None = column(
        "share of the CPUs' time that others took", bounds="share"
    )
    device_memory_bytes: int | None = column(
        "held by the device's allocator, where it tells", "bytes", default=None, bounds="at least 0"
    )
    card_memory_bytes: int | None = column(
        "in use on the card, by everybody, as the driver shows it; of several the sum",
        "bytes",
        default=None,
        bounds="at least 0",
    )


_NEW = ("device_memory_bytes", "card_memory_bytes")
TABLE = TableBeside(
    ".sustained.csv",
    Interval,
    [one.name for one in columns_of(Interval) if one.name not in _NEW],
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """When the throughput became lower, and by how much."""

    place: int
    """The first interval of the lower level, from 0."""
    share: float
    """1 - the lower level / the level before."""


def drop_of(rates: Sequence[float]) -> Drop | None:
    """Return the drop in the throughput of equal intervals, None where it is flat or rises.

    Levels are medians. The intervals are parted where the absolute deviations from the two levels
    are least; the noise is that of neighbours' differences, so that a drift is none.
    """
    places = range(LEAST_INTERVALS, len(rates) - LEAST_INTERVALS + 1)
    if not places or min(rates) <= 0:
        return None
    logs = [math.log(rate) for rate in rates]
    place = min(places, key=lambda k: _deviations(logs[:k]) + _deviations(logs[k:]))
    fall = median(logs[:place]) - median(logs[place:])
    steps = [abs(b - a) for a, b in pairwise(logs)]
    noise = 1.4826 * median(steps) / math.sqrt(2)  # Rousseeuw and Croux (1993)
    error = 1.25 * noise * math.sqrt(1 / place + 1 / (len(logs) - place))  # of medians
    share = 1 - math.exp(-fall)
    if share < LEAST_DROP or fall <= ERRORS * error:
        return None
    return Drop(place=place, share=share)


def _deviations(logs: Sequence[float]) -> float:
    middle = median(logs)
    return math.fsum(abs(one - middle) for one in logs)


def leak(intervals: Sequence[Interval]) -> str:
    """Return what is wrong with the process's memory in one line, empty where it stays flat.

    Of a device its allocator is judged, and where that does not tell, all that is in use on the
    card: other processes may take some of that, and the line says so.
    """
    allocator = [one.device_memory_bytes for one in intervals]
    card = [] if any(allocator) else [one.card_memory_bytes for one in intervals]
    kinds = (
        ("memory", [one.memory_bytes for one in intervals], ""),
        ("memory of the device", allocator, ""),
        ("memory in use on the card", card, ", or another process took it"),
    )
    return next(filter(None, (_growth(*kind, intervals[-1:]) for kind in kinds)), "")


def _growth(
    what: str, bytes_held: Sequence[int | None], unless: str, last: Sequence[Interval]
) -> str:
    held = [one for one in bytes_held if one]
    if len(held) < LEAST_FOR_LEAK:
        return ""
    quarter = len(held) // 4
    then, now = median(held[quarter : 2 * quarter]), median(held[-quarter:])
    if now <= then * (1 + MOST_GROWTH):
        return ""
    seconds = last[0].began_s + last[0].seconds
    return (
        f"{what} must stay within {load_text(MOST_GROWTH)} while steps go on, but it grew "
        f"from {then / 2**20:.0f} to {now / 2**20:.0f} MiB in {seconds:.0f} s: "
        f"the model keeps the results of its steps{unless}"
    )


def figures(intervals: Sequence[Interval], samples_per_step: int) -> dict[str, Any]:
    """Return the columns of a row that has these intervals, at least one."""
    late = intervals[-max(1, len(intervals) // 4) :]
    drop = drop_of([one.throughput_samples_per_s for one in intervals])
    steps, seconds = sum(one.steps for one in late), sum(one.seconds for one in late)
    others = [one.other_cpu_share for one in late if one.other_cpu_share is not None]
    values = (
        late[-1].began_s + late[-1].seconds,
        steps * samples_per_step / seconds,
        drop.share if drop else None if len(intervals) < 2 * LEAST_INTERVALS else 0.0,
        intervals[drop.place].began_s if drop else None,
        median(others) if others else None,
    )
    return dict(zip(FIGURES, values, strict=True))


FIGURES = (
    *("sustained_s", "sustained_throughput_samples_per_s", "sustained_drop"),
    *("sustained_drop_began_s", "sustained_other_cpu_share"),
)


class SustainedWatch:
    """Makes the intervals of a process from its events, and keeps each as it comes."""

    def __init__(self, job: Job, facts: Facts, cards: CardsWatch, run: Path | None = None) -> None:
        """Watch.

        Args:
            cards: the watch of the case's cards.
            run: the file beside which each interval is kept as it ends; None to keep none.
        """
        self._job, self._facts, self._cards, self._run = job, facts, cards, run
        self._before: Reading | None = None
        self.intervals: list[Interval] = []

    def see(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "phase" and event.get("phase") == "sustained":
            self._state()
        elif event["event"] == "interval":
            self.intervals.append(self._interval(event))
            if self._run:
                TABLE.keep(self._run, self.intervals[-1:])

    def _interval(self, event: Mapping[str, Any]) -> Interval:
        case = self._job.case
        samples = event["steps"] * case.batch_size * case.replicas
        return Interval(
            run=self._facts.run,
            order=self._job.order,
            process=self._job.process,
            case=case.name,
            throughput_samples_per_s=samples / event["seconds"],
            **{name: event[name] for name in _TOLD},
            device_memory_bytes=event.get("device_memory_bytes"),
            **self._state(),
        )

    def _state(self) -> dict[str, Any]:
        """Return the state since the last call: the cards' where there are some, or the CPUs'."""
        seen = self._cards.since_last()
        before, self._before = self._before, self._facts.rapl.read(time.monotonic)
        if seen:
            return {**seen, "power_scope": "card" if seen["power_w"] is not None else None}
        power_w = self._facts.rapl.mean_power_w([before, self._before])
        frequency = psutil.cpu_freq()
        return {
            "clock_mhz": frequency.current if frequency and frequency.current else None,
            "temperature_c": cpu_temperature_c(),
            "power_w": power_w,
            "power_scope": self._facts.rapl.scope if power_w is not None else None,
        }

    def columns(self, samples_per_step: int) -> dict[str, Any]:
        """Return the row's columns, none where nothing was sustained."""
        case = self._job.case
        return figures(self.intervals, case.batch_size * case.replicas) if self.intervals else {}


_TOLD = ("began_s", "seconds", "steps", "memory_bytes", "other_cpu_share")
