"""The result of a case's sessions so far, and its verdict at the end.

The terms of a live comparison: how its sessions are run, and what they may take.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from convmark.compare.judgement import (
    BUDGET_SPENT,
    NOT_BY_TIME,
    ONE_GRAPH,
    SAME_GRAPH,
    SAME_WITHIN,
    SOME_STEPS,
    LiveSession,
    joined,
)
from convmark.compare.live.session import CONTROL, NEW, OLD, Pairing, Session, SideFailure
from convmark.compare.live.tree import ForeignCode
from convmark.compare.rule.allotment import Candidate, seconds_to_decide
from convmark.compare.rule.decision import (
    USUAL,
    CaseSessions,
    Decision,
    Limits,
    slower_by_all_steps,
)
from convmark.compare.sessions_file import EarlierSessions
from convmark.core.case import Case
from convmark.core.interval import share_of
from convmark.core.option_values import Shapes
from convmark.core.options import Options
from convmark.core.statistics import interval_of_mean
from convmark.core.text import counted, duration_text, listed, percent, share_text
from convmark.interpreter import zoo_folder

FIRST_SESSION_S = 2.5
"""About what a session takes before one was run, seconds."""
VOID = "the A/A control differs from its twin"
_CONVICTIONS = ("regressed", "improved")
OTHER_SOFTWARE = "other software, or other environment variables"


@dataclass(slots=True, kw_only=True)
class CaseResult:
    """What came of one case so far; changes are ln(new / old), above 0 is slower."""

    live: list[LiveSession] = field(default_factory=list)
    """All sessions so far, those of an earlier run first."""
    control: list[float] = field(default_factory=list)
    """ln(control / old) of them by wall time."""
    codes: tuple[str, str] | None = None
    """Hashes of the old and the new code, once a session has told them."""
    bar: float = 0.0
    """The level that a slowdown counts from, as `CaseSessions` has it."""
    left_over: bool = False
    """Whether the last run has left it undecided."""
    sizes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By side its model's parameters, bytes and FLOPs."""
    unlike: str = ""
    """In what the two sides' steps differ beside their time; empty where in nothing."""
    lack: str = ""
    """Which files the one side alone had, for git ignores them, or the rows alone; else empty."""
    unknown: str = ""
    """Why it is not known what a side of the last session ran; empty where it is."""
    precisions: tuple[str, str] | None = None
    """Of the two sides, where they differ though both were asked for one."""
    decision: Decision | None = None
    target: float = math.inf
    closed: str = ""
    """Why no further session is run; empty where one may be."""
    failed: bool = False
    """Whether that is because a code cannot be run."""
    same: str = ""
    """`SAME_CODE` where both codes turned out to be one, `SAME_GRAPH` where their steps did."""
    void: bool = False
    """Whether the control differs from the old code, though they are one."""
    apart: str = ""
    """Why the two codes cannot share a process; empty where they can."""
    checked: list[float] = field(default_factory=list)
    """ln(new / old) of the separate processes that its conviction was held against."""
    not_checked: str = ""
    """Why its conviction was held against none, though it might have been."""
    needs_s: float | None = None
    """Seconds in which it would most likely be decided; None where no time would do, or too few
    sessions tell it."""
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    """By side and path the hash of each file that its processes have run so far."""
    failures: int = 0
    beside: SideFailure | None = None
    """How a duet failed before each code was tried in a process of its own."""
    why_timed: str = ""
    """Why the graphs of its steps do not tell that both codes are one; empty where they do, or were
    not asked. `ONE_GRAPH` where they do, and the times have not agreed so far."""
    some_steps: str = ""
    """What `look_at_all_steps` has found; empty for nothing."""
    left_out: list[str] = field(default_factory=list)
    """Why sessions were left out, one text each: their card was slowed, or shared with others, or
    a code computed between its steps."""
    disturbing: str = ""
    """What a code was first found to compute between its steps; the second time closes the case."""

    def sessions(self) -> CaseSessions:
        """Return what the rule takes."""
        cpu = [one.cpu for one in self.live if one.cpu is not None]
        return CaseSessions(
            wall=[one.wall for one in self.live],
            cpu=cpu if len(cpu) == len(self.live) else None,
            bar=self.bar,
            apart=bool(self.apart),
        )

    def candidate(self) -> Candidate:
        """Return what the allotment takes; after `decide`."""
        assert self.decision is not None
        took_s = [one.seconds for one in self.live]
        return Candidate(
            decision=self.decision,
            session_s=median(took_s) if took_s else FIRST_SESSION_S,
            target=self.target,
            left_over=self.left_over,
            closed=bool(self.closed),
        )

    def expected_s(self, cases: int, limits: Limits) -> float:
        """Return about how long it still takes while it is open, seconds; of so many cases."""
        candidate = self.candidate()
        if candidate.missing:
            return (candidate.missing + 1) * candidate.session_s
        needs_s = seconds_to_decide(candidate, cases, limits)
        return math.inf if needs_s is None else needs_s

    @property
    def unchecked(self) -> bool:
        """Whether duets have convicted it and no separate process has been asked yet."""
        convicts = self.decision is not None and self.decision.verdict in _CONVICTIONS
        return convicts and not (self.apart or self.closed or self.checked or self.void)

    @property
    def separate(self) -> list[str]:
        """What separate processes said of a conviction, or why the sessions were all of them."""
        if self.apart:  # the sides name their software themselves
            return [f"in a process each: {self.apart}"] * (self.apart != OTHER_SOFTWARE)
        if not self.checked:
            is_conviction = self.decision is not None and self.decision.verdict in _CONVICTIONS
            why = self.closed if self.failed else self.not_checked
            return [f"not checked: {why}"] if why and is_conviction else []
        if math.isnan(self.checked[0]):
            why = self.not_checked or "the codes did not run in separate processes"
            return [f"not checked: {why}"]
        checked, found = percent(median(self.checked)), interval_of_mean(self.checked)
        change = (self.decision.estimate if self.decision is not None else None) or 0.0
        if found.low <= min(0.0, change) and max(0.0, change) <= found.high:
            return [f"separate processes are too noisy to tell ({checked})"]
        told = "within the noise of both, so the change by the sessions counts"
        return [f"separate processes {checked}, {told}"]

    @property
    def has_verdict(self) -> bool:
        """Whether something is said of the case, however early it was ended."""
        return bool(self.same) or (self.decision is not None and self.decision.decided)

    @property
    def described(self) -> str:
        """What was found: the change with its interval, and the verdict."""
        decision = self.decision
        if decision is None or decision.estimate is None:
            return "no session yet"
        verdict = "void" if self.void else decision.verdict.replace("_", " ")
        return f"{counted(decision.sessions, 'session')}, {decision.text}, {verdict}"

    @property
    def outcome(self) -> str:
        """What was found, and why a graph did not tell it."""
        return joined(self.described, self.why_timed)

    def look_at_all_steps(self, limits: Limits) -> None:
        """Note where no slowdown is decided though all steps together are surely slower.

        By more than the margin; what is called faster, be it within the margin, must not be slower
        at all.
        """
        decision, verdict = self.decision, self.decision.plain_verdict if self.decision else ""
        if decision is None or self.same or verdict not in ("unchanged", "improved"):
            return
        changes = [one.all_steps for one in self.live if one.all_steps is not None]
        is_faster = decision.verdict in ("improved", "faster_within_margin")
        if change := slower_by_all_steps(changes, 0.0 if is_faster else limits.margin):
            self.some_steps = (
                f"{SOME_STEPS}{verdict}, but all steps together take "
                f"{share_text(share_of(change))} longer: some do more work; compare the throughput "
                "of a run of each code"
            )

    def look_at_graphs(self, session: Session, earlier: Sequence[LiveSession] = ()) -> None:
        """Take in whether both codes make one graph, and close the case where that decides it.

        The first session tells the graphs, and noise may move it by more than `SAME_WITHIN`. So the
        median of all is held to that after it and after 2, 4, 8 sessions and so on: of many looks
        one would agree by chance. So is the CPU time of all steps together: what Python does beside
        a graph may take long in a few of them.

        Args:
            earlier: the sessions of earlier runs, before the first of this one.
        """
        if session.wall is None:
            return
        is_first, known = not self.live, [*earlier, *self.live]
        walls = [*(one.wall for one in known), session.wall.value]
        told = [*(one.all_steps for one in known), session.all_steps]
        all_cpu = median([one[1] for one in told if one is not None] or [0.0])
        if session.graphs or is_first:
            self.why_timed = session.why_timed or ONE_GRAPH
        is_look = is_first or len(walls).bit_count() == 1
        agree = max(abs(median(walls)), all_cpu) <= SAME_WITHIN
        if self.why_timed == ONE_GRAPH and is_look and agree:
            self.same, self.closed, self.why_timed = (
                SAME_GRAPH,
                "both codes make the same graph",
                "",
            )

    def undecided(self, remedy: str) -> str:
        """Return why it is not decided, once no further session is run.

        Args:
            remedy: what to try where the time is spent.
        """
        if self.closed:
            return self.closed
        if self.decision is None or self.decision.estimate is None:
            taken = self.decision.sessions if self.decision is not None else 0
            few = "one session tells no change" if taken else "no session was run"
            if self.left_out and not taken:
                few = f"no session counts ({self.left_out[-1]})"
            return f"{BUDGET_SPENT}: {few}: {remedy}"
        if self.needs_s is None:
            return f"{BUDGET_SPENT}: {NOT_BY_TIME}"
        more = duration_text(self.needs_s)
        return f"{BUDGET_SPENT}: about {more} more would decide: {remedy}"

    def verdict(self, remedy: str) -> tuple[str, str]:
        """Return the verdict, once no further session is run, and why it is so or what to try."""
        decision = self.decision
        assert decision is not None
        if self.same:
            return "unchanged", self.same
        plain, reasons = decision.plain_verdict, []
        if self.void:
            plain, reasons = "inconclusive", [VOID]
        elif self.some_steps:
            plain, reasons = "inconclusive", [self.some_steps]
        elif decision.verdict == "undecided":
            reasons = [self.undecided(remedy)]
        elif decision.within_margin:
            reasons = [decision.margin_text]
        elif self.candidate().open:
            reasons = [f"{BUDGET_SPENT} before the interval was as narrow as --target"]
        return plain, "; ".join([*reasons, *self.separate])


