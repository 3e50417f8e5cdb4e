"""`convmark ab` with stand-ins for the workers."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import os
import random
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_sides import LENET5, FakeCache, Interpreter, folder, verdicts
from json_tables import rows_of
from report_rows import keep_run, suite
from snapshots import check, plain
from test_gate import decision
from workers import git

import convmark
from convmark.cli import main
from convmark.compare.ab_rows import VerdictRow
from convmark.compare.files import CHANGES_TABLE
from convmark.compare.judgement import LiveSession
from convmark.compare.live import ab_files
from convmark.compare.live.anchor import Origin
from convmark.compare.live.case_result import CaseResult
from convmark.compare.rule.allotment import seconds_to_decide
from convmark.core.errors import StoreError
from convmark.interpreter.environments import Cache
from convmark.machine.gpu.devices import Card, Gpu
from convmark.machine.hardware import read_machine
from convmark.report.build import build
from convmark.report.tables.comparisons import comparisons_of, newest_comparison

__all__ = ["folder"]

NAME = "lenet5-train-cpu-b32-float32"
ONE_SESSION = LiveSession(wall=0.07, cpu=None, seconds=1.0)


def test_a_slower_side_is_found_kept_and_exits_1(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Interpreter.speeds = {"2.21.0": 1.1}
    assert main(["ab", "2.20.0", "2.21.0", *LENET5]) == 1
    printed = capsys.readouterr()
    (row,) = verdicts(folder)
    assert (row["case"], row["verdict"], row["void"]) == (NAME, "regressed", "false")
    assert float(row["low"]) < 0.1 < float(row["high"])
    assert abs(float(row["control_change"])) < 0.02
    assert (row["a"], row["b"]) == ("2.20.0", "2.21.0")
    assert NAME in printed.out
    assert "regressed" in printed.out
    assert "A: 2.20.0 (TensorFlow 2.99.0, Keras 3.99.0, Python 3.12.1)" in printed.err
    assert f"{NAME}: session 2, +" in printed.err
    assert "], regressed; 1 of 1 case done" in printed.err
    check("ab", plain(printed.err + printed.out, folder))


def test_each_session_is_shown_before_it_begins_with_its_case_and_the_time_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    update = lambda display, lane, text, **more: shown.append(text)  # noqa: E731
    monkeypatch.setattr("convmark.cli.ab.Display.update", update)
    assert main(["ab", *LENET5, "--batch-sizes", "8,32", "--target", "0.1"]) == 0
    starting, first, second, *_ = shown
    assert starting == "starting the interpreters, which is not part of the budget"
    small = "lenet5-train-cpu-b8-float32"
    assert first == f"{small}: session 1; 0 of 2 cases decided, at most 2 min left"
    assert "session 1" in second or "session 2" in second
    assert any(re.search(r": session [4-9], [+-].*\]; . of 2 cases decided", one) for one in shown)


def test_without_the_package_that_draws_the_verdict_is_printed_and_kept(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    Interpreter.speeds = {"2.21.0": 1.1}
    assert main(["ab", "2.20.0", "2.21.0", *LENET5]) == 1
    printed = capsys.readouterr()
    assert "regressed" in printed.out
    assert [row["verdict"] for row in verdicts(folder)] == ["regressed"]
    (line,) = [line for line in printed.err.splitlines() if "vl_convert" in line]
    assert line.startswith(f"convmark ab: {NAME}: no figure of its sessions: vl_convert cannot be ")


@pytest.mark.parametrize(
    ("holder", "keeps", "options"),
    [(ab_files, "append", []), (CHANGES_TABLE, "keep", ["--layers"])],
    ids=["its rows", "its layers"],
)
def test_a_verdict_is_printed_where_there_is_no_room_and_the_status_is_2(
    holder: Any,
    keeps: str,
    options: list[str],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(path: Path, rows: object) -> None:
        raise StoreError(f"{path}: no room")

    monkeypatch.setattr(holder, keeps, full)
    Interpreter.speeds = {"2.21.0": 1.1}
    assert main(["ab", "2.20.0", "2.21.0", *options, *LENET5]) == 2
    printed = capsys.readouterr()
    assert "regressed" in printed.out
    said = [line for line in printed.err.splitlines() if "no room" in line]
    assert [line.endswith("; the comparison goes on, and its rows are lost") for line in said] == [
        *(True, False)
    ]


def test_the_layers_that_moved_are_named_and_kept(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer_factor = property(lambda worker: {"2.21.0": 1.5}.get(worker.python, 1.0))
    monkeypatch.setattr(Interpreter, "layer_factor", layer_factor)
    Interpreter.speeds = {"2.21.0": 1.1}
    assert main(["ab", "2.20.0", "2.21.0", "--layers", *LENET5]) == 1
    printed = capsys.readouterr()
    assert "\nmeasuring the layers of 1 case, about 48 s\n" in printed.err
    named = [line for line in printed.out.splitlines() if "of the change" in line]
    assert [line.split(" [")[0] for line in named] == [f"{NAME}: conv: +50 %"]
    kept = (folder / "results" / "ab" / "0001.layers.csv").read_text().splitlines()
    assert len(kept) == 5  # its header, three layers and the rest


def test_layers_that_cannot_be_measured_are_one_line_and_the_comparison_goes_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--models", "lenet5", "--tasks", "infer", "--batch-sizes", "1"]
    assert main(["ab", "--layers", "--set-b", "runtime=savedmodel", *asked]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "no layers of B: --runtime: layers are measured in keras only, got savedmodel" in said
    assert len(verdicts(folder)) == 1
    assert not list(folder.glob("results/ab/*.layers.csv"))


def test_verdicts_are_on_the_disk_before_layers_are_measured_and_ctrl_c_leaves_them(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    there: list[int] = []

    def blame(*sides: object, **more: object) -> None:
        there.append(len(verdicts(folder)))
        raise KeyboardInterrupt

    monkeypatch.setattr("convmark.cli.ab.blame", blame)
    Interpreter.speeds = {"2.21.0": 1.1}
    assert main(["ab", "2.20.0", "2.21.0", "--layers", *LENET5]) == 1
    assert there == [1] == [len(verdicts(folder))]
    assert "regressed" in capsys.readouterr().out


def test_a_verdict_is_on_the_disk_while_the_other_cases_are_compared(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In lock-step, whose sessions take a minute for each case, a kill loses the others alone."""
    there: list[int] = []
    note = Interpreter._note

    def noted(self: Interpreter, request: Mapping[str, Any]) -> None:
        path = folder / "results" / "ab" / "verdicts.csv"
        there.append(len(verdicts(folder)) if path.exists() else 0)
        note(self, request)

    monkeypatch.setattr(Interpreter, "_note", noted)
    monkeypatch.setattr(Interpreter, "broken_task", "infer")
    asked = ["--models", "lenet5", "--batch-sizes", "1"]
    assert main(["ab", "2.20.0", "2.21.0", *asked]) == 2
    assert there[0] == 0
    assert there[-1] == 1
    assert sorted(row["task"] for row in verdicts(folder)) == ["infer", "train"]


