"""Confirming flagged cases: the anchor's code is fetched and run beside today's, case by case."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from convmark.case import Case
from convmark.commit import Commit, read_commit
from convmark.errors import ConvmarkError
from convmark.gpu.devices import Card, Gpu
from convmark.gpu.visible import card_of
from convmark.judging.confirm import error_rate_per_case
from convmark.judging.judgement import BUDGET_SPENT, SAME_COMMIT, Confirmation
from convmark.lockstep.anchor import MakeInterpreter, Origin, beside, origin_of
from convmark.lockstep.engine import Plan, Progress, Side, compare
from convmark.option_values import Shapes

__all__ = ["DIRTY_TREE", "NO_COMMIT", "Limits", "Watch", "confirm"]

NO_COMMIT = "no commit"
DIRTY_TREE = "dirty tree"

Watch = Callable[[Case, Progress], None]
"""Is told the case and how far it is, after each of its sessions."""

Sources = Mapping[str, Sequence[str] | None]

AnchorOf = Callable[[Case, Origin], str]
"""Gives the commit to compare a case with; raises ConvmarkError, saying why there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a confirmation may spend."""

    seed: int
    warm_up_s: float
    budget_s: float
    """Most seconds for all cases."""
    results: Path
    """Changes in this folder do not make a repository dirty."""
    gpus: Sequence[Gpu] = ()
    """Those of this machine, whose state tells which sessions count."""
    input_shape: Shapes | None = None


def confirm(
    cases: Sequence[Case],
    anchor_of: AnchorOf,
    sources: Sources,
    make: MakeInterpreter,
    limits: Limits,
    clock: Callable[[], float],
    watch: Watch = lambda case, progress: None,
) -> dict[str, Confirmation]:
    """Return what a live comparison says of each case, by the case's name.

    Args:
        anchor_of: the commit to compare each case with.
        sources: for models named package.module:builder their module and its file.
        make: makes an interpreter (see `anchor.beside`).
        clock: seconds, against which the budget is held.
    """
    deadline_s = clock() + limits.budget_s
    found: dict[str, Confirmation] = {}
    comparable: list[tuple[Case, Origin, str]] = []
    today: dict[Path, Commit] = {}
    for case in cases:
        origin = origin_of(case, sources)
        try:
            if origin is None:
                raise ConvmarkError("the model is in no git repository")
            anchor = anchor_of(case, origin)
        except ConvmarkError as error:
            found[case.name] = Confirmation(decision=None, reason=str(error))
            continue
        if _is_today(origin, anchor, today, limits.results):
            found[case.name] = Confirmation(decision=None, anchor=anchor, reason=SAME_COMMIT)
        else:
            comparable.append((case, origin, anchor))
    plan = Plan(
        seed=limits.seed,
        warm_up_s=limits.warm_up_s,
        error_rate=error_rate_per_case(len(comparable)),
        seconds_left=lambda: deadline_s - clock(),
        input_shape=limits.input_shape,
    )
    places = sorted(comparable, key=lambda item: (item[0].backend, str(item[1].folder), item[2]))
    for (backend, origin, anchor), group in itertools.groupby(places, key=_place):
        members = [case for case, _, _ in group]
        maker = functools.partial(make, backend=backend)
        cards = [card_of(case.device, limits.gpus, os.environ) for case in members]
        found |= _beside_today(members, cards, origin, anchor, maker, plan, clock, watch)
    return found


def _place(comparable: tuple[Case, Origin, str]) -> tuple[str, Origin, str]:
    """What cases share that one pair of interpreters can run."""
    case, origin, anchor = comparable
    return case.backend, origin, anchor


def _is_today(origin: Origin, anchor: str, today: dict[Path, Commit], results: Path) -> bool:
    """Whether the files on the disk are the anchor's, so that there is nothing to compare."""
    repository = origin.repository
    if repository not in today:
        today[repository] = read_commit(repository, besides=[results])
    return today[repository].sha == anchor and today[repository].dirty is False


def _beside_today(
    cases: Sequence[Case],
    cards: Sequence[Card | None],
    origin: Origin,
    anchor: str,
    make: MakeInterpreter,
    plan: Plan,
    clock: Callable[[], float],
    watch: Watch,
) -> dict[str, Confirmation]:
    found: dict[str, Confirmation] = {}
    try:
        with beside(origin, anchor, make) as (old, new):
            for case, card in zip(cases, cards, strict=True):
                comparison = compare(
                    Side(old, case, card),
                    Side(new, case, card),
                    plan,
                    watch=functools.partial(watch, case),
                    clock=clock,
                )
                clocks = comparison.clocks
                why = comparison.reason or comparison.left_out_text
                found[case.name] = Confirmation(
                    decision=clocks.decision if clocks else None,
                    decided_by=clocks.decided_by if clocks else None,
                    sessions=len(comparison.wall),
                    anchor=anchor,
                    reason=BUDGET_SPENT if comparison.out_of_time else why,
                    sizes=comparison.sizes.get("old", {}),
                )
    except ConvmarkError as error:
        for case in cases:
            lost = Confirmation(decision=None, anchor=anchor, reason=str(error))
            found.setdefault(case.name, lost)
    return found
