"""Names that a user gives: of machines, and of files and folders for an output.

results/<machine>/name.txt    one line: the name that tables show in place of the fingerprint

No output takes the place of what is kept: the runs and all that lies beside them, what a command
reads, and files of other kinds than the output's: code, models, prices.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from convmark.core.errors import OptionError, StoreError
from convmark.core.files import as_store_error, read_regular, write_whole
from convmark.core.text import is_folder_name
from convmark.results.reading import HEADER, RUN_NAME
from convmark.results.store import same_file

OTHER_HOST = " (host not named)"
NAME_FILE = "name.txt"
MOST_BYTES = 100


STDOUT = "-"
"""Stands for standard output where a file is asked for."""

PAGES = (".html", ".md")
"""What may lie among a machine's runs: no file that is kept there ends so."""

_BESIDE_RUNS = ("code", "models")
"""Folders in a machine's folder."""

_RUN_BEGINS = f"{','.join(HEADER[:3])},".encode()


def is_machine_name(text: str) -> bool:
    """Whether a text may name a machine: one line that is no path, without `=` or outer spaces."""
    short = len(text.encode(errors="replace")) <= MOST_BYTES
    return short and is_folder_name(text) and "=" not in text and text == text.strip()


def read_name(folder: Path) -> str:
    """Return the name that is kept in a machine's folder; empty where none is."""
    path = folder / NAME_FILE
    try:
        text = read_regular(path, MOST_BYTES + 2).decode("utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "is no UTF-8"
        raise StoreError(f"{path}: cannot be read: {reason}") from None
    name = text.removesuffix("\n").removesuffix("\r")
    if not is_machine_name(name):
        raise StoreError(
            f"{path}:1: must be the name of a machine, one line that is no path, got {name!r}; "
            "correct or remove the file"
        )
    return name


def keep_name(folder: Path, name: str) -> None:
    """Keep the name of the machine whose folder it is."""
    path = folder / NAME_FILE
    with as_store_error(path, "written"):
        write_whole(path, f"{name}\n".encode())


def kept_name(flag: str, text: str) -> tuple[str, str]:
    """Return machine and name from a text such as `xeon-2=laptop`."""
    machine, sign, name = text.partition("=")
    if not machine or not sign or not is_machine_name(name):
        raise OptionError(
            f"{flag}: must be MACHINE=NAME with a name of one line that is no path, got {text!r}"
        )
    return machine, name


def names_of(folders: Iterable[tuple[str, Path]]) -> Mapping[str, str]:
    """Return the names of machines by their fingerprints, of those that have one.

    Args:
        folders: machines with their folders; a machine may have several.

    Raises:
        StoreError: a file does not fit, a machine has two names, or two machines have one.
    """
    found: dict[str, tuple[str, Path]] = {}
    for machine, folder in folders:
        name = read_name(folder)
        known, there = found.get(machine, (name, folder))
        if name and known not in ("", name):
            raise StoreError(
                f"{folder / NAME_FILE}: the machine {machine} must have one name, it is {name!r} "
                f"here and {known!r} in {there}; choose one by convmark report --name"
            )
        found[machine] = (known, there) if known else (name, folder)
    names = {machine: name for machine, (name, _) in found.items() if name}
    for machine, name in names.items():
        others = [one for one in found if one != machine and name in (one, names.get(one))]
        if others:
            raise StoreError(
                f"{found[machine][1] / NAME_FILE}: {name!r} must name one machine, it names "
                f"{machine} and {others[0]}; choose another by convmark report --name"
            )
    return names


def host_endings(runs: Sequence[tuple[str, bool]]) -> list[str]:
    """Return for each run what its machine's name ends in, so that hosts of one kind stay apart.

    Machines of one kind share a name. Published rows do not name their host, and those of a user's
    own machine do: without this, both would be ranked as of one machine.

    Args:
        runs: of each its machine, and whether its rows name their host.
    """
    named = {machine for machine, has_host in runs if has_host}
    return [OTHER_HOST * (not has_host and machine in named) for machine, has_host in runs]


def check_output(
    flag: str, path: Path, suffixes: Collection[str], *, inputs: Iterable[Path] = ()
) -> None:
    """Refuse a file to be written that would take the place of one that is kept or read.

    Pipes and devices pass, and so does an empty file, which a CI hands out for its summary.

    Args:
        flag: the option that names it.
        suffixes: endings of the files that the command writes, in lower case, such as `.svg`; a
            file that is there already must have one of them.
        inputs: files that the command reads beside the results.
    """
    target = _resolved(flag, path)
    suffix = target.suffix.lower()
    if suffix not in PAGES and _machine_folder(target.parent):
        raise OptionError(
            f"{flag}: must not be among a machine's runs, got {path}; write it elsewhere"
        )
    runs = target.parent.glob("*/*.csv")
    if RUN_NAME.fullmatch(target.stem) and any(RUN_NAME.fullmatch(run.stem) for run in runs):
        raise OptionError(f"{flag}: must not be named as a run beside results, got {path}")
    if any(same_file(target, one) for one in inputs):
        raise OptionError(f"{flag}: must not be a file that is read, got {path}; choose another")
    if not target.is_file() or not target.stat().st_size:
        return
    if suffix not in suffixes:
        raise OptionError(
            f"{flag}: must not replace a file of another kind, but {path} exists; choose "
            "another name or remove it"
        )
    if _is_run(target):
        raise OptionError(f"{flag}: must not replace a run's file, got {path}; choose another")


def check_output_folder(
    flag: str, path: Path, *, new: bool = False, inputs: Iterable[Path] = ()
) -> None:
    """Refuse a folder for outputs that is a machine's, or lies in one.

    Args:
        new: whether it must not exist yet.
        inputs: folders that the command reads, which must lie apart.
    """
    if _machine_folder(_resolved(flag, path)):
        raise OptionError(f"{flag}: must not be a machine's folder, got {path}; choose another")
    for one in inputs:
        if overlap(one, path):
            raise OptionError(
                f"{flag}: must not be a folder that is read, nor be inside one or contain one, got "
                f"{path} and {one}"
            )
    if new and os.path.lexists(path):
        raise OptionError(f"{flag}: must not exist yet, got {path}; remove it first")


def overlap(one: Path, other: Path) -> bool:
    """Return whether two places are the same, or one lies in the other, by whatever links."""
    try:
        pairs = ((one.resolve(), other), (other.resolve(), one))
        return any(
            same_file(above, end) for lower, end in pairs for above in (lower, *lower.parents)
        )
    except (OSError, RuntimeError, ValueError):  # no path at all, which the reading then says
        return False


def _resolved(flag: str, path: Path) -> Path:
    if str(path) == STDOUT:
        raise OptionError(f"{flag}: must be a path, got '-', which cannot be standard output here")
    try:
        return path.resolve()
    except (ValueError, RuntimeError) as error:
        raise OptionError(f"{flag}: {path} must be a path: {error}") from None


def _machine_folder(folder: Path) -> bool:
    """Whether a folder has runs, or is one of those beside them, or lies in one of those."""
    above = [folder, *(one.parent for one in (folder, folder.parent) if one.name in _BESIDE_RUNS)]
    return any(RUN_NAME.fullmatch(run.stem) for one in above for run in one.glob("*.csv"))


def _is_run(path: Path) -> bool:
    """Whether a file begins as a run's does, of whatever schema."""
    try:
        return read_regular(path, 64).removeprefix(b"\xef\xbb\xbf").startswith(_RUN_BEGINS)
    except OSError:
        return False


def hardware_names(places: Sequence[tuple[str, str, str | None]]) -> list[str]:
    """Return the hardware of each row, by its machine, device and card.

    CUDA_VISIBLE_DEVICES may make each card of a machine `gpu:0`: then the card's name stands
    between the two.
    """
    known = {place for place in places if place[2]}
    several = {one for one, count in Counter(place[:2] for place in known).items() if count > 1}
    names = {
        (machine, device, card): f"{machine} {card} {device}"
        if card and (machine, device) in several
        else f"{machine} {device}"
        for machine, device, card in set(places)
    }
    return [names[place] for place in places]
