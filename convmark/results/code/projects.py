"""The projects that a repository holds, by the names under which they would be installed.

Where a process imports an installed copy of one, the repository's files do not tell what ran: the
copy is of the day that it was installed, and only its version is known.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from convmark.core.git import Git
from convmark.core.installed import PACKAGES, is_environment

__all__ = ["changed_projects", "folders_below", "other_copy"]

_PROJECT_NAME = re.compile(r"""^\s*name\s*=\s*["']?([A-Za-z0-9][\w.-]*)["']?\s*,?\s*$""", re.M)
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
    return {name: projects[_normal(name)] for name in packages if _normal(name) in projects}


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
    for file in (vendored[name] for name in map(_normal, packages) if name in vendored):
        folder = file.parent.as_posix()
        if (
            Git.at(repository).without_filters().answer("diff", "--quiet", sha, "--", folder)
            is None
        ):
            found.append(file)
    return found


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
                    found.setdefault(_normal(project), (folder / name).relative_to(root))
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


def _normal(name: str) -> str:
    """Return a distribution's name as names are compared.

    Source: the Python Packaging Authority's specification of names.
    """
    return re.sub(r"[-_.]+", "-", name).lower()
