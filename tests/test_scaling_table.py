"""The table of scaling over replicas that ends a run."""

from __future__ import annotations

from typing import Any

from rows import row
from test_summary import cells

from convmark.core.table import plain
from convmark.report.summary import scaling
from convmark.results.record import Record

NAME = "lenet5-train-cpu-b32-float32"


def at(rate: float, replicas: int = 1, **changes: Any) -> Record:
    return row(throughput_samples_per_s=rate, replicas=replicas, **changes)


def test_efficiency_is_against_as_many_times_one_replica() -> None:
    rows = cells(plain(*scaling([at(300.0, 4), at(150.0, 2), at(100.0)])))
    assert rows == [
        {"case": NAME, "replicas": "1", "samples/s": "100", "efficiency": "100.0 %", "n": "1",
         "spread": ""},
        {"case": NAME, "replicas": "2", "samples/s": "150", "efficiency": "75.0 %", "n": "1",
         "spread": ""},
        {"case": NAME, "replicas": "4", "samples/s": "300", "efficiency": "75.0 %", "n": "1",
         "spread": ""},
    ]  # fmt: skip


def test_figures_are_medians_over_processes_with_spread_and_count() -> None:
    several = [at(rate, process=number) for number, rate in enumerate((90.0, 100.0, 130.0), 1)]
    rows = cells(plain(*scaling([*several, at(140.0, 2), at(160.0, 2, process=2)])))
    assert [(found["samples/s"], found["spread"], found["n"]) for found in rows] == [
        ("100", "20.0 %", "3"),
        ("150", "6.7 %", "2"),
    ]
    assert rows[1]["efficiency"] == "75.0 %"


def test_each_way_of_spreading_is_held_against_the_same_single_replica() -> None:
    rows = cells(plain(*scaling([at(100.0), at(150.0, 2), at(120.0, 2, cluster="local")])))
    assert [(found["case"], found["replicas"], found["efficiency"]) for found in rows] == [
        (NAME, "1", "100.0 %"),
        (NAME, "2", "75.0 %"),
        (f"{NAME} local", "1", "100.0 %"),
        (f"{NAME} local", "2", "60.0 %"),
    ]


def test_without_a_single_replica_there_is_throughput_and_no_efficiency() -> None:
    (found,) = cells(plain(*scaling([at(150.0, 2), at(100.0, batch_size=64)])))
    assert (found["case"], found["samples/s"], found.get("efficiency", "")) == (NAME, "150", "")


def test_failed_processes_count_for_nothing_and_one_replica_alone_has_no_table() -> None:
    assert scaling([]) == []
    assert scaling([at(100.0)]) == []
    failed = at(1.0, 2, status="error")
    assert scaling([at(100.0), failed]) == []
    rows = cells(plain(*scaling([at(100.0), at(1.0, status="crashed"), failed, at(150.0, 2)])))
    assert [(found["n"], found["samples/s"]) for found in rows] == [("1", "100"), ("1", "150")]
