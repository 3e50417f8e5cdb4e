"""Workers end to end, TensorFlow included: whatever a model does, the harness goes on."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from fast_worker import TOUCHED
from faults import fast_python
from workers import BUILDERS, descendants, environ, happens, is_running, measured, smoked

from convmark.core.errors import OptionError, WorkerError
from convmark.interpreter import Answer, Interpreter, check_zoo, zoo_folder
from convmark.worker.timing import MIN_WINDOW_S

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="a worker needs TensorFlow"
)

AT_START = """\
import sys
print("said by the zygote before any request")  # stays in its buffer
"""

EVENTS = [
    "ready",
    "environment",
    "built",
    "code",
    "first_step",
    "counted",
    "proof",
    "proof",
    "warm_up",
    "steps",
    "phase",
    "windows",
    "peaks",
    "input_bound",
    "work",
    "phase",
    "rounds",
    "state",
    "trained",
    "read_back",
    "finished",
]


@dataclass
class Workplace:
    """A folder for byte code and for what builders tell, and an environment that names it."""

    folder: Path
    environ: dict[str, str]

    def interpreter(self, **settings: Any) -> Interpreter:
        return Interpreter(environ=self.environ, **settings)

    def told(self, name: str) -> Any:
        """What a builder has told, taken away."""
        path = self.folder / name
        value = json.loads(path.read_text())
        path.unlink()
        return value


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    folder = tmp_path_factory.mktemp("workers")
    startup = folder / "startup"
    startup.mkdir()
    (startup / "sitecustomize.py").write_text(AT_START)
    variables = environ(folder, CONVMARK_TEST_FOLDER=str(folder), PYTHONPATH=str(startup))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(BUILDERS)
        yield Workplace(folder, variables)


@pytest.fixture(scope="module")
def forking(workplace: Workplace) -> Iterator[Interpreter]:
    """One interpreter, and as a rule one zygote, for most of the tests; it leaves no file."""
    temporary = workplace.folder / "temporary"
    temporary.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        with temporary_files_in(temporary, workplace, patch, "fork") as interpreter:
            yield interpreter
        assert list(temporary.iterdir()) == []


@pytest.fixture(scope="module")
def by_fork(forking: Interpreter) -> Answer:
    forking.start()  # so that `ready_s` is the price of the fork alone
    return forking.answer(measured("lenet5", task="train", batch_size=8))


@pytest.fixture(scope="module")
def zygote(forking: Interpreter, workplace: Workplace) -> Iterator[int]:
    """The process that forks the shared interpreter's workers; it serves to the end."""
    assert forking.answer(smoked("builders:well")).status == "ok"
    parent = int(workplace.told("parent"))
    yield parent
    assert forking.answer(smoked("builders:well")).status == "ok"
    assert workplace.told("parent") == parent


@pytest.fixture
def unharmed(forking: Interpreter, zygote: int) -> Iterator[Interpreter]:
    """The shared interpreter; after the test its zygote must be the same, without a worker."""
    yield forking
    assert is_running(zygote)
    assert descendants(zygote) == set()


@pytest.fixture
def impatient(unharmed: Interpreter, monkeypatch: pytest.MonkeyPatch) -> Interpreter:
    monkeypatch.setattr(unharmed, "_time_limit_s", 2.0)
    return unharmed


# -- what a worker answers ----------------------------------------------------------------------


def test_an_interpreter_says_what_it_has_and_which_models_it_knows(forking: Interpreter) -> None:
    answer = forking.answer({"kind": "inspect", "models": ["lenet5", "lenet6", "builders:none"]})
    assert (answer.status, answer.message) == ("ok", "")
    found = answer.event("inspected") or {}
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert os.path.samefile(found["executable"], sys.executable)
    assert found["devices"][0] == "cpu"
    assert {"tensorflow", "keras", "numpy", "cuda", "cudnn"} <= found.keys()
    assert found["models"]["lenet5"] is None
    assert "lenet5" in found["models"]["lenet6"]
    assert "no attribute none" in found["models"]["builders:none"]


def test_a_measurement_gives_every_event_that_a_row_needs(by_fork: Answer) -> None:
    assert (by_fork.status, by_fork.message) == ("ok", "")
    names = [event["event"] for event in by_fork.events if event["event"] != "progress"]
    assert names == EVENTS
    assert by_fork.ready_s is not None
    assert by_fork.ready_s > 0


