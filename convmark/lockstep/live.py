"""Old and new code of all cases, session by session, until each is decided or the time is spent.

A session is a duet: one fresh process runs both codes of a case. Codes that cannot share a process
take two, in lock-step. Which case gets the next session, and what the sessions say, is arithmetic
(`convmark.comparing`); here the sessions are run.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from convmark.case import Case
from convmark.comparing.allotment import Candidate, next_session, seconds_to_decide
from convmark.comparing.decision import FEWEST_SESSIONS, CaseSessions, Decision, decide
from convmark.errors import ConvmarkError
from convmark.gpu.devices import Card
from convmark.gpu.watch import watching
from convmark.judging.judgement import INTERRUPTED, NOT_JUDGED
from convmark.launch import Interpreter, import_roots
from convmark.lockstep.anchor import Beside
from convmark.lockstep.duets import (
    NEW,
    OLD,
    DuetPlan,
    DuetSession,
    DuetSide,
    SideFailure,
    duet_session,
)
from convmark.lockstep.engine import MOST_LEFT_OUT, Plan, Side, lockstep_session
from convmark.lockstep.tree import ForeignCode, OwnCode
from convmark.option_values import Shapes
from convmark.report.units import duration_text

__all__ = ["Found", "Pairing", "Terms", "compare_live"]

FIRST_SESSION_S = 2.5
"""About what a session takes before one was run, seconds."""
MOST_FAILURES = 2
"""So many sessions that die of themselves close a case."""

Say = Callable[[str], None]
Opener = Callable[[], contextlib.AbstractContextManager[tuple[Beside, Beside]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """A case with its two codes."""

    case: Case
    old: OwnCode | None
    new: OwnCode | None
    """None where nothing tells its files from others, as outside git."""
    interpreter: Interpreter
    """Forks a process for each duet."""
    apart: Opener
    """Opens both codes in interpreters of their own, for those that cannot share a process."""
    card: Card | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How the sessions are run, and what they may take."""

    seed: int
    seconds_left: Callable[[], float]
    clock: Callable[[], float]
    """Seconds, to learn how long a session takes."""
    results: Path
    """A folder that is no code."""
    session_s: float = 1.0
    """Seconds of timed turns of a session."""
    warm_up_s: float = 0.3
    input_shape: Shapes | None = None
    control: bool = False
    """Whether both codes are one, an A/A: all cases get sessions until the time is spent."""


