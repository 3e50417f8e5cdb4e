"""Commands for the user to paste: they work as printed, in the folder where the user stands."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Collection
from pathlib import Path

from convmark.core.errors import OptionError
from convmark.core.options import Options, read
from convmark.core.pyproject import pyproject_settings

_NAME = "convmark"


def program() -> str:
    """Return how a shell in the working folder starts this convmark.

    Its name alone where the shell finds it by that; else its path, as where pytest was started from
    an environment that is not active.
    """
    own = Path(sysconfig.get_path("scripts"), _NAME)
    if not own.is_file():
        return shlex.join([sys.executable, "-m", _NAME])
    found = shutil.which(_NAME)
    with contextlib.suppress(OSError):
        if found and os.path.samefile(found, own):
            return _NAME
        if own.is_relative_to(Path.cwd()):
            return shlex.quote(os.path.relpath(own))
    return shlex.quote(str(own))


def typed(command: str, options: Options, fields: Collection[str]) -> str:
    """Return a command, with those of the options that it would not take by itself.

    Args:
        command: without the program's name, such as `report -o report.html`.
        fields: of `Options`, those that the command takes.
    """
    try:
        own = read({}, pyproject_settings(Path.cwd()))
    except OptionError:
        own = Options()
    differing = [name for name in fields if getattr(options, name) != getattr(own, name)]
    return " ".join(filter(None, [program(), command, shlex.join(options.words(differing))]))
