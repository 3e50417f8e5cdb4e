"""The manifest of a code: the files that a process used, and their hash.

    results/<machine>/0007.code.json     the codes of run 0007, by the hash in its rows' `code`
    results/<machine>/code/ab/cdef...    a file's content, named by its SHA-256

A file is named by its root and its path there, so that a repository is the same code wherever it
lies: `.` is the repository or folder that the run was started in, `zoo` convmark's own models, and
other folders are named after themselves. A file outside all of them is named by its whole path.

A run in a dirty tree, or outside git, keeps its manifest's files, each content once. What is too
large is left out: such a file can be run again as long as it lies where it lay, unchanged.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from convmark.core.errors import ConvmarkError, StoreError
from convmark.core.files import as_store_error, read_regular, write_whole
from convmark.core.installed import holds_packages
from convmark.worker.protocol import WHOLE_BYTES, file_digest

MANIFEST_SCHEMA = 1
HERE, ZOO = ".", "zoo"
NOWHERE = ""
"""The root of a file that lies in none; its path is absolute."""
_HASH_LENGTH = 16


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A file or folder by its root's name and its path there; POSIX separators."""

    root: str
    path: str

    def __str__(self) -> str:
        if self.root in (NOWHERE, HERE):
            return self.path
        return f"{self.root}/{self.path}"


@dataclass(frozen=True, slots=True, order=True)
class CodeFile:
    """One file as it was when it was read."""

    place: Place
    sha256: str
    """Of its content; above 8 MiB of its size, time, head and tail."""
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """All that decides what a process ran, and what is needed to run it again."""

    files: tuple[CodeFile, ...]
    """Sorted."""
    packages: Mapping[str, str]
    """Versions of the distributions that the files import."""
    roots: Mapping[str, str] = field(default_factory=dict)
    """Where each root lay."""
    folder: Place = Place(HERE, ".")
    """The working folder."""
    import_roots: tuple[Place, ...] = ()
    """The folders of the user's code on `sys.path`, in order."""
    looked: tuple[tuple[Place, str], ...] = ()
    """Sorted: what was looked for and is not there, and folders with the hash of their names."""
    of_commit: bool = False
    """Whether each file of the run's own repository is the commit's, and none comes from elsewhere
    but the zoo's."""

    @property
    def hash(self) -> str:
        """The same for the same files and packages, wherever they lie."""
        return self._hash_of(sorted(self.packages.items()))

    @property
    def files_hash(self) -> str:
        """The same for the same files, whatever the versions of the packages."""
        return self._hash_of([])

    def _hash_of(self, packages: list[tuple[str, str]]) -> str:
        told = [[*asdict(one.place).values(), one.sha256] for one in self.files]
        looked = [[*asdict(place).values(), found] for place, found in self.looked]
        text = json.dumps([told, packages, *([looked] if looked else [])])
        return hashlib.sha256(text.encode()).hexdigest()[:_HASH_LENGTH]

    @property
    def packages_text(self) -> str:
        """The packages as a row's column has them."""
        return " ".join(f"{name}=={version}" for name, version in sorted(self.packages.items()))

    def path_of(self, place: Place) -> Path:
        """Where a place lay."""
        return Path(self.roots.get(place.root, ""), place.path)


@dataclass(frozen=True, slots=True)
class Roots:
    """The folders that files are named after, by name; the first that holds a file counts."""

    folders: Mapping[str, Path]

    @classmethod
    def of(cls, folder: Path, zoo: Path, others: Iterable[Path] = ()) -> Roots:
        """Return the roots of a run.

        Args:
            folder: the working folder; its repository counts as a whole, where it is in one.
            zoo: convmark's own models.
            others: further folders of the user's code, most often those on `sys.path`.
        """
        return cls({ZOO: zoo.resolve(), HERE: _top(folder.resolve())}).with_others(others)

    def with_others(self, others: Iterable[Path]) -> Roots:
        """Return these roots, and after them those of folders that lie in none, newly named."""
        found = dict(self.folders)
        for other in others:
            top = _top(other.resolve())
            if not any(top.is_relative_to(root) for root in found.values()):
                name, number = top.name or "root", 2
                while name in found:
                    name, number = f"{top.name}-{number}", number + 1
                found[name] = top
        return Roots(found)

    def place(self, path: Path) -> Place:
        """Return the name of a file or folder; links are followed."""
        for name, root in self.folders.items():
            if path.is_relative_to(root):
                return Place(name, path.relative_to(root).as_posix())
        return Place(NOWHERE, path.as_posix())


def _top(folder: Path) -> Path:
    """Return the top of the repository that holds a folder; the folder itself where none does."""
    return next((one for one in (folder, *folder.parents) if (one / ".git").exists()), folder)


def code_of(event: Mapping[str, Any], roots: Roots) -> Code:
    """Return the code that a worker's event `code` tells of.

    Raises:
        KeyError, TypeError: the event is garbled.
    """
    paths = [Path(one["path"]) for one in event["files"]]
    imports = [Path(entry) for entry in event["sys_path"]]
    used = [one for one in imports if any(path.is_relative_to(one) for path in paths)]
    own = [one for one in used if not holds_packages(one)]
    all_roots = roots.with_others(own)
    files = (
        CodeFile(all_roots.place(path), str(one["sha256"]), int(one["size"]))
        for path, one in zip(paths, event["files"], strict=True)
    )
    return Code(
        files=tuple(sorted(files)),
        packages={str(name): str(version) for name, version in event["packages"].items()},
        roots={name: str(folder) for name, folder in all_roots.folders.items()},
        folder=all_roots.place(Path(event["folder"])),
        import_roots=tuple(all_roots.place(one) for one in own),
        looked=tuple(
            sorted(
                (all_roots.place(Path(path)), str(found))
                for path, found in event.get("looked", {}).items()
            )
        ),
    )


