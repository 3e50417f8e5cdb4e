"""Two codes in one process: each has its own modules, `sys.path`, working folder and zoo.

Settings that one of them changes for the process are settings of the other, too. Such codes cannot
share a process: a setting would slow both, or speed both up, and no ratio of the two would tell.
Settings of Python that each code can have for itself are not asked here.

What the user's code imports is in `sys.modules` only while its side is active: while it is
imported, built, traced or stepped through. The standard library, installed packages, the framework
and this harness are shared. So two versions of one package live side by side, lazy imports lead
each to its own, and a counter of a module counts for one side alone.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.machinery
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from convmark.core.backends import packages_shared
from convmark.worker.bootstrap import load_package
from convmark.worker.code_watch import real_folder
from convmark.worker.framework_functions import framework_folders, some_of
from convmark.worker.moved import Mover, is_inside
from convmark.worker.packages import installed_folders
from convmark.worker.process_state import process_settings

ZOO = "convmark_zoo"
_NEVER_OWN = {"__main__", "convmark", *packages_shared()}
"""Their names are shared whatever folder they come from: the harness holds them already."""
_HARNESS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


_OWN_OF_A_SIDE = {"PWD", "OLDPWD"}
_OF_A_COMPILER = {"python_threads", "child_processes"}

Settings = Mapping[str, str]
Environ = dict[str, str]


@dataclass(frozen=True)
class Code:
    """Where the code of one side lies."""

    name: str
    folder: str
    """The working folder."""
    import_roots: Sequence[str]
    """Folders that are searched before all others, in order."""
    zoo: str
    """The folder of the zoo."""
    moved: Mapping[str, str]
    """Folders whose place this code's tree takes, and the tree."""

    @staticmethod
    def of(name: str, fields: Mapping[str, Any]) -> Code:
        """Return the code that a request describes; what it leaves out is this process's own."""
        folder = os.path.realpath(fields.get("folder") or os.getcwd())
        zoo = fields.get("zoo") or os.path.dirname(sys.modules[ZOO].__file__ or "")
        roots = [os.path.realpath(root) for root in fields.get("import_roots") or [folder]]
        return Code(name, folder, roots, os.path.realpath(zoo), dict(fields.get("moved") or {}))

    @property
    def places(self) -> list[str]:
        """The folders that its files lie in."""
        found = [self.folder, *self.import_roots, self.zoo, *self.moved.values()]
        return list(dict.fromkeys(found))


