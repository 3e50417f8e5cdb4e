"""The commands that judge and show runs: `convmark compare`, `accept` and `history`."""

from __future__ import annotations

import argparse
import functools
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from convmark.cli.command import EXIT_OK, exit_status, sayer
from convmark.compare import files
from convmark.compare.digest import CaseFigures
from convmark.compare.earlier import by_name
from convmark.compare.files import NOISE, read_noise
from convmark.compare.history import History, accepted_history, anchor_of, named_history
from convmark.compare.index import Index
from convmark.compare.intended import (
    IntendedChanges,
    case_names,
    no_range,
    pass_intended,
    trailer_range_of,
)
from convmark.compare.judgement import Judgement, is_interrupted
from convmark.compare.sessions_file import MOST_LOOKED_INTO, live_levels
from convmark.compare.trend import SHARED, Commits, Point, trend
from convmark.compare.verdict import conclude, review
from convmark.core.errors import OptionError, StoreError
from convmark.core.fitting import tell
from convmark.core.option_values import check_patterns, nearest, nearest_case
from convmark.core.options import Options
from convmark.core.pyproject import typed
from convmark.core.table import headings, table_of
from convmark.core.tasks import TASKS
from convmark.core.text import commit_text, listed, painted
from convmark.machine.hardware import read_machine
from convmark.report.across import COLUMNS as ACROSS
from convmark.report.advice import load_words
from convmark.report.noise import noise_line
from convmark.report.tables import Answer, check_form, print_tables, rows_table
from convmark.report.tables.history import trend_text
from convmark.report.verdicts import FORMATS, GITHUB, against_anchors, run_words, verdicts_report
from convmark.results.names import read_name
from convmark.results.reading import StoreWarning, read_head, read_run
from convmark.results.record import Record, large_load
from convmark.results.store import Store, no_runs, oldest_first

_say = sayer("convmark")


def compare(given: argparse.Namespace, options: Options) -> int:
    """Print a run's verdicts, and fail where one of them does; or a table over a column's values.

    What the run's own session has said is repeated: it may have run the old code beside it. Where
    that was interrupted it fails too.
    """
    _check_live(given)
    if given.across is not None:
        return _across(given, options)
    runs, allowed = given.runs, options.allow_changes
    form = check_form(given.format, (GITHUB,))
    if len(runs) > 2:
        raise OptionError(f"RUN: must be at most two, got {len(runs)}")
    store = Store(options.results)
    folder = _folder(store, given.machine, runs)
    path = _find(store, runs[-1], folder) if runs else store.runs(folder)[-1]
    records = read_run(path)
    if not records:
        raise StoreError(f"{path}: must have the rows of a run, but it has none")
    said, kept = files.verdicts_with_file(path) if records[0].run == path.stem else ([], path)
    if said:
        _warn_of_unjudged(kept, records, said)
    if len(runs) == 2:
        baseline = _find(store, runs[0], folder, but=path)
        history = named_history(baseline, records)
        judgements = conclude(review(records, history), report_missing=True)
        judgements = files.with_live(judgements, path, baseline)
    else:
        history = accepted_history(store, folder, records, _say, own=path)
        judgements = said or conclude(review(records, history))
    names = case_names(records)
    check_patterns("--allow-change", allowed, set().union(*names.values()))
    since = trailer_range_of(history, path, records, Path.cwd())
    if judgements is said:  # with the trailers since the baseline that its session was given
        since = no_range
    meant = IntendedChanges(
        names, allowed, since, _say, files.accepted_of(path, {row.commit for row in records})
    )
    earlier: Sequence[Path] = ()
    if judgements is not said:
        judgements = against_anchors(judgements, history)
        earlier = store.runs_before(path)
    judgements = pass_intended(judgements, meant, earlier)
    if form in FORMATS:
        own = bool(said) and len(runs) < 2
        between = _between(judgements, history, path, records[0], said=own)
        text = verdicts_report(judgements, form, between=between)
        if text:
            print(painted(text, sys.stdout, os.environ) if form == "text" else text)
        if form == "text" and (loaded := load_words(records)):
            tell(f"\n{loaded}")
    else:
        machines = [records[0].machine or path.resolve().parent.name]
        table = rows_table("verdicts", "Verdicts", Judgement, judgements)
        print_tables(Answer(command="compare", machines=machines, tables=[table]), form)
    if interrupted := is_interrupted(judgements):
        _say(f"run {path.stem}: the gate was interrupted, which is no pass; --resume continues it")
    return exit_status(not interrupted and not any(one.fails for one in judgements))


