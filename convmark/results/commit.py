"""The commit of the measured code, from git; read only."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from convmark.core.errors import ConvmarkError
from convmark.core.files import read_regular
from convmark.core.git import Git

_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """The code that was measured."""

    sha: str | None
    """None where git does not name one."""
    dirty: bool | None
    """Whether the code differs from the commit; None where git does not tell."""

    def __post_init__(self) -> None:
        if self.sha is not None and not _SHA.fullmatch(self.sha):
            raise ConvmarkError(f"commit: must be 40 or 64 hex digits, got {self.sha!r}")


def read_commit(
    folder: Path,
    *,
    besides: Sequence[Path] = (),
    environ: Mapping[str, str] | None = None,
    time_limit_s: float = 10.0,
) -> Commit:
    """Return the commit of the repository that holds `folder`.

    Without git, a repository, a commit, or git's trust in the folder's owner, both fields are None.

    Args:
        folder: any folder of the repository; the whole repository counts.
        besides: files and folders whose changes do not make it dirty, such as the results.
        environ: the variables git runs with; this process's own by default.
        time_limit_s: the most seconds that each call of git may take.
    """
    call = Git.at(folder, environ=environ, time_limit_s=time_limit_s)
    sha = call.answer("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if sha is None:
        return Commit(sha=None, dirty=None)
    return Commit(sha=sha.strip(), dirty=_dirty(call, [path.resolve() for path in besides]))


def _dirty(call: Git, ignored: Sequence[Path]) -> bool | None:
    """Whether a folder's repository or a submodule of it is dirty; None where git does not tell."""
    top = call.answer("rev-parse", "--show-toplevel")
    raw = call.without_filters()  # a filter is a program, and contents are compared through it
    told = ("--porcelain", "-z", "--no-renames", "--untracked-files=all", _NOT_INTO_SUBMODULES)
    status = raw.answer("status", *told)
    if top is None or status is None:
        return None
    root = Path(top.rstrip("\n"))
    if _is_dirty(status, root, ignored):
        return True
    inside = [_dirty(one, ignored) for one in _submodules(dataclasses.replace(call, folder=root))]
    return None if None in inside else any(inside)


_NOT_INTO_SUBMODULES = "--ignore-submodules=dirty"
"""Git would compare their files through the filters that their own settings name."""


def _submodules(git: Git) -> list[Git]:
    """Return git in each submodule that is there.

    Args:
        git: of the repository's top folder.
    """
    listed = git.answer("ls-files", "-z", "--stage") or ""
    links = [entry.partition("\t")[2] for entry in listed.split("\0") if entry[:6] == "160000"]
    folders = [git.folder / path for path in links]
    there = [one for one in folders if (one / ".git").exists() and not one.is_symlink()]
    return [dataclasses.replace(git, folder=one) for one in there]


def is_changed(repository: Path, sha: str, folder: str) -> bool:
    """Whether a folder of a repository, submodules among it, is other than in a commit.

    Args:
        repository: its top folder.
        folder: relative to it.
    """
    git = Git.at(repository)
    differs = ("diff", "--quiet", _NOT_INTO_SUBMODULES, sha, "--", folder)
    if git.without_filters().answer(*differs) is None:
        return True
    place = repository / folder
    near = [
        one
        for one in _submodules(git)
        if one.folder.is_relative_to(place) or place.is_relative_to(one.folder)
    ]
    return any(_dirty(one, []) is not False for one in near)


def _is_dirty(status: str, top: Path, ignored: Sequence[Path]) -> bool:
    """Judge the text of `git status --porcelain -z --no-renames`."""
    for entry in filter(None, status.split("\0")):
        kind, path = entry[:2], top / entry[3:]
        counts = kind != "??" or path.suffix == ".py"
        if counts and not any(path.is_relative_to(folder) for folder in ignored):
            return True
    return False


_LFS = re.compile(rb"version https://git-lfs\S*\n(?:.*\n)*?oid sha256:([0-9a-f]{64})\n")
_POINTER_BYTES = 1024
"""A larger file in a commit is none that stands for another."""
_AT_ONCE = 500