def test_a_measurement_counts_and_times_as_it_says(by_fork: Answer) -> None:
    found = {event["event"]: event for event in by_fork.events}
    assert found["built"]["input_shape"] == [28, 28, 1]
    assert found["built"]["parameters"] == 61_706
    assert found["built"]["trainable_parameters"] == 61_706
    assert found["built"]["model_bytes"] == 4 * 61_706
    assert found["work"]["flops_per_sample"] == 833_040
    assert found["warm_up"]["steps"] >= 10
    assert len(found["steps"]["times_s"]) >= 30
    assert len(found["windows"]["times_s"]) >= 5
    assert fmean(found["windows"]["times_s"]) >= MIN_WINDOW_S
    assert len(found["input_bound"]["times_s"]) == 1  # three on a GPU
    assert min(found["input_bound"]["times_s"]) >= MIN_WINDOW_S
    rounds = found["rounds"]
    kinds = ["case_wall_s", "case_cpu_s", "reference_wall_s", "reference_cpu_s"]
    assert len({len(rounds[kind]) for kind in kinds}) == 1
    assert len(rounds["case_wall_s"]) >= 10
    assert min(found["steps"]["times_s"] + rounds["case_wall_s"] + rounds["reference_wall_s"]) > 0
    assert rounds["reference"] == "large"
    assert found["peaks"]["host_bytes"] >= 0


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("infer", "the output for one batch must be"),
        # which of the two is seen first depends on how much faster the later steps are
        ("train", "the loss must keep changing|every step must train"),
    ],
)
def test_a_model_that_stops_working_after_its_first_steps_is_refused(
    forking: Interpreter, task: str, words: str
) -> None:
    answer = forking.answer(measured("builders:stops_working", task=task, batch_size=8))
    assert answer.status == "error"
    assert re.search(words, answer.message)


def test_training_lowers_the_loss_from_that_of_chance(by_fork: Answer) -> None:
    first, tenth = proofs(by_fork)
    assert 2.0 < first < 3.0  # ln 10 = 2.30 for ten classes known nothing of
    assert tenth < first


@pytest.mark.parametrize("isolation", ["spawn", "none"])
def test_every_isolation_measures_the_same_work_and_leaves_no_file_behind(
    isolation: str,
    by_fork: Answer,
    workplace: Workplace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = descendants()
    with temporary_files_in(tmp_path, workplace, monkeypatch, isolation) as interpreter:
        answer = interpreter.answer(measured("lenet5", task="train", batch_size=8))
        assert (answer.status, answer.message) == ("ok", "")
        names = [event["event"] for event in answer.events if event["event"] != "progress"]
        assert names == EVENTS
        for same in ("environment", "built", "code", "work"):
            assert answer.event(same) == by_fork.event(same)
        assert proofs(answer) == pytest.approx(proofs(by_fork), rel=1e-5)
        assert answer.ready_s is not None
        assert by_fork.ready_s is not None
        assert by_fork.ready_s < answer.ready_s / 2, "a fork is dearer than a cold start"
    assert descendants() == before
    assert list(tmp_path.iterdir()) == []


def temporary_files_in(
    folder: Path, workplace: Workplace, monkeypatch: pytest.MonkeyPatch, isolation: str
) -> Interpreter:
    """Return an interpreter whose temporary files, and its logs, are in the folder."""
    monkeypatch.setattr("tempfile.tempdir", str(folder))  # this process's, where logs are kept
    own = Workplace(workplace.folder, {**workplace.environ, "TMPDIR": str(folder)})
    return own.interpreter(isolation=isolation)


def proofs(answer: Answer) -> list[float]:
    return [event["value"] for event in answer.events if event["event"] == "proof"]


# -- what a model may do ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("builder", "status", "said"),
    [
        ("raises", "error", "ValueError: a shape that cannot be"),
        ("raises_at_length", "error", "of some layer : shapes differ"),
        ("returns_no_model", "error", "the builder must return a keras.Model, it returned int"),
        ("Predictor", "error", "it returned builders.Predictor; return its keras_model"),
        ("returns_a_pair", "error", "it returned tuple; return its part [1]"),
        ("returns_a_layer", "error", "; return keras.Sequential([keras.Input(shape), layer])"),
        ("turns_eager_execution_off", "error", "eager execution must be on, but the model's code"),
        ("returns_twice", "error", "the builder must return once, but it forked the process and"),
        ("tells_no_input", "error", "the input shape is not known; call the model on keras.Input"),
        ("overflows", "error", "the output must be finite, but it is inf at step 1"),
        ("exits", "error", "the model's code ends the program (exit status 3)"),
        ("runs_out_of_host_memory", "out_of_memory", "MemoryError"),
        ("runs_out_of_device_memory", "out_of_memory", "OOM when allocating tensor"),
        ("aborts", "crashed", "SIGABRT"),
        ("reads_address_zero", "crashed", "SIGSEGV"),
        ("kills_itself", "crashed", "SIGKILL"),
        ("leaves_without_a_word", "crashed", "exit status 0"),
        ("writes_no_json", "crashed", "an invalid event: b'this is no event'"),
        ("writes_no_text", "crashed", "an invalid event"),
        ("writes_a_list", "crashed", "an invalid event"),
        ("writes_a_failure_without_a_status", "crashed", "'failed'"),
        ("writes_an_endless_line", "crashed", "endless line"),
    ],
)
def test_what_a_builder_does_wrong_is_told_in_one_line_and_harms_nothing_else(
    builder: str, status: str, said: str, unharmed: Interpreter
) -> None:
    answer = unharmed.answer(measured(f"builders:{builder}"))
    assert answer.status == status
    assert said in answer.message
    assert "\n" not in answer.message


