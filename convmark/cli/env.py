"""`convmark env`: list, make and remove environments."""

from __future__ import annotations

import argparse

from convmark.cli.command import EXIT_OK, sayer
from convmark.core.backends import BACKENDS, DEFAULT_BACKEND
from convmark.core.errors import OptionError
from convmark.core.fitting import tell, unbroken
from convmark.core.options import Options
from convmark.core.table import headings, table_of
from convmark.interpreter.environments import Cache, Made
from convmark.interpreter.installer import wanted
from convmark.report.tables import Answer, check_form, print_tables

_say = sayer("convmark env")

FRAMEWORKS = tuple(dict.fromkeys([DEFAULT_BACKEND, "keras", *BACKENDS, "numpy"]))


def env(given: argparse.Namespace, options: Options) -> int:
    """List the environments, make one or remove some.

    Raises:
        OptionError: a text that is no requirement, or names no environment.
        InstallError: an environment cannot be made.
    """
    cache = Cache()
    if given.action == "list":
        _list(cache, check_form(given.format))
    elif given.action == "make":
        asked = wanted("REQUIREMENTS", given.requirements)
        print(cache.get(asked, _say, refresh=given.refresh).python)
    else:
        _remove(cache, given.names, given.everything)
    return EXIT_OK


def _list(cache: Cache, form: str) -> None:
    found = cache.list()
    if not found and form == "text":
        tell(f"no environments in {unbroken(str(cache.folder))}")
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
    columns = headings(" ".join(names))
    table = table_of("environments", "Environments", "", columns, records, keep=names)
    print_tables(Answer(command="env list", tables=[table]), form)


def _remove(cache: Cache, names: list[str], everything: bool) -> None:
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
        tell(f"removed {name}")


def _frameworks(made: Made) -> str:
    versions = dict(package.partition("==")[::2] for package in made.packages)
    return " ".join(f"{name} {versions[name]}" for name in FRAMEWORKS if name in versions)
