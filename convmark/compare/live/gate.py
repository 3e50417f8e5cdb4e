"""Live comparisons of a run's cases: fetches the anchor's code and runs it against today's.

The code of an anchor is that of a commit, or the files that were kept of a run which no commit has.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path

from convmark.compare.judgement import (
    INTERRUPTED,
    LARGER,
    ONE_GRAPH,
    SAME_CODE,
    SAME_COMMIT,
    LiveComparison,
)
from convmark.compare.live.anchor import AnchorCode, MakeInterpreter, Origin, anchor_trees
from convmark.compare.live.blame import then_layers
from convmark.compare.live.case_result import CaseResult, LiveOptions
from convmark.compare.live.live import compare_live
from convmark.compare.live.session import NEW, OLD, LiveSide, Pairing
from convmark.compare.live.tree import OwnCode, other_clone
from convmark.compare.live.worktree import working_trees
from convmark.core.case import Case
from convmark.core.errors import ConvmarkError
from convmark.core.text import Say, counted, duration_text
from convmark.interpreter import Interpreter
from convmark.machine.gpu.cards import card_of
from convmark.machine.gpu.devices import Gpu
from convmark.results.code.manifest import HERE, ZOO, Code
from convmark.results.code.of_run import changed_projects, ran_at
from convmark.results.commit import Commit, is_changed, read_commit
from convmark.results.record import Record
from convmark.session.forecast import changed_seconds, comparison_words

AnchorOf = Callable[[Case, Origin | None], AnchorCode]
"""Gives the code to compare a case with; raises ConvmarkError, saying why there is none."""


def compare_with_anchors(
    rows: Mapping[Case, Sequence[Record]],
    anchor_of: AnchorOf,
    terms: LiveOptions,
    say: Say = lambda line: None,
    *,
    origin_of: Callable[[Case], Origin | None],
    codes: Mapping[str, Code],
    shared: Callable[[str], Interpreter],
    sides: Sides,
    expected_s: Callable[[Case], float],
    layers_s: float = 0.0,
    layers_of: Callable[[Case], bool] = lambda case: True,
    question: str = "",
    on_decided: Callable[[dict[Case, LiveComparison]], None] = lambda found: None,
    on_regressed: Callable[[Pairing, int], None] = lambda pairing, left: None,
) -> dict[Case, LiveComparison]:
    """Return what a live comparison says of each case.

    Args:
        rows: those of today, by the case that was asked for.
        anchor_of: the code to compare each case with.
        origin_of: where the model of a case comes from.
        codes: what the run has kept of its codes, by their hash.
        shared: by the backend's name, the interpreter whose processes run both codes.
        sides: makes those of the two codes.
        expected_s: seconds that a process which measures a case is expected to take.
        layers_s: seconds that `on_regressed` takes for a case; half of them will do.
        question: what is asked of the cases, said with their number if any is to be compared.
        on_decided: is given what is returned, before `on_regressed` takes its time.
        on_regressed: is given each slower case that `layers_of` names, once all have their
            verdicts, and how many are left with it.
    """
    found: dict[Case, LiveComparison] = {}
    pairings: list[Pairing] = []
    labels = dict.fromkeys(rows, "")
    commit_of = functools.cache(functools.partial(read_commit, besides=[terms.results]))
    for case, own in rows.items():
        origin = origin_of(case)
        try:
            anchor = anchor_of(case, origin)
            labels[case] = anchor.label
            if same := same_as_today(own, origin, anchor, commit_of, codes):
                raise ConvmarkError(same)
            both = sides.both(case, origin, anchor)
        except ConvmarkError as error:
            found[case] = LiveComparison(decision=None, anchor=labels[case], reason=str(error))
        else:
            pairings.append(_pairing(both, shared(case.backend), own, codes))
    if pairings:
        if question:
            say(f"{counted(len(pairings), 'case')} {question}")
        seconds = sum(expected_s(pairing.case) for pairing in pairings)
        terms = _announced([labels[one.case] for one in pairings], seconds, layers_s, terms, say)
    results = compare_live(pairings, dataclasses.replace(terms, layers_of=layers_of), say)
    for pairing, result in zip(pairings, results, strict=True):
        found[pairing.case] = _comparison(result, labels[pairing.case])
    layers = (functools.partial(on_regressed, *one) for one in _slow(pairings, results, layers_of))
    then_layers(results, layers, keep=lambda: on_decided(found))
    return found


def _pairing(
    sides: tuple[LiveSide, LiveSide],
    shared: Interpreter,
    rows: Sequence[Record],
    codes: Mapping[str, Code],
) -> Pairing:
    """Return a case's two codes, with what its rows of today have run."""
    old, new = sides
    return Pairing(
        case=new.case,
        old=old,
        new=new,
        shared=shared,
        measured=measured_files(rows, codes),
        measured_alone=all(row.isolation != "none" for row in rows),
    )