class Tables:
    """The module tables of several codes; a context manager that undoes them all."""

    def __init__(self, codes: Iterable[Code]) -> None:
        """Put aside what this process has already imported from the codes' folders."""
        self._codes = list(codes)
        self._before = sys.modules.copy(), list(sys.path), os.getcwd(), list(sys.meta_path)
        self._places = [place for code in self._codes for place in code.places]
        aside = [name for name, module in self._before[0].items() if self._is_aside(name, module)]
        for name in aside:
            del sys.modules[name]
        shared = {name.partition(".")[0] for name in sys.modules} | _NEVER_OWN
        self._tables = {code.name: self._table(code, shared) for code in self._codes}

    def __enter__(self) -> Tables:
        return self

    def __exit__(self, *error: object) -> None:
        modules, path, folder, finders = self._before
        sys.modules.update(modules)
        sys.path[:], sys.meta_path[:] = path, finders
        os.chdir(folder)

    def __getitem__(self, name: str) -> ModuleTable:
        return self._tables[name]

    def _is_aside(self, name: str, module: ModuleType) -> bool:
        top = name.partition(".")[0]
        if top == ZOO:
            return True
        return top not in _NEVER_OWN and any(map(self.is_users, _paths(module)))

    def _table(self, code: Code, shared: set[str]) -> ModuleTable:
        """Return the table of a code, which searches its own folders first, and none of another."""
        mover = Mover(code.moved) if code.moved else None
        others = [entry or os.getcwd() for entry in sys.path]
        entries = [*code.import_roots, *(mover.moved_path(others) if mover else others)]
        path = [
            entry
            for entry in dict.fromkeys(entries)
            if self.foreign_file(code.name, [os.path.realpath(entry)]) is None
        ]
        return ModuleTable(code, shared, path, [mover] * bool(mover))

    def is_users(self, path: str) -> bool:
        """Whether an absolute path lies in a folder of a side and is no part of an installation."""
        if not os.path.isabs(path):
            return False
        real = _real(os.path.join(path, "") if os.path.isdir(path) else path)
        return any(is_inside(real, place) for place in self._places) and not is_shared(real)

    def is_of_a_side(self, path: str) -> bool:
        """Whether a real path lies in a folder of a side, or in one whose place its tree takes."""
        taken = (place for code in self._codes for place in code.moved)
        return any(is_inside(path, place) for place in (*self._places, *taken))

    def owner(self, path: str) -> str | None:
        """Return the name of a code that an absolute path is of; None for any other file.

        A framework in a folder that all codes have, as one on PYTHONPATH, is of none of them.
        """
        if not self.is_users(path):
            return None
        real = [_real(path)]
        found = [one.name for one in self._codes if self.foreign_file(one.name, real) is None]
        of_framework = any(is_inside(real[0], folder) for folder in framework_folders())
        return None if of_framework and len(found) == len(self._codes) else found[0]

    def foreign_file(self, name: str, files: Iterable[str]) -> str | None:
        """Return a file that lies in another side's folders and not in this one's; None without."""
        owners: dict[str, set[str]] = {}
        for code in self._codes:
            for place in code.places:
                owners.setdefault(place, set()).add(code.name)
        for file in files:
            around = [place for place in owners if is_inside(file, place)]
            if around and not is_shared(file) and name not in owners[max(around, key=len)]:
                return file
        return None


class ModuleTable:
    """The modules of one code, and what a process needs to import more of it."""

    def __init__(
        self, code: Code, shared: set[str], path: Sequence[str], finders: Sequence[Any]
    ) -> None:
        self.code = code
        self._shared = shared
        self._own: dict[str, ModuleType] = {}
        self._hidden: dict[str, ModuleType] = {}
        self._known: dict[str, ModuleType] = {}
        self._count = 0
        self._path = list(path)
        self._own_finders = [_OwnFinder(code), *finders]
        self._finders: list[Any] = list(self._own_finders)

    @contextlib.contextmanager
    def active(self, *, all_of_it: bool = True) -> Iterator[None]:
        """Have the process be this code's.

        Args:
            all_of_it: look for every change of `sys.modules` at the end; else only where their
                number has changed, which is cheap enough to be done around each turn.
        """
        self._enter(all_of_it)
        try:
            yield
        finally:
            self._leave(all_of_it)

    def load_zoo(self) -> None:
        """Load the code's own version of the zoo; the code must be active."""
        load_package(ZOO, self.code.zoo)

    def _enter(self, all_of_it: bool) -> None:
        os.chdir(self.code.folder)
        os.environ["PWD"] = self.code.folder
        self._shared_path, sys.path[:] = list(sys.path), self._path
        self._finders += [finder for finder in sys.meta_path if finder not in self._finders]
        sys.meta_path[:] = self._finders
        self._hidden = {name: sys.modules[name] for name in self._own if name in sys.modules}
        sys.modules.update(self._own)
        self._count = len(sys.modules)
        if all_of_it:
            self._known = sys.modules.copy()

    def _leave(self, all_of_it: bool) -> None:
        if all_of_it or len(sys.modules) != self._count:
            self._take_changes()
        self._path, sys.path[:] = list(sys.path), self._shared_path
        self._finders = list(sys.meta_path)
        sys.meta_path[:] = [finder for finder in self._finders if not self._is_my_finder(finder)]
        for name in self._own:
            sys.modules.pop(name, None)
        sys.modules.update(self._hidden)

    def _is_my_finder(self, finder: Any) -> bool:
        """Whether a finder is for this code alone; a shared package may have brought one in."""
        module = str(getattr(finder, "__module__", ""))
        return finder in self._own_finders or module in self._own

    def _take_changes(self) -> None:
        """Note which modules are this code's by now."""
        known = self._known
        changed = {
            name: module
            for name, module in sys.modules.copy().items()
            if known.get(name) is not module and name not in self._own
        }
        tops = {
            name.partition(".")[0]
            for name, module in changed.items()
            if name.partition(".")[0] not in self._shared and _is_own(module)
        }
        tops |= {name.partition(".")[0] for name in self._own} | {ZOO}
        for name, module in changed.items():
            top = name.partition(".")[0]
            if top in tops:
                self._own[name] = module
            elif name in known and _is_own(module):  # put in the place of a shared module
                self._own[name], self._hidden[name] = module, known[name]
            else:
                self._shared.add(top)
        for name in list(self._own):
            if name in sys.modules:
                self._own[name] = sys.modules[name]
            else:  # the code has taken it out
                del self._own[name]
                self._hidden.pop(name, None)