MOST_NAMED = 3
Facts = Mapping[str, Mapping[str, Any]]
"""By side what a session tells, by name."""


def hold_sizes(sizes: Facts, found: CaseResult) -> None:
    """Hold the models that one code builds in all sessions, and in its control, to being one."""
    for side, of_side in sizes.items():
        twin = sizes.get(OLD, {}) if side == CONTROL else {}
        for what, now in of_side.items():
            # each session has a seed, by which a model may decide how much it computes
            earlier = {} if what == "flops_per_sample" else found.sizes.get(side, {})
            for then in (earlier.get(what), twin.get(what)):
                if None not in (then, now) and then != now:
                    found.sizes.clear()  # nor are they of the rows' model
                    raise ForeignCode(
                        f"the {side} code builds different models, of {then} {what}, then of {now}"
                        "; seed its random numbers, and do not read the clock in it"
                    )


def only_in_rows(measured: Mapping[str, str], codes: Iterable[Mapping[str, Any]]) -> str:
    """Say which files the rows' processes have run that a session has not.

    But for the zoo's: a process has more of its modules where it has measured by itself.

    Args:
        measured: as of `Pairing`.
        codes: what the session tells of each side: what a package of both reads once is told of
            the side that was first.
    """
    zoo = zoo_folder().resolve()
    ran = {str(file["path"]) for code in codes for file in code.get("files", ())}
    names = [name for name in measured if name not in ran and not Path(name).is_relative_to(zoo)]
    return f"the run also read {listed(names, MOST_NAMED)}, the comparison did not" * bool(names)


