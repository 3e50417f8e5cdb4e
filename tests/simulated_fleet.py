"""Fleets that exist as numbers alone: a cluster with its own clock, and step times of nodes.

Not a test itself; `benchmarks/fleet_cost.py` prints what it costs and finds.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from convmark.core.case import Case
from convmark.session.facts import Job, plan
from convmark.session.fleet.run import Event, JobEnded, NodeLost
from convmark.session.fleet.scheduler import Assignment, Member


@dataclass(frozen=True, slots=True)
class SimulatedRow:
    """What takes the place of a result."""

    seconds: float


@dataclass
class SimulatedCluster:
    """Takes as long for a job as its case and its node need, on a clock that nobody waits for."""

    speeds: Mapping[str, float]
    """By node: the seconds of a process are its case's divided by this."""
    seconds: Mapping[Case, float]
    deaths: Mapping[str, float] = field(default_factory=dict)
    """By node: when it dies, seconds."""
    now: float = 0.0
    busy_s: dict[str, float] = field(default_factory=dict)
    """By node: seconds that ended in a row."""

    def __post_init__(self) -> None:
        self._ties = itertools.count()
        self._coming: list[tuple[float, int, Event]] = []
        self._dead: set[str] = set()
        for name, when in self.deaths.items():
            self._push(when, NodeLost(name, "the node is gone"))

    def _push(self, when: float, event: Event) -> None:
        heapq.heappush(self._coming, (when, next(self._ties), event))

    def begin(self, assignment: Assignment) -> None:
        assert assignment.node not in self._dead
        seconds = self.seconds[assignment.job.case] / self.speeds[assignment.node]
        row = SimulatedRow(seconds)
        self._push(self.now + seconds, JobEnded(assignment.node, row))

    def events(self) -> list[Event]:
        while self._coming:
            self.now, _, event = heapq.heappop(self._coming)
            if event.node in self._dead:
                continue  # what a dead node was at
            if isinstance(event, NodeLost):
                self._dead.add(event.node)
            else:
                assert isinstance(event.result, SimulatedRow)
                spent = self.busy_s.get(event.node, 0.0) + event.result.seconds
                self.busy_s[event.node] = spent
            return [event]
        return []


@dataclass
class SimulatedFleet:
    """Kinds of equal nodes, some of which die; the same plan on each."""

    nodes: int
    cases: int
    kinds: int = 20
    processes: int = 2
    dying: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        rng = random.Random(self.seed)
        names = [f"node-{number:04d}" for number in range(self.nodes)]
        self.members = [
            Member(name=name, host=name, kind=f"kind-{number % self.kinds:02d}")
            for number, name in enumerate(names)
        ]
        grid = [Case(model="m", task="train", batch_size=n + 1) for n in range(self.cases)]
        self.seconds = {case: rng.uniform(4.0, 8.0) for case in grid}
        speed = {f"kind-{kind:02d}": rng.uniform(0.5, 4.0) for kind in range(self.kinds)}
        self.speeds = {
            member.name: speed[member.kind] * rng.uniform(0.97, 1.03) for member in self.members
        }
        jobs = plan(grid, self.processes, self.seed)
        self.plans = dict.fromkeys(names, jobs)
        whole_s = self.processes * sum(self.seconds.values())
        self.deaths = {
            name: rng.uniform(0.0, 1.0) * whole_s / self.speeds[name]
            for name in rng.sample(names, self.dying)
        }

    def cluster(self) -> SimulatedCluster:
        return SimulatedCluster(self.speeds, self.seconds, self.deaths)

    def lower_bound_s(self) -> float:
        """No schedule ends before this: the plan on each living node, the kind's work on all of it.

        A dead node works up to its death, and all that it does counts as of use.
        """
        work_s = self.processes * sum(self.seconds.values())
        bound = 0.0
        for kind in {member.kind for member in self.members}:
            names = [member.name for member in self.members if member.kind == kind]
            living = [name for name in names if name not in self.deaths]
            bound = max([bound, *(work_s / self.speeds[name] for name in living)])
            lost = sum(
                max(0.0, work_s - self.deaths[name] * self.speeds[name])
                for name in names
                if name in self.deaths
            )
            total = len(living) * work_s + lost
            bound = max(bound, total / sum(self.speeds[name] for name in living))
        return bound


def job_count(plans: Mapping[str, Sequence[Job]]) -> int:
    return sum(map(len, plans.values()))


def step_times(
    rng: random.Random,
    *,
    nodes: int,
    cases: int,
    processes: int,
    noise: float,
    between: float = 0.01,
    bad: Mapping[str, float] | None = None,
) -> dict[str, dict[str, list[float]]]:
    """Return the step times of a kind's nodes, seconds, by node and case.

    Args:
        noise: standard deviation of ln(step time) between processes.
        between: that between good nodes.
        bad: by node how many times as long it takes.
    """
    usual = {f"case-{number}": rng.uniform(0.001, 0.4) for number in range(cases)}
    found: dict[str, dict[str, list[float]]] = {}
    for number in range(nodes):
        name = f"node-{number:02d}"
        factor = (bad or {}).get(name, 1.0) * math.exp(rng.gauss(0.0, between))
        found[name] = {
            case: [base * factor * math.exp(rng.gauss(0.0, noise)) for _ in range(processes)]
            for case, base in usual.items()
        }
    return found
