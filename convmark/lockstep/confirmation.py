"""Live comparisons of a run's cases: the anchor's code is fetched and run beside today's.

The code of an anchor is that of a commit, or the files that were kept of a run which no commit has.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from convmark.case import Case
from convmark.code.manifest import Code
from convmark.code.of_run import ran_at
from convmark.commit import Commit
from convmark.comparing.decision import Limits as Margins
from convmark.errors import ConvmarkError
from convmark.gpu.devices import Gpu
from convmark.gpu.visible import card_of
from convmark.judging.judgement import SAME_CODE, SAME_COMMIT, Confirmation
from convmark.judging.sessions_file import Earlier
from convmark.launch import Interpreter
from convmark.lockstep.anchor import (
    AnchorCode,
    MakeInterpreter,
    Origin,
    origin_of,
    trees_at,
)
from convmark.lockstep.found import Found
from convmark.lockstep.kept import kept_trees
from convmark.lockstep.live import Pairing, Terms, compare_live
from convmark.lockstep.processes import Contender
from convmark.lockstep.session import OLD
from convmark.lockstep.tree import OwnCode
from convmark.option_values import Shapes
from convmark.record import Record
from convmark.report.units import duration_text

__all__ = ["NO_REPOSITORY", "Interpreters", "Limits", "confirm", "same_as_today"]

NO_REPOSITORY = "the model is in no git repository"

Sources = Mapping[str, Sequence[str] | None]


AnchorOf = Callable[[Case, Origin | None], AnchorCode]
"""Gives the code to compare a case with; raises ConvmarkError, saying why there is none."""

SameCode = Callable[[Case, Origin | None, AnchorCode], str]
"""Says in a word why a case runs the anchor's code today; empty where it does not."""

Trees = contextlib.AbstractContextManager[tuple[OwnCode, OwnCode | None]]
"""Gives the anchor's code and today's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a confirmation may spend."""

    seed: int
    warm_up_s: float
    """Of both codes together, before a session's turns, at most."""
    budget_s: float
    """Most seconds for all cases."""
    results: Path
    """A folder that is no code."""
    gpus: Sequence[Gpu] = ()
    """Those of this machine, whose state tells which sessions count."""
    input_shape: Shapes | None = None
    margins: Margins | None = None
    """What counts as a change."""
    earlier: Earlier | None = None
    """What earlier runs give."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreters:
    """Where the codes run."""

    shared: Callable[[str], Interpreter]
    """By the backend's name, that whose processes run both codes."""
    make: MakeInterpreter
    """Makes one of a code's own, from the keywords of `OwnCode.settings` and `backend`."""


def confirm(
    cases: Sequence[Case],
    anchor_of: AnchorOf,
    sources: Sources,
    interpreters: Interpreters,
    limits: Limits,
    clock: Callable[[], float],
    say: Callable[[str], None] = lambda line: None,
    *,
    is_same: SameCode,
) -> dict[str, Confirmation]:
    """Return what a live comparison says of each case, by the case's name.

    Args:
        anchor_of: the code to compare each case with.
        is_same: tells the cases that need no comparison.
        sources: for models named package.module:builder their module and its file.
        clock: seconds, against which the budget is held.
        say: is told how far it is.
    """
    deadline_s = clock() + limits.budget_s
    found: dict[str, Confirmation] = {}
    pairings: list[Pairing] = []
    labels: list[str] = []
    with contextlib.ExitStack() as stack:
        codes = _Codes(interpreters, limits.gpus, stack)
        for case in cases:
            origin, label = origin_of(case, sources), ""
            try:
                anchor = anchor_of(case, origin)
                label = anchor.label
                if same := is_same(case, origin, anchor):
                    raise ConvmarkError(same)
                pairings.append(codes.pairing(case, origin, anchor))
            except ConvmarkError as error:
                found[case.name] = Confirmation(decision=None, anchor=label, reason=str(error))
            else:
                labels.append(label)
        terms = Terms(
            seed=limits.seed,
            seconds_left=lambda: deadline_s - clock(),
            clock=clock,
            results=limits.results,
            warm_up_s=limits.warm_up_s,
            input_shape=limits.input_shape,
            limits=limits.margins,
            earlier=limits.earlier or Earlier.none(),
        )
        if pairings:
            say(_announcement(labels, limits.budget_s))
        results = compare_live(pairings, terms, say)
    for pairing, label, result in zip(pairings, labels, results, strict=True):
        found[pairing.case.name] = _confirmation(result, label)
    return found


