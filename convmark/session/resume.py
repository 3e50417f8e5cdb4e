"""`--resume`: an interrupted run continues in its own file with the missing processes.

A row is done whatever its status, for an error, a time-out or too little memory is a result of its
case. No results are rows that say nothing of it: that whose interpreter ended under it, and that
which no process was given to. They are taken out and measured again.

The missing rows must be able to stand beside those that are there: same machine, software, commit
and options, and the same place of every process in the plan, which the seed draws.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from convmark.core.case import Case
from convmark.core.errors import OptionError, StoreError
from convmark.core.option_values import AUTO
from convmark.core.options import Options
from convmark.core.runtimes import RUNTIMES
from convmark.core.text import counted
from convmark.interpreter import INTERPRETER_LOST
from convmark.results.reading import read_run, read_schema
from convmark.results.record import Record
from convmark.results.run_file import RunFile
from convmark.results.schema import COUNTING_VERSION, MEASUREMENT_VERSION, SCHEMA_VERSION
from convmark.results.store import Store, read_step_times
from convmark.session import learning
from convmark.session.ceilings import alike_limits
from convmark.session.facts import Facts, Job, of_the_run, software
from convmark.session.result import OF_ROWS, Result
from convmark.session.run import NOT_MEASURED, sizes_of

NEWEST = ""
"""The name that means the newest run."""

Columns = Callable[[Case], Mapping[str, Any]]
"""Returns the columns that a row of the case would have now."""

_REMEDY = "resume a run with its own options, or start a new run without --resume"


def plan_hash(cases: Sequence[Case], options: Options) -> str:
    """Return a hash of what decides a run's plan: its cases in their order, processes and seed."""
    sizes = AUTO if options.batch_sizes == AUTO else ""
    asked = [*(case.name for case in cases), str(options.processes), str(options.seed), sizes]
    if options.input_shape:
        asked.append(repr(options.input_shape))
    if any(case.task == learning.TASK for case in cases):
        asked += map(str, options.seeds)
    return hashlib.sha256("\n".join(asked).encode()).hexdigest()[:12]


def is_result(record: Record) -> bool:
    """Whether a row tells something of its case, if only that it fails.

    Without a fork the interpreter is the case's own process, and its end is the case's.
    """
    error = record.error or ""
    if error.startswith(NOT_MEASURED):
        return False
    lost = not record.measured and error.startswith(INTERPRETER_LOST)
    return not (lost and record.isolation == "fork")


def missing(jobs: Sequence[Job], records: Sequence[Record]) -> list[Job]:
    """Return the jobs that have no row yet, at their places in the plan."""
    done = {(record.asked_case, record.process) for record in records}
    return [job for job in jobs if (job.case, job.process) not in done]


def expected(options: Options, facts: Facts, found: Mapping[str, Mapping[str, Any]]) -> Columns:
    """Return what gives the columns that rows measured now would have.

    Args:
        found: what each backend's interpreter has, as `Interpreters.inspect` returns it; nothing
            where none was started, since no row is left to be measured.
    """

    def columns(case: Case) -> dict[str, Any]:
        if not found:
            return of_the_run(case, options, facts)
        its_own = found[case.backend]
        columns = software(its_own)
        packages = f"{columns['packages'] or ''} {its_own.get('runtimes', '')}"
        return {
            **of_the_run(case, options, facts),
            **columns,
            "packages": _packages_of(case, packages),
            "measurement_version": str(MEASUREMENT_VERSION),
            "counting_version": str(COUNTING_VERSION),
        }

    return columns


_OF_THE_WORKER = frozenset([*software({}), "measurement_version", "counting_version", "commit"])
"""Columns that are empty where a process did not come so far, or ran no commit's code."""


_ELSEWHERE = frozenset(["plan", "node", "cores"])
"""Compared last, or not at all: a host that was renamed is the machine that it was, and a model's
own code may have left its process fewer CPUs than the machine has."""


def check(
    path: Path,
    records: Sequence[Record],
    cases: Sequence[Case],
    columns: Columns,
    jobs: Sequence[Job] | None,
) -> None:
    """Refuse rows that those measured now could not stand beside.

    Args:
        cases: all that are asked for now.
        columns: what the rows measured now would have, as `expected` gives it.
        jobs: the plan drawn now; None where batch sizes are searched for, which has none.
    """
    places = {(job.case, job.process): job.order for job in jobs or ()}
    asked = set(map(_of_any_size, cases)) if jobs is None else set(cases)
    for record in records:
        case = record.asked_case
        if (case if jobs is not None else _of_any_size(case)) not in asked:
            raise OptionError(
                f"--resume: {path}: has rows of {case.name}, which is not selected; {_REMEDY}"
            )
        differing = _difference(record, columns(case))
        if differing is not None:
            raise _refusal(path, *differing)
        place = places.get((case, record.process), record.order)
        if place != record.order:
            raise _refusal(path, f"the place of {case.name} in the plan", record.order, place)
    for record in records:
        if record.plan != (now := columns(record.asked_case)["plan"]):
            raise _refusal(path, "the plan", record.plan, f"{now}, of other cases")


