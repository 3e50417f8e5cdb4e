"""The rule of verdicts: hand-worked values, and the boundary of each condition."""

import math

import numpy as np
import pytest

from convmark.compare.rule.decision import (
    CaseSessions,
    Decision,
    Limits,
    bar,
    contradicts,
    controls_differ,
    decide,
)
from convmark.compare.rule.statistics import (
    ASSUMED,
    CASE_ERROR_RATE,
    RUN_ERROR_RATE,
    Prior,
    Summary,
    case_error_rate,
    chance_of_slower,
    look_at,
    pooled_prior,
    pooled_variance,
    sign_looks,
    summary,
)
from convmark.core.errors import MeasurementError
from convmark.core.interval import NOT_KNOWN

QUIET = [CaseSessions(wall=[-0.006, 0.0, 0.006]) for _ in range(15)]
"""The other cases of a quiet run: sessions of 0.6 %."""


def around(centre: float, count: int, spread: float = 0.006) -> list[float]:
    """Return sessions evenly spread around a centre."""
    return [centre + spread * (i - (count - 1) / 2) / max(1, count - 1) for i in range(count)]


def first(wall: list[float], **more) -> Decision:
    return decide([CaseSessions(wall=wall, **more), *QUIET])[0]


def test_a_trimmed_summary_is_worked_by_hand():
    found = summary([0.0, 0.01, 0.02, 0.03, 0.90])
    # one trimmed at each end: the mean of 0.01, 0.02, 0.03; winsorised 0.01 0.01 0.02 0.03 0.03
    assert found.estimate == pytest.approx(0.02)
    assert found.variance == pytest.approx(5 * 0.0004 / 6)
    assert (found.freedom, found.count) == (2, 5)


def test_below_five_sessions_nothing_is_trimmed():
    found = summary([0.0, 0.01, 0.02, 0.07])
    assert found.estimate == pytest.approx(0.025)
    assert found.variance == pytest.approx(np.var([0, 0.01, 0.02, 0.07], ddof=1))
    assert found.freedom == 3


@pytest.mark.parametrize("sessions", [[0.1], [], [0.1, math.nan]])
def test_no_summary_of_one_session_or_of_none_or_of_no_number(sessions):
    with pytest.raises(MeasurementError, match="at least two finite sessions"):
        summary(sessions)


def test_a_variance_is_shrunk_by_degrees_of_freedom():
    found = Summary(estimate=0.0, variance=0.0001, freedom=2, count=3)
    assert found.shrunk(Prior(variance=0.0004, freedom=4)) == (pytest.approx(0.0003), 6)


def test_a_noisy_case_is_never_believed_quieter_than_it_was_seen():
    found = Summary(estimate=0.0, variance=0.04, freedom=2, count=3)
    assert found.shrunk(Prior(variance=0.0001, freedom=20))[0] == 0.04


def test_the_variance_within_groups_is_worked_by_hand():
    assert pooled_variance([[1.0, 3.0], [10.0, 11.0, 12.0], [99.0]]) == (4 / 3, 3)
    assert pooled_variance([[1.0], []]) == (0.0, 0)


def test_three_cases_do_not_tell_the_noise_and_four_do():
    case = Summary(estimate=0.0, variance=0.0001, freedom=10, count=11)
    assert pooled_prior([case] * 3) == ASSUMED
    assert pooled_prior([case] * 4).variance == pytest.approx(0.0001, rel=0.1)
    assert pooled_prior([case] * 4).freedom == 20


def test_the_moments_of_log_variances_find_the_prior_again():
    rng = np.random.default_rng(1)
    true = 0.0004 * 8 / rng.chisquare(8, 3000)
    drawn = true * rng.chisquare(4, 3000) / 4
    cases = [Summary(estimate=0.0, variance=each, freedom=4, count=5) for each in drawn.tolist()]
    prior = pooled_prior(cases)
    assert prior.freedom == pytest.approx(8, rel=0.25)
    assert prior.variance == pytest.approx(0.0004, rel=0.1)


def test_one_wild_case_does_not_make_fifteen_others_unknown():
    quiet = [
        Summary(estimate=0.0, variance=each, freedom=2, count=3)
        for each in np.linspace(0.00005, 0.0002, 15).tolist()
    ]
    wild = Summary(estimate=0.0, variance=0.04, freedom=2, count=3)
    with_it, without = pooled_prior([*quiet, wild]), pooled_prior([*quiet, quiet[-1]])
    assert with_it == without


def test_equal_sessions_have_the_least_noise_that_is_believed():
    assert first([0.0, 0.0, 0.0]).spread >= 0.003


@pytest.mark.parametrize(
    ("log_ratios", "chance"),
    [
        ([0.1, 0.2, 0.3], 1 / 8),
        ([-0.1, 0.2, 0.3], 2 / 8),
        ([0.1, -0.2, 0.3], 3 / 8),
        ([0.1, 0.2, -0.3], 5 / 8),
        ([-0.1, -0.2, -0.3], 1),
        ([0.0, 0.2, 0.3], 2 / 8),
        ([0.2, -0.2, 0.3], 3 / 8),
    ],
)
def test_the_chance_of_signs_is_counted_by_hand(log_ratios, chance):
    assert chance_of_slower(log_ratios) == pytest.approx(chance)


