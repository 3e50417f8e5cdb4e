"""Merges the runs of several results folders: refuses duplicates, lists missing parts."""

from __future__ import annotations

import dataclasses
from collections import ChainMap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convmark.core.errors import StoreError
from convmark.core.statistics import grouped
from convmark.core.text import Say, counted, is_folder_name, listed
from convmark.results.code.manifest import copy_kept, read_codes, write_codes
from convmark.results.names import keep_name, read_name
from convmark.results.reading import read_run, shared_columns
from convmark.results.record import Record
from convmark.results.store import Store, oldest_first, read_step_times, run_files
from convmark.session.fleet.part import Part, Shard, read_part, write_part
from convmark.session.result import OF_ROWS

MOST_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRun:
    """One run to be joined with others."""

    path: Path
    machine: str
    records: tuple[Record, ...]
    part: Part | None
    """None: a run of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedRun:
    """What becomes one run."""

    machine: str
    sources: tuple[SourceRun, ...]
    part: Part | None

    @property
    def rows(self) -> int:
        return sum(len(source.records) for source in self.sources)


def sources(places: Sequence[Path], say: Say) -> list[SourceRun]:
    """Return the runs in the places, oldest first.

    A run without rows is left out, and said; so is a folder without runs beside others that have
    some, for it is what a part leaves that fails before its first row.

    Raises:
        StoreError: no place has runs, one is not there, a file does not fit, or its machine names
            no folder.
    """
    found = []
    for path in run_files(_with_runs(places, say)):
        records = tuple(read_run(path))
        if not records:
            say(f"{path}: has no rows, skipped")
            continue
        machine = records[0].machine or path.resolve().parent.name
        if not is_folder_name(machine):
            raise StoreError(
                f"{path}:2: column 'machine' must be the name of a folder, for its runs are joined "
                f"in one, got {machine!r}"
            )
        part = read_part(path)
        found.append(SourceRun(path=path, machine=machine, records=records, part=part))
    order = oldest_first([(source.path, source.records[0].started) for source in found])
    return [found[place] for place in order]


def _with_runs(places: Sequence[Path], say: Say) -> list[Path]:
    """Return the places that are not folders without runs; all of them where no other is left."""
    empty = [place for place in places if place.is_dir() and not _has_runs(place)]
    if len(empty) == len(places):
        return list(places)
    for place in empty:
        say(f"{place}: has no runs, left out")
    return [place for place in places if place not in empty]


def _has_runs(folder: Path) -> bool:
    try:
        return bool(run_files([folder]))
    except StoreError:
        return False


def joined(
    found: Sequence[SourceRun], there: Sequence[SourceRun], say: Say
) -> tuple[list[MergedRun], list[MergedRun]]:
    """Return the runs that the sources amount to: the parts of a plan on one machine are one run.

    Args:
        there: runs that the folder to be written has already; what is there with all its rows and
            their figures, for instance of a merge that was interrupted, is passed over, and said.

    Returns:
        All runs, and those of them that are to be written.

    Raises:
        StoreError: a row is there twice, or the parts of a run differ in what they must share.
    """
    _refuse_copies(found)
    _refuse_doubles(found)
    groups = grouped(
        ((one.part.plan, one.machine) if one.part else (str(one.path),), one) for one in found
    )
    for group in groups.values():
        _refuse_unlike(group)
    runs = [
        MergedRun(
            machine=group[0].machine,
            sources=tuple(group),
            part=group[0].part
            and group[0].part.joined([source.part for source in group if source.part]),
        )
        for group in groups.values()
    ]
    kept = {frozenset(map(_content, one.records)): one.path for one in there}
    fresh = []
    for run in runs:
        path = kept.get(frozenset(_content(row) for one in run.sources for row in one.records))
        if path is None:
            fresh.append(run)
        else:
            say(f"{', '.join(str(one.path) for one in run.sources)}: is in {path} already")
    _refuse_copies([*there, *(source for run in fresh for source in run.sources)])
    return runs, fresh


def _content(row: Record) -> Record:
    """Return what a row holds but for its place in a run, which joining changes."""
    return dataclasses.replace(row, run="0001", order=1)


def missing(found: Sequence[SourceRun]) -> list[str]:
    """Say what of each plan no source holds, a line for each shard that is not whole."""
    plans = {source.part.plan: source.part for source in found if source.part}
    lines = []
    for plan, part in plans.items():
        of_it = [source for source in found if source.part and source.part.plan == plan]
        held = {(row.asked_case.name, row.process) for source in of_it for row in source.records}
        for number, cases in enumerate(part.shards, start=1):
            wanted = [
                (case.name, process) for case in cases for process in range(1, part.processes + 1)
            ]
            lacking = [one for one in wanted if one not in held]
            if lacking:
                shard = Shard(number=number, count=part.count)
                lines.append(f"shard {shard}: {_lack(lacking, len(wanted))}")
    return lines


def _lack(lacking: Sequence[tuple[str, int]], wanted: int) -> str:
    names = listed([f"{name} #{process}" for name, process in lacking], MOST_NAMED)
    count = "all" if len(lacking) == wanted else f"{len(lacking)} of"
    return f"{count} {counted(wanted, 'process')} missing: {names}"


def join(one: MergedRun, store: Store, keep_beside: Callable[[Path], None]) -> Path:
    """Write one joined run, its rows in the order of the plan; return its file.

    What an anchor needs comes along: the codes and their kept files; and the name of the machine.
    The rows come last and all at once, so that a merge that is killed leaves no part of a run.

    Args:
        keep_beside: writes what else stands beside the run's file.
    """
    codes = [(source.path.parent, read_codes(source.path)) for source in one.sources]
    beside: dict[tuple[Path, int, object], list[Any]] = {}
    for source in one.sources:
        for table in OF_ROWS:
            for row in table.of(source.path):
                beside.setdefault((source.path, row.order, table), []).append(row)
    of_sources = [(source, record) for source in one.sources for record in source.records]
    of_sources.sort(key=lambda row: (row[1].order, row[1].started))
    run_file = store.create_run(one.machine)
    rows: list[Record] = []
    try:
        for order, (source, record) in enumerate(of_sources, start=1):
            rows.append(dataclasses.replace(record, run=run_file.run, order=order))
            steps = read_step_times(source.path, [record.order])
            if steps is not None:
                run_file.keep_step_times(rows[-1], steps.tolist())
            here: dict[str, Any] = {"run": run_file.run, "order": order}
            for table in OF_ROWS:
                of_row = beside.get((source.path, record.order, table), ())
                table.keep(run_file.path, [dataclasses.replace(each, **here) for each in of_row])
        if one.part:
            write_part(run_file.path, one.part)
        for folder, found in codes:
            for code in found.values():
                copy_kept(folder, run_file.path.parent, code)
        if any(found for _, found in codes):
            write_codes(run_file.path, ChainMap(*(found for _, found in codes)))
        name = next(filter(None, (read_name(folder) for folder, _ in codes)), "")
        if name and not read_name(run_file.path.parent):
            keep_name(run_file.path.parent, name)
        keep_beside(run_file.path)
        run_file.keep(rows)
    finally:
        run_file.close()
    return run_file.path


def _refuse_copies(found: Sequence[SourceRun]) -> None:
    """Refuse the same measurement twice, whatever its run is called."""
    seen: dict[tuple[object, ...], tuple[Path, Record]] = {}
    for source in found:
        for record in source.records:
            # tells a measurement from every other, whatever its run is called
            key = (source.machine, record.node, record.started, record.case.name, record.process)
            path, first = seen.setdefault(key, (source.path, record))
            if path != source.path:
                other = "" if _content(record) == _content(first) else ", with other values"
                raise StoreError(
                    f"{source.path}: must have no row of {path}, but {record.case.name} "
                    f"#{record.process} of {record.started} is in both{other}; leave one out"
                )


def _refuse_doubles(found: Sequence[SourceRun]) -> None:
    """Refuse the same process of a case of one plan twice, wherever it was measured."""
    seen: dict[tuple[str, str, int], Path] = {}
    for source in found:
        if source.part is None:
            continue
        for record in source.records:
            key = (source.part.plan, record.asked_case.name, record.process)
            if seen.setdefault(key, source.path) != source.path:
                raise StoreError(
                    f"{source.path}: must have no row of {seen[key]}, but {record.case.name} "
                    f"#{record.process} of the same plan was measured twice; leave one out"
                )


def _refuse_unlike(group: Sequence[SourceRun]) -> None:
    seen: dict[tuple[str, str], tuple[object, Path]] = {}
    for source in group:
        for record in source.records:
            for key in shared_columns(record):
                value = getattr(record, key[0])
                if value is None:
                    continue
                first, path = seen.setdefault(key, (value, source.path))
                if first != value:
                    raise StoreError(
                        f"{source.path}: must have the {key[0]} of {path} to be of the same run: "
                        f"{first} there, {value} here"
                    )
