"""GPUs of AMD and Apple, from kernel files and from other programs with a time limit.

Sources: Linux, Documentation/gpu/amdgpu (mem_info_vram_total, product_name, unique_id); rocm-smi's
`--json`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from convmark.core.text import file_text, plain_text
from convmark.machine.gpu.devices import Gpu

__all__ = ["Say", "json_object", "read_amd", "read_apple", "say"]

LIMIT_S = 10.0

Say = Callable[[Sequence[str]], str]
"""Runs a command and returns what it prints, nothing where it fails."""


def say(command: Sequence[str]) -> str:
    """Return what a command prints; nothing where it is not there, fails or takes too long."""
    try:
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT_S
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return ended.stdout.decode(errors="replace") if ended.returncode == 0 else ""


def json_object(text: str) -> dict[str, Any]:
    """Return the JSON object that a text holds, an empty one where it holds none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


AMD_VENDOR = "0x1002"
_ROCM_SMI = ("rocm-smi", "--showproductname", "--showmeminfo", "vram", "--showuniqueid", "--json")
_NAMES = ("card series", "card model", "device name")
_MEMORY = ("vram total memory (b)",)


def read_amd(root: Path = Path("/"), ask: Say = say) -> tuple[tuple[Gpu, ...], str | None]:
    """Return AMD's GPUs and the driver's version.

    A GPU counts where the kernel lets programs compute on it (/dev/kfd), as ROCm needs.
    """
    if not (root / "dev/kfd").exists():
        return (), None
    folders = [
        folder
        for folder in (root / "sys/class/drm").glob("card[0-9]*/device")
        if file_text(folder / "vendor").strip() == AMD_VENDOR
    ]
    folders.sort(key=lambda folder: _card_number(folder.parent.name))
    if not folders:
        return (), None
    found = json_object(ask(_ROCM_SMI))
    names = sorted((name for name in found if re.fullmatch(r"card\d+", name)), key=_card_number)
    told = [
        {key.lower(): plain_text(str(value)) for key, value in found[name].items()}
        for name in names
        if isinstance(found[name], dict)
    ]
    told += [{}] * (len(folders) - len(told))
    gpus = [_gpu(index, folder, told[index]) for index, folder in enumerate(folders)]
    return tuple(gpus), plain_text(file_text(root / "sys/module/amdgpu/version")) or None


def _card_number(name: str) -> int:
    digits = re.search(r"\d+", name)
    return int(digits.group()) if digits else 0


def _gpu(index: int, folder: Path, told: dict[str, str]) -> Gpu:
    product = plain_text(file_text(folder / "product_name"))
    named = [told[key] for key in _NAMES if told.get(key, "N/A") != "N/A"]
    memory = file_text(folder / "mem_info_vram_total").strip()
    size = next((text for text in (memory, *(told.get(key, "") for key in _MEMORY)) if text), "")
    device = plain_text(file_text(folder / "device")).removeprefix("0x")
    return Gpu(
        index=index,
        name=next(iter([*filter(None, [product]), *named]), f"AMD GPU {device}".strip()),
        memory_bytes=int(size) if size.isdecimal() else None,
        uuid=plain_text(file_text(folder / "unique_id")) or told.get("unique id") or None,
        vendor="amd",
    )


_PROFILER = ("/usr/sbin/system_profiler", "SPDisplaysDataType", "-json")
_UNITS = {"MB": 1024**2, "GB": 1024**3}


def read_apple(ask: Say = say, platform: str = sys.platform) -> tuple[Gpu, ...]:
    """Return the GPUs of a Mac, none elsewhere."""
    if platform != "darwin":
        return ()
    found = json_object(ask(_PROFILER)).get("SPDisplaysDataType")
    cards = [card for card in found or () if isinstance(card, dict) and card.get("sppci_model")]
    return tuple(_apple_gpu(index, card) for index, card in enumerate(cards))


def _apple_gpu(index: int, card: dict[str, Any]) -> Gpu:
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
