"""The card's state while a case is measured, through a stand-in for the driver's library."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from nvml_standin import beside, needs_compiler

from convmark.machine.gpu.cards import watching
from convmark.machine.gpu.devices import Card, Gpu
from convmark.machine.gpu.sampler import Sample, Sampler, union

MIB = 2**20

WATCH = """
import json, os, time
from pathlib import Path
from convmark.machine.gpu.devices import read_gpus
from convmark.machine.gpu.devices import load_nvml
from convmark.machine.gpu.cards import cards_of
from convmark.machine.gpu.cards import watching

SAY = json.loads(os.environ["EVENTS"])
gpus, _ = read_gpus(load_nvml())
devices = os.environ.get("DEVICES", "gpu:0").split()
cards = cards_of(devices, gpus, os.environ)
times = {}
processes = Path(os.environ.get("STANDIN_COMPUTE", os.devnull))
fresh = "RESIDENT" not in os.environ

def wait_for_looks(number):
    # a look that has begun may not count, and the last one not yet
    every = [card._sampler.every for card in watch._cards]
    wanted, until = [len(one) + number + 2 for one in every], time.monotonic() + 60
    while any(len(one) < least for one, least in zip(every, wanted)):
        assert time.monotonic() < until
        time.sleep(0.001)

with watching(cards, fresh=fresh, period_s=0.01, own=lambda: frozenset([7, os.getpid()])) as watch:
    for event in SAY:
        if event["event"] == "sleep":
            time.sleep(event["seconds"])
        elif event["event"] == "looks":
            wait_for_looks(event["number"])
        elif event["event"] == "on the card":
            processes.write_text(" ".join(map(str, event["ids"])))
        else:
            watch.see(event)
            times[event["event"]] = time.monotonic()
windows_s = times.get("windows", 0) - times.get("phase", 0)
print(json.dumps({**watch.columns(32 * len(devices)), "windows_s": windows_s}))
"""


def sleep(seconds: float) -> dict[str, Any]:
    return {"event": "sleep", "seconds": seconds}


MEASURED = [
    sleep(0.05),
    {"event": "warm_up", "steps": 10, "steady": True},
    {"event": "steps", "times_s": [0.01]},
    {"event": "phase", "phase": "windows"},
    sleep(0.3),
    {"event": "windows", "steps": 5, "times_s": [0.2] * 5, "run_steps": 25},
    sleep(0.1),
    {"event": "rounds"},
    sleep(0.05),
]
"""Long enough for the energy of its windows to be known to a twentieth."""


def looks(number: int) -> dict[str, Any]:
    return {"event": "looks", "number": number}


SHORT = [dict(event) for event in MEASURED if event["event"] != "sleep"]
SHORT.insert(3, looks(6))


def watched(said: list[dict[str, Any]] = SHORT, **variables: object) -> dict[str, Any]:
    found = with_energy_s(said, **variables)
    del found["windows_s"]
    return found


def with_energy_s(said: list[dict[str, Any]] = MEASURED, **variables: object) -> dict[str, Any]:
    """Return the columns, and the seconds over which energy was counted."""
    found: dict[str, Any] = beside(WATCH, EVENTS=json.dumps(said), **variables)
    return found


@needs_compiler
def test_a_measured_case_has_the_card_s_state() -> None:
    found = with_energy_s(STANDIN_CARDS="2")
    assert found.pop("gpu_samples") > 10
    energy_j = 139.62 * found.pop("windows_s")  # the recorded power over the time that passed
    assert found.pop("joules_per_sample") == pytest.approx(energy_j / (25 * 32), rel=0.05)
    assert found == {
        "sm_clock_mhz": 1950.0,
        "memory_clock_mhz": 9251.0,
        "temperature_c": 27.0,
        "power_w": pytest.approx(139.62),
        "gpu_utilisation": pytest.approx(0.65),
        "throttle_reasons": "none",
        "foreign_gpu_processes": None,
        "foreign_graphics_processes": 0,
        "card_peak_memory_bytes": (9184 + 397) * MIB,
        "not_judged": None,
    }


GROWING = """
import json, os, time
from pathlib import Path
from convmark.machine.gpu.devices import Card, load_nvml, read_gpus
from convmark.machine.gpu.cards import watching

