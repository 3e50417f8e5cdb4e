"""The session's verdicts: review the run with its history, compare live, conclude.

All of it happens before the first test reports.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convmark.core.case import Case
from convmark.core.errors import ConvmarkError, OptionError
from convmark.core.tasks import TIMED_TASKS

if TYPE_CHECKING:
    from convmark.compare.history import History
    from convmark.compare.judgement import Confirmation
    from convmark.compare.live.anchor import AnchorCode, Origin
    from convmark.compare.meant import Meant
    from convmark.compare.rule.decision import Limits as Margins
    from convmark.compare.sessions_file import Earlier
    from convmark.compare.verdict import Review
    from convmark.core.options import Options
    from convmark.plugin.campaign import Campaign

__all__ = ["Baseline", "judge"]

GIT = "git:"
MOST_WARM_UP_S = 0.2
"""Of steps before the turns of a session, of both codes together."""

NO_BUDGET = "--compare-budget 0"

Say = Callable[[str], None]


def _named_run(campaign: Campaign, name: str) -> Path:
    """Return the file of the run that was named, never that of the run which goes on."""
    from convmark.compare.history import named_history
    from convmark.results.store import read_run

    resumed = campaign.resumed
    path = campaign.store.find(name, campaign.machine.name, but=resumed)
    named_history(path, read_run(resumed) if resumed else [])
    return path.resolve()


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What --benchmark-compare asks for, checked before anything is measured."""

    name: str
    """Empty for the accepted history, `git:REF`, or a run's file, number or commit."""
    path: Path | None = None
    """The file of a named run, found before this run has one."""
    commits: Mapping[Path, str] = field(default_factory=dict)
    """With `git:REF` the commit that it names in each repository."""

    @classmethod
    def check(cls, asked: Any, campaign: Campaign) -> Baseline:
        """Return the baseline that was asked for.

        Raises:
            ConvmarkError: it does not exist, cannot be read, or may not be run beside.
        """
        from convmark.core.option_values import check_patterns

        cases = [case.name for case in campaign.cases]
        check_patterns("--allow-change", campaign.options.allow_changes, cases)
        name = asked if isinstance(asked, str) else ""
        if name.startswith(GIT) and not campaign.options.compare_budget_s:
            raise OptionError(
                f"--benchmark-compare: {name} is compared live, and --compare-budget 0 compares "
                "nothing live; leave it out, or name a run of that commit"
            )
        if not name.startswith(GIT):
            return cls(name=name, path=_named_run(campaign, name) if name else None)
        from convmark.compare.live.anchor import origin_of, resolve_anchor

        origins = [origin_of(case, campaign.sources) for case in campaign.cases]
        return cls(name=name, commits=resolve_anchor(name.removeprefix(GIT), origins))

    @property
    def is_commit(self) -> bool:
        """Whether every case is run beside a commit, whatever the history says."""
        return self.name.startswith(GIT)


def judge(campaign: Campaign, baseline: Baseline, *, whole_suite: bool, say: Say) -> None:
    """Judge the campaign's run, and keep the judgements.

    Args:
        whole_suite: whether cases that the baseline has and this run has not are missing.
        say: shows the user a line.
    Raises:
        ConvmarkError: the history cannot be read, or the verdicts not be written.
        KeyboardInterrupt: the user has had enough of comparing; what was decided is judged.
    """
    from convmark.compare.judgement import INTERRUPTED, SAME_CODE, SAME_COMMIT
    from convmark.compare.meant import let_pass
    from convmark.compare.verdict import conclude, review

    history = _history(campaign, baseline, say)
    found = review(campaign.records, history)
    confirmations = _compare(
        campaign, baseline, history, _to_compare(campaign, baseline, found), say
    )
    same = {name for name, one in confirmations.items() if one.reason in (SAME_CODE, SAME_COMMIT)}
    same |= {name for name, case in found.cases.items() if case.same_code}
    if same:
        say(f"{len(same)} of {len(found.cases)} cases run the same code: nothing to compare")
    interrupted = any(one.reason == INTERRUPTED for one in confirmations.values())
    asked = [row for row in found.absent if row.task in campaign.options.tasks]
    found = dataclasses.replace(found, absent=tuple(asked))
    campaign.keep_sessions(confirmations)
    judgements = conclude(
        found, confirmations, report_missing=whole_suite and not baseline.is_commit
    )
    meant = _meant(campaign, baseline, history, say)
    campaign.meant = meant.reason
    campaign.keep_judgements(let_pass(judgements, meant))
    if interrupted:
        raise KeyboardInterrupt


def _history(campaign: Campaign, baseline: Baseline, say: Say) -> History:
    from convmark.compare.history import CaseHistory, History, accepted_history, named_history

    machine = campaign.machine.name
    if baseline.is_commit:
        cases = {row.case.name: CaseHistory() for row in campaign.records}
        return History(cases=cases, absent=(), files=())
    if baseline.path is not None:
        return named_history(baseline.path, campaign.records)
    return accepted_history(campaign.store, machine, campaign.records, say)


