"""The screen from history: hand-worked values, and the boundary of each rule."""

import math
import random
from collections.abc import Sequence

import pytest

from convmark.errors import MeasurementError
from convmark.judging.confirm import UNCHANGED_WITHIN, t_quantile
from convmark.judging.processes import Process, baseline_runs, loads_alike
from convmark.judging.screen import CONVICTED_BEYOND, Screening, screen, unconfirmed
from convmark.judging.spread import Spread, pooled_spread

POOL = Spread(between_processes=0.02, process_freedom=100, between_runs=0.01, run_freedom=100)


def run(*values: float, error: float = 0.0, load: float | None = 0.5) -> list[Process]:
    return [Process(log_ratio=value, error=error, load=load) for value in values]


def screening(**changes) -> Screening:
    fields = {
        "estimate": 0.0,
        "error": 0.01,
        "freedom": 50.0,
        "low": -0.02,
        "high": 0.02,
        "own_error": 0.01,
        "runs": 10,
        "loads_alike": True,
        "smallest_visible": 0.035,
    }
    return Screening(**{**fields, **changes})


def test_spread_between_processes_and_runs_is_worked_by_hand():
    case = [run(0.00, 0.02), run(0.04, 0.06)]
    spread = pooled_spread([case] * 20)
    # within a run 0.0002 per degree of freedom; between the means 0.0008, of which 0.0001 is theirs
    assert spread.between_processes == pytest.approx(math.sqrt(0.0002))
    assert spread.between_runs == pytest.approx(math.sqrt(0.0007))
    assert (spread.process_freedom, spread.run_freedom) == (40, 20)


def test_what_the_processes_own_errors_explain_is_not_counted_twice():
    case = [run(0.00, 0.02, error=0.005), run(0.04, 0.06, error=0.005)]
    spread = pooled_spread([case] * 20)
    assert spread.between_processes == pytest.approx(math.sqrt(0.0002 - 0.000025))
    assert spread.between_runs == pytest.approx(math.sqrt(0.0007))


def test_spread_between_processes_is_at_least_one_percent():
    assert pooled_spread([[run(0.0, 0.0)] * 2] * 20).between_processes == pytest.approx(0.01)
    assert pooled_spread([[run(0.0, 0.0)] * 2] * 20).between_runs == 0.0


@pytest.mark.parametrize(("runs", "spread"), [(19, 0.025), (20, 0.01)])
def test_spread_between_processes_is_assumed_until_twenty_degrees_of_freedom(runs, spread):
    assert pooled_spread([[run(0.0, 0.0)] * runs]).between_processes == pytest.approx(spread)


@pytest.mark.parametrize(("runs", "spread"), [(20, 0.017), (21, 0.0)])
def test_spread_between_runs_is_assumed_until_twenty_degrees_of_freedom(runs, spread):
    assert pooled_spread([[run(0.0, 0.0)] * runs]).between_runs == pytest.approx(spread)


def test_the_judged_run_tells_of_its_processes_whatever_its_shift():
    alone = pooled_spread([[run(0.0, 0.1)]])
    with_current = pooled_spread([[run(0.0, 0.1)]], [run(5.0, 5.1)])
    assert with_current.process_freedom == alone.process_freedom + 1
    assert with_current.between_processes == pytest.approx(alone.between_processes)


def test_no_history_at_all_has_the_assumed_spread():
    assert pooled_spread([]) == Spread(
        between_processes=0.025, process_freedom=0, between_runs=0.017, run_freedom=0
    )


def test_the_screens_error_is_worked_by_hand():
    baseline = [run(0.0, 0.02, error=0.01), run(0.0, 0.02, error=0.01)]
    screened = screen(run(0.05, 0.07, error=0.01), baseline, POOL)
    by_processes = 0.02**2 * (1 / 2 + (1 / 2 + 1 / 2) / 4)
    by_runs = 0.01**2 * (1 + 1 / 2)
    errors = 0.0001 / 2 + 2 * (0.0001 / 2) / 4
    assert by_processes + by_runs + errors == pytest.approx(5.25e-4)
    assert screened.estimate == pytest.approx(0.05)
    assert screened.error == pytest.approx(math.sqrt(5.25e-4))
    assert screened.freedom == pytest.approx(245)
    half = t_quantile(0.975, 245) * screened.error
    assert (screened.low, screened.high) == pytest.approx((0.05 - half, 0.05 + half))
    assert screened.smallest_visible == pytest.approx(1.5 * screened.error + half)
    assert screened.flagged
    assert screened.verdict is None


def test_a_case_noisier_than_the_pool_is_held_to_its_own_noise():
    noisy = [run(-0.1, 0.1), run(0.1, -0.1), run(-0.1, 0.1), run(0.1, -0.1)]
    screened = screen(run(0.0, 0.1), noisy, POOL)
    quiet = screen(run(0.0, 0.1), [run(0.0, 0.0)] * 4, POOL)
    assert screened.error > 3 * quiet.error
    assert not screened.flagged
    assert quiet.flagged


def test_a_case_quieter_than_the_pool_is_held_to_the_pool():
    short, long = ([run(0.0, 0.0)] * count for count in (2, 10))
    shares = 0.02**2 * (1 / 2 + 1 / 20) + 0.01**2 * (1 + 1 / 10)
    assert screen(run(0.0, 0.0), long, POOL).error == pytest.approx(math.sqrt(shares))
    assert screen(run(0.0, 0.0), short, POOL).error > math.sqrt(shares)


def test_one_process_against_one_run_is_judged_by_what_is_assumed():
    screened = screen(run(0.2), [run(0.0)], pooled_spread([[run(0.0)]]))
    assert screened.error == pytest.approx(math.sqrt(2 * 0.025**2 + 2 * 0.017**2))
    assert screened.flagged
    assert screened.own_error is None


