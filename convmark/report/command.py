"""`convmark report`: read results, print or write the report; measures nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import MappingProxyType

from convmark.core.errors import OptionError, StoreError
from convmark.core.files import write_whole
from convmark.core.table import Table
from convmark.report.against import verdicts_against
from convmark.report.build import FIRST, STYLES, VERDICTS, Report, build
from convmark.report.tables.text import csv_text, markdown_text, terminal_text
from convmark.results.outputs import check_output, check_output_folder

__all__ = ["FORMATS", "read_prices", "report"]

SUFFIXES: Mapping[str, str] = MappingProxyType(
    {".html": "html", ".htm": "html", ".md": "markdown", ".txt": "terminal", ".csv": "csv"}
)

MOST_SUMMARY_BYTES = 1_000_000
"""Of a job summary.

Source:
    GitHub's documentation, "Workflow commands for GitHub Actions", "Step isolation and limits": a
    step's summary holds 1 MiB, and none is shown of one that is larger.
"""


def _html(report: Report) -> str:
    from convmark.report.figures import figures_of
    from convmark.report.page.render import Page, render_page

    return render_page(
        Page(
            title=report.title,
            lead=report.lead,
            tables=report.tables,
            figures=figures_of(report.tables),
            models=report.models,
            made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            sources=report.sources,
        )
    )


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


FORMATS: Mapping[str, Callable[[Report], str]] = MappingProxyType(
    {
        "html": _html,
        "markdown": _markdown,
        "terminal": lambda report: terminal_text(_every_table(report)),
        "csv": lambda report: csv_text(_every_table(report)),
    }
)


def report(
    places: Sequence[Path],
    *,
    output: str | None = None,
    form: str | None = None,
    style: str = "full",
    prices: Sequence[str] = (),
    figures: str | None = None,
    against: str | None = None,
) -> None:
    """Write the report where it was asked for, or print it; draw its figures where asked.

    Args:
        output: file; its suffix names the format where `form` does not.
        prices: texts such as `xeon-2=2.5`.
        figures: folder for SVG and PNG files.
        against: what the newest run's verdicts, which come first, are against.

    Raises:
        OptionError: an option breaks its rule.
        StoreError: a results file does not fit, or the output cannot be written.
    """
    chosen = _format(output, form, figures)
    if output is not None:
        check_output("--output", Path(output), SUFFIXES)
    if style not in STYLES:
        raise OptionError(f"--style: must be one of {', '.join(STYLES)}, got {style!r}")
    if figures is not None and not figures.strip():
        raise OptionError(f"--figures: must be the path of a folder, got {figures!r}")
    if figures is not None:
        check_output_folder("--figures", Path(figures))
    priced = read_prices(prices)
    verdicts = None if against is None else verdicts_against(places, against, Path.cwd(), _say)
    found = build(places, style=style, prices=priced, verdicts=verdicts)
    if figures is not None:
        from convmark.report.figures import figures_of
        from convmark.report.figures.figure import export_figures

        written = export_figures(figures_of(found.tables), Path(figures))
        print(f"{len(written)} files in {figures}", file=sys.stderr)
    if chosen is None:
        return
    text = FORMATS[chosen](found)
    if output is None:
        print(text)
        return
    try:
        write_whole(Path(output), f"{text}\n".encode())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StoreError(f"--output: {output} must be writable: {reason}") from None
    print(output, file=sys.stderr)


def _say(line: str) -> None:
    print(f"convmark: {line}", file=sys.stderr)


def _format(output: str | None, form: str | None, figures: str | None) -> str | None:
    """Return the format; None where figures alone are asked for."""
    if form is None and output is not None:
        suffix = Path(output).suffix.lower()
        if suffix not in SUFFIXES:
            raise OptionError(
                f"--output: must end in {', '.join(SUFFIXES)} without --format, got {output!r}"
            )
        form = SUFFIXES[suffix]
    if form is None:
        return None if figures is not None else "terminal"
    if form not in FORMATS:
        raise OptionError(f"--format: must be one of {', '.join(FORMATS)}, got {form!r}")
    if form == "html" and output is None:
        raise OptionError("--format html: needs a file, give one by -o report.html")
    return form


def read_prices(texts: Sequence[str]) -> dict[str, float]:
    """Return prices by machine from texts such as `xeon-2=2.5`.

    Raises:
        OptionError: a text is no machine and price, the price is not above 0, or a machine has two.
    """
    found: dict[str, float] = {}
    for text in texts:
        machine, _, price = text.rpartition("=")
        if machine in found:
            raise OptionError(f"--price: must name a machine once, got {machine!r} twice")
        try:
            found[machine] = float(price)
        except ValueError:
            found[machine] = 0.0
        if not machine or not 0 < found[machine] < float("inf"):
            raise OptionError(f"--price: must be MACHINE=PRICE with a price above 0, got {text!r}")
    return found
