"""Monitors the GPUs of one case from the harness, and returns their columns of the row.

The worker's events say where it is: state counts while it takes steps, windows and rounds, energy
over the windows alone.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from convmark.machine.gpu.devices import Card, answer, load_nvml, opened
from convmark.machine.gpu.sampler import (
    PERIOD_S,
    CardReader,
    Sampler,
    Seen,
    all_of,
    card_state_columns,
    foreign,
    own_processes,
    processes_on,
    union,
)


class Watch(Protocol):
    """Is told the worker's events, and tells what a row keeps of the card."""

    def see(self, event: Mapping[str, Any]) -> None:
        """Note an event of the worker."""

    def columns(self, samples_per_step: int) -> dict[str, Any]:
        """Return the row's columns on the card; energy is divided by the samples of the steps."""


class CardsWatch(Watch, Protocol):
    """The watch of all cards of a case."""

    def since_last(self) -> dict[str, float | None]:
        """Return clock, temperature, power and memory since the last call; none without cards."""


class CardWatch:
    """The watch of a case on a card."""

    def __init__(
        self,
        reader: CardReader,
        sampler: Sampler,
        before: frozenset[int] = frozenset(),
        own: Callable[[], frozenset[int]] = own_processes,
        workers: int = 1,
    ) -> None:
        """Watch.

        Args:
            before: the ids of the processes on the card before the case's workers.
            workers: how many of those the case has on the card.
        """
        self._reader = reader
        self._sampler = sampler
        self._before = before
        self._read_own = own
        self._workers = workers
        self._own: frozenset[int] = frozenset()
        self._began_j: float | None = None
        self._spent_j: float | None = None
        self._steps: int | None = None
        self._looks = 0

    def see(self, event: Mapping[str, Any]) -> None:
        """Note an event, which says what the samples from now on belong to."""
        name = event["event"]
        phase = event.get("phase") if name == "phase" else None
        if name == "warm_up" or phase == "rounds":
            self._sampler.measuring = True
        elif phase == "windows":
            self._began_j = self._reader.energy_j()
        elif name == "windows":
            self._end_windows(event)
        elif name in ("peaks", "rounds"):  # between them the card waits for the host
            self._sampler.measuring = False
            self._own |= self._read_own()

    def _end_windows(self, event: Mapping[str, Any]) -> None:
        now_j = self._reader.energy_j()
        if now_j is not None and self._began_j is not None and now_j > self._began_j:
            self._spent_j = now_j - self._began_j
        steps = event.get("run_steps")
        self._steps = steps if isinstance(steps, int) and steps > 0 else None
        self._own |= self._read_own()  # now, while the worker is there

    def since_last(self) -> dict[str, Any]:
        """Return what the looks at the card since the last call amount to."""
        before, self._looks = self._looks, len(self._sampler.every)
        return union(self._sampler.every[before : self._looks])

    def seen(self) -> Seen:
        """Return what was seen of the card."""
        found = union(self._sampler.measured)
        reasons, compute = found.pop("reasons"), found.pop("compute")
        graphics = found.pop("graphics")
        # the run's own workers are on the card: a driver that shows nobody does not tell
        strangers = foreign(compute, self._before, self._own, self._workers) if compute else None
        used = [s.used_bytes for s in self._sampler.every if s.used_bytes is not None]
        return Seen(
            samples=len(self._sampler.measured),
            figures=found,
            reasons=reasons,
            strangers=strangers,
            drawing=None if graphics is None else graphics - self._own,
            spent_j=self._spent_j,
            steps=self._steps,
            peak_bytes=max(used, default=None),
        )


class _Cards:
    """The watch of all cards of a case; of none for a case on the CPU, or on unknown cards."""

    def __init__(self, cards: Sequence[CardWatch]) -> None:
        self._cards = cards

    def see(self, event: Mapping[str, Any]) -> None:
        for card in self._cards:
            card.see(event)

    def since_last(self) -> dict[str, float | None]:
        """Return clock, temperature, power and memory since the last call; none without cards."""
        found = [card.since_last() for card in self._cards]
        if not found:
            return {}
        return {
            "clock_mhz": all_of(found, "sm_clock_mhz", min),
            "temperature_c": all_of(found, "temperature_c", max),
            "power_w": all_of(found, "power_w", sum),
            "card_memory_bytes": all_of(found, "used_bytes", sum),
        }

    def columns(self, samples_per_step: int) -> dict[str, Any]:
        """Return the row's columns of the cards' state."""
        return card_state_columns([card.seen() for card in self._cards], samples_per_step)


@contextlib.contextmanager
def watching(
    cards: Sequence[Card],
    *,
    nvml: Callable[[], Any] = load_nvml,
    fresh: bool = True,
    period_s: float = PERIOD_S,
    own: Callable[[], frozenset[int]] = own_processes,
) -> Iterator[CardsWatch]:
    """Yield a watch of these cards, which samples until the block ends.

    Args:
        cards: none for the CPU; one that is there twice has two workers.
        fresh: whether the workers are processes that are not on the cards yet.
    """
    known = Counter(card for card in cards if card.gpu.vendor == "nvidia")
    with contextlib.ExitStack() as stack:
        ready = stack.enter_context(opened(nvml())) if known else None
        watches = []
        for card, workers in known.items() if ready is not None else ():
            reader = reader_of(ready, card)
            if reader is None:
                continue
            before = processes_on(ready, reader.handle, "Compute") if fresh else None
            sampler = Sampler(reader.sample, period_s)
            sampler.start()
            stack.callback(sampler.stop)
            watches.append(CardWatch(reader, sampler, before or frozenset(), own, workers))
        yield _Cards(watches)


def reader_of(nvml: Any, card: Card) -> CardReader | None:
    """Return what reads the card, None where it does not answer."""
    gpu = answer(nvml, "nvmlDeviceGetHandleByIndex", card.gpu.index)
    if gpu is None or card.slice is None:
        return None if gpu is None else CardReader(nvml, gpu)
    piece = answer(nvml, "nvmlDeviceGetMigDeviceHandleByIndex", gpu, card.slice.index)
    return None if piece is None else CardReader(nvml, gpu, piece)
