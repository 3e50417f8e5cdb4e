"""The tree of a side: a folder in place of the user's repository, from which all code must come.

A side runs the code of its own tree: it starts in the same place there as the user stands in, and
imports from the same folders of it. What the side opens all the same from the repository's other
folders would be another side's code, so it ends the comparison with the file's name.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, Protocol

import convmark
from convmark.compare.live.worktree import (
    at_commit,
    changed_by_filter,
    files_below,
    ignored,
    pointer,
    repository_of,
    resolve_here,
    standing_in,
    submodules,
    working_trees,
)
from convmark.core.errors import ConvmarkError
from convmark.core.git import Git
from convmark.core.installed import PACKAGES, TREE_PREFIX, in_environment
from convmark.core.text import listed
from convmark.interpreter import import_roots, zoo_folder
from convmark.results.code.manifest import HERE, ZOO, Roots, code_of
from convmark.results.code.of_run import changed_projects, folders_below, other_copy

_HARNESS = Path(convmark.__file__).resolve().parent

_MODULE = re.compile(r"No module named '([\w.]+)'|cannot import name '(\w+)' from '([\w.]+)'")
_WORD = re.compile(r"""[^\s'"`,;=()\[\]<>]+""")
_NAME = re.compile(r"\w+")
MOST_NAMED = 3
_OF_TOOLS = frozenset(("__init__.py", "conf.py", "conftest.py", "noxfile.py", "setup.py"))
"""Names that files of any two repositories may have."""


class OwnCode(Protocol):
    """The code that a side may run, and no other."""

    def check(self, event: Mapping[str, Any]) -> None:
        """Check a worker's event `code`; raise `ForeignCode` where it ran other code."""

    def explained(self, message: str) -> str:
        """Return why the side failed, with what its code lacks."""

    def settings(self, environ: Mapping[str, str]) -> dict[str, Any]:
        """Return how an `Interpreter` is made that runs this code."""

    def hash_of(self, event: Mapping[str, Any]) -> str:
        """Return the hash of the code that a worker's event `code` tells of."""


class ForeignCode(ConvmarkError):
    """A side runs code that is not its own tree's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A folder that stands for a repository: as of a commit, or the user's own as it is."""

    name: str
    """The side in a message."""
    root: Path
    """The folder, without symbolic links."""
    commit: str
    """In full; empty for the files as they are."""
    repository: Path
    """The user's own working tree, without symbolic links."""
    places: tuple[Path, ...]
    """All working trees of the repository, without symbolic links."""

    def moved(self, path: Path) -> Path:
        """Return what stands for a path of the repository here; any other path is itself."""
        place = self._place(path)
        return self.root / path.relative_to(place) if place is not None else path

    def settings(self, environ: Mapping[str, str]) -> dict[str, Any]:
        """Return how an `Interpreter` is made that runs this tree's code.

        Raises:
            ForeignCode: the models would come from another working tree, or from another clone,
                than the user stands in.
        """
        stands = Path.cwd().resolve()
        place = self._place(stands)
        if other := other_clone(self.repository, stands):
            raise ForeignCode(f"{self.name}: {of_clones(self.repository, other)}")
        if not self.commit:
            if place not in (None, self.repository):
                raise ForeignCode(
                    f"{self.name}: the model comes from {self.repository}, but the working folder "
                    f"is in {place}, another working tree of the same repository; install that "
                    f"one, or start in {self.repository}"
                )
            return {"environ": dict(environ)}
        folder = self.moved(stands) if place is not None else self.root
        folder.mkdir(parents=True, exist_ok=True)  # the user may stand in an untracked folder
        given = {**environ, "PWD": str(folder)}
        if given.get("PYTHONPATH"):
            entries = given["PYTHONPATH"].split(os.pathsep)
            moved = [str(self.moved(Path(entry).resolve())) for entry in entries]
            given["PYTHONPATH"] = os.pathsep.join(moved)
        return {
            "folder": folder,
            "import_roots": [self.moved(root) for root in import_roots()],
            "moved": dict.fromkeys(map(str, self.places), str(self.root)),
            "environ": given,
            **({"zoo": self.moved(zoo)} if self._place(zoo := zoo_folder().resolve()) else {}),
        }

    def _place(self, path: Path) -> Path | None:
        """Return the working tree that holds a path without symbolic links; the innermost one.

        An environment in a working tree is no part of the repository.
        """
        if self.commit and path.is_relative_to(self.root):
            return None
        around = [
            place
            for place in self.places
            if path.is_relative_to(place) and not in_environment(path, place)
        ]
        return max(around, key=lambda place: len(place.parts), default=None)

    # -- the rule ----------------------------------------------------------------------------------

    def check(self, event: Mapping[str, Any]) -> None:
        """Check that a worker has run the tree's code.

        Args:
            event: a worker's `code`: files by their real path, and distributions with versions.
        """
        paths = [Path(file["path"]) for file in event["files"]]
        for path in paths:
            if not path.is_relative_to(_HARNESS) and (reason := self._foreign(path)):
                raise ForeignCode(f"{self.name}: {reason}")
        packages = event.get("packages") or {}
        for distribution, version in packages.items():
            for project in changed_projects(
                [distribution], self.root, self.repository, self.commit or "HEAD"
            ):
                raise ForeignCode(
                    f"{self.name}: {distribution} {version} is an installed copy, while the "
                    f"repository has the project itself ({project}); install the repository's own: "
                    "pip install -e"
                )
        if self.commit:
            own = [path for path in paths if path.is_relative_to(self.root)]
            for path, driver in changed_by_filter(self.repository, self.root, own).items():
                raise ForeignCode(
                    f"{self.name}: {path.relative_to(self.root)} is the file as git stores it, "
                    f"because the filter {driver!r} is not run; compare with a model that does "
                    "not need the file"
                )

    def lacked(self, own: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
        """Say which file the commit's code asks for that only the other side has; empty for none.

        What git ignores, such as what is built or generated, and what a submodule holds are in no
        tree of a commit. Code that goes another way without them is not what the commit ran.

        Args:
            own: the event `code` of this side.
            theirs: that of the files as they are.
        """
        unknown = self.without(theirs)
        if not unknown:
            return ""
        words = {word for file in own["files"] for word in _words_of(Path(file["path"]))}
        listed = set(own.get("looked") or ())
        for path in unknown:
            stem = (path.parent if path.stem == "__init__" else path).name.partition(".")[0]
            here = self.root / path
            if stem in words or not listed.isdisjoint((str(here), str(here.parent))):
                return (
                    f"today's code runs {path}, which the commit's code names too but continues "
                    f"without: it is not in the commit, {self._lack(path)}"
                )
        return ""

    def without(self, theirs: Mapping[str, Any]) -> list[Path]:
        """Return what the files as they are have run, and no tree of a commit can have."""
        paths = [Path(file["path"]).resolve() for file in theirs["files"]]  # links that git ignores
        places = {path: place for path in paths if (place := self._place(path)) is not None}
        found = {path.relative_to(place) for path, place in places.items()}
        gone = {path for path in found if not (self.root / path).exists()}
        if not self.commit or not gone:
            return []
        modules = submodules(self.repository, self.commit)
        unknown = {path for path in gone if any(path.is_relative_to(one) for one in modules)}
        return sorted(unknown | ignored(self.repository, gone - unknown))

    def hash_of(self, event: Mapping[str, Any]) -> str:
        """Return the hash of what a worker has run, wherever the tree lies."""
        zoo = self.moved(zoo_folder().resolve())
        return code_of(event, Roots({ZOO: zoo, HERE: self.root})).hash

    def _foreign(self, path: Path) -> str:
        """Return why a file is not of this tree, empty where it is, or is not the repository's."""
        place = self._place(path)
        own = path.is_relative_to(self.root) and (self.commit or place == self.root)
        packages = [index for index, part in enumerate(path.parts) if part in PACKAGES]
        if place is None and not own and packages:
            copy = self._copy_of(path.parts[packages[-1] + 1])
            return copy and f"{path} is an installed copy of {copy}; pip install -e takes its place"
        if own:
            if self.commit and pointer(path):
                return f"{path.relative_to(self.root)} {self._no_content}"
            return ""
        if place is None:
            return self._of_elsewhere(path)
        relative = path.relative_to(place)
        if not self.commit:
            return (
                f"{path} belongs to another working tree of the repository, not to "
                f"{self.repository}"
            )
        if (self.root / relative).exists():
            return (
                f"{path} was opened in place of the commit's own {relative}; use a path "
                "relative to the module or to the working folder, not an absolute one"
            )
        return f"{path} is not in the commit, {self._lack(relative)}"

    def _of_elsewhere(self, path: Path) -> str:
        """Return why a file outside the repository is not a side's own, empty where it may be."""
        if any(part.startswith(TREE_PREFIX) for part in path.parts):
            return f"{path} is of the other side's files; name files by relative paths"
        if path.is_relative_to(zoo_folder().resolve()):
            return ""
        copy = other_copy(path.parent, self.root)
        project = f"{copy}, another copy of a project of {self.repository}"
        return f"{path} is of {project}; pip install -e takes the repository's own" * bool(copy)

    @property
    def _no_content(self) -> str:
        return (
            "is a Git LFS pointer, whose contents this clone does not have; "
            f"git lfs fetch origin {self.commit[:12]}"
        )

    def _lack(self, relative: Path) -> str:
        for submodule in submodules(self.repository, self.commit):
            if relative.is_relative_to(submodule):
                return f"which holds no file of the submodule {submodule}"
        return "which does not have it: git ignores it or did not track it"

    def _copy_of(self, installed: str) -> str:
        """Return the repository's own of a name in site-packages, empty without one."""
        for root in _import_roots_of(self.root, installed):
            own = root / installed
            if own.with_suffix(".py").is_file() or own.is_dir():
                return str(own.relative_to(self.root))
        return ""

    # -- what a commit lacks -----------------------------------------------------------------------

    def explained(self, message: str) -> str:
        """Return why a side failed, with what it names that the commit does not have."""
        if not self.commit:
            return message
        lacking = dict.fromkeys(
            relative
            for relative in (*self._modules(message), *self._files(message))
            if (self.repository / relative).exists() and _is_empty(self.root / relative)
        )
        notes = [f"{path} is not in the commit, {self._lack(path)}" for path in lacking]
        empty = sorted(path for path in files_below(self.root) if pointer(path))
        notes += [f"{path.relative_to(self.root)} {self._no_content}" for path in empty]
        if len(notes) > MOST_NAMED:
            notes[MOST_NAMED:] = [f"and {len(notes) - MOST_NAMED} more"]
        return "; ".join([message, *notes])

    def _modules(self, message: str) -> Iterator[Path]:
        """Yield the user's files of the modules that a message misses."""
        for missing, name, package in _MODULE.findall(message):
            parts = (missing or f"{package}.{name}").split(".")
            for root in _import_roots_of(self.repository, parts[0]):
                for count in range(1, len(parts) + 1):
                    path = root.joinpath(*parts[:count])
                    built = (path.with_name(path.name + end) for end in EXTENSION_SUFFIXES)
                    for file in (path.with_suffix(".py"), path / "__init__.py", *built, path):
                        if file.exists():
                            yield file.relative_to(self.repository)
                            break

    def _files(self, message: str) -> Iterator[Path]:
        """Yield the paths that a message names, as they are in the repository."""
        stands = self.moved(Path.cwd().resolve())
        start = stands if stands.is_relative_to(self.root) else self.root
        for word in _WORD.findall(message):
            path = Path(os.path.normpath(start / word.strip(".:") if word else start))
            if path.is_relative_to(self.root) and path != self.root and len(word) < 1000:
                yield path.relative_to(self.root)


@functools.lru_cache(maxsize=64)
def other_clone(repository: Path, stands: Path) -> Path | None:
    """Return the other clone of a repository that a folder lies in; None where it is in none.

    A clone has a commit, or a project, of the repository. What is around a submodule has no commit
    of it, but its projects; what was only begun from a clone has none of its files.

    Args:
        repository: its top folder.
        stands: a folder without symbolic links.
    """
    found, own = repository_of(stands), repository.resolve()
    top = found.resolve() if found is not None else own
    if top in working_trees(own):
        return None
    for one, other in ((top, own), (own, top)):
        head = (Git.at(one).answer("rev-parse", "--verify", "--quiet", "HEAD") or "").strip()
        if head and Git.at(other).answer("cat-file", "-e", f"{head}^{{commit}}") is not None:
            names = _python_files(top), _python_files(own)
            return None if all(names) and names[0].isdisjoint(names[1]) else top
    is_apart = not (top.is_relative_to(own) or own.is_relative_to(top))
    return top if is_apart and other_copy(top, own) else None


def _python_files(repository: Path) -> set[str]:
    """Return the names of the Python files of a repository's HEAD, but for those of tools."""
    listed = Git.at(repository).answer("ls-tree", "-r", "-z", "--name-only", "--full-tree", "HEAD")
    names = {name.rpartition("/")[2] for name in (listed or "").split("\0")}
    return {name for name in names if name.endswith(".py")} - _OF_TOOLS


def of_clones(repository: Path, other: Path) -> str:
    """Say that a model comes from another clone than the user stands in, and what to do."""
    return (
        f"the model comes from {repository}, but the working folder is in {other}, another clone "
        f"of it; install that one, or start in {repository}"
    )


def check_lacked(old: OwnCode | None, new: OwnCode | None, codes: Mapping[str, Any]) -> str:
    """Check that a commit's code did not go on without what only today's folder has.

    What that code does not name, an installed package may have looked for: of that a note is
    returned, empty for nothing.

    Args:
        codes: the event `code` of `old` and of `new`, where they are known.
    """
    sides, note = {"old": old, "new": new}, ""
    for own, other in (("old", "new"), ("new", "old")):
        tree, beside = sides[own], sides[other]
        if not (isinstance(tree, Tree) and isinstance(beside, Tree)) or beside.commit:
            continue
        if not {own, other} <= codes.keys():
            continue
        if lacked := tree.lacked(codes[own], codes[other]):
            raise ForeignCode(f"{tree.name}: {lacked}")
        if found := tree.without(codes[other]):
            names = listed(list(map(str, found)), MOST_NAMED)
            note = f"today's code reads {names}, which no commit has: {tree.name} ran without"
    return note


def _words_of(path: Path) -> set[str]:
    """Return the names in a file of Python; none of any other file."""
    if path.suffix != ".py":
        return set()
    try:
        return set(_NAME.findall(path.read_text(encoding="utf-8", errors="replace")))
    except OSError:
        return set()


def _is_empty(path: Path) -> bool:
    """Whether nothing is there, or an empty folder: a submodule's."""
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


def _import_roots_of(root: Path, package: str) -> Iterator[Path]:
    """Yield the folders of a tree that a package could be imported from."""
    for folder in folders_below(root, depth=3):
        own = folder / package
        if not (folder / "__init__.py").exists() and (
            own.is_dir() or own.with_suffix(".py").exists()
        ):
            yield folder


def tree_as_it_is(repository: Path, name: str = "today's code") -> Tree:
    """Return the user's own files as a side."""
    root = repository.resolve()
    return Tree(name=name, root=root, commit="", repository=root, places=working_trees(root))


@contextlib.contextmanager
def tree_at_commit(repository: Path, ref: str, name: str = "") -> Iterator[Tree]:
    """Yield the repository's files as of a commit; they are removed after the block.

    Args:
        ref: what it names is asked in the working tree that the user stands in.
        name: of the side, in messages; the commit by default.

    Raises:
        ConvmarkError: there is no such commit, or its files cannot be written.
    """
    commit = resolve_here(repository, ref)
    with at_commit(standing_in(repository, Path.cwd()), commit) as root:
        yield Tree(
            name=name or f"commit {commit[:12]}",
            root=root,
            commit=commit,
            repository=repository.resolve(),
            places=working_trees(repository),
        )
