"""`convmark run`: measure the default cases, or those asked for, in one interpreter or several."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from convmark.cli.description import describe_models
from convmark.core.case import Case
from convmark.core.cluster import check_devices, check_options
from convmark.core.errors import OptionError
from convmark.core.option_values import AUTO
from convmark.core.options import Options
from convmark.core.suites import NETWORKS, cases, refuse_untimed
from convmark.core.units import duration_text
from convmark.fleet.expected import expected_s
from convmark.fleet.part import Part, part_path, plan_name, write_part
from convmark.fleet.shard import Shard, split
from convmark.interpreter import zoo_folder
from convmark.interpreter.by_backend import Interpreters
from convmark.interpreter.environments.interpreter import interpreters
from convmark.interpreter.inspection import devices_asked_for
from convmark.machine.cautions import Beforehand
from convmark.machine.doctor import left_out_gpus
from convmark.machine.environment import Machine, read_machine
from convmark.machine.lock import alone
from convmark.report.summary import cards_table, scaling_table, summary_table
from convmark.results.code.of_run import CodeReader
from convmark.results.commit import read_commit
from convmark.results.record import Record
from convmark.results.store import RunFile, Store
from convmark.session import progress
from convmark.session.auto_batch import choices_table, chosen_cases, find_sizes
from convmark.session.ceilings import ceilings_path, gather
from convmark.session.facts import facts_of
from convmark.session.learning import with_digits
from convmark.session.plan import Job, plan
from convmark.session.result import Result
from convmark.session.resume import Interrupted, expected, missing, open_interrupted, plan_hash
from convmark.session.run import Observer, execute, kept

__all__ = ["run"]


@dataclass(frozen=True, slots=True)
class _Planned:
    """What is to be measured in one interpreter; a run of its own."""

    interpreters: Interpreters
    cases: Sequence[Case]
    found: Mapping[str, Mapping[str, Any]]
    """What each backend's interpreter has."""
    whole: Sequence[Case]
    """The cases of the plan that these are of."""
    options: Options
    """With the file of the digits, where a case trains on them."""
    part: Part | None = None
    earlier: Interrupted | None = None
    """The run that goes on; None where a new one begins."""


def run(
    options: Options,
    *,
    describe: bool = False,
    resume: str | None = None,
    shard: Shard | None = None,
    known_s: Mapping[str, float] | None = None,
) -> tuple[bool, bool]:
    """Measure, print each run's summary and where its rows are.

    Args:
        describe: whether each model's layers and diagram are kept as well.
        resume: the run that is to go on, as `open_interrupted` takes it; None for a new one.
        shard: the part of the plan to measure, the whole by default.
        known_s: seconds of one process by case, to balance the parts by.

    Returns:
        whether every case was measured, and whether the user has interrupted.

    Raises:
        ConvmarkError: something asked for is not to be had; nothing was measured then.
    """
    _check_tasks_and_shard(options, shard)
    store = Store(options.results)
    store.check_writable()
    check_options(
        options.cluster,
        isolation=options.isolation,
        automatic=options.batch_sizes == AUTO,
        copies=options.replicas or (1,),
        backends=options.backends,
    )
    machine = read_machine()
    whole = True
    with contextlib.ExitStack() as stack:
        # the members of a cluster may share a machine, and are one run
        beside = options.allow_concurrent or bool(options.cluster and options.cluster.addresses)
        stack.enter_context(alone(wait=options.wait, concurrent=beside, say=_say))
        before = Beforehand()
        paths = interpreters(options.pythons, options.environments, say=_say) or [sys.executable]
        earlier = None
        if resume is not None:
            _check_resume(options, paths)
            earlier = open_interrupted(store, machine.name, resume)
            stack.callback(earlier.run_file.close)
        planned = [_planned(path, options, stack, earlier) for path in paths]
        notes = [*before.lines(machine), *_left_out(machine, planned, options)]
        if shard:
            planned = [
                _shared_out(one, options, shard, known_s or {}, number)
                for number, one in enumerate(planned)
            ]
        for number, one in enumerate(planned):
            if len(planned) > 1:
                print(f"{chr(10) * (number > 0)}{one.interpreters.python}")
            if not one.cases:
                continue
            run_file = earlier.run_file if earlier else store.create_run(machine.name)
            try:
                if one.part:
                    write_part(run_file.path, one.part)
                measured = _measure(one, one.options, machine, run_file, () if number else notes)
                if describe:
                    _describe(one, options, run_file)
            except KeyboardInterrupt:
                _say(f"interrupted; {kept(run_file)}")
                return False, True
            finally:
                run_file.close()
                if not run_file.rows:
                    part_path(run_file.path).unlink(missing_ok=True)
                one.interpreters.close()
            whole = whole and measured
    return whole, False


def _check_tasks_and_shard(options: Options, shard: Shard | None) -> None:
    """Refuse what a shard, or a search for batch sizes, cannot be of."""
    if shard and options.batch_sizes == AUTO:
        raise OptionError("--shard: must have --batch-sizes in numbers, got auto")
    if shard:
        refuse_untimed(options, "--shard shares out")
    if shard and options.cluster and options.cluster.addresses:
        raise OptionError("--shard: must not be given with machines of a --cluster")
    if options.batch_sizes == AUTO:
        refuse_untimed(options, "--batch-sizes auto searches for")


def _check_resume(options: Options, paths: Sequence[str]) -> None:
    """Refuse to go on where it is not one run of one machine, in one interpreter."""
    if options.cluster and options.cluster.addresses:
        raise OptionError(
            "--resume: machines of a cluster cannot know of each other what is missing, "
            f"got --cluster {','.join(options.cluster.addresses)}; start a new run"
        )
    if len(paths) > 1:
        raise OptionError(
            f"--resume: goes on with one run, in one interpreter, got {', '.join(paths)}"
        )


