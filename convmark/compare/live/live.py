"""Runs old and new code of all cases, session by session, until all are decided or time is up.

A session is a duet: one fresh process runs both codes of a case. Codes that cannot share a process
take one each, in lock-step. Which case gets the next session, and what the sessions say, is
arithmetic (`convmark.compare.rule`); here the sessions are run.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from convmark.compare.judgement import INTERRUPTED, NOT_JUDGED, ONE_GRAPH, SAME_CODE, LiveSession
from convmark.compare.live.case_result import (
    NO_STEP,
    OTHER_SOFTWARE,
    CaseResult,
    LiveOptions,
    cannot_run,
    hold_files,
    hold_sizes,
    note_unlike,
    only_in_rows,
)
from convmark.compare.live.session import (
    NEW,
    OLD,
    DuetSide,
    Pairing,
    Session,
    SessionPlan,
    SideFailure,
    duet_session,
    lockstep_session,
)
from convmark.compare.live.tree import ForeignCode, check_lacked
from convmark.compare.rule.allotment import next_session, seconds_to_decide
from convmark.compare.rule.decision import (
    CROSS_CHECKED_BY,
    FEWEST_SESSIONS,
    contradicts,
    controls_differ,
    decide,
)
from convmark.core.case import Case
from convmark.core.errors import ConvmarkError
from convmark.core.text import Say, counted, duration_text, percent
from convmark.machine.gpu.cards import watching

MOST_FAILURES = 2
"""So many sessions that die of themselves close a case."""
MOST_LEFT_OUT = 3
"""So many sessions on a slowed or shared card close a case: it would not get better soon."""
_LONGER = 1.1
"""A time left that has grown by this factor is explained."""
WARM_UP_S = 0.2
"""Seconds of a session before its timed turns, at most."""


OnSession = Callable[[int, CaseResult, Session, str], None]
"""Called after each session with the place of its case, all that was found of the case, the
session, and why the session does not count, empty where it does."""
OnDone = Callable[[int, CaseResult], None]
"""Called once for each case, with its place: when it is decided or closed, or at the end."""


def compare_live(
    pairings: Sequence[Pairing],
    terms: LiveOptions,
    say: Say,
    see: OnSession = lambda place, found, session, disturbed: None,
    done: OnDone = lambda place, found: None,
) -> list[CaseResult]:
    """Run sessions where they decide most, until every case is decided or the time is spent.

    Ctrl-C ends it early: what is decided stays, and the other cases are closed as `INTERRUPTED`;
    where all get as many sessions, all are.

    Args:
        say: shows a line for each case that is decided, with how many are left.
    """
    if not pairings:
        return []
    running = _Running(pairings, terms, say, see, done)
    running.run()
    return running.found


class _Running:
    """The comparison under way."""

    def __init__(
        self,
        pairings: Sequence[Pairing],
        terms: LiveOptions,
        say: Say,
        see: OnSession,
        done: OnDone,
    ) -> None:
        self._pairings = pairings
        self._done = done
        self._not_done = list(range(len(pairings)))
        self._terms = terms
        self._say = say
        self._see = see
        self._draw = random.Random(terms.seed)
        self._count, self._told_s = len(pairings) + terms.decided_before, math.inf
        self.found = [
            CaseResult(
                target=terms.target,
                apart="" if pairing.shared else OTHER_SOFTWARE,
                left_over=pairing.case.name in terms.left_over,
                files={NEW: dict(pairing.measured)},
            )
            for pairing in pairings
        ]

    def run(self) -> None:
        """Take sessions until every case is decided or the budget is spent."""
        self._decide()
        try:
            while (place := self._next()) is not None:
                self._take(place)
        except KeyboardInterrupt:
            self._decide()
            for found in self.found:
                unchecked = found.unchecked and not self._terms.evenly
                unended = self._terms.evenly and not found.closed
                if found.candidate().open or unchecked or unended:
                    found.not_checked = INTERRUPTED if unchecked else ""
                    found.closed = INTERRUPTED
        for found in self.found:
            found.needs_s = seconds_to_decide(found.candidate(), self._count, self._terms.limits)
        for place in list(self._not_done):
            self._finish(place)

    def _finish(self, place: int) -> None:
        self.found[place].look_at_all_steps(self._terms.limits)
        self._done(place, self.found[place])
        self._not_done.remove(place)

    def _next(self) -> int | None:
        candidates = [found.candidate() for found in self.found]
        left_s = self._left_s()
        if not self._terms.evenly:
            return next_session(candidates, left_s, self._terms.limits)

        def turn(place: int) -> tuple[bool, int]:
            """Give each case two sessions in a row, which tell a scatter, then all evenly."""
            count = len(self.found[place].live)
            return count >= FEWEST_SESSIONS, count if count >= FEWEST_SESSIONS else -count

        numbered = enumerate(candidates)
        places = [n for n, one in numbered if not one.closed and one.session_s <= left_s]
        return min(places, key=turn, default=None)

    def _left_s(self) -> float:
        """Return what is left for sessions; a part is kept for the layers of regressed cases."""
        slower = (
            pairing.case
            for pairing, one in zip(self._pairings, self.found, strict=True)
            if one.decision is not None and one.decision.verdict == "regressed"
        )
        return self._terms.left_beside_layers(sum(map(self._terms.layers_of, slower)))

    def _take(self, place: int) -> None:
        """Run one session of a case, judge all cases anew, and say which of them that decides.

        A session tells the other cases' noise too, so that it may decide them.
        """
        self._terms.began(place, self.found)
        began, found = self._terms.clock(), self.found[place]
        were_open = [other for other, one in enumerate(self.found) if one.candidate().open]
        taken: tuple[Session, str] | None = None
        with self._closing(found):
            taken = self._session(place)
        if taken is not None and not taken[1]:
            self._keep(self._pairings[place].case, found, taken[0], began)
        self._decide()
        while not self._terms.evenly and (
            convicted := [at for at, one in enumerate(self.found) if one.unchecked]
        ):  # a check tells noise, and may convict another
            with self._closing(self.found[convicted[0]]):
                self._cross_check(self._pairings[convicted[0]], self.found[convicted[0]])
        if taken is not None:
            self._see(place, found, *taken)
        for other in [place] if self._terms.evenly else were_open:
            self._tell(other)

    def _cross_check(self, pairing: Pairing, found: CaseResult) -> None:
        """Check a verdict of duets in separate processes; where these contradict it, they decide.

        What a duet distorts, a cache or a pool of threads that the two share, they do not share.
        """
        sessions: list[LiveSession] = []
        controls: list[float] = []
        codes = found.codes  # of the duets: a process of one code may read more of its files
        for _ in range(CROSS_CHECKED_BY):
            began = self._terms.clock()
            session, disturbed = self._run(pairing, found, apart=True)
            self._check(pairing, session, found)
            if session.disturbing:  # it slows the other code too: no ground for an acquittal
                found.disturbing = found.not_checked = session.disturbing
                sessions.clear()
                break
            if session.wall is None or disturbed:
                break
            sessions.append(self._timed(session, began, apart=True))
            controls += [session.control_wall.value] if session.control_wall else []
        found.checked = [one.wall for one in sessions] if len(sessions) > 1 else [math.nan]
        assert found.decision is not None
        if len(sessions) > 1 and contradicts(found.decision, found.checked):
            duets, checked = percent(found.decision.estimate or 0.0), median(found.checked)
            found.apart = f"{percent(checked)}, but {duets} in one process"
            found.live, found.control, found.decision = sessions, controls, None
            self._decide()
        else:
            found.codes = codes

    def _part(self, found: CaseResult, reason: str) -> None:
        """Give each side a process of its own from here on; duets are not mixed with those."""
        found.apart, found.failures = reason, 0
        found.live, found.control, found.decision = [], [], None
        self._decide()

    def _keep(self, case: Case, found: CaseResult, session: Session, began: float) -> None:
        """Take in a session; before the first those that an earlier run has left undecided."""
        if not found.live and found.codes is not None:
            carried = self._terms.earlier.of(case.name, *found.codes, apart=bool(found.apart))
            found.live += carried.sessions
            found.bar = carried.bar
        found.live.append(self._timed(session, began, apart=bool(found.apart)))
        found.control += [session.control_wall.value] if session.control_wall else []

    def _timed(self, session: Session, began: float, *, apart: bool) -> LiveSession:
        """Return a session that has a ratio as it is kept, with what it took but for a start."""
        assert session.wall is not None
        cpu = session.cpu.value if session.cpu else None
        took_s = max(1e-3, self._terms.clock() - began - session.started_s)
        return LiveSession(
            wall=session.wall.value,
            cpu=cpu,
            seconds=took_s,
            apart=apart,
            all_steps=session.all_steps,
        )

    def _decide(self) -> None:
        """Judge the cases that may still get a session; the decisions on the others are final."""
        final = [
            one.decision if one.decision is not None and not one.candidate().open else None
            for one in self.found
        ]
        sessions = [one.sessions() for one in self.found]
        decisions = decide(sessions, self._terms.limits, final, self._terms.decided_before)
        differ = controls_differ([one.control for one in self.found])
        for found, decision, void in zip(self.found, decisions, differ, strict=True):
            if decision is not found.decision:
                found.decision, found.void = decision, void

    def _tell(self, place: int) -> None:
        """Say what became of the case, where it is decided now or closed."""
        found, case = self.found[place], self._pairings[place].case
        if self._terms.evenly and not found.closed:
            rest = duration_text(max(0.0, self._terms.seconds_left()))
            self._say(f"{case.name}: session {len(found.live)}, about {rest} left")
            return
        if found.candidate().open:
            return
        left = [one for one in self.found if one.candidate().open]
        done = f"{len(self.found) - len(left)} of {counted(len(self.found), 'case')} done"
        self._say(f"{case.name}: {found.closed or found.outcome}; {done}{self._time_left(left)}")
        self._finish(place)

    def _time_left(self, left: Sequence[CaseResult]) -> str:
        """Return the time that open cases still take, in words, and why it is more than before."""
        expected_s = sum(one.expected_s(self._count, self._terms.limits) for one in left)
        left_s = min(expected_s, self._left_s())
        if not 0 < left_s < math.inf:
            return ""
        about = "about" if left_s == expected_s else "at most"
        longer, self._told_s = left_s > _LONGER * self._told_s, left_s
        why = " (longer than thought: step times vary more, or differ)" * longer
        return f", {about} {duration_text(left_s)} left{why}"

    @contextlib.contextmanager
    def _closing(self, found: CaseResult) -> Iterator[None]:
        """Close a case whose code is not to be had; sessions of foreign code do not count."""
        try:
            yield
        except ConvmarkError as error:
            found.closed, found.failed = str(error), True
            if isinstance(error, ForeignCode):
                found.live, found.control, found.decision = [], [], None
                self._decide()

    def _session(self, place: int) -> tuple[Session, str] | None:
        """Run one session of a case and return it.

        With why it does not count, empty where it does; None where it has no ratio.
        """
        pairing, found = self._pairings[place], self.found[place]
        session, disturbed = self._run(pairing, found)
        self._check(pairing, session, found)
        if session.disturbing:  # in one session a busy machine may say so
            found.closed = found.closed or found.disturbing
            found.disturbing = disturbed = session.disturbing
        if not disturbed:
            self._look_at_graphs(pairing, session, found)
        for name, sizes in session.sizes.items():
            found.sizes.setdefault(name, {}).update(sizes)
        if found.closed:
            return None
        if session.refusal:
            self._part(found, session.refusal)
            return self._session(place)
        if session.wall is None:
            self._failed(pairing, session.failure or NO_STEP, found)
            if found.beside is not None and not found.closed:  # it may run by itself
                return self._session(place)
            return None
        if disturbed:
            found.left_out.append(disturbed)
            if len(found.left_out) == MOST_LEFT_OUT:
                found.closed = f"{NOT_JUDGED}: {disturbed}; compare again later"
            else:
                self._say(f"{pairing.case.name}: a session is left out: {disturbed}")
        return session, disturbed

    def _run(
        self, pairing: Pairing, found: CaseResult, *, apart: bool = False
    ) -> tuple[Session, str]:
        """Return a session, and why it is no ground for a verdict, empty where it is.

        Args:
            apart: whether processes of their own are taken, though the codes could share one.
        """
        terms, sides = self._terms, pairing.sides
        plan = SessionPlan(
            seed=self._draw.getrandbits(31) if found.live else terms.seed,  # the rows', for sizes
            order=self._draw.getrandbits(31),
            seconds=terms.session_s * len(sides) / 2,
            warm_up_s=WARM_UP_S * len(sides) / 2,
            with_work=not found.live,
            input_shape=terms.input_shape,
        )
        cards = dict.fromkeys(side.card for side in sides.values() if side.card)
        with watching(list(cards)) as seen:
            seen.see({"event": "warm_up"})  # the cards' state counts from here on

            def see(event: Mapping[str, Any]) -> None:
                if event["event"] == "turns":
                    seen.see({"event": "rounds"})  # and until here, the processes still on them

            if apart or found.apart or pairing.shared is None:
                session = lockstep_session(sides, plan, see)
            else:
                case, results = pairing.case, terms.results
                duet = {name: DuetSide.of(side, case, results) for name, side in sides.items()}
                session = duet_session(pairing.shared, case, duet, plan, see)
        return session, seen.columns(1).get("not_judged") or ""

    def _check(self, pairing: Pairing, session: Session, found: CaseResult) -> None:
        """Check that each side ran the code that it may run."""
        hashes: dict[str, str] = {}
        found.unknown = ""
        for name, code in session.codes.items():
            hold_files(found.files.setdefault(name, {}), code)
            tree = pairing.sides[name].code
            if tree is not None:
                tree.check(code)
                if missed := code.get("missed"):  # it may have read more than is known
                    found.unknown = f"not known what the {name} code ran: {missed}"
                else:
                    hashes[name] = tree.hash_of(code)
        found.lack = check_lacked(pairing.old.code, pairing.new.code, session.codes) or found.lack
        if NEW in session.codes and pairing.measured_alone:
            found.lack = found.lack or only_in_rows(pairing.measured, session.codes.values())
        if len(hashes) == len(pairing.sides):
            found.codes = hashes[OLD], hashes[NEW]
        hold_sizes(session.sizes, found)
        if pairing.shared is not None:
            note_unlike(session.states, found, pairing.old.case, pairing.new.case)
        if found.precisions and pairing.control is None:
            found.closed = f"{found.unlike}; `convmark ab` compares them live"
        same = found.codes is not None and found.codes[0] == found.codes[1]
        if same and not (pairing.may_be_same or found.apart or session.failure or found.lack):
            found.same, found.closed = SAME_CODE, "both sides run the same code"

    def _look_at_graphs(self, pairing: Pairing, session: Session, found: CaseResult) -> None:
        """Look at the graphs where no figure is asked for, and nothing is known to differ."""
        asked = self._terms.evenly or pairing.may_be_same or pairing.control is not None
        is_told = found.live and (found.why_timed != ONE_GRAPH or found.apart)
        differs = found.unlike or found.lack or found.closed
        if asked or is_told or not found.codes or differs:
            return
        carried = self._terms.earlier.of(pairing.case.name, *found.codes, apart=False)
        if not carried.bar:  # its sessions are among those of the case once it has any
            found.look_at_graphs(session, () if found.live else carried.sessions)

    def _failed(self, pairing: Pairing, failure: SideFailure, found: CaseResult) -> None:
        """Take in a session that died; a code that cannot run beside the other is tried alone."""
        found.failures += 1
        if not failure.side and found.failures < MOST_FAILURES:
            return
        shared = not (found.apart or pairing.shared is None or failure.status == "timeout")
        if shared:
            found.beside = failure
            self._part(found, f"with the other, {cannot_run(pairing, failure)}")
            return
        if found.beside is not None:  # that the other was there is not why
            failure = found.beside if found.beside.side == failure.side else failure
            found.apart = ""
        found.closed, found.failed = cannot_run(pairing, failure), True
