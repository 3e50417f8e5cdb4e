"""Which earlier runs a run is judged against, case by case, reading no more files than it takes.

A case's anchor is the last accepted run that has it measured under the same conditions, and until
one is accepted the first run that has. Its history is the anchor and every other earlier run that
measured it alike at the anchor's commit with a clean tree. A named baseline is that run alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from convmark.errors import StoreError
from convmark.judging.accepted import accept, read_accepted
from convmark.judging.comparability import (
    Comparability,
    alike,
    comparability,
    difference,
    of_the_run,
)
from convmark.judging.digest import Head
from convmark.judging.index import Say
from convmark.judging.processes import BASELINE_RUNS, loads_alike
from convmark.judging.shelf import Outline, Shelf, by_name
from convmark.record import Record
from convmark.store import Store, read_run
from convmark.text import NUMBER

__all__ = [
    "Anchor",
    "CaseHistory",
    "Comparability",
    "History",
    "accept",
    "accepted_history",
    "by_name",
    "difference",
    "load",
    "named_history",
    "steady",
]

MOST_READ = 2 * BASELINE_RUNS
"""The most files of an anchor's commit that are read for runs under a like load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """The run whose code is run again beside today's."""

    run: str
    path: Path
    commit: str | None
    dirty: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseHistory:
    """What one case is judged against; no runs where there is nothing comparable."""

    anchor: Anchor | None = None
    runs: tuple[tuple[Record, ...], ...] = ()
    """The measured comparable rows of each run, oldest run first."""
    difference: str = ""
    """What the nearest earlier rows differ in; empty where there are runs, or no such rows."""


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


def load(records: Sequence[Record]) -> float | None:
    """Return the mean share of the CPUs' time that others took; None unless every row tells."""
    loads = [record.other_cpu_share for record in records if record.other_cpu_share is not None]
    return sum(loads) / len(loads) if len(loads) == len(records) > 0 else None


def accepted_history(
    store: Store, machine: str, records: Sequence[Record], say: Say = lambda line: None
) -> History:
    """Return what a run's cases are judged against: the accepted history before it.

    Runs that cannot be read are left out, with one `StoreWarning` for all.

    Args:
        records: the rows of the run that is judged; their `run` tells which are earlier where
            they are of this machine.
        say: is told where reading takes long.

    Raises:
        StoreError: the list of accepted runs cannot be read.
    """
    paths = store.runs(machine)
    if records and records[0].machine in (machine, None) and NUMBER.fullmatch(records[0].run):
        paths = [path for path in paths if int(path.stem) < int(records[0].run)]
    wanted = _wanted(records)
    marks: frozenset[str] = frozenset().union(*(key.marks for key in wanted.values()))
    shelf = Shelf(paths, marks, say=say)
    there = {path.stem: path for path in paths}
    accepted = [there[row.run] for row in read_accepted(store, machine) if row.run in there]
    order = list(dict.fromkeys([*reversed(accepted), *paths]))
    anchors, differences = _anchors(shelf, order, wanted)
    cases = {name: CaseHistory(difference=differences.get(name, "")) for name in by_name(records)}
    for path in dict.fromkeys(anchors.values()):
        keys = {name: key for name, key in wanted.items() if anchors.get(name) == path}
        anchor = _anchor(path, shelf.head(path))
        for name, runs in _runs_at(shelf, anchor, keys, records).items():
            cases[name] = CaseHistory(anchor=anchor, runs=runs)
    absent = _absent(shelf, dict.fromkeys(anchors.values()), cases)
    shelf.warn()
    return History(cases=cases, absent=absent, files=shelf.files)


def named_history(store: Store, machine: str, name: str, records: Sequence[Record]) -> History:
    """Return a run as the only baseline: a file, a number or a commit, as `Store.find` takes it.

    Raises:
        StoreError: there is no such run, it cannot be read, or it holds no figures.
    """
    path = store.find(name, machine)
    rows = read_run(path)
    baseline = by_name(row for row in rows if row.measured)
    if not baseline:
        raise StoreError(f"{path}: must hold a measured row to be compared with, it has none")
    anchor = _anchor(path, rows[0])
    wanted = _wanted(records)
    cases = {}
    for case in by_name(records):
        runs, differs = _comparable(wanted.get(case), case, baseline)
        cases[case] = CaseHistory(
            anchor=anchor if runs else None, runs=(runs,) if runs else (), difference=differs
        )
    absent = tuple(group[0] for case, group in baseline.items() if case not in cases)
    return History(cases=cases, absent=absent, files=(path,))


def _anchor(path: Path, head: Record | Head | None) -> Anchor:
    return Anchor(
        run=path.stem,
        path=path,
        commit=head.commit if head else None,
        dirty=head.dirty if head else None,
    )


