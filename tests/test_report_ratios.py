"""Ratios of step times, worked out by hand."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from convmark.core.interval import Interval
from convmark.report.ratios import Ratio, ends_text, geometric_mean, ratio

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

from machine_ratios import SIMULATED, Machines, draws, holds

E = math.e


def test_a_ratio_is_that_of_the_geometric_means() -> None:
    found = ratio([2.0, 8.0], [1.0, 4.0])
    assert found is not None
    assert found.value == pytest.approx(2.0)


def test_two_processes_give_no_interval() -> None:
    found = ratio([2.0, 2.0], [1.0, 1.0, 1.0])
    assert found == Ratio(value=pytest.approx(2.0))
    assert not found.interval.known


def test_the_interval_is_welchs_on_the_logarithms() -> None:
    # logs -1, 0, 1: mean 0, variance 1, over 3 processes 1/3 a side; the difference has 2/3 and
    # (2/3)^2 / (2 x (1/3)^2 / 2) = 4 degrees of freedom, whose 97.5 % quantile is 2.7764
    side = [1 / E, 1.0, E]
    found = ratio([2 * time for time in side], side)
    assert found is not None
    half = 2.776445 * math.sqrt(2 / 3)
    assert found.value == pytest.approx(2.0)
    assert found.interval.low == pytest.approx(2 * math.exp(-half), rel=1e-5)
    assert found.interval.high == pytest.approx(2 * math.exp(half), rel=1e-5)
    assert found.freedom == pytest.approx(4.0)
    assert 1 in found.interval


def test_processes_that_agree_exactly_have_an_interval_of_no_width() -> None:
    found = ratio([2.0] * 3, [1.0] * 3)
    assert found is not None
    assert found.interval == Interval(pytest.approx(2.0), pytest.approx(2.0))
    assert 1 not in found.interval


def test_no_times_give_no_ratio() -> None:
    assert ratio([], [1.0]) is None
    assert ratio([1.0], [0.0]) is None


def test_a_run_is_one_unit_however_many_processes_it_has() -> None:
    alike = ratio({"0001": [1.0] * 9, "0002": [E], "0003": [1 / E]}, [1.0] * 3)
    assert alike is not None
    single = ratio([1.0, E, 1 / E], [1.0] * 3)
    assert single is not None
    assert alike.interval == Interval(
        pytest.approx(single.interval.low), pytest.approx(single.interval.high)
    )


def test_what_all_cases_share_is_not_averaged_away() -> None:
    # the same deviations in every case: the mean over the cases is as uncertain as one case,
    # a variance of 2/3 at 4 degrees of freedom; of units of their own it is half of that
    side = [1 / E, 1.0, E]
    ratios = [one for k in (1.0, 4.0) if (one := ratio([k * time for time in side], side))]
    shared = geometric_mean(ratios)
    assert shared is not None
    assert shared.value == pytest.approx(2.0)
    assert shared.interval.high == pytest.approx(
        2 * math.exp(2.776445 * math.sqrt(2 / 3)), rel=1e-5
    )
    others = ({n: [time] for n, time in enumerate(side, 3)} for _ in range(2))
    apart = geometric_mean([ratios[0], ratio(*others)])  # type: ignore[list-item]
    assert apart is not None
    assert apart.interval.high == pytest.approx(math.exp(2.776445 * math.sqrt(1 / 3)), rel=1e-5)


def test_no_end_of_an_interval_is_printed_as_0() -> None:
    wide = Ratio(value=0.9, interval=Interval(0.043, 18.0))
    assert ends_text(wide) == " (0.043 to 18.0)"
    assert ends_text(Ratio(value=1.0, interval=Interval(0.9, 1.1))) == " (0.9 to 1.1)"


def test_a_ratio_without_an_interval_leaves_the_geometric_mean_without_one() -> None:
    side = [1 / E, 1.0, E]
    whole = ratio(side, side)
    assert whole is not None
    found = geometric_mean([whole, Ratio(value=4.0)])
    assert found == Ratio(value=pytest.approx(2.0))
    assert geometric_mean([]) is None


@pytest.mark.parametrize("machines", SIMULATED, ids=lambda one: one.name)
def test_the_interval_of_a_geometric_mean_holds_the_truth(machines: Machines) -> None:
    count = 600
    held = sum(holds(geometric_mean(ratios)) for ratios in draws(machines, count))
    assert held / count >= 0.93
