"""A node that differs from its kind is named, a good one is not."""

from __future__ import annotations

import math
import random

import pytest
from simulated_fleet import step_times

from convmark.compare.outliers import LEAST_NODES, Deviation, deviations


def named(found: list[Deviation]) -> list[str]:
    return [one.node for one in found if one.differs]


def exact(*steps_s: float) -> dict[str, dict[str, list[float]]]:
    return {f"n{number}": {"case": [step_s] * 3} for number, step_s in enumerate(steps_s)}


def test_the_deviation_by_hand() -> None:
    found = deviations(exact(0.010, 0.010, 0.010, 0.010, 0.020))
    (worst, *others) = found
    assert worst.node == "n4"
    assert worst.differs
    assert worst.value == pytest.approx(math.log(2))
    assert worst.change == pytest.approx(1.0)
    assert (worst.cases, worst.processes) == (1, 3)
    assert {one.differs for one in others} == {False}
    assert {one.value for one in others} == {0.0}


def test_the_half_width_by_hand() -> None:
    """Four others that agree: 4 and 3 degrees of freedom, the assumed 2 % for the first four.

    t(1 - 0.001 / 10; 7) = 7.0634 by the inverse of Student's distribution.
    """
    worst = deviations(exact(0.010, 0.010, 0.010, 0.010, 0.020))[0]
    assert worst.half_width == pytest.approx(7.0634 * 0.02 * math.sqrt(4 / 7 * 1.25), rel=1e-3)


def test_too_few_nodes_tell_nothing() -> None:
    assert deviations(exact(*[0.01] * (LEAST_NODES - 2), 0.02)) == []
    assert deviations({}) == []
    assert deviations({"a": {}, "b": {}, "c": {}}) == []


def test_a_change_that_is_sure_but_small_is_not_named() -> None:
    assert named(deviations(exact(*[0.010] * 200, 0.01025))) == []


def test_a_node_that_is_faster_than_its_kind_is_named_too() -> None:
    assert named(deviations(exact(*[0.010] * 9, 0.007))) == ["n9"]


def test_two_bad_nodes_do_not_hide_each_other() -> None:
    assert sorted(named(deviations(exact(*[0.010] * 8, 0.014, 0.0141)))) == ["n8", "n9"]


def test_half_of_a_kind_is_no_exception() -> None:
    assert named(deviations(exact(*[0.010] * 4, *[0.013] * 4))) == []


def test_one_case_that_is_slow_on_a_node_is_not_the_node() -> None:
    times = step_times(random.Random(1), nodes=20, cases=12, processes=3, noise=0.05)
    times["node-07"]["case-3"] = [3 * time_s for time_s in times["node-07"]["case-3"]]
    assert named(deviations(times)) == []


def test_a_node_with_few_of_the_cases_has_a_wider_interval() -> None:
    times = step_times(random.Random(2), nodes=20, cases=12, processes=2, noise=0.10)
    times["node-07"] = {"case-3": times["node-07"]["case-3"]}
    found = {one.node: one for one in deviations(times)}
    usual = found["node-08"].half_width
    assert found["node-07"].half_width > 1.5 * usual
    assert found["node-07"].cases == 1


def test_a_case_that_only_two_nodes_have_is_left_out() -> None:
    times = exact(0.010, 0.010, 0.010)
    times["n0"]["rare"], times["n1"]["rare"] = [1.0], [2.0]
    assert {one.value for one in deviations(times)} == {0.0}


CONDITIONS = [
    pytest.param(noise, cases, processes, id=f"{noise:.0%}-{cases}x{processes}")
    for noise, cases, processes in [
        (0.05, 10, 2),
        (0.07, 3, 2),
        (0.07, 20, 3),
        (0.10, 10, 3),
        (0.02, 1, 3),
    ]
]


@pytest.mark.parametrize(("noise", "cases", "processes"), CONDITIONS)
def test_in_a_hundred_fleets_at_most_one_has_a_false_alarm(
    noise: float, cases: int, processes: int
) -> None:
    rng = random.Random(f"good {noise} {cases} {processes}")
    alarms = sum(
        bool(
            named(
                deviations(step_times(rng, nodes=50, cases=cases, processes=processes, noise=noise))
            )
        )
        for _ in range(100)
    )
    assert alarms <= 1


@pytest.mark.parametrize(("noise", "cases", "processes"), CONDITIONS)
def test_one_bad_node_of_fifty_is_named_and_no_good_one(
    noise: float, cases: int, processes: int
) -> None:
    """A node 25 % slow where the processes of all its cases leave 4 % open at most."""
    rng = random.Random(f"bad {noise} {cases} {processes}")
    found = [
        named(
            deviations(
                step_times(
                    rng,
                    nodes=50,
                    cases=cases,
                    processes=processes,
                    noise=noise,
                    bad={"node-17": 1.25},
                )
            )
        )
        for _ in range(100)
    ]
    assert sum("node-17" in names for names in found) >= 99
    assert sum(len(names) > ("node-17" in names) for names in found) <= 1


@pytest.mark.parametrize("nodes", [3, 5, 8])
def test_small_kinds_alarm_no_more_than_large_ones(nodes: int) -> None:
    rng = random.Random(nodes)
    fleets = [step_times(rng, nodes=nodes, cases=10, processes=2, noise=0.06) for _ in range(300)]
    assert sum(bool(named(deviations(times))) for times in fleets) <= 3
