"""AMD's GPUs: what the kernel's amdgpu driver tells in files, and rocm-smi where it is there.

Sources: Linux, Documentation/gpu/amdgpu (mem_info_vram_total, product_name, unique_id); rocm-smi's
`--json`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from convmark.core.text import file_text, plain_text
from convmark.machine.gpu.commands import Say, json_object, say
from convmark.machine.gpu.devices import Gpu

__all__ = ["read_amd"]

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
    told = [_lower(card) for card in _cards(json_object(ask(_ROCM_SMI)))]
    told += [{}] * (len(folders) - len(told))
    gpus = [_gpu(index, folder, told[index]) for index, folder in enumerate(folders)]
    return tuple(gpus), plain_text(file_text(root / "sys/module/amdgpu/version")) or None


def _card_number(name: str) -> int:
    digits = re.search(r"\d+", name)
    return int(digits.group()) if digits else 0


def _cards(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return rocm-smi's cards in the order of their numbers."""
    names = sorted((name for name in found if re.fullmatch(r"card\d+", name)), key=_card_number)
    return [found[name] for name in names if isinstance(found[name], dict)]


def _lower(card: dict[str, Any]) -> dict[str, str]:
    return {key.lower(): plain_text(str(value)) for key, value in card.items()}


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
