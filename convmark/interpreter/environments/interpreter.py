"""The interpreters that a user names: a path, a virtual environment's folder, or requirements."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from convmark.core.errors import OptionError
from convmark.interpreter.environments.cache import Cache
from convmark.interpreter.environments.requirement import wanted

__all__ = ["interpreter_path", "interpreters"]


def interpreters(
    pythons: Sequence[str],
    requirements: Sequence[str],
    cache: Callable[[], Cache] = Cache,
    say: Callable[[str], None] = lambda line: None,
) -> list[str]:
    """Return the paths of the interpreters asked for, those of environments made where needed.

    Args:
        pythons: texts of --python.
        requirements: texts of --env.

    Raises:
        OptionError: a path is no interpreter, or a text no requirement.
        InstallError: an environment cannot be made.
    """
    paths = [interpreter_path("--python", text) for text in pythons]
    asked = [wanted("--env", text) for text in requirements]  # all are checked before one is made
    made = [cache().get(one, say).python for one in asked]
    return list(dict.fromkeys([*paths, *made]))


def interpreter_path(flag: str, text: str) -> str:
    """Return the interpreter that a text means: its path, its name, or its environment's folder.

    Raises:
        OptionError: there is none.
    """
    path = Path(text).expanduser()
    if path.is_dir():
        inside = path / "bin" / "python"
        if not os.access(inside, os.X_OK):
            raise OptionError(f"{flag}: {text} is a folder without bin/python")
        return str(inside.absolute())
    found = shutil.which(text) if os.sep not in text else None
    executable = found or str(path.absolute())
    if not os.path.isfile(executable):
        raise OptionError(f"{flag}: no interpreter {text!r}; give its path, or use --env")
    if not os.access(executable, os.X_OK):
        raise OptionError(f"{flag}: {text} must be an executable file, it is not")
    return executable
