"""Whether the instruments tell the truth on a device.

A step's sync waits for the device, the allocator's peak grows by what is allocated, and the energy
counter agrees with the power that was sampled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from convmark.core.units import bytes_text, seconds_text
from convmark.results.record import Record

__all__ = ["Proof", "energy_proof", "instrument_proofs"]

LEAST_SYNC_SHARE = 0.8
"""A step that waits for the device takes no less than a step of many with one sync at the end; the
rest is noise."""
ALLOCATION_SHARE = 0.02
ENERGY_SHARE = 0.25
"""Counter and power are renewed at different times, and the power is of steps and rounds too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """One instrument, what was read, and whether it can be trusted; None where it does not tell."""

    subject: str
    finding: str
    sound: bool | None


def instrument_proofs(events: Mapping[str, Mapping[str, Any]]) -> list[Proof]:
    """Return what the probe's events, with its case, prove of the sync and of the peak."""
    times = events["synchronised"]
    allocation = events["allocation"]
    asked, held = allocation["asked_bytes"], allocation["held_bytes"]
    return [
        Proof(
            subject="sync",
            finding=f"{events['case']['model']} training step "
            f"{seconds_text(times['synchronised_s'])} synchronised, "
            f"{seconds_text(times['unsynchronised_s'])} not, "
            f"{seconds_text(times['window_s'])} in a window",
            sound=times["synchronised_s"] >= LEAST_SYNC_SHARE * times["window_s"],
        ),
        Proof(
            subject="peak memory",
            finding=f"{bytes_text(asked)} allocated, "
            + (f"peak grew by {bytes_text(held)}" if held is not None else "no peak is counted"),
            sound=None if held is None else abs(held - asked) <= ALLOCATION_SHARE * asked,
        ),
    ]


def energy_proof(record: Record) -> Proof | None:
    """Return whether the row's energy and power agree; None where it has not both."""
    energy, rate, power_w = (
        record.joules_per_sample,
        record.throughput_samples_per_s,
        record.power_w,
    )
    if energy is None or rate is None or not power_w:
        return None
    return Proof(
        subject="energy",
        finding=f"{record.case.name}: {energy * rate:.1f} W by the counter, "
        f"{power_w:.1f} W by samples of the power",
        sound=abs(energy * rate / power_w - 1) <= ENERGY_SHARE,
    )
