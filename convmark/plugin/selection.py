"""Which part of a project's suites a session was asked for, and which cases it leaves out."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest
from _pytest.outcomes import OutcomeException
from _pytest.skipping import evaluate_skip_marks

from convmark.core.case import Case
from convmark.core.files import read_regular
from convmark.core.options import Options
from convmark.plugin.short import destination

_BY_EARLIER = ("lf", "stepwise", "stepwise_skip")
"""pytest's options that choose by what an earlier session has kept: at a commit they choose other
tests. `--ff` and `--nf` only order them."""
_CHOOSING = ("keyword", "markexpr", "deselect", "ignore", "ignore_glob", *_BY_EARLIER)
_NARROWING = ("models", "devices", "batch_sizes", "replicas")
_MARKER = re.compile(
    rb"^\s*(@|pytestmark\b.*|\w+\s*=\s*)?(pytest\.)?mark\.convmark\(", re.MULTILINE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which cases of the suites a session measures."""

    measured: Collection[str] = frozenset()
    """The names of the cases that are measured."""
    left_out: Collection[str] = frozenset()
    """Of those that were collected, and that an option, a conftest.py or a plugin has left out."""
    skipped: Collection[str] = frozenset()
    """The others of those that are not measured."""
    whole: bool = True
    """Whether no option, file or folder chooses a part of the suites."""
    repeatable: bool = True
    """Whether what chooses a part would choose it at another commit, too."""

    @classmethod
    def of(
        cls,
        config: pytest.Config,
        *,
        collected: Collection[str],
        present: Collection[str],
        measured: Collection[str],
    ) -> Selection:
        """Return that of a session.

        Args:
            collected: the names of all cases that it has collected.
            present: those that are left once all have chosen, skipped ones among them.
            measured: those that are measured.
        """
        return cls(
            measured=frozenset(measured),
            left_out=frozenset(collected) - frozenset(present),
            skipped=frozenset(present) - frozenset(measured),
            whole=_is_whole(config),
            repeatable=not any(config.getoption(name, None) for name in _BY_EARLIER),
        )


def _is_whole(config: pytest.Config) -> bool:
    """Whether nothing chooses among the suites' cases."""
    if any(config.getoption(name, None) for name in _CHOOSING):
        return False
    if any(config.getoption(destination(key)) for key in _NARROWING):
        return False
    places = given_places(config)
    if any("::" in str(one) for one in config.args) or any(one.suffix == ".py" for one in places):
        return False
    return not _other_suites(config, places)


def given_places(config: pytest.Config) -> list[Path]:
    """Return the files and folders that pytest was given, those of `--pyargs` among them."""
    found = map(place_in, map(str, config.args))
    in_python = config.option.pyargs
    return [Path(config.invocation_params.dir, _place(one) if in_python else one) for one in found]


def place_in(argument: str) -> str:
    """Return the file, folder or module of an argument, without the test that it names there."""
    return argument.partition("[")[0].partition("::")[0]


def _place(name: str) -> str:
    """Return the file of a module or the folder of a package; another text is itself.

    As pytest finds it; a namespace package may have several folders, of which the first counts.
    """
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, AttributeError, ValueError):  # it is a path
        return name
    if spec is None:
        return name
    return next(iter(spec.submodule_search_locations or ()), spec.origin or name)


def _other_suites(config: pytest.Config, folders: Sequence[Path]) -> bool:
    """Whether a project has suites beside those of the folders: they are a part then.

    They are looked for in the project's folder of the first level that each of them lies in, where
    files of tests have the marker at the begin of a line.

    Args:
        folders: that pytest was given.
    """
    root, inside = config.rootpath.resolve(), [one.resolve() for one in folders]
    below = [one for one in inside if one.is_relative_to(root) and one != root]
    tops = {root / one.relative_to(root).parts[0] for one in below}
    patterns, skipped = config.getini("python_files"), config.getini("norecursedirs")
    for place, names, files in (found for top in tops - set(inside) for found in os.walk(top)):
        names[:] = [
            name
            for name in names
            if Path(place, name) not in inside and not any(fnmatch(name, one) for one in skipped)
        ]
        tests = [name for name in files if any(fnmatch(name, one) for one in patterns)]
        if any(_has_suite(Path(place, name)) for name in tests):
            return True
    return False


def _has_suite(path: Path) -> bool:
    try:
        return bool(_MARKER.search(read_regular(path)))
    except OSError:
        return False


def is_skipped(item: pytest.Item) -> bool:
    """Whether the marks of a test have it skipped, so that its case need not be measured."""
    try:
        return evaluate_skip_marks(item) is not None
    except (OutcomeException, TypeError):  # a condition that is none fails the test itself
        return False


def names_other(config: pytest.Config, options: Options, case: Case) -> bool:
    """Whether an option of this command line names other values of a case's axes than its own."""
    axes: dict[str, tuple[Sequence[str | None], str | None]] = {
        "precisions": (options.precisions, case.precision),
        "jit": (options.jit, case.jit),
        "threads": (options.threads, case.threads),
        "cpus": ((options.bound_to,), case.cpus),
        "numa": ((options.bound_to,), case.cpus),
        "backend": (options.backends, case.backend),
        "runtime": (options.runtimes, case.runtime),
    }
    if case.task == "train":
        recipe = ((options.recipe,), case.recipe)
        axes |= dict.fromkeys(("optimizer", "learning_rate", "loss"), recipe)
    return any(
        config.getoption(destination(key)) is not None and own not in asked
        for key, (asked, own) in axes.items()
    )
