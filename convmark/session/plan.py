"""A run's plan: all processes of all cases, in order."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from convmark.core.case import Case
from convmark.session import learning

__all__ = ["Job", "plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One process of one case, at its place in the plan."""

    case: Case
    process: int
    order: int
    seed: int | None = None
    """Of the task accuracy, whose processes have a seed each."""


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
                jobs.append(Job(case=case, process=process, order=place, seed=its_seed))
    return jobs
