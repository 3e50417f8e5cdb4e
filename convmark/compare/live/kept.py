"""The kept files of a run as a side: laid out in a folder of their own, and held to what they were.

A run in a dirty tree, or outside git, ran code that no commit has; its files lie beside it (see
`convmark.results.code.snapshot`). Such a side is right only where each file of the user's folders
that it opens is one that the run opened, and each file that the run opened is as it was.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convmark.compare.live.anchor import AnchorCode, Origin
from convmark.compare.live.tree import ForeignCode, Tree, tree_as_it_is
from convmark.compare.live.worktree import PREFIX
from convmark.core.errors import StoreError
from convmark.interpreter import import_roots, zoo_folder
from convmark.results.code.manifest import NOWHERE, ZOO, Code, Roots, code_of, read_codes
from convmark.results.code.snapshot import keep_files, lay_out, root_folder

__all__ = ["KeptTree", "copied_tree", "kept_trees"]


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
        """Return how an `Interpreter` is made that runs this code.

        Args:
            environ: the variables that the interpreter would be given.
        """
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
        """Hold what a worker has run against what the run ran.

        Raises:
            ForeignCode: a file is not the one that the run opened.
        """
        roots = {name: root_folder(self.root, name) for name in self.code.roots}
        found = code_of(event, Roots(roots))
        then = {one.place: one for one in self.code.files}
        for one in found.files:
            path = found.path_of(one.place)
            if ZOO not in self.places.values() and path.is_relative_to(zoo_folder()):
                continue
            if any(path.is_relative_to(place) for place in self.places):
                raise ForeignCode(
                    f"{self.name}: {path} was opened in place of the run's own; name it relative "
                    "to the module or to the working folder, not by its whole path"
                )
            before = then.get(one.place)
            if before is not None and before.sha256 != one.sha256:
                raise ForeignCode(f"{self.name}: {path} is not as it was when it was measured")
            if before is None and one.place.root != NOWHERE:
                raise ForeignCode(f"{self.name}: {path} is opened now, and was not by the run")

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
def kept_trees(origin: Origin | None, anchor: AnchorCode) -> Iterator[tuple[KeptTree, Tree | None]]:
    """Give the kept files of a run and today's; the former are gone after the block.

    Args:
        origin: where the model's code lies today; None outside git.

    Raises:
        StoreError: the manifest or a kept file is damaged, or gone.
    """
    run = _run_of(anchor)
    code = read_codes(run).get(anchor.code)
    if code is None:
        raise StoreError(f"{anchor.manifest}: does not have the code {anchor.code}")
    with _temporary_folder() as tree:
        lay_out(run.parent, code, tree)
        kept = KeptTree.of(f"run {run.stem}", tree, code)
        yield kept, tree_as_it_is(origin.repository) if origin is not None else None


@contextlib.contextmanager
def copied_tree(code: Code) -> Iterator[KeptTree]:
    """Give a copy of the files of a code that lie where they were run, gone after the block.

    Raises:
        ConvmarkError: a file is not as it was when it was run.
    """
    with _temporary_folder() as store, _temporary_folder() as tree:
        keep_files(store, code)
        lay_out(store, code, tree)
        yield KeptTree.of("the copy", tree, code)


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-")).resolve()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run_of(anchor: AnchorCode) -> Path:
    """Return the run that a manifest lies beside."""
    assert anchor.manifest is not None
    return anchor.manifest.with_name(anchor.manifest.name.removesuffix(".code.json") + ".csv")
