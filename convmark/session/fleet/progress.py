"""The progress of a fleet's run: a live line per node on a terminal, else a line per process."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TextIO

from convmark.core.case import Case
from convmark.core.text import duration_text
from convmark.session.fleet.scheduler import Assignment, Scheduler
from convmark.session.progress import Clock, Display, outcome
from convmark.session.result import Result

__all__ = ["FleetProgress"]


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
