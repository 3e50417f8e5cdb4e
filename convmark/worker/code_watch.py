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

import contextlib
import functools
import os
import re
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from convmark.core.model_name import PRESETS, ModelName
from convmark.worker.beside import CHANGES, Beside, is_to_write
from convmark.worker.host import give_back
from convmark.worker.looked import Looked, VariableWatch, told_variables
from convmark.worker.model_files import files_of
from convmark.worker.opened import Opened
from convmark.worker.packages import (
    asks_for,
    edited_files,
    edited_modules,
    imported_names,
    installed_folders,
    is_inside,
    names_at_start,
    of_a_framework_alone,
    package_folder,
    versions_of,
    watched_names,
)
from convmark.worker.protocol import file_digest, may_not_change

_SYSTEM = ("/proc", "/sys", "/dev", "/run", "/etc", "/usr/lib", "/usr/share", "/lib", "/lib64")
"""Folders of the operating system, whose release the row tells."""

_MANAGED = ("/usr", "/opt")
"""Where package managers and installers put libraries."""
_OF_CUDA = re.compile(
    r"lib(cuda|cudart|cublas|cublasLt|cufft|cufile|cupti|curand|cusolver|cusparse|cudnn(_\w+)?|nccl|"
    r"nvrtc|nvrtc-builtins|nvJitLink|nvToolsExt|nvidia-[\w-]+)\.so"
)
_OF_A_RUN = re.compile(r"[0-9]{4,}\..*")
"""Names of the harness's own files in the results."""

_OF_AUTOGRAPH = "__autograph_generated_file"
"""Temporary files that TensorFlow runs in place of the user's functions, rewritten."""

MOST_LATE = 1000
"""Files opened after the report that are noted."""
_ABOUT = re.compile(r"/(__pycache__|[^/]+\.(egg|dist)-info)/")
"""Folders that no person has written: byte code, and what installers tell of a package."""
_OF_MODULES = (".py", ".pyc")
"""Python opens them for its messages too; what is imported is known by the modules."""

Emit = Callable[..., None]


@dataclass
class Read:
    """What the cases of one process have read, which modules that they have imported may hold."""

    files: set[str] = field(default_factory=set)
    variables: dict[str, Any] = field(default_factory=dict)
    """With the values of then."""
    names: set[str] = field(default_factory=set)
    """Top names of modules that were imported, by a text too."""


