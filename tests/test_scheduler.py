"""Which node measures what next: events by hand, then whole fleets on a simulated clock."""

from __future__ import annotations

import random
import resource
import time
from collections import Counter, defaultdict

import pytest
from simulated_fleet import SimulatedCluster, SimulatedFleet, job_count

from convmark.core.case import Case
from convmark.session.facts import Job
from convmark.session.fleet.run import drive
from convmark.session.fleet.scheduler import MOST_LOST, Assignment, Member, Scheduler, Unmeasured

A, B = (Case(model=name, task="train") for name in "ab")


def jobs(*cases: Case, processes: int = 2) -> list[Job]:
    pairs = [(case, process) for process in range(1, processes + 1) for case in cases]
    return [
        Job(case=case, process=process, order=order)
        for order, (case, process) in enumerate(pairs, start=1)
    ]


def member(name: str, kind: str = "k", host: str = "") -> Member:
    return Member(name=name, host=host or name, kind=kind)


def begun(scheduler: Scheduler) -> dict[str, tuple[str, str, int]]:
    """What is begun now: by node the target, the case's model and the process."""
    return {
        one.node: (one.target, one.job.case.model, one.job.process)
        for one in scheduler.assignments()
    }


def test_a_node_measures_its_own_plan_in_order_one_at_a_time() -> None:
    scheduler = Scheduler([member("x")], {"x": jobs(A, B)})
    found = []
    while not scheduler.over:
        made = begun(scheduler)
        if made:
            found.append(made["x"])
            assert begun(scheduler) == {}
            scheduler.ended("x")
    assert found == [("x", "a", 1), ("x", "b", 1), ("x", "a", 2), ("x", "b", 2)]


def test_nodes_on_one_host_take_turns() -> None:
    scheduler = Scheduler(
        [member("x", host="h"), member("y", host="h"), member("z")],
        dict.fromkeys("xyz", jobs(A, B, processes=1)),
    )
    assert set(begun(scheduler)) == {"x", "z"}
    scheduler.ended("z")
    assert set(begun(scheduler)) == {"z"}
    scheduler.ended("x")
    assert set(begun(scheduler)) == {"y"}
    scheduler.ended("y")
    assert set(begun(scheduler)) == {"x"}


def test_the_unfinished_cases_of_a_lost_node_go_whole_to_others_of_its_kind() -> None:
    """Case a has both processes, b one of two: b is measured again, both of its processes."""
    scheduler = Scheduler(
        [member("x"), member("y"), member("o", kind="other")],
        {"x": jobs(A, B), "y": jobs(A, processes=1), "o": jobs(A, processes=1)},
    )
    begun(scheduler)
    scheduler.ended("y")
    scheduler.ended("o")
    for _ in range(2):
        scheduler.ended("x")
        begun(scheduler)
    scheduler.ended("x")  # a #2
    assert begun(scheduler) == {"x": ("x", "b", 2)}
    assert scheduler.lost("x", "power") == []
    assert begun(scheduler) == {"y": ("x", "b", 1)}
    scheduler.ended("y")
    assert begun(scheduler) == {"y": ("x", "b", 2)}
    scheduler.ended("y")
    assert begun(scheduler) == {}
    assert scheduler.over


def test_a_lost_node_is_lost_once_and_gets_nothing_more() -> None:
    scheduler = Scheduler([member("x"), member("y")], dict.fromkeys("xy", jobs(A)))
    begun(scheduler)
    scheduler.lost("x", "power")
    assert scheduler.lost("x", "power") == []
    assert set(begun(scheduler)) == set()
    scheduler.ended("y")
    assert set(begun(scheduler)) == {"y"}


def test_without_another_of_the_kind_the_rest_is_not_measured_and_says_why() -> None:
    scheduler = Scheduler(
        [member("x"), member("o", kind="other")], {"x": jobs(A, B), "o": jobs(A, processes=1)}
    )
    begun(scheduler)
    scheduler.ended("x")
    begun(scheduler)
    given_up = scheduler.lost("x", "power")
    assert [(one.target, one.job.case.model, one.job.process) for one in given_up] == [
        ("x", "b", 1),
        ("x", "a", 2),
        ("x", "b", 2),
    ] or sorted((one.job.case.model, one.job.process) for one in given_up) == [
        ("a", 2),
        ("b", 1),
        ("b", 2),
    ]
    assert {one.why for one in given_up} == {"power, and no other node of its kind is left"}
    scheduler.ended("o")
    begun(scheduler)
    assert scheduler.over


def test_what_waits_in_the_pool_is_given_up_with_the_last_of_its_kind() -> None:
    scheduler = Scheduler([member("x"), member("y")], dict.fromkeys("xy", jobs(A, processes=1)))
    begun(scheduler)
    assert scheduler.lost("x", "power") == []
    given_up = scheduler.lost("y", "fire")
    assert Counter(one.target for one in given_up) == {"x": 1, "y": 1}
    assert scheduler.over


