"""Units: three digits, scaled for reading, at each boundary."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import convmark
from convmark.core.text import (
    bytes_text,
    count_text,
    duration_text,
    rate_text,
    seconds_text,
    share_text,
    spread_text,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (123.4, "123 s"),
        (12.34, "12.3 s"),
        (1.0, "1.00 s"),
        (0.9996, "1.00 s"),
        (0.9994, "999 ms"),
        (0.0123, "12.3 ms"),
        (0.00999, "9.99 ms"),
        (0.009996, "10.0 ms"),
        (0.001, "1.00 ms"),
        (0.00099996, "1.00 ms"),
        (0.0009994, "999 us"),
        (1e-6, "1.00 us"),
        (2.5e-7, "0.250 us"),
        (0.0, "0.00 us"),
        (-0.0123, "-12.3 ms"),
        (None, ""),
    ],
)
def test_seconds_are_read_as_s_ms_or_us(value: float | None, text: str) -> None:
    assert seconds_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.00 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (1536, "1.50 KiB"),
        (1023.4 * 2**10, "1023 KiB"),
        (1023.6 * 2**10, "1.00 MiB"),
        (2**20, "1.00 MiB"),
        (285.4 * 2**20, "285 MiB"),
        (3 * 2**30, "3.00 GiB"),
        (2**50, "1048576 GiB"),
        (None, ""),
    ],
)
def test_bytes_are_read_in_powers_of_1024(value: float | None, text: str) -> None:
    assert bytes_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (17, "17"),
        (999, "999"),
        (1000, "1.00 k"),
        (833_040, "833 k"),
        (999_600, "1.00 M"),
        (7_715_900_000, "7.72 G"),
        (None, ""),
    ],
)
def test_counts_are_read_in_powers_of_1000(value: float | None, text: str) -> None:
    assert count_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12345.6, "12346"),
        (99.96, "100"),
        (99.94, "99.9"),
        (9.996, "10.0"),
        (1.234, "1.23"),
        (0.5, "0.500"),
        (0.004, "0.00400"),
        (0.0, "0.00"),
        (None, ""),
    ],
)
def test_rates_have_three_digits_or_are_whole(value: float | None, text: str) -> None:
    assert rate_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *[(0.0, "0.0 %"), (0.0126, "1.3 %"), (1.5, "150.0 %"), (None, ""), (-0.0126, "-1.3 %")],
        *[(0.0003, "0.03 %"), (0.9999, "99.99 %"), (1.0, "100.0 %"), (1 - 1e-12, "100.0 %")],
        *[(1.00004, "100.0 %"), (1e-12, "0.0 %")],
    ],
)
def test_shares_are_read_as_per_cent(value: float | None, text: str) -> None:
    assert share_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-3.0, "0 s"),
        (0.0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (60.0, "1 min"),
        (89.0, "1 min 30 s"),
        (114.0, "1 min 50 s"),
        (116.0, "2 min"),
        (594.0, "9 min 50 s"),
        (596.0, "10 min"),
        (629.0, "10 min"),
        (3569.0, "59 min"),
        (3571.0, "1 h 0 min"),
        (4800.0, "1 h 20 min"),
        (90000.0, "25 h 0 min"),
    ],
)
def test_durations_are_said_as_people_say_them(value: float, text: str) -> None:
    assert duration_text(value) == text


def test_a_spread_of_more_than_the_median_is_told_as_so_many_medians() -> None:
    told = {0.436: "43.6 %", 1.0: "1.0 times", 4.364: "4.4 times", None: ""}
    assert {value: spread_text(value) for value in told} == told


def test_per_cent_stands_apart_from_its_number_in_every_text() -> None:
    package = Path(convmark.__file__).parent
    close = re.compile(r":[+.,0-9]*%\}|\"[+.0-9]+%\"")
    found = [path.name for path in package.rglob("*.py") if close.search(path.read_text("utf-8"))]
    assert not found
