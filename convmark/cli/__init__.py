"""The command line: runs what `convmark.cli.parsers` parses, and returns the exit status.

Imports nothing heavy before it knows what to do.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from convmark.cli.command import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, sayer
from convmark.cli.parsers import parsers
from convmark.core.errors import ConvmarkError
from convmark.core.model_name import TRUST
from convmark.core.option import REPORT_OPTIONS, ReportOptions, by_source, values_of
from convmark.core.options import OPTIONS, Options, read
from convmark.core.processes import as_interrupts
from convmark.core.pyproject import pyproject_settings
from convmark.core.text import plain_text

_OF_A_DISK = frozenset([errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO])
"""What a full or broken disk answers: no fault of the code's."""

_ELSEWHERE: Mapping[str, str] = {
    "accept": "history.accept",
    "check-submission": "publish.check_submission",
    "compare": "history.compare",
    "fleet": "fleet.doctor",
    "list": "list.list_runs",
    "show": "list.show",
}
"""Module and function of the commands that are not called as their modules are."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser, commands = parsers()
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what may follow
        from convmark.cli.completion import complete

        complete(parser)
    words = sys.argv[1:] if arguments is None else arguments
    if not words:
        parser.print_help()
        return EXIT_OK
    if words[0].startswith("-") and words[0] not in parser._option_string_actions:
        # argparse would say only that a command is missing
        parser.error(f"unrecognized arguments: {words[0]} before COMMAND")
    given, unknown = parser.parse_known_args(arguments)
    if unknown:
        commands[given.command].refuse(unknown, commands)
    with as_interrupts() as received:
        status = _status(given)
    return received.status if status == EXIT_INTERRUPTED else status


def _status(given: argparse.Namespace) -> int:
    """Run the command and return its exit status, `EXIT_INTERRUPTED` whatever interrupted it."""
    say, options = sayer(f"convmark {given.command}"), Options()
    try:
        options = read(vars(given), pyproject_settings(Path.cwd()))
        if options.trust_models:
            os.environ[TRUST] = "1"  # for the workers
        with warnings.catch_warnings():
            warn = sayer("convmark")
            warnings.showwarning = lambda message, *_, **__: warn(plain_text(str(message)))
            status = _run(given, options)
        sys.stdout.flush()  # where it fails it fails here, and not after everything
        return status
    except ConvmarkError as error:
        flags = {one.name: one.flag for one in OPTIONS if one.key in given}
        say(plain_text(by_source(str(error), options.from_file, flags)))
        return EXIT_USAGE
    except KeyboardInterrupt:
        say("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output has left, as `| head` does
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:
        if error.errno not in _OF_A_DISK:
            raise
        with contextlib.suppress(OSError):  # the reason may be where the line would go
            where = error.filename or "standard output"
            say(f"{where}: {error.strerror}")
        return EXIT_FAILED


def _run(given: argparse.Namespace, options: Options) -> int:
    """Run the command by the function of its name in its module, which is imported now."""
    if given.command == "report":
        return _report(given, options)
    module, _, name = _ELSEWHERE.get(given.command, given.command).partition(".")
    command = getattr(importlib.import_module(f"convmark.cli.{module}"), name or module)
    return int(command(given, options))


def _report(given: argparse.Namespace, options: Options) -> int:
    from convmark.report.command import report
    from convmark.results.store import asked_places

    texts = {name: getattr(given, option.key) for name, option in REPORT_OPTIONS.items()}
    report(
        asked_places(given.places, options.results),
        output=given.output,
        form=given.format,
        options=ReportOptions(**values_of(REPORT_OPTIONS, texts)),
    )
    return EXIT_OK
