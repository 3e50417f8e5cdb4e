"""Makes the row of a worker's answer; values are given only if the whole process succeeded."""

from __future__ import annotations

import hashlib
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from convmark.core.case import Case
from convmark.core.errors import ConvmarkError
from convmark.core.options import Options
from convmark.core.statistics import paired_log_ratio, quantile, step_time_summary
from convmark.core.tasks import TASKS, TIMED_TASKS
from convmark.core.text import plain_text
from convmark.interpreter import Answer
from convmark.machine.cautions import changes_speed
from convmark.machine.gpu.cards import Watch
from convmark.results.code.manifest import Code
from convmark.results.record import Record, phases_apart
from convmark.results.schema import COUNTING_VERSION, MEASUREMENT_VERSION
from convmark.results.table_file import TableBeside
from convmark.session import latency_limit, learning, sustained
from convmark.session.ceilings import efficiency, key_of
from convmark.session.facts import Facts, Job, of_the_machine, of_the_run, software
from convmark.session.steadiness import unsteady
from convmark.worker.protocol import masked, missed_late, one_line

EAGER = "eager"
"""A call path of which nothing is compiled."""
MODEL = "model:"
"""How the name of a setting begins that the model's own code has set."""
HASHED = "sha256:"
"""How the hash of a value begins, as the worker's too."""

OF_ROWS: Sequence[TableBeside[Any]] = (learning.TABLE, sustained.TABLE, latency_limit.TABLE)
"""Tables beside a run's file that say more of its rows, by their `order`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One row and the raw step times behind it, seconds."""

    case: Case
    record: Record
    step_times_s: list[float]
    epochs: Sequence[learning.Epoch] = ()
    code: Code | None = None
    """What the process ran; None where it did not come so far, or may have read more."""
    missed: str = ""
    """Why it may have read more; empty where it has not."""
    intervals: Sequence[sustained.Interval] = ()
    """Of sustained steps."""
    tries: Sequence[latency_limit.Tried] = ()
    """At a latency limit."""
    interrupted: bool = False
    """Whether the user ended the sustained steps, which follow the measurement."""
    stack: str = ""
    """Of what went wrong in the worker; empty where the row's error says all."""

    @property
    def replayed_s(self) -> list[float]:
        """What a benchmark shows: the steps, of the task accuracy the epochs, seconds."""
        return self.step_times_s or [epoch.epoch_time_s for epoch in self.epochs]

    @property
    def beside(self) -> Iterator[tuple[TableBeside[Any], Sequence[Any]]]:
        """The rows of each table in `OF_ROWS`."""
        return zip(OF_ROWS, (self.epochs, self.intervals, self.tries), strict=True)


def result_of(
    job: Job,
    answer: Answer,
    options: Options,
    facts: Facts,
    started: datetime,
    watches: Sequence[Watch] = (),
) -> Result:
    """Make the row of one answer; figures are given only where the whole process went well."""
    samples = job.case.batch_size * job.case.replicas // job.case.machines
    seen = {name: cell for watch in watches for name, cell in watch.columns(samples).items()}
    record = Record(
        started=started.isoformat(timespec="milliseconds"),
        order=job.order,
        process=job.process,
        concurrent=options.allow_concurrent,
        status=answer.status,
        error=answer.message or None,
        **job.case.as_fields(),
        effective_batch_size=job.case.batch_size * job.case.replicas,
        process_start_s=answer.ready_s,
        **{"seed": job.seed, **of_the_run(job.case, options, facts)},
        **of_the_machine(job.case, options, facts),
        **seen,
    )
    try:
        record = replace(record, **software(answer.event("environment") or {}), **_sizes(answer))
        record = replace(record, **_export_columns(answer, record.packages))
        code = code_of_answer(answer, facts)
        record = replace(record, **_code_columns(code, record, answer))
        record = replace(record, **_state_of(job.case, answer, facts))
        if answer.status != "ok":
            stack = masked(str((answer.event("failed") or {}).get("stack") or ""))
            return Result(case=job.case, record=record, step_times_s=[], code=code, stack=stack)
        if job.case.task not in TIMED_TASKS:
            return replace(_untimed(job.case, record, answer), code=code)
        call_path = record.call_path or _events(answer)["first_step"]["call_path"]
        figures = _figures(job.case, answer)
        sizes = {"batch_size": job.case.batch_size, "replicas": job.case.replicas}
        if not figures["unsteady"] and (apart := phases_apart({**figures, **sizes})):
            figures |= {"status": "unsteady", "unsteady": apart}  # its phases are of no one step
        record = replace(record, **figures, call_path=call_path)
        return Result(
            code=code,
            case=job.case,
            record=_below_ceiling(record, facts),
            step_times_s=_events(answer)["steps"]["times_s"],
        )
    except (ArithmeticError, LookupError, TypeError, ValueError, ConvmarkError) as error:
        if answer.status == "ok":
            message = f"the worker left out or garbled a figure: {one_line(error)}"
            record = replace(record, status="crashed", error=message)
        return Result(case=job.case, record=record, step_times_s=[])


