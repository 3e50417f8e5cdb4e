"""A duet by the harness: one session of two codes in one process, and what came of it.

The worker builds both codes and lets their steps take turns; here its answer becomes the log ratio
of the step times, with its error within the session, and what each code was. Codes that cannot
share a process give the reason instead, and the caller takes two processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from convmark.case import Case
from convmark.launch import Answer, Interpreter, OnEvent
from convmark.option_values import Shapes
from convmark.statistics import Estimate, trimmed_mean

__all__ = ["NEW", "OLD", "DuetPlan", "DuetSession", "DuetSide", "SideFailure", "duet_session"]

OLD, NEW = "old", "new"
_SIZES = ("parameters", "trainable_parameters", "model_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class DuetSide:
    """One of the two codes: where it lies, and the settings of the case that are its own."""

    folder: Path
    """The working folder."""
    import_roots: Sequence[Path]
    """Folders whose modules go before all others, in order."""
    zoo: Path | None = None
    """The folder of the zoo; None for the interpreter's own."""
    moved: Mapping[str, str] = field(default_factory=dict)
    """Folders whose place the code's tree takes, and the tree."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Of `jit` and `precision`."""
    left_out: Sequence[Path] = ()
    """Files and folders that are no code, such as the results."""

    def fields(self) -> dict[str, Any]:
        """Return the side as a request has it."""
        return {
            "folder": str(self.folder),
            "import_roots": list(map(str, self.import_roots)),
            "moved": dict(self.moved),
            "settings": dict(self.settings),
            "left_out": list(map(str, self.left_out)),
            **({"zoo": str(self.zoo)} if self.zoo else {}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DuetPlan:
    """How long a session is, and what is asked beside its ratio."""

    seed: int
    """Of the weights, the batch and the order: another one for each session."""
    seconds: float = 1.2
    """Of timed turns, at most."""
    enough_error: float = 0.01
    """Standard error of the session's mean log ratio at which its turns end; 0 for never. What
    sessions differ by is more, so that to know one better would tell little."""
    warm_up_s: float = 0.2
    """Of steps of both codes until they are steady."""
    turn_s: float = 0.03
    """Of the timed steps of a turn where a step is shorter than 2.5 ms."""
    single_share: float = 0.0
    """The part of the seconds for turns of one step, where a step is shorter than 2.5 ms."""
    builds: int = 1
    """How often both models are built in the session, where a step is shorter than 2.5 ms."""
    with_work: bool = False
    """Whether FLOPs are counted and replaced functions of the framework are looked for."""
    input_shape: Shapes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SideFailure:
    """Why one of the codes cannot be run."""

    side: str
    """`old` or `new`; empty where the process died of neither by name."""
    reason: str
    status: str
    """`error`, `out_of_memory`, `timeout` or `crashed`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DuetSession:
    """What came of one duet."""

    wall: Estimate | None = None
    """ln(new / old) of the wall time of a step; None where there is none to tell."""
    cpu: Estimate | None = None
    """The same of process CPU time; None too where the clock is too coarse."""
    single: Estimate | None = None
    """ln(new / old) of single steps, which dilute a ratio of short steps and scatter least."""
    step_times_s: Mapping[str, float] = field(default_factory=dict)
    """Median wall seconds of a step by side."""
    pairs: int = 0
    codes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The `code` event of each side."""
    sizes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Parameters, bytes and, where they were counted, FLOPs of each side."""
    states: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Precision and call path of each side, read back."""
    first_steps_s: Mapping[str, float] = field(default_factory=dict)
    """The side that was built first pays for what the framework does once in a process."""
    refusal: str = ""
    """Why the codes cannot share a process; empty where they can."""
    failure: SideFailure | None = None


def duet_session(
    interpreter: Interpreter,
    case: Case,
    old: DuetSide,
    new: DuetSide,
    plan: DuetPlan,
    on_event: OnEvent = lambda event: None,
) -> DuetSession:
    """Have one fresh process of the interpreter run both codes, and return what came of it.

    Args:
        on_event: is told each event of the worker as it comes.

    Raises:
        WorkerError: no process could be started.
    """
    if case.replicas > 1:
        return DuetSession(refusal="several replicas share no process with another code")
    request = {
        "kind": "duet",
        "case": case.as_fields(),
        "seed": plan.seed,
        "seconds": plan.seconds,
        "warm_up_s": plan.warm_up_s,
        "turn_s": plan.turn_s,
        "single_share": plan.single_share,
        "builds": plan.builds,
        "enough_error": plan.enough_error,
        "with_work": plan.with_work,
        **({"input_shapes": dict(plan.input_shape)} if plan.input_shape else {}),
        "sides": {OLD: old.fields(), NEW: new.fields()},
    }
    return session_of(interpreter.answer(request, on_event))


def session_of(answer: Answer) -> DuetSession:
    """Return what a worker's answer amounts to."""
    about: dict[str, Any] = {
        "codes": _by_side(answer, "code"),
        "sizes": _sizes(answer),
        "states": _by_side(answer, "read_back"),
        "first_steps_s": {
            side: event["seconds"] for side, event in _by_side(answer, "first_step").items()
        },
    }
    if refused := answer.event("cannot_share"):
        return DuetSession(refusal=str(refused["reason"]), **about)
    if failed := answer.event("cannot_run"):
        fields = {name: str(failed[name]) for name in ("side", "reason", "status")}
        return DuetSession(failure=SideFailure(**fields), **about)
    if answer.status == "out_of_memory" and about["sizes"]:
        return DuetSession(refusal=f"not enough memory for both: {answer.message}", **about)
    if answer.status != "ok":
        failure = SideFailure(side="", reason=answer.message, status=answer.status)
        return DuetSession(failure=failure, **about)
    events = [event for event in answer.events if event["event"] == "turns"]
    turns = [event for event in events if not event["single"]]
    single = [event for event in events if event["single"]]
    return DuetSession(
        wall=_log_ratio(turns, "wall_s"),
        cpu=_log_ratio(turns, "cpu_s"),
        single=_log_ratio(single, "wall_s"),
        step_times_s={side: _median(turns or single, f"{side}_wall_s") for side in (OLD, NEW)},
        pairs=sum(len(event["old_wall_s"]) for event in turns),
        **about,
    )


def _by_side(answer: Answer, name: str) -> dict[str, dict[str, Any]]:
    """Return the first event of that name of each side: later builds repeat it."""
    found: dict[str, dict[str, Any]] = {}
    for event in answer.events:
        if event["event"] == name and "side" in event:
            found.setdefault(event["side"], event)
    return found


def _sizes(answer: Answer) -> dict[str, dict[str, Any]]:
    """Return the sizes of each side, as a row has them: of weights from the first call too."""
    work = _by_side(answer, "work")
    return {
        side: {
            **{name: event[name] for name in _SIZES},
            **({"flops_per_sample": work[side]["flops_per_sample"]} if side in work else {}),
        }
        for side, event in {**_by_side(answer, "built"), **_by_side(answer, "counted")}.items()
    }


def _median(events: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(np.median(np.concatenate([event[name] for event in events])))


def _log_ratio(events: Sequence[Mapping[str, Any]], clock: str) -> Estimate | None:
    """Return the mean over builds of ln(new / old), each build's a trimmed mean of its pairs.

    Its error is that of the pairs, and with several builds at least what these differ by. None
    where no turns of the kind were taken, or the clock is too coarse for them.
    """
    if not events:
        return None
    values, variances = [], []
    for event in events:
        old = np.asarray(event[f"{OLD}_{clock}"], np.float64)
        new = np.asarray(event[f"{NEW}_{clock}"], np.float64)
        if (old <= 0).any() or (new <= 0).any():
            return None
        found = trimmed_mean(np.log(new) - np.log(old))
        values.append(found.value)
        variances.append((found.error or 0.0) ** 2)
    count = len(values)
    within = sum(variances) / count**2
    between = float(np.var(values, ddof=1)) / count if count > 1 else 0.0
    return Estimate(value=float(np.mean(values)), error=max(within, between) ** 0.5)
