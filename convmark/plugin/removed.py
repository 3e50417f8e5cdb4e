"""The cases that the suites of a commit have and today's have not: removed, renamed or never made.

A gate against a commit has no earlier run that would tell them. pytest collects the commit's tests
in a folder of its files, by the options of this session, and runs none.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from convmark.core.errors import ConvmarkError
from convmark.core.tasks import TASKS
from convmark.core.text import Say, plain_text
from convmark.plugin.selection import given_places, place_in

if TYPE_CHECKING:
    from convmark.compare.judgement import Judgement

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
