"""What a session is compared with, and what its verdicts say of it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convmark.core.case import Case
from convmark.core.errors import OptionError
from convmark.core.pyproject import settings_at
from convmark.core.tasks import TIMED_TASKS
from convmark.core.text import Say, counted, duration_text

if TYPE_CHECKING:
    from convmark.compare.history import History
    from convmark.compare.judgement import Judgement, LiveComparison
    from convmark.compare.verdict import Review
    from convmark.plugin.pytest_run import PytestRun

GIT = "git:"
"""Begins the name of a commit to compare with."""


def _named_run(run: PytestRun, name: str) -> Path:
    """Return the file of the run that was named, never that of the run which goes on."""
    from convmark.compare.history import named_history
    from convmark.results.reading import read_run

    resumed = run.resumed
    path = run.store.find(name, run.machine.name, but=resumed)
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

    @staticmethod
    def refuse(asked: Any, run: PytestRun, cases: Collection[Case]) -> None:
        """Refuse what names no commit, run or case, before any interpreter is started."""
        from convmark.compare.live.anchor import refuse_ref
        from convmark.core.option_values import check_patterns

        if not asked:
            return
        check_patterns("--allow-change", run.options.allow_changes, [one.name for one in cases])
        name = asked if isinstance(asked, str) else ""
        if name.startswith(GIT) and not run.options.compare_budget_s:
            raise OptionError(
                f"--benchmark-compare: {name} is compared live, and --compare-budget 0 compares "
                "nothing live; leave it out, or name a run of that commit"
            )
        if name.startswith(GIT):
            refuse_ref(name.removeprefix(GIT), [case.model for case in cases])
        elif name:
            run.store.find(name, run.machine.name)

    @classmethod
    def check(cls, asked: Any, run: PytestRun) -> Baseline:
        """Return the baseline that was asked for."""
        name = asked if isinstance(asked, str) else ""
        if not name.startswith(GIT):
            return cls(name=name, path=_named_run(run, name) if name else None)
        from convmark.compare.live.anchor import resolve_anchor

        origins = [run.origin(case) for case in run.cases]
        return cls(name=name, commits=resolve_anchor(name.removeprefix(GIT), origins))

    @property
    def is_commit(self) -> bool:
        """Whether every case is run beside a commit, whatever the history says."""
        return self.name.startswith(GIT)


def say_plan(run: PytestRun, baseline: Baseline, say: Say) -> None:
    """Say before anything is measured what is compared with what, and how long that takes at most.

    And which models are compared with nothing, for they are of another clone; and how many commits
    a branch lacks that it is compared with: what these changed would count as its own change.
    """
    from convmark.compare.live.tree import of_clones, other_clone

    timed = [case for case in run.cases if case.task in TIMED_TASKS]
    same = _with_code_of(timed, run, baseline) if baseline.commits else []
    budget_s, left = run.options.compare_budget_s, len(timed) - len(same)
    limit = "" if math.isinf(budget_s) else f", in at most {duration_text(budget_s)}"
    anchors = _anchors(run, timed, baseline) if timed else ""
    if same:
        then = f"{counted(left, 'case')} left to compare live{limit}" if left else "none is left"
        say(
            f"{len(same)} of {counted(len(timed), 'case')} have the code of {baseline.name}, "
            f"judging by the files so far: they are measured but not compared; {then}"
        )
    elif anchors:
        how = f"live where its code has changed{limit}" if budget_s else "by its figures alone"
        say(f"each case is measured, then compared with {anchors}, {how}")
    origins = [run.origin(case) for case in timed] if anchors and budget_s else []
    models = Counter(one.repository for one in origins if one is not None)
    for repository, count in models.items():
        if other := other_clone(repository, Path.cwd().resolve()):
            cases = counted(count, "case")
            say(f"{cases} will have no verdict of the step time: {of_clones(repository, other)}")
    for repository, commit in baseline.commits.items():
        count, began = _lacked(repository, commit)
        if count:
            say(
                f"HEAD lacks {counted(count, 'commit')} of {baseline.name}, whose changes count as "
                f"changes of this code; git:{began}, where the two part, leaves them out"
            )


def _lacked(repository: Path, commit: str) -> tuple[int, str]:
    """Return how many commits of one's past what is checked out lacks, and where the two part.

    None where that is not known: a shallow clone may lack all that tells.
    """
    from convmark.core.git import SHOWN, Git

    git = Git.at(repository)
    began = (git.answer("merge-base", "HEAD", commit) or "").strip()
    count = git.answer("rev-list", "--count", f"HEAD..{commit}") if began else None
    return int(count or 0), began[:SHOWN]


def _anchors(run: PytestRun, cases: Sequence[Case], baseline: Baseline) -> str:
    """Return what cases are compared with, in words; empty where there is no earlier run."""
    from convmark.compare.files import read_accepted
    from convmark.compare.history import History
    from convmark.core.text import listed

    if baseline.is_commit:
        return described(baseline, History(cases={}))
    machine, names, newest = run.machine.name, [case.name for case in cases], dict[str, str]()
    if (path := baseline.path) is not None:
        several = run.store.newest_of(path, baseline.name, machine, but=run.resumed)
        return ", ".join(filter(None, [f"run {path.stem}", several]))
    earlier = {path.stem for path in run.store.runs(machine) if path != run.resumed}
    if not earlier:
        return ""
    for one in read_accepted(run.store, machine):
        if one.run in earlier:
            newest |= dict.fromkeys([one.case] if one.case else names, one.run)
    accepted = sorted({newest[name] for name in names if name in newest})
    parts = [f"its accepted run ({listed(accepted, 2)})"] if accepted else []
    return ", or ".join([*parts, *["its first run"] * any(name not in newest for name in names)])


def _with_code_of(cases: Sequence[Case], run: PytestRun, baseline: Baseline) -> list[Case]:
    """Return the cases that run the code of the commit already.

    What a case runs is known by its newest row, and where it has none, by git alone. The rows that
    come decide.
    """
    from convmark.compare.live.gate import has_code_of

    codes = run.known_codes()
    return [
        case
        for case in cases
        if (origin := run.origin(case)) is not None
        and (commit := baseline.commits.get(origin.repository))
        and has_code_of(origin, commit, codes.get(case.name), run.options.results)
    ]


def with_baseline(
    run: PytestRun,
    baseline: Baseline,
    history: History,
    judgements: Sequence[Judgement],
    say: Say,
) -> list[Judgement]:
    """Return judgements that say what they are against.

    Of step times also what both codes share that was another, and what passes by a margin that has
    been raised.
    """
    from convmark.compare.judgement import OTHER_PACKAGES, passing_words

    against = against_of(run, baseline, history)
    shared = _shared(run, baseline, history)
    is_sharp = math.isinf(run.options.compare_budget_s)
    before = _margins_before(run, baseline, history)

    def told(one: Judgement) -> str:
        return passing_words(run.options.margin, *before(one.case), one, is_sharp=is_sharp)

    for line in dict.fromkeys(line for lines in shared.values() for line in lines):
        remedy = "; `convmark ab` compares two environments" * (OTHER_PACKAGES in line)
        say(f"{line}{remedy}")
    return [
        dataclasses.replace(
            one,
            against=against.get(one.case, ""),
            note="; ".join(filter(None, [one.note, told(one), *shared.get(one.case, ())]))
            if one.metric == "step_time"
            else one.note,
        )
        for one in judgements
    ]


def say_compared(
    baseline: Baseline, found: Review, comparisons: Mapping[str, LiveComparison], say: Say
) -> None:
    """Say how many cases have the anchor's code, and which figures a commit does not have."""
    from convmark.compare.judgement import SAME_CODE, SAME_COMMIT

    same = {name for name, one in comparisons.items() if one.reason in (SAME_CODE, SAME_COMMIT)}
    same |= {name for name, case in found.cases.items() if case.same_code}
    if same:
        whole = counted(len(found.cases), "case")
        say(f"{len(same)} of {whole} with the same code: nothing to compare")
    if baseline.is_commit and not same.issuperset(found.cases):
        say(
            f"{baseline.name} has no figures of memory, accuracy or first steps: only a run has, "
            "so they are not compared"
        )


