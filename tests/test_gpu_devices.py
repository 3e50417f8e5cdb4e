"""The GPUs' fingerprint, read through a stand-in for the driver's library."""

from __future__ import annotations

from typing import Any

import pytest
from nvml_standin import beside, needs_compiler

pytestmark = needs_compiler

MIB = 2**20

READ = """
import dataclasses, json
from convmark.machine.gpu.devices import read_gpus
from convmark.machine.gpu.devices import load_nvml
gpus, driver = read_gpus(load_nvml())
print(json.dumps({"gpus": [dataclasses.asdict(gpu) for gpu in gpus], "driver": driver}))
"""

T4: dict[str, Any] = {
    "index": 0,
    "name": "Tesla T4",
    "memory_bytes": 15360 * MIB,
    "uuid": "GPU-d37e67a5-91dd-3774-a5cb-99096249601a",
    "vendor": "nvidia",
    "compute_capability": "7.5",
    "driver_cuda": "12.2",
    "pcie": "gen3 x8",
    "ecc": True,
    "mig": None,
    "slices": [],
    "power_limit_w": 70.0,
    "max_sm_clock_mhz": 1590,
    "max_memory_clock_mhz": 5001,
}

OPTIONAL = {
    "nvmlDeviceGetUUID": ("uuid",),
    "nvmlDeviceGetMemoryInfo": ("memory_bytes",),
    "nvmlDeviceGetCudaComputeCapability": ("compute_capability",),
    "nvmlSystemGetCudaDriverVersion": ("driver_cuda",),
    "nvmlDeviceGetMaxPcieLinkGeneration": ("pcie",),
    "nvmlDeviceGetEccMode": ("ecc",),
    "nvmlDeviceGetMigMode": ("mig",),
    "nvmlDeviceGetEnforcedPowerLimit": ("power_limit_w",),
    "nvmlDeviceGetMaxClockInfo": ("max_sm_clock_mhz", "max_memory_clock_mhz"),
}
"""Each function, and the fields that are None without it."""


def test_each_card_has_its_whole_fingerprint() -> None:
    found = beside(READ)
    assert found["driver"] == "535.54.03"
    assert found["gpus"] == [
        T4,
        {
            **T4,
            "index": 1,
            "name": "NVIDIA GeForce RTX 3080",
            "memory_bytes": 10240 * MIB,
            "uuid": "GPU-19d6d965-2acc-f646-00f8-4c76979aabb4",
            "compute_capability": "8.6",
            "pcie": "gen4 x16",
            "ecc": None,
            "power_limit_w": 320.0,
            "max_sm_clock_mhz": 2100,
            "max_memory_clock_mhz": 9501,
        },
    ]


def test_a_card_in_mig_mode_has_its_slices() -> None:
    (gpu,) = beside(READ, STANDIN_CARDS="0")["gpus"]
    assert (gpu["mig"], gpu["ecc"], gpu["power_limit_w"]) == (True, True, 500.0)
    assert [piece["index"] for piece in gpu["slices"]] == [0, 1, 2, 3]
    assert gpu["slices"][1] == {
        "index": 1,
        "name": "NVIDIA A100-SXM4-80GB MIG 1g.20gb",
        "memory_bytes": 19968 * MIB,
        "uuid": "MIG-22222222-aaaa-5000-8000-000000000000",
        "gpu_instance": 4,
        "compute_instance": 0,
    }


def test_a_card_whose_slices_cannot_be_counted_has_none() -> None:
    found = beside(READ, STANDIN_CARDS="0", STANDIN_FAIL="nvmlDeviceGetMaxMigDeviceCount=3")
    assert (found["gpus"][0]["mig"], found["gpus"][0]["slices"]) == (True, [])


def test_a_driver_without_the_functions_leaves_their_fields_empty() -> None:
    (gpu,) = beside(READ, missing=sorted(OPTIONAL), STANDIN_CARDS="1")["gpus"]
    assert gpu == {**T4, **{name: None for names in OPTIONAL.values() for name in names}}


@pytest.mark.parametrize(
    ("failing", "link"),
    [
        (["nvmlDeviceGetMaxPcieLinkWidth"], "gen3 x8"),
        (["nvmlDeviceGetCurrPcieLinkWidth"], "gen3 x16"),
        (["nvmlDeviceGetCurrPcieLinkWidth", "nvmlDeviceGetMaxPcieLinkWidth"], None),
    ],
)
def test_the_lanes_in_use_count_and_else_those_there_are(
    failing: list[str], link: str | None
) -> None:
    (gpu,) = beside(READ, STANDIN_CARDS="1", missing=failing)["gpus"]
    assert gpu == {**T4, "pcie": link}


@pytest.mark.parametrize("function", OPTIONAL)
def test_a_function_that_fails_leaves_its_own_fields_empty_alone(function: str) -> None:
    (gpu,) = beside(READ, STANDIN_CARDS="1", STANDIN_FAIL=f"{function}=3")["gpus"]
    assert gpu == {**T4, **dict.fromkeys(OPTIONAL[function])}


EVERY_ERROR = """
import json, os
import pynvml
from convmark.machine.gpu.devices import read_gpus
codes = sorted(
    value for name, value in vars(pynvml).items()
    if name.startswith("NVML_ERROR_") and isinstance(value, int)
)
found = {}
for code in codes:
    os.environ["STANDIN_FAIL"] = os.environ["FUNCTION"] + f"={code}"
    gpus, driver = read_gpus(pynvml)
    found[code] = [[gpu.name for gpu in gpus], driver]
print(json.dumps(found))
"""
NOTHING: list[Any] = [[], None]


@pytest.mark.parametrize(
    ("function", "left"),
    [
        ("nvmlInitWithFlags", NOTHING),
        ("nvmlDeviceGetCount_v2", NOTHING),
        ("nvmlDeviceGetHandleByIndex_v2", [[], "535.54.03"]),
        ("nvmlDeviceGetName", [["unknown GPU", "unknown GPU"], "535.54.03"]),
        ("nvmlSystemGetDriverVersion", [["Tesla T4", "NVIDIA GeForce RTX 3080"], None]),
        ("nvmlShutdown", [["Tesla T4", "NVIDIA GeForce RTX 3080"], "535.54.03"]),
    ],
)
def test_no_error_of_nvml_is_an_error_of_ours(function: str, left: list[Any]) -> None:
    found = beside(EVERY_ERROR, FUNCTION=function)
    assert len(found) > 25
    assert all(said == left for said in found.values()), found


def test_numbers_at_the_end_of_their_range_read_as_not_known() -> None:
    gpu, _ = beside(READ, STANDIN_LIMITS=1)["gpus"]
    assert gpu == {
        **T4,
        "memory_bytes": None,
        "pcie": None,
        "power_limit_w": None,
        "max_sm_clock_mhz": None,
        "max_memory_clock_mhz": None,
    }


def test_slices_are_not_sought_beyond_a_sane_number_of_them() -> None:
    (gpu,) = beside(READ, STANDIN_CARDS="0", STANDIN_LIMITS=1)["gpus"]
    assert gpu["slices"] == []


def test_a_machine_is_named_after_its_cards() -> None:
    code = """
import json
from convmark.machine.hardware import read_machine
machine = read_machine()
print(json.dumps([machine.name, machine.driver, len(machine.gpus)]))
"""
    name, driver, count = beside(code)
    assert "nvidia-geforce-rtx-3080-tesla-t4" in name
    assert (driver, count) == ("535.54.03", 2)
