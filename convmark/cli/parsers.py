"""What the command line accepts: one parser per command; `convmark.cli` runs what they give."""

from __future__ import annotations

import argparse
import difflib
from typing import Any, NoReturn

from convmark import __version__
from convmark.cli.command import EXIT_USAGE
from convmark.core.options import OPTIONS, RESUME
from convmark.core.text import plain_text

__all__ = ["Parser", "parsers"]

COMPARE_FORMS = ("table", "markdown", "json", "github")
ACROSS = "tensorflow, keras, python, backend, commit, machine, gpu or driver"

_MEASURING = [option.name for option in OPTIONS if option.only != "pytest"]
_OF_ONE_SIDE = (
    *("python", "env", "processes", "replicas", "cluster", "index"),
    *("seeds", "target-accuracy", "fraction", "mnist"),
)
_OF_A_PAIR = [name for name in _MEASURING if name not in _OF_ONE_SIDE]
"""The options of what runs two sides, which name the interpreters themselves."""


class Parser(argparse.ArgumentParser):
    """Refuses on one line, with the nearest option."""

    def error(self, message: str) -> NoReturn:
        """End with the conventional status; what is printed is one line."""
        for word in message.split():
            if word.startswith("--"):
                name = word.partition("=")[0].rstrip(":")
                near = difflib.get_close_matches(name, self._option_string_actions, n=1)
                if near and near[0] != name:
                    message += f"; did you mean {near[0]}?"
                    break
        self.exit(EXIT_USAGE, f"{self.prog}: {plain_text(message)}\n")


def parsers() -> tuple[Parser, dict[str, Parser]]:
    """Return the parser, and those of its commands by name."""
    parser = Parser(
        prog="convmark",
        description="Benchmark Keras ConvNets in fresh processes and keep the history as CSV.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"convmark {__version__}")
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=Parser
    )
    for add in (
        *(_run, _doctor, _report, _compare, _accept, _history, _merge, _fleet),
        *(_ab, _bisect, _noise, _env),
    ):
        add(commands)
    return parser, commands.choices


def _command(commands: Any, name: str, words: str, description: str = "") -> Parser:
    sentence = description or f"{words[0].upper()}{words[1:]}."
    made: Parser = commands.add_parser(name, help=words, description=sentence, allow_abbrev=False)
    return made


def _actions(parser: Parser) -> Any:
    return parser.add_subparsers(
        dest="action", metavar="ACTION", required=True, parser_class=Parser
    )


def _add(parser: Parser, usage: str, help: str, **how: Any) -> None:
    """Add an argument.

    Args:
        usage: its names, then what its value is called: `--shard K/N`, or `runs RUN` where it is
            given by its place. With `...` at the end it may be given more than once; a flag
            without a value is a switch.
    """
    first, *words = usage.removesuffix("...").split()
    names = [first, *(word for word in words if word.startswith("-"))]
    if len(names) <= len(words):
        how["metavar"] = words[-1]
    elif first.startswith("-"):
        how["action"] = "store_true"
    if usage.endswith("..."):
        how |= {"action": "append", "default": []}
    parser.add_argument(*names, help=help, **how)


def _add_options(parser: Parser, *names: str) -> None:
    for option in OPTIONS:
        if option.name in names:
            option.add_to(parser.add_argument)


def _run(commands: Any) -> None:
    run = _command(
        commands,
        "run",
        "measure the default cases, or those that the options name",
        "Measure cases in fresh processes and append a row each to a CSV file.",
    )
    _add_options(run, *_MEASURING)
    _add(run, "--describe", "keep each model's layers and diagram as well")
    _add(run, "--resume RUN", RESUME, nargs="?", const="")
    _add(
        run,
        "--shard K/N",
        "measure the Kth of N parts of the plan, balanced by time; convmark merge joins them",
    )
    _add(
        run,
        "--shard-times RESULTS...",
        "balance the parts by the rows kept here; the same for all parts",
    )
    _add_cluster(run)
    _add(
        run,
        "--per WHAT",
        "with --ray: every node, or one of each machine-kind or gpu-kind (default: node)",
    )


def _add_cluster(parser: Parser, required: bool = False) -> None:
    _add(
        parser,
        "--ray ADDRESS",
        'the nodes of a Ray cluster: HOST:PORT of its head; needs pip install "convmark[ray]"',
        required=required,
    )
    _add(
        parser,
        "--nodes LABEL=VALUE...",
        "with --ray: only nodes with this label; all of them, where given more than once",
    )


def _doctor(commands: Any) -> None:
    doctor = _command(
        commands, "doctor", "show what was found on this machine, and what makes figures unreliable"
    )
    _add_options(doctor, "backend", "python", "env", "results")


def _report(commands: Any) -> None:
    report = _command(
        commands,
        "report",
        "make tables and figures of results, as a page or as text",
        "Make tables and figures of all runs in RESULTS: folders of results, of a machine, or run "
        "files, from one machine or several. Measures nothing.",
    )
    _add(report, "places RESULTS", "(default: --results)", nargs="*")
    _add(report, "-o --output FILE", "file to write; its suffix sets the format")
    _add(report, "--format FORM", "html, markdown, terminal or csv (default: terminal)")
    _add(
        report,
        "--style STYLE",
        "full; applications, the table that Keras prints for its own; or accuracy, beside what was "
        "published (default: full)",
        default="full",
    )
    _add(
        report,
        "--price MACHINE=PRICE...",
        "of a machine, in any one unit such as money per hour, for samples/s per price",
    )
    _add(report, "--figures FOLDER", "write the figures as SVG and PNG files as well")
    _add(report, "--against REF", "put the newest run's verdicts against a commit first")
    _add_options(report, "results")


