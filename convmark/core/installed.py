"""Tells installed packages from code of the user's own, which a folder's name alone does not.

A repository may track a `vendor/site-packages`: what lies in a repository is installed only where
an environment lies there too.
"""

from __future__ import annotations

import functools
import os
import site
import sysconfig
from pathlib import Path

__all__ = ["PACKAGES", "TREE_PREFIX", "in_environment", "is_environment", "is_installed"]

PACKAGES = ("site-packages", "dist-packages")
TREE_PREFIX = "convmark-tree-"
"""Begins the name of a temporary folder that holds the files of a commit or of a run."""
_MARKS = ("pyvenv.cfg", "conda-meta")


def is_environment(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is a Python environment, of venv or of conda."""
    return any(os.path.exists(os.path.join(folder, mark)) for mark in _MARKS)


def in_environment(path: Path, top: Path) -> bool:
    """Whether a path in a repository lies in an environment there, and so is none of its code.

    Args:
        path: without symbolic links.
        top: the repository's top folder, which holds the path; without symbolic links.
    """
    own = (folder for folder in _own_packages() if folder.is_relative_to(top))
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
    if not places:
        return False
    folder = Path(*path.parts[: places[-1] + 1])
    top = next((one for one in folder.parents if _is_top(one)), None)
    return top is None or in_environment(folder, top)


def _is_top(folder: Path) -> bool:
    """Whether a folder is a repository's top, or holds the files of one."""
    return folder.name.startswith(TREE_PREFIX) or (folder / ".git").exists()


@functools.cache
def _own_packages() -> tuple[Path, ...]:
    """The folders of this interpreter's installed packages."""
    named = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    named += [*site.getsitepackages(), site.getusersitepackages()]
    return tuple(dict.fromkeys(Path(folder).resolve() for folder in named if folder))
