"""The command line: runs what `convmark.core.parsers` gives, and returns the exit status.

Imports nothing heavy before it knows what to do.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from convmark.core.errors import ConvmarkError, OptionError
from convmark.core.model_name import TRUST
from convmark.core.option_values import parse_seconds
from convmark.core.options import Options, pyproject_settings, read
from convmark.core.parsers import EXIT_USAGE, parsers
from convmark.core.signals import as_interrupts
from convmark.core.text import plain_text

__all__ = ["main"]

EXIT_OK, EXIT_FAILED, EXIT_INTERRUPTED = 0, 1, 130

_OF_A_DISK = frozenset([errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO])
"""What a full or broken disk answers: no fault of the code's."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser, commands = parsers()
    given, unknown = parser.parse_known_args(arguments)
    if unknown:
        commands[given.command].error(f"unrecognized arguments: {' '.join(unknown)}")
    with as_interrupts() as received:
        status = _status(given)
    return received.status if status == EXIT_INTERRUPTED else status


def _status(given: argparse.Namespace) -> int:
    """Run the command and return its exit status, `EXIT_INTERRUPTED` whatever interrupted it."""
    try:
        options = read(vars(given), pyproject_settings(Path.cwd()))
        if options.trust_models:
            os.environ[TRUST] = "1"  # for the workers
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning  # until the block ends
            status = _COMMANDS[given.command](given, options)
        sys.stdout.flush()  # where it fails it fails here, and not after everything
        return status
    except ConvmarkError as error:
        print(f"convmark {given.command}: {plain_text(str(error))}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print(f"convmark {given.command}: interrupted", file=sys.stderr)
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
            print(f"convmark {given.command}: {where}: {error.strerror}", file=sys.stderr)
        return EXIT_FAILED


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"convmark: {plain_text(str(message))}", file=sys.stderr)


def _run(given: argparse.Namespace, options: Options) -> int:
    if given.ray is not None:
        return _run_on_cluster(given, options)
    for flag, value in (("--per", given.per), ("--nodes", given.nodes)):
        if value not in (None, []):
            raise OptionError(f"{flag}: needs --ray ADDRESS, whose nodes it chooses among")

    from convmark.cli.run import run

    shard, known_s = None, {}
    if given.shard_times and given.shard is None:
        raise OptionError("--shard-times: needs --shard K/N, whose parts it balances")
    if given.shard is not None:
        from convmark.fleet.expected import known_seconds
        from convmark.fleet.shard import read_shard

        shard = read_shard(given.shard)
        known_s = known_seconds([Path(place) for place in given.shard_times])
    whole, interrupted = run(
        options, describe=given.describe, resume=given.resume, shard=shard, known_s=known_s
    )
    return EXIT_INTERRUPTED if interrupted else EXIT_OK if whole else EXIT_FAILED


def _run_on_cluster(given: argparse.Namespace, options: Options) -> int:
    from convmark.cli.fleet import read_fleet, run

    for flag, value in (
        ("--shard", given.shard),
        ("--shard-times", given.shard_times),
        ("--describe", given.describe),
    ):
        if value:
            raise OptionError(f"{flag}: must not be given with --ray")
    if given.resume:
        raise OptionError(
            f"--resume: must be given without a run with --ray, got {given.resume!r}; every node's "
            "newest run of the plan goes on"
        )
    fleet = read_fleet(given.ray, given.per, given.nodes)
    whole, interrupted = run(options, fleet, resume=given.resume is not None)
    return EXIT_INTERRUPTED if interrupted else EXIT_OK if whole else EXIT_FAILED


def _fleet(given: argparse.Namespace, options: Options) -> int:
    from convmark.cli.fleet import doctor, read_fleet

    return EXIT_OK if doctor(options, read_fleet(given.ray, None, given.nodes)) else EXIT_FAILED


def _merge(given: argparse.Namespace, options: Options) -> int:
    from convmark.cli.merge import merge

    whole = merge([Path(place) for place in given.places], options.results)
    return EXIT_OK if whole else EXIT_FAILED


