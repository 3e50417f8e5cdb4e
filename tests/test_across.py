"""The table over the values of a column."""

from __future__ import annotations

import csv
import io
import json

import pytest
from histories import process

from convmark.report.across import across, across_report
from convmark.results.record import Record


def row(run: str, version: str, step_s: float, **changes: object) -> Record:
    return process(
        run=run,
        tensorflow=version,
        step_time_p50_s=step_s,
        throughput_samples_per_s=32 / step_s,
        time_to_first_step_s=0.5,
        **changes,
    )


def test_each_version_is_set_beside_the_oldest_and_the_one_before() -> None:
    rows = [
        row("0003", "2.10.1", 0.012),
        row("0001", "2.9.3", 0.010),
        row("0002", "2.12.0", 0.009),
    ]
    cells = across(rows, "tensorflow")
    assert [cell.value for cell in cells] == ["2.9.3", "2.10.1", "2.12.0"]
    assert [cell.to_oldest for cell in cells] == [None, pytest.approx(0.2), pytest.approx(-0.1)]
    assert [cell.to_previous for cell in cells] == [None, pytest.approx(0.2), pytest.approx(-0.25)]


def test_the_newest_run_of_a_version_speaks_by_the_median_of_its_processes() -> None:
    rows = [
        row("0001", "2.20.0", 9.0),
        *(row("0002", "2.20.0", step, process=n, order=n) for n, step in enumerate((1, 2, 9), 1)),
    ]
    (cell,) = across(rows, "tensorflow")
    assert (cell.run, cell.processes, cell.step_time_p50_s) == ("0002", 3, 2)
    assert cell.step_time_spread == 2  # (9 - 1) / 2 over 2
    assert cell.throughput_samples_per_s == 16


def test_failed_rows_and_rows_without_the_column_are_left_out() -> None:
    failed = process(run="0001", status="error", error="no", step_time_p50_s=None)
    assert across([failed, row("0001", "", 1.0)], "tensorflow") == []


def test_cases_are_apart_and_a_version_that_one_lacks_is_no_neighbour() -> None:
    rows = [
        row("0001", "2.18.0", 1.0),
        row("0002", "2.20.0", 2.0),
        row("0001", "2.18.0", 5.0, model="mini_resnet"),
        row("0003", "2.19.0", 6.0, model="mini_resnet"),
    ]
    found = {
        (cell.case.split("-")[0], cell.value): cell.to_previous
        for cell in across(rows, "tensorflow")
    }
    assert found == {
        ("lenet5", "2.18.0"): None,
        ("lenet5", "2.20.0"): pytest.approx(1.0),
        ("mini_resnet", "2.18.0"): None,
        ("mini_resnet", "2.19.0"): pytest.approx(0.2),
    }


def test_the_table_says_a_case_once_and_signs_its_changes() -> None:
    rows = [
        row("0001", "2.19.0", 0.010),
        row("0002", "2.20.0", 0.0095),
        row("0002", "2.20.0", 0.0095, process=2, order=2),
    ]
    cells = across(rows, "tensorflow")
    lines = across_report(cells, "tensorflow").splitlines()
    assert len(lines) == 4
    assert lines[2].split()[:2] == ["lenet5-train-cpu-b32-float32", "2.19.0"]
    assert lines[3].split()[:6] == ["2.20.0", "3368", "9.50", "ms", "0.0", "%"]
    assert lines[3].split()[6:8] == ["-5.0", "%"]
    assert across_report(cells, "tensorflow", "markdown").startswith("| case")


def test_csv_and_json_hold_stored_units() -> None:
    cells = across([row("0001", "2.19.0", 0.010), row("0002", "2.20.0", 0.011)], "tensorflow")
    rows = list(csv.DictReader(io.StringIO(across_report(cells, "tensorflow", "csv"))))
    assert [line["to_oldest"] for line in rows] == ["", repr(0.011 / 0.010 - 1)]
    found = json.loads(across_report(cells, "tensorflow", "json"))
    assert found[1]["step_time_p50_s"] == 0.011
    assert found[0]["to_oldest"] is None


def test_over_backends_a_case_has_one_name() -> None:
    rows = [row("0001", "2.20.0", 1.0), row("0002", "2.20.0", 2.0, backend="jax")]
    cells = across(rows, "backend")
    assert len({cell.case for cell in cells}) == 1
    assert [cell.value for cell in cells] == ["tensorflow", "jax"]


def test_backends_have_no_age_and_are_set_beside_tensorflow() -> None:
    rows = [
        row("0001", "", 3.0, backend="torch"),
        row("0001", "", 2.0, backend="jax"),
        row("0001", "2.20.0", 1.0),
    ]
    cells = across(rows, "backend")
    assert [(cell.value, cell.to_oldest, cell.to_previous) for cell in cells] == [
        ("tensorflow", None, None),
        ("jax", pytest.approx(1.0), None),
        ("torch", pytest.approx(2.0), None),
    ]
    table = across_report(cells, "backend")
    assert "to the first" in table
    assert "older" not in table
    assert "the one before" not in table
    assert [line.split()[-8:-6] for line in table.splitlines()[3:]] == [
        ["+100.0", "%"],
        ["+200.0", "%"],
    ]


def test_commits_are_in_the_order_of_their_first_runs() -> None:
    rows = [
        row("0001", "2.20.0", 1.0, commit="f" * 40),
        row("0002", "2.20.0", 2.0, commit="a" * 40),
    ]
    cells = across(rows, "commit")
    assert [(cell.value[0], cell.to_previous) for cell in cells] == [
        ("f", None),
        ("a", pytest.approx(1.0)),
    ]
