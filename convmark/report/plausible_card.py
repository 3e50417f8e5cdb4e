"""Whether a row can have been measured on its card; see `plausible`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from convmark.core.statistics import is_known

Row = Mapping[str, Any]
Found = Iterator[tuple[str, str]]

SAME = 1.01
"""Of figures that follow from each other."""

MOST_CARD_W = 3_000

HOTTEST_C = 120
"""Cards switch themselves off below this."""

FASTEST_MHZ, FASTEST_MEMORY_MHZ = 5_000, 20_000
"""Of the fastest cards of 2025 2,600 and 15,000."""

POWER_APART = 1.1
"""A mean power from the limit that the card enforces."""

IDLE_APART = 1.5
"""Idle power from the power of the steps: a card in use draws more, whatever it does."""

FIRST_TF32 = 8.0
"""Compute capability.

Source:
    NVIDIA, "CUDA C++ Programming Guide", compute capabilities: TF32 from 8.0 (Ampere) on.
"""


_OF_CARDS = (
    *("sm_clock_mhz", "memory_clock_mhz", "temperature_c", "power_w", "joules_per_sample"),
    *("gpu_utilisation", "gpu_samples", "idle_power_w", "power_limit_w", "gpu_memory_bytes"),
    *("gpu", "gpu_uuid", "compute_capability", "driver", "driver_cuda", "pcie", "ecc", "mig"),
    *("max_sm_clock_mhz", "max_memory_clock_mhz", "card_peak_memory_bytes"),
    *("foreign_gpu_processes", "foreign_graphics_processes"),
)
_LIMITS = (
    ("sm_clock_mhz", "max_sm_clock_mhz", SAME, False),
    ("memory_clock_mhz", "max_memory_clock_mhz", SAME, False),
    ("power_w", "power_limit_w", POWER_APART, True),
    ("idle_power_w", "power_limit_w", POWER_APART, True),
    ("idle_power_w", "power_w", IDLE_APART, False),
    ("peak_device_memory_bytes", "gpu_memory_bytes", SAME, True),
    ("card_peak_memory_bytes", "gpu_memory_bytes", SAME, False),
)
"""A figure, what it is at most, the factor beyond that passes, and whether it is of all cards."""
_GIGABYTES = re.compile(r"(?<![0-9.])([0-9]{1,3}) ?GB\b")
"""The memory in a card's name; a Grace Hopper's has that of its CPU too, so it may be less."""


def of_card(row: Row) -> Found:
    """Yield what a card cannot do, or what no row without one has."""
    if row["device"] == "cpu":
        if others := [name for name in _OF_CARDS if is_known(row[name])]:
            yield "contradicts", f"{others[0]} {row[others[0]]}, of a card, and the device is cpu"
        return
    figures = {**row, "energy": row["joules_per_sample"] * row["throughput_samples_per_s"]}
    limits = (*_LIMITS, ("energy", "power_limit_w", POWER_APART, True))
    for name, limit, apart, of_all in limits:
        most = row[limit] * apart * (row["replicas"] if of_all else 1)
        if is_known(figures[name]) and is_known(row[limit]) and figures[name] > most:
            words = "joules_per_sample x throughput" if name == "energy" else name
            yield "ceiling", f"{words} {figures[name]:.4g}, {limit} is {row[limit]:.4g}"
    for name, highest in (("power_limit_w", MOST_CARD_W), ("max_sm_clock_mhz", FASTEST_MHZ),
                          ("max_memory_clock_mhz", FASTEST_MEMORY_MHZ)):  # fmt: skip
        if row[name] > highest:
            yield "ceiling", f"{name} {row[name]:.4g}, at most {highest} are plausible"
    if row["temperature_c"] > HOTTEST_C or row["temperature_c"] < 0:
        yield "ceiling", f"temperature_c {row['temperature_c']:.4g}, 0 to {HOTTEST_C} are plausible"
    capability = row["compute_capability"] or ""
    is_told = re.fullmatch(r"[0-9]{1,2}\.[0-9]", capability)
    if row["precision"] == "tf32" and is_told and float(capability) < FIRST_TF32:
        words = f"tf32 on compute capability {capability}"
        yield "contradicts", f"{words}, it begins with {FIRST_TF32}"
    named = _GIGABYTES.search(row["gpu"] or "")
    if named and row["mig"] in (None, "", "off") and is_known(row["gpu_memory_bytes"]):
        own = row["gpu_memory_bytes"]
        if own > SAME * int(named[1]) * 2**30:
            yield "contradicts", f"gpu_memory_bytes {own:.4g}, of a card named {row['gpu']}"
