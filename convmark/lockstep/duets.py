"""A duet by the harness: one session of two codes in one process, and what came of it.

The worker builds the codes and lets their steps take turns; here its answer becomes a session.
Codes that cannot share a process give the reason instead, and the caller takes a process for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convmark.case import Case
from convmark.launch import Answer, Interpreter, OnEvent
from convmark.lockstep.session import Plan, Session, SideFailure, ratios_of

__all__ = ["DuetSide", "duet_session", "session_of"]

_SIZES = ("parameters", "trainable_parameters", "model_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class DuetSide:
    """One of the codes: where it lies, and the settings of the case that are its own."""

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
    """Axes of the case that the user has named: a model that sets one otherwise is refused."""
    left_out: Sequence[Path] = ()
    """Files and folders that are no code, such as the results."""

    def fields(self) -> dict[str, Any]:
        """Return the side as a request has it."""
        return {
            "folder": str(self.folder),
            "import_roots": list(map(str, self.import_roots)),
            "moved": dict(self.moved),
            "settings": dict(self.settings),
            "asked": list(self.asked),
            "left_out": list(map(str, self.left_out)),
            **({"zoo": str(self.zoo)} if self.zoo else {}),
        }


def duet_session(
    interpreter: Interpreter,
    case: Case,
    sides: Mapping[str, DuetSide],
    plan: Plan,
    on_event: OnEvent = lambda event: None,
) -> Session:
    """Have one fresh process of the interpreter run the codes, and return what came of it.

    Args:
        sides: `old` and `new`, and `control` where there is one.
        on_event: is told each event of the worker as it comes.

    Raises:
        WorkerError: no process could be started.
    """
    if case.replicas > 1:
        return Session(refusal="several replicas share no process with another code")
    request = {
        "kind": "duet",
        "case": case.as_fields(),
        "seed": plan.seed,
        "seconds": plan.seconds,
        "warm_up_s": plan.warm_up_s,
        "turn_s": plan.turn_s,
        "builds": plan.builds,
        "enough_error": plan.enough_error,
        "with_work": plan.with_work,
        **({"input_shapes": dict(plan.input_shape)} if plan.input_shape else {}),
        "sides": {name: side.fields() for name, side in sides.items()},
    }
    return session_of(interpreter.answer(request, on_event))


def session_of(answer: Answer) -> Session:
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
    return Session(**ratios_of(turns), **about)


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
