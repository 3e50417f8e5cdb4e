"""A run: the plan, the devices, and the row that each answer of a worker becomes."""

from __future__ import annotations

import dataclasses
import math
import os
import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

import pytest
from fake_worker import StandIn

import convmark
from convmark.core.case import Case
from convmark.core.errors import OptionError, StoreError, WorkerError
from convmark.core.options import Options, read
from convmark.interpreter import Answer, Interpreter
from convmark.interpreter.inspection import devices_asked_for, inspect
from convmark.machine.gpu.devices import Gpu
from convmark.machine.hardware import Machine
from convmark.results.columnar import read_columns
from convmark.results.commit import Commit
from convmark.results.reading import read_run
from convmark.results.record import Record
from convmark.results.store import Store, read_step_times
from convmark.session.ceilings import Ceiling
from convmark.session.facts import Facts, Job, facts_of, plan
from convmark.session.result import Result
from convmark.session.run import execute, kept, request_of

TRAIN = Case(model="lenet5", task="train", batch_size=32)
INFER = Case(model="lenet5", task="infer", batch_size=1)
NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)
MACHINE = Machine(
    name="xeon-2",
    cpu="Xeon",
    cores=2,
    physical_cores=1,
    ram_bytes=8 * 2**30,
    gpus=(
        Gpu(index=0, name="A100", memory_bytes=40 * 2**30, uuid="GPU-0"),
        Gpu(index=1, name="H100", memory_bytes=80 * 2**30, uuid="GPU-1"),
    ),
    driver="550.54",
    os="Linux 6.1",
)
FACTS = Facts(run="0001", machine=MACHINE, commit="a" * 40, dirty=False, flags="OMP_NUM_THREADS=2")


EVENTS: list[dict[str, Any]] = [
    {"event": "environment", "python": "3.13.2", "tensorflow": "2.21.0", "keras": "3.15.0"},
    {
        "event": "built",
        "input_shape": [28, 28, 1],
        "parameters": 61706,
        "trainable_parameters": 61706,
        "model_bytes": 246824,
    },
    {
        "event": "first_step",
        "seconds": 0.75,
        "trace_s": 0.5,
        "execution_s": 0.25,
        "call_path": "tf.function",
        "training": "model",
        "optimizer": "Adam",
        "loss_name": "huber",
    },
    {
        "event": "counted",
        "parameters": 61707,
        "trainable_parameters": 61706,
        "model_bytes": 246828,
    },
    {"event": "proof", "step": 1, "value": 2.3},
    {"event": "progress", "phase": "warm-up"},
    {"event": "proof", "step": 10, "value": 2.1},
    {"event": "warm_up", "steps": 15, "steady": True},
    {"event": "steps", "times_s": [0.01] * 100},
    {"event": "windows", "steps": 10, "times_s": [0.08, 0.12, 0.06, 0.14, 0.1]},
    {
        "event": "peaks",
        "baseline_bytes": 1000,
        "build_host_bytes": 3000,
        "host_bytes": 2000,
        "device_bytes": None,
    },
    {"event": "input_bound", "steps": 5, "times_s": [0.1, 0.2, 0.1]},
    {
        "event": "work",
        "flops_per_sample": 833_040,
        "training_flops_per_sample": 2_000_000,
    },
    {
        "event": "rounds",
        "reference": "large",
        "reference_version": 1,
        "case_wall_s": [0.02] * 10,
        "case_cpu_s": [0.04] * 10,
        "reference_wall_s": [0.01] * 10,
        "reference_cpu_s": [0.01] * 10,
    },
    {
        "event": "state",
        "load_average_1min": 0.5,
        "other_cpu_share": 0.02,
        "involuntary_context_switches": 3,
    },
    {"event": "finished"},
]
"""What a worker says about one training step that always takes 10 ms."""


def events() -> list[dict[str, Any]]:
    return [dict(event) for event in EVENTS]


def with_event(name: str, **changes: Any) -> list[dict[str, Any]]:
    return [{**event, **changes} if event["event"] == name else event for event in events()]


def without_event(name: str) -> list[dict[str, Any]]:
    return [event for event in events() if event["event"] != name]


def ok(said: list[dict[str, Any]]) -> Answer:
    return Answer(status="ok", message="", events=said, ready_s=0.25)


