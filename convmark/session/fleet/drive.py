"""Executes a fleet's plan: starts what the scheduler assigns, and saves results at once.

The cluster is handed in: a real one, or one that exists as numbers alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from convmark.session.fleet.scheduler import Assignment, Scheduler, Unmeasured

__all__ = ["Cluster", "Event", "JobEnded", "NodeLost", "ProcessEnded", "drive"]


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
        """Have the node measure the job; what comes of it is an event."""

    def events(self) -> list[Event]:
        """Wait for what has happened; nothing where nothing will."""


class FleetObserver(Protocol):
    """Is told how it goes on."""

    def began(self, assignment: Assignment) -> None:
        """A node has begun a job."""

    def ended(self, assignment: Assignment, result: Any) -> None:
        """A node's job has its result."""

    def lost(self, node: str, why: str) -> None:
        """A node no longer answers."""


def drive(
    scheduler: Scheduler,
    cluster: Cluster,
    keep: Callable[[Assignment, Any], Any],
    shown: FleetObserver,
) -> list[Unmeasured]:
    """Have all plans measured; return what no node could measure.

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