def is_before(repository: Path, sha: str) -> bool:
    """Whether a commit is in the past of what is checked out, or is it itself."""
    return Git.at(repository).answer("merge-base", "--is-ancestor", sha, "HEAD") is not None


_LINKS = {"120000", "160000"}
"""Git's modes of a symbolic link and of a submodule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderChanges:
    """How a repository's folder differs from a commit, but for the contents of files."""

    altered: bool
    """A file of the commit is gone, a link or submodule leads elsewhere, or .gitattributes, which
    decide how git writes contents, are others."""
    added: tuple[PurePosixPath, ...]
    """Files that the commit does not have, but for those that git ignores; of an untracked folder
    the folder itself."""


def folder_changes(top: Path, sha: str) -> FolderChanges | None:
    """Compare a repository's folder with a commit; None where git does not answer.

    Args:
        top: the repository's top folder.
    """
    git = Git.at(top).without_filters()
    compared = git.answer("diff", "--raw", "-z", "--no-renames", _NOT_INTO_SUBMODULES, sha)
    untracked = git.answer("ls-files", "-z", "--others", "--exclude-standard", "--directory")
    if compared is None or untracked is None:
        return None
    added, altered = list(filter(None, untracked.split("\0"))), False
    told = compared.split("\0")
    for about, name in zip(told[::2], told[1::2], strict=False):
        *modes, _, _, kind = about.removeprefix(":").split()
        if not _LINKS.isdisjoint(modes) or kind in "DT" or name.endswith(".gitattributes"):
            altered = True
        elif kind == "A":
            added.append(name)
    return FolderChanges(altered=altered, added=tuple(map(PurePosixPath, added)))


def are_of_commit(top: Path, sha: str, paths: Iterable[Path]) -> bool:
    """Whether each file's content is that of the commit; git's word on what changed is not asked.

    Files that git was told to leave alone (assume-unchanged, ignored) count as they are. A file
    that git writes with other line ends, or keeps in LFS, is the commit's.

    Args:
        top: the repository's top folder.
        paths: files in it.
    """
    git = Git.at(top)
    names = sorted({path.relative_to(top).as_posix() for path in paths})
    blobs: dict[str, str] = {}
    for start in range(0, len(names), _AT_ONCE):
        some = names[start : start + _AT_ONCE]
        listed = git.answer("ls-tree", "-z", "--full-tree", sha, "--", *some)
        for entry in filter(None, (listed or "").split("\0")):
            about, _, name = entry.partition("\t")
            blobs[name] = about.split()[2]
    return all(name in blobs and _is_blob(git, top / name, blobs[name]) for name in names)


def names_of_commit(top: Path, sha: str, folder: Path) -> list[str]:
    """Return the names in a folder of a commit; none where it is not there.

    Args:
        top: the repository's top folder.
    """
    place = folder.relative_to(top).as_posix()
    below = [f"{place}/"] if place != "." else []
    listed = Git.at(top).answer("ls-tree", "-z", "--full-tree", "--name-only", sha, "--", *below)
    return [Path(name).name for name in (listed or "").split("\0") if name]


def _is_blob(git: Git, path: Path, blob: str) -> bool:
    """Whether a file is what git keeps under this id."""
    try:
        content = read_regular(path)
    except OSError:
        return False
    kind = "sha256" if len(blob) == 64 else "sha1"
    for one in (content, content.replace(b"\r\n", b"\n")):
        if hashlib.new(kind, b"blob %d\0" % len(one) + one).hexdigest() == blob:
            return True
    size = git.answer("cat-file", "-s", blob)
    if size is None or not size.strip().isdecimal() or int(size) > _POINTER_BYTES:
        return False
    pointer = _LFS.match(os.fsencode(git.answer("cat-file", "blob", blob) or ""))
    return pointer is not None and pointer[1].decode() == hashlib.sha256(content).hexdigest()
