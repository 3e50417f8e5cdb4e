"""`convmark export`: results in the format of another tool, as a file or a folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from convmark.cli.command import ANOTHER_PLACE, EXIT_OK, sayer, write_folder
from convmark.core.errors import OptionError
from convmark.core.files import write_output, writing
from convmark.core.option_values import choice_of
from convmark.core.options import Options
from convmark.core.text import counted
from convmark.report.export import TARGETS, Export, export_of
from convmark.report.rows import read_rows
from convmark.results.names import STDOUT, check_output, check_output_folder
from convmark.results.store import asked_places, run_files

_say = sayer("convmark export")

FOLDERS = ("otava", "mlflow")
"""Formats that are several files."""

SUFFIXES = (".json", ".ndjson", ".jsonl", ".prom", ".txt")
"""Of a file that an export may replace."""


def export(given: argparse.Namespace, options: Options) -> int:
    """Write the results where asked, or a single file to standard output."""
    target = choice_of(tuple(TARGETS))("--to", given.to)
    places = asked_places(given.places, options.results)
    output = None if given.output in (None, STDOUT) else Path(given.output)
    _check(target, output, places)
    found = export_of(read_rows(places), target)
    if output is None:
        sys.stdout.write(found.files[""])
        if found.left_out:
            _say(_words(found))
    else:
        _write(output, found.files)
        _say(f"{output}: {_words(found)}")
    return EXIT_OK


def _check(target: str, output: Path | None, places: Sequence[Path]) -> None:
    """Refuse an output that is an input, or is not what the format is made of."""
    if output is None:
        if target in FOLDERS:
            raise OptionError(f"--to {target}: needs a folder that does not exist yet: -o FOLDER")
        return
    if target in FOLDERS:
        check_output_folder("--output", output, new=True)
        return
    check_output("--output", output, SUFFIXES, inputs=run_files(places))
    if output.is_dir():
        raise OptionError(f"--output: must be a file for --to {target}, {output} is a folder")


def _write(output: Path, files: Mapping[str, str]) -> None:
    if "" in files:
        with writing(f"--output: {output}", ANOTHER_PLACE):
            write_output(output, files[""].encode())
    else:
        write_folder(output, ((name, text.encode()) for name, text in files.items()))


def _words(found: Export) -> str:
    parts = [f"{counted(found.points, 'case')} of runs"]
    if found.left_out:
        parts.append(f"{found.left_out} without figures left out")
    if found.doubtful:
        parts.append(f"{found.doubtful} to be wary of, for other load or doubts: convmark report")
    return ", ".join(parts)
