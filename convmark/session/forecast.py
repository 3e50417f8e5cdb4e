"""What a run would measure and how long it would take, with nothing started: `--dry-run`.

A process takes as long as earlier rows tell, or a guess by the time budget and published figures.
Parts of a plan are balanced by the same guess: every machine that takes a part must come to the
same figures, so nothing of the machine goes into it.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from convmark.core.case import Case
from convmark.core.cluster import check_devices
from convmark.core.errors import OptionError, StoreError
from convmark.core.option_values import AUTO
from convmark.core.options import Options
from convmark.core.statistics import grouped
from convmark.core.suites import auto_name
from convmark.core.table import Table, headings, table_of
from convmark.core.tasks import TIMED_TASKS
from convmark.core.text import counted, duration_text, listed
from convmark.interpreter.environments import interpreter_path
from convmark.interpreter.inspection import devices_asked_for, refuse_unknown
from convmark.interpreter.installer import wanted
from convmark.machine.gpu.cards import visible_cards
from convmark.machine.hardware import Machine
from convmark.machine.state import limiting_quota
from convmark.results.reading import RUN_NAME, read_run
from convmark.results.record import Record, utc_of
from convmark.results.store import run_files
from convmark.session.ceilings import ceilings_path, conditions, missing, read_ceilings
from convmark.session.expected import (
    CEILING_S,
    FEWEST_STEPS,
    LARGE,
    SMALL,
    after_s,
    as_large_as,
    expected_s,
    is_guess,
    load_slowdown,
    run_start_s,
    sizes_of,
)
from convmark.session.facts import plan
from convmark.session.layers import SESSION_SECONDS, why_no_layers

MOST_PAUSE_S = 10.0
"""Between two processes of a run; in more a run was interrupted."""

_RECENT = 5
"""Runs: all those of years take longer to read than an estimate is worth."""

SESSION_OVER_PROCESS = 1.4
"""Seconds of a session of a live comparison / those of a process that measures the case, with what
lies between two: 1.2 to 1.6 in recorded gates."""

SESSIONS_UNCHANGED, SESSIONS_CHANGED = 2.7, 12.0
"""Of a case until it is decided, where its step time is as before and where it is not: 2.3 to 3.0,
and 4 to 12 with three that check the verdict in separate processes, in recorded gates."""

ROWS, BUDGET = "earlier rows", "time budget"


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The cases of a plan with their estimated times."""

    table: Table
    words: str
    """How many processes in which time, and what the estimate rests on."""
    comparison: str
    """How long a live comparison of all cases takes."""


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


def check_layers(cases: Iterable[Case], options: Options) -> None:
    """Refuse `--layers` where no case has any."""
    reasons = [why_no_layers(case) for case in cases] if options.layers else []
    if reasons and all(reasons):
        raise OptionError(f"--layers: no case has layers: {reasons[0]}")


def _refuse(
    cases: Sequence[Case], options: Options, machine: Machine, environ: Mapping[str, str]
) -> None:
    """Refuse what the run would refuse, as far as that is known with nothing started."""
    found = _there(machine, environ)
    refuse_unknown((case.model for case in cases), elsewhere=options.is_elsewhere)
    devices_asked_for(options.devices, found)
    check_devices(cases, {case.backend: found for case in cases})
    check_layers(cases, options)
    for text in options.pythons:
        interpreter_path("--python", text)
    for text in options.environments:
        wanted("--env", text)


