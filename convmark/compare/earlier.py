"""A machine's earlier runs, each read at most once, and which of their rows a case is held to."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from convmark.compare.comparability import Conditions, comparable, difference
from convmark.compare.digest import Digest
from convmark.compare.index import Index
from convmark.core.case import Case
from convmark.core.errors import ConvmarkError
from convmark.core.statistics import grouped
from convmark.core.tasks import TIMED_TASKS
from convmark.core.text import Say
from convmark.results.reading import StoreWarning, read_run
from convmark.results.record import Record, steady_rows

Row = tuple[str, Conditions, Record]
"""A row with its case's name and its conditions."""

_case_of = operator.attrgetter(*Case.__dataclass_fields__)


def by_name(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Return the rows of each case by the case's name."""
    groups = grouped((_case_of(record), record) for record in records)
    return {rows[0].case.name: rows for rows in groups.values()}


def items(records: Iterable[Record]) -> list[Row]:
    """Return the measured rows, those of a case together."""
    groups = by_name(record for record in records if record.measured)
    return [(name, Conditions.of(row), row) for name, rows in groups.items() for row in rows]


def identity(row: Record) -> tuple[object, ...]:
    """Return what tells a row from every other one, in whatever file it stands."""
    return row.run, row.machine, row.node, row.started, row.order, row.process


def steady(records: Iterable[Record]) -> tuple[Record, ...]:
    """Return the rows that may be judged: the steady ones, or where there are none the unsteady.

    Rows that say why they are no ground for a verdict are left out.
    """
    return tuple(steady_rows([record for record in records if record.measured]))


def is_of_commit(row: Record) -> bool:
    """Whether the row's commit, where it has one, is what it ran."""
    return bool(row.code) or row.dirty is False


def asked_conditions(records: Sequence[Record]) -> dict[str, Conditions]:
    """Return the conditions of each case that can be judged."""
    measured = by_name(record for record in records if record.measured)
    return {
        name: Conditions.of(judged[0])
        for name, rows in measured.items()
        if (judged := steady(rows))
    }


_Item = TypeVar("_Item", tuple[str, Conditions], tuple[str, Conditions, Record])
"""A case's name and conditions, as the index has them or with a row."""


def match(name: str, asked: Conditions, held: Sequence[_Item]) -> tuple[list[_Item], str]:
    """Return what of a run can be a case's anchor, and what it differs in.

    What can be compared live with today's code can: were it passed over, a setting of the model's
    that slows the whole process, or a slowdown at the time of a new way to measure, would become
    its own baseline. Where nothing can it is what the nearest rows differ in.
    """
    own: list[_Item] = [one for one in held if one[0] == name]
    if same := [one for one in own if comparable(one[1].facts, asked.facts)]:
        return same, ""
    near: list[_Item] = [one for one in held if one[1].facts.point == asked.facts.point]
    found: list[_Item] = []
    if asked.facts.task in TIMED_TASKS:
        found = [one for one in near if comparable(one[1].live, asked.live)]
    others = found or own or near
    if not others:
        return [], ""
    return found, difference(asked.facts, others[0][1].facts, live=bool(found))


class EarlierRuns:
    """A machine's earlier runs, each read at most once, and only where its rows are wanted.

    A file that cannot be read holds nothing, and `close` warns of it. Nor does a file hold the rows
    of the run that is judged: it may be a copy of it, or a link.
    """

    def __init__(
        self,
        folder: Path,
        paths: Sequence[Path],
        own: Sequence[Record] = (),
        say: Say = lambda line: None,
    ) -> None:
        """Describe them: files of the folder, oldest first, but for the rows of the judged run."""
        self.paths = paths
        self._own = frozenset(map(identity, own))
        self._asked = asked_conditions(own)
        self._index = Index(folder, say=say)
        self._matches: dict[str, tuple[set[str], dict[str, str]]] = {}
        self._rows: dict[Path, list[Row]] = {}
        self._unreadable: dict[Path, str] = {}

    def matches(self, path: Path) -> tuple[set[str], dict[str, str]]:
        """Return the cases whose anchor a run can be, and what those that it has else differ in."""
        kind = self.entry(path).held
        if kind not in self._matches:
            held = self.entry(path).judged
            found = {name: match(name, asked, held) for name, asked in self._asked.items()}
            self._matches[kind] = (
                {name for name, (matching, _) in found.items() if matching},
                {name: text for name, (_, text) in found.items() if text},
            )
        return self._matches[kind]

    def is_named(self, path: Path, name: str, other: str | None) -> bool:
        """Return whether a case's rows in a run have another name there."""
        held = self.entry(path).judged
        return any(other == there for there, _ in match(name, self._asked[name], held)[0])

    def rows(self, path: Path) -> list[Row]:
        if path not in self._rows:
            try:
                rows = [] if path in self._unreadable else read_run(path)
            except ConvmarkError as error:
                rows, self._unreadable[path] = [], str(error)
            self._rows[path] = [one for one in items(rows) if identity(one[2]) not in self._own]
        return self._rows[path]

    def with_code(self, rows: Sequence[Record]) -> Iterator[Path]:
        """Yield the runs that may have rows of the same code, newest first.

        That is known by its hash, and of rows without one by the commit of a clean tree.
        """
        codes = {row.code for row in rows if row.code}
        commits = {row.commit for row in rows if row.commit and is_of_commit(row)}
        coded = all(row.code for row in rows)
        for path in reversed(self.paths) if codes or commits else ():
            entry = self.entry(path)
            theirs = entry.codes.split()
            of_commit = entry.commit in commits and (bool(theirs) or entry.dirty == 0)
            if (of_commit and not (coded and theirs)) or not codes.isdisjoint(theirs):
                yield path

    def close(self) -> None:
        """Keep the index, and warn once of what could not be read."""
        self._index.keep()
        if self._unreadable:
            more = len(self._unreadable) - 1
            text = f"{next(iter(self._unreadable.values()))}; left out of the history"
            text += f", and {more} more" if more else ""
            warnings.warn(text, StoreWarning, stacklevel=3)

    def entry(self, path: Path) -> Digest:
        """Return what a run's file says; of one that cannot be read `close` warns."""
        entry = self._index.entry(path)
        if entry.error is not None:
            self._unreadable[path] = f"{path}{entry.error}"
        return entry
