"""The codes of one run: read from workers' events, compared with the commit, saved."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from convmark.core.files import read_regular
from convmark.core.installed import PACKAGES, in_environment, is_environment
from convmark.results.code.manifest import (
    HERE,
    ZOO,
    Code,
    CodeFile,
    Roots,
    code_of,
    code_path,
    keep_files,
    read_codes,
    write_codes,
)
from convmark.results.commit import are_of_commit, folder_changes, is_changed, names_of_commit
from convmark.worker.protocol import ABSENT, file_digest, names_digest

_PROJECT_NAME = re.compile(
    r"""^\[(?:project|tool\.poetry|metadata)\][ \t]*(?:\#.*)?(?:\n(?!\[).*)*?
    \n\s*name\s*=\s*["']?([A-Za-z0-9][\w.-]*)["']?\s*(?:,\s*)?(?:\#.*)?$""",
    re.M | re.X,
)
"""Of the sections that name a project: a package index or an author has a name too."""
_NAME_ARGUMENT = re.compile(r"""\bname\s*=\s*["']([A-Za-z0-9][\w.-]*)["']""")
_NO_PROJECTS = re.compile(r"\..*|vendor.*|third.?party|extern.*|node_modules|tests?|docs?")
"""Folders whose projects are not the repository's own."""


def _own_projects(packages: Iterable[str], root: Path) -> dict[str, Path]:
    """Return which distributions are projects of a repository, each with the file that says so.

    Args:
        packages: names of installed distributions that a process imported.
        root: the repository's top folder.
    """
    projects = _projects(root)
    return {
        name: projects[canonicalize_name(name)]
        for name in packages
        if canonicalize_name(name) in projects
    }


def changed_projects(packages: Iterable[str], root: Path, repository: Path, sha: str) -> list[Path]:
    """Return the files of a repository's projects that were imported as installed copies.

    Its own count always; a vendored one where its files differ from a commit's: a vendored project
    may well be installed from an index.

    Args:
        packages: names of installed distributions that a process imported.
        root: holds the repository's files.
        repository: the repository's top folder.
    """
    found = list(_own_projects(packages, root).values())
    vendored = _projects(root, depth=3, vendored=True)
    files = (vendored[name] for name in map(canonicalize_name, packages) if name in vendored)
    return found + [file for file in files if is_changed(repository, sha, file.parent.as_posix())]


@functools.lru_cache(maxsize=1024)
def other_copy(folder: Path, root: Path) -> Path | None:
    """Return the repository that holds a folder, where it has a project of another repository.

    Args:
        root: the other repository's top folder, which does not hold the folder.
    """
    for top in (folder, *folder.parents):
        if (top / ".git").exists():
            return top if _own_projects(_projects(top), root) else None
    return None


@functools.lru_cache(maxsize=8)
def _projects(root: Path, *, depth: int = 2, vendored: bool = False) -> dict[str, Path]:
    """Return the distributions that a tree's files describe, by name, each with its file there."""
    found: dict[str, Path] = {}
    for folder in folders_below(root, depth, vendored=vendored):
        for name in ("pyproject.toml", "setup.cfg", "setup.py"):
            with contextlib.suppress(OSError):
                text = (folder / name).read_text(encoding="utf-8", errors="replace")
                pattern = _NAME_ARGUMENT if name == "setup.py" else _PROJECT_NAME
                for project in pattern.findall(text):
                    found.setdefault(canonicalize_name(project), (folder / name).relative_to(root))
    return found


def folders_below(root: Path, depth: int, *, vendored: bool = False) -> Iterator[Path]:
    """Yield a folder and those below, but for hidden and installed ones, or vendored ones too."""
    yield root
    if depth == 0:
        return
    with contextlib.suppress(OSError):
        for path in sorted(root.iterdir()):
            others = _NO_PROJECTS.fullmatch(path.name) or path.name in PACKAGES
            counts = not path.name.startswith(".") if vendored else not others
            own = path.is_dir() and not path.is_symlink() and counts
            if own and not is_environment(path):
                yield from folders_below(path, depth - 1, vendored=vendored)


_WORD = re.compile(r"[\w-]+")


@dataclass(frozen=True, slots=True)
class CodeReader:
    """Tells the code of a process from what its worker says."""

    roots: Roots
    commit: str | None
    """Of the folder that the run was started in."""
    results: Path | None = None
    """The folder of the results, whose files no worker counts in a folder's names."""
    _known: dict[str, Code] = field(default_factory=dict, compare=False)

    @classmethod
    def at(
        cls, folder: Path, zoo: Path, commit: str | None, results: Path | None = None
    ) -> CodeReader:
        """Return the reader of a run that was started in a folder."""
        return cls(Roots.of(folder, zoo), commit, results)

    def code(self, event: Mapping[str, Any]) -> Code:
        """Return the code of an event `code`; the same code is held against the commit once.

        Raises:
            KeyError, TypeError: the event is garbled.
        """
        code = code_of(event, self.roots)
        if code.hash not in self._known:
            self._known[code.hash] = replace(code, of_commit=self._is_of_commit(code))
        return self._known[code.hash]

    def _is_of_commit(self, code: Code) -> bool:
        here = self.roots.folders[HERE]
        paths = [code.path_of(one.place) for one in code.files]
        inside = {path for path in paths if _is_in(here, path)}
        elsewhere = any(
            one.place.root != ZOO and path not in inside
            for one, path in zip(code.files, paths, strict=True)
        )
        if self.commit is None or elsewhere:
            return False
        if changed_projects(code.packages, here, here, self.commit):
            return False
        listed = _lists_the_commits(code, here, self.commit, self.results)
        return listed and _is_at(self.commit, here, inside)


def _is_in(repository: Path, path: Path) -> bool:
    """Whether a file is of a repository, and not of an environment that lies in it."""
    return path.is_relative_to(repository) and not in_environment(path, repository)


def ran_at(code: Code, repository: Path, sha: str, results: Path | None = None) -> bool:
    """Whether a process would have run just this code at a commit of the repository.

    Of another copy of a project of the repository nothing is known.

    Args:
        results: the folder of the results, whose files no worker counts in a folder's names.
    """
    top = repository.resolve()
    others = [Path(root) for name, root in code.roots.items() if name not in (HERE, ZOO)]
    if any(other_copy(one, top) for one in others):
        return False
    if changed_projects(code.packages, top, top, sha):
        return False
    inside = {}
    for one in code.files:
        path = code.path_of(one.place)
        if _is_in(top, path):
            inside[path] = one
    if not inside:  # it ran in another clone, or elsewhere: nothing is known of this one
        return False
    if any(file_digest(path) != (one.size_bytes, one.sha256) for path, one in inside.items()):
        return False
    return _lists_the_commits(code, top, sha, results) and _is_at(sha, top, inside)


def _lists_the_commits(code: Code, top: Path, sha: str, results: Path | None) -> bool:
    """Whether each folder of a repository whose names were read has those of the commit."""
    folders = [(code.path_of(place), found) for place, found in code.looked if found != ABSENT]
    left_out = results.resolve() if results is not None else None

    def names(folder: Path) -> Iterator[str]:
        for name in names_of_commit(top, sha, folder):
            if left_out is None or not (folder / name).is_relative_to(left_out):
                yield name

    return all(
        names_digest(names(folder)) == found for folder, found in folders if _is_in(top, folder)
    )


def _is_at(sha: str, top: Path, paths: Collection[Path]) -> bool:
    """Whether a process that read these files of a repository would do the same at a commit.

    Each file is the commit's. A process looks for files that are not there, too: so none of the
    commit's is gone, none leads elsewhere, and no new file or folder has a name that the code has
    in a string.
    """
    changes = folder_changes(top, sha)
    if changes is None or changes.altered or not are_of_commit(top, sha, paths):
        return False
    parts = {part for path in changes.added for part in (*path.parent.parts, path.stem)}
    names = {found[0] for part in parts if (found := _WORD.search(part))} - {"__init__"}
    return not names or all(names.isdisjoint(_words_of_strings(path)) for path in paths)


def _words_of_strings(path: Path) -> set[str]:
    """Return the words between quotes of a Python file; none of any other file."""
    if path.suffix != ".py":
        return set()
    lines = read_regular(path).decode(errors="replace").splitlines()
    quoted = (part for line in lines for part in re.split("['\"]", line)[1:-1])
    return {word for part in quoted for word in _WORD.findall(part)}


def files_apart(one: Code, other: Code) -> str:
    """Name the files in which two codes differ, at most three."""
    names = sorted({str(file.place) for file in set(one.files) ^ set(other.files)})
    return ", ".join(names[:3]) or "a package"


_SIZES = ("parameters", "trainable parameters", "bytes of weights", "FLOPs per sample")
_RANDOM = (
    "another model than the case's earlier processes built from the same code: %s %s, now %s; seed "
    "random numbers in the model's code, and do not read the clock in it"
)


class KeptCodes:
    """The codes beside a run's file, and by which of them each case was measured."""

    def __init__(self, run: Path) -> None:
        """Describe them; nothing is read or written yet."""
        self._run = run
        self._codes: dict[str, Code] | None = None
        self._of_case: dict[str, str] = {}
        self._sizes_of_case: dict[str, tuple[object, ...]] = {}
        self.left_out: list[CodeFile] = []
        """Files that no commit has and that were too large to be kept."""
        self.missed: list[str] = []
        """Of each row of which it is not known what ran, the reason."""

    def keep(self, code: Code) -> None:
        """Keep a code's manifest, and where no commit has it its files."""
        if self._codes is None:
            self._codes = read_codes(self._run)
        if code.hash in self._codes and code_path(self._run).exists():
            return
        self._codes[code.hash] = code
        self._keep_files(code)
        write_codes(self._run, self._codes)

    def _keep_files(self, code: Code) -> None:
        if not code.of_commit:
            left_out = keep_files(self._run.parent, code)
            self.left_out += [one for one in left_out if one not in self.left_out]

    def put_back(self) -> None:
        """Write all of it again, where the folder was removed."""
        for code in (self._codes or {}).values():
            self._keep_files(code)
        if self._codes:
            write_codes(self._run, self._codes)

    def other_than_before(self, case: str, code: str | None, sizes: tuple[object, ...] = ()) -> str:
        """Say why a process's figures are not its case's; empty where its code is the case's.

        Args:
            case: the case's name in the plan.
            code: the hash of what the process ran; None where it is not known.
            sizes: of the model that it has built, as in `_SIZES`; they are the code's.
        """
        first = self._of_case.setdefault(case, code) if code else None
        if code is None:
            return ""
        if first == code:
            if not sizes or sizes[0] is None:  # it failed before it had a model
                return ""
            before = self._sizes_of_case.setdefault(case, sizes)
            for then, now, what in zip(before, sizes, _SIZES, strict=False):
                if None not in (then, now) and then != now:
                    return _RANDOM % (then, what, now)
            return ""
        one, other = ((self._codes or {}).get(name or "") for name in (first, code))
        changed = files_apart(one, other) if one and other else "it"
        return f"other code than in the case's earlier processes: {changed} changed during the run"
