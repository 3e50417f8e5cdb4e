"""One execution of a suite: check what was asked for, plan, measure case by case, keep the rows.

Both ways in, pytest and the command line, come through here. What the user sees of it is told to
an observer; where the rows go is a `RunFile`.
"""

from __future__ import annotations

import functools
import hashlib
import platform
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

import convmark
from convmark import learning, waterfall
from convmark.case import TIMED_TASKS, Case
from convmark.cautions import speed_flags
from convmark.ceilings import Ceiling, Key, efficiency, key_of
from convmark.environment import Machine
from convmark.errors import ConvmarkError, OptionError, WorkerError
from convmark.gpu.devices import Card, card_columns
from convmark.gpu.visible import card_of, cards_of, choosing
from convmark.gpu.watch import Watch, watching
from convmark.launch import Answer, Interpreter, OnEvent
from convmark.options import Options
from convmark.record import SCHEMA_VERSION, Record
from convmark.statistics import paired_log_ratio, quantile, step_time_summary
from convmark.store import RunFile
from convmark.text import plain_text
from convmark.worker.protocol import one_line

__all__ = [
    "NOT_MEASURED",
    "Facts",
    "Job",
    "Observer",
    "Result",
    "devices_asked_for",
    "execute",
    "facts_of",
    "inspect",
    "kept",
    "measure",
    "measurement_version",
    "of_the_run",
    "plan",
    "request_of",
    "software",
    "unmeasured",
]


