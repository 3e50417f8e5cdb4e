"""The card of `gpu:N`: the framework's order, without cards hidden by the environment.

Sources: CUDA programming guide, "CUDA environment variables"; NVIDIA's MIG user guide, "Device
names"; ROCm's "GPU isolation techniques".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from convmark.core.text import NUMBER
from convmark.machine.gpu.devices import Card, Gpu

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
