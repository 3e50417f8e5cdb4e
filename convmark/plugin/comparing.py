"""The live comparisons of a session: of which cases, with which code, and by what terms."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError
from typing import TYPE_CHECKING

from convmark.core.case import Case
from convmark.core.errors import ConvmarkError, StoreError
from convmark.core.installed import version_of
from convmark.core.text import Say, counted, duration_text
from convmark.plugin.baseline import Baseline, against_of

if TYPE_CHECKING:
    from convmark.compare.history import History
    from convmark.compare.judgement import Judgement, LiveComparison
    from convmark.compare.live.anchor import AnchorCode, Origin
    from convmark.compare.live.case_result import LiveOptions
    from convmark.compare.live.session import Pairing
    from convmark.compare.rule.decision import Limits
    from convmark.compare.sessions_file import EarlierSessions
    from convmark.plugin.pytest_run import PytestRun
    from convmark.results.record import Record

NO_BUDGET = "--compare-budget 0"
_ROUNDED = 1e-9
"""Of a logarithm, on its way through a file."""


def compare_cases(
    run: PytestRun,
    cases: Mapping[str, Case],
    anchor_of: Callable[[str, Origin | None], AnchorCode],
    budget_s: float,
    say: Say,
    on_decided: Callable[[Mapping[str, LiveComparison]], None],
    *,
    is_accepted: Callable[[str], object] = lambda name: False,
    has_bar: bool = True,
    question: str = "",
    decided_before: int = 0,
) -> dict[str, LiveComparison]:
    """Return what live comparisons say, by the names of what ran.

    Args:
        anchor_of: gives the code to compare a case with, by the name of what ran.
        on_decided: is given what is returned, before the layers of slower cases are measured.
        is_accepted: whether a change of a case is: its layers get no time, its decisions stay.
        has_bar: whether a slowdown counts from what was faster meanwhile, as against a baseline.
        question, decided_before: as of `compare_with_anchors`, and of `decide`.
    """
    from convmark.compare.judgement import LiveComparison
    from convmark.compare.live import blame
    from convmark.compare.live.anchor import interpreter_maker
    from convmark.compare.live.gate import Sides, compare_with_anchors
    from convmark.session.expected import expected_s
    from convmark.session.forecast import process_seconds
    from convmark.session.layers import why_no_layers

    options = run.options
    if not (cases and options.compare_budget_s):
        return {name: LiveComparison(decision=None, reason=NO_BUDGET) for name in cases}
    names = {case: name for name, case in cases.items()}
    known = process_seconds(run.records, budget_s=run.options.time_budget_s)
    make = functools.partial(interpreter_maker(options), run.python)
    terms = _terms(run, names, budget_s, is_accepted, has_bar=has_bar, before=decided_before)
    with contextlib.ExitStack() as own:
        shared = functools.cache(
            lambda backend: run.interpreter(backend) or own.enter_context(make(backend=backend))
        )
        found = compare_with_anchors(
            {case: _rows_of(run, name) for case, name in names.items()},
            lambda case, origin: anchor_of(names[case], origin),
            terms,
            say,
            origin_of=run.origin,
            codes=run.codes,
            shared=shared,
            sides=Sides(make, run.machine.gpus, own),
            expected_s=lambda case: expected_s(case, options.time_budget_s, known),
            layers_s=0.0 if all(map(why_no_layers, cases.values())) else blame.expected_s(options),
            layers_of=functools.cache(lambda case: not is_accepted(names[case])),
            question=question,
            on_decided=lambda decided: on_decided(
                {name: decided[case] for case, name in names.items()}
            ),
            on_regressed=functools.partial(_blame, run, names, terms, say, anchor_of),
        )
    return {name: found[case] for name, case in cases.items()}


def _rows_of(run: PytestRun, name: str) -> list[Record]:
    return [row for row in run.records if row.case.name == name]


def _blame(
    run: PytestRun,
    names: Mapping[Case, str],
    terms: LiveOptions,
    say: Say,
    anchor_of: Callable[[str, Origin | None], AnchorCode],
    pairing: Pairing,
    cases: int,
) -> None:
    """Measure the layers of a slower case's two codes within the budget, and keep what moved.

    No verdict goes by them: where they cannot be measured, a line says why, and what measures them.

    Args:
        cases: how many cases share what is left of the budget, this one among them.
    """
    from convmark.compare.judgement import BUDGET_SPENT
    from convmark.compare.live.blame import blame, expected_s
    from convmark.report.advice import comparison_with, say_step

    name, all_s = names[pairing.case], terms.seconds_left()
    later_s = min(all_s * (cases - 1) / cases, max(0.0, all_s - expected_s(run.options) / 2))
    spare_s = 0.0 if math.isinf(all_s) else later_s

    def begins(seconds: float) -> None:
        say(f"{name}: measuring the layers of both codes, about {duration_text(seconds)}")

    left = lambda: terms.seconds_left() - spare_s  # noqa: E731 - the cases after it have the rest
    try:
        rows = blame(pairing.old, pairing.new, run.options, begins=begins, seconds_left=left)
        run.keep_changes([dataclasses.replace(row, case=name) for row in rows])
    except ConvmarkError as error:
        commit = anchor_of(name, run.origin(pairing.case)).commit
        with_them = f"{error}; this measures them:\n"
        with_them += comparison_with(commit, pairing.case, run.options)
        say_step(with_them if commit and BUDGET_SPENT in str(error) else str(error), say)


def _terms(
    run: PytestRun,
    names: Mapping[Case, str],
    budget_s: float,
    is_accepted: Callable[[str], object],
    *,
    has_bar: bool,
    before: int,
) -> LiveOptions:
    """Return what the live comparisons go by; their budget begins now."""
    from convmark.compare.live.case_result import LiveOptions
    from convmark.compare.sessions_file import left_undecided

    runs = [*run.earlier_runs, *filter(None, [run.resumed])]
    left = left_undecided(runs, names.values(), of_accepted=not has_bar)
    return LiveOptions.of(
        run.options,
        budget_s,
        limits=_limits(run),
        earlier=_earlier(run, names, is_accepted, has_bar=has_bar),
        left_over={case.name for case, name in names.items() if name in left},
        decided_before=before,
    )


def _limits(run: PytestRun) -> Limits:
    """Return what counts as a change; without a budget `unchanged` rules the margin itself out."""
    from convmark.compare.rule.decision import Limits

    limits = Limits.around(run.options.margin)
    return limits.sharp() if math.isinf(run.options.compare_budget_s) else limits


def _earlier(
    run: PytestRun,
    names: Mapping[Case, str],
    is_accepted: Callable[[str], object],
    *,
    has_bar: bool,
) -> EarlierSessions:
    """Return the sessions of earlier runs, by the names of the cases that were asked for."""
    from convmark.compare.sessions_file import EarlierSessions, conditions_of
    from convmark.results.commit import is_before

    rows = {row.case.name: row for row in run.records if row.measured}
    conditions = {
        case.name: conditions_of(rows[name]) for case, name in names.items() if name in rows
    }
    origins = {case.name: run.origin(case) for case in names}
    ran = {case.name: name for case, name in names.items()}

    def in_the_past(case: str, commit: str) -> bool:
        origin = origins[case]
        return has_bar and origin is not None and is_before(origin.repository, commit)

    runs = [*run.earlier_runs, *filter(None, [run.resumed])]
    meant = lambda case: is_accepted(ran[case])  # noqa: E731 - asked of few cases, for it asks git
    return EarlierSessions(runs, conditions, in_the_past, own=run.resumed, is_accepted=meant)


def anchor_code(
    baseline: Baseline, history: History, name: str, origin: Origin | None
) -> AnchorCode:
    """Return the code to run beside today's."""
    from convmark.compare.live.anchor import NO_REPOSITORY, AnchorCode

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


