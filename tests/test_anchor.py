"""Where a model's code lies, and the same code at another commit, run by the real worker."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from pathlib import Path

import pytest
from workers import git, short_sessions

from convmark.compare.live import anchor
from convmark.compare.live.case_result import LiveOptions
from convmark.compare.live.live import compare_live
from convmark.compare.live.session import LiveSide, Pairing, SessionPlan, lockstep_session
from convmark.core.case import Case
from convmark.core.errors import ConvmarkError
from convmark.interpreter import Interpreter, zoo_folder

NET = """
import keras


def small():
    return keras.Sequential([
        keras.Input((28, 28, 1)),
        keras.layers.Conv2D({maps}, 5, activation="tanh"),
        keras.layers.Flatten(),
        keras.layers.Dense(10),
    ])
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    package = tmp_path / "project" / "src" / "shop"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text(NET.format(maps=4))
    folder = tmp_path / "project"
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "four maps")
    (package / "nets.py").write_text(NET.format(maps=64))
    return folder


def test_a_users_model_comes_from_the_folder_that_its_package_lies_in(project: Path) -> None:
    case = Case(model="shop.nets:small", task="train")
    source = ["shop.nets", str(project / "src" / "shop" / "nets.py")]
    found = anchor.origin_of(case, {case.model: source})
    assert found == anchor.Origin(repository=project.resolve(), folder=Path("src"), is_zoo=False)


def test_a_model_outside_git_has_no_origin(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text("")
    case = Case(model="nets:small", task="train")
    assert anchor.origin_of(case, {case.model: ["nets", str(tmp_path / "nets.py")]}) is None
    assert anchor.origin_of(case, {}) is None


def test_a_model_of_the_zoo_comes_from_the_zoos_folder() -> None:
    found = anchor.origin_of(Case(model="lenet5", task="train"), {})
    if found is None:
        pytest.skip("this copy of convmark is no git checkout")
    assert found.is_zoo
    assert (found.repository / found.folder).resolve() == zoo_folder().resolve()


def test_the_zoo_of_an_environment_in_a_repository_is_in_no_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo = tmp_path / ".venv" / "lib" / "python3.13" / "site-packages" / "convmark_zoo"
    zoo.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setattr(anchor, "zoo_folder", lambda: zoo)
    tracked = anchor.origin_of(Case(model="lenet5", task="train"), {})
    assert tracked is not None  # a folder's name does not make an environment
    (tmp_path / ".venv" / "pyvenv.cfg").write_text("")
    assert anchor.origin_of(Case(model="lenet5", task="train"), {}) is None


def test_a_ref_without_any_repository_is_refused() -> None:
    with pytest.raises(ConvmarkError, match="git:main needs the models in a git repository"):
        anchor.resolve_anchor("main", [None])


def test_a_ref_means_a_commit_of_the_repository_that_has_the_suites_too(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = tmp_path / "bench"
    bench.mkdir()
    git(bench, "init", "-q", "-b", "main")
    git(bench, "commit", "-q", "--allow-empty", "-m", "suites")
    monkeypatch.chdir(bench)
    origin = anchor.Origin(repository=project, folder=Path("src"), is_zoo=False)
    of_models, of_suites = (git(one, "rev-parse", "main") for one in (project, bench))
    found = anchor.resolve_anchor("main", [origin])
    assert found == {project: of_models, bench.resolve(): of_suites}
    assert anchor.resolve_anchor(of_models, [origin]) == {project: of_models}
    git(project, "worktree", "add", "-q", "--detach", str(tmp_path / "second"))
    monkeypatch.chdir(tmp_path / "second")
    assert anchor.resolve_anchor("main", [origin]) == {project: of_models}


def test_a_folder_that_the_commit_did_not_have_is_said(project: Path) -> None:
    origin = anchor.Origin(repository=project, folder=Path("lib"), is_zoo=False)
    with (
        pytest.raises(ConvmarkError, match="has no folder lib"),
        anchor.anchor_trees(origin, anchor.AnchorCode(commit="main")),
    ):
        pass


def test_the_committed_code_runs_beside_the_edited_one_and_the_slowdown_is_seen(
    warm: None, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = anchor.Origin(repository=project, folder=Path("src"), is_zoo=False)
    case = Case(model="shop.nets:small", task="infer", batch_size=64)
    monkeypatch.chdir(project / "src")
    short_sessions(monkeypatch)
    begun: list[float] = []  # by the first question: on a busy machine the rest takes minutes

    def seconds_left() -> float:
        begun.append(time.monotonic())
        return begun[0] + 120.0 - begun[-1]

    terms = LiveOptions(
        seed=0,
        seconds_left=seconds_left,
        clock=time.monotonic,
        results=project / "results",
        session_s=0.3,
    )
    with (
        anchor.anchor_trees(origin, anchor.AnchorCode(commit="main")) as (old, new),
        contextlib.ExitStack() as stack,
    ):
        contenders = [
            LiveSide(
                case=case,
                interpreter=stack.enter_context(Interpreter(**tree.settings(os.environ))),
                code=tree,
            )
            for tree in (old, new, old)
        ]
        sides = dict(zip(("old", "new", "control"), contenders, strict=True))
        plan = SessionPlan(seed=0, seconds=0.3, warm_up_s=0.3, with_work=True)
        apart = lockstep_session(sides, plan)
        for name in sides:
            sides[name].code.check(apart.codes[name])
        pairing = Pairing(
            case=case,
            old=contenders[0],
            new=contenders[1],
            control=contenders[2],
            shared=contenders[1].interpreter,
        )
        (in_one,) = compare_live([pairing], terms, lambda line: None)
    assert apart.failure is None
    assert apart.wall is not None
    assert apart.control_wall is not None
    assert apart.wall.value > 0.1  # sixteen times the maps
    assert abs(apart.control_wall.value) < apart.wall.value
    assert apart.sizes["new"]["parameters"] > 10 * apart.sizes["old"]["parameters"]
    assert apart.sizes["new"]["flops_per_sample"] > 10 * apart.sizes["old"]["flops_per_sample"]
    assert (in_one.closed, in_one.same) == ("", "")
    # on a busy machine the two ways may not agree on how much slower: both must find it slower
    assert re.fullmatch(r"|\+[\d.]+ %, but \+[\d.]+ % in one process", in_one.apart)
    assert in_one.verdict("try a larger --budget")[0] == "regressed"
    assert in_one.sizes["old"]["parameters"] == apart.sizes["old"]["parameters"]
    assert git(project, "worktree", "list").count("\n") == 0
