"""`convmark report`: read results, print or write the report; measures nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from convmark.core.errors import DrawingError, OptionError
from convmark.core.files import write_output, writing
from convmark.core.fitting import tell, unbroken
from convmark.core.option import RANKS, REPORT_OPTIONS, STYLES, ReportOptions
from convmark.core.option_values import choice_of, nearest, parse_file
from convmark.core.table import Table
from convmark.core.text import counted, painted
from convmark.report.build import FIRST, VERDICTS, Report, build
from convmark.report.comparison import Comparison, read_prices
from convmark.report.tables import (
    Answer,
    check_form,
    formatted,
    machines_of,
    markdown_text,
    parquet_of,
    print_tables,
    terminal_text,
)
from convmark.report.verdicts import verdicts_against
from convmark.results.names import (
    STDOUT,
    check_output,
    check_output_folder,
    keep_name,
    kept_name,
    read_name,
)
from convmark.results.reading import read_head
from convmark.results.store import run_files

SUFFIXES: Mapping[str, str] = {
    **{".html": "html", ".htm": "html", ".md": "markdown", ".txt": "text", ".csv": "csv"},
    **{".json": "json", ".parquet": "parquet"},
}

_OF_FULL = ("prices", "reference", "power_logs", "rank")
"""Options that the full report alone has."""

MOST_SUMMARY_BYTES = 1_000_000
"""Of a job summary.

Source:
    GitHub's documentation, "Workflow commands for GitHub Actions", "Step isolation and limits": a
    step's summary holds 1 MiB, and none is shown of one that is larger.
"""


def _html(report: Report) -> str:
    from convmark.report.figures import figures_of
    from convmark.report.page import commit_links, drawing_library, render_page

    figures = figures_of(report.tables)
    try:
        drawing_library()
    except DrawingError as error:
        _say(f"the page has no figures: {error}")
        figures = []
    return render_page(
        report,
        figures,
        links=commit_links(Path.cwd(), _commits(report.tables)),
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _commits(tables: Sequence[Table]) -> Iterator[str]:
    for table in tables:
        for heading in table.headings:
            if heading.key in ("commit", "last_commit"):
                yield from (text.split(" ")[0] for text in set(table.column(heading.key)) if text)


def _markdown(report: Report) -> str:
    """Return the tables as Markdown; with verdicts, a job summary, in which they alone are open."""
    summary = any(table.key == VERDICTS for table in report.tables)
    first = (VERDICTS,) if summary else FIRST
    shown = [table for table in report.tables if table.key in first]
    folded = [table for table in report.tables if table.key not in first]
    folded += [model.table for model in report.models]
    return markdown_text(shown, folded=folded, most_bytes=MOST_SUMMARY_BYTES if summary else None)


def _every_table(report: Report) -> list[Table]:
    return [*report.tables, *(model.table for model in report.models)]


def _answer(report: Report) -> Answer:
    tables = _every_table(report)
    return Answer(command="report", machines=machines_of(tables), tables=tables, several=True)


HTML = "html"

_OWN: Mapping[str, Callable[[Report], str]] = {
    HTML: _html,
    "markdown": _markdown,
    "text": lambda report: terminal_text(_every_table(report)),
}
"""Formats that a report has a form of its own in; the others are as every command's."""


def report(
    places: Sequence[Path],
    *,
    output: str | None = None,
    form: str | None = None,
    show: bool = True,
    options: ReportOptions | None = None,
) -> Report:
    """Write the report where it was asked for, or print it; draw its figures where asked.

    Args:
        output: file; its suffix names the format where `form` does not. `-` is standard output.
        show: whether it is printed, where no file is asked for.
    """
    asked = options or ReportOptions()
    to_stdout = output == STDOUT
    output = None if to_stdout else output
    chosen = _format(output, form, asked.figures, to_stdout=to_stdout)
    if output is not None:
        check_output("--output", Path(output), SUFFIXES)
    _check(asked)
    compared = Comparison(
        prices={} if asked.prices is None else read_prices(parse_file("--prices", asked.prices)),
        reference=asked.reference or "",
        rank=asked.rank,
    )
    keep_names(places, asked.names)
    only_names = bool(asked.names) and asked == replace(ReportOptions(), names=asked.names)
    if form is None and output is None and not to_stdout and only_names:
        chosen = None
    ref, here = asked.against, Path.cwd()
    found = build(
        places,
        style=asked.style,
        comparison=compared,
        verdicts=None if ref is None else verdicts_against(places, ref, here, _say),
        power_logs=asked.power_logs,
    )
    if chosen is not None and (output is not None or show):
        _give(found, chosen, output)
    if asked.figures is not None:
        _draw(found, asked.figures)
    return found


