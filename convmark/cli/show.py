"""`convmark show`: the tables of one run again, as `convmark run` printed them."""

from __future__ import annotations

import argparse

from convmark.cli.command import EXIT_OK
from convmark.cli.history import run_named
from convmark.core.errors import StoreError
from convmark.core.options import Options
from convmark.report.summary import run_tables
from convmark.report.tables.formats import Answer, check_form, print_tables
from convmark.report.verdicts import run_words
from convmark.results.names import read_name
from convmark.results.store import read_run

__all__ = ["show"]


def show(given: argparse.Namespace, options: Options) -> int:
    """Print a run's tables.

    Raises:
        OptionError: no such format.
        StoreError: there is no such run, it has no rows, or it cannot be read.
    """
    form = check_form(given.format)
    path = run_named(given.run, given.machine, options)
    records = read_run(path)
    if not records:
        raise StoreError(f"{path}: must have the rows of a run, it has none")
    first = records[0]
    if form == "text":
        words = run_words(path.stem, first.commit, first.dirty)
        folder = path.resolve().parent
        machine = read_name(folder) or first.machine or folder.name
        print(f"{words} on {machine}, {first.started}\n")
    found = Answer(
        command="show",
        machines=[first.machine or path.resolve().parent.name],
        tables=run_tables(records),
        several=True,
    )
    print_tables(found, form)
    return EXIT_OK