def _left_out(machine: Machine, planned: Sequence[_Planned], options: Options) -> list[str]:
    """Say which GPUs are not among all devices, though the driver shows them."""
    if "all" not in options.devices:
        return []
    found = [its_own for one in planned for its_own in one.found.values()]
    lines = [line for one in found for line in left_out_gpus(machine, one, os.environ)]
    return list(dict.fromkeys(lines))


def _say(line: str) -> None:
    print(f"convmark run: {line}", file=sys.stderr)


def _planned(
    path: str, options: Options, stack: contextlib.ExitStack, earlier: Interrupted | None
) -> _Planned:
    made = Interpreters(
        options.backends, path, isolation=options.isolation, time_limit_s=options.time_limit_s
    )
    measuring = stack.enter_context(made)
    found = measuring.inspect(options.models or NETWORKS)
    devices = {
        backend: devices_asked_for(options.devices, its_own["devices"])
        for backend, its_own in found.items()
    }
    asked = cases(options, devices)
    check_devices(asked, {backend: its_own["devices"] for backend, its_own in found.items()})
    ready = with_digits(options, asked, measuring.answer, os.environ)
    return _Planned(measuring, asked, found, asked, ready, earlier=earlier)


def _shared_out(
    planned: _Planned, options: Options, shard: Shard, known_s: Mapping[str, float], number: int
) -> _Planned:
    """Return the shard's part of what was planned, and say what it is.

    Args:
        number: of the interpreter among those asked for.
    """

    def seconds(case: Case) -> float:
        return options.processes * expected_s(case, options.time_budget_s, known_s)

    shards = split(planned.cases, seconds, shard.count)
    mine = shards[shard.number - 1]
    name = plan_name(
        shards,
        processes=options.processes,
        seed=options.seed,
        time_budget_s=options.time_budget_s,
        where=f"{number} {' '.join([*options.pythons, *options.environments])}",
    )
    about = f"about {duration_text(sum(map(seconds, mine)))}" if mine else "nothing to do"
    _say(f"shard {shard} of plan {name}: {len(mine)} of {len(planned.whole)} cases, {about}")
    part = Part(
        plan=name,
        count=shard.count,
        numbers=(shard.number,),
        processes=options.processes,
        shards=tuple(shards),
    )
    return replace(planned, cases=mine, part=part)


def _measure(
    planned: _Planned,
    options: Options,
    machine: Machine,
    run_file: RunFile,
    notes: Sequence[str],
) -> bool:
    """Measure one interpreter's cases and print them; return whether all were.

    Args:
        notes: what disturbs the machine, said once nothing is left to be refused.
    """
    commit = read_commit(Path.cwd(), besides=[options.results.absolute()])
    asked, ask = planned.cases, planned.interpreters.answer
    hashed = plan_hash(planned.whole, options)
    codes = CodeReader.at(Path.cwd(), zoo_folder(), commit.sha)
    facts = facts_of(run_file.run, machine, commit, os.environ, plan=hashed, codes=codes)
    jobs = None if options.batch_sizes == AUTO else _jobs(planned, options)
    results: list[Result] = []
    if (earlier := planned.earlier) is not None:
        results += earlier.go_on(asked, expected(options, facts, planned.found), jobs)
        _say(earlier.described(jobs))
    for note in notes:
        _say(note)
    path = ceilings_path(options.results, machine.name)
    facts = replace(facts, ceilings=gather(asked, ask, path, which=options.ceilings, say=_say))

    def measure(jobs: Sequence[Job], shown: Observer) -> None:
        execute(jobs, planned.interpreters, options, facts, run_file, shown, keep=results.append)

    if jobs is None:
        whole = _search(asked, measure, options, results)
    else:
        with progress.on(sys.stderr, 2 * options.time_budget_s + 2) as shown:
            measure(missing(jobs, _records(results)), shown)
        whole = all(result.record.measured for result in results)
    records = _records(results)
    tables = [summary_table(records), cards_table(records), scaling_table(records)]
    print("\n\n".join(filter(None, tables)))
    print(f"\n{kept(run_file)}")
    if (elsewhere := len(records) - run_file.rows) and options.cluster:
        print(f"{elsewhere} more over the cluster, kept by {options.cluster.addresses[0]}")
    return whole


def _jobs(planned: _Planned, options: Options) -> list[Job]:
    """Return the jobs, each at its place in the whole plan."""
    jobs = plan(planned.whole, options.processes, options.seed, seeds=options.seeds)
    mine = set(planned.cases)
    return [job for job in jobs if job.case in mine]


def _records(results: Sequence[Result]) -> list[Record]:
    return [result.record for result in results]


def _describe(planned: _Planned, options: Options, run_file: RunFile) -> None:
    """Keep each model's layers, as the first of the backends builds them."""
    backend = options.backends[0]
    models = [case.model for case in planned.cases]
    folder = run_file.path.parent
    describe_models(
        models,
        planned.interpreters,
        options.seed,
        folder,
        backend=backend,
        input_shape=options.input_shape,
    )


def _search(
    cases: Sequence[Case],
    measure: Callable[[Sequence[Job], Observer], None],
    options: Options,
    results: Sequence[Result],
) -> bool:
    """Find each case's batch sizes; return whether there is one, and all its processes are well."""
    choices = find_sizes(
        cases,
        measure,
        options,
        results,
        say=_say,
        progress=lambda: progress.on(sys.stderr, 2 * options.time_budget_s + 2),
    )
    records = _records(results)
    print(f"{choices_table(choices, records)}\n")
    failed = {row.case for row in records if not row.measured}
    return all(choice.whole for choice in choices) and not failed & set(chosen_cases(choices))