# -- a run that goes on ----------------------------------------------------------------------------


def decided_before(
    run: PytestRun, baseline: Baseline, history: History, say: Say
) -> dict[str, list[Judgement]]:
    """Return by case what the session that this run goes on from has decided of it.

    It stays so where the case's files and packages, what it is compared with and the limits are as
    they were. What was accepted then is judged anew, for it may be accepted no more.
    """
    from convmark.compare.files import CHANGES_TABLE, read_verdicts

    if run.resumed is None:
        return {}
    kept: dict[str, list[Judgement]] = {}
    try:
        verdicts, layers = read_verdicts(run.resumed), CHANGES_TABLE.of(run.resumed)
    except StoreError:
        return {}
    for one in verdicts:
        kept.setdefault(one.case, []).append(one)
    against, limits = against_of(run, baseline, history), _limits(run)
    found = {
        name: told
        for name, told in kept.items()
        if _is_decided(told, against.get(name), limits) and _ran_this_code(run, name)
    }
    if found:
        say(f"{counted(len(found), 'case')} decided before the interruption: not compared again")
    if own := [one for one in layers if one.case in found]:
        run.keep_changes(own)
    return found


def _is_decided(told: Sequence[Judgement], against: str | None, limits: Limits) -> bool:
    """Whether a live comparison has decided a case, by these limits too."""
    from convmark.compare.accepted_code import is_open
    from convmark.compare.judgement import is_interrupted
    from convmark.compare.rule.decision import WITHIN_MARGIN

    step_times = [one for one in told if one.metric == "step_time" and one.against == against]
    if not step_times or is_interrupted(told) or any(one.accepted or is_open(one) for one in told):
        return False
    one = step_times[0]
    ends = one.change, one.low, one.high
    if any(end is None or end <= -1 for end in ends):
        return False
    change, low, high = (math.log1p(end or 0.0) for end in ends)
    if one.verdict == "unchanged":
        is_named = WITHIN_MARGIN in one.note
        most = limits.slower_within if is_named else limits.unchanged_within
        return abs(change) <= limits.margin and max(high, -low) <= most + _ROUNDED
    return {"regressed": change, "improved": -change}.get(one.verdict, 0.0) > limits.margin


def _ran_this_code(run: PytestRun, name: str) -> bool:
    """Whether the files and packages that a case's rows have run are as they were.

    Another interpreter's packages are not known here.
    """
    from convmark.compare.live.gate import measured_files
    from convmark.worker.protocol import file_digest

    rows, codes = _rows_of(run, name), run.codes
    if not rows or not all(row.code in codes for row in rows):
        return False
    packages = {one for row in rows for one in codes[row.code or ""].packages.items()}
    if packages and run.python != sys.executable:
        return False
    with contextlib.suppress(PackageNotFoundError):
        files = measured_files(rows, codes)
        same = all(version_of(package) == then for package, then in packages)
        return same and all((file_digest(path) or (0, ""))[1] == one for path, one in files.items())
    return False


def with_kept(
    judgements: Sequence[Judgement], kept: Mapping[str, Sequence[Judgement]]
) -> list[Judgement]:
    """Return judgements, those of some cases as they were."""
    others = [one for one in judgements if one.case not in kept]
    return [*(one for told in kept.values() for one in told), *others]
