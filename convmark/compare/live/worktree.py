"""A temporary folder with the files of another commit.

It is a plain folder, which git does not list: the user's files, index, branch, stashes and list of
worktrees are never touched. Git itself writes the files, from an index that lies beside them, and
starts no program for it: no hook, no filter, no fetch. What a killed process left behind is removed
by the next one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from convmark.core.errors import ConvmarkError
from convmark.core.files import TemporaryFolder
from convmark.core.git import Git, GitError
from convmark.core.installed import TREE_PREFIX
from convmark.core.option_values import did_you_mean

LIMIT_S = 120.0

MOST_NEIGHBOURS = 256
"""Of a repository in its folder: a folder of more is no project's."""
MOST_POINTER_BYTES = 1024
"""Source: the specification of Git LFS, which bounds a pointer file by this."""
LFS = "lfs"
"""The name of its filter."""
_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_NOBODY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "convmark"), ("EMAIL", "convmark"), ("DATE", "@0 +0000"))
}
"""Of a merge: the same for the same two commits."""
_CONFLICT, _USAGE = 1, 129
"""How `git merge-tree` ends."""
_SUFFIX = re.compile(r"[~^]|@\{")
"""Begins what git reckons from a name."""
_KINDS = {"heads": "a branch", "tags": "a tag", "remotes": "a remote's branch"}
"""What names a commit, by its folder below `refs`."""
_SHALLOW = "this clone is shallow and has only the newest commits: git fetch --unshallow"
_NO_FILTER = ("unspecified", "unset", "set")
"""What git says of a file without a filter's name."""
_CHECKOUT_FILTERS = r"^filter\..*\.(smudge|process)$"
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
        ConvmarkError: the repository has no such commit, or several by that name.
    """
    git = Git.at(repository)
    if not ref.startswith("-"):
        _refuse_two_of_one_name(git, ref)
        sha = git.answer("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
        if sha:
            return sha.strip()
    raise ConvmarkError(f"{repository}: git knows no commit {ref!r}; {_hint(git, ref)}")


def _refuse_two_of_one_name(git: Git, ref: str) -> None:
    """Refuse a name of two commits: of a branch, a tag or a remote's branch git would take one."""
    name = _SUFFIX.split(ref)[0]
    every = {f"refs/{kind}/{name}": kind for kind in _KINDS}
    there = (git.answer("for-each-ref", "--format=%(refname)", *every) or "").split("\n")
    kinds = [kind for one, kind in every.items() if name and one in there]
    commits = {
        git.answer("rev-parse", "--verify", f"refs/{kind}/{name}^{{commit}}") for kind in kinds
    }
    if len(commits) > 1:
        rest = ref.removeprefix(name)
        raise ConvmarkError(
            f"{git.folder}: {name!r} is {' and '.join(_KINDS[kind] for kind in kinds)} of other "
            f"commits; name one: {' or '.join(f'{kind}/{name}{rest}' for kind in kinds)}"
        )


def _hint(git: Git, ref: str) -> str:
    """Return what to do about a name of no commit; of `main~9` only `main` can be misspelt."""
    name = _SUFFIX.split(ref)[0]
    if name != ref and git.answer("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"):
        told = f"{name} is there, but it has no {ref.removeprefix(name)}"
    else:
        names = ["HEAD", *(git.answer("for-each-ref", "--format=%(refname:short)") or "").split()]
        told = did_you_mean(name, names) or "name a branch, a tag or a commit"
    is_shallow = (git.answer("rev-parse", "--is-shallow-repository") or "").strip() == "true"
    return f"{told}; {_SHALLOW}" if is_shallow else told


def superproject(repository: Path) -> Path | None:
    """Return the real top folder of what a repository is a submodule of; None where of nothing."""
    told = Git.at(repository).answer("rev-parse", "--show-superproject-working-tree") or ""
    return Path(told.rstrip("\n")).resolve() if told.strip() else None


