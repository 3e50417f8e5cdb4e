"""What a shell may complete: commands, options and the values of both, by argcomplete.

Values come from what is on the disk: results folders and the packages of this environment. Nothing
is imported that takes seconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from convmark.core.backends import BACKENDS
from convmark.core.case import ISOLATIONS, PRECISIONS
from convmark.core.errors import ConvmarkError
from convmark.core.option import RANKS, STYLES
from convmark.core.options import REFUSED, read
from convmark.core.runtimes import RUNTIME_PRECISIONS, RUNTIMES
from convmark.core.tasks import TASKS

Given = argparse.Namespace
Values = Callable[[Given], Iterable[str]]


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell's request for completions by argcomplete, where that is installed."""
    try:
        import argcomplete
    except ImportError:
        return
    for command, action in _actions(parser):
        name = _name(action)
        values = _VALUES.get(f"{command} {name}", _VALUES.get(name))
        if values is not None:
            refused = REFUSED.get(command, {}).get(action.dest, ())
            action.completer = _completer(values, refused)  # type: ignore[attr-defined] # argcomplete's
    argcomplete.autocomplete(parser)


def _actions(parser: argparse.ArgumentParser) -> Iterable[tuple[str, argparse.Action]]:
    """Yield the arguments of all commands, each with its command."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _actions(inner)
        else:
            yield parser.prog.partition(" ")[2], action


def _name(action: argparse.Action) -> str:
    """Return an option's flag; what an argument that is given by its place is called."""
    return action.option_strings[-1] if action.option_strings else str(action.metavar)


def _completer(values: Values, refused: Collection[str]) -> Callable[..., list[str]]:
    def completed(prefix: str, parsed_args: Given, **_: object) -> list[str]:
        """Return the values that may follow; of a list with commas, those of its last word."""
        before, comma, last = prefix.rpartition(",")
        try:
            known = set(values(parsed_args)).difference(refused)
            found = sorted(one for one in known if one.startswith(last))
        except (ConvmarkError, OSError):
            return []
        return [f"{before}{comma}{one}" for one in found]

    return completed


def _models(given: Given) -> Iterable[str]:
    """Return the zoo's models and those of earlier runs."""
    from convmark_zoo.registry import LECTURE

    from convmark.interpreter.inspection import zoo_names

    return {*LECTURE, *zoo_names(), *(case.model for case in _cases(given))}


def _devices(given: Given) -> Iterable[str]:
    gpus = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    return ["all", "cpu", *(f"gpu:{place}" for place in range(gpus))]


def _results(given: Given) -> Path:
    from convmark.core.pyproject import pyproject_settings

    texts = {"results": getattr(given, "results", None)}
    return read(texts, pyproject_settings(Path.cwd())).results


def _machines(given: Given) -> Iterable[str]:
    from convmark.results.store import Store

    return Store(_results(given)).machines()


def _run_files(given: Given) -> list[Path]:
    """Return the runs of the machine that is named, or of all."""
    from convmark.results.store import Store

    store, named = Store(_results(given)), getattr(given, "machine", None)
    return [path for name in store.machines() if named in (None, name) for path in store.runs(name)]


def _runs(given: Given) -> Iterable[str]:
    return {"latest", *(path.stem for path in _run_files(given))}


def _cases(given: Given) -> Iterable[Any]:
    """Return the cases of the newest run of each machine."""
    from convmark.results.reading import read_run

    newest = {path.parent: path for path in _run_files(given)}
    return {record.case for path in newest.values() for record in read_run(path)}


def _fixed(*values: str) -> Values:
    return lambda given: values


_FORMATS = ("csv", "json", "markdown", "parquet", "text")

_VALUES: Mapping[str, Values] = {
    "--models": _models,
    "--tasks": _fixed(*TASKS),
    "--devices": _devices,
    "--backend": _fixed(*BACKENDS),
    "--runtime": _fixed(*RUNTIMES),
    "--precisions": _fixed(*PRECISIONS, *RUNTIME_PRECISIONS),
    "--ceilings": _fixed("auto", "off", "on"),
    "--jit": _fixed("both", "off", "on"),
    "--isolation": _fixed(*ISOLATIONS),
    "--machine": _machines,
    "--reference": _machines,
    "RUN": _runs,
    "--resume": _runs,
    "CASE": lambda given: {case.name for case in _cases(given)},
    "--case": lambda given: {case.name for case in _cases(given)},
    "--format": _fixed(*_FORMATS),
    "compare --format": _fixed(*_FORMATS, "github"),
    "report --format": _fixed(*_FORMATS, "html"),
    "--to": _fixed("bmf", "conbench", "mlflow", "openmetrics", "otava"),
    "--style": _fixed(*STYLES),
    "--rank": _fixed(*RANKS),
    "--outcome": _fixed("failure", "success"),
    "--per": _fixed("gpu-kind", "machine-kind", "node"),
    "--across": _fixed(
        *("backend", "commit", "driver", "gpu", "keras", "machine", "python", "tensorflow")
    ),
}
"""By option, or by what an argument is called; where commands differ by the command first."""
