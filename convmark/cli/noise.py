"""`convmark noise`: an A/A comparison that measures which changes this machine can detect.

The one side is today's code, the other a copy of its files in another folder, with modules of its
own: what a session of two equal codes says is noise.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

import convmark
from convmark.cli.ab import make_of
from convmark.cli.command import exit_status, sayer
from convmark.compare.files import NOISE, NOISE_TABLE, NoiseRow
from convmark.compare.judgement import INTERRUPTED
from convmark.compare.live.anchor import KeptTree, copied_tree, origin_of
from convmark.compare.live.case_result import CaseResult, LiveOptions
from convmark.compare.live.gate import Sides
from convmark.compare.live.live import compare_live
from convmark.compare.live.session import Pairing
from convmark.compare.live.tree import tree_as_it_is
from convmark.compare.rule.allotment import CHANGES, Sensitivity, sensitivities
from convmark.core.case import Case
from convmark.core.errors import ConvmarkError, OptionError
from convmark.core.fitting import tell, unbroken
from convmark.core.option_values import parse_seconds
from convmark.core.options import Options
from convmark.core.statistics import median_of
from convmark.core.suites import NETWORKS, cases, refuse_untimed
from convmark.core.text import counted, duration_text
from convmark.interpreter import Interpreter, zoo_folder
from convmark.interpreter.inspection import devices_asked_for, inspect, unbound_memory
from convmark.machine.hardware import Machine, read_machine
from convmark.report.noise import noise_text
from convmark.report.tables import Answer, check_form, print_tables, rows_table
from convmark.results.code.manifest import Code, Roots, code_of
from convmark.results.store import Store
from convmark.session.progress import Display
from convmark.session.run import request_of
from convmark.session.session import claimed
from convmark.worker.protocol import file_digest

_say = sayer("convmark noise")

FEW_SESSIONS = 5
"""The scatter of fewer may be half the noise, or less."""


def noise(given: argparse.Namespace, options: Options) -> int:
    """Measure, print and keep which change can be seen of each case.

    Raises:
        ConvmarkError: a case or the results folder is not to be had, or no case could be run.
    """
    seconds, form = parse_seconds("--seconds", given.seconds), check_form(given.format)
    refuse_untimed(options, "convmark noise compares")
    make = functools.partial(make_of(options), sys.executable)
    Store(options.results).check_writable()
    machine = read_machine()
    with claimed(options, _say) as preflight, contextlib.ExitStack() as stack:
        cautions = preflight.lines(machine)
        for line in cautions:
            _say(line)
        interpreter = stack.enter_context(make())
        found = inspect(interpreter, options.models or NETWORKS)
        if line := unbound_memory([found]):
            _say(line)
        asked = _cases(options, devices_asked_for(options.devices, found["devices"]))
        codes = _codes(asked, interpreter, options)
        if not codes:
            raise ConvmarkError("no case can be run: convmark run shows the reason")
        pairings = _pairings(codes, found, interpreter, make, machine, stack)
        cases = counted(len(pairings), "case")
        _say(f"{cases}, {duration_text(seconds)} of sessions; Ctrl-C ends it early")
        terms = LiveOptions.of(options, seconds, evenly=True)
        with Display(sys.stderr, counted=False) as shown:

            def began(place: int, results: Sequence[CaseResult]) -> None:
                session = f"session {len(results[place].live) + 1}"
                left = duration_text(max(0.0, terms.seconds_left()))
                shown.update("", f"{pairings[place].case.name}: {session}, at most {left} left")

            live = dataclasses.replace(terms, began=began)
            results = compare_live(pairings, live, shown.newest)
        for pairing, result in zip(pairings, results, strict=True):
            if path := _changed(codes[pairing.case]):
                result.closed = f"{path} changed during the measurement: start again"
                result.live.clear()
    rows = _rows([one.case for one in pairings], results, options.compare_budget_s, cautions)
    path = options.results / machine.name / NOISE
    told = [row for row in rows if row.scatter is not None]  # others would hide an earlier row
    try:
        _print(rows, form, machine.name)
    finally:  # where the reader has left, too
        NOISE_TABLE.append(path, told)
    kept = f"{len(told)} of {counted(len(rows), 'row')} kept in {unbroken(str(path))}"
    tell(f"\n{kept}", stream=sys.stderr)
    return exit_status(True, interrupted=any(one.closed == INTERRUPTED for one in results))


def _print(rows: Sequence[NoiseRow], form: str, machine: str) -> None:
    if form in ("text", "markdown"):
        print(noise_text(rows, markdown=form == "markdown"))
    else:
        table = rows_table("noise", "Noise of sessions with identical code", NoiseRow, rows)
        print_tables(Answer(command="noise", machines=[machine], tables=[table]), form)
    sys.stdout.flush()


def _cases(options: Options, devices: Sequence[str]) -> list[Case]:
    """Return the cases, on a CPU with one thread as well unless a number was asked for."""
    found = cases(options, {options.backends[0]: devices})
    if not found:
        raise OptionError("--models, --tasks and --devices: leave no case; name others")
    if "threads" not in options.named:
        alone_ = [dataclasses.replace(case, threads="1") for case in found if case.device == "cpu"]
        found += [case for case in alone_ if case not in found]
    return found


def _codes(asked: Sequence[Case], interpreter: Interpreter, options: Options) -> dict[Case, Code]:
    """Run each model once, untimed, and return the code of each case; one that fails is named."""
    roots = Roots.of(Path.cwd(), zoo_folder())
    known: dict[tuple[str, str], Code | None] = {}
    for case in asked:
        if (case.model, case.task) not in known:
            answer = interpreter.answer(request_of(case, options, smoke=True))
            event = answer.event("code")
            if answer.status != "ok" or event is None:
                _say(f"{case.name}: left out: {answer.message or answer.status}")
            ran = answer.status == "ok" and event is not None
            known[case.model, case.task] = code_of(event, roots) if ran and event else None
    codes = {case: known[case.model, case.task] for case in asked}
    return {case: code for case, code in codes.items() if code is not None}


def _changed(code: Code) -> Path | None:
    """Return a file of a code that is not as it was copied; None where none is."""
    places = ((code.path_of(one.place), one) for one in code.files)
    return next(
        (path for path, one in places if file_digest(path) != (one.size_bytes, one.sha256)), None
    )


def _pairings(
    codes: Mapping[Case, Code],
    found: Mapping[str, Any],
    interpreter: Interpreter,
    make: Any,
    machine: Machine,
    stack: contextlib.ExitStack,
) -> list[Pairing]:
    """Return each case with a copy of its code and today's own."""
    sides = Sides(make, machine.gpus, stack)
    copies: dict[str, KeptTree] = {}
    pairings = []
    for case, code in codes.items():
        if code.hash not in copies:
            copies[code.hash] = stack.enter_context(copied_tree(code))
        origin = origin_of(case, found.get("sources") or {})
        today = tree_as_it_is(origin.repository) if origin is not None else None
        pairings.append(
            Pairing(
                case=case,
                old=sides.of(case, code.hash, copies[code.hash]),
                new=sides.of(case, origin, today),
                shared=interpreter,
                may_be_same=True,
            )
        )
    return pairings


