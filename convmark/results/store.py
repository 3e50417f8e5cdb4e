"""The results folder: numbers a run, finds one, reads its rows.

    results/<machine>/0007.csv         one run, one row per process of a case
    results/<machine>/0007.steps.npz   its raw step times; rows never depend on it

Files are UTF-8, newline-ended, RFC 4180; `convmark.results.run_file` writes them.
"""

from __future__ import annotations

import io
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from convmark.core.errors import StoreError
from convmark.core.files import open_regular
from convmark.core.text import is_folder_name
from convmark.results.one_run import RUN_NAME
from convmark.results.reading import HEADER, StoreWarning, head_cells, read_head, read_run
from convmark.results.run_file import RunFile, steps_path

__all__ = [
    "AB_FOLDER",
    "HEADER",
    "RUN_NAME",
    "RunFile",
    "Store",
    "StoreWarning",
    "read_head",
    "read_run",
    "read_step_times",
    "same_file",
]

AB_FOLDER = "ab"
"""Beside the machines' folders; its files have numbers for names and are no runs."""

T = TypeVar("T")


class Store:
    """A results folder. Nothing is made in it before a run is created."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __str__(self) -> str:
        return str(self.folder)

    def check_writable(self) -> None:
        """Refuse a folder that cannot be made or written, before anything is measured.

        Raises:
            StoreError: the folder, or the nearest one that exists above it, takes no files.
        """
        existing = self.folder
        try:
            while not existing.exists() and existing != existing.parent:
                if existing.is_symlink():
                    raise StoreError(
                        f"--results: must be a folder, {existing} is a link to nowhere"
                    )
                existing = existing.parent
        except OSError as error:
            raise StoreError(f"--results: must be a folder: {error.strerror or error}") from None
        if not existing.is_dir():
            raise StoreError(f"--results: must be a folder, {existing} is a file")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise StoreError(f"--results: must be writable, {existing} is not")

    def create_run(self, machine: str) -> RunFile:
        """Create the next run's file, its header written, and return it open for appending.

        The number is this machine's next; two runs started together get different ones, for the
        file is created exclusively.

        Raises:
            StoreError: the file cannot be made, or the machine's name leads out of the folder.
        """
        if not is_folder_name(machine):
            raise StoreError(f"--results: a machine must be the name of a folder, got {machine!r}")
        return self.create(machine, RunFile.create)

    def create(self, name: str, make: Callable[[Path], T]) -> T:
        """Return what `make` makes of the next numbered file in a folder of this one.

        Args:
            make: makes the file; it raises FileExistsError where the file is there already.

        Raises:
            StoreError: the file cannot be made.
        """
        folder = self.folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            number = max((int(run.stem) for run in self.runs(name)), default=0) + 1
            while True:
                try:
                    return make(folder / f"{number:04d}.csv")
                except FileExistsError:
                    number += 1
        except OSError as error:
            raise StoreError(
                f"--results: {folder} must be writable: {error.strerror or error}"
            ) from None

    def machines(self) -> list[str]:
        """Return the names of the machines that have runs, sorted."""
        try:
            with os.scandir(self.folder) as entries:
                names = sorted(entry.name for entry in entries if entry.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [name for name in names if self.has_runs(name)]

    def runs(self, machine: str) -> list[Path]:
        """Return the machine's run files, oldest first by number."""
        folder = self.folder / machine
        names = sorted(_run_names(folder), key=lambda name: int(name.removesuffix(".csv")))
        return [folder / name for name in names]

    def has_runs(self, machine: str) -> bool:
        """Whether the machine has any."""
        return next(_run_names(self.folder / machine), None) is not None

    def find(self, name: str, machine: str, *, but: Path | None = None) -> Path:
        """Return the run file that a user means: a path, a number such as 7 or 0007, or a commit.

        A commit is given by at least seven characters; the newest run of it is taken.

        Args:
            but: the file of the run that is judged, which is never its own baseline: of its
                commit another run is taken.

        Raises:
            StoreError: there is no such run, with the newest ones that there are, or it is `but`.
        """
        path = Path(name)
        if path.suffix == ".csv" or os.sep in name:
            if path.is_file():
                return _another(path, but)
            raise StoreError(f"{path}: no such file; expected the CSV file of a run")
        runs = self.runs(machine)
        if re.fullmatch(r"[0-9]{1,18}", name):
            for run in runs:
                if int(run.stem) == int(name):
                    return _another(run, but)
        if re.fullmatch(r"[0-9a-f]{7,64}", name):
            for run in reversed(runs):
                cells = head_cells(run)
                if cells is None or not cells[_COMMIT].startswith(name):
                    continue
                if not same_file(run, but):
                    return run
        there = ", ".join(run.stem for run in runs[-5:]) or "none yet"
        there += f"; {but.stem} is the run that is judged" if but is not None else ""
        raise StoreError(
            f"{self.folder / machine}: no run {name!r}; expected a file, a commit or the number "
            f"of a run (newest: {there})"
        )


_COMMIT = HEADER.index("commit")


def same_file(one: Path, other: Path | None) -> bool:
    """Return whether two paths lead to one file, by whatever links; never to none."""
    if other is None:
        return False
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _another(path: Path, but: Path | None) -> Path:
    if same_file(path, but):
        raise StoreError(f"{path}: is the run that is judged; name an earlier run to compare with")
    return path


def _run_names(folder: Path) -> Iterator[str]:
    """Yield the names of the run files in a folder, in no order; none where there is no folder."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                stem, _, suffix = entry.name.rpartition(".")
                if suffix == "csv" and RUN_NAME.fullmatch(stem):
                    yield entry.name
    except (FileNotFoundError, NotADirectoryError):
        return


_UNREADABLE = (
    OSError,
    EOFError,
    KeyError,
    ValueError,
    TypeError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What a damaged archive makes NumPy raise, by the place of the damage."""

MOST_STEPS_BYTES = 1 << 27
"""Of one row's step times, unpacked: 16 million of them. A zip of a few kB can claim any size."""


def read_step_times(path: Path, orders: Iterable[int]) -> np.ndarray | None:
    """Return the raw step times of a run's rows, pooled, seconds; None unless all are there."""
    try:
        with (
            open(steps_path(path), "rb", opener=open_regular) as file,
            zipfile.ZipFile(file) as archive,
        ):
            arrays = [_step_times(archive, order) for order in orders]
    except _UNREADABLE:
        return None
    return np.concatenate(arrays) if arrays else None


def _step_times(archive: zipfile.ZipFile, order: int) -> np.ndarray:
    """Return one row's step times.

    Raises:
        ValueError: they are too many, or no step times.
    """
    member = archive.getinfo(f"{order:05d}.npy")
    if member.file_size > MOST_STEPS_BYTES:
        raise ValueError("too many")
    with archive.open(member) as file:
        data = io.BytesIO(file.read(MOST_STEPS_BYTES))
    version = np.lib.format.read_magic(data)
    if version != (1, 0):  # what `np.save` writes of numbers
        raise ValueError("another format")
    shape, _, kind = np.lib.format.read_array_header_1_0(data)
    if len(shape) != 1 or kind.kind != "f":
        raise ValueError("no step times")
    times_s = np.frombuffer(data.read(), kind).astype(np.float64)
    if times_s.shape != shape or not np.isfinite(times_s).all():
        raise ValueError("no step times")
    return times_s
