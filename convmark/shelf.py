"""A machine's earlier runs, each read at most once, and only as far as it must be."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from convmark.comparability import comparability, of_the_run
from convmark.errors import ConvmarkError
from convmark.record import Record
from convmark.store import HEADER, StoreWarning, read_head, read_run

__all__ = ["Shelf", "by_name"]


def by_name(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Return the rows of each case by the case's name."""
    cases: dict[str, list[Record]] = {}
    for record in records:
        cases.setdefault(record.case.name, []).append(record)
    return cases


class Shelf:
    """Run files, oldest first. One that cannot be read holds nothing, until `warn` says so."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._heads: dict[Path, Record | None] = {}
        self._stems: dict[Path, frozenset[str]] = {}
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

    def stems(self, path: Path) -> frozenset[str]:
        """The stems of the run's cases, found without parsing its rows."""
        if path not in self._stems:
            self._stems[path] = _stems_in(path) if self.head(path) else frozenset()
        return self._stems[path]

    def is_alike(self, path: Path, conditions: Collection[tuple[object, ...]]) -> bool:
        """Whether nothing that all rows of the run share rules out comparable rows."""
        head = self.head(path)
        if head is None:
            return False
        facts = of_the_run(comparability(head))
        return any(
            all(fact in (None, asked) for fact, asked in zip(facts, wanted, strict=True))
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


_MODEL = HEADER.index("model")


def _stems_in(path: Path) -> frozenset[str]:
    """Return the stems in a file, and perhaps more; rows that failed may be left out.

    The cells before the model's are plain in a measured row, for its error is empty.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return frozenset()
    cells = (line.split(b",", _MODEL + 4)[_MODEL : _MODEL + 4] for line in lines)
    return frozenset(stem.decode(errors="replace") for stem in set(map(b",".join, cells)))
