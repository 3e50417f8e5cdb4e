"""Two codes side by side: workers that take single steps in turn, and the verdict on them.

Each session starts a fresh process on every side; in each round every side takes one turn, in
random order, so that whatever the machine does hits all of them alike. Sessions are judged by
`convmark.judging.confirm` at its looks. A control, where there is one, is the old side twice: where
the two differ, the comparison is void.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convmark.case import Case
from convmark.errors import WorkerError
from convmark.judging.confirm import (
    LOOKS,
    Clock,
    Clocks,
    Session,
    control_alarms,
    judge_clocks,
)
from convmark.launch import Interpreter, LiveWorker
from convmark.statistics import trimmed_mean

__all__ = ["VOID", "Comparison", "Plan", "Side", "compare", "primary_clock"]

ROUNDS = (50, 150)
"""The least and the most rounds of a session."""
SESSION_S = 4.0
"""Seconds of rounds that a session may take beyond its least rounds."""
TURN_S = 0.01
MOST_STEPS = 10
"""A turn is one step, or as many as last 10 ms, ten at most: one short step is mostly wake-up."""

ZERO_CPU_S = 1e-9

OLD, NEW, CONTROL = "old", "new", "control"

VOID = "the A/A control differs from its twin"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the codes that are compared."""

    interpreter: Interpreter
    case: Case
    """The same for all sides, but where a setting is what differs."""


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
    target: float = math.inf
    """Half-width of the interval, as a log ratio, down to which it goes on after a verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What came of it: changes are ln(new / old), so above 0 is slower."""

    clocks: Clocks | None
    """None where no verdict could be sought."""
    wall: tuple[Session, ...]
    cpu: tuple[Session, ...]
    control_wall: tuple[Session, ...] = ()
    """ln(control / old) of the same sessions."""
    control_cpu: tuple[Session, ...] = ()
    reason: str
    """Why there is no verdict, or why it came early; else empty."""
    out_of_time: bool = False
    void: bool = False
    """Whether the control alarmed, so that the verdict is inconclusive."""
    sizes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By side its model's parameters, trainable parameters, bytes, and FLOPs per sample."""


Watch = Callable[[int, Clocks | None], None]


def primary_clock(case: Case) -> Clock:
    """Return the clock that decides: CPU time is the steadier one with a single thread."""
    return "cpu" if case.threads == "1" else "wall"


def compare(
    old: Side,
    new: Side,
    plan: Plan,
    *,
    control: Side | None = None,
    watch: Watch = lambda sessions, clocks: None,
    clock: Callable[[], float] = lambda: 0.0,
) -> Comparison:
    """Run sessions of old and new in lock-step until a look decides.

    Args:
        control: a second copy of the old side, which runs in the same rounds.
        watch: is told the number of sessions and what is known so far after each of them.
        clock: seconds, to learn how long a session takes.
    """
    sides = {OLD: old, NEW: new} | ({CONTROL: control} if control else {})
    clocks_agree = {primary_clock(side.case) for side in sides.values()}
    tally = _Tally(plan, primary="cpu" if clocks_agree == {"cpu"} else "wall")
    order = random.Random(plan.seed)
    longest_s = 0.0
    while not tally.settled:
        began = clock()
        if plan.seconds_left() < longest_s:
            return tally.cut_short("the time for confirming is spent", out_of_time=True)
        try:
            tally.add(_session(sides, plan, order, tally))
        except WorkerError as error:
            return tally.cut_short(str(error))
        longest_s = max(longest_s, clock() - began)
        watch(tally.sessions, tally.clocks)
    return tally.result()