def _check_live(given: argparse.Namespace) -> None:
    """Refuse options of a live comparison where there is none."""
    for name in ("target", "budget"):
        if getattr(given, name) is not None and not given.live:
            raise OptionError(f"--{name}: must be given with --live, which it limits")
    if given.live and given.across is None:
        raise OptionError("--live: must be given with --across, whose values it compares")


def _warn_of_unjudged(kept: Path, records: Sequence[Record], said: Sequence[Judgement]) -> None:
    """Warn of the cases that the run's own session has judged no more, or not yet.

    Args:
        kept: the file of what it has said.
    """
    judged = {one.case for one in said}
    every = by_name(row for row in records if TASKS[row.task].judged)
    if left := [name for name in every if name not in judged]:
        warnings.warn(
            f"{kept}: has no verdict of {listed(left, MOST_TOLD)}, which the run "
            "has; compare it again",
            StoreWarning,
            stacklevel=3,
        )


def _between(
    judgements: Sequence[Judgement], history: History, path: Path, row: Record, *, said: bool
) -> str:
    """Return the baselines and the run that is judged, with their commits, in words.

    Args:
        said: whether the run's own session has judged it, against whatever it was asked for.
    """
    anchors = [case.anchor for case in history.cases.values() if case.anchor is not None]
    before = dict.fromkeys(one.against for one in judgements if one.against)
    if not said:
        before |= dict.fromkeys(run_words(one.run, one.commit, one.dirty) for one in anchors)
    compared = said and any(one.verdict != "new" for one in judgements)
    none = "unknown baseline" if compared else "no earlier run"
    return f"{', '.join(before) or none} -> {run_words(path.stem, row.commit, row.dirty)}"


def _across(given: argparse.Namespace, options: Options) -> int:
    """Print each case over the values of a column, from all runs or those named."""
    from convmark.cli.across import across  # it loads what compares live

    if given.allow_change:
        raise OptionError("--allow-change: must not be given with --across, which accepts none")
    if given.across not in ACROSS:
        hint = nearest(given.across, ACROSS)
        raise OptionError(f"--across: unknown column {given.across!r}; {hint}")
    store = Store(options.results)
    if given.across == "machine" and given.machine is None and not given.runs:
        paths = [path for name in store.machines() for path in store.runs(name)]
    else:
        folder = _folder(store, given.machine, given.runs)
        found = [_find(store, run, folder) for run in given.runs]
        named = list({path.resolve(): path for path in found}.values())  # each once
        heads = [(path, head.started if (head := read_head(path)) else "") for path in named]
        paths = [named[place] for place in oldest_first(heads)] or store.runs(folder)
    return across(given, options, paths)


def accept(given: argparse.Namespace, options: Options) -> int:
    """Accept a run, or the cases of it that match a pattern, and say so.

    Raises:
        OptionError: there is no reason, or a pattern that matches no case.
        StoreError: there is no such run.
    """
    store = Store(options.results)
    folder = _folder(store, given.machine, [given.run])
    done = files.accept(store, folder, given.run, given.reason, given.case)
    one, chosen = done[0], {each.case for each in done}
    path = store.folder / folder / f"{one.run}.csv"
    every = by_name(row for row in read_run(path) if row.measured)
    groups = {name: rows for name, rows in every.items() if not chosen.isdisjoint((None, name))}
    cases = len(groups)
    lost = [rows for rows in groups.values() if anchor_of(path, rows).lost]
    code = f"commit {one.commit[:12]}" if one.commit else "no commit"
    if lost:
        few = f" of {len(lost)} of them" if len(lost) < cases else ""
        code += f", the files{few} not saved and in no clean commit: no live comparison is possible"
    of = f" of {len(every)}" if cases < len(every) else ""
    plural = "s" * (len(every) != 1)
    run = ", ".join(filter(None, [one.run, store.newest_of(path, given.run, folder)]))
    tell(f"accepted run {run} ({cases}{of} case{plural}, {code}): {one.reason}")
    return EXIT_OK


