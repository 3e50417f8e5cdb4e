"""What machines are compared by: a reference, the speed that ranks them, and prices.

Prices of machines come from a TOML file:

    currency = "USD"
    date = 2026-01-31
    source = "https://example.org/prices"

    [cloud-box]
    per_hour = 2.5

    [laptop]
    purchase = 1200
    years = 3
    hours_per_day = 8        # 24 if it is left out
    per_kwh = 0.30

A key above the tables is of every machine; a machine's own table may give another. A rented machine
costs its hours, energy included. A bought one costs its price spread over the hours of its years,
and what it draws from the mains.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from convmark.core.errors import OptionError
from convmark.core.files import read_regular
from convmark.core.option import RANKS
from convmark.core.option_values import nearest
from convmark.core.pyproject import toml_of
from convmark.core.text import is_plain

if TYPE_CHECKING:
    import pandas as pd

RENTED = ("per_hour",)
BOUGHT = ("purchase", "years", "hours_per_day", "per_kwh")
KEYS = ("currency", "date", "source", *RENTED, *BOUGHT)
DAYS_PER_YEAR = 365.25
HOURS_PER_DAY = 24.0
JOULES_PER_KWH = 3.6e6
SECONDS_PER_HOUR = 3600.0

_MOST = {"years": 100.0, "hours_per_day": HOURS_PER_DAY}
_LEAST = {"years": 0.01, "hours_per_day": 0.01}
MOST_AMOUNT = 1e12
"""Of a currency: a cost of it has no more digits than a table can show."""
_CURRENCY = re.compile(r"[A-Z]{3}")
"""Source: ISO 4217."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a machine costs, in a currency."""

    machine: str
    currency: str
    date: str
    """On which it was so, ISO 8601."""
    source: str
    per_hour: float
    """Of the machine; of a bought one its price over the hours of its years."""
    bought: str = ""
    """How that was bought, in words; empty for one that is rented."""
    per_kwh: float | None = None
    """Of the energy of a bought one; None for one that is rented."""

    def per_million(self, seconds_per_sample: float, joules_per_sample: float = 0.0) -> float:
        """Return the cost of a million samples, of the energy too where it has a price."""
        energy = (self.per_kwh or 0.0) * joules_per_sample / JOULES_PER_KWH
        return 1e6 * (self.of_seconds(seconds_per_sample) + energy)

    def of_seconds(self, seconds: float) -> float:
        """Return the cost of the machine for so long, without energy of its own."""
        return self.per_hour * seconds / SECONDS_PER_HOUR

    def __str__(self) -> str:
        paid = f"{_amount(self.per_hour)} {self.currency} per hour"
        if self.bought:
            paid = f"{self.bought}: {paid}, and {_amount(self.per_kwh or 0.0)} {self.currency}/kWh"
        return f"{self.machine} {paid}, on {self.date} ({self.source})"


def _amount(value: float) -> str:
    return f"{value:,.2f}" if value >= 1 else f"{value:.3g}"


def read_prices(path: Path, today: date | None = None) -> dict[str, Price]:
    """Return the prices in a file, by machine.

    Args:
        today: no price may be of a later day; by default today's in the zone that is farthest east.

    Raises:
        OptionError: the file is no TOML, has no price, or one breaks its rule; or two prices
            differ in currency.
    """
    told = _table(path)
    shared = {key: value for key, value in told.items() if not isinstance(value, dict)}
    tables = {key: value for key, value in told.items() if isinstance(value, dict)}
    if not tables:
        raise OptionError(f"--prices: {path} must have a table for each machine, such as [gpu-box]")
    _check_keys(f"--prices: {path}", shared)
    last = today or datetime.now(timezone(timedelta(hours=14))).date()
    found = {name: _price(path, name, shared, own, last) for name, own in tables.items()}
    first = next(iter(found.values()))
    for one in found.values():
        if one.currency != first.currency:
            raise OptionError(
                f"--prices: {path}: all machines must have one currency, {first.machine} has "
                f"{first.currency} and {one.machine} {one.currency}"
            )
    return found