def forecast(
    cases: Sequence[Case], options: Options, machine: Machine, environ: Mapping[str, str]
) -> Forecast:
    """Return what would be measured, in the order of the plan.

    The machine's earlier runs tell how long a process takes.
    """
    _refuse(cases, options, machine, environ)
    runs = options.results / machine.name
    known, sizes = recent(runs, options.time_budget_s)
    slowdown = load_slowdown(machine.cores)
    each_s = functools.partial(
        expected_s,
        time_budget_s=options.time_budget_s,
        known=known,
        sizes=sizes,
        slowdown=slowdown,
        spawned=options.isolation == "spawn",
    )
    jobs = plan(cases, options.processes, options.seed, seeds=options.seeds)
    searched, unknown = options.batch_sizes == AUTO, 0
    records: list[dict[str, object]] = []
    path = ceilings_path(options.results, machine.name)
    quota = limiting_quota(machine.cores)
    there = read_ceilings(path, conditions(machine, environ), quota)
    once_s = run_start_s(cases) + CEILING_S * len(missing(cases, there, options.ceilings))
    totals_s = [once_s * slowdown] * 2
    for case in dict.fromkeys(job.case for job in jobs):
        count = sum(job.case == case for job in jobs)
        timed = case.task in TIMED_TASKS and not searched
        ends = [as_large_as(model, case, known, sizes) for model in (SMALL, LARGE)] * timed
        for place, end in enumerate(ends):
            totals_s[place] += count * each_s(case, sizes=end) + after_s(case, options, slowdown)
        unknown += 0 if timed else count
        named = auto_name(case) if searched else case.name
        records.append({"case": named, "processes": None if searched else count})
        if timed:
            low_s, high_s = (each_s(case, sizes=end) for end in ends)
            records[-1] |= {
                "seconds": low_s,
                "seconds_to": high_s if high_s > low_s else None,
                "from": ROWS if case.name in known else BUDGET,
            }
    told = sum(record.get("from") == ROWS for record in records)
    basis = f"from earlier rows in {runs} for {counted(told, 'case')}, else " * bool(told)
    if searched:
        words = ", whose batch sizes a search finds; its processes and time cannot be estimated"
    else:
        guesses = [case.model for case in cases if is_guess(case, known, sizes)]
        about = f"about {range_text(totals_s, guesses)}"
        words = _in_words(len(jobs), unknown, about, f"{basis}from the time budget")
    words += _layers_words([job.case for job in jobs], options)
    processes_s = sum(each_s(case) for case in set(cases) if case.task in TIMED_TASKS)
    return Forecast(
        table=_table(records),
        comparison=comparison_words(processes_s, options.compare_budget_s),
        words=f"{counted(len(records), 'case')}{words}; nothing was started, and no code of a "
        "model was imported",
    )


def _layers_words(processes: Sequence[Case], options: Options) -> str:
    """Say how much `--layers` adds; the cases are those of all processes."""
    if not options.layers:
        return ""
    sessions = sum(not why_no_layers(case) for case in processes)
    least_s = sessions * SESSION_SECONDS * options.time_budget_s
    return f"; --layers takes at least {duration_text(least_s)} more"


def _table(records: Sequence[Mapping[str, object]]) -> Table:
    columns = headings(
        "case processes seconds seconds_to from",
        seconds=("each", "seconds"),
        seconds_to=("to", "seconds"),
        **{"from": "estimated from"},
    )
    return table_of("forecast", "What would be measured", "", columns, records, keep=["case"])


def range_text(ends_s: Sequence[float], guesses: Sequence[str]) -> str:
    """Say how long something takes, by the size of the models of which nothing is known.

    Args:
        ends_s: as of small models, and as of large ones.
    """
    low, high = map(duration_text, ends_s)
    if low == high:
        return low
    names = listed(list(dict.fromkeys(guesses)), 1)
    return f"{low} if {names} is as small as {SMALL}, {high} if as large as {LARGE}"


def _in_words(processes: int, unknown: int, about: str, basis: str) -> str:
    """Say how long the processes take, of which the time of some is unknown."""
    words = f", {counted(processes, 'process')}"
    if unknown == processes:
        return f"{words}, whose time cannot be estimated"
    words += f", {about}"
    if unknown:
        words += f" and the time of {counted(unknown, 'process')} that cannot be estimated"
    return f"{words} (estimated {basis})"


def comparison_words(processes_s: float, budget_s: float) -> str:
    """Say how long a live comparison takes: what it finds decides that, within its budget.

    Args:
        processes_s: of one process of each case.
        budget_s: infinite for none.
    """
    same_s = SESSIONS_UNCHANGED * SESSION_OVER_PROCESS * processes_s
    changed_s = changed_seconds(processes_s)
    if same_s >= budget_s:
        return f"at most {duration_text(budget_s)}"
    most = "at most" if changed_s >= budget_s else "about"
    return (
        f"about {duration_text(same_s)} where step times are as before, "
        f"{most} {duration_text(min(changed_s, budget_s))} where all have changed"
    )


