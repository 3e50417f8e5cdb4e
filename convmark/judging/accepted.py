"""The accepted runs of a machine: who said which run is what later ones are judged against.

    results/<machine>/accepted.csv    run, accepted, commit, reason; one row per `convmark accept`

`accepted` is UTC, ISO 8601; `commit` is the run's own, empty where git named none. Text that a
spreadsheet would take for a formula has an apostrophe before it, as in a run's file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import datetime, timezone

from convmark.errors import OptionError, StoreError
from convmark.judging.tablefile import append_rows, read_rows
from convmark.record import Column, from_cell, to_cell
from convmark.store import Store, read_run
from convmark.text import plain_text

__all__ = ["Acceptance", "accept", "read_accepted"]

FILE = "accepted.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """One accepted run."""

    run: str
    accepted: str
    commit: str | None
    reason: str


HEADER = [field.name for field in fields(Acceptance)]
_COLUMNS = [
    Column(name=name, type=str, required=name != "commit", group="accepted", unit="", meaning="")
    for name in HEADER
]


def read_accepted(store: Store, machine: str) -> list[Acceptance]:
    """Return the machine's accepted runs in the order of their acceptance.

    Raises:
        StoreError: the file cannot be read; the message names file and line.
    """
    path = store.folder / machine / FILE
    found = []
    for line, cells in read_rows(path, HEADER):
        values = {}
        for column, cell in zip(_COLUMNS, cells, strict=True):
            try:
                values[column.name] = from_cell(column, cell)
            except ValueError as error:
                raise StoreError(f"{path}:{line}: column {column.name!r} {error}") from None
        found.append(Acceptance(**values))
    return found


def accept(
    store: Store,
    machine: str,
    run: str,
    reason: str,
    *,
    now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
) -> Acceptance:
    """Make a run what later runs of its cases are judged against.

    Args:
        run: its number, commit or file.

    Raises:
        OptionError: there is no reason.
        StoreError: there is no such run of the machine, it holds no figures, or the file cannot
            be written.
    """
    reason = plain_text(reason)
    if not reason:
        raise OptionError("--reason: must say in a few words why the run is accepted, got nothing")
    path = store.find(run, machine)
    if path.resolve().parent != (store.folder / machine).resolve():
        raise StoreError(f"{path}: must be a run in {store.folder / machine} to be accepted")
    measured = [record for record in read_run(path) if record.measured]
    if not measured:
        raise StoreError(f"{path}: must hold a measured row to be accepted, it has none")
    accepted = Acceptance(
        run=path.stem,
        accepted=now().isoformat(timespec="seconds"),
        commit=measured[0].commit,
        reason=reason,
    )
    cells = [to_cell(getattr(accepted, name)) for name in HEADER]
    append_rows(store.folder / machine / FILE, HEADER, [cells])
    return accepted
