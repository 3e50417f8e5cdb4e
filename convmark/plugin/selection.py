"""Which part of a project's suites a session was asked for, and which cases it leaves out; and what
the suites of a commit have and today's have not: removed, renamed or never made.

A gate against a commit has no earlier run that would tell them. pytest collects the commit's tests
in a folder of its files, by the options of this session, and runs none.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from _pytest.outcomes import OutcomeException
from _pytest.skipping import evaluate_skip_marks

from convmark.core.case import Case
from convmark.core.errors import ConvmarkError
from convmark.core.files import read_regular
from convmark.core.options import Options
from convmark.core.tasks import TASKS
from convmark.core.text import Say, plain_text
from convmark.plugin.short import destination

if TYPE_CHECKING:
    from convmark.compare.judgement import Judgement

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


LIMIT_S = 120.0
_SHOWN = 12
"""Characters of a commit that are shown."""
_NOTHING_COLLECTED = 5
_JUDGED = "|".join(name for name, one in TASKS.items() if one.judged)
_NAME = re.compile(
    rf"(?P<model>.+)-(?P<task>{_JUDGED})-(?P<device>cpu|gpu:\d+)-b(?P<size>\d+)-(?P<precision>\w+)"
    r"(?P<rest>(-.+)?)"
)
"""The name of a case that has a verdict."""
_TEST = re.compile(r".+?::[^\[]+\[(.+)\]")
"""A collected test; its case is in brackets."""


def removed_cases(
    config: pytest.Config,
    commits: Mapping[Path, str],
    collected: Collection[str],
    measured: Collection[str],
    say: Say,
) -> list[str]:
    """Return the names of the cases that a commit's suites have, and that are not measured here.

    What this session's options choose is chosen there too.

    Args:
        commits: those that the session is compared with, by their repository; the one counts that
            holds the session's tests.
        collected: the names of all cases that this session has collected.
        measured: of them those that it measures: the others were left out or skipped.
        say: is told where they cannot be known.
    """
    from convmark.compare.live.worktree import at_commit
    from convmark.core.git import Git

    first = next(iter(given_places(config)), config.invocation_params.dir).resolve()
    held = [one for one in commits if first.is_relative_to(one.resolve())]
    if not held:
        say("missing cases are not looked for: the tests are not in the repository of the models")
        return []
    repository = max(held, key=lambda one: len(one.parts))
    sha = commits[repository]
    same = Git.at(repository).answer("diff", "--quiet", sha, "--") is not None
    if same and set(collected) <= set(measured):
        return []  # not a line differs
    try:
        with at_commit(repository, sha) as tree:
            names = _collected(config, repository.resolve(), tree)
    except (ConvmarkError, OSError, subprocess.SubprocessError) as error:
        say(f"missing cases of {sha[:_SHOWN]} are not known: {plain_text(str(error))}")
        return []
    return sorted(name for name in names if name not in measured and _NAME.fullmatch(name))


def _collected(config: pytest.Config, repository: Path, tree: Path) -> set[str]:
    """Return what stands in brackets after each test that is collected in a tree."""
    started = config.invocation_params.dir.resolve()

    def moved(path: str) -> str:
        """Return where a path of the repository is in the tree."""
        there = Path(started, path).resolve()
        return str(
            tree / there.relative_to(repository) if there.is_relative_to(repository) else there
        )

    folder, args = Path(moved(".")), list(map(str, config.args))
    places = [moved(str(one)) for one in given_places(config)]
    if not folder.is_dir() or not any(Path(one).exists() for one in places):
        raise ConvmarkError(f"it has no {' '.join(args)}")
    paths = {
        arg: place + arg.removeprefix(place_in(arg))
        for arg, place in zip(args, places, strict=True)
    }
    given = [paths.get(str(one), str(one)) for one in config.invocation_params.args]
    roots = dict.fromkeys([*sys.path, *_folders_of_packages()])
    imported = [
        moved(one) for one in roots if Path(started, one).resolve().is_relative_to(repository)
    ]
    there = [*imported, *filter(None, [os.environ.get("PYTHONPATH")])]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(there)}
    environ.pop("PYTEST_CURRENT_TEST", None)
    more = ("--collect-only", "--verbosity=-1", "--color=no")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *given, *more],
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=LIMIT_S,
        check=False,
    )
    if done.returncode not in (0, _NOTHING_COLLECTED):
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise ConvmarkError(f"pytest cannot collect its tests: {lines[-1] if lines else 'no word'}")
    found = map(_TEST.fullmatch, done.stdout.splitlines())
    return {one[1] for one in found if one}


def _folders_of_packages() -> Iterator[str]:
    """Yield the folders that hold what is imported: a finder may have put them on no path."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) if "." not in name else None
        if isinstance(file, str):
            place = Path(file)
            yield str(place.parent.parent if place.stem == "__init__" else place.parent)


def removed_judgement(name: str, run: str, note: str, against: str) -> Judgement:
    """Return what is said of such a case.

    Args:
        note: which commit has it, and why this run has not.
        against: the commit, as it is shown.
    """
    from convmark.compare.judgement import Judgement

    found = _NAME.fullmatch(name)
    assert found is not None
    rest = found["rest"].split("-")
    return Judgement(
        run=run,
        case=name,
        model=found["model"],
        task=found["task"],
        device=found["device"],
        batch_size=int(found["size"]),
        precision=found["precision"],
        jit="on" if "jit" in rest else "off",
        threads=next((one[1:] for one in rest if re.fullmatch(r"t\d+", one)), "default"),
        metric="accuracy" if found["task"] == "accuracy" else "step_time",
        unit="" if found["task"] == "accuracy" else "s",
        verdict="missing",
        note=note,
        against=against,
    )
