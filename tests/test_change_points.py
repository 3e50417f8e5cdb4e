"""The search for change points, and the levels between them: by hand, and on seeded series."""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path

import numpy as np
import pytest

from convmark.compare.rule.change_points import (
    Change,
    Run,
    change_points,
    cleaned,
    largest_t,
    levels,
)
from convmark.compare.rule.ratio_levels import Ratio, ratio_levels
from convmark.compare.rule.statistics import Summary
from convmark.core.errors import MeasurementError

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))  # scripts, not a package

import change_points as shares


def runs(*values: float) -> list[Run]:
    return [Run(value=value) for value in values]


def noisy(levels, noise: float, seed: int) -> list[Run]:
    drawn = np.random.default_rng(seed).standard_normal(len(levels))
    return runs(*(np.asarray(levels) + noise * drawn).tolist())


def test_the_largest_t_is_worked_by_hand():
    values = np.array([0.0, 1.0, 2.0, 10.0, 11.0, 12.0])
    found, place = largest_t(values, np.ones(6))
    # means 1 and 11; squares 2 and 2 over 4 degrees of freedom; t = 10 / sqrt(1 x 2 / 3)
    assert float(found) == pytest.approx(10 / math.sqrt(2 / 3))
    assert int(place) == 3


def test_a_run_of_more_processes_weighs_more():
    values = np.array([0.0, 1.0, 2.0, 10.0, 11.0, 12.0])
    even, _ = largest_t(values, np.full(6, 4.0))
    assert float(even) == pytest.approx(10 / math.sqrt(2 / 3))
    heavy, _ = largest_t(values, np.array([1.0, 9.0, 1.0, 1.0, 9.0, 1.0]))
    assert float(heavy) > float(even)


def test_a_single_odd_run_is_moved_to_its_neighbours_and_a_step_is_kept():
    flat = np.array([0.0, 0.1, 0.0, 0.1, 0.0, 5.0, 0.1, 0.0, 0.1, 0.0])
    assert cleaned(flat)[5] < 0.7
    step = np.array([0.0, 0.1, 0.0, 0.1, 0.0, 5.0, 5.1, 5.0, 5.1, 5.0])
    assert cleaned(step) == pytest.approx(step, abs=0.11)
    at_end = np.array([0.0, 0.1, 0.0, 0.1, 0.0, 0.1, 0.0, 0.1, 0.0, 5.0])
    assert cleaned(at_end)[-1] < 0.7


@pytest.mark.parametrize("count", [0, 1, 5])
def test_too_few_runs_have_no_change(count):
    assert change_points(runs(*[0.0, 1.0, 2.0, 9.0, 9.5][:count])) == []


@pytest.mark.parametrize("count", [6, 15, 16, 30])
@pytest.mark.parametrize("value", [0.0, 0.3, 0.5005, -1.1])
def test_equal_runs_have_no_change(count, value):
    assert change_points(runs(*[value] * count)) == []


def test_levels_without_noise_are_found_alone():
    found = change_points(runs(*[0.5005] * 12, *[0.5505] * 7))
    assert [(change.first, change.gradual) for change in found] == [(12, False)]
    assert found[0].size == pytest.approx(0.05)
    (creep,) = change_points(runs(*[0.1] * 8, *(0.1 + 0.01 * n for n in range(1, 11)), *[0.2] * 5))
    assert (creep.first, creep.last, creep.gradual) == (8, 17, True)


def test_the_first_run_of_each_level_is_named():
    levels = [0.0] * 12 + [0.10] * 12 + [0.04] * 12
    found = change_points(noisy(levels, 0.005, 1))
    assert [change.first for change in found] == [12, 24]
    assert [change.size for change in found] == pytest.approx([0.10, -0.06], abs=0.006)
    assert not any(change.gradual for change in found)


def test_one_odd_run_is_no_change():
    values = np.random.default_rng(2).normal(0, 0.01, 40)
    values[20] = 0.5
    values[39] = 0.5
    assert change_points(runs(*values.tolist())) == []


def test_five_per_cent_at_two_per_cent_noise_are_dated_within_a_run():
    found = [change_points(noisy([0.0] * 30 + [0.05] * 15, 0.02, seed)) for seed in range(40)]
    dated = [len(each) == 1 and abs(each[0].first - 30) <= 1 for each in found]
    assert sum(dated) >= 28


def test_flat_series_have_no_change():
    found = [change_points(noisy([0.0] * count, 0.02, count)) for count in range(6, 206)]
    assert sum(map(bool, found)) <= 2


def test_a_creep_is_named_as_a_stretch():
    found = change_points(noisy(shares.creep(20, 10, 10, 0.10), 0.01, 3))
    assert len(found) == 1
    (change,) = found
    assert change.gradual
    assert (abs(change.first - 20) <= 3, abs(change.last - 29) <= 3) == (True, True)
    assert change.size == pytest.approx(0.10, abs=0.02)


@pytest.mark.parametrize(("before", "after"), [(1, 0), (3, 0), (5, 0), (3, 3)])
def test_a_creep_with_few_runs_around_it_is_named_as_a_stretch(before, after):
    levels = shares.creep(before, 10, after, 0.10)
    for seed in range(5):
        (change,) = change_points(noisy(levels, 0.006, seed))
        assert change.gradual
        assert abs(change.first - before) <= 3
        assert abs(change.last - (before + 9)) <= 3