def resolve_here(repository: Path, ref: str) -> str:
    """Return the commit of a repository that a ref names where the user stands.

    In a working tree it is that tree's; around a submodule the commit that the ref has of it, for
    the submodule's own branches may be anywhere. A commit in full that it has is itself.

    Raises:
        ConvmarkError: the ref is not known, or has no such submodule, or its commit is not here.
    """
    here = Path.cwd().resolve()
    if (
        _SHA.fullmatch(ref)
        and Git.at(repository).answer("cat-file", "-e", f"{ref}^{{commit}}") == ""
    ):
        return ref
    top = superproject(repository)
    if top is None or here.is_relative_to(repository.resolve()) or not here.is_relative_to(top):
        return resolve(standing_in(repository, here), ref)
    around, place = resolve_here(top, ref), repository.resolve().relative_to(top)
    entry = Git.at(top).answer("ls-tree", "-z", "--full-tree", around, "--", place.as_posix())
    about = (entry or "").partition("\t")[0].split()
    if about[:1] != ["160000"]:
        raise ConvmarkError(f"{top}: {ref} ({around[:12]}) has no submodule {place}")
    try:
        return resolve(repository, about[2])
    except ConvmarkError:
        raise ConvmarkError(
            f"{top}: {ref} has commit {about[2][:12]} of the submodule {place}, which is not in "
            f"this clone; git -C {place} fetch origin {about[2][:12]}"
        ) from None


@functools.cache
def merged(repository: Path, commit: str, other: str) -> str:
    """Return a commit of the files that a merge of two commits has; empty where they conflict.

    Git keeps it among the objects that no branch names, and removes it with these. A merge driver
    of the user's is no program that is started: what has one conflicts.

    Raises:
        GitError: git cannot merge them here, or keep the result.
    """
    git = Git.at(repository, time_limit_s=LIMIT_S)
    named = git.answer("config", "--name-only", "--get-regexp", r"^merge\..*\.driver$") or ""
    off = [f"{name}=false" for name in named.split("\n") if name]
    git = dataclasses.replace(
        git, environ={**git.environ, **_NOBODY}, settings=(*git.settings, *off)
    )
    try:
        tree = git.output("merge-tree", "--write-tree", commit, other).strip()
    except GitError as error:
        if error.status == _USAGE:
            raise GitError("needs git 2.38 or newer") from None
        if error.status != _CONFLICT:
            raise
        return ""
    words = ("-m", f"{commit} with {other}, as convmark compares it", "-p", commit, "-p", other)
    return git.output("commit-tree", tree, *words).strip()


@contextlib.contextmanager
def at_commit(repository: Path, ref: str) -> Iterator[Path]:
    """Yield a folder with the repository's files as of a commit; it is removed after the block.

    Files are as a checkout writes them, but no filter is run; of Git LFS the contents that this
    clone has are put in. Submodules are empty folders. What lies beside the repository lies beside
    it too, by links, through which the worker has Python change nothing.

    Raises:
        ConvmarkError: there is no such commit, or git cannot write its files.
    """
    sha = resolve(repository, ref)
    try:
        folder = TemporaryFolder(TREE_PREFIX)
    except OSError as error:
        raise ConvmarkError(f"{sha[:12]}: no folder can be made for it: {error}") from None
    with folder as parent:
        tree = parent / repository.name
        tree.mkdir()
        try:
            _write(repository, sha, tree, parent / "index")
        except (GitError, OSError) as error:
            raise ConvmarkError(
                f"{repository}: the files of {sha[:12]} cannot be written: {error}; try by hand: "
                f"git worktree add --detach FOLDER {sha[:12]}"
            ) from None
        _link_neighbours(parent, repository.resolve())
        yield tree


def _link_neighbours(parent: Path, repository: Path) -> None:
    """Have a relative path that leads out of the tree end where it does in the user's folder."""
    with contextlib.suppress(OSError):
        names = sorted(set(os.listdir(repository.parent)) - {repository.name})
        for name in names if len(names) <= MOST_NEIGHBOURS else ():
            if not os.path.lexists(parent / name):
                (parent / name).symlink_to(repository.parent / name)


def _write(repository: Path, sha: str, tree: Path, index: Path) -> None:
    """Write the commit's files."""
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
    _mend_links(tree, repository.resolve())
    _fill_pointers(inside, here, tree, repository / common / "lfs" / "objects")


