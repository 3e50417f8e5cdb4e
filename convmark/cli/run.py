"""`convmark run`: measure the selected cases in one interpreter or several."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from convmark.cli.command import exit_status, sayer
from convmark.core.backends import DEFAULT_BACKEND
from convmark.core.case import Case
from convmark.core.errors import OptionError, StoreError
from convmark.core.files import write_whole, writing
from convmark.core.fitting import tell
from convmark.core.option_values import AUTO, Shapes
from convmark.core.options import Options
from convmark.core.suites import (
    cases,
    refuse_latency_limit,
    refuse_replicas,
    refuse_runtimes,
    refuse_untimed,
)
from convmark.core.table import Table, plain
from convmark.core.text import counted, duration_text, painted
from convmark.interpreter.environments import interpreters
from convmark.machine.doctor import left_out_gpus
from convmark.machine.hardware import Machine, read_machine
from convmark.machine.state import bound
from convmark.report.advice import next_step, say_step
from convmark.report.describe import DESCRIPTION_SCHEMA, description_path, diagram, layers_of
from convmark.report.summary import run_tables, summary_text
from convmark.report.tables import Answer, check_form, print_tables
from convmark.report.tables.layers import TOP, bars_words, layers_table
from convmark.results.reading import StoreWarning
from convmark.results.store import Store
from convmark.session.auto_batch import choices_table
from convmark.session.expected import expected_s
from convmark.session.fleet.part import (
    Part,
    Shard,
    part_path,
    plan_name,
    read_shard,
    split,
    write_part,
)
from convmark.session.forecast import forecast, known_seconds, likely_devices
from convmark.session.resume import InterruptedRun, open_interrupted
from convmark.session.run import Serving
from convmark.session.session import Session, claimed

_say = sayer("convmark run")

TEXT = "text"


def run(given: argparse.Namespace, options: Options) -> int:
    """Measure, print each run's summary and where its rows are; return the exit status."""
    if given.ray is not None:
        from convmark.cli.fleet import run_on_cluster

        return run_on_cluster(given, options)
    shard, form = _shard(given), check_form(given.format)
    places = [Path(place) for place in given.shard_times]
    known_s = known_seconds(places, options.time_budget_s) if shard else {}
    check_plan(options, shard)
    store = Store(options.results)
    machine = read_machine()
    if given.dry_run:
        return _dry_run(given, options, machine, form)
    store.check_writable()
    whole = True
    with claimed(options, _say) as preflight, contextlib.ExitStack() as stack:
        paths = interpreters(options.pythons, options.environments, say=_say) or [sys.executable]
        earlier = None
        if given.resume is not None:
            _check_resume(options, paths)
            earlier = open_interrupted(store, machine.name, given.resume)
            stack.callback(earlier.run_file.close)
        sessions = [Session(options, machine, _say, python=path) for path in paths]
        for session in sessions:
            stack.enter_context(session)
            if earlier:
                session.refuse_other(earlier)
            here = session.interpreters.python == sys.executable
            if not (earlier and here and session.take_whole(earlier)):
                session.take(session.default_cases())
        notes = [*preflight.lines(machine), *left_out(sessions)]
        parts = [
            _take_part(session, shard, known_s, number) if shard else None
            for number, session in enumerate(sessions)
        ]
        for number, (session, part) in enumerate(zip(sessions, parts, strict=True)):
            if len(sessions) > 1 and form == TEXT:
                print(f"{chr(10) * (number > 0)}{session.interpreters.python}")
            if session.cases:
                first = () if number else notes
                _measure(
                    *(session, earlier, part),
                    describe=given.describe,
                    notes=first,
                    form=form,
                    quiet=given.quiet,
                )
                whole = whole and session.whole and not session.lacks_layers
            if session.interrupted:
                _say_resume(session, several=len(sessions) > 1)
                return exit_status(False, interrupted=True)
    if form != TEXT:
        tables: list[Table] = []
        for session in sessions:
            tables += run_tables(session.records)
            tables += [layers_table(rows) for rows in session.layers_shown]
        found = Answer(command="run", machines=[machine.name], tables=tables, several=True)
        print_tables(found, form)
    return exit_status(whole)


