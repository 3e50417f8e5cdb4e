"""A machine's earlier runs, each read at most once, and only as far as it must be."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from convmark.case import Case
from convmark.errors import ConvmarkError
from convmark.judging.comparability import AXES, comparability, of_the_run
from convmark.record import Record, to_cell
from convmark.store import HEADER, StoreWarning, read_head, read_run

__all__ = ["Outline", "Shelf", "by_name"]


_case_of = operator.attrgetter(*Case.__dataclass_fields__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """What a file may hold, found without parsing its rows; nothing else is in it."""

    cases: frozenset[tuple[bytes, ...]]
    """The cells of the axes, for each case with a measured row, and perhaps for more."""
    marks: frozenset[str]
    """The marks that were asked for and are in it."""


def by_name(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Return the rows of each case by the case's name."""
    groups: dict[object, list[Record]] = {}
    for record in records:
        groups.setdefault(_case_of(record), []).append(record)
    return {rows[0].case.name: rows for rows in groups.values()}


class Shelf:
    """Run files, oldest first. One that cannot be read holds nothing, until `warn` says so."""

    def __init__(self, paths: Sequence[Path], marks: Collection[str] = ()) -> None:
        self._paths = paths
        self._marks = marks
        self._heads: dict[Path, Record | None] = {}
        self._outlines: dict[Path, Outline] = {}
        self._alike: dict[Outline, Outline] = {}  # runs of a suite have one in common
        self._rows: dict[Path, dict[str, list[Record]]] = {}
        self._unreadable: dict[Path, ConvmarkError] = {}

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(self._rows)

    def head(self, path: Path) -> Record | None:
        """The run's first row, failed or not; None where there is none to be read."""
        if path not in self._heads:
            try:
                self._heads[path] = read_head(path)
            except ConvmarkError as error:
                self._unreadable[path], self._heads[path] = error, None
        return self._heads[path]

    def measured(self, path: Path) -> dict[str, list[Record]]:
        """The run's measured rows by case."""
        if path not in self._rows:
            try:
                rows = [] if path in self._unreadable else read_run(path)
                self._rows[path] = by_name(row for row in rows if row.measured)
            except ConvmarkError as error:
                self._unreadable[path], self._rows[path] = error, {}
        return self._rows[path]

    def outline(self, path: Path) -> Outline:
        """What the run may hold."""
        if path not in self._outlines:
            try:
                data = path.read_bytes() if self.head(path) else b""
            except OSError:
                data = b""
            outline = _outline(data, self._marks)
            self._outlines[path] = self._alike.setdefault(outline, outline)
        return self._outlines[path]

    def mentions(self, path: Path, models: Collection[str]) -> bool:
        """Whether a model's name stands anywhere in the file: the quickest way to rule it out."""
        if path in self._outlines:
            return True
        try:
            data = path.read_bytes()
        except OSError:
            return False
        return any(to_cell(model).encode() in data for model in models)

    def is_alike(self, path: Path, conditions: Collection[tuple[object, ...]]) -> bool:
        """Whether nothing that all rows of the run share rules out comparable rows."""
        head = self.head(path)
        if head is None:
            return False
        facts = of_the_run(comparability(head))
        return any(
            all(_may_agree(fact, asked) for fact, asked in zip(facts, wanted, strict=True))
            for wanted in conditions
        )

    def clean_at(self, commit: str) -> Iterator[Path]:
        """The runs at a commit with a clean tree, newest first."""
        for path in reversed(self._paths):
            head = self.head(path)
            if head is not None and head.dirty is False and head.commit == commit:
                yield path

    def warn(self) -> None:
        """Say once what could not be read."""
        if self._unreadable:
            more = len(self._unreadable) - 1
            text = f"{next(iter(self._unreadable.values()))}; left out of the history"
            text += f", and {more} more" if more else ""
            warnings.warn(text, StoreWarning, stacklevel=3)


def _may_agree(fact: object, asked: object) -> bool:
    """Whether two facts agree, or one of the rows cannot tell: of another backend's version."""
    return fact is None or asked is None or fact == asked


_LAST = HEADER.index(AXES[-1])
_axes = operator.itemgetter(*(HEADER.index(name) for name in AXES))


def _outline(data: bytes, marks: Iterable[str]) -> Outline:
    """Outline a file; the cells before the axes are plain in a measured row, its error empty."""
    lines = (line.split(b",", _LAST + 1) for line in data.split(b"\n")[1:])
    return Outline(
        cases=frozenset(_axes(cells) for cells in lines if len(cells) > _LAST + 1),
        marks=frozenset(mark for mark in marks if mark.encode() in data),
    )
