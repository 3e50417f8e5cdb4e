"""Installs environments: uv finds Pythons and resolves requirements; the releases of a package."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version

from convmark.core.errors import InstallError, OptionError
from convmark.core.processes import die_with_parent
from convmark.core.text import command_text
from convmark.worker.protocol import file_digest, masked

_NAME_CHARS = 60

_SECTIONS = ("global.", "install.", ":env:.")

LAST_LINES = 6
"""Lines of uv's output that an error message quotes."""
LINE_CHARS = 200
PIP_LIMIT_S = 20.0
OLDEST_MINOR = 9
"""Of Python 3; no TensorFlow that the worker runs on has wheels for an earlier one."""
_OTHER_ENVIRONMENT = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "CONDA_PREFIX")
_OF_PIP = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
}
"""uv does not read pip's settings, by which a company names its package index."""

LIMIT_S = 120.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """Requirements of one environment."""

    requirements: tuple[str, ...]
    """Sorted, each as `packaging` spells it."""

    @property
    def name(self) -> str:
        """The name of the environment's folder: readable, and different for different ones."""
        words = re.sub(r"[^a-z0-9.]+", "-", "-".join(self.requirements).lower()).strip("-.")
        digest = hashlib.sha256("\n".join(self.requirements).encode()).hexdigest()[:8]
        return f"{words[:_NAME_CHARS].strip('-.')}-{digest}"

    @property
    def is_fixed(self) -> bool:
        """Whether every requirement names one release, which stays what it is."""
        for one in map(Requirement, self.requirements):
            exact = [part.version for part in one.specifier if part.operator in ("==", "===")]
            if one.url is not None or all("*" in version for version in exact):
                return False
        return True

    def __str__(self) -> str:
        return " ".join(self.requirements)


def wanted(flag: str, text: str, package: str = "tensorflow") -> Wanted:
    """Return the requirements in a text: one or several, parted by spaces.

    A version alone, such as `2.20.0`, is one of `package`.

    Raises:
        OptionError: a part is no requirement, or none names a package that can be installed.
    """
    if is_version(text.strip()):
        return Wanted((f"{package}=={text.strip()}",))
    found = _requirements(text)
    if not found:
        raise OptionError(
            f'{flag}: must be a requirement such as "tensorflow==2.20.*", or several '
            f"separated by spaces, got {text!r}"
        )
    return Wanted(tuple(sorted(dict.fromkeys(map(str, found)))))


def looks_like_requirement(text: str) -> bool:
    """Whether the text can be meant as requirements or a version."""
    return is_version(text.strip()) or bool(_requirements(text))


def is_version(text: str) -> bool:
    """Whether the text is a plain version such as 2.20.0."""
    return _version(text) is not None


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def _requirements(text: str) -> list[Requirement]:
    """Return the requirements of a text; none where it is not made of such alone."""
    for parts in ([text], text.split()):
        try:
            return [Requirement(part) for part in parts if part.strip()]
        except InvalidRequirement:
            continue
    return []


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


@dataclass(frozen=True, slots=True)
class Resolved:
    """What requirements come to today."""

    python: Python
    """The first Python that all packages have wheels for."""
    locked: str
    """Every package with its version, as `uv pip compile` gives them, and hashes of local files."""


