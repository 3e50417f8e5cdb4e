"""Two codes side by side: workers that take single steps in turn, and the verdict on them.

Each session starts a fresh process on every side; in each round every side takes one turn, in
random order, so that whatever the machine does hits all of them alike. Sessions are judged by
`convmark.judging.confirm` at its looks.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convmark.case import Case
from convmark.errors import WorkerError
from convmark.judging.confirm import LOOKS, Clock, Clocks, Session, judge_clocks
from convmark.launch import Interpreter, LiveWorker
from convmark.statistics import trimmed_mean

__all__ = ["Comparison", "Plan", "compare", "primary_clock"]

ROUNDS = (50, 150)
"""The least and the most rounds of a session."""
SESSION_S = 4.0
"""Seconds of rounds that a session may take beyond its least rounds."""
TURN_S = 0.01
MOST_STEPS = 10
"""A turn is one step, or as many as last 10 ms, ten at most: one short step is mostly wake-up."""

ZERO_CPU_S = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a comparison is run."""

    seed: int
    warm_up_s: float
    """Most seconds of warm-up of each worker."""
    error_rate: float
    """Chance of calling identical code changed, over all looks."""
    seconds_left: Callable[[], float] = field(default=lambda: math.inf)
    """Seconds that may still be spent; no session is begun that will not fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What came of it: changes are ln(new / old), so above 0 is slower."""

    clocks: Clocks | None
    """None where no verdict could be sought."""
    wall: tuple[Session, ...]
    cpu: tuple[Session, ...]
    reason: str
    """Why there is no verdict, or why it came early; else empty."""
    out_of_time: bool = False


def primary_clock(case: Case) -> Clock:
    """Return the clock that decides: CPU time is the steadier one with a single thread."""
    return "cpu" if case.threads == "1" else "wall"


def compare(
    case: Case,
    old: Interpreter,
    new: Interpreter,
    plan: Plan,
    watch: Callable[[int, Clocks | None], None] = lambda sessions, clocks: None,
    clock: Callable[[], float] = lambda: 0.0,
) -> Comparison:
    """Run sessions of old and new in lock-step until a look decides.

    Args:
        watch: is told the number of sessions and what is known so far after each of them.
        clock: seconds, to learn how long a session takes.
    """
    order = random.Random(plan.seed)
    wall: list[Session] = []
    cpu: list[Session] = []
    clocks: Clocks | None = None
    longest_s = 0.0
    reason = ""
    out_of_time = False
    while clocks is None or clocks.decision.verdict is None:
        began = clock()
        if plan.seconds_left() < longest_s:
            reason, out_of_time = "the time for confirming is spent", True
            break
        try:
            pair = _session(case, {"old": old, "new": new}, plan, order)
        except WorkerError as error:
            reason = str(error)
            break
        wall.append(pair[0])
        cpu.append(pair[1])
        longest_s = max(longest_s, clock() - began)
        if len(wall) in LOOKS:
            clocks = _look(case, wall, cpu, plan, LOOKS.index(len(wall)))
        watch(len(wall), clocks)
    if reason and len(wall) >= 2:
        look = min(sum(len(wall) > size for size in LOOKS), len(LOOKS) - 1)
        clocks = _look(case, wall, cpu, plan, look, last=True)
    return Comparison(
        clocks=clocks,
        wall=tuple(wall),
        cpu=tuple(cpu),
        reason=reason,
        out_of_time=out_of_time,
    )


def _look(
    case: Case,
    wall: Sequence[Session],
    cpu: Sequence[Session],
    plan: Plan,
    look: int,
    *,
    last: bool = False,
) -> Clocks:
    return judge_clocks(wall, cpu, plan.error_rate, look, primary=primary_clock(case), last=last)


def _session(
    case: Case, sides: Mapping[str, Interpreter], plan: Plan, order: random.Random
) -> tuple[Session, Session]:
    """Return one session's ln(new / old) by wall and by CPU time.

    Raises:
        WorkerError: a side cannot be run; the message says which.
    """
    request = {
        "kind": "measure",
        "case": case.as_fields(),
        "seed": plan.seed,
        "time_budget_s": plan.warm_up_s,
    }
    with contextlib.ExitStack() as stack:
        workers: dict[str, LiveWorker] = {}
        step_s = 0.0
        for name in order.sample(sorted(sides), len(sides)):
            with _naming(name):
                workers[name] = stack.enter_context(sides[name].live(request))
                step_s += workers[name].expect("warm")["step_time_s"]
        steps = max(1, min(MOST_STEPS, math.ceil(TURN_S * len(sides) / step_s)))
        least, most = ROUNDS
        count = max(least, min(most, int(SESSION_S / (steps * step_s))))
        turns = [_round(workers, steps, order) for _ in range(count)]
    return _log_ratio(turns, "wall_s"), _log_ratio(turns, "cpu_s")


def _round(
    workers: Mapping[str, LiveWorker], steps: int, order: random.Random
) -> dict[str, dict[str, Any]]:
    turns = {}
    for name in order.sample(sorted(workers), len(workers)):
        with _naming(name):
            workers[name].command(steps=steps)
            turns[name] = workers[name].expect("turn")
    return turns


@contextlib.contextmanager
def _naming(side: str) -> Any:
    try:
        yield
    except WorkerError as error:
        raise WorkerError(f"the {side} code cannot be run: {error}") from None


def _log_ratio(turns: Sequence[Mapping[str, Any]], clock: str) -> Session:
    new = np.array([turn["new"][clock] for turn in turns])
    old = np.array([turn["old"][clock] for turn in turns])
    ratios = np.log(np.maximum(new, ZERO_CPU_S)) - np.log(np.maximum(old, ZERO_CPU_S))
    mean = trimmed_mean(ratios)
    return Session(log_ratio=mean.value, error=mean.error or 0.0)
