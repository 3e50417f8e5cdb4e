"""The caller's run files of a fleet: a run for each plan and node that measures it.

A case that went from a lost node to another is in a run of its own, for the other node has a run
already in which the same case may be.

The column `plan` tells which runs belong together, so that an interrupted one can go on. Where
every node has the plan to measure, a node goes on with its own run, and one that stood in for a
lost node is no plan's. Where one node of each kind has it, the first run of the plan has the plan's
hash, and each run of another node that took cases over has the hash and the name of that first run,
`4f1c09ab77e2 of xeon-2/0007`.
"""

from __future__ import annotations

import dataclasses
import resource
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from convmark.core.case import Case
from convmark.core.options import Options
from convmark.results.reading import read_head, read_run
from convmark.results.record import COLUMNS, Record
from convmark.results.run_file import RunFile
from convmark.results.store import Store
from convmark.session.facts import Facts, Job, software
from convmark.session.fleet.host import PreparedNode
from convmark.session.result import Result
from convmark.session.resume import (
    Columns,
    InterruptedRun,
    check,
    expected,
    missing,
    open_interrupted,
)
from convmark.session.run import with_kept_code, with_kept_stack

Key = tuple[str, str]
"""The node whose plan it is, and the node that measures."""

Found = tuple[Path, str | None]
"""A run, and what its rows have in the column `plan`."""

OF_A_HOST = frozenset(
    column.name
    for column in COLUMNS
    if column.group == "environment" and column.name not in (*software({}), "flags")
)
"""Columns in which nodes that measure one plan may differ: the card's own identity, for one."""


class RunFiles:
    """Made as rows come; a row is on the disk when `append` returns."""

    def __init__(self, store: Store, machines: Mapping[str, str], *, every: bool) -> None:
        """Describe the files; none is made yet.

        Args:
            machines: by node the machine's name, its results folder.
            every: whether every node has the plan to measure, or one of each kind.
        """
        self._store = store
        self._machines = machines
        self._every = every
        self._files: dict[Key, RunFile] = {}
        self._plans: dict[Key, str | None] = {}
        """What the rows of each run have in the column `plan`."""
        self._first: dict[str, Path] = {}
        """The first run of each node's plan."""
        self.records: dict[Key, list[Record]] = {}
        """All rows of each run, those of before it was interrupted included."""

    def take_over(self, key: Key, earlier: InterruptedRun, plan: str | None) -> None:
        self._files[key], self._plans[key] = earlier.run_file, plan
        self.records[key] = list(earlier.records)

    def begins_with(self, target: str, first: Path) -> None:
        """Note the first run of a node's plan; later calls change nothing."""
        self._first.setdefault(target, first)

    def append(self, key: Key, result: Result, plan: str | None) -> Record:
        """Keep a row, and return it as it is kept."""
        if key not in self._files:
            self._files[key] = self._store.create_run(self._machines[key[1]])
            self._plans[key] = self._plan_of(key, plan)
        run_file = self._files[key]
        record = dataclasses.replace(result.record, plan=self._plans[key])
        result = with_kept_code(dataclasses.replace(result, record=record), run_file)
        record = with_kept_stack(result, run_file.path).record
        record = dataclasses.replace(record, run=run_file.run)
        for table, rows in result.beside:  # before the row, which is then whole
            table.keep(run_file.path, [replace(one, run=run_file.run) for one in rows])
        run_file.append(record, result.step_times_s)
        self.records.setdefault(key, []).append(record)
        self.begins_with(key[0], run_file.path)
        return record

    def _plan_of(self, key: Key, plan: str | None) -> str | None:
        target, node = key
        if self._every:
            return plan if target == node else None
        first = self._first.get(target)
        return plan if first is None or plan is None else _of(plan, first)

    def paths(self) -> dict[Key, Path]:
        return {key: run_file.path for key, run_file in self._files.items() if self.records[key]}

    def close(self) -> None:
        for run_file in self._files.values():
            run_file.close()


