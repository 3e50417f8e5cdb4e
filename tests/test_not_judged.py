"""Rows that say why they are no ground for a verdict, on either side of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from histories import MACHINE, keep, run_of
from rows import row

from convmark.compare.earlier import steady
from convmark.compare.history import accepted_history, named_history
from convmark.compare.judgement import Judgement, LiveComparison
from convmark.compare.verdict import conclude, review
from convmark.report.summary import summary_text
from convmark.results.record import Record
from convmark.results.store import Store

HOT = "the card was slowed (hardware_thermal)"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def gpu_run(run: str, *log_ratios: float, hot: str | None = None, **changes: Any) -> list[Record]:
    return run_of(run, *log_ratios, device="gpu:0", not_judged=hot, **changes)


def judged(store: Store, records: list[Record], **given: Any) -> dict[str, Judgement]:
    found = review(records, accepted_history(store, MACHINE, records))
    return {one.metric: one for one in conclude(found, **given)}


def test_rows_that_are_not_judged_count_on_neither_side() -> None:
    cool, hot = gpu_run("0001", 0.0), gpu_run("0001", 0.5, hot=HOT)
    assert steady([*hot, *cool]) == tuple(cool)
    assert steady(hot) == ()
    unsteady = run_of("0001", 0.0, status="unsteady")
    assert steady([*hot, *unsteady]) == tuple(unsteady)


def test_a_hot_run_is_no_baseline(store: Store) -> None:
    keep(store, gpu_run("0001", 0.5, 0.5, hot=HOT))
    keep(store, gpu_run("0002", 0.0, 0.01))
    hot = [replace(row, process=2) for row in gpu_run("0003", 0.5, hot=HOT)]
    keep(store, [*gpu_run("0003", 0.0), *hot])
    now = gpu_run("0004", 0.0, 0.01)
    (case,) = accepted_history(store, MACHINE, now).cases.values()
    assert case.anchor is not None
    assert case.anchor.run == "0002"
    assert [len(rows) for rows in case.runs] == [2, 1]


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"gpu": "Tesla T4"}, "gpu was Tesla T4, is H200: `convmark report`"),
        ({"gpu": "H200", "mig": "1g.18gb"}, "mig was 1g.18gb, is not known"),
        ({"gpu": "H200", "ecc": "off"}, "ecc was off, is not known"),
    ],
)
def test_another_card_at_the_same_place_is_not_compared(
    changes: dict[str, str], difference: str, store: Store
) -> None:
    keep(store, gpu_run("0001", 0.0, **changes))
    (case,) = accepted_history(store, MACHINE, gpu_run("0002", 0.0, gpu="H200")).cases.values()
    assert case.runs == ()
    assert case.difference.startswith(difference)


def test_a_named_hot_run_has_nothing_to_compare_with(store: Store) -> None:
    path = keep(store, gpu_run("0001", 0.0, hot=HOT))
    (case,) = named_history(path, gpu_run("0002", 0.0)).cases.values()
    assert (case.runs, case.anchor) == ((), None)


@pytest.mark.parametrize("with_history", [True, False])
def test_a_case_whose_rows_are_all_hot_is_inconclusive_with_the_reason(
    with_history: bool, store: Store
) -> None:
    if with_history:
        for number in range(1, 6):
            keep(store, gpu_run(f"{number:04d}", -0.005, 0.005))
    now = gpu_run("0009", 0.5, 0.5, hot=HOT)
    found = judged(store, now)
    assert list(found) == ["step_time"]
    verdict = found["step_time"]
    assert (verdict.verdict, verdict.fails) == ("inconclusive", False)
    assert verdict.note == f"not judged: {HOT}; measure it again later"
    assert verdict.value == now[0].step_time_p50_s


def test_not_even_a_live_comparison_judges_it(store: Store) -> None:
    now = gpu_run("0009", 0.5, hot=HOT)
    case = now[0].case.name
    found = judged(store, now, comparisons={case: LiveComparison(decision=None, reason="git")})
    assert found["step_time"].note.startswith("not judged: ")


def test_the_cool_processes_of_a_case_are_judged_without_the_hot_ones(store: Store) -> None:
    for number in range(1, 11):
        keep(store, gpu_run(f"{number:04d}", -0.005, 0.005))
    cool = gpu_run("0011", 0.0, 0.002)
    rows = [*cool, *gpu_run("0011", 0.7, hot=HOT)]
    found = judged(store, rows)
    shown = {"step_time": median(row.step_time_p50_s for row in rows)}  # as the run's table has it
    alone = judged(store, cool)
    assert found == {
        name: replace(one, value=shown.get(name, one.value)) for name, one in alone.items()
    }
    assert found["step_time"].note.endswith("by its history +0.1 %")


def test_a_hot_process_that_failed_is_still_a_failure(store: Store) -> None:
    failed = row(status="crashed", error="killed", machine=MACHINE, not_judged=HOT)
    assert judged(store, [failed])["step_time"].fails


def test_the_summary_says_how_many_are_not_judged_and_why() -> None:
    rows = [*gpu_run("0001", 0.0), *gpu_run("0001", 0.5, hot=HOT)]
    assert f"1 of 2 not judged: {HOT}" in summary_text(rows)


def test_the_summary_says_how_much_of_the_cpus_others_took() -> None:
    rows = [row(process=n, other_cpu_share=share) for n, share in enumerate((0.7, 0.8, 0.9), 1)]
    assert "other programs took 80 % of the CPUs' time" in summary_text(rows)
    assert "other programs" not in summary_text([row(other_cpu_share=0.09)])