NOT_MEASURED = "not measured: "
"""How the error of a row begins whose job no process has been given to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One process of one case, at its place in the plan."""

    case: Case
    process: int
    order: int
    seed: int | None = None
    """Of the task accuracy, whose processes have a seed each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What every row of a run shares."""

    run: str
    machine: Machine
    commit: str | None
    dirty: bool | None
    flags: str
    ceilings: Mapping[Key, Ceiling] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    """The variables that choose which GPUs a worker sees."""
    node: str | None = None
    """The host's name: nodes of one kind share the machine's."""
    plan: str | None = None
    """Hash of what was asked for, by which a run that was interrupted is known again."""

    def card(self, case: Case) -> Card | None:
        """The card of the case's device; None on the CPU, and where it is not known."""
        return card_of(case.device, self.machine.gpus, self.environ)

    def cards(self, case: Case) -> list[Card]:
        """All cards that the case is measured on here, one for each replica, as far as known."""
        return cards_of(case.devices_here, self.machine.gpus, self.environ)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One row and the raw step times behind it, seconds."""

    case: Case
    record: Record
    step_times_s: list[float]
    epochs: Sequence[learning.Epoch] = ()

    @property
    def replayed_s(self) -> list[float]:
        """What a benchmark shows: the steps, of the task accuracy the epochs, seconds."""
        return self.step_times_s or [epoch.epoch_time_s for epoch in self.epochs]


class Serving(Protocol):
    """What has requests served: an `Interpreter`, or `Interpreters`, one for each backend."""

    def answer(self, request: Mapping[str, Any], on_event: OnEvent = ...) -> Answer: ...


class Observer(Protocol):
    """Is told how a run goes on."""

    def planned(self, jobs: Sequence[Job]) -> None: ...

    def began(self, job: Job) -> None: ...

    def phase(self, job: Job, phase: str) -> None: ...

    def ended(self, job: Job, record: Record) -> None: ...


def plan(
    cases: Sequence[Case],
    processes: int,
    seed: int,
    *,
    after: tuple[int, int] = (0, 0),
    seeds: Sequence[int] = (),
) -> list[Job]:
    """Return every process of every case; each case once before any a second time, in random order.

    A case's processes are so spread over the run that a disturbance of seconds hits one of them.

    Args:
        after: processes of each case, and rows, that the run has already.
        seeds: of the task accuracy, whose cases have a process for each and no other.
    """
    order = random.Random(seed)
    processes_before, rows_before = after
    jobs: list[Job] = []
    most = max([processes, *(len(seeds) for case in cases if case.task == learning.TASK)])
    for process in range(processes_before + 1, processes_before + most + 1):
        for case in order.sample(list(cases), len(cases)):
            learns = case.task == learning.TASK
            if process - processes_before <= (len(seeds) if learns else processes):
                its_seed = seeds[process - processes_before - 1] if learns else None
                place = rows_before + len(jobs) + 1
                jobs.append(Job(case=case, process=process, order=place, seed=its_seed))
    return jobs


def inspect(
    interpreter: Interpreter, models: Iterable[str], *, explain: bool = False
) -> dict[str, Any]:
    """Return what the interpreter has, once it is known to have all the models.

    Args:
        explain: whether it also looks for what keeps the framework from a GPU; that takes longer.

    Raises:
        OptionError: a model is unknown to it.
        WorkerError: it cannot say.
    """
    request = {"kind": "inspect", "models": list(models)}
    answer = interpreter.answer({**request, "explain": True} if explain else request)
    found = answer.event("inspected")
    if answer.status != "ok" or found is None:
        raise WorkerError(f"{interpreter.python}: cannot be inspected: {answer.message}")
    for refusal in found["models"].values():
        if refusal is not None:
            raise OptionError(f"--models: {refusal}")
    return found


def devices_asked_for(
    asked: Sequence[str], found: Sequence[str], *, flag: str = "--devices"
) -> list[str]:
    """Return the devices to measure: `all` becomes what is there.

    Args:
        flag: the option by which they were asked for.

    Raises:
        OptionError: a device that was named is not there.
    """
    devices: list[str] = []
    for device in asked:
        if device == "all":
            devices.extend(found)
        elif device in found:
            devices.append(device)
        else:
            raise OptionError(
                f"{flag}: {device} is not there, only {', '.join(found)}; "
                "`convmark doctor` says why"
            )
    return list(dict.fromkeys(devices))


def execute(
    jobs: Sequence[Job],
    interpreter: Serving,
    options: Options,
    facts: Facts,
    run_file: RunFile,
    observer: Observer,
    *,
    keep: Callable[[Result], None],
    now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
) -> None:
    """Measure the jobs in order; each row is on the disk, then kept, before the next job begins.

    The row of a case over several machines is on the disk of the first of them alone.

    Raises:
        WorkerError: no worker can be started at all.
        StoreError: a row cannot be written.
    """
    observer.planned(jobs)
    for job in jobs:
        observer.began(job)
        result = measure(job, interpreter, options, facts, observer.phase, now=now)
        if not job.case.spans_machines or options.cluster is None or options.cluster.keeps_rows:
            run_file.append(result.record, result.step_times_s)
            learning.append_epochs(run_file.path, result.epochs)
        keep(result)
        observer.ended(job, result.record)


def measure(
    job: Job,
    interpreter: Serving,
    options: Options,
    facts: Facts,
    phase: Callable[[Job, str], None] = lambda job, phase: None,
    *,
    now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
) -> Result:
    """Measure one job and return its row, which is kept nowhere yet.

    Args:
        phase: is told what the worker does.

    Raises:
        WorkerError: no worker can be started at all.
    """
    started = now()
    fresh = options.isolation != "none"
    with watching(facts.cards(job.case), fresh=fresh) as watch:
        answer = interpreter.answer(
            request_of(job.case, options, fed=job.process == 1, seed=job.seed),
            functools.partial(_tell, phase, watch, job),
        )
    return _result(job, answer, options, facts, started, watch)


def unmeasured(
    job: Job,
    options: Options,
    facts: Facts,
    why: str,
    *,
    now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
) -> Result:
    """Return the row of a job without an answer: its error says why."""
    answer = Answer(status="crashed", message=one_line(why), ready_s=None)
    with watching(()) as watch:
        return _result(job, answer, options, facts, now(), watch)


def request_of(
    case: Case,
    options: Options,
    *,
    smoke: bool = False,
    fed: bool = True,
    seed: int | None = None,
) -> dict[str, Any]:
    """Return what a worker is asked for one case.

    Args:
        smoke: runs it once, untimed.
        fed: measures the input-bound throughput too; one process of a case does, for its time.
        seed: of the process, where it has one of its own.
    """
    cluster = options.cluster.request(case) if options.cluster and case.cluster else None
    asked = {
        "kind": "measure" if smoke or case.task in TIMED_TASKS else case.task,
        "case": case.as_fields(),
        "seed": options.seed,
        "time_budget_s": options.time_budget_s,
        "smoke": smoke,
        "fed": fed,
        **({"cluster": cluster} if cluster else {}),
    }
    if asked["kind"] == learning.TASK:
        asked |= learning.lesson(options, options.seed if seed is None else seed)
    return asked


def kept(run_file: RunFile) -> str:
    """Say where the rows of a run are."""
    if not run_file.rows:
        return "no row was measured"
    return f"{run_file.rows} row{'s' if run_file.rows != 1 else ''} in {run_file.path}"


def _tell(
    phase: Callable[[Job, str], None], watch: Watch, job: Job, event: Mapping[str, Any]
) -> None:
    watch.see(event)
    phase(job, str(event.get("phase", event["event"])).replace("_", " "))


@functools.cache
def measurement_version() -> str:
    """Return a hash of the code that measures: rows of different ones are not compared."""
    digest = hashlib.sha256()
    folder = Path(__file__).resolve().parent / "worker"
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _result(
    job: Job, answer: Answer, options: Options, facts: Facts, started: datetime, watch: Watch
) -> Result:
    """Make the row of one answer; figures are given only where the whole process went well."""
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
        **watch.columns(job.case.batch_size * len(job.case.devices_here)),
    )
    try:
        record = replace(record, **software(answer.event("environment") or {}), **_sizes(answer))
        if answer.status != "ok":
            return Result(case=job.case, record=record, step_times_s=[])
        if job.case.task not in TIMED_TASKS:
            return _untimed(job.case, record, answer)
        return Result(
            case=job.case,
            record=_below_ceiling(replace(record, **_figures(job.case, answer)), facts),
            step_times_s=_events(answer)["steps"]["times_s"],
        )
    except (ArithmeticError, LookupError, TypeError, ValueError, ConvmarkError) as error:
        if answer.status == "ok":
            message = f"the worker left out or garbled a figure: {one_line(error)}"
            record = replace(record, status="crashed", error=message)
        return Result(case=job.case, record=record, step_times_s=[])


def _untimed(case: Case, record: Record, answer: Answer) -> Result:
    """Return the result of a process whose steps were not timed one by one."""
    measured = replace(record, measurement_version=measurement_version())
    if case.task == waterfall.TASK:
        measured = replace(measured, **waterfall.waterfall_columns(answer.events))
        return Result(case=case, record=measured, step_times_s=[])
    target = record.target_accuracy or 0.0
    measured = replace(measured, **learning.learned_columns(answer, target))
    epochs = learning.epochs_of(measured, answer)
    return Result(case=case, record=measured, step_times_s=[], epochs=epochs)


def of_the_run(case: Case, options: Options, facts: Facts) -> dict[str, Any]:
    """Return the columns in which every row of a case in one run is the same, but for figures."""
    own = {"processes": options.processes, "seed": options.seed}
    return {
        "schema": SCHEMA_VERSION,
        "run": facts.run,
        "convmark": convmark.__version__,
        "commit": facts.commit,
        "dirty": facts.dirty,
        "plan": facts.plan,
        **(learning.asked_columns(options) if case.task == learning.TASK else own),
        "time_budget_s": options.time_budget_s,
        "isolation": options.isolation,
        **_environment(case, facts),
    }


def _events(answer: Answer) -> dict[str, dict[str, Any]]:
    return {event["event"]: event for event in answer.events}


def _environment(case: Case, facts: Facts) -> dict[str, Any]:
    machine = facts.machine
    card = facts.card(case)
    return {
        "machine": machine.name,
        "node": facts.node,
        "cpu": machine.cpu,
        "cores": machine.cores,
        "ram_bytes": machine.ram_bytes,
        "driver": machine.driver if card else None,
        "os": machine.os,
        "flags": facts.flags or None,
        **(card_columns(card) if card else {}),
    }


def software(versions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of what a worker says about its software."""
    names = ("cuda", "cudnn", "python", "tensorflow", "jax", "torch", "keras", "numpy")
    return {name: versions.get(name) for name in names}