def _mend_links(tree: Path, repository: Path) -> None:
    """Make links lead where they lead in the user's folder: into the tree, or out of it."""
    for folder, folders, names in os.walk(tree):
        for path in (Path(folder, name) for name in (*folders, *names)):
            if not path.is_symlink():
                continue
            target = os.readlink(path)
            own_folder = repository / path.parent.relative_to(tree)
            leads_to = Path(os.path.normpath(own_folder / target))
            inside = leads_to.is_relative_to(repository)
            if inside == os.path.isabs(target):  # by its whole path inside, or relative outside
                path.unlink()
                path.symlink_to(tree / leads_to.relative_to(repository) if inside else leads_to)


def _fill_pointers(git: Git, here: Sequence[str], tree: Path, store: Path) -> None:
    """Replace pointer files of Git LFS by the contents that the clone has stored.

    It is what the filter of Git LFS would do; where the contents are not there the pointer stays.
    """
    found = [path for path in files_below(tree) if pointer(path)]
    for path, driver in _filters(git, here, tree, found).items():
        oid = pointer(path) or ""
        stored = store / oid[:2] / oid[2:4] / oid
        if driver == LFS and stored.is_file():
            shutil.copyfile(stored, path)


def pointer(path: Path) -> str | None:
    """Return the SHA-256 that a pointer file of Git LFS names; None for any other file."""
    try:
        if path.is_symlink() or path.stat().st_size > MOST_POINTER_BYTES:
            return None
        found = _POINTER.match(path.read_bytes())
    except OSError:
        return None
    return found.group(1).decode() if found else None


def changed_by_filter(repository: Path, tree: Path, paths: Sequence[Path]) -> dict[Path, str]:
    """Return the files of a tree that the user's own would have other contents of, with the filter.

    No filter was run for the tree. One that leaves contents alone shows in the user's folder: a
    file of it there is what git stores.
    """
    git = Git.at(repository, time_limit_s=LIMIT_S)
    listed = git.answer("config", "--name-only", "-z", "--get-regexp", _CHECKOUT_FILTERS) or ""
    drivers = {name.removeprefix("filter.").rpartition(".")[0] for name in listed.split("\0")}
    if not drivers - {"", LFS}:
        return {}
    folder = (git.answer("rev-parse", "--absolute-git-dir") or "").rstrip("\n")
    here = (f"--git-dir={folder}", f"--work-tree={tree}")
    inside = dataclasses.replace(git, folder=tree)
    found = _filters(inside, here, tree, paths)
    changing = drivers & set(found.values()) - {LFS}
    if changing:
        for path, driver in _filters(inside, here, tree, list(files_below(tree))).items():
            if driver in changing and _same(path, repository / path.relative_to(tree)):
                changing.remove(driver)
    return {path: driver for path, driver in found.items() if driver in changing}


def _same(path: Path, other: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.read_bytes() == other.read_bytes()
    return False


def _filters(git: Git, here: Sequence[str], tree: Path, paths: Sequence[Path]) -> dict[Path, str]:
    """Return the filter that each path has by the tree's attributes; only those that have one."""
    if not paths:
        return {}
    given = b"".join(os.fsencode(path.relative_to(tree)) + b"\0" for path in paths)
    fields = git.output(*here, "check-attr", "-z", "--stdin", "filter", given=given).split("\0")
    found = zip(fields[0::3], fields[2::3], strict=False)
    return {tree / path: value for path, value in found if value not in _NO_FILTER}


def files_below(tree: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(tree):
        yield from (Path(folder, name) for name in names)


def ignored(repository: Path, paths: Iterable[Path]) -> set[Path]:
    """Return those of the paths, relative to the repository, that git ignores."""
    given = b"".join(os.fsencode(path) + b"\0" for path in paths)
    try:
        found = Git.at(repository).output("check-ignore", "-z", "--stdin", given=given)
    except GitError:  # its status too where it ignores none
        return set()
    return {Path(name) for name in found.split("\0") if name}


def submodules(repository: Path, sha: str) -> list[Path]:
    """Return where a commit has submodules, relative to the repository."""
    listed = Git.at(repository).answer("ls-tree", "-r", "-z", "--full-tree", sha) or ""
    entries = (entry.partition("\t") for entry in listed.split("\0"))
    return [Path(path) for about, _, path in entries if about.startswith("160000 ")]
