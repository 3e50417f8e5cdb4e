"""Scaling over cores: speed-ups worked out by hand, and what is said of threads too many."""

from __future__ import annotations

import math
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
from report_rows import SLOW
from test_report_tables import kept, three

from convmark.core.table import Table
from convmark.report.summary import run_tables
from convmark.report.tables.scaling import cores, cores_of_runs
from convmark.results.record import Record


def times(threads: str, *seconds: float, **changes: Any) -> list[dict[str, Any]]:
    """Return rows of one case and run, one process for each step time."""
    plain = {"machine": "m", "model": "net", "task": "train", "source": 0, "status": "ok"}
    return [
        {**plain, "series": "net", "threads": threads, "step_time_p50_s": one, **changes}
        for one in seconds
    ]


def told(*groups: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the rows of the table by the number of threads."""
    table = cores([row for rows in groups for row in rows], itemgetter("series"))
    return {row["threads"]: row for row in table.records()}


def test_a_speed_up_is_over_the_fewest_threads_with_its_interval_and_efficiency() -> None:
    """Geometric means 4 and 2.5; logarithms 0.1 apart about them, so that sd = 0.1, n = 3."""
    low, high = math.exp(-0.1), math.exp(0.1)
    found = told(
        times("4", 2.5 * low, 2.5, 2.5 * high), times("2", 4 * low, 4, 4 * high, cpus_in_use=1.5)
    )
    assert list(found) == ["2", "4"]
    assert found["2"]["speedup"] is None
    half = 2.7764 * math.sqrt(2 * 0.1**2 / 3)  # Student's t of 4 degrees of freedom
    four = found["4"]
    assert four["speedup"] == pytest.approx(1.6)
    assert (four["low"], four["high"]) == pytest.approx(
        (1.6 * math.exp(-half), 1.6 * math.exp(half)), rel=1e-3
    )
    assert four["efficiency"] == pytest.approx(0.8)
    assert (four["fastest"], found["2"]["fastest"]) == ("yes", None)
    assert (found["2"]["in_use"], found["2"]["efficiency"]) == (1.5, 1.0)


def test_processes_that_are_in_no_figure_are_counted() -> None:
    hot = times("2", 9.0, not_judged="hot")
    found = told(times("1", 2.0, 2.1, 2.2), times("2", 1.0, 1.1, 1.2) + hot)
    assert found["2"]["mean_s"] == pytest.approx((1.0 * 1.1 * 1.2) ** (1 / 3))
    assert found["2"]["n"] == 3
    assert found["2"]["note"].endswith("without 1 of 4 processes, not judged: hot")


def test_the_fewest_threads_are_those_of_the_processes_that_count() -> None:
    odd = times("default", 9.0, not_judged="hot", pool_threads=4)
    default = times("default", 2.0, 2.0, 2.0, pool_threads=1) + odd
    found = told(times("2", 1.0, 1.0, 1.0), default)
    assert list(found) == ["default (1)", "2"]
    assert found["2"]["speedup"] == pytest.approx(2.0)


def test_what_cannot_be_told_apart_is_said_in_words() -> None:
    found = told(times("1", 1.0, 1.1, 1.2), times("2", 0.95, 1.1, 1.15))
    assert found["2"]["note"] == "not distinguishable from 1 thread"
    assert [found[one]["fastest"] for one in ("1", "2")] == ["perhaps", "perhaps"]
    found = told(times("1", 2.0, 2.1), times("2", 1.0, 1.1))
    assert found["2"]["note"] == "fewer than 3 processes: no interval"
    assert found["2"]["fastest"] == "not comparable"


def test_a_default_has_the_place_of_the_threads_that_the_framework_took() -> None:
    found = told(
        times("default", 1.0, 1.0, 1.1, pool_threads=2), times("1", 2, 2, 2.1), times("4", 1, 1, 1)
    )
    assert list(found) == ["1", "default (2)", "4"]
    assert found["default (2)"]["efficiency"] == pytest.approx(found["default (2)"]["speedup"] / 2)
    found = told(times("default", 1.0, 1.0, 1.1), times("1", 2, 2, 2.1))
    assert found["default"].get("efficiency") is None
    assert found["default"]["speedup"] > 1.9


@pytest.mark.parametrize(
    ("row", "note"),
    [
        ({"cores": 2, "physical_cores": 1}, "more threads than the 2 logical CPUs"),
        (
            {"cores": 8, "physical_cores": 2},
            "more threads than the 2 cores: hyperthreads share them",
        ),
        (
            {"cores": 8, "physical_cores": 4, "state": "a=b cpu_quota=1.5"},
            "more threads than the CPU quota of 1.5: they pause when it is used up",
        ),
        ({"cores": 4, "physical_cores": 4, "state": "cpu_quota=6"}, None),
        ({"other_cpu_share": 0.25}, "other load 25 %"),
        ({"status": "unsteady"}, "3 of 3 processes unsteady"),
    ],
)
def test_threads_without_a_core_of_their_own_are_named(
    row: dict[str, Any], note: str | None
) -> None:
    alike = {"state": row.get("state")}
    found = told(times("1", 4, 4, 4.1, **alike), times("4", 1, 1, 1.1, **row))
    assert found["4"].get("note") == note


def test_another_code_or_state_beside_the_threads_has_no_speed_up() -> None:
    found = told(times("1", 4, 4, 4.1, code="a"), times("2", 1, 1, 1.1, code="b"))
    assert found["2"].get("speedup") is None
    assert found["2"]["note"] == "no speed-up: other code than with 1 thread"


def test_two_runs_are_never_set_side_by_side() -> None:
    """The newest run that has several numbers of threads counts."""
    found = told(
        times("1", 9, 9, 9.1), times("2", 8, 8, 8.1),
        times("1", 4, 4, 4.1, source=1), times("2", 1, 1, 1.1, source=1),
        times("2", 7, 7, 7.1, source=2),
    )  # fmt: skip
    assert found["2"]["mean_s"] == pytest.approx(1.1 ** (1 / 3))


def test_a_report_and_a_run_have_the_table_where_a_case_has_several_numbers(
    tmp_path: Path,
) -> None:
    def rows(threads: str, seconds: float, **changes: Any) -> list[Record]:
        return three(SLOW, 1, "lenet5", seconds, 1.01 * seconds, threads=threads, **changes)

    bound = rows("1", 5.0, cpus="0")  # another case, of which there is one number
    records = [*rows("1", 4.0), *rows("2", 2.0), *bound]
    table = cores_of_runs(kept(tmp_path, records).frame)
    assert table.column("series") == [f"{SLOW} cpu, lenet5, train, batch 32"] * 2
    assert table.column("threads") == ["1", "2"]
    assert table.column("speedup")[1] == pytest.approx(2.0)
    assert run_tables(bound)[-1].key != "cores"
    shown: Table = run_tables(records)[-1]
    assert (shown.key, shown.column("series")[0]) == ("cores", "lenet5-train-cpu-b32-float32")