@pytest.mark.parametrize(("builder", "place"), [("aborts", "aborts"), ("exits", "")])
def test_a_fatal_error_is_told_with_its_place(
    builder: str, place: str, forking: Interpreter
) -> None:
    answer = forking.answer(measured(f"builders:{builder}"))
    assert answer.message.endswith(f" in {place}" if place else "(exit status 3)")


def test_a_builder_may_write_as_much_as_it_likes(unharmed: Interpreter) -> None:
    answer = unharmed.answer(smoked("builders:floods"))
    assert (answer.status, answer.message) == ("ok", "")


@pytest.mark.parametrize("builder", ["sleeps", "sleeps_deaf"])
def test_a_silent_worker_is_ended_at_its_time_limit(
    builder: str, impatient: Interpreter, workplace: Workplace
) -> None:
    began = time.monotonic()
    answer = impatient.answer(measured(f"builders:{builder}"))
    assert time.monotonic() - began < 30
    assert answer.status == "timeout"
    assert answer.message.startswith("no progress for 2 s after 'environment'")
    assert not is_running(workplace.told("sleeper"))


@pytest.mark.parametrize("builder", ["leaves_a_program", "leaves_a_fork", "leaves_a_daemon"])
def test_what_a_model_has_started_ends_with_its_worker(
    builder: str, unharmed: Interpreter, workplace: Workplace
) -> None:
    began = time.monotonic()
    answer = unharmed.answer(smoked(f"builders:{builder}"))
    assert (answer.status, answer.message) == ("ok", "")
    assert time.monotonic() - began < 60, "the end of the pipe was waited for"
    left = workplace.told("left")
    assert happens(lambda: not is_running(left), within_s=10)
    found = answer.event("left_running")
    assert (found and found["names"]) == (["sleep"] if builder == "leaves_a_daemon" else None)


def test_a_worker_log_holds_its_own_output_alone(
    unharmed: Interpreter, workplace: Workplace
) -> None:
    first = unharmed.answer(smoked("builders:prints_and_fails_with_its_log"))
    second = unharmed.answer(smoked("builders:prints_and_fails_with_its_log"))
    for answer in (first, second):
        assert answer.message.startswith("RuntimeError: ")
        assert answer.message.count(f"a line of {workplace.folder}") == 1
        assert "said by the zygote" not in answer.message


# -- workers that take turns -----------------------------------------------------------------------


def test_two_live_workers_of_one_zygote_take_turns(unharmed: Interpreter) -> None:
    request = measured("lenet5", batch_size=8)
    with unharmed.live(request) as one, unharmed.live(request) as other:
        for worker in (one, other):
            assert worker.expect("first_step")["seconds"] > 0
        for steps in (1, 3):
            for worker in (other, one):
                worker.command(steps=steps, dropped=0)
                assert len(worker.expect("turn")["wall_s"]) == steps
        one.command(steps=0)
        assert one.expect("finished")


