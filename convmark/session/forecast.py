"""What a run would measure and how long it would take, with nothing started: `--dry-run`.

A process takes as long as earlier rows tell, or a guess by the time budget and published figures.
Parts of a plan are balanced by the same guess: every machine that takes a part must come to the
same figures, so nothing of the machine goes into it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import MappingProxyType

from convmark.core.case import Case
from convmark.core.cluster import check_devices
from convmark.core.errors import StoreError
from convmark.core.option_values import AUTO
from convmark.core.options import Options
from convmark.core.suites import auto_name
from convmark.core.table import Table, headings, table_of
from convmark.core.tasks import TASKS, TIMED_TASKS
from convmark.core.text import counted, duration_text
from convmark.interpreter.environments.cache import interpreter_path
from convmark.interpreter.environments.installer import wanted
from convmark.interpreter.inspection import devices_asked_for
from convmark.machine.gpu.visible import visible_cards
from convmark.machine.hardware import Machine
from convmark.results.agreement import utc_of
from convmark.results.reading import RUN_NAME
from convmark.results.record import Record
from convmark.results.store import read_run, run_files
from convmark.session.facts import plan
from convmark.session.layers import SESSION_SECONDS, why_no_layers

__all__ = [
    "Forecast",
    "after_s",
    "comparison_words",
    "expected_s",
    "forecast",
    "known_seconds",
    "likely_devices",
    "load_slowdown",
    "process_seconds",
    "recent_seconds",
    "seconds_of",
]

RUN_START_S = 4.0
"""Until an interpreter has imported its framework."""

START_S, LARGE_START_S = 0.8, 2.8
"""What is around the steps of a process of a small model, and of one of keras.applications:
mostly building and compiling."""

MOST_PAUSE_S = 10.0
"""Between two processes of a run; in more a run was interrupted."""

_RECENT = 5
"""Runs: all those of years take longer to read than an estimate is worth."""

FEWEST_STEPS = 60
"""Warm-up, steps, windows and rounds that even a slow step is not spared."""

SESSION_OVER_PROCESS = 1.4
"""Seconds of a session of a live comparison / those of a process that measures the case, with what
lies between two: 1.2 to 1.6 in recorded gates."""

SESSIONS_UNCHANGED, SESSIONS_CHANGED = 2.7, 12.0
"""Of a case until it is decided, where its step time is as before and where it is not: 2.3 to 3.0,
and 4 to 12 with three that check the verdict in separate processes, in recorded gates."""

SEARCH_S = 100.0
"""Of the rate at a latency limit, some ten tries, where steps are short; slow ones take longer."""

SCALE = 10.0
"""Step time on a machine of a few cores / that in the table, whose server has 92 of them."""

TABLE_BATCH = 32
# Source: keras.io/api/applications, "Time (ms) per inference step (CPU)", batch 32.
_INFERENCE_MS: Mapping[str, float] = MappingProxyType(
    {
        "densenet121": 77.1,
        "densenet169": 96.4,
        "densenet201": 127.2,
        "efficientnetb0": 46.0,
        "efficientnetb1": 60.2,
        "efficientnetb2": 80.8,
        "efficientnetb3": 140.0,
        "efficientnetb4": 308.3,
        "efficientnetb5": 579.2,
        "efficientnetb6": 958.1,
        "efficientnetb7": 1578.9,
        "inceptionresnetv2": 130.2,
        "inceptionv3": 42.2,
        "mobilenet": 22.6,
        "mobilenetv2": 25.9,
        "nasnetlarge": 344.5,
        "nasnetmobile": 27.0,
        "resnet101": 89.6,
        "resnet101v2": 72.7,
        "resnet152": 127.4,
        "resnet152v2": 107.5,
        "resnet50": 58.2,
        "resnet50v2": 45.6,
        "vgg16": 69.5,
        "vgg19": 84.8,
        "xception": 109.4,
    }
)
_USUAL_MS = median(_INFERENCE_MS.values())

_SMALL = frozenset(
    ("lenet5", "mini_inception", "mini_resnet", "mini_resnet_norm", "conv_layer", "separable_layer")
)
"""Models whose steps are so short that the time budget alone tells how long a process takes."""

ROWS, BUDGET = "earlier rows", "time budget"


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The cases of a plan with their estimated times."""

    table: Table
    words: str
    """How many processes in which time, and what the estimate rests on."""
    comparison: str
    """How long a live comparison of all cases takes."""


