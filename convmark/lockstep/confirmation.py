"""Confirming flagged cases: the anchor's code is fetched and run beside today's, case by case.

The code of an anchor is that of a commit, or the files that were kept of a run which no commit has.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from convmark.case import Case
from convmark.commit import Commit
from convmark.errors import ConvmarkError
from convmark.gpu.devices import Card, Gpu
from convmark.gpu.visible import card_of
from convmark.judging.confirm import error_rate_per_case
from convmark.judging.judgement import BUDGET_SPENT, SAME_CODE, SAME_COMMIT, Confirmation
from convmark.lockstep.anchor import (
    AnchorCode,
    Beside,
    MakeInterpreter,
    Origin,
    beside,
    origin_of,
)
from convmark.lockstep.engine import Plan, Progress, Side, compare
from convmark.lockstep.kept import beside_kept
from convmark.lockstep.tree import ForeignCode
from convmark.record import Record

__all__ = ["NO_REPOSITORY", "Limits", "Watch", "confirm", "same_as_today"]

NO_REPOSITORY = "the model is in no git repository"

Watch = Callable[[Case, Progress], None]
"""Is told the case and how far it is, after each of its sessions."""

Sources = Mapping[str, Sequence[str] | None]


AnchorOf = Callable[[Case, Origin | None], AnchorCode]
"""Gives the code to compare a case with; raises ConvmarkError, saying why there is none."""

SameCode = Callable[[Case, Origin | None, AnchorCode], str]
"""Says in a word why a case runs the anchor's code today; empty where it does not."""

Opened = contextlib.AbstractContextManager[tuple[Beside, Beside]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a confirmation may spend."""

    seed: int
    warm_up_s: float
    budget_s: float
    """Most seconds for all cases."""
    gpus: Sequence[Gpu] = ()
    """Those of this machine, whose state tells which sessions count."""


def confirm(
    cases: Sequence[Case],
    anchor_of: AnchorOf,
    sources: Sources,
    make: MakeInterpreter,
    limits: Limits,
    clock: Callable[[], float],
    watch: Watch = lambda case, progress: None,
    *,
    is_same: SameCode,
) -> dict[str, Confirmation]:
    """Return what a live comparison says of each case, by the case's name.

    Args:
        anchor_of: the code to compare each case with.
        is_same: tells the cases that need no comparison.
        sources: for models named package.module:builder their module and its file.
        make: makes an interpreter (see `anchor.beside`).
        clock: seconds, against which the budget is held.
    """
    deadline_s = clock() + limits.budget_s
    found: dict[str, Confirmation] = {}
    comparable: list[_Compared] = []
    for case in cases:
        origin = origin_of(case, sources)
        try:
            anchor = anchor_of(case, origin)
            if same := is_same(case, origin, anchor):
                found[case.name] = Confirmation(decision=None, anchor=anchor.label, reason=same)
                continue
            _sides(origin, anchor)
        except ConvmarkError as error:
            found[case.name] = Confirmation(decision=None, reason=str(error))
            continue
        comparable.append((case, origin, anchor))
    plan = Plan(
        seed=limits.seed,
        warm_up_s=limits.warm_up_s,
        error_rate=error_rate_per_case(len(comparable)),
        seconds_left=lambda: deadline_s - clock(),
    )
    places = sorted(comparable, key=lambda item: str(_place(item)))
    for (backend, origin, anchor), group in itertools.groupby(places, key=_place):
        members = [case for case, _, _ in group]
        maker = functools.partial(make, backend=backend)
        cards = [card_of(case.device, limits.gpus, os.environ) for case in members]
        sides = functools.partial(_sides(origin, anchor), maker)
        found |= _beside_today(members, cards, sides, anchor.label, plan, clock, watch)
    return found


_Compared = tuple[Case, Origin | None, AnchorCode]


def _place(comparable: _Compared) -> tuple[str, Origin | None, AnchorCode]:
    """What cases share that one pair of interpreters can run."""
    case, origin, anchor = comparable
    return case.backend, origin, anchor


def same_as_today(
    rows: Sequence[Record],
    origin: Origin | None,
    anchor: AnchorCode,
    commit_of: Callable[[Path], Commit],
) -> str:
    """Return `SAME_CODE` or `SAME_COMMIT` where rows of today ran the anchor's code, else nothing.

    The hash decides where the rows and the anchor have one, and the rows' own commit where the
    anchor has none; rows without a hash leave git's word of the folder alone.

    Args:
        rows: those of the case.
        commit_of: reads what git says of a repository now.
    """
    if not rows:
        return ""
    if all(row.code for row in rows) and anchor.code:
        return SAME_CODE if {row.code for row in rows} == {anchor.code} else ""
    if all(row.code for row in rows):
        same = all(row.commit == anchor.commit for row in rows)  # held against the files that ran
        return SAME_COMMIT if same and anchor.commit else ""
    if origin is None or not anchor.commit:
        return ""
    today = commit_of(origin.repository)
    return SAME_COMMIT if today.sha == anchor.commit and today.dirty is False else ""


def _sides(origin: Origin | None, anchor: AnchorCode) -> Callable[[MakeInterpreter], Opened]:
    """Return what opens the anchor's code and today's.

    Raises:
        ConvmarkError: the anchor's code is not to be had here.
    """
    if not anchor.commit:
        return functools.partial(beside_kept, origin, anchor)
    if origin is None:
        raise ConvmarkError(NO_REPOSITORY)
    return functools.partial(beside, origin, anchor.commit)


def _beside_today(
    cases: Sequence[Case],
    cards: Sequence[Card | None],
    sides: Callable[[], Opened],
    label: str,
    plan: Plan,
    clock: Callable[[], float],
    watch: Watch,
) -> dict[str, Confirmation]:
    found: dict[str, Confirmation] = {}
    try:
        with sides() as (old, new):
            for case, card in zip(cases, cards, strict=True):
                try:
                    comparison = compare(
                        Side(old.interpreter, case, card, old.tree),
                        Side(new.interpreter, case, card, new.tree),
                        plan,
                        watch=functools.partial(watch, case),
                        clock=clock,
                    )
                except ForeignCode as error:  # another case may still run its own code
                    refused = Confirmation(decision=None, anchor=label, reason=str(error))
                    found[case.name] = refused
                    continue
                clocks = comparison.clocks
                why = comparison.reason or comparison.left_out_text
                found[case.name] = Confirmation(
                    decision=clocks.decision if clocks else None,
                    decided_by=clocks.decided_by if clocks else None,
                    sessions=len(comparison.wall),
                    anchor=label,
                    reason=BUDGET_SPENT if comparison.out_of_time else why,
                    sizes=comparison.sizes.get("old", {}),
                )
    except ConvmarkError as error:
        for case in cases:
            lost = Confirmation(decision=None, anchor=label, reason=str(error))
            found.setdefault(case.name, lost)
    return found