def described(baseline: Baseline, history: History) -> str:
    """Return the commit, or the runs with their commits, that a session is compared with."""
    from convmark.core.git import SHOWN, Git
    from convmark.core.text import listed
    from convmark.report.verdicts import run_words
    from convmark.results.reading import read_head

    words = []
    for repository, commit in baseline.commits.items():
        day = Git.at(repository).answer("show", "-s", "--format=%cs", commit) or ""
        count, _ = _lacked(repository, commit)
        parts = [commit[:SHOWN], day.strip(), f"{count} ahead of HEAD" if count else ""]
        words.append(f"{baseline.name} ({', '.join(filter(None, parts))})")
    anchors = {one.path: one for case in history.cases.values() if (one := case.anchor)}
    for path, one in anchors.items():
        head = read_head(path)
        words.append(run_words(one.run, one.commit, one.dirty, head.started if head else ""))
    return listed(list(dict.fromkeys(words)), 2)


def against_of(run: PytestRun, baseline: Baseline, history: History) -> dict[str, str]:
    """Return by case the commit, or the run with its commit, that it is judged against."""
    from convmark.core.git import SHOWN
    from convmark.report.verdicts import run_words

    found = {}
    for row in run.records:
        anchor, origin = history.cases[row.case.name].anchor, run.origin(row.asked_case)
        if anchor is not None:
            found[row.case.name] = run_words(anchor.run, anchor.commit, anchor.dirty)
        elif origin is not None and origin.repository in baseline.commits:
            found[row.case.name] = baseline.commits[origin.repository][:SHOWN]
    return found


