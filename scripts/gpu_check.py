"""What scripts/gpu_check runs: checks one device from end to end.

Its fingerprint, the proofs of its instruments, its ceilings, then the usual rows of a few models.
An instrument tells the truth where a step's sync waits for the device, the allocator's peak grows
by what is allocated, and the energy counter agrees with the power that was sampled.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from convmark.cli.command import EXIT_INTERRUPTED, EXIT_USAGE, exit_status
from convmark.core.backends import BACKENDS, DEFAULT_BACKEND
from convmark.core.case import PRECISIONS, Case
from convmark.core.errors import ConvmarkError, WorkerError
from convmark.core.fitting import wrapped
from convmark.core.options import OPTIONS, Options, read
from convmark.core.table import headings, printed
from convmark.core.tasks import TIMED_TASKS
from convmark.core.text import Say, bytes_text, seconds_text
from convmark.interpreter import Answer, Interpreter
from convmark.interpreter.inspection import devices_asked_for, inspect
from convmark.machine.cautions import cautions, speed_flags
from convmark.machine.doctor import findings, findings_text
from convmark.machine.gpu.cards import watching
from convmark.machine.hardware import Machine, read_machine
from convmark.machine.state import limiting_quota, read_state
from convmark.report.summary import summary_text
from convmark.results.record import Record
from convmark.results.store import Store
from convmark.session.ceilings import (
    Ceiling,
    Key,
    Under,
    WatchOf,
    ceiling_of,
    ceiling_request,
    ceilings_path,
    conditions,
    gather,
    key_of,
    unknown,
)
from convmark.session.progress import RunProgress
from convmark.session.session import Session, claimed

LIMIT_S = 360.0
SILENCE_S = 120.0
"""The last process begins within six minutes and is ended after two silent ones: eight in all."""

MIB = 2**20
QUICK_SIZES = 2
"""Of the sizes of a ceiling's matrices and copies, the smallest."""


