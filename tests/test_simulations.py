"""The arithmetic of the simulations in benchmarks/: the decision rule, and the rule league."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))  # scripts, not a package

import decision_rule as rates
import rule_league as league


def test_the_bounds_of_a_share_are_clopper_and_pearsons():
    assert rates.bounds(0, 3000) == (0.0, pytest.approx(1 - 0.025 ** (1 / 3000)))
    low, high = rates.bounds(1, 2)
    assert low == pytest.approx(1 - 0.975**0.5)
    assert high == pytest.approx(0.975**0.5)
    assert rates.bounds(5, 5)[1] == 1.0


@pytest.mark.parametrize("name", rates.SAME)
def test_identical_code_has_a_log_ratio_of_either_sign(name):
    values = rates.SAME[name].draw(np.random.default_rng(3), 16, 60)
    values = values - (0.004 if "bias" in name else 0.0)
    assert values.shape == (16, 60)
    assert 0.44 < (values > 0).mean() < 0.56


@pytest.mark.parametrize("name", ["two modes", "1 %, outliers of 20 to 50 %", "normal, 1.0%, 60 s"])
def test_identical_code_is_not_convicted(name):
    found = [rates.simulate(rates.SAME[name], seed) for seed in range(3)]
    assert not any(run.ever for run in found)
    verdicts = [verdict for run in found for verdict in run.verdicts]
    assert verdicts.count("unchanged") >= 0.9 * len(verdicts)


def test_five_per_cent_is_found_in_one_case_and_no_other_is_blamed():
    for seed in range(5):
        found = rates.simulate(rates.SLOWER["1.0%, +5%"], seed)
        assert found.ever == [0]
        assert found.verdicts == ["regressed", *["unchanged"] * 15]
        assert sum(found.sessions) <= 70


def test_a_budget_ends_a_run():
    found = rates.simulate(rates.SAME["normal, 6.0%, 200 s"], 1)
    assert sum(found.sessions) <= 200
    assert "undecided" in found.verdicts


def test_a_creep_is_regressed_by_the_sixth_commit_and_lost_speed_at_once():
    creep = rates.CREEPS["1 % a commit"]
    assert {rates.first_alarm(creep, 0.01, seed) for seed in range(5)} <= {3, 4, 5, 6}
    lost = next(changes for name, changes in rates.CREEPS.items() if "lost" in name)
    assert rates.first_alarm(lost, 0.01, 1) == 6


def test_a_stopped_simulation_goes_on_where_it_was(tmp_path, monkeypatch):
    state, scenario = tmp_path / "state.jsonl", rates.SAME["normal, 0.5%"]
    first = rates.State(state).outcomes("quiet", scenario, 32)
    assert len(state.read_text().splitlines()) == 2
    more = rates.State(state).outcomes("quiet", scenario, 48)
    assert more[:2] == first
    assert len(state.read_text().splitlines()) == 3
    monkeypatch.setattr(rates, "version", lambda: "another")
    assert rates.State(state).outcomes("quiet", scenario, 16) == first[:1]
    assert len(state.read_text().splitlines()) == 4


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
