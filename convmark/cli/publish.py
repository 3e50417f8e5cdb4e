"""`convmark publish`: a static site of results of many people; and `convmark check-submission`:
whether results that a pull request brings may be published.
"""

from __future__ import annotations

import argparse
from datetime import datetime, timezone
from pathlib import Path

from convmark.cli.command import EXIT_OK, exit_status, sayer, write_folder
from convmark.core.fitting import wrapped
from convmark.core.options import Options
from convmark.core.text import counted, shown
from convmark.report.submission import Finding, Submission, check, findings_table
from convmark.report.suspicion import REMEDIES
from convmark.report.tables import Answer, check_form, print_tables
from convmark.results.names import check_output_folder

_say = sayer("convmark publish")


def publish(given: argparse.Namespace, options: Options) -> int:
    """Write the site into a new folder.

    Raises:
        OptionError: the output is there already, or lies in an input.
        StoreError: a results file does not fit, or the site cannot be written.
    """
    from convmark.report.page.site import PARQUET, site_files  # a check needs no page

    places = [Path(place) for place in given.folders]
    output = Path(given.output)
    check_output_folder("--output", output, new=True, inputs=places)
    made = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    write_folder(output, site_files(places, made=made))
    if not (output / PARQUET).exists():
        _say(f"{PARQUET} was left out, it needs pyarrow: pip install pyarrow")
    _say(f"{output / 'index.html'}")
    return EXIT_OK


def check_submission(given: argparse.Namespace, options: Options) -> int:
    """Print the findings; fail where there is one."""
    form = check_form(given.format)
    folders = [Path(place) for place in given.folders]
    found = check(folders, [Path(place) for place in given.against], datetime.now(timezone.utc))
    if form == "text":
        print("\n".join([*map(_line, found.findings), _summary(found)]))
    else:
        table = findings_table(found.findings)
        print_tables(Answer(command="check-submission", tables=[table]), form)
    return exit_status(not found.findings)


def _line(one: Finding) -> str:
    """Return a finding as compilers print theirs, in lines of a terminal's width."""
    line = f":{one.line}" if one.line else ""
    more = f" (and {counted(one.rows - 1, 'more row')})" if one.rows and one.rows > 1 else ""
    where = shown(str(one.file)) + f"{line}: "
    said = shown(f"{one.rule}: {one.value}{more}; {REMEDIES[one.rule]}")
    return where + wrapped(said, before=where)


def _summary(found: Submission) -> str:
    checked = f"{counted(found.runs, 'run')} with {counted(found.rows, 'row')} checked"
    return f"{checked}, {counted(len(found.findings), 'finding')}"
