"""The scheduler: nodes, plans and events in, assignments out; no clock, no cluster.

A node measures its own plan, one job after another. A host measures one job at a time, however many
nodes it has. What a lost node has left goes to others of its kind, whole cases, so that all
processes of a case are of one node; as many nodes of a kind are at work as had a plan of their own.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from convmark.core.case import Case
from convmark.session.facts import Job

MOST_LOST = 3
"""Nodes that may be lost over one case before it is given up: it may be what ends them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A node as the scheduler sees it."""

    name: str
    host: str
    kind: str


@dataclass(frozen=True, slots=True)
class Assignment:
    """A job, the node that measures it, and the node whose plan it is of."""

    node: str
    target: str
    job: Job


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """A job that no node will measure, and why."""

    target: str
    job: Job
    why: str


_Adopted = tuple[float, int, str, tuple[Job, ...]]
"""Minus the seconds expected, a tie-breaker, the target, the jobs of one case."""


class Scheduler:
    """Hands out the jobs of the plans, and those of lost nodes again."""

    def __init__(
        self,
        members: Sequence[Member],
        plans: Mapping[str, Sequence[Job]],
        *,
        expected_s: Callable[[Case], float] = lambda case: 1.0,
    ) -> None:
        """Begin.

        Args:
            plans: the jobs of each node that has a plan, by its name; a node without one stands by.
            expected_s: how long a process of a case takes; of a lost node the longest go first.
        """
        self._members = {member.name: member for member in members}
        self._plans = dict(plans)
        self._expected_s = expected_s
        self._queues = {
            member.name: deque((member.name, job) for job in plans.get(member.name, ()))
            for member in members
        }
        self._at_work: dict[str, set[str]] = {member.kind: set() for member in members}
        self._width: dict[str, int] = dict.fromkeys(self._at_work, 0)
        for name in plans:
            kind = self._members[name].kind
            self._at_work[kind].add(name)
            self._width[kind] += 1
        self._alive = {kind: set[str]() for kind in self._at_work}
        for member in members:
            self._alive[member.kind].add(member.name)
        self._pools: dict[str, list[_Adopted]] = {kind: [] for kind in self._at_work}
        self._resting: dict[str, list[str]] = {kind: [] for kind in self._at_work}
        self._waiting: dict[str, deque[str]] = {}
        self._ready = deque(member.name for member in members)
        self._running: dict[str, Assignment] = {}
        self._busy: set[str] = set()
        self._done: set[tuple[str, int]] = set()
        self._losses: dict[tuple[str, Case], int] = {}
        self._ties = itertools.count()

    def assignments(self) -> list[Assignment]:
        """Return what the idle nodes are to begin now; they count as begun."""
        made = []
        while self._ready:
            name = self._ready.popleft()
            member = self._members[name]
            if name not in self._alive[member.kind] or name in self._running:
                continue
            if member.host in self._busy:
                self._waiting.setdefault(member.host, deque()).append(name)
                continue
            following = self._next(member)
            if following is None:
                self._resting[member.kind].append(name)
                continue
            assignment = Assignment(name, *following)
            self._running[name] = assignment
            self._busy.add(member.host)
            made.append(assignment)
        return made

    @property
    def over(self) -> bool:
        """Whether nothing is being measured, so that nothing will come."""
        return not self._running and not self._ready

    def left(self, name: str) -> list[Job]:
        """Return the jobs that the node has before it, the running one first."""
        running = [self._running[name].job] if name in self._running else []
        return running + [job for _, job in self._queues[name]]

    def ended(self, name: str) -> None:
        """Note that the node's job has its row."""
        assignment = self._running[name]
        self._done.add((assignment.target, assignment.job.order))
        self._free(name)
        self._ready.append(name)

    def lost(self, name: str, why: str) -> list[Unmeasured]:
        """Take the node out; return what will not be measured for it, what others take left out."""
        kind = self._members[name].kind
        if name not in self._alive[kind]:
            return []
        self._alive[kind].discard(name)
        self._at_work[kind].discard(name)
        running = self._running.get(name)
        if running is not None:
            cause = (running.target, running.job.case)
            self._losses[cause] = self._losses.get(cause, 0) + 1
            self._free(name)
            self._queues[name].appendleft((running.target, running.job))
        given_up: list[Unmeasured] = []
        for target, case in dict.fromkeys((target, job.case) for target, job in self._queues[name]):
            given_up += self._pass_on(kind, target, case, why)
        self._queues[name].clear()
        if not self._alive[kind]:
            for _, _, target, jobs in self._pools[kind]:
                given_up += self._unmeasured(target, jobs, _alone(why))
            self._pools[kind].clear()
        self._ready.extend(self._resting[kind])
        self._resting[kind].clear()
        return given_up

    def _pass_on(self, kind: str, target: str, case: Case, why: str) -> list[Unmeasured]:
        jobs = tuple(job for job in self._plans[target] if job.case == case)
        if not self._alive[kind]:
            return self._unmeasured(target, jobs, _alone(why))
        if self._losses.get((target, case), 0) >= MOST_LOST:
            return self._unmeasured(
                target, jobs, f"{MOST_LOST} nodes were lost while they measured it, at last: {why}"
            )
        seconds = self._expected_s(case)
        heapq.heappush(self._pools[kind], (-seconds, next(self._ties), target, jobs))
        return []

    def _unmeasured(self, target: str, jobs: Iterable[Job], why: str) -> list[Unmeasured]:
        return [
            Unmeasured(target, job, why) for job in jobs if (target, job.order) not in self._done
        ]

    def _next(self, member: Member) -> tuple[str, Job] | None:
        queue = self._queues[member.name]
        if not queue:
            at_work, pool = self._at_work[member.kind], self._pools[member.kind]
            full = member.name not in at_work and len(at_work) >= self._width[member.kind]
            if full or not pool:
                return None
            at_work.add(member.name)
            _, _, target, jobs = heapq.heappop(pool)
            queue.extend((target, job) for job in jobs)
        return queue.popleft()

    def _free(self, name: str) -> None:
        host = self._members[name].host
        del self._running[name]
        self._busy.discard(host)
        if host in self._waiting:
            self._ready.extend(self._waiting.pop(host))


def _alone(why: str) -> str:
    return f"{why}, and no other node of its kind is left"
