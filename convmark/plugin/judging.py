"""The session's verdicts: screen the run against its history, confirm what it flags, conclude.

All of it happens before the first test reports.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from convmark.case import TIMED_TASKS, Case
from convmark.errors import ConvmarkError
from convmark.report.units import duration_text

if TYPE_CHECKING:
    from convmark.judging.history import History
    from convmark.judging.judgement import Confirmation
    from convmark.lockstep.anchor import Origin
    from convmark.lockstep.engine import Progress
    from convmark.plugin.campaign import Campaign

__all__ = ["Baseline", "judge"]

GIT = "git:"
COMPARISON_S = (20, 90)
"""About what a live comparison of a small case takes, for the line that announces it."""

Say = Callable[[str], None]

_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
"""A commit in full: a file's word for one could name any branch."""


def _named_run(campaign: Campaign, name: str) -> Path:
    """Return the file of the run that was named, never that of the run which goes on."""
    from convmark.judging.history import named_history
    from convmark.store import read_run

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
            ConvmarkError: it does not exist, or cannot be read.
        """
        name = asked if isinstance(asked, str) else ""
        if not name.startswith(GIT):
            return cls(name=name, path=_named_run(campaign, name) if name else None)
        from convmark.lockstep.anchor import origin_of, resolve_anchor

        origins = [origin_of(case, campaign.sources) for case in campaign.cases]
        return cls(name=name, commits=resolve_anchor(name.removeprefix(GIT), origins))

    @property
    def is_commit(self) -> bool:
        """Whether every case is run beside a commit, whatever the history says."""
        return self.name.startswith(GIT)


def judge(
    campaign: Campaign, baseline: Baseline, *, whole_suite: bool, say: Say, stream: TextIO | None
) -> None:
    """Judge the campaign's run, and keep the judgements.

    Args:
        whole_suite: whether cases that the baseline has and this run has not are missing.
        say: shows the user a line.
        stream: where the progress of further processes is shown.

    Raises:
        ConvmarkError: the history cannot be read, or the verdicts not be written.
    """
    from convmark.judging.screen import EXTRA_PROCESSES
    from convmark.judging.verdict import conclude, flagged, review

    records = campaign.records
    history = _history(campaign, baseline, say)
    found = review(records, history)
    doubtful = _to_confirm(campaign, baseline, flagged(found))
    confirmations = _confirm(campaign, baseline, history, doubtful, say)
    unheard = [
        case
        for case in doubtful
        if case.name in flagged(found) and not confirmations[case.name].settled
    ]
    if unheard:
        say(f"{_cases(unheard)} cannot be confirmed live: {EXTRA_PROCESSES} more processes each")
        campaign.measure_more(unheard, EXTRA_PROCESSES, stream)
        found = review(campaign.records, history)
    asked = [row for row in found.absent if row.task in campaign.options.tasks]
    found = dataclasses.replace(found, absent=tuple(asked))
    campaign.keep_judgements(
        conclude(found, confirmations, report_missing=whole_suite and not baseline.is_commit)
    )


def _history(campaign: Campaign, baseline: Baseline, say: Say) -> History:
    from convmark.judging.history import CaseHistory, History, accepted_history, named_history

    machine = campaign.machine.name
    if baseline.is_commit:
        cases = {case.name: CaseHistory() for case in campaign.cases}
        return History(cases=cases, absent=(), files=())
    if baseline.path is not None:
        return named_history(baseline.path, campaign.records)
    return accepted_history(campaign.store, machine, campaign.records, say)


def _to_confirm(campaign: Campaign, baseline: Baseline, flagged: Sequence[str]) -> list[Case]:
    """Return the cases that a live comparison is to judge, the largest change first."""
    ran = {row.case.name: row.case for row in campaign.records if row.task in TIMED_TASKS}
    failed = {row.case.name for row in campaign.records if not row.measured}
    judged = {row.case.name for row in campaign.records if not row.not_judged}
    if baseline.is_commit or campaign.options.confirm == "all":
        return [case for name, case in ran.items() if name not in failed and name in judged]
    if campaign.options.confirm == "none":
        return []
    return [ran[name] for name in flagged]


def _confirm(
    campaign: Campaign,
    baseline: Baseline,
    history: History,
    cases: Sequence[Case],
    say: Say,
) -> dict[str, Confirmation]:
    from convmark.launch import Interpreter
    from convmark.lockstep.confirmation import Limits, confirm

    if not cases:
        return {}
    options = campaign.options
    low_s, high_s = (len(cases) * seconds for seconds in COMPARISON_S)
    budget_s = options.confirm_budget_s
    say(
        f"{_cases(cases)} to confirm beside {_described(baseline)}, about "
        f"{duration_text(min(low_s, budget_s))} to {duration_text(min(high_s, budget_s))}"
    )
    make = functools.partial(
        Interpreter,
        campaign.python,
        isolation="fork" if options.isolation == "fork" else "spawn",
        time_limit_s=options.time_limit_s,
    )
    return confirm(
        cases,
        functools.partial(_anchor_of, baseline, history),
        campaign.sources,
        make,
        Limits(
            seed=options.seed,
            warm_up_s=options.time_budget_s,
            budget_s=budget_s,
            results=options.results.absolute(),
            gpus=campaign.machine.gpus,
            input_shape=options.input_shape,
        ),
        time.monotonic,
        functools.partial(_say_progress, say),
    )


def _anchor_of(baseline: Baseline, history: History, case: Case, origin: Origin) -> str:
    """Return the commit to run beside today's code.

    Raises:
        ConvmarkError: there is none; the message says why, in few words.
    """
    from convmark.lockstep.confirmation import DIRTY_TREE, NO_COMMIT

    if baseline.is_commit:
        return baseline.commits[origin.repository]
    anchor = history.cases[case.name].anchor
    if anchor is None or not _SHA.fullmatch(anchor.commit or ""):
        raise ConvmarkError(NO_COMMIT)
    if anchor.dirty is not False:
        raise ConvmarkError(DIRTY_TREE)
    return str(anchor.commit)


def _say_progress(say: Say, case: Case, progress: Progress) -> None:
    """Show what each look has found, and which sessions do not count."""
    from convmark.judging.confirm import LOOKS

    if progress.not_judged:
        say(f"{case.name}: a session is left out: {progress.not_judged}")
        return
    sessions = progress.sessions
    if progress.clocks is None or sessions not in LOOKS:
        return
    decision = progress.clocks.decision
    low, high = 100 * decision.low, 100 * decision.high
    verdict = decision.verdict or "not clear yet, going on"
    say(
        f"{case.name}: {sessions} sessions, {100 * decision.estimate:+.1f} % "
        f"[{low:+.1f}, {high:+.1f}], {verdict}"
    )


def _cases(cases: Sequence[Case]) -> str:
    return f"{len(cases)} case{'s' if len(cases) != 1 else ''}"


def _described(baseline: Baseline) -> str:
    return baseline.name if baseline.is_commit else "the anchor's code"
