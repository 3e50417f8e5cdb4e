"""Statistics, each worked out by hand and one at its boundary."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from convmark.core.errors import MeasurementError
from convmark.core.interval import NOT_KNOWN
from convmark.core.statistics import (
    interval_around,
    interval_of_mean,
    middle_of,
    paired_log_ratio,
    quantile,
    step_time_summary,
    trimmed_mean,
)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([1.0, 2.0, 3.0, 4.0], 0.5, 2.5),
        ([1.0, 2.0, 3.0, 4.0], 0.25, 1.75),
        ([1.0, 2.0, 3.0, 4.0], 0.1, 1.3),
        ([4.0, 1.0, 3.0, 2.0], 0.9, 3.7),
        ([1.0, 2.0, 3.0], 0.0, 1.0),
        ([1.0, 2.0, 3.0], 1.0, 3.0),
        ([7.0], 0.99, 7.0),
    ],
)
def test_a_quantile_lies_between_its_neighbours_in_proportion(
    values: list[float], share: float, expected: float
) -> None:
    assert quantile(values, share) == pytest.approx(expected, rel=1e-12)


def test_a_quantile_of_nothing_is_refused() -> None:
    with pytest.raises(MeasurementError, match="a quantile needs at least one value"):
        quantile([], 0.5)


def test_a_trimmed_mean_of_ten_is_the_mean_of_the_middle_six() -> None:
    # cut 2 of each end: mean of 3..8 = 5.5; winsorised 3 3 3 4 5 6 7 8 8 8, squares sum to 42.5,
    # so s = sqrt(42.5 / 9) = 2.173067 and the error is s / (0.6 sqrt(10)) = 1.145307
    estimate = trimmed_mean([float(value) for value in (10, 1, 9, 2, 8, 3, 7, 4, 6, 5)])
    assert estimate.value == pytest.approx(5.5)
    assert estimate.error == pytest.approx(math.sqrt(42.5 / 9) / (0.6 * math.sqrt(10)))
    assert estimate.error == pytest.approx(1.145307, abs=1e-6)


def test_two_outliers_of_ten_on_one_side_change_neither_the_mean_nor_its_error() -> None:
    calm = trimmed_mean([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0])
    assert trimmed_mean([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 900.0, 1000.0]) == calm
    third = trimmed_mean([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 800.0, 900.0, 1000.0])
    assert third.value > calm.value


def test_four_values_lose_none_and_five_lose_one_on_each_side() -> None:
    assert trimmed_mean([0.0, 1.0, 2.0, 5.0]).value == 2.0
    assert trimmed_mean([0.0, 1.0, 2.0, 3.0, 100.0]).value == 2.0


def test_the_cut_is_a_fifth_rounded_down_at_every_count() -> None:
    for count in range(1, 501):
        left = count - 2 * (count // 5)
        values = [0.0] * (count // 5) + [1.0] * left + [2.0] * (count // 5)
        assert trimmed_mean(values).value == 1.0, count


def test_without_anything_to_cut_it_is_the_mean_and_its_standard_error_over_0_6() -> None:
    estimate = trimmed_mean([1.0, 3.0])
    assert estimate.value == 2.0
    assert estimate.error == pytest.approx(math.sqrt(2) / (0.6 * math.sqrt(2)))


def test_the_error_is_unknown_where_fewer_than_two_values_remain() -> None:
    assert trimmed_mean([3.0]).error is None
    assert trimmed_mean([1.0, 2.0, 3.0, 4.0, 5.0], trim=0.4).error is None
    assert trimmed_mean([1.0, 2.0]).error is not None


def test_the_error_agrees_with_a_plain_reading_of_yuen() -> None:
    numbers = random.Random(3)
    for count in (5, 9, 30, 101):
        values = sorted(numbers.gauss(0, 1) for _ in range(count))
        cut = count // 5
        low, high = values[cut], values[-cut - 1]
        winsorised = [min(max(value, low), high) for value in values]
        mean = sum(winsorised) / count
        variance = sum((value - mean) ** 2 for value in winsorised) / (count - 1)
        expected = math.sqrt(variance / count) / 0.6
        assert trimmed_mean(values).error == pytest.approx(expected, rel=1e-12)


def test_a_trimmed_mean_of_nothing_is_refused() -> None:
    with pytest.raises(MeasurementError, match="a trimmed mean needs at least one value"):
        trimmed_mean([])


def test_a_trimmed_mean_leaves_its_values_as_they_were() -> None:
    values = np.array([3.0, 1.0, 2.0, 9.0, 5.0])
    trimmed_mean(values)
    assert values.tolist() == [3.0, 1.0, 2.0, 9.0, 5.0]


def test_a_case_twice_as_slow_as_the_reference_has_a_log_ratio_of_ln_2() -> None:
    estimate = paired_log_ratio([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert estimate is not None
    assert estimate.value == pytest.approx(math.log(2))
    assert estimate.error == pytest.approx(0.0, abs=1e-15)


def test_a_faster_case_has_a_negative_log_ratio() -> None:
    estimate = paired_log_ratio([1.0, 1.0], [2.0, 8.0])
    assert estimate is not None
    assert estimate.value == pytest.approx(-2 * math.log(2))
    # two values 2 ln 2 apart: s = sqrt(2) ln 2, over 0.6 sqrt(2)
    assert estimate.error == pytest.approx(math.log(2) / 0.6)


def test_one_disturbed_round_of_five_does_not_move_the_log_ratio() -> None:
    estimate = paired_log_ratio([2.0, 2.0, 200.0, 2.0, 2.0], [1.0, 1.0, 1.0, 1.0, 1.0])
    assert estimate is not None
    assert estimate.value == pytest.approx(math.log(2))


def test_rounds_in_which_both_slow_down_together_leave_the_log_ratio_alone() -> None:
    case_s, reference_s = [3.0, 30.0, 3.0, 6.0], [1.0, 10.0, 1.0, 2.0]
    estimate = paired_log_ratio(case_s, reference_s)
    assert estimate is not None
    assert estimate.value == pytest.approx(math.log(3))


def test_a_clock_too_coarse_for_the_steps_gives_no_log_ratio() -> None:
    assert paired_log_ratio([1.0, 0.0], [1.0, 1.0]) is None
    assert paired_log_ratio([1.0, 1.0], [0.0, 1.0]) is None


@pytest.mark.parametrize(("case_s", "reference_s"), [([], []), ([1.0], []), ([1.0], [1.0, 2.0])])
def test_rounds_that_do_not_pair_are_refused_with_both_counts(
    case_s: list[float], reference_s: list[float]
) -> None:
    with pytest.raises(MeasurementError, match=f"got {len(case_s)} and {len(reference_s)}$"):
        paired_log_ratio(case_s, reference_s)


def test_a_summary_of_step_times_is_what_one_works_out_by_hand() -> None:
    summary = step_time_summary([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0])
    assert summary["min"] == 2.0
    assert summary["max"] == 9.0
    assert summary["mean"] == 5.0
    assert summary["std"] == pytest.approx(math.sqrt(32 / 7))
    assert summary["p50"] == 4.5
    assert summary["p25"] == 4.0
    assert summary["p75"] == 5.5
    assert summary["p10"] == pytest.approx(2 + 0.7 * 2)
    assert summary["p90"] == pytest.approx(7 + 0.3 * 2)


def test_p95_is_given_from_100_steps_up() -> None:
    assert step_time_summary([float(n) for n in range(1, 100)])["p95"] is None
    p95 = step_time_summary([float(n) for n in range(1, 101)])["p95"]
    assert p95 == pytest.approx(95.05)  # at place 0.95 x 99 = 94.05, counted from 0


def test_p99_is_given_from_1000_steps_up() -> None:
    assert step_time_summary([float(n) for n in range(1, 1000)])["p99"] is None
    p99 = step_time_summary([float(n) for n in range(1, 1001)])["p99"]
    assert p99 == pytest.approx(990.01)  # at place 0.99 x 999 = 989.01, counted from 0


def test_one_step_has_no_deviation_and_two_have() -> None:
    assert step_time_summary([3.0])["std"] is None
    assert step_time_summary([3.0, 5.0])["std"] == pytest.approx(math.sqrt(2))


def test_a_summary_of_no_steps_is_refused() -> None:
    with pytest.raises(MeasurementError):
        step_time_summary([])


def test_figures_are_plain_floats_so_that_a_file_shows_digits_and_no_type_names() -> None:
    summary = step_time_summary([0.1] * 1000)
    assert {type(value) for value in summary.values()} == {float}
    estimate = trimmed_mean([0.1, 0.2])
    assert type(estimate.value) is type(estimate.error) is float


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], None),
        ([None], None),
        ([3], 3.0),
        ([2, 5], 3.5),
        ([math.nan, 7], 7.0),
        (["b", "a"], "b"),
    ],
)
def test_the_middle_of_numbers_is_a_float_however_many_there_are(
    values: list[object], expected: object
) -> None:
    found = middle_of(values)
    assert found == expected
    assert type(found) is type(expected)


def test_an_interval_of_95_percent_is_as_tables_of_students_t_have_it() -> None:
    around = interval_around(1.0, 0.1, 4)  # t is 2.776
    assert (around.low, around.high) == pytest.approx((0.7224, 1.2776), abs=1e-4)
    assert interval_around(0.0, 1.0, math.inf).high == pytest.approx(1.96, abs=1e-4)
    mean = interval_of_mean([1.0, 2.0, 3.0])  # t is 4.303, the error 1 / sqrt(3)
    assert (mean.low, mean.high) == pytest.approx((-0.4841, 4.4841), abs=1e-4)
    assert interval_of_mean([1.0]) == NOT_KNOWN
