"""`convmark layers`: where the time of a step goes, layer by layer."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from convmark.cli.command import exit_status, sayer
from convmark.core.case import Case
from convmark.core.errors import OptionError, StoreError
from convmark.core.files import write_whole
from convmark.core.option_values import AUTO, parse_count, parse_models
from convmark.core.options import Options
from convmark.core.suites import refuse_untimed
from convmark.core.text import counted
from convmark.machine.hardware import read_machine
from convmark.report.describe import FOLDER
from convmark.report.tables import Answer, check_form, print_tables
from convmark.report.tables.layers import TOP, bars, layers_table
from convmark.results.store import Store
from convmark.session.ceilings import ceilings_path, key_of
from convmark.session.layers import (
    LAYERS_TABLE,
    LayerRow,
    layers_path,
    measure_layers,
    why_no_layers,
)
from convmark.session.session import Session, claimed

__all__ = ["keep_layers", "layers", "read_depth"]

_say = sayer("convmark layers")


def layers(given: argparse.Namespace, options: Options) -> int:
    """Measure the layers of the models, print the slowest and keep all; return the exit status.

    Raises:
        ConvmarkError: something asked for is not to be had; nothing was measured then.
    """
    form, depth = check_form(given.format), read_depth(given.depth)
    top = TOP if given.top is None else parse_count("--top", given.top)
    options = _of_command(given.model, options)
    Store(options.results).check_writable()
    machine = read_machine()
    folder = options.results / machine.name
    found: list[list[LayerRow]] = []
    with claimed(options, _say) as preflight, Session(options, machine, _say) as session:
        session.take(session.default_cases())
        for why in filter(None, map(why_no_layers, session.cases)):
            raise OptionError(why)
        for line in preflight.lines(machine):
            _say(line)
        found = _measured(session, depth, folder)
    tables = [layers_table(rows, top if form == "text" else None) for rows in found]
    if tables:
        print_tables(
            Answer(command="layers", machines=[machine.name], tables=tables, several=True), form
        )
    return exit_status(len(found) == len(session.cases))


def _of_command(models: Sequence[str], options: Options) -> Options:
    """Return the options as the command takes them: inference of batch 1 unless others are asked.

    Raises:
        OptionError: something asked for is not of this command.
    """
    refuse_untimed(options, "convmark layers measures")
    if options.batch_sizes == AUTO:
        raise OptionError("--batch-sizes: must be numbers, got auto")
    return dataclasses.replace(
        options,
        models=parse_models("MODEL", ",".join(models)),
        tasks=options.tasks if "tasks" in options.named else ("infer",),
        batch_sizes=options.batch_sizes or (1,),
        ceilings=options.ceilings if "ceilings" in options.named else "on",
    )


def read_depth(text: str | None) -> int | None:
    """Return the levels of blocks that are opened; None for all.

    Raises:
        OptionError: it is no number above 0.
    """
    return None if text is None else parse_count("--depth", text)


def _measured(session: Session, depth: int | None, folder: Path) -> list[list[LayerRow]]:
    """Measure each case; its rows are on the disk before the next begins."""
    ceilings = session.ceilings(ceilings_path(session.options.results, session.machine.name))
    found = []
    for case in session.cases:
        rows = measure_layers(
            case,
            session.interpreters.answer,
            session.options,
            depth=depth,
            ceiling=ceilings.get(key_of(case)),
            say=_say,
        )
        if rows:
            keep_layers(layers_path(folder), case, rows)
            found.append(rows)
    return found


def keep_layers(path: Path, case: Case, rows: Sequence[LayerRow]) -> None:
    """Append the rows to the file, and draw them.

    Raises:
        StoreError: the folder cannot be written.
    """
    LAYERS_TABLE.append(path, rows)
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", case.name)[:120]
    drawn = path.parent / FOLDER / f"{stem}.layers.svg"
    try:
        drawn.parent.mkdir(parents=True, exist_ok=True)
        write_whole(drawn, f"{bars(rows)}\n".encode())
    except OSError as error:
        raise StoreError(f"{drawn.parent}: must be writable: {error.strerror or error}") from None
    _say(f"{counted(len(rows), 'row')} in {path}, drawn in {drawn}")
