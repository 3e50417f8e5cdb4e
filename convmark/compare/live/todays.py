"""What both codes of a comparison ran with as it is today, though a commit has it otherwise.

The options in files, the variables that pytest's own files set, and what an interpreter reads when
it starts are those of today for both codes. What slows both tells in no ratio of them.

Which files say otherwise than at a commit what is installed.

Both codes of a comparison run with the packages that are installed today. What the commit would
have installed, other packages or another Python, is in neither side.
"""

from __future__ import annotations

import ast
import configparser
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from types import MappingProxyType

from convmark.compare.judgement import OTHER_PACKAGES, TODAYS
from convmark.core.errors import OptionError
from convmark.core.git import SHOWN, Git
from convmark.core.option import options_of
from convmark.core.options import OPTIONS, Options, read
from convmark.core.pyproject import settings_at, toml_of
from convmark.core.text import listed

MOST_NAMED = 3
"""Files that a note names; more are counted."""

_WHOLE = (
    *("*requirements*.txt", "*requirements*.in", "*constraints*.txt", "*constraints*.in"),
    *("requirements/*.txt", "requirements/*.in", "constraints/*.txt", "constraints/*.in"),
    *("uv.lock", "uv.toml", "poetry.lock", "pdm.lock", "Pipfile", "Pipfile.lock", "pylock*.toml"),
    *("pixi.toml", "pixi.lock", "environment*.yml", "environment*.yaml", "conda*.yml"),
    *("conda*.yaml", "conda*.lock", "*conda-lock*", ".python-version", ".tool-versions"),
    *("runtime.txt", "Dockerfile*", "*.dockerfile", "flake.lock"),
    *("CMakeLists.txt", "meson.build", "Cargo.toml", "Cargo.lock"),
    *("*.c", "*.cc", "*.cpp", "*.cu", "*.f90", "*.h", "*.hpp", "*.pxd", "*.pyx", "*.rs"),
)
"""Files that are about nothing else, in whatever folder; and the sources of extensions, which are
built once for both codes."""
_NAMED = r"^[[:space:]]*(-r|-c|--requirement|--constraint)|files? *="
_PACKAGE = re.compile(
    r"""^\s*(?:-r|-c|--requirement|--constraint)[\s=]*([^\s#]+)|["']([^"']+\.(?:txt|in))["']"""
)
"""Files that one of these names: in a requirements file, or as dynamic in a pyproject.toml."""
_TEXTS = ("readme", "license", "version", "description")
"""Keys of a pyproject.toml whose files install nothing."""
_NOT_OF_PROJECT = {
    *("name", "version", "description", "readme", "license", "license-files", "authors"),
    *("maintainers", "keywords", "classifiers", "urls", "scripts", "gui-scripts"),
    *("entry-points", "entry_points", "author", "author_email", "url", "project_urls"),
    *("long_description", "long_description_content_type"),
}
"""Keys of `[project]`, and arguments of `setup`, by which nothing else is installed.

Source: the Python Packaging Authority's specification of pyproject.toml; setuptools' keywords.
"""
_INSTALLERS = ("uv", "poetry", "pdm", "pixi", "hatch", "rye", "flit", "conda-lock", "tox")
"""Tables of `[tool]` that say what is installed."""
_OF_INI = ("install_requires", "setup_requires", "tests_require", "python_requires", "deps")


def other_packages(repository: Path, sha: str, other: str = "") -> str:
    """Say that a commit would have installed something else; empty where it would not.

    Args:
        other: a second commit; the user's files as they are without one.
    """
    files = changed_requirements(repository, sha, other)
    if not files:
        return ""
    differ = "differs" if len(files) == 1 else "differ"
    between = f"between {sha[:SHOWN]} and {other[:SHOWN]}" if other else f"from {sha[:SHOWN]}"
    return (
        f"{listed(files, MOST_NAMED)} {differ} {between}: {OTHER_PACKAGES}, not with what "
        f"{'each' if other else 'that'} commit would have installed"
    )


def changed_requirements(repository: Path, sha: str, other: str = "") -> tuple[str, ...]:
    """Return the files that name packages and are not as in the commit; none where git fails.

    Of those that hold other things too, the ones by which something else is installed.
    """
    git = Git.at(repository).without_filters()
    changed = changed_files(git, *filter(None, [sha, other]))
    named = {*_named_files(git, sha), *_named_files(git, other)} if changed else set()

    def text_of(name: str, commit: str) -> str:
        if commit:
            return git.answer("cat-file", "blob", f"{commit}:{name}") or ""
        path = repository / name
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

    def installs_other(name: str) -> bool:
        if name in named or any(fnmatch(name, at) for one in _WHOLE for at in (one, f"*/{one}")):
            return True
        if (read := _READERS.get(posixpath.basename(name))) is None:
            return False
        try:
            return read(text_of(name, sha)) != read(text_of(name, other))
        except Exception:  # of three parsers
            return True

    return tuple(filter(installs_other, changed))


def changed_files(
    git: Git, *commits: str, having: str = "", named: Sequence[str] = ()
) -> list[str]:
    """Return the files that differ from a commit, or between two; none where git fails.

    Args:
        git: of the repository.
        having: what a changed line must have, as an extended regular expression.
        named: names of files, in whatever folder; all by default.
    """
    options = ["--name-only", "-z", "--no-renames", "--no-ext-diff", "--no-textconv"]
    options += ["--ignore-submodules", *([f"-G{having}"] if having else [])]
    places = [f":(top,glob)**/{name}" for name in named]
    told = git.answer("diff", *options, *commits, "--", *places) or ""
    return list(filter(None, told.split("\0")))


def _named_files(git: Git, commit: str) -> Iterator[str]:
    """Yield the files that others name; of today without a commit."""
    places = [f":(top){name}" for name in ("*.txt", "*.in", "*pyproject.toml")]
    asked = ("-I", "-z", "-E", "--full-name", "-e", _NAMED, *filter(None, [commit]), "--", *places)
    for line in (git.answer("grep", *asked) or "").split("\n"):
        name, _, text = line.partition("\0")
        folder = posixpath.dirname(name.removeprefix(f"{commit}:") if commit else name)
        found = [] if text.lstrip().startswith(_TEXTS) else _PACKAGE.findall(text)
        for by_option, quoted in found:
            yield posixpath.normpath(posixpath.join(folder, by_option or quoted))


def _of_toml(text: str) -> object:
    table = toml_of(text)
    tool = table.get("tool", {})
    return (
        {
            key: value
            for key, value in table.get("project", {}).items()
            if key not in _NOT_OF_PROJECT
        },
        [table.get(key) for key in ("dependency-groups", "build-system")],
        [tool.get(key) for key in _INSTALLERS],
        tool.get("setuptools", {}).get("dynamic"),
    )


def _of_ini(text: str) -> object:
    parser = configparser.RawConfigParser(strict=False)
    parser.read_string(text)
    return [
        (section, name, value)
        for section in parser.sections()
        for name, value in parser.items(section)
        if name in _OF_INI or section == "options.extras_require"
    ]


def _of_setup(text: str) -> object:
    tree = ast.parse(text)
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        call.keywords = [one for one in call.keywords if one.arg not in _NOT_OF_PROJECT]
    return ast.dump(tree)


_READERS: Mapping[str, Callable[[str], object]] = MappingProxyType(
    {"pyproject.toml": _of_toml, "setup.cfg": _of_ini, "tox.ini": _of_ini, "setup.py": _of_setup}
)
"""Of files that hold other things too, what they install."""


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
_NO_VERDICT = {"ceilings", "cooling", "layers", "margin", "results", "tasks", "time-limit", "wait"}
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