@dataclass(frozen=True, slots=True)
class Resumption:
    """Goes on with the runs of a fleet that were interrupted."""

    store: Store
    options: Options
    files: RunFiles

    def left(
        self, name: str, prepared: PreparedNode, found: Sequence[Found], jobs: Sequence[Job]
    ) -> list[Job]:
        """Return the jobs that a node is to measure still: in its run among these, or a new one.

        With the run of another host it does not go on: what is left out are the cases that are
        whole in it.

        Args:
            found: the runs of the plan so far, the first first.

        Raises:
            OptionError: a run cannot go on, or does not fit the others.
            StoreError: a run does not read, or another process writes it.
        """
        self.files.begins_with(name, found[0][0])
        left = list(jobs)
        for path, plan in found:
            earlier = open_interrupted(self.store, path.parent.name, str(path))
            try:
                columns = self._columns(prepared, earlier, plan)
                if self._is_own(name, prepared, earlier):
                    earlier.go_on(prepared.cases, columns, jobs)
                    self.files.take_over((name, name), earlier, plan)
                    mine = set(missing(jobs, earlier.records))
                    left = [job for job in left if job in mine]
                else:
                    whole = _whole_cases(prepared, earlier, columns, jobs)
                    left = [job for job in left if job.case not in whole]
                    earlier.run_file.close()
            except BaseException:
                earlier.run_file.close()
                raise
        return left

    def _is_own(self, name: str, prepared: PreparedNode, earlier: InterruptedRun) -> bool:
        """Whether the node may go on in the file: a run of its host, the first of them."""
        its_own = prepared.facts.machine.name, prepared.facts.node
        same = all((record.machine, record.node) == its_own for record in earlier.records)
        return same and (name, name) not in self.files.records

    def _columns(
        self, prepared: PreparedNode, earlier: InterruptedRun, plan: str | None
    ) -> Columns:
        """Return what gives the columns that the node's rows would have in the run."""
        facts = dataclasses.replace(prepared.facts, run=earlier.run_file.run, plan=plan)
        return expected(self.options, facts, prepared.found)


def _whole_cases(
    prepared: PreparedNode, earlier: InterruptedRun, columns: Columns, jobs: Sequence[Job]
) -> set[Case]:
    """Return the cases of which another node has measured all processes."""

    def of_any_host(case: Case) -> dict[str, Any]:
        return {key: one for key, one in columns(case).items() if key not in OF_A_HOST}

    check(earlier.run_file.path, earlier.records, prepared.cases, of_any_host, jobs)
    return set(prepared.cases) - {job.case for job in missing(jobs, earlier.records)}


def newest_of_host(store: Store, facts: Facts, *, besides: Collection[Path]) -> list[Found]:
    """Return the newest run of a plan that a host has measured; an empty list for none.

    Args:
        facts: the host's, with the plan.
        besides: runs that are not meant.
    """
    for path, head in newest_first(store, [facts.machine.name]):
        if path not in besides and (head.plan, head.node) == (facts.plan, facts.node):
            return [(path, head.plan)]
    return []


def newest_of_kind(store: Store, machines: Collection[str], plan: str | None) -> list[Found]:
    """Return the runs that the newest measurement of the plan by one kind has, the first first."""
    others: dict[str | None, list[Found]] = {}
    for path, head in newest_first(store, machines):
        if head.plan is not None and head.plan == plan:
            return [(path, head.plan), *reversed(others.get(_of(head.plan, path), []))]
        others.setdefault(head.plan, []).append((path, head.plan))
    return []


def _of(plan: str, first: Path) -> str:
    return f"{plan} of {first.parent.name}/{first.stem}"


def gpus_measured(store: Store, machine: str) -> set[str]:
    """Return the names of the GPUs in the machine's newest run; none where it has no run."""
    path = next((path for path, _ in newest_first(store, [machine])), None)
    return {row.gpu for row in read_run(path) if row.gpu} if path else set()


def newest_first(store: Store, machines: Collection[str]) -> Iterator[tuple[Path, Record]]:
    """Yield each run of the machines that has rows, and its first one."""
    names = list(dict.fromkeys(machines))
    if len(names) == 1:  # read as far as the caller asks
        yield from _heads(store.runs(names[0]))
        return
    found = [one for name in names for one in _heads(store.runs(name))]
    found.sort(key=lambda one: (one[1].started, str(one[0])), reverse=True)
    yield from found


def _heads(paths: Sequence[Path]) -> Iterator[tuple[Path, Record]]:
    for path in reversed(paths):
        head = read_head(path)
        if head is not None:
            yield path, head


def hold_many_files(count: int) -> None:
    """Raise the number of files that this process may hold open, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 256
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
