"""An interval: its ends as log ratios, as shares, in a table's cells and as text."""

from __future__ import annotations

import math

import pytest

from convmark.core.interval import NOT_KNOWN, Interval, by_change, interval_text, signed_percent


def test_a_log_ratio_becomes_a_share_end_by_end_and_an_unknown_end_stays_unknown() -> None:
    found = Interval(math.log(0.5), math.log(1.25)).shares()
    assert found == Interval(pytest.approx(-0.5), pytest.approx(0.25))
    assert (0.2 in found, -0.6 in found) == (True, False)
    assert Interval(low=math.log(0.5)).shares() == Interval(pytest.approx(-0.5), math.inf)
    assert NOT_KNOWN.shares() == NOT_KNOWN


def test_around_a_value_it_has_the_half_width_and_turned_round_the_other_ends() -> None:
    found = Interval.around(1.0, 0.25)
    assert (found.low, found.high, found.half_width) == (0.75, 1.25, 0.25)
    assert -found == Interval(-1.25, -0.75)


@pytest.mark.parametrize(
    ("low", "high", "text", "known"),
    [
        (-0.04, 0.0224, "[-4.0, +2.2]", True),
        (None, 0.0224, "[, +2.2]", False),
        (-0.04, None, "[-4.0, ]", False),
        (None, None, "", False),
        (-1.0, math.exp(60), "[-100.0, no size]", True),
        (4.189, 9.9, "[+418.9, +990.0]", True),
        (4.189, 10.2, "[5.19, 11.2] times", True),
        (-0.653, 11.83, "[0.347, 12.8] times", True),
        (-0.9996, None, "[-99.96, ]", False),
        (None, 11.83, "[, 12.8] times", False),
        (-1.0, 11.83, "[0.00, 12.8] times", True),
    ],
)
def test_cells_of_a_table_are_its_ends_and_a_text_leaves_open_what_is_not_known(
    low: float | None, high: float | None, text: str, known: bool
) -> None:
    found = Interval.of_cells(low, high)
    assert (found.cells, found.text, found.known) == ({"low": low, "high": high}, text, known)


@pytest.mark.parametrize(
    ("change", "text", "by"),
    [
        (0.121, "+12.1 %", "by +12.1 %"),
        (9.99, "+999.0 %", "by +999.0 %"),
        (10.0, "11.0 times", "to 11.0 times"),
        (2499.0, "2,500.0 times", "to 2,500.0 times"),
    ],
)
def test_a_change_of_more_than_a_thousand_per_cent_is_told_as_a_factor(
    change: float, text: str, by: str
) -> None:
    assert (signed_percent(change), by_change(change)) == (text, by)


def test_a_change_and_both_ends_of_its_interval_have_one_unit() -> None:
    shares = Interval(4.189, 10.2)
    assert interval_text(7.35, shares) == "8.35 times [5.19, 11.2]"
    assert by_change(7.35, shares) == "to 8.35 times [5.19, 11.2]"
    assert (shares.words, Interval(-0.1, 0.2).words) == ("5.19 to 11.2 times", "-10.0 % to +20.0 %")
    assert interval_text(0.121, Interval(0.098, 0.144)) == "+12.1 % [+9.8, +14.4]"
    assert interval_text(0.121, NOT_KNOWN) == "+12.1 %"