class CodeWatch:
    """Notes what the process opens, imports and reads of its environment, until `report`."""

    def __init__(
        self,
        model: str,
        folders: Sequence[str],
        results: Sequence[str] = (),
        *,
        left_out: Sequence[str] = (),
        loaded_ns: int | None = None,
        read: Read | None = None,
    ) -> None:
        """Begin to watch; whatever cannot be watched is left to the other witnesses.

        Args:
            model: the name of the case's model; for package.module:builder the package counts as
                the user's own code even where it is installed, and a model's file does wherever
                it lies.
            folders: those that the user's code lies in.
            results: files and folders that the harness writes to; what the model itself asks for
                there is code all the same.
            left_out: what the worker itself reads.
            loaded_ns: when what is imported by now was imported, by `time.time_ns`; by default now.
            read: by earlier cases of the process; takes what this one reads.
        """
        self._read = read or Read()
        name = ModelName.of(model)
        self._package = name.package
        self._model_file = name.file
        self._results = tuple(map(_real, results))
        self._left_out = tuple(map(_real, left_out))
        self._zoo = _real(os.path.dirname(sys.modules["convmark_zoo"].__file__ or ""))
        self._names = names_at_start() | ({PRESETS} if name.is_preset else set())
        self._users: dict[str, bool] = {}
        """Whether a file's code is the user's."""
        _followed.cache_clear()  # a link may lead elsewhere by now
        self._active = True
        self._folder = os.getcwd()  # the model's code may choose another
        self._began_ns = time.time_ns()
        self._loaded_ns = loaded_ns or self._began_ns
        self._earlier = set(_module_files())
        own = [real for real in map(_real, folders) if self._is_own(real, "", asked=True)]
        self._opened = Opened([*own, *filter(None, map(_repository, own))])
        self._looked = Looked(self._is_the_users)
        self._hosts: set[str] = set()
        """Machines that the user's code asks something of."""
        self._told: set[str] = set()
        """Names of the modules that were there when it reported."""
        self.listens = True
        """Whether what is opened after the report is of this code: of two one has its turn."""
        self._known: set[str] | None = None
        """Files that were read or written before the report; None where no other one counts."""
        self._late: dict[str, bool] = {}
        """Whether a file that was opened after it was first written."""
        self._mapped = set(_mapped_files())  # of the framework, and of the other code of a duet
        self._beside = Beside(folders, lambda path: self._is_own(path, self._package, asked=True))
        sys.addaudithook(self._note)
        self._end_names = watched_names(self._note_name)
        self._variables = VariableWatch(
            lambda frame: asks_for(frame, self._is_the_users, while_imported=False)
        )

    def _note(self, event: str, arguments: Any) -> None:
        if event in CHANGES and self.listens:
            self._beside.keep(event, arguments)
        if not self._active:
            is_noted = event == "open" and self.listens and self._known is not None
            if is_noted and not of_a_framework_alone(sys._getframe(1), self._is_the_users):
                self._note_late(*arguments)
            return
        if event == "import":
            self._note_name(str(arguments[0]), sys._getframe(1))
        elif event == "socket.getaddrinfo":
            if asks_for(sys._getframe(1), self._is_the_users, while_imported=False):
                self._hosts.add(str(arguments[0]))
        else:
            self._opened.note(event, arguments)
            self._looked.note(event, arguments)

    def _note_late(self, path: Any, mode: Any, flags: Any) -> None:
        if isinstance(path, (str, bytes, os.PathLike)) and len(self._late) < MOST_LATE:
            real = os.path.abspath(os.fsdecode(path))
            self._late.setdefault(real, is_to_write(mode, flags))

    def _note_name(self, module: str, frame: FrameType) -> None:
        name = module.partition(".")[0]
        if name not in self._names and (
            _reads_a_model(frame) or asks_for(frame, self._is_the_users, while_imported=True)
        ):
            self._names.add(name)

    def _is_the_users(self, frame: FrameType) -> bool:
        file = frame.f_code.co_filename
        if file not in self._users:
            real = _real(file) if os.path.isabs(file) else ""
            own = bool(real) and self._is_own(real, self._package, asked=True)
            self._users[file] = own or os.path.basename(file).startswith(_OF_AUTOGRAPH)
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
            lambda path: path not in written and self._is_own(path, self._package, asked=True),
            lambda path: path not in written and self._is_own(path, self._package),
        )
        modules, installed = self._modules()
        installed |= set(filter(_is_installed, self._mapped))
        asked = self._opened.asked | modules | there
        rewritten = self._opened.rewritten
        read |= asked | (set(_mapped_files()) - self._mapped)
        own = {
            path
            for path in (read - written).union(rewritten)
            if self._is_own(path, self._package, asked=path in asked)
        }
        self._read.files |= own
        self._read.variables |= self._variables.read
        own |= self._read.files
        edited = (edited_files(read - installed) | edited_modules(installed)) - own
        of_model = set(files_of(self._model_file) if self._model_file else ())
        paths = sorted(own.union(edited, of_model))
        told = ((path, rewritten.get(path) or file_digest(path)) for path in paths)
        digests = {path: found for path, found in told if found is not None}
        files = [
            {"path": path, "size": size, "sha256": sha256}
            for path, (size, sha256) in digests.items()
        ]
        users = [path for path in digests if not is_inside(path, (self._zoo,))]
        self._names |= {name for path in users for name in imported_names(path)}
        self._read.names |= self._names
        zoo_alone = not (self._package or self._model_file or modules & set(users))
        missed = "" if zoo_alone else self._opened.missed or too_many
        changed = modules.union(edited, of_model) & set(digests) - self._opened.own_written
        missed = missed or self._changed(changed)
        if refused := self._beside.refused:
            missed, self._beside.refused = missed or may_not_change(refused), ""
        emit(
            "code",
            **({"missed": missed} if missed else {}),
            folder=self._folder,
            sys_path=[_real(os.path.join(self._folder, entry)) for entry in sys.path],
            files=files,
            packages=versions_of(self._read.names),
            environ=told_variables(self._read.variables, users),
            **({"looked": looked} if looked else {}),
            **({"hosts": sorted(self._hosts)} if self._hosts else {}),
        )
        self._told = set(sys.modules)
        self._known = None if zoo_alone else {*paths, *written}

    def late(self) -> str:
        """Return a file of the user's code that was imported or read after the report, or nothing.

        But for one that was read before too, or that the code has written itself.
        """
        new = set(sys.modules) - self._told if self._told else ()
        files = (getattr(sys.modules.get(name), "__file__", None) for name in new)
        found = (_real(one) for one in files if isinstance(one, str))
        noted = list(self._late.items())  # another thread may open files meanwhile
        opened = (_real(path) for path, is_written in noted if not is_written)
        data = (
            one
            for one in opened
            if one not in (self._known or ()) and not one.endswith(_OF_MODULES)
            if os.path.isfile(one)
        )
        own = (one for one in (*found, *data) if self._is_own(one, self._package, asked=True))
        return min(own, default="")

    def told_late(self) -> dict[str, str]:
        """Return the fields of an event that tell what it did after the report, where it did."""
        told = {"late": self.late(), "refused": self._beside.refused}
        return {name: path for name, path in told.items() if path}

    def _changed(self, files: Iterable[str]) -> str:
        """Say which file another program has changed since it was read; empty for none.

        The digest is of what the file holds now. By its time of change, which nobody can set.
        """
        for path in sorted(files):
            since_ns = self._loaded_ns if path in self._earlier else self._began_ns
            with contextlib.suppress(OSError):
                if since_ns <= os.stat(path).st_ctime_ns <= time.time_ns():
                    return f"{os.path.basename(path)} was changed while it ran"
        return ""

    def _modules(self) -> tuple[set[str], set[str]]:
        """Return the files of imported modules: those that count, and those that are installed.

        A framework has thousands, and to follow the links of each would take longer than a build.
        """
        own: dict[str, bool] = {}
        counting, installed = set(), set()
        for path in _module_files():
            real, package = _place(os.path.dirname(path))
            folder = package or real
            if folder not in own:
                inside = os.path.join(folder, "module.py")
                top = folder in installed_folders()
                own[folder] = top or self._is_own(inside, self._package, asked=True)
            if own[folder]:
                counting.add(_real(path))
            if package:
                installed.add(os.path.join(real, os.path.basename(path)))
        return counting, installed

    def close(self) -> tuple[set[str], set[str]]:
        """Stop watching; return what was read and what was written so far."""
        if not self._active:
            return set(), set()
        self._active = False
        self._end_names()
        self._variables.stop()
        self._looked.stop()
        return self._opened.close()

    def _is_own(self, path: str, package: str, *, asked: bool = False) -> bool:
        """Whether a file counts: it is the user's, or the zoo's, and no part of an installation.

        Args:
            asked: whether the process itself has asked for it.
        """
        if is_inside(path, self._left_out) or _ABOUT.search(path):
            return False
        of_a_run = not asked or _OF_A_RUN.fullmatch(os.path.basename(path))
        if of_a_run and is_inside(path, self._results):
            return False
        if is_inside(path, (self._zoo,)):
            return True
        for root in installed_folders():
            if is_inside(path, (root,)):
                top = os.path.relpath(path, root).split(os.sep)[0]
                return bool(package) and top in (package, f"{package}.py")
        return not is_inside(path, _not_code())


