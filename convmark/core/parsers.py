"""What the command line accepts: one parser per command; `convmark.cli` runs what they give."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from typing import Any, NoReturn

from convmark import __version__
from convmark.core.option_table import OPTIONS
from convmark.core.text import plain_text

__all__ = ["EXIT_USAGE", "RESUME", "Parser", "parsers"]

EXIT_USAGE = 2

COMPARE_FORMS = ("table", "markdown", "json", "github")
ACROSS = "tensorflow, keras, python, backend, commit, machine, gpu or driver"

RESUME = (
    "continue an interrupted run, by number or file (default: the newest); give the options that "
    "it was started with"
)

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
    run = _command(
        commands,
        "run",
        "measure the default cases, or those that the options name",
        "Measure cases in fresh processes and append a row each to a CSV file.",
    )
    _add_options(run, _MEASURING)
    run.add_argument(
        "--describe", action="store_true", help="keep each model's layers and diagram as well"
    )
    run.add_argument("--resume", metavar="RUN", nargs="?", const="", help=RESUME)
    _add_parts(run)
    _add_cluster(run)
    run.add_argument(
        "--per",
        metavar="WHAT",
        help="with --ray: every node, or one of each machine-kind or gpu-kind (default: node)",
    )
    doctor = _command(
        commands, "doctor", "show what was found on this machine, and what makes figures unreliable"
    )
    _add_options(doctor, ["backend", "python", "env", "results"])
    found = {"run": run, "doctor": doctor, "report": _report(commands), **_stored(commands)}
    found = {**found, "merge": _merge(commands), "fleet": _fleet(commands)}
    found = {**found, **_pairs(commands), "env": _env(commands)}
    return parser, found


def _command(commands: Any, name: str, words: str, description: str = "") -> Parser:
    sentence = description or f"{words[0].upper()}{words[1:]}."
    made: Parser = commands.add_parser(name, help=words, description=sentence, allow_abbrev=False)
    return made


def _add_parts(run: Parser) -> None:
    run.add_argument(
        "--shard",
        metavar="K/N",
        help="measure the Kth of N parts of the plan, balanced by time; convmark merge joins them",
    )
    run.add_argument(
        "--shard-times",
        metavar="RESULTS",
        action="append",
        default=[],
        help="balance the parts by the rows kept here; the same for all parts",
    )


def _add_cluster(parser: Parser, required: bool = False) -> None:
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        required=required,
        help='the nodes of a Ray cluster: HOST:PORT of its head; needs pip install "convmark[ray]"',
    )
    parser.add_argument(
        "--nodes",
        metavar="LABEL=VALUE",
        action="append",
        default=[],
        help="with --ray: only nodes with this label; all of them, where given more than once",
    )


def _fleet(commands: Any) -> Parser:
    fleet = _command(commands, "fleet", "show the nodes of a cluster")
    actions = fleet.add_subparsers(
        dest="action", metavar="ACTION", required=True, parser_class=Parser
    )
    doctor = _command(
        actions,
        "doctor",
        "show what each node is, what it has installed, and what it would refuse to measure",
    )
    _add_cluster(doctor, required=True)
    _add_options(doctor, ["backend", "python", "env"])
    return fleet


def _merge(commands: Any) -> Parser:
    merge = _command(
        commands,
        "merge",
        "join the parts of a plan, or the results of several machines, in one folder",
        "Join the runs in DIR into --results: the parts of a plan become one run, any other run is "
        "kept as it is. Refuses a row that is there twice, and says what is missing.",
    )
    merge.add_argument("places", metavar="DIR", nargs="+", help="results folder, or run file")
    _add_options(merge, ["results"])
    return merge


def _report(commands: Any) -> Parser:
    report = _command(
        commands,
        "report",
        "make tables and figures of results, as a page or as text",
        "Make tables and figures of all runs in RESULTS: folders of results, of a machine, or run "
        "files, from one machine or several. Measures nothing.",
    )
    report.add_argument("places", metavar="RESULTS", nargs="*", help="(default: --results)")
    report.add_argument(
        "-o", "--output", metavar="FILE", help="file to write; its suffix sets the format"
    )
    add = report.add_argument
    add("--format", metavar="FORM", help="html, markdown, terminal or csv (default: terminal)")
    add(
        "--style",
        metavar="STYLE",
        default="full",
        help="full; applications, the table that Keras prints for its own; or accuracy, beside "
        "what was published (default: full)",
    )
    add(
        "--price",
        metavar="MACHINE=PRICE",
        action="append",
        default=[],
        help="of a machine, in any one unit such as money per hour, for samples/s per price",
    )
    add("--figures", metavar="FOLDER", help="write the figures as SVG and PNG files as well")
    add("--against", metavar="REF", help="put the newest run's verdicts against a commit first")
    _add_options(report, ["results"])
    return report


def _stored(commands: Any) -> dict[str, Parser]:
    """Return the parsers of the commands that measure nothing."""
    compare = _command(
        commands,
        "compare",
        "show the verdicts of a run, against its history or another run, or a table over versions",
        "Print the verdicts of the newest run, or of RUN, again. With two runs, judge the second "
        "against the first. A run is a number, a commit or a file. Nothing is measured, so a step "
        "time without a live comparison stays inconclusive. With --across, print a table of all "
        "runs over the values of a column.",
    )
    compare.add_argument("runs", metavar="RUN", nargs="*", help="the run to judge, or two")
    compare.add_argument(
        "--format",
        metavar="FORM",
        default="table",
        help=f"{', '.join(COMPARE_FORMS)}; with --across not github, but csv",
    )
    compare.add_argument(
        "--across", metavar="COLUMN", help=f"each case over the values of {ACROSS}"
    )
    accept = _command(
        commands, "accept", "make a run what later runs of all or some cases are judged against"
    )
    accept.add_argument("run", metavar="RUN", help="its number, commit or file")
    accept.add_argument("--reason", metavar="TEXT", required=True, help="why, in a few words")
    accept.add_argument(
        "--case",
        metavar="CASE",
        action="append",
        default=[],
        help="accept it for this case alone, by name or a pattern such as 'lenet5-*'; the others "
        "keep what they are judged against (default: all of its cases)",
    )
    history = _command(
        commands,
        "history",
        "show one case run by run, and when it changed",
        "Show the step time and the verdict of one case, run by run.",
    )
    history.add_argument("case", metavar="CASE", help="its name, as the tables give it")
    _add_options(compare, ["allow-change"])
    found = {"compare": compare, "accept": accept, "history": history}
    for parser in found.values():
        _add_options(parser, ["results"])
        parser.add_argument(
            "--machine", metavar="NAME", help="folder of the results (default: this machine's)"
        )
    return found


def _pairs(commands: Any) -> dict[str, Parser]:
    """Return the parsers of the commands that run two sides in turns."""
    ab = _command(
        commands,
        "ab",
        "run two environments, commits or settings against each other",
        "Run A and B in turns until it is sure whether B is slower, and the interval of the "
        "change is narrow. A side is . (this interpreter), git:REF (that commit's models), an "
        'interpreter\'s path, or requirements such as "tensorflow==2.20.*".',
    )
    ab.add_argument("a", metavar="A", nargs="?", default=".", help="the one side (default: .)")
    ab.add_argument("b", metavar="B", nargs="?", default=".", help="the other (default: .)")
    for side in ("a", "b"):
        ab.add_argument(
            f"--set-{side}",
            metavar="NAME=VALUE",
            action="append",
            default=[],
            help=f"a setting of {side.upper()} alone: jit, threads, precision, or an environment "
            "variable in capitals",
        )
    ab.add_argument(
        "--target", metavar="PERCENT", default="2", help="half-width to reach (default: 2)"
    )
    ab.add_argument("--format", metavar="FORM", default="table", help="table, markdown, json")
    bisect = _command(
        commands,
        "bisect",
        "find the release, or the commit of the models, that changed a step time",
        "Find the release between two versions of a package, or the commit of the models between "
        "git:REF and git:REF, that changed the step time of one case.",
    )
    bisect.add_argument("--good", metavar="VERSION", required=True, help="before the change")
    bisect.add_argument("--bad", metavar="VERSION", required=True, help="after the change")
    bisect.add_argument(
        "--threshold", metavar="PERCENT", default="5", help="the change looked for (default: 5)"
    )
    bisect.add_argument(
        "--package", metavar="NAME", default="tensorflow", help="(default: tensorflow)"
    )
    bisect.add_argument(
        "--with",
        metavar="REQUIREMENT",
        dest="beside",
        action="append",
        default=[],
        help="held the same in every environment, such as keras==3.5.0",
    )
    bisect.add_argument(
        "--versions", metavar="LIST", help="the releases to choose among (default: all final ones)"
    )
    noise = _command(
        commands,
        "noise",
        "measure which change can be seen on this machine, case by case, and in what time",
        "Run today's code beside a copy of itself, on a CPU also with one thread. Print, and "
        "keep in noise.csv, how far sessions scatter, which slowdown they would show, and in how "
        "many seconds.",
    )
    noise.add_argument(
        "--seconds", metavar="N", default="300", help="of sessions, in all (default: 300)"
    )
    found = {"ab": ab, "bisect": bisect}
    for name, parser in found.items():
        parser.add_argument(
            "--budget",
            metavar="SECONDS",
            default="60",
            help=f"most seconds of each {'case' if name == 'ab' else 'comparison'} (default: 60)",
        )
    found["noise"] = noise
    for parser in found.values():
        _add_options(parser, _OF_A_PAIR)
    return found


def _env(commands: Any) -> Parser:
    env = _command(
        commands,
        "env",
        "list, make or remove the environments to measure in",
    )
    actions = env.add_subparsers(
        dest="action", metavar="ACTION", required=True, parser_class=Parser
    )
    _command(actions, "list", "list what is there")
    make = _command(actions, "make", "make an environment and print its interpreter's path")
    make.add_argument("requirements", metavar="REQUIREMENTS", help='such as "tensorflow==2.20.*"')
    remove = _command(actions, "remove", "remove environments")
    remove.add_argument("names", metavar="NAME", nargs="*", help="name or requirements")
    remove.add_argument("--all", action="store_true", dest="everything", help="remove all")
    return env


def _add_options(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    for option in OPTIONS:
        if option.name in names:
            option.add_to(parser.add_argument)
