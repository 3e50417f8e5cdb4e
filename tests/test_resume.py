"""A run that was interrupted goes on in its own file, or is refused with both values."""

from __future__ import annotations

import dataclasses
import subprocess
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import fake_worker
import pytest
from rows import row

import convmark.machine.hardware
from convmark.cli import main
from convmark.core.case import Case
from convmark.core.errors import OptionError, StoreError
from convmark.core.files import open_kept
from convmark.core.options import read
from convmark.interpreter import Answer
from convmark.results.reading import read_run
from convmark.results.run_file import RunFile
from convmark.results.store import Store, read_step_times
from convmark.session.facts import plan
from convmark.session.resume import check, is_result, missing, open_interrupted, plan_hash

OPTIONS = ("--models", "lenet5,conv_layer,mini_resnet", "--batch-sizes", "4,8", "--processes", "2")
"""Of these conv_layer is a layer's suite's too; each size is its own case."""

INTERPRETER_ENDED = "the worker's interpreter ended (SIGKILL)"


class Worker(fake_worker.FakeInterpreter):
    """Keeps the cases that it was asked to measure, and may give other answers."""

    asked: ClassVar[list[str]]
    instead: ClassVar[Callable[[int], Answer | None]]
    """Gives the answer to the request of that number, None for the usual one."""

    def answer(self, request: Mapping[str, Any], on_event: Any = lambda event: None) -> Answer:
        if request["kind"] != "measure":
            return super().answer(request, on_event)
        other = type(self).instead(self.answered + 1)
        if other is not None:
            self.answered += 1
            return other
        answer = super().answer(request, on_event)
        self.asked.append(Case(**request["case"]).name)
        return answer


def _as_usual(number: int) -> Answer | None:
    return None


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> type[Worker]:
    class Own(Worker):
        asked: ClassVar[list[str]] = []
        instead = staticmethod(_as_usual)

    monkeypatch.setattr("convmark.interpreter.Interpreter", Own)
    monkeypatch.setattr("convmark.machine.hardware.load_nvml", lambda: None)
    return Own


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worker: type[Worker]) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def interrupted(worker: type[Worker], folder: Path, *options: str, after: int = 5) -> Path:
    """Return the file of a run that Ctrl-C has ended after so many rows."""
    worker.interrupt_after = after
    assert main(["run", *(options or OPTIONS)]) == 130
    worker.interrupt_after = None
    worker.asked.clear()
    path = max(folder.glob("results/*/*.csv"))
    assert len(read_run(path)) == after
    return path


