"""One run of a plan on a fleet: who measures what, what is there already, where the rows go."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from convmark.case import Case
from convmark.errors import OptionError
from convmark.fleet.drive import Broken, Cluster, drive
from convmark.fleet.expected import expected_s
from convmark.fleet.files import Key, RunFiles, earlier_run, hold_many_files
from convmark.fleet.host import Prepared
from convmark.fleet.nodes import About, node_names
from convmark.fleet.progress import fleet_progress
from convmark.fleet.scheduler import Assignment, Member, Scheduler, Unmeasured
from convmark.options import Options
from convmark.resume import Interrupted, check, expected, missing, open_interrupted, plan_hash
from convmark.run import NOT_MEASURED, Job, Result, plan, unmeasured
from convmark.store import Store, read_head

__all__ = ["Campaign", "Prepare"]

Prepare = Callable[[Sequence[str]], Mapping[str, Any]]
"""Has nodes prepare themselves: by name a `Prepared`, or the exception that says why not."""

Say = Callable[[str], None]


class Campaign:
    """Prepares nodes, has the plan measured on them and keeps each row as it comes."""

    def __init__(
        self,
        options: Options,
        store: Store,
        abouts: Mapping[str, About],
        kinds: Mapping[str, Sequence[str]],
        *,
        every: bool,
    ) -> None:
        """Describe; nothing is started yet.

        Args:
            abouts: by node what it is.
            kinds: the nodes of each kind.
            every: whether every node has the plan to measure, or one of each kind.
        """
        self.options = options
        self.abouts = abouts
        self.names = node_names(abouts)
        self.files = RunFiles(store, {name: one.machine.name for name, one in abouts.items()})
        self.useless: set[str] = set()
        """Nodes that cannot measure."""
        self._store = store
        self._kinds = {kind: list(names) for kind, names in kinds.items()}
        self._every = every
        self._prepared: dict[str, Prepared] = {}
        self._plans: dict[str, list[Job]] = {}

    def close(self) -> None:
        """Close all files."""
        self.files.close()

    def prepare(self, prepare: Prepare, say: Say, *, resume: bool = False) -> list[Prepared]:
        """Have the nodes find out what to measure, and plan; return what they have found.

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
        while wanted:
            failed = set()
            for name, answer in prepare(wanted).items():
                if isinstance(answer, Exception):
                    say(f"{self.names[name]} does not measure: {answer}")
                    failed.add(name)
                else:
                    self._prepared[name] = self._of_its_plan(answer)
            self.useless |= failed
            wanted = [] if self._every else self._next_of(failed)
        if not self._prepared:
            raise OptionError("--ray: no node can measure what is asked for; each has said why")
        hold_many_files(2 * len(self._prepared))
        self._draw_plans()
        if resume:
            for name in self._prepared:
                self._go_on(name, say)
        return list(self._prepared.values())

    def measure(self, cluster: Cluster, stream: TextIO) -> list[Unmeasured]:
        """Have the plans measured; return what no node could measure, which has rows that say so.

        Raises:
            StoreError: a row cannot be written.
        """
        scheduler = Scheduler(self._members(), self._plans, expected_s=self._expected_s)
        with fleet_progress(stream, scheduler, self.names, self._expected_s) as shown:
            left = drive(scheduler, cluster, self._keep, shown)
        for one in left:
            result = self._without_answer(one.target, one.job, f"{NOT_MEASURED}{one.why}")
            self.files.append((one.target, one.target), result)
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
            runs = self._store.runs(self.abouts[names[0]].machine.name)
            head = read_head(runs[-1]) if runs else None
            if head is not None:
                names.sort(key=lambda name: self.abouts[name].host != head.node)

    def _next_of(self, failed: set[str]) -> list[str]:
        """Return for each node that cannot measure the next one of its kind."""
        following = []
        for names in self._kinds.values():
            left = [name for name in names if name not in self.useless]
            if left and failed & set(names):
                following.append(left[0])
        return following

    def _of_its_plan(self, prepared: Prepared) -> Prepared:
        hashed = plan_hash(prepared.cases, self.options)
        return replace(prepared, facts=replace(prepared.facts, plan=hashed))

    def _draw_plans(self) -> None:
        """Draw each node's plan; nodes with the same cases share it."""
        drawn: dict[tuple[Case, ...], list[Job]] = {}
        for name, prepared in self._prepared.items():
            if prepared.cases not in drawn:
                processes, seed = self.options.processes, self.options.seed
                drawn[prepared.cases] = plan(prepared.cases, processes, seed)
            self._plans[name] = drawn[prepared.cases]

    def _go_on(self, name: str, say: Say) -> None:
        """Take over the newest run of the node, or of its kind, and leave out what it has."""
        facts = self._prepared[name].facts
        host = facts.node if self._every else None
        machine = facts.machine.name
        path = earlier_run(self._store, machine, facts.plan, host, self._taken())
        if path is None:
            say(f"--resume: {self.names[name]} has no run of this plan yet")
            return
        earlier = open_interrupted(self._store, machine, str(path))
        jobs = self._plans[name]
        try:
            left = self._left(name, earlier, jobs)
        except BaseException:
            earlier.run_file.close()
            raise
        self._plans[name] = left
        say(f"{self.names[name]}: going on with {path}: {len(left)} of {len(jobs)} are left")

    def _taken(self) -> set[Path]:
        return set(self.files.paths().values())

    def _left(self, name: str, earlier: Interrupted, jobs: Sequence[Job]) -> list[Job]:
        """Return the jobs to measure still: in the same run, or in one of the node's own.

        A run of another host is not gone on with: the cases that are whole in it are left out.
        """
        prepared = self._prepared[name]
        facts = replace(prepared.facts, run=earlier.run_file.run)
        columns = expected(self.options, facts, prepared.found)
        if all(record.node == facts.node for record in earlier.records):
            earlier.go_on(prepared.cases, columns, jobs)
            self.files.go_on((name, name), earlier.run_file, list(earlier.records))
            return missing(jobs, earlier.records)

        def of_any_host(case: Case) -> dict[str, Any]:
            return {key: value for key, value in columns(case).items() if key != "node"}

        path = earlier.run_file.path
        check(path, earlier.records, prepared.cases, of_any_host, jobs)
        earlier.run_file.close()
        unfinished = {job.case for job in missing(jobs, earlier.records)}
        return [job for job in jobs if job.case in unfinished]

    def _members(self) -> list[Member]:
        return [
            Member(name=name, host=self.abouts[name].boot, kind=kind)
            for kind, names in self._kinds.items()
            for name in names
            if name not in self.useless
        ]

    def _expected_s(self, case: Case) -> float:
        return expected_s(case, self.options.time_budget_s, {})

    def _keep(self, assignment: Assignment, result: Result | Broken) -> Result:
        target, node = assignment.target, assignment.node
        if isinstance(result, Broken):
            result = self._without_answer(target, assignment.job, result.why)
        # a run that stands in for another is no plan of the node's own, to go on with
        hashed = self._prepared[target].facts.plan if target == node else None
        result = replace(result, record=replace(result.record, plan=hashed))
        self.files.append((target, node), result)
        return result

    def _without_answer(self, target: str, job: Job, why: str) -> Result:
        return unmeasured(job, self.options, self._prepared[target].facts, why)
