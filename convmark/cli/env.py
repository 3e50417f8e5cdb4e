"""`convmark env`: the environments that were made to measure in."""

from __future__ import annotations

import sys

from tabulate import tabulate

from convmark.core.errors import OptionError
from convmark.interpreter.environments.cache import Cache, Made
from convmark.interpreter.environments.requirement import wanted

__all__ = ["listed", "make", "remove"]

FRAMEWORKS = ("tensorflow", "keras", "jax", "torch", "numpy")


def make(requirements: str, *, refresh: bool = False) -> None:
    """Make an environment unless it is there, and print its interpreter's path.

    Args:
        refresh: make it anew in any case.

    Raises:
        OptionError: a text that is no requirement.
        InstallError: it cannot be made.
    """
    print(Cache().get(wanted("REQUIREMENTS", requirements), _say, refresh=refresh).python)


def listed() -> None:
    """Print what is there."""
    cache = Cache()
    found = cache.list()
    if not found:
        print(f"no environments in {cache.folder}")
        return
    headers = ("name", "Python", "frameworks", "made", "interpreter")
    rows = [
        (one.name, one.version, _frameworks(one), one.made[:16].replace("T", " "), one.python)
        for one in found
    ]
    print(tabulate(rows, headers=headers, disable_numparse=True))


def remove(names: list[str], everything: bool) -> None:
    """Remove environments by name or requirements, or all of them.

    Raises:
        OptionError: there is none such, nothing was named, or both some and all.
    """
    cache = Cache()
    if everything and names:
        raise OptionError(f"--all: must not be given with names, got {' '.join(names)!r}")
    if everything:
        names = [one.name for one in cache.list()]
    elif not names:
        raise OptionError(
            "NAME: must be the name of an environment, or --all; see convmark env list"
        )
    for name in names:
        cache.remove(name, _say)
        print(f"removed {name}")


def _frameworks(made: Made) -> str:
    versions = dict(package.partition("==")[::2] for package in made.packages)
    return " ".join(f"{name} {versions[name]}" for name in FRAMEWORKS if name in versions)


def _say(line: str) -> None:
    print(f"convmark env: {line}", file=sys.stderr)
