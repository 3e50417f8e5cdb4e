"""Live comparisons of a run's cases: fetches the anchor's code and runs it against today's.

The code of an anchor is that of a commit, or the files that were kept of a run which no commit has.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from convmark.compare.judgement import INTERRUPTED, SAME_CODE, SAME_COMMIT, LiveComparison
from convmark.compare.live.anchor import (
    AnchorCode,
    MakeInterpreter,
    Origin,
    anchor_trees,
    origin_of,
)
from convmark.compare.live.case_result import CaseResult
from convmark.compare.live.live import LiveOptions, Pairing, compare_live
from convmark.compare.live.session import OLD, LiveSide
from convmark.compare.live.tree import OwnCode
from convmark.compare.live.worktree import working_trees
from convmark.core.case import Case
from convmark.core.errors import ConvmarkError
from convmark.core.text import duration_text
from convmark.interpreter import Interpreter
from convmark.machine.gpu.devices import Gpu
from convmark.machine.gpu.visible import card_of
from convmark.results.code.manifest import HERE, ZOO, Code
from convmark.results.code.of_run import changed_projects, ran_at
from convmark.results.commit import Commit
from convmark.results.record import Record

__all__ = ["compare_with_anchors", "same_as_today"]

Sources = Mapping[str, Sequence[str] | None]
AnchorOf = Callable[[Case, Origin | None], AnchorCode]
"""Gives the code to compare a case with; raises ConvmarkError, saying why there is none."""
SameCode = Callable[[Case, Origin | None, AnchorCode], str]
"""Says in a word why a case runs the anchor's code today; empty where it does not."""


def compare_with_anchors(
    cases: Sequence[Case],
    anchor_of: AnchorOf,
    terms: LiveOptions,
    say: Callable[[str], None] = lambda line: None,
    *,
    sources: Sources,
    is_same: SameCode,
    shared: Callable[[str], Interpreter],
    make: MakeInterpreter,
    expected_s: Callable[[Case], float],
    gpus: Sequence[Gpu] = (),
    measured: Callable[[Case], Mapping[str, str]] = lambda case: {},
    on_regressed: Callable[[Pairing], None] = lambda pairing: None,
) -> dict[str, LiveComparison]:
    """Return what a live comparison says of each case, by the case's name.

    Args:
        anchor_of: the code to compare each case with.
        say: is told how far it is.
        sources: for models named package.module:builder their module and its file.
        is_same: tells the cases that need no comparison.
        shared: by the backend's name, the interpreter whose processes run both codes.
        make: makes one of a code's own, from the keywords of `OwnCode.settings` and `backend`.
        expected_s: seconds that the live comparison of a case is expected to take.
        gpus: those of this machine, whose state tells which sessions count.
        measured: the files that the case's rows have run, as `Pairing` has them.
        on_regressed: is given each case found slower, once all have their verdicts.
    """
    found: dict[str, LiveComparison] = {}
    pairings: list[Pairing] = []
    labels: list[str] = []
    with contextlib.ExitStack() as stack:
        codes = _Codes(make, gpus, stack)
        for case in cases:
            origin, label = origin_of(case, sources), ""
            try:
                anchor = anchor_of(case, origin)
                label = anchor.label
                if same := is_same(case, origin, anchor):
                    raise ConvmarkError(same)
                old, new = codes.sides(case, origin, anchor)
            except ConvmarkError as error:
                found[case.name] = LiveComparison(decision=None, anchor=label, reason=str(error))
            else:
                both, files = shared(case.backend), measured(case)
                pairings.append(Pairing(case=case, old=old, new=new, shared=both, measured=files))
                labels.append(label)
        if pairings:
            seconds = sum(expected_s(pairing.case) for pairing in pairings)
            say(_announcement(labels, seconds, terms.seconds_left()))
        results = compare_live(pairings, terms, say)
        if all(result.closed != INTERRUPTED for result in results):
            with contextlib.suppress(KeyboardInterrupt):  # the verdicts stay
                for pairing in _regressed(pairings, results):
                    on_regressed(pairing)
    for pairing, label, result in zip(pairings, labels, results, strict=True):
        found[pairing.case.name] = _comparison(result, label)
    return found


