"""The table over the values of a column."""

from __future__ import annotations

import shlex
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from histories import MACHINE, keep, process
from json_tables import rows_of

from convmark.cli import main
from convmark.report.across import Cell, across_report, cells_table
from convmark.report.across import across as across_runs
from convmark.report.changes import Change
from convmark.results.record import Record
from convmark.results.store import Store


def row(run: str, version: str, step_s: float, **changes: object) -> Record:
    return process(
        run=run,
        tensorflow=version,
        step_time_p50_s=step_s,
        throughput_samples_per_s=32 / step_s,
        time_to_first_step_s=0.5,
        **changes,
    )


TF = "tensorflow==2.21.0"
SETTINGS = (
    "--devices cpu --precisions float32 --jit off --threads default --cpus default --numa default "
    "--backend tensorflow "
    "--runtime keras --input-shape default --optimizer default --learning-rate default "
    "--loss default"
)
FILES = defaultdict(str, {"c1": "f1", "c1-of-other-packages": "f1", "c2": "f2"})
"""The hash of the files of each code."""


def across(rows: list[Record], column: str, *more: Any) -> list[Cell]:
    """Return the cells of rows, those of one number on one machine as a run."""
    runs: dict[tuple[str | None, str], list[Record]] = {}
    for one in rows:
        runs.setdefault((one.machine, one.run), []).append(one)
    return across_runs(runs.values(), column, *more)


def _size(change: Change | None) -> float | None:
    return change.change if change else None


def run(number: int, version: str, *steps_s: float, **changes: object) -> list[Record]:
    """Return a run of one case with a process for each step time."""
    fields = {"code": "c1", **changes}
    return [
        row(f"{number:04d}", version, step_s, process=place, order=place, **fields)
        for place, step_s in enumerate(steps_s, 1)
    ]


def test_processes_that_are_in_no_figure_are_counted() -> None:
    rows = [*run(1, "2.20.0", 0.010, 0.011), *run(2, "2.21.0", 0.010, 0.010)]
    rows += [row("0002", "2.21.0", 0.020, process=3, order=3, code="c1", status="unsteady")]
    first, second = across(rows, "tensorflow")
    assert second.step_time_p50_s == pytest.approx(0.010)
    assert (first.processes, second.processes) == (2, 2)
    assert second.note.endswith("without 1 of 3 processes, unsteady")
    assert "without" not in first.note
    hot = run(3, "2.22.0", 0.010, 0.020, not_judged="hot")
    (found,) = across(hot, "tensorflow")
    assert (found.processes, found.note) == (2, "not judged: hot")
    (found,) = across([*run(2, "2.22.0", 0.010), *hot], "tensorflow")
    assert (found.run, found.processes) == ("0002", 1)
    assert found.note == "of an earlier run, as the newest is not judged: hot"
    (found,) = across(
        [*run(2, "2.22.0", 0.030, not_judged="hot"), *run(4, "2.22.0", 0.010)], "tensorflow"
    )
    assert (found.run, found.processes, found.note) == ("0004", 1, "")
    (found,) = across(run(1, "2.22.0", 0.010, 0.020, status="unsteady"), "tensorflow")
    assert (found.processes, found.note) == (2, "2 of 2 processes unsteady")


def test_a_value_of_which_a_run_was_under_other_load_says_so() -> None:
    rows = [*run(1, "2.20.0", 0.010, 0.011, other_cpu_share=0.82), *run(2, "2.20.0", 0.010, 0.010)]
    rows += run(3, "2.21.0", 0.010, 0.010, other_cpu_share=0.02)
    first, second = across(rows, "tensorflow")
    assert first.note == "under 82 % other load in one run or more"
    assert "load" not in second.note.replace("the load differed", "")
    (alone, _) = across([*rows[:2], *rows[4:]], "tensorflow")
    assert alone.note == "under 82 % other load"


def test_one_value_alone_is_said_to_have_nothing_beside_it() -> None:
    text = across_report(across(run(1, "2.20.0", 1.0, 1.1), "tensorflow"), "tensorflow")
    assert "All rows are of 2.20.0: there is nothing to compare it with." in text
    assert "Intervals" not in text
    assert "samples/s is measured over windows" in text
    of_two = [*run(1, "2.20.0", 1.0, 1.1), *run(2, "2.21.0", 1.0, model="resnet50")]
    text = across_report(across(of_two, "tensorflow"), "tensorflow")
    assert "No case was measured at two values: there is nothing to compare." in text
    assert "Intervals" not in text