@pytest.mark.parametrize(("estimate", "flagged"), [(0.015, False), (0.0151, True), (-0.0151, True)])
def test_a_case_is_flagged_beyond_one_and_a_half_errors(estimate, flagged):
    assert screening(estimate=estimate).flagged is flagged


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"low": -UNCHANGED_WITHIN, "high": UNCHANGED_WITHIN}, "unchanged"),
        ({"high": UNCHANGED_WITHIN + 1e-9}, "inconclusive"),
        ({"low": -UNCHANGED_WITHIN - 1e-9}, "inconclusive"),
        ({"loads_alike": False}, "inconclusive"),
        ({"estimate": 0.02}, None),
    ],
)
def test_unchanged_needs_the_interval_within_five_percent_and_like_loads(changes, verdict):
    assert screening(**changes).verdict == verdict


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [(0.0, 0.1, True), (0.5, 0.61, False), (0.61, 0.5, False), (None, 0.5, False)],
)
def test_loads_are_alike_within_a_tenth_of_the_cpu_time(one, other, alike):
    assert loads_alike(one, other) is alike
    assert loads_alike(None, None) is False


def test_the_baseline_is_the_last_ten_runs_under_a_like_load():
    history = [run(float(i), load=0.5 if i % 2 else 3.0) for i in range(30)]
    chosen = baseline_runs(history, 0.5)
    assert [each[0].log_ratio for each in chosen] == [11, 13, 15, 17, 19, 21, 23, 25, 27, 29]


def test_without_a_like_load_the_nearest_runs_are_the_baseline_latest_first():
    history = [run(float(i), load=load) for i, load in enumerate((3.0, 2.0, 2.0, None))]
    chosen = baseline_runs(history, 0.5)
    assert [each[0].log_ratio for each in chosen] == [2, 1, 0, 3]
    assert not screen(run(0.0), chosen, POOL).loads_alike


def test_with_an_unknown_load_the_last_ten_runs_are_the_baseline():
    history = [run(float(i), load=None) for i in range(12)]
    chosen = baseline_runs(history, None)
    assert [each[0].log_ratio for each in chosen] == list(range(2, 12))
    assert not screen(run(0.0, load=None), chosen, POOL).loads_alike


@pytest.mark.parametrize(("now", "before"), [([], [[]]), ([], []), ([0.0], []), ([0.0], [[]])])
def test_a_screen_without_processes_is_refused(now, before):
    with pytest.raises(MeasurementError, match="needs a process"):
        screen(run(*now), [run(*each) for each in before], POOL)


def test_a_process_refuses_what_is_no_number():
    with pytest.raises(MeasurementError, match="process must"):
        run(math.nan)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"estimate": CONVICTED_BEYOND + 1e-6, "high": 0.2}, "regressed"),
        ({"estimate": -CONVICTED_BEYOND - 1e-6, "low": -0.2}, "improved"),
        ({"estimate": CONVICTED_BEYOND - 1e-6, "high": 0.2}, "inconclusive"),
        ({"estimate": 0.2, "high": 0.3, "loads_alike": False}, "inconclusive"),
        ({"estimate": 0.2, "high": 0.3, "own_error": None, "runs": 1}, "inconclusive"),
        ({"estimate": 0.2, "high": 0.6, "error": 0.1}, "inconclusive"),
        ({"estimate": 0.2, "high": 0.3, "own_error": 0.1}, "inconclusive"),
        ({}, "unchanged"),
        ({"loads_alike": False}, "inconclusive"),
    ],
)
def test_history_alone_convicts_beyond_ten_percent_by_both_errors_and_like_loads(changes, verdict):
    assert unconfirmed(screening(**changes)).verdict == verdict


def test_history_alone_spends_half_of_the_error_rate():
    decision = unconfirmed(screening(estimate=0.12, error=0.02, own_error=0.02), 0.01)
    half = t_quantile(0.9975, 9) * 0.02
    assert (decision.low, decision.high) == pytest.approx((0.12 - half, 0.12 + half))
    reach = t_quantile(0.975, 50) * 0.02
    assert decision.smallest_visible == pytest.approx(max(CONVICTED_BEYOND, half) + reach)
    assert unconfirmed(screening(own_error=None, runs=1)).smallest_visible == math.inf


def spread_of(*cases: Sequence[float]) -> float:
    """The spread between processes over cases of one run each, given their processes."""
    return pooled_spread([[run(*values)] for values in cases]).between_processes


def test_one_noisy_case_does_not_hide_what_the_others_show():
    quiet = [(-0.03, 0.03, 0.03, -0.03)] * 8
    assert spread_of(*quiet, (-0.5, 0.5, 0.5, -0.5)) < 1.2 * spread_of(*quiet)


def test_below_four_cases_the_spread_is_pooled():
    # variances 0.0048 and 0.48 of three degrees of freedom each, their mean 0.2424
    wide = [(-0.06, 0.06, 0.06, -0.06), (-0.6, 0.6, 0.6, -0.6)]
    assert spread_of(*wide) == pytest.approx(0.2424**0.5)


def test_the_median_of_variances_is_made_unbiased_and_never_exceeds_their_mean():
    rng = random.Random(0)
    cases = [[rng.gauss(0, 0.05) for _ in range(4)] for _ in range(4000)]
    assert spread_of(*cases) == pytest.approx(0.05, rel=0.03)
    # three noisy cases beside two quiet ones: the mean of the variances is the smaller estimate
    mixed = [(-0.03, 0.03)] * 2 + [(-0.3, 0.3)] * 3
    assert spread_of(*mixed) == pytest.approx(((2 * 0.0018 + 3 * 0.18) / 5) ** 0.5)
