"""`convmark publish`: a static site of results of many people."""

from __future__ import annotations

import argparse
from datetime import datetime, timezone
from pathlib import Path

from convmark.cli.command import EXIT_OK, sayer, write_folder
from convmark.core.options import Options
from convmark.report.page.site import PARQUET, site_files
from convmark.results.names import check_output_folder

_say = sayer("convmark publish")


def publish(given: argparse.Namespace, options: Options) -> int:
    """Write the site into a new folder.

    Raises:
        OptionError: the output is there already, or lies in an input.
        StoreError: a results file does not fit, or the site cannot be written.
    """
    places = [Path(place) for place in given.folders]
    output = Path(given.output)
    check_output_folder("--output", output, new=True, inputs=places)
    made = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    write_folder(output, site_files(places, made=made))
    if not (output / PARQUET).exists():
        _say(f"{PARQUET} was left out, it needs pyarrow: pip install pyarrow")
    _say(f"{output / 'index.html'}")
    return EXIT_OK