def hold_files(known: dict[str, str], code: Mapping[str, Any]) -> None:
    """Check that a side's files are what its earlier processes have run, and take in new ones."""
    for file in code.get("files", ()):
        path, content = str(file["path"]), str(file["sha256"])
        if known.setdefault(path, content) != content:
            raise ForeignCode(
                f"{path} has changed since the case was measured; measure and compare it again"
            )


def note_unlike(states: Facts, found: CaseResult, old: Case, new: Case) -> None:
    """Note in what the two sides' steps differ that the two cases do not differ in by a setting."""
    if found.unlike:
        return
    alike = {
        "precision": old.precision == new.precision,
        "call_path": old.jit == new.jit,
        "threads": old.threads == new.threads,
    }
    words = []
    for name in (name for name, is_alike in alike.items() if is_alike):
        pair = [states.get(side, {}).get(name) for side in (OLD, NEW)]
        if all(pair) and pair[0] != pair[1]:
            words.append(f"{name.replace('_', ' ')} differs: {pair[0]} and {pair[1]}")
            if name == "precision":
                found.precisions = str(pair[0]), str(pair[1])
    own, theirs = ((states.get(side, {}).get("settings") or {}) for side in (NEW, OLD))
    for side, sets, others in ((NEW, own, theirs), (OLD, theirs, own)):
        pairs = [f"{name}={value}" for name, value in sets.items() if others.get(name) != value]
        if pairs:
            more = f" and {len(pairs) - MOST_NAMED} more" if len(pairs) > MOST_NAMED else ""
            words.append(f"the {side} code sets {', '.join(pairs[:MOST_NAMED])}{more}")
    found.unlike = "; ".join(words)


