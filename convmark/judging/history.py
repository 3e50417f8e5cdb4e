"""Which earlier runs a run is judged against, case by case, reading no more files than it takes.

A case's anchor is the last accepted run that has it measured under the same conditions, and until
one is accepted the first run that has. Its history is the anchor and every other earlier run that
measured the same code alike: by the hash of the code, and where a row has none by the commit of a
clean tree. A named baseline is that run alone. The run that is judged is never part of its own
history, whatever file or copy it is found in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from convmark.code.manifest import code_path
from convmark.errors import StoreError
from convmark.judging.accepted import accept, read_accepted
from convmark.judging.comparability import (
    AXES,
    Comparability,
    alike,
    comparability,
    difference,
    inherited,
    of_the_run,
)
from convmark.judging.index import Say
from convmark.judging.shelf import Outline, Shelf, by_name, identity
from convmark.record import Record
from convmark.store import Store, read_run, same_file
from convmark.text import NUMBER

__all__ = [
    "BASELINE_RUNS",
    "Anchor",
    "CaseHistory",
    "Comparability",
    "History",
    "accept",
    "accepted_history",
    "anchor_of",
    "by_name",
    "difference",
    "named_history",
    "same_code",
    "steady",
]

BASELINE_RUNS = 10
"""The most runs that a baseline is the median of."""

MOST_READ = 2 * BASELINE_RUNS
"""The most files that are read for them."""

MOST_IN_VAIN = 5
"""Files that are read in full and hold no anchor before it pays to index all."""

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
    def can_run_again(self) -> bool:
        """Whether a commit or kept files give the code once more."""
        return bool(self.clean_commit) or self.manifest is not None

    @property
    def lost(self) -> str:
        """Why the code cannot be run again, and what helps; empty where it can."""
        if self.can_run_again:
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
    anchor it is what the model's own code has set, so that only a live comparison can judge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What each case of a run is judged against, by the case's name."""

    cases: Mapping[str, CaseHistory]
    absent: tuple[Record, ...]
    """A measured row of each case that the anchors have and this run has not."""
    files: tuple[Path, ...]
    """The runs that were read in full."""


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
    paths = _earlier(store.runs(machine), machine, records, own)
    wanted = _wanted(records)
    marks: frozenset[str] = frozenset().union(*(key.whole.marks for key in wanted.values()))
    shelf = Shelf(paths, marks, own=records, say=say)
    there = {path.stem: path for path in paths}
    accepted = [there[row.run] for row in read_accepted(store, machine) if row.run in there]
    order = list(dict.fromkeys([*reversed(accepted), *paths]))
    anchors, differences = _anchors(shelf, order, wanted)
    cases = {name: CaseHistory(difference=differences.get(name, "")) for name in by_name(records)}
    for path in dict.fromkeys(found.path for found in anchors.values()):
        here = {name: found for name, found in anchors.items() if found.path == path}
        for name, runs in _runs_at(shelf, here, wanted).items():
            cases[name] = CaseHistory(
                anchor=anchor_of(path, here[name].rows), runs=runs, difference=here[name].difference
            )
    held = cases.keys() | {row.case.name for found in anchors.values() for row in found.rows}
    absent = _absent(shelf, dict.fromkeys(found.path for found in anchors.values()), held)
    shelf.warn()
    return History(cases=cases, absent=absent, files=shelf.files)


def _earlier(
    paths: Sequence[Path], machine: str, records: Sequence[Record], own: Path | None
) -> Sequence[Path]:
    """Return the runs before the one that is judged."""
    number = None
    if own is not None and any(path.name == own.name and same_file(path, own) for path in paths):
        number = int(own.stem)
    elif records and records[0].machine in (machine, None) and NUMBER.fullmatch(records[0].run):
        number = int(records[0].run)
    return paths if number is None else [path for path in paths if int(path.stem) < number]


def named_history(path: Path, records: Sequence[Record]) -> History:
    """Return the run in a file as the only baseline.

    Raises:
        StoreError: it cannot be read, holds no figures, or is the run that is judged.
    """
    rows = read_run(path)
    baseline = by_name(row for row in rows if row.measured)
    if not baseline:
        raise StoreError(f"{path}: must hold a measured row to be compared with, it has none")
    own = {identity(record) for record in records}
    if any(identity(row) in own for row in rows):
        raise StoreError(
            f"{path}: holds the run that is judged, run {rows[0].run}; name an earlier run to "
            "compare with"
        )
    wanted = _wanted(records)
    cases = {}
    held = set(by_name(records))
    for case in by_name(records):
        found = _found(path, wanted.get(case), case, baseline)
        runs = (found.rows,) if found.rows and not found.difference else ()
        held |= {row.case.name for row in found.rows}
        cases[case] = CaseHistory(
            anchor=anchor_of(path, found.rows) if found.rows else None,
            runs=runs,
            difference=found.difference,
        )
    absent = tuple(group[0] for case, group in baseline.items() if case not in held)
    return History(cases=cases, absent=absent, files=(path,))


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
class _Wanted:
    """The conditions of a case."""

    whole: Comparability
    inherited: Comparability
    """Without what the model's own code has set."""
    axes: frozenset[tuple[bytes, ...]]
    """Of both."""

    @classmethod
    def of(cls, row: Record) -> _Wanted:
        whole, apart = comparability(row), inherited(row)
        return cls(whole, apart, frozenset((whole.axes, apart.axes)))


@dataclass(frozen=True, slots=True)
class _Found:
    """What a file has of a case."""

    path: Path
    rows: tuple[Record, ...] = ()
    """Its steady rows under the same conditions, or that differ by the model's own code alone."""
    difference: str = ""
    """What its nearest rows differ in."""


