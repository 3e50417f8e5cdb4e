"""The arguments of the command line: one parser per command; `convmark.cli` runs the commands."""

from __future__ import annotations

import argparse
import difflib
import re
from typing import Any, NoReturn

from convmark import __version__
from convmark.cli.command import BUDGET, EXIT_USAGE, TARGET
from convmark.core.options import DRY_RUN, OPTIONS, RESUME
from convmark.core.text import plain_text

__all__ = ["Parser", "complete", "parsers"]

COMPARE_FORMS = ("table", "markdown", "json", "github")
ACROSS = "tensorflow, keras, python, backend, commit, machine, gpu or driver"

_MEASURING = [option.name for option in OPTIONS if option.only != "pytest"]
_OF_ONE_SIDE = (
    *("python", "env", "processes", "replicas", "cluster", "index"),
    *("seeds", "target-accuracy", "fraction", "mnist"),
)
_OF_A_PAIR = [name for name in _MEASURING if name not in _OF_ONE_SIDE]
"""The options of commands with two sides, whose arguments name the interpreters."""


_JOBS = """\
five jobs:
  choose a model        convmark run --models resnet50,mobilenetv2 --tasks infer
  gate a pull request   pytest bench --benchmark-compare=git:main
  upgrade TensorFlow    convmark ab "tensorflow==2.20.*" "tensorflow==2.21.*"
  compare machines      convmark report results ../gpu-box/results -o report.html
  share results         convmark report -o report.html
"""

_NOT_ONE_OF = re.compile(r"invalid choice: '(?P<given>.*)' \(choose from ")


class Parser(argparse.ArgumentParser):
    """Reports usage errors on one line, with the most similar option or command."""

    def error(self, message: str) -> NoReturn:
        """End with the conventional status; what is printed is one line."""
        near = self._near(message)
        hint = f"; did you mean {near}?" if near else ""
        self.exit(EXIT_USAGE, f"{self.prog}: {plain_text(message)}{hint}\n")

    def _near(self, message: str) -> str:
        """Return the option or command that is most like what a message complains of."""
        choice = _NOT_ONE_OF.search(message)
        if choice is not None:
            choices = re.findall(r"[\w-]+", message[choice.end() :])
            return next(iter(difflib.get_close_matches(choice["given"], choices, n=1)), "")
        for word in message.split():
            name = word.partition("=")[0].rstrip(":")
            if name.startswith("--"):
                near = difflib.get_close_matches(name, self._option_string_actions, n=1)
                if near and near[0] != name:
                    return near[0]
        return ""


def parsers() -> tuple[Parser, dict[str, Parser]]:
    """Return the parser, and those of its commands by name."""
    parser = Parser(
        prog="convmark",
        description="Benchmark Keras ConvNets in fresh processes and save the history as CSV.",
        epilog=_JOBS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"convmark {__version__}")
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=Parser
    )
    for add in (
        *(
            _run,
            _doctor,
            _list,
            _show,
            _report,
            _compare,
            _comment,
            _accept,
            _history,
            _merge,
            _fleet,
        ),
        *(_ab, _bisect, _noise, _env, _export),
    ):
        add(commands)
    return parser, commands.choices


def complete(parser: Parser) -> None:
    """Answer a shell's request for completions by argcomplete, where that is installed."""
    try:
        import argcomplete
    except ImportError:
        return
    argcomplete.autocomplete(parser)


_EXAMPLES = {
    "run": "convmark run --models resnet50,mobilenetv2 --tasks infer --batch-sizes 1,32",
    "doctor": "convmark doctor --backend jax",
    "list": "convmark list --format json",
    "show": "convmark show latest",
    "report": "convmark report results ../gpu-box/results -o report.html",
    "compare": "convmark compare 6 7",
    "comment": "convmark comment --badge badge.json",
    "accept": 'convmark accept 7 --reason "larger input"',
    "history": "convmark history lenet5-train-cpu-b32-float32",
    "merge": "convmark merge part-1 part-2 --results whole",
    "ab": 'convmark ab "tensorflow==2.20.*" "tensorflow==2.21.*" --models resnet50',
    "bisect": "convmark bisect --good 2.18.0 --bad 2.21.0 --models lenet5 --tasks train",
    "noise": "convmark noise --seconds 60 --models lenet5",
    "export": "convmark export --to openmetrics -o convmark.prom",
    "env list": "convmark env list --format json",
    "env make": 'convmark env make "tensorflow==2.20.*"',
    "env remove": "convmark env remove --all",
    "fleet doctor": "convmark fleet doctor --ray 10.0.0.1:6379",
}
"""One for each command that has arguments."""


