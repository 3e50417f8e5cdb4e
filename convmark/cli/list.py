"""`convmark list` and `convmark show`: the runs of a results folder, and the tables of one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from convmark.cli.command import EXIT_OK, sayer
from convmark.cli.history import run_named
from convmark.compare.files import read_verdicts
from convmark.compare.intended import pass_accepted
from convmark.core.backends import BACKENDS
from convmark.core.case import Case
from convmark.core.errors import StoreError
from convmark.core.fitting import tell
from convmark.core.options import Options
from convmark.core.table import Table, headings, table_of
from convmark.core.text import commit_text
from convmark.report.comment import Gate, counts_text
from convmark.report.summary import run_tables
from convmark.report.tables import Answer, check_form, print_tables
from convmark.report.tables.layers import TOP, layers_tables
from convmark.report.verdicts import run_words
from convmark.results.columnar import read_columns, whole_file
from convmark.results.names import read_name
from convmark.results.reading import read_run
from convmark.results.record import MEASURED, doubts_text
from convmark.results.store import asked_places, compared_in, run_files

_say = sayer("convmark list")


def list_runs(given: argparse.Namespace, options: Options) -> int:
    """Print the runs, the newest of each machine last."""
    form = check_form(given.format)
    (place,) = asked_places([given.place] if given.place is not None else (), options.results)
    table = runs_table(place, whole=form != "text")
    machines = list(dict.fromkeys(table.column("machine")))
    print_tables(Answer(command="list", machines=machines, tables=[table]), form)
    for path in compared_in([place]):
        _say(f"the verdicts of convmark ab are not listed here: {path}")
    return EXIT_OK


def runs_table(place: Path, *, whole: bool) -> Table:
    """Return a line for each run; a file that cannot be read has the reason as its note.

    Args:
        whole: whether columns without a value stay, and a 0 where nothing has failed.
    """
    columns = headings(
        "machine run started commit versions cases processes failed verdicts note",
        started="started (UTC)",
        failed=("failed", "count"),
    )
    records = [_record(path, whole=whole) for path in run_files([place])]
    keep = [one.key for one in (columns if whole else columns[:6])]
    return table_of("runs", "Runs", "", columns, records, keep=keep)


def _record(path: Path, *, whole: bool) -> dict[str, Any]:
    folder = path.resolve().parent
    known = {"machine": folder.name, "run": path.stem}
    try:
        name = read_name(folder)
        known["machine"] = name or folder.name
        rows = read_columns(path, whole_file(path))
        if not len(rows["status"]):
            return {**known, "note": "no rows"}
        verdicts = read_verdicts(path) if rows["run"][0] == path.stem else []
        verdicts = pass_accepted(verdicts, path, rows["commit"])
    except StoreError as error:
        return {**known, "note": str(error).removeprefix(f"{path}:")}
    failed = sum(status not in MEASURED for status in rows["status"])
    doubts = doubts_text(
        len(rows["status"]) - failed,
        failed=0,  # it has a column
        unsteady=sum(status == "unsteady" for status in rows["status"]),
        unjudged=sum(
            bool(why) and status in MEASURED
            for status, why in zip(rows["status"], rows["not_judged"], strict=True)
        ),
        concurrent=0,
    )
    cases = set(zip(*(list(rows[name]) for name in Case.__dataclass_fields__), strict=True))
    return {
        **known,
        "machine": name or rows["machine"][0] or folder.name,
        "started": rows["started"][0][:19].replace("T", " "),
        "commit": commit_text(rows["commit"][0], rows["dirty"][0]),
        "versions": _versions(rows),
        "cases": len(cases),
        "processes": len(rows["status"]),
        "failed": failed if failed or whole else None,
        "verdicts": counts_text(Gate(judgements=verdicts)),
        "note": doubts,
    }


def _versions(rows: dict[str, Any]) -> str:
    """Return the frameworks and Keras with their versions, each once."""
    labels = {name: one.label for name, one in BACKENDS.items() if name in rows}
    found = [
        f"{label} {version}"
        for name, label in [*labels.items(), ("keras", "Keras")]
        for version in dict.fromkeys(filter(None, rows[name]))
    ]
    return ", ".join(found)


def show(given: argparse.Namespace, options: Options) -> int:
    """Print a run's tables."""
    form = check_form(given.format)
    path = run_named(given.run, given.machine, options)
    records = read_run(path)
    if not records:
        raise StoreError(f"{path}: must have the rows of a run, but it has none")
    first = records[0]
    if form == "text":
        words = run_words(path.stem, first.commit, first.dirty)
        started = first.started[:19].replace("T", " ")
        folder = path.resolve().parent
        machine = read_name(folder) or first.machine or folder.name
        tell(f"{words} on {machine}, {started} UTC\n")
    layers = layers_tables(records, path.resolve().parent, TOP if form == "text" else None)
    found = Answer(
        command="show",
        machines=[first.machine or path.resolve().parent.name],
        tables=[*run_tables(records), *layers],
        several=True,
    )
    print_tables(found, form)
    return EXIT_OK