def _to_compare(campaign: Campaign, baseline: Baseline, found: Review) -> dict[str, Case]:
    """Return the cases that are compared live: all whose code is not known to be the anchor's.

    They are what was asked for, by the names of what ran: a model may make another case of its own.
    """
    ran = {row.case.name: row.asked_case for row in campaign.records if row.task in TIMED_TASKS}
    failed = {row.case.name for row in campaign.records if not row.measured}
    judged = {row.case.name for row in campaign.records if not row.not_judged}
    same = {name for name, case in found.cases.items() if case.same_code}
    anchored = {name for name, case in found.cases.items() if case.history.anchor is not None}
    names = (set(ran) if baseline.is_commit else anchored) & judged - failed - same
    return {name: case for name, case in ran.items() if name in names}


def _compare(
    campaign: Campaign,
    baseline: Baseline,
    history: History,
    cases: Mapping[str, Case],
    say: Say,
) -> dict[str, Confirmation]:
    """Return what live comparisons say, by the names of what ran."""
    from convmark.compare.judgement import Confirmation
    from convmark.compare.live.confirmation import Interpreters, Limits, confirm, same_as_today
    from convmark.interpreter import Interpreter
    from convmark.results.commit import read_commit

    options = campaign.options
    if not options.compare_budget_s:
        return {name: Confirmation(decision=None, reason=NO_BUDGET) for name in cases}
    if not cases:
        return {}
    make = functools.partial(
        Interpreter,
        campaign.python,
        isolation="fork" if options.isolation == "fork" else "spawn",
        time_limit_s=options.time_limit_s,
    )
    own = contextlib.ExitStack()
    shared = functools.cache(
        lambda backend: campaign.interpreter(backend) or own.enter_context(make(backend=backend))
    )
    names = {case: name for name, case in cases.items()}
    commit_of = functools.cache(
        functools.partial(read_commit, besides=[options.results.absolute()])
    )

    def is_same(case: Case, origin: Origin | None, anchor: AnchorCode) -> str:
        rows = [row for row in campaign.records if row.case.name == names[case]]
        return same_as_today(rows, origin, anchor, commit_of, campaign.codes)

    with own:
        found = confirm(
            list(names),
            lambda case, origin: _anchor_of(baseline, history, names[case], origin),
            campaign.sources,
            Interpreters(shared=shared, make=make),
            Limits(
                seed=options.seed,
                warm_up_s=min(options.time_budget_s, MOST_WARM_UP_S),
                budget_s=options.compare_budget_s,
                results=options.results.absolute(),
                gpus=campaign.machine.gpus,
                input_shape=options.input_shape,
                margins=_margins(options),
                earlier=_earlier(campaign, names),
            ),
            time.monotonic,
            say,
            is_same=is_same,
        )
    return {name: found[case.name] for name, case in cases.items()}


def _margins(options: Options) -> Margins:
    """Return what counts as a change; without a budget `unchanged` rules the margin itself out."""
    from convmark.compare.rule.decision import Limits as Margins

    margins = Margins.around(options.margin)
    return margins.sharp() if math.isinf(options.compare_budget_s) else margins


def _earlier(campaign: Campaign, names: Mapping[Case, str]) -> Earlier:
    """Return the sessions of earlier runs, by the names of the cases that were asked for."""
    from convmark.compare.live.anchor import origin_of
    from convmark.compare.sessions_file import Earlier, conditions_of
    from convmark.results.commit import is_before

    rows = {row.case.name: row for row in campaign.records if row.measured}
    conditions = {
        case.name: conditions_of(rows[name]) for case, name in names.items() if name in rows
    }
    origins = {case.name: origin_of(case, campaign.sources) for case in names}

    def in_the_past(case: str, commit: str) -> bool:
        origin = origins[case]
        return origin is not None and is_before(origin.repository, commit)

    return Earlier(campaign.earlier_runs, conditions, in_the_past)


def _anchor_of(
    baseline: Baseline, history: History, name: str, origin: Origin | None
) -> AnchorCode:
    """Return the code to run beside today's.

    Raises:
        ConvmarkError: there is none; the message says why, and what helps.
    """
    from convmark.compare.live.anchor import AnchorCode
    from convmark.compare.live.confirmation import NO_REPOSITORY

    if baseline.is_commit:
        if origin is None:
            raise ConvmarkError(NO_REPOSITORY)
        return AnchorCode(commit=baseline.commits[origin.repository])
    anchor = history.cases[name].anchor
    if anchor is None:
        raise ConvmarkError("no earlier run of it")
    if anchor.lost:
        raise ConvmarkError(anchor.lost)
    return AnchorCode(commit=anchor.clean_commit, code=anchor.code, manifest=anchor.manifest)


def _meant(campaign: Campaign, baseline: Baseline, history: History, say: Say) -> Meant:
    """Return what tells by what the change of a case is meant."""
    from convmark.compare.live.anchor import origin_of
    from convmark.compare.meant import Meant, Since, names_of

    asked = {row.case.name: row.asked_case for row in campaign.records}

    def since(case: str) -> Since | None:
        origin = origin_of(asked[case], campaign.sources) if case in asked else None
        if origin is None:
            return None
        anchor = history.cases[case].anchor
        commit = anchor.clean_commit if anchor else baseline.commits.get(origin.repository, "")
        unknown = f"run {anchor.run}" if anchor else "the baseline"
        return Since(repository=origin.repository, anchor=commit, head="HEAD", unknown=unknown)

    return Meant(names_of(campaign.records), campaign.options.allow_changes, since, say)
