"""The anchor's own code beside today's: which repository, which folders, and the two interpreters.

A model's code is the zoo's folder, or for package.module:builder the folder from which the module
is imported. Both exist at another commit in a worktree.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from convmark.case import Case
from convmark.errors import ConvmarkError
from convmark.launch import Interpreter, import_roots, zoo_folder
from convmark.lockstep.worktree import at_commit, repository_of, resolve

__all__ = ["Origin", "beside", "origin_of", "resolve_anchor"]

MakeInterpreter = Callable[..., Interpreter]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a model's code lies: its repository, and in it the folder that must be importable."""

    repository: Path
    folder: Path
    """Relative to the repository: the zoo's own folder, or the one that modules are found in."""
    is_zoo: bool


def origin_of(case: Case, sources: Mapping[str, Sequence[str] | None]) -> Origin | None:
    """Return where the case's model comes from; None where no git repository holds it.

    Args:
        sources: for models named package.module:builder their module and its file.
    """
    folder = zoo_folder()
    is_zoo = ":" not in case.model
    if not is_zoo:
        source = sources.get(case.model)
        if source is None:
            return None
        module, file = source
        folder = _import_root(module, Path(file))
    repository = repository_of(folder)
    if repository is None:
        return None
    relative = folder.resolve().relative_to(repository.resolve())
    return Origin(repository=repository, folder=relative, is_zoo=is_zoo)


def _import_root(module: str, file: Path) -> Path:
    """Return the folder that holds the module's topmost package."""
    depth = module.count(".") + (file.name == "__init__.py")
    return file.parents[depth]


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
    return {repository: resolve(repository, ref) for repository in repositories}


@contextlib.contextmanager
def beside(
    origin: Origin, commit: str, make: MakeInterpreter
) -> Iterator[tuple[Interpreter, Interpreter]]:
    """Give two interpreters, that of the anchor's code and that of today's; both end after it.

    Args:
        make: makes an interpreter, with the anchor's `zoo` or `import_roots` where it is given.

    Raises:
        ConvmarkError: the commit is not there, or did not have the folder yet.
        WorkerError: an interpreter cannot be started.
    """
    with contextlib.ExitStack() as stack:
        tree = stack.enter_context(at_commit(origin.repository, commit))
        folder = tree / origin.folder
        if not folder.is_dir():
            raise ConvmarkError(f"commit {commit[:12]} has no folder {origin.folder}")
        theirs = make(zoo=folder) if origin.is_zoo else make(import_roots=[folder, *import_roots()])
        old = stack.enter_context(theirs)
        new = stack.enter_context(make())
        old.start()
        new.start()
        yield old, new
