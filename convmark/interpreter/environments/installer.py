"""How an environment is filled: by uv where it is there, else by venv and pip."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from convmark.core.errors import InstallError
from convmark.interpreter.environments.pythons import Python
from convmark.interpreter.environments.requirement import Wanted

__all__ = ["Installer", "Pip", "Uv", "installer"]

LAST_LINES = 4
"""Lines of the installer's output that an error message quotes."""
LINE_CHARS = 200


@dataclass(frozen=True, slots=True)
class Installer(ABC):
    """Makes a virtual environment in a folder."""

    environ: Mapping[str, str]

    name = ""

    @abstractmethod
    def install(self, wanted: Wanted, folder: Path, pythons: Sequence[Python]) -> Python:
        """Make the environment with the first Python that its packages have wheels for.

        Returns:
            that Python.

        Raises:
            InstallError: no Python will do, or the packages cannot be installed; the message
                has the installer's last lines and the command to try by hand.
        """

    @abstractmethod
    def frozen(self, python: str) -> list[str]:
        """Return what is installed, as `name==version`, sorted."""

    def _run(self, *command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=dict(self.environ),
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )

    def _fail(
        self, wanted: Wanted, done: subprocess.CompletedProcess[str], by_hand: Sequence[str]
    ) -> InstallError:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        said = " / ".join(line[:LINE_CHARS] for line in lines[-LAST_LINES:]) or "nothing"
        return InstallError(
            f"{wanted}: cannot be installed, {self.name} ended with status {done.returncode} and "
            f"said: {said}; try by hand: {shlex.join(by_hand)}"
        )


class Uv(Installer):
    """uv resolves for each Python in turn, in a second or two, and installs by hard links."""

    name = "uv"

    def install(self, wanted: Wanted, folder: Path, pythons: Sequence[Python]) -> Python:
        chosen, locked = self._resolve(wanted, pythons)
        uv = _uv(self.environ) or "uv"
        done = self._run(uv, "venv", "--quiet", "--no-config", "--python", chosen.path, str(folder))
        python = str(folder / "bin" / "python")
        if done.returncode == 0:
            done = self._run(
                *(uv, "pip", "install", "--quiet", "--no-deps", "--python", python),
                *("--requirements", "-"),
                stdin=locked,
            )
        if done.returncode:
            raise self._fail(wanted, done, _uv_by_hand(wanted, chosen))
        return chosen

    def _resolve(self, wanted: Wanted, pythons: Sequence[Python]) -> tuple[Python, str]:
        """Return the first Python for which the requirements resolve, and to what."""
        first: subprocess.CompletedProcess[str] | None = None
        for python in pythons:
            done = subprocess.run(
                [
                    *(_uv(self.environ) or "uv", "pip", "compile", "--quiet", "--no-header"),
                    *("--no-annotate", "--only-binary", ":all:", "--python", python.path, "-"),
                ],
                env=dict(self.environ),
                input="\n".join(wanted.requirements),
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
            if done.returncode == 0:
                return python, done.stdout
            if first is None or len(done.stderr) > len(first.stderr):
                first = done
        there = ", ".join(python.minor for python in pythons)
        failed = first or subprocess.CompletedProcess([], 1, "", "")
        failed.stdout = f"{failed.stderr}\nno Python here has wheels for it (tried {there})"
        raise self._fail(wanted, failed, _uv_by_hand(wanted, pythons[0]))

    def frozen(self, python: str) -> list[str]:
        done = self._run(_uv(self.environ) or "uv", "pip", "freeze", "--quiet", "--python", python)
        return sorted(done.stdout.split("\n")[:-1]) if done.returncode == 0 else []


class Pip(Installer):
    """pip tries Python after Python: without wheels for one it fails before it downloads."""

    name = "pip"

    def install(self, wanted: Wanted, folder: Path, pythons: Sequence[Python]) -> Python:
        first: subprocess.CompletedProcess[str] | None = None
        for python in pythons:
            done = self._run(python.path, "-m", "venv", "--clear", str(folder))
            if done.returncode == 0:
                done = self._run(
                    *(str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"),
                    *("--disable-pip-version-check", "--only-binary", ":all:"),
                    *wanted.requirements,
                )
            if done.returncode == 0:
                return python
            first = first or done
        there = ", ".join(python.minor for python in pythons)
        failed = first or subprocess.CompletedProcess([], 1, "", "")
        failed.stdout = f"{failed.stdout}\nno Python here has wheels for it (tried {there})"
        by_hand = [pythons[0].path, "-m", "pip", "install", *wanted.requirements]
        raise self._fail(wanted, failed, by_hand)

    def frozen(self, python: str) -> list[str]:
        done = self._run(python, "-m", "pip", "freeze", "--disable-pip-version-check")
        return sorted(done.stdout.split("\n")[:-1]) if done.returncode == 0 else []


def installer(environ: Mapping[str, str] | None = None) -> Installer:
    """Return uv where it is there, else pip."""
    given = dict(os.environ if environ is None else environ)
    for name in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "CONDA_PREFIX"):
        given.pop(name, None)  # another environment is made than the one that this runs in
    if _uv(given) is None:
        return Pip(given)
    for ours, theirs in (
        ("UV_DEFAULT_INDEX", "PIP_INDEX_URL"),
        ("UV_INDEX", "PIP_EXTRA_INDEX_URL"),
    ):
        if theirs in given:  # uv does not read pip's settings
            given.setdefault(ours, given[theirs])
    return Uv(given)


def _uv(environ: Mapping[str, str]) -> str | None:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.is_file() else shutil.which("uv", path=environ.get("PATH"))


def _uv_by_hand(wanted: Wanted, python: Python) -> list[str]:
    return (
        ["uv", "run", "--no-project", "--python", python.minor]
        + [word for requirement in wanted.requirements for word in ("--with", requirement)]
        + ["python"]
    )
