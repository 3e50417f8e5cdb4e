"""One session: fresh processes in which the old and the new code alternate, and its result.

In a duet one process runs both codes: the worker builds them and lets their steps take turns. Codes
that cannot share a process, of other software or under other settings of the whole process, take
one each, in lock-step. Those are started one after the other, in random order, and then settle
together until all are steady: a process that has just been started would be faster than one that
has waited.

A control, where there is one, is the old code once more. Its steps count for the old code too, and
where the two differ nothing that the session says of the new code is to be believed.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from convmark.compare.live.tree import OwnCode
from convmark.compare.live.turn_ratios import disturbing, left_threads, log_ratio, of_all_steps
from convmark.core.case import Case
from convmark.core.errors import WorkerError
from convmark.core.option_values import Shapes
from convmark.core.statistics import Estimate
from convmark.interpreter import Answer, Interpreter, LiveWorker, OnEvent, import_roots
from convmark.machine.gpu.devices import Card
from convmark.worker.protocol import missed_late
from convmark.worker.timing import Turn
from convmark.worker.turns import settled_step_times, take_rounds, turn_steps

OLD, NEW, CONTROL = "old", "new", "control"
_STATES = ("precision", "call_path", "threads", "settings")
_SIZES = ("parameters", "trainable_parameters", "model_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPlan:
    """How long a session is, and what is asked beside its ratio."""

    seed: int
    """Of the weights and the batch."""
    order: int | None = None
    """Of the order of the codes, another one for each session; by default the seed."""
    seconds: float = 1.0
    """Of timed turns, at most."""
    enough_error: float = 0.01
    """Standard error of the session's mean log ratio at which its turns end; 0 for never. What
    sessions differ by is more, so that to know one better would tell little."""
    warm_up_s: float = 0.2
    """Of steps of all codes until they are steady."""
    builds: int = 6
    """How often the models are built in the session at most, where a step is shorter than 2.5 ms:
    twice, and again where the two say different things. A build of a model with short steps may be
    a tenth slower than the next, in one process too."""
    with_work: bool = False
    """Whether the old code's FLOPs are counted, and replaced functions of the framework looked
    for."""
    input_shape: Shapes | None = None

    def request(self, kind: str, case: Case, **more: Any) -> dict[str, Any]:
        shapes = {"input_shapes": dict(self.input_shape)} if self.input_shape else {}
        return {"kind": kind, "case": case.as_fields(), "seed": self.seed, **more, **shapes}


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSide:
    """One of the codes that are compared."""

    case: Case
    """The same for all, but where a setting is what differs."""
    interpreter: Interpreter
    """Starts its processes where it has some of its own."""
    code: OwnCode | None = None
    """All that it may run; None where nothing tells its files from others, as outside git."""
    card: Card | None = None
    """What it runs on; None on the CPU, and where it is not known."""
    asked: Sequence[str] = ()
    """Axes of the case that the user has named: a model that sets one otherwise is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """A case with its two codes."""

    case: Case
    """As a process for all of them is set up: the old code's."""
    old: LiveSide
    new: LiveSide
    control: LiveSide | None = None
    """The old code once more; None where no control is wanted."""
    shared: Interpreter | None
    """Forks a process for each duet; None where the codes are of different software."""
    may_be_same: bool = False
    """Whether one code on both sides is compared with itself all the same."""
    measured: Mapping[str, str] = field(default_factory=dict)
    """By path the hash of each file that the rows' processes have run of the new code."""
    measured_alone: bool = True
    """Whether those processes had no other case, whose files would be among them."""

    @property
    def sides(self) -> dict[str, LiveSide]:
        control = {CONTROL: self.control} if self.control else {}
        return {OLD: self.old, NEW: self.new, **control}