def what_ran(
    case: Case, answer: Answer, options: Options, facts: Facts, started: datetime
) -> Record:
    """Return the row, without figures, of a process that has run a case's model in another way.

    Raises:
        LookupError: the worker has left something out.
    """
    record = Record(
        started=started.isoformat(timespec="milliseconds"),
        order=1,
        process=1,
        status=answer.status,
        **case.as_fields(),
        effective_batch_size=case.batch_size * case.replicas,
        **of_the_run(case, options, facts),
    )
    record = replace(record, **software(answer.event("environment") or {}))
    record = replace(record, **_code_columns(code_of_answer(answer, facts), record, answer))
    return replace(record, **_state_of(case, answer, facts))


def code_of_answer(answer: Answer, facts: Facts) -> Code | None:
    """Return what a process ran; None where it is not known."""
    event = answer.event("code")
    return facts.codes.code(event) if facts.codes and event and not missed_of(answer) else None


def missed_of(answer: Answer) -> str:
    """Return why it is not known what a process ran; empty where it is, or nothing ran."""
    code, end = answer.event("code") or {}, answer.event("finished") or {}
    return plain_text(str(code.get("missed") or missed_late(end)))


def _code_columns(code: Code | None, record: Record, answer: Answer) -> dict[str, Any]:
    """Return code, packages and commit; none of them where it is not known what ran."""
    if missed_of(answer):
        return {"commit": None}
    if code is None:
        return {}
    return {
        "code": code.hash,
        "packages": " ".join(filter(None, [record.packages, code.packages_text])) or None,
        "commit": record.commit if code.of_commit else None,
    }


def _state_of(case: Case, answer: Answer, facts: Facts) -> dict[str, Any]:
    found, left = answer.event("read_back"), answer.event("left_running")
    return state_columns(case, found, answer.event("code"), facts, left)


def _untimed(case: Case, record: Record, answer: Answer) -> Result:
    """Return the result of a process whose steps were not timed one by one."""
    measured = replace(record, measurement_version=str(MEASUREMENT_VERSION))
    if case.task != learning.TASK:
        columns = learning.waterfall_columns if case.task == learning.WATERFALL else _told_columns
        measured = replace(measured, **columns(answer.events), call_path=None)
        return Result(case=case, record=measured, step_times_s=[])
    target = record.target_accuracy or 0.0
    call_path = "fit, eager" if record.call_path == EAGER else "fit"
    measured = replace(measured, **learning.learned_columns(answer, target), call_path=call_path)
    epochs = learning.epochs_of(measured, answer)
    return Result(case=case, record=measured, step_times_s=[], epochs=epochs)


