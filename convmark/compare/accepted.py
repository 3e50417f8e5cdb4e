"""The accepted runs of a machine: who said which run is what later ones are judged against.

    results/<machine>/accepted.csv    run, accepted, commit, reason, case

One row per `convmark accept`, or where it names cases one for each. `accepted` is UTC, ISO 8601;
`commit` is the run's own, empty where git named none; `case` is empty for all cases of the run. A
file from before single cases could be accepted has no such column, and keeps its columns. Text that
a spreadsheet would take for a formula has an apostrophe before it, as in a run's file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from fnmatch import fnmatchcase

from convmark.core.errors import OptionError, StoreError
from convmark.core.option_values import check_patterns
from convmark.core.text import plain_text
from convmark.results.store import Store, read_run
from convmark.results.table_file import TableFile

__all__ = ["Acceptance", "accept", "read_accepted"]

FILE = "accepted.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """One accepted run, or one case of it."""

    run: str
    accepted: str
    commit: str | None
    reason: str
    case: str | None = None
    """The only case that it is accepted for; None for all that it has."""


_TABLE = TableFile(Acceptance, earlier=("run", "accepted", "commit", "reason"))


def read_accepted(store: Store, machine: str) -> list[Acceptance]:
    """Return the machine's accepted runs in the order of their acceptance.

    Raises:
        StoreError: the file cannot be read; the message names file and line.
    """
    return _TABLE.read(store.folder / machine / FILE)


def accept(
    store: Store,
    machine: str,
    run: str,
    reason: str,
    patterns: Sequence[str] = (),
    *,
    now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
) -> list[Acceptance]:
    """Make a run what later runs of its cases are judged against.

    Args:
        run: its number, commit or file.
        patterns: of the cases that it is accepted for; none for all. The others keep their anchor.

    Raises:
        OptionError: there is no reason, or no case matches a pattern.
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
    names = dict.fromkeys(record.case.name for record in measured)
    check_patterns("--case", patterns, names)
    cases = [name for name in names if any(fnmatchcase(name, one) for one in patterns)]
    accepted = Acceptance(
        run=path.stem,
        accepted=now().isoformat(timespec="seconds"),
        commit=measured[0].commit,
        reason=reason,
    )
    found = [replace(accepted, case=case) for case in cases] or [accepted]
    _TABLE.append(store.folder / machine / FILE, found)
    return found