def _command(commands: Any, name: str, words: str, description: str = "") -> Parser:
    made: Parser = commands.add_parser(
        name,
        help=words,
        description=description or f"{words[0].upper()}{words[1:]}.",
        allow_abbrev=False,
    )
    example = _EXAMPLES.get(made.prog.partition(" ")[2])
    made.epilog = f"example: {example}" if example else None
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


_GROUPS = {
    "what is measured": (
        *("models", "trust-models", "tasks", "devices", "batch-sizes", "precisions", "jit"),
        *("replicas", "cluster", "index", "optimizer", "learning-rate", "loss", "input-shape"),
        *("backend", "runtime", "python", "env"),
    ),
    "how it is measured": (
        *("threads", "ceilings", "processes", "time-budget", "time-limit", "isolation", "seed"),
        *("wait", "allow-concurrent"),
    ),
    "the task accuracy": ("seeds", "target-accuracy", "fraction", "mnist"),
}
"""The groups of a command's help, by the options in them; the others are in its own group."""


def _add_options(parser: Parser, *names: str) -> None:
    groups: dict[str, Any] = {}
    for option in (option for option in OPTIONS if option.name in names):
        title = next((title for title, held in _GROUPS.items() if option.name in held), "")
        if title and title not in groups:
            groups[title] = parser.add_argument_group(title)
        option.add_to(groups[title].add_argument if title else parser.add_argument)


def _run(commands: Any) -> None:
    run = _command(
        commands,
        "run",
        "measure the default cases, or the cases given by options",
        "Measure cases in fresh processes and append one row per process to a CSV file.",
    )
    _add_options(run, *_MEASURING)
    _add_format(run)
    _add(run, "--describe", "also save the layers and a diagram of each model")
    _add(run, "--dry-run", DRY_RUN)
    _add(run, "--quiet", "show no progress and no advice at the end")
    _add(run, "--resume RUN", RESUME, nargs="?", const="")
    _add(
        run,
        "--shard K/N",
        "measure part K of N of the plan, balanced by time; convmark merge joins the parts",
    )
    _add(
        run,
        "--shard-times RESULTS...",
        "balance the parts by earlier rows in this folder; use the same rows for all parts",
    )
    _add_cluster(run)
    _add(
        run,
        "--per WHAT",
        "with --ray: measure on every node, or on one of each machine-kind or gpu-kind (default: "
        "node)",
    )


def _add_cluster(parser: Parser, required: bool = False) -> None:
    _add(
        parser,
        "--ray ADDRESS",
        'measure on a Ray cluster: HOST:PORT of its head node; needs pip install "convmark[ray]"',
        required=required,
    )
    _add(
        parser,
        "--nodes LABEL=VALUE...",
        "with --ray: use only nodes with this label; if repeated, nodes with all labels",
    )


def _doctor(commands: Any) -> None:
    doctor = _command(
        commands,
        "doctor",
        "show the hardware and software, and conditions that make results unreliable",
    )
    _add_options(doctor, "backend", "python", "env", "results")


def _list(commands: Any) -> None:
    runs = _command(
        commands,
        "list",
        "list the runs: machine, number, time, commit, versions, cases and verdicts",
    )
    _add(runs, "place RESULTS", "results or machine folder (default: --results)", nargs="?")
    _add_format(runs)
    _add_options(runs, "results")


def _show(commands: Any) -> None:
    show = _command(commands, "show", "show the table of one run again")
    _add(show, "run RUN", "number, commit or file of the run, or latest")
    _add_format(show)
    _add_place(show)


def _add_format(parser: Parser) -> None:
    forms = "text, json, csv, parquet or markdown (default: text)"
    _add(parser, "--format FORM", forms, default="text")


