"""Prices of machines, from a file; and what is no such file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from convmark.core.errors import OptionError
from convmark.report.comparison import read_prices

SHARED = 'currency = "USD"\nunit = "hour"\ndate = 2026-01-31\nsource = "the invoice"\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "prices.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_what_is_given_once_is_of_every_machine(tmp_path: Path) -> None:
    path = written(
        tmp_path, f'{SHARED}["gpu box"]\nprice = 2.5\n[mac]\nprice = 1\ndate = 2025-12-01\n'
    )
    prices = read_prices(path)
    assert [str(one) for one in prices.values()] == [
        "gpu box 2.50 USD per hour on 2026-01-31 (the invoice)",
        "mac 1.00 USD per hour on 2025-12-01 (the invoice)",
    ]
    assert prices["mac"].divisor == "USD/h"


def test_a_machine_may_be_bought(tmp_path: Path) -> None:
    path = written(tmp_path, SHARED.replace("hour", "purchase") + "[mac]\nprice = 2000\n")
    (price,) = read_prices(path).values()
    assert (str(price).partition(" on ")[0], price.divisor) == ("mac 2,000.00 USD to buy", "USD")


MAC = f"{SHARED}[mac]\nprice = 1\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("price", "must be a TOML file: "),
        (SHARED, "must have a table for each machine, such as [gpu-box]"),
        (MAC.replace("date = 2026-01-31\n", ""), "machine 'mac': must have a date, it has none"),
        (MAC.replace("= 1\n", "= -1\n"), "price must be a finite number above 0, got -1"),
        (MAC.replace("= 1\n", "= nan\n"), "price must be a finite number above 0, got nan"),
        (MAC.replace("= 1\n", "= inf\n"), "price must be a finite number above 0, got inf"),
        (MAC.replace("= 1\n", "= true\n"), "price must be a finite number above 0, got True"),
        (MAC.replace("= 1\n", '= "cheap"\n'), "price must be a finite number above 0, got 'cheap'"),
        (MAC.replace("= 1\n", f"= 1{'0' * 400}\n"), "price must be a finite number above 0, got 1"),
        (MAC.replace("hour", "day"), "unit must be hour or purchase, got 'day'"),
        (MAC.replace("USD", "$"), "currency must be a code such as USD, got '$'"),
        (MAC.replace("= 2026-01-31", '= "today"'), "date must be a day such as 2026-01-31, got"),
        (MAC.replace("the invoice", "\\u001b[31m"), "source must be one line of text, got '\\x1b"),
        (MAC.replace("source", "sauce"), "unknown key 'sauce'; did you mean source?"),
        (f'{MAC}[pc]\nprice = 1\ncurrency = "EUR"\n', "one currency, mac has USD and pc EUR"),
        (f'{MAC}[pc]\nprice = 1\nunit = "purchase"\n', "one unit, mac has hour and pc purchase"),
    ],
)
def test_what_is_no_price_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)) as refused:
        read_prices(written(tmp_path, text))
    assert str(refused.value).startswith("--prices: ")
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"none\.toml must be a TOML file: No such file"):
        read_prices(tmp_path / "none.toml")
