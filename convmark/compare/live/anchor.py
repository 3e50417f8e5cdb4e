"""The code of an anchor: a repository and folders at a commit, or the saved files of a run.

A model's code is the zoo's folder, or for package.module:builder the folder from which the module
is imported. Both exist at another commit in a tree of it.

A run in a dirty tree, or outside git, ran code that no commit has; its files lie beside it (see
`convmark.results.code.manifest`), and are laid out in a folder of their own. Such a side is right
only where each file of the user's folders that it opens is one that the run opened, and each file
that the run opened is as it was.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import convmark.interpreter
from convmark.compare.live.tree import ForeignCode, OwnCode, Tree, tree_as_it_is, tree_at_commit
from convmark.compare.live.worktree import repository_of, resolve_here, working_trees
from convmark.core.case import Case
from convmark.core.errors import ConvmarkError, StoreError
from convmark.core.files import TemporaryFolder
from convmark.core.git import SHOWN
from convmark.core.installed import TREE_PREFIX, in_environment
from convmark.core.model_name import ModelName
from convmark.core.options import Options
from convmark.interpreter import Interpreter, import_roots, zoo_folder
from convmark.interpreter.inspection import sources_here
from convmark.results.code.manifest import (
    NOWHERE,
    ZOO,
    Code,
    Roots,
    code_of,
    keep_files,
    lay_out,
    read_codes,
    root_folder,
)

NO_REPOSITORY = "the model is in no git repository"
MakeInterpreter = Callable[..., Interpreter]


def interpreter_maker(options: Options) -> MakeInterpreter:
    """Return what makes the interpreters of a comparison, each by its Python and what else it has.

    Each session has a fresh process, with --isolation none too.
    """
    return functools.partial(
        convmark.interpreter.Interpreter,
        isolation="fork" if options.isolation == "fork" else "spawn",
        time_limit_s=options.time_limit_s,
        cpus=options.bound_to,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a model's code lies: its repository, and in it the folder that must be importable."""

    repository: Path
    folder: Path
    """Relative to the repository: the zoo's own folder, or the one that modules are found in."""
    is_zoo: bool

    def look_for(self, tree: Tree) -> None:
        """Look whether a tree has the folder."""
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
    name: str = ""
    """What a note calls it, where it is no commit of the user's."""

    def __post_init__(self) -> None:
        if not self.commit and (not self.code or self.manifest is None):
            raise ConvmarkError("an anchor's code must be a commit, or a hash with its manifest")

    @property
    def label(self) -> str:
        """The code as a note names it."""
        return self.name or self.commit[:SHOWN] or f"the kept code {self.code[:SHOWN]}"


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
        depth = module.count(".") + (place.name == "__init__.py")  # the module's topmost package
        folder = place.parents[min(depth, len(place.parents) - 1)]
    repository = repository_of(place)
    if repository is None or in_environment(place, repository.resolve()):
        return None
    top = repository.resolve()
    if not folder.is_relative_to(top):  # the package's name is not its folder's
        folder = place.parent
    return Origin(repository=repository, folder=folder.relative_to(top), is_zoo=is_zoo)


def refuse_ref(ref: str, models: Iterable[str]) -> None:
    """Refuse what names no commit of a model's repository, before any interpreter is started.

    Of a model whose place only an interpreter tells, that is found later.
    """
    known = sources_here(models)
    cases = (Case(model=model, task="infer") for model in dict.fromkeys(models))
    origins = (origin_of(case, known) for case in cases)
    for repository in dict.fromkeys(one.repository for one in origins if one is not None):
        resolve_here(repository, ref)


def resolve_anchor(ref: str, origins: Sequence[Origin | None]) -> dict[Path, str]:
    """Return the commit that a ref names in each repository of the models.

    And in the one that the user stands in, where that is another one and knows the ref: it has the
    suites, and says what is installed.

    Raises:
        ConvmarkError: no repository holds the models, or one does not know the ref.
    """
    repositories = dict.fromkeys(origin.repository for origin in origins if origin is not None)
    if not repositories:
        raise ConvmarkError(
            f"--benchmark-compare: git:{ref} needs the models in a git repository; no model is"
        )
    found = {repository: resolve_here(repository, ref) for repository in repositories}
    here = repository_of(Path.cwd())
    if here is not None and not any(here.resolve() in working_trees(one) for one in found):
        with contextlib.suppress(ConvmarkError):
            found[here] = resolve_here(here, ref)
    return found


