"""`convmark layers`: where the time of a step goes, layer by layer."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Sequence

from convmark.cli.command import exit_status, sayer
from convmark.core.errors import OptionError
from convmark.core.option_values import AUTO, parse_count, parse_models
from convmark.core.options import Options, of_command
from convmark.core.suites import refuse_untimed
from convmark.core.table import Table
from convmark.core.text import counted
from convmark.machine.hardware import read_machine
from convmark.report.tables import Answer, check_form, print_tables
from convmark.report.tables.layers import TOP, bars_words, layers_table, remedies_table
from convmark.results.store import Store
from convmark.session.ceilings import ceilings_path
from convmark.session.layers import LayerRow, why_no_layers
from convmark.session.remedies import faster, remedies, settings_to_try, variants_of
from convmark.session.session import Session, claimed

_say = sayer("convmark layers")


def layers(given: argparse.Namespace, options: Options) -> int:
    """Measure the layers of the models, print the slowest and keep all; return the exit status."""
    form = check_form(given.format)
    depth = None if given.depth is None else parse_count("--depth", given.depth)
    top = TOP if given.top is None else parse_count("--top", given.top)
    refuse_untimed(options, "convmark layers measures")
    if options.batch_sizes == AUTO:
        raise OptionError("--batch-sizes: must be numbers, got auto")
    named = parse_models("MODEL", ",".join(given.model))
    options = dataclasses.replace(of_command("layers", options), models=named)
    Store(options.results).check_writable()
    machine = read_machine()
    found: list[list[LayerRow]] = []
    with claimed(options, _say) as preflight, Session(options, machine, _say) as session:
        session.take(session.default_cases())
        for why in filter(None, map(why_no_layers, session.cases)):
            raise OptionError(why)
        for line in preflight.lines(machine):
            _say(line)
        try:
            for rows in _measured(session, depth):
                found.append(rows)
            tried = _tried(session, found) if given.suggest else []
        except KeyboardInterrupt:
            session.interrupted, tried = True, []
            _say(session.kept)
    tables = [layers_table(rows, top if form == "text" else None) for rows in found]
    tables += tried
    if tables:
        print_tables(
            Answer(command="layers", machines=[machine.name], tables=tables, several=True), form
        )
    whole = len(found) == len(session.cases) and not session.lacks_layers
    return exit_status(whole, interrupted=session.interrupted)


def _tried(session: Session, found: Sequence[Sequence[LayerRow]]) -> list[Table]:
    """Return what settings do to the step of each case that has layers."""
    layers, options = {rows[0].case: rows for rows in found}, session.options
    tried = []
    for case in session.cases:
        variants = variants_of(layers.get(case.name, ()), options)
        if case.name in layers and settings_to_try(case, variants):
            one = remedies(case, session.interpreters.answer, options, _say, variants)
            tried += [one] if one else []
    sure = faster(tried)
    return [remedies_table(one, sure) for one in tried if one.remedies]


def _measured(session: Session, depth: int | None) -> Iterator[list[LayerRow]]:
    """Measure each case and give its rows, which are on the disk before the next begins."""
    path = ceilings_path(session.options.results, session.machine.name)
    facts = session.shared_facts("0")
    session.facts = dataclasses.replace(facts, ceilings=session.ceilings(path))
    for rows in filter(None, session.layers(session.cases, depth)):
        drawn = bars_words(session.layers_path.parent, rows)
        if rows[0].case not in session.layers_unkept:
            _say(f"{counted(len(rows), 'row')} in {session.layers_path}, {drawn}")
        yield rows