@dataclass(slots=True, kw_only=True)
class Found:
    """What came of one case so far; changes are ln(new / old), above 0 is slower."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float | None] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    sizes: dict[str, Any] = field(default_factory=dict)
    """Parameters, bytes and FLOPs of the old model."""
    decision: Decision | None = None
    closed: str = ""
    """Why no further session is run; empty where one may be."""
    same_code: bool = False
    """Whether both codes turned out to be one."""
    apart: str = ""
    """Why the two codes cannot share a process; empty where they can."""
    needs_s: float | None = None
    """Seconds in which it would most likely be decided; None where no time would do."""
    failures: int = 0
    left_out: int = 0

    def sessions(self) -> CaseSessions:
        """Return what the rule takes."""
        cpu = [value for value in self.cpu if value is not None]
        return CaseSessions(wall=self.wall, cpu=cpu if len(cpu) == len(self.wall) else None)

    def candidate(self) -> Candidate:
        """Return what the allotment takes; after `decide`."""
        assert self.decision is not None
        seconds = median(self.took_s) if self.took_s else FIRST_SESSION_S
        return Candidate(decision=self.decision, session_s=seconds, closed=bool(self.closed))


def compare_live(pairings: Sequence[Pairing], terms: Terms, say: Say) -> list[Found]:
    """Run sessions where they decide most, until every case is decided or the time is spent.

    Ctrl-C ends it early: what is decided stays, and the other cases, of an A/A all, are closed as
    `INTERRUPTED`.

    Args:
        say: is told of each case that is decided, and of how many are left.
    """
    if not pairings:
        return []
    with contextlib.ExitStack() as stack:
        running = _Running(pairings, terms, say, stack)
        running.run()
        return running.found


class _Running:
    """The comparison under way."""

    def __init__(
        self, pairings: Sequence[Pairing], terms: Terms, say: Say, stack: contextlib.ExitStack
    ) -> None:
        self._pairings = pairings
        self._terms = terms
        self._say = say
        self._stack = stack
        self._draw = random.Random(terms.seed)
        self._apart: dict[Opener, tuple[Beside, Beside]] = {}
        self.found = [Found() for _ in pairings]

    def run(self) -> None:
        self._decide()
        try:
            while (place := self._next()) is not None:
                self._take(place)
        except KeyboardInterrupt:
            self._decide()
            for found in self.found:
                if found.candidate().open or (self._terms.control and not found.closed):
                    found.closed = INTERRUPTED
        for found in self.found:
            found.needs_s = seconds_to_decide(found.candidate(), len(self.found))

    def _next(self) -> int | None:
        candidates = [found.candidate() for found in self.found]
        if self._terms.control:
            left_s = self._terms.seconds_left()
            places = [
                place
                for place, one in enumerate(candidates)
                if not one.closed and one.session_s <= left_s
            ]
            return min(places, key=self._turn, default=None)
        return next_session(candidates, self._terms.seconds_left())

    def _turn(self, place: int) -> tuple[bool, int]:
        """The order of an A/A: three sessions of each case, which tell a scatter, then evenly."""
        count = len(self.found[place].wall)
        return count >= FEWEST_SESSIONS, count if count >= FEWEST_SESSIONS else -count

    def _take(self, place: int) -> None:
        """Run one session of a case, judge all cases anew, and say what became of this one."""
        began, found = self._terms.clock(), self.found[place]
        before = len(found.wall)
        with self._closing(found):
            self._session(place)
        if len(found.wall) > before:
            found.took_s.append(max(1e-3, self._terms.clock() - began))
        self._decide()
        self._tell(place)

    def _decide(self) -> None:
        decisions = decide([found.sessions() for found in self.found])
        for found, decision in zip(self.found, decisions, strict=True):
            found.decision = decision

    def _tell(self, place: int) -> None:
        """Say what became of the case, where it is decided now or closed."""
        found, case = self.found[place], self._pairings[place].case
        assert found.decision is not None
        if self._terms.control and not found.closed:
            left = duration_text(max(0.0, self._terms.seconds_left()))
            self._say(f"{case.name}: session {len(found.wall)}, about {left} left")
            return
        if not (found.decision.decided or found.closed):
            return
        done = sum(1 for one in self.found if one.closed or (one.decision and one.decision.decided))
        text = found.closed or _described(found.decision)
        self._say(f"{case.name}: {text}; {done} of {len(self.found)} cases done")

    @contextlib.contextmanager
    def _closing(self, found: Found) -> Iterator[None]:
        """Close a case whose code is not to be had; sessions of foreign code do not count."""
        try:
            yield
        except ConvmarkError as error:
            found.closed = str(error)
            if isinstance(error, ForeignCode):
                found.wall.clear()
                found.cpu.clear()

    def _session(self, place: int) -> None:
        """Run one session of a case; what comes of it is in `found`."""
        pairing, found = self._pairings[place], self.found[place]
        values = None if found.apart else self._duet(pairing, found)
        if values is None and found.apart and not found.closed:
            values = self._lockstep(pairing, found)
        if values is None:
            return
        if values.disturbed:
            self._leave_out(pairing.case, found, values.disturbed)
        else:
            found.wall.append(values.wall)
            found.cpu.append(values.cpu)

    def _leave_out(self, case: Case, found: Found, disturbed: str) -> None:
        found.left_out += 1
        if found.left_out == MOST_LEFT_OUT:
            found.closed = f"{NOT_JUDGED}: {disturbed}; compare again when that has ended"
        else:
            self._say(f"{case.name}: a session is left out: {disturbed}")

    def _duet(self, pairing: Pairing, found: Found) -> _Values | None:
        """Return what a duet says; None where it gave nothing."""
        plan = DuetPlan(
            seed=self._draw.getrandbits(31),
            seconds=self._terms.session_s,
            warm_up_s=self._terms.warm_up_s,
            with_work=not found.wall,
            input_shape=self._terms.input_shape,
        )
        results = self._terms.results
        with watching([pairing.card] if pairing.card else []) as seen:
            seen.see({"event": "warm_up"})  # the card's state counts from here on

            def see(event: Mapping[str, Any]) -> None:
                if event["event"] == "turns":
                    seen.see({"event": "rounds"})  # and until here, the process still on the card

            session = duet_session(
                pairing.interpreter,
                pairing.case,
                _side(pairing.old, results),
                _side(pairing.new, results),
                plan,
                see,
            )
        disturbed = seen.columns(1).get("not_judged") or ""
        self._check(pairing, session, found)
        found.sizes |= session.sizes.get(OLD, {})
        if session.refusal:
            found.apart = session.refusal
        elif session.wall is None:
            self._failed(pairing, session.failure or _NOTHING, found)
        elif not found.closed:
            cpu = session.cpu.value if session.cpu else None
            return _Values(session.wall.value, cpu, disturbed)
        return None

    def _check(self, pairing: Pairing, session: DuetSession, found: Found) -> None:
        """Hold what each side ran against what it may run.

        Raises:
            ForeignCode: a side ran code that is not its own.
        """
        sides = {OLD: pairing.old, NEW: pairing.new}
        for name, code in session.codes.items():
            tree = sides[name]
            if tree is not None:
                tree.check(code)
        if pairing.old and pairing.new and len(session.codes) == len(sides):
            hashes = {tree.hash_of(session.codes[name]) for name, tree in sides.items() if tree}
            if len(hashes) == 1 and not session.failure and not self._terms.control:
                found.same_code, found.closed = True, "both sides run the same code"

    def _failed(self, pairing: Pairing, failure: SideFailure, found: Found) -> None:
        found.failures += 1
        tree = {OLD: pairing.old, NEW: pairing.new}.get(failure.side)
        why = tree.explained(failure.reason) if tree is not None else failure.reason
        whose = f"the {failure.side} code" if failure.side else "a code"
        if failure.side or found.failures >= MOST_FAILURES:
            found.closed = f"{whose} cannot be run: {why}"

    def _lockstep(self, pairing: Pairing, found: Found) -> _Values:
        """Return what two processes in lock-step say.

        Raises:
            ConvmarkError: a side cannot be run, or ran code that is not its own.
        """
        if pairing.apart not in self._apart:
            self._apart[pairing.apart] = self._stack.enter_context(pairing.apart())
        old, new = self._apart[pairing.apart]
        plan = Plan(
            seed=self._draw.getrandbits(31),
            warm_up_s=self._terms.warm_up_s,
            error_rate=0.0,
            input_shape=self._terms.input_shape,
        )
        session = lockstep_session(
            Side(old.interpreter, pairing.case, pairing.card, old.tree),
            Side(new.interpreter, pairing.case, pairing.card, new.tree),
            plan,
            self._draw,
            with_sizes=not found.wall,
        )
        found.sizes |= session.sizes.get(OLD, {})
        return _Values(session.wall.log_ratio, session.cpu.log_ratio, session.disturbed)


@dataclass(frozen=True, slots=True)
class _Values:
    """What one session says of a case."""

    wall: float
    """ln(new / old)."""
    cpu: float | None
    disturbed: str
    """Why it does not count, empty where it does."""


_NOTHING = SideFailure(side="", reason="no step was timed", status="error")


def _side(tree: OwnCode | None, results: Path) -> DuetSide:
    """Return a code as a duet takes it; today's where nothing tells its files from others."""
    found = tree.settings(os.environ) if tree is not None else {}
    return DuetSide(
        folder=found.get("folder", Path.cwd()),
        import_roots=found.get("import_roots") or import_roots(),
        zoo=found.get("zoo"),
        moved=found.get("moved", {}),
        left_out=[results],
    )


def _described(decision: Decision) -> str:
    """Say in words what was found: the change with its interval, and the verdict."""
    if decision.estimate is None:
        return "no session yet"
    low, middle, high = (
        100 * math.expm1(value) for value in (decision.low, decision.estimate, decision.high)
    )
    verdict = decision.verdict.replace("_", " ")
    return f"{decision.sessions} sessions, {middle:+.1f} % [{low:+.1f}, {high:+.1f}], {verdict}"
