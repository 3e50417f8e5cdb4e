"""What both codes of a comparison ran with as it is today, though a commit has it otherwise.

The options in files, the variables that pytest's own files set, and what an interpreter reads when
it starts are those of today for both codes. What slows both tells in no ratio of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from convmark.compare.judgement import TODAYS
from convmark.compare.live.requirements import MOST_NAMED, changed_files
from convmark.core.errors import OptionError
from convmark.core.git import SHOWN, Git
from convmark.core.option import options_of
from convmark.core.options import OPTIONS, Options, read
from convmark.core.pyproject import settings_at
from convmark.core.text import listed

_AT_START = ("keras.json", "sitecustomize.py", "usercustomize.py")
"""Files that are read before any code of a model's."""
_WITH_OPTIONS = (
    *("pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "pyproject.toml", "tox.ini"),
    *("setup.cfg", "*.yml", "*.yaml", "Jenkinsfile", "Makefile", "noxfile.py"),
)
"""Files in which a command, or pytest's addopts, may have options."""
_OF_OTHERS = frozenset(["env", "python", "seed"])
"""Options by whose short names other programs have some."""
_OWN = ("CONVMARK_", "PYTEST_")
"""How variables begin that this process sets for itself."""
_NO_VERDICT = frozenset(
    ["ceilings", "cooling", "layers", "margin", "results", "tasks", "time-limit", "wait"]
)
"""Options that change no verdict, or of which others words tell, as of a raised margin."""
_SHORT = "|".join(one.name for one in OPTIONS if one.name not in _NO_VERDICT | _OF_OTHERS)
_OPTION = f"--convmark-|--({_SHORT})([^a-z-]|$)"
_NAME, _BETWEEN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*"), "[^A-Za-z0-9_]"


def changed_variables(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the variables that this process has set or unset since its environment was so."""
    changed = (name for name in {*before, *now} if before.get(name) != now.get(name))
    return sorted(one for one in changed if _NAME.fullmatch(one) and not one.startswith(_OWN))


def todays(
    repository: Path,
    sha: str,
    *,
    options: Options,
    folder: Path,
    variables: Sequence[str],
) -> Iterator[str]:
    """Yield in one line each what both codes ran with that is not as in a commit.

    Args:
        folder: has the pyproject.toml of the options.
        variables: that this process has set, as a conftest.py has it do: then the files count that
            have changed in a line with such a name.
    """
    git = Git.at(repository).without_filters()
    if found := _other_settings(options, folder, sha):
        yield _line("[tool.convmark] ", found, sha, " settings")
    if found := changed_files(git, sha, having=_OPTION, named=_WITH_OPTIONS):
        yield _line("", found, sha, " options")
    if found := changed_files(git, sha, named=_AT_START):
        yield _line("", found, sha, "")
    line = f"(^|{_BETWEEN})({'|'.join(variables)})({_BETWEEN}|$)"
    if variables and (found := changed_files(git, sha, having=line)):
        yield _line("", found, sha, f" variables ({listed(variables, MOST_NAMED)})")


def _line(before: str, names: Sequence[str], sha: str, what: str) -> str:
    differ = "differs" if len(names) == 1 else "differ"
    return f"{before}{listed(names, MOST_NAMED)} {differ} from {sha[:SHOWN]}: {TODAYS}{what}"


def _other_settings(options: Options, folder: Path, sha: str) -> list[str]:
    """Return the options that would have other values with the commit's pyproject.toml."""
    if Git.at(folder).answer("cat-file", "-e", f"{sha}^{{commit}}") is None:
        return []
    table = options_of(Options)
    typed = {
        table[field].key: value
        for field, value in options.given.items()
        if table[field].name not in options.from_file
    }
    held = settings_at(folder, sha) or {}
    settings = {key.replace("-", "_"): value for key, value in held.items()}
    try:
        then = read(typed, settings)
        others = {
            one.key
            for field, one in table.items()
            if getattr(options, field) != getattr(then, field)
        }
    except OptionError:  # a value that an earlier version of convmark took: the texts tell
        texts = {table[field].key: value for field, value in options.given.items()}
        keys = {*settings, *texts} - {*typed}
        others = {key for key in keys if settings.get(key) != texts.get(key)}
    named = (one for one in table.values() if one.key in others)
    return [one.name for one in named if one.name not in _NO_VERDICT]
