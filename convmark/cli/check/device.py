"""A device's fingerprint, the proofs of its instruments, then the usual rows of a few models."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convmark.cli.check.ceilings import ceilings_table, measured_ceilings
from convmark.cli.check.proofs import Proof, energy_proof, instrument_proofs
from convmark.core.case import Case
from convmark.core.errors import WorkerError
from convmark.core.options import Options
from convmark.core.table import heading, printed
from convmark.interpreter import Interpreter
from convmark.interpreter.inspection import devices_asked_for, inspect
from convmark.machine.cautions import cautions, speed_flags
from convmark.machine.doctor import findings
from convmark.machine.environment import Machine, read_machine, read_state
from convmark.machine.lock import alone
from convmark.report.summary import cards_table, summary_table
from convmark.results.commit import read_commit
from convmark.results.record import Record
from convmark.results.store import Store
from convmark.session import progress
from convmark.session.ceilings import Ceiling, Key, ceilings_path
from convmark.session.facts import Facts, facts_of
from convmark.session.plan import plan
from convmark.session.result import Result
from convmark.session.run import execute, kept

__all__ = ["Plan", "check"]

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be checked."""

    device: str
    backend: str
    models: tuple[str, ...]
    precisions: tuple[str, ...]
    ceiling_precisions: tuple[str, ...]
    ceiling_sizes: int | None
    """How many sizes are tried for a ceiling; all where it is kept."""
    batch_size: int
    known_bytes: int
    """Size of the batch that proves the allocator's peak."""
    limit_s: float
    """No process is started once so many seconds have passed."""


def check(asked: Plan, options: Options, say: Say = print) -> bool:
    """Check the device, print all that was found, and return whether all of it is sound.

    Raises:
        ConvmarkError: the framework, the device or the results folder is not to be had.
    """
    began = time.monotonic()
    store = Store(options.results)
    store.check_writable()
    machine = read_machine()
    with (
        alone(wait=options.wait, concurrent=options.allow_concurrent, say=say),
        Interpreter(
            isolation=options.isolation, backend=asked.backend, time_limit_s=options.time_limit_s
        ) as interpreter,
    ):
        found = inspect(interpreter, asked.models, explain=True)
        say(_found(machine, {**found, "backend": asked.backend}, options))
        devices_asked_for([asked.device], found["devices"], flag="--device")
        proofs = instrument_proofs(_probed(asked, options, interpreter))
        ceilings = measured_ceilings(
            [_case(asked, "lenet5", "train", name) for name in asked.ceiling_precisions],
            interpreter.answer,
            ceilings_path(options.results, machine.name),
            sizes=asked.ceiling_sizes,
            say=say,
        )
        say(f"\n{ceilings_table(ceilings.values())}\n")
        kept_ones = ceilings if asked.ceiling_sizes is None else {}
        records = _measured(asked, options, interpreter, machine, store, kept_ones, began, say)
    proofs += [proof for record in records if (proof := energy_proof(record)) is not None]
    say(_report(records, proofs))
    whole = bool(records) and all(record.measured for record in records)
    return whole and all(proof.sound is not False for proof in proofs)


def _found(machine: Machine, framework: dict[str, Any], options: Options) -> str:
    state = read_state()
    return findings(
        machine,
        state,
        cautions(machine, state, os.environ),
        framework,
        options.results,
        flags=speed_flags(os.environ),
        environ=os.environ,
    )


def _case(asked: Plan, model: str, task: str, precision: str = "float32") -> Case:
    return Case(
        model=model,
        task=task,
        device=asked.device,
        batch_size=asked.batch_size,
        precision=precision,
        backend=asked.backend,
    )


def _probed(asked: Plan, options: Options, interpreter: Interpreter) -> dict[str, Any]:
    """Return the case and the events of a process that proves the instruments.

    Raises:
        WorkerError: it failed.
    """
    request: dict[str, Any] = {
        "kind": "probe",
        # the largest: its step must outlast its call for the sync to show
        "case": _case(asked, asked.models[-1], "train").as_fields(),
        "seed": options.seed,
        "known_bytes": asked.known_bytes,
    }
    answer = interpreter.answer(request)
    if answer.status != "ok":
        raise WorkerError(f"{asked.device}: the instruments cannot be proved: {answer.message}")
    return {"case": request["case"], **{event["event"]: event for event in answer.events}}


def _measured(
    asked: Plan,
    options: Options,
    interpreter: Interpreter,
    machine: Machine,
    store: Store,
    ceilings: Mapping[Key, Ceiling],
    began: float,
    say: Say,
) -> list[Record]:
    """Measure every case in fresh processes until the limit; return the rows."""
    grid = [
        _case(asked, model, task, precision)
        for model in asked.models
        for task in ("train", "infer")
        for precision in asked.precisions
    ]
    run_file = store.create_run(machine.name)
    commit = read_commit(Path.cwd(), besides=[options.results.absolute()])
    facts: Facts = facts_of(run_file.run, machine, commit, os.environ, ceilings)
    results: list[Result] = []
    left: list[str] = []
    try:
        for job in plan(grid, options.processes, options.seed):
            if time.monotonic() - began > asked.limit_s:
                left.append(job.case.name)
                continue
            say(f"{job.order} of {options.processes * len(grid)}: {job.case.name}")
            execute(
                [job],
                interpreter,
                options,
                facts,
                run_file,
                progress.Silence(),
                keep=results.append,
            )
    finally:
        run_file.close()
    if left:
        say(f"left out, for the time was up: {', '.join(left)}")
    say(f"\n{kept(run_file)}\n")
    return [result.record for result in results]


def _report(records: Sequence[Record], proofs: Sequence[Proof]) -> str:
    sections = [summary_table(records), *filter(None, [cards_table(records)])]
    words = {True: "sound", False: "NOT SOUND", None: "not told"}
    headings = [
        heading("subject", "instrument"),
        heading("sound", ""),
        heading("finding", "finding"),
    ]
    table = [
        {"subject": one.subject, "sound": words[one.sound], "finding": one.finding}
        for one in proofs
    ]
    sections.append(printed(headings, table, drop_empty=False))
    return "\n\n".join(sections)
