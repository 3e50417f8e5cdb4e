"""What is published already: what of it a submission leaves out or changes.

A file is the same one where its path in the results folder is, such as xeon-2/0001.csv. Results
folders are paired by their names, for a repository has one for each person.
"""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from convmark.compare.files import ACCEPTED, NOISE, VERDICTS_FILE
from convmark.core.errors import StoreError
from convmark.results.reading import RUN_NAME
from convmark.results.store import AB_FOLDER
from convmark.results.table_file import csv_rows

LOOSE = (".gitkeep", "README.md")
"""Files that may lie among results."""

EXAMPLES = "examples"
"""A results folder inside that of a repository, which is one of its own."""

_GROWING = (ACCEPTED, NOISE, VERDICTS_FILE, "ceilings.csv", "layers.csv")
"""Tables of a machine, which take new rows."""

Files = Mapping[str, Path]
"""By the path in the results folder."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a submission does to a published file."""

    file: Path
    rule: str
    value: str


def is_run(name: str) -> bool:
    """Whether a path in a results folder is that of a run's file."""
    machine, _, file = name.partition("/")
    stem, _, ending = file.rpartition(".")
    return machine != AB_FOLDER and ending == "csv" and bool(RUN_NAME.fullmatch(stem))


def with_examples(given: Path) -> list[Path]:
    """Return a place, and the results folder of examples in it, if it has one."""
    inside = given / EXAMPLES
    return [given, inside] if os.path.isdir(inside) and not os.path.islink(inside) else [given]


def place(given: Path) -> Path:
    """Return the results folder that a folder or file is, or is of; nothing is read by a link."""
    whole = Path(os.path.abspath(given))
    if os.path.isfile(whole):
        return whole.parent.parent
    if os.path.islink(whole) or not os.path.isdir(whole):
        return whole
    is_machine = any(RUN_NAME.fullmatch(path.stem) for path in whole.glob("*.csv"))
    return whole.parent if is_machine else whole


def files_by_folder(against: Sequence[Path]) -> Mapping[Path, Files]:
    """Return the published files of each results folder; none for a pattern that matched nothing.

    Raises:
        StoreError: a place is not there, or its runs lie deeper than those of a results folder.
    """
    found: dict[Path, dict[str, Path]] = defaultdict(dict)
    for given in itertools.chain.from_iterable(map(with_examples, against)):
        if not os.path.exists(given):
            if "*" in str(given):
                continue
            raise StoreError(f"{given}: no such file or folder")
        if given.name in LOOSE:
            continue
        folder = place(given)
        whole = Path(os.path.abspath(given))
        files = [whole] if whole.is_file() else sorted(whole.rglob("*"))
        names = {
            path.relative_to(folder).as_posix(): path
            for path in files
            if path.is_file()
            and path.parent.name != AB_FOLDER
            and whole / EXAMPLES not in path.parents
        }
        if not any(map(is_run, names)) and any(is_run(name.partition("/")[2]) for name in names):
            raise StoreError(
                f"{given}: must be a folder of results, it has several; name {given}/*"
            )
        found[folder].update(names)
    return found


def pair(folder: Path, folders: Sequence[Path], published: Mapping[Path, Files]) -> Files:
    """Return the published files of a submitted results folder: those of a folder of its name.

    One folder and one published folder are a pair under any names, if a run of both is the same.
    """
    named = {name: path for other in published if other.name == folder.name
             for name, path in published[other].items()}  # fmt: skip
    places = [one for one in folders if one.name != EXAMPLES]
    others = [files for one, files in published.items() if one.name != EXAMPLES]
    if named or len(places) != 1 or len(others) != 1:
        return named
    (only,) = others
    alike = any(is_run(name) and _same(folder / name, only[name]) for name in only)
    return only if alike else {}


def gone_folders(given: Sequence[Path], published: Mapping[Path, Files]) -> Iterator[Change]:
    """Yield the published results folders that are gone.

    One is looked for where the submission has others beside it: a folder of a published one's
    name, or a loose file.
    """
    around = {place(one).parent for one in given if one.name not in LOOSE}
    around |= {Path(os.path.abspath(one)).parent for one in given if one.name in LOOSE}
    names = {place(one).name for one in given}
    if not any(one.name in LOOSE for one in given) and not names & {one.name for one in published}:
        return
    for folder in published:
        if not any(os.path.lexists(one / folder.name) for one in around):
            yield Change(Path(os.path.relpath(min(around) / folder.name)), "gone", str(folder))


def changes(given: Path, files: Sequence[Path], published: Files) -> Iterator[Change]:
    """Yield what is gone or changed of the published files of a submitted folder."""
    folder, whole = place(given), Path(os.path.abspath(given))
    runs = {name.removesuffix(".csv") for name in published if is_run(name)}
    for name, path in published.items():
        own = folder / name
        if own.is_relative_to(whole) and not os.path.lexists(own):
            yield Change(given / own.relative_to(whole), "gone", str(path))
    for own in files:
        name = Path(os.path.abspath(own)).relative_to(folder).as_posix()
        first = published.get(name)
        if own.name in _GROWING:
            value = _grown(own, first, runs)
        elif first is not None:
            value = "" if _same(own, first) else f"differs from {first}"
        else:
            beside = "/".join([*name.split("/")[:-1], own.name.partition(".")[0]])
            value = "new beside a published run" if beside in runs else ""
        if value:
            yield Change(own, "changed", value)


def _same(own: Path, first: Path) -> bool:
    if own.is_symlink() or not own.is_file() or own.stat().st_size != first.stat().st_size:
        return False
    return own.read_bytes() == first.read_bytes()


def _has_its_rows(own: Path, first: Path) -> bool:
    """Whether a table begins with the rows of another, which has fewer columns.

    A later version writes a table anew with its columns; their cells are empty in earlier rows.
    """
    try:
        (header, *rows), (named, *wanted) = ([cells for _, cells in csv_rows(one)]
                                             for one in (own, first))  # fmt: skip
    except (StoreError, ValueError):  # the reader says why, or one is empty
        return False
    known = set(named) < set(header) and len(wanted) <= len(rows)
    pairs = zip(rows, wanted, strict=False)
    return known and all(_filled(header, one) == _filled(named, other) for one, other in pairs)


def _filled(header: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    return {name: text for name, text in zip(header, cells, strict=False) if text}


def _grown(own: Path, first: Path | None, runs: set[str]) -> str:
    """Return what a table has but new rows about new runs; empty for nothing."""
    old = first.read_bytes() if first is not None else b""
    if first and not (own.read_bytes().startswith(old) or _has_its_rows(own, first)):
        return f"differs from {first}"
    if own.name in (ACCEPTED, VERDICTS_FILE):
        try:
            for line, cells in csv_rows(own):
                if line > old.count(b"\n") and cells and f"{own.parent.name}/{cells[0]}" in runs:
                    return f"line {line} is about the published run {cells[0]}"
        except StoreError:  # its reader says why
            return ""
    return ""
