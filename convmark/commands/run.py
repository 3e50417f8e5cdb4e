"""`convmark run`: measure the default cases, or those asked for, in one interpreter or several."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from convmark import progress
from convmark.case import Case
from convmark.ceilings import ceilings_path, gather
from convmark.commit import read_commit
from convmark.environment import Machine, read_machine
from convmark.environments.interpreter import interpreters
from convmark.fleet import Fleet
from convmark.options import Options
from convmark.report.summary import summary_table
from convmark.run import Result, devices_asked_for, execute, facts_of, kept, plan
from convmark.store import RunFile, Store
from convmark.suites import NETWORKS, cases

__all__ = ["run"]


@dataclass(frozen=True, slots=True)
class _Planned:
    """What is to be measured in one interpreter; a run of its own."""

    fleet: Fleet
    cases: Sequence[Case]


def run(options: Options) -> tuple[bool, bool]:
    """Measure, print each run's summary and where its rows are.

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
                print(f"{chr(10) * (number > 0)}{one.fleet.python}")
            run_file = store.create_run(machine.name)
            try:
                measured = _measure(one, options, machine, run_file)
            except KeyboardInterrupt:
                _say(f"interrupted; {kept(run_file)}")
                return False, True
            finally:
                run_file.close()
                one.fleet.close()
            whole = whole and all(result.record.measured for result in measured)
    return whole, False


def _say(line: str) -> None:
    print(f"convmark run: {line}", file=sys.stderr)


def _planned(path: str, options: Options, stack: contextlib.ExitStack) -> _Planned:
    made = Fleet(
        options.backends, path, isolation=options.isolation, time_limit_s=options.time_limit_s
    )
    fleet = stack.enter_context(made)
    found = fleet.inspect(options.models or NETWORKS)
    devices = {
        backend: devices_asked_for(options.devices, its_own["devices"])
        for backend, its_own in found.items()
    }
    return _Planned(fleet, cases(options, devices))


def _measure(
    planned: _Planned, options: Options, machine: Machine, run_file: RunFile
) -> list[Result]:
    commit = read_commit(Path.cwd(), besides=[options.results.absolute()])
    path = ceilings_path(options.results, machine.name)
    asked, ask = planned.cases, planned.fleet.answer
    ceilings = gather(asked, ask, path, which=options.ceilings, say=_say)
    facts = facts_of(run_file.run, machine, commit, os.environ, ceilings)
    results: list[Result] = []
    with progress.on(sys.stderr, 2 * options.time_budget_s + 2) as shown:
        execute(
            plan(asked, options.processes, options.seed),
            planned.fleet,
            options,
            facts,
            run_file,
            shown,
            keep=results.append,
        )
    print(summary_table([result.record for result in results]))
    print(f"\n{kept(run_file)}")
    return results
