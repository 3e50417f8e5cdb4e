"""Two codes side by side: workers that take single steps in turn, and the verdict on them.

Each session starts a fresh process on every side; in each round every side takes one turn, in
random order, so that whatever the machine does hits all of them alike. Sessions are judged by
`convmark.judging.confirm` at its looks. A control, where there is one, is the old side twice: where
the two differ, the comparison is void. A session whose card was slowed or shared is left out.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convmark.case import Case
from convmark.errors import WorkerError
from convmark.gpu.devices import Card
from convmark.gpu.watch import watching
from convmark.judging.confirm import Clock, Session
from convmark.judging.judgement import NOT_JUDGED
from convmark.launch import Interpreter, LiveWorker
from convmark.lockstep.tally import CONTROL, NEW, OLD, VOID, Comparison, Plan, Progress, Tally
from convmark.lockstep.tree import OwnCode
from convmark.statistics import trimmed_mean

__all__ = [
    "CONTROL",
    "COULD_NOT_RUN",
    "NEW",
    "VOID",
    "Comparison",
    "Plan",
    "Progress",
    "Side",
    "TwoProcesses",
    "compare",
    "lockstep_session",
    "primary_clock",
]

ROUNDS = (50, 150)
"""The least and the most rounds of a session."""
SESSION_S = 4.0
"""Seconds of rounds that a session may take beyond its least rounds."""
TURN_S = 0.01
MOST_STEPS = 10
"""A turn is one step, or as many as last 10 ms, ten at most: one short step is mostly wake-up."""

MOST_LEFT_OUT = 3
"""So many sessions on a slowed or shared card end a comparison: it would not get better soon."""

ZERO_CPU_S = 1e-9

COULD_NOT_RUN = "code cannot be run"
"""Stands in the reason of a comparison that a failing side has ended."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the codes that are compared."""

    interpreter: Interpreter
    case: Case
    """The same for all sides, but where a setting is what differs."""
    card: Card | None = None
    """What its worker runs on; None on the CPU, and where it is not known."""
    tree: OwnCode | None = None
    """Whose code alone it may run; None where all sides run the same files."""
    asked: Sequence[str] = ()
    """Axes of the case that the user has named: a model that sets one otherwise is refused."""


Watch = Callable[[Progress], None]


def primary_clock(case: Case) -> Clock:
    """Return the clock that decides: CPU time is the steadier one with a single thread."""
    return "cpu" if case.threads == "1" else "wall"


def compare(
    old: Side,
    new: Side,
    plan: Plan,
    *,
    control: Side | None = None,
    watch: Watch = lambda progress: None,
    clock: Callable[[], float] = lambda: 0.0,
) -> Comparison:
    """Run sessions of old and new in lock-step until a look decides.

    Args:
        control: a second copy of the old side, which runs in the same rounds.
        watch: is told after each session.
        clock: seconds, to learn how long a session takes.

    Raises:
        ForeignCode: a side runs code of another tree than its own.
    """
    sides = {OLD: old, NEW: new} | ({CONTROL: control} if control else {})
    clocks_agree = {primary_clock(side.case) for side in sides.values()}
    tally = Tally(plan, primary="cpu" if clocks_agree == {"cpu"} else "wall")
    order = random.Random(plan.seed)
    longest_s = 0.0
    while not tally.settled:
        began = clock()
        if plan.seconds_left() < longest_s:
            return tally.cut_short("the time for confirming is spent", out_of_time=True)
        try:
            latest, disturbed = _session(sides, plan, order, tally)
        except WorkerError as error:
            return tally.cut_short(str(error))
        longest_s = max(longest_s, clock() - began)
        if disturbed:
            tally.left_out.append(disturbed)
        else:
            tally.add(latest)
        watch(tally.progress(latest, disturbed))
        if len(tally.left_out) == MOST_LEFT_OUT:
            return tally.cut_short(f"{NOT_JUDGED}: {disturbed}; compare again when that has ended")
    return tally.result()


@dataclass(frozen=True, slots=True)
class TwoProcesses:
    """One session of two codes, each in a fresh process of its own."""

    wall: Session
    cpu: Session
    sizes: Mapping[str, Mapping[str, Any]]
    """Parameters, bytes and FLOPs of each side, where they were asked for."""
    disturbed: str
    """Why it is no ground for a verdict, empty where it is."""


