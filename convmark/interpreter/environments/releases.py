"""The releases of a package between two versions, from the package index."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Sequence

from packaging.version import InvalidVersion, Version

from convmark.core.errors import InstallError, OptionError
from convmark.interpreter.environments.installer import Installer

__all__ = ["between", "releases"]

LIMIT_S = 120.0


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
            version = _final(word.strip())
            if version is not None:
                found[version] = word.strip()
    if not found:
        raise InstallError(
            f"{package}: the package index names no release with wheels for a Python that is here; "
            f"try by hand: {sys.executable} -m pip index versions {package}"
        )
    return [found[version] for version in sorted(found)]


def between(known: Sequence[str], good: str, bad: str) -> list[str]:
    """Return the releases from good to bad, both included, in that order.

    Raises:
        OptionError: one of them is not known, or they are the same.
    """
    places = []
    for flag, text in (("--good", good), ("--bad", bad)):
        matching = [place for place, version in enumerate(known) if _same(version, text)]
        if not matching:
            near = ", ".join(known[-8:])
            raise OptionError(f"{flag}: no release {text!r} with wheels; the newest are {near}")
        places.append(matching[0])
    first, last = places
    if first == last:
        raise OptionError(f"--bad: must be another release than --good, both are {good}")
    return list(known[first : last + 1] if first < last else known[last : first + 1][::-1])


def _final(word: str) -> Version | None:
    try:
        version = Version(word)
    except InvalidVersion:
        return None
    return None if version.is_prerelease or version.is_devrelease else version


def _same(version: str, text: str) -> bool:
    try:
        return Version(version) == Version(text)
    except InvalidVersion:
        return False


def _ask_pip(package: str, minor: str) -> str:
    command = [
        *(sys.executable, "-m", "pip", "index", "versions", package),
        *("--python-version", minor, "--only-binary", ":all:", "--disable-pip-version-check"),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