def after_s(case: Case, options: Options) -> float:
    """Return the seconds that the first process of a case goes on after its measurement."""
    searches = options.latency_limit_s is not None and case.task == "infer"
    return (options.sustain_s or 0.0) + SEARCH_S * searches


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
    known = recent_seconds(runs)
    slowdown = load_slowdown(machine.cores)
    jobs = plan(cases, options.processes, options.seed, seeds=options.seeds)
    searched = options.batch_sizes == AUTO
    records, total_s, unknown = [], RUN_START_S * len({one.backend for one in cases}), 0
    for case in dict.fromkeys(job.case for job in jobs):
        count = sum(job.case == case for job in jobs)
        timed = case.task in TIMED_TASKS and not searched
        budget_s = options.time_budget_s
        seconds = expected_s(case, budget_s, known, slowdown=slowdown) if timed else None
        total_s += count * (seconds or 0.0) + after_s(case, options) * timed
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
    columns = headings(
        "case processes seconds from", seconds=("each", "seconds"), **{"from": "estimated from"}
    )
    table = table_of("forecast", "What would be measured", "", columns, records, keep=["case"])
    told = sum(record["from"] == ROWS for record in records)
    basis = f"from earlier rows in {runs} for {counted(told, 'case')}, else " * bool(told)
    if searched:
        words = ", whose batch sizes a search finds; its processes and time cannot be estimated"
    else:
        words = _in_words(len(jobs), unknown, total_s, f"{basis}from the time budget")
    if options.layers:
        most = sum(not why_no_layers(job.case) for job in jobs if job.case.task in TIMED_TASKS)
        least_s = most * SESSION_SECONDS * options.time_budget_s
        words += f"; --layers takes at least {duration_text(least_s)} more"
    compared = {job.case for job in jobs if job.case.task in TIMED_TASKS}
    processes_s = sum(
        expected_s(case, options.time_budget_s, known, slowdown=slowdown) for case in compared
    )
    return Forecast(
        table=table,
        comparison=comparison_words(processes_s, options.compare_budget_s),
        words=f"{counted(len(records), 'case')}{words}; nothing was started, and the names of "
        "models are not checked",
    )


def _in_words(processes: int, unknown: int, seconds: float, basis: str) -> str:
    """Say how long the processes take, of which the time of some is unknown."""
    words = f", {counted(processes, 'process')}"
    if unknown == processes:
        return f"{words}, whose time cannot be estimated"
    words += f", about {duration_text(seconds)}"
    if unknown:
        words += f" and the time of {counted(unknown, 'process')} that cannot be estimated"
    return f"{words} (estimated {basis})"


def expected_s(
    case: Case, time_budget_s: float, known: Mapping[str, float], *, slowdown: float = 1.0
) -> float:
    """Return the seconds that one process of the case is expected to take.

    Args:
        known: seconds by case, where rows tell them.
        slowdown: how many times as long work takes because of other load. Steps end with the time
            budget, but for the fewest that are measured, so that they take at most twice as long.
    """
    if case.name in known:
        return known[case.name]
    start_s = START_S if case.model in _SMALL else LARGE_START_S
    steps_s = max(2 * time_budget_s, FEWEST_STEPS * _step_s(case))
    return start_s * slowdown + steps_s * min(slowdown, 2.0)


def load_slowdown(cores: int) -> float:
    """Return how many times as long work takes beside what runs on this machine now."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return 1 + load / cores


def comparison_words(processes_s: float, budget_s: float) -> str:
    """Say how long a live comparison takes: what it finds decides that, within its budget.

    Args:
        processes_s: of one process of each case.
        budget_s: infinite for none.
    """
    same_s, changed_s = (
        count * SESSION_OVER_PROCESS * processes_s
        for count in (SESSIONS_UNCHANGED, SESSIONS_CHANGED)
    )
    if same_s >= budget_s:
        return f"at most {duration_text(budget_s)}"
    most = "at most" if changed_s >= budget_s else "about"
    return (
        f"about {duration_text(same_s)} where step times are as before, "
        f"{most} {duration_text(min(changed_s, budget_s))} where all have changed"
    )


def _step_s(case: Case) -> float:
    if case.model in _SMALL:
        return 0.0
    passes = TASKS[case.task].passes
    samples = case.batch_size * case.replicas / TABLE_BATCH
    return SCALE * passes * samples * _INFERENCE_MS.get(case.model, _USUAL_MS) / 1000


def known_seconds(places: Sequence[Path]) -> dict[str, float]:
    """Return the seconds of one process by case, the median over the measured rows in the places.

    Raises:
        StoreError: a place has no runs, or a file does not fit.
    """
    return process_seconds(*(read_run(path) for path in run_files(places)))


def process_seconds(*runs: Sequence[Record]) -> dict[str, float]:
    """Return the seconds of one process by case, the median over the measured rows of the runs."""
    found: dict[str, list[float]] = {}
    for record, seconds in itertools.chain.from_iterable(map(_with_seconds, runs)):
        found.setdefault(record.asked_case.name, []).append(seconds)
    return {name: float(median(values)) for name, values in found.items()}


def _with_seconds(records: Sequence[Record]) -> Iterator[tuple[Record, float]]:
    """Yield the measured rows of a run, each with the time until the next process began.

    That of the last one, and of one after which the run was interrupted, is that of its figures.
    """
    ordered = sorted(records, key=lambda record: record.started)
    for record, after in itertools.zip_longest(ordered, ordered[1:]):
        own_s = seconds_of(record)
        if own_s is None:
            continue
        whole_s = own_s
        if after is not None:
            began, ended = (utc_of(one.started) for one in (record, after))
            whole_s = (ended - began).total_seconds()
        yield record, whole_s if own_s <= whole_s <= own_s + MOST_PAUSE_S else own_s


def recent_seconds(folder: Path) -> dict[str, float]:
    """Return the seconds of one process by case, from the newest runs of a machine's folder.

    The newest run tells most. A file that cannot be read tells nothing.
    """
    runs = sorted(path for path in folder.glob("*.csv") if RUN_NAME.fullmatch(path.stem))
    found: dict[str, float] = {}
    for path in runs[-_RECENT:]:
        with contextlib.suppress(StoreError):
            found |= known_seconds([path])
    return found


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
