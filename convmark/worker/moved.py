"""Redirects imports from one folder to another: from the repository to a commit's tree.

An installation that is editable leads to the user's folder by a path file, by a finder of its own
or by a link, before any folder of the tree is asked. So the answers of all finders are changed and
not their reasons.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import site
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from types import ModuleType


def move_imports(moved: Mapping[str, str]) -> None:
    """Have modules that would be imported from some folders be imported from others.

    What was imported from there before is forgotten. Installed packages and this harness stay, also
    where they lie in such a folder.

    Args:
        moved: folders without symbolic links, and what takes their place.
    """
    if not moved:
        return
    finder = Mover(moved)
    sys.path[:] = finder.moved_path(sys.path)
    for name, module in list(sys.modules.items()):
        if any(finder.moved(path) != path for path in _paths(module)):
            del sys.modules[name]
    sys.meta_path.insert(0, finder)
    importlib.invalidate_caches()


def _paths(module: ModuleType) -> list[str]:
    file = getattr(module, "__file__", None)
    found = [file] if isinstance(file, str) else list(getattr(module, "__path__", ()))
    return [path for path in found if isinstance(path, str)]


class Mover:
    """A finder before all others, which asks them and changes what they answer."""

    def __init__(self, moved: Mapping[str, str]) -> None:
        # the innermost first: a working tree may lie in another
        self._moved = sorted(moved.items(), key=lambda pair: -len(pair[0]))
        own = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        named = [
            sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")
        ]
        installed = [*named, *site.getsitepackages(), site.getusersitepackages()]
        stays = [own, *moved.values(), *installed]
        self._stays = [os.path.realpath(folder) for folder in stays if folder]
        self._lost: list[str] = []
        """Of `sys.path`: nothing takes their place, but what they hold may be links elsewhere."""

    def moved_path(self, path: Sequence[str]) -> list[str]:
        """Return the folders to search in, each once."""
        found = {folder: self.moved(folder) for folder in path}
        self._lost = [
            folder
            for folder, instead in found.items()
            if folder != instead and not os.path.exists(instead)
        ]
        return list(dict.fromkeys(found[folder] for folder in path if folder not in self._lost))

    def moved(self, path: str) -> str:
        """Return what takes the place of a path; itself where nothing does."""
        real = os.path.realpath(path or os.getcwd())
        if any(is_inside(real, folder) for folder in self._stays):
            return path
        for place, instead in self._moved:
            if is_inside(real, place):
                return os.path.normpath(os.path.join(instead, os.path.relpath(real, place)))
        return path

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return where a module comes from, as the import system asks.

        Raises:
            ModuleNotFoundError: it comes from a folder whose place is taken, and is not there.
        """
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find is not None and finder is not self else None
            if spec is not None:
                return self._changed(spec)
        if path is None and self._lost:
            spec = importlib.machinery.PathFinder.find_spec(name, self._lost)
            return None if spec is None else self._changed(spec)
        return None

    def _changed(self, spec: importlib.machinery.ModuleSpec) -> importlib.machinery.ModuleSpec:
        folders = spec.submodule_search_locations
        inside = None if folders is None else [self.moved(folder) for folder in folders]
        file = self.moved(spec.origin) if spec.has_location and spec.origin else spec.origin
        if file == spec.origin and (folders is None or inside == list(folders)):
            return spec
        found: importlib.machinery.ModuleSpec | None = None
        there = [folder for folder in inside or () if os.path.isdir(folder)]
        if file is None or not spec.has_location:  # a namespace: folders and no file
            found = importlib.machinery.ModuleSpec(spec.name, None, is_package=True)
            found.submodule_search_locations = there or list(folders or ())
        elif os.path.isfile(file):
            around = None if folders is None else there or [os.path.dirname(file)]
            found = importlib.util.spec_from_file_location(
                spec.name, file, submodule_search_locations=around
            )
        else:  # a module there may be a package here
            holds = os.path.dirname(file if folders is None else os.path.dirname(file))
            found = importlib.machinery.PathFinder.find_spec(spec.name, [holds])
        if found is None:
            raise ModuleNotFoundError(f"No module named {spec.name!r}", name=spec.name)
        return found


def is_inside(path: str, folder: str) -> bool:
    """Whether a path is the folder or lies in it; both absolute."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
