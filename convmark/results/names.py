"""The name that a user gives to a machine, kept in the machine's results folder.

results/<machine>/name.txt    one line: the name that tables show in place of the fingerprint
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from convmark.core.errors import OptionError, StoreError
from convmark.core.files import as_store_error, read_regular, write_whole
from convmark.core.text import is_folder_name

__all__ = ["NAME_FILE", "is_machine_name", "keep_name", "kept_name", "names_of", "read_name"]

NAME_FILE = "name.txt"
MOST_BYTES = 100


def is_machine_name(text: str) -> bool:
    """Whether a text may name a machine: one line that is no path, without `=` or outer spaces."""
    short = len(text.encode(errors="replace")) <= MOST_BYTES
    return short and is_folder_name(text) and "=" not in text and text == text.strip()


def read_name(folder: Path) -> str:
    """Return the name that is kept in a machine's folder; empty where none is.

    Raises:
        StoreError: the file cannot be read, or holds no name.
    """
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
    """Keep the name of the machine whose folder it is.

    Raises:
        StoreError: the file cannot be written.
    """
    path = folder / NAME_FILE
    with as_store_error(path, "written"):
        write_whole(path, f"{name}\n".encode())


def kept_name(flag: str, text: str) -> tuple[str, str]:
    """Return machine and name from a text such as `xeon-2=laptop`.

    Raises:
        OptionError: it is none, or what follows is no name.
    """
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
