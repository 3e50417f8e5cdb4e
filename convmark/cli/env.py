"""`convmark env`: the environments that were made to measure in."""

from __future__ import annotations

import sys

from convmark.core.backends import BACKENDS, DEFAULT_BACKEND
from convmark.core.errors import OptionError
from convmark.core.table import heading, printed
from convmark.interpreter.environments.cache import Cache, Made
from convmark.interpreter.environments.requirement import wanted

__all__ = ["listed", "make", "remove"]

FRAMEWORKS = tuple(dict.fromkeys([DEFAULT_BACKEND, "keras", *BACKENDS, "numpy"]))


def make(requirements: str) -> None:
    """Make an environment unless it is there, and print its interpreter's path.

    Raises:
        OptionError: a text that is no requirement.
        InstallError: it cannot be made.
    """
    print(Cache().get(wanted("REQUIREMENTS", requirements), _say).python)


def listed() -> None:
    """Print what is there."""
    cache = Cache()
    found = cache.list()
    if not found:
        print(f"no environments in {cache.folder}")
        return
    names = ("name", "Python", "frameworks", "made", "interpreter")
    records = [
        {
            "name": one.name,
            "Python": one.version,
            "frameworks": _frameworks(one),
            "made": one.made[:16].replace("T", " "),
            "interpreter": str(one.python),
        }
        for one in found
    ]
    print(printed([heading(name, name) for name in names], records, drop_empty=False))


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