def _doctor(given: argparse.Namespace, options: Options) -> int:
    from convmark.cli.doctor import doctor

    return EXIT_OK if doctor(options) else EXIT_FAILED


def _compare(given: argparse.Namespace, options: Options) -> int:
    from convmark.cli import history

    if given.across is not None:
        if given.allow_change:
            raise OptionError("--allow-change: must not be given with --across, which judges none")
        history.across(options.results, given.machine, given.runs, given.across, given.format)
        return EXIT_OK
    failed = history.compare(
        options.results, given.machine, given.runs, given.format, options.allow_changes
    )
    return EXIT_FAILED if failed else EXIT_OK


def _accept(given: argparse.Namespace, options: Options) -> int:
    from convmark.cli import history

    history.accept(options.results, given.machine, given.run, given.reason, given.case)
    return EXIT_OK


def _history(given: argparse.Namespace, options: Options) -> int:
    from convmark.cli import history

    history.history(options.results, given.machine, given.case)
    return EXIT_OK


def _report(given: argparse.Namespace, options: Options) -> int:
    from convmark.report.command import report

    report(
        [Path(place) for place in given.places] or [options.results],
        output=given.output,
        form=given.format,
        style=given.style,
        prices=given.price,
        figures=given.figures,
        against=given.against,
    )
    return EXIT_OK


def _ab(given: argparse.Namespace, options: Options) -> int:
    from convmark.cli.ab import ab
    from convmark.compare.live.ab import side_spec

    target = _share("--target", given.target)
    a = side_spec("A", given.a, given.set_a, say=_say)
    b = side_spec("B", given.b, given.set_b, say=_say)
    budget_s = parse_seconds("--budget", given.budget)
    slower, interrupted = ab(options, a, b, target=target, budget_s=budget_s, form=given.format)
    return EXIT_INTERRUPTED if interrupted else EXIT_FAILED if slower else EXIT_OK


def _noise(given: argparse.Namespace, options: Options) -> int:
    from convmark.cli.noise import noise

    interrupted = noise(options, parse_seconds("--seconds", given.seconds))
    return EXIT_INTERRUPTED if interrupted else EXIT_OK


def _bisect(given: argparse.Namespace, options: Options) -> int:
    from convmark.cli.bisect import bisect

    found = bisect(
        options,
        good=given.good,
        bad=given.bad,
        threshold=_share("--threshold", given.threshold),
        package=given.package,
        beside=given.beside,
        versions=_listed("--versions", given.versions),
        budget_s=parse_seconds("--budget", given.budget),
    )
    return EXIT_OK if found else EXIT_FAILED


def _listed(flag: str, text: str | None) -> list[str]:
    words = [] if text is None else [word.strip() for word in text.split(",")]
    if not all(words):
        raise OptionError(f"{flag}: must be a comma-separated list without gaps, got {text!r}")
    return words


def _env(given: argparse.Namespace, options: Options) -> int:
    from convmark.cli import env

    if given.action == "list":
        env.listed()
    elif given.action == "make":
        env.make(given.requirements)
    else:
        env.remove(given.names, given.everything)
    return EXIT_OK


def _share(flag: str, text: str) -> float:
    """Return a percentage as a share.

    Raises:
        OptionError: it is no number of per cent above 0 and up to 1,000.
    """
    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        percent = 0.0
    if not 0 < percent <= 1000:
        raise OptionError(
            f"{flag}: must be a number of per cent above 0 and at most 1,000, got {text!r}"
        )
    return percent / 100


def _say(line: str) -> None:
    print(f"convmark: {line}", file=sys.stderr)


_COMMANDS: Mapping[str, Callable[[argparse.Namespace, Options], int]] = MappingProxyType(
    {
        "run": _run,
        "fleet": _fleet,
        "merge": _merge,
        "doctor": _doctor,
        "compare": _compare,
        "accept": _accept,
        "history": _history,
        "report": _report,
        "ab": _ab,
        "bisect": _bisect,
        "noise": _noise,
        "env": _env,
    }
)
