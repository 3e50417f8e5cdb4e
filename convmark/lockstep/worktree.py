"""Another commit's files in a folder of their own, made for a while and removed.

It is a plain folder, which git does not list: the user's files, index, branch, stashes and list of
worktrees are never touched. Git itself writes the files, from an index that lies beside them, and
starts no program for it: no hook, no filter, no fetch. A folder that an interrupted process left
behind carries its process number, and the next one removes it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from convmark.errors import ConvmarkError
from convmark.git import Git, GitError

__all__ = ["PREFIX", "at_commit", "repository_of", "resolve", "standing_in", "working_trees"]

PREFIX = "convmark-tree-"
LIMIT_S = 120.0

MOST_POINTER_BYTES = 1024
"""Source: the specification of Git LFS, which bounds a pointer file by this."""
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:.*\n)*?oid sha256:([0-9a-f]{64})\n"
)


def repository_of(path: Path) -> Path | None:
    """Return the top folder of the repository that holds a file or folder; None without one."""
    folder = path if path.is_dir() else path.parent
    top = Git.at(folder).answer("rev-parse", "--show-toplevel")
    return Path(top.rstrip("\n")) if top else None


def working_trees(repository: Path) -> tuple[Path, ...]:
    """Return the real folders of all working trees of a repository, this one first."""
    listed = Git.at(repository).answer("worktree", "list", "--porcelain") or ""
    found = [repository.resolve()]
    for entry in listed.split("\n\n"):
        first, *more = entry.split("\n")
        if first.startswith("worktree ") and "bare" not in more:
            found.append(Path(first.removeprefix("worktree ")).resolve())
    return tuple(dict.fromkeys(found))


def standing_in(repository: Path, folder: Path) -> Path:
    """Return the repository's working tree that holds a folder; `repository` where none does."""
    top = repository_of(folder)
    if top is not None and top.resolve() in working_trees(repository):
        return top.resolve()
    return repository


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

    Files are as a checkout writes them, but no filter is run; of Git LFS the contents that this
    clone has are put in. Submodules are empty folders.

    Raises:
        ConvmarkError: there is no such commit, or git cannot write its files.
    """
    sha = resolve(repository, ref)
    _remove_abandoned(repository)
    try:
        parent = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-")).resolve()
    except OSError as error:
        raise ConvmarkError(f"{sha[:12]}: no folder can be made for it: {error}") from None
    try:
        tree = parent / repository.name
        tree.mkdir()
        try:
            _write(repository, sha, tree, parent / "index")
        except (GitError, OSError) as error:
            raise ConvmarkError(
                f"{repository}: the files of {sha[:12]} cannot be written: {error}; try by hand: "
                f"git worktree add --detach FOLDER {sha[:12]}"
            ) from None
        yield tree
    finally:
        shutil.rmtree(parent, ignore_errors=True)


def _write(repository: Path, sha: str, tree: Path, index: Path) -> None:
    """Write the commit's files.

    Raises:
        GitError: git cannot.
    """
    git = Git.at(repository, time_limit_s=LIMIT_S).without_filters()
    sparse_off = ("core.sparseCheckout=false", "index.sparse=false")
    git = dataclasses.replace(
        git,
        environ={**git.environ, "GIT_INDEX_FILE": str(index)},
        settings=(*git.settings, *sparse_off),
    )
    folder = git.output("rev-parse", "--absolute-git-dir").rstrip("\n")
    common = Path(git.output("rev-parse", "--git-common-dir").rstrip("\n"))
    here = (f"--git-dir={folder}", f"--work-tree={tree}")
    git.output(*here, "read-tree", sha)
    inside = dataclasses.replace(git, folder=tree)
    inside.output(*here, "checkout-index", "--all", "--quiet")
    _fill_pointers(inside, here, tree, repository / common / "lfs" / "objects")


def _fill_pointers(git: Git, here: Sequence[str], tree: Path, store: Path) -> None:
    """Replace pointer files of Git LFS by the contents that the clone has stored.

    It is what the filter of Git LFS would do; where the contents are not there the pointer stays.
    """
    pointers = {}
    for folder, _, names in os.walk(tree):
        for name in names:
            path = Path(folder, name)
            oid = pointer(path)
            if oid is not None:
                pointers[os.fsencode(path.relative_to(tree))] = oid
    if not pointers:
        return
    given = b"".join(path + b"\0" for path in pointers)
    told = git.output(*here, "check-attr", "-z", "--stdin", "filter", given=given)
    fields = os.fsencode(told).split(b"\0")
    for path, value in zip(fields[0::3], fields[2::3], strict=False):
        oid = pointers[path]
        content = store / oid[:2] / oid[2:4] / oid
        if value == b"lfs" and content.is_file():
            shutil.copyfile(content, tree / os.fsdecode(path))


def pointer(path: Path) -> str | None:
    """Return the SHA-256 that a pointer file of Git LFS names; None for any other file."""
    try:
        if path.is_symlink() or path.stat().st_size > MOST_POINTER_BYTES:
            return None
        found = _POINTER.match(path.read_bytes())
    except OSError:
        return None
    return found.group(1).decode() if found else None


def _remove_abandoned(repository: Path) -> None:
    """Remove the folders of processes that are no more.

    Versions before this one made them with `git worktree add`: those are taken off git's list.
    """
    git = Git.at(repository, time_limit_s=LIMIT_S)
    for tree in working_trees(repository):
        if _is_abandoned(tree.parent):
            git.answer("worktree", "remove", "--force", str(tree))
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if _is_abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    owner = folder.name.removeprefix(PREFIX).partition("-")[0]
    return (
        folder.name.startswith(PREFIX) and owner.isdecimal() and not psutil.pid_exists(int(owner))
    )