def _of_any_size(case: Case) -> Case:
    return replace(case, batch_size=1)


def _difference(record: Record, columns: Mapping[str, Any]) -> tuple[str, object, object] | None:
    """Return name, then and now of the first column that differs; the plan's hash tells least."""
    for name, now in columns.items():
        if name in _ELSEWHERE:
            continue
        then = getattr(record, name)
        if name == "packages":
            then = _packages_of(record.asked_case, then or "")
        if name == "power_limit_w" and then and now and alike_limits(then, now):
            continue
        if then != now and not (then is None and name in _OF_THE_WORKER):
            return name.replace("_", " "), then, now
    return None


def _packages_of(case: Case, text: str) -> str | None:
    """Return those of the column `packages` that are known before a model is imported."""
    known = (case.backend, *RUNTIMES[case.runtime].distributions)
    found = {part for part in text.split() if part.partition("==")[0] in known}
    return " ".join(sorted(found)) or None


def _refusal(path: Path, what: str, then: object, now: object) -> OptionError:
    values = ("nothing" if value is None else value for value in (then, now))
    was, is_now = (str(value).lower() if isinstance(value, bool) else value for value in values)
    return OptionError(f"--resume: {path}: {what} was {was}, is {is_now}; {_REMEDY}")


@dataclass(frozen=True, slots=True, kw_only=True)
class InterruptedRun:
    """A run that is to go on, its file held so that no other process writes it meanwhile."""

    run_file: RunFile
    records: tuple[Record, ...]
    """The rows that stay."""
    again: tuple[Record, ...]
    """Rows that are no results: they are taken out and measured again."""

    def check_asked(self, columns: Columns) -> None:
        """Refuse what is known to differ before any interpreter is started.

        Args:
            columns: what the rows measured now would have, as `of_the_run` gives it.

        Raises:
            OptionError: an option, the commit or the machine is another one.
        """
        for record in self.records:
            if (differing := _difference(record, columns(record.asked_case))) is not None:
                raise _refusal(self.run_file.path, *differing)

    def go_on(
        self, cases: Sequence[Case], columns: Columns, jobs: Sequence[Job] | None
    ) -> list[Result]:
        """Return what is measured already; from here on the file is the run's again.

        Raises:
            OptionError: the run cannot go on with these options, here; the file is as it was.
            StoreError: the file cannot be written.
        """
        check(self.run_file.path, self.records, cases, columns, jobs)
        self.run_file.keep(self.records)
        self._take_out_beside()
        for record in self.records:
            case, sizes = record.case.name, sizes_of(record)
            self.run_file.codes.other_than_before(case, record.code, sizes)
        epochs, results = learning.TABLE.of(self.run_file.path), []
        for record in self.records:
            times_s = read_step_times(self.run_file.path, [record.order])
            its_own = [epoch for epoch in epochs if epoch.order == record.order]
            results.append(
                Result(
                    case=record.asked_case,
                    record=record,
                    step_times_s=[] if times_s is None else times_s.tolist(),
                    epochs=its_own,
                )
            )
        return results

    def _take_out_beside(self) -> None:
        """Take out what was noted of processes whose rows never came: they are measured again."""
        orders = {record.order for record in self.records}
        for table in OF_ROWS:
            noted = table.of(self.run_file.path)
            stay = [one for one in noted if one.order in orders]
            if len(stay) < len(noted):
                table.replace(table.path(self.run_file.path), stay)

    def described(self, jobs: Sequence[Job] | None) -> str:
        """Say in one line what is there and what is left."""
        path, rows = self.run_file.path, len(self.records)
        of = f"{rows} of " if jobs is not None else ""
        count = counted(rows if jobs is None else len(jobs), "process")
        text = f"resuming {path}: {of}{count} measured"
        if self.again:
            text += f"; {len(self.again)} whose interpreter had ended are measured again"
        elif jobs is not None and rows == len(jobs):
            text += "; none is left"
        return text


def open_interrupted(store: Store, machine: str, name: str = NEWEST) -> InterruptedRun:
    """Open a run to go on with it, nothing in its file changed yet; close its `run_file` at last.

    Args:
        name: its number, commit or file, as `Store.find` takes it, or `NEWEST`.

    Raises:
        StoreError: there is no such run, its file does not read, or another process writes it.
        OptionError: its rows are of an earlier schema, which lack what is to be compared.
    """
    if name == NEWEST:
        runs = store.runs(machine)
        if not runs:
            raise StoreError(f"--resume: {store.folder / machine} has no run yet")
        path = runs[-1]
    else:
        path = store.find(name, machine)
    run_file = RunFile.reopened(path)
    try:
        records = read_run(path)
        if (schema := read_schema(path)) != SCHEMA_VERSION:
            raise _refusal(path, "the schema", schema, SCHEMA_VERSION)
    except BaseException:
        run_file.close()
        raise
    return InterruptedRun(
        run_file=run_file,
        records=tuple(record for record in records if is_result(record)),
        again=tuple(record for record in records if not is_result(record)),
    )
