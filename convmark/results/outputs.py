"""Files and folders that the user names for an output: none takes the place of what is kept.

Kept are the runs and all that lies beside them, whatever a command reads, and files of other kinds
than the output's: code, models, prices.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from convmark.core.errors import OptionError
from convmark.core.files import read_regular
from convmark.results.one_run import RUN_NAME
from convmark.results.reading import HEADER
from convmark.results.store import same_file

__all__ = ["STDOUT", "check_output", "check_output_folder", "overlap"]

STDOUT = "-"
"""Stands for standard output where a file is asked for."""

PAGES = (".html", ".md")
"""What may lie among a machine's runs: no file that is kept there ends so."""

_BESIDE_RUNS = ("code", "models")
"""Folders in a machine's folder."""

_RUN_BEGINS = f"{','.join(HEADER[:3])},".encode()


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

    Raises:
        OptionError: it would, or the path is none.
    """
    target = _resolved(flag, path)
    suffix = target.suffix.lower()
    if suffix not in PAGES and _machine_folder(target.parent):
        raise OptionError(
            f"{flag}: must not lie among a machine's runs, got {path}; write it elsewhere"
        )
    runs = target.parent.glob("*/*.csv")
    if RUN_NAME.fullmatch(target.stem) and any(RUN_NAME.fullmatch(run.stem) for run in runs):
        raise OptionError(f"{flag}: must not be named as a run beside results, got {path}")
    if any(same_file(target, one) for one in inputs):
        raise OptionError(f"{flag}: must not be a file that is read, got {path}; name another")
    if not target.is_file() or not target.stat().st_size:
        return
    if suffix not in suffixes:
        raise OptionError(
            f"{flag}: must not replace a file of another kind, {path} is there; name another or "
            "remove it"
        )
    if _is_run(target):
        raise OptionError(f"{flag}: must not replace a run's file, got {path}; name another")


def check_output_folder(flag: str, path: Path) -> None:
    """Refuse a folder for outputs that is a machine's, or lies in one.

    Raises:
        OptionError: it is, or the path is none.
    """
    if _machine_folder(_resolved(flag, path)):
        raise OptionError(f"{flag}: must not be a machine's folder, got {path}; name another")


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
