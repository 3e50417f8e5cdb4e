"""A session in lock-step: each code has a fresh process of its own, and they take turns.

This is for codes that cannot share a process: of other software, or under other settings of the
whole process. They are started one after the other, in random order, and then settle together, in
turns, until all are steady: a process that has just been started would be faster than one that has
waited.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convmark.compare.live.session import Plan, Session, SideFailure, ratios_of
from convmark.compare.live.tree import OwnCode
from convmark.core.case import Case
from convmark.core.errors import WorkerError
from convmark.interpreter import Interpreter, LiveWorker, OnEvent
from convmark.machine.gpu.devices import Card
from convmark.worker.timing import Turn
from convmark.worker.turns import settled_step_times, take_rounds, turn_steps

__all__ = ["Contender", "lockstep_session"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
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


def lockstep_session(
    sides: Mapping[str, Contender], plan: Plan, on_event: OnEvent = lambda event: None
) -> Session:
    """Run one session with a process for each side.

    Args:
        sides: `old` and `new`, and `control` where there is one.
        on_event: is told `turns` once the last turn is over, the processes still there.
    """
    order = random.Random(plan.seed)
    codes: dict[str, dict[str, Any]] = {}
    sizes: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as stack:
        workers: dict[str, _Process] = {}
        try:
            for name in order.sample(sorted(sides), len(sides)):
                with _naming(name):
                    request = _request(sides[name], plan)
                    worker = stack.enter_context(sides[name].interpreter.live(request))
                    codes[name] = worker.expect("code")
                    if request["with_sizes"]:
                        sizes[name] = worker.expect("sizes")
                    worker.expect("first_step")
                    workers[name] = _Process(name, worker)
            times_s = settled_step_times(workers, plan.warm_up_s, order)
            steps = turn_steps(times_s, plan.turn_s, apart=True)
            turns = take_rounds(workers, steps, plan.seconds, order, enough_error=plan.enough_error)
            on_event({"event": "turns"})
            for process in workers.values():
                process.finish()
        except _Failed as failed:
            failure = SideFailure(side=failed.side, reason=str(failed), status="error")
            return Session(failure=failure, codes=codes, sizes=sizes)
    found = ratios_of([turns.fields()])
    return Session(codes=codes, sizes=sizes, **found)


def _request(side: Contender, plan: Plan) -> dict[str, Any]:
    return {
        "kind": "measure",
        "case": side.case.as_fields(),
        "asked": list(side.asked),
        "seed": plan.seed,
        "with_sizes": plan.with_work,
        **({"input_shapes": dict(plan.input_shape)} if plan.input_shape else {}),
    }


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
            return Turn(event["wall_s"], event["cpu_s"])

    def finish(self) -> None:
        """Have the worker check its last step, and what it has become, and end."""
        with _naming(self._name):
            self._worker.command(steps=0)
            self._worker.expect("finished")
