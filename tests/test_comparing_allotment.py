"""Which case gets the next session: predictions against draws, and each rule of the choice."""

import dataclasses
import math

import numpy as np
import pytest

from convmark.compare.rule.allotment import (
    Candidate,
    chances_to_decide,
    next_session,
    seconds_to_decide,
)
from convmark.compare.rule.decision import CaseSessions, Decision, decide
from convmark.core.interval import Interval


def decision(**changes) -> Decision:
    fields = {
        "verdict": "undecided",
        "sessions": 4,
        "estimate": 0.01,
        "interval": Interval(-0.05, 0.07),
        "smallest_visible": 0.08,
        "spread": 0.03,
        "freedom": 20.0,
    }
    return Decision(**{**fields, **changes})


def candidate(session_s: float = 1.0, **changes) -> Candidate:
    own = {key: changes.pop(key) for key in ("left_over", "closed") if key in changes}
    return Candidate(decision=decision(**changes), session_s=session_s, **own)


FRESH = {"sessions": 0, "estimate": None, "spread": 0.02}


def test_a_decided_or_closed_case_gets_no_session_and_none_left_ends_the_run():
    cases = [candidate(verdict="unchanged"), candidate(closed=True), candidate()]
    assert next_session(cases, math.inf) == 2
    assert next_session(cases[:2], math.inf) is None


def test_of_two_alike_the_cheaper_goes_first_and_the_dear_one_where_it_decides_more():
    assert next_session([candidate(2.0), candidate(1.0)], math.inf) == 1
    near, far = candidate(2.0, spread=0.02), candidate(1.0, spread=0.15)
    assert next_session([far, near], math.inf) == 1


def test_what_the_last_run_left_undecided_goes_first():
    cases = [candidate(1.0, **FRESH), candidate(2.0, left_over=True, **FRESH)]
    assert next_session(cases, math.inf) == 1


def test_every_case_gets_its_first_two_sessions_before_any_gets_more():
    noisy, begun = candidate(1.0, **FRESH), candidate(1.0, sessions=1, spread=0.2)
    assert next_session([candidate(1.0), noisy, begun], math.inf) == 2
    assert next_session([candidate(1.0), noisy], math.inf) == 1
    assert next_session([candidate(0.1), candidate(1.0, sessions=2, spread=0.2)], math.inf) == 0


def test_after_its_first_sessions_what_was_left_over_still_weighs_more():
    cases = [candidate(1.0), candidate(2.0, left_over=True)]
    assert next_session(cases, math.inf) == 1


def test_a_session_that_does_not_fit_the_budget_is_not_begun():
    cases = [candidate(2.0), candidate(5.0, left_over=True)]
    assert next_session(cases, 4.9) == 0
    assert next_session(cases, 1.9) is None
    assert next_session(cases, 2.0) == 0


def test_without_a_session_two_are_the_fewest_that_decide():
    chances = chances_to_decide(decision(**FRESH), np.arange(1, 4), 16)
    assert chances[0] == 0.0
    assert 0 < chances[1] <= chances[2] <= 1


def test_a_regression_is_foreseen_where_its_signs_are_looked_at():
    found = decision(estimate=0.06, spread=0.006, sessions=9)
    chances = chances_to_decide(found, np.arange(1, 8), 16)
    assert chances[[0, 1]] == pytest.approx(0.0, abs=1e-3)
    assert chances[2] == pytest.approx(1.0, abs=1e-3)


def test_the_chance_foreseen_is_the_share_that_is_decided():
    rng = np.random.default_rng(1)
    others = [CaseSessions(wall=rng.normal(0, 0.05, 12).tolist()) for _ in range(15)]
    now = np.array([0.03, -0.05, 0.075, 0.0, -0.04, 0.05])
    found = decide([CaseSessions(wall=now.tolist()), *others])[0]
    assert found.verdict == "undecided"
    decided = []
    for _ in range(300):
        true = rng.normal(found.estimate, found.spread / math.sqrt(6))
        wall = [*now.tolist(), *rng.normal(true, found.spread, 6).tolist()]
        decided.append(decide([CaseSessions(wall=wall), *others])[0].decided)
    foreseen = chances_to_decide(found, np.array([6]), 16)[0]
    assert foreseen == pytest.approx(np.mean(decided), abs=0.15)


def test_the_seconds_still_needed_grow_with_noise_and_cost():
    quiet, loud = candidate(1.5, spread=0.03), candidate(1.5, spread=0.06)
    few, more = seconds_to_decide(quiet, 16), seconds_to_decide(loud, 16)
    assert few is not None
    assert more is not None
    assert 1.5 <= few < more
    dear = dataclasses.replace(quiet, session_s=3.0)
    assert seconds_to_decide(dear, 16) == pytest.approx(2 * few)


def test_the_noisier_of_two_cases_needs_no_less_for_an_estimate_that_lies_further_off():
    few = {"sessions": 5, "freedom": 3.0}
    loud = candidate(estimate=-0.24, spread=0.13, interval=Interval(-0.95, 0.47), **few)
    quiet = candidate(estimate=0.09, spread=0.08, interval=Interval(-0.35, 0.53), **few)
    assert seconds_to_decide(loud, 3) > seconds_to_decide(quiet, 3)


def test_what_would_decide_is_the_same_before_and_after_a_look_that_the_signs_fail():
    """Outliers to the other side, which the estimate trims, have the largest ranks."""
    wall = [(-0.25 if place % 6 == 4 else 0.04) + 0.001 * place for place in range(54)]
    before, after = (decide([CaseSessions(wall=wall[:count])])[0] for count in (53, 54))
    assert (before.verdict, after.verdict) == ("undecided", "undecided")
    few, more = (
        seconds_to_decide(Candidate(decision=one, session_s=1.0), 1) for one in (before, after)
    )
    assert few == pytest.approx(more, rel=0.1)


def test_what_two_sessions_leave_open_of_the_noise_further_ones_tell():
    few = {"sessions": 2, "freedom": 1.0, "estimate": 0.0}
    begun, known = candidate(spread=0.03, **few), candidate(spread=0.1, sessions=24, freedom=23.0)
    assert seconds_to_decide(begun, 3) < 60
    assert next_session([known, begun], math.inf) == 1


def test_of_hopeless_cases_the_one_with_the_least_time_goes_first():
    """Their chances differ by powers of ten, which had given one of them all sessions."""
    known, begun = candidate(spread=0.1, sessions=6), candidate(spread=0.9, sessions=5)
    assert next_session([known, begun], 12.0) == next_session([begun, known], 12.0) + 1 == 1
    assert next_session([known, begun, candidate(spread=0.02, sessions=50)], 12.0) == 2
    assert next_session([known, begun], math.inf) == 0


def test_a_decided_case_needs_nothing_and_a_closed_or_hopeless_one_has_no_time():
    assert seconds_to_decide(candidate(verdict="regressed"), 16) == 0
    assert seconds_to_decide(candidate(closed=True), 16) is None
    assert seconds_to_decide(candidate(spread=3.0), 16) is None


def test_a_decided_case_gets_more_sessions_until_its_interval_is_as_narrow_as_asked():
    wide, narrow = (
        Candidate(
            decision=decision(verdict="unchanged", interval=Interval(-half, half)),
            session_s=1.0,
            target=0.02,
        )
        for half in (0.03, 0.02)
    )
    assert (wide.open, narrow.open) == (True, False)
    assert next_session([narrow, wide], math.inf) == 1
    nearer = dataclasses.replace(
        wide, decision=decision(verdict="unchanged", interval=Interval(-0.022, 0.022))
    )
    assert next_session([wide, nearer], math.inf) == 1
