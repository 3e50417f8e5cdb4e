"""The cards of one case: which they are, and what is seen of them while it is measured.

The worker's events say where it is: state counts while it takes steps, windows and rounds, energy
over the windows alone. The card of `gpu:N` is that of the framework's order, without cards hidden
by the environment.

Sources: CUDA programming guide, "CUDA environment variables"; NVIDIA's MIG user guide, "Device
names"; ROCm's "GPU isolation techniques".
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from convmark.core.text import NUMBER
from convmark.machine.gpu.devices import Card, Gpu, answer, load_nvml, opened
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
        if name == "warm_up" or phase in ("rounds", "ceilings"):
            self._sampler.measuring = True
        elif phase == "windows":
            self._began_j = self._reader.energy_j()
        elif name == "windows":
            now_j = self._reader.energy_j()
            if now_j is not None and self._began_j is not None and now_j > self._began_j:
                self._spent_j = now_j - self._began_j
            steps = event.get("run_steps")
            self._steps = steps if isinstance(steps, int) and steps > 0 else None
            self._own |= self._read_own()  # now, while the worker is there
        elif name == "product":  # the first of the two ceilings
            self._own |= self._read_own()
        elif name in ("peaks", "rounds", "copy"):  # after them the card waits for the host
            self._sampler.measuring = False
            self._own |= self._read_own()

    def since_last(self) -> dict[str, Any]:
        """Return what the looks at the card since the last call amount to."""
        before, self._looks = self._looks, len(self._sampler.every)
        return union(self._sampler.every[before : self._looks])

    def seen(self) -> Seen:
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


# -- the card of gpu:N -----------------------------------------------------------------------------


_CUDA = "CUDA_VISIBLE_DEVICES"
_CUDA_ORDER = "CUDA_DEVICE_ORDER"
_AMD = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")


def choosing(environ: Mapping[str, str]) -> dict[str, str]:
    """Return those of the variables that choose which GPUs a process sees, and in what order."""
    return {name: environ[name] for name in (_CUDA, _CUDA_ORDER, *_AMD) if name in environ}


def alone(device: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variable that shows a process the device's GPU and no other; none for the CPU.

    What it names need not be known to the driver's library: it is the word that chose it, or its
    place among all where none did.
    """
    kind, _, number = device.partition(":")
    if kind != "gpu":
        return {}
    words = _words(environ[_CUDA]) if _CUDA in environ else []
    return {_CUDA: words[int(number)] if int(number) < len(words) else number}


def card_of(device: str, gpus: Sequence[Gpu], environ: Mapping[str, str]) -> Card | None:
    """Return the card of a case's device; None for the CPU, and where it cannot be known."""
    kind, _, number = device.partition(":")
    if kind != "gpu" or not NUMBER.fullmatch(number):
        return None
    cards = visible_cards(gpus, environ)
    return cards[int(number)] if int(number) < len(cards) else None


def cards_of(devices: Iterable[str], gpus: Sequence[Gpu], environ: Mapping[str, str]) -> list[Card]:
    """Return the cards of several devices, those left out that cannot be known."""
    found = (card_of(device, gpus, environ) for device in devices)
    return [card for card in found if card is not None]


def visible_cards(gpus: Sequence[Gpu], environ: Mapping[str, str]) -> list[Card | None]:
    """Return what each of the framework's GPUs is, in its order.

    None stands for a GPU that is there but cannot be told from another: unlike ones, in the order
    of their speed, which only the driver knows.
    """
    if any(gpu.vendor == "nvidia" for gpu in gpus):
        return _nvidia([gpu for gpu in gpus if gpu.vendor == "nvidia"], environ)
    cards: list[Card | None] = [Card(gpu=gpu) for gpu in gpus]
    for variable in _AMD:
        if variable in environ and any(gpu.vendor == "amd" for gpu in gpus):
            cards = [cards[place] for place in _places(environ[variable].split(","), len(cards))]
    return cards


def _nvidia(gpus: Sequence[Gpu], environ: Mapping[str, str]) -> list[Card | None]:
    cards = [card for gpu in gpus if (card := _first_card(gpu)) is not None]
    ordered: list[Card | None] = list(cards)
    fastest_first = environ.get(_CUDA_ORDER, "PCI_BUS_ID") != "PCI_BUS_ID"
    if fastest_first and len({card.name for card in cards}) > 1:
        ordered = [None] * len(cards)
    asked = environ.get(_CUDA)
    if asked is None:
        return ordered
    words = _words(asked)
    if words[0].startswith(("GPU-", "MIG-")):
        return _by_uuid(words, gpus)
    return [ordered[place] for place in _places(words, len(ordered))]


def _words(asked: str) -> list[str]:
    return [word.strip() for word in asked.split(",")]


def _first_card(gpu: Gpu) -> Card | None:
    """Return what a process is given of a GPU without asking: its first slice where it has MIG."""
    if not gpu.mig:
        return Card(gpu=gpu)
    return Card(gpu=gpu, slice=gpu.slices[0]) if gpu.slices else None


def _places(words: Sequence[str], count: int) -> list[int]:
    """Return the places up to the first word that is none; a place named twice hides all."""
    places: list[int] = []
    for word in words:
        number = re.match(r"\s*(\d+)", word)
        if number is None or int(number.group(1)) >= count:
            break
        places.append(int(number.group(1)))
    return places if len(set(places)) == len(places) else []


def _by_uuid(words: Sequence[str], gpus: Sequence[Gpu]) -> list[Card | None]:
    """Return the cards whose UUIDs begin so, up to the first word that names none or several."""
    found: list[Card | None] = []
    for word in words:
        cards = [card for gpu in gpus for card in _named(word, gpu)]
        if len(cards) != 1:
            break
        if cards[0] in found:
            return []
        found.append(cards[0])
    return found


def _named(word: str, gpu: Gpu) -> list[Card]:
    if word.startswith("MIG-GPU-"):  # drivers before 470: the GPU's UUID and two instance numbers
        parts = word.removeprefix("MIG-").split("/")
        return [
            Card(gpu=gpu, slice=piece)
            for piece in gpu.slices
            if parts == [gpu.uuid, str(piece.gpu_instance), str(piece.compute_instance)]
        ]
    if word.startswith("MIG-"):
        slices = [piece for piece in gpu.slices if (piece.uuid or "").startswith(word)]
        return [Card(gpu=gpu, slice=piece) for piece in slices]
    named = word.startswith("GPU-") and (gpu.uuid or "").startswith(word)
    card = _first_card(gpu) if named else None
    return [card] if card else []