def test_each_version_is_set_beside_the_oldest_and_the_one_before() -> None:
    rows = [
        row("0003", "2.10.1", 0.012),
        row("0001", "2.9.3", 0.010),
        row("0002", "2.12.0", 0.009),
    ]
    cells = across(rows, "tensorflow")
    assert [cell.value for cell in cells] == ["2.9.3", "2.10.1", "2.12.0"]
    assert [_size(cell.to_first) for cell in cells] == [
        None,
        pytest.approx(0.2),
        pytest.approx(-0.1),
    ]
    assert [_size(cell.to_previous) for cell in cells] == [
        None,
        pytest.approx(0.2),
        pytest.approx(-0.25),
    ]


def test_runs_of_a_version_that_are_alike_speak_together() -> None:
    rows = [
        *run(1, "2.20.0", 9.0, code="other"),
        *run(2, "2.20.0", 9.0, 9.0, threads="1", code="c1"),
        *run(3, "2.20.0", 1.0, 4.0, python="3.12.1"),
        *run(6, "2.20.0", 9.0, time_budget_s=0.1),
        *run(4, "2.20.0", 2.0),
        *run(5, "2.20.0", 1.0, 8.0, 8.0),
    ]
    cell = next(one for one in across(rows, "tensorflow") if "-t1" not in one.case)
    assert (cell.run, cell.runs, cell.processes) == ("0005", 2, 4)
    assert cell.step_time_p50_s == pytest.approx((2 * 4) ** 0.5)  # each run counts once
    assert cell.step_time_spread == (8 - 1) / 2 / 5


def test_processes_of_one_run_each_give_an_interval_and_no_verdict() -> None:
    rows = [*run(1, "2.20.0", 0.99, 1.0, 1.01), *run(2, "2.21.0", 1.98, 2.0, 2.02)]
    cell = across(rows, "tensorflow")[1]
    assert cell.to_previous is not None
    assert (cell.to_previous.change, cell.to_previous.basis) == (pytest.approx(1.0), "processes")
    assert 0.9 < cell.to_previous.interval.low < 1.0
    assert (cell.verdict, cell.note) == ("", "1 of 3 pairs of runs that alternate")
    assert cell.to_previous.words == "slower in these runs: +100.0 % [+95.5, +104.6]"


def test_runs_that_differ_make_a_change_not_distinguishable() -> None:
    # processes agree within 1 %, the runs of one version lie 50 % apart
    rows = [
        *run(1, "2.20.0", 0.99, 1.0, 1.01),
        *run(2, "2.20.0", 1.49, 1.5, 1.51),
        *run(3, "2.21.0", 1.79, 1.8, 1.81),
    ]
    cell = across(rows, "tensorflow")[1]
    assert cell.to_previous is not None
    assert cell.to_previous.basis == "runs"
    assert cell.to_previous.words.startswith("not distinguishable: 1.47 times [0.0170, ")
    table = across_report([cell], "tensorflow")
    assert "not distinguishable" in " ".join(table.split())


def alternated(change: float, runs: int = 6, **changes: object) -> list[Record]:
    """Return runs of two versions in turn, on a machine that becomes slower from run to run."""
    return [
        one
        for number in range(runs)
        for version, factor, more in (("2.20.0", 1.0, {}), ("2.21.0", change, changes))
        for one in run(
            2 * number + 1 + (factor == change and version == "2.21.0"),
            version,
            *[0.01 * factor * (1 + 0.1 * number)] * 3,
            **more,
        )
    ]


@pytest.mark.parametrize(
    ("change", "verdict", "words"),
    [
        (1.2, "regressed", "slower over pairs of runs: +20.0 %"),
        (0.8, "improved", "faster over pairs of runs: -20.0 %"),
        (1.001, "unchanged", "not distinguishable: +0.1 %"),
    ],
)
def test_runs_that_alternate_allow_a_verdict(change: float, verdict: str, words: str) -> None:
    cell = across(alternated(change), "tensorflow")[1]
    assert cell.to_previous is not None
    assert (cell.verdict, cell.to_previous.basis) == (verdict, "pairs")
    assert cell.to_previous.words.startswith(words)
    assert "Decided: 1 change from" in across_report([cell], "tensorflow")