def refused(path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """Return the one line that refuses to go on; the file must be as it was."""
    before = path.read_bytes()
    capsys.readouterr()
    assert main(["run", *(options or OPTIONS), "--resume"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"convmark run: --resume: {path.relative_to(Path.cwd())}: ")
    assert path.read_bytes() == before
    return line


# Going on


def test_a_run_goes_on_in_its_own_file_and_measures_what_is_missing_alone(
    folder: Path, worker: type[Worker], capsys: pytest.CaptureFixture[str]
) -> None:
    path = interrupted(worker, folder)
    first = path.read_bytes()
    assert main(["run", *OPTIONS, "--resume"]) == 0
    assert list(folder.glob("results/*/*.csv")) == [path]
    assert path.read_bytes().startswith(first)
    rows = read_run(path)
    whole = plan(list(dict.fromkeys(row.case for row in rows)), 2, seed=0)
    assert len(rows) == len(whole) > 5
    assert [row.order for row in rows] == list(range(1, len(rows) + 1))
    assert len({(row.case, row.process) for row in rows}) == len(rows)
    assert worker.asked == [row.case.name for row in rows[5:]]
    assert {(row.run, row.plan) for row in rows} == {("0001", rows[0].plan)}
    printed = capsys.readouterr()
    assert f"resuming {path.relative_to(folder)}: 5 of {len(rows)} processes measured" in (
        printed.err
    )
    assert f"{len(rows)} rows in {path.relative_to(folder)}" in printed.out
    assert f"[ 6/{len(rows)}]" in printed.err


def test_a_run_that_goes_on_has_the_rows_and_the_order_of_one_that_was_never_interrupted(
    folder: Path, worker: type[Worker]
) -> None:
    interrupted(worker, folder, after=7)
    assert main(["run", *OPTIONS, "--resume"]) == 0
    assert main(["run", *OPTIONS]) == 0
    places = [
        [(row.case, row.process, row.order) for row in read_run(path)]
        for path in sorted(folder.glob("results/*/*.csv"))
    ]
    assert len(places) == 2
    assert places[0] == places[1]


def test_the_raw_step_times_of_all_rows_are_there_afterwards(
    folder: Path, worker: type[Worker]
) -> None:
    path = interrupted(worker, folder)
    assert main(["run", *OPTIONS, "--resume"]) == 0
    times_s = read_step_times(path, [row.order for row in read_run(path)])
    assert times_s is not None
    assert times_s.size == 100 * len(read_run(path))


def test_a_run_may_be_interrupted_and_go_on_again_and_again(
    folder: Path, worker: type[Worker]
) -> None:
    path = interrupted(worker, folder, after=1)
    for more in (1, 2, 3):
        worker.interrupt_after = more
        assert main(["run", *OPTIONS, "--resume"]) == 130
    assert len(read_run(path)) == 7
    worker.interrupt_after = None
    assert main(["run", *OPTIONS, "--resume"]) == 0
    rows = read_run(path)
    assert [row.order for row in rows] == list(range(1, len(rows) + 1))


def test_a_run_interrupted_before_any_row_when_going_on_keeps_its_file(
    folder: Path, worker: type[Worker]
) -> None:
    path = interrupted(worker, folder, after=2)
    worker.interrupt_after = 0
    assert main(["run", *OPTIONS, "--resume"]) == 130
    assert len(read_run(path)) == 2


def test_nothing_is_started_where_nothing_is_missing(
    folder: Path,
    worker: type[Worker],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert main(["run", *OPTIONS]) == 0
    (path,) = folder.glob("results/*/*.csv")
    before = path.read_bytes()
    worker.asked.clear()
    monkeypatch.setattr(worker, "answer", lambda *asked: pytest.fail("a framework is started"))
    line = refused(path, capsys, *OPTIONS, "--time-budget", "0.5")
    assert "time budget s was 0.6, is 0.5" in line
    capsys.readouterr()
    assert main(["run", *OPTIONS, "--resume"]) == 0
    assert path.read_bytes() == before
    printed = capsys.readouterr()
    assert "lenet5-train-cpu-b4-float32" in printed.out
    assert " processes measured; none is left" in printed.err
    assert "load" not in printed.err


def test_other_options_are_refused_before_a_framework_is_started(
    folder: Path,
    worker: type[Worker],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = interrupted(worker, folder)
    monkeypatch.setattr(worker, "answer", lambda *asked: pytest.fail("a framework is started"))
    line = refused(path, capsys, *OPTIONS, "--processes", "3")
    assert "processes was 2, is 3" in line


def test_a_run_on_a_device_that_the_driver_does_not_show_is_one_of_which_nothing_is_left(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inspected = fake_worker._inspected
    both = {"devices": ["cpu", "gpu:0"]}
    monkeypatch.setattr(fake_worker, "_inspected", lambda models: {**inspected(models), **both})
    options = (*OPTIONS, "--devices", "all", "--ceilings", "off")
    assert main(["run", *options]) == 0
    capsys.readouterr()
    assert main(["run", *options, "--resume"]) == 0
    assert " processes measured; none is left" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["1", "0001", "file"])
def test_the_run_is_named_by_number_or_file_or_else_the_newest(
    name: str, folder: Path, worker: type[Worker]
) -> None:
    first = interrupted(worker, folder, after=3)
    second = interrupted(worker, folder, after=4)
    assert main(["run", *OPTIONS, "--resume", str(first) if name == "file" else name]) == 0
    whole = len(read_run(first))
    assert whole > 5
    assert len(read_run(second)) == 4
    assert main(["run", *OPTIONS, "--resume"]) == 0
    assert len(read_run(second)) == whole


def test_a_torn_last_line_is_cut_off_and_its_row_measured_again(
    folder: Path, worker: type[Worker], capsys: pytest.CaptureFixture[str]
) -> None:
    path = interrupted(worker, folder)
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["run", *OPTIONS, "--resume"]) == 0
    assert f"{path.relative_to(folder)}:6: a torn last line was left out" in capsys.readouterr().err
    rows = read_run(path)
    assert [row.order for row in rows] == list(range(1, len(rows) + 1))
    assert worker.asked == [row.case.name for row in rows[4:]]


def test_a_file_with_its_header_alone_gets_all_rows_and_their_steps(
    folder: Path, worker: type[Worker]
) -> None:
    path = interrupted(worker, folder)
    path.write_bytes(path.read_bytes().split(b"\n")[0] + b"\n")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["run", *OPTIONS, "--resume"]) == 0
    rows = read_run(path)
    assert [row.order for row in rows] == list(range(1, len(rows) + 1))
    times_s = read_step_times(path, [row.order for row in rows])
    assert times_s is not None
    assert times_s.size == 100 * len(rows)


def test_an_archive_of_step_times_left_open_by_a_kill_is_made_anew_and_says_so(
    folder: Path, worker: type[Worker], capsys: pytest.CaptureFixture[str]
) -> None:
    path = interrupted(worker, folder)
    steps = path.with_name("0001.steps.npz")
    steps.write_bytes(steps.read_bytes()[:-40])
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["run", *OPTIONS, "--resume"]) == 0
    said = capsys.readouterr().err
    assert "0001.steps.npz: was damaged when the run ended; raw step times before are lost" in said
    assert read_step_times(path, [5]) is None
    assert read_step_times(path, [6]) is not None


def test_a_failure_is_a_result_and_is_not_measured_again(
    folder: Path, worker: type[Worker]
) -> None:
    models = ("--models", "broken,lenet5", "--tasks", "train", "--processes", "2")
    worker.interrupt_after = 2
    assert main(["run", *models]) == 130
    worker.interrupt_after = None
    (path,) = folder.glob("results/*/*.csv")
    assert {row.status for row in read_run(path)} == {"ok", "error"}
    assert main(["run", *models, "--resume"]) == 1
    rows = read_run(path)
    assert len(rows) == 4
    assert sum(row.status == "error" for row in rows) == 2


def test_a_row_whose_interpreter_ended_is_measured_again_and_one_that_crashed_is_not(
    folder: Path, worker: type[Worker], capsys: pytest.CaptureFixture[str]
) -> None:
    crashes = {2: INTERPRETER_ENDED, 3: "the worker ended (SIGABRT) after 'built'"}

    def instead(number: int) -> Answer | None:
        message = crashes.get(number)
        return Answer(status="crashed", message=message, ready_s=None) if message else None

    worker.instead = staticmethod(instead)
    path = interrupted(worker, folder, after=5)
    assert [row.status for row in read_run(path)] == ["ok", "crashed", "crashed", "ok", "ok"]
    worker.instead = staticmethod(_as_usual)
    assert main(["run", *OPTIONS, "--resume"]) == 1
    said = capsys.readouterr().err
    assert "4 of" in said
    assert "processes measured; 1 whose interpreter had ended are measured again" in said
    rows = read_run(path)
    assert [row.order for row in rows[:5]] == [1, 3, 4, 5, 2]
    assert [row.status for row in rows].count("crashed") == 1
    assert len({(row.case, row.process) for row in rows}) == len(rows)


def test_a_search_for_batch_sizes_goes_on(folder: Path, worker: type[Worker]) -> None:
    auto = ("--models", "lenet5", "--tasks", "infer", "--batch-sizes", "auto", "--processes", "2")
    assert main(["run", *auto]) == 0
    whole = read_run(max(folder.glob("results/*/*.csv")))
    path = interrupted(worker, folder, *auto, after=2)
    assert main(["run", *auto, "--resume"]) == 0
    rows = read_run(path)
    assert [(row.case, row.process) for row in rows] == [(row.case, row.process) for row in whole]
    assert worker.asked == [row.case.name for row in rows[2:]]


# What is refused


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("--seed", "1"), "seed was 0, is 1"),
        (("--processes", "3"), "processes was 2, is 3"),
        (("--time-budget", "0.5"), "time budget s was 0.6, is 0.5"),
        (("--isolation", "none"), "isolation was fork, is none"),
        (("--models", "mini_inception"), "not selected"),
        (("--tasks", "train"), "not selected"),
        (("--batch-sizes", "4"), "not selected"),
        (("--batch-sizes", "4,8,16"), "the place of"),
        (("--batch-sizes", "auto"), "the plan was"),
        (("--threads", "1"), "not selected"),
        (("--jit", "on"), "not selected"),
    ],
)
def test_other_options_are_refused_with_both_values(
    changed: tuple[str, str],
    said: str,
    folder: Path,
    worker: type[Worker],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = interrupted(worker, folder, *OPTIONS, "--isolation", "fork")
    line = refused(path, capsys, *OPTIONS, "--isolation", "fork", *changed)
    assert said in line
    assert worker.asked == []


def test_a_run_goes_on_under_a_power_limit_that_has_moved_by_a_watt() -> None:
    record = row(device="gpu:0", power_limit_w=700.0)

    def go_on(limit_w: float) -> None:
        now = {"plan": None, "power_limit_w": limit_w}
        check(Path("0001.csv"), [record], [record.case], lambda case: now, None)

    go_on(699.2)
    with pytest.raises(OptionError, match=r"power limit w was 700\.0, is 600\.0; "):
        go_on(600.0)


def test_other_cases_that_no_row_is_of_yet_are_known_by_the_plan(
    folder: Path, worker: type[Worker], capsys: pytest.CaptureFixture[str]
) -> None:
    def options(other: str) -> tuple[str, ...]:
        return ("--models", f"{other},lenet5", "--tasks", "train")

    path = interrupted(worker, folder, *options("mini_resnet"), after=1)
    (first,) = read_run(path)
    others = ("mini_inception", "mini_resnet_norm")
    assert first.model == "lenet5", "draw another seed: the model that stays must come first"
    for other in others:
        line = refused(path, capsys, *options(other))
        assert f"plan was {first.plan}, is " in line


@pytest.mark.parametrize(
    ("backends", "said"),
    [("tensorflow,jax", "the plan was"), ("jax", "which is not selected")],
)
def test_other_backends_are_refused(
    backends: str, said: str, folder: Path, worker: type[Worker], capsys: pytest.CaptureFixture[str]
) -> None:
    path = interrupted(worker, folder)
    assert said in refused(path, capsys, *OPTIONS, "--backend", backends)


def test_another_version_of_the_framework_is_refused(
    folder: Path,
    worker: type[Worker],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = interrupted(worker, folder)
    inspected = fake_worker._inspected
    for name, was, now in (("tensorflow", "2.99.0", "2.98.0"), ("python", "3.12.1", "3.12.2")):
        with monkeypatch.context() as patch:
            patch.setattr(
                fake_worker,
                "_inspected",
                lambda models, name=name, now=now: {**inspected(models), name: now},
            )
            assert f": {name} was {was}, is {now}; " in refused(path, capsys)


def test_a_run_of_a_runtime_goes_on_and_another_version_of_it_is_refused(
    folder: Path,
    worker: type[Worker],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inspected, steps, then = fake_worker._inspected, fake_worker._measured, "ai-edge-litert==2.3.0"
    monkeypatch.setattr(
        fake_worker,
        "_measured",
        lambda *asked: [
            {"event": "loaded", "load_s": 0.1, "packages": f"{then} of-the-model==1.0"},
            *steps(*asked),
        ],
    )

    def there_is(now: str) -> None:
        found = {**inspected([]), "runtimes": f"openvino==2026.1 {now}"}
        monkeypatch.setattr(
            fake_worker,
            "_inspected",
            lambda models: {**found, "models": inspected(models)["models"]},
        )

    there_is(then)
    options = ("--models", "lenet5", "--tasks", "infer", "--runtime", "keras,litert")
    path = interrupted(worker, folder, *options, "--batch-sizes", "4,8", after=3)
    there_is("ai-edge-litert==2.4.0")
    line = refused(path, capsys, *options, "--batch-sizes", "4,8")
    assert f": packages was {then}, is ai-edge-litert==2.4.0; " in line
    there_is("")
    line = refused(path, capsys, *options, "--batch-sizes", "4,8")
    assert f": packages was {then}, is nothing; " in line
    there_is(then)
    assert main(["run", *options, "--batch-sizes", "4,8", "--resume"]) == 0


def test_another_machine_is_refused(
    folder: Path,
    worker: type[Worker],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = interrupted(worker, folder)
    here = convmark.machine.hardware.read_machine()
    with monkeypatch.context() as patch:
        updated = dataclasses.replace(here, os="Linux 99")
        patch.setattr("convmark.cli.run.read_machine", lambda: updated)
        assert f": os was {here.os}, is Linux 99; " in refused(path, capsys)
    other = dataclasses.replace(here, name="another")
    monkeypatch.setattr("convmark.cli.run.read_machine", lambda: other)
    capsys.readouterr()
    assert main(["run", *OPTIONS, "--resume", str(path)]) == 2
    assert f": machine was {here.name}, is another; " in capsys.readouterr().err


def test_a_flag_that_changes_speed_is_refused(
    folder: Path,
    worker: type[Worker],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    path = interrupted(worker, folder)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert "flags was" in (line := refused(path, capsys))
    assert "OMP_NUM_THREADS=1" in line


def test_another_commit_is_refused(
    folder: Path, worker: type[Worker], capsys: pytest.CaptureFixture[str]
) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)

    git("init")
    git("commit", "--allow-empty", "-m", "one")
    path = interrupted(worker, folder)
    was = read_run(path)[0].commit
    assert was is not None
    (folder / "model.py").write_text("")
    assert "dirty was false, is true" in refused(path, capsys)
    git("add", "model.py")
    git("commit", "-m", "two")
    assert f": commit was {was}, is " in refused(path, capsys)
    git("reset", "--hard", "HEAD~1")
    assert main(["run", *OPTIONS, "--resume"]) == 0


def test_another_measuring_code_is_refused(
    folder: Path,
    worker: type[Worker],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = interrupted(worker, folder)
    was = read_run(path)[0].measurement_version
    monkeypatch.setattr("convmark.session.resume.MEASUREMENT_VERSION", 99)
    assert f": measurement version was {was}, is 99; " in refused(path, capsys)


def test_a_file_that_another_process_writes_is_refused(
    folder: Path, worker: type[Worker], capsys: pytest.CaptureFixture[str]
) -> None:
    path = interrupted(worker, folder)
    writer = RunFile.reopened(path)
    try:
        assert main(["run", *OPTIONS, "--resume"]) == 2
        assert "another process is writing it; wait until it ends" in capsys.readouterr().err
    finally:
        writer.close()
    assert main(["run", *OPTIONS, "--resume"]) == 0


def test_a_file_that_another_process_replaces_while_it_is_opened_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Store(tmp_path).create_run("xeon-2")
    first, second = (row(run=made.run, order=place, process=place) for place in (1, 2))
    for one in (first, second):
        made.append(one)
    made.close()
    writer = RunFile.reopened(made.path)

    def open_then_replaced(*arguments: Any) -> int:
        descriptor = open_kept(*arguments)
        writer.keep([second])
        return descriptor

    monkeypatch.setattr("convmark.results.run_file.open_kept", open_then_replaced)
    with pytest.raises(StoreError, match="another process is writing it"):
        RunFile.reopened(made.path)
    writer.append(first)
    writer.close()
    assert [one.order for one in read_run(made.path)] == [2, 1]


def test_without_a_run_there_is_nothing_to_go_on_with(
    folder: Path, worker: type[Worker], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *OPTIONS, "--resume"]) == 2
    assert "has no run yet" in capsys.readouterr().err
    interrupted(worker, folder)
    assert main(["run", *OPTIONS, "--resume", "7"]) == 2
    assert "no run '7'" in capsys.readouterr().err


def test_one_run_goes_on_in_one_interpreter(
    folder: Path, worker: type[Worker], capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(worker, folder)
    for name in ("one", "two"):
        (folder / name).write_text("")
        (folder / name).chmod(0o755)
    pythons = ("--python", "./one", "--python", "./two")
    assert main(["run", *OPTIONS, *pythons, "--resume"]) == 2
    assert "--resume: continues one run, in one interpreter, got " in capsys.readouterr().err


# The parts


def test_what_is_missing_of_a_plan_keeps_its_places() -> None:
    cases = [Case(model=f"m{number}", task="train", batch_size=1) for number in range(4)]
    jobs = plan(cases, 2, seed=3)
    done = [job for job in jobs if job.order in (2, 3, 7)]
    records = [row(**job.case.as_fields(), process=job.process, order=job.order) for job in done]
    assert [job.order for job in missing(jobs, records)] == [1, 4, 5, 6, 8]
    assert missing(jobs, []) == jobs
    assert missing([], records) == []


@pytest.mark.parametrize(
    ("changes", "result"),
    [
        ({"status": "ok"}, True),
        ({"status": "crashed", "error": INTERPRETER_ENDED, "isolation": "fork"}, False),
        ({"status": "crashed", "error": INTERPRETER_ENDED, "isolation": "spawn"}, True),
        ({"status": "crashed", "error": "the worker ended (SIGKILL)", "isolation": "fork"}, True),
        ({"status": "timeout", "error": "no progress", "isolation": "fork"}, True),
        ({"status": "out_of_memory", "error": INTERPRETER_ENDED, "isolation": "fork"}, False),
        ({"status": "error", "error": "ValueError: a shape", "isolation": "fork"}, True),
    ],
)
def test_a_row_is_a_result_unless_its_zygote_ended(changes: dict[str, Any], result: bool) -> None:
    assert is_result(row(**changes)) is result


def test_a_plan_is_known_by_its_cases_their_order_the_processes_and_the_seed() -> None:
    cases = [Case(model=f"m{number}", task="train", batch_size=1) for number in range(3)]
    options = read({})
    hashes = {
        plan_hash(cases, options),
        plan_hash(cases[::-1], options),
        plan_hash(cases[:2], options),
        plan_hash(cases, read({"processes": "4"})),
        plan_hash(cases, read({"seed": "1"})),
        plan_hash(cases, read({"batch_sizes": "auto"})),
    }
    assert len(hashes) == 6
    assert plan_hash(cases, options) == plan_hash(list(cases), read({"confirm": "none"}))


def test_a_file_that_does_not_read_is_let_go_of_again(tmp_path: Path) -> None:
    folder = tmp_path / "xeon-2"
    folder.mkdir()
    (folder / "0001.csv").write_text("nonsense\n")
    for _ in range(2):
        with pytest.raises(StoreError, match=r"0001\.csv:1: must have the columns"):
            open_interrupted(Store(tmp_path), "xeon-2")
    assert (folder / "0001.csv").read_text() == "nonsense\n"


def test_a_run_over_machines_is_not_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = "--cluster=127.0.0.1:5000,127.0.0.1:5001"
    asked = ["run", "--resume", cluster, "--index=0", "--replicas=2", f"--results={tmp_path}"]
    assert main(asked) == 2
    assert "--resume: not possible with several machines" in capsys.readouterr().err
