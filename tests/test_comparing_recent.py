"""The bar: by hand, and where it leaves the anchor."""

import math

import pytest

from convmark.compare.rule.recent import Level, bar
from convmark.core.errors import MeasurementError


def test_without_earlier_runs_the_anchor_is_the_bar():
    assert bar([]) == 0.0


def test_the_bar_is_the_upper_bound_of_the_recent_level():
    level = Level(log_ratio=-0.10, error=0.003)
    # errors of 0.3 and 0.4 % make 0.5 %
    assert bar([level]) == pytest.approx(-0.10 + 2.17 * 0.005)
    assert bar([level] * 3) == pytest.approx(-0.10 + 2.17 * 0.005 / math.sqrt(3))


def test_only_the_last_three_runs_count():
    old, new = Level(log_ratio=-0.30, error=0.0), Level(log_ratio=-0.05, error=0.0)
    assert bar([old, old, new, new, new]) == bar([new] * 3)


def test_a_level_that_is_not_surely_faster_leaves_the_anchor_in_force():
    assert bar([Level(log_ratio=-0.010, error=0.003)]) == 0.0
    assert bar([Level(log_ratio=0.20, error=0.003)]) == 0.0


def test_a_level_without_a_number_is_refused():
    with pytest.raises(MeasurementError, match="finite log ratio"):
        Level(log_ratio=math.nan, error=0.1)
    with pytest.raises(MeasurementError, match="error of at least 0"):
        Level(log_ratio=0.0, error=-0.1)
