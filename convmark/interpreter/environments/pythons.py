"""The Pythons that this machine has, by version."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Python", "installed"]

MINORS = range(9, 20)
"""Of Python 3; no TensorFlow that the worker runs on has wheels for an earlier one."""
_MINORS = {f"3.{minor}" for minor in MINORS}
LIMIT_S = 20.0


@dataclass(frozen=True, slots=True)
class Python:
    """One interpreter of the machine."""

    version: str
    """Major, minor and micro."""
    path: str

    @property
    def minor(self) -> str:
        """Major and minor version, such as 3.12."""
        return ".".join(self.version.split(".")[:2])


def installed(environ: Mapping[str, str] | None = None) -> list[Python]:
    """Return one Python per minor version: this process's own first, then the newest first.

    Looked for on the PATH as python3.N, among pyenv's versions, and through uv where it is there.
    """
    own = Python(".".join(map(str, sys.version_info[:3])), sys.executable)
    found = {own.minor: own}
    for path in _candidates(os.environ if environ is None else environ):
        python = Python(_version(path), path)
        if python.minor in _MINORS:
            found.setdefault(python.minor, python)
    others = [python for python in found.values() if python is not own]
    return [own, *sorted(others, key=lambda python: _order(python.version), reverse=True)]


def _candidates(environ: Mapping[str, str]) -> Iterator[str]:
    for minor in reversed(MINORS):
        path = shutil.which(f"python3.{minor}", path=environ.get("PATH"))
        if path:
            yield path
    root = Path(environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    newest_first = sorted(root.glob("versions/*"), key=lambda path: _order(path.name), reverse=True)
    for folder in newest_first:
        if re.fullmatch(r"3\.\d+\.\d+", folder.name) and (folder / "bin" / "python").exists():
            yield str(folder / "bin" / "python")
    yield from _of_uv(environ)


def _of_uv(environ: Mapping[str, str]) -> Iterator[str]:
    uv = shutil.which("uv", path=environ.get("PATH"))
    command = [uv or "", "python", "list", "--only-installed", "--offline", "--no-config"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=LIMIT_S, check=False, env=dict(environ)
        )
    except (OSError, subprocess.SubprocessError):
        return
    for line in done.stdout.splitlines():
        words = line.split()
        if len(words) > 1 and words[0].startswith("cpython-3."):
            yield words[1]


def _version(path: str) -> str:
    """Return the version that an interpreter says it is; empty where it cannot be run.

    A shim of a version that is not chosen exists, and fails when it is run.
    """
    code = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
    try:
        done = subprocess.run(
            [path, "-I", "-c", code], capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    said = done.stdout.strip()
    return said if done.returncode == 0 and re.fullmatch(r"\d+\.\d+\.\d+", said) else ""


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
