"""The arguments of the command line: one parser per command; `convmark.cli` runs the commands."""

from __future__ import annotations

import argparse
from typing import Any

from convmark import __version__
from convmark.cli.command import BUDGET, TARGET, Parser, actions, add, add_options, command
from convmark.core.case import SIDE_SETTINGS
from convmark.core.option import DRY_RUN, REPORT_OPTIONS, RESUME

ACROSS = "tensorflow, keras, python, backend, commit, machine, gpu or driver"

_RUN = "number, commit or file of the run, or latest"
_JOBS = """\
five jobs:
  choose a model
    convmark run --models resnet50,mobilenetv2 --tasks infer --batch-sizes 1
  gate a pull request
    pytest bench --benchmark-compare=git:main
  upgrade TensorFlow
    convmark ab "tensorflow==2.20.*" "tensorflow==2.21.*" --models lenet5
  compare machines
    convmark report results ../gpu-box/results -o report.html
  share results
    convmark report -o report.html
"""
"""Those of README."""


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
    for declare in (
        *(_run, _doctor, _list, _show, _report, _compare, _comment, _accept, _history, _merge),
        *(_fleet, _ab, _layers, _bisect, _noise, _env, _export, _check_submission, _publish),
    ):
        declare(commands)
    return parser, commands.choices


def _run(commands: Any) -> None:
    run = command(
        commands,
        "run",
        "measure the default cases, or the cases given by options",
        "Measure cases in fresh processes and append one row per process to a CSV file.",
    )
    add_options(run)
    _add_format(run)
    add(run, "--describe", "also save the layers and a diagram of each model")
    add(run, "--dry-run", DRY_RUN)
    add(run, "--quiet", "show no progress and no advice at the end")
    add(run, "--resume RUN", RESUME, nargs="?", const="")
    add(
        run,
        "--shard K/N",
        "measure part K of N of the plan, balanced by time; convmark merge joins the parts",
    )
    add(
        run,
        "--shard-times RESULTS...",
        "balance the parts by earlier rows in this folder; use the same rows for all parts",
    )
    _add_cluster(run)
    add(
        run,
        "--per WHAT",
        "with --ray: node measures on every node, machine-kind and gpu-kind on one node of each "
        "kind (default: node)",
    )


def _add_cluster(parser: Parser, required: bool = False) -> None:
    add(
        parser,
        "--ray ADDRESS",
        f"{'the' if required else 'measure on a'} Ray cluster: HOST:PORT of its head node; needs "
        'pip install "convmark[ray]"',
        required=required,
    )
    add(
        parser,
        "--nodes LABEL=VALUE...",
        "with --ray: use only nodes with this label; if repeated, nodes with all labels",
    )


def _doctor(commands: Any) -> None:
    doctor = command(
        commands,
        "doctor",
        "show the hardware and software, and conditions that make results unreliable",
    )
    _add_format(doctor)
    add_options(doctor)


def _list(commands: Any) -> None:
    runs = command(
        commands,
        "list",
        "list the runs: machine, number, time, commit, versions, cases and verdicts",
    )
    add(runs, "place RESULTS", "results or machine folder (default: --results)", nargs="?")
    _add_format(runs)
    add_options(runs)


def _show(commands: Any) -> None:
    show = command(commands, "show", "show the table of one run again")
    add(show, "run RUN", _RUN)
    _add_format(show)
    _add_place(show)


def _add_format(parser: Parser, more: str = "", default: str | None = "text") -> None:
    forms = f"text, json, csv, parquet or markdown{more} (default: text)"
    add(parser, "--format FORM", forms, default=default)


def _report(commands: Any) -> None:
    report = command(
        commands,
        "report",
        "make tables and plots of results, as a page or as text",
        "Make tables and plots of all runs in RESULTS: results folders, machine folders or run "
        "files, from one or several machines. Measures nothing.",
    )
    add(report, "places RESULTS", "folders or run files (default: --results)", nargs="*")
    add(report, "-o --output FILE", "file to write, or -; its suffix sets the format")
    _add_format(report, ", or html", default=None)
    for option in REPORT_OPTIONS.values():
        option.add_to(report.add_argument)
    add_options(report)


