"""Which files say otherwise than at a commit what is installed.

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

from convmark.compare.judgement import OTHER_PACKAGES
from convmark.core.git import SHOWN, Git
from convmark.core.pyproject import toml_of
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
_NAME = re.compile(
    r"""^\s*(?:-r|-c|--requirement|--constraint)[\s=]*([^\s#]+)|["']([^"']+\.(?:txt|in))["']"""
)
"""Files that one of these names: in a requirements file, or as dynamic in a pyproject.toml."""
_TEXTS = ("readme", "license", "version", "description")
"""Keys of a pyproject.toml whose files install nothing."""
_NOT_OF_PROJECT = frozenset(
    (
        *("name", "version", "description", "readme", "license", "license-files", "authors"),
        *("maintainers", "keywords", "classifiers", "urls", "scripts", "gui-scripts"),
        *("entry-points", "entry_points", "author", "author_email", "url", "project_urls"),
        *("long_description", "long_description_content_type"),
    )
)
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
        found = [] if text.lstrip().startswith(_TEXTS) else _NAME.findall(text)
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
