"""The table of what the cards did while a run was measured on them."""

from __future__ import annotations

from typing import Any

from rows import row
from test_summary import cells

from convmark.core.table import plain
from convmark.report.summary import cards
from convmark.results.record import Record

NAME = "lenet5-train-gpu:0-b32-float32"


def on_card(process: int = 1, **changes: Any) -> Record:
    figures = {
        "device": "gpu:0",
        "gpu_samples": 50,
        "sm_clock_mhz": 1275.0,
        "max_sm_clock_mhz": 1410,
        "memory_clock_mhz": 1593.0,
        "max_memory_clock_mhz": 1593,
        "temperature_c": 61.0,
        "power_w": 312.4,
        "power_limit_w": 400.0,
        "gpu_utilisation": 0.87,
        "efficiency": 0.312,
        "input_bound_throughput_samples_per_s": 8000.0,
        "joules_per_sample": 0.00171,
        "peak_device_memory_bytes": 3 << 30,
        "card_peak_memory_bytes": 5 << 30,
        "throttle_reasons": "none",
    }
    return row(process=process, **{**figures, **changes})


def test_each_case_says_the_clock_reached_and_what_lowered_it() -> None:
    (found,) = cells(plain(*cards([on_card(throttle_reasons="idle power_cap")])))
    assert found == {
        "case": NAME,
        "SM MHz": "1275 of 1410",
        "memory MHz": "1593 of 1593",
        "degrees C": "61",
        "card W": "312 of 400",
        "busy": "87%",
        "of ceiling": "31.2 %",
        "fed samples/s": "8000",
        "card mJ/sample": "1.71",
        "allocator": "3.00 GiB",
        "card": "5.00 GiB",
        "clock lowered by": "idle power_cap",
    }


def test_figures_are_medians_over_processes_and_reasons_those_of_all() -> None:
    records = [
        on_card(1, sm_clock_mhz=1000.0, throttle_reasons="power_cap"),
        on_card(2, sm_clock_mhz=1200.0, throttle_reasons="none"),
        on_card(3, sm_clock_mhz=1100.0, throttle_reasons="idle power_cap"),
        on_card(4, status="error", sm_clock_mhz=1.0, throttle_reasons="sync_boost"),
    ]
    (found,) = cells(plain(*cards(records)))
    assert (found["SM MHz"], found["clock lowered by"]) == ("1100 of 1410", "power_cap idle")


def test_what_no_card_tells_has_no_column_and_a_run_without_cards_no_table() -> None:
    silent = dict.fromkeys(("power_w", "joules_per_sample", "throttle_reasons"))
    (found,) = cells(plain(*cards([on_card(max_sm_clock_mhz=None, **silent)])))
    assert not {"W", "mJ/sample", "clock lowered by"} & found.keys()
    assert found["SM MHz"] == "1275"
    assert cards([row(), on_card(status="crashed")]) == []
