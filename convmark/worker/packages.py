"""Installed packages: where they lie, which a code imports, their versions, and edits of them."""

from __future__ import annotations

import ast
import base64
import contextlib
import csv
import functools
import hashlib
import importlib.metadata
import json
import os
import re
import sys
import sysconfig
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from convmark.core.backends import packages_shared
from convmark.core.installed import holds_packages, version_of

_OWN_COLUMNS = {"convmark", *packages_shared()}
"""Packages whose versions the row tells in columns of their own."""
_FRAMEWORKS = {"tf_keras", *_OWN_COLUMNS}
"""What asks for itself, whoever calls it: tf-keras stands for Keras where it is installed."""
_COMPILERS = _FRAMEWORKS - {"convmark", "numpy"}
"""Those that read later what they have compiled before."""
_OWN = os.path.dirname(os.path.abspath(__file__))
_STANDARD = os.path.dirname(os.path.abspath(os.__file__))
_IMPORTS = "<frozen importlib"
_OF_TOOLS = {"_distutils_hack", "_virtualenv", "coverage", "pytest_cov"}
"""What tools have every interpreter import as it starts, which decides nothing of what runs."""
_SYSTEM = ("/usr/lib", "/usr/lib64", "/usr/share")
"""Where the packages of the operating system lie, whose release the row tells."""
_ABOUT = (".dist-info", ".egg-info", ".egg")
"""How the names of the folders end that tell of a package, and of eggs, which hold it too."""
_INSTALLING_NS = 2_000_000_000
"""Within which files may be newer than the list that is written last."""


def is_inside(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(folder + os.sep) for folder in folders)


def installed_folders() -> tuple[str, ...]:
    return _installed_folders(tuple(sys.path))


@functools.cache
def _installed_folders(path: Sequence[str]) -> tuple[str, ...]:
    named = [sysconfig.get_path(name) for name in ("purelib", "platlib")]
    found = [
        *map(os.path.realpath, named),
        *(one for one in map(os.path.realpath, path) if holds_packages(Path(one))),
    ]
    return tuple(dict.fromkeys([*found, *(linked for one in found for linked in _linked(one))]))


def _linked(folder: str) -> Iterator[str]:
    """Yield the folders that packages' files are links to, as uv's `--link-mode symlink` has it."""
    for about in Path(folder).glob("*.dist-info/METADATA"):
        if about.is_symlink():
            yield str(about.resolve().parent.parent)


@functools.cache
def package_folder(folder: str, installed: Sequence[str]) -> str:
    """Return the folder of the installed package that a folder lies in; empty for none.

    Of the folder of all packages it is that folder, where packages of one file lie.

    Args:
        folder: without symbolic links.
        installed: the folders of installed packages.
    """
    for root in installed:
        if is_inside(folder, (root,)):
            return os.path.join(root, *folder[len(root) :].split(os.sep)[1:2])
    return ""


def asks_for(
    frame: FrameType | None, is_users: Callable[[FrameType], bool], *, while_imported: bool
) -> bool:
    """Whether a frame works for the user's code: it is its own, or of a library that it calls.

    What the framework and the harness ask for, they ask for themselves.

    Args:
        is_users: whether a frame is of the user's code.
        while_imported: whether a library works for the user while it is imported, too.
    """
    passed = False
    while frame is not None:
        file = frame.f_code.co_filename
        if _is_machinery(file):
            if passed and not while_imported and file.startswith(_IMPORTS):
                return False
        elif is_users(frame):
            return True
        elif _is_library(file):
            passed = True
        else:
            return False
        frame = frame.f_back
    return False


def of_a_framework_alone(frame: FrameType | None, is_users: Callable[[FrameType], bool]) -> bool:
    """Whether a framework is at work, as its compiler is, and no code of the user's has called it.

    Args:
        is_users: whether a frame is of the user's code.
    """
    found = False
    while frame is not None:
        if is_users(frame):
            return False
        found = found or _package_of(frame.f_code.co_filename) in _COMPILERS
        frame = frame.f_back
    return found


@functools.cache
def _is_library(file: str) -> bool:
    """Whether a file is of the standard library, or of a package that is no framework."""
    if package := _package_of(file):
        return package not in _FRAMEWORKS
    return is_inside(os.path.realpath(file), (os.path.realpath(_STANDARD),))


@functools.cache
def _package_of(file: str) -> str:
    """Return the top name of the installed package that a file is of; empty for none."""
    real = os.path.realpath(file)
    for root in installed_folders():
        if is_inside(real, (root,)):
            return os.path.relpath(real, root).split(os.sep)[0].partition(".")[0]
    return ""