def _shared(run: PytestRun, baseline: Baseline, history: History) -> dict[str, list[str]]:
    """Return by case in what both codes are today's, though its baseline's commit has another."""
    from convmark.compare.live.todays import changed_variables, other_packages, todays

    own: dict[str, Any] = {"options": run.options, "folder": run.folder}
    variables = changed_variables(run.environ, os.environ)

    @functools.cache
    def told(repository: Path, commit: str) -> list[str]:
        others = todays(repository, commit, variables=variables, **own)
        return list(filter(None, [other_packages(repository, commit), *others]))

    found: dict[str, list[str]] = {}
    for row in run.records:
        anchor, origin = history.cases[row.case.name].anchor, run.origin(row.asked_case)
        commits: Mapping[Path, str] = baseline.commits  # all share the packages of one interpreter
        if not baseline.is_commit and anchor and origin is not None:
            commits = {origin.repository: anchor.clean_commit}
        lines = (line for place, one in commits.items() if one for line in told(place, one))
        found[row.case.name] = list(dict.fromkeys(lines))
    return found


def _margins_before(
    run: PytestRun, baseline: Baseline, history: History
) -> Callable[[str], tuple[float, str]]:
    """Return what tells of a case the margin that its baseline's commit sets, and where.

    It is the default where the commit sets none.
    """
    from convmark.core.options import Options

    margin_at = functools.cache(functools.partial(_margin_at, run.folder))

    def before(case: str) -> tuple[float, str]:
        known = history.cases.get(case)
        anchor = known.anchor if known else None
        commits = [anchor.clean_commit] if anchor else list(baseline.commits.values())
        found = filter(None, (margin_at(commit) for commit in commits if commit))
        return next(found, (Options().margin, "which is {} by default"))

    return before


def _margin_at(folder: Path, commit: str) -> tuple[float, str] | None:
    from convmark.core.git import SHOWN
    from convmark.core.option_values import parse_margin

    settings = settings_at(folder, commit)
    if settings is not None and "margin" in settings:
        with contextlib.suppress(OptionError):
            margin = float(parse_margin("margin", str(settings["margin"])))
            return margin, f"which was {{}} in {commit[:SHOWN]}"
    return None
