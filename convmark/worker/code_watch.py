"""The code of a process: the files that it opens and imports, and the packages it imports.

Three witnesses, for none sees everything. An audit hook sees what Python opens, wherever it lies.
The kernel (`kernel_opens`, on Linux) sees what native code and child processes open in the folders
of the user's code, weights in HDF5 or TensorFlow's own formats among it. Wrappers around the
functions that read files in native code see those elsewhere. Modules that were imported before,
such as the zoo's, are found in `sys.modules`. Too many files make two codes look different where
they are the same, which costs a comparison; too few would make them look the same where they
differ.
"""

from __future__ import annotations

import ast
import contextlib
import csv
import functools
import hashlib
import importlib.metadata
import os
import re
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from convmark.core.backends import packages_shared
from convmark.core.installed import PACKAGES, is_installed
from convmark.core.model_name import PRESETS, ModelName
from convmark.worker.looked import Looked
from convmark.worker.model_files import files_of
from convmark.worker.opened import Opened
from convmark.worker.protocol import file_digest

__all__ = ["CodeWatch", "installed_folders", "real_folder", "told_variables", "version_of"]

MOST_VARIABLES = 40
"""Read one by one: more are a copy of them all, as for a child process."""

_SYSTEM = ("/proc", "/sys", "/dev", "/run", "/etc", "/usr/lib", "/usr/share", "/lib", "/lib64")
"""Folders of the operating system, whose release the row tells."""

_MANAGED = ("/usr", "/opt")
"""Where package managers and installers put libraries."""
_OF_CUDA = re.compile(
    r"lib(cuda|cudart|cublas|cublasLt|cufft|cufile|cupti|curand|cusolver|cusparse|cudnn(_\w+)?|nccl|"
    r"nvrtc|nvrtc-builtins|nvJitLink|nvToolsExt|nvidia-[\w-]+)\.so"
)

_OWN_COLUMNS = {"convmark", *packages_shared()}
"""Packages whose versions the row tells in columns of their own."""

_HARMLESS = re.compile(
    r"HOME|PATH|PWD|OLDPWD|USER|LOGNAME|SHELL|TERM|COLUMNS|LINES|LANG|LC_.*|TZ|DISPLAY|TMPDIR|TEMP|"
    r"TMP|HOSTNAME|XDG_.*|PYTHON.*|PYTEST_.*|CONVMARK_.*|NO_COLOR|FORCE_COLOR"
)
"""Variables that say where things are, not what is computed."""
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH", re.IGNORECASE)
_PLAIN = re.compile(r"[\w.,:/+-]{1,40}")

Emit = Callable[..., None]