def test_exact_and_normal_chances_meet():
    rng = np.random.default_rng(2)
    values = rng.normal(0.2, 1, 101)
    assert chance_of_slower(values) == pytest.approx(chance_of_slower(values[:100]), abs=0.02)
    assert 0.001 < chance_of_slower(values) < 0.2


def test_the_error_rate_is_shared_by_the_cases_and_capped():
    assert case_error_rate(1) == case_error_rate(10) == CASE_ERROR_RATE
    assert case_error_rate(100) == RUN_ERROR_RATE / 100
    with pytest.raises(MeasurementError, match="at least one case"):
        case_error_rate(0)


@pytest.mark.parametrize("cases", [1, 16, 100])
def test_all_looks_together_spend_no_more_than_the_cases_share(cases):
    share = case_error_rate(cases)
    looks = sign_looks(share)
    early = sum(look_at(count, share).rate for count in range(5, looks[0].sessions))
    assert early + sum(look.rate for look in looks) <= share
    assert 2.0 ** -looks[0].sessions <= looks[0].rate


def test_sixteen_cases_are_looked_at_after_twelve_sessions_and_then_ever_more_seldom():
    looks = sign_looks(case_error_rate(16))
    assert [look.sessions for look in looks[:5]] == [12, 16, 22, 30, 40]
    assert look_at(11, case_error_rate(16)).sessions == 0
    assert look_at(15, case_error_rate(16)) == looks[0]


def test_cases_that_were_decided_before_an_interruption_have_had_their_share_of_the_error_rate():
    case = CaseSessions(wall=around(0.05, 13))
    assert decide([case, *QUIET])[0].verdict == "regressed"
    assert decide([case, *QUIET * 6])[0].verdict == "undecided"
    assert decide([case, *QUIET], decided_before=75)[0].verdict == "undecided"


def test_two_quiet_sessions_decide_and_one_does_not():
    assert first(around(0.0, 1)).verdict == "undecided"
    assert first(around(0.0, 2)).verdict == "unchanged"


def test_duets_do_not_tell_the_noise_of_sessions_of_two_processes():
    """Two that agree by luck would rule out a change that such sessions cannot see yet."""
    assert first([0.0, 0.003]).verdict == "unchanged"
    assert first([0.0, 0.003], apart=True).verdict == "undecided"
    apart = [CaseSessions(wall=one.wall, apart=True) for one in QUIET]
    assert decide([CaseSessions(wall=[0.0, 0.003], apart=True), *apart])[0].verdict == "unchanged"


def test_a_final_decision_stands_whatever_noise_other_cases_turn_out_to_have():
    case = CaseSessions(wall=[-0.003, 0.003])
    noisy = [CaseSessions(wall=[-0.2, 0.0, 0.2])] * 15
    final = decide([case, *QUIET])[0]
    assert final.verdict == "unchanged"
    assert decide([case, *noisy])[0].verdict == "undecided"
    found = decide([case, *noisy], final=[final, *[None] * 15])
    assert found[0] is final
    assert found[1:] == decide([case, *noisy])[1:]


def test_two_sessions_decide_nothing_where_other_cases_do_not_tell_the_noise():
    assert decide([CaseSessions(wall=[0.0, 0.0])])[0].verdict == "undecided"


@pytest.mark.parametrize("change", [0.05, 0.5])
def test_two_sessions_convict_nobody(change):
    assert first(around(change, 2)).verdict == "undecided"


@pytest.mark.parametrize(("count", "verdict"), [(11, "undecided"), (12, "regressed")])
def test_a_small_change_waits_for_signs_that_rule_out_chance(count, verdict):
    assert first(around(0.05, count)).verdict == verdict


def test_one_session_of_the_other_sign_makes_twelve_too_few():
    wall = [*around(0.05, 11), -0.001]
    assert first(wall).verdict == "undecided"
    assert first([*around(0.05, 15), -0.001]).verdict == "regressed"


@pytest.mark.parametrize(("count", "verdict"), [(4, "undecided"), (5, "regressed")])
def test_a_change_beyond_modes_needs_five_sessions(count, verdict):
    assert first(around(math.log(1.30), count)).verdict == verdict


def test_a_change_as_large_as_modes_does_not_count_as_beyond_them():
    assert first(around(math.log(1.08), 8)).verdict == "undecided"


def test_a_faster_code_is_improved_by_the_same_rule():
    assert first(around(-0.05, 12)).verdict == "improved"
    assert first(around(-math.log(1.30), 5)).verdict == "improved"


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (0.0308, "regressed"),
        (0.0280, "slower_within_margin"),
        (-0.0280, "faster_within_margin"),
        (0.0095, "unchanged"),
        (0.0105, "slower_within_margin"),
    ],
)
def test_a_sure_change_is_named_by_where_it_lies(change, verdict):
    wall = around(change, 16, spread=0.002)
    assert decide([CaseSessions(wall=wall)] * 16)[0].verdict == verdict


