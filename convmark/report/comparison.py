"""What machines are compared by: a reference, and prices from a TOML file, which say what a speed
costs.

    currency = "USD"
    unit = "hour"            # or "purchase"
    date = 2026-01-31
    source = "https://example.org/prices"

    [gpu-box]
    price = 2.5

A key above the tables is of every machine; a machine's own table may give another date or source.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from convmark.core.errors import OptionError
from convmark.core.files import read_regular
from convmark.core.option_values import nearest
from convmark.core.text import is_plain

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Comparison", "Price", "of_machines", "read_prices"]

UNITS = {"hour": "per hour", "purchase": "to buy"}
KEYS = ("price", "currency", "unit", "date", "source")
_CURRENCY = re.compile(r"[A-Z]{3}")
"""Source: ISO 4217."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a machine costs."""

    machine: str
    amount: float
    currency: str
    unit: str
    """`hour` or `purchase`."""
    date: str
    """On which it was so, ISO 8601."""
    source: str

    @property
    def divisor(self) -> str:
        """What a figure is divided by, such as `USD/h`."""
        return f"{self.currency}/h" if self.unit == "hour" else self.currency

    def __str__(self) -> str:
        amount = f"{self.amount:,.2f}" if self.amount >= 0.01 else f"{self.amount:g}"
        paid = f"{amount} {self.currency} {UNITS[self.unit]}"
        return f"{self.machine} {paid} on {self.date} ({self.source})"


def read_prices(path: Path) -> dict[str, Price]:
    """Return the prices in a file, by machine.

    Raises:
        OptionError: the file is no TOML, has no price, or one breaks its rule; or two prices
            differ in currency or unit.
    """
    told = _table(path)
    shared = {key: value for key, value in told.items() if not isinstance(value, dict)}
    tables = {key: value for key, value in told.items() if isinstance(value, dict)}
    if not tables:
        raise OptionError(f"--prices: {path} must have a table for each machine, such as [gpu-box]")
    _check_keys(f"--prices: {path}", shared, KEYS[1:])
    found = {name: _price(path, name, shared, own) for name, own in tables.items()}
    for name in ("currency", "unit"):
        _check_one(path, name, list(found.values()))
    return found


def _table(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return dict(tomllib.loads(read_regular(path).decode("utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise OptionError(f"--prices: {path} must be a TOML file: {reason}") from None


def _check_keys(subject: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in given:
        if key not in known:
            raise OptionError(f"{subject}: unknown key {key!r}; {nearest(key, known)}")


def _price(path: Path, name: str, shared: Mapping[str, Any], own: Mapping[str, Any]) -> Price:
    subject = f"--prices: {path}: machine {name!r}"
    _check_keys(subject, own, KEYS)
    given = {**shared, **own}
    for key in KEYS:
        if key not in given:
            raise OptionError(f"{subject}: must have a {key}, it has none")
    amount, day = given["price"], given["date"]
    if not _is_amount(amount):
        raise OptionError(f"{subject}: price must be a finite number above 0, got {amount!r}")
    if given["unit"] not in UNITS:
        raise OptionError(f"{subject}: unit must be hour or purchase, got {given['unit']!r}")
    currency, source = given["currency"], given["source"]
    if not (isinstance(currency, str) and _CURRENCY.fullmatch(currency)):
        raise OptionError(f"{subject}: currency must be a code such as USD, got {currency!r}")
    if not isinstance(day, date) or isinstance(day, datetime):
        raise OptionError(f"{subject}: date must be a day such as 2026-01-31, got {str(day)!r}")
    if not (isinstance(source, str) and source.strip() and is_plain(source)):
        raise OptionError(f"{subject}: source must be one line of text, got {source!r}")
    return Price(
        machine=name,
        amount=float(amount),
        currency=currency,
        unit=given["unit"],
        date=day.isoformat(),
        source=source.strip(),
    )


def _is_amount(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value) and float(value) > 0
    except OverflowError:  # an integer of hundreds of digits
        return False


def _check_one(path: Path, name: str, prices: Sequence[Price]) -> None:
    first = prices[0]
    for one in prices:
        ours, theirs = getattr(one, name), getattr(first, name)
        if ours != theirs:
            raise OptionError(
                f"--prices: {path}: all machines must have one {name}, {first.machine} has "
                f"{theirs} and {one.machine} {ours}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What machines are compared by."""

    prices: Mapping[str, Price] = field(default_factory=lambda: MappingProxyType({}))
    """By machine, as tables name it; all in one currency and unit."""
    reference: str = ""
    """The machine, or machine and device, that others are held against; empty for the one with the
    most cases."""


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
                f"--prices: no row is of the machine {machine!r}; {nearest(machine, machines)}"
            )
        if name in prices:
            raise OptionError(f"--prices: must have one price of {name}, got two")
        prices[name] = replace(price, machine=name)
    reference = comparison.reference
    if reference:
        machine, _, device = reference.rpartition(" ")
        reference = names.get(reference) or f"{names.get(machine, machine)} {device}".strip()
        reference = _hardware_of(reference, machines, set(frame["hardware"].astype(str)))
    return Comparison(prices=prices, reference=reference)


def _hardware_of(text: str, machines: Sequence[str], hardware: Iterable[str]) -> str:
    """Return the hardware that a text names: machine and device, or a machine with one device."""
    devices = sorted(name for name in hardware if name == text or name.rpartition(" ")[0] == text)
    if text in devices:
        return text
    if not devices:
        hint = nearest(text, machines)
        raise OptionError(f"--reference: no row is of the machine {text!r}; {hint}")
    if len(devices) > 1:
        choice = " or ".join(map(repr, devices))
        raise OptionError(f"--reference: {text!r} has several devices; give {choice}")
    return devices[0]