def cannot_run(pairing: Pairing, failure: SideFailure) -> str:
    """Say which code cannot be run, and why."""
    why, whose = failure.reason, "a code"
    if failure.side:
        tree = pairing.sides[failure.side].code
        why = tree.explained(why) if tree is not None else why
        whose = f"the {NEW if failure.side == NEW else OLD} code"
    return f"{whose} cannot be run: {why}"


NO_STEP = SideFailure(side="", reason="no step was timed", status="error")


_MOST_WITH_LAYERS = 3
"""Cases whose layers have time kept for them: verdicts come first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveOptions:
    """How the sessions are run, and what they may take."""

    seed: int
    """That of the rows too."""
    seconds_left: Callable[[], float]
    clock: Callable[[], float]
    """Seconds, to learn how long a session takes."""
    results: Path
    """A folder that is no code."""
    session_s: float = 1.0
    """Seconds of timed turns of two codes in a session, at most; a control adds half as many."""
    input_shape: Shapes | None = None
    limits: Limits = USUAL
    """What counts as a change."""
    target: float = math.inf
    """Half-width of the interval, as a log ratio, down to which it goes on after a verdict."""
    earlier: EarlierSessions = field(default_factory=EarlierSessions)
    """What earlier runs give."""
    left_over: Collection[str] = ()
    """The cases, by name, that the last run has left undecided: they come first."""
    decided_before: int = 0
    """As of `decide`."""
    evenly: bool = False
    """Whether all cases get sessions evenly until the time is spent, as in an A/A."""
    began: Callable[[int, Sequence[CaseResult]], None] = lambda place, found: None
    """Called before each session with the place of its case and what was found of every case."""

    layers_s: float = 0.0
    """Seconds of the budget that are kept for the layers of a regressed case, of three at most."""
    layers_of: Callable[[Case], bool] = lambda case: True
    """Whether the layers of a case are measured once it is found slower."""

    @classmethod
    def of(cls, options: Options, budget_s: float, **own: Any) -> LiveOptions:
        """Return them as a user's options have them; the budget begins now.

        Args:
            own: what the options do not tell.
        """
        deadline_s = time.monotonic() + budget_s
        return cls(
            seed=options.seed,
            seconds_left=lambda: deadline_s - time.monotonic(),
            clock=time.monotonic,
            results=options.results.absolute(),
            input_shape=options.input_shape,
            **own,
        )

    def left_beside_layers(self, slower: int) -> float:
        """Return the seconds that are left for sessions where so many cases have regressed."""
        return self.seconds_left() - min(slower, _MOST_WITH_LAYERS) * self.layers_s
