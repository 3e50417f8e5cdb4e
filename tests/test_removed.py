"""The cases of a commit's suites that today's have not, wherever pytest was started."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from workers import git

from convmark.plugin.selection import removed_cases

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

SUITE = """
import pytest
from convmark.core.suites import Suite
from lists_of_models import MODELS


@pytest.mark.convmark(Suite(models=MODELS, tasks=("train",), batch_sizes=(32,)))
def test_speed(measured, benchmark):
    measured.replay(benchmark)


@pytest.mark.parametrize("other", ["no-case"])
def test_other(other):
    pass
"""
LENET = "lenet5-train-cpu-b32-float32"
BY_PATH = SimpleNamespace(pyargs=False)


def test_suites_are_collected_with_the_modules_of_their_commit_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, elsewhere = tmp_path / "nets", tmp_path / "elsewhere"
    for folder in (repository / "src", repository / "my bench", elsewhere):
        folder.mkdir(parents=True)
    (repository / "my bench" / "test_speed.py").write_text(SUITE)
    (repository / "src" / "lists_of_models.py").write_text('MODELS = ("lenet5", "conv_layer")')
    git(repository, "init", "-q", "-b", "main")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "one")
    (repository / "src" / "lists_of_models.py").write_text('MODELS = ("lenet5",)')
    monkeypatch.syspath_prepend(str(repository / "src"))
    commits = {repository: git(repository, "rev-parse", "HEAD")}
    said: list[str] = []
    for folder, path in ((elsewhere, str(repository / "my bench")), (repository, "my bench")):
        invocation = SimpleNamespace(dir=folder, args=(path, "-q"))
        config: Any = SimpleNamespace(invocation_params=invocation, args=[path], option=BY_PATH)
        found = removed_cases(config, commits, {LENET}, {LENET}, said.append)
        assert (found, said) == (["conv_layer-train-cpu-b32-float32"], [])
    (repository / "my bench").rename(repository / "speed")
    config = SimpleNamespace(invocation_params=SimpleNamespace(dir=repository, args=("speed",)),
                             args=["speed"], option=BY_PATH)  # fmt: skip
    assert removed_cases(config, commits, {LENET}, {LENET}, said.append) == []
    told = f"missing cases of {commits[repository][:12]} are not known: it has no speed"
    assert said == [told]
    (repository / "speed").rename(repository / "my bench")
    git(repository, "checkout", "-q", ".")
    assert removed_cases(config, commits, set(), set(), said.append) == []
