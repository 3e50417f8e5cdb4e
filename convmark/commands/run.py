"""`convmark run`: measure the default cases, or those asked for, in one interpreter or several."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from convmark import progress
from convmark.alone import alone
from convmark.auto_batch import choices_table, chosen_cases, explore
from convmark.beforehand import Beforehand
from convmark.case import Case
from convmark.ceilings import ceilings_path, gather
from convmark.commit import read_commit
from convmark.description import describe_models
from convmark.environment import Machine, read_machine, read_state
from convmark.environments.interpreter import interpreters
from convmark.errors import OptionError
from convmark.fleet import Fleet
from convmark.options import AUTO, Options
from convmark.record import Record
from convmark.report.summary import summary_table
from convmark.resume import Interrupted, expected, missing, open_interrupted, plan_hash
from convmark.run import Job, Observer, Result, devices_asked_for, execute, facts_of, kept, plan
from convmark.store import RunFile, Store
from convmark.suites import NETWORKS, cases

__all__ = ["run"]


@dataclass(frozen=True, slots=True)
class _Planned:
    """What is to be measured in one interpreter; a run of its own."""

    fleet: Fleet
    cases: Sequence[Case]
    found: Mapping[str, Mapping[str, Any]]
    """What each backend's interpreter has."""
    earlier: Interrupted | None = None
    """The run that goes on; None where a new one begins."""


def run(
    options: Options, *, describe: bool = False, resume: str | None = None
) -> tuple[bool, bool]:
    """Measure, print each run's summary and where its rows are.

    Args:
        describe: whether each model's layers and diagram are kept as well.
        resume: the run that is to go on, as `open_interrupted` takes it; None for a new one.

    Returns:
        whether every case was measured, and whether the user has interrupted.

    Raises:
        ConvmarkError: something asked for is not to be had; nothing was measured then.
    """
    store = Store(options.results)
    store.check_writable()
    machine = read_machine()
    whole = True
    with contextlib.ExitStack() as stack:
        stack.enter_context(alone(wait=options.wait, concurrent=options.allow_concurrent, say=_say))
        before = Beforehand()
        paths = interpreters(options.pythons, options.environments, say=_say) or [sys.executable]
        earlier = None
        if resume is not None:
            if len(paths) > 1:
                raise OptionError(
                    f"--resume: goes on with one run, in one interpreter, got {', '.join(paths)}"
                )
            earlier = open_interrupted(store, machine.name, resume)
            stack.callback(earlier.run_file.close)
        planned = [_planned(path, options, stack, earlier) for path in paths]
        for line in before.lines(machine):
            _say(line)
        for number, one in enumerate(planned):
            if len(planned) > 1:
                print(f"{chr(10) * (number > 0)}{one.fleet.python}")
            run_file = earlier.run_file if earlier else store.create_run(machine.name)
            try:
                measured = _measure(one, options, machine, run_file)
                if describe:
                    _describe(one, options, run_file)
            except KeyboardInterrupt:
                _say(f"interrupted; {kept(run_file)}")
                return False, True
            finally:
                run_file.close()
                one.fleet.close()
            whole = whole and measured
    return whole, False


def _say(line: str) -> None:
    print(f"convmark run: {line}", file=sys.stderr)


def _planned(
    path: str, options: Options, stack: contextlib.ExitStack, earlier: Interrupted | None
) -> _Planned:
    made = Fleet(
        options.backends, path, isolation=options.isolation, time_limit_s=options.time_limit_s
    )
    fleet = stack.enter_context(made)
    found = fleet.inspect(options.models or NETWORKS)
    devices = {
        backend: devices_asked_for(options.devices, its_own["devices"])
        for backend, its_own in found.items()
    }
    return _Planned(fleet, cases(options, devices), found, earlier)


def _measure(planned: _Planned, options: Options, machine: Machine, run_file: RunFile) -> bool:
    """Measure one interpreter's cases and print them; return whether all were."""
    commit = read_commit(Path.cwd(), besides=[options.results.absolute()])
    asked, ask = planned.cases, planned.fleet.answer
    hashed = plan_hash(asked, options)
    facts = facts_of(run_file.run, machine, commit, os.environ, plan=hashed)
    searched = options.batch_sizes == AUTO
    jobs = None if searched else plan(asked, options.processes, options.seed)
    results: list[Result] = []
    if (earlier := planned.earlier) is not None:
        results += earlier.go_on(asked, expected(options, facts, planned.found), jobs)
        _say(earlier.described(jobs))
    path = ceilings_path(options.results, machine.name)
    facts = replace(facts, ceilings=gather(asked, ask, path, which=options.ceilings, say=_say))

    def measure(jobs: Sequence[Job], shown: Observer) -> None:
        execute(jobs, planned.fleet, options, facts, run_file, shown, keep=results.append)

    if jobs is None:
        whole = _search(asked, measure, options, results)
    else:
        with progress.on(sys.stderr, 2 * options.time_budget_s + 2) as shown:
            measure(missing(jobs, _records(results)), shown)
        whole = all(result.record.measured for result in results)
    print(summary_table(_records(results)))
    print(f"\n{kept(run_file)}")
    return whole


def _records(results: Sequence[Result]) -> list[Record]:
    return [result.record for result in results]


def _describe(planned: _Planned, options: Options, run_file: RunFile) -> None:
    """Keep each model's layers, as the first of the backends builds them."""
    backend = options.backends[0]
    models = [case.model for case in planned.cases]
    folder = run_file.path.parent
    describe_models(models, planned.fleet, options.seed, folder, backend=backend)


def _last_place(results: Sequence[Result]) -> int:
    return max((result.record.order for result in results), default=0)


def _search(
    cases: Sequence[Case],
    measure: Callable[[Sequence[Job], Observer], None],
    options: Options,
    results: Sequence[Result],
) -> bool:
    """Find each case's batch sizes, and give those found the rest of their processes."""

    there = {(row.case, row.process): row for row in _records(results)}  # of a run that goes on

    def row(case: Case) -> Record:
        if (case, 1) in there:
            return there[case, 1]
        _say(f"trying {case.name}")
        measure([Job(case=case, process=1, order=_last_place(results) + 1)], progress.Silence())
        return results[-1].record

    choices = explore(
        cases,
        row,
        longest_step_s=options.time_budget_s,
        free_bytes=lambda: read_state().available_memory_bytes,
    )
    chosen, after = chosen_cases(choices), (1, _last_place(results))
    if chosen and options.processes > 1:
        jobs = plan(chosen, options.processes - 1, options.seed, after=after)
        with progress.on(sys.stderr, 2 * options.time_budget_s + 2) as shown:
            measure(missing(jobs, _records(results)), shown)
    print(f"{choices_table(choices)}\n")
    return all(choice.whole for choice in choices)