def _sizes(answer: Answer) -> dict[str, Any]:
    built = answer.event("built")
    if built is None:
        return {}
    return {
        "input_shape": "x".join(str(axis) for axis in built["input_shape"]),
        "parameters": built["parameters"],
        "trainable_parameters": built["trainable_parameters"],
        "model_bytes": built["model_bytes"],
    }


def _figures(case: Case, answer: Answer) -> dict[str, Any]:
    events = _events(answer)
    steps, windows, peaks = events["steps"], events["windows"], events["peaks"]
    warm_up, state = events["warm_up"], events["state"]
    proof = {event["step"]: event["value"] for event in answer.events if event["event"] == "proof"}
    training = case.task == "train"
    summary = step_time_summary(steps["times_s"])
    return {
        "status": "ok" if warm_up["steady"] else "unsteady",
        "call_path": events["first_step"]["call_path"],
        "flops_per_sample": events["work"]["flops_per_sample"],
        "time_to_first_step_s": events["first_step"]["seconds"],
        "trace_s": events["first_step"]["trace_s"],
        "first_execution_s": events["first_step"]["execution_s"],
        "warm_up_steps": warm_up["steps"],
        "steps": len(steps["times_s"]),
        **{f"step_time_{name}_s": value for name, value in summary.items()},
        "windows": len(windows["times_s"]),
        "window_steps": windows["steps"],
        "throughput_samples_per_s": _throughput(case, windows),
        "input_bound_throughput_samples_per_s": _throughput(case, events.get("input_bound")),
        **_paired(events["rounds"]),
        "host_memory_baseline_bytes": peaks["baseline_bytes"],
        "peak_host_memory_bytes": peaks["host_bytes"],
        "peak_device_memory_bytes": peaks["device_bytes"],
        "load_average_1min": state["load_average_1min"],
        "other_cpu_share": state["other_cpu_share"],
        "involuntary_context_switches": state["involuntary_context_switches"],
        "loss_first": proof[1] if training else None,
        "loss": proof[10] if training else None,
        "output_rms": None if training else proof[1],
    }


