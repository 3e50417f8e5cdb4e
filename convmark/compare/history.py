"""The earlier runs that a run is compared with, case by case, with as few files read as possible.

A case's anchor is the last accepted run that has it measured under the same conditions, and until
one is accepted the first run that has. Its history is the anchor and every other earlier run that
measured the same code alike: by the hash of the code, and where a row has none by the commit of a
clean tree. A named baseline is that run alone. The run that is judged is never part of its own
history, whatever file or copy it is found in.
"""

from __future__ import annotations

import operator
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from convmark.compare.comparability import Conditions, comparable, difference
from convmark.compare.digest import Digest
from convmark.compare.files import read_accepted
from convmark.compare.index import Index
from convmark.core.case import Case
from convmark.core.errors import ConvmarkError, StoreError
from convmark.core.tasks import TIMED_TASKS
from convmark.core.text import NUMBER, Say
from convmark.results.code.manifest import code_path
from convmark.results.reading import StoreWarning
from convmark.results.record import Record
from convmark.results.store import Store, read_run, same_file

__all__ = [
    "BASELINE_RUNS",
    "Anchor",
    "CaseHistory",
    "EarlierRuns",
    "History",
    "accepted_history",
    "anchor_of",
    "by_name",
    "named_history",
    "same_code",
    "steady",
]