def _wanted(records: Sequence[Record]) -> dict[str, Comparability]:
    """The conditions of each case that can be judged."""
    measured = by_name(record for record in records if record.measured)
    return {
        name: comparability(judged[0])
        for name, rows in measured.items()
        if (judged := steady(rows))
    }


def _comparable(
    key: Comparability | None, name: str, found: Mapping[str, Sequence[Record]]
) -> tuple[tuple[Record, ...], str]:
    """Return the steady rows of a case that are comparable, and else what they differ in."""
    if key is None:
        return (), ""
    rows = [row for row in found.get(name, ()) if alike(comparability(row), key)]
    if rows:
        return steady(rows), ""
    others = found.get(name) or [row for rows in found.values() for row in rows if _akin(row, key)]
    return (), difference(key, comparability(others[0])) if others else ""


_AKIN = 4
"""Cases that agree in so many axes, batch size the last, differ in settings alone."""


def _akin(row: Record, key: Comparability) -> bool:
    return comparability(row).axes[:_AKIN] == key.axes[:_AKIN]


def _anchors(
    shelf: Shelf, order: Sequence[Path], wanted: Mapping[str, Comparability]
) -> tuple[dict[str, Path], dict[str, str]]:
    """Return each case's anchor, and for those without one what the first rows differ in."""
    anchors: dict[str, Path] = {}
    differences: dict[str, str] = {}
    conditions = {of_the_run(key) for key in wanted.values()}
    left = dict(wanted)
    models = frozenset(key.model for key in left.values())
    puzzling = list(left.values())
    for path in order:
        if not left:
            break
        if not shelf.mentions(path, models):
            continue
        alike = shelf.is_alike(path, conditions)
        if not (alike and _may_hold(shelf.outline(path), left.values())) and not (
            puzzling and _may_explain(shelf.outline(path), puzzling)
        ):
            continue
        found = shelf.measured(path)
        for name, key in left.items():
            rows, differs = _comparable(key, name, found)
            if rows:
                anchors[name] = path
            elif differs and (name in found or name not in differences):
                differences[name] = differs
        left = {name: key for name, key in left.items() if name not in anchors}
        models = frozenset(key.model for key in left.values())
        puzzling = [key for name, key in left.items() if name not in differences]
    return anchors, {name: text for name, text in differences.items() if name not in anchors}


def _may_hold(outline: Outline, keys: Iterable[Comparability]) -> bool:
    return any(key.axes in outline.cases and key.marks <= outline.marks for key in keys)


def _may_explain(outline: Outline, keys: Iterable[Comparability]) -> bool:
    """Whether it holds one of the cases, or one akin to it, whatever the conditions."""
    akin = {axes[:_AKIN] for axes in outline.cases}
    return any(key.axes[:_AKIN] in akin for key in keys)


def _runs_at(
    shelf: Shelf, anchor: Anchor, keys: Mapping[str, Comparability], records: Sequence[Record]
) -> dict[str, tuple[tuple[Record, ...], ...]]:
    """Return the runs of the cases at the anchor's commit, newest read first, stop at enough."""
    rows_now = by_name(records)
    loads = {name: load(steady(rows_now[name])) for name in keys}
    found: dict[str, dict[Path, tuple[Record, ...]]] = {name: {} for name in keys}
    read = 0
    clean = shelf.clean_at(anchor.commit) if anchor.commit and anchor.dirty is False else ()
    others = (path for path in clean if path != anchor.path)
    for path in itertools.chain([anchor.path], others):
        left = {name for name in keys if not _enough(found[name].values(), loads[name])}
        if not left or read >= MOST_READ:
            break
        if not _may_hold(shelf.outline(path), [keys[name] for name in left]):
            continue
        read += 1
        measured = shelf.measured(path)
        for name in left:
            if rows := _comparable(keys[name], name, measured)[0]:
                found[name][path] = rows
    return {
        name: tuple(runs[path] for path in sorted(runs, key=lambda path: int(path.stem)))
        for name, runs in found.items()
    }


def _enough(runs: Iterable[Sequence[Record]], load_now: float | None) -> bool:
    """Whether a baseline can be chosen without reading on: so many runs under a like load."""
    alike = [load_now is None or loads_alike(load(rows), load_now) for rows in runs]
    return sum(alike) >= BASELINE_RUNS


def _absent(
    shelf: Shelf, anchors: Iterable[Path], cases: Mapping[str, CaseHistory]
) -> tuple[Record, ...]:
    absent: dict[str, Record] = {}
    for path in anchors:
        for name, rows in shelf.measured(path).items():
            if name not in cases:
                absent.setdefault(name, rows[0])
    return tuple(absent.values())
