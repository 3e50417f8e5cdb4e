"""Watches the card of one case from the harness, and tells its columns of the row.

The worker's events say where it is: state counts while it takes steps, windows and rounds, energy
over the windows alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from convmark.gpu.devices import Card
from convmark.gpu.nvml import answer, load_nvml, opened
from convmark.gpu.processes import foreign, own_processes, processes_on
from convmark.gpu.sampler import PERIOD_S, CardReader, Sampler, union
from convmark.gpu.throttle import reason_names, why_not_judged

__all__ = ["CardWatch", "Watch", "watching"]


class Watch(Protocol):
    """Is told the worker's events, and tells what a row keeps of the card."""

    def see(self, event: Mapping[str, Any]) -> None: ...

    def columns(self, samples_per_step: int) -> dict[str, Any]: ...


class _Nothing:
    """The watch of a case on the CPU, or on a card that no library tells of."""

    def see(self, event: Mapping[str, Any]) -> None:
        pass

    def columns(self, samples_per_step: int) -> dict[str, Any]:
        return {}


class CardWatch:
    """The watch of a case on a card."""

    def __init__(
        self,
        reader: CardReader,
        sampler: Sampler,
        before: frozenset[int] = frozenset(),
        own: Callable[[], frozenset[int]] = own_processes,
    ) -> None:
        """Watch.

        Args:
            before: the ids of the processes on the card before the case's worker.
        """
        self._reader = reader
        self._sampler = sampler
        self._before = before
        self._read_own = own
        self._own: frozenset[int] = frozenset()
        self._began_j: float | None = None
        self._spent_j: float | None = None
        self._steps: int | None = None

    def see(self, event: Mapping[str, Any]) -> None:
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

    def columns(self, samples_per_step: int) -> dict[str, Any]:
        """Return the row's columns of the card's state."""
        found = union(self._sampler.measured)
        reasons, compute = found.pop("reasons"), found.pop("compute")
        graphics = found.pop("graphics")
        names = reason_names(reasons or 0)
        # the run's own worker is on the card: a driver that shows nobody does not tell
        strangers = len(foreign(compute, self._before, self._own)) if compute else None
        used = [s.used_bytes for s in self._sampler.every if s.used_bytes is not None]
        energy = None
        if self._spent_j is not None and self._steps is not None:
            energy = self._spent_j / (self._steps * samples_per_step)
        return {
            **found,
            "gpu_samples": len(self._sampler.measured),
            "throttle_reasons": None if reasons is None else " ".join(names) or "none",
            "joules_per_sample": energy,
            "foreign_gpu_processes": strangers,
            "foreign_graphics_processes": None if graphics is None else len(graphics - self._own),
            "card_peak_memory_bytes": max(used, default=None),
            "not_judged": why_not_judged(names, strangers),
        }


@contextlib.contextmanager
def watching(
    card: Card | None,
    *,
    nvml: Callable[[], Any] = load_nvml,
    fresh: bool = True,
    period_s: float = PERIOD_S,
    own: Callable[[], frozenset[int]] = own_processes,
) -> Iterator[Watch]:
    """Give the watch of a case on this card, None for the CPU; it samples until the block ends.

    Args:
        fresh: whether the worker is a process that is not on the card yet.
    """
    if card is None or card.gpu.vendor != "nvidia":
        yield _Nothing()
        return
    with opened(nvml()) as ready:
        handles = _handles(ready, card) if ready is not None else None
        if handles is None:
            yield _Nothing()
            return
        reader = CardReader(ready, *handles)
        gpu, piece = handles
        handle = gpu if piece is None else piece
        before = processes_on(ready, handle, "Compute") if fresh else None
        sampler = Sampler(reader.sample, period_s)
        sampler.start()
        try:
            yield CardWatch(reader, sampler, before or frozenset(), own)
        finally:
            sampler.stop()


def _handles(nvml: Any, card: Card) -> tuple[Any, Any] | None:
    """Return the GPU's handle and the slice's, None where the card does not answer."""
    gpu = answer(nvml, "nvmlDeviceGetHandleByIndex", card.gpu.index)
    if gpu is None:
        return None
    if card.slice is None:
        return gpu, None
    piece = answer(nvml, "nvmlDeviceGetMigDeviceHandleByIndex", gpu, card.slice.index)
    return None if piece is None else (gpu, piece)
