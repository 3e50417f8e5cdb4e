"""`convmark bisect`: find the release, or the commit of the models, that caused a change."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from convmark.cli.ab import SideComparison, StoppingRule, make_of
from convmark.cli.command import exit_status, sayer
from convmark.compare.ab_rows import VerdictRow
from convmark.compare.judgement import INTERRUPTED
from convmark.compare.live.ab import GIT, AsItIs, SideSpec, inspected
from convmark.compare.live.anchor import Origin, origin_of, refuse_ref
from convmark.compare.live.bisect import Bisection, Change
from convmark.compare.live.bisect import bisect as narrow
from convmark.compare.live.worktree import resolve_here, standing_in
from convmark.compare.rule.decision import Limits
from convmark.core.case import Case
from convmark.core.errors import ConvmarkError, InstallError, OptionError, WorkerError
from convmark.core.fitting import tell
from convmark.core.git import Git
from convmark.core.interval import interval_text, share_of
from convmark.core.model_name import ModelName
from convmark.core.option_values import parse_percent, parse_seconds, parse_words
from convmark.core.options import Options, of_command
from convmark.core.suites import cases, refuse_untimed
from convmark.core.table import Table, headings, table_of
from convmark.core.text import counted
from convmark.interpreter.environments import Cache
from convmark.interpreter.inspection import refuse_unknown
from convmark.interpreter.installer import between, releases, wanted
from convmark.machine.hardware import read_machine
from convmark.machine.lock import alone
from convmark.report.tables import Answer, check_form, print_tables

_say = sayer("convmark bisect")

SideOf = Callable[[str], SideSpec]

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
"""Source: the Python Packaging Authority's specification of names."""


def bisect(given: argparse.Namespace, options: Options) -> int:
    """Narrow the change down, print each step and the answer; fail where it was not found.

    Raises:
        ConvmarkError: the ends are not to be had, or the options name more than one case.
    """
    threshold, form = parse_percent("--threshold", given.threshold), check_form(given.format)
    versions = [] if given.versions is None else parse_words("--versions", given.versions)
    budget_s = parse_seconds("--budget", given.budget)
    good, bad = given.good, given.bad
    refuse_untimed(options, "convmark bisect compares")
    options = of_command("bisect", options)
    make_of(options)  # refuses what no comparison takes
    case = _one_case(options)
    ends = good.removeprefix(GIT), bad.removeprefix(GIT)
    if good.startswith(GIT) != bad.startswith(GIT):
        raise OptionError("--good and --bad: must both be releases, or both git:REF")
    if good.startswith(GIT):
        for flag, ref in zip(("--good", "--bad"), ends, strict=True):
            try:
                refuse_ref(ref, [case.model])
            except ConvmarkError as error:
                raise OptionError(f"{flag}: {error}") from None
        side_of: SideOf = _of_commit
    else:
        refuse_unknown([case.model], elsewhere=True)
        side_of = _side_of_release(good, bad, given.package, given.beside)
    with alone(wait=options.wait, concurrent=options.allow_concurrent, say=_say):
        if good.startswith(GIT):
            candidates = _commits(_origin(options, case), *ends)
        else:
            candidates = between(versions or releases(given.package), good, bad)
        _say(f"{counted(len(candidates), 'candidate')}: {', '.join(candidates)}")
        steps = _Steps(options, side_of, threshold, budget_s)
        found = narrow(candidates, steps.compare, math.log1p(threshold))
    words = _answer(found, threshold, case.threads)
    if form == "text":
        tell(words)
    else:
        machines = [read_machine().name]
        tables = [_answer_table(found, words), steps.table]
        answer = Answer(command="bisect", machines=machines, tables=tables, several=True)
        print_tables(answer, form)
    return exit_status(found.verdict == "found")


def _one_case(options: Options) -> Case:
    if "all" in options.devices:
        raise OptionError("--devices: bisect needs one device, such as cpu or gpu:0, got all")
    named = cases(options, dict.fromkeys(options.backends, options.devices))
    if len(named) != 1:
        raise OptionError(
            f"convmark bisect needs one case, the options name {len(named)}; narrow them by "
            "--models, --tasks and --batch-sizes"
        )
    return named[0]


def _side_of_release(good: str, bad: str, package: str, beside: Sequence[str]) -> SideOf:
    """Return what makes the side of a release; nothing is looked up yet."""
    if not _NAME.fullmatch(package):
        raise OptionError(f"--package: must be the name of a package, got {package!r}")
    for flag, text in (("--good", good), ("--bad", bad), *(("--with", one) for one in beside)):
        wanted(flag, text, package)

    def of_release(version: str) -> SideSpec:
        text = " ".join([f"{package}=={version}", *beside])
        made = Cache().get(wanted("--good", text), _say)
        return SideSpec(text=text, python=made.python)

    return of_release