def test_a_live_worker_that_dies_takes_no_other_with_it(
    unharmed: Interpreter, workplace: Workplace
) -> None:
    with (
        unharmed.live(measured("builders:leaves_a_fork")) as doomed,
        unharmed.live(measured("lenet5")) as other,
    ):
        doomed.expect("first_step")
        workplace.told("left")
        os.kill(workplace.told("worker"), signal.SIGKILL)
        other.expect("first_step")
        other.command(steps=2, dropped=0)
        assert min(other.expect("turn")["wall_s"]) > 0
        doomed.command(steps=1, dropped=0)
        with pytest.raises(WorkerError, match="SIGKILL"):
            doomed.expect("turn")
        other.command(steps=1, dropped=0)
        assert min(other.expect("turn")["wall_s"]) > 0


@pytest.mark.parametrize(
    ("builder", "said"),
    [("raises", "ValueError"), ("aborts", "SIGABRT"), ("sleeps", "no progress for 2 s")],
)
def test_a_live_worker_that_cannot_begin_says_why(
    builder: str, said: str, impatient: Interpreter
) -> None:
    with (
        pytest.raises(WorkerError, match=said),
        impatient.live(measured(f"builders:{builder}")) as worker,
    ):
        worker.expect("first_step")


# -- what may befall the harness ----------------------------------------------------------------


def test_ctrl_c_leaves_no_worker_behind(unharmed: Interpreter, workplace: Workplace) -> None:
    interrupted_s = []

    def interrupt(event: dict[str, Any]) -> None:
        if event["event"] == "environment":
            assert happens((workplace.folder / "sleeper").exists, within_s=30)
            interrupted_s.append(time.monotonic())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unharmed.answer(measured("builders:sleeps"), interrupt)
    assert not is_running(workplace.told("sleeper"))
    assert time.monotonic() - interrupted_s[0] < 2


