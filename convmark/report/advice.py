"""The last lines of a run or a gate: what it means, and below it the next command."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from convmark.compare.accepted_code import is_open
from convmark.compare.intended import doubt_of, trailer_line
from convmark.compare.judgement import (
    HEADLINES,
    MACHINE,
    NO_EARLIER,
    NOT_BY_TIME,
    NOT_LIVE,
    SAME_CODE,
    SAME_COMMIT,
    UNLIMITED,
    Judgement,
    decided,
    packages_lines,
)
from convmark.compare.margin import margin_lines
from convmark.core.fitting import unbroken
from convmark.core.options import Options
from convmark.core.text import Say, counted, listed
from convmark.core.typed import typed
from convmark.results.record import BUSY_SHARE, Record

_OF_DOCTOR = ("backends", "pythons", "environments", "results")
_OF_REPORT = ("results",)
_OF_COMPARE = ("allow_changes", "results")
_OF_NOISE = (
    *("trust_models", "devices", "batch_sizes", "precisions", "jit", "optimizer", "learning_rate"),
    *("loss", "threads", "cpus", "numa", "backends", "runtimes", "input_shape", "isolation"),
    "results",
)
"""The fields of `Options` that these commands take."""


def say_step(step: str, say: Say) -> None:
    """Say a step, if any: the sentence, and what is pasted in one line each."""
    if not step:
        return
    sentence, *pasted = step.splitlines()
    for line in [sentence, *map(unbroken, pasted)]:
        say(line)


def next_step(records: Sequence[Record], options: Options, *, searched: bool = False) -> str:
    """Return what the rows amount to, and the next command.

    Args:
        options: of the run; the command repeats those that it needs.
        searched: whether a search for batch sizes has ended, which it does at a size that fails.
    """
    if searched:
        records = [record for record in records if record.measured]
    doctor = f"next: {typed('doctor', options, _OF_DOCTOR)}"
    failed = sum(not record.measured for record in records)
    doubtful = sum(record.status == "unsteady" or bool(record.not_judged) for record in records)
    if failed:
        return (
            f"{failed} of {counted(len(records), 'process')} without figures: the column "
            f"note has the reason\n{doctor}"
        )
    of_all, causes = f"of {counted(len(records), 'process')}", []
    if doubtful:
        causes.append(f"{doubtful} {of_all} unsteady or not judged, so do not quote their cases")
    loads = [share for one in records if (share := one.other_cpu_share or 0.0) >= BUSY_SHARE]
    if loads:
        causes.append(
            f"{len(loads)} {of_all} measured while other programs took up to {max(loads):.0%} of "
            "the CPUs' time, so step times are longer than on an idle machine"
        )
    if causes:
        return f"{'; '.join(causes)}: close other programs and measure again\n{doctor}"
    return (
        "all processes were measured; where spread is wide, give more --processes\n"
        f"{_report(options)}"
    )


def _report(options: Options) -> str:
    return f"next: {typed('report -o report.html', options, _OF_REPORT)}"


def gate_step(
    judgements: Sequence[Judgement],
    options: Options,
    *,
    left_out: int = 0,
    failed: bool = False,
) -> str:
    """Return what the verdicts of a run amount to, and the next command.

    Args:
        options: as those of `next_step`.
        left_out: cases of the baseline that the run was not asked for.
        failed: whether the session fails, were it by no verdict.
    """
    of_cases = [one for one in judgements if one.model != MACHINE]
    if any(one.fails for one in judgements):
        return _failure(of_cases, options)
    gone = [one.case for one in of_cases if one.verdict == "missing"]
    here = [one for one in of_cases if one.verdict != "missing"]
    fresh = [one.case for one in here if one.verdict == "new"]
    if failed:
        step = (
            "the gate failed by a test, though no verdict fails: the report above shows the reason"
            f"\nnext: {typed('compare', options, _OF_COMPARE)}"
        )
    elif (gone or left_out) and decided(here) == "nothing":
        step = (
            "the gate compared nothing, which is no pass: the baseline has none of the cases that "
            f"ran; are they new, or renamed?\nnext: {typed('list', options, _OF_REPORT)}"
        )
    else:
        step = _without_failures(here, options)
    sentence, _, rest = step.partition("\n")
    sentence += _those(gone, "of the baseline did not run")
    if decided(here) != "nothing":
        sentence += _those(fresh, "without a baseline")
    if left_out:
        part = f"{counted(left_out, 'case')} of the baseline left out"
        sentence += f"; {part}, as only a part was asked for"
    sentence += "".join(f"; {line}" for line in margin_lines(here))
    if packages_lines(here):
        sentence += "; what the baseline's commit would have installed was not compared"
    return f"{sentence}\n{rest}"


def _failure(of_cases: Sequence[Judgement], options: Options) -> str:
    failing: dict[str, set[str]] = {}
    for one in of_cases:
        if one.fails:
            failing.setdefault(one.case, set()).add(one.verdict)
    meant = [case for case, why in failing.items() if why <= {"regressed", "changed"}]
    found = dict.fromkeys(f"{one.metric} {one.verdict}" for one in of_cases if one.fails)
    cases = counted(len({one.case for one in of_cases}), "case")
    return (
        f"the gate failed: {len(failing)} of {cases} ({listed(list(found), 2)})"
        f"{_trailer(meant) if meant else ''}\nnext: {typed('compare', options, _OF_COMPARE)}"
    )


def _those(cases: Sequence[str], what: str) -> str:
    """Return what is said of some cases, the first by its name; nothing of none."""
    names = list(dict.fromkeys(cases))
    return f"; {counted(len(names), 'case')} {what}: {listed(names, 1)}" if names else ""


def _trailer(cases: Sequence[str]) -> str:
    line, left = trailer_line(cases)
    more = f", with the names of {left} more" if left else ""
    return f"; an intended change passes with this line in a commit{more}:\n{line}"


def _without_failures(of_cases: Sequence[Judgement], options: Options) -> str:
    """Return the step after a gate in which nothing fails; that it passed only with a verdict."""
    main = [one for one in of_cases if one.metric in HEADLINES]
    if unclear := [one for one in main if one.verdict == "inconclusive"]:
        slow = [one.model for one in unclear if one.metric == "step_time"]
        noun = "step time" if all(one.metric == "step_time" for one in main) else "case"
        further = sum(map(is_open, unclear))
        told = f" ({further} of them perhaps by more than was accepted)" * bool(further)
        return (
            f"{'the gate decided nothing, which is no pass: ' * (decided(main) == 'none')}"
            f"{len(unclear)} of {counted(len(main), noun)} inconclusive, so they may have changed"
            f"{told}: {_remedy(unclear)}\nnext: "
            f"{_noise(slow, options) if slow else typed('compare', options, _OF_COMPARE)}"
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
        return f"the gate passed: no step time was compared, only {metrics}\n{_report(options)}"
    if all(one.note.startswith((SAME_CODE, SAME_COMMIT)) for one in timed):
        return (
            "the gate passed: the code of each case is that of the baseline, so nothing was "
            "compared\nnext: change the code and repeat the command"
        )
    meant = len({one.case for one in of_cases if one.accepted})
    doubted = len({one.case for one in of_cases if one.accepted and doubt_of(one)})
    more = f", {doubted} of them perhaps by more: measure again" if doubted else ""
    told = f"{counted(meant, 'case')} changed as accepted{more}, no other" if meant else "no case"
    return f"the gate passed: {told} became slower\n{_report(options)}"


def _remedy(unclear: Sequence[Judgement]) -> str:
    """Return what decides step times that are inconclusive, as their notes have it."""
    if any(is_open(one) and NOT_BY_TIME not in one.note for one in unclear):
        return f"run the command again, or with {UNLIMITED}"
    if any(one.metric != "step_time" for one in unclear):
        return "the notes say why"
    if all(NOT_LIVE in one.note for one in unclear):
        return "none was compared live, and the notes say why"
    if all(NOT_BY_TIME in one.note for one in unclear):
        return f"{NOT_BY_TIME}, so close other programs and run the command again"
    return "run the command again, or with a larger --convmark-compare-budget"


def _noise(models: Sequence[str], options: Options) -> str:
    """Return what measures which changes can be seen of these models, where they were measured."""
    if options.pythons or options.environments:  # `convmark noise` knows its own interpreter alone
        return typed("doctor", options, _OF_DOCTOR)
    names = ",".join(dict.fromkeys(models))
    fields = [one for one in _OF_NOISE if one != "isolation" or options.isolation != "none"]
    return typed(f"noise --models {shlex.quote(names)}", options, fields)