@functools.cache
def _is_machinery(file: str) -> bool:
    """Whether a frame is of the import system, of `os` or of the worker's: it asks for another.

    Code without a file, as `exec` runs it, asks for the code that called it.
    """
    if file.startswith("<"):
        return True
    name = os.path.basename(file)
    place = os.path.dirname(os.path.abspath(file))
    of_python = place in (_STANDARD, os.path.join(_STANDARD, "importlib"))
    machinery = ("os.py", "_collections_abc.py", "__init__.py", "_bootstrap.py", "runpy.py")
    watches = name in ("code_watch.py", "packages.py", "variables.py") and place == _OWN
    return watches or (of_python and name in machinery)


def names_at_start() -> set[str]:
    """Return the top names that path files have every interpreter import as it starts.

    Those by which Python finds an editable installation are none: they say where its files lie.
    """
    names: set[str] = set()
    for path in (path for root in installed_folders() for path in Path(root).glob("*.pth")):
        with contextlib.suppress(OSError):
            for line in path.read_text(errors="replace").splitlines():
                if line.startswith(("import ", "import\t")):
                    names.update(_named_in(line))
    return {one for one in names - _OF_TOOLS if "editable" not in one and one in sys.modules}


def _named_in(line: str) -> Iterator[str]:
    """Yield the top names that a line imports, in the text of an `exec` too."""
    for whence, several in re.findall(r"(?:\bfrom\s+(\w[\w.]*)\s+)?\bimport\s+([\w., \t]+)", line):
        yield from (re.split(r"\W", one.strip())[0] for one in (whence or several).split(","))
    yield from re.findall(r"""__import__\(\s*["'](\w+)""", line)


def watched_names(note: Callable[[str, FrameType], None]) -> Callable[[], None]:
    """Have each module that is imported by a name in a text noted; return what ends that.

    No audit event tells of `importlib.import_module`, by which entry points and `pkgutil` go too.
    """
    bootstrap: Any = vars(importlib)["_bootstrap"]
    original = bootstrap._gcd_import

    @functools.wraps(original)
    def by_text(*arguments: Any, **named: Any) -> Any:
        module = original(*arguments, **named)
        note(str(getattr(module, "__name__", "")), sys._getframe(1))
        return module

    def end() -> None:
        if bootstrap._gcd_import is by_text:
            bootstrap._gcd_import = original

    bootstrap._gcd_import = by_text
    return end


def tree_of(path: str) -> ast.AST:
    """Return the syntax tree of a Python file; an empty one of any other."""
    try:
        if path.endswith(".py"):
            with open(path, "rb") as file:
                return ast.parse(file.read())
    except (OSError, SyntaxError, ValueError, RecursionError):
        pass
    return ast.Module(body=[], type_ignores=[])


