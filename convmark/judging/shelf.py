"""A machine's earlier runs, each read at most once, and only as far as it must be.

What the index knows of a run is not looked for in its file. Where more runs must be looked into
than `MOST_LOOKS`, the index is brought up to date first: a long history is read once, not always.
"""

from __future__ import annotations

import csv
import functools
import operator
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from convmark.case import Case
from convmark.errors import ConvmarkError, StoreError
from convmark.judging.comparability import AXES
from convmark.judging.digest import Head, digest_of, head_of
from convmark.judging.index import Index, KnownRun, Say
from convmark.reading import StoreWarning, read_head, read_run
from convmark.record import Record, to_cell

__all__ = ["Outline", "Shelf", "by_name", "identity"]


MOST_LOOKS = 100
"""Files that are looked into before it pays to index all: some 30 ms."""

MOST_WHOLE_BYTES = 1 << 26
"""Of a file that is looked through at one go: some 30,000 rows."""

_case_of = operator.attrgetter(*Case.__dataclass_fields__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """What a file may hold, found without parsing its rows; nothing else is in it."""

    cases: frozenset[tuple[bytes, ...]]
    """The cells of the axes, for each case with a measured row, and perhaps for more."""
    marks: frozenset[str]
    """The marks that were asked for and are in it."""
    models: frozenset[bytes]
    """The cells of its models."""


@functools.lru_cache(maxsize=64)
def _cells_of(models: frozenset[str]) -> frozenset[bytes]:
    return frozenset(to_cell(model).encode() for model in models)


def _beginning(path: Path) -> bytes:
    """Return what is in a file, one byte more than `MOST_WHOLE_BYTES` at most."""
    with path.open("rb") as file:
        return file.read(MOST_WHOLE_BYTES + 1)


def by_name(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Return the rows of each case by the case's name."""
    groups: dict[object, list[Record]] = {}
    for record in records:
        groups.setdefault(_case_of(record), []).append(record)
    return {rows[0].case.name: rows for rows in groups.values()}


def identity(row: Record) -> tuple[object, ...]:
    """Return what tells a row from every other one, in whatever file it stands."""
    return row.run, row.machine, row.node, row.started, row.order, row.process


class Shelf:
    """Run files, oldest first. One that cannot be read holds nothing, until `warn` says so.

    Nor does a file hold the rows of the run that is judged: it may be a copy of it, or a link.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        marks: Collection[str] = (),
        *,
        own: Iterable[Record] = (),
        say: Say = lambda line: None,
    ) -> None:
        self._paths = paths
        self._marks = marks
        self._own = frozenset(map(identity, own))
        self._say = say
        self._index = Index.of(paths[0].parent, figures=False) if paths else Index(Path())
        self._looked: set[Path] = set()
        self._heads: dict[Path, Head | None] = {}
        self._outlines: dict[Path, Outline] = {}
        self._alike: dict[Outline, Outline] = {}  # runs of a suite have one in common
        self._indexed: dict[object, Outline] = {}
        self._rows: dict[Path, dict[str, list[Record]]] = {}
        self._unreadable: dict[Path, ConvmarkError] = {}

    @property
    def paths(self) -> Sequence[Path]:
        return self._paths

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(self._rows)

    def _known(self, path: Path) -> KnownRun | None:
        """What the index knows of a file; all is indexed where too many are not known."""
        known = self._index.known(path)
        if known is not None or path in self._looked:
            return known
        self._looked.add(path)
        if len(self._looked) == MOST_LOOKS:
            self.index_all()
        return self._index.known(path)

    def index_all(self) -> None:
        """Bring the index up to date: from then on all is known of each file."""
        self._index = Index.of(self._paths[0].parent)
        self._index.update(self._paths, self._say)

    def head(self, path: Path) -> Head | None:
        """What the run's first row, failed or not, tells; None where there is none to be read."""
        if path not in self._heads:
            try:
                self._heads[path] = self._head(path)
            except ConvmarkError as error:
                self._unreadable[path], self._heads[path] = error, None
        return self._heads[path]

    def _head(self, path: Path) -> Head | None:
        known = self._known(path)
        if known is not None and known.error is not None:
            raise StoreError(f"{path}{known.error}")
        if known is not None:
            return self._index.head(known)
        record = read_head(path)
        return head_of(record) if record else None

    def measured(self, path: Path) -> dict[str, list[Record]]:
        """The run's measured rows by case."""
        if path not in self._rows:
            try:
                rows = [] if path in self._unreadable else read_run(path)
                self._rows[path] = by_name(
                    row for row in rows if row.measured and identity(row) not in self._own
                )
            except ConvmarkError as error:
                self._unreadable[path], self._rows[path] = error, {}
        return self._rows[path]

    def outline(self, path: Path) -> Outline:
        """What the run may hold."""
        if path not in self._outlines:
            outline = self._outline(path)
            self._outlines[path] = self._alike.setdefault(outline, outline)
        return self._outlines[path]

    def _outline(self, path: Path) -> Outline:
        known = self._known(path)
        if known is not None:
            contents = self._index.contents(known)
            if contents not in self._indexed:
                self._indexed[contents] = _indexed(*contents, self._marks)
            return self._indexed[contents]
        try:
            data = _beginning(path) if self.head(path) else b""
            if len(data) > MOST_WHOLE_BYTES:
                digest = digest_of(path)
                return _indexed(digest.axes, digest.marks, self._marks)
        except (OSError, StoreError):
            data = b""  # what cannot be read holds nothing; `measured` says why
        return _outline(data, self._marks)

    def mentions(self, path: Path, models: frozenset[str]) -> bool:
        """Whether a model's name stands anywhere in the file: the quickest way to rule it out."""
        if path in self._outlines or self._known(path) is not None:
            return not self.outline(path).models.isdisjoint(_cells_of(models))
        try:
            data = _beginning(path)
        except OSError:
            return False
        if len(data) > MOST_WHOLE_BYTES:
            return True
        return any(cell in data for cell in _cells_of(models))

    def is_alike(self, path: Path, conditions: Collection[tuple[object, ...]]) -> bool:
        """Whether nothing that all rows of the run share rules out comparable rows."""
        head = self.head(path)
        if head is None:
            return False
        return any(
            all(_may_agree(fact, asked) for fact, asked in zip(head.facts, wanted, strict=True))
            for wanted in conditions
        )

    def may_have_run(
        self, codes: Collection[str], commits: Collection[str], *, coded: bool
    ) -> Iterator[Path]:
        """The runs that may have rows of a code, or of a commit's clean tree, newest first.

        Rows of other code may be in them too.

        Args:
            coded: whether the codes tell all, so that a commit counts for rows without one alone.
        """
        for path in reversed(self._paths):
            head = self.head(path)
            if head is None:
                continue
            by_commit = (head.coded or head.dirty is False) and head.commit in commits
            if (by_commit and not (coded and head.coded)) or self._may_hold(path, codes):
                yield path

    def _may_hold(self, path: Path, codes: Collection[str]) -> bool:
        if not codes:
            return False
        known = self._known(path)
        if known is not None:
            return not self._index.codes(known).isdisjoint(codes)
        try:
            data = _beginning(path)
        except OSError:
            return False
        return len(data) > MOST_WHOLE_BYTES or any(code.encode() in data for code in codes)

    def may_have_state(self, path: Path, states: Collection[str]) -> bool:
        """Whether a process of the run may have been started in one of the states."""
        known = self._known(path)
        return known is None or not self._index.states(known).isdisjoint(states)

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


def _indexed(
    axes: frozenset[tuple[str, ...]], there: frozenset[str], marks: Iterable[str]
) -> Outline:
    """Return the outline of what the index has of a file."""
    return _outline_of(
        frozenset(tuple(cell.encode() for cell in cells) for cells in axes),
        frozenset(mark for mark in marks if to_cell(mark) in there),
    )


def _outline_of(cases: frozenset[tuple[bytes, ...]], marks: frozenset[str]) -> Outline:
    return Outline(cases=cases, marks=marks, models=frozenset(axes[0] for axes in cases))


@functools.lru_cache(maxsize=16)
def _places(header: bytes) -> tuple[int, ...]:
    """Return where the axes stand in a file with that first line, -1 for those it lacks."""
    names = next(csv.reader([header.decode("utf-8-sig", errors="replace").rstrip("\r")]), [])
    return tuple(names.index(name) if name in names else -1 for name in AXES)


def _outline(data: bytes, marks: Iterable[str]) -> Outline:
    """Outline a file; the cells before the axes are plain in a measured row, its error empty.

    An axis that the file's schema lacks is an empty cell, as in the rows that are read of it.
    """
    header, *rows = data.split(b"\n")
    places = _places(header)
    axes, last = operator.itemgetter(*places), max(places)
    lines = (row.split(b",", last + 1) for row in rows)
    return _outline_of(
        frozenset(axes([*cells[:-1], b""]) for cells in lines if len(cells) > last + 1),
        frozenset(mark for mark in marks if mark.encode() in data),
    )
