"""One execution of a suite: measures case by case and saves the rows.

Both ways in, pytest and the command line, come through here. What the user sees of it is told to
an observer; where the rows go is a `RunFile`.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

import psutil

from convmark.core.case import Case
from convmark.core.files import open_kept, writing
from convmark.core.fitting import unbroken
from convmark.core.options import Options
from convmark.core.tasks import TIMED_TASKS
from convmark.core.text import counted, listed
from convmark.interpreter import Answer, OnEvent
from convmark.machine.gpu.cards import Watch, watching
from convmark.machine.power import PackageWatch, others_busy
from convmark.machine.state import bound, own_cpu_quota
from convmark.results.record import MEASURED, Record
from convmark.results.run_file import RunFile
from convmark.session import learning
from convmark.session.facts import Facts, Job
from convmark.session.latency_limit import LatencyWatch
from convmark.session.progress import RunProgress
from convmark.session.result import Result, missed_of, result_of
from convmark.session.sustained import SustainedWatch, leak
from convmark.worker.protocol import one_line

NOT_MEASURED = "not measured: "
"""How the error of a row begins whose job no process has been given to."""


class Serving(Protocol):
    """What has requests served: an `Interpreter`, or `Interpreters`, one for each backend."""

    def answer(self, request: Mapping[str, Any], on_event: OnEvent = ...) -> Answer:
        """Serve the request, passing each event on, and return the answer."""


# -- when a process was measured: a wall meter's log is joined by it -------------------------------


MOST_APART_S = 0.5
"""Of the two clocks over the time of a process."""


def utc_now() -> datetime:
    return datetime.now(timezone.utc)


def command_started() -> str:
    """Return when this process was started, UTC, ISO 8601."""
    began = datetime.fromtimestamp(psutil.Process().create_time(), timezone.utc)
    return began.isoformat(timespec="milliseconds")


class Stretches:
    """Notes the times of a worker's events, seconds since `started` by the machine's clock.

    A clock that was set meanwhile, which a second clock tells, leaves the columns empty.
    """

    def __init__(
        self,
        started: datetime,
        now: Callable[[], datetime] = utc_now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin at the time at which the process was asked for."""
        self._started, self._now, self._clock = started, now, clock
        self._began_s = clock()
        self._windows: list[float] = []
        self._intervals: list[float] = []
        """Ends of the sustained intervals; the first is where their steps began."""

    def see(self, event: Mapping[str, Any]) -> None:
        name, phase = event["event"], event.get("phase")
        if name == "windows" or (name == "phase" and phase == "windows"):
            self._windows.append(self._since_s())
        elif name == "interval" or (name == "phase" and phase == "sustained"):
            self._intervals.append(self._since_s())

    def _since_s(self) -> float:
        return round((self._now() - self._started).total_seconds(), 3)

    def columns(self, samples_per_step: int) -> dict[str, Any]:
        """Return the row's columns; none where the clock was set meanwhile."""
        took_s = self._since_s()
        if abs(took_s - (self._clock() - self._began_s)) > MOST_APART_S:
            return {}
        found = {"command_started": command_started(), "took_s": took_s}
        if len(self._windows) == 2:
            found |= dict(zip(("windows_from_s", "windows_until_s"), self._windows, strict=True))
        late = max(1, (len(self._intervals) - 1) // 4)
        if len(self._intervals) > 1:
            found["sustained_from_s"] = self._intervals[-1 - late]
            found["sustained_until_s"] = self._intervals[-1]
        return found


# -- one execution ---------------------------------------------------------------------------------


def execute(
    jobs: Sequence[Job],
    interpreter: Serving,
    options: Options,
    facts: Facts,
    run_file: RunFile,
    observer: RunProgress,
    *,
    keep: Callable[[Result], None],
    now: Callable[[], datetime] = utc_now,
) -> None:
    """Measure the jobs in order; each row is on the disk, then kept, before the next job begins.

    The row of a case over several machines is on the disk of the first of them alone.
    """
    observer.planned(jobs)
    held: set[Case] = set()  # whose steps are known to use each sample of their batch
    for job in jobs:
        observer.began(job)
        result = measure(
            job,
            interpreter,
            options,
            facts,
            observer.phase,
            beside=run_file.path,
            each_sample=job.case not in held,
            now=now,
        )
        result = with_kept_stack(with_kept_code(result, run_file), run_file.path)
        if result.record.not_judged:  # other code than before: it was held to nothing yet
            held.discard(job.case)
        elif result.record.measured:
            held.add(job.case)
        if not job.case.spans_machines or options.cluster is None or options.cluster.keeps_rows:
            learning.TABLE.keep(run_file.path, result.epochs)  # before the row, which is then whole
            run_file.append(result.record, result.step_times_s)
        keep(result)
        observer.ended(job, result.record)
        if result.interrupted:
            raise KeyboardInterrupt
    if run_file.rows:
        run_file.hold_own()


def with_kept_code(result: Result, run_file: RunFile) -> Result:
    """Keep what the process ran; a row of other code than its case's first row is not judged."""
    if result.missed:
        run_file.codes.missed.append(result.missed)
    if result.code is None:
        return result
    run_file.codes.keep(result.code)
    sizes = sizes_of(result.record)
    why = run_file.codes.other_than_before(result.case.name, result.code.hash, sizes)
    if not why:
        return result
    return replace(result, record=replace(result.record, not_judged=why))


def sizes_of(record: Record) -> tuple[object, ...]:
    """Return the sizes of the model that a row's process has measured, which its code decides."""
    if record.status not in MEASURED:
        return None, None, None, None
    sizes = record.parameters, record.trainable_parameters, record.model_bytes
    return *sizes, record.flops_per_sample


def with_kept_stack(result: Result, path: Path) -> Result:
    """Keep the stack of a failure in a log beside the run; the row's error then names the log.

    The same stack of the same model is kept once.

    Args:
        path: the run's file.
    """
    if not result.stack:
        return result
    log, record = path.with_suffix(".log"), result.record
    with writing(f"{log}:"):
        known = log.read_text(encoding="utf-8") if log.is_file() else ""
        entry = f"\n{result.stack.rstrip()}\n"
        if f"model {record.model}{entry}" not in known:
            with open(log, "a", encoding="utf-8", opener=open_kept) as file:
                file.write(f"{record.case.name} #{record.process}, model {record.model}{entry}\n")
    named = f"{record.error}; stack in {log.name}"
    return replace(result, record=replace(record, error=named))


def measure(
    job: Job,
    interpreter: Serving,
    options: Options,
    facts: Facts,
    phase: Callable[[Job, str], None] = lambda job, phase: None,
    *,
    beside: Path | None = None,
    each_sample: bool = True,
    now: Callable[[], datetime] = utc_now,
) -> Result:
    """Measure one job and return its row, which is kept nowhere yet.

    Args:
        phase: is told what the worker does.
        beside: the run's file, beside which each interval of sustained steps and each rate that
            was tried at a latency limit is kept as it ends.
        each_sample: holds the step to using each sample; one process of a case does, for its time.

    Raises:
        WorkerError: no worker can be started at all.
        KeyboardInterrupt: the user has interrupted before there was an interval or a try; after
            it the result says so.
    """
    started, quota = now(), own_cpu_quota()
    stretches = Stretches(started, now)  # its two clocks begin together
    others = functools.partial(others_busy, (bound(job.case.cpus) or {}).get("cpus", ()))
    package = PackageWatch(facts.rapl, facts.idle.cpu_w, others=others)
    interrupted, events = False, []
    with watching(facts.cards(job.case), fresh=options.isolation != "none") as cards:
        sustained = SustainedWatch(job, facts, cards, beside)
        limited = LatencyWatch(job, facts, options.latency_limit_s, beside)
        watches: tuple[Watch, ...] = (cards, package, sustained, limited, stretches)

        def see(event: dict[str, Any]) -> None:
            events.append(event)
            for watch in watches:
                watch.see(event)
            name = str(event.get("phase", event["event"])).replace("warm_up", "warm-up")
            phase(job, name.replace("_", " "))

        try:
            answer = interpreter.answer(_request(job, options, each_sample=each_sample), see)
        except KeyboardInterrupt:
            if not sustained.intervals and not limited.tries:
                raise
            interrupted = True  # the measurement before them is whole
            answer = Answer(status="ok", message="", events=events, ready_s=None)
    if answer.status == "ok" and (why := leak(sustained.intervals)):
        answer = replace(answer, status="error", message=why)
    return replace(
        result_of(
            *(job, answer, options, facts.with_quotas(quota, own_cpu_quota()), started, watches)
        ),
        intervals=tuple(sustained.intervals),
        tries=tuple(limited.tries),
        interrupted=interrupted,
        missed=missed_of(answer),
    )


def unmeasured(job: Job, options: Options, facts: Facts, why: str) -> Result:
    """Return the row of a job without an answer: its error says why."""
    answer = Answer(status="crashed", message=one_line(why), ready_s=None)
    return result_of(job, answer, options, facts, utc_now())


_ASKED = {"precision": "precisions", "threads": "threads"}
"""Axes that a model's own code may set, where the option that names them was not given."""


def asked_axes(options: Options) -> list[str]:
    """Return the axes that the user has named, which a model's own code must not set otherwise."""
    return [axis for axis, option in _ASKED.items() if option in options.named]


def _request(job: Job, options: Options, *, each_sample: bool) -> dict[str, Any]:
    return request_of(
        job.case,
        options,
        fed=job.process == 1,
        each_sample=each_sample,
        goes_on=job.goes_on,
        seed=job.seed,
    )


def request_of(
    case: Case,
    options: Options,
    *,
    smoke: bool = False,
    fed: bool = True,
    each_sample: bool = True,
    goes_on: bool = False,
    seed: int | None = None,
) -> dict[str, Any]:
    """Return what a worker is asked for one case.

    Args:
        smoke: runs it once, untimed.
        fed: measures the input-bound throughput too; one process of a case does, for its time.
        each_sample: holds the step to using each sample; one process of a case does, for its time.
        goes_on: has the steps go on, as `--latency-limit` and `--sustain` ask.
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
        "each_sample": each_sample,
        "left_out": [str(options.results.absolute())],
        "asked": asked_axes(options),
        **({"sustain_s": options.sustain_s} if goes_on and options.sustain_s else {}),
        **({"cluster": cluster} if cluster else {}),
        **({"input_shapes": dict(options.input_shape)} if options.input_shape else {}),
    }
    if goes_on and options.latency_limit_s and case.task == "infer":
        asked["latency_limit_s"] = options.latency_limit_s
    if asked["kind"] == learning.TASK:
        asked |= learning.lesson(options, options.seed if seed is None else seed)
    return asked


def kept(run_file: RunFile) -> str:
    """Say where the rows of a run are, in a text for `wrapped`, which keeps the path whole."""
    if not run_file.rows:
        return "no row was measured"
    text = f"{counted(run_file.rows, 'row')} in {unbroken(str(run_file.path))}"
    if left_out := run_file.codes.left_out:
        names = listed([str(one.place) for one in left_out], 3)
        text += f"; not saved with the code that ran, because they are too large: {names}"
    if missed := run_file.codes.missed:
        rows = counted(len(missed), "row")
        text += (
            f"; the code that ran is not known for {rows}, so it is never called the same "
            f"as other code: {missed[0]}"
        )
    return text