def _commits(origin: Origin | None, good: str, bad: str) -> list[str]:
    """Return the commits from good to bad that may have changed the model, the ends included."""
    if origin is None:
        raise OptionError(f"--good: git:{good} needs the model in a git repository")
    repository = standing_in(origin.repository, Path.cwd())
    first, last = (resolve_here(origin.repository, ref) for ref in (good, bad))
    if first == last:
        raise OptionError(f"--bad: must be another commit than --good, both are {first[:12]}")
    # the zoo is whole in its folder; a user's model may read any file of the repository
    folder = str(origin.folder) if origin.is_zoo else "."
    within = ("rev-list", "--reverse", "--first-parent", f"{first}..{last}", "--", folder)
    touched = (Git.at(repository).answer(*within) or "").split()
    if not touched:
        raise OptionError(f"--bad: no commit between {good} and {bad} touches {folder}")
    return [sha[:12] for sha in dict.fromkeys([first, *touched])]


def _origin(options: Options, case: Case) -> Origin | None:
    sources: Mapping[str, Any] = {}
    if not ModelName.of(case.model).is_zoo:
        sources = inspected(AsItIs, [case.model], make_of(options)).sources
    return origin_of(case, sources)


def _of_commit(sha: str) -> SideSpec:
    return SideSpec(text=f"{GIT}{sha}", ref=sha)


class _Steps:
    """Runs and tells the steps; a candidate that cannot be had is told, and is no answer."""

    def __init__(
        self, options: Options, side_of: SideOf, threshold: float, budget_s: float
    ) -> None:
        self._options = options
        self._side_of = side_of
        self._wanted = StoppingRule(
            target=math.log1p(threshold) / 2,
            budget_s=budget_s,
            limits=Limits.around(threshold),
        )
        self._done: dict[tuple[str, str], Change | None] = {}
        self._told: list[dict[str, Any]] = []

    @property
    def table(self) -> Table:
        """The comparisons of candidates, in the order in which they were made."""
        columns = headings("earlier later change low high void note", void=("void", "flag"))
        keep = ("earlier", "later", "void")
        about = "Changes of the step time; void: the control differed from its twin."
        return table_of("steps", "Comparisons", about, columns, self._told, keep=keep)

    def compare(self, earlier: str, later: str) -> Change | None:
        """Return the change between two candidates, measured once."""
        if (earlier, later) not in self._done:
            self._done[earlier, later] = self._compare(earlier, later)
        return self._done[earlier, later]

    def _compare(self, earlier: str, later: str) -> Change | None:
        try:
            a, b = self._side_of(earlier), self._side_of(later)
            comparing = SideComparison.opened(self._options, a, b)
            ((row, found),) = comparing.outcomes(self._wanted)
        except (InstallError, WorkerError) as error:
            self._told.append({"earlier": earlier, "later": later, "note": str(error)})
            _say(f"{earlier} to {later}: cannot be measured: {error}")
            return None
        if found.closed == INTERRUPTED:
            raise KeyboardInterrupt
        change = _change(row)
        told = {key: getattr(row, key) for key in ("change", "low", "high", "note")}
        self._told.append({"earlier": earlier, "later": later, "void": row.void, **told})
        said = row.note or "too few sessions"
        if change is not None:
            said = _in_words(change)
        _say(f"{earlier} to {later}: {said}{', void' if row.void else ''} ({comparing.kept})")
        return change


def _change(row: VerdictRow) -> Change | None:
    if row.change is None or not row.interval.known:
        return None
    return Change(
        estimate=math.log1p(row.change),
        interval=row.interval.mapped(math.log1p),
        void=row.void,
    )


def _answer_table(found: Bisection, words: str) -> Table:
    seen = found.change or found.whole
    keys = ("verdict", "last_good", "first_bad")
    record: dict[str, Any] = {key: getattr(found, key) for key in keys}
    record |= {"between": ", ".join(found.between), "note": words}
    if seen:
        record |= {"change": share_of(seen.estimate), **seen.interval.shares().cells}
    columns = headings(f"{' '.join(keys)} between change low high note")
    return table_of("answer", "Bisection", "", columns, [record], keep=keys)


def _in_words(change: Change) -> str:
    return interval_text(share_of(change.estimate), change.interval.shares())


def _answer(found: Bisection, threshold: float, threads: str) -> str:
    limit = f"{100 * threshold:g} %"
    ends = f"{found.last_good} and {found.first_bad}"
    seen = found.change or found.whole
    change = f": {_in_words(seen)}" if seen else ""
    if found.verdict == "found":
        return (
            f"{found.first_bad} brought the change, {found.last_good} was the last "
            f"version before it{change}"
        )
    if found.verdict == "no change":
        return f"no change larger than {limit} between {ends}{change}"
    left = f", among {', '.join(found.between)}" if found.between else ""
    fewer = "" if threads == "1" else ", with --threads 1"
    return (
        f"inconclusive: between {ends}{left}{change}; try it on an idle machine{fewer}, or with a "
        "larger --threshold"
    )
