"""`convmark ab` and `convmark bisect` with stand-ins for the workers."""

from __future__ import annotations

import contextlib
import csv
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_worker
import pytest
from histories import MACHINE, keep, process
from json_tables import rows_of, tables_of
from snapshots import check, plain

from convmark.cli import bisect as bisect_command
from convmark.cli import main
from convmark.compare.live import ab, ab_files
from convmark.compare.live.anchor import Origin
from convmark.core.errors import InstallError, OptionError, WorkerError
from convmark.interpreter import Answer
from convmark.interpreter.environments.cache import Cache, Made
from convmark.machine.gpu.devices import Card, Gpu
from convmark.machine.hardware import read_machine
from convmark.results.store import Store
from convmark.worker.turns import take_rounds

LENET5 = ["--models", "lenet5", "--tasks", "train"]
NAME = "lenet5-train-cpu-b32-float32"


class Worker:
    """Takes turns whose steps last so long, with noise of 1 % between sessions and steps."""

    def __init__(self, step_s: float, seed: random.Random) -> None:
        self._random = seed
        self._step_s = step_s * (1 + seed.gauss(0, 0.01))
        self._steps = 0

    def command(self, steps: int, dropped: int = 0) -> None:
        self._steps = steps

    def expect(self, name: str) -> dict[str, Any]:
        if name == "sizes":
            return SIZES
        if name != "turn":
            return {"event": name}
        times_s = [self._step_s * (1 + self._random.gauss(0, 0.01)) for _ in range(self._steps)]
        return {"wall_s": times_s, "cpu_s": times_s}


SIZES = {"parameters": 61_706, "trainable_parameters": 61_706, "model_bytes": 246_824}


class Interpreter(fake_worker.FakeInterpreter):
    """An interpreter as fast as its path and its settings say, in one process or in several."""

    speeds: dict[str, float] = {}  # noqa: RUF012 - set by each test, for all interpreters
    seed = random.Random(0)
    requests: list[dict[str, Any]] = []  # noqa: RUF012 - as above
    interrupt_session: int | None = None
    broken_task = ""
    now_s = 0.0
    """The clock: a process takes 0.7 s."""

    def __init__(self, python: str = "python", **settings: Any) -> None:
        super().__init__(python, **settings)
        self.python = python
        self.environ = settings.get("environ", {})

    def answer(
        self,
        request: Mapping[str, Any],
        on_event: Callable[[dict[str, Any]], None] = lambda event: None,
    ) -> Answer:
        if request["kind"] != "duet":
            return super().answer(request, on_event)
        self._note(request)
        if request["case"]["task"] == self.broken_task:
            failed = {"event": "cannot_run", "side": "new", "reason": "no gen", "status": "error"}
            return Answer(status="ok", message="", events=[failed], ready_s=0.01)
        events: list[dict[str, Any]] = []
        turns: dict[str, Any] = {"event": "turns"}
        for side, fields in request["sides"].items():
            events.append({"event": "built", "side": side, **SIZES})
            worker = Worker(self._step_s({**request["case"], **fields["settings"]}), self.seed)
            worker.command(steps=20)
            turns |= {f"{side}_{clock}": times for clock, times in worker.expect("turn").items()}
        on_event(turns)
        return Answer(status="ok", message="", events=[*events, turns], ready_s=0.01)

    @contextlib.contextmanager
    def live(self, request: Mapping[str, Any]) -> Iterator[Worker]:
        self._note(request)
        if request["case"]["task"] == self.broken_task:
            raise WorkerError("no gen")
        yield Worker(self._step_s(request["case"]), self.seed)

    def _note(self, request: Mapping[str, Any]) -> None:
        self.requests.append(dict(request))
        type(self).now_s += 0.7
        if len(self.requests) == self.interrupt_session:
            raise KeyboardInterrupt

    def _step_s(self, case: Mapping[str, Any]) -> float:
        factor = self.speeds.get(self.python, 1.0)
        factor *= self.speeds.get(f"jit={case['jit']}", 1.0)
        return 0.010 * factor * self.speeds.get(f"flag={self.environ.get('MY_FLAG')}", 1.0)


class FakeCache(Cache):
    """Has every environment but the broken ones."""

    def __init__(self) -> None:
        """No folder is needed."""

    def get(self, wanted: Any, say: Any = None) -> Made:
        return Made(
            name=wanted.name,
            python=str(wanted).removeprefix("tensorflow=="),
            version="3.13.0",
            requirements=wanted.requirements,
            packages=(),
            made="",
        )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("convmark.interpreter.Interpreter", Interpreter)
    monkeypatch.setattr(Interpreter, "speeds", {})
    monkeypatch.setattr(Interpreter, "requests", [])
    monkeypatch.setattr(Interpreter, "seed", random.Random(1))
    clock = SimpleNamespace(monotonic=lambda: Interpreter.now_s)
    monkeypatch.setattr("convmark.cli.ab.time", clock)
    monkeypatch.setattr(  # the steps take no time
        "convmark.compare.live.session.take_rounds",
        lambda workers, steps, seconds, order, **more: take_rounds(workers, steps, 0.0, order),
    )
    monkeypatch.setattr(ab, "Cache", FakeCache)
    monkeypatch.setattr(bisect_command, "Cache", FakeCache)
    return tmp_path