def test_five_modes_alike_do_not_convict_and_an_outlier_does_not_blunt():
    assert first(around(0.04, 5, spread=0.0001)).verdict == "undecided"
    assert first([0.4, *around(0.0, 5)]).verdict == "unchanged"
    assert first([0.4, 0.4, *around(0.0, 3)]).verdict == "undecided"


def test_the_noisy_case_in_a_quiet_suite_is_not_convicted_by_the_others_noise():
    found = first([0.10, 0.40, 0.05, 0.35, 0.02])
    assert found.verdict == "undecided"
    assert found.interval.low < 0


def test_cpu_time_convicts_nobody():
    wall = around(0.0, 12)
    assert first(wall, cpu=around(0.30, 12)).verdict == "unchanged"
    wide = [0.05 * (-1) ** i for i in range(12)]
    assert first(wide, cpu=around(0.30, 12)).verdict == "undecided"


def test_cpu_time_that_stands_still_lets_wall_time_be_less_sure():
    wall = [0.034 * (-1) ** i for i in range(8)]
    assert first(wall).verdict == "undecided"
    assert first(wall, cpu=around(0.0, 8)).verdict == "unchanged"
    assert first(wall, cpu=around(0.06, 8)).verdict == "undecided"


def test_a_slowdown_counts_from_the_bar_and_an_improvement_from_the_anchor():
    wall = around(-0.04, 12)
    assert first(wall).verdict == "improved"
    assert first(wall, bar=-0.08).verdict == "regressed"
    assert first(around(-0.09, 12), bar=-0.08).verdict == "improved"
    assert first(around(0.0, 3), bar=-0.04).verdict == "undecided"


def test_without_sessions_nothing_is_said():
    found = first([])
    assert (found.verdict, found.estimate, found.sessions) == ("undecided", None, 0)
    assert found.interval == NOT_KNOWN
    assert first([0.5]).estimate is None


def test_the_smallest_visible_change_lies_beyond_the_interval():
    found = first(around(0.0, 3))
    assert found.smallest_visible > found.interval.high - (found.estimate or 0)
    assert found.smallest_visible > first(around(0.0, 6)).smallest_visible


def test_limits_scale_with_a_margin_of_the_users():
    wide = Limits.around(0.10)
    assert wide.margin == pytest.approx(math.log(1.10))
    assert wide.unchanged_within == pytest.approx(math.log(1 + 0.10 * 5 / 3))
    found = decide([CaseSessions(wall=around(0.05, 12))] * 16, wide)[0]
    assert found.verdict == "slower_within_margin"


def test_sharp_limits_rule_the_margin_itself_out_before_they_say_unchanged():
    quiet = [CaseSessions(wall=around(0.0, 3, spread=0.03))] * 16
    assert decide(quiet)[0].verdict == "unchanged"
    assert decide(quiet, Limits().sharp())[0].verdict == "undecided"


@pytest.mark.parametrize("margin", [0.0, -0.01, math.nan, math.inf])
def test_a_margin_of_nothing_is_refused(margin):
    with pytest.raises(MeasurementError, match="margin"):
        Limits.around(margin)


@pytest.mark.parametrize(
    "wrong",
    [
        {"wall": [math.nan]},
        {"wall": [0.0], "cpu": [0.0, 0.1]},
        {"wall": [0.0], "bar": 0.01},
        {"wall": [0.0], "cpu": [math.inf]},
    ],
)
def test_sessions_that_are_no_numbers_or_do_not_match_are_refused(wrong):
    with pytest.raises(MeasurementError, match="must"):
        CaseSessions(**wrong)


def test_a_control_differs_where_it_is_surely_more_than_one_per_cent_away():
    away = [0.05, 0.048, 0.051, 0.05]
    small = [0.0095, 0.009, 0.0092, 0.0094]
    noisy = [0.05, -0.03, 0.04, 0.01]
    assert controls_differ([away, small, noisy, away[:2], []]) == [True, False, False, False, False]


@pytest.mark.parametrize(("noise", "sessions"), [(0.004, 3), (0.02, 5), (0.1, 20)])
def test_a_control_that_is_a_copy_seldom_differs(noise, sessions):
    rng = np.random.default_rng(1)
    draws = [controls_differ([rng.normal(0, noise, sessions)])[0] for _ in range(2000)]
    assert sum(draws) <= 8


@pytest.mark.parametrize(
    ("duets", "separate", "expected"),
    [
        (0.06, [0.06, 0.05, 0.07], False),
        (0.06, [-0.01, 0.0, 0.01], True),
        (0.85, [0.77, 0.78, 0.77], False),  # the size of a large change, not whether there is one
        (0.85, [0.30, 0.31, 0.30], True),
    ],
)
def test_separate_processes_contradict_beyond_three_errors_and_a_share_of_the_change(
    duets, separate, expected
):
    assert contradicts(first(around(duets, 12)), separate) is expected


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
