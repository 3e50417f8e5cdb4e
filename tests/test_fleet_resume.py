"""`convmark run --ray --resume`, on nodes that are stood in for."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

import fake_worker
import pytest
from fake_cluster import A100, FakeCluster, about, here, machine
from test_fleet import CASES, Fleet, fleet, rows, run

from convmark.interpreter import Answer

__all__ = ["fleet", "here"]  # fixtures

ALL = 2 * CASES


def test_an_interrupted_run_keeps_its_rows_and_says_how_to_go_on(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet("x", "y", interrupt_after=5)
    assert run() == 130
    assert len(rows()) == 4
    assert "interrupted; continue with --resume" in capsys.readouterr().err


@pytest.mark.parametrize("per", ["node", "machine-kind"])
def test_a_caller_that_comes_back_measures_only_what_is_missing(fleet: Fleet, per: str) -> None:
    fleet("x", "y", interrupt_after=5)
    assert run("--per", per) == 130
    before = rows()
    assert before
    cluster = fleet("x", "y")
    assert run("--per", per, "--resume") == 0
    after = rows()
    assert [row for row in after if row in before] == before
    nodes = 2 if per == "node" else 1
    assert len(after) == nodes * ALL
    assert len(cluster.order) == len(after) - len(before)
    assert len({row.run for row in after}) == nodes
    assert set(Counter((row.node, row.case, row.process) for row in after).values()) == {1}


def test_a_kind_goes_on_with_another_node_where_the_first_is_gone(fleet: Fleet) -> None:
    """Cases that are whole stay; one that is half measured is measured whole by the other node."""
    fleet("x", "y", interrupt_after=5)
    assert run("--per", "machine-kind") == 130
    before = Counter(row.case for row in rows())
    assert Counter(before.values()) == {2: 2, 1: 1}
    cluster = fleet("y")
    assert run("--per", "machine-kind", "--resume") == 0
    assert [(name, process) for name, _, process in cluster.order] == [("y", 1), ("y", 2)]


def test_a_run_on_a_fleet_goes_on_only_with_the_same_options(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet("x", interrupt_after=3)
    assert run() == 130
    fleet("x")
    assert run("--resume", "--time-budget", "3") == 2
    assert "time budget s was 0.6, is 3.0" in capsys.readouterr().err


def test_what_nobody_could_measure_is_measured_when_a_node_is_back(fleet: Fleet) -> None:
    fleet("x", dies_at={"x": 5})
    assert run() == 1
    fleet("x")
    assert run("--resume") == 0
    assert len(rows()) == ALL
    assert all(row.measured for row in rows())


# one of each kind, after another node has stood in


def measured(cluster: FakeCluster) -> list[tuple[str, int]]:
    return [(name, process) for name, _, process in cluster.order]


def per_kind(*arguments: str) -> int:
    return run("--per", "machine-kind", *arguments)


def runs() -> dict[tuple[str, str | None], int]:
    """Return how many rows each run has, by its name and node."""
    return dict(Counter((row.run, row.node) for row in rows()))


def test_the_cases_of_a_node_that_stood_in_are_there(fleet: Fleet) -> None:
    """x dies with one whole case of three, y measures another, and the caller dies."""
    fleet("x", "y", dies_at={"x": 5}, interrupt_after=7)
    assert per_kind() == 130
    assert runs() == {("0001", "x"): 4, ("0002", "y"): 2}
    before = rows()
    cluster = fleet("y")
    assert per_kind("--resume") == 0
    assert measured(cluster) == [("y", 1), ("y", 2)]
    assert runs() == {("0001", "x"): 4, ("0002", "y"): 4}
    assert [row for row in rows() if row in before] == before
    again = fleet("x", "y")
    assert per_kind("--resume") == 0
    assert again.order == []


def test_a_node_that_stood_in_goes_on_in_mid_case(fleet: Fleet) -> None:
    fleet("x", "y", dies_at={"x": 5}, interrupt_after=6)
    assert per_kind() == 130
    assert runs() == {("0001", "x"): 4, ("0002", "y"): 1}
    cluster = fleet("y")
    assert per_kind("--resume") == 0
    assert sorted(measured(cluster)) == [("y", 1), ("y", 2), ("y", 2)]
    assert runs() == {("0001", "x"): 4, ("0002", "y"): 4}


def test_a_node_that_is_back_leaves_out_what_another_measured_whole(fleet: Fleet) -> None:
    fleet("x", "y", dies_at={"x": 5}, interrupt_after=7)
    assert per_kind() == 130
    cluster = fleet("x")
    assert per_kind("--resume") == 0
    assert measured(cluster) == [("x", 2)], "of the third case it has the first process"
    assert runs() == {("0001", "x"): 5, ("0002", "y"): 2}


def test_node_after_node_takes_the_plan_over_and_nothing_is_measured_twice(fleet: Fleet) -> None:
    fleet("x", interrupt_after=4)
    assert per_kind() == 130
    fleet("y", interrupt_after=3)
    assert per_kind("--resume") == 130
    fleet("z", interrupt_after=1)
    assert per_kind("--resume") == 130
    assert runs() == {("0001", "x"): 4, ("0002", "y"): 3, ("0003", "z"): 1}
    cluster = fleet("z")
    assert per_kind("--resume") == 0
    assert measured(cluster) == [("z", 2)]
    whole = Counter((row.case, row.node) for row in rows())
    assert {case for (case, _), count in whole.items() if count == 2} == {
        row.case for row in rows()
    }


def test_what_an_earlier_measurement_of_the_plan_has_does_not_count(fleet: Fleet) -> None:
    fleet("x", "y", dies_at={"x": 5})
    assert per_kind() == 0
    fleet("x", "y", interrupt_after=2)
    assert per_kind() == 130
    before = runs()
    assert before == {("0001", "x"): 4, ("0002", "y"): 4, ("0003", "x"): 2}
    cluster = fleet("x", "y")
    assert per_kind("--resume") == 0
    assert len(cluster.order) == ALL - 2
    assert runs() == {**before, ("0003", "x"): ALL}


def test_every_node_measures_its_own_plan_though_another_stood_in(fleet: Fleet) -> None:
    """What y has measured in place of x are figures of y, and x has none of its own."""
    fleet("x", "y", dies_at={"x": 5})
    assert run() == 0
    cluster = fleet("x", "y")
    assert run("--resume") == 0
    assert {name for name, _, _ in cluster.order} == {"x"}
    assert len(cluster.order) == 2


class OnAGpu(fake_worker.FakeInterpreter):
    """Has a GPU and nothing else to measure on."""

    def answer(self, request: Mapping[str, Any], *arguments: Any) -> Answer:
        found = super().answer(request, *arguments)
        for event in found.events:
            if "devices" in event:
                event["devices"] = ["gpu:0"]
        return found


@pytest.mark.parametrize("per", ["machine-kind", "gpu-kind"])
def test_cards_of_one_kind_stand_in_for_each_other_though_each_has_an_identity_of_its_own(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, per: str
) -> None:
    monkeypatch.setattr("convmark.interpreter.Interpreter", OnAGpu)
    other = "xeon-2" if per == "machine-kind" else "epyc-64"
    card = dataclasses.replace(A100, uuid="GPU-1")
    abouts = {
        "x": about("x", machine=machine(gpus=(A100,))),
        "y": about("y", machine=machine(other, gpus=(card,))),
    }
    fleet(abouts=abouts, dies_at={"x": 5}, interrupt_after=7)
    assert run("--per", per, "--ceilings", "off") == 130
    cluster = fleet(abouts={"y": abouts["y"]})
    assert run("--per", per, "--ceilings", "off", "--resume") == 0
    assert measured(cluster) == [("y", 1), ("y", 2)]
    assert {(row.node, row.machine, row.gpu_uuid) for row in rows()} == {
        ("x", "xeon-2", "GPU-0"),
        ("y", other, "GPU-1"),
    }


def test_another_nodes_rows_of_other_options_are_refused(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet("x", interrupt_after=4)
    assert per_kind() == 130
    before = rows()
    fleet("y")
    assert per_kind("--resume", "--time-budget", "3") == 2
    assert "time budget s was 0.6, is 3.0" in capsys.readouterr().err
    assert rows() == before