used, found = Path(os.environ["STANDIN_USED"]), []
gpus, _ = read_gpus(load_nvml())
with watching([Card(gpu=gpu) for gpu in gpus], period_s=0.01) as watch:
    def looked():
        while (seen := watch.since_last()["card_memory_bytes"]) is None:
            time.sleep(0.005)
        return seen

    for mib in (1000, 1000, 1200):
        used.write_text(str(mib))
        watch.since_last()
        looked()  # its look at the card may have begun before
        found.append(looked())
print(json.dumps(found))
"""


@needs_compiler
def test_the_memory_in_use_on_all_cards_is_known_for_each_interval(tmp_path: Path) -> None:
    path = tmp_path / "used"
    path.write_text("1000")
    found = beside(GROWING, STANDIN_CARDS="1,2", STANDIN_USED=path)
    assert found == [2000 * MIB, 2000 * MIB, 2400 * MIB]


@needs_compiler
def test_energy_is_over_all_steps_between_the_windows_begin_and_end() -> None:
    said = [dict(event) for event in MEASURED]
    said[5]["run_steps"] = 50
    found = with_energy_s(said, STANDIN_CARDS="1")
    energy_j = 26.78 * found["windows_s"]
    assert found["joules_per_sample"] == pytest.approx(energy_j / (50 * 32), rel=0.05)


@needs_compiler
def test_throttle_reasons_are_the_or_of_all_samples() -> None:
    found = watched(STANDIN_REASONS="0,4,0,20,1")
    assert found["throttle_reasons"] == "idle power_cap software_thermal"
    assert found["not_judged"] == "the card was slowed (software_thermal)"


@needs_compiler
def test_a_card_is_watched_while_its_ceilings_are_measured() -> None:
    ceilings = [{"event": "phase", "phase": "ceilings"}, looks(3), {"event": "product"},
                {"event": "copy"}]  # fmt: skip
    assert watched(ceilings, STANDIN_REASONS="40")["throttle_reasons"] == "hardware_thermal"


@needs_compiler
def test_a_power_cap_alone_is_recorded_and_judged() -> None:
    found = watched(STANDIN_REASONS="4")
    assert (found["throttle_reasons"], found["not_judged"]) == ("power_cap", None)


@needs_compiler
def test_what_happens_outside_the_measuring_does_not_count() -> None:
    found = watched([looks(3), {"event": "warm_up"}, {"event": "rounds"}], STANDIN_REASONS="20")
    assert (found["gpu_samples"], found["throttle_reasons"]) == (0, None)
    assert found["not_judged"] is found["joules_per_sample"] is found["power_w"] is None
    assert found["card_peak_memory_bytes"] == (1032 + 388) * MIB


def company(during: list[int]) -> list[dict[str, Any]]:
    return [{"event": "on the card", "ids": during}, *SHORT[:2], looks(3), SHORT[-1]]


@needs_compiler
@pytest.mark.parametrize(
    ("before", "during", "strangers"),
    [
        ([], [7], 0),
        ([], [7, 8], 1),
        ([8], [8, 7], 1),
        ([8], [7], 0),
        ([8, 9], [8, 9], 2),
        ([], [4242], 0),
        ([], [4242, 4243], 1),
        ([41], [41, 4242], 1),
        ([8], [], None),
    ],
)
def test_processes_not_the_run_s_own_are_counted(
    before: list[int], during: list[int], strangers: int | None, tmp_path: Path
) -> None:
    file = tmp_path / "compute"
    file.write_text(" ".join(map(str, before)))
    found = watched(company(during), STANDIN_COMPUTE=file)
    assert found["foreign_gpu_processes"] == strangers
    assert (found["not_judged"] is None) == (not strangers)


@needs_compiler
@pytest.mark.parametrize(("resident", "strangers"), [({}, 1), ({"RESIDENT": 1}, 0)])
def test_a_worker_that_serves_many_cases_is_no_stranger_where_its_id_is_the_host_s(
    resident: dict[str, object], strangers: int, tmp_path: Path
) -> None:
    file = tmp_path / "compute"
    file.write_text("4242")
    found = watched(company([4242]), STANDIN_COMPUTE=file, **resident)
    assert found["foreign_gpu_processes"] == strangers


@needs_compiler
@pytest.mark.parametrize(("workers", "strangers"), [(1, 2), (2, 1), (3, 0), (4, 0)])
def test_where_ids_are_the_host_s_as_many_newcomers_are_the_run_s_as_it_has_workers(
    workers: int, strangers: int, tmp_path: Path
) -> None:
    found = watched(
        company([4242, 4243, 4244]),
        STANDIN_COMPUTE=tmp_path / "compute",
        DEVICES=" ".join(["gpu:0"] * workers),
    )
    assert found["foreign_gpu_processes"] == strangers


REPLICAS = {"DEVICES": "gpu:0 gpu:1", "STANDIN_CARDS": "1,2"}


@needs_compiler
def test_replicas_have_the_state_of_all_their_cards(tmp_path: Path) -> None:
    found = with_energy_s(**REPLICAS)
    assert found.pop("gpu_samples") > 10
    energy_j = (26.78 + 139.62) * found.pop("windows_s")
    assert found.pop("joules_per_sample") == pytest.approx(energy_j / (25 * 64), rel=0.05)
    assert found == {
        "sm_clock_mhz": 585.0,
        "memory_clock_mhz": 5000.0,
        "temperature_c": 40.0,
        "power_w": pytest.approx(26.78 + 139.62),
        "gpu_utilisation": pytest.approx(0.325),
        "throttle_reasons": "none",
        "foreign_gpu_processes": None,
        "foreign_graphics_processes": 0,
        "card_peak_memory_bytes": (9184 + 397) * MIB,
        "not_judged": None,
    }


@needs_compiler
def test_one_hot_card_is_enough_for_replicas_not_to_be_judged(tmp_path: Path) -> None:
    found = watched(STANDIN_REASONS="4,40", **REPLICAS)
    assert found["throttle_reasons"] == "power_cap hardware_thermal"
    assert found["not_judged"] == "the card was slowed (hardware_thermal)"


@needs_compiler
def test_a_stranger_on_two_cards_is_one(tmp_path: Path) -> None:
    file = tmp_path / "compute"
    file.write_text("")
    found = watched(company([7, 8]), STANDIN_COMPUTE=file, **REPLICAS)
    assert found["foreign_gpu_processes"] == 1


@needs_compiler
def test_many_processes_are_counted_to_the_last(tmp_path: Path) -> None:
    file = tmp_path / "compute"
    file.write_text("")
    found = watched(company(list(range(7, 107))), STANDIN_COMPUTE=file)
    assert found["foreign_gpu_processes"] == 99
    assert found["not_judged"] == "99 processes not the run's own used the card"


@needs_compiler
def test_a_desktop_on_the_card_is_recorded_and_the_row_judged(tmp_path: Path) -> None:
    file = tmp_path / "graphics"
    file.write_text("900 901")
    found = watched(STANDIN_GRAPHICS=file)
    assert (found["foreign_graphics_processes"], found["not_judged"]) == (2, None)


@needs_compiler
def test_a_slice_has_the_whole_card_s_clocks_and_its_own_memory() -> None:
    uuid = "MIG-33333333-aaaa-5000-8000-000000000000"
    found = watched(STANDIN_CARDS="0", CUDA_VISIBLE_DEVICES=uuid)
    assert (found["sm_clock_mhz"], found["power_w"]) == (1275.0, pytest.approx(67.03))
    assert found["card_peak_memory_bytes"] == 12 * MIB
    assert found["gpu_utilisation"] is None
    assert found["joules_per_sample"] is None, "the counter is of the whole card"


STATE = {
    "nvmlDeviceGetClockInfo": ("sm_clock_mhz", "memory_clock_mhz"),
    "nvmlDeviceGetTemperature": ("temperature_c",),
    "nvmlDeviceGetPowerUsage": ("power_w",),
    "nvmlDeviceGetUtilizationRates": ("gpu_utilisation",),
    "nvmlDeviceGetMemoryInfo": ("card_peak_memory_bytes",),
    "nvmlDeviceGetTotalEnergyConsumption": ("joules_per_sample",),
    "nvmlDeviceGetGraphicsRunningProcesses_v3": ("foreign_graphics_processes",),
}


@needs_compiler
@pytest.mark.parametrize("function", STATE)
def test_a_function_that_fails_leaves_its_own_columns_empty_alone(function: str) -> None:
    found = watched(STANDIN_FAIL=f"{function}=15")
    assert {name for name, value in found.items() if value is None} == {
        *STATE[function],
        *("foreign_gpu_processes", "not_judged"),
    }


@needs_compiler
@pytest.mark.parametrize(
    ("missing", "reasons"),
    [
        (["nvmlDeviceGetCurrentClocksEventReasons"], "power_cap"),
        (["nvmlDeviceGetCurrentClocksThrottleReasons"], "power_cap"),
        (
            [
                "nvmlDeviceGetCurrentClocksEventReasons",
                "nvmlDeviceGetCurrentClocksThrottleReasons",
            ],
            None,
        ),
    ],
)
def test_reasons_are_asked_for_by_their_old_name_too(
    missing: list[str], reasons: str | None
) -> None:
    found = watched(missing=missing, STANDIN_REASONS="4")
    assert found["throttle_reasons"] == reasons


@needs_compiler
def test_processes_are_asked_for_by_their_old_name_too(tmp_path: Path) -> None:
    file = tmp_path / "compute"
    file.write_text("")
    missing = ["nvmlDeviceGetComputeRunningProcesses_v3"]
    found = watched(company([7, 8]), missing=missing, STANDIN_COMPUTE=file)
    assert found["foreign_gpu_processes"] == 1
    found = watched(company([7]), missing=[*missing, f"{missing[0][:-1]}2"])
    assert (found["foreign_gpu_processes"], found["not_judged"]) == (None, None)


@needs_compiler
def test_numbers_at_the_end_of_their_range_read_as_not_known() -> None:
    found = watched(STANDIN_LIMITS=1)
    known = {name for name, value in found.items() if value is not None}
    assert known == {
        *("gpu_samples", "throttle_reasons", "not_judged"),
        "foreign_graphics_processes",
    }


@needs_compiler
@pytest.mark.parametrize("function", ["nvmlInitWithFlags", "nvmlDeviceGetHandleByIndex_v2"])
def test_a_card_that_is_lost_between_fingerprint_and_case_leaves_all_empty(function: str) -> None:
    lost = f'os.environ["STANDIN_FAIL"] = "{function}=15"'
    code = WATCH.replace("with watching", f"{lost}\nwith watching")
    found = beside(code, EVENTS=json.dumps(SHORT))
    assert set(found) == {"windows_s"}


@needs_compiler
def test_events_that_are_garbled_or_missing_leave_the_energy_empty() -> None:
    for steps in (None, 0, -1, "many", [5]):
        said = [{**event, "run_steps": steps} for event in SHORT]
        assert watched(said)["joules_per_sample"] is None
    without_begin = [event for event in SHORT if event["event"] != "phase"]
    assert watched(without_begin)["joules_per_sample"] is None


@pytest.mark.parametrize("vendor", ["amd", "apple"])
def test_a_card_of_another_maker_and_the_cpu_are_not_watched(vendor: str) -> None:
    gpu = Gpu(index=0, name="MI300X", memory_bytes=None, uuid=None, vendor=vendor)
    for cards in ((), [Card(gpu=gpu)]):
        with watching(cards, nvml=lambda: pytest.fail("asked")) as watch:
            watch.see({"event": "warm_up"})
        assert watch.columns(32) == {}


def test_the_sampler_ends_with_its_block_and_keeps_what_it_saw_while_measuring() -> None:
    sampler = Sampler(lambda: Sample(power_w=1.0), period_s=0.001)
    sampler.start()
    while len(sampler.every) < 3:
        time.sleep(0.001)
    assert sampler.measured == []
    sampler.measuring = True
    while len(sampler.measured) < 3:
        time.sleep(0.001)
    sampler.stop()
    seen = len(sampler.every)
    time.sleep(0.02)
    assert len(sampler.every) == seen


def test_samples_are_summed_up_by_hand() -> None:
    samples = [
        Sample(sm_clock_mhz=1000, temperature_c=50, power_w=100.0, utilisation=0.5, reasons=0x4,
               used_bytes=100),
        Sample(sm_clock_mhz=1200, temperature_c=70, power_w=200.0, utilisation=1.0, reasons=0x20,
               used_bytes=200),
        Sample(sm_clock_mhz=1900, temperature_c=60, compute=frozenset([1])),
        Sample(compute=frozenset([2])),
    ]  # fmt: skip
    assert union(samples) == {
        "sm_clock_mhz": 1200.0,
        "memory_clock_mhz": None,
        "temperature_c": 70.0,
        "power_w": 150.0,
        "gpu_utilisation": 0.75,
        "used_bytes": 150,
        "reasons": 0x24,
        "compute": frozenset([1, 2]),
        "graphics": None,
    }
    assert set(union([]).values()) == {None}
