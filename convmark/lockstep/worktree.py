"""Another commit's files beside the user's own: a git worktree, made for a while and removed.

The user's files, index, branch and stashes are never touched. A worktree that an interrupted
process left behind carries its process number, and the next one removes it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from convmark.errors import ConvmarkError
from convmark.git import Git

__all__ = ["at_commit", "repository_of", "resolve"]

PREFIX = "convmark-tree-"
LIMIT_S = 120.0


def repository_of(path: Path) -> Path | None:
    """Return the top folder of the repository that holds a file or folder; None without one."""
    folder = path if path.is_dir() else path.parent
    top = Git.at(folder).answer("rev-parse", "--show-toplevel")
    return Path(top.rstrip("\n")) if top else None


def resolve(repository: Path, ref: str) -> str:
    """Return the full commit that a branch, tag or short commit names.

    Raises:
        ConvmarkError: the repository has no such commit.
    """
    if not ref.startswith("-"):
        sha = Git.at(repository).answer("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
        if sha:
            return sha.strip()
    raise ConvmarkError(
        f"{repository}: git knows no commit {ref!r}; name a branch, a tag or a commit (a shallow "
        "clone holds only the newest: git fetch --unshallow)"
    )


@contextlib.contextmanager
def at_commit(repository: Path, ref: str) -> Iterator[Path]:
    """Give a folder that holds the repository's files as of a commit, gone after the block.

    Raises:
        ConvmarkError: there is no such commit, or git cannot make the worktree.
    """
    sha = resolve(repository, ref)
    git = Git.at(repository, time_limit_s=LIMIT_S)
    _remove_abandoned(git)
    parent = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    tree = parent / repository.name
    try:
        if git.answer("worktree", "add", "--detach", "--force", str(tree), sha) is None:
            raise ConvmarkError(
                f"{repository}: git cannot make a worktree of {sha[:12]}; try by hand: "
                f"git worktree add --detach FOLDER {sha[:12]}"
            )
        yield tree
    finally:
        _remove(git, tree, parent)


def _remove(git: Git, tree: Path, parent: Path) -> None:
    git.answer("worktree", "remove", "--force", str(tree))
    shutil.rmtree(parent, ignore_errors=True)
    git.answer("worktree", "prune")


def _remove_abandoned(git: Git) -> None:
    """Remove the worktrees of processes that are no more."""
    listed = git.answer("worktree", "list", "--porcelain") or ""
    for line in listed.splitlines():
        tree = Path(line.removeprefix("worktree "))
        if not line.startswith("worktree ") or not tree.parent.name.startswith(PREFIX):
            continue
        owner = tree.parent.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            _remove(git, tree, tree.parent)