def _dry_run(given: argparse.Namespace, options: Options, machine: Machine, form: str) -> int:
    """Print what would be measured and how long it would take; start nothing."""
    for flag, value in (("--shard", given.shard), ("--resume", given.resume)):
        if value is not None:
            raise OptionError(f"--dry-run: must not be given with {flag}")
    bound(options.bound_to)  # refuses CPUs that are not there
    devices = likely_devices(options, machine, os.environ)
    asked = cases(options, dict.fromkeys(options.backends, devices), _say)
    found = forecast(asked, options, machine, os.environ)
    planned = Answer(command="run", machines=[machine.name], tables=[found.table])
    print_tables(planned, form)
    sides = len({*options.pythons, *options.environments})
    each = f"in each of {counted(sides, 'interpreter')}: " if sides > 1 else ""
    tell(f"{chr(10) * (form == TEXT)}{each}{found.words}", stream=sys.stderr)
    return exit_status(True)


def _shard(given: argparse.Namespace) -> Shard | None:
    """Return the part of the plan that is asked for; None for the whole."""
    for flag, value in (("--per", given.per), ("--nodes", given.nodes)):
        if value not in (None, []):
            raise OptionError(f"{flag}: must be given with --ray ADDRESS")
    if given.shard_times and given.shard is None:
        raise OptionError("--shard-times: must be given with --shard K/N")
    return None if given.shard is None else read_shard(given.shard)


def check_plan(options: Options, shard: Shard | None = None) -> None:
    """Refuse what a shard, a search for batch sizes, or replicas cannot be of."""
    if shard and options.batch_sizes == AUTO:
        raise OptionError("--shard: needs --batch-sizes in numbers, got auto")
    if shard:
        refuse_untimed(options, "--shard shares out")
    if shard and options.cluster and options.cluster.addresses:
        raise OptionError("--shard: must not be given with machines of a --cluster")
    if options.batch_sizes == AUTO:
        refuse_untimed(options, "--batch-sizes auto searches for")
    refuse_latency_limit(options)
    refuse_replicas(options)
    refuse_runtimes(options)


def _check_resume(options: Options, paths: Sequence[str]) -> None:
    """Refuse to go on where it is not one run of one machine, in one interpreter."""
    if options.cluster and options.cluster.addresses:
        raise OptionError(
            "--resume: not possible with several machines, "
            f"got --cluster {','.join(options.cluster.addresses)}; start a new run"
        )
    if len(paths) > 1:
        raise OptionError(
            f"--resume: continues one run, in one interpreter, got {', '.join(paths)}"
        )


def _say_resume(session: Session, *, several: bool) -> None:
    """Say how an interrupted run continues, where `_check_resume` lets it."""
    rows = session.run_file.rows if session.run_file else 0
    cluster = session.options.cluster
    if rows and not several and not (cluster and cluster.addresses):
        _say("the same command with --resume continues")


def left_out(sessions: Sequence[Session]) -> list[str]:
    """Say which GPUs are not among all devices, though the driver shows them."""
    lines: dict[str, None] = {}
    for session in sessions:
        if "all" in session.options.devices:
            for found in session.found.values():
                lines |= dict.fromkeys(left_out_gpus(session.machine, found, os.environ))
    return list(lines)


def _take_part(session: Session, shard: Shard, known_s: Mapping[str, float], number: int) -> Part:
    """Reduce the session's cases to the shard's part, print what it is and return it."""
    options = session.options

    def seconds(case: Case) -> float:
        return options.processes * expected_s(case, options.time_budget_s, known_s)

    shards = split(session.plan_cases, seconds, shard.count)
    session.cases = list(shards[shard.number - 1])
    name = plan_name(
        shards,
        processes=options.processes,
        seed=options.seed,
        time_budget_s=options.time_budget_s,
        where=f"{number} {' '.join([*options.pythons, *options.environments])}",
    )
    about = f"about {duration_text(sum(map(seconds, session.cases)))}"
    count = f"{len(session.cases)} of {counted(len(session.plan_cases), 'case')}"
    _say(f"shard {shard} of plan {name}: {count}, {about if session.cases else 'nothing to do'}")
    return Part(
        plan=name,
        count=shard.count,
        numbers=(shard.number,),
        processes=options.processes,
        shards=tuple(shards),
    )