@pytest.mark.parametrize(
    ("rows", "note"),
    [
        (alternated(1.2, runs=2), "2 of 3 pairs of runs that alternate"),
        (
            sorted(alternated(1.2), key=lambda one: one.tensorflow or ""),
            "1 of 3 pairs of runs that alternate",
        ),
        (alternated(1.2, flags="TF_ENABLE_ONEDNN_OPTS=0"), "differs too: flags"),
        (alternated(1.2, other_cpu_share=0.9),
         "the load differed or is not known; under 90 % other load in one run or more"),
        (alternated(1.2, not_judged="hot"), "not judged: hot"),
        (alternated(1.2, code="lost"), "code not known"),
        (alternated(1.2, code=None, dirty=True), "code not known"),
        (alternated(1.2, code="c2"), "differs too: code"),
        (alternated(1.2, runs=2, keras="3.16.0"), "2 of 3 pairs of runs that alternate; not the "
         "same: keras"),
    ],
)  # fmt: skip
def test_what_the_runs_do_not_share_forbids_a_verdict(rows: list[Record], note: str) -> None:
    cell = across(rows, "tensorflow", None, FILES.__getitem__)[1]
    assert (cell.verdict, cell.note) == ("", note)


def test_the_same_files_with_other_packages_allow_a_verdict() -> None:
    rows = alternated(1.2, code="c1-of-other-packages")
    assert across(rows, "tensorflow", None, FILES.__getitem__)[1].verdict == "regressed"


def test_commits_of_the_same_code_are_unchanged_whatever_was_measured() -> None:
    rows = [
        one
        for number in range(6)
        for place, commit in enumerate("ab", 1)
        for one in run(2 * number + place, "2.20.0", 0.01 * place, commit=commit * 40)
    ]
    cell = across(rows, "commit")[1]
    assert (cell.verdict, cell.note) == ("unchanged", "same code")
    assert "Decided: 1 change from one value to the next." in across_report([cell], "commit")


def test_the_command_that_decides_is_as_one_would_type_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        row(f"{number:04d}", version, 1.0, model=model, task=task, batch_size=batch)
        for number, version in enumerate(("2.19.0", "2.20.0"), 1)
        for model in ("lenet5", "mini_resnet")
        for task, batch in (("train", 32), ("infer", 1), ("infer", 32))
    ]
    live = "compare --across tensorflow --results 'my rows' --live"
    monkeypatch.setenv("COLUMNS", "80")
    text = across_report(across(rows, "tensorflow"), "tensorflow", live=live)
    sides = "convmark ab tensorflow==2.19.0 tensorflow==2.20.0 --models lenet5,mini_resnet"
    assert text.splitlines()[-3:] == [
        f"{sides} --tasks infer --batch-sizes 1,32 {SETTINGS}",
        f"{sides} --tasks train --batch-sizes 32 {SETTINGS}",
        f"convmark {live}",
    ]


def test_the_command_for_all_values_has_the_options_that_the_user_gave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        keep(Store(Path("my rows")), run(number, f"2.2{number}.0", 1.0))
    options = ["--across", "tensorflow", "--machine", MACHINE]
    assert main(["compare", *options, "--results", "my rows", "--format", "markdown"]) == 0
    *_, one, last, end = capsys.readouterr().out.splitlines()
    assert one.endswith(" --loss default --results 'my rows'")
    assert last == f"convmark {shlex.join(['compare', *options])} --live --results 'my rows'"
    assert end == "```"


@pytest.mark.parametrize(
    ("column", "values", "sides"),
    [
        ("keras", ("3.5.0", "3.6.0"), f"'{TF} keras==3.5.0' '{TF} keras==3.6.0'"),
        ("python", ("3.12.1", "3.13.2"), "python3.12 python3.13"),
        ("commit", ("a" * 40, "b" * 40), "git:aaaaaaaaaaaa git:bbbbbbbbbbbb"),
        ("tensorflow", ("2.20.0", "$(rm x)"), ""),
        ("machine", ("a", "b"), ""),
        ("driver", ("570.1", "580.2"), ""),
    ],
)  # fmt: skip
def test_each_column_has_its_sides(column: str, values: tuple[str, str], sides: str) -> None:
    rows = [
        process(run=f"{number:04d}", **{column: value}) for number, value in enumerate(values, 1)
    ]
    command = across(rows, column)[1].command
    assert command.startswith(f"convmark ab {sides} --models lenet5" if sides else "")
    assert bool(command) == bool(sides)


