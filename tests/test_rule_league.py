"""The rivals of benchmarks/rule_league.py at their thresholds, on step times made by hand."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))  # scripts, not a package

import rule_league as league

STEPS = 40


def noise(spread: float) -> league.Noise:
    """Return six processes and five sessions whose steps scatter alike."""
    rng = np.random.default_rng(1)
    steps = [0.01 * np.exp(spread * rng.standard_normal((rows, STEPS))) for rows in (6, 5, 5)]
    return league.Noise(processes=steps[0], pairs=(steps[1], steps[2]))


def test_codspeed_alarms_above_ten_per_cent():
    before = np.full(10, 0.01)
    assert not league.codspeed_slower(before, before * 1.09)
    assert league.codspeed_slower(before, before * 1.11)


def test_nvbench_alarms_above_the_smaller_noise():
    before = np.array([0.9, 1.0, 1.1, 1.0, 0.95, 1.05])
    steady = np.array([1.02, 1.02, 1.02])
    assert league.nvbench_slower(before, steady)
    assert not league.nvbench_slower(before, before * 1.02)


def test_rustc_perf_alarms_above_the_fence_of_earlier_changes():
    before = np.array([1.0, 1.01, 1.0, 1.01, 1.0])
    assert not league.rustc_slower(before, 1.0095)
    assert league.rustc_slower(before, 1.02)


def test_conbench_alarms_at_five_standard_deviations():
    before = np.array([0.99, 1.01])  # mean 1, standard deviation 0.01414
    assert not league.conbench_slower(before, 1.070)
    assert league.conbench_slower(before, 1.071)


def test_the_energy_statistic_splits_where_the_level_moves():
    values = np.array([1.0, 1.1, 1.0, 1.1, 2.0, 2.1, 2.0])
    assert league.best_energy_split(values) == 4


@pytest.mark.parametrize("rule", ["tango, z >= 2.6", "Otava, e-divisive", "**convmark**"])
def test_rules_on_their_own_data_find_ten_per_cent_and_spend_time(rule):
    rng = np.random.default_rng(2)
    heard = league.RULES[rule](noise(0.01), 1.10, rng)
    assert heard.slower
    assert heard.seconds > 1


def test_identical_code_is_not_called_slower_by_ours():
    rng = np.random.default_rng(3)
    assert not any(league.ours(noise(0.05), 1.0, rng).slower for _ in range(3))


def test_every_rule_has_a_row_of_shares():
    found = list(league.rows({"made up": noise(0.01)}, 2))
    assert [row[0] for row in found] == list(league.RULES)
    assert all(len(str(row[1]).split(" / ")) == len(league.SLOWDOWNS) for row in found)
