"""The rows of results folders as one data frame; every cell is checked against the schema."""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convmark.core.backends import BACKENDS
from convmark.core.case import Case
from convmark.core.errors import StoreError
from convmark.core.runtimes import DEFAULT_RUNTIME
from convmark.results.columnar import case_name, read_columns, whole_file
from convmark.results.names import names_of
from convmark.results.record import (
    FRAMEWORK_COLUMNS,
    MEASURED,
)
from convmark.results.runs import RunSource, labelled, oldest_first, run_files
from convmark.results.store import StoreWarning

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Rows", "read_rows"]

_AXES = tuple(Case.__dataclass_fields__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """All rows, and the files that they came from."""

    frame: pd.DataFrame
    """The schema's columns, numbers as float64 with NaN for an empty cell, texts as objects with
    None for one; and `source`, `case`, `hardware` (machine and device), `framework` (name and
    version of what ran the step) and `measured`."""
    runs: tuple[RunSource, ...]
    """Oldest first, so that the highest `source` is the newest run."""
    names: Mapping[str, str]
    """Of the machines that a user has named, by their fingerprints; the frame has the names."""


def read_rows(places: Sequence[Path]) -> Rows:
    """Return the rows of all runs in the places; a copy of a file counts once.

    What may be left out is: a file without rows, a torn last line, a copy; a `StoreWarning` names
    it. Everything else that does not fit the schema is refused.

    Raises:
        StoreError: nothing is there, no file has a row, or a file does not fit; the message names
            file and line; or the names of machines contradict each other.
    """
    import pandas as pd

    parts: list[dict[str, Any]] = []
    paths: list[Path] = []
    seen: dict[bytes, Path] = {}
    empty: list[Path] = []
    for path in run_files(places):
        data = whole_file(path)
        first = seen.setdefault(hashlib.sha256(data).digest(), path) if data else path
        if first is not path and first.name == path.name:
            _warn(f"{path}: is a copy of {first}, left out")
            continue
        part = read_columns(path, data)
        if not len(part["status"]):
            empty.append(path)
            continue
        if not all(part["machine"]):
            folder = path.resolve().parent.name
            part["machine"] = [name or folder for name in part["machine"]]
        paths.append(path)
        parts.append(part)
    if not parts:
        raise StoreError(f"{empty[0]}:1: must have the rows of a run after its header, it has none")
    for path in empty:
        _warn(f"{path}:1: has no rows, skipped")
    if len(parts) == 1 and len(parts[0]["status"]) == 1:
        _warn(f"{paths[0]}:2: is the only row, so the spread is unknown; try --processes 3")
    names = names_of(
        [(part["machine"][0], path.parent) for path, part in zip(paths, parts, strict=True)]
    )
    for part in parts if names else ():
        part["machine"] = [names.get(machine, machine) for machine in part["machine"]]
    order = oldest_first(
        [(path, part["started"][0]) for path, part in zip(paths, parts, strict=True)]
    )
    paths, parts = [paths[place] for place in order], [parts[place] for place in order]
    for place, part in enumerate(parts):
        part["source"] = np.full(len(part["status"]), place)
    machines = [part["machine"][0] for part in parts]
    columns: dict[str, Any] = {name: _joined(parts, name) for name in list(parts[0])}
    frame = pd.DataFrame({**columns, **_names(columns)}, copy=False)
    return Rows(frame=frame, runs=labelled(paths, machines), names=names)


def _warn(text: str) -> None:
    warnings.warn(text, StoreWarning, stacklevel=3)


def _joined(parts: Sequence[dict[str, Any]], name: str) -> np.ndarray[Any, Any]:
    """Take a column out of all parts, so that it is in memory once."""
    taken = [part.pop(name) for part in parts]
    return np.concatenate(
        [one if isinstance(one, np.ndarray) else np.array(one, dtype=object) for one in taken]
    )


def _names(columns: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
    """Return what the tables group by: the case's name, the hardware, whether there are figures."""
    import pandas as pd

    empty = {"cluster": "", "runtime": DEFAULT_RUNTIME}
    filled = {
        name: [text if one is None else one for one in columns[name].tolist()]
        for name, text in empty.items()
    }
    known = {name: columns[name].tolist() for name in _AXES} | filled
    axes = zip(*known.values(), strict=True)
    pairs = zip(columns["machine"].tolist(), columns["device"].tolist(), strict=True)
    statuses = columns["status"].tolist()
    named = {
        "case": np.array([case_name(*values) for values in axes], dtype=object),
        "runtime": np.array(filled["runtime"], dtype=object),
        "hardware": np.array([_hardware(*pair) for pair in pairs], dtype=object),
        **{name: columns[name] for name in ("machine", "model", "task", "status")},
    }
    return {
        "measured": np.array([status in MEASURED for status in statuses], dtype=bool),
        "framework": _frameworks(columns),
        **{name: pd.Categorical(values) for name, values in named.items()},
    }


def _frameworks(columns: Mapping[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Return name and version of what runs each row's step."""
    names = ("backend", "packages", *FRAMEWORK_COLUMNS)
    rows = zip(*(columns[name].tolist() for name in names), strict=True)
    return np.array([_framework(*values) for values in rows], dtype=object)


@functools.cache
def _framework(backend: str, packages: str | None, *versions: str | None) -> str | None:
    known = dict(zip(FRAMEWORK_COLUMNS, versions, strict=True))
    version = known.get(backend) or dict(
        part.split("==", 1) for part in (packages or "").split() if "==" in part
    ).get(backend)
    return f"{BACKENDS[backend].label} {version}" if version else None


@functools.cache
def _hardware(machine: str, device: str) -> str:
    return f"{machine} {device}"