def _give(found: Report, chosen: str, output: str | None) -> None:
    """Print the report, or write it where it was asked for and say so."""
    if output is None and chosen not in _OWN:
        print_tables(_answer(found), chosen)
        return
    data = _bytes(found, chosen)
    if output is None:
        text = data.decode().removesuffix("\n")
        print(painted(text, sys.stdout, os.environ) if chosen == "text" else text)
        return
    with writing(f"--output: {output}"):
        write_output(Path(output), data)
    print(output, file=sys.stderr)


def _draw(found: Report, folder: str) -> None:
    """Write the report's figures in the folder, and say how many."""
    from convmark.report.figures import figures_of
    from convmark.report.figures.figure import export_figures

    written = export_figures(figures_of(found.tables), Path(folder), _say)
    tell(f"{counted(len(written), 'file')} in {unbroken(folder)}", stream=sys.stderr)


def _bytes(found: Report, form: str) -> bytes:
    if form == "parquet":
        return parquet_of(_answer(found))
    text = _OWN[form](found) if form in _OWN else formatted(_answer(found), form)
    return f"{text}\n".encode()


def _check(asked: ReportOptions) -> None:
    """Refuse options that break their rule or do not go together."""
    for flag, known, value in (("--rank", RANKS, asked.rank), ("--style", STYLES, asked.style)):
        choice_of(known)(flag, value)
    default = ReportOptions()
    for name in _OF_FULL:
        if getattr(asked, name) != getattr(default, name) and asked.style != default.style:
            flag = REPORT_OPTIONS[name].flag
            raise OptionError(
                f"{flag}: must not be given with --style {asked.style}, which ignores it"
            )
    if asked.reference is not None and not asked.reference.strip():
        raise OptionError(f"--reference: must be the name of a machine, got {asked.reference!r}")
    if asked.figures is not None:
        if not asked.figures.strip():
            raise OptionError(f"--figures: must be the path of a folder, got {asked.figures!r}")
        check_output_folder("--figures", Path(asked.figures))


def _say(line: str) -> None:
    tell(line, before="convmark: ", stream=sys.stderr)


def _format(
    output: str | None, form: str | None, figures: str | None, *, to_stdout: bool
) -> str | None:
    """Return the format; None where figures alone are asked for."""
    if form is None and output is not None:
        suffix = Path(output).suffix.lower()
        if suffix not in SUFFIXES:
            raise OptionError(
                f"--output: must end in {', '.join(SUFFIXES)} without --format, got {output!r}"
            )
        form = SUFFIXES[suffix]
    if form is None:
        return None if figures is not None and not to_stdout else "text"
    check_form(form, (HTML,), printed=output is None)
    if form == HTML and output is None and not to_stdout:
        raise OptionError("--format html: needs a file, give one by -o report.html")
    return form


def keep_names(places: Sequence[Path], texts: Sequence[str]) -> None:
    """Keep names of machines in their folders, from texts such as `xeon-2=laptop`.

    Raises:
        OptionError: a text is no machine and name, or the name is another machine's.
        StoreError: a file cannot be read or written.
    """
    if not texts:
        return
    given = [kept_name("--name", text) for text in texts]
    folders = _machine_folders(places)
    asked = {machine for machine, _ in given}
    known = {one: one if one in asked else read_name(its[0]) or one for one, its in folders.items()}
    by_name = {name: machine for machine, name in known.items()}
    new: dict[str, str] = {}
    for machine, name in given:
        own = by_name.get(machine)
        if own is None:
            hint = nearest(machine, sorted(by_name))
            raise OptionError(f"--name: no row is from the machine {machine!r}; {hint}")
        if new.get(own, name) != name:
            raise OptionError(
                f"--name: {machine} must have one name, got {new[own]!r} and {name!r}"
            )
        others = [one for one in folders if one != own and name in (one, known[one])]
        if others:
            raise OptionError(f"--name: {name!r} is the name of {others[0]}; choose another")
        known[own] = new[own] = name
    for machine, name in new.items():
        for folder in folders[machine]:
            keep_name(folder, name)
        _say(f"{machine} is named {name}")


def _machine_folders(places: Sequence[Path]) -> dict[str, list[Path]]:
    runs = {path.resolve().parent: path for path in reversed(run_files(places))}
    found: dict[str, list[Path]] = {}
    for folder, path in sorted(runs.items()):
        head = read_head(path)
        found.setdefault((head and head.machine) or folder.name, []).append(folder)
    return found