def _measure(
    session: Session,
    earlier: InterruptedRun | None,
    part: Part | None,
    *,
    describe: bool,
    notes: Sequence[str],
    form: str,
    quiet: bool,
) -> None:
    """Measure a session's cases and print them; an interrupt is said and ends it.

    Args:
        notes: what disturbs the machine, said once nothing is left to be refused.
    """
    printed = False
    try:
        run_file = session.open(earlier)
        if part:
            write_part(run_file.path, part)
        session.measure(None if quiet else sys.stderr, notes)
        if form == TEXT:
            _print(session)
            printed = True
        else:
            _say(session.kept)
        searched = bool(session.choices) and session.whole
        say_step(next_step(session.records, session.options, searched=searched, quiet=quiet), _say)
        if describe:
            _describe(session)
        if session.options.layers:
            _measure_layers(session, form)
    except KeyboardInterrupt:
        session.interrupted = True
        _say(session.kept)
    except StoreError:
        if form == TEXT and not printed and session.results:
            _print(session)  # what was measured before there was no room
        raise
    finally:
        session.close()
        if session.run_file is not None and not session.run_file.rows:
            part_path(session.run_file.path).unlink(missing_ok=True)


def _print(session: Session) -> None:
    records = session.records
    tables = [choices_table(session.choices, records)] if session.choices else []
    print(painted("\n\n".join([*tables, summary_text(records)]), sys.stdout, os.environ))
    tell(f"\n{session.kept}")
    cluster, kept = session.options.cluster, session.run_file.rows if session.run_file else 0
    if (elsewhere := len(records) - kept) and cluster:
        tell(f"{elsewhere} more over the cluster, kept by {cluster.addresses[0]}")


def _measure_layers(session: Session, form: str) -> None:
    """Measure the layers of the run's cases, and keep each case's bars; print the slowest."""
    for rows in session.layers_of_run():
        session.layers_shown.append(rows)
        if form == TEXT:
            print(f"\n{painted(plain(layers_table(rows, TOP)), sys.stdout, os.environ)}")
        if rows[0].case not in session.layers_unkept:
            drawn = bars_words(session.layers_path.parent, rows)
            _say(f"{counted(len(rows), 'row')} in {session.layers_path}, {drawn}")


def _describe(session: Session) -> None:
    """Keep each model's layers, as the first of the backends builds them."""
    assert session.run_file is not None
    describe_models(
        [case.model for case in session.cases],
        session.interpreters,
        session.options.seed,
        session.run_file.path.parent,
        backend=session.options.backends[0],
        input_shape=session.options.input_shape,
        cpus=session.options.bound_to,
    )


def describe_models(
    models: Sequence[str],
    interpreter: Serving,
    seed: int,
    machine_folder: Path,
    *,
    backend: str = DEFAULT_BACKEND,
    input_shape: Shapes | None = None,
    cpus: str | None = None,
) -> list[Path]:
    """Describe each model in a fresh process; return the files written, JSON and SVG.

    A model that cannot be described is left out with a `StoreWarning`, and so is one whose files
    cannot be written.
    """
    written = []
    for model in dict.fromkeys(models):
        case = Case(model=model, task="infer", backend=backend, cpus=cpus)
        request = {"kind": "describe", "case": case.as_fields(), "seed": seed}
        if input_shape:
            request["input_shapes"] = dict(input_shape)
        answer = interpreter.answer(request)
        described, built = answer.event("described"), answer.event("built")
        environment = answer.event("environment")
        if answer.status != "ok" or None in (described, built, environment):
            reason = answer.message or answer.status
            warnings.warn(f"{model}: is not described: {reason}", StoreWarning, stacklevel=2)
            continue
        value = {**(built or {}), **(environment or {}), **(described or {}), "model": model}
        try:
            written += _keep_description(description_path(machine_folder, value["model"]), value)
        except StoreError as error:
            warnings.warn(f"{model}: its description: {error}", StoreWarning, stacklevel=2)
    return written


def _keep_description(path: Path, value: dict[str, Any]) -> list[Path]:
    folder, paths = path.parent, [path, path.with_suffix(".svg")]
    facts = {key: value[key] for key in value if key not in ("event", "layers")}
    text = json.dumps({"schema": DESCRIPTION_SCHEMA, **facts, "layers": value["layers"]}, indent=1)
    with writing(f"{folder}:"):
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(paths[0], f"{text}\n".encode())
        drawn = diagram(value["model"], layers_of(value["layers"]))
        write_whole(paths[1], f"{drawn}\n".encode())
    return paths
