"""`convmark run`: measure the default cases, or those asked for, in one interpreter or several."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from convmark import progress
from convmark.auto_batch import choices_table, chosen_cases, explore
from convmark.case import Case
from convmark.ceilings import ceilings_path, gather
from convmark.commit import read_commit
from convmark.description import describe_models
from convmark.environment import Machine, read_machine, read_state
from convmark.environments.interpreter import interpreters
from convmark.interpreters import Interpreters
from convmark.options import AUTO, Options
from convmark.record import Record
from convmark.report.summary import summary_table
from convmark.run import Job, Observer, Result, devices_asked_for, execute, facts_of, kept, plan
from convmark.store import RunFile, Store
from convmark.suites import NETWORKS, cases

__all__ = ["run"]


@dataclass(frozen=True, slots=True)
class _Planned:
    """What is to be measured in one interpreter; a run of its own."""

    interpreters: Interpreters
    cases: Sequence[Case]


def run(options: Options, *, describe: bool = False) -> tuple[bool, bool]:
    """Measure, print each run's summary and where its rows are.

    Args:
        describe: whether each model's layers and diagram are kept as well.

    Returns:
        whether every case was measured, and whether the user has interrupted.

    Raises:
        ConvmarkError: something asked for is not to be had; nothing was measured then.
    """
    store = Store(options.results)
    store.check_writable()
    machine = read_machine()
    paths = interpreters(options.pythons, options.environments, say=_say) or [sys.executable]
    whole = True
    with contextlib.ExitStack() as stack:
        planned = [_planned(path, options, stack) for path in paths]
        for number, one in enumerate(planned):
            if len(planned) > 1:
                print(f"{chr(10) * (number > 0)}{one.interpreters.python}")
            run_file = store.create_run(machine.name)
            try:
                measured = _measure(one, options, machine, run_file)
                if describe:
                    _describe(one, options, run_file)
            except KeyboardInterrupt:
                _say(f"interrupted; {kept(run_file)}")
                return False, True
            finally:
                run_file.close()
                one.interpreters.close()
            whole = whole and measured
    return whole, False


def _say(line: str) -> None:
    print(f"convmark run: {line}", file=sys.stderr)


def _planned(path: str, options: Options, stack: contextlib.ExitStack) -> _Planned:
    made = Interpreters(
        options.backends, path, isolation=options.isolation, time_limit_s=options.time_limit_s
    )
    measuring = stack.enter_context(made)
    found = measuring.inspect(options.models or NETWORKS)
    devices = {
        backend: devices_asked_for(options.devices, its_own["devices"])
        for backend, its_own in found.items()
    }
    return _Planned(measuring, cases(options, devices))


def _measure(planned: _Planned, options: Options, machine: Machine, run_file: RunFile) -> bool:
    """Measure one interpreter's cases and print them; return whether all were."""
    commit = read_commit(Path.cwd(), besides=[options.results.absolute()])
    path = ceilings_path(options.results, machine.name)
    asked, ask = planned.cases, planned.interpreters.answer
    ceilings = gather(asked, ask, path, which=options.ceilings, say=_say)
    facts = facts_of(run_file.run, machine, commit, os.environ, ceilings)
    results: list[Result] = []

    def measure(jobs: Sequence[Job], shown: Observer) -> None:
        execute(jobs, planned.interpreters, options, facts, run_file, shown, keep=results.append)

    if options.batch_sizes == AUTO:
        whole = _search(asked, measure, options, results)
    else:
        with progress.on(sys.stderr, 2 * options.time_budget_s + 2) as shown:
            measure(plan(asked, options.processes, options.seed), shown)
        whole = all(result.record.measured for result in results)
    print(summary_table([result.record for result in results]))
    print(f"\n{kept(run_file)}")
    return whole


def _describe(planned: _Planned, options: Options, run_file: RunFile) -> None:
    """Keep each model's layers, as the first of the backends builds them."""
    backend = options.backends[0]
    models = [case.model for case in planned.cases]
    folder = run_file.path.parent
    describe_models(models, planned.interpreters, options.seed, folder, backend=backend)


def _search(
    cases: Sequence[Case],
    measure: Callable[[Sequence[Job], Observer], None],
    options: Options,
    results: Sequence[Result],
) -> bool:
    """Find each case's batch sizes, and give those found the rest of their processes."""

    def row(case: Case) -> Record:
        _say(f"trying {case.name}")
        measure([Job(case=case, process=1, order=len(results) + 1)], progress.Silence())
        return results[-1].record

    choices = explore(
        cases,
        row,
        longest_step_s=options.time_budget_s,
        free_bytes=lambda: read_state().available_memory_bytes,
    )
    chosen, after = chosen_cases(choices), (1, len(results))
    if chosen and options.processes > 1:
        with progress.on(sys.stderr, 2 * options.time_budget_s + 2) as shown:
            measure(plan(chosen, options.processes - 1, options.seed, after=after), shown)
    print(f"{choices_table(choices)}\n")
    return all(choice.whole for choice in choices)