def test_a_step_and_a_creep_to_one_side_are_told_apart():
    levels = np.concatenate([[0.0] * 14, [0.06] * 10, 0.06 + shares.creep(0, 10, 6, 0.10)])
    for seed in range(3):
        found = change_points(noisy(levels, 0.003, seed))
        assert [change.gradual for change in found] == [False, True]
        assert found[0].first == 14
        assert abs(found[1].first - 24) <= 2


def test_two_steps_to_one_side_are_no_creep():
    found = change_points(noisy(np.repeat([0.0, 0.05, 0.10], 20), 0.005, 4))
    assert [(change.first, change.gradual) for change in found] == [(20, False), (40, False)]


def test_a_step_is_not_gradual():
    assert not Change(first=4, last=4, size=0.1).gradual
    assert Change(first=4, last=9, size=0.1).gradual


@pytest.mark.parametrize("wrong", [{"value": math.nan}, {"value": 0.0, "processes": 0}])
def test_a_run_without_a_number_or_a_process_is_refused(wrong):
    with pytest.raises(MeasurementError, match="finite value and at least one process"):
        Run(**wrong)


def scattered(values: list[float], noise: float = 0.005, seed: int = 1) -> list[Run]:
    rng = random.Random(seed)
    return [Run(value=value + rng.gauss(0, noise), processes=3) for value in values]


def test_a_series_without_a_change_is_one_level_and_none_has_none() -> None:
    (only,) = levels(scattered([0.0] * 12))
    assert (only.first, only.last, only.change) == (0, 11, None)
    assert levels([]) == []


def test_a_step_has_its_size_and_an_interval_by_the_scatter_of_the_runs() -> None:
    runs = [Run(value=run.value) for run in scattered([0.0] * 12 + [0.5] * 12, 0.01, 3)]
    before, after = levels(runs)
    assert (before.first, before.last, after.first, after.last) == (0, 11, 12, 23)
    halves = [run.value for run in runs[:12]], [run.value for run in runs[12:]]
    means = [sum(half) / 12 for half in halves]
    squares = sum(
        (value - mean) ** 2 for half, mean in zip(halves, means, strict=True) for value in half
    )
    half = 2.0739 * math.sqrt(squares / 22 * (2 / 12))  # t of 22 degrees of freedom, 97.5 %
    assert after.change == pytest.approx(means[1] - means[0])
    assert after.change - after.interval.low == pytest.approx(half, rel=1e-4)
    assert after.interval.high - after.change == pytest.approx(half, rel=1e-4)


def test_a_run_is_not_believed_to_scatter_less_than_its_processes() -> None:
    runs = [Run(value=run.value, processes=4) for run in scattered([0.0] * 12 + [0.5] * 12, 0.001)]
    after = levels(runs, process_variance=0.04**2)[1]
    assert after.change is not None
    half = 2.0739 * 0.04 * math.sqrt(2 / 48)
    assert after.change - after.interval.low == pytest.approx(half, rel=1e-4)


@pytest.mark.parametrize("after", [0, 10])
def test_a_creep_is_a_stretch_between_the_levels_and_has_the_whole_change(after: int) -> None:
    creep = [0.01 * number for number in range(1, 11)]
    found = levels(scattered([0.0] * 10 + creep + [0.10] * after, 0.003))
    assert [level.creep for level in found[:2]] == [False, True]
    stretch = found[1]
    assert (abs(stretch.first - 10) <= 2, abs(stretch.last - 19) <= 2) == (True, True)
    assert stretch.change == pytest.approx(0.10, abs=0.015)
    if after:
        assert 0.10 in stretch.interval
        assert found[2].change is None
    assert found[-1].last == 19 + after


def of_gates(levels: np.ndarray, seed: int, *, moving: bool) -> list[tuple[int, int]]:
    """Return where a change begins and ends that gates of two sessions see.

    In a chain each gate's error adds up, so its sessions scatter less here.
    """
    ratios = shares.gated(levels, seed, 0.005 if moving else 0.01, 2, moving=moving)
    found = ratio_levels(ratios, len(levels))
    return [(one.first, one.last) for one in found if one.change is not None]


@pytest.mark.parametrize("moving", [False, True], ids=["one anchor", "the commit before"])
def test_gates_date_a_creep_and_a_step_and_see_none_where_nothing_moved(moving: bool) -> None:
    creeps = [of_gates(0.01 * np.arange(11), seed, moving=moving) for seed in range(20)]
    near = [found[0][0] <= 3 and found[0][1] >= 8 for found in creeps if found]
    assert sum(near) >= 15
    steps = [of_gates(np.repeat([0.0, 0.06], [6, 5]), seed, moving=moving) for seed in range(20)]
    assert sum(found == [(6, 10)] for found in steps) >= 18
    flat = [of_gates(np.zeros(11), seed, moving=moving) for seed in range(200)]
    assert not any(flat)


@pytest.mark.parametrize(("step", "creeps"), [(0.525, True), (0.55, False)])
def test_gates_that_a_slope_explains_almost_as_well_as_a_step_name_no_one_commit(
    step: float, creeps: bool
) -> None:
    """A part of the change is a step at the fourth of seven commits, the rest a slope over all."""
    places = np.arange(1, 8)
    values = 0.06 * ((1 - step) * places / 7 + step * (places >= 4))
    sessions = [
        Summary(estimate=value, variance=3 * 0.004**2, freedom=2, count=3)
        for value in values.tolist()
    ]
    ratios = [Ratio(sessions=one, new=n, old=0) for n, one in enumerate(sessions, 1)]
    (found,) = [one for one in ratio_levels(ratios, 8) if one.change is not None]
    assert (found.first, found.last, found.creep) == ((2, 6, True) if creeps else (4, 7, False))
