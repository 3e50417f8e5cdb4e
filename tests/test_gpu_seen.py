"""What the looks at one card or several amount to, worked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from convmark.machine.gpu.sampler import Seen, card_state_columns

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
