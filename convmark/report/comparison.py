"""What machines are compared by: a reference, prices, and the speed that ranks them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from convmark.core.errors import OptionError
from convmark.core.option_values import nearest
from convmark.core.report_options import RANKS
from convmark.report.prices import Price

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What machines are compared by."""

    prices: Mapping[str, Price] = field(default_factory=lambda: MappingProxyType({}))
    """By machine, as tables name it; all in one currency."""
    reference: str = ""
    """The machine, or machine and device, that others are held against; empty for the one with the
    most cases."""
    rank: str = RANKS[0]
    """Whether machines are compared by the burst or by the sustained throughput."""


def of_machines(
    comparison: Comparison, names: Mapping[str, str], frame: pd.DataFrame
) -> Comparison:
    """Return the comparison with machines as tables name them.

    Args:
        names: of machines that a user has named, by their fingerprints.

    Raises:
        OptionError: no row is of a machine, or two prices are of one.
    """
    machines = sorted(set(frame["machine"].astype(str)))
    prices: dict[str, Price] = {}
    for machine, price in comparison.prices.items():
        name = names.get(machine, machine)
        if name not in machines:
            raise OptionError(
                f"--prices: no row is from the machine {machine!r}; {nearest(machine, machines)}"
            )
        if name in prices:
            raise OptionError(f"--prices: must have one price of {name}, got two")
        prices[name] = replace(price, machine=name)
    reference = comparison.reference
    if reference:
        machine, _, device = reference.rpartition(" ")
        reference = names.get(reference) or f"{names.get(machine, machine)} {device}".strip()
        reference = _hardware_of(reference, machines, set(frame["hardware"].astype(str)))
    return replace(comparison, prices=prices, reference=reference)


def _hardware_of(text: str, machines: Sequence[str], hardware: Iterable[str]) -> str:
    """Return the hardware that a text names: machine and device, or a machine with one device."""
    devices = sorted(name for name in hardware if name == text or name.rpartition(" ")[0] == text)
    if text in devices:
        return text
    if not devices:
        hint = nearest(text, machines)
        raise OptionError(f"--reference: no row is from the machine {text!r}; {hint}")
    if len(devices) > 1:
        choice = " or ".join(map(repr, devices))
        raise OptionError(f"--reference: {text!r} has several devices; give {choice}")
    return devices[0]
