"""The sessions of a comparison so far: what the looks make of them, and when it has settled."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from convmark.judging.confirm import (
    LOOKS,
    Clock,
    Clocks,
    Session,
    control_alarms,
    judge_clocks,
)
from convmark.option_values import Shapes

__all__ = ["CONTROL", "NEW", "OLD", "VOID", "Comparison", "Plan", "Progress", "Tally"]

OLD, NEW, CONTROL = "old", "new", "control"

VOID = "the A/A control differs from its twin"


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
    input_shape: Shapes | None = None
    """Asked for by the user; None for what each model itself takes."""


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
    left_out: tuple[str, ...] = ()
    """Why sessions were left out, one text each: their card was slowed, or shared with others."""
    sizes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By side its model's parameters, trainable parameters, bytes, and FLOPs per sample."""

    @property
    def left_out_text(self) -> str:
        """How many sessions were left out and why the last was; empty where none."""
        count = len(self.left_out)
        plural = "s" if count > 1 else ""
        return f"{count} session{plural} left out: {self.left_out[-1]}" if count else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a comparison is, after each session."""

    sessions: int
    latest: Mapping[tuple[str, Clock], Session]
    """This session's ln(side / old), by the side `new` or `control` and the clock."""
    clocks: Clocks | None
    """What the last look found; None before the first."""
    so_far: Clocks | None
    """The same of all sessions, between looks too: to be shown, never to be decided by."""
    left_out: int = 0
    """Sessions that were left out."""
    not_judged: str = ""
    """Why this one is; empty where it counts."""


class Tally:
    """The sessions so far, and what the looks made of them."""

    def __init__(self, plan: Plan, primary: Clock) -> None:
        self._plan = plan
        self._primary: Clock = primary
        self._found: dict[tuple[str, Clock], list[Session]] = {}
        self._void = False
        self.left_out: list[str] = []
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

    def progress(
        self, latest: Mapping[tuple[str, Clock], Session], not_judged: str = ""
    ) -> Progress:
        """Return what may be shown after a session: its own figures, and the interval so far."""
        return Progress(
            sessions=self.sessions,
            latest=latest,
            clocks=self.clocks,
            so_far=self._judged(self._next_look) if self.sessions > 1 else None,
            left_out=len(self.left_out),
            not_judged=not_judged,
        )

    @property
    def _next_look(self) -> int:
        return min(sum(self.sessions > size for size in LOOKS), len(LOOKS) - 1)

    def _judged(self, look: int, *, last: bool = False) -> Clocks:
        wall, cpu = self._of(NEW, "wall"), self._of(NEW, "cpu")
        rate = self._plan.error_rate
        return judge_clocks(wall, cpu, rate, look, primary=self._primary, last=last)

    def _look(self, look: int, *, last: bool = False) -> None:
        self.clocks = self._judged(look, last=last)
        control = self._of(CONTROL, self._primary)
        self._void = bool(control) and control_alarms(control, self._plan.error_rate, look)
        if self._void:
            self.clocks = self.clocks.without_verdict()

    def cut_short(self, reason: str, *, out_of_time: bool = False) -> Comparison:
        """Say what the sessions so far tell, as no more will come."""
        if self.sessions >= 2:
            self._look(self._next_look, last=True)
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
            left_out=tuple(self.left_out),
            sizes=self.sizes,
        )
