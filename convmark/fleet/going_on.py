"""A fleet's run that goes on: which of a node's jobs have rows, in its own run or another's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from convmark.core.case import Case
from convmark.core.options import Options
from convmark.fleet.earlier import Found, Marks
from convmark.fleet.files import RunFiles
from convmark.fleet.host import Prepared
from convmark.results.record import COLUMNS
from convmark.results.store import Store
from convmark.session.facts import software
from convmark.session.plan import Job
from convmark.session.resume import Columns, Interrupted, check, expected, missing, open_interrupted

__all__ = ["GoingOn"]

OF_A_HOST = frozenset(
    column.name
    for column in COLUMNS
    if column.group == "environment" and column.name not in (*software({}), "flags")
)
"""Columns in which nodes that measure one plan may differ: the card's own identity, for one."""


@dataclass(frozen=True, slots=True)
class GoingOn:
    """Takes runs over that were interrupted."""

    store: Store
    options: Options
    files: RunFiles
    marks: Marks

    def left(
        self, name: str, prepared: Prepared, found: Sequence[Found], jobs: Sequence[Job]
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
        self.marks.belongs(name, found[0][0])
        left = list(jobs)
        for path, mark in found:
            earlier = open_interrupted(self.store, path.parent.name, str(path))
            try:
                if self._is_own(name, prepared, earlier):
                    self._take(name, prepared, earlier, mark, jobs)
                    mine = set(missing(jobs, earlier.records))
                    left = [job for job in left if job in mine]
                else:
                    whole = self._whole_cases(prepared, earlier, mark, jobs)
                    left = [job for job in left if job.case not in whole]
                    earlier.run_file.close()
            except BaseException:
                earlier.run_file.close()
                raise
        return left

    def _is_own(self, name: str, prepared: Prepared, earlier: Interrupted) -> bool:
        """Whether the node may go on in the file: a run of its host, the first of them."""
        its_own = prepared.facts.machine.name, prepared.facts.node
        same = all((record.machine, record.node) == its_own for record in earlier.records)
        return same and (name, name) not in self.files.records

    def _take(
        self,
        name: str,
        prepared: Prepared,
        earlier: Interrupted,
        mark: str | None,
        jobs: Sequence[Job],
    ) -> None:
        earlier.go_on(prepared.cases, self._columns(prepared, earlier, mark), jobs)
        self.marks.goes_on((name, name), mark)
        self.files.go_on((name, name), earlier.run_file, list(earlier.records))

    def _whole_cases(
        self, prepared: Prepared, earlier: Interrupted, mark: str | None, jobs: Sequence[Job]
    ) -> set[Case]:
        """Return the cases of which another node has measured all processes."""
        columns = self._columns(prepared, earlier, mark)

        def of_any_host(case: Case) -> dict[str, Any]:
            return {key: one for key, one in columns(case).items() if key not in OF_A_HOST}

        check(earlier.run_file.path, earlier.records, prepared.cases, of_any_host, jobs)
        return set(prepared.cases) - {job.case for job in missing(jobs, earlier.records)}

    def _columns(self, prepared: Prepared, earlier: Interrupted, mark: str | None) -> Columns:
        """Return what gives the columns that the node's rows would have in the run."""
        facts = replace(prepared.facts, run=earlier.run_file.run, plan=mark)
        return expected(self.options, facts, prepared.found)