def test_settings_of_a_case_are_in_its_command_and_replicas_have_none() -> None:
    settings = {"jit": "on", "threads": "1", "recipe": "optimizer=adam learning_rate=0.1"}
    rows = [row(f"000{n}", f"2.2{n}.0", 1.0, **settings) for n in (0, 1)]
    assert across(rows, "tensorflow")[1].command.endswith(
        "--devices cpu --precisions float32 --jit on --threads 1 --cpus default --numa default "
        "--backend tensorflow "
        "--runtime keras --input-shape default --optimizer adam --learning-rate 0.1 --loss default"
    )
    rows = [row(f"000{n}", f"2.2{n}.0", 1.0, replicas=2) for n in (0, 1)]
    assert across(rows, "tensorflow")[1].command == ""


def test_a_machine_is_shown_by_its_name_and_never_judged() -> None:
    rows = [one for name in ("a", "b") for one in run(1, "2.20.0", 1.0, 1.0, 1.0, machine=name)]
    cells = across(rows, "machine", {"b": "desk"})
    assert [cell.value for cell in cells] == ["a", "desk"]
    assert (cells[1].to_previous, cells[1].verdict) == (None, "")
    assert "decide" not in across_report(cells, "machine")


def test_what_may_bend_a_ratio_of_machines_is_said_as_the_report_says_it() -> None:
    rows = run(1, "2.20.0", 1.0, 1.1, machine="a", time_budget_s=0.6, measurement_version="3")
    rows += run(1, "2.21.0", 2.0, 2.1, machine="b", time_budget_s=0.1, code="c2")
    first, second = across(rows, "machine", {}, FILES.__getitem__)
    assert (first.note, second.note) == (
        "",
        "other tensorflow, measurement version, time budget, code, which may bend the ratio: "
        "measure both again with the same release of convmark, time budget and code",
    )
    same = run(2, "2.20.0", 1.0, 1.1, machine="b", measurement_version="3", time_budget_s=0.6)
    assert across([*rows[:2], *same], "machine", {}, FILES.__getitem__)[1].note == ""
    later = run(3, "2.21.0", 1.0, 1.1, time_budget_s=0.6, measurement_version="3")
    assert across([*same, *later], "tensorflow", {}, FILES.__getitem__)[1].note.count("time") == 0
    less = [*same, *run(3, "2.21.0", 1.0, 1.1, time_budget_s=0.1, measurement_version="3")]
    cell = across(less, "tensorflow", {}, FILES.__getitem__)[1]
    assert cell.note.endswith("not the same: time budget")


def test_runs_of_one_number_in_two_folders_are_apart() -> None:
    old, new = run(1, "2.20.0", 1.0, 1.0, 1.0), run(1, "2.20.0", 1.5, 1.5, 1.5)
    (cell,) = across_runs([old, new], "tensorflow")
    assert (cell.runs, cell.processes) == (2, 6)
    assert cell.step_time_p50_s == pytest.approx(1.5**0.5)


@pytest.mark.filterwarnings("always::convmark.results.reading.StoreWarning")
def test_a_copy_of_a_run_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, steps in (("a", (1.0, 1.0, 1.0)), ("copy", (1.0, 1.0))):  # copied as it ran
        keep(Store(Path(folder)), run(1, "2.20.0", *steps))
    paths = [f"{folder}/{MACHINE}/0001.csv" for folder in ("a", "copy")]
    assert main(["compare", *paths, "--across", "tensorflow", "--format", "json"]) == 0
    told = capsys.readouterr()
    assert f"{paths[1]}: is a copy of {paths[0]}, left out of the table" in told.err
    (cell,) = rows_of(told.out, "compare")
    assert (cell["runs"], cell["processes"]) == (1, 3)


