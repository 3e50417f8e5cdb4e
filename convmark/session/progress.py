"""Progress display: live lines on a terminal, plain lines elsewhere.

A lane is what goes on in one place: on this machine, on a node of a fleet, or in a comparison.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TextIO

from convmark.core.case import Case
from convmark.core.fitting import terminal_width, wrapped
from convmark.core.tasks import TASKS
from convmark.core.text import counted, duration_text, listed, seconds_text, shown
from convmark.results.record import Record
from convmark.session.facts import Job

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, TaskID

LEAST_NAME = 12
"""Characters of a case's name that stay on a narrow terminal."""

Clock = Callable[[], float]
Guess = Callable[[Case], float]


def narrowed(text: str, width: int) -> str:
    """Return a line of at most so many characters: the name that it begins with is shortened."""
    name, space, rest = text.partition(" ")
    room = max(LEAST_NAME, width - len(space + rest))
    if len(name) > room:
        kept = room // 2
        name = f"{name[: room - kept - 1]}…{name[-kept:]}"
    line = f"{name}{space}{rest}"
    return line if len(line) <= width else f"{line[: max(0, width - 1)]}…"


class Display(contextlib.AbstractContextManager["Display"]):
    """Lanes on a terminal, or lines on any other stream; a context manager."""

    def __init__(self, stream: TextIO | None, *, counted: bool = True, named: bool = False) -> None:
        """Begin; nothing is shown yet.

        Args:
            stream: None shows nothing.
            counted: whether a lane has a number of steps, and not a text alone.
            named: whether lanes have names; these stay on the terminal at the end.
        """
        self.live = stream is not None and stream.isatty()
        self._stream = stream
        self._counted, self._named = counted, named
        self._bars: Progress | None = None
        self._lanes: dict[str, TaskID] = {}

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the lanes; harmless when done twice."""
        if self._bars is not None:
            self._bars.stop()

    def update(
        self, lane: str, text: str, *, done: int = 0, total: int | None = None, left: str = ""
    ) -> None:
        """Renew a lane; off a terminal nothing is shown."""
        if not self.live:
            return
        if self._bars is None:
            self._bars = self._started()
        if lane not in self._lanes:
            self._lanes[lane] = self._bars.add_task("", total=total, lane=shown(lane), left="")
        self._bars.update(
            self._lanes[lane], completed=done, total=total, left=left, description=shown(text)
        )

    def line(self, text: str) -> None:
        """Print a line, as wide as the terminal at most, above the lanes."""
        lines = wrapped(shown(text), indent="  ", width=terminal_width(self._stream))
        if self._bars is not None:
            self._bars.console.print(lines, markup=False, highlight=False, soft_wrap=True)
        elif self._stream is not None and not self.live:
            self._stream.write(f"{lines}\n")
            self._stream.flush()

    def newest(self, text: str) -> None:
        """Show a text in place of the last one; off a terminal each is a line."""
        if self.live:
            self.update("", text)
        else:
            self.line(text)

    def _started(self) -> Progress:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
        from rich.table import Column

        whole = Column(no_wrap=True)  # rich narrows the others first
        columns: list[ProgressColumn] = [SpinnerColumn(table_column=whole)]
        if self._counted:
            left = TextColumn("{task.fields[left]}", markup=False)
            done = MofNCompleteColumn(table_column=whole)
            columns = [done, BarColumn(bar_width=20, table_column=whole), left]
        if self._named:
            columns.insert(0, TextColumn("{task.fields[lane]}", markup=False))
        bars = Progress(
            *columns,
            _texts(),
            console=Console(file=self._stream),
            transient=not self._named,
            refresh_per_second=2,  # each refresh takes a little of the machine from the measured
        )
        bars.start()
        return bars


def _texts() -> ProgressColumn:
    """Return the column of the lanes' texts, which alone gives way where a line is too long."""
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.measure import Measurement
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class Narrowing:
        def __init__(self, text: str) -> None:
            self.text = text

        def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
            return Measurement(1, max(1, len(self.text))).with_maximum(options.max_width)

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            yield Text(narrowed(self.text, options.max_width), no_wrap=True)

    class Texts(ProgressColumn):
        def render(self, task: Task) -> Narrowing:
            return Narrowing(task.description)

    return Texts()


class TimeLeft:
    """Estimates the seconds left from how long each case, or those like it, have taken so far."""

    def __init__(
        self,
        jobs: Sequence[Job],
        guess_s: Guess,
        is_known: Callable[[Case], bool] = lambda case: False,
    ) -> None:
        """Begin with all jobs left.

        Args:
            is_known: whether earlier rows tell of a case; the load of the moment, by which the
                others are guessed, may be over, and then these alone are guessed wrong.
        """
        self._left = list(jobs)
        self._guess_s = guess_s
        self._is_known = is_known
        self._took_s: dict[Case, float] = {}

    def ended(self, job: Job, seconds: float) -> None:
        self._left.remove(job)
        self._took_s[job.case] = seconds

    def seconds(self) -> float:
        """Return the estimate: a case's own last time, else a guess times that of cases like it."""
        factors = {one: self._factor(*one) for one in {self._kind(job.case) for job in self._left}}
        return sum(
            self._took_s.get(job.case, factors[self._kind(job.case)] * self._guessed_s(job.case))
            for job in self._left
        )

    def _kind(self, case: Case) -> tuple[str, bool]:
        return case.task, self._is_known(case)

    def _guessed_s(self, case: Case) -> float:
        return TASKS[case.task].guess_s or self._guess_s(case)

    def _factor(self, task: str, is_known: bool) -> float:
        """Return how many times as long as guessed the cases took that are like those of a task.

        Those that were guessed by the same tell it, and where none has ended the others.
        """
        every = [case for case in self._took_s if _alike(case.task, task)]
        known = [case for case in every if self._is_known(case) == is_known] or every
        guessed_s = sum(map(self._guessed_s, known))
        return sum(self._took_s[case] for case in known) / guessed_s if guessed_s else 1.0


