"""What a run is before it measures: its plan, and the values that all its rows share.

The plan has all processes of all cases, in order; the values are those of the options, the machine,
the commit and the version of the measurement.
"""

from __future__ import annotations

import math
import platform
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import convmark
from convmark.core.backends import BACKENDS
from convmark.core.case import Case
from convmark.core.option_values import AUTO, shapes_text
from convmark.core.options import Options
from convmark.core.text import plain_text
from convmark.machine.cautions import speed_flags
from convmark.machine.gpu.cards import card_of, cards_of, choosing
from convmark.machine.gpu.devices import Card, card_columns
from convmark.machine.hardware import Machine, System, read_system
from convmark.machine.power import Idle, Rapl, find_rapl
from convmark.machine.state import own_cpu_quota
from convmark.results.code.of_run import CodeReader
from convmark.results.record import FRAMEWORK_COLUMNS
from convmark.results.schema import SCHEMA_VERSION
from convmark.session import learning
from convmark.session.ceilings import Ceiling, Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One process of one case, at its place in the plan."""

    case: Case
    process: int
    order: int
    seed: int | None = None
    """Of the task accuracy, whose processes have a seed each."""
    goes_on: bool = False
    """Whether its steps go on after the measurement, as `--latency-limit` and `--sustain` ask."""


def plan(
    cases: Sequence[Case],
    processes: int,
    seed: int,
    *,
    after: tuple[int, int] = (0, 0),
    seeds: Sequence[int] = (),
) -> list[Job]:
    """Return every process of every case; each case once before any a second time, in random order.

    A case's processes are so spread over the run that a disturbance of seconds hits one of them.
    The steps of each case's first process go on.

    Args:
        after: processes of each case, and rows, that the run has already.
        seeds: of the task accuracy, whose cases have a process for each and no other.
    """
    order = random.Random(seed)
    processes_before, rows_before = after
    jobs: list[Job] = []
    most = max([processes, *(len(seeds) for case in cases if case.task == learning.TASK)])
    for process in range(processes_before + 1, processes_before + most + 1):
        for case in order.sample(list(cases), len(cases)):
            learns = case.task == learning.TASK
            if process - processes_before <= (len(seeds) if learns else processes):
                its_seed = seeds[process - processes_before - 1] if learns else None
                place = rows_before + len(jobs) + 1
                jobs.append(
                    Job(
                        case=case,
                        process=process,
                        order=place,
                        seed=its_seed,
                        goes_on=process == 1,
                    )
                )
    return jobs


def most_processes(options: Options) -> int:
    """Return how many processes a case has at most: of searched sizes one more is sustained."""
    return options.processes + bool(options.batch_sizes == AUTO and options.sustain_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What every row of a run shares."""

    run: str
    machine: Machine
    commit: str | None
    dirty: bool | None
    flags: str
    ceilings: Mapping[Key, Ceiling] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    """The variables that choose which GPUs a worker sees."""
    node: str | None = None
    """The host's name: nodes of one kind share the machine's."""
    system: System = field(default_factory=System)
    """The description of the machine."""
    rapl: Rapl = field(default_factory=Rapl)
    """The counters of the CPU packages' energy."""
    idle: Idle = field(default_factory=Idle)
    """The power before the run."""
    cpu_quota_cores: float | None = None
    """CPU seconds per second that the strictest cgroup allows; None where unlimited."""
    quota_moved: bool = False
    """Whether it was another one at the end of the process than at its beginning."""
    plan: str | None = None
    """Hash of what was asked for, by which a run that was interrupted is known again."""
    codes: CodeReader | None = None
    """Tells the code of each process; None where rows do not tell it."""

    @property
    def quota(self) -> float | None:
        """The quota where it is less than the machine has."""
        quota = self.cpu_quota_cores
        return quota if quota is not None and quota < self.machine.cores else None

    def with_quotas(self, *quotas: float | None) -> Facts:
        """Return the facts of a process in whose time the quota was these: the strictest counts."""
        limits = [min(math.inf if one is None else one, self.machine.cores) for one in quotas]
        strictest = min((one for one in quotas if one is not None), default=None)
        return replace(self, cpu_quota_cores=strictest, quota_moved=len(set(limits)) > 1)

    def card(self, case: Case) -> Card | None:
        """The card of the case's device; None on the CPU, and where it is not known."""
        return card_of(case.device, self.machine.gpus, self.environ)

    def cards(self, case: Case) -> list[Card]:
        """All cards that the case is measured on here, one for each replica, as far as known."""
        return cards_of(case.devices_here, self.machine.gpus, self.environ)


def of_the_run(case: Case, options: Options, facts: Facts) -> dict[str, Any]:
    """Return the columns in which every row of a case in one run is the same, but for figures."""
    own = {"processes": most_processes(options), "seed": options.seed}
    return {
        "schema": SCHEMA_VERSION,
        "run": facts.run,
        "convmark": convmark.__version__,
        "commit": facts.commit,
        "dirty": facts.dirty,
        "plan": facts.plan,
        **(learning.asked_columns(options) if case.task == learning.TASK else own),
        "time_budget_s": options.time_budget_s,
        "isolation": options.isolation,
        "asked_shape": shapes_text(options.input_shape) if options.input_shape else None,
        **_environment(case, facts),
    }


def of_the_machine(case: Case, options: Options, facts: Facts) -> dict[str, Any]:
    """Return what a row keeps of its machine beside what a run that goes on must share."""
    return {
        **facts.system.columns,
        "cooling": options.cooling,
        "idle_power_w": facts.idle.of_cards(facts.cards(case)),
    }


def _environment(case: Case, facts: Facts) -> dict[str, Any]:
    machine = facts.machine
    card = facts.card(case)
    return {
        "machine": machine.name,
        "node": facts.node,
        "cpu": machine.cpu,
        "cores": machine.cores,
        "ram_bytes": machine.ram_bytes,
        "driver": machine.driver if card else None,
        "os": machine.os,
        "flags": facts.flags or None,
        **(card_columns(card) if card else {}),
    }


def software(versions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of what a worker says about its software."""
    names = ("cuda", "cudnn", "python", *FRAMEWORK_COLUMNS, "keras", "numpy")
    others = [name for name in BACKENDS if name not in FRAMEWORK_COLUMNS and versions.get(name)]
    return {
        **{name: versions.get(name) for name in names},
        "packages": " ".join(f"{name}=={versions[name]}" for name in others) or None,
    }


def facts_of(
    run: str,
    machine: Machine,
    commit: Any,
    environ: Mapping[str, str],
    ceilings: Mapping[Key, Ceiling] | None = None,
    *,
    plan: str | None = None,
    codes: CodeReader | None = None,
) -> Facts:
    """Return the facts that every row of a run shares."""
    return Facts(
        run=run,
        machine=machine,
        commit=commit.sha,
        dirty=commit.dirty,
        flags=speed_flags(environ),
        environ=choosing(environ),
        ceilings=ceilings or {},
        node=plain_text(platform.node()) or None,
        system=read_system(),
        rapl=find_rapl(),
        cpu_quota_cores=own_cpu_quota(),
        plan=plan,
        codes=codes,
    )