def changed_seconds(processes_s: float) -> float:
    """Return the seconds of a live comparison in which all cases have changed."""
    return SESSIONS_CHANGED * SESSION_OVER_PROCESS * processes_s


def known_seconds(places: Sequence[Path], budget_s: float) -> dict[str, float]:
    """Return the seconds of one process by case, the median over the rows in the places."""
    return process_seconds(*(read_run(path) for path in run_files(places)), budget_s=budget_s)


def process_seconds(*runs: Sequence[Record], budget_s: float) -> dict[str, float]:
    """Return the seconds of one process by case, the median over the measured rows of the runs.

    Args:
        budget_s: the time budget that they are told for, whatever the rows had.
    """
    timed = itertools.chain.from_iterable(map(_with_seconds, runs))
    found = grouped((one.asked_case.name, _within(budget_s, one, own_s)) for one, own_s in timed)
    return {name: float(median(values)) for name, values in found.items()}


def _within(budget_s: float, record: Record, seconds: float) -> float:
    """Return the seconds of a row's process under another time budget, which its steps fill."""
    if record.time_budget_s is None:
        return seconds
    least_s = FEWEST_STEPS * (record.step_time_mean_s or 0.0)
    then_s, now_s = (max(2 * one, least_s) for one in (record.time_budget_s, budget_s))
    return max(now_s, seconds - then_s + now_s)


def _with_seconds(records: Sequence[Record]) -> Iterator[tuple[Record, float]]:
    """Yield the measured rows of a run, each with the seconds that its process took.

    Rows before `took_s` have the time until the next process began; the last one, and one after
    which the run was interrupted, the time of its figures.
    """
    ordered = sorted(records, key=lambda record: record.started)
    for record, after in itertools.zip_longest(ordered, ordered[1:]):
        own_s = seconds_of(record)
        if own_s is None:
            continue
        cut = record.latency_limit_s is not None and record.latency_limit_search_s is None
        if record.took_s is not None and not cut:  # nobody knows how long it went on
            goes_on_s = (record.sustained_s or 0.0) + (record.latency_limit_search_s or 0.0)
            yield record, record.took_s - goes_on_s
            continue
        whole_s = own_s
        if after is not None:
            began, ended = (utc_of(one.started) for one in (record, after))
            whole_s = (ended - began).total_seconds()
        yield record, whole_s if own_s <= whole_s <= own_s + MOST_PAUSE_S else own_s


def recent(folder: Path, budget_s: float) -> tuple[dict[str, float], dict[str, float]]:
    """Return the seconds of one process by case, and sizes by model, from the newest runs of a
    machine's folder.

    The newest run tells most. A file that cannot be read tells nothing.
    """
    runs = sorted(path for path in folder.glob("*.csv") if RUN_NAME.fullmatch(path.stem))
    known: dict[str, float] = {}
    sizes: dict[str, float] = {}
    for path in runs[-_RECENT:]:
        with contextlib.suppress(StoreError):
            records = read_run(path)
            known |= process_seconds(records, budget_s=budget_s)
            sizes |= sizes_of(records)
    return known, sizes


def seconds_of(record: Record) -> float | None:
    """Return how long the row's process took, from its own figures; None where it has none."""
    if not record.measured or record.step_time_mean_s is None:
        return None
    windows = (record.windows or 0) * (record.window_steps or 0)
    steps = (record.warm_up_steps or 0) + (record.steps or 0) + windows
    round_s = (record.paired_step_time_p50_s or 0.0) + (record.reference_step_time_p50_s or 0.0)
    return (
        (record.process_start_s or 0.0)
        + (record.time_to_first_step_s or 0.0)
        + steps * record.step_time_mean_s
        + (record.rounds or 0) * round_s
    )
