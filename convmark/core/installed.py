"""Tells installed packages from code of the user's own, which a measured process imports too.

A repository may track a `vendor/site-packages`: what lies in a repository is installed only where
an environment lies there too.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import importlib.metadata
import os
import site
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

PACKAGES = ("site-packages", "dist-packages")
TREE_PREFIX = "convmark-tree-"
"""Begins the name of a temporary folder that holds the files of a commit or of a run."""
_MARKS = ("pyvenv.cfg", "conda-meta")


_INSTALLED = ("stdlib", "platstdlib", "purelib", "platlib", "scripts")


def is_environment(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is a Python environment, of venv or of conda."""
    return any(os.path.exists(os.path.join(folder, mark)) for mark in _MARKS)


def in_environment(path: Path, top: Path) -> bool:
    """Whether a path in a repository lies in an environment there, and so is none of its code.

    Args:
        path: without symbolic links.
        top: the repository's top folder, which holds the path; without symbolic links.
    """
    own = (folder for folder in _folders("purelib", "platlib") if folder.is_relative_to(top))
    if any(path.is_relative_to(folder) for folder in own):
        return True
    while path not in (top, path.parent):
        if is_environment(path):
            return True
        path = path.parent
    return False


def is_installed(path: Path) -> bool:
    """Whether a path without symbolic links lies in a folder of installed packages."""
    places = [index for index, part in enumerate(path.parts) if part in PACKAGES]
    return bool(places) and _is_of_no_repository(Path(*path.parts[: places[-1] + 1]))


def holds_packages(folder: Path) -> bool:
    """Whether a folder of `sys.path`, without symbolic links, has packages and not a user's code.

    By its name, or as it is of no repository, does not hold the working folder and has lists of
    what an installer has put there, as `pip install --target` leaves them.
    """
    if is_installed(folder):
        return True
    if Path.cwd().is_relative_to(folder) or not _is_of_no_repository(folder / "packages"):
        return False
    return any(folder.glob("*.dist-info/RECORD"))


def _is_of_no_repository(folder: Path) -> bool:
    for top in folder.parents:
        if top.name.startswith(TREE_PREFIX) or (top / ".git").exists():
            return in_environment(folder, top)
    return True


def import_roots(
    folder: Path | None = None,
    path: Iterable[str] | None = None,
    installed: Iterable[str | Path] | None = None,
) -> list[Path]:
    """Return the working folder and the folders of `sys.path` that are no part of an installation.

    Args:
        folder: the working folder; this process's by default.
        path: the entries to choose from, `sys.path` by default.
        installed: the folders of the installation; this interpreter's by default.
    """
    first = Path.cwd() if folder is None else folder
    if installed is None:
        installed = _folders(*_INSTALLED)
    apart = [Path(where).resolve() for where in installed]
    found = [first.resolve()]
    for entry in sys.path if path is None else path:
        root = Path(entry or os.getcwd()).resolve()
        inside = any(root.is_relative_to(where) for where in apart) or holds_packages(root)
        if root.is_dir() and not inside:
            found.append(root)
    return list(dict.fromkeys(found))


def version_of(distribution: str) -> str:
    """Return its version, with a hash of its files where it was installed from an address.

    What a branch or a folder holds may change while its version stays.
    """
    about = importlib.metadata.distribution(distribution)
    if not about.read_text("direct_url.json"):
        return about.version
    rows = csv.reader((about.read_text("RECORD") or "").splitlines())
    files = [row[:2] for row in rows if len(row) > 1 and row[1] and ".dist-info/" not in row[0]]
    digest = hashlib.sha256(repr(sorted(files)).encode()).hexdigest()
    return f"{about.version}@{digest[:8]}"


@functools.cache
def _folders(*kinds: str) -> tuple[Path, ...]:
    """Return the folders of this interpreter of these kinds, and of its installed packages."""
    named = [*map(sysconfig.get_path, kinds), *site.getsitepackages(), site.getusersitepackages()]
    return tuple(dict.fromkeys(Path(folder).resolve() for folder in named if folder))