def history(given: argparse.Namespace, options: Options) -> int:
    """Print one case's step time and verdict, run by run, and below them its levels.

    A run that cannot be read is told of.

    Raises:
        OptionError: no run has the case.
        StoreError: the verdicts cannot be read.
    """
    case, form = given.case, check_form(given.format)
    store = Store(options.results)
    name = _folder(store, given.machine, [])
    paths = store.runs(name)
    index = Index(store.folder / name, case, _say)
    runs = [(path, figures) for path in paths if (figures := index.figures(path)) is not None]
    _warn_of_troubles(paths, index)
    if not runs:
        index.keep()
        names = {name for path in paths for name, _ in index.entry(path).judged}
        raise OptionError(f"CASE: no run has {case!r}; {nearest_case(case, sorted(names))}")
    rows = [_row(path, figures, index) for path, figures in runs]
    index.keep()
    columns = headings("run started commit step_time_p50_s spread load n doubts verdict")
    keep = ["run", "n"] if form == "text" else [one.key for one in columns]
    table = table_of("history", case, "", columns, rows, keep=keep)
    machine = runs[-1][0].resolve().parent.name
    print_tables(Answer(command="history", machines=[machine], tables=[table]), form)
    if form != "text":
        return EXIT_OK
    shown = [(path, one) for path, one in runs if one.log_ratio is not None]
    found = trend(
        [
            replace(_point(path, one), live=live_levels(path).get(case) if recent else None)
            for number, (path, one) in enumerate(shown)
            for recent in [number >= len(shown) - MOST_LOOKED_INTO]
        ]
    )
    if found.stretches:
        repeated = functools.partial(typed, options=options, fields=("results",))
        print(f"\n{trend_text(found, Commits(Path.cwd()), repeated)}")
    noise = read_noise(store.folder / name / NOISE).get(case)
    if noise is not None:
        tell(f"\n{noise_line(noise)}")
    return EXIT_OK


def _point(run: Path, found: CaseFigures) -> Point:
    """Return the run as the search for change points takes it."""
    return Point(
        run=run.stem,
        commit=found.commit,
        log_ratio=found.log_ratio or 0.0,
        variance=found.variance,
        processes=found.judged,
        load=found.load,
        step_time_p50_s=found.step_time_p50_s,
        conditions=found.conditions.facts,
        **{name: getattr(found, name) for name in SHARED},
        counting_version=found.counting_version,
    )


MOST_TOLD = 5
"""Files that are named one by one; the others are counted."""


def _warn_of_troubles(paths: Sequence[Path], index: Index) -> None:
    """Warn of the files that are left out, and of those whose last line is."""
    lines = []
    for path in paths:
        entry = index.entry(path)
        if entry.error is not None:
            lines.append(f"{path}{entry.error}; left out of the history")
        elif entry.torn is not None:
            lines.append(f"{path}:{entry.torn}: a torn last line was left out")
    left = len(lines) - MOST_TOLD
    for place, line in enumerate(lines[:MOST_TOLD], 1):
        more = f", and {left} more" if left > 0 and place == MOST_TOLD else ""
        warnings.warn(f"{line}{more}", StoreWarning, stacklevel=2)


def _row(run: Path, found: CaseFigures, index: Index) -> dict[str, Any]:
    entry = index.entry(run)
    return {
        "run": run.stem,
        "started": found.started,
        "commit": commit_text(entry.commit, bool(entry.dirty)),
        "step_time_p50_s": found.step_time_p50_s or None,
        "spread": found.spread,
        "load": large_load([found.load]),
        "n": found.processes,
        "doubts": found.doubts,
        "verdict": "; ".join(filter(None, [found.failed, index.verdict(run)])),
    }


def _folder(store: Store, machine: str | None, runs: Sequence[str]) -> str:
    folders = store.machines()
    if machine is not None:
        names = _names(store, folders)
        machine = next((one for one in folders if names[one] == machine), machine)
        if machine not in folders:
            hint = nearest(machine, list(names.values())) if folders else "none has runs"
            raise OptionError(f"--machine: {store.folder} has no runs of {machine!r}; {hint}")
        return machine
    files = [Path(run) for run in runs if Path(run).suffix == ".csv"]
    if files and files[-1].resolve().parent.parent == store.folder.resolve():
        return files[-1].resolve().parent.name
    own = read_machine().name
    if own in folders or len(runs) == len(files) > 0:
        return own
    if len(folders) == 1:
        return folders[0]
    known = ", ".join(_names(store, folders).values())
    there = f"several machines have runs there, choose one by --machine: {known}"
    raise StoreError(f"{store.folder}: {there if folders else no_runs(store.folder)}")


def _names(store: Store, folders: Sequence[str]) -> dict[str, str]:
    """Return what each machine's folder is called: the name that a user gave it, or its own."""
    return {folder: read_name(store.folder / folder) or folder for folder in folders}


def run_named(name: str, machine: str | None, options: Options) -> Path:
    """Return the run file that a user means: a path, a number, a commit or `latest`."""
    store = Store(options.results)
    return _find(store, name, _folder(store, machine, [name]))


def _find(store: Store, name: str, machine: str, *, but: Path | None = None) -> Path:
    """Return the run that a user means, as `Store.find`; warn where its commit has several."""
    path = store.find(name, machine, but=but)
    if several := store.newest_of(path, name, machine, but=but):
        taken = f"run {path.stem} is taken, {several}; name another by its number"
        warnings.warn(f"{store.folder / machine}: {taken}", StoreWarning, stacklevel=3)
    return path
