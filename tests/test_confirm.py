"""The live comparison's verdicts: hand-worked values, the boundary of each rule, their order."""

import math

import pytest

from convmark.errors import MeasurementError
from convmark.judging.confirm import (
    CONTROL_LIMIT,
    LEAST_CHANGE,
    LOOKS,
    UNCHANGED_WITHIN,
    Session,
    control_alarms,
    error_rate_per_case,
    judge,
    judge_clocks,
    t_quantile,
)

RATE = 0.01
LAST = len(LOOKS) - 1


def sessions(mean: float, spread: float = 1e-6, count: int = 5, error: float = 0.0):
    """An even number of sessions either side of the mean, the odd one on it."""
    offsets = [spread * (-1) ** i for i in range(count - count % 2)] + [0.0] * (count % 2)
    return [Session(log_ratio=mean + offset, error=error) for offset in offsets]


def test_t_quantiles_are_those_of_the_tables():
    assert t_quantile(0.975, 4) == pytest.approx(2.776, abs=5e-4)
    assert t_quantile(0.995, 11) == pytest.approx(3.106, abs=5e-4)
    assert t_quantile(0.975, math.inf) == pytest.approx(1.960, abs=5e-4)


def test_interval_and_smallest_visible_change_are_worked_by_hand():
    decision = judge(
        [Session(log_ratio=value, error=0.0) for value in (0.04, 0.05, 0.06, 0.05, 0.05)], RATE, 0
    )
    error = math.sqrt(0.0002 / 4) / math.sqrt(5)
    half = t_quantile(1 - 0.01 / 3 / 2, 4) * error
    assert half == pytest.approx(0.01976, abs=5e-5)
    assert decision.verdict == "regressed"
    assert decision.estimate == pytest.approx(0.05)
    assert (decision.low, decision.high) == pytest.approx((0.05 - half, 0.05 + half))
    assert decision.smallest_visible == pytest.approx(LEAST_CHANGE + 2.776 * error, abs=1e-5)


def test_sessions_that_agree_by_luck_are_held_to_their_own_errors():
    decision = judge(sessions(0.0, 0.0, error=0.01), RATE, 0)
    assert decision.high == pytest.approx(t_quantile(1 - 0.01 / 6, 4) * 0.007 / math.sqrt(5))


def test_one_wild_error_does_not_widen_the_floor():
    calm = sessions(0.0, 0.0, error=0.01)
    wild = [*calm[:-1], Session(log_ratio=0.0, error=9.0)]
    assert judge(wild, RATE, 0) == judge(calm, RATE, 0)


@pytest.mark.parametrize(
    ("mean", "verdict"),
    [
        (LEAST_CHANGE + 1e-4, "regressed"),
        (LEAST_CHANGE - 1e-4, "unchanged"),
        (-LEAST_CHANGE - 1e-4, "improved"),
        (-LEAST_CHANGE + 1e-4, "unchanged"),
        (0.0, "unchanged"),
    ],
)
def test_a_sure_change_convicts_above_three_percent_only(mean, verdict):
    assert judge(sessions(mean), RATE, 0).verdict == verdict


def test_a_conviction_comes_before_unchanged():
    decision = judge(sessions(0.04), RATE, 0)
    assert decision.low > -UNCHANGED_WITHIN
    assert decision.high < UNCHANGED_WITHIN
    assert decision.verdict == "regressed"


def test_a_large_change_whose_interval_holds_zero_convicts_nobody():
    assert judge(sessions(0.2, 0.2), RATE, 0).verdict is None
    assert judge(sessions(0.2, 0.2, count=12), RATE, LAST).verdict == "inconclusive"


def test_unchanged_needs_the_whole_interval_within_five_percent():
    half = judge(sessions(0.0, 0.01), RATE, 0).high
    just_within = UNCHANGED_WITHIN - half - 1e-6
    assert 0 < just_within < LEAST_CHANGE
    assert judge(sessions(just_within, 0.01), RATE, 0).verdict == "unchanged"
    assert judge(sessions(just_within + 2e-6, 0.01), RATE, 0).verdict is None