def imported_names(path: str) -> set[str]:
    """Return the top names that a Python file imports, wherever in it."""
    names = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def versions_of(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of the distributions that give these modules, by distribution."""
    known = _OWN_COLUMNS | set(sys.stdlib_module_names)
    found = {}
    for name in sorted(set(names) - known):
        module = sys.modules.get(name)
        file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), "")
        if is_inside(os.path.realpath(file), installed_folders()):
            for distribution in _distributions(name):
                with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                    found[distribution] = version_of(distribution)
    return {name: version for name, version in found.items() if name not in _OWN_COLUMNS}


def _distributions(module: str) -> list[str]:
    """Return the distributions that give a module: that of its name, or those that list it."""
    for name in (module, module.replace("_", "-")):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return [importlib.metadata.distribution(name).metadata["Name"]]
    return sorted(set(_by_module(tuple(sys.path)).get(module, ())))


@functools.cache
def _by_module(path: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Return the distributions of each module on the path of imports; it takes half a second."""
    return importlib.metadata.packages_distributions()


_AS_IMPORTED: dict[str, bool] = {}
"""Whether a module's file was found edited once it had been imported."""


def edited_modules(paths: Collection[str]) -> set[str]:
    """Return the edited files among those of imported modules, each looked at once.

    What runs is what was imported: a later edit changes no module. A forked process inherits what
    is known of the modules that were imported before it.
    """
    new = [path for path in paths if path not in _AS_IMPORTED]
    edited = edited_files(new)
    _AS_IMPORTED.update((path, path in edited) for path in new)
    return {path for path in paths if _AS_IMPORTED[path]}


def edited_files(paths: Iterable[str]) -> set[str]:
    """Return the files of installed packages that are no longer as they were installed.

    They were written after their package was, and are not what its list of files says. A package
    without a list is known by its version alone; what somebody has copied there, without any
    package, is known by no version and counts too.

    Args:
        paths: files without symbolic links; those that lie elsewhere are left out.
    """
    by_top: dict[str, dict[str, list[str]]] = {root: {} for root in installed_folders()}
    for path in paths:
        for root, tops in by_top.items():
            if is_inside(path, (root,)) and not path.endswith(".pyc"):
                top = os.path.relpath(path, root).split(os.sep)[0].partition(".")[0]
                if not top.startswith("__editable__"):  # says where files lie, which are code
                    tops.setdefault(top, []).append(path)
                break
    found: set[str] = set()
    for root, tops in by_top.items():
        lists = _lists(root, tops)
        for top, files in tops.items():
            records = lists.get(top, ())
            if not records and _is_of_no_package(root, top):
                found.update(one for one in files if not _is_of_an_egg(root, one))
            for record in records:
                with contextlib.suppress(OSError):
                    found |= _edited(root, record, files)
    return found - _as_conda_installed(found) if found else found


def _is_of_no_package(root: str, top: str) -> bool:
    """Whether no package of a folder has the name of a module, nor says that it gives it.

    Packages of the operating system need not say it.
    """
    if top in _OWN_COLUMNS | _OF_TOOLS or is_inside(root, _SYSTEM):
        return False
    begins = f"../{top}"
    for about in Path(root).iterdir():
        if about.suffix in (".dist-info", ".egg-info"):
            if _plain(about.name.partition("-")[0].removesuffix(".egg")) == _plain(top):
                return False
            if top in _lines(about / "top_level.txt"):
                return False
            files = _lines(about / "installed-files.txt")
            if any(one.startswith((f"{begins}/", f"{begins}.")) for one in files):
                return False
    return True


def _lines(path: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").split()
    return []


def _is_of_an_egg(root: str, path: str) -> bool:
    """Whether a file tells of a package, or lies in an egg, which is known by its version."""
    return os.path.relpath(path, root).split(os.sep)[0].endswith(_ABOUT)


def _lists(root: str, tops: Collection[str]) -> dict[str, list[Path]]:
    """Return the lists of the packages that give modules: those of the same name, else all others.

    `packages_distributions` of the standard library would take a second.
    """
    if not tops or not os.path.isdir(root):
        return {}
    changed_ns = os.stat(root).st_mtime_ns  # whatever is installed or removed changes it
    by_name = _by_name(root, changed_ns)
    return {
        top: [by_name[_plain(top)]]
        if _plain(top) in by_name
        else _by_top(root, changed_ns).get(top, [])
        for top in tops
    }


@functools.cache
def _by_name(root: str, changed_ns: int) -> dict[str, Path]:
    """Return the list of each package by its plain name."""
    records = Path(root).glob("*.dist-info/RECORD")
    return {_plain(one.parent.name.partition("-")[0]): one for one in records}


@functools.cache
def _by_top(root: str, changed_ns: int) -> dict[str, list[Path]]:
    """Return the lists that name files of each module or folder."""
    found: dict[str, list[Path]] = {}
    for record in _by_name(root, changed_ns).values():
        with contextlib.suppress(OSError):
            for top in set(re.findall(rb"^([^/,.\n]+)[./]", record.read_bytes(), re.MULTILINE)):
                found.setdefault(os.fsdecode(top), []).append(record)
    return found


def _plain(name: str) -> str:
    """Return the name of a distribution, or of its folder, as one spelling of all."""
    return re.sub(r"[-_.]+", "_", name).lower()


def _edited(root: str, record: Path, files: Sequence[str]) -> set[str]:
    """Return those files that are not as a package's list says."""
    installed_ns = record.stat().st_mtime_ns + _INSTALLING_NS
    there = filter(os.path.isfile, files)
    later = [one for one in there if os.stat(one).st_mtime_ns > installed_ns]
    listed = _listed(record) if later else {}
    return {
        one
        for one in later
        if (wanted := listed.get(os.path.relpath(one, root))) and _digest(one) != wanted
    }


def _as_conda_installed(paths: Collection[str]) -> set[str]:
    """Return those files that are as conda has installed them, with its prefix in their text."""
    found = set()
    prefixes = dict.fromkeys(map(os.path.realpath, (sys.prefix, sys.base_prefix)))
    abouts = [(one, about) for one in prefixes for about in Path(one, "conda-meta").glob("*.json")]
    for prefix, about in abouts:
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            for one in json.loads(about.read_bytes())["paths_data"]["paths"]:
                path = os.path.join(prefix, one["_path"])
                wanted = one.get("sha256_in_prefix") or one.get("sha256")
                if path in paths and wanted and _sha256(path).hexdigest() == wanted:
                    found.add(path)
    return found


def _listed(record: Path) -> dict[str, str]:
    """Return the SHA-256 of each file in a list, in the list's own spelling."""
    rows = csv.reader(record.read_text(encoding="utf-8", errors="replace").splitlines())
    return {row[0]: row[1].removeprefix("sha256=") for row in rows if len(row) > 1 and row[1]}


def _digest(path: str) -> str:
    return base64.urlsafe_b64encode(_sha256(path).digest()).rstrip(b"=").decode()


def _sha256(path: str) -> Any:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read())
