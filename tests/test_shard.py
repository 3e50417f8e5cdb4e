"""A plan in parts: the split, what it is balanced by, and `convmark run --shard`."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import fake_worker
import pytest
from histories import keep, process

from convmark.cli import main
from convmark.core.case import Case
from convmark.core.errors import OptionError, StoreError
from convmark.results.reading import read_run
from convmark.results.store import Store
from convmark.session.expected import COSTS, FEWEST_STEPS, expected_s, step_s
from convmark.session.fleet.part import (
    Part,
    Shard,
    part_path,
    plan_name,
    read_part,
    read_shard,
    split,
    write_part,
)
from convmark.session.forecast import known_seconds, seconds_of


def case(model: str = "lenet5", batch_size: int = 32, task: str = "train") -> Case:
    return Case(model=model, task=task, batch_size=batch_size)


def many(count: int) -> list[Case]:
    return [case(batch_size=number) for number in range(1, count + 1)]


# the text


def test_a_shard_is_read_as_it_is_printed() -> None:
    assert str(read_shard(" 3/8 ")) == "3/8"
    assert read_shard("1/1") == Shard(number=1, count=1)


@pytest.mark.parametrize(
    "text", ["", "3", "3/", "/8", "0/8", "9/8", "-1/8", "3/8/9", "1/10001", "²/3"]
)
def test_what_is_no_shard_is_refused_on_one_line(text: str) -> None:
    with pytest.raises(OptionError, match=r"^--shard: must be K/N") as refused:
        read_shard(text)
    assert "\n" not in str(refused.value)


# the split


def test_each_case_is_in_exactly_one_shard_and_keeps_its_place() -> None:
    cases = many(11)
    shards = split(cases, lambda one: float(one.batch_size), 4)
    assert sorted((one for shard in shards for one in shard), key=cases.index) == cases
    for shard in shards:
        assert list(shard) == sorted(shard, key=cases.index)


def test_the_split_is_the_same_whatever_order_the_cases_come_in() -> None:
    cases = many(20)
    mixed = random.Random(1).sample(cases, 20)
    one, other = (split(those, lambda _: 1.0, 6) for those in (cases, mixed))
    assert [set(shard) for shard in one] == [set(shard) for shard in other]


def test_the_longest_case_stands_alone_by_hand() -> None:
    seconds = {1: 7.0, 2: 4.0, 3: 3.0, 4: 2.0, 5: 1.0}
    shards = split(many(5), lambda one: seconds[one.batch_size], 3)
    loads = [sum(seconds[one.batch_size] for one in shard) for shard in shards]
    assert loads == [7.0, 5.0, 5.0]


@pytest.mark.parametrize("seed", range(20))
def test_no_shard_takes_longer_than_four_thirds_of_the_best(seed: int) -> None:
    rng = random.Random(seed)
    cases = many(40)
    seconds = {one: rng.choice((5.0, 6.0, 30.0)) * rng.uniform(0.5, 2.0) for one in cases}
    count = rng.randint(2, 12)
    loads = [
        sum(seconds[one] for one in shard) for shard in split(cases, seconds.__getitem__, count)
    ]
    bound = max(sum(seconds.values()) / count, max(seconds.values()))
    assert max(loads) <= bound * (4 / 3 - 1 / (3 * count)) + 1e-9


def test_more_shards_than_cases_leave_some_empty() -> None:
    assert [len(shard) for shard in split(many(2), lambda _: 1.0, 4)] == [1, 1, 0, 0]


# the expected time


def test_a_small_model_takes_its_time_budget_and_a_large_one_its_steps() -> None:
    cost = COSTS["tensorflow", "cpu"]
    assert expected_s(case(task="infer"), 1.8, {}) == cost.process_s + 3.6
    assert expected_s(case(), 1.8, {}) == 1.5 * cost.process_s + 3.6
    slow = case("resnet50", 32, "infer")
    assert step_s(slow) == pytest.approx(7.72 * 32 / 165)  # by its FLOPs
    assert step_s(case("mobilenetv2", 32, "infer")) == pytest.approx(20 * 0.0259)  # as published
    layers_s = 107 * cost.layer_s
    assert expected_s(slow, 1.8, {}) == pytest.approx(
        cost.process_s + layers_s + FEWEST_STEPS * step_s(slow)
    )
    assert expected_s(case("resnet50"), 1.8, {}) == pytest.approx(
        1.5 * (cost.process_s + layers_s) + 3 * FEWEST_STEPS * step_s(slow)
    )
    assert expected_s(case("mine:net"), 1.8, {}) > expected_s(case(), 1.8, {})


def test_what_rows_tell_goes_before_a_guess() -> None:
    assert expected_s(case(), 1.8, {case().name: 60.0}) == 60.0


def test_the_seconds_of_a_row_are_those_of_its_phases() -> None:
    row = process(
        process_start_s=0.5,
        time_to_first_step_s=1.5,
        warm_up_steps=10,
        steps=30,
        windows=5,
        window_steps=4,
        step_time_mean_s=0.1,
        rounds=20,
        paired_step_time_p50_s=0.1,
        reference_step_time_p50_s=0.05,
    )
    assert seconds_of(row) == pytest.approx(0.5 + 1.5 + 60 * 0.1 + 20 * 0.15)
    assert seconds_of(process(status="timeout", step_time_mean_s=0.1)) is None


def test_known_seconds_are_the_median_of_a_cases_rows(tmp_path: Path) -> None:
    keep(
        Store(tmp_path / "results"),
        [
            process(
                process=number,
                started=f"2026-01-01T00:00:0{number}.000+00:00",
                process_start_s=seconds,
                step_time_mean_s=1e-9,
                time_to_first_step_s=1e-9,
            )
            for number, seconds in enumerate((1.0, 9.0, 2.0), start=1)
        ],
    )
    found = known_seconds([tmp_path / "results"], 1.0)
    assert found == {process().case.name: pytest.approx(2.0)}


def test_a_process_took_until_the_next_one_began_unless_the_run_was_interrupted(
    tmp_path: Path,
) -> None:
    figures = {"process_start_s": 1.0, "step_time_mean_s": 1e-9, "time_to_first_step_s": 1e-9}
    rows = [
        process(process=n, order=n, model=model, started=f"2026-01-01T00:{at}.000+00:00", **figures)
        for n, (model, at) in enumerate((("a", "00:00"), ("b", "00:03"), ("c", "09:00")), start=1)
    ]
    keep(Store(tmp_path / "results"), rows)
    found = known_seconds([tmp_path / "results"], 1.0)
    assert [round(found[row.case.name]) for row in rows] == [3, 1, 1]


def test_a_row_that_tells_how_long_its_process_took_is_believed(tmp_path: Path) -> None:
    figures = {"process_start_s": 1.0, "step_time_mean_s": 1e-9, "time_to_first_step_s": 1e-9}
    sustained = {"took_s": 59.0, "sustained_s": 40.0}
    keep(Store(tmp_path / "results"), [process(**figures, **sustained)])
    assert known_seconds([tmp_path / "results"], 1.0) == {process().case.name: 19.0}


def test_a_process_is_told_for_the_time_budget_of_the_run_that_is_planned(tmp_path: Path) -> None:
    figures = {"process_start_s": 1.0, "time_to_first_step_s": 1e-9, "time_budget_s": 3.0}
    quick = process(model="quick", step_time_mean_s=0.001, took_s=7.0, order=1, **figures)
    slow = process(model="slow", step_time_mean_s=0.5, took_s=31.0, order=2, **figures)
    keep(Store(tmp_path / "results"), [quick, slow])
    names = quick.case.name, slow.case.name
    found = known_seconds([tmp_path / "results"], 0.1)
    assert [found[name] for name in names] == pytest.approx([1.0 + 0.2, 31.0])
    found = known_seconds([tmp_path / "results"], 3.0)
    assert [found[name] for name in names] == pytest.approx([7.0, 31.0])


def test_rows_of_a_merged_run_may_write_utc_in_other_ways(tmp_path: Path) -> None:
    figures = {"process_start_s": 1.0, "step_time_mean_s": 1e-9, "time_to_first_step_s": 1e-9}
    starts = ("00:00.000", "00:03.000Z", "00:07.000+00:00")
    rows = [
        process(process=n, order=n, model=f"m{n}", started=f"2026-01-01T00:{at}", **figures)
        for n, at in enumerate(starts, start=1)
    ]
    keep(Store(tmp_path / "results"), rows)
    found = known_seconds([tmp_path / "results"], 1.0)
    assert [round(found[row.case.name]) for row in rows] == [3, 4, 1]


# what a run is a part of


def part(**changes: object) -> Part:
    shards = tuple(split(many(4), lambda _: 1.0, 2))
    fields = {"plan": "0" * 12, "count": 2, "numbers": (1,), "processes": 2, "shards": shards}
    return Part(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_part_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = tmp_path / "0001.csv"
    assert read_part(run) is None
    write_part(run, part())
    assert read_part(run) == part()
    assert part().joined([part(numbers=(2,))]).numbers == (1, 2)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        '{"layout": 2}',
        "[" * 100_000,
        '{"layout":1,"plan":"a","count":1,"numbers":[2],"processes":1,"shards":[[]]}',
        '{"layout":1,"plan":"a","count":2,"numbers":[1],"processes":1,"shards":[[]]}',
        '{"layout":1,"plan":"a","count":1,"numbers":[true],"processes":1,"shards":[[]]}',
        '{"layout":1,"plan":"a","count":1,"numbers":[1],"processes":0,"shards":[[]]}',
        '{"layout":1,"plan":"a","count":1,"numbers":[1],"processes":1,"shards":[[{"model":1}]]}',
        '{"layout":1,"plan":"a","count":1,"numbers":[1],"processes":1,"shards":[[{"modell":"a"}]]}',
    ],
)
def test_a_file_that_is_no_part_is_refused_by_name(tmp_path: Path, text: str) -> None:
    part_path(tmp_path / "0001.csv").write_text(text)
    with pytest.raises(StoreError, match=r"0001\.plan\.json|plan a") as refused:
        read_part(tmp_path / "0001.csv")
    assert "\n" not in str(refused.value)


def test_plans_differ_by_whatever_changes_them() -> None:
    facts = {"processes": 2, "seed": 0, "time_budget_s": 1.8, "where": ""}
    shards = split(many(4), lambda _: 1.0, 2)
    name = plan_name(shards, **facts)  # type: ignore[arg-type]
    others = [
        plan_name(shards, **{**facts, **change})  # type: ignore[arg-type]
        for change in ({"processes": 3}, {"seed": 1}, {"time_budget_s": 2.0}, {"where": "a"})
    ]
    others.append(plan_name(split(many(4), lambda _: 1.0, 3), **facts))  # type: ignore[arg-type]
    assert len({name, *others}) == 6
    assert len(name) == 12


def test_a_plan_has_the_name_that_it_had_before_there_were_runtimes() -> None:
    case = Case(model="lenet5", task="train", device="cpu", batch_size=32, precision="float32")
    facts = {"processes": 2, "seed": 0, "time_budget_s": 1.0, "where": ""}
    shards = [[case], [replace(case, model="vgg16")]]
    assert plan_name(shards, **facts) == "dfe7324cc89f"  # type: ignore[arg-type]
    shards[1] = [replace(case, task="infer", runtime="litert")]
    assert plan_name(shards, **facts) != "dfe7324cc89f"  # type: ignore[arg-type]


# convmark run --shard


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("convmark.interpreter.Interpreter", fake_worker.FakeInterpreter)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shard_run(number: int, count: int, *more: str) -> int:
    return main(["run", "--shard", f"{number}/{count}", "--results", f"part{number}", *more])


def test_the_shards_of_a_run_are_the_whole_run(
    fake: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--results", "whole"]) == 0
    assert [shard_run(number, 3) for number in (1, 2, 3)] == [0, 0, 0]
    (whole,) = fake.glob("whole/*/0001.csv")
    parts = [path for number in (1, 2, 3) for path in fake.glob(f"part{number}/*/0001.csv")]
    rows = {(row.case.name, row.process, row.order) for row in read_run(whole)}
    shared = [{(row.case.name, row.process, row.order) for row in read_run(path)} for path in parts]
    assert set().union(*shared) == rows
    assert sum(map(len, shared)) == len(rows)
    assert len({row.plan for path in (whole, *parts) for row in read_run(path)}) == 1
    said = capsys.readouterr().err
    assert "convmark run: shard 1/3 of plan " in said
    found = [read_part(path) for path in parts]
    assert len({one.plan for one in found if one}) == 1
    assert [one.numbers for one in found if one] == [(1,), (2,), (3,)]


def test_a_shard_without_cases_is_no_failure(
    fake: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--models", "lenet5", "--tasks", "train")
    assert shard_run(2, 2, *asked) == 0
    assert "shard 2/2 of plan" in (said := capsys.readouterr().err)
    assert "0 of 1 case, nothing to do" in said
    assert not list(fake.glob("part2/*/*"))


def test_shards_are_balanced_by_the_rows_that_are_named(fake: Path) -> None:
    """The one case that takes ten minutes stands alone."""
    slow = Case(model="lenet5", task="infer", batch_size=1)
    keep(
        Store(fake / "before"),
        [process(model="lenet5", task="infer", batch_size=1, process_start_s=600.0,
                 step_time_mean_s=0.001)],
    )  # fmt: skip
    assert shard_run(1, 2, "--shard-times", "before", "--models", "lenet5") == 0
    (path,) = fake.glob("part1/*/0001.csv")
    assert {row.case for row in read_run(path)} == {slow}


def test_shards_are_balanced_by_times_of_the_time_budget_that_is_asked_for(fake: Path) -> None:
    of_a_long_budget = process(model="lenet5", task="infer", batch_size=1, time_budget_s=300.0,
                               took_s=601.0, step_time_mean_s=0.001)  # fmt: skip
    keep(Store(fake / "before"), [of_a_long_budget])
    for number in (1, 2):
        assert shard_run(number, 2, "--shard-times", "before", "--models", "lenet5") == 0
    parts = ({row.case for row in read_run(path)} for path in fake.glob("part?/*/0001.csv"))
    assert {of_a_long_budget.case} not in parts


def test_times_without_a_shard_are_refused(fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--shard-times", "before"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "convmark run: --shard-times: must be given with --shard K/N"


def test_a_part_that_was_interrupted_goes_on(
    fake: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fake_worker.FakeInterpreter, "interrupt_after", 3)
    assert shard_run(2, 3) == 130
    monkeypatch.setattr(fake_worker.FakeInterpreter, "interrupt_after", None)
    (path,) = fake.glob("part2/*/*.csv")
    before, part = read_run(path), read_part(path)
    assert shard_run(1, 3, "--results", "part2", "--resume") == 2
    assert "not selected" in capsys.readouterr().err
    assert shard_run(2, 3, "--resume") == 0
    assert list(fake.glob("part2/*/*.csv")) == [path]
    assert len(before) == 3
    assert read_run(path)[:3] == before
    assert read_part(path) == part
    assert part is not None
    whole = part.shards[1]
    assert {(row.case, row.process) for row in read_run(path)} == {
        (case, process) for case in whole for process in (1, 2, 3)
    }


def test_a_search_for_batch_sizes_cannot_be_shared_out(
    fake: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shard_run(1, 2, "--batch-sizes", "auto") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "convmark run: --shard: needs --batch-sizes in numbers, got auto"
