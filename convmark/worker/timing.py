"""The timed loops: warm-up, steps, windows and rounds. Every timed step ends in a device sync.

Backend, step, clocks and seeds are handed in, so a test can run each loop on a clock of its own.
Where several processes share a case, `agreed` gives all of them the slowest one's seconds: what a
loop decides by its times, such as whether to go on, all of them decide alike.
"""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

MIN_WARM_UP_STEPS = 10
UNSTEADY_STEPS = 20
"""Warm-up goes on past its budget until this many steps: fewer cannot tell noise from drift."""
LEAST_WARM_UP_S = 0.25
"""Of steps of inference: those of a graph of TensorFlow become a fifth faster in the first quarter
of a second, too slowly for ten to tell."""
STEADY_WITHIN = 0.05
"""Two halves of the warm-up's later half agree within this share."""

MIN_STEPS, WANTED_STEPS, MAX_STEPS = 30, 100, 1000
"""30 always, 100 where half the budget allows, 1,000 (for p99) where it allows all of them."""

MIN_WINDOWS = 5
WINDOW_S = 0.072
"""What a window is to take."""
MIN_WINDOW_S = WINDOW_S / 2.4
"""The mean of a case's windows, below which all are dropped and longer ones taken. It is far below
what they are to take: where a quick moment has them dropped and a slow one has not, those that are
left read slow."""

MIN_ROUNDS, LOOKED_AT_ROUNDS = 10, 40
"""Ten always; from forty on the rounds end once their mean log ratio is known well enough."""
ENOUGH_ERROR = 0.005
"""Of that mean: processes of identical code differ by 0.6 to 3 %, so less would tell nothing."""
_LOOKED_AT_AGAIN = 1.25

Step = Callable[[], Any]
Clock = Callable[[], float]

median = statistics.median


@dataclass(frozen=True)
class WarmUp:
    """How many steps were run and dropped, and whether the step time had become steady."""

    steps: int
    steady: bool
    times_s: list[float] = field(default_factory=list, compare=False)


@dataclass(frozen=True)
class Windows:
    """Wall seconds of windows of `steps` consecutive steps with one synchronisation at the end."""

    steps: int
    times_s: list[float]
    run_steps: int = field(default=0, compare=False)
    """All steps that were run in search of windows long enough, these windows' own included."""


@dataclass
class Rounds:
    """Wall and process CPU seconds of one case step and one reference step per round."""

    case_wall_s: list[float] = field(default_factory=list)
    case_cpu_s: list[float] = field(default_factory=list)
    reference_wall_s: list[float] = field(default_factory=list)
    reference_cpu_s: list[float] = field(default_factory=list)

    def lists(self) -> dict[str, list[float]]:
        """The four lists by name, to the nanosecond."""
        return {
            name: [round(seconds, 9) for seconds in times] for name, times in asdict(self).items()
        }


@dataclass
class Turn:
    """Wall and process CPU seconds of consecutive single steps, each ended by a sync."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    whole: tuple[float, float, int] = (0.0, 0.0, 0)
    """Wall and CPU seconds of all its steps, the dropped ones too, and their number."""
    leaves_threads: bool = False
    """Whether threads of Python that it has started go on after it, into the other code's turn."""

    def lists(self) -> dict[str, list[float]]:
        """Both lists by name, to the nanosecond."""
        times = {"wall_s": self.wall_s, "cpu_s": self.cpu_s}
        return {name: [round(seconds, 9) for seconds in one] for name, one in times.items()}


class Pulse:
    """A sign of life at most once a second, given between steps, never inside one."""

    def __init__(self, report: Callable[[str], None], clock: Clock) -> None:
        self._report = report
        self._clock = clock
        self._next_s = 0.0

    def beat(self, phase: str) -> None:
        """Report the phase when a second has passed since the last report."""
        now = self._clock()
        if now >= self._next_s:
            self._next_s = now + 1.0
            self._report(phase)


def quiet_collector() -> None:
    """Collect garbage now, and have the collector look from here on at later objects alone.

    It stays on: the layers of a step that runs eagerly leave their results in reference cycles,
    which would fill the memory. The objects that are there now take a tenth of a second to search.
    """
    gc.collect()
    gc.freeze()
    gc.collect()  # it waits until objects have grown by a quarter of those it last saw: now none


def timed_step(step: Step, backend: Any, clock: Clock = time.perf_counter) -> tuple[float, Any]:
    """Return the step time, seconds until the device has finished, and the step's result."""
    began = clock()
    token = step()
    backend.synchronise(token)
    return backend.agreed(clock() - began), token


