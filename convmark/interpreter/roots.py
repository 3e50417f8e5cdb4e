"""The folders that a measured process imports the user's code from.

They are those of this process: its working folder first, as `python` itself has it, then what
`sys.path` holds beyond the installation: PYTHONPATH, pytest's `pythonpath`, the folders of the test
files. So what a test file can import, the worker can.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from convmark.core.installed import is_installed

__all__ = ["import_roots"]

_INSTALLED = ("stdlib", "platstdlib", "purelib", "platlib", "scripts")


def import_roots(
    folder: Path | None = None,
    path: Iterable[str] | None = None,
    installed: Iterable[str] | None = None,
) -> list[Path]:
    """Return the working folder and the folders of `sys.path` that are no part of an installation.

    Args:
        folder: the working folder; this process's by default.
        path: the entries to choose from, `sys.path` by default.
        installed: the folders of the installation; this interpreter's by default.
    """
    first = Path.cwd() if folder is None else folder
    apart = [Path(where).resolve() for where in (_installed() if installed is None else installed)]
    found = [first.resolve()]
    for entry in sys.path if path is None else path:
        root = Path(entry or os.getcwd()).resolve()
        inside = any(root.is_relative_to(where) for where in apart) or is_installed(root)
        if root.is_dir() and not inside:
            found.append(root)
    return list(dict.fromkeys(found))


def _installed() -> list[str]:
    """Return the folders of the standard library, of installed packages and of scripts."""
    folders = [sysconfig.get_path(name) for name in _INSTALLED]
    folders += [*site.getsitepackages(), site.getusersitepackages()]
    return [folder for folder in dict.fromkeys(folders) if folder]