def code_path(run: Path) -> Path:
    """Return where the codes of a run's file are."""
    return run.with_name(f"{run.stem}.code.json")


def write_codes(run: Path, codes: Mapping[str, Code]) -> None:
    """Keep the codes of a run beside it, all of them in one step."""
    path = code_path(run)
    content = {
        "schema": MANIFEST_SCHEMA,
        "codes": {name: asdict(one) for name, one in codes.items()},
    }
    with as_store_error(path, "written"):
        write_whole(path, f"{json.dumps(content, indent=1)}\n".encode())


def read_codes(run: Path) -> dict[str, Code]:
    """Return the codes of a run; none where it has none.

    Raises:
        StoreError: the file cannot be read, or is damaged: a code must have the hash of its name.
    """
    path = code_path(run)
    try:
        content = json.loads(read_regular(path))
        codes = {str(name): _code(told) for name, told in content["codes"].items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise StoreError(_damaged(path)) from None
    if content.get("schema") != MANIFEST_SCHEMA:
        raise StoreError(
            f"{path}: must be of schema {MANIFEST_SCHEMA}, got {content.get('schema')!r}"
        )
    if any(code.hash != name for name, code in codes.items()):
        raise StoreError(_damaged(path))
    return codes


def files_hash_of(code: str, run: Path) -> str:
    """Return the hash of a code's files without its packages; empty where its run lost them."""
    try:
        known = read_codes(run).get(code)
    except StoreError:
        return ""
    return known.files_hash if known else ""


def _damaged(path: Path) -> str:
    return f"{path}: is damaged, so the code of its run is not known; measure it again"


def _code(told: Mapping[str, Any]) -> Code:
    files = (
        CodeFile(_place(one["place"]), str(one["sha256"]), int(one["size_bytes"]))
        for one in told["files"]
    )
    return Code(
        files=tuple(files),
        packages={str(name): str(version) for name, version in told["packages"].items()},
        roots={str(name): str(folder) for name, folder in told["roots"].items()},
        folder=_place(told["folder"]),
        import_roots=tuple(_place(one) for one in told["import_roots"]),
        looked=tuple((_place(place), str(found)) for place, found in told.get("looked", ())),
        of_commit=told["of_commit"] is True,
    )


def _place(told: Mapping[str, Any]) -> Place:
    """Return a place; one that would lead out of its root is none."""
    place = Place(str(told["root"]), str(told["path"]))
    if place.root != NOWHERE and (os.path.isabs(place.path) or ".." in Path(place.path).parts):
        raise ValueError(place)
    return place


# -- saved files that are in no commit -------------------------------------------------------------


FOLDER = "code"
MOST_FILE_BYTES = WHOLE_BYTES
"""A larger file is left out; so the SHA-256 is always of its whole content."""
MOST_RUN_BYTES = 1 << 26
"""Kept of one code at most."""


def keep_files(machine_folder: Path, code: Code) -> list[CodeFile]:
    """Keep the contents of a code's files; return those that are left out."""
    left_out, kept_bytes = [], 0
    for one in code.files:
        fits = one.size_bytes <= MOST_FILE_BYTES
        if not fits or kept_bytes + one.size_bytes > MOST_RUN_BYTES:
            left_out.append(one)
            continue
        kept_bytes += one.size_bytes
        path = _kept_path(machine_folder, one)
        if path.is_file() and path.stat().st_size == one.size_bytes:
            continue
        content = _content(code.path_of(one.place), one)
        if content is None:
            left_out.append(one)
        else:
            _write(path, content)
    return left_out


def copy_kept(source: Path, machine_folder: Path, code: Code) -> None:
    """Keep what another machine's folder has of a code's files; damaged ones stay behind."""
    for one in code.files:
        path = _kept_path(machine_folder, one)
        content = None if path.is_file() else _content(_kept_path(source, one), one)
        if content is not None:
            _write(path, content)


def _kept_path(machine_folder: Path, one: CodeFile) -> Path:
    return machine_folder / FOLDER / one.sha256[:2] / one.sha256[2:]


def _content(path: Path, one: CodeFile) -> bytes | None:
    """Return what a file holds; None where it is gone or has changed."""
    try:
        content = read_regular(path)
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest() == one.sha256 else None


def _write(path: Path, content: bytes) -> None:
    with as_store_error(path, "written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)


def root_folder(tree: Path, root: str) -> Path:
    """Return where a root's files lie in a folder that `lay_out` has filled."""
    return tree / {HERE: "here", ZOO: ZOO}.get(root, f"other-{root}")


def lay_out(machine_folder: Path, code: Code, tree: Path) -> None:
    """Fill an empty folder with a code's files, each root in a folder of its own.

    Files outside all roots stay where they are: they must be as they were.

    Raises:
        StoreError: a kept file is damaged.
        ConvmarkError: a file was not kept and is not as it was.
    """
    for one in code.files:
        kept = _kept_path(machine_folder, one)
        lay = code.path_of(one.place)
        if one.place.root == NOWHERE:
            _check_unchanged(one, lay)
            continue
        path = root_folder(tree, one.place.root) / one.place.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if kept.is_file():
            content = kept.read_bytes()
            if hashlib.sha256(content).hexdigest() != one.sha256:
                raise StoreError(f"{kept}: is damaged: {one.place} cannot be restored")
            path.write_bytes(content)
        else:
            _check_unchanged(one, lay)
            try:
                os.link(lay, path)
            except OSError:
                shutil.copy2(lay, path)  # with the same time of change


def _check_unchanged(one: CodeFile, path: Path) -> None:
    if file_digest(path) != (one.size_bytes, one.sha256):
        raise ConvmarkError(f"{path} has changed since it was measured, and was not saved")