class CodeWatch:
    """Notes what the process opens, imports and reads of its environment, until `report`."""

    def __init__(self, model: str, folders: Sequence[str], left_out: Sequence[str] = ()) -> None:
        """Begin to watch; whatever cannot be watched is left to the other witnesses.

        Args:
            model: the name of the case's model; for package.module:builder the package counts as
                the user's own code even where it is installed, and a model's file does wherever
                it lies.
            folders: those that the user's code lies in.
            left_out: files and folders that are no code, such as the results.
        """
        name = ModelName.of(model)
        self._package = name.package
        self._model_file = name.file
        self._left_out = tuple(map(_real, left_out))
        self._zoo = _real(os.path.dirname(sys.modules["convmark_zoo"].__file__ or ""))
        self._names = {PRESETS} if name.is_preset else set()
        self._variables: dict[str, str | None] = {}
        self._users: dict[str, bool] = {}
        """Whether a file's code is the user's."""
        self._active = True
        self._began_ns = time.time_ns()
        own = [real for real in map(_real, folders) if self._is_own(real, "")]
        self._opened = Opened([*own, *filter(None, map(_repository, own))])
        self._looked = Looked(self._is_the_users)
        self._mapped = set(_mapped_files())  # of the other code of a duet
        sys.addaudithook(self._note)
        self._environ_class = os.environ.__class__
        os.environ.__class__ = _reading(self._environ_class, self._note_variable)

    def _note(self, event: str, arguments: Any) -> None:
        if not self._active:
            return
        if event == "import":
            if self._is_asked_by_the_user(sys._getframe(1)):
                self._names.add(str(arguments[0]).partition(".")[0])
        else:
            self._opened.note(event, arguments)
            self._looked.note(event, arguments)

    def _note_variable(self, name: Any, frame: FrameType) -> None:
        if isinstance(name, str) and self._is_asked_by_the_user(frame):
            self._variables[name] = os.environ._data.get(os.environ.encodekey(name))  # type: ignore[attr-defined]

    def _is_asked_by_the_user(self, frame: FrameType | None) -> bool:
        """Whether the nearest code that is not Python's own machinery is the user's."""
        while frame is not None and _is_machinery(frame.f_code.co_filename):
            frame = frame.f_back
        return frame is not None and self._is_the_users(frame)

    def _is_the_users(self, frame: FrameType) -> bool:
        """Whether a frame is of the user's own code."""
        file = frame.f_code.co_filename
        if file not in self._users:
            real = _real(file) if os.path.isabs(file) else ""
            self._users[file] = bool(real) and self._is_own(real, self._package)
        return self._users[file]

    def report(self, emit: Emit) -> None:
        """Stop watching and report the files with their digests, once; later calls do nothing.

        Where files may be missing, the event has the reason as `missed`: what ran is not known. Of
        the zoo alone nothing can be missing, for its modules are known and it reads no other file.
        """
        if not self._active:
            return
        read, written = self.close()
        there, looked, too_many = self._looked.close(
            lambda path: path not in written and self._is_own(path, self._package)
        )
        modules = self._own_modules()
        read |= modules | there | (set(_mapped_files()) - self._mapped)
        own = {path for path in read - written if self._is_own(path, self._package)}
        paths = sorted(own.union(files_of(self._model_file) if self._model_file else ()))
        digests = {path: found for path in paths if (found := file_digest(path)) is not None}
        files = [
            {"path": path, "size": size, "sha256": sha256}
            for path, (size, sha256) in digests.items()
        ]
        users = [path for path in digests if not _is_inside(path, (self._zoo,))]
        self._names |= {name for path in users for name in _imported_names(path)}
        zoo_alone = not (self._package or self._model_file or modules & set(users))
        missed = "" if zoo_alone else self._opened.missed or too_many
        missed = missed or self._changed(modules & set(digests) - self._opened.own_written)
        emit(
            "code",
            **({"missed": missed} if missed else {}),
            folder=os.getcwd(),
            sys_path=[_real(entry or os.getcwd()) for entry in sys.path],
            files=files,
            packages=_versions(self._names),
            environ=told_variables(self._variables, users),
            **({"looked": looked} if looked else {}),
        )

    def _changed(self, modules: Iterable[str]) -> str:
        """Say which module another program has changed since the watch began; empty for none.

        The digest is of what the file holds now. By its time of change, which nobody can set.
        """
        for path in sorted(modules):
            with contextlib.suppress(OSError):
                if self._began_ns <= os.stat(path).st_ctime_ns <= time.time_ns():
                    return f"{os.path.basename(path)} was changed while it ran"
        return ""

    def _own_modules(self) -> set[str]:
        """Return the files of imported modules, without those of folders that hold none that count.

        A framework has thousands, and to follow the links of each would take longer than a build.
        """
        own: dict[str, bool] = {}
        found = set()
        for path in _module_files():
            folder = os.path.dirname(path)
            if folder not in own:
                real = real_folder(folder)
                inside = os.path.join(real, "module.py")
                own[folder] = real in installed_folders() or self._is_own(inside, self._package)
            if own[folder]:
                found.add(_real(path))
        return found

    def close(self) -> tuple[set[str], set[str]]:
        """Stop watching; return what was read and what was written so far."""
        if not self._active:
            return set(), set()
        self._active = False
        os.environ.__class__ = self._environ_class
        self._looked.stop()
        return self._opened.close()

    def _is_own(self, path: str, package: str) -> bool:
        """Whether a file counts: it is the user's, or the zoo's, and no part of an installation."""
        if _is_inside(path, self._left_out) or path.endswith(".pyc") or "/__pycache__/" in path:
            return False
        if _is_inside(path, (self._zoo,)):
            return True
        for root in installed_folders():
            if _is_inside(path, (root,)):
                top = os.path.relpath(path, root).split(os.sep)[0]
                return bool(package) and top in (package, f"{package}.py")
        return not _is_inside(path, _not_code())


