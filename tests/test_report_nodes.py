"""Nodes against others of their kind in a report."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_rows import keep_run, measured

from convmark.core.table import Table
from convmark.report.build import build

KIND = "xeon-2"


def fleet(folder: Path, *factors: float, days: tuple[int, ...] = (), **changes: object) -> Path:
    """Write a run of each node of a kind: three processes of two models, so much slower each."""
    for number, factor in enumerate(factors, start=1):
        day = days[number - 1] if days else 1
        rows = [
            measured(
                KIND,
                number,
                model,
                process,
                step_s=base_s * factor,
                node=f"n{number}",
                tensorflow="2.21.0",
                started=f"2026-03-{day:02d}T03:04:0{process}.000+00:00",
                **changes,
            )
            for model, base_s in (("lenet5", 0.01), ("mini_resnet", 0.04))
            for process in (1, 2, 3)
        ]
        keep_run(folder / "results", rows)
    return folder / "results"


def table(results: Path, key: str) -> Table | None:
    return next((one for one in build([results]).tables if one.key == key), None)


def test_a_node_that_differs_comes_first_and_is_among_the_troubles(tmp_path: Path) -> None:
    results = fleet(tmp_path, 1.0, 1.0, 1.4, 1.0, 1.0, 1.0)
    found = table(results, "nodes")
    assert found is not None
    first, *others = found.records()
    assert (first["node"], first["differs"], first["cases"], first["processes"]) == (
        "n3",
        "slower",
        2,
        6,
    )
    assert first["change"] == pytest.approx(0.4)
    assert len(others) == 5
    assert {row["differs"] for row in others} == {None}
    troubles = table(results, "troubles")
    assert troubles is not None
    (said,) = [row for row in troubles.records() if row["what"] == "node differs"]
    assert said["detail"].startswith("n3: +40.0 % against its kind, where a good node lies within ")


def test_kinds_of_few_nodes_have_no_table(tmp_path: Path) -> None:
    assert table(fleet(tmp_path, 1.0, 2.0), "nodes") is None


def test_rows_without_a_node_have_no_table(tmp_path: Path) -> None:
    keep_run(tmp_path / "results", [measured(KIND, 1, "lenet5", number) for number in (1, 2)])
    assert table(tmp_path / "results", "nodes") is None


def test_a_node_that_was_there_long_before_is_not_compared(tmp_path: Path) -> None:
    results = fleet(tmp_path, 1.0, 1.0, 1.0, 3.0, days=(20, 21, 22, 5))
    found = table(results, "nodes")
    assert found is not None
    assert sorted(found.column("node")) == ["n1", "n2", "n3"]


def test_of_a_nodes_runs_the_newest_is_compared(tmp_path: Path) -> None:
    fleet(tmp_path, 1.0, 1.0, 1.0, 3.0, 1.0)
    rows = [
        measured(KIND, 9, model, process, step_s=base_s, node="n4", tensorflow="2.21.0",
                 started=f"2026-03-02T03:04:0{process}.000+00:00")
        for model, base_s in (("lenet5", 0.01), ("mini_resnet", 0.04))
        for process in (1, 2, 3)
    ]  # fmt: skip
    found = table(keep_run(tmp_path / "results", rows).parent.parent, "nodes")
    assert found is not None
    assert max(map(abs, found.column("change"))) < 1e-9