def _compare(commands: Any) -> None:
    compare = command(
        commands,
        "compare",
        "show the verdicts of a run against its history or another run, or a table over versions",
        "Print the verdicts of the newest run, or of RUN, again. With two runs, compare the second "
        "with the first. A run is a number, a commit, a file or latest. Nothing is measured, so "
        "step times without a live comparison are inconclusive. With --across, print a table of "
        "all runs with the change from value to value; the exit status is 1 if one is `regressed`.",
    )
    add(compare, "runs RUN", "one or two runs", nargs="*")
    _add_format(compare, ", or without --across github")
    add(compare, "--across COLUMN", f"compare the values of {ACROSS}")
    add(
        compare,
        "--live",
        "with --across: compare each value live with the previous one, as convmark ab does",
    )
    _add_stopping_rule(compare, "with --live: ")
    _add_place(compare)


def _comment(commands: Any) -> None:
    comment = command(
        commands,
        "comment",
        "print the verdicts of the newest run as a comment on a pull request, or post it",
        "Print the verdicts of the newest run in RESULTS as Markdown of at most 60 lines. Measures "
        "nothing. The exit status is 0 also where a case fails.",
    )
    add(comment, "place RESULTS", "results folder or run file (default: --results)", nargs="?")
    add(
        comment,
        "--post",
        "in GitHub Actions: also post it on the pull request, or update the existing "
        "comment; needs GITHUB_TOKEN",
    )
    add(
        comment,
        "--outcome OUTCOME",
        "how the step of the gate ended: success or failure (default: from its verdicts)",
    )
    add(comment, "--badge FILE", "also write the JSON of a badge (shields.io, endpoint)")
    add_options(comment)


def _accept(commands: Any) -> None:
    accept = command(
        commands, "accept", "accept a run as the baseline of later runs, for all or some cases"
    )
    add(accept, "run RUN", _RUN)
    add(accept, "--reason TEXT", "the reason, in a few words", required=True)
    add(
        accept,
        "--case CASE...",
        "accept the run only for this case, by name or a pattern such as 'lenet5-*'; other cases "
        "keep their baseline (default: all cases of the run)",
    )
    _add_place(accept)


def _history(commands: Any) -> None:
    history = command(
        commands,
        "history",
        "show one case run by run, and when it changed",
        "Show the step time and the verdict of one case, run by run.",
    )
    add(history, "case CASE", "the name of the case, as in the tables")
    _add_format(history)
    _add_place(history)


def _add_place(parser: Parser) -> None:
    add_options(parser)
    add(parser, "--machine NAME", "the machine whose runs are meant (default: this one)")


def _merge(commands: Any) -> None:
    merge = command(
        commands,
        "merge",
        "merge the parts of a plan, or the results of several machines, into one folder",
        "Merge the runs in DIR into --results. The parts of a plan become one run; other runs are "
        "copied unchanged. Duplicate rows are refused, and missing parts are listed.",
    )
    add(merge, "places DIR", "results folder, or run file", nargs="+")
    add_options(merge)


def _fleet(commands: Any) -> None:
    fleet = command(commands, "fleet", "show the nodes of a cluster")
    doctor = command(
        actions(fleet),
        "doctor",
        "show the hardware and software of each node, and the problems that prevent a measurement",
    )
    _add_cluster(doctor, required=True)
    _add_format(doctor)
    add_options(doctor)


def _ab(commands: Any) -> None:
    ab = command(
        commands,
        "ab",
        "compare two environments, commits or settings",
        "Run A and B in turns until it is certain whether B is slower and the interval of the "
        "change is narrow. A side is . (this interpreter), git:REF (the models of a commit), the "
        'path of an interpreter, or requirements such as "tensorflow==2.20.*".',
    )
    add(ab, "a A", "the first side (default: .)", nargs="?", default=".")
    add(ab, "b B", "the second side (default: .)", nargs="?", default=".")
    for side in ("a", "b"):
        add(
            ab,
            f"--set-{side} NAME=VALUE...",
            f"a setting of {side.upper()}: {', '.join(SIDE_SETTINGS)}, or an environment variable "
            "in capitals",
        )
    _add_format(ab)
    _add_stopping_rule(ab)
    add_options(ab)


def _add_stopping_rule(parser: Parser, when: str = "") -> None:
    half_width = f"{when}half-width of the interval to reach (default: {TARGET})"
    most = f"{when}maximum seconds per case (default: {BUDGET})"
    add(parser, "--target PERCENT", half_width, default=None if when else TARGET)
    add(parser, "--budget SECONDS", most, default=None if when else BUDGET)