def _regressed(pairings: Sequence[Pairing], results: Sequence[CaseResult]) -> Iterator[Pairing]:
    for pairing, result in zip(pairings, results, strict=True):
        if result.decision and result.decision.plain_verdict == "regressed":
            yield pairing


class _Codes:
    """The anchors' codes and today's, each opened once, with an interpreter of its own."""

    def __init__(
        self, make: MakeInterpreter, gpus: Sequence[Gpu], stack: contextlib.ExitStack
    ) -> None:
        self._make = make
        self._gpus = gpus
        self._stack = stack
        self._trees: dict[tuple[Origin | None, AnchorCode], tuple[OwnCode, OwnCode | None]] = {}
        self._own: dict[tuple[object, ...], Interpreter] = {}

    def sides(self, case: Case, origin: Origin | None, anchor: AnchorCode) -> list[LiveSide]:
        """Return the anchor's code of a case and today's.

        Each has an interpreter for its processes in lock-step, which has not been started yet.
        """
        place = origin, anchor
        if place not in self._trees:
            self._trees[place] = self._stack.enter_context(anchor_trees(origin, anchor))
        found = []
        for number, tree in enumerate(self._trees[place]):
            key = (*place, case.backend, number)
            if key not in self._own:
                settings = tree.settings(os.environ) if tree is not None else {}
                made = self._make(backend=case.backend, **settings)
                self._own[key] = self._stack.enter_context(made)
            card = card_of(case.device, self._gpus, os.environ)
            found.append(LiveSide(case=case, interpreter=self._own[key], code=tree, card=card))
        return found


def _announcement(labels: Sequence[str], seconds: float, budget_s: float) -> str:
    """Say how many cases are compared, with what, and about how long it takes."""
    cases = f"{len(labels)} case{'s' if len(labels) != 1 else ''}"
    others = labels[0] if len(set(labels)) == 1 else "the code of their anchors"
    takes = f"about {seconds:.0f} s" if seconds < budget_s else f"at most {duration_text(budget_s)}"
    return f"{cases} to compare live with {others}, {takes}"


def _comparison(found: CaseResult, label: str) -> LiveComparison:
    """Return what the sessions of a case say."""
    decision = found.decision
    assert decision is not None
    if found.same_code:
        return LiveComparison(decision=None, anchor=label, reason=SAME_CODE)
    undecided = found.undecided(
        "run it again, which takes these sessions along, or try a larger --convmark-compare-budget"
    )
    known = decision.estimate is not None
    reasons = [*([] if decision.decided else [undecided]), *(found.separate if known else [])]
    return LiveComparison(
        decision=decision if known else None,
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
    ran = [codes[row.code] for row in rows if row.code and row.code in codes]
    if origin and any(
        _has_other_copy(code, origin.repository.resolve(), anchor.commit or "HEAD") for code in ran
    ):
        return ""
    known = {row.code or "" for row in rows}
    if anchor.code and "" not in known:
        return SAME_CODE if known == {anchor.code} else ""
    if not anchor.commit or (len(known) > 1 and "" not in known):
        return ""
    if "" in known:
        if any(not row.code and not row.commit for row in rows):
            return ""  # what ran is not known
        today = commit_of(origin.repository) if origin is not None else None
        is_same = today and today.sha == anchor.commit and today.dirty is False
        return SAME_COMMIT if is_same else ""
    if all(row.commit == anchor.commit for row in rows):  # held against the files that ran
        return SAME_COMMIT
    same = ran and origin and ran_at(ran[0], origin.repository, anchor.commit)
    return SAME_CODE if same else ""


def _has_other_copy(code: Code, repository: Path, sha: str) -> bool:
    """Whether a process imported an installed copy of a project, or ran another working tree's.

    The version of an installed copy does not tell what it holds.
    """
    _, *others = working_trees(repository)
    outside = [Path(root) for name, root in code.roots.items() if name not in (HERE, ZOO)]
    if any(root in others for root in outside):
        return True
    return bool(changed_projects(code.packages, repository, repository, sha))