@contextlib.contextmanager
def anchor_trees(
    origin: Origin | None, anchor: AnchorCode
) -> Iterator[tuple[OwnCode, OwnCode | None]]:
    """Yield the anchor's code, which is removed after the block, and today's.

    Args:
        origin: where the model's code lies today; None outside git.

    Raises:
        ConvmarkError: the commit is not there, or did not have the model's folder yet; or the
            manifest or a kept file is damaged, or gone.
    """
    if not anchor.commit:
        assert anchor.manifest is not None
        run = anchor.manifest.with_name(anchor.manifest.name.removesuffix(".code.json") + ".csv")
        code = read_codes(run).get(anchor.code)
        if code is None:
            raise StoreError(f"{anchor.manifest}: does not have the code {anchor.code}")
        with TemporaryFolder(TREE_PREFIX) as folder:
            lay_out(run.parent, code, folder)
            kept = KeptTree.of(f"run {run.stem}", folder, code)
            yield kept, tree_as_it_is(origin.repository) if origin is not None else None
    elif origin is None:
        raise ConvmarkError(NO_REPOSITORY)
    else:
        with tree_at_commit(origin.repository, anchor.commit) as old:
            new = tree_as_it_is(origin.repository)
            for tree in (old, new):
                origin.look_for(tree)
            yield old, new


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptTree:
    """A folder with the files that a run ran."""

    name: str
    """The side in a message."""
    root: Path
    """Holds a folder for each root of the code; without symbolic links."""
    code: Code
    places: Mapping[Path, str]
    """The user's own folders that the roots stand for, then and now, with the roots' names."""

    @classmethod
    def of(cls, name: str, root: Path, code: Code) -> KeptTree:
        """Return the side of a folder that `lay_out` has filled."""
        now = Roots.of(Path.cwd(), zoo_folder(), import_roots()).folders
        places = {Path(folder): name for name, folder in code.roots.items()}
        places |= {folder: name for name, folder in now.items() if name in code.roots}
        if not all(one.place.root == ZOO for one in code.files):  # the zoo's files only serve it
            places = {folder: name for folder, name in places.items() if name != ZOO}
        return cls(name=name, root=root, code=code, places=places)

    def settings(self, environ: Mapping[str, str]) -> dict[str, Any]:
        """Return how an `Interpreter` is made that runs this code."""
        folder = root_folder(self.root, self.code.folder.root) / self.code.folder.path
        folder.mkdir(parents=True, exist_ok=True)
        moved = {
            str(place): str(root_folder(self.root, name)) for place, name in self.places.items()
        }
        own = [root_folder(self.root, one.root) / one.path for one in self.code.import_roots]
        others = [
            root
            for root in import_roots()
            if not any(root.is_relative_to(place) for place in self.places)
        ]
        zoo = root_folder(self.root, ZOO)
        return {
            "folder": folder,
            "import_roots": [*own, *others],
            "moved": moved,
            "environ": {**environ, "PWD": str(folder)},
            **({"zoo": zoo} if ZOO in self.places.values() else {}),
        }

    def check(self, event: Mapping[str, Any]) -> None:
        """Check that a worker has run what the run ran."""
        roots = {name: root_folder(self.root, name) for name in self.code.roots}
        found = code_of(event, Roots(roots))
        looked = dict(self.code.looked)
        for place, names in found.looked:
            if looked.get(place, names) != names:
                raise ForeignCode(
                    f"{self.name}: the code reads which files {place} has, and those that it does "
                    "not open are not saved; commit them"
                )
        then = {one.place: one for one in self.code.files}
        for one in found.files:
            path = found.path_of(one.place)
            if ZOO not in self.places.values() and path.is_relative_to(zoo_folder()):
                continue
            if any(path.is_relative_to(place) for place in self.places):
                raise ForeignCode(
                    f"{self.name}: {path} was opened in place of the run's own file; use a path "
                    "relative to the module or to the working folder, not an absolute one"
                )
            before = then.get(one.place)
            if before is not None and before.sha256 != one.sha256:
                raise ForeignCode(f"{self.name}: {path} has changed since it was measured")
            if before is None and one.place.root != NOWHERE:
                raise ForeignCode(
                    f"{self.name}: {path} is opened now, but was not opened in the run"
                )

    def hash_of(self, event: Mapping[str, Any]) -> str:
        """Return the hash of what a worker has run, wherever the files lie."""
        own = {name: root_folder(self.root, name) for name in self.code.roots}
        if ZOO not in self.places.values():
            own[ZOO] = zoo_folder().resolve()
        return code_of(event, Roots(own)).hash

    def explained(self, message: str) -> str:
        """Return why the side failed."""
        return message


@contextlib.contextmanager
def copied_tree(code: Code) -> Iterator[KeptTree]:
    """Yield a copy of a code's files, which are where they were run; removed after the block.

    Raises:
        ConvmarkError: a file is not as it was when it was run.
    """
    with TemporaryFolder() as store, TemporaryFolder(TREE_PREFIX) as tree:
        keep_files(store, code)
        lay_out(store, code, tree)
        yield KeptTree.of("the copy", tree, code)
