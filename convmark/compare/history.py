"""The earlier runs that a run is compared with, case by case, with as few files read as possible.

A case's anchor is the last accepted run that has it measured under the same conditions, and until
one is accepted the first run that has. Its history is the anchor and every other earlier run that
measured the same code alike: by the hash of the code, and where a row has none by the commit of a
clean tree. A named baseline is that run alone. The run that is judged is never part of its own
history, whatever file or copy it is found in.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from convmark.compare.comparability import Conditions
from convmark.compare.earlier import (
    EarlierRuns,
    Row,
    asked_conditions,
    by_name,
    identity,
    is_of_commit,
    items,
    match,
    steady,
)
from convmark.compare.files import Acceptance, read_accepted
from convmark.core.errors import StoreError
from convmark.core.git import SHOWN
from convmark.core.text import NUMBER, Say
from convmark.results.code.manifest import code_path
from convmark.results.reading import StoreWarning, read_run
from convmark.results.record import Record
from convmark.results.store import Store, same_file

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
            f"run {self.run} has no code to run again: {why} and its files were not "
            "saved; measure the old code again and `convmark accept` that run"
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
    """
    paths, number = store.runs(machine), None
    if own is not None and any(path.name == own.name and same_file(path, own) for path in paths):
        number = int(own.stem)
    elif records and records[0].machine in (machine, None) and NUMBER.fullmatch(records[0].run):
        number = int(records[0].run)
    if number is not None:
        paths = [path for path in paths if int(path.stem) < number]
    asked = asked_conditions(records)
    earlier = EarlierRuns(store.folder / machine, paths, records, say)
    there = {path.stem: path for path in paths}
    accepted = [
        (there[row.run], row.case)
        for row in read_accepted(store, machine)
        if row.run in there and _is_accepted_run(earlier, there[row.run], row)
    ]
    order = list(dict.fromkeys([*reversed(accepted), *((path, None) for path in paths)]))
    anchors, differences = _anchors(earlier, order, asked)
    cases = {name: CaseHistory(difference=differences.get(name, "")) for name in by_name(records)}
    files = list(dict.fromkeys(found.path for found in anchors.values()))
    for path in files:
        here = {name: found for name, found in anchors.items() if found.path == path}
        for name, runs in _runs_at(earlier, here, asked).items():
            cases[name] = here[name].history(runs)
    for name in _failed(records):
        cases[name] = _of_failed(name, earlier, order)
    if not files:  # of a run that has none of the earlier cases, all of these are absent
        newest = [path for path, _ in accepted[-1:]] or reversed(paths)
        files = _with_others(earlier, newest, cases)
    absent = _absent([one for path in files for one in earlier.rows(path)], cases, anchors.values())
    earlier.close()
    return History(cases=cases, absent=absent)


def _with_others(
    earlier: EarlierRuns, newest: Iterable[Path], cases: Collection[str]
) -> list[Path]:
    """Return the first of these runs that has figures, where some are of other cases."""
    for path in newest:
        if names := {name for name, _ in earlier.entry(path).judged}:
            return [path] if names.difference(cases) else []
    return []


def _is_accepted_run(earlier: EarlierRuns, path: Path, accepted: Acceptance) -> bool:
    """Whether a run is the one that was accepted; else its number was given anew, and it warns."""
    commit = earlier.entry(path).commit
    rows = [] if commit == accepted.commit else earlier.rows(path)
    if not rows or any(row.commit == accepted.commit for _, _, row in rows):
        return True
    was, is_now = (one[:SHOWN] if one else "no commit" for one in (accepted.commit, commit))
    warnings.warn(
        f"{path}: is not the run that was accepted (that one is of {was}, this one of "
        f"{is_now}); it is no anchor until it is accepted",
        StoreWarning,
        stacklevel=3,
    )
    return False


def _failed(records: Sequence[Record]) -> list[str]:
    """Return the cases of which nothing was measured."""
    return [name for name, rows in by_name(records).items() if not any(r.measured for r in rows)]


def _of_failed(
    name: str, earlier: EarlierRuns, order: Iterable[tuple[Path, str | None]]
) -> CaseHistory:
    """Return the history of a case of which nothing was measured: the rows of its name."""
    for path, only in order:
        if only in (None, name) and any(one == name for one, _ in earlier.entry(path).judged):
            rows = steady(row for held, _, row in earlier.rows(path) if held == name)
            if rows:
                return _Match(path, rows).history((rows,))
    return CaseHistory()


def named_history(path: Path, records: Sequence[Record]) -> History:
    """Return the run in a file as the only baseline.

    Raises:
        StoreError: it cannot be read, holds no figures, or is the run that is judged.
    """
    every_row = read_run(path)
    rows = items(every_row)
    if not rows:
        raise StoreError(f"{path}: must have a measured row to be compared with, but it has none")
    own = {identity(record) for record in records}
    if any(identity(row) in own for row in every_row):
        raise StoreError(
            f"{path}: has the run that is judged, run {every_row[0].run}; name an earlier "
            "run to compare with"
        )
    asked = asked_conditions(records)
    matches = {name: _found(name, one, path, rows) for name, one in asked.items()}
    cases = dict.fromkeys(by_name(records), CaseHistory())
    for name, found in matches.items():
        alike = found.rows and not found.difference
        cases[name] = found.history((found.rows,) if alike else ())
    for name in _failed(records):
        before = _Match(path, steady(row for held, _, row in rows if held == name))
        cases[name] = before.history(tuple(filter(None, [before.rows])))
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
    return len(commits) == 1 and None not in commits and all(map(is_of_commit, rows))


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


def _found(name: str, asked: Conditions, path: Path, rows: Sequence[Row]) -> _Match:
    """Return the steady rows of a case that can be an anchor's, and what they differ in."""
    matching, text = match(name, asked, rows)
    return _Match(path, steady(row for _, _, row in matching), text)


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
            if only in (None, name) or earlier.is_named(path, name, only):
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
