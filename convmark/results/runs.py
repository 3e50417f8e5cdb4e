"""The run files in several places: their list, their names, and their order."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from convmark.core.errors import StoreError
from convmark.results.store import AB_FOLDER, RUN_NAME, read_head

__all__ = ["RunSource", "labelled", "newest_run", "oldest_first", "run_files"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSource:
    """One run's file; its place in `Rows.runs` is the frame's column `source`."""

    path: Path
    label: str
    """The run's name, with folders before it where two runs of a machine share a name."""


def run_files(places: Sequence[Path]) -> list[Path]:
    """Return the run files in results folders, machine folders or given by name, each once.

    Raises:
        StoreError: a place that is not there, or that holds no runs.
    """
    found: dict[Path, Path] = {}
    for place in places:
        try:
            files = [place] if place.is_file() else _in_folder(place)
        except (OSError, ValueError):  # a name too long, or with a NUL
            files = []
        if not files:
            there = os.path.isdir(place)
            reason = "has no runs yet: convmark run" if there else "no such file or folder"
            raise StoreError(f"{place}: {reason}")
        for path in files:
            found.setdefault(path.resolve(), path)
    return list(found.values())


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
    folders: dict[Path, list[int]] = {}
    for place, (path, _) in enumerate(runs):
        folders.setdefault(path.resolve().parent, []).append(place)
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
    """Return the newest run that has a row; None where none has.

    Raises:
        StoreError: as `run_files`, or a file does not fit.
    """
    heads = [(path, head.started) for path in run_files(places) if (head := read_head(path))]
    return heads[oldest_first(heads)[-1]][0].resolve() if heads else None


def _number(path: Path) -> int:
    """Return a run's number; 0 for a file of another name, which the time alone places."""
    return int(path.stem) if RUN_NAME.fullmatch(path.stem) else 0


def labelled(paths: Sequence[Path], machines: Iterable[str]) -> tuple[RunSource, ...]:
    """Return the runs, each named by its file, with folders where two of a machine share it."""
    alike: dict[tuple[str, str], list[Path]] = {}
    pairs = list(zip(paths, machines, strict=True))
    for path, machine in pairs:
        alike.setdefault((machine, path.stem), []).append(path)
    names = {
        path: name
        for its_own in alike.values()
        for path, name in zip(its_own, _told_apart(its_own), strict=True)
    }
    return tuple(RunSource(path=path, label=names[path]) for path, _ in pairs)


def _told_apart(paths: Sequence[Path]) -> list[str]:
    """Return names of files of one stem: each with as few folders as make them unique.

    The folder of the machine, which they have in common, is named only where nothing else differs.
    """
    whole = [path.resolve() for path in paths]
    parts = [(*path.parent.parent.parts, path.stem) for path in whole]
    if len(set(parts)) < len(parts):
        parts = [path.parts for path in whole]
    kept = 1
    while len({one[-kept:] for one in parts}) < len(parts):
        kept += 1
    return ["/".join(one[-kept:]) for one in parts]
