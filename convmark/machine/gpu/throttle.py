"""Why a card's clock is below what it could be: NVML's bits by name, and which forbid a verdict."""

from __future__ import annotations

__all__ = ["SLOWED", "reason_names", "why_not_judged"]

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
