"""The last lines of a run or a gate: what it means, and below it the next command."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Sequence

from convmark.compare.accepted_code import AGAIN, is_open, remedy
from convmark.compare.intended import doubt_of, trailer_line
from convmark.compare.judgement import (
    HEADLINES,
    MACHINE,
    NO_EARLIER,
    ONE_GRAPH,
    OTHER_PACKAGES,
    SAME_CODE,
    SAME_COMMIT,
    TODAYS,
    Judgement,
    decided,
    margin_lines,
    shared_lines,
)
from convmark.core.backends import DEFAULT_BACKEND
from convmark.core.case import Case
from convmark.core.fitting import unbroken
from convmark.core.git import SHOWN
from convmark.core.options import Options
from convmark.core.pyproject import program, typed
from convmark.core.runtimes import DEFAULT_RUNTIME
from convmark.core.statistics import grouped
from convmark.core.tasks import TIMED_TASKS
from convmark.core.text import Say, counted, listed, load_text
from convmark.report.summary import by_case, load_of
from convmark.report.verdicts import change_text, value_text
from convmark.results.record import Record
from convmark.session.layers import why_no_layers

_OF_DOCTOR = ("backends", "pythons", "environments", "results")
_OF_REPORT = ("results",)
_OF_AB = (
    *("trust_models", "devices", "precisions", "jit", "optimizer", "learning_rate"),
    *("loss", "threads", "cpus", "numa", "backends", "runtimes", "input_shape", "isolation"),
    "results",
)
"""The fields of `Options` that these commands take."""

_COMMIT = re.compile(rf"\b[0-9a-f]{{{SHOWN}}}\b(?! with edits)")


MOST_FAILED, MOST_METRICS, MOST_LETTERS = 4, 2, 120
"""Cases that are named at the end of a gate, so that it fits into the last lines of a terminal;
metrics of each; and letters of a note."""

_TOLD = ("error", "out_of_memory")
"""Statuses whose reason is of the case, and not of the machine."""

MEANT = frozenset(("regressed", "changed"))
"""Verdicts of a change that may be intended."""

_PASSED = "the gate passed: "
"""How the step of a gate begins that has nothing to warn of."""


def say_step(step: str, say: Say) -> None:
    """Say a step, if any: the sentence, what is indented, and what is pasted in one line each.

    A line that is pasted whole goes with the one before it, which ends with a colon: so nothing of
    ours stands before it.
    """
    told: list[str] = []
    alone = step.replace(f"\nnext: {program()} ", f"\nnext:\n{program()} ")
    for line in alone.splitlines():
        if told and told[-1].endswith(":") and not line.startswith((" ", "next:")):
            told[-1] += f"\n{unbroken(line)}"
        else:
            told.append(line)
    for line in told:
        say(line)


def next_step(
    records: Sequence[Record], options: Options, *, searched: bool = False, quiet: bool = False
) -> str:
    """Return what the rows amount to, and the next command.

    Args:
        options: of the run; the command repeats those that it needs.
        searched: whether a search for batch sizes has ended, which it does at a size that fails.
        quiet: whether nothing is returned where all is well.
    """
    if searched:
        records = [record for record in records if record.measured]
    doctor = f"next: {typed('doctor', options, _OF_DOCTOR)}"
    failed = [record for record in records if not record.measured]
    doubtful = sum(record.status == "unsteady" or bool(record.not_judged) for record in records)
    if failed:
        said = f"{len(failed)} of {counted(len(records), 'process')} without figures"
        told = next((record for record in failed if record.status in _TOLD), None)
        if told is None:
            return f"{said}: the column note has the reason\n{doctor}"
        again = typed(f"run {_case_words(told.case)} --processes 1", options, _OF_AB)
        return (
            f"{said}: the column note has the reason; correct it and measure again\nnext: {again}"
        )
    of_all, causes = f"of {counted(len(records), 'process')}", []
    if doubtful:
        causes.append(f"{doubtful} {of_all} unsteady or not judged, so do not quote their cases")
    cases = by_case(records)
    if loaded := load_words(records):
        causes.append(loaded)
    report = _report(options, several=len({record.model for record in records}) > 1)
    if causes:
        helps = f"{'; '.join(causes)}: close other programs and measure again"
        if report == _report(options):
            return f"{helps}\n{doctor}"
        return f"{helps}, or see which model is faster as far as these tell\n{report}"
    if quiet:
        return ""
    helps = "where spread is wide, give more --processes"
    if all(len(rows) == 1 and rows[0].task in TIMED_TASKS for rows in cases.values()):
        helps = "one process of each case tells no spread, so give --processes 3 to quote figures"
    return f"all processes were measured; {helps}\n{report}"


def load_words(records: Sequence[Record]) -> str:
    """Say of how many cases the figures were measured under other load; empty of none."""
    cases = by_case(records)
    loads = list(filter(None, map(load_of, cases.values())))
    if not loads:
        return ""
    return (
        f"{len(loads)} of {counted(len(cases), 'case')} measured while other programs took up to "
        f"{load_text(max(loads))} of the CPUs' time, so step times are longer than on an idle "
        "machine"
    )


def _report(options: Options, *, several: bool = False) -> str:
    """Return the command that shows the figures; of several models which one is faster."""
    return f"next: {typed('report' if several else 'report -o report.html', options, _OF_REPORT)}"


def gate_step(
    judgements: Sequence[Judgement],
    options: Options,
    *,
    left_out: int = 0,
    failed: bool = False,
    baseline: str = "",
    quiet: bool = False,
) -> str:
    """Return what the verdicts of a run amount to, and the next command.

    Args:
        baseline: what the run was compared with, in words.
        options: as those of `next_step`.
        left_out: cases of the baseline that the run was not asked for.
        failed: whether the session fails, were it by no verdict.
        quiet: whether only the worst case of a failure is named, and nothing is returned of a gate
            that has passed without a doubt.
    """
    of_cases = [one for one in judgements if one.model != MACHINE]
    if any(one.fails for one in judgements):
        return _failure(of_cases, options, baseline, quiet=quiet)
    gone = [one.case for one in of_cases if one.verdict == "missing"]
    here = [one for one in of_cases if one.verdict != "missing"]
    fresh = [one.case for one in here if one.verdict == "new"]
    if failed:
        step = (
            "the gate failed by a test, though no verdict fails: the report above shows the reason"
            f"\nnext: {typed('show latest', options, _OF_REPORT)}"
        )
    elif (gone or left_out) and decided(here) == "nothing":
        step = (
            "the gate compared nothing, which is no pass: the baseline has none of the cases that "
            f"ran; are they new, or renamed?\nnext: {typed('list', options, _OF_REPORT)}"
        )
    else:
        step = _without_failures(here, options)
    first, _, rest = step.partition("\n")
    sentence = first + _those(gone, "of the baseline did not run")
    if decided(here) != "nothing":
        sentence += _those(fresh, "without a baseline")
    if left_out:
        part = f"{counted(left_out, 'case')} of the baseline left out"
        sentence += f"; {part}, as only a part was asked for"
    shared = shared_lines(here)
    todays = (line for line in shared if TODAYS in line)
    sentence += "".join(f"; {line}" for line in (*margin_lines(here), *todays))
    if any(OTHER_PACKAGES in line for line in shared):
        sentence += "; what the baseline's commit would have installed was not compared"
    if quiet and sentence == first and first.startswith(_PASSED) and not _doubted(here):
        return ""
    return f"{sentence}\n{rest}"


def _failure(of_cases: Sequence[Judgement], options: Options, baseline: str, *, quiet: bool) -> str:
    """Return what failed, by how much and against what, how it passes if meant, and what helps."""
    failing = grouped((one.case, one) for one in of_cases if one.fails)
    worst = sorted(failing.values(), key=_weight, reverse=True)
    cases = counted(len({one.case for one in of_cases}), "case")
    against = f" against {baseline}" * bool(baseline)
    lines = [f"the gate failed with exit status 1: {len(failing)} of {cases}{against}"]
    most = 1 if quiet else MOST_FAILED
    lines += [f"  {_failed_words(its_own)}" for its_own in worst[:most]]
    if (left := len(worst) - most) > 0:
        lines.append(f"  and {counted(left, 'case')} more, in the table above")
    meant = [case for case, ones in failing.items() if _may_be_meant(ones)]
    if meant and not quiet:
        line, unnamed = trailer_line(meant)
        more = f", with the names of {unnamed} more" if unnamed else ""
        lines += [f"an intended change passes with this line in a commit{more}:", line]
    slowest = next(filter(_is_slower, worst), worst[0])
    first = slowest if _may_be_meant(worst[0]) else worst[0]
    return "\n".join([*lines, f"next: {_what_helps(first, options)}"])


def _weight(ones: Sequence[Judgement]) -> tuple[bool, float]:
    """Return how bad a case is: without figures, or by its largest change."""
    return not _may_be_meant(ones), max(abs(one.change or 0.0) for one in ones)


def _may_be_meant(ones: Sequence[Judgement]) -> bool:
    return {one.verdict for one in ones} <= MEANT


def _is_slower(ones: Sequence[Judgement]) -> bool:
    return any(one.metric == "step_time" and one.verdict == "regressed" for one in ones)


def _failed_words(ones: Sequence[Judgement]) -> str:
    """Return the case, and each metric by which it fails, with its change and both values."""
    words = []
    for one in sorted(ones, key=lambda one: one.metric not in HEADLINES)[:MOST_METRICS]:
        values = [value_text(one, value) for value in (one.baseline, one.value)]
        change = change_text(one)
        note = textwrap.shorten(one.note.partition("; ")[0], MOST_LETTERS, placeholder=" ...")
        figures = [change, " -> ".join(values) if change and all(values) else note]
        words.append(f"{one.metric.replace('_', ' ')} {', '.join(filter(None, figures))}")
    left = len(ones) - MOST_METRICS
    more = f"; and {counted(left, 'metric')} more" if left > 0 else ""
    return f"{ones[0].case}: {'; '.join(words)}{more}"


def _what_helps(ones: Sequence[Judgement], options: Options) -> str:
    """Return what finds the cause in the worst case, or makes the run the baseline."""
    first = ones[0]
    if not _may_be_meant(ones):
        return typed(f"run {_case_words(first)} --processes 1", options, _OF_AB)
    commit, rest = _COMMIT.search(first.against), _axes(first)
    several = any(re.fullmatch("r[0-9]+", axis) for axis in rest)
    if not _is_slower(ones) or commit is None or options.is_elsewhere or several:
        return typed(f"accept {first.run} --reason TEXT", options, _OF_REPORT)
    case = Case(
        model=first.model,
        task=first.task,
        batch_size=first.batch_size or 1,
        jit=first.jit,
        backend=next((one for one in options.backends if one in rest), DEFAULT_BACKEND),
        runtime=next((one for one in options.runtimes if one in rest), DEFAULT_RUNTIME),
    )
    return comparison_with(commit[0], case, options)


def comparison_with(commit: str, case: Case, options: Options) -> str:
    """Return the command that compares a case with a commit's code, by its layers if it has any."""
    words = _case_words(case)
    words += f" --backend {case.backend}" * (options.backends != (DEFAULT_BACKEND,))
    words += f" --runtime {case.runtime}" * (options.runtimes != (DEFAULT_RUNTIME,))
    words += " --layers" * (not why_no_layers(case))
    told = ("backends", "runtimes", *["isolation"] * (options.isolation == "none"))
    fields = [one for one in _OF_AB if one not in told]
    return typed(f"ab git:{commit[:SHOWN]} . {words}", options, fields)