def _alike(task: str, other: str) -> bool:
    """Whether processes of the two tasks take about as long."""
    return task == other or not (TASKS[task].guess_s or TASKS[other].guess_s)


class RunProgress(contextlib.AbstractContextManager["RunProgress"]):
    """Shows how the jobs of one run go on: one lane, or a line per process that has ended."""

    def __init__(
        self,
        stream: TextIO | None,
        guess_s: Guess = lambda case: 0.0,
        clock: Clock = time.monotonic,
        *,
        most_s: Guess | None = None,
        learn: Callable[[Record], None] = lambda record: None,
        is_guess: Callable[[Case], bool] = lambda case: False,
        is_known: Callable[[Case], bool] = lambda case: False,
    ) -> None:
        """Begin; nothing is shown yet.

        Args:
            stream: None shows nothing.
            guess_s: how long a process of a case takes, until one has ended: at least, where
                nothing is known of the size of its model.
            most_s: and at most; the same where it is left out.
            learn: is given each row, before what is left is guessed again.
            is_guess: whether nothing is known of the size of a case's model.
            is_known: as of `TimeLeft`.
        """
        self._display = Display(stream)
        self._guesses = (guess_s, most_s or guess_s)
        self._learn = learn
        self._is_guess = is_guess
        self._is_known = is_known
        self._clock = clock
        self._began_s = 0.0
        self._over = self._total = 0
        self._left: Sequence[TimeLeft] = ()

    def __exit__(self, *error: object) -> None:
        self._display.close()

    def planned(self, jobs: Sequence[Job]) -> None:
        """Note the jobs that will be run, in order."""
        orders = [job.order for job in jobs]
        at_the_end = orders == list(range(orders[0], orders[0] + len(jobs))) if jobs else False
        self._over = orders[0] - 1 if at_the_end else 0  # of a run that goes on
        self._total = self._over + len(jobs)
        self._left = [TimeLeft(jobs, guess_s, self._is_known) for guess_s in self._guesses]
        self._update("")
        if not self._display.live:
            unknown = [job.case.model for job in jobs if self._is_guess(job.case)]
            named = listed(list(dict.fromkeys(unknown)), 1)
            guess = f": the size of {named} is known after its first process" if unknown else ""
            count = counted(len(jobs), "process")
            self._display.line(f"convmark: {count} to measure, about {self._left_text()}{guess}")

    def began(self, job: Job) -> None:
        self._began_s = self._clock()

    def phase(self, job: Job, phase: str) -> None:
        """Show that the running job has come to a phase."""
        self._update(f"{job.case.name} #{job.process} {phase}", self._clock() - self._began_s)
        epoch_ended = phase.startswith("epoch") and "ended" in phase
        if epoch_ended and not self._display.live:  # minutes apart, unlike other phases
            self._display.line(f"{job.case.name} #{job.process}: {phase}")

    def ended(self, job: Job, record: Record) -> None:
        """Show that a job is over and its row on the disk; a lane leaves a line for a failure."""
        extra_s = (record.sustained_s or 0.0) + (record.latency_limit_search_s or 0.0)
        self._learn(record)
        for left in self._left:
            left.ended(job, self._clock() - self._began_s - extra_s)
        self._over += 1
        line = f"{job.case.name} #{job.process}: {outcome(record)}"
        self._update("")
        if not self._display.live:
            count = f"[{self._over:>{len(str(self._total))}}/{self._total}]"
            self._display.line(f"{count} {line}, about {self._left_text()} left")
        elif not record.measured:
            self._display.line(line)

    def _update(self, text: str, since_s: float = 0.0) -> None:
        done, total, left = self._over, self._total, self._left_text(since_s)
        self._display.update("", text, done=done, total=total, left=f"{left} left")

    def _left_text(self, since_s: float = 0.0) -> str:
        """Return how long it still takes, from and to where a model's size is not known.

        Args:
            since_s: since a job has begun.
        """
        ends = [duration_text(left.seconds() - since_s) for left in self._left]
        return " to ".join(dict.fromkeys(ends))


def outcome(record: Record) -> str:
    """Say what came of one process."""
    if not record.measured:
        return f"{record.status}: {record.error}"
    why = f": {record.unsteady}" if record.unsteady else ""
    note = "" if record.status == "ok" else f" ({record.status}{why})"
    task = TASKS[record.task]
    value = getattr(record, task.headline)
    if task.outcome:
        said = task.outcome.format(value)
    else:
        said = f"{seconds_text(value) or 'no time of'} a step"
    return f"{said}{note}"