def _report(commands: Any) -> None:
    report = _command(
        commands,
        "report",
        "make tables and plots of results, as a page or as text",
        "Make tables and plots of all runs in RESULTS: results folders, machine folders or run "
        "files, from one or several machines. Measures nothing.",
    )
    _add(report, "places RESULTS", "folders or run files (default: --results)", nargs="*")
    _add(report, "-o --output FILE", "file to write; its suffix sets the format")
    _add(report, "--format FORM", "html, markdown, terminal or csv (default: terminal)")
    _add(
        report,
        "--style STYLE",
        "full; applications, the table of the Keras documentation; or accuracy, with published "
        "values (default: full)",
        default="full",
    )
    _add(
        report,
        "--prices FILE",
        "prices of machines, a TOML file with currency, unit, date and source, for samples/s per "
        "price",
    )
    _add(
        report,
        "--reference MACHINE",
        "compare the other machines with this one (default: the one with the most cases)",
    )
    _add(
        report,
        "--name MACHINE=NAME...",
        "name a machine; kept in its results folder and shown in place of its fingerprint",
    )
    _add(report, "--figures FOLDER", "also write the plots as SVG and PNG files")
    _add(report, "--against REF", "start with the verdicts of the newest run against a commit")
    _add_options(report, "results")


def _compare(commands: Any) -> None:
    compare = _command(
        commands,
        "compare",
        "show the verdicts of a run against its history or another run, or a table over versions",
        "Print the verdicts of the newest run, or of RUN, again. With two runs, compare the second "
        "with the first. A run is a number, a commit or a file. Nothing is measured, so step times "
        "without a live comparison are inconclusive. With --across, print a table of all runs "
        "with the change from value to value; the exit status is 1 if one is `regressed`.",
    )
    _add(compare, "runs RUN", "one or two runs", nargs="*")
    forms = f"{', '.join(COMPARE_FORMS)}; with --across csv in place of github (default: table)"
    _add(compare, "--format FORM", forms, default="table")
    _add(compare, "--across COLUMN", f"compare the values of {ACROSS}")
    _add(
        compare,
        "--live",
        "with --across: run each value beside the one before, as convmark ab does",
    )
    _add_stopping_rule(compare, "with --live: ")
    _add_options(compare, "allow-change")
    _add_place(compare)


def _comment(commands: Any) -> None:
    comment = _command(
        commands,
        "comment",
        "print the verdicts of the newest run as a comment on a pull request, or post it",
        "Print the verdicts of the newest run in RESULTS as Markdown of at most 60 lines. Measures "
        "nothing. The exit status is 0 also where a case fails.",
    )
    _add(comment, "place RESULTS", "results folder or run file (default: --results)", nargs="?")
    _add(
        comment,
        "--post",
        "in GitHub Actions: also post it on the pull request, or update the comment that is "
        "there; needs GITHUB_TOKEN",
    )
    _add(
        comment,
        "--outcome OUTCOME",
        "how the step of the gate ended: success or failure (default: as its verdicts say)",
    )
    _add(comment, "--badge FILE", "also write the JSON of a badge (shields.io, endpoint)")
    _add_options(comment, "results")


def _accept(commands: Any) -> None:
    accept = _command(
        commands, "accept", "accept a run as the baseline of later runs, for all or some cases"
    )
    _add(accept, "run RUN", "number, commit or file of the run")
    _add(accept, "--reason TEXT", "the reason, in a few words", required=True)
    _add(
        accept,
        "--case CASE...",
        "accept the run only for this case, by name or a pattern such as 'lenet5-*'; other cases "
        "keep their baseline (default: all cases of the run)",
    )
    _add_place(accept)


def _history(commands: Any) -> None:
    history = _command(
        commands,
        "history",
        "show one case run by run, and when it changed",
        "Show the step time and the verdict of one case, run by run.",
    )
    _add(history, "case CASE", "the name of the case, as in the tables")
    _add_format(history)
    _add_place(history)


def _add_place(parser: Parser) -> None:
    _add_options(parser, "results")
    _add(parser, "--machine NAME", "folder of the results (default: this machine's)")


def _merge(commands: Any) -> None:
    merge = _command(
        commands,
        "merge",
        "merge the parts of a plan, or the results of several machines, into one folder",
        "Merge the runs in DIR into --results. The parts of a plan become one run; other runs are "
        "copied unchanged. Duplicate rows are refused, and missing parts are listed.",
    )
    _add(merge, "places DIR", "results folder, or run file", nargs="+")
    _add_options(merge, "results")


