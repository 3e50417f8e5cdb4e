"""The cases that the suites of a commit have and today's have not: removed, renamed or never made.

A gate against a commit has no earlier run that would tell them. pytest collects the commit's tests
in a folder of its files, by the options of this session, and runs none.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from convmark.core.errors import ConvmarkError
from convmark.core.files import read_regular
from convmark.core.tasks import TASKS
from convmark.core.text import Say, plain_text

if TYPE_CHECKING:
    from convmark.compare.judgement import Judgement

__all__ = ["other_suites", "removed_cases", "removed_judgement"]

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
_MARKER = re.compile(
    rb"^\s*(@|pytestmark\b.*|\w+\s*=\s*)?(pytest\.)?mark\.convmark\(", re.MULTILINE
)
_TEST = re.compile(r".+?::[^\[]+\[(.+)\]")
"""A collected test; its case is in brackets."""


def other_suites(config: pytest.Config, folders: Sequence[Path]) -> bool:
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


def removed_cases(
    config: pytest.Config, commits: Mapping[Path, str], here: Collection[str], say: Say
) -> list[str]:
    """Return the names of the cases that a commit's suites have, and this session has not.

    Args:
        commits: those that the session is compared with, by their repository; the one counts that
            holds the session's tests.
        here: the names of all cases that this session has collected.
        say: is told where they cannot be known.
    """
    from convmark.compare.live.worktree import at_commit
    from convmark.core.git import Git

    first = Path(config.invocation_params.dir, *config.args[:1]).resolve()
    held = [one for one in commits if first.is_relative_to(one.resolve())]
    if not held:
        return []
    repository = max(held, key=lambda one: len(one.parts))
    sha = commits[repository]
    if Git.at(repository).answer("diff", "--quiet", sha, "--") is not None:
        return []  # not a line differs
    try:
        with at_commit(repository, sha) as tree:
            names = _collected(config, repository.resolve(), tree)
    except (ConvmarkError, OSError, subprocess.SubprocessError) as error:
        say(f"cases of {sha[:_SHOWN]} that this run lacks are not known: {plain_text(str(error))}")
        return []
    return sorted(name for name in names if name not in here and _NAME.fullmatch(name))


def _collected(config: pytest.Config, repository: Path, tree: Path) -> set[str]:
    """Return what stands in brackets after each test that is collected in a tree."""
    started = config.invocation_params.dir.resolve()

    def moved(path: str) -> str:
        """Return where a path of the repository is in the tree."""
        there = Path(started, path).resolve()
        return str(
            tree / there.relative_to(repository) if there.is_relative_to(repository) else there
        )

    folder = Path(moved("."))
    paths = {str(one): moved(str(one)) for one in config.args}
    if not folder.is_dir() or not any(Path(one).exists() for one in paths.values()):
        raise ConvmarkError(f"it has no {' '.join(map(str, config.args))}")
    given = [paths.get(str(one), str(one)) for one in config.invocation_params.args]
    imported = [
        moved(one) for one in sys.path if Path(started, one).resolve().is_relative_to(repository)
    ]
    there = [*imported, *filter(None, [os.environ.get("PYTHONPATH")])]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(there)}
    environ.pop("PYTEST_CURRENT_TEST", None)
    more = ("--collect-only", "--verbosity=-1", "--color=no", "-p", "no:cacheprovider")
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


def removed_judgement(name: str, run: str, ref: str, against: str) -> Judgement:
    """Return what is said of such a case.

    Args:
        ref: what the commit is called, such as `git:main`.
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
        note=f"{ref} has it, this run has not",
        against=against,
    )
