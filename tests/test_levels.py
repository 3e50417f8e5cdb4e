"""The levels of a series: by hand, and on seeded series with a step and a creep."""

from __future__ import annotations

import math
import random

import pytest

from convmark.compare.rule.change_points import Run, levels


def noisy(values: list[float], noise: float = 0.005, seed: int = 1) -> list[Run]:
    rng = random.Random(seed)
    return [Run(value=value + rng.gauss(0, noise), processes=3) for value in values]


def test_a_series_without_a_change_is_one_level_and_none_has_none() -> None:
    (only,) = levels(noisy([0.0] * 12))
    assert (only.first, only.last, only.change) == (0, 11, None)
    assert levels([]) == []


def test_a_step_has_its_size_and_an_interval_by_the_scatter_of_the_runs() -> None:
    runs = [Run(value=run.value) for run in noisy([0.0] * 12 + [0.5] * 12, 0.01, 3)]
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
    runs = [Run(value=run.value, processes=4) for run in noisy([0.0] * 12 + [0.5] * 12, 0.001)]
    after = levels(runs, process_variance=0.04**2)[1]
    assert after.change is not None
    half = 2.0739 * 0.04 * math.sqrt(2 / 48)
    assert after.change - after.interval.low == pytest.approx(half, rel=1e-4)


@pytest.mark.parametrize("after", [0, 10])
def test_a_creep_is_a_stretch_between_the_levels_and_has_the_whole_change(after: int) -> None:
    creep = [0.01 * number for number in range(1, 11)]
    found = levels(noisy([0.0] * 10 + creep + [0.10] * after, 0.003))
    assert [level.creep for level in found[:2]] == [False, True]
    stretch = found[1]
    assert (abs(stretch.first - 10) <= 2, abs(stretch.last - 19) <= 2) == (True, True)
    assert stretch.change == pytest.approx(0.10, abs=0.015)
    if after:
        assert 0.10 in stretch.interval
        assert found[2].change is None
    assert found[-1].last == 19 + after