def verdicts(folder: Path) -> list[dict[str, str]]:
    with (folder / "results" / "ab" / "verdicts.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


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


def test_the_layers_that_moved_are_named_and_kept(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer_factor = property(lambda worker: {"2.21.0": 1.5}.get(worker.python, 1.0))
    monkeypatch.setattr(Interpreter, "layer_factor", layer_factor)
    Interpreter.speeds = {"2.21.0": 1.1}
    assert main(["ab", "2.20.0", "2.21.0", "--layers", *LENET5]) == 1
    named = [line for line in capsys.readouterr().out.splitlines() if "of the change" in line]
    assert [line.split(" [")[0] for line in named] == [f"{NAME}: conv: +50 %"]
    kept = (folder / "results" / "ab" / "0001.layers.csv").read_text().splitlines()
    assert len(kept) == 5  # its header, three layers and the rest


def test_layers_that_cannot_be_measured_are_one_line_and_the_comparison_goes_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--models", "lenet5", "--tasks", "infer", "--batch-sizes", "1"]
    assert main(["ab", "--layers", "--set-b", "runtime=savedmodel", *asked]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "no layers of B: --runtime: layers are measured in keras alone, got savedmodel" in said
    assert len(verdicts(folder)) == 1
    assert not list(folder.glob("results/ab/*.layers.csv"))


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
    assert f" {verdict['verdict']} by " in drawn
    for name in ("log_ratio", "log_ratio_cpu", "control_log_ratio", "control_log_ratio_cpu_se"):
        assert all(abs(float(row[name])) < 0.1 for row in rows)


def test_the_same_on_both_sides_is_unchanged_and_exits_0(folder: Path) -> None:
    assert main(["ab", ".", ".", *LENET5]) == 0
    assert verdicts(folder)[0]["verdict"] == "unchanged"


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
    assert row["note"].startswith("budget spent: about ")
    assert row["note"].endswith("try a larger --budget")
    capsys.readouterr()
    assert main(["ab", *LENET5, "--budget", "soon"]) == 2
    assert "--budget: must be a number of seconds" in capsys.readouterr().err


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
            "--set-a and --set-b: make several of the cases the same",
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


# -- bisect --------------------------------------------------------------------------------------

VERSIONS = ["2.16.2", "2.17.0", "2.17.1", "2.18.0", "2.19.0", "2.20.0", "2.21.0"]
BISECT = ["bisect", *LENET5, "--versions", ",".join(VERSIONS)]


@pytest.mark.parametrize("first_bad", VERSIONS[1:])
def test_the_release_that_brought_a_slowdown_in_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], first_bad: str
) -> None:
    place = VERSIONS.index(first_bad)
    Interpreter.speeds = dict.fromkeys(VERSIONS[place:], 1.15)
    assert main([*BISECT, "--good", "2.16.2", "--bad", "2.21.0"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{first_bad} brought it in, {VERSIONS[place - 1]} was the last")
    assert "results/ab/0001.csv" in printed.err


def test_a_bisection_is_two_tables_for_other_programs(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Interpreter.speeds = dict.fromkeys(VERSIONS[3:], 1.15)
    assert main([*BISECT, "--good", "2.16.2", "--bad", "2.21.0", "--format", "json"]) == 0
    tables = tables_of(capsys.readouterr().out, "bisect")
    (answer,) = tables["answer"]
    assert (answer["verdict"], answer["last_good"], answer["first_bad"]) == (
        *("found", "2.17.1", "2.18.0"),
    )
    assert answer["low"] <= answer["change"] <= answer["high"]
    first = tables["steps"][0]
    assert (first["earlier"], first["later"], first["void"]) == ("2.16.2", "2.21.0", False)
    assert first["change"] == pytest.approx(0.15, abs=0.05)


def test_no_change_between_the_ends_is_said_and_exits_1(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*BISECT, "--good", "2.16.2", "--bad", "2.21.0"]) == 1
    assert capsys.readouterr().out.startswith("no change larger than 5 % between 2.16.2 and 2.21.0")


@pytest.mark.parametrize(
    ("threads", "said"),
    [("1", "an idle machine, or with a larger"), ("2", "an idle machine, with --threads 1, or")],
)
def test_a_change_near_the_threshold_is_inconclusive_with_what_to_try(
    folder: Path, capsys: pytest.CaptureFixture[str], threads: str, said: str
) -> None:
    Interpreter.speeds = dict.fromkeys(VERSIONS[3:], 1.04)
    ends = ["--good", "2.16.2", "--bad", "2.21.0"]
    assert main([*BISECT, *ends, "--threads", threads]) == 1
    answer = capsys.readouterr().out
    assert answer.startswith("inconclusive: between 2.16.2 and 2.21.0, among 2.17.0, ")
    assert said in answer


def test_an_end_that_is_no_release_names_those_that_are(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*BISECT, "--good", "2.15.0", "--bad", "2.21.0"]) == 2
    assert "--good: no release '2.15.0'" in capsys.readouterr().err


def test_one_side_by_two_names_is_refused_and_twice_the_same_name_is_said_to_be_noise(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convmark.compare.live.ab.resolve", lambda repository, ref: "a" * 40)
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


def test_a_bisection_between_two_names_of_one_commit_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    somewhere = Origin(repository=folder, folder=Path("models"), is_zoo=True)
    monkeypatch.setattr(bisect_command, "origin_of", lambda case, sources: somewhere)
    monkeypatch.setattr(bisect_command, "resolve", lambda repository, ref: "a" * 40)
    assert main(["bisect", "--good", "git:main", "--bad", "git:HEAD", *LENET5]) == 2
    assert "must be another commit than --good, both are aaaaaaaaaaaa" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_bisection_takes_the_commits_of_the_model_s_own_repository(folder: Path) -> None:
    """Of the zoo those of its folder; a model of one's own may read any file."""

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=n", "-c", "user.email=e@example.invalid")
        done = subprocess.run(
            ["git", *identity, *arguments], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init", "-q", "-b", "main")
    made = []
    for name in ("src/nets.py", "net.json", "src/nets.py"):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(str(len(made)))
        git("add", name)
        git("commit", "-qm", name)
        made.append(git("rev-parse", "HEAD")[:12])
    own = Origin(repository=folder, folder=Path("src"), is_zoo=False)
    assert bisect_command._commits(own, made[0], "main") == made
    assert bisect_command._commits(replace(own, is_zoo=True), made[0], "main") == made[::2]
    with pytest.raises(OptionError, match="needs the model in a git repository"):
        bisect_command._commits(None, "main~1", "main")


def test_what_ran_the_steps_is_kept_where_it_is_not_tensorflow_in_an_earlier_file_too(
    tmp_path: Path,
) -> None:
    shared = {"ab": "0001", "started": "2026-01-01", "a": "jax==0.8", "b": "jax==0.9",
              "model": "lenet5", "task": "train", "device": "cpu", "batch_size": 32,
              "verdict": "unchanged", "sessions": 3, "void": False}  # fmt: skip
    path = tmp_path / "verdicts.csv"
    ab_files.append(path, [ab_files.VerdictRow(case="of-tensorflow", **shared)])
    header, row = path.read_text().splitlines()
    places = [place for place, name in enumerate(header.split(",")) if "_framework" not in name]
    earlier = [[line.split(",")[place] for place in places] for line in (header, row)]
    path.write_text("".join(f"{','.join(cells)}\n" for cells in earlier))
    jax = {"a_framework": "JAX 0.8", "b_framework": "JAX 0.9"}
    ab_files.append(path, [ab_files.VerdictRow(case="of-jax", **shared, **jax)])
    old, new = csv.DictReader(path.read_text().splitlines())
    assert (old["case"], old["a_framework"]) == ("of-tensorflow", "")
    assert (new["case"], new["b_framework"]) == ("of-jax", "JAX 0.9")


# `convmark compare --across ... --live`


def measured_in(folder: Path, *versions: str, **changes: Any) -> None:
    """Keep a run of two cases for each version of TensorFlow."""
    for number, version in enumerate(versions, 1):
        models = enumerate(("lenet5", "mini_resnet"), 1)
        rows = [
            process(run=f"{number:04d}", model=model, order=order, tensorflow=version, **changes)
            for order, model in models
        ]
        keep(Store(folder / "results"), rows)


def test_versions_are_compared_live_each_with_the_one_before(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured_in(folder, "2.19.0", "2.20.0", "2.21.0")
    Interpreter.speeds = {"2.21.0": 1.1}
    assert main(["compare", "--across", "tensorflow", "--live", "--format", "json"]) == 1
    found = [(row["a"], row["b"], row["model"], row["verdict"]) for row in json_of(capsys)]
    assert found == [
        (f"tensorflow=={a}", f"tensorflow=={b}", model, verdict)
        for a, b, verdict in (
            ("2.19.0", "2.20.0", "unchanged"),
            ("2.20.0", "2.21.0", "regressed"),
        )
        for model in ("lenet5", "mini_resnet")
    ]
    assert {request["kind"] for request in Interpreter.requests} == {"measure"}  # in lock-step
    assert [path.stem for path in sorted(folder.glob("results/ab/0*.csv"))] == ["0001", "0002"]


def test_what_is_compared_live_is_the_table_s_case_whatever_pyproject_sets(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured_in(folder, "2.20.0", "2.21.0")
    settings = {"precisions": "mixed_float16", "jit": "on", "threads": 1, "optimizer": "adam"}
    lines = (f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
    (folder / "pyproject.toml").write_text("[tool.convmark]\n" + "".join(lines))
    assert main(["compare", "--across", "tensorflow", "--live"]) == 0
    names = {f"{model}-train-cpu-b32-float32" for model in ("lenet5", "mini_resnet")}
    assert {row["case"] for row in verdicts(folder)} == names
    assert "Not compared" not in capsys.readouterr().out


def json_of(capsys: pytest.CaptureFixture[str]) -> Any:
    return rows_of(capsys.readouterr().out, "compare")


def test_backends_are_compared_live_each_in_a_process_of_its_own(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    backends: list[str] = []
    made = Interpreter.__init__

    def noting(self: Interpreter, python: str = "python", **settings: Any) -> None:
        backends.append(settings["backend"])
        made(self, python, **settings)

    monkeypatch.setattr(Interpreter, "__init__", noting)
    store = Store(folder / "results")
    keep(store, [process(run="0001")])
    keep(store, [process(run="0002", backend="jax")])
    assert main(["compare", "--across", "backend"]) == 0
    command = "convmark ab . . --set-a backend=tensorflow --set-b backend=jax --models lenet5"
    assert command in capsys.readouterr().out
    assert main(["compare", "--across", "backend", "--live", "--format", "json"]) == 0
    (row,) = json_of(capsys)
    assert (row["a"], row["b"]) == (". backend=tensorflow", ". backend=jax")
    assert set(backends) == {"tensorflow", "jax"}
    assert {request["kind"] for request in Interpreter.requests} == {"measure"}
    assert [one["case"]["backend"] for one in Interpreter.requests[:3]].count("jax") == 1


def test_a_version_that_cannot_be_had_is_said_and_the_others_are_compared(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured_in(folder, "2.19.0", "2.20.0", "2.21.0")
    get = FakeCache.get

    def without_the_oldest(self: FakeCache, wanted: Any, say: Any = None) -> Made:
        if "2.19.0" in str(wanted):
            raise InstallError("no such version")
        return get(self, wanted, say)

    monkeypatch.setattr(FakeCache, "get", without_the_oldest)
    assert main(["compare", "--across", "tensorflow", "--live"]) == 2
    printed = capsys.readouterr()
    said = "convmark compare: tensorflow==2.19.0 -> tensorflow==2.20.0: no such version"
    assert said in printed.err.splitlines()
    assert {row["b"] for row in verdicts(folder)} == {"tensorflow==2.21.0"}
    assert "tensorflow==2.20.0" in printed.out
    left = (f"{model}-train-cpu-b32-float32 at 2.20.0" for model in ("lenet5", "mini_resnet"))
    assert printed.out.endswith(f"\nNot compared: {', '.join(left)}.\n")


def test_a_live_comparison_of_versions_ends_by_ctrl_c(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured_in(folder, "2.19.0", "2.20.0", "2.21.0")
    monkeypatch.setattr(Interpreter, "interrupt_session", 3)
    assert main(["compare", "--across", "tensorflow", "--live"]) == 130
    assert len(list(folder.glob("results/ab/0*.csv"))) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--across", "machine", "--live"],
            f"--live: needs two values of machine, the runs have one, {MACHINE}; measure another",
        ),
        (["--live"], "--live: must be given with --across, whose values it compares"),
        (["--across=keras", "--budget=9"], "--budget: must be given with --live, which it limits"),
        (["--target=1"], "--target: must be given with --live, which it limits"),
        (
            ["--across", "tensorflow", "--live", "--budget", "nan"],
            "--budget: must be a number of seconds above 0",
        ),
        (
            ["--across", "tensorflow", "--live", "--format", "github"],
            "--format: must be one of text, json, csv, parquet, markdown, got 'github'",
        ),
    ],
)
def test_what_cannot_be_compared_live_is_refused_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    measured_in(folder, "2.19.0", "2.20.0")
    assert main(["compare", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert Interpreter.requests == []


def test_layers_of_a_comparison_removed_by_hand_are_of_no_later_one(tmp_path: Path) -> None:
    sessions = ab_files.create(tmp_path)
    ab_files.changes_path(sessions).touch()
    sessions.unlink()
    assert ab_files.create(tmp_path) == sessions
    assert not ab_files.changes_path(sessions).exists()
