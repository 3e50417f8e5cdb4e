"""The last lines of a run or a gate: what it means, and below it the next command."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from convmark.compare.intended import trailer_line
from convmark.compare.judgement import (
    MACHINE,
    NOT_BY_TIME,
    NOT_LIVE,
    SAME_CODE,
    SAME_COMMIT,
    Judgement,
    packages_lines,
)
from convmark.core.fitting import wrapped
from convmark.core.options import Options
from convmark.core.text import Say, counted, listed
from convmark.core.typed import typed
from convmark.report.verdicts import HEADLINES
from convmark.results.record import BUSY_SHARE, Record

__all__ = ["gate_step", "next_step", "say_step"]

_OF_DOCTOR = ("backends", "pythons", "environments", "results")
_OF_REPORT = ("results",)
_OF_COMPARE = ("allow_changes", "results")
_OF_NOISE = (
    *("trust_models", "devices", "batch_sizes", "precisions", "jit", "optimizer", "learning_rate"),
    *("loss", "threads", "cpus", "numa", "backends", "runtimes", "input_shape", "isolation"),
    "results",
)
"""The fields of `Options` that these commands take."""


def say_step(step: str, name: str, say: Say) -> None:
    """Say a step, if any: the sentence wrapped to the terminal's width, what is pasted as it is.

    Args:
        name: what `say` puts before a line.
    """
    if not step:
        return
    sentence, *pasted = step.splitlines()
    for line in [wrapped(sentence, before=f"{name}: "), *pasted]:
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
    if doubtful:
        return (
            f"{doubtful} of {counted(len(records), 'process')} unsteady or not judged, so "
            f"do not quote their cases: close other programs and measure again\n{doctor}"
        )
    loads = [share for one in records if (share := one.other_cpu_share or 0.0) >= BUSY_SHARE]
    if loads:
        return (
            f"{len(loads)} of {counted(len(records), 'process')} measured while other programs "
            f"took up to {max(loads):.0%} of the CPUs' time, so step times are "
            f"longer than on an idle machine: close other programs and measure again\n{doctor}"
        )
    return (
        "all processes were measured; where spread is wide, give more --processes\n"
        f"{_report(options)}"
    )


def _report(options: Options) -> str:
    return f"next: {typed('report -o report.html', options, _OF_REPORT)}"


def gate_step(judgements: Sequence[Judgement], options: Options, *, left_out: int = 0) -> str:
    """Return what the verdicts of a run amount to, and the next command.

    Args:
        options: as those of `next_step`.
        left_out: cases of the baseline that the run was not asked for.
    """
    of_cases = [one for one in judgements if one.model != MACHINE]
    cases = {one.case for one in of_cases}
    failing = {one.case: one.verdict for one in judgements if one.fails}
    if failing:
        meant = [case for case, verdict in failing.items() if verdict in ("regressed", "changed")]
        how = _trailer(meant) if meant else ""
        found = dict.fromkeys(f"{one.metric} {one.verdict}" for one in judgements if one.fails)
        why = f" ({listed(list(found), 2)}){how}"
        return (
            f"the gate failed: {len(failing)} of {counted(len(cases), 'case')}{why}\n"
            f"next: {typed('compare', options, _OF_COMPARE)}"
        )
    gone = list(dict.fromkeys(one.case for one in of_cases if one.verdict == "missing"))
    lost = f"; {counted(len(gone), 'case')} of the baseline did not run: {listed(gone, 1)}"
    here = [one for one in of_cases if one.verdict != "missing"]
    if (gone or left_out) and all(one.verdict == "new" for one in here):
        step = (
            "the gate compared nothing, which is no pass: the baseline has none of the cases that "
            f"ran; are they new, or renamed?\nnext: {typed('history', options, _OF_REPORT)}"
        )
    else:
        step = _without_failures(here, options)
    sentence, _, rest = step.partition("\n")
    part = f"; {counted(left_out, 'case')} of the baseline left out, as only a part was asked for"
    unlike = bool(packages_lines(here))
    more = "; what the baseline's commit would have installed was not compared" * unlike
    return f"{sentence}{lost if gone else ''}{part if left_out else ''}{more}\n{rest}"


def _trailer(cases: Sequence[str]) -> str:
    line, left = trailer_line(cases)
    more = f", with the names of {left} more" if left else ""
    return f"; an intended change passes with this line in a commit{more}:\n{line}"


def _without_failures(of_cases: Sequence[Judgement], options: Options) -> str:
    """Return the step after a gate in which nothing fails; that it passed only with a verdict."""
    main = [one for one in of_cases if one.metric in HEADLINES]
    if unclear := [one for one in main if one.verdict == "inconclusive"]:
        is_decided = any(
            one.verdict not in ("inconclusive", "new")
            and not one.note.startswith((SAME_CODE, SAME_COMMIT))
            for one in main
        )
        slow = [one.model for one in unclear if one.metric == "step_time"]
        noun = "step time" if all(one.metric == "step_time" for one in main) else "case"
        return (
            f"{'' if is_decided else 'the gate decided nothing, which is no pass: '}"
            f"{len(unclear)} of {counted(len(main), noun)} inconclusive, so they may have changed: "
            f"{_remedy(unclear)}\nnext: "
            f"{_noise(slow, options) if slow else typed('compare', options, _OF_COMPARE)}"
        )
    compared = [one for one in of_cases if one.verdict != "new"]
    if not compared:
        return (
            "nothing was compared, because there is no earlier run of these cases: this run is the "
            "baseline\nnext: change the code and repeat the command"
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
    told = f"{counted(meant, 'case')} changed as accepted, no other" if meant else "no case"
    return f"the gate passed: {told} became slower\n{_report(options)}"


def _remedy(unclear: Sequence[Judgement]) -> str:
    """Return what decides step times that are inconclusive, as their notes have it."""
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
    return typed(f"noise --models {shlex.quote(names)}", options, _OF_NOISE)
