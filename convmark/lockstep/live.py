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
from convmark.comparing.decision import CaseSessions, Decision, Limits, decide
from convmark.errors import ConvmarkError
from convmark.gpu.devices import Card
from convmark.gpu.watch import watching
from convmark.judging.judgement import INTERRUPTED, NOT_JUDGED, LiveSession
from convmark.judging.sessions_file import Earlier
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
from convmark.text import percent

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
    session_s: float = 1.2
    """Seconds of timed turns of a session, at most."""
    warm_up_s: float = 0.2
    input_shape: Shapes | None = None
    limits: Limits | None = None
    """What counts as a change; 3 % and 5 % where None."""
    earlier: Earlier = field(default_factory=Earlier.none)
    """What earlier runs give."""


@dataclass(slots=True, kw_only=True)
class Found:
    """What came of one case so far; changes are ln(new / old), above 0 is slower."""

    live: list[LiveSession] = field(default_factory=list)
    """All sessions so far, those of an earlier run first."""
    codes: tuple[str, str] | None = None
    """Hashes of the old and the new code, once a session has told them."""
    bar: float = 0.0
    """The level that a slowdown counts from, as `CaseSessions` has it."""
    left_over: bool = False
    """Whether the last run has left it undecided."""
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
        cpu = [one.cpu for one in self.live if one.cpu is not None]
        return CaseSessions(
            wall=[one.wall for one in self.live],
            cpu=cpu if len(cpu) == len(self.live) else None,
            bar=self.bar,
        )

    def candidate(self) -> Candidate:
        """Return what the allotment takes; after `decide`."""
        assert self.decision is not None
        took_s = [one.seconds for one in self.live]
        return Candidate(
            decision=self.decision,
            session_s=median(took_s) if took_s else FIRST_SESSION_S,
            left_over=self.left_over,
            closed=bool(self.closed),
        )


def compare_live(pairings: Sequence[Pairing], terms: Terms, say: Say) -> list[Found]:
    """Run sessions where they decide most, until every case is decided or the time is spent.

    Ctrl-C ends it early: what is decided stays, and the other cases are closed as `INTERRUPTED`.

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
        self.found = [
            Found(left_over=terms.earlier.left_over(pairing.case.name)) for pairing in pairings
        ]

    def run(self) -> None:
        self._decide()
        try:
            while (place := self._next()) is not None:
                self._take(place)
        except KeyboardInterrupt:
            self._decide()
            for found in self.found:
                if found.candidate().open:
                    found.closed = INTERRUPTED
        for found in self.found:
            found.needs_s = seconds_to_decide(
                found.candidate(), len(self.found), self._terms.limits
            )

    def _next(self) -> int | None:
        candidates = [found.candidate() for found in self.found]
        return next_session(candidates, self._terms.seconds_left(), self._terms.limits)

    def _take(self, place: int) -> None:
        """Run one session of a case, judge all cases anew, and say what became of this one."""
        began, found = self._terms.clock(), self.found[place]
        with self._closing(found):
            values = self._session(place)
            if values is not None:
                took_s = max(1e-3, self._terms.clock() - began)
                self._keep(self._pairings[place].case, found, values, took_s)
        self._decide()
        self._tell(place)

    def _keep(self, case: Case, found: Found, values: _Values, took_s: float) -> None:
        """Take in a session; before the first those that an earlier run has left undecided."""
        if not found.live and found.codes is not None:
            carried = self._terms.earlier.of(case.name, *found.codes, apart=bool(found.apart))
            found.live += carried.sessions
            found.bar = carried.bar
        found.live.append(
            LiveSession(wall=values.wall, cpu=values.cpu, seconds=took_s, apart=bool(found.apart))
        )

    def _decide(self) -> None:
        decisions = decide([found.sessions() for found in self.found], self._terms.limits)
        for found, decision in zip(self.found, decisions, strict=True):
            found.decision = decision

    def _tell(self, place: int) -> None:
        """Say what became of the case, where it is decided now or closed."""
        found, case = self.found[place], self._pairings[place].case
        assert found.decision is not None
        if not (found.decision.decided or found.closed):
            return
        left = [one.candidate() for one in self.found if one.candidate().open]
        text = found.closed or _described(found.decision)
        done = f"{len(self.found) - len(left)} of {len(self.found)} cases done"
        expected_s = sum(self._expected_s(candidate) for candidate in left)
        left_s = min(expected_s, self._terms.seconds_left())
        more = f", about {duration_text(left_s)} left" if 0 < left_s < math.inf else ""
        self._say(f"{case.name}: {text}; {done}{more}")

    def _expected_s(self, candidate: Candidate) -> float:
        """Return about how long an open case still takes, seconds."""
        if candidate.missing:
            return (candidate.missing + 1) * candidate.session_s
        needs_s = seconds_to_decide(candidate, len(self.found), self._terms.limits)
        return math.inf if needs_s is None else needs_s

    @contextlib.contextmanager
    def _closing(self, found: Found) -> Iterator[None]:
        """Close a case whose code is not to be had; sessions of foreign code do not count."""
        try:
            yield
        except ConvmarkError as error:
            found.closed = str(error)
            if isinstance(error, ForeignCode):
                found.live.clear()

    def _session(self, place: int) -> _Values | None:
        """Run one session of a case; None where it gives nothing, or does not count."""
        pairing, found = self._pairings[place], self.found[place]
        values = None if found.apart else self._duet(pairing, found)
        if values is None and found.apart and not found.closed:
            values = self._lockstep(pairing, found)
        if values is not None and values.disturbed:
            self._leave_out(pairing.case, found, values.disturbed)
            return None
        return values

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
            with_work=not found.live,
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
            old, new = (tree.hash_of(session.codes[name]) for name, tree in sides.items() if tree)
            found.codes = old, new
            if old == new and not session.failure:
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
            with_sizes=not found.live,
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
    low, high = (percent(value).removesuffix(" %") for value in (decision.low, decision.high))
    verdict = decision.verdict.replace("_", " ")
    change = percent(decision.estimate)
    return f"{decision.sessions} sessions, {change} [{low}, {high}], {verdict}"
