"""One run of a plan on a fleet: assignment, finished work, and where the rows are written."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TextIO

from convmark.core.case import Case
from convmark.core.errors import OptionError
from convmark.core.options import Options
from convmark.core.text import Say, duration_text
from convmark.results.store import Store
from convmark.session.expected import expected_s
from convmark.session.facts import Facts, Job, plan
from convmark.session.fleet.host import PreparedNode
from convmark.session.fleet.nodes import PER, NodeFacts, gpu_names, node_names, some
from convmark.session.fleet.run_files import (
    Key,
    Resumption,
    RunFiles,
    gpus_measured,
    hold_many_files,
    newest_first,
    newest_of_host,
    newest_of_kind,
)
from convmark.session.fleet.scheduler import Assignment, Member, Scheduler, Unmeasured
from convmark.session.progress import Clock, Display, outcome
from convmark.session.result import Result
from convmark.session.resume import plan_hash
from convmark.session.run import NOT_MEASURED, unmeasured


@dataclass(frozen=True, slots=True)
class ProcessEnded:
    """In place of a result: the process that measured ended under the job, the node did not."""

    why: str


@dataclass(frozen=True, slots=True)
class JobEnded:
    """A node has done with its job; the result is a `ProcessEnded` where there is none."""

    node: str
    result: Any


@dataclass(frozen=True, slots=True)
class NodeLost:
    """A node will measure nothing more."""

    node: str
    why: str


Event = JobEnded | NodeLost


class Cluster(Protocol):
    """Has nodes measure."""

    def begin(self, assignment: Assignment) -> None:
        """Start the job on its node; its result comes as an event."""

    def events(self) -> list[Event]:
        """Wait for what has happened; nothing where nothing will."""


def drive(
    scheduler: Scheduler,
    cluster: Cluster,
    keep: Callable[[Assignment, Any], Any],
    shown: FleetProgress,
) -> list[Unmeasured]:
    """Measure all plans; return what no node could measure.

    Args:
        keep: takes each result, before anything else is begun, and returns what is shown of it.
    """
    running: dict[str, Assignment] = {}
    unmeasured: list[Unmeasured] = []
    while True:
        for assignment in scheduler.assignments():
            running[assignment.node] = assignment
            cluster.begin(assignment)
            shown.began(assignment)
        if scheduler.over:
            return unmeasured
        for event in cluster.events():
            if isinstance(event, NodeLost):
                running.pop(event.node, None)
                unmeasured += scheduler.lost(event.node, event.why)
                shown.lost(event.node, event.why)
                continue
            assignment = running.pop(event.node)
            kept = keep(assignment, event.result)
            scheduler.ended(event.node)
            shown.ended(assignment, kept)


Prepare = Callable[[Sequence[str]], Mapping[str, Any]]
"""Has nodes prepare themselves: by name a `PreparedNode`, or the exception that says why not."""


class FleetRun:
    """Prepares nodes, has the plan measured on them and keeps each row as it comes."""

    def __init__(
        self,
        options: Options,
        store: Store,
        abouts: Mapping[str, NodeFacts],
        kinds: Mapping[str, Sequence[str]],
        *,
        per: str,
    ) -> None:
        """Describe; nothing is started yet.

        Args:
            abouts: by node what it is.
            kinds: the nodes of each kind.
            per: one of `PER`: whether every node has the plan to measure, or one of each kind.
        """
        self.options = options
        self.abouts = abouts
        self.names = node_names(abouts)
        self.useless: set[str] = set()
        """Nodes that cannot measure."""
        self._store = store
        self._kinds = {kind: list(names) for kind, names in kinds.items()}
        self._every = per == PER[0]
        machines = {name: one.machine.name for name, one in abouts.items()}
        self.files = RunFiles(store, machines, every=self._every)
        self._per = per
        self._prepared: dict[str, PreparedNode] = {}
        self._plans: dict[str, list[Job]] = {}

    def close(self) -> None:
        self.files.close()

    def prepare(
        self, prepare: Prepare, say: Say, *, resume: bool = False
    ) -> Mapping[str, PreparedNode]:
        """Ask the nodes what they can measure, and plan; return their answers by node.

        Args:
            resume: whether runs that were interrupted go on.

        Raises:
            OptionError: no node can measure, or an earlier run cannot go on.
            StoreError: an earlier run does not read.
        """
        if resume and not self._every:
            self._put_first_who_measured()
        wanted = list(itertools.chain.from_iterable(self._kinds.values()))
        if not self._every:
            wanted = [names[0] for names in self._kinds.values()]
        reasons: dict[str, list[str]] = {}
        while wanted:
            failed = set()
            for name, answer in prepare(wanted).items():
                if isinstance(answer, Exception):
                    reasons.setdefault(str(answer), []).append(self.names[name])
                    failed.add(name)
                else:
                    hashed = plan_hash(answer.cases, self.options)
                    facts = replace(answer.facts, plan=hashed)
                    self._prepared[name] = replace(answer, facts=facts)
            self.useless |= failed
            wanted = [] if self._every else self._next_of(failed)
        said = [
            f"{some(names)} {'does' if len(names) == 1 else 'do'} not measure: {why}"
            for why, names in reasons.items()
        ]
        if not self._prepared and len(said) == 1:  # a mistake of the caller's, most often
            raise OptionError(f"--ray: {said[0]}")
        for line in said:
            say(line)
        if not self._prepared:
            raise OptionError("--ray: no node can run the plan; see the reason of each node")
        hold_many_files(2 * len(self._prepared))
        drawn: dict[tuple[Case, ...], list[Job]] = {}  # nodes with the same cases share a plan
        for name, prepared in self._prepared.items():
            if prepared.cases not in drawn:
                processes, seed = self.options.processes, self.options.seed
                drawn[prepared.cases] = plan(prepared.cases, processes, seed)
            self._plans[name] = drawn[prepared.cases]
        if resume:
            for name in self._prepared:
                self._go_on(name, say)
        return self._prepared

    def measure(self, cluster: Cluster, stream: TextIO) -> list[Unmeasured]:
        """Measure the plans; return what no node could measure, which has rows that say so."""
        scheduler = Scheduler(self._members(), self._plans, expected_s=self._expected_s)
        with FleetProgress(stream, scheduler, self.names, self._expected_s) as shown:
            left = drive(scheduler, cluster, self._keep, shown)
        for one in left:
            facts = self._prepared[one.target].facts
            result = unmeasured(one.job, self.options, facts, f"{NOT_MEASURED}{one.why}")
            self._append((one.target, one.target), result)
        return left

    def named(self, key: Key) -> str:
        """Say which node measured a run, and for which other."""
        target, node = key
        return self.names[node] + (f" for {self.names[target]}" if target != node else "")

    def step_times(self) -> dict[str, dict[str, dict[str, list[float]]]]:
        """Return the step times of all processes by hardware, host and case, seconds."""
        found: dict[str, dict[str, dict[str, list[float]]]] = {}
        for record in itertools.chain.from_iterable(self.files.records.values()):
            if record.measured and record.step_time_p50_s:
                hosts = found.setdefault(f"{record.machine} {record.device}", {})
                cases = hosts.setdefault(str(record.node), {})
                cases.setdefault(record.case.name, []).append(record.step_time_p50_s)
        return found

    def _put_first_who_measured(self) -> None:
        """Put first in each kind who measured its newest run, to go on with it."""
        for names in self._kinds.values():
            newest = next(newest_first(self._store, self._machines(names)), None)
            if newest is not None:
                _, head = newest
                names.sort(key=lambda name: self.abouts[name].host != head.node)

    def _next_of(self, failed: set[str]) -> list[str]:
        """Return for each node that cannot measure the next one of its kind."""
        following = []
        for names in self._kinds.values():
            left = [name for name in names if name not in self.useless]
            if left and failed & set(names):
                following.append(left[0])
        return following

    def _go_on(self, name: str, say: Say) -> None:
        """Take over the newest run of the node, or those of its kind; plan what they lack."""
        facts, jobs = self._prepared[name].facts, self._plans[name]
        if self._every:
            taken = set(self.files.paths().values())
            found = newest_of_host(self._store, facts, besides=taken)
        else:
            (kin,) = [names for names in self._kinds.values() if name in names]
            found = newest_of_kind(self._store, self._machines_there(kin), facts.plan)
        if not found:
            say(f"--resume: {self.names[name]} has no run of this plan yet")
            return
        resumption = Resumption(self._store, self.options, self.files)
        self._plans[name] = left = resumption.left(name, self._prepared[name], found, jobs)
        there = ", ".join(str(path) for path, _ in found)
        say(f"{self.names[name]}: resuming {there}: {len(left)} of {len(jobs)} are left")

    def _machines_there(self, kin: Sequence[str]) -> list[str]:
        """Return the machines of a kind: of its nodes, and of nodes with its GPUs that are gone."""
        names = self._machines(kin)
        if self._per != "gpu-kind":
            return names
        known = self._machines(self.abouts)
        gpus = gpu_names(self.abouts[kin[0]].machine)
        others = [name for name in self._store.machines() if name not in known]
        return names + [name for name in others if gpus_measured(self._store, name) == gpus]

    def _machines(self, names: Iterable[str]) -> list[str]:
        return list(dict.fromkeys(self.abouts[name].machine.name for name in names))

    def _members(self) -> list[Member]:
        return [
            Member(name=name, host=self.abouts[name].boot, kind=kind)
            for kind, names in self._kinds.items()
            for name in names
            if name not in self.useless
        ]

    def _expected_s(self, case: Case) -> float:
        return expected_s(case, self.options.time_budget_s, {})

    def _keep(self, assignment: Assignment, result: Result | ProcessEnded) -> Result:
        if isinstance(result, ProcessEnded):
            facts = self._facts_of(assignment.node, assignment.target)
            result = unmeasured(assignment.job, self.options, facts, result.why)
        return self._append((assignment.target, assignment.node), result)

    def _append(self, key: Key, result: Result) -> Result:
        """Keep a row in its run, and return the result with the row as it is kept."""
        record = self.files.append(key, result, self._prepared[key[0]].facts.plan)
        return replace(result, record=record)

    def _facts_of(self, node: str, target: str) -> Facts:
        """Return what the rows share that a node measures, for itself or in place of the target.

        A node that stands in may not have prepared itself before it measures. What it is it has
        said; its flags must be the target's, or the run could not go on after an interruption.
        """
        if node in self._prepared:
            return self._prepared[node].facts
        about = self.abouts[node]
        facts = self._prepared[target].facts
        return replace(facts, machine=about.machine, node=about.host, environ={})


class FleetProgress(contextlib.AbstractContextManager["FleetProgress"]):
    """Counts what each node has done, estimates what it still needs and shows both."""

    def __init__(
        self,
        stream: TextIO | None,
        scheduler: Scheduler,
        names: Mapping[str, str],
        expected_s: Callable[[Case], float],
        clock: Clock = time.monotonic,
    ) -> None:
        """Begin.

        Args:
            stream: None shows nothing.
            names: what each node is called on the screen.
            expected_s: how long a process of a case takes, until a node has shown how long it does.
        """
        self._display = Display(stream, named=True)
        self._scheduler = scheduler
        self._names = names
        self._expected_s = expected_s
        self._clock = clock
        self._began_s: dict[str, float] = {}
        self._done: Counter[str] = Counter()
        self._took_s: dict[str, float] = {}
        self._promised_s: dict[str, float] = {}

    def __exit__(self, *error: object) -> None:
        self._display.close()

    def began(self, assignment: Assignment) -> None:
        """Show that a node has begun a job."""
        self._began_s[assignment.node] = self._clock()
        self._update(assignment.node, f"{assignment.job.case.name} #{assignment.job.process}")

    def ended(self, assignment: Assignment, result: Result) -> None:
        """Show that a node's job has its row; the scheduler no longer counts it as left."""
        node, job = assignment.node, assignment.job
        took_s, promised_s = self._clock() - self._began_s.pop(node), self._expected_s(job.case)
        self._done[node] += 1
        self._took_s[node] = self._took_s.get(node, 0.0) + took_s
        self._promised_s[node] = self._promised_s.get(node, 0.0) + promised_s
        self._update(node, "")
        line = f"{job.case.name} #{job.process}: {outcome(result.record)}"
        if not self._display.live:
            done, total = self._count(node)
            target = self._names[assignment.target]
            for_another = "" if assignment.target == node else f" for {target}"
            self._display.line(
                f"{self._names[node]} [{done:>{len(str(total))}}/{total}]{for_another} {line}, "
                f"about {duration_text(self.left_s(node))} left"
            )
        elif not result.record.measured:
            self._display.line(f"{self._names[node]} {line}")

    def lost(self, node: str, why: str) -> None:
        """Show that a node will measure nothing more."""
        self._began_s.pop(node, None)
        self._update(node, f"lost: {why}")
        if not self._display.live:
            self._display.line(f"{self._names[node]}: lost: {why}")

    def left_s(self, node: str) -> float:
        """Return the seconds that the node needs: what is expected, by how it has kept to it."""
        expected = sum(self._expected_s(job.case) for job in self._scheduler.left(node))
        promised = self._promised_s.get(node)
        pace = self._took_s[node] / promised if promised else 1.0
        running = self._clock() - self._began_s[node] if node in self._began_s else 0.0
        return max(0.0, expected * pace - running)

    def _count(self, node: str) -> tuple[int, int]:
        """Return how many jobs the node has done, and how many it will have in the end."""
        done = self._done[node]
        return done, done + len(self._scheduler.left(node))

    def _update(self, node: str, text: str) -> None:
        done, total = self._count(node)
        left = f"{duration_text(self.left_s(node))} left" if total > done else ""
        self._display.update(self._names[node], text, done=done, total=total, left=left)
