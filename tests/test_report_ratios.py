"""Ratios of step times, worked out by hand."""

from __future__ import annotations

import math

import pytest

from convmark.report.ratios import Ratio, geometric_mean, ratio

E = math.e


def test_a_ratio_is_that_of_the_geometric_means() -> None:
    found = ratio([2.0, 8.0], [1.0, 4.0])
    assert found is not None
    assert found.value == pytest.approx(2.0)


def test_two_processes_give_no_interval() -> None:
    found = ratio([2.0, 2.0], [1.0, 1.0, 1.0])
    assert found == Ratio(value=pytest.approx(2.0))


def test_the_interval_is_welchs_on_the_logarithms() -> None:
    # logs -1, 0, 1: mean 0, variance 1, over 3 processes 1/3 a side; the difference has 2/3 and
    # (2/3)^2 / (2 x (1/3)^2 / 2) = 4 degrees of freedom, whose 97.5 % quantile is 2.7764
    side = [1 / E, 1.0, E]
    found = ratio([2 * time for time in side], side)
    assert found is not None
    half = 2.776445 * math.sqrt(2 / 3)
    assert found.value == pytest.approx(2.0)
    assert found.low == pytest.approx(2 * math.exp(-half), rel=1e-5)
    assert found.high == pytest.approx(2 * math.exp(half), rel=1e-5)
    assert found.freedom == pytest.approx(4.0)


def test_processes_that_agree_exactly_have_an_interval_of_no_width() -> None:
    found = ratio([2.0] * 3, [1.0] * 3)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((2.0, 2.0))


def test_no_times_give_no_ratio() -> None:
    assert ratio([], [1.0]) is None
    assert ratio([1.0], [0.0]) is None


def test_the_geometric_mean_takes_its_interval_from_the_processes() -> None:
    # two ratios, each with a variance of 2/3 and 4 degrees of freedom: 2 x (2/3) / 4 = 1/3,
    # freedom (1/3)^2 / (2 x (1/6)^2 / 4) = 8, quantile 2.3060
    side = [1 / E, 1.0, E]
    ratios = [ratio([k * time for time in side], side) for k in (1.0, 4.0)]
    found = geometric_mean([one for one in ratios if one])
    assert found is not None
    assert found.value == pytest.approx(2.0)
    assert found.freedom == pytest.approx(8.0)
    assert found.high == pytest.approx(2 * math.exp(2.306004 * math.sqrt(1 / 3)), rel=1e-5)


def test_a_ratio_without_an_interval_leaves_the_geometric_mean_without_one() -> None:
    side = [1 / E, 1.0, E]
    whole = ratio(side, side)
    assert whole is not None
    found = geometric_mean([whole, Ratio(value=4.0)])
    assert found == Ratio(value=pytest.approx(2.0))
    assert geometric_mean([]) is None