class _OwnFinder:
    """A finder before all others: what the code's folders hold wins over any other finder's."""

    def __init__(self, code: Code) -> None:
        self._places = code.places

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return where `sys.path` finds the module, if that is in a folder of the code."""
        if name in sys.builtin_module_names:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None:
            return None
        found = [os.path.join(folder, "") for folder in spec.submodule_search_locations or ()]
        found += [spec.origin] if spec.origin and spec.has_location else []
        for real in map(_real, found):
            if any(is_inside(real, place) for place in self._places) and not is_shared(real):
                return spec
        return None


def is_shared(path: str) -> bool:
    """Whether a file without symbolic links is of Python, of an installed package or of convmark.

    The zoo of a checkout is of no installation: each side has its own.
    """
    return any(is_inside(path, folder) for folder in _shared_folders())


@functools.cache
def _shared_folders() -> tuple[str, ...]:
    standard = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
    return (*installed_folders(), _HARNESS, *map(os.path.realpath, standard))


def _real(path: str) -> str:
    """Return the path with its folder's symbolic links followed."""
    folder, name = os.path.split(path)
    return os.path.join(real_folder(folder), name) if name else real_folder(folder)


def _paths(module: object) -> list[str]:
    """Return the file of a module, or the folders of a package that has none."""
    try:
        file = getattr(module, "__file__", None)
        if isinstance(file, str):
            return [file]
        return [os.path.join(folder, "") for folder in getattr(module, "__path__", None) or ()]
    except Exception:  # an object in a module's place may answer anything
        return []


def _is_own(module: object) -> bool:
    """Whether a module that a code has brought in is its own: from no installation, or made."""
    paths = _paths(module)
    if paths:
        return any(not is_shared(_real(path)) for path in paths)
    return getattr(module, "__spec__", None) is None


def process_wide(backend: Any) -> Settings:
    """Return the settings that hold for the whole process as text, by name."""
    intra, inter = backend.thread_counts()
    threads = {"intra_op_threads": str(intra), "inter_op_threads": str(inter)}
    found = {**process_settings(), **backend.settings(), **threads}
    if backend.has_compiler:
        found = {name: value for name, value in found.items() if name not in _OF_A_COMPILER}
    return found


def what_was_set(side: str, before: Settings, now: Settings, held: Iterable[str]) -> str | None:
    """Return in one line what a code has set for the whole process; None where nothing."""
    names = sorted((before.keys() & now.keys()) - set(held))
    pairs = [f"{name}={now[name]}" for name in names if before[name] != now[name]]
    if not pairs:
        return None
    return f"the {side} code changes settings of the process: {some_of(pairs)}"


def differing(*environs: Environ) -> str:
    """Return the names of the variables that are not the same in all; empty where all are."""
    names = set().union(*environs) - _OWN_OF_A_SIDE
    values = {name: {environ.get(name) for environ in environs} for name in names}
    return some_of(sorted(name for name, found in values.items() if len(found) > 1))
