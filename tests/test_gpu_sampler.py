"""Reasons for a lower clock, who else is on a card, and what the samples of cards amount to."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from convmark.machine.gpu.sampler import (
    Seen,
    card_state_columns,
    foreign,
    own_processes,
    reason_names,
    why_not_judged,
)


@pytest.mark.parametrize(
    ("bits", "names"),
    [
        (0, ()),
        (0x1, ("idle",)),
        (0x4, ("power_cap",)),
        (0x48, ("hardware_slowdown", "hardware_thermal")),
        (0x200, ("bit_0x200",)),
        (0x8000_0000_0000_0020, ("software_thermal", "bit_0x8000000000000000")),
    ],
)
def test_bits_have_names(bits: int, names: tuple[str, ...]) -> None:
    assert reason_names(bits) == names


def test_all_bits_at_once_have_as_many_names() -> None:
    assert len(set(reason_names(2**64 - 1))) == 64


@pytest.mark.parametrize("bit", [0x8, 0x20, 0x40, 0x80])
def test_heat_and_the_hardware_s_brakes_forbid_a_verdict(bit: int) -> None:
    (name,) = reason_names(bit)
    assert why_not_judged((name,), 0) == f"the card was slowed ({name})"


@pytest.mark.parametrize("bit", [0x1, 0x2, 0x4, 0x10, 0x100, 0x200])
def test_a_power_cap_idling_and_set_clocks_do_not(bit: int) -> None:
    assert why_not_judged(reason_names(bit), 0) is None


def test_company_on_the_card_forbids_a_verdict() -> None:
    assert why_not_judged((), 1) == "1 process not the run's own used the card"
    assert why_not_judged(("power_cap",), 2) == "2 processes not the run's own used the card"
    assert why_not_judged((), None) is None


def test_all_that_forbids_it_is_said_in_one_line() -> None:
    names = reason_names(0x48 | 0x4)
    assert why_not_judged(names, 1) == (
        "the card was slowed (hardware_slowdown, hardware_thermal); "
        "1 process not the run's own used the card"
    )


@pytest.mark.parametrize(
    ("now", "before", "expected"),
    [
        (set(), set(), set()),
        ({1}, set(), set()),
        ({1, 5}, set(), {5}),
        ({1, 5}, {5}, {5}),
        ({1}, {5}, set()),
        ({1, 2, 5, 6}, {6}, {5, 6}),
    ],
)
def test_all_but_the_run_s_own_are_foreign(
    now: set[int], before: set[int], expected: set[int]
) -> None:
    assert foreign(now, before, own={1, 2}) == expected


@pytest.mark.parametrize(
    ("now", "before", "count"),
    [
        ({90}, set(), 0),
        ({90, 91}, set(), 1),
        ({90, 91}, {90}, 1),
        ({90}, {90}, 1),
        (set(), {90}, 0),
    ],
)
def test_ids_of_the_host_are_counted_without_knowing_one_s_own(
    now: set[int], before: set[int], count: int
) -> None:
    assert len(foreign(now, before, own={1, 2})) == count


def test_own_processes_are_this_one_and_its_descendants() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert {os.getpid(), child.pid} <= own_processes()
        assert os.getppid() not in own_processes()
    finally:
        child.communicate(b"\n")
    assert child.pid not in own_processes()


FIGURES = {
    "sm_clock_mhz": 1000.0,
    "memory_clock_mhz": 5000.0,
    "temperature_c": 60.0,
    "power_w": 100.0,
    "gpu_utilisation": 0.5,
}


def seen(*, figures: dict[str, Any] | None = None, **changes: Any) -> Seen:
    fields = {
        "samples": 10,
        "reasons": 0,
        "strangers": frozenset(),
        "drawing": frozenset(),
        "spent_j": 500.0,
        "steps": 50,
        "peak_bytes": 1000,
    }
    return Seen(**{**fields, **changes, "figures": {**FIGURES, **(figures or {})}})


def test_a_case_without_cards_has_no_columns() -> None:
    assert card_state_columns([], 32) == {}


def test_one_card_is_itself() -> None:
    assert card_state_columns([seen()], 10) == {
        **FIGURES,
        "gpu_samples": 10,
        "throttle_reasons": "none",
        "joules_per_sample": 1.0,
        "foreign_gpu_processes": 0,
        "foreign_graphics_processes": 0,
        "card_peak_memory_bytes": 1000,
        "not_judged": None,
    }


def test_of_several_cards_the_slowest_the_hottest_and_the_sums_count() -> None:
    other = seen(
        figures={"sm_clock_mhz": 900.0, "temperature_c": 70.0, "power_w": 300.0,
                 "gpu_utilisation": 1.0},
        samples=7, spent_j=1500.0, steps=50, peak_bytes=2000,
    )  # fmt: skip
    found = card_state_columns([seen(), other], 20)
    assert (found["sm_clock_mhz"], found["memory_clock_mhz"]) == (900.0, 5000.0)
    assert (found["temperature_c"], found["power_w"], found["gpu_utilisation"]) == (70, 400, 0.75)
    assert found["joules_per_sample"] == pytest.approx((500 + 1500) / (50 * 20))
    assert (found["gpu_samples"], found["card_peak_memory_bytes"]) == (7, 2000)


def test_what_slows_or_shares_one_card_is_said_of_all() -> None:
    hot = seen(reasons=0x40, strangers=frozenset([8, 9]), drawing=frozenset([5]))
    capped = seen(reasons=0x4, strangers=frozenset([9]), drawing=frozenset([5]))
    for cards in ([hot, capped], [capped, hot]):
        found = card_state_columns(cards, 20)
        assert found["throttle_reasons"] == "power_cap hardware_thermal"
        assert (found["foreign_gpu_processes"], found["foreign_graphics_processes"]) == (2, 1)
        assert found["not_judged"] == (
            "the card was slowed (hardware_thermal); 2 processes not the run's own used the card"
        )


def test_a_sum_of_which_a_part_is_unknown_is_unknown_and_a_known_reason_counts() -> None:
    silent = Seen(
        samples=10, figures={}, reasons=None, strangers=None, drawing=None, spent_j=None,
        steps=None, peak_bytes=None,
    )  # fmt: skip
    found = card_state_columns([seen(reasons=0x8), silent], 20)
    assert found["power_w"] is found["joules_per_sample"] is found["sm_clock_mhz"] is None
    assert found["throttle_reasons"] == "hardware_slowdown"
    assert (found["foreign_gpu_processes"], found["card_peak_memory_bytes"]) == (0, 1000)
    assert card_state_columns([silent], 20)["throttle_reasons"] is None
