"""Saved files that are in no commit, so that a run's code can be run again.

    results/<machine>/code/ab/cdef...    a file's content, named by its SHA-256

A run in a dirty tree, or outside git, keeps its manifest's files here, each content once. What is
too large is left out: such a file can be run again as long as it lies where it lay, unchanged.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from convmark.core.errors import ConvmarkError, StoreError
from convmark.core.files import as_store_error, read_regular, write_whole
from convmark.results.code.manifest import HERE, NOWHERE, ZOO, Code, CodeFile
from convmark.worker.protocol import WHOLE_BYTES, file_digest

FOLDER = "code"
MOST_FILE_BYTES = WHOLE_BYTES
"""A larger file is left out; so the SHA-256 is always of its whole content."""
MOST_RUN_BYTES = 1 << 26
"""Kept of one code at most."""


def keep_files(machine_folder: Path, code: Code) -> list[CodeFile]:
    """Keep the contents of a code's files; return those that are left out.

    Raises:
        StoreError: the folder cannot be written.
    """
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
    """Keep what another machine's folder has of a code's files; damaged ones stay behind.

    Raises:
        StoreError: the folder cannot be written.
    """
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
            _link(lay, path)


def _check_unchanged(one: CodeFile, path: Path) -> None:
    if file_digest(path) != (one.size_bytes, one.sha256):
        raise ConvmarkError(f"{path} has changed since it was measured, and was not saved")


def _link(source: Path, path: Path) -> None:
    """Link or copy a file to a second place, with the same time of change."""
    try:
        os.link(source, path)
    except OSError:
        shutil.copy2(source, path)