def _announced(
    named: Sequence[str], seconds: float, layers_s: float, terms: LiveOptions, say: Say
) -> LiveOptions:
    """Say what is compared; return the terms, with time kept for layers where there is room."""
    left_s = terms.seconds_left()
    say(_announcement(named, seconds, left_s, layers_s))
    room = _has_room(seconds, left_s, layers_s)
    return dataclasses.replace(terms, layers_s=layers_s / 2) if room else terms


def _slow(
    pairings: Sequence[Pairing],
    results: Sequence[CaseResult],
    layers_of: Callable[[Case], bool],
) -> list[tuple[Pairing, int]]:
    """Return the slower cases whose layers are measured, each with how many are left with it."""
    found = [
        pairing
        for pairing, result in zip(pairings, results, strict=True)
        if result.decision and result.decision.plain_verdict == "regressed"
        if layers_of(pairing.case)
    ]
    return list(zip(found, range(len(found), 0, -1), strict=True))


def _announcement(
    labels: Sequence[str], processes_s: float, budget_s: float, layers_s: float = 0.0
) -> str:
    """Say how many cases are compared, with what, and about how long it and the layers take."""
    cases = counted(len(labels), "case")
    others = labels[0] if len(set(labels)) == 1 else "the code of their anchors"
    takes = comparison_words(processes_s, budget_s)
    then = f"; then about {duration_text(layers_s)} for the layers of each slower case"
    if not _has_room(processes_s, budget_s, layers_s):
        then = "; the budget may end before the layers of slower cases are measured"
    return f"{cases} to compare live with {others}, {takes}{then * bool(layers_s)}"


def _has_room(processes_s: float, budget_s: float, layers_s: float) -> bool:
    """Whether the budget holds the layers of a case, however many cases have changed."""
    return changed_seconds(processes_s) + layers_s <= budget_s


class Sides:
    """The sides of cases; a code's interpreter, which lock-step and layers need, is made once."""

    def __init__(
        self, make: MakeInterpreter, gpus: Sequence[Gpu], stack: contextlib.ExitStack
    ) -> None:
        """Begin without any.

        Args:
            make: makes an interpreter from the keywords of `OwnCode.settings` and `backend`.
            gpus: those of this machine, whose state tells which sessions count.
            stack: closes them all, and removes the files of commits.
        """
        self._make = make
        self._gpus = gpus
        self._stack = stack
        self._own: dict[Hashable, Interpreter] = {}
        self._trees = functools.cache(lambda *place: stack.enter_context(anchor_trees(*place)))

    def both(
        self, case: Case, origin: Origin | None, anchor: AnchorCode
    ) -> tuple[LiveSide, LiveSide]:
        """Return a case's sides of the anchor's code and of today's.

        Raises:
            ConvmarkError: one of the two is not to be had.
        """
        old, new = self._trees(origin, anchor)
        place = origin, anchor
        return self.of(case, (*place, OLD), old), self.of(case, (*place, NEW), new)

    def of(self, case: Case, name: Hashable, code: OwnCode | None) -> LiveSide:
        """Return a case's side of a code; its interpreter has not been started yet.

        Args:
            name: tells the code from every other one.
        """
        key = name, case.backend
        if key not in self._own:
            settings = code.settings(os.environ) if code is not None else {}
            made = self._make(backend=case.backend, **settings)
            self._own[key] = self._stack.enter_context(made)
        card = card_of(case.device, self._gpus, os.environ)
        return LiveSide(case=case, interpreter=self._own[key], code=code, card=card)


