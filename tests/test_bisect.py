"""Bisection whose steps may not know: on made-up changes, with and without noise."""

from __future__ import annotations

import math
import random

import pytest

from convmark.compare.live.bisect import Change, bisect
from convmark.core.interval import Interval

FIVE_PERCENT = math.log(1.05)


class Row:
    """Candidates with known step times; a comparison sees them within an interval."""

    def __init__(self, times_s: dict[str, float], half: float = 0.01, noise: float = 0.0) -> None:
        self.times_s = times_s
        self.names = list(times_s)
        self.half = half
        self.random = random.Random(0)
        self.noise = noise
        self.asked: list[tuple[str, str]] = []
        self.broken: set[str] = set()
        self.void: set[str] = set()

    def compare(self, earlier: str, later: str) -> Change | None:
        self.asked.append((earlier, later))
        if {earlier, later} & self.broken:
            return None
        true = math.log(self.times_s[later] / self.times_s[earlier])
        seen = true + self.random.uniform(-self.noise, self.noise)
        return Change(
            estimate=seen,
            interval=Interval.around(seen, self.half),
            void=bool({earlier, later} & self.void),
        )


def jump(at: int, count: int = 9, size: float = 1.2) -> Row:
    return Row({f"v{place}": 1.0 if place < at else size for place in range(count)})


@pytest.mark.parametrize("at", range(1, 9))
@pytest.mark.parametrize("size", [1.2, 0.8])
def test_the_candidate_that_brought_a_change_in_is_found_either_way(at: int, size: float) -> None:
    row = jump(at, size=size)
    found = bisect(row.names, row.compare, FIVE_PERCENT)
    assert (found.verdict, found.last_good, found.first_bad) == ("found", f"v{at - 1}", f"v{at}")
    assert found.change is not None
    assert found.change.estimate == pytest.approx(math.log(size))
    assert found.between == ()


def test_it_takes_as_many_steps_as_halving_does_and_two_for_the_ends() -> None:
    row = jump(40, count=65)
    assert bisect(row.names, row.compare, FIVE_PERCENT).first_bad == "v40"
    assert len(row.asked) <= 6 + 2


def test_two_candidates_need_one_comparison() -> None:
    row = jump(1, count=2)
    found = bisect(row.names, row.compare, FIVE_PERCENT)
    assert (found.verdict, found.first_bad, len(row.asked)) == ("found", "v1", 1)


def test_no_change_is_an_answer_only_where_the_interval_rules_one_out() -> None:
    row = jump(3, size=1.01)
    assert bisect(row.names, row.compare, FIVE_PERCENT).verdict == "no change"
    row = jump(3, size=1.01)
    row.half = 0.06
    assert bisect(row.names, row.compare, FIVE_PERCENT).verdict == "inconclusive"


def test_a_change_that_is_not_sure_is_inconclusive() -> None:
    row = jump(3, size=1.2)
    row.half = 0.3
    found = bisect(row.names, row.compare, FIVE_PERCENT)
    assert (found.verdict, found.last_good, found.first_bad) == ("inconclusive", "v0", "v8")
    assert len(row.asked) == 1


def test_a_candidate_that_cannot_be_measured_is_gone_around() -> None:
    row = jump(6)
    row.broken = {"v4"}
    found = bisect(row.names, row.compare, FIVE_PERCENT)
    assert (found.verdict, found.first_bad) == ("found", "v6")


def test_where_the_culprit_cannot_be_measured_the_range_is_the_answer() -> None:
    row = jump(4)
    row.broken = {"v4"}
    found = bisect(row.names, row.compare, FIVE_PERCENT)
    assert found.verdict == "inconclusive"
    assert (found.last_good, found.between, found.first_bad) == ("v3", ("v4",), "v5")
    assert found.change is not None


def test_ends_that_cannot_be_measured_give_no_answer() -> None:
    row = jump(4)
    row.broken = {"v8"}
    found = bisect(row.names, row.compare, FIVE_PERCENT)
    assert (found.verdict, found.change, found.whole) == ("inconclusive", None, None)


def test_a_void_comparison_says_nothing() -> None:
    row = jump(4)
    row.void = {"v8"}
    assert bisect(row.names, row.compare, FIVE_PERCENT).verdict == "inconclusive"
    row = jump(6)
    row.void = {"v4"}
    assert bisect(row.names, row.compare, FIVE_PERCENT).first_bad == "v6"


def test_a_change_in_two_parts_is_told_from_the_end_where_the_beginning_cannot_tell() -> None:
    """v4 is 4.5 % slow, within what the first comparison cannot tell from 5 %."""
    row = Row({"v0": 1.0, "v2": 1.0, "v4": 1.045, "v6": 1.2, "v8": 1.2}, half=0.01)
    found = bisect(row.names, row.compare, FIVE_PERCENT)
    assert (found.verdict, found.last_good, found.first_bad) == ("found", "v4", "v6")


def test_two_parts_below_the_threshold_are_never_one_candidates_fault() -> None:
    row = Row({"v0": 1.0, "v1": 1.035, "v2": 1.07}, half=0.01)
    found = bisect(row.names, row.compare, FIVE_PERCENT)
    assert found.verdict == "inconclusive"
    assert (found.last_good, found.first_bad) in {("v0", "v2"), ("v1", "v2"), ("v0", "v1")}


def test_noise_within_the_intervals_names_nobody_wrong() -> None:
    for seed in range(50):
        row = jump(5, size=1.1)
        row.random.seed(seed)
        row.half, row.noise = 0.03, 0.02
        found = bisect(row.names, row.compare, FIVE_PERCENT)
        assert found.verdict == "inconclusive" or found.first_bad == "v5"
