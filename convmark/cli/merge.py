"""`convmark merge`: join the parts of a plan, or the results of several machines, in one folder."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

from convmark.cli.command import exit_status, sayer
from convmark.compare import sessions_file
from convmark.core.errors import StoreError
from convmark.core.files import as_store_error, read_regular, write_whole
from convmark.core.fitting import tell, unbroken
from convmark.core.options import Options
from convmark.core.statistics import grouped
from convmark.core.text import counted
from convmark.report.describe import FOLDER
from convmark.results.names import overlap
from convmark.results.store import Store
from convmark.session.fleet.merge import MergedRun, join, joined, missing, sources
from convmark.session.layers import keep_other_layers, layers_of, layers_path

_say = sayer("convmark merge")


def merge(given: argparse.Namespace, options: Options) -> int:
    """Join the runs in the places and say what is missing; fail where something is.

    Raises:
        StoreError: a place has no runs, a file does not fit, or a row is there twice; nothing is
            written then. Or the folder cannot be written.
    """
    places, into = [Path(place) for place in given.places], options.results
    store = Store(into)
    store.check_writable()
    for place in places:
        if overlap(place, into):
            raise StoreError(
                "--results: must not be one of the folders to join, nor be inside one or contain "
                f"one, got {into} and {place}"
            )
    found = sources(places, _say)
    if not found:
        raise StoreError(f"{places[0]}: must have the rows of a run, but it has none")
    folders = [into / name for name in dict.fromkeys(source.machine for source in found)]
    there = sources([path for path in folders if store.runs(path.name)], lambda line: None)
    runs, fresh = joined(found, there, _say)
    for one in fresh:
        path = join(one, store, functools.partial(_keep_beside, one))
        rows = f"{counted(one.rows, 'row')} of {counted(len(one.sources), 'run')}"
        tell(f"{rows} in {unbroken(str(path))}")
    machines = grouped((one.part.plan, one.machine) for one in runs if one.part)
    for plan, names in machines.items():  # their runs stay apart
        if len(names) > 1:
            _say(f"plan {plan} was measured on {len(names)} kinds of machine; each has a run")
    lines = missing(found)
    for line in lines:
        _say(line)
    return exit_status(not lines)


def _keep_beside(one: MergedRun, path: Path) -> None:
    """Keep sessions and layers of the runs, and the descriptions of models not there yet."""
    sessions = [found for source in one.sources for found in sessions_file.TABLE.of(source.path)]
    sessions_file.write(path, sessions)
    layers = [
        rows
        for source in one.sources
        for rows in layers_of(source.records, layers_path(source.path.parent))
    ]
    keep_other_layers(layers, layers_path(path.parent))
    for source in one.sources:
        for described in sorted((source.path.parent / FOLDER).glob("*.*")):
            target = path.parent / FOLDER / described.name
            if described.suffix in (".json", ".svg") and not target.exists():
                with as_store_error(target, "written"):
                    target.parent.mkdir(exist_ok=True)
                    write_whole(target, read_regular(described))
