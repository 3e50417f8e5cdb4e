"""One orchestration: whoever measures through a `Session`, its rows have the same columns full."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import fake_worker
import pytest
from fake_cluster import FakeCluster, about, here
from test_run import MACHINE

from convmark.cli import main
from convmark.core.case import Case
from convmark.core.errors import OptionError
from convmark.core.options import Options, read
from convmark.interpreter import Answer, Interpreter
from convmark.results.reading import read_run
from convmark.results.record import COLUMNS, Record
from convmark.session.session import Session

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))  # scripts, not a package

from gpu_check import DeviceCheck, check
from gpu_check import main as gpu_check

__all__ = ["here"]  # a fixture

ONE_CASE = ("--models", "lenet5", "--batch-sizes", "32", "--processes", "1")
SUITE = """
import pytest
from convmark import Suite

TRAINING = Suite(models=("lenet5",), tasks=("train",), batch_sizes=(32,))

@pytest.mark.convmark(TRAINING)
def test_training(measured, benchmark):
    measured.replay(benchmark)
"""


def test_stand_ins_have_all_that_others_see_of_an_interpreter() -> None:
    with Interpreter() as interpreter:
        seen = {name for name in dir(interpreter) if not name.startswith("_")}
    assert seen <= set(dir(fake_worker.StandIn))


class Worker(fake_worker.FakeInterpreter):
    """Tells the code that it ran, and has instruments that can be proved."""

    def answer(
        self,
        request: Mapping[str, Any],
        on_event: Callable[[dict[str, Any]], None] = lambda event: None,
    ) -> Answer:
        if request["kind"] == "probe":
            times = dict.fromkeys(("synchronised_s", "unsynchronised_s", "window_s"), 0.01)
            probe = {"event": "allocation", "asked_bytes": 1, "held_bytes": 1}
            events = [{"event": "synchronised", **times}, probe]
            return Answer(status="ok", message="", events=events, ready_s=0.01)
        if request["kind"] == "ceiling":
            return Answer(status="error", message="not looked for", ready_s=0.01)
        answer = super().answer(request, on_event)
        folder = os.getcwd()
        code = {"event": "code", "folder": folder, "sys_path": [folder], "files": []}
        events = [*answer.events, {**code, "packages": {}, "environ": {}}]
        return dataclasses.replace(answer, events=events)


def by_run() -> None:
    assert main(["run", *ONE_CASE, "--tasks", "train"]) == 0


def by_fleet() -> None:
    assert main(["run", *ONE_CASE, "--tasks", "train", "--ray", "head:6379"]) == 0


ON_THE_CPU = DeviceCheck(
    device="cpu",
    backend="tensorflow",
    models=("lenet5",),
    precisions=("float32",),
    ceiling_precisions=(),
    ceiling_sizes=1,
    batch_size=32,
    known_bytes=1,
    limit_s=60.0,
)


def by_check() -> None:
    assert check(ON_THE_CPU, read({"processes": "1"}))


def test_whoever_measures_the_same_columns_are_full(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, here: None
) -> None:
    monkeypatch.setattr("convmark.interpreter.Interpreter", Worker)
    monkeypatch.setattr("convmark.machine.hardware.load_nvml", lambda: None)
    cluster = FakeCluster(abouts={"x": about("x")})
    monkeypatch.setattr("fake_cluster._Here.about", about("x"), raising=False)
    monkeypatch.setattr("convmark.cli.fleet._connected", lambda address: cluster)
    pytester.makepyfile(test_bench=SUITE)

    def by_pytest() -> None:
        options = [
            f"--convmark-{word.removeprefix('--')}" if word[0] == "-" else word for word in ONE_CASE
        ]
        pytester.runpytest_inprocess(*options).assert_outcomes(passed=1)

    full = {}
    for measure in (by_run, by_pytest, by_fleet, by_check):
        before = set(runs())
        measure()
        (path,) = set(runs()) - before
        full[measure.__name__] = columns(next(row for row in read_run(path) if row.task == "train"))
    assert {"code", "plan", "commit", "node", "machine"} - full["by_run"] <= {"commit"}
    assert full["by_pytest"] == full["by_fleet"] == full["by_check"] == full["by_run"]


def runs() -> list[Path]:
    return [path for path in Path("results").glob("*/*.csv") if path.stem.isdecimal()]


def columns(row: Record) -> set[str]:
    return {column.name for column in COLUMNS if getattr(row, column.name) is not None}


def test_a_check_that_is_interrupted_keeps_its_rows_and_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(Worker):
        interrupt_after = 1

    monkeypatch.setattr("convmark.interpreter.Interpreter", Interrupted)
    monkeypatch.setattr("convmark.machine.hardware.load_nvml", lambda: None)
    monkeypatch.chdir(tmp_path)
    assert gpu_check(["--device", "cpu", "--quick"]) == 130
    (path,) = runs()
    assert len(read_run(path)) == 1
    printed = capsys.readouterr()
    assert f"interrupted; 1 row in {path}" in printed.out
    assert printed.err == "gpu_check: interrupted\n"


def test_a_session_takes_no_case_that_the_machine_cannot_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convmark.interpreter.Interpreter", Worker)
    with Session(Options(results=tmp_path), MACHINE, print) as session:
        session.found = {"tensorflow": {"devices": ["cpu", "gpu:0"]}}
        two = Case(model="lenet5", task="train", device="gpu:0", replicas=2)
        with pytest.raises(OptionError, match="--replicas: 2 need 2 GPUs here"):
            session.take([two])
        learning = Case(model="lenet5", task="accuracy", batch_size=256)
        session.options = Options(results=tmp_path, mnist=Path("letters.npz"))
        with pytest.raises(OptionError, match="expected labels"):
            session.take([learning])
        assert session.cases == []
        assert session.kept == "no row was measured"
