"""What an A/A says may be seen: held against the rule itself, and at its ends."""

from __future__ import annotations

import math

import numpy as np
import pytest

from convmark.compare.rule.allotment import sensitivities
from convmark.compare.rule.decision import CaseSessions, decide

CASES = 16


def identical(noise: float, sessions: int = 8, seed: int = 1) -> list[list[float]]:
    rng = np.random.default_rng(seed)
    return rng.normal(0, noise, (CASES, sessions)).tolist()


def test_noise_makes_everything_larger_and_longer() -> None:
    quiet, loud = (
        sensitivities(identical(noise), [1.5] * CASES, 600.0)[0] for noise in (0.005, 0.04)
    )
    assert quiet is not None
    assert loud is not None
    assert quiet.scatter == pytest.approx(0.005, rel=0.6)
    assert quiet.found_from is not None
    assert loud.found_from is not None
    assert 0.01 < quiet.found_from < 0.02 < 0.035 < loud.found_from
    assert quiet.rules_out is not None
    assert loud.rules_out is not None
    assert quiet.rules_out < 0.01 < loud.rules_out
    assert quiet.seconds[1] is not None
    assert loud.seconds[1] is not None
    assert quiet.seconds[1] <= 18.0 < loud.seconds[1]


def test_too_few_sessions_or_too_little_time_tell_nothing() -> None:
    walls = identical(0.01)
    assert sensitivities([*walls[1:], [0.01]], [1.0] * CASES, 600.0)[-1] is None
    short = sensitivities(walls, [1.0] * CASES, 1.0 * CASES)[0]
    assert short is not None
    assert (short.found_from, short.rules_out) == (None, None)
    assert short.seconds[2] is not None
    assert sensitivities([], [], 600.0) == []


def test_a_constant_offset_of_identical_code_is_noise() -> None:
    found = sensitivities([[0.03 + 1e-4 * n for n in range(6)]] * CASES, [1.0] * CASES, 600.0)[0]
    assert found is not None
    assert found.scatter == pytest.approx(0.03, rel=0.02)
    assert found.found_from is not None
    assert found.found_from > 0.03


@pytest.mark.parametrize(("noise", "change"), [(0.01, 0.05), (0.03, 0.05), (0.02, 0.10)])
def test_the_sessions_that_are_told_find_the_change_in_about_8_of_10(
    noise: float, change: float
) -> None:
    (seen, *_) = sensitivities(identical(noise, 30), [1.0] * CASES, 600.0)
    assert seen is not None
    assert seen.seconds[(0.03, 0.05, 0.10).index(change)] is not None
    sessions = int(seen.seconds[(0.03, 0.05, 0.10).index(change)] or 0)
    rng = np.random.default_rng(2)
    others = [CaseSessions(wall=wall) for wall in identical(noise, sessions, 3)[1:]]
    found = 0
    for _ in range(60):
        wall = rng.normal(math.log1p(change), noise, sessions).tolist()
        found += decide([CaseSessions(wall=wall), *others])[0].verdict in (
            *("regressed", "slower_within_margin"),
        )
    assert found / 60 >= 0.7
