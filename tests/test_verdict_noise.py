"""The verdicts on simulated and recorded noise: false alarms, and slowdowns found.

Deterministic. What the simulated noise is made of is told in benchmarks/verdict_rules.py.
"""

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import betaincinv

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))  # scripts, not a package

import verdict_rules as rates

from convmark.judging.confirm import CHANGED, ERROR_RATE, LOOKS, judge, judge_clocks

DATA = rates.default_data()
recorded_noise = pytest.mark.skipif(
    DATA is None,
    reason="no recorded noise: neither ../shared/data nor CONVMARK_NOISE_DATA holds noise/*.npz",
)
LOADED = ("loaded_1thread", "loaded_2threads")
SPLITS = 30


def upper_bound(alarms: int, decisions: int) -> float:
    """The one-sided 95 % bound of Clopper and Pearson (1934) on a rate."""
    return float(betaincinv(alarms + 1, decisions - alarms, 0.95))


def test_the_upper_bound_is_that_of_the_textbook():
    assert upper_bound(0, 100) == pytest.approx(1 - 0.05 ** (1 / 100))


@pytest.mark.parametrize(
    ("noise", "seed"),
    [
        (rates.Noise(process=0.01), 101),
        (rates.Noise(process=0.02), 102),
        (rates.Noise(process=0.05), 103),
        (rates.Noise(process=0.20), 104),
        (rates.Noise(process=0.20, others=0.01), 105),
    ],
    ids=["1 %", "2 %", "5 %", "20 %", "20 % among cases of 1 %"],
)
def test_identical_code_is_called_changed_at_most_once_in_a_hundred(noise, seed):
    # nothing is split over other cases: the most that a case can spend
    outcomes = rates.simulate(noise, 0.0, 3000, seed=seed, split=False)
    for verdicts in (
        [outcome.verdict for outcome in outcomes],
        [outcome.confirmed.verdict for outcome in outcomes],
        [rates.verdict_of(outcome.history_only) for outcome in outcomes],
    ):
        alarms = sum(verdict in CHANGED for verdict in verdicts)
        assert upper_bound(alarms, len(verdicts)) <= 0.01


@pytest.mark.parametrize("process", rates.NOISES)
def test_ten_percent_is_found_where_it_is_said_to_be_visible(process):
    decisions = {0.05: 1800, 0.20: 200}.get(process, 1000)
    outcomes = rates.simulate(
        rates.Noise(process=process), 0.10, decisions, seed=200 + round(100 * process)
    )
    visible = [outcome for outcome in outcomes if outcome.smallest_visible <= 0.10]
    if process == 0.20:
        assert not visible
        return
    assert len(visible) >= 200
    assert rates.share(visible, lambda outcome: outcome.verdict == "regressed") >= 0.95


@pytest.mark.parametrize("process", [0.01, 0.02])
def test_five_percent_is_found_where_processes_differ_by_two_percent_at_most(process):
    outcomes = rates.simulate(
        rates.Noise(process=process), 0.05, 700, seed=300 + round(100 * process)
    )
    assert rates.share(outcomes, lambda outcome: outcome.verdict == "regressed") >= 0.60
    assert rates.share(outcomes, lambda outcome: outcome.verdict == "unchanged") <= 0.025


@recorded_noise
@pytest.mark.parametrize("task", ["train", "infer"])
@pytest.mark.parametrize("condition", rates.LOCKSTEPS)
def test_recorded_noise_alarms_less_than_the_common_rules_do(condition, task):
    rows = rates.replay(DATA, condition, task, SPLITS, seed=400)
    ours = sum(row["ours 0.0"] for row in rows)
    common = [sum(row[f"{name} 0.0"] for row in rows) for name in rates.COMMON_RULES]
    assert ours <= min(max(common), 0.05 * SPLITS)
    if condition not in LOADED:
        assert sum(row["ours 0.1"] for row in rows) >= 0.95 * SPLITS


def draws_of_five(sessions, rng, count):
    """Five of the sessions, each at most once, the two identical sides exchanged at random."""
    for _ in range(count):
        chosen = [sessions[i] for i in rng.permutation(len(sessions))[: LOOKS[0]]]
        yield rates.swapped(chosen, rng.choice((-1.0, 1.0), LOOKS[0]).tolist())


@recorded_noise
@pytest.mark.parametrize("clock", ["train_wall", "train_cpu", "infer_wall", "infer_cpu"])
@pytest.mark.parametrize("name", sorted(set(rates.LOCKSTEPS.values())))
def test_recorded_sessions_of_identical_code_alarm_at_most_once_in_a_hundred(name, clock):
    sessions = rates.recorded_sessions(rates.recorded(DATA, name), "A2", "A1", clock)
    drawn = list(draws_of_five(sessions, np.random.default_rng(500), 300))
    alarms = sum(judge(each, ERROR_RATE, 0).verdict in CHANGED for each in drawn)
    assert alarms <= 0.01 * len(drawn)


@recorded_noise
@pytest.mark.parametrize(("clock", "least"), [("wall", 0.75), ("cpu", 0.95)])
@pytest.mark.parametrize("name", sorted(set(rates.LOCKSTEPS.values())))
def test_the_recorded_slower_side_is_found_in_training(name, clock, least):
    arrays = rates.recorded(DATA, name)
    verdicts = [
        judge(chosen, ERROR_RATE, 0).verdict
        for anchor in ("A1", "A2")
        for chosen in itertools.combinations(
            rates.recorded_sessions(arrays, "B", anchor, f"train_{clock}"), LOOKS[0]
        )
    ]
    assert verdicts.count("regressed") >= least * len(verdicts)


@recorded_noise
@pytest.mark.parametrize("primary", ["wall", "cpu"])
def test_both_clocks_together_find_the_slower_side_and_spare_the_same(primary):
    arrays = rates.recorded(DATA, "lockstep_loaded")

    def verdict(one):
        wall, cpu = (
            rates.recorded_sessions(arrays, one, "A1", f"train_{clock}")
            for clock in ("wall", "cpu")
        )
        return judge_clocks(wall, cpu, ERROR_RATE, 0, primary=primary).decision.verdict

    assert verdict("B") == "regressed"
    assert verdict("A2") not in CHANGED
