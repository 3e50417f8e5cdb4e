"""Sustained speeds and rates at a limit that the files beside their run do not have."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_rows import keep_run
from valid_submission import NOW, honest

from convmark.compare import files as compared
from convmark.compare.judgement import Judgement
from convmark.report.submission import check
from convmark.results.record import Record
from convmark.session import ceilings, latency_limit, sustained
from convmark.worker import arrivals

BASE = next(dataclasses.replace(row, order=1) for row in honest("slow", 1) if row.batch_size == 1)
OWN = {"run": BASE.run, "order": 1, "case": BASE.case.name, "process": BASE.process}
RATE = 1 / BASE.step_time_p50_s


def interval(number: int, speed: float = 1.0, memory: int = 2**28) -> sustained.Interval:
    steps = round(RATE * speed)
    return sustained.Interval(
        **OWN, began_s=float(number), seconds=1.0, steps=steps,
        throughput_samples_per_s=float(steps), clock_mhz=None, temperature_c=None, power_w=None,
        power_scope=None, memory_bytes=memory, other_cpu_share=0.01,
    )  # fmt: skip


def tried(number: int, share: float, **more: Any) -> latency_limit.Tried:
    figures = {"late": 9, "p50_s": 0.005, "p99_s": 0.009, "steps": 1000, "load": share,
               "holds": True, "proved": False, **more}  # fmt: skip
    return latency_limit.Tried(
        **OWN, number=number, rate_per_s=share * RATE, requests=1000,
        seconds=1000 / (share * RATE) + 0.005, other_cpu_share=0.01, **figures,
    )  # fmt: skip


FLAT = [interval(number) for number in range(12)]
FALLEN = [interval(number, 1.0 if number < 6 else 0.6) for number in range(12)]
LATER = [*FLAT[:-1], dataclasses.replace(FLAT[-1], began_s=3600.0)]
LEAKING = [interval(number, memory=2**28 + number * 2**25) for number in range(12)]
TRIES = [
    tried(1, 0.5), tried(2, 0.7), tried(3, 0.6, proved=True, late=0),
    tried(4, 0.9, holds=False, late=100, p99_s=0.02), tried(5, 0.4),
    dataclasses.replace(tried(6, 0.3), rate_per_s=0.45 * RATE),
    dataclasses.replace(tried(7, 0.3), rate_per_s=0.25 * RATE),
]  # fmt: skip
LIMIT = {"latency_limit_s": 0.01, "latency_limit_other_cpu_share": 0.01}
AT_LIMIT = {**LIMIT, **latency_limit.figures(TRIES[1], TRIES[2])}


ACCEPTED = compared.Acceptance(
    run="0001", accepted="2026-01-01T00:00:00+00:00", commit=None, reason="as planned"
)
CEILING = ceilings.Ceiling(
    measured="2026-01-01T00:00:00+00:00", device="cpu", backend="tensorflow", precision="float32",
    threads="default", version="2.21.0", matrix_size=2048, peak_flops_per_s=1e11, copy_bytes=2**28,
    peak_bytes_per_s=1e10,
)  # fmt: skip
NOISE = compared.NoiseRow(
    measured="2026-01-01T00:00:00+00:00", convmark="1", case="x", cases=1, sessions=9,
    session_s=2.0, scatter=0.02, mean=0.01, budget_s=60.0, found_from=0.04, rules_out=0.03,
    seconds_for_3_percent=90.0, seconds_for_5_percent=40.0, seconds_for_10_percent=20.0, note=None,
)  # fmt: skip
CHANGE = compared.LayerChange(
    case="x", layer="S4", old_s=-1e-4, new_s=-8e-4, difference_s=-7e-4, low_s=-2e-3, high_s=7e-4,
    part=None, moved=False,
)  # fmt: skip
VERDICT = Judgement(
    run="0001", case="x", model="x", device="cpu", batch_size=1, threads="default",
    metric="step_time", baseline=0.1, value=0.11, change=0.1, low=0.05, high=0.15,
    verdict="regressed",
)  # fmt: skip


def of(intervals: list[sustained.Interval]) -> dict[str, Any]:
    return sustained.figures(intervals, 1)


def at(best: int, proved: int | None = None, **more: Any) -> dict[str, Any]:
    chosen = None if proved is None else TRIES[proved - 1]
    note = None if chosen else "not proved: too few requests"
    figures = latency_limit.figures(TRIES[best - 1], chosen)
    return {**LIMIT, "latency_limit_note": note, **figures, **more}


def with_try(**changes: Any) -> list[latency_limit.Tried]:
    """Return the tries with one changed that no figure of the row is of."""
    return [*TRIES[:4], dataclasses.replace(TRIES[4], **changes), *TRIES[5:]]


@pytest.fixture
def found(tmp_path: Path) -> Callable[..., set[str]]:
    """Return the rules that a row with such columns breaks, beside such files."""

    def rules(columns: dict[str, Any], *beside: Any) -> set[str]:
        row: Record = dataclasses.replace(BASE, **columns)
        path = keep_run(tmp_path / "new", [row])
        for *name, table, rows in beside:
            table.replace(path.with_name(f"{name[0]}.csv") if name else table.path(path), rows)
        return {one.rule for one in check([tmp_path / "new"], [], NOW).findings}

    return rules


def test_what_the_harness_writes_passes(found: Callable[..., set[str]]) -> None:
    both = ((sustained.TABLE, FALLEN), (latency_limit.TABLE, TRIES))
    assert of(FALLEN)["sustained_drop"] > 0.3
    assert found({**of(FALLEN), **AT_LIMIT}, *both) == set()


@pytest.mark.parametrize("few", [FALLEN[:1], FALLEN[4:8]])
def test_a_row_of_an_earlier_version_has_no_drop_of_intervals_that_are_too_few_to_find_one(
    few: list[sustained.Interval], found: Callable[..., set[str]]
) -> None:
    few = [dataclasses.replace(one, began_s=float(n)) for n, one in enumerate(few)]
    assert of(few)["sustained_drop"] is None
    earlier = {**of(few), "sustained_drop": 0.0}
    assert found(earlier, (sustained.TABLE, few)) == set()
    assert found({**earlier, "sustained_drop": 0.1}, (sustained.TABLE, few)) == {"intervals"}


@pytest.mark.parametrize(
    ("columns", "intervals"),
    [
        (of(FLAT), []),
        ({**of(FLAT), "sustained_throughput_samples_per_s": 2 * RATE}, FLAT),
        ({**of(FALLEN), "sustained_drop": 0.0, "sustained_drop_began_s": None}, FALLEN),
        ({**of(FLAT), "sustained_s": 1200.0}, FLAT),
        ({**of(FLAT), "sustained_other_cpu_share": None}, FLAT),
        (of(LEAKING), LEAKING),
        (of(FALLEN[:6] + FALLEN[11:]), FALLEN[:6] + FALLEN[11:]),
        (of(LATER), LATER),
        (of(FLAT), [dataclasses.replace(FLAT[0], throughput_samples_per_s=9e3), *FLAT[1:]]),
    ],
    ids=[
        "no file",
        "twice as fast",
        "no drop",
        "longer",
        "no load",
        "a leak",
        "intervals left out",
        "a longer time",
        "other steps",
    ],
)
def test_a_sustained_speed_is_that_of_its_intervals(
    columns: dict[str, Any],
    intervals: list[sustained.Interval],
    found: Callable[..., set[str]],
) -> None:
    assert found(columns, (sustained.TABLE, intervals)) == {"intervals"}


@pytest.mark.parametrize(
    ("columns", "tries"),
    [
        (AT_LIMIT, []),
        ({**AT_LIMIT, "latency_limit_rate_per_s": 2 * RATE}, TRIES),
        ({**AT_LIMIT, "latency_limit_p99_s": 0.001}, TRIES),
        ({**AT_LIMIT, "latency_limit_requests": 10**6}, TRIES),
        (at(4, 3), TRIES),
        (at(2, 1), TRIES),
        (at(2), with_try(steps=200)),
        (at(6), TRIES),
        (at(7), TRIES),
        (at(5), [dataclasses.replace(TRIES[4], steps=0, requests=0, late=0)]),
        (at(2, latency_limit_s=0.005), TRIES),
        (at(2, latency_limit_s=None), TRIES),
        (at(2, latency_limit_confidence=0.99), TRIES),
        (AT_LIMIT, [*TRIES[:2], dataclasses.replace(TRIES[2], late=9), *TRIES[3:]]),
        (AT_LIMIT, with_try(late=1001)),
        (AT_LIMIT, with_try(p50_s=0.02)),
        (AT_LIMIT, with_try(p99_s=0.02)),
        (AT_LIMIT, with_try(holds=False)),
        (AT_LIMIT, with_try(load=9.0)),
        (AT_LIMIT, with_try(number=9)),
        (AT_LIMIT, with_try(process=9)),
        (AT_LIMIT, with_try(case="x")),
        (AT_LIMIT, with_try(run="0009")),
        ({**AT_LIMIT, "latency_limit_other_cpu_share": None}, TRIES),
        ({**AT_LIMIT, "latency_limit_note": "not proved"}, TRIES),
        (at(2, latency_limit_note=None), TRIES),
        ({"latency_limit_s": 0.01}, []),
        ({"latency_limit_note": "not proved"}, []),
        ({**AT_LIMIT, "latency_limit_search_s": 1e-3}, TRIES),
    ],
    ids=["no file", "no such rate", "another p99", "more requests", "does not hold", "no proof",
         "more in a step than the batch", "a higher rate than its time", "a lower one", "no steps",
         "a lower limit", "no limit", "confidence alone", "late ones that prove nothing",
         "more late than answered", "a median above", "late by its percentile", "that fails",
         "more load than time", "a number left out", "another process", "another case",
         "another run", "load left out", "a note too many", "no note", "nothing found, no note",
         "a note alone", "a search shorter than its tries"],
)  # fmt: skip
def test_a_rate_at_a_limit_is_that_of_a_try(
    columns: dict[str, Any], tries: list[latency_limit.Tried], found: Callable[..., set[str]]
) -> None:
    assert found(columns, (latency_limit.TABLE, tries)) == {"tries"}


def test_a_limit_that_no_step_meets_has_no_tries(found: Callable[..., set[str]]) -> None:
    note = "not reachable: a single step takes 12.0 ms"
    assert found({"latency_limit_s": 0.01, "latency_limit_note": note}) == set()


@pytest.mark.parametrize("column", ["late", "requests", "p50_s", "load", "steps"])
def test_a_cell_of_a_table_is_held_to_the_bounds_of_its_column(
    column: str, found: Callable[..., set[str]]
) -> None:
    assert found(AT_LIMIT, (latency_limit.TABLE, with_try(**{column: -5}))) == {"schema", "tries"}


TABLES = [
    (compared.ACCEPTED_TABLE, ACCEPTED, {"accepted": "tomorrow"}, "schema"),
    (compared.ACCEPTED_TABLE, ACCEPTED, {"accepted": "2126-01-01"}, "future"),
    (ceilings.TABLE, CEILING, {"peak_flops_per_s": 1e16}, "contradicts"),
    (ceilings.TABLE, CEILING, {"peak_bytes_per_s": 1e15}, "contradicts"),
    (ceilings.TABLE, CEILING, {"measured": "2126-01-01"}, "future"),
    (compared.NOISE_TABLE, NOISE, {"scatter": -0.1}, "schema"),
    (compared.NOISE_TABLE, NOISE, {"mean": -0.3}, "contradicts"),
    (compared.CHANGES_TABLE, CHANGE, {"difference_s": 7e-4}, "contradicts"),
    (compared.VERDICT_TABLE, VERDICT, {"low": 0.2}, "contradicts"),
    (compared.VERDICT_TABLE, VERDICT, {"value": 0.5}, "contradicts"),
]


@pytest.mark.parametrize(("table", "row", "changes", "rule"), TABLES)
def test_a_row_of_a_machines_table_must_not_contradict_itself(
    table: Any, row: Any, changes: dict[str, Any], rule: str, found: Callable[..., set[str]]
) -> None:
    names = {compared.ACCEPTED_TABLE: "accepted", ceilings.TABLE: "ceilings"}
    names |= {compared.NOISE_TABLE: "noise", compared.VERDICT_TABLE: "verdicts"}
    name = [names[table]] if table in names else []  # else it is of a run
    assert found({}, (*name, table, [row])) == set()
    assert found({}, (*name, table, [dataclasses.replace(row, **changes)])) == {rule}


def test_the_folder_of_a_machine_is_checked_from_within(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = keep_run(tmp_path / "new", [BASE])
    compared.VERDICT_TABLE.replace(path.with_name("verdicts.csv"), [VERDICT])
    monkeypatch.chdir(path.parent)
    assert check([Path()], [], NOW).findings == []


def test_more_requests_than_a_process_has_steps_for_contradict_its_step_time(
    found: Callable[..., set[str]],
) -> None:
    many = tried(1, 4.0, load=0.9)
    figures = latency_limit.figures(many, None)
    columns = {**LIMIT, "latency_limit_note": "not proved: too few requests", **figures}
    assert found(columns, (latency_limit.TABLE, [many])) == {"contradicts"}


@pytest.mark.parametrize("part", ["sustained", "latency_limit"])
def test_other_load_counts_in_what_goes_on_after_the_steps(
    part: str, found: Callable[..., set[str]]
) -> None:
    busy = [dataclasses.replace(one, other_cpu_share=0.5) for one in FLAT]
    tries = [dataclasses.replace(one, other_cpu_share=0.5) for one in TRIES]
    beside = ((sustained.TABLE, busy), (latency_limit.TABLE, tries))
    columns = {"sustained": of(busy), "latency_limit": AT_LIMIT}[part]
    load = {"latency_limit_other_cpu_share": 0.5} if part == "latency_limit" else {}
    assert found({**columns, **load}, *beside) == {"other load"}


def test_the_check_has_the_workers_rules() -> None:
    assert pytest.approx(arrivals.RISK) == latency_limit.RISK
    assert (arrivals.MOST_LOAD, arrivals.CONFIDENCE) == (
        latency_limit.MOST_LOAD,
        latency_limit.CONFIDENCE,
    )