def test_a_commit_with_changes_is_no_clean_commit_and_has_no_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [
        *run(1, "2.20.0", 1.0, commit="a" * 40),
        *run(2, "2.20.0", 2.0, commit="a" * 40, dirty=True, code="c2"),
    ]
    cells = across(rows, "commit")
    assert [cell.value for cell in cells] == ["a" * 40, "a" * 40 + "+"]
    assert cells[1].command == ""
    monkeypatch.setenv("COLUMNS", "80")
    lines = across_report(cells, "commit").splitlines()
    assert sum(line.split()[:1] == ["a" * 12 + "+"] for line in lines) == 3  # in every part
    assert "a" * 13 not in "".join(lines)


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
        (cell.case.split("-")[0], cell.value): _size(cell.to_previous)
        for cell in across(rows, "tensorflow")
    }
    assert found == {
        ("lenet5", "2.18.0"): None,
        ("lenet5", "2.20.0"): pytest.approx(1.0),
        ("mini_resnet", "2.18.0"): None,
        ("mini_resnet", "2.19.0"): pytest.approx(0.2),
    }


def test_each_row_of_the_table_has_its_case_and_the_metric_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "0")
    rows = [*run(1, "2.19.0", 0.010), *run(2, "2.20.0", 0.0095, 0.0095)]
    cells = across(rows, "tensorflow")
    text = across_report(cells, "tensorflow")
    assert text.count("lenet5-train-cpu-b32-float32") == 2  # also where columns follow in parts
    assert "-5.0 %, no interval" in text
    assert "Metric: step time" in text
    markdown = across_report(cells, "tensorflow", "markdown")
    assert markdown.startswith("| case")
    assert markdown.count("lenet5-train-cpu-b32-float32") == 1


def test_other_programs_get_stored_units() -> None:
    cells = across([row("0001", "2.19.0", 0.010), row("0002", "2.20.0", 0.011)], "tensorflow")
    table = cells_table(cells)
    found = table.records()
    units = {one.key: one.unit for one in table.headings}
    assert (units["step_time_p50_s"], units["peak_host_memory_bytes"]) == ("s", "bytes")
    assert found[1]["to_first"] == pytest.approx(0.1)
    assert found[1]["step_time_p50_s"] == pytest.approx(0.011)
    assert found[0]["to_first"] is None
    names = ["to_first", "to_first_low", "to_first_high", "to_first_basis"]
    assert [name for name in found[0] if name.startswith("to_first")] == names


@pytest.mark.parametrize("processes", [1, 2])
def test_a_median_is_a_float_whatever_the_number_of_processes(processes: int) -> None:
    (cell,) = across(run(1, "2.19.0", *[0.01] * processes, peak_host_memory_bytes=1000), "python")
    assert isinstance(cell.peak_host_memory_bytes, float)


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
    assert [(cell.value, _size(cell.to_first), cell.to_previous) for cell in cells] == [
        ("tensorflow", None, None),
        ("jax", pytest.approx(1.0), None),
        ("torch", pytest.approx(2.0), None),
    ]
    table = across_report(cells, "backend")
    assert "step time to the first row" in table
    assert "older" not in table
    assert "the one before" not in table


def test_commits_are_in_the_order_of_their_first_runs() -> None:
    rows = [
        row("0001", "2.20.0", 1.0, commit="f" * 40),
        row("0002", "2.20.0", 2.0, commit="a" * 40),
    ]
    cells = across(rows, "commit")
    assert [(cell.value[0], _size(cell.to_previous)) for cell in cells] == [
        ("f", None),
        ("a", pytest.approx(1.0)),
    ]


def test_runs_that_are_named_stand_in_the_order_in_which_they_were_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(1, 13):  # all of one version before all of the other
        is_new = number > 6
        rows = run(number, f"2.2{is_new:d}.0", *[0.012 if is_new else 0.010] * 3)
        keep(Store(Path("results")), rows)
    alternating = [str(number + step) for number in range(1, 7) for step in (0, 6)]
    words = ["--across", "tensorflow", "--machine", MACHINE, "--format", "json"]
    assert main(["compare", *alternating, *words]) == 0
    found = rows_of(capsys.readouterr().out, "compare")[1]
    assert (found["run"], found["verdict"]) == ("0012", None)
    assert found["note"] == "1 of 3 pairs of runs that alternate"
