"""`convmark compare --across`: a table over the values of a column, or their live comparison."""

from __future__ import annotations

import argparse
import functools
import math
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from convmark.cli.ab import SideComparison, StoppingRule, print_verdicts
from convmark.cli.command import BUDGET, EXIT_USAGE, TARGET, exit_status, sayer
from convmark.compare.ab_rows import VerdictRow
from convmark.compare.live.ab import sides
from convmark.core.errors import ConvmarkError, OptionError, StoreError
from convmark.core.fitting import tell
from convmark.core.option_values import parse_percent, parse_seconds
from convmark.core.options import Options, read
from convmark.core.pyproject import pyproject_settings, typed
from convmark.core.table import headings
from convmark.core.text import listed, markdown_cell, plain_text, shown
from convmark.machine.lock import alone
from convmark.report.across import Cell, LiveCases, across_report, cells_table, live_cases
from convmark.report.across import across as across_cells
from convmark.report.tables import Answer, check_form, print_tables
from convmark.results.code.manifest import files_hash_of
from convmark.results.names import names_of
from convmark.results.reading import StoreWarning, read_run
from convmark.results.record import Record

_say = sayer("convmark compare")

MOST_NAMES = 5
"""Of cases that were not compared; the others are counted."""


def across(given: argparse.Namespace, options: Options, paths: Sequence[Path]) -> int:
    """Print each case over the values of a column; fail where a verdict is `regressed`.

    Args:
        paths: the runs' files; those that the user has named must be readable.
    """
    column = given.across
    form = check_form(given.format)
    folders = [path.parent for path in paths] if column == "machine" else []
    names = names_of([(folder.name, folder) for folder in folders])
    runs: dict[str, Path] = {}

    @functools.cache
    def files_of(code: str) -> str:
        return files_hash_of(code, runs[code]) if code in runs else ""

    found = list(_runs(paths, runs, strict=bool(given.runs)))
    cells = across_cells(found, column, names, files_of)
    if not cells:
        raise StoreError(f"{options.results}: no measured row has a value for {column}")
    if given.live:
        return _live(given, options, cells, form)
    if form in ("text", "markdown"):
        repeated = functools.partial(typed, options=options, fields=("results",))
        machine = ["--machine", given.machine] if given.machine else []
        live = shlex.join(["compare", *given.runs, "--across", column, *machine, "--live"])
        print(across_report(cells, column, form, live=live, typed=repeated))
    else:
        machines = sorted({row.machine for rows in found for row in rows if row.machine})
        print_tables(
            Answer(command="compare", machines=machines, tables=[cells_table(cells)]), form
        )
    return exit_status(not any(cell.verdict == "regressed" for cell in cells))


def _runs(
    paths: Sequence[Path], runs: dict[str, Path], *, strict: bool
) -> Iterator[Sequence[Record]]:
    """Yield the rows of each run, of copies of a file those of the first.

    A file that cannot be read is left out with a warning, unless strict.

    Args:
        runs: takes of each code the newest run that has it.
    """
    seen: dict[tuple[str | None, str, str], Path] = {}
    for path in paths:
        try:
            rows = read_run(path)
        except StoreError as error:
            if strict:
                raise
            warnings.warn(f"{error}; left out of the table", StoreWarning, stacklevel=2)
            continue
        if not rows:
            continue
        start = min(row.started for row in rows)
        first = seen.setdefault((rows[0].machine, rows[0].run, start), path)
        if first is not path:
            text = f"{path}: is a copy of {first}, left out of the table"
            warnings.warn(text, StoreWarning, stacklevel=2)
            continue
        runs |= {row.code or "": path for row in rows}
        yield rows


def _live(given: argparse.Namespace, options: Options, cells: Sequence[Cell], form: str) -> int:
    """Compare each value with the one before, in lock-step, as `convmark ab` does.

    What cannot be had is said, and the other comparisons go on.
    """
    rule = StoppingRule(
        target=math.log1p(
            parse_percent("--target", TARGET if given.target is None else given.target)
        ),
        budget_s=parse_seconds("--budget", BUDGET if given.budget is None else given.budget),
    )
    wanted = live_cases(cells)
    values = list(dict.fromkeys(cell.value for cell in cells))
    if len(values) == 1:
        raise OptionError(
            f"--live: needs two values of {given.across}, the runs have one, {values[0]}; measure "
            "another first"
        )
    if not wanted:
        raise OptionError(
            f"--live: no two values of {given.across} can be compared live on this machine: "
            "versions of tensorflow, keras and python can, backends and commits"
        )
    rows: list[VerdictRow] = []
    failed = interrupted = False
    with alone(wait=options.wait, concurrent=options.allow_concurrent, say=_say):
        for one in wanted:
            try:
                interrupted = _compared(one, options, rule, rows)
            except ConvmarkError as error:
                failed = True
                _say(plain_text(f"{one.a} -> {one.b}: {error}"))
            if interrupted:
                break
    print_verdicts("compare", rows, form, headings("a b", a="A", b="B"))
    left = _not_compared(cells, rows)
    if left and form in ("text", "markdown"):
        words = f"Not compared: {listed(left, MOST_NAMES)}."
        if form == "markdown":
            print(f"\n{markdown_cell(words)}")
        else:
            tell(f"\n{shown(words)}")
    if failed:
        return EXIT_USAGE
    slower = any(row.verdict == "regressed" for row in rows)
    return exit_status(not slower, interrupted=interrupted)


def _compared(
    wanted: LiveCases, options: Options, rule: StoppingRule, rows: list[VerdictRow]
) -> bool:
    """Compare cases and add their verdicts to the rows; return whether it was interrupted."""
    texts = {name.replace("-", "_"): text for name, text in wanted.options.items()}
    given = {**texts, "results": str(options.results)}
    of_pair = read(given, pyproject_settings(Path.cwd()))
    a, b = sides(
        ("A", wanted.a, wanted.set_a),
        ("B", wanted.b, wanted.set_b),
        wanted.models,
        say=sayer("convmark"),
    )
    found = SideComparison.opened(of_pair, a, b).compared(rule)
    rows += found.rows
    tell(found.kept, stream=sys.stderr)
    if found.failure:
        raise ConvmarkError(found.failure)
    return found.interrupted


def _not_compared(cells: Sequence[Cell], rows: Sequence[VerdictRow]) -> list[str]:
    """Return the cases of the table, with their values, that the live comparison has no row of."""
    done = {(row.a, row.b, row.case) for row in rows}
    left = []
    for cell in cells:
        one = cell.live
        ends = one and (" ".join((one.a, *one.set_a)), " ".join((one.b, *one.set_b)), cell.case)
        if cell.to_first is not None and ends not in done:
            left.append(f"{cell.case} at {cell.value}")
    return left
