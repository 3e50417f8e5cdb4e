"""AMD's and Apple's GPUs, from files and outputs made after their documentation."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from convmark.core.text import command_text
from convmark.machine.gpu.devices import Gpu, json_object, read_amd, read_apple

VRAM = 17163091968


def amd_root(folder: Path, *cards: dict[str, str], rocm: bool = True) -> Path:
    for number, files in enumerate(cards):
        device = folder / f"sys/class/drm/card{number}/device"
        device.mkdir(parents=True)
        for name, text in files.items():
            (device / name).write_text(f"{text}\n")
    (folder / "sys/module/amdgpu").mkdir(parents=True)
    (folder / "sys/module/amdgpu/version").write_text("6.7.0\n")
    (folder / "dev").mkdir()
    if rocm:
        (folder / "dev/kfd").touch()
    return folder


def card(**changes: str) -> dict[str, str]:
    files = {
        "vendor": "0x1002",
        "device": "0x744c",
        "mem_info_vram_total": str(VRAM),
        "unique_id": "1f8b1c2d3e4f5061",
        "product_name": "Instinct MI100",
    }
    return {**files, **changes}


def unasked(command: Sequence[str]) -> str:
    return ""


def test_an_amd_card_is_read_from_the_kernel_s_files(tmp_path: Path) -> None:
    root = amd_root(tmp_path, card())
    assert read_amd(root, unasked) == (
        (
            Gpu(
                index=0,
                name="Instinct MI100",
                memory_bytes=VRAM,
                uuid="1f8b1c2d3e4f5061",
                vendor="amd",
            ),
        ),
        "6.7.0",
    )


def test_rocm_smi_names_what_the_files_leave_out(tmp_path: Path) -> None:
    bare = {"product_name": "", "mem_info_vram_total": "", "unique_id": ""}
    root = amd_root(tmp_path, card(**bare), card(**bare))
    told = {
        "system": {"Driver version": "6.7.0"},
        "card1": {"Card Series": "Radeon RX 7900 XT", "VRAM Total Memory (B)": "21458059264"},
        "card0": {
            "Card series": "AMD Radeon RX 7900 XTX",
            "Unique ID": "0xabc",
            "VRAM Total Memory (B)": "25753026560",
        },
    }
    gpus, _ = read_amd(root, lambda command: json.dumps(told))
    assert [(gpu.name, gpu.memory_bytes, gpu.uuid) for gpu in gpus] == [
        ("AMD Radeon RX 7900 XTX", 25753026560, "0xabc"),
        ("Radeon RX 7900 XT", 21458059264, None),
    ]


@pytest.mark.parametrize("told", ["", "no json", "[]", '{"card0": "N/A"}', '{"card0": {}}'])
def test_a_card_that_nothing_names_has_its_device_number(tmp_path: Path, told: str) -> None:
    root = amd_root(tmp_path, card(product_name="", mem_info_vram_total="lots"))
    ((gpu,), _) = read_amd(root, lambda command: told)
    assert (gpu.name, gpu.memory_bytes) == ("AMD GPU 744c", None)


def test_cards_of_others_and_without_rocm_do_not_count(tmp_path: Path) -> None:
    assert read_amd(amd_root(tmp_path / "a", card(vendor="0x10de")), unasked) == ((), None)
    assert read_amd(amd_root(tmp_path / "b", card(), rocm=False), unasked) == ((), None)
    assert read_amd(tmp_path / "nothing", unasked) == ((), None)


def test_cards_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    root = amd_root(tmp_path, *(card(product_name=f"card {number}") for number in range(11)))
    gpus, _ = read_amd(root, unasked)
    assert [gpu.name for gpu in gpus] == [f"card {number}" for number in range(11)]


# The keys that `system_profiler SPDisplaysDataType -json` prints on macOS.
M2_PRO = {
    "_name": "Apple M2 Pro",
    "spdisplays_mtlgpufamilysupport": "spdisplays_metal3",
    "spdisplays_vendor": "sppci_vendor_Apple",
    "sppci_bus": "spdisplays_builtin",
    "sppci_cores": "19",
    "sppci_device_type": "spdisplays_gpu",
    "sppci_model": "Apple M2 Pro",
}
RADEON = {"sppci_model": "AMD Radeon Pro 5500M", "spdisplays_vram": "8 GB"}


def test_a_mac_s_gpus_are_named() -> None:
    told = json.dumps({"SPDisplaysDataType": [M2_PRO, RADEON]})
    assert read_apple(lambda command: told, "darwin") == (
        Gpu(
            index=0,
            name="Apple M2 Pro (19 GPU cores)",
            memory_bytes=None,
            uuid=None,
            vendor="apple",
        ),
        Gpu(
            index=1, name="AMD Radeon Pro 5500M", memory_bytes=8 * 2**30, uuid=None, vendor="apple"
        ),
    )


@pytest.mark.parametrize(
    "told",
    ["", "{}", "nonsense", '{"SPDisplaysDataType": [{}, 3]}', '{"SPDisplaysDataType": null}'],
)
def test_a_mac_that_does_not_tell_has_no_gpu(told: str) -> None:
    assert read_apple(lambda command: told, "darwin") == ()


def test_elsewhere_apple_s_tool_is_not_asked() -> None:
    assert read_apple(lambda command: pytest.fail("asked"), "linux") == ()


def test_a_command_says_what_it_prints_or_nothing() -> None:
    assert command_text([sys.executable, "-c", "print('said')"]).strip() == "said"
    assert command_text([sys.executable, "-c", "print('said'); raise SystemExit(3)"]) == ""
    assert command_text(["/nowhere/at/all"]) == ""


@pytest.mark.parametrize("text", ["", "[1]", "null", "[" * 100_000])
def test_what_is_no_json_object_is_an_empty_one(text: str) -> None:
    assert json_object(text) == {}
