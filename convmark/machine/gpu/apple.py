"""Apple's GPUs, which TensorFlow reaches through tensorflow-metal: what system_profiler tells."""

from __future__ import annotations

import re
import sys
from typing import Any

from convmark.core.text import plain_text
from convmark.machine.gpu.commands import Say, json_object, say
from convmark.machine.gpu.devices import Gpu

__all__ = ["read_apple"]

_PROFILER = ("/usr/sbin/system_profiler", "SPDisplaysDataType", "-json")
_UNITS = {"MB": 1024**2, "GB": 1024**3}


def read_apple(ask: Say = say, platform: str = sys.platform) -> tuple[Gpu, ...]:
    """Return the GPUs of a Mac, none elsewhere."""
    if platform != "darwin":
        return ()
    found = json_object(ask(_PROFILER)).get("SPDisplaysDataType")
    cards = [card for card in found or () if isinstance(card, dict) and card.get("sppci_model")]
    return tuple(_gpu(index, card) for index, card in enumerate(cards))


def _gpu(index: int, card: dict[str, Any]) -> Gpu:
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
