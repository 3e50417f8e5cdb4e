"""The anchor's own code beside today's: which repository, and which folders.

A model's code is the zoo's folder, or for package.module:builder the folder from which the module
is imported. Both exist at another commit in a tree of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from convmark.compare.live.tree import Tree, is_installed, tree_as_it_is, tree_at_commit
from convmark.compare.live.worktree import repository_of, resolve, standing_in
from convmark.core.case import Case
from convmark.core.errors import ConvmarkError
from convmark.core.model_name import ModelName
from convmark.interpreter import Interpreter, zoo_folder

__all__ = [
    "AnchorCode",
    "Origin",
    "origin_of",
    "resolve_anchor",
    "trees_at",
]

SHOWN = 12
"""Characters of a commit or hash that are shown."""

MakeInterpreter = Callable[..., Interpreter]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a model's code lies: its repository, and in it the folder that must be importable."""

    repository: Path
    folder: Path
    """Relative to the repository: the zoo's own folder, or the one that modules are found in."""
    is_zoo: bool

    def look_for(self, tree: Tree) -> None:
        """Look whether a tree has the folder.

        Raises:
            ConvmarkError: it has not.
        """
        if not (tree.root / self.folder).is_dir():
            raise ConvmarkError(f"{tree.name} has no folder {self.folder}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorCode:
    """Code that can be run once more: of a commit, or the kept files of a run."""

    commit: str = ""
    """In full; empty where the files that were kept are the code."""
    code: str = ""
    """Hash of the code; empty where it is not known."""
    manifest: Path | None = None
    """What lists the files of that hash, beside the run that they were kept of."""

    def __post_init__(self) -> None:
        if not self.commit and (not self.code or self.manifest is None):
            raise ConvmarkError("an anchor's code must be a commit, or a hash with its manifest")

    @property
    def label(self) -> str:
        """The code as a note names it."""
        return self.commit[:SHOWN] or f"the kept code {self.code[:SHOWN]}"


def origin_of(case: Case, sources: Mapping[str, Sequence[str] | None]) -> Origin | None:
    """Return where the case's model comes from; None where no git repository holds it.

    Args:
        sources: for models of the user's own their module and its file, or a model's file alone.
    """
    is_zoo = ModelName.of(case.model).is_zoo
    if is_zoo:
        folder = place = zoo_folder().resolve()
    else:
        source = sources.get(case.model)
        if source is None:
            return None
        module, file = source
        place = Path(file).resolve()  # an editable installation may be a link
        if is_installed(place):
            return None
        folder = _import_root(module, place)
    repository = repository_of(place)
    if repository is None:
        return None
    top = repository.resolve()
    if not folder.is_relative_to(top):  # the package's name is not its folder's
        folder = place.parent
    return Origin(repository=repository, folder=folder.relative_to(top), is_zoo=is_zoo)


def _import_root(module: str, file: Path) -> Path:
    """Return the folder that holds the module's topmost package."""
    depth = module.count(".") + (file.name == "__init__.py")
    return file.parents[min(depth, len(file.parents) - 1)]


def resolve_anchor(ref: str, origins: Sequence[Origin | None]) -> dict[Path, str]:
    """Return the commit that a ref names in each repository.

    Raises:
        ConvmarkError: no repository holds the models, or one does not know the ref.
    """
    repositories = dict.fromkeys(origin.repository for origin in origins if origin is not None)
    if not repositories:
        raise ConvmarkError(
            f"--benchmark-compare: git:{ref} needs the models in a git repository; no model is"
        )
    return {
        repository: resolve(standing_in(repository, Path.cwd()), ref) for repository in repositories
    }


@contextlib.contextmanager
def trees_at(origin: Origin, commit: str) -> Iterator[tuple[Tree, Tree]]:
    """Give the files of a commit and today's, the former gone after the block.

    Raises:
        ConvmarkError: the commit is not there, or did not have the model's folder yet.
    """
    with tree_at_commit(origin.repository, commit) as old:
        new = tree_as_it_is(origin.repository)
        for tree in (old, new):
            origin.look_for(tree)
        yield old, new