def _fleet(commands: Any) -> None:
    fleet = _command(commands, "fleet", "show the nodes of a cluster")
    doctor = _command(
        _actions(fleet),
        "doctor",
        "show the hardware and software of each node, and the problems that prevent a measurement",
    )
    _add_cluster(doctor, required=True)
    _add_options(doctor, "backend", "python", "env")


def _ab(commands: Any) -> None:
    ab = _command(
        commands,
        "ab",
        "compare two environments, commits or settings",
        "Run A and B in turns until it is certain whether B is slower and the interval of the "
        "change is narrow. A side is . (this interpreter), git:REF (the models of a commit), the "
        'path of an interpreter, or requirements such as "tensorflow==2.20.*".',
    )
    _add(ab, "a A", "the first side (default: .)", nargs="?", default=".")
    _add(ab, "b B", "the second side (default: .)", nargs="?", default=".")
    for side in ("a", "b"):
        _add(
            ab,
            f"--set-{side} NAME=VALUE...",
            f"a setting of {side.upper()}: backend, jit, threads, precision, or an environment "
            "variable in capitals",
        )
    _add(ab, "--format FORM", "table, markdown or json (default: table)", default="table")
    _add_stopping_rule(ab)
    _add_options(ab, *_OF_A_PAIR)


def _add_stopping_rule(parser: Parser, when: str = "") -> None:
    half_width = f"{when}half-width of the interval to reach (default: {TARGET})"
    most = f"{when}maximum seconds per case (default: {BUDGET})"
    _add(parser, "--target PERCENT", half_width, default=None if when else TARGET)
    _add(parser, "--budget SECONDS", most, default=None if when else BUDGET)


def _bisect(commands: Any) -> None:
    bisect = _command(
        commands,
        "bisect",
        "find the release, or the commit of the models, that changed a step time",
        "Find the release between two versions of a package, or the commit of the models between "
        "git:REF and git:REF, that changed the step time of one case.",
    )
    _add(bisect, "--good VERSION", "a version before the change", required=True)
    _add(bisect, "--bad VERSION", "a version after the change", required=True)
    _add(bisect, "--threshold PERCENT", "size of the change to find (default: 5)", default="5")
    _add(bisect, "--package NAME", "the package (default: tensorflow)", default="tensorflow")
    fixed = "a requirement for every environment, such as keras==3.5.0"
    _add(bisect, "--with REQUIREMENT...", fixed, dest="beside")
    _add(bisect, "--versions LIST", "the releases to search (default: all final releases)")
    _add(bisect, "--budget SECONDS", "maximum seconds per comparison (default: 60)", default="60")
    _add_options(bisect, *_OF_A_PAIR)


def _noise(commands: Any) -> None:
    noise = _command(
        commands,
        "noise",
        "measure the noise of this machine, and which changes it can detect in which time",
        "Compare today's code with a copy of itself, on a CPU also with one thread. Print the "
        "noise of the sessions, the smallest detectable slowdown and the time needed, and save "
        "them in noise.csv.",
    )
    _add(noise, "--seconds N", "total seconds of sessions (default: 300)", default="300")
    _add_options(noise, *_OF_A_PAIR)


def _export(commands: Any) -> None:
    export = _command(
        commands,
        "export",
        "write results in the format of another tool",
        "Write the figures of all runs in RESULTS for another tool: bmf (Bencher, newest run), "
        "otava (Apache Otava, a folder), conbench, openmetrics (newest figures) or mlflow (a "
        "folder).",
    )
    _add(export, "places RESULTS", "folders or run files (default: --results)", nargs="*")
    _add(export, "--to TOOL", "bmf, otava, conbench, openmetrics or mlflow", required=True)
    _add(export, "-o --output PATH", "file or new folder to write (default: standard output)")
    _add_options(export, "results")


def _env(commands: Any) -> None:
    actions = _actions(
        _command(commands, "env", "list, make or remove environments for measurements")
    )
    _add_format(_command(actions, "list", "list the environments"))
    make = _command(actions, "make", "make an environment and print the path of its interpreter")
    _add(make, "requirements REQUIREMENTS", 'requirements, such as "tensorflow==2.20.*"')
    _add(make, "--refresh", "make the environment again if it exists")
    remove = _command(actions, "remove", "remove environments")
    _add(remove, "names NAME", "names or requirements", nargs="*")
    _add(remove, "--all", "remove all environments", dest="everything")
