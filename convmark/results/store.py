"""The results folder: numbers a run, finds one, reads its rows; the runs of several folders.

    results/<machine>/0007.csv         one run, one row per process of a case
    results/<machine>/0007.steps.npz   its raw step times; rows never depend on it

Files are UTF-8, newline-ended, RFC 4180; `convmark.results.run_file` writes them.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from convmark.core.errors import StoreError
from convmark.core.files import open_regular, writing
from convmark.core.option_values import did_you_mean
from convmark.core.statistics import grouped
from convmark.core.text import NUMBER, counted, is_folder_name
from convmark.results.reading import HEADER, RUN_NAME, head_cells, read_head
from convmark.results.run_file import RunFile, steps_path
from convmark.results.table_file import csv_rows

LATEST = "latest"
"""The name of the newest run."""
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
                        f"--results: must be a folder, but {existing} is a link to nowhere"
                    )
                existing = existing.parent
        except OSError as error:
            raise StoreError(f"--results: must be a folder: {error.strerror or error}") from None
        if not existing.is_dir():
            raise StoreError(f"--results: must be a folder, but {existing} is a file")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise StoreError(f"--results: must be writable, but {existing} is not")

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
        """
        folder = self.folder / name
        with writing(f"--results: {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
            named = _named_in_tables(folder)
            number = max([0, *named, *(int(run.stem) for run in self.runs(name))]) + 1
            while True:
                if not RUN_NAME.fullmatch(f"{number:04d}"):
                    raise StoreError(
                        f"--results: {folder}: a number must have at most 9 digits, the next would "
                        f"be {number}; remove the file or the row of {number - 1}"
                    )
                try:
                    return make(folder / f"{number:04d}.csv")
                except FileExistsError:
                    number += 1

    def machines(self) -> list[str]:
        """Return the names of the machines that have runs, sorted."""
        try:
            with os.scandir(self.folder) as entries:
                names = sorted(entry.name for entry in entries if entry.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [name for name in names if name != AB_FOLDER and any(_run_names(self.folder / name))]

    def runs(self, machine: str) -> list[Path]:
        """Return the machine's run files, oldest first by number."""
        folder = self.folder / machine
        names = sorted(_run_names(folder), key=lambda name: int(name.removesuffix(".csv")))
        return [folder / name for name in names]

    def runs_before(self, run: Path) -> list[Path]:
        """Return the runs of a run's folder before it, oldest first; none of a file elsewhere."""
        folder, number = run.resolve().parent, run.stem
        if folder.parent != self.folder.resolve() or not NUMBER.fullmatch(number):
            return []
        return [one for one in self.runs(folder.name) if int(one.stem) < int(number)]

    def find(self, name: str, machine: str, *, but: Path | None = None) -> Path:
        """Return the run file that a user means: a path, a number such as 7, a commit or `latest`.

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
        if name == LATEST:
            if others := [run for run in runs if not same_file(run, but)]:
                return others[-1]
            none = f"no run but {but.stem}, which is judged" if runs and but else "no runs yet"
            raise StoreError(f"{self.folder / machine}: has {none}; `convmark run` makes one")
        if re.fullmatch(r"[0-9]{1,18}", name):
            for run in runs:
                if int(run.stem) == int(name):
                    return _another(run, but)
        if of_it := self.of_commit(name, machine, but=but):
            return of_it[-1]
        there = ", ".join(run.stem for run in runs[-5:]) or "none yet"
        there += f"; {but.stem} is the run that is judged" if but is not None else ""
        told = did_you_mean(name, [LATEST], cutoff=0.7)
        if re.fullmatch(r"(?=.*[a-f])[0-9a-f]{1,6}", name):
            told = told or "a commit is given by at least 7 characters"
        told = told or "expected a file, a commit or the number of a run, or latest"
        raise StoreError(f"{self.folder / machine}: no run {name!r}; {told} (newest: {there})")

    def of_commit(self, name: str, machine: str, *, but: Path | None = None) -> list[Path]:
        """Return the runs of the commit whose first characters are given, oldest first."""
        if not re.fullmatch(r"[0-9a-f]{7,64}", name):
            return []
        heads = ((run, head_cells(run)) for run in self.runs(machine) if not same_file(run, but))
        return [run for run, cells in heads if cells and cells[_COMMIT].startswith(name)]

    def newest_of(self, run: Path, name: str, machine: str, *, but: Path | None = None) -> str:
        """Say of a run that `find` has taken that its commit has several; empty where it has not.

        Args:
            name, but: as `find` was given them.
        """
        of_it = self.of_commit(name, machine, but=but)
        if len(of_it) < 2 or run.stem != of_it[-1].stem:
            return ""
        return f"the newest of {counted(len(of_it), 'run')} of commit {name}"


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


_TABLES = ("accepted.csv", "verdicts.csv")
"""Beside numbered files; a row of theirs begins with the number of the file that it is about."""


def _named_in_tables(folder: Path) -> list[int]:
    """Return the numbers that rows name, also of files that were removed by hand.

    A new file of such a number would have the verdicts, or be accepted, that the removed one was.
    """
    found = []
    for name in _TABLES:
        with contextlib.suppress(FileNotFoundError, StoreError):
            for _, cells in csv_rows(folder / name):
                if cells and RUN_NAME.fullmatch(cells[0]):
                    found.append(int(cells[0]))
    return found


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
    arrays = []
    for times_s in each_step_times(path, orders):
        if times_s is None:
            return None
        arrays.append(times_s)
    return np.concatenate(arrays) if arrays else None


def each_step_times(path: Path, orders: Iterable[int]) -> Iterator[np.ndarray | None]:
    """Yield the raw step times of each of a run's rows, seconds; None for what cannot be read."""
    with contextlib.ExitStack() as stack:
        archive = None
        with contextlib.suppress(*_UNREADABLE):
            file = stack.enter_context(open(steps_path(path), "rb", opener=open_regular))
            archive = stack.enter_context(zipfile.ZipFile(file))
        for order in orders:
            times_s = None
            if archive is not None:
                with contextlib.suppress(*_UNREADABLE):
                    times_s = _step_times(archive, order)
            yield times_s


def _step_times(archive: zipfile.ZipFile, order: int) -> np.ndarray:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSource:
    """One run's file; its place in `Rows.runs` is the frame's column `source`."""

    path: Path
    label: str
    """The run's name, with folders before it where two runs of a machine share a name."""


def run_files(places: Sequence[Path]) -> list[Path]:
    """Return the run files in results folders, machine folders or given by name, each once."""
    found: dict[Path, Path] = {}
    for place in places:
        try:
            files = [place] if place.is_file() else _in_folder(place)
        except (OSError, ValueError):  # a name too long, or with a NUL
            files = []
        if not files:
            there = os.path.isdir(place)
            raise StoreError(f"{place}: {no_runs(place) if there else 'no such file or folder'}")
        for path in files:
            found.setdefault(path.resolve(), path)
    return list(found.values())


def asked_places(given: Iterable[str], results: Path) -> list[Path]:
    """Return the places that a command was given, or else the results folder.

    Raises:
        StoreError: none was given, and there is no such folder yet.
    """
    if places := list(map(Path, given)):
        return places
    if not os.path.lexists(results):
        raise StoreError(f"{results}: {no_runs(results)}")
    return [results]


def no_runs(folder: Path) -> str:
    """Say that a results folder has no runs, where its A/B verdicts are if any, and what to do."""
    compared = "".join(
        f"; the verdicts of convmark ab are in {one}" for one in compared_in([folder])
    )
    return f"has no runs yet; `convmark run` makes one{compared}"


def compared_in(places: Iterable[Path]) -> list[Path]:
    """Return the files of the A/B verdicts that lie in results folders, beside the runs."""
    files = (place / AB_FOLDER / "verdicts.csv" for place in places)
    return [one for one in files if os.path.isfile(one)]


def _in_folder(folder: Path) -> list[Path]:
    """Return the run files of a folder and of those in it, by folder and number."""
    found = [
        path
        for pattern in ("*.csv", "*/*.csv")
        for path in folder.glob(pattern)
        if RUN_NAME.fullmatch(path.stem) and path.absolute().parent.name != AB_FOLDER
    ]
    return sorted(found, key=lambda path: (str(path.parent), int(path.stem)))


def oldest_first(runs: Sequence[tuple[Path, str]]) -> list[int]:
    """Return the places of runs, the oldest run's first.

    In a folder the run of the higher number is the newer one, whatever the clock said; between
    folders the time tells, a run whose clock was behind coming after the one numbered before it.

    Args:
        runs: of each run its file, and when its first row was started (ISO 8601, UTC).
    """
    folders = grouped((path.resolve().parent, place) for place, (path, _) in enumerate(runs))
    keys: dict[int, tuple[str, int, int]] = {}
    for at, places in enumerate(folders.values()):
        latest = ""
        for number, place in sorted((_number(runs[place][0]), place) for place in places):
            started = runs[place][1]
            if number:
                started = latest = max(latest, started)
            keys[place] = (started, at, number)
    return sorted(keys, key=keys.__getitem__)


def newest_run(places: Sequence[Path]) -> Path | None:
    """Return the newest run that has a row; None where none has."""
    heads = [(path, head.started) for path in run_files(places) if (head := read_head(path))]
    return heads[oldest_first(heads)[-1]][0].resolve() if heads else None


def _number(path: Path) -> int:
    """Return a run's number; 0 for a file of another name, which the time alone places."""
    return int(path.stem) if RUN_NAME.fullmatch(path.stem) else 0


def labelled(paths: Sequence[Path], machines: Iterable[str]) -> tuple[RunSource, ...]:
    """Return the runs, each named by its file, with as many folders as tell a machine's apart.

    All have the same number of folders: one without any could be of any folder. The folder of the
    machine is named only where nothing else differs.
    """
    whole = [path.resolve() for path in paths]
    parts = [(*path.parent.parent.parts, path.stem) for path in whole]
    owners = list(machines)
    if len(set(zip(owners, parts, strict=True))) < len(parts):
        parts = [path.parts for path in whole]
    kept, most = 1, max(map(len, parts), default=0)
    while kept < most and len({(owners[n], p[-kept:]) for n, p in enumerate(parts)}) < len(parts):
        kept += 1
    labels = ["/".join(one[-kept:]) for one in parts]
    return tuple(RunSource(path=path, label=one) for path, one in zip(paths, labels, strict=True))
