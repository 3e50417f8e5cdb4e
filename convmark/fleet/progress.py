"""How a fleet's run is shown: a live line per node on a terminal, a line per process elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from convmark.core.case import Case
from convmark.core.units import duration_text, seconds_text
from convmark.fleet.scheduler import Assignment, Scheduler
from convmark.session.result import Result

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

__all__ = ["FleetProgress", "LiveFleet", "PlainFleet", "fleet_progress"]

Clock = Callable[[], float]


class FleetProgress:
    """Counts what each node has done and estimates what it still needs; shows nothing."""

    def __init__(
        self,
        scheduler: Scheduler,
        names: Mapping[str, str],
        expected_s: Callable[[Case], float],
        clock: Clock = time.monotonic,
    ) -> None:
        """Begin.

        Args:
            names: what each node is called on the screen.
            expected_s: how long a process of a case takes, until a node has shown how long it does.
        """
        self._scheduler = scheduler
        self._names = names
        self._expected_s = expected_s
        self._clock = clock
        self._began_s: dict[str, float] = {}
        self._done: Counter[str] = Counter()
        self._took_s: Counter[str] = Counter()
        self._promised_s: Counter[str] = Counter()

    def __enter__(self) -> FleetProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to end."""

    def began(self, assignment: Assignment) -> None:
        """A node has begun a job."""
        self._began_s[assignment.node] = self._clock()

    def ended(self, assignment: Assignment, result: Result) -> None:
        """A node's job has its row."""
        node = assignment.node
        self._done[node] += 1
        self._took_s[node] += self._clock() - self._began_s.pop(node)  # type: ignore[assignment]
        self._promised_s[node] += self._expected_s(assignment.job.case)  # type: ignore[assignment]

    def lost(self, node: str, why: str) -> None:
        """A node will measure nothing more."""
        self._began_s.pop(node, None)

    def left_s(self, node: str) -> float:
        """Return the seconds that the node needs: what is expected, by how it has kept to it."""
        expected = sum(self._expected_s(job.case) for job in self._scheduler.left(node))
        promised = self._promised_s[node]
        pace = self._took_s[node] / promised if promised else 1.0
        running = self._clock() - self._began_s[node] if node in self._began_s else 0.0
        return max(0.0, expected * pace - running)

    def _count(self, node: str) -> tuple[int, int]:
        """Return how many jobs the node has done, and how many it will have in the end."""
        done = self._done[node]
        return done, done + len(self._scheduler.left(node))


class PlainFleet(FleetProgress):
    """A line per process that has ended, and one per node that is lost."""

    write_line: Callable[[str], None] = print

    def ended(self, assignment: Assignment, result: Result) -> None:
        super().ended(assignment, result)
        job = assignment.job
        node = assignment.node
        # the job that has ended is not the scheduler's any more
        done, total = self._count(node)
        stands_in = "" if assignment.target == node else f" for {self._names[assignment.target]}"
        self.write_line(
            f"{self._names[node]} [{done:>{len(str(total))}}/{total}]{stands_in} {job.case.name} "
            f"#{job.process}: {_outcome(result)}, about {duration_text(self.left_s(node))} left"
        )

    def lost(self, node: str, why: str) -> None:
        super().lost(node, why)
        self.write_line(f"{self._names[node]}: lost: {why}")


class LiveFleet(FleetProgress):
    """One line per node: how far it is, how long still, and what it measures."""

    def __init__(self, stream: TextIO, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._stream = stream
        self._bar: RichProgress | None = None
        self._lines: dict[str, Any] = {}

    def __enter__(self) -> LiveFleet:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._bar = Progress(
            TextColumn("{task.fields[node]}", markup=False),
            MofNCompleteColumn(),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[left]}", markup=False),
            TextColumn("{task.description}", markup=False),
            console=Console(file=self._stream),
            refresh_per_second=2,
        )
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def began(self, assignment: Assignment) -> None:
        super().began(assignment)
        self._update(assignment.node, f"{assignment.job.case.name} #{assignment.job.process}")

    def ended(self, assignment: Assignment, result: Result) -> None:
        super().ended(assignment, result)
        self._update(assignment.node, "")
        if self._bar is not None and not result.record.measured:
            job = assignment.job
            text = f"{self._names[assignment.node]} {job.case.name} #{job.process}: "
            self._bar.console.print(text + _outcome(result), markup=False, highlight=False)

    def lost(self, node: str, why: str) -> None:
        super().lost(node, why)
        self._update(node, f"lost: {why}")

    def _update(self, node: str, text: str) -> None:
        if self._bar is None:
            return
        done, total = self._count(node)
        left = f"{duration_text(self.left_s(node))} left" if total > done else ""
        if node not in self._lines:
            name = self._names[node]
            self._lines[node] = self._bar.add_task(text, total=total, node=name, left=left)
        self._bar.update(
            self._lines[node], completed=done, total=total, left=left, description=text
        )


def fleet_progress(
    stream: TextIO,
    scheduler: Scheduler,
    names: Mapping[str, str],
    expected_s: Callable[[Case], float],
) -> FleetProgress:
    """Return the progress that fits the stream."""
    if stream.isatty():
        return LiveFleet(stream, scheduler, names, expected_s)
    shown = PlainFleet(scheduler, names, expected_s)

    def write_line(line: str) -> None:
        stream.write(f"{line}\n")
        stream.flush()

    shown.write_line = write_line
    return shown


def _outcome(result: Result) -> str:
    record = result.record
    if record.measured:
        note = "" if record.status == "ok" else f" ({record.status})"
        return f"{seconds_text(record.step_time_p50_s)} a step{note}"
    return f"{record.status}: {record.error}"
