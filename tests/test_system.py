"""The description of a machine, from a folder in the form of the kernel's trees."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from convmark.machine.hardware import System, read_system


def files(root: Path, texts: dict[str, str | bytes]) -> Path:
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else f"{text}\n".encode())
    return root


def two_sockets() -> dict[str, str | bytes]:
    """Two sockets of two cores with two threads each, and a NUMA node for each socket."""
    cpu = "sys/devices/system/cpu/cpu{}/topology/{}"
    texts: dict[str, str | bytes] = {}
    for number in range(8):
        texts[cpu.format(number, "physical_package_id")] = str(number % 2)
        texts[cpu.format(number, "core_id")] = str(number // 4)
        texts[f"sys/devices/system/node/node{number % 2}/cpulist"] = "0"
    return texts


def module(
    *, size: int, large: int = 0, kind: int = 0x22, speed: int = 4800, bank: str = "BANK 0"
) -> bytes:
    """Return a memory device of SMBIOS 3.2, 84 bytes long, and its texts."""
    entry = bytearray(84)
    entry[0:2] = 17, 84
    struct.pack_into("<H", entry, 0x0C, size)
    entry[0x10:0x13] = 1, 2, kind
    struct.pack_into("<H", entry, 0x15, 5600)  # what it is made for; it may be set to run slower
    struct.pack_into("<IH", entry, 0x1C, large, speed)
    return bytes(entry) + f"DIMM_A1\0{bank}\0\0".encode()


def test_a_server_is_described(tmp_path: Path) -> None:
    other = bytes([1, 27, 0, 0]) + bytes(23) + b"Vendor\0\0"
    table = (
        other
        + 2 * module(size=0x7FFF, large=65536)
        + module(size=0)
        + module(size=16384, kind=0x1A, speed=0)
    )
    texts = {
        **two_sockets(),
        "sys/firmware/dmi/tables/DMI": table + bytes([127, 4, 0, 0, 0, 0]),
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance",
        "sys/devices/system/cpu/intel_pstate/no_turbo": "1",
        "sys/class/dmi/id/sys_vendor": "Dell Inc.",
        "sys/class/dmi/id/product_name": "PowerEdge R750",
        "proc/cpuinfo": "flags\t\t: fpu vme",
    }
    assert read_system(files(tmp_path, texts)) == System(
        topology="2 sockets, 4 cores, 8 logical CPUs, 2 NUMA nodes",
        memory_modules="1 x 16 GiB DDR4 at 5600 MT/s, 2 x 64 GiB DDR5 at 4800 MT/s",
        frequency="governor performance, turbo off",
        product="Dell Inc. PowerEdge R750",
        virtualisation="none",
    )


@pytest.mark.parametrize(
    ("banks", "channels"),
    [
        (["P0 CHANNEL A", "P0 CHANNEL A", "P0 CHANNEL B", "P1 CHANNEL A"], ", 3 channels"),
        (["P0_Node0_Channel0_Dimm0", "P0_Node0_Channel1_Dimm0"], ", 2 channels"),
        (["BANK 0", "P0 CHANNEL A"], ""),
    ],
)
def test_the_firmware_s_names_tell_the_channels_where_all_do(
    tmp_path: Path, banks: list[str], channels: str
) -> None:
    table = b"".join(module(size=16384, bank=bank) for bank in banks)
    root = files(tmp_path, {"sys/firmware/dmi/tables/DMI": table})
    modules = f"{len(banks)} x 16 GiB DDR5 at 4800 MT/s"
    assert read_system(root).memory_modules == modules + channels


@pytest.mark.parametrize(("states", "words"), [("11", "on"), ("00", "off"), ("01", "off and on")])
def test_turbo_may_be_a_matter_of_each_core(tmp_path: Path, states: str, words: str) -> None:
    policy = "sys/devices/system/cpu/cpufreq/policy{}/boost"
    root = files(tmp_path, {policy.format(n): state for n, state in enumerate(states)})
    assert read_system(root).frequency == f"turbo {words}"


def test_without_root_the_error_counters_tell_the_modules_and_channels(tmp_path: Path) -> None:
    dimm = "sys/devices/system/edac/mc/mc{}/dimm{}/{}"
    texts = {}
    for mc, number, channel, size in ((0, 0, 0, 32768), (0, 1, 1, 32768), (1, 0, 0, 32768),
                                      (1, 1, 1, 0)):  # fmt: skip
        texts[dimm.format(mc, number, "size")] = str(size)
        texts[dimm.format(mc, number, "dimm_mem_type")] = "Registered-DDR4"
        texts[dimm.format(mc, number, "dimm_location")] = f"channel {channel} slot 0"
    found = read_system(files(tmp_path, texts)).memory_modules
    assert found == "3 x 32 GiB Registered-DDR4, 3 channels"


def test_a_container_in_an_instance_of_a_cloud_is_described(tmp_path: Path) -> None:
    texts = {
        "sys/class/dmi/id/sys_vendor": "Amazon EC2",
        "sys/class/dmi/id/product_name": "m5.large",
        "sys/devices/system/cpu/cpufreq/boost": "1",
        "proc/cpuinfo": "flags\t\t: fpu hypervisor",
        "proc/self/cgroup": "0::/kubepods/pod1",
        "sys/fs/cgroup/kubepods/pod1/cpu.max": "150000 100000",
    }
    found = read_system(files(tmp_path, texts))
    assert found.product == "Amazon EC2 m5.large"
    assert found.virtualisation == "virtual machine, container (Kubernetes), quota 1.5 CPUs"
    assert found.frequency == "turbo on"


@pytest.mark.parametrize(
    ("texts", "product"),
    [
        ({"sys_vendor": "System manufacturer", "product_name": "To Be Filled By O.E.M."}, None),
        ({"sys_vendor": "Google", "product_name": "Google Compute Engine"},
         "Google Google Compute Engine"),
        ({"sys_vendor": "Microsoft Corporation", "product_name": "Virtual Machine",
          "chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77"}, "Microsoft Azure"),
    ],
)  # fmt: skip
def test_the_product_is_what_the_firmware_tells(
    tmp_path: Path, texts: dict[str, str | bytes], product: str | None
) -> None:
    root = files(tmp_path, {f"sys/class/dmi/id/{name}": text for name, text in texts.items()})
    assert read_system(root).product == product


@pytest.mark.parametrize("table", [b"", b"\x11\x54", module(size=1)[:30], b"\0" * 99, b"\xff" * 99])
def test_a_garbled_table_of_the_firmware_tells_nothing(tmp_path: Path, table: bytes) -> None:
    root = files(tmp_path, {"sys/firmware/dmi/tables/DMI": table})
    assert read_system(root).memory_modules is None


def test_what_cannot_be_read_is_absent(tmp_path: Path) -> None:
    found = read_system(tmp_path)
    assert {**found.columns, "topology": None} == System().columns