def _below_ceiling(record: Record, facts: Facts) -> Record:
    """Put the ceilings of the row's device beside its figures, where they are known."""
    case = record.case
    ceiling = facts.ceilings.get(key_of(case))
    if ceiling is None:
        return record
    work, rate = record.flops_per_sample, record.throughput_samples_per_s
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
    return float(samples / quantile(windows["times_s"], 0.5))


def _paired(rounds: Mapping[str, Any]) -> dict[str, Any]:
    wall = paired_log_ratio(rounds["case_wall_s"], rounds["reference_wall_s"])
    cpu = paired_log_ratio(rounds["case_cpu_s"], rounds["reference_cpu_s"])
    return {
        "rounds": len(rounds["case_wall_s"]),
        "reference": rounds["reference"],
        "reference_version": rounds["reference_version"],
        "measurement_version": measurement_version(),
        "paired_step_time_p50_s": quantile(rounds["case_wall_s"], 0.5),
        "reference_step_time_p50_s": quantile(rounds["reference_wall_s"], 0.5),
        "paired_log_ratio": wall.value if wall else None,
        "paired_log_ratio_se": wall.error if wall else None,
        "paired_log_ratio_cpu": cpu.value if cpu else None,
        "paired_log_ratio_cpu_se": cpu.error if cpu else None,
    }


def facts_of(
    run: str,
    machine: Machine,
    commit: Any,
    environ: Mapping[str, str],
    ceilings: Mapping[Key, Ceiling] | None = None,
    *,
    plan: str | None = None,
) -> Facts:
    """Return the facts that every row of a run shares."""
    return Facts(
        run=run,
        machine=machine,
        commit=commit.sha,
        dirty=commit.dirty,
        flags=speed_flags(environ),
        environ=choosing(environ),
        ceilings=ceilings or {},
        node=plain_text(platform.node()) or None,
        plan=plan,
    )
