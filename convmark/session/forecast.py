"""What a run would measure and how long it would take, with nothing started: `--dry-run`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from convmark.core.case import Case
from convmark.core.cluster import check_devices
from convmark.core.option_values import AUTO
from convmark.core.options import Options
from convmark.core.suites import auto_name
from convmark.core.table import Table, heading, table_of
from convmark.core.tasks import TIMED_TASKS
from convmark.core.text import duration_text
from convmark.interpreter.environments.cache import interpreter_path
from convmark.interpreter.environments.installer import wanted
from convmark.interpreter.inspection import devices_asked_for
from convmark.machine.gpu.visible import visible_cards
from convmark.machine.hardware import Machine
from convmark.session.facts import plan
from convmark.session.fleet.part import expected_s, known_seconds

__all__ = ["Forecast", "forecast", "likely_devices"]

ROWS, BUDGET = "earlier rows", "time budget"


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The cases of a plan with their estimated times."""

    table: Table
    words: str
    """How many processes in which time, and what the estimate rests on."""


def likely_devices(options: Options, machine: Machine, environ: Mapping[str, str]) -> list[str]:
    """Return the devices of a plan, known without the framework: the driver's word for `all`."""
    devices: list[str] = []
    for device in options.devices:
        devices += _there(machine, environ) if device == "all" else [device]
    return list(dict.fromkeys(devices))


def _there(machine: Machine, environ: Mapping[str, str]) -> list[str]:
    """Return the devices of this machine, as its driver shows them."""
    seen = visible_cards(machine.gpus, environ)
    return ["cpu", *(f"gpu:{place}" for place in range(len(seen)))]


def _refuse(
    cases: Sequence[Case], options: Options, machine: Machine, environ: Mapping[str, str]
) -> None:
    """Refuse what the run would refuse, as far as that is known with nothing started."""
    found = _there(machine, environ)
    devices_asked_for(options.devices, found)
    check_devices(cases, {case.backend: found for case in cases})
    for text in options.pythons:
        interpreter_path("--python", text)
    for text in options.environments:
        wanted("--env", text)


def forecast(
    cases: Sequence[Case], options: Options, machine: Machine, environ: Mapping[str, str]
) -> Forecast:
    """Return what would be measured, in the order of the plan.

    The machine's earlier runs tell how long a process takes.

    Raises:
        OptionError: a device or an interpreter is not there.
        StoreError: a file of earlier rows does not fit.
    """
    _refuse(cases, options, machine, environ)
    runs = options.results / machine.name
    known = known_seconds([runs]) if any(runs.glob("*.csv")) else {}
    jobs = plan(cases, options.processes, options.seed, seeds=options.seeds)
    searched = options.batch_sizes == AUTO
    records, total_s, unknown = [], 0.0, 0
    for case in dict.fromkeys(job.case for job in jobs):
        count = sum(job.case == case for job in jobs)
        timed = case.task in TIMED_TASKS and not searched
        seconds = expected_s(case, options.time_budget_s, known) if timed else None
        total_s += count * (seconds or 0.0)
        unknown += 0 if timed else count
        source = ROWS if case.name in known else BUDGET
        records.append(
            {
                "case": auto_name(case) if searched else case.name,
                "processes": None if searched else count,
                "seconds": seconds,
                "from": source if timed else None,
            }
        )
    headings = [
        heading("case", "case"),
        heading("processes", "processes", "count"),
        heading("seconds", "each", "seconds"),
        heading("from", "estimated from"),
    ]
    table = table_of("forecast", "What would be measured", "", headings, records, keep=["case"])
    told = sum(record["from"] == ROWS for record in records)
    basis = f"from earlier rows in {runs} for {_count(told, 'case')}, else " * bool(told)
    if searched:
        words = ", whose batch sizes a search finds; its processes and time cannot be estimated"
    elif unknown == len(jobs):
        words = f", {len(jobs)} processes, whose time cannot be estimated"
    else:
        words = f", {len(jobs)} processes, about {duration_text(total_s)}"
        if unknown:
            words += f" and the time of {unknown} processes that cannot be estimated"
        words += f" (estimated {basis}from the time budget)"
    return Forecast(
        table=table,
        words=f"{_count(len(records), 'case')}{words}; nothing was started, and the names of "
        "models are not checked",
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