def _table(path: Path) -> dict[str, Any]:
    try:
        return toml_of(read_regular(path).decode("utf-8"))
    except OSError as error:
        reason = error.strerror or error
        raise OptionError(f"--prices: {path} cannot be read: {reason}; give a TOML file") from None
    except (ValueError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise OptionError(f"--prices: {path} must be a TOML file: {reason}") from None


def _check_keys(subject: str, given: Mapping[str, Any]) -> None:
    for key in given:
        if key not in KEYS:
            raise OptionError(f"{subject}: unknown key {key!r}; {nearest(key, KEYS)}")


def _price(
    path: Path, name: str, shared: Mapping[str, Any], own: Mapping[str, Any], last: date
) -> Price:
    subject = f"--prices: {path}: machine {name!r}"
    _check_keys(subject, own)
    given = _of_one_form(subject, shared, own)
    for key in ("currency", "date", "source"):
        if key not in given:
            raise OptionError(f"{subject}: must have a {key}, it has none")
    for key in (*RENTED, *BOUGHT):
        if key in given:
            _check_amount(subject, key, given[key])
    common = _common(subject, given, last)
    if "per_hour" in given:
        return Price(machine=name, per_hour=float(given["per_hour"]), **common)
    hours_per_day = float(given.get("hours_per_day", HOURS_PER_DAY))
    hours = given["years"] * DAYS_PER_YEAR * hours_per_day
    return Price(
        machine=name,
        per_hour=given["purchase"] / hours,
        bought=f"{_amount(given['purchase'])} {common['currency']} over {given['years']:g} years "
        f"of {hours_per_day:g} hours a day",
        per_kwh=float(given["per_kwh"]),
        **common,
    )


def _of_one_form(subject: str, shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a machine that is rented, or of one that is bought.

    What is given above the tables for machines of the other form is left out.
    """
    given = {**shared, **own}
    rented = [key for key in given if key in RENTED]
    bought = [key for key in given if key in BOUGHT]
    its_own = [key for key in own if key in (*RENTED, *BOUGHT)]
    if rented and bought and all(key in BOUGHT for key in its_own) and "purchase" in its_own:
        rented = [key for key in rented if key in own]
    elif rented and bought and all(key in RENTED for key in its_own) and its_own:
        bought = [key for key in bought if key in own]
    if rented and bought:
        raise OptionError(
            f"{subject}: must be rented (per_hour) or bought (purchase, years, per_kwh), it has "
            f"{rented[0]} and {bought[0]}"
        )
    if not rented and not bought:
        raise OptionError(f"{subject}: must have per_hour, or purchase, years and per_kwh")
    for key in ("purchase", "years", "per_kwh") if bought else ():
        if key not in given:
            raise OptionError(f"{subject}: must have {key} beside {bought[0]}, it has none")
    left_out = (set(RENTED) | set(BOUGHT)) - {*rented, *bought}
    return {key: value for key, value in given.items() if key not in left_out}


def _check_amount(subject: str, key: str, value: Any) -> None:
    if not _is_amount(value):
        raise OptionError(f"{subject}: {key} must be a finite number above 0, got {value!r}")
    least, most = _LEAST.get(key, 0.0), _MOST.get(key, MOST_AMOUNT)
    if value > most:
        raise OptionError(f"{subject}: {key} must be at most {most:g}, got {value!r}")
    if value < least:
        raise OptionError(f"{subject}: {key} must be at least {least:g}, got {value!r}")


def _is_amount(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value) and float(value) > 0
    except OverflowError:  # an integer of hundreds of digits
        return False


def _common(subject: str, given: Mapping[str, Any], last: date) -> dict[str, Any]:
    """Return currency, date and source."""
    currency, day, source = given["currency"], given["date"], given["source"]
    if not (isinstance(currency, str) and _CURRENCY.fullmatch(currency)):
        raise OptionError(f"{subject}: currency must be a code such as USD, got {currency!r}")
    if not isinstance(day, date) or isinstance(day, datetime):
        raise OptionError(f"{subject}: date must be a day such as 2026-01-31, got {str(day)!r}")
    if day > last:
        raise OptionError(f"{subject}: date must not lie in the future, got {day.isoformat()}")
    if not (isinstance(source, str) and source.strip() and is_plain(source)):
        raise OptionError(f"{subject}: source must be one line of text, got {source!r}")
    return {"currency": currency, "date": day.isoformat(), "source": source.strip()}


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
    for machine, name in names.items():
        if reference == machine or reference.startswith(f"{machine} "):
            reference = f"{name}{reference.removeprefix(machine)}"
    reference = _hardware_of(reference, frame) if reference else ""
    return replace(comparison, prices=prices, reference=reference)


def _hardware_of(text: str, frame: pd.DataFrame) -> str:
    """Return the hardware that a text names, which may leave out the device, the card, or both."""
    places = frame[["hardware", "machine", "device"]].astype(str).drop_duplicates()
    machines, found = sorted(set(places["machine"])), list[str]()
    for name, machine, device in places.itertuples(index=False):
        if text in (name, machine, f"{machine} {device}", name.removesuffix(f" {device}")):
            found.append(name)
    if text in found:
        return text
    if not found:
        hint = nearest(text, machines)
        raise OptionError(f"--reference: no row is from the machine {text!r}; {hint}")
    if len(found) > 1:
        several = "has several devices" if text in machines else "was several cards"
        choice = " or ".join(map(repr, sorted(found)))
        raise OptionError(f"--reference: {text!r} {several}; give {choice}")
    return found[0]
