"""The command line: `convmark run | compare | accept | history | doctor`.

Imports nothing heavy before it knows what to do.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from convmark import __version__
from convmark.errors import ConvmarkError
from convmark.options import OPTIONS, Options, pyproject_settings, read

__all__ = ["main"]

FORMS = ("table", "markdown", "json", "github")
EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130


class _Parser(argparse.ArgumentParser):
    """Refuses on one line, with the nearest option."""

    def error(self, message: str) -> NoReturn:
        for word in message.split():
            if word.startswith("--"):
                name = word.partition("=")[0]
                near = difflib.get_close_matches(name, self._option_string_actions, n=1)
                if near and near[0] != name:
                    message += f"; did you mean {near[0]}?"
                    break
        self.exit(EXIT_USAGE, f"{self.prog}: {' '.join(message.split())}\n")


def _parsers() -> tuple[_Parser, dict[str, _Parser]]:
    """Return the parser, and those of its commands by name."""
    parser = _Parser(
        prog="convmark",
        description="Benchmark Keras ConvNets in fresh processes and keep the history as CSV.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"convmark {__version__}")
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=_Parser
    )
    run = commands.add_parser(
        "run",
        help="measure the default cases, or those that the options name",
        description="Measure cases in fresh processes and append a row each to a CSV file.",
        allow_abbrev=False,
    )
    _add_options(run, [option.name for option in OPTIONS if option.only != "pytest"])
    doctor = commands.add_parser(
        "doctor",
        help="say what is here, and what of it makes figures unreliable",
        description="Say what is here, and what of it makes figures unreliable.",
        allow_abbrev=False,
    )
    _add_options(doctor, ["results"])
    return parser, {"run": run, "doctor": doctor, **_history_parsers(commands)}


def _history_parsers(commands: Any) -> dict[str, _Parser]:
    """Return the parsers of the commands that measure nothing."""
    compare = commands.add_parser(
        "compare",
        help="judge a run against its history, or against another run",
        description="Judge the newest run, or RUN, against its history; with two, the second "
        "against the first. A run is a number, a commit or a file. Measures nothing, so a "
        "change of the step time stays unconfirmed.",
        allow_abbrev=False,
    )
    compare.add_argument("runs", metavar="RUN", nargs="*", help="the run to judge, or two")
    compare.add_argument("--format", metavar="FORM", default="table", help=f"{', '.join(FORMS)}")
    accept = commands.add_parser(
        "accept",
        help="make a run what later runs are judged against",
        description="Make a run what later runs of its cases are judged against.",
        allow_abbrev=False,
    )
    accept.add_argument("run", metavar="RUN", help="its number, commit or file")
    accept.add_argument("--reason", metavar="TEXT", required=True, help="why, in a few words")
    history = commands.add_parser(
        "history",
        help="show what the runs say of one case",
        description="Show the step time and the verdict of one case, run by run.",
        allow_abbrev=False,
    )
    history.add_argument("case", metavar="CASE", help="its name, as the tables give it")
    found = {"compare": compare, "accept": accept, "history": history}
    for parser in found.values():
        _add_options(parser, ["results"])
        parser.add_argument(
            "--machine", metavar="NAME", help="folder of the results (default: this machine's)"
        )
    return found


def _add_options(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    for option in OPTIONS:
        if option.name in names:
            parser.add_argument(option.flag, metavar=option.metavar, help=option.help)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser, commands = _parsers()
    given, unknown = parser.parse_known_args(arguments)
    if unknown:
        commands[given.command].error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        options = read(vars(given), pyproject_settings(Path.cwd()))
        with warnings.catch_warnings():
            return _command(given, options)
    except ConvmarkError as error:
        print(f"convmark {given.command}: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print(f"convmark {given.command}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output has left, as `| head` does
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED


def _command(given: argparse.Namespace, options: Options) -> int:
    if given.command == "run":
        return _run(options)
    if given.command == "doctor":
        return _doctor(options)
    from convmark import commands

    warnings.showwarning = _show_warning  # until the block of `main` ends
    if given.command == "compare":
        failed = commands.compare(options.results, given.machine, given.runs, given.format)
        return EXIT_FAILED if failed else EXIT_OK
    if given.command == "accept":
        commands.accept(options.results, given.machine, given.run, given.reason)
    else:
        commands.history(options.results, given.machine, given.case)
    return EXIT_OK


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"convmark: {message}", file=sys.stderr)


def _run(options: Options) -> int:
    from convmark import progress
    from convmark.ceilings import ceilings_path, gather
    from convmark.commit import read_commit
    from convmark.environment import read_machine
    from convmark.fleet import Fleet
    from convmark.report.summary import summary_table
    from convmark.run import Result, devices_asked_for, execute, facts_of, kept, plan
    from convmark.store import Store
    from convmark.suites import NETWORKS, cases

    store = Store(options.results)
    store.check_writable()
    machine = read_machine()
    with Fleet(
        options.backends, isolation=options.isolation, time_limit_s=options.time_limit_s
    ) as fleet:
        found = fleet.inspect(options.models or NETWORKS)
        devices = {
            backend: devices_asked_for(options.devices, found[backend]["devices"])
            for backend in options.backends
        }
        asked = cases(options, devices)
        jobs = plan(asked, options.processes, options.seed)
        path = ceilings_path(options.results, machine.name)
        ceilings = gather(asked, fleet.answer, path, which=options.ceilings, say=_say)
        run_file = store.create_run(machine.name)
        commit = read_commit(Path.cwd(), besides=[options.results.absolute()])
        facts = facts_of(run_file.run, machine, commit, os.environ, ceilings)
        results: list[Result] = []
        try:
            with progress.on(sys.stderr, 2 * options.time_budget_s + 2) as shown:
                execute(jobs, fleet, options, facts, run_file, shown, keep=results.append)
        except KeyboardInterrupt:
            print(f"convmark run: interrupted; {kept(run_file)}", file=sys.stderr)
            return EXIT_INTERRUPTED
        finally:
            run_file.close()
    records = [result.record for result in results]
    print(summary_table(records))
    print(f"\n{kept(run_file)}")
    return EXIT_OK if all(record.measured for record in records) else EXIT_FAILED


def _say(line: str) -> None:
    print(f"convmark run: {line}", file=sys.stderr)


def _doctor(options: Options) -> int:
    from convmark.cautions import cautions, speed_flags
    from convmark.doctor import findings
    from convmark.environment import read_machine, read_state
    from convmark.launch import Interpreter
    from convmark.run import inspect

    machine = read_machine()
    state = read_state()
    with Interpreter(isolation="spawn") as interpreter:
        try:
            framework = inspect(interpreter, ())
        except ConvmarkError as error:
            framework = {"error": str(error), "executable": sys.executable}
    print(
        findings(
            machine,
            state,
            cautions(machine, state, os.environ),
            framework,
            options.results,
            flags=speed_flags(os.environ),
        )
    )
    return EXIT_FAILED if "error" in framework else EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