def test_only_the_last_look_is_inconclusive():
    for look, count in enumerate(LOOKS):
        verdict = judge(sessions(0.0, 0.3, count), RATE, look).verdict
        assert verdict == ("inconclusive" if look == LAST else None)
    assert judge(sessions(0.0, 0.3), RATE, 0, last=True).verdict == "inconclusive"


def test_the_error_rate_is_split_over_the_confirmed_cases():
    assert error_rate_per_case(0) == error_rate_per_case(1) == 0.01
    assert error_rate_per_case(4) == 0.0025
    alone, crowd = (judge(sessions(0.1, 0.02), error_rate_per_case(n), 0) for n in (1, 4))
    assert crowd.low < alone.low


def test_more_sessions_see_smaller_changes():
    seen = [
        judge(sessions(0.0, 0.03, count), RATE, look).smallest_visible
        for look, count in enumerate(LOOKS)
    ]
    assert seen == sorted(seen, reverse=True)


@pytest.mark.parametrize(
    ("count", "rate", "look", "says"),
    [
        (1, RATE, 0, "two sessions"),
        (5, RATE, 3, "look"),
        (5, RATE, -1, "look"),
        (5, 0.0, 0, "error rate"),
        (5, 1.0, 0, "error rate"),
    ],
)
def test_nonsense_is_refused(count, rate, look, says):
    with pytest.raises(MeasurementError, match=says):
        judge(sessions(0.0, count=count), rate, look)


@pytest.mark.parametrize(("value", "error"), [(math.nan, 0.1), (0.1, math.inf), (0.1, -0.1)])
def test_a_session_refuses_what_is_no_number(value, error):
    with pytest.raises(MeasurementError, match="session"):
        Session(log_ratio=value, error=error)


@pytest.mark.parametrize(
    ("mean", "spread", "alarms"),
    [
        (CONTROL_LIMIT + 1e-4, 1e-6, True),
        (-CONTROL_LIMIT - 1e-4, 1e-6, True),
        (CONTROL_LIMIT - 1e-4, 1e-6, False),
        (0.02, 0.02, False),
    ],
)
def test_the_control_alarms_on_a_sure_difference_of_one_percent(mean, spread, alarms):
    assert control_alarms(sessions(mean, spread), RATE, 0) is alarms


def clocks(wall: float, cpu: float, primary, wall_spread: float = 1e-6, look: int = 0):
    count = LOOKS[look]
    return judge_clocks(
        sessions(wall, wall_spread, count), sessions(cpu, 1e-6, count), RATE, look, primary=primary
    )


@pytest.mark.parametrize("primary", ["wall", "cpu"])
@pytest.mark.parametrize(
    ("wall", "cpu", "verdict", "decided_by"),
    [
        (0.1, 0.0, "regressed", "wall"),
        (0.1, -0.1, "regressed", "wall"),
        (-0.1, 0.1, "improved", "wall"),
        (0.01, 0.1, "regressed", "cpu"),
        (0.0, 0.01, "unchanged", None),
    ],
)
def test_wall_time_convicts_alone_and_cpu_time_where_wall_agrees(
    wall, cpu, verdict, decided_by, primary
):
    judged = clocks(wall, cpu, primary)
    assert judged.decision.verdict == verdict
    assert judged.decided_by == (decided_by or primary)


def test_cpu_time_against_wall_time_convicts_nobody():
    assert clocks(-0.01, 0.1, "cpu").decision.verdict is None
    assert clocks(-0.01, 0.1, "cpu", look=LAST).decision.verdict == "inconclusive"


def test_unchanged_needs_the_other_clock_near_zero_too():
    assert clocks(0.2, 0.0, "cpu", wall_spread=0.3).decision.verdict is None
    assert clocks(0.01, 0.0, "cpu", wall_spread=0.3).decision.verdict == "unchanged"
    assert clocks(0.2, 0.0, "cpu", 0.3, LAST).decision.verdict == "inconclusive"


def test_two_clocks_spend_the_error_of_one():
    judged = clocks(0.1, 0.1, "cpu")
    both = sessions(0.1)
    assert judged.cpu == judge(both, RATE * 0.8, 0)
    assert judged.wall.high == pytest.approx(judge(both, RATE * 0.2, 0).high)