def test_a_case_that_ends_node_after_node_is_given_up() -> None:
    names = [f"n{number}" for number in range(6)]
    plans = {"n0": jobs(A, B, processes=1)}
    scheduler = Scheduler([member(name) for name in names], plans)
    lost = []
    given_up: list[Unmeasured] = []
    while not scheduler.over:
        for node, (_, model, _) in begun(scheduler).items():
            if model == "a":
                lost.append(node)
                given_up += scheduler.lost(node, "out of memory")
            else:
                scheduler.ended(node)
    assert len(lost) == MOST_LOST
    (one,) = given_up
    assert one.job.case == A
    assert one.why == "3 nodes were lost while they measured it, at last: out of memory"


def test_as_many_nodes_of_a_kind_are_at_work_as_have_a_plan() -> None:
    """One of each kind: its spare takes over, the third stays idle."""
    plans = {"x": jobs(A, B, processes=1)}
    scheduler = Scheduler([member(name) for name in "xyz"], plans)
    assert set(begun(scheduler)) == {"x"}
    scheduler.lost("x", "power")
    assert begun(scheduler) == {"y": ("x", "a", 1)}
    scheduler.ended("y")
    assert begun(scheduler) == {"y": ("x", "b", 1)}


def test_of_a_lost_node_the_longest_cases_go_first() -> None:
    cases = [Case(model="m", task="train", batch_size=number) for number in (1, 2, 3)]
    scheduler = Scheduler(
        [member("x"), member("y")],
        {"x": jobs(*cases, processes=1), "y": []},
        expected_s=lambda case: float(case.batch_size),
    )
    begun(scheduler)
    scheduler.lost("x", "power")
    found = []
    while not scheduler.over:
        for one in scheduler.assignments():
            found.append(one.job.case.batch_size)
            scheduler.ended(one.node)
    assert found == [3, 2, 1]


def test_what_is_left_of_a_node_begins_with_what_it_is_at() -> None:
    scheduler = Scheduler([member("x")], {"x": jobs(A, B, processes=1)})
    begun(scheduler)
    assert [job.case for job in scheduler.left("x")] == [A, B]
    scheduler.ended("x")
    assert [job.case for job in scheduler.left("x")] == [B]


class Silent:
    def began(self, assignment: Assignment) -> None:
        """Not shown."""

    def ended(self, assignment: Assignment, result: object) -> None:
        """Not shown."""

    def lost(self, node: str, why: str) -> None:
        """Not shown."""


Rows = dict[tuple[str, Case, int], list[str]]
"""By target, case and process the nodes that have a row of it."""


def measured(fleet: SimulatedFleet) -> tuple[SimulatedCluster, Rows, list[Unmeasured]]:
    cluster = fleet.cluster()
    rows: Rows = defaultdict(list)

    def keep(one: Assignment, result: object) -> None:
        rows[one.target, one.job.case, one.job.process].append(one.node)

    scheduler = Scheduler(fleet.members, fleet.plans, expected_s=fleet.seconds.__getitem__)
    unmeasured = drive(scheduler, cluster, keep, Silent())
    return cluster, rows, unmeasured


@pytest.mark.parametrize("seed", range(25))
def test_whatever_dies_every_job_has_a_row_or_a_reason(seed: int) -> None:
    rng = random.Random(seed)
    nodes = rng.randint(1, 12)
    fleet = SimulatedFleet(
        nodes=nodes, cases=5, kinds=rng.randint(1, 4), dying=rng.randint(0, nodes), seed=seed
    )
    _, rows, unmeasured = measured(fleet)
    kinds = {member.name: member.kind for member in fleet.members}
    given_up = {(one.target, one.job.case, one.job.process) for one in unmeasured}
    for target, plan in fleet.plans.items():
        for job in plan:
            key = (target, job.case, job.process)
            assert bool(rows.get(key)) != (key in given_up), key
    for (target, case, process), by in rows.items():
        assert {kinds[node] for node in by} == {kinds[target]}
        twin = (target, case, 3 - process)
        assert by[-1] in rows.get(twin, ()) or twin in given_up, "a case is whole on one node"
        assert len(set(by)) == len(by), "a node measures a job once"


@pytest.mark.parametrize("nodes", [200, pytest.param(1000, marks=pytest.mark.long)])
def test_a_fleet_of_many_nodes_is_scheduled_in_time_and_near_the_bound(nodes: int) -> None:
    fleet = SimulatedFleet(nodes=nodes, cases=100, dying=nodes // 20)
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cluster, rows, unmeasured = measured(fleet)
    assert time.process_time() - began < 0.06 * nodes
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB, so 1 GiB
    assert not unmeasured
    assert len(rows) == job_count(fleet.plans) == 200 * nodes
    assert cluster.now <= 1.10 * fleet.lower_bound_s()