class _Tally:
    """The sessions so far, and what the looks made of them."""

    def __init__(self, plan: Plan, primary: Clock) -> None:
        self._plan = plan
        self._primary: Clock = primary
        self._found: dict[tuple[str, Clock], list[Session]] = {}
        self._void = False
        self.clocks: Clocks | None = None
        self.sizes: dict[str, dict[str, Any]] = {}

    @property
    def sessions(self) -> int:
        return len(self._of(NEW, "wall"))

    @property
    def settled(self) -> bool:
        if self.clocks is None or self.clocks.decision.verdict is None:
            return False
        decision = self.clocks.decision
        narrow = (decision.high - decision.low) / 2 <= self._plan.target
        return narrow or self._void or self.sessions >= LOOKS[-1]

    def _of(self, side: str, clock: Clock) -> list[Session]:
        return self._found.setdefault((side, clock), [])

    def add(self, found: Mapping[tuple[str, Clock], Session]) -> None:
        for (side, clock), session in found.items():
            self._of(side, clock).append(session)
        if self.sessions in LOOKS:
            self._look(LOOKS.index(self.sessions))

    def _look(self, look: int, *, last: bool = False) -> None:
        rate = self._plan.error_rate
        wall, cpu = self._of(NEW, "wall"), self._of(NEW, "cpu")
        self.clocks = judge_clocks(wall, cpu, rate, look, primary=self._primary, last=last)
        control = self._of(CONTROL, self._primary)
        self._void = bool(control) and control_alarms(control, rate, look)
        if self._void:
            self.clocks = self.clocks.without_verdict()

    def cut_short(self, reason: str, *, out_of_time: bool = False) -> Comparison:
        """Say what the sessions so far tell, as no more will come."""
        if self.sessions >= 2:
            look = min(sum(self.sessions > size for size in LOOKS), len(LOOKS) - 1)
            self._look(look, last=True)
        return self.result(reason, out_of_time=out_of_time)

    def result(self, reason: str = "", *, out_of_time: bool = False) -> Comparison:
        return Comparison(
            clocks=self.clocks,
            wall=tuple(self._of(NEW, "wall")),
            cpu=tuple(self._of(NEW, "cpu")),
            control_wall=tuple(self._of(CONTROL, "wall")),
            control_cpu=tuple(self._of(CONTROL, "cpu")),
            reason=reason or (VOID if self._void else ""),
            out_of_time=out_of_time,
            void=self._void,
            sizes=self.sizes,
        )


def _session(
    sides: Mapping[str, Side], plan: Plan, order: random.Random, tally: _Tally
) -> dict[tuple[str, Clock], Session]:
    """Return one session's ln(side / old) by wall and by CPU time, of each side but the old.

    Raises:
        WorkerError: a side cannot be run; the message says which.
    """
    with contextlib.ExitStack() as stack:
        workers: dict[str, LiveWorker] = {}
        step_s = 0.0
        for name in order.sample(sorted(sides), len(sides)):
            request = _request(sides[name].case, plan, with_sizes=name not in tally.sizes)
            with _naming(name):
                workers[name] = stack.enter_context(sides[name].interpreter.live(request))
                if request["with_sizes"]:
                    tally.sizes[name] = workers[name].expect("sizes")
                step_s += workers[name].expect("warm")["step_time_s"]
        steps = max(1, min(MOST_STEPS, math.ceil(TURN_S * len(sides) / step_s)))
        least, most = ROUNDS
        count = max(least, min(most, int(SESSION_S / (steps * step_s))))
        turns = [_round(workers, steps, order) for _ in range(count)]
    return {
        (name, clock): _log_ratio(turns, name, f"{clock}_s")
        for name in sides
        if name != OLD
        for clock in _CLOCKS
    }


_CLOCKS: tuple[Clock, ...] = ("wall", "cpu")


def _request(case: Case, plan: Plan, *, with_sizes: bool) -> dict[str, Any]:
    return {
        "kind": "measure",
        "case": case.as_fields(),
        "seed": plan.seed,
        "time_budget_s": plan.warm_up_s,
        "with_sizes": with_sizes,
    }


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
def _naming(side: str) -> Iterator[None]:
    try:
        yield
    except WorkerError as error:
        raise WorkerError(f"the {side} code cannot be run: {error}") from None


def _log_ratio(turns: Sequence[Mapping[str, Any]], side: str, clock: str) -> Session:
    theirs = np.array([turn[side][clock] for turn in turns])
    old = np.array([turn[OLD][clock] for turn in turns])
    ratios = np.log(np.maximum(theirs, ZERO_CPU_S)) - np.log(np.maximum(old, ZERO_CPU_S))
    mean = trimmed_mean(ratios)
    return Session(log_ratio=mean.value, error=mean.error or 0.0)
