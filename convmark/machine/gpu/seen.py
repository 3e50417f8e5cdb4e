"""Summarises the samples of a case's GPUs: the columns of its row.

A case of several replicas is as slow as its slowest card, and disturbed where any of them is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from statistics import mean
from typing import Any

__all__ = ["SLOWED", "Seen", "card_state_columns", "reason_names", "why_not_judged"]

# Source: NVML API reference, "Clocks Event Reasons"; the old name is throttle reasons.
_NAMES = (
    (0x001, "idle"),
    (0x002, "application_clocks"),
    (0x004, "power_cap"),
    (0x008, "hardware_slowdown"),
    (0x010, "sync_boost"),
    (0x020, "software_thermal"),
    (0x040, "hardware_thermal"),
    (0x080, "hardware_power_brake"),
    (0x100, "display_clocks"),
)

SLOWED = frozenset(
    {"hardware_slowdown", "software_thermal", "hardware_thermal", "hardware_power_brake"}
)
"""Heat, or a brake that the hardware pulled: a run under them says nothing of the code. A power cap
is how a card works under full load, and idling and set clocks are the user's own."""


def reason_names(bits: int) -> tuple[str, ...]:
    """Return the names of the bits that are set; one without a name as `bit_0x200`."""
    known = 0
    names = []
    for bit, name in _NAMES:
        known |= bit
        if bits & bit:
            names.append(name)
    rest = bits & ~known
    while rest:
        lowest = rest & -rest
        names.append(f"bit_{lowest:#x}")
        rest &= ~lowest
    return tuple(names)


def why_not_judged(reasons: tuple[str, ...], foreign_processes: int | None) -> str | None:
    """Return in one line why a row's figures are no ground for a verdict, None where they are."""
    said = []
    slowed = [name for name in reasons if name in SLOWED]
    if slowed:
        said.append(f"the card was slowed ({', '.join(slowed)})")
    if foreign_processes:
        plural = "es" if foreign_processes > 1 else ""
        said.append(f"{foreign_processes} process{plural} not the run's own used the card")
    return "; ".join(said) or None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was seen of one card; None where the driver does not tell."""

    samples: int
    """Looks at it while the case was timed."""
    figures: Mapping[str, Any]
    """Clocks in MHz, temperature, power and utilisation, by the names of their columns."""
    reasons: int | None
    """Bits of why its clock was lowered, of all looks."""
    strangers: frozenset[int] | None
    """Processes that computed on it and are not the run's own."""
    drawing: frozenset[int] | None
    """Those that drew."""
    spent_j: float | None
    """Energy over the windows."""
    steps: int | None
    """Steps of the windows."""
    peak_bytes: int | None
    """Highest memory in use, by everybody."""


def card_state_columns(cards: Sequence[Seen], samples_per_step: int) -> dict[str, Any]:
    """Return the row's columns of the state of its cards, none where there are none.

    Of several cards the lowest clocks count, the highest temperature and memory in use, the sum of
    power and energy, and all that any of them has been slowed by or shared with.

    Args:
        samples_per_step: of all the cards together.
    """
    if not cards:
        return {}
    reasons = _any_of((card.reasons for card in cards), or_)
    names = reason_names(reasons or 0)
    strangers = _any_of((card.strangers for card in cards), or_)
    drawing = _any_of((card.drawing for card in cards), or_)
    count = None if strangers is None else len(strangers)
    return {
        **{name: _all_of(cards, name, how) for name, how in _FIGURES.items()},
        "gpu_samples": min(card.samples for card in cards),
        "throttle_reasons": None if reasons is None else " ".join(names) or "none",
        "joules_per_sample": _energy_per_sample(cards, samples_per_step),
        "foreign_gpu_processes": count,
        "foreign_graphics_processes": None if drawing is None else len(drawing),
        "card_peak_memory_bytes": _any_of((card.peak_bytes for card in cards), max),
        "not_judged": why_not_judged(names, count),
    }


_FIGURES: Mapping[str, Callable[[list[float]], float]] = {
    "sm_clock_mhz": min,
    "memory_clock_mhz": min,
    "temperature_c": max,
    "power_w": sum,
    "gpu_utilisation": mean,
}


def _any_of(values: Iterable[Any], how: Callable[[Any, Any], Any]) -> Any:
    """Return what the known values amount to, None where none is known."""
    known = [value for value in values if value is not None]
    return reduce(how, known) if known else None


def _all_of(cards: Sequence[Seen], name: str, how: Callable[[list[float]], float]) -> float | None:
    """Return what a figure of all cards amounts to, None where one of them does not tell."""
    values = [card.figures.get(name) for card in cards]
    known = [value for value in values if value is not None]
    return how(known) if len(known) == len(values) else None


def _energy_per_sample(cards: Sequence[Seen], samples_per_step: int) -> float | None:
    total_j = 0.0
    for card in cards:
        if card.spent_j is None or card.steps is None:
            return None
        total_j += card.spent_j / (card.steps * samples_per_step)
    return total_j