def warm_up(
    step: Step,
    backend: Any,
    budget_s: float,
    pulse: Pulse,
    see: Callable[[int, Any, float], None] = lambda number, token, seconds: None,
    clock: Clock = time.perf_counter,
    *,
    least_s: float = 0.0,
) -> WarmUp:
    """Run steps until the step time is steady, or the budget and the least steps are spent.

    Args:
        budget_s: seconds; warm-up ends unsteady beyond it, but never before 20 steps.
        see: called with the number of each step (from 1), its result and its seconds, outside the
            timing.
        least_s: seconds of steps before which it does not end, steady or not.
    """
    times_s: list[float] = []
    spent_s, look = 0.0, MIN_WARM_UP_STEPS
    while True:
        seconds, token = timed_step(step, backend, clock)
        times_s.append(seconds)
        spent_s += seconds
        see(len(times_s), token, seconds)
        pulse.beat("warm-up")
        count = len(times_s)
        if count < MIN_WARM_UP_STEPS:
            continue
        if count >= look and spent_s >= least_s:
            if is_steady(times_s):
                return WarmUp(count, True, times_s)
            look = count + max(5, count // 10)  # each look sorts all of them
        if count >= UNSTEADY_STEPS and spent_s >= budget_s:
            return WarmUp(count, False, times_s)


def is_steady(times_s: list[float]) -> bool:
    """Whether the two halves of the later half agree within 5 %, by their medians."""
    later = times_s[len(times_s) // 2 :]
    middle = len(later) // 2
    first, second = median(later[:middle]), median(later[middle:])
    return abs(first - second) <= STEADY_WITHIN * min(first, second)


def steps(
    step: Step,
    backend: Any,
    budget_s: float,
    pulse: Pulse,
    clock: Clock = time.perf_counter,
    cpu_clock: Clock = time.process_time,
    see: Callable[[int, Any], bool] = lambda number, token: False,
) -> Turn:
    """Return the times of steps of the case alone, back to back, each ended by a sync.

    Args:
        see: called with the number of each step (from 1) and its result, outside the timing. Where
            it says that it has looked at the result, a step that is not timed follows.
    """
    taken = Turn()
    spent_s = 0.0
    synchronise, agreed = backend.synchronise, backend.agreed  # a look-up shows in steps of 20 us
    while not enough_steps(len(taken.wall_s), spent_s, budget_s):
        cpu_began, began = cpu_clock(), clock()
        token = step()
        synchronise(token)
        seconds = clock() - began
        taken.cpu_s.append(cpu_clock() - cpu_began)
        seconds = agreed(seconds)
        taken.wall_s.append(seconds)
        spent_s += seconds
        if see(len(taken.wall_s), token):
            synchronise(step())
        del token  # its memory would be held beside that of the next step's result
        pulse.beat("steps")
    return taken


def enough_steps(count: float, spent_s: float, budget_s: float) -> bool:
    """Whether no step follows so many, which have taken so many seconds together."""
    if count < MIN_STEPS:
        return False
    if count < WANTED_STEPS:
        return spent_s >= budget_s / 2
    return count >= MAX_STEPS or spent_s / count * MAX_STEPS > budget_s / 2


def windows(
    step: Step,
    backend: Any,
    step_time_s: float,
    pulse: Pulse,
    clock: Clock = time.perf_counter,
    *,
    least_s: float = 0.0,
    number: int = MIN_WINDOWS,
) -> Windows:
    """Return this many windows of at least `MIN_WINDOW_S` in the mean.

    Args:
        step_time_s: a quick step's seconds, from which the window's length in steps follows.
        least_s: seconds that all windows together take at least.
    """
    count = max(1, -int(-WINDOW_S // max(step_time_s, 1e-6)))
    run_steps = 0
    while True:
        times_s: list[float] = []
        mean_s = math.inf
        while len(times_s) < number or (mean_s >= MIN_WINDOW_S and sum(times_s) < least_s):
            began = clock()
            for _ in range(count):
                token = step()
            backend.synchronise(token)
            times_s.append(backend.agreed(clock() - began))
            run_steps += count
            mean_s = sum(times_s) / len(times_s)
            pulse.beat("windows")
        if mean_s >= MIN_WINDOW_S:
            return Windows(count, times_s, run_steps)
        count = max(count + 1, -int(-count * WINDOW_S // mean_s))


def rounds(
    step: Step,
    reference_step: Step,
    backend: Any,
    budget_s: float,
    order: random.Random,
    pulse: Pulse,
    clock: Clock = time.perf_counter,
    cpu_clock: Clock = time.process_time,
) -> Rounds:
    """Time one case step and one reference step a round, in random order, until the budget ends.

    Or until the ratio of the two is known to `ENOUGH_ERROR`. The first round pays for the
    reference's own compilation and is dropped with nine others.
    """
    for _ in range(MIN_WARM_UP_STEPS):
        backend.synchronise(reference_step())
        pulse.beat("rounds")
    result = Rounds()
    contestants = [
        (step, result.case_wall_s, result.case_cpu_s),
        (reference_step, result.reference_wall_s, result.reference_cpu_s),
    ]
    for run, _, _ in contestants:
        backend.synchronise(run())
    spent_s, look = 0.0, LOOKED_AT_ROUNDS
    while spent_s < budget_s or len(result.case_wall_s) < MIN_ROUNDS:
        if len(result.case_wall_s) == look:
            if mean_log_ratio(result.case_wall_s, result.reference_wall_s)[1] <= ENOUGH_ERROR:
                break
            look = math.ceil(look * _LOOKED_AT_AGAIN)
        for run, wall_s, cpu_s in order.sample(contestants, 2):
            gc.collect()  # what the other has left
            cpu_began, began = cpu_clock(), clock()
            backend.synchronise(run())
            seconds = clock() - began
            cpu_s.append(cpu_clock() - cpu_began)
            seconds = backend.agreed(seconds)
            wall_s.append(seconds)
            spent_s += seconds
        pulse.beat("rounds")
    return result


def mean_log_ratio(times_s: list[float], others_s: list[float]) -> tuple[float, float]:
    """Return the 20 % trimmed mean of ln(time / other), pair by pair, and its standard error.

    Source:
        Yuen (1974).
    """
    ordered = sorted(map(_log_ratio, times_s, others_s))
    cut = len(ordered) // 5
    kept = len(ordered) - 2 * cut
    low, high = ordered[cut], ordered[len(ordered) - cut - 1]
    clipped = [min(max(value, low), high) for value in ordered]
    mean = math.fsum(clipped) / len(clipped)
    squares = math.fsum((value - mean) ** 2 for value in clipped)
    error = math.sqrt(squares / (kept * (kept - 1))) if kept > 1 else math.inf
    return math.fsum(ordered[cut : cut + kept]) / kept, error


def _log_ratio(seconds: float, others_s: float) -> float:
    return math.log(max(seconds, 1e-9) / max(others_s, 1e-9))
