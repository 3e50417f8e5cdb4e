"""The commands that judge and show runs: `convmark compare`, `accept` and `history`."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from tabulate import tabulate

from convmark.case import Case
from convmark.environment import read_machine
from convmark.errors import CaseError, OptionError, StoreError
from convmark.judging import accepted
from convmark.judging.history import accepted_history, named_history
from convmark.judging.verdict import conclude, review
from convmark.judging.verdicts_file import read_verdicts, verdicts_path
from convmark.options import nearest
from convmark.record import COLUMNS, Record
from convmark.report.across import COLUMNS as ACROSS
from convmark.report.across import FORMS as ACROSS_FORMS
from convmark.report.across import across as across_cells
from convmark.report.across import across_report
from convmark.report.learned import mean_and_sd
from convmark.report.summary import spread
from convmark.report.units import seconds_text, share_text
from convmark.report.verdicts import FORMATS, verdicts_report
from convmark.statistics import quantile
from convmark.store import Store, StoreWarning, read_run

__all__ = ["accept", "across", "compare", "history"]


def compare(results: Path, machine: str | None, runs: Sequence[str], form: str) -> bool:
    """Print a run's verdicts; return whether one of them fails it.

    Args:
        runs: none for the newest run, one to judge, or a baseline and the one to judge.

    Raises:
        OptionError: more than two runs, or no such format.
        StoreError: a run that is not there, holds nothing or cannot be read.
    """
    if len(runs) > 2:
        raise OptionError(f"RUN: must be at most two, got {len(runs)}")
    if form not in FORMATS:
        raise OptionError(f"--format: must be one of {', '.join(FORMATS)}, got {form!r}")
    store, folder = _place(Store(results), machine, runs)
    path = store.find(runs[-1], folder) if runs else _newest(store, folder)
    records = read_run(path)
    if not records:
        raise StoreError(f"{path}: must hold the rows of a run, it has none")
    if len(runs) == 2:
        history = named_history(store, folder, runs[0], records)
    else:
        history = accepted_history(store, folder, records)
    judgements = conclude(review(records, history), report_missing=len(runs) == 2)
    text = verdicts_report(judgements, form)
    if text:
        print(text)
    return any(judgement.fails for judgement in judgements)


def across(results: Path, machine: str | None, runs: Sequence[str], column: str, form: str) -> None:
    """Print each case over the values of a column, from all runs or those named.

    Raises:
        OptionError: no such column or format.
        StoreError: a run that is not there or cannot be read, or none has the column.
    """
    if column not in ACROSS:
        raise OptionError(f"--across: unknown column {column!r}; {nearest(column, ACROSS)}")
    if form not in ACROSS_FORMS:
        raise OptionError(f"--format: must be one of {', '.join(ACROSS_FORMS)}, got {form!r}")
    store = Store(results)
    if column == "machine" and machine is None and not runs:
        paths = [path for folder in _folders(store) for path in store.runs(folder.name)]
        named: list[Path] = []
    else:
        store, folder_name = _place(store, machine, runs)
        named = [store.find(run, folder_name) for run in runs]
        paths = named or store.runs(folder_name)
    cells = across_cells(_rows(paths, strict=bool(named)), column)
    if not cells:
        raise StoreError(f"{store.folder}: no measured row there tells its {column}")
    print(across_report(cells, column, form))


def _rows(paths: Sequence[Path], *, strict: bool) -> Iterator[Record]:
    """Yield all rows; a file that cannot be read is left out with a warning, unless strict."""
    for path in paths:
        try:
            yield from read_run(path)
        except StoreError as error:
            if strict:
                raise
            warnings.warn(f"{error}; left out of the table", StoreWarning, stacklevel=2)


def accept(results: Path, machine: str | None, run: str, reason: str) -> None:
    """Accept a run and say so.

    Raises:
        OptionError: there is no reason.
        StoreError: there is no such run.
    """
    store, folder = _place(Store(results), machine, [run])
    done = accepted.accept(store, folder, run, reason)
    rows = [row for row in read_run(store.folder / folder / f"{done.run}.csv") if row.measured]
    cases = len({row.case.name for row in rows})
    code = f"commit {done.commit[:12]}" if done.commit else "no commit"
    if rows[0].commit and rows[0].dirty is not False:
        code += ", its tree not clean: nothing can be run beside it"
    print(f"accepted run {done.run} ({cases} case{'s' * (cases != 1)}, {code}): {done.reason}")


def history(results: Path, machine: str | None, case: str) -> None:
    """Print one case's step time, or its accuracy, and verdict, run by run.

    Raises:
        OptionError: no run has the case.
        StoreError: a file cannot be read.
    """
    store, folder = _place(Store(results), machine, [])
    known: dict[str, None] = {}

    def is_asked_for(cells: Sequence[str]) -> bool:
        name = _name_of(*(cells[place] for place in _AXES))
        known[name] = None
        return name == case

    runs = [read_run(path, is_asked_for) for path in store.runs(folder)]
    if not any(runs):
        raise OptionError(f"CASE: no run has {case!r}; {nearest(case, filter(None, known))}")
    verdicts = {
        found.run: found.verdict + " (unconfirmed)" * found.unconfirmed
        for found in read_verdicts(verdicts_path(store, folder), case)
        if found.metric in ("step_time", "accuracy")
    }
    rows = [_row(records, verdicts.get(records[0].run, "")) for records in runs if records]
    headers = ("run", "started", "commit", "step p50", "spread", "accuracy", "sd", "n", "verdict")
    figures = ("step p50", "spread", "accuracy", "sd")
    kept = [i for i, name in enumerate(headers) if name not in figures or any(r[i] for r in rows)]
    align = ["right" if headers[i] in (*figures, "n") else "left" for i in kept]
    cells = [[row[i] for i in kept] for row in rows]
    names = [headers[i] for i in kept]
    print(tabulate(cells, headers=names, colalign=align, disable_numparse=True))


_PLACES = {column.name: place for place, column in enumerate(COLUMNS)}
_CASE_FIELDS = tuple(Case.__dataclass_fields__)
_AXES = [_PLACES[name] for name in _CASE_FIELDS]


@functools.cache
def _name_of(*cells: str) -> str:
    """Return the name of the case that the cells of its axes tell; empty where there is none."""
    fields = dict(zip(_CASE_FIELDS, cells, strict=True))
    try:
        counts = {name: int(fields.pop(name)) for name in ("batch_size", "replicas")}
        return Case(**fields, **counts).name  # type: ignore[arg-type] # texts are texts here
    except (ValueError, CaseError):
        return ""


def _row(records: Sequence[Record], verdict: str) -> list[str]:
    first = records[0]
    times_s = [
        row.step_time_p50_s for row in records if row.measured and row.step_time_p50_s is not None
    ]
    failed = next((row.status for row in records if not row.measured), "")
    return [
        first.run,
        first.started[:16].replace("T", " "),
        (first.commit or "")[:12] + " (dirty)" * bool(first.dirty),
        seconds_text(quantile(times_s, 0.5)) if times_s else "",
        share_text(spread(times_s)),
        *mean_and_sd([row.accuracy for row in records if row.accuracy is not None]),
        str(sum(row.measured for row in records)),
        verdict if not failed else "; ".join(filter(None, [failed, verdict])),
    ]


def _place(store: Store, machine: str | None, runs: Sequence[str]) -> tuple[Store, str]:
    """Return the results folder and the machine's folder in it that the runs are of.

    Raises:
        StoreError: no folder has runs, or several have and none is this machine's.
    """
    folders = sorted(path.name for path in _folders(store) if store.runs(path.name))
    if machine is not None:
        if machine not in folders:
            hint = nearest(machine, folders) if folders else "none has runs"
            raise OptionError(f"--machine: {store.folder} has no runs of {machine!r}; {hint}")
        return store, machine
    files = [Path(run) for run in runs if Path(run).suffix == ".csv"]
    if files and files[-1].resolve().parent.parent == store.folder.resolve():
        return store, files[-1].resolve().parent.name
    own = read_machine().name
    if own in folders or len(runs) == len(files) > 0:
        return store, own
    if len(folders) == 1:
        return store, folders[0]
    there = f"several machines have runs there, choose one by --machine: {', '.join(folders)}"
    raise StoreError(f"{store.folder}: {there if folders else 'has no runs yet: convmark run'}")


def _folders(store: Store) -> list[Path]:
    return [path for path in store.folder.glob("*") if path.is_dir()]


def _newest(store: Store, machine: str) -> Path:
    return store.runs(machine)[-1]