def _bisect(commands: Any) -> None:
    bisect = command(
        commands,
        "bisect",
        "find the release, or the commit of the models, that changed a step time",
        "Find the release between two versions of a package, or the commit of the models between "
        "git:REF and git:REF, that changed the step time of one case.",
    )
    add(bisect, "--good VERSION", "a version before the change", required=True)
    add(bisect, "--bad VERSION", "a version after the change", required=True)
    add(bisect, "--threshold PERCENT", "size of the change to find (default: 5)", default="5")
    add(bisect, "--package NAME", "the package (default: tensorflow)", default="tensorflow")
    fixed = "a requirement for every environment, such as keras==3.5.0"
    add(bisect, "--with REQUIREMENT...", fixed, dest="beside")
    add(bisect, "--versions LIST", "the releases to search (default: all final releases)")
    add(bisect, "--budget SECONDS", "maximum seconds per comparison (default: 60)", default="60")
    _add_format(bisect)
    add_options(bisect)


def _layers(commands: Any) -> None:
    layers = command(
        commands,
        "layers",
        "measure where the time of a step goes, layer by layer",
        "Measure the time of each layer, in training with its backward pass, in fresh processes. "
        "Print the slowest layers and the rest, which sum to the step time, and save all in "
        "layers.csv.",
    )
    add(layers, "model MODEL", "models, named as in --models of convmark run", nargs="+")
    add(layers, "--depth N", "levels of blocks that are opened (default: all)")
    add(layers, "--suggest", "also measure which settings make the step faster, such as --jit on")
    add(layers, "--top N", "layers of the printed table (default: 20)")
    _add_format(layers)
    add_options(layers)


def _noise(commands: Any) -> None:
    noise = command(
        commands,
        "noise",
        "measure the noise of this machine, and which changes it can detect in which time",
        "Compare today's code with a copy of itself, on a CPU also with one thread. Print the "
        "noise of the sessions, the smallest detectable slowdown and the time needed, and save "
        "them in noise.csv.",
    )
    add(noise, "--seconds N", "total seconds of sessions (default: 300)", default="300")
    _add_format(noise)
    add_options(noise)


def _export(commands: Any) -> None:
    export = command(
        commands,
        "export",
        "write results in the format of another tool",
        "Write the figures of all runs in RESULTS for another tool: bmf (Bencher, newest run), "
        "otava (Apache Otava, a folder), conbench, openmetrics (newest figures) or mlflow (a "
        "folder).",
    )
    add(export, "places RESULTS", "folders or run files (default: --results)", nargs="*")
    add(export, "--to TOOL", "bmf, otava, conbench, openmetrics or mlflow", required=True)
    add(export, "-o --output PATH", "file or new folder to write (default: -, standard output)")
    add_options(export)


def _check_submission(commands: Any) -> None:
    check = command(
        commands,
        "check-submission",
        "check the results that a pull request brings to a repository of results",
        "Check results folders before they are published: damaged files, links, copies of rows, "
        "impossible figures, and states that were not clean. Print one line per finding. The "
        "exit status is 1 if there is one.",
    )
    add(check, "folders FOLDER", "results or machine folders", nargs="+")
    add(
        check,
        "--against RESULTS",
        "published results; files that are unchanged in them are not checked, and other rows are "
        "compared with them",
        nargs="+",
        default=[],
    )
    _add_format(check)


def _publish(commands: Any) -> None:
    publish = command(
        commands,
        "publish",
        "make a static site of results of many people",
        "Make a site of all runs in the folders: models by machines and versions, and each row "
        "with its code, software, state and file. It is searched and filtered in the browser, and "
        "needs no server.",
    )
    add(publish, "folders FOLDER", "results folders, one for each contributor", nargs="+")
    add(publish, "-o --output SITE", "new folder to write", required=True)


def _env(commands: Any) -> None:
    words = "list, make or remove environments for measurements"
    env = actions(command(commands, "env", words))
    _add_format(command(env, "list", "list the environments"))
    make = command(env, "make", "make an environment and print the path of its interpreter")
    add(make, "requirements REQUIREMENTS", 'requirements, such as "tensorflow==2.20.*"')
    add(make, "--refresh", "make the environment again if it exists")
    remove = command(env, "remove", "remove environments")
    add(remove, "names NAME", "names or requirements", nargs="*")
    add(remove, "--all", "remove all environments", dest="everything")