def test_the_late_end_of_an_earlier_worker_is_not_taken_for_a_later_one(
    unharmed: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(event: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(
            "convmark.interpreter.server.Worker.end", lambda worker: None
        )  # Ctrl-C once more
        with pytest.raises(KeyboardInterrupt):
            unharmed.answer(measured("builders:kills_itself"), refuse)
    assert happens(lambda: replies_wait(unharmed), within_s=30)
    assert unharmed.answer(smoked("builders:well")).status == "ok"


def replies_wait(interpreter: Interpreter) -> bool:
    assert interpreter._server is not None
    return bool(select.select([interpreter._server.control], [], [], 0)[0])


@pytest.fixture
def stand_in(tmp_path: Path) -> str:
    """An interpreter that imports no framework and does what a model's name says."""
    return str(fast_python(tmp_path))


@pytest.mark.parametrize("when", ["between two cases", "during a case"])
def test_a_killed_zygote_costs_one_case(when: str, stand_in: str) -> None:
    def kill(event: dict[str, Any]) -> None:
        os.kill(zygote, signal.SIGKILL)

    before = descendants()
    with Interpreter(stand_in) as interpreter:
        interpreter.start()
        (zygote,) = descendants() - before
        if when == "between two cases":
            os.kill(zygote, signal.SIGKILL)
            answer = interpreter.answer(measured("lenet5"))
        else:
            answer = interpreter.answer(measured("waits"), kill)
        assert answer.status == "crashed"
        assert "the worker's interpreter" in answer.message
        assert interpreter.answer(measured("lenet5")).status == "ok"
        assert zygote not in descendants()
    assert happens(lambda: descendants() == before, within_s=10)


@pytest.mark.parametrize("isolation", ["fork", "spawn"])
def test_workers_end_with_a_killed_harness(isolation: str, stand_in: str) -> None:
    script = (
        "import json, sys; from convmark.interpreter import Interpreter;"
        f"Interpreter({stand_in!r}, isolation={isolation!r}).answer(json.loads(sys.argv[1]),"
        " lambda event: print(event, flush=True))"
    )
    harness = subprocess.Popen(
        [sys.executable, "-c", script, json.dumps(measured("waits"))],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert harness.stdout is not None
        assert b"ready" in harness.stdout.readline()
        workers = descendants(harness.pid)
        assert len(workers) == (2 if isolation == "fork" else 1)
    finally:
        harness.kill()
        harness.communicate()
    assert happens(lambda: not any(map(is_running, workers)), within_s=10)


def test_a_fatal_error_in_an_interpreter_of_its_own_is_told_too(stand_in: str) -> None:
    before = descendants()
    with Interpreter(stand_in, isolation="spawn") as interpreter:
        answer = interpreter.answer(measured("aborts"))
        assert answer.status == "crashed"
        assert "SIGABRT): Fatal Python error: Aborted" in answer.message
        assert descendants() == before


def test_a_silent_worker_in_an_interpreter_of_its_own_is_ended_too(stand_in: str) -> None:
    before = descendants()
    with Interpreter(stand_in, isolation="spawn", time_limit_s=1) as interpreter:
        answer = interpreter.answer(measured("hangs"))
        assert answer.status == "timeout"
        assert "no progress for 1 s after 'ready'" in answer.message
        assert descendants() == before


def test_an_interpreter_that_serves_all_itself_is_replaced_when_it_goes_wrong(
    stand_in: str,
) -> None:
    before = descendants()
    with Interpreter(stand_in, isolation="none") as interpreter:
        for _ in range(2):
            assert interpreter.answer(measured("lenet5")).status == "ok"
            (first,) = descendants() - before
        answer = interpreter.answer(measured("writes_rubbish"))
        assert answer.status == "crashed"
        assert "an invalid event" in answer.message
        assert interpreter.answer(measured("lenet5")).status == "ok"
        (second,) = descendants() - before
    assert first != second


def test_files_of_the_framework_are_below_the_temporary_folder_that_its_end_empties(
    by_fork: Answer, workplace: Workplace
) -> None:
    """TensorFlow removes them in exit handlers that no worker comes to; see `forking`."""
    assert by_fork.status == "ok"
    assert list((workplace.folder / "temporary").rglob("*.py"))


def test_no_process_is_left_after_close(stand_in: str) -> None:
    before = descendants()
    interpreter = Interpreter(stand_in)
    try:
        interpreter.start()
        assert len(descendants() - before) == 1
    finally:
        interpreter.close()
        interpreter.close()
    assert descendants() == before


# -- interpreters that are none -----------------------------------------------------------------


def test_an_interpreter_that_is_not_there_is_named(workplace: Workplace) -> None:
    with (
        workplace.interpreter(python="/nowhere/python") as interpreter,
        pytest.raises(WorkerError, match=r"^/nowhere/python: .*No such file") as caught,
    ):
        interpreter.start()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (f'exec {sys.executable} -S -E "$@"', "tensorflow cannot be imported: ModuleNotFoundError"),
        ("echo the loader is broken >&2; exit 3", "(exit status 3) before it served: the loader"),
        ("exit 0", "(exit status 0) before it served"),
    ],
    ids=["bare", "broken", "no Python"],
)
@pytest.mark.parametrize("isolation", ["fork", "spawn"])
def test_an_interpreter_without_tensorflow_is_refused_with_the_reason(
    script: str, said: str, isolation: str, workplace: Workplace, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    before = descendants()
    with workplace.interpreter(python=str(python), isolation=isolation) as interpreter:
        with pytest.raises(WorkerError) as caught:
            interpreter.answer(smoked("lenet5"))
        assert descendants() == before
    assert str(caught.value).startswith(f"{python}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_worker_is_forked_after_the_framework_has_run_something(
    stand_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That each framework knows whether it has is a test of the backends."""
    monkeypatch.setenv(TOUCHED, "1")
    with Interpreter(stand_in) as interpreter:
        for _ in range(2):
            answer = interpreter.answer(measured("lenet5"))
            assert answer.status == "error"
            assert "--isolation=spawn" in answer.message


def test_the_zoo_lies_beside_the_package() -> None:
    assert (zoo_folder() / "registry.py").is_file()


def test_an_installed_zoo_is_not_measured_in_a_checkout_that_has_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path.resolve() / "models"
    (tmp_path / "convmark/worker").mkdir(parents=True)
    (tmp_path / "bench").mkdir()
    shutil.copytree(zoo_folder(), models)
    monkeypatch.chdir(tmp_path / "bench")
    check_zoo(["lenet5"])
    (models / "lenet.py").write_text("# another")
    check_zoo(["nets:net"])
    with pytest.raises(OptionError, match=rf"{models} has others \(lenet.py\); run pip"):
        check_zoo(["nets:net", "lenet5"])