def lockstep_session(
    old: Side, new: Side, plan: Plan, order: random.Random, *, with_sizes: bool
) -> TwoProcesses:
    """Run one session of old and new in lock-step.

    Raises:
        WorkerError: a side cannot be run; the message says which.
        ForeignCode: a side runs code of another tree than its own.
    """
    tally = Tally(plan, primary="wall")
    if not with_sizes:
        tally.sizes = {OLD: {}, NEW: {}}  # as if they were known
    found, disturbed = _session({OLD: old, NEW: new}, plan, order, tally)
    return TwoProcesses(found[NEW, "wall"], found[NEW, "cpu"], tally.sizes, disturbed)


def _session(
    sides: Mapping[str, Side], plan: Plan, order: random.Random, tally: Tally
) -> tuple[dict[tuple[str, Clock], Session], str]:
    """Return one session's ln(side / old) by wall and by CPU time, of each side but the old.

    And why it is no ground for a verdict, empty where it is.

    Raises:
        WorkerError: a side cannot be run; the message says which.
        ForeignCode: a side runs code of another tree than its own.
    """
    cards = [side.card for side in sides.values() if side.card is not None]
    with contextlib.ExitStack() as stack:
        seen = stack.enter_context(watching(cards))
        workers: dict[str, LiveWorker] = {}
        step_s = 0.0
        for name in order.sample(sorted(sides), len(sides)):
            request = _request(sides[name], plan, with_sizes=name not in tally.sizes)
            tree = sides[name].tree
            with _naming(name, tree):
                workers[name] = stack.enter_context(sides[name].interpreter.live(request))
                if tree is not None:
                    tree.check(workers[name].expect("code"))
                if request["with_sizes"]:
                    tally.sizes[name] = workers[name].expect("sizes")
                step_s += workers[name].expect("warm")["step_time_s"]
        steps = max(1, min(MOST_STEPS, math.ceil(TURN_S * len(sides) / step_s)))
        least, most = ROUNDS
        count = max(least, min(most, int(SESSION_S / (steps * step_s))))
        seen.see({"event": "warm_up"})  # from here on the cards' state counts, until "rounds"
        turns = [_round(sides, workers, steps, order) for _ in range(count)]
        seen.see({"event": "rounds"})
    ratios = {
        (name, clock): _log_ratio(turns, name, f"{clock}_s")
        for name in sides
        if name != OLD
        for clock in _CLOCKS
    }
    return ratios, seen.columns(1).get("not_judged") or ""


_CLOCKS: tuple[Clock, ...] = ("wall", "cpu")


def _request(side: Side, plan: Plan, *, with_sizes: bool) -> dict[str, Any]:
    return {
        "kind": "measure",
        "case": side.case.as_fields(),
        "asked": list(side.asked),
        "seed": plan.seed,
        "time_budget_s": plan.warm_up_s,
        "with_sizes": with_sizes,
        **({"input_shapes": dict(plan.input_shape)} if plan.input_shape else {}),
    }


def _round(
    sides: Mapping[str, Side], workers: Mapping[str, LiveWorker], steps: int, order: random.Random
) -> dict[str, dict[str, Any]]:
    turns = {}
    for name in order.sample(sorted(workers), len(workers)):
        with _naming(name, sides[name].tree):
            workers[name].command(steps=steps)
            turns[name] = workers[name].expect("turn")
    return turns


@contextlib.contextmanager
def _naming(side: str, tree: OwnCode | None) -> Iterator[None]:
    try:
        yield
    except WorkerError as error:
        why = tree.explained(str(error)) if tree is not None else str(error)
        raise WorkerError(f"the {side} {COULD_NOT_RUN}: {why}") from None


def _log_ratio(turns: Sequence[Mapping[str, Any]], side: str, clock: str) -> Session:
    theirs = np.array([turn[side][clock] for turn in turns])
    old = np.array([turn[OLD][clock] for turn in turns])
    ratios = np.log(np.maximum(theirs, ZERO_CPU_S)) - np.log(np.maximum(old, ZERO_CPU_S))
    mean = trimmed_mean(ratios)
    return Session(log_ratio=mean.value, error=mean.error or 0.0)