class Canned(StandIn):
    """Gives the answers that it was made with, one by one, and keeps the requests."""

    python = "/usr/bin/python3"

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.requests: list[Mapping[str, Any]] = []

    def answer(
        self,
        request: Mapping[str, Any],
        on_event: Callable[[dict[str, Any]], None] = lambda event: None,
    ) -> Answer:
        self.requests.append(request)
        answer = self._answers.pop(0)
        for event in answer.events:
            on_event(event)
        return answer


def canned(*answers: Answer) -> Interpreter:
    return cast(Interpreter, Canned(*answers))


class Told:
    """An observer that writes down what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def planned(self, jobs: Sequence[Job]) -> None:
        self.lines.append(f"planned {len(jobs)}")

    def began(self, job: Job) -> None:
        self.lines.append(f"began {job.order}")

    def phase(self, job: Job, phase: str) -> None:
        self.lines.append(f"phase {job.order} {phase}")

    def ended(self, job: Job, record: Record) -> None:
        self.lines.append(f"ended {job.order} {record.status}")


def result_of(
    answer: Answer, folder: Path, case: Case = TRAIN, facts: Facts = FACTS, **given: str
) -> Result:
    """Execute one job that gets this answer; its row must read again as it was kept."""
    run_file = Store(folder).create_run(facts.machine.name)
    results: list[Result] = []
    execute(
        [Job(case=case, process=2, order=7)],
        canned(answer),
        read(given),
        dataclasses.replace(facts, run=run_file.run),
        run_file,
        Told(),
        keep=results.append,
        now=lambda: NOW,
    )
    run_file.close()
    (result,) = results
    assert read_run(run_file.path) == [result.record]
    return result


# Plan


def cases(count: int) -> list[Case]:
    return [Case(model=f"m{number}", task="train", batch_size=1) for number in range(count)]


def test_a_plan_has_every_process_of_every_case_at_its_place() -> None:
    jobs = plan(cases(5), 3, seed=0)
    assert [job.order for job in jobs] == list(range(1, 16))
    assert Counter((job.case, job.process) for job in jobs) == Counter(
        (case, process) for case in cases(5) for process in (1, 2, 3)
    )


def test_each_case_runs_once_before_any_runs_a_second_time() -> None:
    jobs = plan(cases(5), 3, seed=1)
    for begin in (0, 5, 10):
        assert {job.case for job in jobs[begin : begin + 5]} == set(cases(5))
    assert [job.process for job in jobs] == [1] * 5 + [2] * 5 + [3] * 5


def test_the_order_is_random_differs_from_pass_to_pass_and_follows_the_seed() -> None:
    jobs = plan(cases(8), 2, seed=0)
    assert jobs == plan(cases(8), 2, seed=0)
    assert jobs != plan(cases(8), 2, seed=1)
    first, second = [job.case for job in jobs[:8]], [job.case for job in jobs[8:]]
    assert first != second
    assert first != cases(8)


def test_no_cases_make_an_empty_plan() -> None:
    assert plan([], 3, seed=0) == []


# Devices and inspection


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (["all"], ["cpu", "gpu:0", "gpu:1"]),
        (["cpu"], ["cpu"]),
        (["gpu:1", "cpu"], ["gpu:1", "cpu"]),
        (["gpu:1", "all", "cpu"], ["gpu:1", "cpu", "gpu:0"]),
        ([], []),
    ],
)
def test_devices_are_those_named_or_all_each_once(asked: list[str], expected: list[str]) -> None:
    assert devices_asked_for(asked, ["cpu", "gpu:0", "gpu:1"]) == expected


def test_a_device_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(OptionError) as refused:
        devices_asked_for(["cpu", "gpu:2"], ["cpu", "gpu:0"])
    message = str(refused.value)
    assert message.startswith("--devices: gpu:2 does not exist")
    assert "gpu:0" in message
    assert "convmark doctor" in message


def inspected(models: Mapping[str, str | None]) -> Answer:
    return ok([{"event": "inspected", "models": dict(models), "devices": ["cpu"]}])


def test_an_inspection_asks_for_the_models_and_returns_what_is_there() -> None:
    interpreter = Canned(inspected({"lenet5": None}))
    found = inspect(cast(Interpreter, interpreter), ["lenet5"])
    assert found["devices"] == ["cpu"]
    assert interpreter.requests == [{"kind": "inspect", "models": ["lenet5"]}]


def test_an_unknown_model_is_refused_with_the_interpreter_s_own_words() -> None:
    answer = inspected({"lenet5": None, "lenet6": "unknown model 'lenet6'; did you mean lenet5?"})
    with pytest.raises(OptionError, match=r"^unknown model 'lenet6'; did you mean"):
        inspect(canned(answer), ["lenet5", "lenet6"])


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status="crashed", message="segmentation fault", events=[], ready_s=None),
        Answer(status="ok", message="nothing said", events=[], ready_s=None),
    ],
)
def test_an_interpreter_that_cannot_say_is_an_error_that_names_it(answer: Answer) -> None:
    with pytest.raises(WorkerError, match=r"^/usr/bin/python3: cannot be inspected: \w+"):
        inspect(canned(answer), [])


# Requests and facts


def test_a_request_has_the_case_the_seed_and_the_budget() -> None:
    options = read({"seed": "5", "time_budget": "0.5"})
    assert request_of(TRAIN, options) == {
        "kind": "measure",
        "case": TRAIN.as_fields(),
        "seed": 5,
        "time_budget_s": 0.5,
        "smoke": False,
        "fed": True,
        "each_sample": True,
        "left_out": [str(options.results.absolute())],
        "asked": [],
    }
    assert request_of(TRAIN, options, smoke=True)["smoke"] is True
    named = read({"precisions": "float32"}, {"threads": 1})
    assert request_of(TRAIN, named)["asked"] == ["precision", "threads"]
    assert request_of(TRAIN, options, fed=False)["fed"] is False


def test_facts_hold_the_commit_and_the_flags_that_change_speed() -> None:
    environ = {"OMP_NUM_THREADS": "2", "HOME": "/root", "TF_XLA_FLAGS": "--a --b"}
    facts = facts_of("0003", MACHINE, Commit(sha="b" * 40, dirty=True), environ)
    assert facts == Facts(
        run="0003",
        machine=MACHINE,
        commit="b" * 40,
        dirty=True,
        flags="OMP_NUM_THREADS=2 TF_XLA_FLAGS='--a --b'",
        node=platform.node(),
    )


# Rows


ROW: dict[str, Any] = {
    "run": "0001",
    "started": "2026-01-02T03:04:05.678+00:00",
    "convmark": convmark.__version__,
    "commit": "a" * 40,
    "dirty": False,
    "order": 7,
    "process": 2,
    "processes": 3,
    "seed": 5,
    "time_budget_s": 0.5,
    "status": "ok",
    "error": None,
    **TRAIN.as_fields(),
    "effective_batch_size": 32,
    "input_shape": "28x28x1",
    "call_path": "tf.function",
    "machine": "xeon-2",
    "cpu": "Xeon",
    "cores": 2,
    "ram_bytes": 8 * 2**30,
    "os": "Linux 6.1",
    "python": "3.13.2",
    "tensorflow": "2.21.0",
    "keras": "3.15.0",
    "numpy": None,
    "flags": "OMP_NUM_THREADS=2",
    "parameters": 61707,
    "model_bytes": 246828,
    "flops_per_sample": 833_040,
    "counting_version": "3",
    "process_start_s": 0.25,
    "time_to_first_step_s": 0.75,
    "trace_s": 0.5,
    "first_execution_s": 0.25,
    "warm_up_steps": 15,
    "steps": 100,
    "step_time_p50_s": 0.01,
    "step_time_p95_s": 0.01,
    "step_time_p99_s": None,
    "windows": 5,
    "window_steps": 10,
    "throughput_samples_per_s": 3200.0,
    "input_bound_throughput_samples_per_s": 1200.0,
    "rounds": 10,
    "reference": "large",
    "reference_version": 1,
    "measurement_version": "6",
    "paired_step_time_p50_s": 0.02,
    "reference_step_time_p50_s": 0.01,
    "paired_log_ratio": math.log(2),
    "paired_log_ratio_cpu": math.log(4),
    "host_memory_baseline_bytes": 1000,
    "build_peak_host_memory_bytes": 3000,
    "peak_host_memory_bytes": 2000,
    "training": "model",
    "optimizer": "Adam",
    "loss_name": "huber",
    "peak_device_memory_bytes": None,
    "load_average_1min": 0.5,
    "other_cpu_share": 0.02,
    "involuntary_context_switches": 3,
    "loss_first": 2.3,
    "loss": 2.1,
    "output_rms": None,
    "accuracy": None,
}
"""The columns of the row that `EVENTS` become."""


def test_a_training_answer_becomes_a_row_with_every_figure(tmp_path: Path) -> None:
    result = result_of(ok(events()), tmp_path, seed="5", processes="3", time_budget="0.5")
    record = result.record
    assert result.case == TRAIN
    assert result.step_times_s == [0.01] * 100
    assert {name: getattr(record, name) for name in ROW} == pytest.approx(ROW)


def test_a_ceiling_that_is_known_gives_the_row_its_efficiency(tmp_path: Path) -> None:
    ceiling = Ceiling(
        measured="2026-01-02T03:04:05+00:00",
        device=TRAIN.device,
        backend=TRAIN.backend,
        precision=TRAIN.precision,
        threads=TRAIN.threads,
        version="2.21.0",
        matrix_size=1024,
        peak_flops_per_s=1e12,
        copy_bytes=1024,
        peak_bytes_per_s=1e10,
    )
    known = dataclasses.replace(FACTS, ceilings={ceiling.key: ceiling})
    record = result_of(ok(events()), tmp_path, facts=known).record
    assert (record.peak_flops_per_s, record.peak_bytes_per_s) == (1e12, 1e10)
    assert record.efficiency == pytest.approx(2_000_000 * 3200 / 1e12)  # by 3,200 samples/s
    without = result_of(ok(events()), tmp_path / "without").record
    assert (without.peak_flops_per_s, without.peak_bytes_per_s, without.efficiency) == (None,) * 3


def test_an_inference_answer_has_an_output_in_place_of_losses(tmp_path: Path) -> None:
    record = result_of(ok(events()), tmp_path, case=INFER).record
    assert (record.loss_first, record.loss, record.output_rms) == (None, None, 2.3)
    assert record.throughput_samples_per_s == pytest.approx(100.0)


def test_replicas_multiply_the_samples_of_a_step(tmp_path: Path) -> None:
    case = Case(model="lenet5", task="train", batch_size=32, replicas=2)
    record = result_of(ok(events()), tmp_path, case=case).record
    assert (record.effective_batch_size, record.throughput_samples_per_s) == (64, 6400.0)


def test_a_warm_up_that_did_not_settle_makes_an_unsteady_row_with_figures(tmp_path: Path) -> None:
    record = result_of(ok(with_event("warm_up", steady=False)), tmp_path).record
    assert (record.status, record.step_time_p50_s, record.measured) == ("unsteady", 0.01, True)
    assert record.unsteady == "warm-up did not settle in 15 steps"


def test_a_window_in_which_the_process_was_stopped_makes_an_unsteady_row(tmp_path: Path) -> None:
    windows = next(event for event in events() if event["event"] == "windows")
    times_s = [*windows["times_s"][1:], 40_000 * max(windows["times_s"])]
    record = result_of(ok(with_event("windows", times_s=times_s)), tmp_path).record
    assert (record.status, record.measured) == ("unsteady", True)
    assert (record.unsteady or "").startswith(
        "a window took far longer: 46,666.7 times the median of 5"
    )
    path = tmp_path / str(record.machine) / f"{record.run}.csv"
    assert read_columns(path, path.read_bytes())["status"].tolist() == ["unsteady"]


def test_steps_that_grow_make_an_unsteady_row_with_figures_and_the_reason(tmp_path: Path) -> None:
    growing = [0.01 + 0.0001 * number for number in range(100)]
    record = result_of(ok(with_event("steps", times_s=growing)), tmp_path).record
    assert (record.status, record.measured) == ("unsteady", True)
    assert record.unsteady == "step time rose by 57 % from the first to the last third of 100 steps"
    assert result_of(ok(events()), tmp_path).record.unsteady is None


def test_a_row_names_the_gpu_that_was_measured_and_no_other(tmp_path: Path) -> None:
    gpu = Case(model="lenet5", task="train", device="gpu:1", batch_size=32)
    record = result_of(ok(events()), tmp_path, case=gpu).record
    assert (record.gpu, record.gpu_memory_bytes, record.driver) == ("H100", 80 * 2**30, "550.54")
    record = result_of(ok(events()), tmp_path).record
    assert (record.gpu, record.gpu_memory_bytes, record.driver) == (None, None, None)


def test_a_clock_too_coarse_for_cpu_time_leaves_that_ratio_empty(tmp_path: Path) -> None:
    record = result_of(ok(with_event("rounds", case_cpu_s=[0.0] * 10)), tmp_path).record
    assert record.status == "ok"
    assert record.paired_log_ratio == pytest.approx(math.log(2))
    assert record.paired_log_ratio_cpu is record.paired_log_ratio_cpu_se is None


@pytest.mark.parametrize("status", ["error", "out_of_memory", "timeout", "crashed"])
def test_a_failed_answer_becomes_a_row_with_its_reason_and_no_figures(
    status: str, tmp_path: Path
) -> None:
    said = events()[:8]
    answer = Answer(status=status, message="the worker died", events=said, ready_s=0.25)
    result = result_of(answer, tmp_path)
    record = result.record
    assert (record.status, record.error) == (status, "the worker died")
    assert (record.parameters, record.tensorflow) == (61707, "2.21.0")
    assert record.step_time_p50_s is record.steps is record.time_to_first_step_s is None
    assert result.step_times_s == []


def test_a_worker_that_never_started_becomes_a_row(tmp_path: Path) -> None:
    answer = Answer(status="crashed", message="killed", events=[], ready_s=None)
    record = result_of(answer, tmp_path).record
    assert (record.status, record.process_start_s, record.parameters) == ("crashed", None, None)


GARBLED = {
    "no steps": without_event("steps"),
    "no state": without_event("state"),
    "no second proof": [event for event in events() if event.get("step") != 10],
    "empty steps": with_event("steps", times_s=[]),
    "steps of text": with_event("steps", times_s=["soon"]),
    "steps of none": with_event("steps", times_s=None),
    "empty windows": with_event("windows", times_s=[]),
    "windows of no time": with_event("windows", times_s=[0.0] * 5),
    "windows of text": with_event("windows", steps="ten"),
    "rounds that do not pair": with_event("rounds", case_wall_s=[0.1] * 9),
    "no rounds": with_event("rounds", case_wall_s=[], reference_wall_s=[]),
    "bytes of text": with_event("peaks", host_bytes="many"),
    "bytes in parts": with_event("peaks", host_bytes=0.5),
    "a version that is a number": with_event("environment", keras=3),
    "no shape": with_event("built", input_shape=None),
    "parameters of text": with_event("counted", parameters="61,706"),
    "sizes left out": [
        {"event": "built"} if event["event"] == "built" else event for event in events()
    ],
}


@pytest.mark.parametrize("said", GARBLED.values(), ids=GARBLED)
def test_garbled_events_become_a_crashed_row_that_reads_again(
    said: list[dict[str, Any]], tmp_path: Path
) -> None:
    result = result_of(ok(said), tmp_path)
    assert result.record.status == "crashed"
    assert result.record.error is not None
    assert result.record.error.startswith("the worker left out or garbled a figure: ")
    assert result.record.step_time_p50_s is None
    assert result.step_times_s == []


def test_a_failure_keeps_its_own_reason_where_its_events_are_garbled_too(tmp_path: Path) -> None:
    said: list[dict[str, Any]] = [{"event": "built"}]
    answer = Answer(status="timeout", message="no sign", events=said, ready_s=None)
    record = result_of(answer, tmp_path).record
    assert (record.status, record.error) == ("timeout", "no sign")


# Execution


def options() -> Options:
    return read({})


def test_each_row_is_on_the_disk_and_kept_before_the_next_job_begins(tmp_path: Path) -> None:
    run_file = Store(tmp_path).create_run("xeon-2")
    jobs = plan([TRAIN, INFER], 2, seed=0)
    seen: list[tuple[int, int]] = []

    class Watching(Told):
        def began(self, job: Job) -> None:
            seen.append((len(read_run(run_file.path)), len(results)))

    results: list[Result] = []

    def keep(result: Result) -> None:
        assert read_run(run_file.path)[-1] == result.record
        results.append(result)

    answers = [ok(events()) for _ in jobs]
    execute(jobs, canned(*answers), options(), FACTS, run_file, Watching(), keep=keep)
    run_file.close()
    assert seen == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert [record.order for record in read_run(run_file.path)] == [1, 2, 3, 4]
    times_s = read_step_times(run_file.path, [1, 2, 3, 4])
    assert times_s is not None
    assert times_s.size == 400


def test_a_stack_is_kept_once_a_model_in_a_log_that_the_row_names(tmp_path: Path) -> None:
    run_file = Store(tmp_path).create_run("xeon-2")
    failed = {"event": "failed", "status": "error", "message": "broken", "stack": "File x\nbroken"}
    answer = Answer(status="error", message="broken", events=[failed], ready_s=None)
    jobs = plan([TRAIN], 2, seed=0)
    execute(jobs, canned(answer, answer), options(), FACTS, run_file, Told(), keep=lambda _: None)
    run_file.close()
    errors = [record.error for record in read_run(run_file.path)]
    assert errors == ["broken; stack in 0001.log"] * 2
    assert run_file.path.with_suffix(".log").read_text().count("File x\nbroken") == 1


def test_a_pipe_in_place_of_the_log_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    run_file = Store(tmp_path).create_run("xeon-2")
    os.mkfifo(run_file.path.with_suffix(".log"))
    failed = {"event": "failed", "status": "error", "message": "broken", "stack": "File x\nbroken"}
    answer = Answer(status="error", message="broken", events=[failed], ready_s=None)
    jobs = plan([TRAIN], 1, seed=0)
    with pytest.raises(StoreError, match=r"0001\.log: must be writable: must be a regular file"):
        execute(jobs, canned(answer), options(), FACTS, run_file, Told(), keep=lambda _: None)
    run_file.close()


def test_the_observer_is_told_of_every_job_and_phase(tmp_path: Path) -> None:
    run_file = Store(tmp_path).create_run("xeon-2")
    told = Told()
    jobs = plan([TRAIN], 2, seed=0)
    crash = Answer(status="crashed", message="x", events=[], ready_s=None)
    execute(
        jobs, canned(ok(events()), crash), options(), FACTS, run_file, told, keep=lambda _: None
    )
    run_file.close()
    assert told.lines[:3] == ["planned 2", "began 1", "phase 1 environment"]
    assert "phase 1 warm-up" in told.lines  # the pulse's phase, not its event's name
    assert "phase 1 first step" in told.lines
    assert told.lines[-3:] == ["ended 1 ok", "began 2", "ended 2 crashed"]


def test_a_crash_does_not_keep_the_next_job_from_being_measured(tmp_path: Path) -> None:
    run_file = Store(tmp_path).create_run("xeon-2")
    crash = Answer(status="crashed", message="x", events=[], ready_s=None)
    execute(
        plan([TRAIN], 3, seed=0),
        canned(crash, ok(without_event("steps")), ok(events())),
        options(),
        FACTS,
        run_file,
        Told(),
        keep=lambda _: None,
    )
    run_file.close()
    assert [record.status for record in read_run(run_file.path)] == ["crashed", "crashed", "ok"]


def test_a_row_that_cannot_be_written_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_file = Store(tmp_path).create_run("xeon-2")

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.write", full)
    interpreter = Canned(ok(events()), ok(events()))
    with pytest.raises(StoreError, match="No space left"):
        execute(
            plan([TRAIN], 2, seed=0),
            cast(Interpreter, interpreter),
            options(),
            FACTS,
            run_file,
            Told(),
            keep=lambda _: None,
        )
    run_file.close()
    assert len(interpreter.requests) == 1


def test_the_rows_that_were_kept_are_said_with_their_file(tmp_path: Path) -> None:
    run_file = Store(tmp_path).create_run("xeon-2")
    assert kept(run_file) == "no row was measured"
    run_file.rows = 1
    assert kept(run_file) == f"1 row in {run_file.path}"
    run_file.rows = 2
    assert kept(run_file) == f"2 rows in {run_file.path}"
    run_file.close()


READ_BACK = {
    "event": "read_back",
    "inherited": {"epsilon": "0.001"},
    "model": {"nice": "7", "trace": "a b"},
    "environ": {"OMP_NUM_THREADS": "1", "HOME_OF_A_MODEL": "/m"},
    "precision": "float32+mixed_bfloat16",
    "threads": "1",
    "cores": 1,
    "call_path": "eager",
}


def test_a_row_tells_what_was_read_back_and_what_was_asked(tmp_path: Path) -> None:
    record = result_of(ok([*events()[:-1], READ_BACK, events()[-1]]), tmp_path).record
    assert (
        record.state == "epsilon=0.001 model:env.OMP_NUM_THREADS=1 model:nice=7 model:trace='a b'"
    )
    assert (record.precision, record.threads) == ("float32+mixed_bfloat16", "1")
    assert record.asked == "precision=float32 threads=default"
    assert (record.cores, record.call_path) == (1, "eager")
    assert record.asked_case == TRAIN
    assert record.case != TRAIN


def test_secrets_are_told_apart_in_the_state_and_not_told(tmp_path: Path) -> None:
    states = set()
    for value in ("https://me:pass-one@host", "https://me:pass-two@host", "asia-northeast1-v1"):
        said = {**READ_BACK, "environ": {}, "model": {}, "inherited": {"source": value}}
        state = result_of(ok([*events()[:-1], said, events()[-1]]), tmp_path).record.state or ""
        assert "pass" not in state
        states.add(state)
    assert len(states) == 3
    assert "source=asia-northeast1-v1" in states
