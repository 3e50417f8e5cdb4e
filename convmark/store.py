"""The results folder: number a run, find one, read its rows.

    results/<machine>/0007.csv         one run, one row per process of a case
    results/<machine>/0007.steps.npz   its raw step times; rows never depend on it

Files are UTF-8, newline-ended, RFC 4180; `convmark.runfile` writes them.
"""

from __future__ import annotations

import csv
import io
import os
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from convmark.errors import StoreError
from convmark.record import SCHEMA_VERSION, Record, from_cells
from convmark.runfile import HEADER, RunFile, StoreWarning, steps_path

__all__ = [
    "HEADER",
    "RUN_NAME",
    "RunFile",
    "Store",
    "StoreWarning",
    "read_head",
    "read_run",
    "read_step_times",
]

RUN_NAME = re.compile(r"\d{4,}")


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
        while not existing.exists() and existing != existing.parent:
            if existing.is_symlink():
                raise StoreError(f"--results: must be a folder, {existing} is a link to nowhere")
            existing = existing.parent
        if not existing.is_dir():
            raise StoreError(f"--results: must be a folder, {existing} is a file")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise StoreError(f"--results: must be writable, {existing} is not")

    def create_run(self, machine: str) -> RunFile:
        """Create the next run's file, its header written, and return it open for appending.

        The number is this machine's next; two runs started together get different ones, for the
        file is created exclusively.

        Raises:
            StoreError: the file cannot be made.
        """
        folder = self.folder / machine
        try:
            folder.mkdir(parents=True, exist_ok=True)
            number = max((int(run.stem) for run in self.runs(machine)), default=0) + 1
            while True:
                path = folder / f"{number:04d}.csv"
                try:
                    return RunFile.create(path)
                except FileExistsError:
                    number += 1
        except OSError as error:
            raise StoreError(
                f"--results: {folder} must be writable: {error.strerror or error}"
            ) from None

    def runs(self, machine: str) -> list[Path]:
        """Return the machine's run files, oldest first by number."""
        files = (self.folder / machine).glob("*.csv")
        return sorted(
            (path for path in files if RUN_NAME.fullmatch(path.stem)),
            key=lambda path: int(path.stem),
        )

    def find(self, name: str, machine: str) -> Path:
        """Return the run file that a user means: a path, a number such as 7 or 0007, or a commit.

        A commit is given by at least seven characters; the newest run of it is taken.

        Raises:
            StoreError: there is no such run, with the newest ones that there are.
        """
        path = Path(name)
        if path.suffix == ".csv" or os.sep in name:
            if path.is_file():
                return path
            raise StoreError(f"{path}: no such file; expected the CSV file of a run")
        runs = self.runs(machine)
        if name.isdecimal():
            for run in runs:
                if int(run.stem) == int(name):
                    return run
        if re.fullmatch(r"[0-9a-f]{7,40}", name):
            for run in reversed(runs):
                head = read_head(run)
                if head is not None and (head.commit or "").startswith(name):
                    return run
        there = ", ".join(run.stem for run in runs[-5:]) or "none yet"
        raise StoreError(
            f"{self.folder / machine}: no run {name!r}; expected a file, a commit or the number "
            f"of a run (newest: {there})"
        )


_UNREADABLE = (
    OSError,
    EOFError,
    KeyError,
    ValueError,
    TypeError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What a damaged archive makes NumPy raise, by the place of the damage."""


def read_step_times(path: Path, orders: Iterable[int]) -> np.ndarray | None:
    """Return the raw step times of a run's rows, pooled, seconds; None unless all are there."""
    steps = steps_path(path)
    try:
        # opened here, for NumPy leaves a file open that is no archive
        with steps.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not hasattr(archive, "files"):  # a single array, not an archive of them
                return None
            arrays = [archive[f"{order:05d}"].astype(np.float64) for order in orders]
    except _UNREADABLE:
        return None
    return np.concatenate(arrays) if arrays else None


def _all(cells: Sequence[str]) -> bool:
    return True


def read_run(path: Path, keep: Callable[[Sequence[str]], bool] = _all) -> list[Record]:
    """Return the rows of a run's file, all or those whose cells are to be kept.

    A last line without its newline is what a killed writer leaves: it is left out with a
    `StoreWarning`. Everything else that does not fit the schema is refused.

    Raises:
        StoreError: the file cannot be read, or does not fit; the message names file and line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from None
    body, torn = _without_torn_line(data)
    if torn:
        line = body.count(b"\n") + 1
        warnings.warn(f"{path}:{line}: a torn last line was left out", StoreWarning, stacklevel=2)
    return list(_parse(path, io.StringIO(_text(path, body), newline=""), keep))


def read_head(path: Path) -> Record | None:
    """Return the first row of a run's file, the rest unread; None where there is none yet.

    Raises:
        StoreError: the file cannot be read, or its beginning does not fit the schema.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return next(_parse(path, (line for line in file if line.endswith("\n")), _all), None)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise StoreError(f"{path}: must be UTF-8 text") from None


def _without_torn_line(data: bytes) -> tuple[bytes, bool]:
    if not data or data.endswith(b"\n"):
        return data, False
    end = data.rfind(b"\n") + 1
    return data[:end], True


def _text(path: Path, data: bytes) -> str:
    nul = data.find(b"\0")
    if nul >= 0:
        raise StoreError(f"{path}:{_line(data, nul)}: must be text, it holds a NUL")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StoreError(f"{path}:{_line(data, error.start)}: must be UTF-8 text") from None


def _line(data: bytes, place: int) -> int:
    return data.count(b"\n", 0, place) + 1


def _parse(
    path: Path, lines: Iterable[str], keep: Callable[[Sequence[str]], bool]
) -> Iterator[Record]:
    reader = csv.reader(lines, strict=True)
    try:
        _check_header(path, next(reader, None))
        for cells in reader:
            if len(cells) > 0 and cells[0] != str(SCHEMA_VERSION):
                raise StoreError(_other_schema(cells[0]))
            if keep(cells):
                yield from_cells(cells)
    except csv.Error as error:
        raise StoreError(f"{path}:{reader.line_num}: must be CSV: {error}") from None
    except StoreError as error:
        if str(error).startswith(str(path)):
            raise
        raise StoreError(f"{path}:{reader.line_num}: {error}") from None


def _check_header(path: Path, header: list[str] | None) -> None:
    if not header:
        raise StoreError(f"{path}: must hold a run's rows, it is empty")
    if header == HEADER:
        return
    missing = [name for name in HEADER if name not in header]
    unknown = [name for name in header if name not in HEADER]
    detail = "the order of the columns differs"
    if missing:
        detail = f"column {missing[0]!r} is missing"
    elif unknown:
        detail = f"column {unknown[0][:40]!r} is unknown"
    raise StoreError(f"{path}:1: must have the columns of schema {SCHEMA_VERSION}: {detail}")


def _other_schema(found: str) -> str:
    return f"must be of schema {SCHEMA_VERSION}, got {found[:40]!r}; read it with its own convmark"