class _Codes:
    """The anchors' codes and today's, each opened once, with an interpreter of its own."""

    def __init__(
        self, interpreters: Interpreters, gpus: Sequence[Gpu], stack: contextlib.ExitStack
    ) -> None:
        self._interpreters = interpreters
        self._gpus = gpus
        self._stack = stack
        self._trees: dict[tuple[Origin | None, AnchorCode], tuple[OwnCode, OwnCode | None]] = {}
        self._own: dict[tuple[object, ...], Interpreter] = {}

    def pairing(self, case: Case, origin: Origin | None, anchor: AnchorCode) -> Pairing:
        """Return a case with its two codes.

        Raises:
            ConvmarkError: a code is not to be had here.
        """
        if (origin, anchor) not in self._trees:
            self._trees[origin, anchor] = self._stack.enter_context(_trees(origin, anchor))
        old, new = (
            Contender(
                case=case,
                interpreter=self._interpreter((origin, anchor, case.backend, number), tree),
                code=tree,
                card=card_of(case.device, self._gpus, os.environ),
            )
            for number, tree in enumerate(self._trees[origin, anchor])
        )
        shared = self._interpreters.shared(case.backend)
        return Pairing(case=case, old=old, new=new, shared=shared)

    def _interpreter(
        self, place: tuple[Origin | None, AnchorCode, str, int], tree: OwnCode | None
    ) -> Interpreter:
        """Return what starts the processes of one code in lock-step; none has been started yet."""
        if place not in self._own:
            settings = tree.settings(os.environ) if tree is not None else {}
            made = self._interpreters.make(backend=place[2], **settings)
            self._own[place] = self._stack.enter_context(made)
        return self._own[place]


def _trees(origin: Origin | None, anchor: AnchorCode) -> Trees:
    """Return what gives the anchor's code and today's.

    Raises:
        ConvmarkError: the anchor's code is not to be had here.
    """
    if not anchor.commit:
        return kept_trees(origin, anchor)
    if origin is None:
        raise ConvmarkError(NO_REPOSITORY)
    return trees_at(origin, anchor.commit)


COMPARISON_S = (4, 20)
"""About what a live comparison of a small case takes: two sessions, or a dozen."""


def _announcement(labels: Sequence[str], budget_s: float) -> str:
    """Say how many cases are compared, with what, and about how long it takes."""
    cases = f"{len(labels)} case{'s' if len(labels) != 1 else ''}"
    others = labels[0] if len(set(labels)) == 1 else "the code of their anchors"
    low, high = (duration_text(len(labels) * seconds) for seconds in COMPARISON_S)
    takes = f"about {low} to {high}"
    if len(labels) * COMPARISON_S[1] > budget_s:
        takes = f"at most {duration_text(budget_s)}"
    return f"{cases} to compare live with {others}, {takes}"


def _confirmation(found: Found, label: str) -> Confirmation:
    """Return what the sessions of a case say."""
    decision = found.decision
    assert decision is not None
    if found.same_code:
        return Confirmation(decision=None, anchor=label, reason=SAME_CODE)
    undecided = found.undecided(
        "run it again, which takes these sessions along, or try a larger --convmark-compare-budget"
    )
    if decision.estimate is None:
        return Confirmation(decision=None, anchor=label, reason=undecided)
    reasons = [] if decision.decided else [undecided]
    reasons += filter(None, [found.cross_check])
    if found.apart:
        reasons.append(f"in a process each: {found.apart}")
    return Confirmation(
        decision=decision,
        sessions=decision.sessions,
        anchor=label,
        reason="; ".join(reasons),
        sizes=found.sizes.get(OLD, {}),
        kept=tuple(found.live),
        codes=found.codes,
    )


def same_as_today(
    rows: Sequence[Record],
    origin: Origin | None,
    anchor: AnchorCode,
    commit_of: Callable[[Path], Commit],
    codes: Mapping[str, Code],
) -> str:
    """Return `SAME_CODE` or `SAME_COMMIT` where rows of today ran the anchor's code, else nothing.

    The hash decides where the rows and the anchor have one, and the rows' own commit where the
    anchor has none: that, or that each file they ran is the anchor's commit's. Rows without a hash
    leave git's word of the folder alone.

    Args:
        rows: those of the case.
        commit_of: reads what git says of a repository now.
        codes: what the run has kept of its codes, by their hash.
    """
    if not rows:
        return ""
    if all(row.code for row in rows) and anchor.code:
        return SAME_CODE if {row.code for row in rows} == {anchor.code} else ""
    if all(row.code for row in rows):
        if not anchor.commit or len(ran := {row.code for row in rows}) > 1:
            return ""
        if all(row.commit == anchor.commit for row in rows):  # held against the files that ran
            return SAME_COMMIT
        code = codes.get(ran.pop() or "")
        same = code and origin and ran_at(code, origin.repository, anchor.commit)
        return SAME_CODE if same else ""
    if origin is None or not anchor.commit:
        return ""
    today = commit_of(origin.repository)
    return SAME_COMMIT if today.sha == anchor.commit and today.dirty is False else ""