def _wanted(records: Sequence[Record]) -> dict[str, _Wanted]:
    """The conditions of each case that can be judged."""
    measured = by_name(record for record in records if record.measured)
    return {
        name: _Wanted.of(judged[0]) for name, rows in measured.items() if (judged := steady(rows))
    }


def _found(
    path: Path, key: _Wanted | None, name: str, found: Mapping[str, Sequence[Record]]
) -> _Found:
    """Return the steady rows of a case that are comparable, and else what they differ in."""
    if key is None:
        return _Found(path)
    rows = [row for row in found.get(name, ()) if alike(comparability(row), key.whole)]
    if rows:
        return _Found(path, steady(rows))
    akin = [row for rows in found.values() for row in rows if _akin(row, key.whole)]
    rows = [row for row in akin if alike(inherited(row), key.inherited)]
    if rows and (judged := steady(rows)):
        return _Found(path, judged, difference(key.whole, comparability(judged[0])))
    others = found.get(name) or akin
    return _Found(path, (), difference(key.whole, comparability(others[0])) if others else "")


_AKIN = 4
"""Cases that agree in so many axes, batch size the last, differ in settings alone."""


def _akin(row: Record, key: Comparability) -> bool:
    return all(getattr(row, name) == getattr(key, name) for name in AXES[:_AKIN])


def _anchors(
    shelf: Shelf, order: Sequence[Path], wanted: Mapping[str, _Wanted]
) -> tuple[dict[str, _Found], dict[str, str]]:
    """Return each case's anchor, and for those without one what the first rows differ in.

    Rows that the model's own code has made to differ are an anchor as well: were they passed over,
    a setting that slows the whole process would become its own baseline.
    """
    anchors: dict[str, _Found] = {}
    differences: dict[str, str] = {}
    conditions = {of_the_run(key.whole) for key in wanted.values()}
    left = dict(wanted)
    in_vain = 0
    models = frozenset(key.whole.model for key in left.values())
    states = frozenset(key.inherited.state or "" for key in left.values())
    puzzling = [key.whole for key in left.values()]
    for path in order:
        if not left:
            break
        if not shelf.mentions(path, models):
            continue
        may_match = shelf.is_alike(path, conditions) and shelf.may_have_state(path, states)
        if not (may_match and _may_hold(shelf.outline(path), left.values())) and not (
            puzzling and _may_explain(shelf.outline(path), puzzling)
        ):
            continue
        if (in_vain := in_vain + 1) == MOST_IN_VAIN + 1:
            shelf.index_all()
        measured = shelf.measured(path)
        for name, key in left.items():
            found = _found(path, key, name, measured)
            if found.rows:
                anchors[name] = found
                in_vain = 0
            elif found.difference and (name in measured or name not in differences):
                differences[name] = found.difference
        left = {name: key for name, key in left.items() if name not in anchors}
        models = frozenset(key.whole.model for key in left.values())
        puzzling = [key.whole for name, key in left.items() if name not in differences]
    return anchors, {name: text for name, text in differences.items() if name not in anchors}


def _may_hold(outline: Outline, keys: Iterable[_Wanted]) -> bool:
    return any(
        not key.axes.isdisjoint(outline.cases) and key.whole.marks <= outline.marks for key in keys
    )


def _may_explain(outline: Outline, keys: Iterable[Comparability]) -> bool:
    """Whether it holds one of the cases, or one akin to it, whatever the conditions."""
    akin = {axes[:_AKIN] for axes in outline.cases}
    return any(key.axes[:_AKIN] in akin for key in keys)


def _runs_at(
    shelf: Shelf,
    anchors: Mapping[str, _Found],
    wanted: Mapping[str, _Wanted],
) -> dict[str, tuple[tuple[Record, ...], ...]]:
    """Return the runs of an anchor's cases with its code, newest read first, stop at enough.

    Args:
        anchors: of the cases whose anchor is one run; without runs where they are not comparable.
    """
    found: dict[str, dict[Path, tuple[Record, ...]]] = {
        name: {} if anchor.difference else {anchor.path: anchor.rows}
        for name, anchor in anchors.items()
    }
    comparable = {name: one for name, one in anchors.items() if not one.difference}
    (own,) = {anchor.path for anchor in anchors.values()}
    rows = [row for anchor in comparable.values() for row in anchor.rows]
    codes = {row.code for row in rows if row.code}
    commits = {row.commit for row in rows if row.commit and _is_of_commit(row)}
    coded = all(row.code for row in rows)
    conditions = {of_the_run(wanted[name].whole) for name in comparable}
    states = {wanted[name].inherited.state or "" for name in comparable}
    read = 1
    for path in shelf.may_have_run(codes, commits, coded=coded) if codes or commits else ():
        left = {name for name in comparable if len(found[name]) < BASELINE_RUNS}
        if not left or read >= MOST_READ:
            break
        if path == own or not _may_hold(shelf.outline(path), [wanted[name] for name in left]):
            continue
        if not (shelf.is_alike(path, conditions) and shelf.may_have_state(path, states)):
            continue
        read += 1
        measured = shelf.measured(path)
        for name in left:
            other = _found(path, wanted[name], name, measured)
            if not other.difference and same_code(anchors[name].rows, other.rows):
                found[name][path] = other.rows
    return {
        name: tuple(runs[path] for path in sorted(runs, key=lambda path: int(path.stem)))
        for name, runs in found.items()
    }


def _absent(shelf: Shelf, anchors: Iterable[Path], held: Set[str]) -> tuple[Record, ...]:
    """Return a row of each case of the anchors that the run has not, by no other name either."""
    absent: dict[str, Record] = {}
    for path in anchors:
        for name, rows in shelf.measured(path).items():
            if name not in held:
                absent.setdefault(name, rows[0])
    return tuple(absent.values())
