"""The bar: by hand, and where it leaves the anchor."""

import math

import pytest

from convmark.compare.rule.decision import bar


def test_without_earlier_runs_the_anchor_is_the_bar():
    assert bar([]) == 0.0


def test_the_bar_is_the_upper_bound_of_the_recent_level():
    level = (-0.10, 0.003)
    # errors of 0.3 and 0.4 % make 0.5 %
    assert bar([level]) == pytest.approx(-0.10 + 2.17 * 0.005)
    assert bar([level] * 3) == pytest.approx(-0.10 + 2.17 * 0.005 / math.sqrt(3))


def test_only_the_last_three_runs_count():
    old, new = (-0.30, 0.0), (-0.05, 0.0)
    assert bar([old, old, new, new, new]) == bar([new] * 3)


def test_a_level_that_is_not_surely_faster_leaves_the_anchor_in_force():
    assert bar([(-0.010, 0.003)]) == 0.0
    assert bar([(0.20, 0.003)]) == 0.0