class Installer:
    """Makes virtual environments."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        given = dict(os.environ if environ is None else environ)
        for name in _OTHER_ENVIRONMENT:
            given.pop(name, None)
        beside = Path(sys.executable).with_name("uv")
        found = str(beside) if beside.is_file() else shutil.which("uv", path=given.get("PATH"))
        if found is None:
            raise InstallError(
                "uv: is not installed, but it makes the environments: pip install uv"
            )
        self._uv = found
        self.environ = given | {
            name: value for name, value in _pip_settings(given).items() if name not in given
        }

    def pythons(self) -> list[Python]:
        """Return one Python per minor version: this process's own first, then the newest first.

        Looked for on the PATH, among pyenv's versions and among uv's own.
        """
        root = Path(self.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
        folders = [self.environ.get("PATH", ""), *map(str, root.glob("versions/3.*/bin"))]
        command = ("python", "list", "--only-installed", "--offline", "--no-config")
        done = self._run(
            *command, "--output-format", "json", more={"PATH": os.pathsep.join(folders)}
        )
        own = Python(".".join(map(str, sys.version_info[:3])), sys.executable)
        found = {own.minor: own}
        for entry in json.loads(done.stdout) if done.returncode == 0 else []:
            parts, path = entry["version_parts"], entry["path"] or ""
            is_shim = Path(path).parent.name == "shims"  # runs only where its version is chosen
            wanted = parts["major"] == 3 and parts["minor"] >= OLDEST_MINOR and not is_shim
            if wanted and entry["implementation"] == "cpython" and entry["variant"] == "default":
                python = Python(entry["version"], path)
                found.setdefault(python.minor, python)
        return list(found.values())  # uv gives the newest first

    def resolve(self, wanted: Wanted) -> Resolved:
        """Return what the requirements come to, for the first Python that they have wheels for.

        Raises:
            InstallError: no Python will do, or the package index cannot be asked; the message has
                uv's last lines and the command to try by hand.
        """
        pythons = self.pythons()
        failed: subprocess.CompletedProcess[str] | None = None
        for python in pythons:
            done = self._run(
                *("pip", "compile", "--quiet", "--no-header", "--no-annotate"),
                *("--only-binary", ":all:", "--python", python.path, "-"),
                stdin="\n".join(wanted.requirements),
            )
            if done.returncode == 0:
                return Resolved(python, done.stdout + _local_files(wanted))
            if failed is None or len(done.stderr) > len(failed.stderr):
                failed = done
        there = ", ".join(python.minor for python in pythons)
        assert failed is not None, "there is always this process's own Python"
        more = f"no Python here has wheels for it (tried {there})"
        raise self._failure(wanted, failed, pythons[0], more)

    def install(self, wanted: Wanted, resolved: Resolved, folder: Path) -> None:
        """Make the environment.

        Raises:
            InstallError: the packages cannot be installed; the message has uv's last lines.
        """
        python = resolved.python
        done = self._run("venv", "--quiet", "--no-config", "--python", python.path, str(folder))
        if done.returncode == 0:
            of_address = [one.name for one in map(Requirement, wanted.requirements) if one.url]
            again = [word for name in of_address for word in ("--reinstall-package", name)]
            done = self._run(
                *("pip", "install", "--quiet", "--no-deps", "--requirements", "-"),
                *_only_wheels(resolved.locked),
                *("--python", str(folder / "bin" / "python")),
                *again,
                stdin=resolved.locked,
            )
        if done.returncode:
            raise self._failure(wanted, done, python)

    def frozen(self, python: str) -> list[str]:
        """Return what is installed, as `name==version`, sorted."""
        done = self._run("pip", "freeze", "--quiet", "--python", python)
        return sorted(done.stdout.split("\n")[:-1]) if done.returncode == 0 else []

    def _run(
        self, *arguments: str, stdin: str = "", more: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._uv, *arguments],
            env={**self.environ, **(more or {})},
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            preexec_fn=die_with_parent,  # a killed caller's lock is free, its folder made anew
        )

    def _failure(
        self,
        wanted: Wanted,
        done: subprocess.CompletedProcess[str],
        python: Python,
        more: str = "",
    ) -> InstallError:
        said = [line.strip() for line in (*done.stderr.splitlines(), more) if line.strip()]
        last = " / ".join(line[:LINE_CHARS] for line in said[-LAST_LINES:]) or "nothing"
        with_them = [word for one in wanted.requirements for word in ("--with", one)]
        by_hand = ["uv", "run", "--no-project", "--python", python.minor, *with_them, "python"]
        return InstallError(
            masked(
                f"{wanted}: cannot be installed, uv ended with status {done.returncode} and said: "
                f"{last}; try by hand: {shlex.join(by_hand)}"
            )
        )


def _only_wheels(locked: str) -> list[str]:
    """Return uv's options by which nothing of an index is built, whose code would run.

    What the user has named by its address, such as a branch, may be.
    """
    names = re.findall(r"^([A-Za-z0-9][\w.-]*) *(?:\[[^]]*\])? *==", locked, re.M)
    return [word for name in names for word in ("--only-binary", name)]


def _pip_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return pip's settings of indexes and certificates by uv's names for them."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    printed = command_text(command, environ=environ, limit_s=PIP_LIMIT_S)
    found = {}
    for line in printed.splitlines():  # global.index-url='https://...', :env:.cert='...'
        name, _, value = line.partition("=")
        if (ours := _OF_PIP.get(name.rpartition(".")[2])) and name.startswith(_SECTIONS):
            found[ours] = " ".join(value.strip("'").replace("\\n", " ").split())
    if "UV_INDEX" in found:
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # as pip has it with several indexes
    return found


def _local_files(wanted: Wanted) -> str:
    """Return, as comments, the hashes of the files and folders that requirements name."""
    urls = [urlsplit(Requirement(text).url or "") for text in wanted.requirements]
    paths = [Path(unquote(url.path)) for url in urls if url.scheme == "file"]
    return "".join(f"# {path} {_content_hash(path)}\n" for path in paths)


def _content_hash(path: Path) -> str:
    if not path.is_dir():
        return (file_digest(path) or (0, "absent"))[1]
    listed = sorted(one for one in path.rglob("*") if one.is_file())
    times = [f"{one} {one.stat().st_size} {one.stat().st_mtime_ns}" for one in listed]
    return hashlib.sha256("\n".join(times).encode()).hexdigest()


def releases(
    package: str, ask: Callable[[str, str], str] | None = None, minors: Sequence[str] | None = None
) -> list[str]:
    """Return a package's final releases with wheels for a Python of this machine, oldest first.

    Args:
        ask: gives what pip prints of a package for a Python's version.

    Raises:
        InstallError: the index cannot be asked, or has none.
    """
    found: dict[Version, str] = {}
    for minor in minors or [python.minor for python in Installer().pythons()]:
        listed = re.search(r"^Available versions: (.+)$", (ask or _ask_pip)(package, minor), re.M)
        for word in (listed.group(1) if listed else "").split(","):
            version = _version(word.strip())
            if version and not version.is_prerelease:  # a development release is one too
                found[version] = word.strip()
    if not found:
        raise InstallError(
            f"{package}: the package index has no release with wheels for an installed "
            f"Python; try by hand: {sys.executable} -m pip index versions {package}"
        )
    return [found[version] for version in sorted(found)]


def between(known: Sequence[str], good: str, bad: str) -> list[str]:
    """Return the releases from good to bad, both included, in that order.

    Raises:
        OptionError: one of them is not known, or they are the same.
    """
    places = []
    for flag, text in (("--good", good), ("--bad", bad)):
        meant = _version(text)
        matching = [place for place, one in enumerate(known) if Version(one) == meant]
        if not matching:
            near = ", ".join(known[-8:])
            raise OptionError(f"{flag}: no release {text!r} with wheels; the newest are {near}")
        places.append(matching[0])
    first, last = places
    if first == last:
        raise OptionError(f"--bad: must be another release than --good, both are {good}")
    return list(known[first : last + 1] if first < last else known[last : first + 1][::-1])


def _ask_pip(package: str, minor: str) -> str:
    command = [
        *(sys.executable, "-m", "pip", "index", "versions", package),
        *("--python-version", minor, "--only-binary", ":all:", "--disable-pip-version-check"),
    ]
    return command_text(command, limit_s=LIMIT_S)
