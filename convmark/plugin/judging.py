"""The session's verdicts: review the run with its history, compare live, conclude.

All of it happens before the first test reports.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from convmark.core.case import Case
from convmark.core.tasks import TIMED_TASKS
from convmark.core.text import Say
from convmark.plugin.baseline import Baseline, described, say_compared, with_baseline
from convmark.plugin.comparing import anchor_code, compare_cases, decided_before, with_kept

if TYPE_CHECKING:
    from convmark.compare.history import History
    from convmark.compare.intended import IntendedChanges
    from convmark.compare.judgement import Judgement, LiveComparison
    from convmark.compare.live.anchor import AnchorCode, Origin
    from convmark.compare.verdict import Review
    from convmark.plugin.pytest_run import PytestRun
    from convmark.plugin.selection import Selection
    from convmark.results.record import Record

_SINCE = "accepted by a commit: has it become slower since that commit?"
_LEAST_OF_BUDGET = 0.25
"""What accepted cases get of the budget at least: a case that no time decides takes all of it."""


def judge(
    run: PytestRun,
    baseline: Baseline,
    *,
    chosen: Selection,
    say: Say,
    removed: Callable[[], Sequence[str]] = tuple,
    names_other: Callable[[Case], bool] = lambda case: False,
) -> None:
    """Judge the run, and keep the judgements.

    Args:
        chosen: the cases that the session was asked for.
        say: shows the user a line.
        removed: the cases of the commit that it is compared with, without those that are measured.
        names_other: whether the options leave a case out, which is then not missing.

    Raises:
        ConvmarkError: the history cannot be read, or the verdicts not be written.
        KeyboardInterrupt: the user has had enough of comparing; what was decided is judged.
    """
    from convmark.compare.verdict import review

    began_s = time.monotonic()
    history = _history(run, baseline, say)
    found = _with_missing(run, review(run.records, history), chosen, names_other)
    once = functools.cache(say)
    meant = _meant(run, baseline, history, once)
    run.meant, budget_s = meant.reason, run.options.compare_budget_s
    run.baseline = described(baseline, history)

    kept = decided_before(run, baseline, history, say)
    concluded = functools.partial(_concluded, run, baseline, history, found, kept, once)
    keep_first = functools.partial(_keep_first, run, meant, concluded)
    anchors = functools.partial(anchor_code, baseline, history)
    asked = _to_compare(run, baseline, found, kept)
    comparisons = compare_cases(
        *(run, asked, anchors, budget_s, say, keep_first),
        is_accepted=lambda name: meant.accepting_commit(name)[0],
        decided_before=len(kept),
    )
    say_compared(baseline, found, comparisons, say)
    interrupted = any(one.interrupted for one in comparisons.values())
    judgements = concluded(comparisons)
    if baseline.is_commit and not interrupted:
        try:
            judgements += _removed(run, baseline, chosen, removed, say)
        except KeyboardInterrupt:
            interrupted, judgements = True, _without_removed(judgements)
    accepted = _accepted(run, judgements, meant) if budget_s else {}
    left_s = max(_LEAST_OF_BUDGET * budget_s, budget_s - (time.monotonic() - began_s))
    keep = functools.partial(_keep, run, judgements, meant, comparisons)
    since = _since_accepted(run, accepted, left_s, say, keep, goes_on=not interrupted)
    keep(since)
    if interrupted or any(one.interrupted for one in since.values()):
        raise KeyboardInterrupt


def _concluded(
    run: PytestRun,
    baseline: Baseline,
    history: History,
    found: Review,
    kept: Mapping[str, Sequence[Judgement]],
    say: Say,
    given: Mapping[str, LiveComparison],
) -> list[Judgement]:
    """Return the judgements of a run by its live comparisons, those of kept cases as they were."""
    from convmark.compare.verdict import conclude

    told = conclude(found, given, report_missing=not baseline.is_commit, must_fit=True)
    return with_kept(with_baseline(run, baseline, history, told, say), kept)


def _keep_first(
    run: PytestRun,
    meant: IntendedChanges,
    concluded: Callable[[Mapping[str, LiveComparison]], list[Judgement]],
    given: Mapping[str, LiveComparison],
) -> None:
    """Keep the verdicts before accepted cases are compared with what accepted them."""
    from convmark.compare.accepted_code import not_ended

    told = concluded(given)
    _keep(run, told, meant, given, not_ended(_accepted(run, told, meant)))


def _keep(
    run: PytestRun,
    judgements: Sequence[Judgement],
    meant: IntendedChanges,
    comparisons: Mapping[str, LiveComparison],
    since: Mapping[str, LiveComparison],
) -> None:
    """Keep verdicts and sessions; before the layers are measured too, lest a kill lose them."""
    from convmark.compare.intended import pass_intended

    run.keep_judgements(pass_intended(judgements, meant, run.earlier_runs, since))
    run.keep_sessions([*comparisons.items(), *since.items()])


def _with_missing(
    run: PytestRun, found: Review, chosen: Selection, names_other: Callable[[Case], bool]
) -> Review:
    """Return the review with what the history has and the run, which was asked for it, has not."""
    tasks = run.options.tasks
    asked = [row for row in found.absent if row.task in tasks and not names_other(row.asked_case)]
    missing = [row for row in asked if chosen.whole and not _left_out(row, chosen)]
    run.left_out = len({row.case.name for row in asked} - {row.case.name for row in missing})
    return dataclasses.replace(found, absent=tuple(missing))


def _accepted(
    run: PytestRun, judgements: Sequence[Judgement], meant: IntendedChanges
) -> dict[str, tuple[str, str]]:
    """Return the commit whose trailer accepts it of each case that would fail otherwise.

    As `accepting_commit` has it, by the names of what ran.
    """
    from convmark.compare.accepted_code import HELD_TO_CODE

    failing = {
        one.case
        for one in judgements
        if one.fails and one.metric in HELD_TO_CODE and one.verdict in ("regressed", "changed")
    }
    timed = {row.case.name for row in run.records if row.task in TIMED_TASKS}
    commits = {name: meant.accepting_commit(name) for name in sorted(failing & timed)}
    return {name: found for name, found in commits.items() if found[0]}


def _since_accepted(
    run: PytestRun,
    accepted: Mapping[str, tuple[str, str]],
    budget_s: float,
    say: Say,
    on_decided: Callable[[Mapping[str, LiveComparison]], None],
    *,
    goes_on: bool,
) -> dict[str, LiveComparison]:
    """Return what live comparisons say of cases with the commits whose trailers accept them.

    After Ctrl-C that none was ended: the verdicts so far are kept.

    Args:
        accepted: those commits, by the names of what ran.
        on_decided: is given what is returned, before the layers of slower cases are measured.
        goes_on: whether the user has not ended the session yet.
    """
    from convmark.compare.accepted_code import not_ended
    from convmark.compare.live.anchor import AnchorCode
    from convmark.compare.live.worktree import resolve_here

    def anchor_of(name: str, origin: Origin | None) -> AnchorCode:
        assert origin is not None  # a trailer is read in its repository
        commit, label = accepted[name]
        return AnchorCode(commit=resolve_here(origin.repository, commit), name=label)

    cases = {row.case.name: row.asked_case for row in run.records if row.case.name in accepted}
    compare = functools.partial(compare_cases, has_bar=False, question=_SINCE)
    with contextlib.suppress(KeyboardInterrupt):
        if goes_on:
            return compare(run, cases, anchor_of, budget_s, say, on_decided)
    return not_ended(accepted)


def _left_out(row: Record, chosen: Selection) -> bool:
    return not {row.case.name, row.asked_case.name}.isdisjoint(chosen.left_out)


def _removed(
    run: PytestRun,
    baseline: Baseline,
    chosen: Selection,
    removed: Callable[[], Sequence[str]],
    say: Say,
) -> list[Judgement]:
    """Return what is said of the cases that the commit has and this run has not."""
    from convmark.core.git import SHOWN
    from convmark.plugin.selection import removed_judgement

    if not chosen.repeatable:
        say(
            "--lf and --sw choose by an earlier session, so missing cases of "
            f"{baseline.name} are not looked for"
        )
        return []
    names = removed()
    run.left_out = sum(name in chosen.left_out for name in names)
    shown = " and ".join(dict.fromkeys(one[:SHOWN] for one in baseline.commits.values()))
    number, has = run.records[0].run, f"{baseline.name} has it, this run has"
    notes = {name: f"{has} {'skipped it' if name in chosen.skipped else 'not'}" for name in names}
    return [
        removed_judgement(name, number, note, shown)
        for name, note in notes.items()
        if name not in chosen.left_out
    ]


def _without_removed(judgements: Sequence[Judgement]) -> list[Judgement]:
    """Return judgements that say that Ctrl-C has ended the search for removed cases."""
    from convmark.compare.judgement import INTERRUPTED, joined

    note = f"{INTERRUPTED}: missing cases were not looked for"
    first = [dataclasses.replace(one, note=joined(one.note, note)) for one in judgements[:1]]
    return [*first, *judgements[1:]]


def _history(run: PytestRun, baseline: Baseline, say: Say) -> History:
    from convmark.compare.history import CaseHistory, History, accepted_history, named_history

    machine = run.machine.name
    if baseline.is_commit:
        cases = {row.case.name: CaseHistory() for row in run.records}
        return History(cases=cases)
    if baseline.path is not None:
        return named_history(baseline.path, run.records)
    return accepted_history(run.store, machine, run.records, say)


def _to_compare(
    run: PytestRun, baseline: Baseline, found: Review, kept: Collection[str]
) -> dict[str, Case]:
    """Return the cases that are compared live: all whose code is not known to be the anchor's.

    They are what was asked for, by the names of what ran: a model may make another case of its own.
    """
    ran = {row.case.name: row.asked_case for row in run.records if row.task in TIMED_TASKS}
    failed = {row.case.name for row in run.records if not row.measured}
    judged = {row.case.name for row in run.records if not row.not_judged}
    same = {name for name, case in found.cases.items() if case.same_code}
    anchored = {name for name, case in found.cases.items() if case.history.anchor is not None}
    names = (set(ran) if baseline.is_commit else anchored) & judged - failed - same - {*kept}
    return {name: case for name, case in ran.items() if name in names}


def _meant(run: PytestRun, baseline: Baseline, history: History, say: Say) -> IntendedChanges:
    """Return what tells by what the change of a case is meant."""
    from convmark.compare.intended import IntendedChanges, TrailerRange, case_names
    from convmark.compare.live.worktree import superproject

    asked = {row.case.name: row.asked_case for row in run.records}

    def since(case: str) -> TrailerRange | None:
        """Return the commits since the case's anchor in its model's repository; None for none."""
        origin = run.origin(asked[case]) if case in asked else None
        if origin is None:
            return None
        anchor = history.cases[case].anchor
        commit = anchor.clean_commit if anchor else baseline.commits.get(origin.repository, "")
        unknown = f"run {anchor.run}" if anchor else "the baseline"
        found = TrailerRange(
            repository=origin.repository, anchor=commit, head="HEAD", unknown=unknown
        )
        for other, sha in baseline.commits.items():
            if other.resolve() == superproject(origin.repository):
                around = TrailerRange(repository=other, anchor=sha, head="HEAD")
                return dataclasses.replace(found, around=around)
        return found

    return IntendedChanges(case_names(run.records), run.options.allow_changes, since, say)