def _compare(commands: Any) -> None:
    compare = _command(
        commands,
        "compare",
        "show the verdicts of a run, against its history or another run, or a table over versions",
        "Print the verdicts of the newest run, or of RUN, again. With two runs, judge the second "
        "against the first. A run is a number, a commit or a file. Nothing is measured, so a step "
        "time without a live comparison stays inconclusive. With --across, print a table of all "
        "runs over the values of a column.",
    )
    _add(compare, "runs RUN", "the run to judge, or two", nargs="*")
    forms = f"{', '.join(COMPARE_FORMS)}; with --across not github, but csv"
    _add(compare, "--format FORM", forms, default="table")
    _add(compare, "--across COLUMN", f"each case over the values of {ACROSS}")
    _add_options(compare, "allow-change")
    _add_place(compare)


def _accept(commands: Any) -> None:
    accept = _command(
        commands, "accept", "make a run what later runs of all or some cases are judged against"
    )
    _add(accept, "run RUN", "its number, commit or file")
    _add(accept, "--reason TEXT", "why, in a few words", required=True)
    _add(
        accept,
        "--case CASE...",
        "accept it for this case alone, by name or a pattern such as 'lenet5-*'; the others keep "
        "what they are judged against (default: all of its cases)",
    )
    _add_place(accept)


def _history(commands: Any) -> None:
    history = _command(
        commands,
        "history",
        "show one case run by run, and when it changed",
        "Show the step time and the verdict of one case, run by run.",
    )
    _add(history, "case CASE", "its name, as the tables give it")
    _add_place(history)


def _add_place(parser: Parser) -> None:
    _add_options(parser, "results")
    _add(parser, "--machine NAME", "folder of the results (default: this machine's)")


def _merge(commands: Any) -> None:
    merge = _command(
        commands,
        "merge",
        "join the parts of a plan, or the results of several machines, in one folder",
        "Join the runs in DIR into --results: the parts of a plan become one run, any other run is "
        "kept as it is. Refuses a row that is there twice, and says what is missing.",
    )
    _add(merge, "places DIR", "results folder, or run file", nargs="+")
    _add_options(merge, "results")


def _fleet(commands: Any) -> None:
    fleet = _command(commands, "fleet", "show the nodes of a cluster")
    doctor = _command(
        _actions(fleet),
        "doctor",
        "show what each node is, what it has installed, and what it would refuse to measure",
    )
    _add_cluster(doctor, required=True)
    _add_options(doctor, "backend", "python", "env")


def _ab(commands: Any) -> None:
    ab = _command(
        commands,
        "ab",
        "run two environments, commits or settings against each other",
        "Run A and B in turns until it is sure whether B is slower, and the interval of the "
        "change is narrow. A side is . (this interpreter), git:REF (that commit's models), an "
        'interpreter\'s path, or requirements such as "tensorflow==2.20.*".',
    )
    _add(ab, "a A", "the one side (default: .)", nargs="?", default=".")
    _add(ab, "b B", "the other (default: .)", nargs="?", default=".")
    for side in ("a", "b"):
        _add(
            ab,
            f"--set-{side} NAME=VALUE...",
            f"a setting of {side.upper()} alone: jit, threads, precision, or an environment "
            "variable in capitals",
        )
    _add(ab, "--target PERCENT", "half-width to reach (default: 2)", default="2")
    _add(ab, "--format FORM", "table, markdown, json", default="table")
    _add(ab, "--budget SECONDS", "most seconds of each case (default: 60)", default="60")
    _add_options(ab, *_OF_A_PAIR)


def _bisect(commands: Any) -> None:
    bisect = _command(
        commands,
        "bisect",
        "find the release, or the commit of the models, that changed a step time",
        "Find the release between two versions of a package, or the commit of the models between "
        "git:REF and git:REF, that changed the step time of one case.",
    )
    _add(bisect, "--good VERSION", "before the change", required=True)
    _add(bisect, "--bad VERSION", "after the change", required=True)
    _add(bisect, "--threshold PERCENT", "the change looked for (default: 5)", default="5")
    _add(bisect, "--package NAME", "(default: tensorflow)", default="tensorflow")
    beside = "held the same in every environment, such as keras==3.5.0"
    _add(bisect, "--with REQUIREMENT...", beside, dest="beside")
    _add(bisect, "--versions LIST", "the releases to choose among (default: all final ones)")
    _add(bisect, "--budget SECONDS", "most seconds of each comparison (default: 60)", default="60")
    _add_options(bisect, *_OF_A_PAIR)


def _noise(commands: Any) -> None:
    noise = _command(
        commands,
        "noise",
        "measure which change can be seen on this machine, case by case, and in what time",
        "Run today's code beside a copy of itself, on a CPU also with one thread. Print, and "
        "keep in noise.csv, how far sessions scatter, which slowdown they would show, and in how "
        "many seconds.",
    )
    _add(noise, "--seconds N", "of sessions, in all (default: 300)", default="300")
    _add_options(noise, *_OF_A_PAIR)


def _env(commands: Any) -> None:
    actions = _actions(
        _command(commands, "env", "list, make or remove the environments to measure in")
    )
    _command(actions, "list", "list what is there")
    make = _command(actions, "make", "make an environment and print its interpreter's path")
    _add(make, "requirements REQUIREMENTS", 'such as "tensorflow==2.20.*"')
    _add(make, "--refresh", "make it anew even where it is there")
    remove = _command(actions, "remove", "remove environments")
    _add(remove, "names NAME", "name or requirements", nargs="*")
    _add(remove, "--all", "remove all", dest="everything")
