"""How a run's progress is shown: a live line on a terminal, a plain line per process elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from convmark.core.tasks import TASKS
from convmark.core.text import shown
from convmark.core.units import duration_text, seconds_text
from convmark.results.record import Record
from convmark.session.plan import Job

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

__all__ = ["LiveProgress", "PlainProgress", "Silence", "TimeLeft", "on"]


class TimeLeft:
    """Estimates the seconds left from how long each case, or its task, has taken so far."""

    def __init__(self, jobs: Sequence[Job], guess_s: float) -> None:
        self._left = list(jobs)
        self._guess_s = guess_s
        self._took_s: dict[Any, float] = {}

    def ended(self, job: Job, seconds: float) -> None:
        """Take note that the job is over."""
        self._left.remove(job)
        self._took_s[job.case] = seconds

    def seconds(self) -> float:
        """Return the estimate: a case's own last time, else its task's mean, else a guess."""
        usual_s = {task: self._usual_s(task) for task in {job.case.task for job in self._left}}
        return sum(self._took_s.get(job.case, usual_s[job.case.task]) for job in self._left)

    def _usual_s(self, task: str) -> float:
        known = [seconds for case, seconds in self._took_s.items() if _alike(case.task, task)]
        return sum(known) / len(known) if known else TASKS[task].guess_s or self._guess_s


class Silence:
    """Shows nothing."""

    def __enter__(self) -> Silence:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to end."""

    def planned(self, jobs: Sequence[Job]) -> None:
        """The jobs that will be run, in order."""

    def began(self, job: Job) -> None:
        """A job was begun."""

    def phase(self, job: Job, phase: str) -> None:
        """The running job has come to a phase."""

    def ended(self, job: Job, record: Record) -> None:
        """A job is over; its row is on the disk."""


class PlainProgress(Silence):
    """A line per process that has ended."""

    def __init__(
        self,
        write_line: Callable[[str], None],
        guess_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write_line = write_line
        self._guess_s = guess_s
        self._clock = clock
        self._total = 0
        self._over = 0
        self._began_s = 0.0
        self._left = TimeLeft((), guess_s)

    def planned(self, jobs: Sequence[Job]) -> None:
        orders = [job.order for job in jobs]
        at_the_end = orders == list(range(orders[0], orders[0] + len(jobs))) if jobs else False
        self._over = orders[0] - 1 if at_the_end else 0  # of a run that goes on
        self._total = self._over + len(jobs)
        self._left = TimeLeft(jobs, self._guess_s)
        self._write_line(
            f"convmark: {len(jobs)} processes to measure, about "
            f"{duration_text(self._left.seconds())}"
        )

    def began(self, job: Job) -> None:
        self._began_s = self._clock()

    def phase(self, job: Job, phase: str) -> None:
        if phase.startswith("epoch") and "ended" in phase:  # minutes apart, unlike other phases
            self._write_line(f"{job.case.name} #{job.process}: {phase}")

    def ended(self, job: Job, record: Record) -> None:
        self._left.ended(job, self._clock() - self._began_s)
        self._over += 1
        line = (
            f"[{self._over:>{len(str(self._total))}}/{self._total}] {job.case.name} "
            f"#{job.process}: {_outcome(record)}, about {duration_text(self._left.seconds())} left"
        )
        self._write_line(shown(line))


class LiveProgress(Silence):
    """One line that follows the run: what is measured, how far, how long still."""

    def __init__(
        self, stream: TextIO, guess_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._guess_s = guess_s
        self._clock = clock
        self._began_s = 0.0
        self._left = TimeLeft((), guess_s)
        self._bar: RichProgress | None = None
        self._task: Any = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def planned(self, jobs: Sequence[Job]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._left = TimeLeft(jobs, self._guess_s)
        self._bar = Progress(
            MofNCompleteColumn(),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[left]} left"),
            TextColumn("{task.description}", markup=False),
            console=Console(file=self._stream),
            transient=True,
            refresh_per_second=2,  # each refresh takes a little of the machine from the measured
        )
        left = duration_text(self._left.seconds())
        self._task = self._bar.add_task("", total=len(jobs), left=left)
        self._bar.start()

    def began(self, job: Job) -> None:
        self._began_s = self._clock()

    def phase(self, job: Job, phase: str) -> None:
        if self._bar is None:
            return
        left_s = self._left.seconds() - (self._clock() - self._began_s)
        self._bar.update(
            self._task,
            description=shown(f"{job.case.name} #{job.process} {phase}"),
            left=duration_text(left_s),
        )

    def ended(self, job: Job, record: Record) -> None:
        self._left.ended(job, self._clock() - self._began_s)
        if self._bar is None:
            return
        self._bar.advance(self._task)
        if not record.measured:
            line = shown(f"{job.case.name} #{job.process}: {_outcome(record)}")
            self._bar.console.print(line, markup=False, highlight=False)


def on(stream: TextIO, guess_s: float) -> Silence:
    """Return the progress that fits the stream."""
    if stream.isatty():
        return LiveProgress(stream, guess_s)

    def write_line(line: str) -> None:
        stream.write(f"{line}\n")
        stream.flush()

    return PlainProgress(write_line, guess_s)


def _alike(task: str, other: str) -> bool:
    """Whether processes of the two tasks take about as long."""
    return task == other or not (TASKS[task].guess_s or TASKS[other].guess_s)


def _outcome(record: Record) -> str:
    if record.measured:
        why = f": {record.unsteady}" if record.unsteady else ""
        note = "" if record.status == "ok" else f" ({record.status}{why})"
        task = TASKS[record.task]
        value = getattr(record, task.headline)
        said = task.outcome.format(value) if task.outcome else f"{seconds_text(value)} a step"
        return f"{said}{note}"
    return f"{record.status}: {record.error}"