def _reads_a_model(frame: FrameType) -> bool:
    """Whether Keras imports what a saved model names, for the user whoever has called it."""
    asks = frame.f_back
    return asks is not None and asks.f_code.co_filename.endswith("serialization_lib.py")


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


def _place(folder: str) -> tuple[str, str]:
    """Return a folder without links, and that of the installed package it lies in, or nothing."""
    real = real_folder(folder)
    return real, package_folder(real, installed_folders())


@functools.cache
def look_at_modules(number: int) -> None:
    """Look at the installed modules imported so far, for all processes forked from this one.

    Args:
        number: of the modules by now: where it stays, nothing is done again.
    """
    places = ((path, *_place(os.path.dirname(path))) for path in _module_files())
    edited_modules(
        {
            *(os.path.join(real, os.path.basename(path)) for path, real, found in places if found),
            *filter(_is_installed, _mapped_files()),
        }
    )
    give_back()


def _is_installed(path: str) -> bool:
    return is_inside(path, installed_folders())


def _repository(folder: str) -> str | None:
    while folder != os.path.dirname(folder):
        if os.path.exists(os.path.join(folder, ".git")):
            return folder
        folder = os.path.dirname(folder)
    return None


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
            is_managed = is_inside(path, _MANAGED) and not is_inside(path, installed_folders())
            if not is_managed and not _OF_CUDA.match(os.path.basename(path)):
                yield path