def test_without_layers_none_are_measured(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["ab", *LENET5])
    assert not list(folder.glob("results/ab/*.layers.csv"))
    assert "no layer" not in capsys.readouterr().out


def test_each_session_leaves_its_row_with_the_control_beside_it(folder: Path) -> None:
    main(["ab", *LENET5])
    with (folder / "results" / "ab" / "0001.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    (verdict,) = verdicts(folder)
    assert [row["session"] for row in rows] == [str(n) for n in range(1, len(rows) + 1)]
    assert len(rows) == int(verdict["sessions"]) >= 3
    assert {row["together"] for row in rows} == {"true"}
    drawn = (folder / "results" / "ab" / f"0001-{NAME}.svg").read_text()
    assert drawn.startswith("<svg")
    assert "control: A against A" in drawn
    assert f"{NAME}: {verdict['verdict']}, " in drawn
    for name in ("log_ratio", "log_ratio_cpu", "control_log_ratio", "control_log_ratio_cpu_se"):
        assert all(abs(float(row[name])) < 0.1 for row in rows)


def test_the_same_on_both_sides_is_unchanged_and_exits_0(folder: Path) -> None:
    assert main(["ab", ".", ".", *LENET5]) == 0
    assert verdicts(folder)[0]["verdict"] == "unchanged"


@pytest.mark.parametrize("factor", [1.1, 1.0, 0.8])
def test_the_function_says_of_each_case_what_the_command_says(folder: Path, factor: float) -> None:
    Interpreter.speeds = {"2.21.0": factor}
    Interpreter.seed = random.Random(0)
    status = main(["ab", "2.20.0", "2.21.0", *LENET5])
    Interpreter.seed = random.Random(0)
    found = convmark.compare("2.20.0", "2.21.0", models="lenet5", tasks="train")
    command, function = ({**row, "ab": "", "started": ""} for row in verdicts(folder))
    assert command == function
    assert [row.verdict for row in found.rows] == [command["verdict"]]
    assert found.slower == bool(status)


def test_the_function_shows_its_progress_unless_it_is_told_not_to(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for progress in (True, False):
        convmark.compare("2.20.0", "2.21.0", models="lenet5", tasks="train", progress=progress)
        assert (": session 1" in capsys.readouterr().err) == progress


def test_settings_are_a_side_and_those_of_the_environment_take_a_process_each(
    folder: Path,
) -> None:
    Interpreter.speeds = {"jit=on": 1.5, "flag=1": 0.5}
    assert main(["ab", "--set-b", "jit=on", *LENET5]) == 1
    kinds = [request["kind"] for request in Interpreter.requests]
    assert kinds[:5] == ["duet"] * 5  # a conviction is held against processes of their own
    Interpreter.requests.clear()
    assert main(["ab", "--set-b", "MY_FLAG=1", *LENET5]) == 0
    assert {request["kind"] for request in Interpreter.requests} == {"measure"}
    slower, faster = verdicts(folder)
    assert (slower["b"], slower["verdict"]) == (". jit=on", "regressed")
    assert (faster["b"], faster["verdict"]) == (". MY_FLAG=1", "improved")
    assert (slower["ab"], faster["ab"]) == ("0001", "0002")


def test_the_settings_of_both_sides_reach_a_duet(folder: Path) -> None:
    assert main(["ab", "--set-a", "jit=on", "--set-b", "precision=mixed_bfloat16", *LENET5]) == 0
    request = Interpreter.requests[0]
    assert request["case"]["jit"] == "on"
    settings = {name: side["settings"] for name, side in request["sides"].items()}
    assert settings == {
        "old": {},
        "new": {"jit": "off", "precision": "mixed_bfloat16"},
        "control": {},
    }
    assert "precision" in request["sides"]["new"]["asked"]


@pytest.mark.parametrize(
    ("a", "b", "copied"),
    [("keras", "litert", "litert"), ("litert", "keras", "litert"), ("savedmodel", "litert", "")],
)
def test_the_note_says_that_one_runtime_alone_copies_its_batch(
    a: str, b: str, copied: str, folder: Path
) -> None:
    sides = ["--set-a", f"runtime={a}", "--set-b", f"runtime={b}"]
    main(["ab", *LENET5, "--tasks", "infer", *sides])
    said = f"a step of {copied} takes its batch from host memory"
    assert all((said in row["note"]) == bool(copied) for row in verdicts(folder))


@pytest.mark.parametrize("more", [[], ["--set-b", "MY_FLAG=1"]])
def test_a_side_that_cannot_be_run_is_no_success(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    more: list[str],
) -> None:
    monkeypatch.setattr(Interpreter, "broken_task", "infer")
    cases = ["--models", "lenet5", "--tasks", "infer,train", "--batch-sizes", "8"]
    assert main(["ab", *cases, *more]) == 2
    rows = {row["task"]: row for row in verdicts(folder)}
    assert rows["train"]["verdict"] == "unchanged"
    assert rows["infer"]["note"] in ("B cannot be run: no gen", "A cannot be run: no gen")
    assert capsys.readouterr().err.splitlines()[-1].endswith(rows["infer"]["note"])


def test_a_spent_budget_is_said_with_what_it_saw(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ab", *LENET5, "--budget", "1e-6"]) == 0
    (row,) = verdicts(folder)
    assert (row["verdict"], row["sessions"]) == ("inconclusive", "0")
    assert row["note"] == "budget spent: no session was run: try a larger --budget"
    capsys.readouterr()
    assert main(["ab", *LENET5, "--budget", "soon"]) == 2
    assert "--budget: must be a number of seconds" in capsys.readouterr().err


def test_the_start_of_interpreters_is_neither_of_the_budget_nor_of_a_session(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Interpreter, "start_s", 100.0)
    asked = ["--models", "lenet5", "--batch-sizes", "8"]
    assert main(["ab", "2.20.0", "2.21.0", *asked, "--budget", "20"]) == 0
    assert [int(row["sessions"]) >= 3 for row in verdicts(folder)] == [True, True]


def test_the_last_line_names_the_budget_that_would_decide(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["ab", "2.20.0", "2.21.0", *LENET5]
    assert main([*asked, "--budget", "5"]) == 0
    told = re.search(r"1 of 1 case may have changed: --budget (\d+) would", capsys.readouterr().err)
    assert told is not None
    assert main([*asked, "--budget", told[1]]) == 0
    assert [row["verdict"] for row in verdicts(folder)] == ["inconclusive", "unchanged"]


def test_no_budget_is_named_where_time_would_not_decide_each_case() -> None:
    quiet = CaseResult(decision=decision("unchanged"), needs_s=0.0)
    first, second = (CaseResult(decision=decision("undecided"), needs_s=70.0) for _ in range(2))
    assert ab_files.enough_budget_s([first, quiet], 60.0) == 100.0
    assert ab_files.enough_budget_s([quiet], 60.0) is None
    second.closed, second.needs_s = "not judged: the card was slowed; compare again later", None
    assert ab_files.enough_budget_s([first, second], 60.0) is None
    quiet.some_steps = "most steps are unchanged, but all steps together take 9 % longer"
    assert ab_files.enough_budget_s([first, quiet], 60.0) is None
    notes = [
        "B keeps 1.00 CPUs busy between its steps",
        "budget spent: more time would most likely not decide",
        "budget spent: about 9 s more would decide",
    ]
    ends = ["the notes say why", "close other programs and compare again", "give a larger --budget"]
    rows: list[Any] = [SimpleNamespace(verdict="inconclusive", void=False, note=n) for n in notes]
    for count, end in enumerate(ends, 1):
        told = f"next: {count} of {count} case{'s' * (count > 1)} may have changed: {end}"
        assert ab_files.next_step(rows[:count], layers=False).startswith(told)
    alone = CaseResult(decision=decision("undecided", None, 1), live=[ONE_SESSION])
    verdict = ("inconclusive", "budget spent: one session tells no change: more")
    assert (alone.verdict("more"), alone.candidate().missing) == (verdict, 1)
    assert seconds_to_decide(alone.candidate(), 1) is None


@pytest.mark.parametrize(
    "asked",
    [
        ["ab", "2.20.0", "2.21.0"],
        ["bisect", "--good", "2.20.0", "--bad", "2.21.0", "--versions", "2.20.0,2.21.0"],
        ["run", "--env", "2.20.0"],
    ],
    ids=lambda asked: asked[0],
)
def test_no_environment_is_made_while_another_run_measures(
    asked: list[str],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for cache in (Cache, FakeCache):
        monkeypatch.setattr(cache, "get", None)
    monkeypatch.setattr("convmark.machine.lock.PASSING_S", 0.0)
    monkeypatch.setenv("CONVMARK_RUNTIME", str(folder / "runtime"))
    (folder / "runtime").mkdir(mode=0o755)
    with (folder / "runtime" / "4000000.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert main([*asked, *LENET5]) == 2
    assert "another benchmark run is active, process 4000000" in capsys.readouterr().err


def test_the_error_rate_is_shared_by_all_cases_and_each_has_its_verdict(folder: Path) -> None:
    assert main(["ab", "--models", "lenet5,mini_resnet", "--batch-sizes", "8"]) == 0
    found = verdicts(folder)
    assert len(found) == 4
    assert {row["verdict"] for row in found} <= {"unchanged", "inconclusive"}


T4S = tuple(
    Gpu(index=place, name="Tesla T4", memory_bytes=15 << 30, uuid=f"GPU-{place}")
    for place in range(2)
)
HOT = "the card was slowed (hardware_thermal)"


def test_other_commands_say_where_the_verdicts_of_a_comparison_are(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ab", "2.20.0", "2.21.0", *LENET5]) == 0
    printed = " ".join(capsys.readouterr().err.split())
    assert "sessions in results/ab/0001.csv, drawn in results/ab/0001-*.svg" in printed
    assert printed.endswith("convmark ab: B is slower in no case")
    there = "results: has no runs yet; `convmark run` makes one; the verdicts of convmark ab are in"
    commands = (["list"], ["report"], ["compare"], ["compare", "--across", "tensorflow"])
    for command in commands:
        assert main([*command]) == 2
        told = " ".join(capsys.readouterr().err.split())
        assert told == f"convmark {command[0]}: {there} results/ab/verdicts.csv"
    keep_run(folder / "results", suite("xeon", 1, ["lenet5"]))
    assert main(["list"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "convmark ab are not listed here: results/ab/verdicts.csv" in told


def test_the_report_has_the_verdicts_of_comparisons_and_says_what_the_newest_found(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep_run(folder / "results", suite("xeon", 1, ["lenet5"]))
    assert main(["ab", "2.20.0", "2.21.0", *LENET5]) == 0
    Interpreter.speeds = {"2.21.0": 1.1}
    assert main(["ab", "2.20.0", "2.21.0", *LENET5]) == 1
    earlier, newest = verdicts(folder)
    answers, *_, table = [
        one for one in build([folder / "results"]).tables if one.key in ("answers", "comparisons")
    ]
    found = {row["of"]: row for row in answers.records()}["comparison 0002"]
    assert found["found"] == "1 of 1 case slower in B"
    change, low, high = (100 * float(newest[name]) for name in ("change", "low", "high"))
    told = f"{NAME}: B against A {change:+.1f} % [{low:+.1f}, {high:+.1f}], B: 2.21.0, A: 2.20.0"
    assert found["detail"] == f"1 regressed, {told}"
    undecided = replace(comparisons_of([folder / "results"])[0], verdict="inconclusive")
    told = newest_comparison([replace(undecided, a=".", b=". jit=on")])
    assert told is not None
    assert told[1:] == (
        "none of 1 case decided",
        "1 inconclusive, B: this interpreter jit=on, A: this interpreter",
    )
    rows = table.records()
    assert [(row["comparison"], row["verdict"]) for row in rows] == [
        ("0002", "regressed"),
        ("0001", earlier["verdict"]),
    ]
    assert rows[0]["change"] == float(newest["change"])
    assert {row[0] for row in table.facets} == {"lenet5"}
    capsys.readouterr()
    assert main(["report"]) == 0
    assert "A/B comparisons" in capsys.readouterr().out


@pytest.fixture
def watched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str | None]]:
    """Two GPUs, on which the second session is slowed; the cards of each session by their UUID."""
    cards: list[list[str | None]] = []

    class Watch:
        def see(self, event: Mapping[str, Any]) -> None:
            """Nothing to count."""

        def columns(self, samples_per_step: int) -> dict[str, Any]:
            return {"not_judged": HOT if len(cards) == 2 else None}

    @contextlib.contextmanager
    def watching(those: Sequence[Card]) -> Iterator[Watch]:
        cards.append([card.uuid for card in those])
        yield Watch()

    answer = Interpreter.answer

    def with_gpus(self: Interpreter, request: Mapping[str, Any], *more: Any) -> Any:
        found = answer(self, request, *more)
        if request["kind"] == "inspect":
            found.events[0]["devices"] = ["cpu", "gpu:0", "gpu:1"]
        return found

    machine = replace(read_machine(), gpus=T4S)
    monkeypatch.setattr("convmark.cli.ab.read_machine", lambda: machine)
    monkeypatch.setattr("convmark.compare.live.live.watching", watching)
    monkeypatch.setattr(Interpreter, "answer", with_gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return cards


def test_a_session_on_a_slowed_card_is_kept_and_not_judged(
    folder: Path, watched: list[list[str | None]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ab", *LENET5, "--devices", "gpu:1"]) == 0
    with (folder / "results" / "ab" / "0001.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["session"] for row in rows] == [str(n) for n in range(1, len(rows) + 1)]
    assert [row["not_judged"] for row in rows] == ["", HOT, *[""] * (len(rows) - 2)]
    (verdict,) = verdicts(folder)
    assert int(verdict["sessions"]) == len(rows) - 1
    assert f"1 session left out: {HOT}" in verdict["note"]
    assert f"a session is left out: {HOT}" in capsys.readouterr().err
    assert watched == [["GPU-1"]] * len(rows)
    none = CaseResult(decision=decision("undecided", None, 0), left_out=[HOT, HOT])
    told = f"budget spent: no session counts ({HOT}): try a larger --budget; 2 sessions left out"
    assert ab_files.verdict_fields(none)["note"] == told


def test_a_side_is_watched_on_the_card_that_its_own_environment_shows_it(
    folder: Path, watched: list[list[str | None]]
) -> None:
    options = [*LENET5, "--devices", "gpu:0", "--set-b", "CUDA_VISIBLE_DEVICES=1"]
    assert main(["ab", *options]) == 0
    assert watched[0] == ["GPU-0", "GPU-1"]


def test_ctrl_c_keeps_the_sessions_so_far_and_exits_130(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Interpreter, "interrupt_session", 3)
    assert main(["ab", *LENET5]) == 130
    with (folder / "results" / "ab" / "0001.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 2
    printed = capsys.readouterr()
    assert "interrupted" in printed.err
    assert "0 of 1 case; sessions in results/ab/0001.csv" in printed.err


def test_ctrl_c_before_the_first_session_leaves_no_file_without_one(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Interpreter, "interrupt_session", 1)
    assert main(["ab", *LENET5]) == 130
    assert list((folder / "results" / "ab").iterdir()) == []
    assert "0 of 1 case; no session was kept" in capsys.readouterr().err


def test_ctrl_c_right_after_a_verdict_was_written_leaves_it_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, came = ab_files.append, []

    def interrupted(path: Path, rows: Sequence[Any]) -> None:
        append(path, rows)
        if path.name == "verdicts.csv" and not came:
            came.append(path)
            raise KeyboardInterrupt

    monkeypatch.setattr(ab_files, "append", interrupted)
    main(["ab", *LENET5])
    assert came
    assert [row["case"] for row in verdicts(folder)] == [NAME]


@pytest.mark.parametrize("sessions", [0, 3])
def test_a_killed_comparison_keeps_its_sessions_and_the_next_takes_another_number(
    sessions: int, folder: Path
) -> None:
    asked = ["ab", "--models", "lenet5", "--batch-sizes", "8"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads of others
        child = os.fork()
    if child == 0:
        note = Interpreter._note

        def killed(self: Interpreter, request: Mapping[str, Any]) -> None:
            if len(self.requests) == sessions:
                os.kill(os.getpid(), signal.SIGKILL)
            note(self, request)

        Interpreter._note = killed  # type: ignore[method-assign]
        try:
            main(asked)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    kept = (folder / "results" / "ab" / "0001.csv").read_bytes()
    assert len(kept.splitlines()) == (sessions + 1 if sessions else 0)
    assert main(asked) == 0
    assert (folder / "results" / "ab" / "0001.csv").read_bytes() == kept
    assert [row["ab"] for row in verdicts(folder)] == ["0002", "0002"]


def test_json_has_every_field(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["ab", *LENET5, "--format", "json"])
    (found,) = rows_of(capsys.readouterr().out, "ab")
    assert found["case"] == NAME
    assert found["a_parameters"] == found["b_parameters"] == 61_706
    assert found["low"] <= found["change"] <= found["high"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ab", "--format", "xml"], "--format: must be one of text, json, csv"),
        (["ab", "--target", "0"], "--target: must be a number of per cent above 0"),
        (["ab", "--target", "two"], "--target: must be a number of per cent above 0"),
        (["ab", ".", "no such thing =="], "B: must be . (this interpreter), git:REF"),
        (["ab", "--set-a", "speed=2"], "--set-a: unknown setting 'speed'"),
        (["ab", "--models", "lenet6"], "no such model"),
        (["ab", "--devices", "gpu:3"], "--devices: gpu:3 does not exist"),
        (["ab", "--set-b", "backend=caffe"], "backend must be one of tensorflow, jax, torch"),
        (["ab", "--set-b", "threads=x"], "threads must be 'default' or a whole number"),
        (["ab", "--set-b", "cpus=1,0"], "cpus must be a list such as 0-3,8, in order, or numaN"),
        (
            ["ab", "--threads", "1,2", "--set-a", "threads=1", "--set-b", "threads=2", *LENET5],
            "--set-a and --set-b: several cases become the same",
        ),
        (["bisect", "--good", "2.16.2", "--bad", "2.18.0"], "needs one case, the options name 16"),
        (["bisect", "--good", "git:a", "--bad", "2.1", *LENET5], "must both be releases"),
        (["bisect", "--good", "2.16.2", "--bad", "x=y", *LENET5], "--bad: must be a requirement"),
        (["bisect", "--good", "1", "--bad", "2", "--threshold", "-1", *LENET5], "--threshold"),
        (["env", "remove"], "NAME: must be the name of an environment, or --all"),
        (["compare", "--across", "tensorflw"], "did you mean tensorflow?"),
        (["compare", "--across", "tensorflow"], "has no runs yet"),
    ],
)
def test_what_is_wrong_is_said_on_one_line_with_exit_2(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"convmark {arguments[0]}: ")
    assert said in line
    assert not list(folder.glob("results/ab/*"))


def test_one_side_by_two_names_is_refused_and_twice_the_same_name_is_said_to_be_noise(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convmark.compare.live.ab.resolve_here", lambda repository, ref: "a" * 40)
    monkeypatch.setattr("convmark.compare.live.ab.refuse_ref", lambda ref, models: None)
    somewhere = Origin(repository=folder, folder=Path("models"), is_zoo=True)
    monkeypatch.setattr("convmark.compare.live.ab.origin_of", lambda case, sources: somewhere)
    for sides_of in (
        [".", sys.executable],
        ["git:main", "git:HEAD"],
        [".", ".", "--set-b", "jit=off"],
    ):
        assert main(["ab", *sides_of, *LENET5]) == 2
        assert "are identical, so there is nothing to compare" in capsys.readouterr().err
    assert main(["ab", ".", ".", "--target", "0.1", *LENET5]) == 0
    assert "A and B are identical: any difference is noise" in capsys.readouterr().err
    assert main(["ab", ".", ".", "--set-b", "MY_FLAG=1", *LENET5]) == 0
    assert "are the same" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "sides",
    [["git:nope", "."], [".", "git:nope"], ["git:nope", "git:nope"], ["tensorflow", "git:nope"]],
    ids=" ".join,
)
def test_a_commit_that_is_not_there_is_found_before_anything_starts(
    sides: list[str],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    somewhere = Origin(repository=folder, folder=Path("models"), is_zoo=True)
    monkeypatch.setattr("convmark.compare.live.ab.origin_of", lambda case, sources: somewhere)
    started: list[object] = []
    monkeypatch.setattr(Interpreter, "__enter__", lambda self: started.append(self) or self)
    monkeypatch.setattr(FakeCache, "get", lambda self, *asked, **more: started.append(asked))
    assert main(["ab", *sides, *LENET5]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"convmark ab: git:nope: {folder}: git knows no commit 'nope'; name ")
    assert not started
    assert not list(folder.glob("results/ab/*"))


def test_the_commit_that_a_branch_named_is_kept_for_the_branch_moves(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "models").mkdir()
    (folder / "models" / "registry.py").write_text("")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "models")
    git(folder, "commit", "-qm", "one")
    somewhere = Origin(repository=folder, folder=Path("models"), is_zoo=True)
    monkeypatch.setattr("convmark.compare.live.ab.origin_of", lambda case, sources: somewhere)
    monkeypatch.setattr("convmark.compare.live.ab.refuse_ref", lambda ref, models: None)
    assert main(["ab", "git:main", ".", "--target", "0.1", *LENET5]) == 0
    (row,) = verdicts(folder)
    assert (row["a"], row["a_commit"]) == ("git:main", git(folder, "rev-parse", "HEAD").strip())
    assert (row["b"], row["b_commit"]) == (".", "")


def test_what_ran_the_steps_is_kept_where_it_is_not_tensorflow_in_an_earlier_file_too(
    tmp_path: Path,
) -> None:
    shared = {"ab": "0001", "started": "2026-01-01", "a": "jax==0.8", "b": "jax==0.9",
              "model": "lenet5", "task": "train", "device": "cpu", "batch_size": 32,
              "verdict": "unchanged", "sessions": 3, "void": False}  # fmt: skip
    path = tmp_path / "verdicts.csv"
    ab_files.append(path, [VerdictRow(case="of-tensorflow", **shared)])
    header, row = path.read_text().splitlines()
    places = [place for place, name in enumerate(header.split(",")) if "_framework" not in name]
    earlier = [[line.split(",")[place] for place in places] for line in (header, row)]
    path.write_text("".join(f"{','.join(cells)}\n" for cells in earlier))
    jax = {"a_framework": "JAX 0.8", "b_framework": "JAX 0.9"}
    ab_files.append(path, [VerdictRow(case="of-jax", **shared, **jax)])
    old, new = csv.DictReader(path.read_text().splitlines())
    assert (old["case"], old["a_framework"]) == ("of-tensorflow", "")
    assert (new["case"], new["b_framework"]) == ("of-jax", "JAX 0.9")


def test_layers_of_a_comparison_removed_by_hand_are_of_no_later_one(tmp_path: Path) -> None:
    sessions = ab_files.create(tmp_path)
    CHANGES_TABLE.path(sessions).touch()
    sessions.unlink()
    assert ab_files.create(tmp_path) == sessions
    assert not CHANGES_TABLE.path(sessions).exists()