def _real(path: str) -> str:
    return os.path.realpath(path)


def real_folder(folder: str) -> str:
    """Return a folder with its symbolic links followed, asking for each of its parents once.

    A framework has modules in a thousand folders, which share all but their last parts.
    """
    return _followed(folder) if os.path.isabs(folder) else _real(folder)


@functools.cache
def _followed(folder: str) -> str:
    parent, name = os.path.split(folder)
    if name in ("", ".", "..") or os.path.islink(folder):
        return _real(folder)
    return os.path.join(_followed(parent), name)


def _repository(folder: str) -> str | None:
    """Return the top folder of the repository that a folder lies in."""
    while folder != os.path.dirname(folder):
        if os.path.exists(os.path.join(folder, ".git")):
            return folder
        folder = os.path.dirname(folder)
    return None


def _is_inside(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(folder + os.sep) for folder in folders)


@functools.cache
def _not_code() -> tuple[str, ...]:
    """Python itself, the operating system, the harness and temporary files."""
    own = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    installed = installed_folders()
    standard = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
    prefixes = (sys.prefix, sys.base_prefix, sys.exec_prefix)
    parts = ("bin", "include", "lib", "lib64", "share")
    python = [os.path.join(prefix, part) for prefix in prefixes for part in parts]
    logs = os.path.dirname(os.environ.get("TMPDIR", ""))  # the harness's, which gave the variable
    found = [*_SYSTEM, own, *standard, *python, os.environ.get("TMPDIR", "")]
    found += [logs] if os.path.basename(logs).startswith("convmark-") else []
    return tuple(_real(folder) for folder in found if folder and _real(folder) not in installed)


@functools.cache
def installed_folders() -> tuple[str, ...]:
    """The folders of installed packages."""
    named = [sysconfig.get_path(name) for name in ("purelib", "platlib")]
    found = [*map(_real, named), *filter(_holds_packages, map(_real, sys.path))]
    return tuple(dict.fromkeys(found))


def _holds_packages(folder: str) -> bool:
    return os.path.basename(folder) in PACKAGES and is_installed(Path(folder))


@functools.cache
def _is_machinery(file: str) -> bool:
    """Whether a frame is of the import system, of `os` or of this module: it asks for another.

    Code without a file, as `exec` runs it, asks for the code that called it.
    """
    if file.startswith("<"):
        return True
    name = os.path.basename(file)
    place = os.path.dirname(os.path.abspath(file))
    standard = os.path.dirname(os.path.abspath(os.__file__))
    of_python = place in (standard, os.path.join(standard, "importlib"))
    machinery = ("os.py", "_collections_abc.py", "__init__.py", "_bootstrap.py", "runpy.py")
    return file == __file__ or (of_python and name in machinery)


def _module_files() -> Iterator[str]:
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str):
            yield file


def _mapped_files(maps: str = "/proc/self/maps") -> Iterator[str]:
    """Yield the files in this process's memory, such as libraries, where the kernel lists them.

    One that the process writes to, as a database's, is none. Nor is a library of a package manager
    or of CUDA, whose version the row tells: which of them are loaded late is the framework's
    choice. The kernel sees those of the user's folders, wherever they lie, as they are opened.
    """
    with contextlib.suppress(OSError), open(maps) as lines:
        for line in lines:
            words = line.rstrip("\n").split(maxsplit=5)
            path = words[5] if len(words) > 5 else ""
            is_written = words[1].startswith("rw") and words[1].endswith("s")
            if not path.startswith("/") or path.endswith(" (deleted)") or is_written:
                continue
            is_managed = _is_inside(path, _MANAGED) and not _is_inside(path, installed_folders())
            if not is_managed and not _OF_CUDA.match(os.path.basename(path)):
                yield path


