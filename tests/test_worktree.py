"""Worktrees of other commits, made and removed without a trace in the user's tree."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from convmark.errors import ConvmarkError
from convmark.lockstep import worktree

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.invalid")
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "net.py").write_text("old")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "old")
    git(folder, "tag", "v1")
    (folder / "net.py").write_text("new")
    git(folder, "commit", "-qam", "new")
    return folder


def test_the_tree_holds_the_commits_files_and_the_users_stay_as_they_are(repository: Path) -> None:
    (repository / "net.py").write_text("edited")
    (repository / "extra.txt").write_text("untracked")
    before = git(repository, "status", "--porcelain"), git(repository, "rev-parse", "HEAD")
    with worktree.at_commit(repository, "v1") as tree:
        assert (tree / "net.py").read_text() == "old"
        assert (repository / "net.py").read_text() == "edited"
    assert not tree.exists()
    assert git(repository, "worktree", "list").count("\n") == 0
    assert (
        git(repository, "status", "--porcelain"),
        git(repository, "rev-parse", "HEAD"),
    ) == before


def test_the_tree_is_removed_after_an_interruption(repository: Path) -> None:
    with pytest.raises(KeyboardInterrupt), worktree.at_commit(repository, "v1") as tree:
        raise KeyboardInterrupt
    assert not tree.parent.exists()
    assert git(repository, "worktree", "list").count("\n") == 0


def test_the_tree_of_a_killed_process_is_removed_by_the_next(
    repository: Path, tmp_path: Path
) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = tmp_path / "tmp" / f"convmark-tree-{dead.pid}-x" / "project"
    git(repository, "worktree", "add", "-q", "--detach", str(left), "v1")
    with worktree.at_commit(repository, "v1"):
        pass
    assert not left.parent.exists()
    assert git(repository, "worktree", "list").count("\n") == 0


def test_a_living_process_keeps_its_tree(repository: Path) -> None:
    with worktree.at_commit(repository, "v1") as first:
        with worktree.at_commit(repository, "main") as second:
            assert (second / "net.py").read_text() == "new"
        assert (first / "net.py").read_text() == "old"


@pytest.mark.parametrize("ref", ["v2", "--help", "0000000", ""])
def test_an_unknown_commit_is_refused_in_one_line(repository: Path, ref: str) -> None:
    with pytest.raises(ConvmarkError, match="git knows no commit") as error:
        worktree.resolve(repository, ref)
    assert "\n" not in str(error.value)


def test_the_repository_of_a_file_is_found_and_none_outside_of_one(
    repository: Path, tmp_path: Path
) -> None:
    assert worktree.repository_of(repository / "net.py") == repository.resolve()
    assert worktree.repository_of(tmp_path) is None