def _comparison(found: CaseResult, label: str) -> LiveComparison:
    """Return what the sessions of a case say."""
    decision = found.decision
    assert decision is not None
    if found.same:
        sizes, codes = found.sizes.get(OLD, {}), found.codes
        return LiveComparison(
            decision=None, anchor=label, reason=found.same, sizes=sizes, codes=codes
        )
    undecided = found.undecided(f"run it again, which takes these sessions along, or {LARGER}")
    known = decision.estimate is not None
    ended = decision.decided and found.closed != INTERRUPTED
    told = [found.why_timed] if ended or found.why_timed == ONE_GRAPH else []
    told += [*(found.separate if known else ()), "" if found.unlike in undecided else found.unlike]
    told += [found.lack, found.unknown]
    reasons = filter(None, [*([] if ended else [undecided]), *told])
    return LiveComparison(
        decision=decision if known else None,
        anchor=label,
        reason="; ".join(reasons),
        sizes=found.sizes.get(OLD, {}),
        precisions=found.precisions,
        kept=tuple(found.live),
        some_steps=found.some_steps,
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
    if origin and other_clone(origin.repository, Path.cwd().resolve()):
        return ""  # which says nothing of the code that the user stands in
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
        if any(row.commit != anchor.commit if row.code else not row.commit for row in rows):
            return ""  # what ran is not known, or is another code
        today = commit_of(origin.repository) if origin is not None else None
        is_same = today and today.sha == anchor.commit and today.dirty is False
        return SAME_COMMIT if is_same else ""
    if all(row.commit == anchor.commit for row in rows):  # held against the files that ran
        return SAME_COMMIT
    same = ran and origin and ran_at(ran[0], origin.repository, anchor.commit)
    return SAME_CODE if same else ""


def has_code_of(origin: Origin, commit: str, code: Code | None, results: Path) -> bool:
    """Whether a case would run now what it would at a commit, as far as is known before it runs.

    Args:
        origin: where its model comes from.
        code: what it has run last; None where that is not known, and git tells of the zoo's folder,
            or of all files, for a user's model may read any.
    """
    if other_clone(origin.repository, Path.cwd().resolve()):
        return False
    if code is not None:
        return ran_at(code, origin.repository, commit, results)
    if origin.is_zoo:
        return not is_changed(origin.repository, commit, origin.folder.as_posix())
    there = read_commit(origin.repository, besides=[results])
    return there.sha == commit and there.dirty is False


def measured_files(rows: Sequence[Record], codes: Mapping[str, Code]) -> dict[str, str]:
    """Return by path the hash of each file that a case's rows have run.

    Of a file that was edited between two rows it is the first: no session will have run that.
    """
    judged = [row for row in rows if not row.not_judged]
    ran = [codes[row.code] for row in reversed(judged) if row.code and row.code in codes]
    return {str(one.path_of(file.place)): file.sha256 for one in ran for file in one.files}


def _has_other_copy(code: Code, repository: Path, sha: str) -> bool:
    """Whether a process imported an installed copy of a project, or ran another working tree's.

    The version of an installed copy does not tell what it holds.
    """
    _, *others = working_trees(repository)
    outside = [Path(root) for name, root in code.roots.items() if name not in (HERE, ZOO)]
    if any(root in others for root in outside):
        return True
    return bool(changed_projects(code.packages, repository, repository, sha))