def _case_words(case: Case | Judgement) -> str:
    """Return the options that choose a case of a model."""
    words = f"--models {shlex.quote(case.model)} --tasks {case.task}"
    return words + f" --batch-sizes {case.batch_size}" * (case.task in TIMED_TASKS)


def _axes(one: Judgement) -> list[str]:
    """Return what a case's name has after its precision."""
    first = f"{one.model}-{one.task}-{one.device}-b{one.batch_size}-{one.precision}"
    return one.case.removeprefix(first).split("-")


def _those(cases: Sequence[str], what: str) -> str:
    """Return what is said of some cases, the first by its name; nothing of none."""
    names = list(dict.fromkeys(cases))
    return f"; {counted(len(names), 'case')} {what}: {listed(names, 1)}" if names else ""


def _without_failures(of_cases: Sequence[Judgement], options: Options) -> str:
    """Return the step after a gate in which nothing fails; that it passed only with a verdict."""
    main = [one for one in of_cases if one.metric in HEADLINES]
    if unclear := [one for one in main if one.verdict == "inconclusive"]:
        noun = "step time" if all(one.metric == "step_time" for one in main) else "case"
        further = sum(map(is_open, unclear))
        told = f" ({further} of them perhaps by more than was accepted)" * bool(further)
        alike = sum(ONE_GRAPH in one.note for one in unclear)
        told += f"; in {alike} of them {ONE_GRAPH}" * bool(alike)
        meant, lines = _accepted(of_cases)
        helps, show = remedy(unclear), typed("show latest", options, _OF_REPORT)
        again, begins = AGAIN in helps, f"no {'other ' * bool(meant)}regression found; "
        if decided(main) == "none":
            begins = "the gate decided nothing, which is no pass: "
        return (
            f"{begins}{len(unclear)} of {counted(len(main), noun)} not decided, so they may have "
            f"changed{told}{f': {helps}' * (not again)}{f'; {meant}' * bool(meant)}{lines}\n"
            f"next: {helps if again else show}"
        )
    compared = [one for one in of_cases if one.verdict != "new"]
    if decided(main) == "nothing":
        unlike = [one.note for one in of_cases if one.note and not one.note.startswith(NO_EARLIER)]
        why = "there is no earlier run of these cases"
        if unlike:
            why = f"the earlier runs are not comparable ({unlike[0].partition(': ')[0]})"
        return (
            f"nothing was compared, because {why}: this run is the baseline\n"
            "next: change the code and repeat the command"
        )
    timed = [one for one in compared if one.metric == "step_time"]
    if not timed:
        metrics = ", ".join(sorted({one.metric.replace("_", " ") for one in compared}))
        return f"{_PASSED}no step time was compared, only {metrics}\n{_report(options)}"
    if all(one.note.startswith((SAME_CODE, SAME_COMMIT)) for one in timed):
        return (
            f"{_PASSED}the code of each case is that of the baseline, so nothing was compared\n"
            "next: change the code and repeat the command"
        )
    meant, lines = _accepted(of_cases)
    told = f"{meant}, no other" if meant else "no case"
    return f"{_PASSED}{told} became slower{lines}\n{_report(options)}"


def _accepted(of_cases: Sequence[Judgement]) -> tuple[str, str]:
    """Return how many cases have changed as accepted, and a line for each of the first."""
    meant = grouped((one.case, one) for one in of_cases if one.accepted)
    if not meant:
        return "", ""
    doubted = _doubted(of_cases)
    more = f", {doubted} of them perhaps by more: measure again" if doubted else ""
    lines = [f"\n  accepted: {_failed_words(ones)}" for ones in meant.values()]
    return f"{counted(len(meant), 'case')} changed as accepted{more}", "".join(lines[:MOST_FAILED])


def _doubted(of_cases: Sequence[Judgement]) -> int:
    """Return how many cases have changed as accepted, and perhaps by more."""
    return len({one.case for one in of_cases if one.accepted and doubt_of(one)})
