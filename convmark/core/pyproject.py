"""The options in pyproject.toml: its table `[tool.convmark]`, whose keys are those of `OPTIONS`;
and commands for the user to paste: they work as printed, in the folder where the user stands.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Collection
from pathlib import Path
from typing import Any

from convmark.core.errors import OptionError
from convmark.core.git import Git
from convmark.core.option_values import nearest
from convmark.core.options import OPTIONS, Options, read

SHORT = "short_options"
"""A key of `[tool.convmark]` that is not an option: whether pytest has the short names too."""


def pyproject_settings(folder: Path) -> dict[str, Any]:
    """Return `[tool.convmark]` of `folder`/pyproject.toml, empty where there is none.

    Raises:
        OptionError: the file is not TOML, or the table has a key that is no option.
    """
    path = folder / "pyproject.toml"
    table = _table(path)
    if not isinstance(table.pop(SHORT, False), bool):
        raise OptionError(f"{path}: [tool.convmark] {SHORT} must be true or false")
    known = [option.name for option in OPTIONS]
    for key in table:
        if "_" in key and key.replace("_", "-") in table:
            raise OptionError(
                f"{path}: [tool.convmark] has the key {key!r} twice, with '-' and '_'"
            )
        if key.replace("_", "-") not in known:
            hint = nearest(key.replace("_", "-"), known)
            raise OptionError(f"{path}: [tool.convmark] has no key {key!r}; {hint}")
    return {key.replace("-", "_"): value for key, value in table.items()}


def wants_short_options(folder: Path) -> bool:
    """Whether `folder`/pyproject.toml enables pytest's short option names.

    False for an unreadable file; `pyproject_settings` raises the error.
    """
    with contextlib.suppress(OptionError):
        return _table(folder / "pyproject.toml").get(SHORT) is True
    return False


def settings_at(folder: Path, commit: str) -> dict[str, Any] | None:
    """Return `[tool.convmark]` as a commit has it in `folder`, its keys unchecked.

    None where the folder's repository has no such commit, or the commit no such file.
    """
    text = Git.at(folder).answer("cat-file", "blob", f"{commit}:./pyproject.toml")
    with contextlib.suppress(OptionError):
        return None if text is None else _of_text(text, folder / "pyproject.toml")
    return None


def _table(path: Path) -> dict[str, Any]:
    """Return `[tool.convmark]` of a pyproject.toml, empty where there is none."""
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise OptionError(f"{path}: cannot be read as TOML: {reason}") from None
    return _of_text(text, path)


def toml_of(text: str) -> dict[str, Any]:
    """Return what a TOML text says.

    Raises:
        ValueError: it is none.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)


def _of_text(text: str, path: Path) -> dict[str, Any]:
    try:
        table = toml_of(text).get("tool", {}).get("convmark", {})
    except (ValueError, AttributeError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise OptionError(f"{path}: cannot be read as TOML: {reason}") from None
    if not isinstance(table, dict):
        raise OptionError(f"{path}: tool.convmark must be a table, got {table!r}")
    return dict(table)


# -- commands for the user to paste ----------------------------------------------------------------


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