def _told_columns(told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures of a task whose worker tells them by the names of their columns."""
    (figures,) = (event["columns"] for event in told if event["event"] == "figures")
    return {"status": "ok", **figures}


def _events(answer: Answer) -> dict[str, dict[str, Any]]:
    return {event["event"]: event for event in answer.events}


def _sizes(answer: Answer) -> dict[str, Any]:
    built = answer.event("built")
    if built is None:
        return {}
    shape = _shape_text(built["input_shape"])
    built = answer.event("counted") or built
    return {
        "input_shape": shape,
        "parameters": built["parameters"],
        "trainable_parameters": built["trainable_parameters"],
        "model_bytes": built["model_bytes"],
    }


def _export_columns(answer: Answer, packages: str | None) -> dict[str, Any]:
    """Return the columns of an exported model, as far as it came: a row that fails has them too."""
    events = [answer.event(name) or {} for name in ("exported", "loaded", "agreement")]
    told = {name: value for event in events for name, value in event.items() if name != "event"}
    told.pop("packages", None)
    named = [*(event.get("packages") for event in events), packages]
    found = dict.fromkeys(" ".join(filter(None, named)).split())  # of the makers and the runtime
    return {**told, "packages": " ".join(found) or None}


def _shape_text(shape: Any) -> str:
    """Return a sample's shape as the row has it; of several inputs each one's by name."""
    if isinstance(shape, Mapping):
        return ",".join(f"{name}={_shape_text(axes)}" for name, axes in shape.items())
    return "x".join("?" if axis is None else str(axis) for axis in shape) or "scalar"


def _figures(case: Case, answer: Answer) -> dict[str, Any]:
    events = _events(answer)
    steps, windows, peaks = events["steps"], events["windows"], events["peaks"]
    warm_up, state = events["warm_up"], events["state"]
    proof = {event["step"]: event["value"] for event in answer.events if event["event"] == "proof"}
    training = TASKS[case.task].trains
    summary = step_time_summary(steps["times_s"])
    reason = unsteady(events)
    return {
        "status": "unsteady" if reason else "ok",
        "unsteady": reason,
        **{name: events.get("trained", events["first_step"]).get(name) for name in _TRAINING},
        "flops_per_sample": events["work"]["flops_per_sample"],
        "flops_note": events["work"].get("flops_note"),
        "training_flops_per_sample": events["work"].get("training_flops_per_sample"),
        "counting_version": str(COUNTING_VERSION),
        "time_to_first_step_s": events["first_step"]["seconds"],
        "trace_s": events["first_step"]["trace_s"],
        "first_execution_s": events["first_step"]["execution_s"],
        "warm_up_steps": warm_up["steps"],
        "steps": len(steps["times_s"]),
        **{f"step_time_{name}_s": value for name, value in summary.items()},
        "cpus_in_use": None if peaks.get("elsewhere") else _cpus_in_use(case, steps),
        "windows": len(windows["times_s"]),
        "window_steps": windows["steps"],
        "throughput_samples_per_s": _throughput(case, windows),
        "input_bound_throughput_samples_per_s": _throughput(case, events.get("input_bound")),
        **_paired(events["rounds"], elsewhere=bool(peaks.get("elsewhere"))),
        "host_memory_baseline_bytes": peaks["baseline_bytes"],
        "build_peak_host_memory_bytes": peaks.get("build_host_bytes"),
        "peak_host_memory_bytes": peaks["host_bytes"],
        "peak_device_memory_bytes": peaks["device_bytes"],
        **{name: state[name] for name in learning.HOST},
        "loss_first": proof[1] if training else None,
        "loss": proof[10] if training else None,
        "output_rms": None if training else proof[1],
    }


def _cpus_in_use(case: Case, steps: Mapping[str, Any]) -> float | None:
    """Return how many CPUs the steps kept busy; None where other processes worked too."""
    cpu_s, wall_s = math.fsum(steps.get("cpu_times_s", ())), math.fsum(steps["times_s"])
    return cpu_s / wall_s if cpu_s and wall_s and case.cluster is None else None


_TRAINING = ("training", "optimizer", "loss_name")


def _below_ceiling(record: Record, facts: Facts) -> Record:
    """Put the ceilings of the row's device beside its figures, where they are known."""
    case = record.case
    ceiling = facts.ceilings.get(key_of(case))
    if ceiling is None:
        return record
    trains, rate = TASKS[case.task].trains, record.throughput_samples_per_s
    work = record.training_flops_per_sample if trains else record.flops_per_sample
    return replace(
        record,
        peak_flops_per_s=ceiling.peak_flops_per_s,
        peak_bytes_per_s=ceiling.peak_bytes_per_s,
        efficiency=efficiency(case, work, rate, ceiling) if work and rate else None,
    )


def _throughput(case: Case, windows: Mapping[str, Any] | None) -> float | None:
    if windows is None:
        return None
    samples = windows["steps"] * case.batch_size * case.replicas
    return float(samples * len(windows["times_s"]) / math.fsum(windows["times_s"]))


def _paired(rounds: Mapping[str, Any], *, elsewhere: bool) -> dict[str, Any]:
    """Return the columns of the rounds; that of CPU time is not known of other processes."""
    wall = paired_log_ratio(rounds["case_wall_s"], rounds["reference_wall_s"])
    cpu = None
    if not elsewhere:
        cpu = paired_log_ratio(rounds["case_cpu_s"], rounds["reference_cpu_s"])
    return {
        "rounds": len(rounds["case_wall_s"]),
        "reference": rounds["reference"],
        "reference_version": rounds["reference_version"],
        "measurement_version": str(MEASUREMENT_VERSION),
        "paired_step_time_p50_s": quantile(rounds["case_wall_s"], 0.5),
        "reference_step_time_p50_s": quantile(rounds["reference_wall_s"], 0.5),
        "paired_log_ratio": wall.value if wall else None,
        "paired_log_ratio_se": wall.error if wall else None,
        "paired_log_ratio_cpu": cpu.value if cpu else None,
        "paired_log_ratio_cpu_se": cpu.error if cpu else None,
    }


def state_columns(
    case: Case,
    found: Mapping[str, Any] | None,
    code: Mapping[str, Any] | None,
    facts: Facts,
    left: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the columns that say what the process was; none where it was not read.

    Precision and threads are those that ran, and what was asked for stands in `asked`.

    Args:
        found: the worker's event `read_back`.
        code: its event `code`, which tells the variables that the model's code has read.
        left: the event `left_running`, which names the processes that the model left running.

    Raises:
        LookupError: the worker has left something out.
    """
    if found is None:
        return {}
    inherited = {**found["inherited"]}
    if facts.quota is not None:
        inherited["cpu_quota"] = f"{facts.quota:g}"
    if facts.quota_moved:
        inherited["cpu_quota_moved"] = "True"
    for name, value in (code or {}).get("environ", {}).items():
        if not changes_speed(name):  # those are in `flags`
            inherited[f"env.{name}"] = value
    environ = {
        f"env.{name}": value for name, value in found["environ"].items() if changes_speed(name)
    }
    if left is not None:
        environ["left_running"] = ",".join(left["names"])
    if hosts := (code or {}).get("hosts"):
        environ["asks"] = ",".join(hosts)
    ran = {"precision": found["precision"], "threads": found["threads"]}
    asked = [f"{name}={getattr(case, name)}" for name in ran if ran[name] != getattr(case, name)]
    return {
        **ran,
        "asked": " ".join(asked) or None,
        "state": _pairs(inherited, {**found["model"], **environ}) or None,
        "call_path": found["call_path"],
        "cores": min(found["cores"] or facts.machine.cores, facts.machine.cores),
        "physical_cores": found.get("physical_cores"),
        "pool_threads": found.get("pool_threads"),
    }


def _pairs(inherited: Mapping[str, str], of_the_model: Mapping[str, str]) -> str:
    """Return `NAME=value` pairs in order, the values quoted as a shell wants them.

    A secret is a short hash, for rows are compared by these pairs.
    """
    named = {**inherited, **{f"{MODEL}{name}": value for name, value in of_the_model.items()}}
    return " ".join(
        _pair(plain_text(name), plain_text(value)) for name, value in sorted(named.items())
    )


def _pair(name: str, value: str) -> str:
    pair = f"{name}={shlex.quote(value)}"
    if value.startswith(HASHED) or masked(pair) == pair:
        return pair
    return f"{masked(name)}={HASHED}{hashlib.sha256(pair.encode()).hexdigest()[:8]}"