BASELINE_RUNS = 10
"""The most runs that a baseline is the median of."""
MOST_READ = 2 * BASELINE_RUNS
"""The most files that are read for them."""
_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
"""A commit in full: a file's word for one could name any branch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """The run whose code is run again beside today's, for one case."""

    run: str
    path: Path
    commit: str | None
    dirty: bool | None
    code: str = ""
    """Hash of the code that the case ran; empty where it is not known."""
    manifest: Path | None = None
    """What lists the files of that code, where it was kept beside the run."""

    @property
    def clean_commit(self) -> str:
        """The commit in full whose code the case ran; empty where there is none.

        A row that knows its code names a commit only where all that ran is the commit's.
        """
        known = bool(self.code) or self.dirty is False
        return self.commit or "" if known and _SHA.fullmatch(self.commit or "") else ""

    @property
    def lost(self) -> str:
        """Why neither a commit nor kept files give the code once more, and what helps; or empty."""
        if self.clean_commit or self.manifest is not None:
            return ""
        why = "its tree was not clean" if self.commit else "it names no commit"
        return (
            f"run {self.run} has no code to run again: {why} and its files were not kept; measure "
            "the old code anew and `convmark accept` that run"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseHistory:
    """What one case is judged against; no runs where there is nothing comparable."""

    anchor: Anchor | None = None
    runs: tuple[tuple[Record, ...], ...] = ()
    """The measured comparable rows of each run, oldest run first."""
    difference: str = ""
    """What the nearest earlier rows differ in; empty where there are runs, or no such rows. With an
    anchor it is what the model's own code has set, or how the figures were taken, so that only a
    live comparison can judge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What each case of a run is judged against, by the case's name."""

    cases: Mapping[str, CaseHistory]
    absent: tuple[Record, ...] = ()
    """A measured row of each case that the anchors have and this run has not."""


Row = tuple[str, Conditions, Record]
"""A row with its case's name and its conditions."""

_case_of = operator.attrgetter(*Case.__dataclass_fields__)


def by_name(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Return the rows of each case by the case's name."""
    groups: dict[object, list[Record]] = {}
    for record in records:
        groups.setdefault(_case_of(record), []).append(record)
    return {rows[0].case.name: rows for rows in groups.values()}


def _items(records: Iterable[Record]) -> list[Row]:
    """Return the measured rows, those of a case together."""
    groups = by_name(record for record in records if record.measured)
    return [(name, Conditions.of(row), row) for name, rows in groups.items() for row in rows]


def _identity(row: Record) -> tuple[object, ...]:
    """Return what tells a row from every other one, in whatever file it stands."""
    return row.run, row.machine, row.node, row.started, row.order, row.process


def steady(records: Iterable[Record]) -> tuple[Record, ...]:
    """Return the rows that may be judged: the steady ones, or where there are none the unsteady.

    Rows that say why they are no ground for a verdict are left out.
    """
    measured = [record for record in records if record.measured and not record.not_judged]
    return tuple([record for record in measured if record.status == "ok"] or measured)


def accepted_history(
    store: Store,
    machine: str,
    records: Sequence[Record],
    say: Say = lambda line: None,
    *,
    own: Path | None = None,
) -> History:
    """Return what a run's cases are judged against: the accepted history before it.

    Runs that cannot be read are left out, with one `StoreWarning` for all.

    Args:
        records: the rows of the run that is judged; their `run` tells which are earlier where
            they are of this machine.
        say: is told where reading takes long.
        own: the run's file, where it is known; in the machine's folder its number tells which runs
            are earlier, whatever the rows say.

    Raises:
        StoreError: the list of accepted runs cannot be read.
    """
    paths, number = store.runs(machine), None
    if own is not None and any(path.name == own.name and same_file(path, own) for path in paths):
        number = int(own.stem)
    elif records and records[0].machine in (machine, None) and NUMBER.fullmatch(records[0].run):
        number = int(records[0].run)
    if number is not None:
        paths = [path for path in paths if int(path.stem) < number]
    asked = _asked(records)
    earlier = EarlierRuns(store.folder / machine, paths, records, say)
    there = {path.stem: path for path in paths}
    rows = read_accepted(store, machine)
    accepted = [(there[row.run], row.case) for row in rows if row.run in there]
    order = list(dict.fromkeys([*reversed(accepted), *((path, None) for path in paths)]))
    anchors, differences = _anchors(earlier, order, asked)
    cases = {name: CaseHistory(difference=differences.get(name, "")) for name in by_name(records)}
    files = list(dict.fromkeys(found.path for found in anchors.values()))
    for path in files:
        here = {name: found for name, found in anchors.items() if found.path == path}
        for name, runs in _runs_at(earlier, here, asked).items():
            cases[name] = here[name].history(runs)
    absent = _absent([one for path in files for one in earlier.rows(path)], cases, anchors.values())
    earlier.close()
    return History(cases=cases, absent=absent)


def named_history(path: Path, records: Sequence[Record]) -> History:
    """Return the run in a file as the only baseline.

    Raises:
        StoreError: it cannot be read, holds no figures, or is the run that is judged.
    """
    every_row = read_run(path)
    rows = _items(every_row)
    if not rows:
        raise StoreError(f"{path}: must have a measured row to be compared with, it has none")
    own = {_identity(record) for record in records}
    if any(_identity(row) in own for row in every_row):
        raise StoreError(
            f"{path}: holds the run that is judged, run {every_row[0].run}; name an earlier run to "
            "compare with"
        )
    matches = {name: _found(name, asked, path, rows) for name, asked in _asked(records).items()}
    cases = dict.fromkeys(by_name(records), CaseHistory())
    for name, found in matches.items():
        alike = found.rows and not found.difference
        cases[name] = found.history((found.rows,) if alike else ())
    return History(cases=cases, absent=_absent(rows, cases, matches.values()))


def anchor_of(path: Path, rows: Sequence[Record]) -> Anchor:
    """Return the anchor that a case's measured rows in a run's file are."""
    codes = {row.code for row in rows}
    code = codes.pop() if len(codes) == 1 else None
    manifest = code_path(path)
    return Anchor(
        run=path.stem,
        path=path,
        commit=rows[0].commit,
        dirty=rows[0].dirty,
        code=code or "",
        manifest=manifest if code and manifest.is_file() else None,
    )


def same_code(one: Sequence[Record], other: Sequence[Record]) -> bool:
    """Return whether rows ran the same code: by its hash, and where rows have none by their commit.

    A commit tells only where its tree was clean, or where the row has a hash: it is then held
    against the files that ran.
    """
    rows = [*one, *other]
    known = [row.code for row in rows if row.code]
    if len(set(known)) > 1 or not one or not other:
        return False
    if len(known) == len(rows):
        return True
    commits = {row.commit for row in rows}
    return len(commits) == 1 and None not in commits and all(map(_is_of_commit, rows))


def _is_of_commit(row: Record) -> bool:
    """Whether the row's commit, where it has one, is what it ran."""
    return bool(row.code) or row.dirty is False


@dataclass(frozen=True, slots=True)
class _Match:
    """What a file has of a case."""

    path: Path
    rows: tuple[Record, ...] = ()
    """Its steady rows under the same conditions, or that differ by the model's own code alone."""
    difference: str = ""
    """What its nearest rows differ in."""

    def history(self, runs: tuple[tuple[Record, ...], ...]) -> CaseHistory:
        """Return the history of the case whose anchor this is; without rows it has none."""
        anchor = anchor_of(self.path, self.rows) if self.rows else None
        return CaseHistory(anchor=anchor, runs=runs, difference=self.difference)


def _absent(
    rows: Iterable[Row], cases: Iterable[str], anchors: Iterable[_Match]
) -> tuple[Record, ...]:
    """Return the first row of each case that is none of the run's, and no anchor of one."""
    held = {*cases, *(row.case.name for found in anchors for row in found.rows)}
    groups = by_name(row for name, _, row in rows if name not in held)
    return tuple(group[0] for group in groups.values())


def _asked(records: Sequence[Record]) -> dict[str, Conditions]:
    """Return the conditions of each case that can be judged."""
    measured = by_name(record for record in records if record.measured)
    return {
        name: Conditions.of(judged[0])
        for name, rows in measured.items()
        if (judged := steady(rows))
    }


_Item = TypeVar("_Item", tuple[str, Conditions], tuple[str, Conditions, Record])
"""A case's name and conditions, as the index has them or with a row."""


def _match(name: str, asked: Conditions, held: Sequence[_Item]) -> tuple[list[_Item], str]:
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


def _found(name: str, asked: Conditions, path: Path, rows: Sequence[Row]) -> _Match:
    """Return the steady rows of a case that can be an anchor's, and what they differ in."""
    matching, text = _match(name, asked, rows)
    return _Match(path, steady(row for _, _, row in matching), text)


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
        self._own = frozenset(map(_identity, own))
        self._asked = _asked(own)
        self._index = Index(folder, say=say)
        self._matches: dict[str, tuple[set[str], dict[str, str]]] = {}
        self._rows: dict[Path, list[Row]] = {}
        self._unreadable: dict[Path, str] = {}

    def matches(self, path: Path) -> tuple[set[str], dict[str, str]]:
        """Return the cases whose anchor a run can be, and what those that it has else differ in."""
        kind = self.entry(path).held
        if kind not in self._matches:
            held = self.entry(path).judged
            found = {name: _match(name, asked, held) for name, asked in self._asked.items()}
            self._matches[kind] = (
                {name for name, (matching, _) in found.items() if matching},
                {name: text for name, (_, text) in found.items() if text},
            )
        return self._matches[kind]

    def rows(self, path: Path) -> list[Row]:
        """Return the measured rows of a run."""
        if path not in self._rows:
            try:
                rows = [] if path in self._unreadable else read_run(path)
            except ConvmarkError as error:
                rows, self._unreadable[path] = [], str(error)
            self._rows[path] = [one for one in _items(rows) if _identity(one[2]) not in self._own]
        return self._rows[path]

    def with_code(self, rows: Sequence[Record]) -> Iterator[Path]:
        """Yield the runs that may have rows of the same code, newest first.

        That is known by its hash, and of rows without one by the commit of a clean tree.
        """
        codes = {row.code for row in rows if row.code}
        commits = {row.commit for row in rows if row.commit and _is_of_commit(row)}
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


def _anchors(
    earlier: EarlierRuns,
    order: Sequence[tuple[Path, str | None]],
    asked: Mapping[str, Conditions],
) -> tuple[dict[str, _Match], dict[str, str]]:
    """Return each case's anchor, and for those without one what the first rows differ in.

    A file may be an anchor of every case, or of the one that it comes with.
    """
    anchors: dict[str, _Match] = {}
    differences: dict[str, str] = {}
    for path, only in order:
        if len(anchors) == len(asked):
            break
        matching, different = earlier.matches(path)
        for name in matching - anchors.keys():
            if only in (None, name):
                found = _found(name, asked[name], path, earlier.rows(path))
                if found.rows:
                    anchors[name] = found
        if not different.keys() <= differences.keys():
            differences = {**different, **differences}
    return anchors, {name: text for name, text in differences.items() if name not in anchors}


def _runs_at(
    earlier: EarlierRuns, anchors: Mapping[str, _Match], asked: Mapping[str, Conditions]
) -> dict[str, tuple[tuple[Record, ...], ...]]:
    """Return the runs of an anchor's cases with its code, newest read first, stop at enough.

    Args:
        anchors: of the cases whose anchor is one run; without runs where they are not comparable.
    """
    alike = {name: one for name, one in anchors.items() if not one.difference}
    found: dict[str, dict[Path, tuple[Record, ...]]] = {
        name: {one.path: one.rows} if name in alike else {} for name, one in anchors.items()
    }
    (own,) = {anchor.path for anchor in anchors.values()}
    read = 1
    for path in earlier.with_code([row for one in alike.values() for row in one.rows]):
        left = [name for name in alike if len(found[name]) < BASELINE_RUNS]
        if not left or read >= MOST_READ:
            break
        names = earlier.matches(path)[0].intersection(left)
        if path == own or not names:
            continue
        read += 1
        for name in names:
            other = _found(name, asked[name], path, earlier.rows(path))
            if not other.difference and same_code(anchors[name].rows, other.rows):
                found[name][path] = other.rows
    return {
        name: tuple(runs[path] for path in sorted(runs, key=lambda path: int(path.stem)))
        for name, runs in found.items()
    }