def _rows(
    asked: Sequence[Case], results: Sequence[CaseResult], budget_s: float, cautions: Sequence[str]
) -> list[NoiseRow]:
    """Return the rows; the cases of each number of threads are a suite of their own.

    Args:
        cautions: the lines of what made the machine noisier than it need be, which each row notes
            without cause and remedy.
    """
    disturbed = [": ".join(line.partition("; ")[0].split(": ")[:2]) for line in cautions]
    rows: dict[Case, NoiseRow] = {}
    for threads in dict.fromkeys(case.threads for case in asked):
        pairs = zip(asked, results, strict=True)
        suite = [(case, found) for case, found in pairs if case.threads == threads]
        ran = [(case, found) for case, found in suite if found.live]
        seen = sensitivities(
            [[one.wall for one in found.live] for _, found in ran],
            [median(one.seconds for one in found.live) for _, found in ran],
            budget_s,
        )
        known = dict(zip([case for case, _ in ran], seen, strict=True))
        rows |= {
            case: _row(case, found, known.get(case), len(suite), budget_s, disturbed)
            for case, found in suite
        }
    order = sorted(rows, key=lambda one: (one.model, one.task, one.batch_size, one.threads == "1"))
    return [rows[case] for case in order]


def _row(
    case: Case,
    found: CaseResult,
    seen: Sensitivity | None,
    cases: int,
    budget_s: float,
    disturbed: Sequence[str],
) -> NoiseRow:
    few = "" if seen else "needs two sessions or more: raise --seconds"
    if seen and len(found.live) < FEW_SESSIONS:
        sessions = counted(len(found.live), "session")
        few = f"from {sessions}, which tell the noise roughly: raise --seconds"
    closed = "" if found.closed == INTERRUPTED else found.closed
    apart_ = f"in two processes: {found.apart}" if found.apart else ""
    times_s = seen.seconds if seen else (None,) * len(CHANGES)
    return NoiseRow(
        measured=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        convmark=convmark.__version__,
        case=case.name,
        cases=cases,
        sessions=len(found.live),
        session_s=median_of(one.seconds for one in found.live),
        scatter=seen.scatter if seen else None,
        mean=seen.mean if seen else None,
        budget_s=budget_s,
        found_from=seen.found_from if seen else None,
        rules_out=seen.rules_out if seen else None,
        seconds_for_3_percent=times_s[0],
        seconds_for_5_percent=times_s[1],
        seconds_for_10_percent=times_s[2],
        note="; ".join(filter(None, [closed or few, apart_, *disturbed])) or None,
    )