LEAST_SYNC_SHARE = 0.8
"""A step that waits for the device takes no less than a step of many with one sync at the end; the
rest is noise."""
ALLOCATION_SHARE = 0.02
ENERGY_SHARE = 0.25
"""Counter and power are renewed at different times, and the power is of steps and rounds too."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a device; return 0 where it is sound, 1 where not, 2 where it cannot be checked."""
    given = _parser().parse_args(arguments)
    backend = given.backend or installed_backend()
    try:
        options = read(
            {
                "results": given.results,
                "wait": given.wait,
                "allow_concurrent": given.allow_concurrent,
                "processes": "1",
                "time_budget": "0.2" if given.quick else None,
                "time_limit": str(SILENCE_S),
            }
        )
        return exit_status(check(_asked(given, backend), options, _say))
    except ConvmarkError as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("gpu_check: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def installed_backend() -> str:
    """Return the first of the frameworks that is installed here, TensorFlow where none is."""
    there = (name for name in BACKENDS if importlib.util.find_spec(name) is not None)
    return next(there, DEFAULT_BACKEND)


def _asked(given: argparse.Namespace, backend: str) -> DeviceCheck:
    on_gpu = given.device != "cpu"
    return DeviceCheck(
        device=given.device,
        backend=backend,
        models=("lenet5",) if given.quick else ("lenet5", "mini_resnet", "resnet50"),
        precisions=("float32", "mixed_float16") if on_gpu and not given.quick else ("float32",),
        ceiling_precisions=tuple(name for name in PRECISIONS if on_gpu or name != "tf32"),
        ceiling_sizes=QUICK_SIZES if given.quick else None,
        batch_size=32,
        known_bytes=(8 if given.quick else 256) * MIB,
        limit_s=LIMIT_S,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpu_check",
        description="Check one device: fingerprint, the instruments, and the rows of three models.",
        allow_abbrev=False,
    )
    parser.add_argument("--device", default="gpu:0", help="gpu:N or cpu (default: gpu:0)")
    parser.add_argument("--backend", choices=BACKENDS, help="default: the first that is installed")
    parser.add_argument("--results", default="results", help="folder of the CSV (default: results)")
    for option in OPTIONS:
        if option.name in ("wait", "allow-concurrent"):
            option.add_to(parser.add_argument)
    parser.add_argument(
        "--quick", action="store_true", help="a short check: only LeNet-5 and small ceilings"
    )
    return parser


def _say(line: str) -> None:
    print(line, flush=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCheck:
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

    def case(self, model: str, task: str, precision: str = "float32") -> Case:
        """Return a case of this device, batch size and backend."""
        return Case(
            model=model,
            task=task,
            device=self.device,
            batch_size=self.batch_size,
            precision=precision,
            backend=self.backend,
        )

    @property
    def cases(self) -> list[Case]:
        """Return each model with each timed task and precision."""
        return [
            self.case(model, task, precision)
            for model in self.models
            for task in TIMED_TASKS
            for precision in self.precisions
        ]


def check(asked: DeviceCheck, options: Options, say: Say = print) -> bool:
    """Check the device, print all that was found, and return whether all of it is sound."""
    until = time.monotonic() + asked.limit_s
    Store(options.results).check_writable()
    machine = read_machine()
    session = Session(options, machine, say, backends=[asked.backend])
    with claimed(options, say), session:
        interpreter = session.interpreters.of(asked.backend)
        found = inspect(interpreter, asked.models, explain=True)
        session.found = {asked.backend: found}
        say(_found(machine, {**found, "backend": asked.backend}, options))
        devices_asked_for([asked.device], found["devices"], flag="--device")
        proofs = instrument_proofs(_probed(asked, options, interpreter))
        ceilings = measured_ceilings(
            [asked.case("lenet5", "train", name) for name in asked.ceiling_precisions],
            interpreter.answer,
            ceilings_path(options.results, machine.name),
            sizes=asked.ceiling_sizes,
            say=say,
            quota=limiting_quota(machine.cores),
            under=conditions(machine, os.environ),
            watch=session.watch,
        )
        say(f"\n{ceilings_table(ceilings.values())}\n")
        session.take(asked.cases)
        session.open()
        if asked.ceiling_sizes is None:
            session.facts = replace(session.facts, ceilings=ceilings)
        _measure(session, until)
    records = session.records
    proofs += [proof for record in records if (proof := energy_proof(record)) is not None]
    say(_report(records, proofs))
    return bool(records) and session.whole and all(proof.sound is not False for proof in proofs)


def _found(machine: Machine, framework: dict[str, Any], options: Options) -> str:
    state = read_state()
    found = findings(
        machine,
        state,
        cautions(machine, state, os.environ),
        framework,
        options.results,
        flags=speed_flags(os.environ),
        environ=os.environ,
    )
    return findings_text(found)


def _probed(asked: DeviceCheck, options: Options, interpreter: Interpreter) -> dict[str, Any]:
    """Return the case and the events of a process that proves the instruments."""
    request: dict[str, Any] = {
        "kind": "probe",
        # the largest: its step must outlast its call for the sync to show
        "case": asked.case(asked.models[-1], "train").as_fields(),
        "seed": options.seed,
        "known_bytes": asked.known_bytes,
    }
    answer = interpreter.answer(request)
    if answer.status != "ok":
        raise WorkerError(f"{asked.device}: the instruments cannot be checked: {answer.message}")
    return {"case": request["case"], **{event["event"]: event for event in answer.events}}


def measured_ceilings(
    cases: Sequence[Case],
    ask: Callable[..., Answer],
    path: Path,
    *,
    sizes: int | None,
    say: Say,
    quota: float | None = None,
    under: Under = unknown,
    watch: WatchOf = lambda case: watching(()),
) -> dict[Key, Ceiling]:
    """Return the ceilings of the cases' device and precisions, as far as it has them.

    Args:
        path: where ceilings are kept; those there are not measured again.
        sizes: how many sizes are tried; such a look is neither kept nor taken from what is.
        quota, under, watch: as for `gather`.
    """
    if sizes is None:
        known = gather(
            *(cases, ask, path), which="on", say=say, quota=quota, under=under, watch=watch
        )
        return {key_of(case): known[key_of(case)] for case in cases if key_of(case) in known}
    found = {}
    for case in cases:
        answer = ask(ceiling_request(case, sizes=sizes))
        ceiling = ceiling_of(case, answer, datetime.now(timezone.utc))
        if ceiling is None:
            say(f"no ceilings of {case.device} in {case.precision}: {answer.message}")
        else:
            found[key_of(case)] = ceiling
    return found


def ceilings_table(ceilings: Iterable[Ceiling]) -> str:
    """Return one line per precision: the best rates, and the sizes that reached them."""
    records = [
        {**asdict(one), "matrices": f"{one.matrix_size} x {one.matrix_size}"} for one in ceilings
    ]
    columns = headings(
        "precision peak_flops_per_s matrices peak_bytes_per_s copy_bytes",
        precision="ceilings in",
        peak_flops_per_s=("FLOP/s", "flops_rate"),
        peak_bytes_per_s=("bytes/s", "bytes"),
        copy_bytes=("copy", "bytes"),
    )
    return printed(columns, records) if records else "no ceilings known"


def _measure(session: Session, until: float) -> None:
    """Measure every case in fresh processes until the limit, and say which were left out."""
    left: list[str] = []
    jobs = session.jobs()
    try:
        for job in jobs:
            if time.monotonic() > until:
                left.append(job.case.name)
                continue
            session.say(f"{job.order} of {len(jobs)}: {job.case.name}")
            session.execute([job], RunProgress(None))
        if left:
            session.say(f"left out because the time was up: {', '.join(left)}")
    finally:
        session.say(f"\n{wrapped(session.kept)}\n")


def _report(records: Sequence[Record], proofs: Sequence[Proof]) -> str:
    sections = [summary_text(records)]
    words = {True: "sound", False: "NOT SOUND", None: "not told"}
    columns = headings("subject sound finding", subject="instrument", sound="")
    table = [
        {"subject": one.subject, "sound": words[one.sound], "finding": one.finding}
        for one in proofs
    ]
    sections.append(printed(columns, table, drop_empty=False))
    return "\n\n".join(sections)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """One instrument, what was read, and whether it can be trusted; None where it does not tell."""

    subject: str
    finding: str
    sound: bool | None


def instrument_proofs(events: Mapping[str, Mapping[str, Any]]) -> list[Proof]:
    """Return what the probe's events, with its case, prove of the sync and of the peak."""
    times = events["synchronised"]
    allocation = events["allocation"]
    asked, held = allocation["asked_bytes"], allocation["held_bytes"]
    return [
        Proof(
            subject="sync",
            finding=f"{events['case']['model']} training step "
            f"{seconds_text(times['synchronised_s'])} synchronised, "
            f"{seconds_text(times['unsynchronised_s'])} not, "
            f"{seconds_text(times['window_s'])} in a window",
            sound=times["synchronised_s"] >= LEAST_SYNC_SHARE * times["window_s"],
        ),
        Proof(
            subject="peak memory",
            finding=f"{bytes_text(asked)} allocated, "
            + (f"peak grew by {bytes_text(held)}" if held is not None else "no peak is counted"),
            sound=None if held is None else abs(held - asked) <= ALLOCATION_SHARE * asked,
        ),
    ]


def energy_proof(record: Record) -> Proof | None:
    """Return whether the row's energy and power agree; None where it has not both."""
    energy, rate, power_w = (
        record.joules_per_sample,
        record.throughput_samples_per_s,
        record.power_w,
    )
    if energy is None or rate is None or not power_w:
        return None
    return Proof(
        subject="energy",
        finding=f"{record.case.name}: {energy * rate:.1f} W by the counter, "
        f"{power_w:.1f} W by samples of the power",
        sound=abs(energy * rate / power_w - 1) <= ENERGY_SHARE,
    )