def _tree_of(path: str) -> ast.AST:
    """Return the syntax tree of a Python file; an empty one of any other."""
    try:
        if path.endswith(".py"):
            with open(path, "rb") as file:
                return ast.parse(file.read())
    except (OSError, SyntaxError, ValueError, RecursionError):
        pass
    return ast.Module(body=[], type_ignores=[])


def _imported_names(path: str) -> set[str]:
    """Return the top names that a Python file imports, wherever in it."""
    names = set()
    for node in ast.walk(_tree_of(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def _versions(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of the distributions that give these modules, by distribution."""
    known = _OWN_COLUMNS | set(sys.stdlib_module_names)
    found = {}
    for name in sorted(set(names) - known):
        module = sys.modules.get(name)
        file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), "")
        if _is_inside(_real(file), installed_folders()):
            for distribution in _distributions(name):
                with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                    found[distribution] = version_of(distribution)
    return {name: version for name, version in found.items() if name not in _OWN_COLUMNS}


def version_of(distribution: str) -> str:
    """Return its version, with a hash of its files where it was installed from an address.

    What a branch or a folder holds may change while its version stays.
    """
    about = importlib.metadata.distribution(distribution)
    if not about.read_text("direct_url.json"):
        return about.version
    rows = csv.reader((about.read_text("RECORD") or "").splitlines())
    files = [row[:2] for row in rows if len(row) > 1 and row[1] and ".dist-info/" not in row[0]]
    digest = hashlib.sha256(repr(sorted(files)).encode()).hexdigest()
    return f"{about.version}@{digest[:8]}"


def _distributions(module: str) -> list[str]:
    """Return the distributions that give a module: that of its name, or those that list it."""
    for name in (module, module.replace("_", "-")):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return [importlib.metadata.distribution(name).metadata["Name"]]
    return sorted(set(importlib.metadata.packages_distributions().get(module, ())))


def _words(path: str) -> set[str]:
    """Return the words in the texts of a Python file that may begin a variable's name."""
    found = set()
    for node in ast.walk(_tree_of(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= set(re.findall(r"[A-Za-z][A-Za-z0-9_]{2,}", node.value))
    return found


def _reading(base: type, note: Callable[[Any, FrameType], None]) -> type:
    """Return the class of `os.environ` with a witness of what is looked up."""

    class Reading(base):  # type: ignore[misc]  # os._Environ, which has no public name
        def __getitem__(self, key: Any) -> Any:
            note(key, sys._getframe(1))
            return super().__getitem__(key)

        def __contains__(self, key: Any) -> bool:
            note(key, sys._getframe(1))
            return bool(super().__contains__(key))

    return Reading


def told_variables(variables: Mapping[str, Any], users: Sequence[str]) -> dict[str, str]:
    """Return the variables that were read and are set, a long or secret value as its hash.

    Where so many were read that the environment was copied as a whole, those count that begin with
    a word between quotes in the user's own files.
    """
    told: dict[str, str] = {}
    copied = len(variables) > MOST_VARIABLES
    words = tuple(set().union(*map(_words, users))) if copied else ("",)
    for name, raw in sorted(variables.items()):
        if not name.startswith(words):
            continue
        value = os.fsdecode(raw) if raw is not None else ""
        if not value or _HARMLESS.fullmatch(name):
            continue
        plain = _PLAIN.fullmatch(value) and not _SECRET.search(name)
        told[name] = value if plain else f"sha256:{hashlib.sha256(value.encode()).hexdigest()[:8]}"
    return told
