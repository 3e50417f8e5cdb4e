"""Prices of machines, from a file; and what is no such file."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

from convmark.core.errors import OptionError
from convmark.report.comparison import read_prices

SHARED = 'currency = "USD"\ndate = 2026-01-31\nsource = "the invoice"\n'
BOUGHT = "purchase = 2191.5\nyears = 2\nper_kwh = 0.36\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "prices.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_what_is_given_once_is_of_every_machine(tmp_path: Path) -> None:
    text = f'{SHARED}["gpu box"]\nper_hour = 2.5\n[mac]\nper_hour = 1\ndate = 2025-12-01\n'
    prices = read_prices(written(tmp_path, text))
    assert [str(one) for one in prices.values()] == [
        "gpu box 2.50 USD per hour, on 2026-01-31 (the invoice)",
        "mac 1.00 USD per hour, on 2025-12-01 (the invoice)",
    ]


def test_a_bought_machine_costs_its_hours_and_its_energy(tmp_path: Path) -> None:
    """2,191.50 over 2 years of 8 hours a day are 0.375 an hour; a kWh is 3.6 MJ."""
    text = f"{SHARED}per_kwh = 0.36\n[mac]\nhours_per_day = 8\n{BOUGHT}[cloud]\nper_hour = 36\n"
    prices = read_prices(written(tmp_path, text))
    mac, cloud = prices["mac"], prices["cloud"]
    assert mac.per_hour == pytest.approx(0.375)
    assert mac.per_million(3600e-6) == pytest.approx(0.375)
    assert mac.per_million(3600e-6, 10.0) == pytest.approx(0.375 + 1.0)
    assert cloud.per_million(0.001, 10.0) == pytest.approx(10.0)  # energy is in the rent
    assert cloud.of_seconds(100) == pytest.approx(1.0)
    assert str(mac).startswith(
        "mac 2,191.50 USD over 2 years of 8 hours a day: 0.375 USD per hour, and 0.36 USD/kWh, on"
    )


MAC = f"{SHARED}[mac]\nper_hour = 1\n"
OWN = f"{SHARED}[mac]\n{BOUGHT}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("price", "must be a TOML file: "),
        (SHARED, "must have a table for each machine, such as [gpu-box]"),
        (MAC.replace("date = 2026-01-31\n", ""), "machine 'mac': must have a date, it has none"),
        (MAC.replace("= 1\n", "= -1\n"), "per_hour must be a finite number above 0, got -1"),
        (MAC.replace("= 1\n", "= 0\n"), "per_hour must be a finite number above 0, got 0"),
        (MAC.replace("= 1\n", "= nan\n"), "per_hour must be a finite number above 0, got nan"),
        (MAC.replace("= 1\n", "= inf\n"), "per_hour must be a finite number above 0, got inf"),
        (MAC.replace("= 1\n", "= true\n"), "per_hour must be a finite number above 0, got True"),
        (MAC.replace("= 1\n", '= "low"\n'), "per_hour must be a finite number above 0, got 'low'"),
        (
            MAC.replace("= 1\n", f"= 1{'0' * 400}\n"),
            "per_hour must be a finite number above 0, got",
        ),
        (MAC.replace("USD", "$"), "currency must be a code such as USD, got '$'"),
        (MAC.replace("= 2026-01-31", '= "today"'), "date must be a day such as 2026-01-31, got"),
        (MAC.replace("2026-01-31", "2026-02-02"), "must not lie in the future, got 2026-02-02"),
        (MAC.replace("the invoice", "\\u001b[31m"), "source must be one line of text, got '\\x1b"),
        (MAC.replace("source", "sauce"), "unknown key 'sauce'; did you mean source?"),
        (MAC.replace("per_hour", "per_hours"), "unknown key 'per_hours'; did you mean per_hour?"),
        (f'{MAC}[pc]\nper_hour = 1\ncurrency = "EUR"\n', "one currency, mac has USD and pc EUR"),
        (f"{MAC}years = 3\n", "must be rented (per_hour) or bought (purchase, years, per_kwh)"),
        (f"{SHARED}[mac]\n", "must have per_hour, or purchase, years and per_kwh"),
        (OWN.replace("years = 2\n", ""), "must have years beside purchase, it has none"),
        (OWN.replace("per_kwh = 0.36\n", ""), "must have per_kwh beside purchase, it has none"),
        (f"{SHARED}[mac]\nper_kwh = 1\n", "must have purchase beside per_kwh, it has none"),
        (f"{OWN}hours_per_day = 25\n", "hours_per_day must be at most 24, got 25"),
        (OWN.replace("years = 2", "years = 2000"), "years must be at most 100, got 2000"),
        (OWN.replace("years = 2", "years = 1e-300"), "years must be at least 0.01, got 1e-300"),
        (MAC.replace("= 1\n", "= 1e300\n"), "per_hour must be at most 1e+12, got 1e+300"),
    ],
)
def test_what_is_no_price_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)) as refused:
        read_prices(written(tmp_path, text), date(2026, 2, 1))
    assert str(refused.value).startswith("--prices: ")
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"none\.toml cannot be read: No such file"):
        read_prices(tmp_path / "none.toml")