@dataclass(frozen=True, slots=True, kw_only=True)
class DuetSide:
    """One of the codes of a duet: where it lies, and the settings of the case that are its own."""

    folder: Path
    """The working folder."""
    import_roots: Sequence[Path]
    """Folders whose modules go before all others, in order."""
    zoo: Path | None = None
    """The folder of the zoo; None for the interpreter's own."""
    moved: Mapping[str, str] = field(default_factory=dict)
    """Folders whose place the code's tree takes, and the tree."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Of the case; of `jit` and `precision` alone can two codes in one process differ."""
    asked: Sequence[str] = ()
    """As of `LiveSide`."""
    left_out: Sequence[Path] = ()
    """Files and folders that are no code, such as the results."""

    @classmethod
    def of(cls, side: LiveSide, case: Case, results: Path) -> DuetSide:
        """Return a code as a duet takes it; today's where nothing tells its files from others."""
        found = side.code.settings(os.environ) if side.code is not None else {}
        own, common = side.case.as_fields(), case.as_fields()
        return cls(
            folder=found.get("folder", Path.cwd()),
            import_roots=found.get("import_roots") or import_roots(),
            zoo=found.get("zoo"),
            moved=found.get("moved", {}),
            settings={name: value for name, value in own.items() if value != common[name]},
            asked=side.asked,
            left_out=[results],
        )

    def fields(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "import_roots": list(map(str, self.import_roots)),
            "moved": dict(self.moved),
            "settings": dict(self.settings),
            "asked": list(self.asked),
            "left_out": list(map(str, self.left_out)),
            **({"zoo": str(self.zoo)} if self.zoo else {}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SideFailure:
    """Why one of the codes cannot be run."""

    side: str
    """`old`, `new` or `control`; empty where the process died of none by name."""
    reason: str
    status: str
    """`error`, `out_of_memory`, `timeout` or `crashed`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What came of one session."""

    wall: Estimate | None = None
    """ln(new / old) of the wall time of a step; None where there is none to tell."""
    cpu: Estimate | None = None
    """The same of process CPU time; None too where the clock is too coarse."""
    control_wall: Estimate | None = None
    """ln(control / old) of the wall time of a step; None without a control."""
    control_cpu: Estimate | None = None
    all_steps: tuple[float, float] | None = None
    """ln(new / old) of the mean wall and CPU time of all steps; None where it is not known."""
    codes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The `code` event of each side."""
    sizes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Parameters, bytes and, where they were counted, FLOPs of each side."""
    states: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Precision and call path of each side, read back; in lock-step where work was counted."""
    graphs: Mapping[str, str] = field(default_factory=dict)
    """Of each side the hash of its step's graph and of all that it reads, where one is known."""
    refusal: str = ""
    """Why the codes cannot share a process; empty where they can."""
    failure: SideFailure | None = None
    started_s: float = 0.0
    """Seconds in which its interpreters started, which later sessions do not take."""
    disturbing: str = ""
    """What a code computes between its steps, which slows the other; empty for nothing."""

    @property
    def why_timed(self) -> str:
        """Why the graphs do not tell that both codes make the same step; empty where they do."""
        old, new = self.graphs.get(OLD), self.graphs.get(NEW)
        if not (old and new):
            return "no graph tells what its step does"
        return "other graph" if old != new else ""


# -- a duet ----------------------------------------------------------------------------------------


def duet_session(
    interpreter: Interpreter,
    case: Case,
    sides: Mapping[str, DuetSide],
    plan: SessionPlan,
    on_event: OnEvent = lambda event: None,
) -> Session:
    """Run the codes in one fresh process of the interpreter, and return the result.

    Args:
        sides: `old` and `new`, and `control` where there is one.
        on_event: is told each event of the worker as it comes.
    """
    if case.replicas > 1:
        return Session(refusal="several replicas share no process with another code")
    request = plan.request(
        "duet",
        case,
        seconds=plan.seconds,
        warm_up_s=plan.warm_up_s,
        builds=plan.builds,
        enough_error=plan.enough_error,
        with_work=plan.with_work,
        order=plan.seed if plan.order is None else plan.order,
        sides={name: side.fields() for name, side in sides.items()},
    )
    before_s = interpreter.started_s
    found = session_of(interpreter.answer(request, on_event))
    return replace(found, started_s=interpreter.started_s - before_s)


def session_of(answer: Answer) -> Session:
    """Return what a worker's answer to a duet amounts to."""
    about: dict[str, Any] = {
        "codes": _by_side(answer, "code"),
        "sizes": _sizes(answer),
        "states": _by_side(answer, "read_back"),
        "graphs": _graphs(answer),
    }
    for side, event in _by_side(answer, "late").items():
        about["codes"][side].setdefault("missed", missed_late(event))
    if refused := answer.event("cannot_share"):
        return Session(refusal=str(refused["reason"]), **about)
    if failed := answer.event("cannot_run"):
        fields = {name: str(failed[name]) for name in ("side", "reason", "status")}
        return Session(failure=SideFailure(**fields), **about)
    if answer.status == "out_of_memory" and about["sizes"]:
        return Session(refusal=f"not enough memory for both: {answer.message}", **about)
    if answer.status != "ok":
        failure = SideFailure(side="", reason=answer.message, status=answer.status)
        return Session(failure=failure, **about)
    turns = [event for event in answer.events if event["event"] == "turns"]
    if all(left_threads(turns, (NEW, OLD)).values()):  # in a process each it shows whose take more
        return Session(refusal="the steps of both codes leave threads at work", **about)
    return Session(**_ratios(turns), **about, disturbing=disturbing(turns, (NEW, OLD)))


def _by_side(answer: Answer, name: str) -> dict[str, dict[str, Any]]:
    """Return the first event of that name of each side: later builds repeat it."""
    found: dict[str, dict[str, Any]] = {}
    for event in answer.events:
        if event["event"] == name and "side" in event:
            found.setdefault(event["side"], event)
    return found


def _graphs(answer: Answer) -> dict[str, str]:
    return {side: one["digest"] for side, one in _by_side(answer, "graph").items() if one["digest"]}


def _sizes(answer: Answer) -> dict[str, dict[str, Any]]:
    """Return the sizes of each side, as a row has them: of weights from the first call too."""
    sizes = {
        side: {name: event[name] for name in _SIZES}
        for side, event in {**_by_side(answer, "built"), **_by_side(answer, "counted")}.items()
    }
    for side, event in _by_side(answer, "work").items():
        if side in sizes:
            sizes[side]["flops_per_sample"] = event["flops_per_sample"]
    return sizes


# -- in lock-step ----------------------------------------------------------------------------------


def lockstep_session(
    sides: Mapping[str, LiveSide], plan: SessionPlan, on_event: OnEvent = lambda event: None
) -> Session:
    """Run one session with a process for each side.

    Args:
        sides: `old` and `new`, and `control` where there is one.
        on_event: is told `turns` once the last turn is over, the processes still there.
    """
    order = random.Random(plan.seed if plan.order is None else plan.order)
    about: dict[str, Any] = {"codes": {}, "sizes": {}, "states": {}}
    before_s = _started_s(sides)
    with contextlib.ExitStack() as stack:
        workers: dict[str, _Process] = {}
        try:
            for name in order.sample(sorted(sides), len(sides)):
                side = sides[name]
                request = plan.request(
                    "measure", side.case, asked=list(side.asked), with_sizes=plan.with_work
                )
                with _naming(name):
                    worker = stack.enter_context(side.interpreter.live(request))
                    about["codes"][name] = worker.expect("code")
                    if plan.with_work:
                        told = worker.expect("sizes")
                        about["states"][name] = {one: told.pop(one, None) for one in _STATES}
                        about["sizes"][name] = told
                    worker.expect("first_step")
                workers[name] = _Process(name, worker)
            times_s = settled_step_times(workers, plan.warm_up_s, order)
            steps = turn_steps(times_s, apart=True)
            turns = take_rounds(workers, steps, plan.seconds, order, enough_error=plan.enough_error)
            on_event({"event": "turns"})
            ends = {name: process.finish() for name, process in workers.items()}
        except _Failed as failed:
            failure = SideFailure(side=failed.side, reason=str(failed), status="error")
            return Session(failure=failure, **about)
    for name, end in ends.items():
        if missed := missed_late(end):
            about["codes"][name].setdefault("missed", missed)
    about["started_s"] = _started_s(sides) - before_s
    told = turns.fields()
    disturbs = disturbing([told], (NEW, OLD), ends)
    return Session(**_ratios([told]), **about, disturbing=disturbs)


def _started_s(sides: Mapping[str, LiveSide]) -> float:
    return sum(one.started_s for one in {side.interpreter for side in sides.values()})


class _Failed(Exception):
    """A side cannot be run; the text is the reason."""

    def __init__(self, side: str, reason: str) -> None:
        super().__init__(reason)
        self.side = side


@contextlib.contextmanager
def _naming(side: str) -> Iterator[None]:
    try:
        yield
    except WorkerError as error:
        raise _Failed(side, str(error)) from None


class _Process:
    """A side's worker, which takes a turn when it is told to."""

    def __init__(self, name: str, worker: LiveWorker) -> None:
        self._name = name
        self._worker = worker

    def turn(self, steps: int, dropped: int) -> Turn:
        with _naming(self._name):
            self._worker.command(steps=steps, dropped=dropped)
            event = self._worker.expect("turn")
            return Turn(event["wall_s"], event["cpu_s"], event["whole"], event.get("left", False))

    def finish(self) -> dict[str, Any]:
        """Have the worker check its last step and its state, and end; return its last event."""
        with _naming(self._name):
            self._worker.command(steps=0)
            return self._worker.expect("finished")


# -- the ratios ------------------------------------------------------------------------------------


def _ratios(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the ratios of a session by its `turns` events, one of each build."""
    under = [name for name in (OLD, CONTROL) if events and f"{name}_wall_s" in events[0]]
    found = {
        "wall": log_ratio(events, "wall_s", NEW, under),
        "cpu": log_ratio(events, "cpu_s", NEW, under),
    }
    if CONTROL in under:
        found["control_wall"] = log_ratio(events, "wall_s", CONTROL, [OLD])
        found["control_cpu"] = log_ratio(events, "cpu_s", CONTROL, [OLD])
    return {**found, "all_steps": of_all_steps(events, OLD, NEW)}
