"""Alternating steps: warm-up of all codes, then one turn of each per round.

The first steps after another model's step run cold, which distorts steps shorter than a few
milliseconds. Such a step's turn is as many steps as last some 5 ms, after a few that are dropped.
The steps may be those of one process (`worker.duet`) or of a process each, which the harness has
take turns (`lockstep.processes`); clocks and the order are handed in.
"""

from __future__ import annotations

import gc
import math
import random
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from convmark.worker.timing import Clock, Step, Turn, is_steady, mean_log_ratio

SHORT_S = 0.0025
"""Seconds of a step from which on a turn is one step, where all codes share a process."""
LONG_APART_S = 0.01
"""The same where each has its own; one step before it is dropped."""
MIN_STEPS, LEAST_STEPS = 10, 4
"""Of each code before the timed turns: until it is steady, and once the budget is spent."""
TURN_S, SETTLING_TURN_S = 0.005, 0.01
"""Seconds that the timed steps of a turn last where a step is short; before the steps settle."""
MIN_ROUNDS = 6
LEAST_S = 0.15
"""Seconds of turns that are always taken of a build."""
BUILDS_DIFFER = 0.04
"""Log ratios of two builds that lie further apart differ by more than their turns explain."""
BUSY_CPUS = 0.3
"""A code that keeps so many CPUs busy while it takes no step has threads or processes at work."""
HELD_UP_S = 0.2
"""A turn ends then, however few of its steps have been taken."""
MIN_DROPPED, MIN_DROPPED_S = 3, 0.001
"""Steps and seconds of a turn that are dropped. A turn's first step takes 6 to 12 % longer than its
later ones, the third 1 to 2 %; from the third on a change of 20 % is seen whole, within 1 %."""


class Side(Protocol):
    """One of the codes that take turns."""

    def turn(self, steps: int, dropped: int) -> Turn:
        """Take the steps to be dropped, then time the others, one by one; a turn may end early."""


@dataclass(frozen=True)
class Turns:
    """Wall and process CPU seconds of one step of each code, round by round, by the code's name."""

    steps: int
    """Timed steps of a turn, whose medians count; fewer where the machine was held up."""
    dropped: int
    """Steps before them that were not timed."""
    wall_s: dict[str, list[float]] = field(default_factory=dict)
    cpu_s: dict[str, list[float]] = field(default_factory=dict)
    whole: dict[str, list[tuple[float, float, int]]] = field(default_factory=dict)
    """As of `Turn`: the medians pass over work that is done in a few steps of many."""
    left: dict[str, int] = field(default_factory=dict)
    """How many turns have left threads at work, of a code with any."""

    def fields(self) -> dict[str, Any]:
        """All of it for an event, to the nanosecond; of all steps the means."""
        lists = {
            f"{name}_{clock}": [round(seconds, 9) for seconds in times]
            for clock, found in (("wall_s", self.wall_s), ("cpu_s", self.cpu_s))
            for name, times in found.items()
        }
        means = {}
        for name, turns in self.whole.items():
            if steps := sum(count for *_, count in turns):
                wall_s, cpu_s = (math.fsum(turn[clock] for turn in turns) for clock in (0, 1))
                means[f"{name}_mean_wall_s"] = round(wall_s / steps, 9)
                means[f"{name}_mean_cpu_s"] = round(cpu_s / steps, 9)
        left = {f"{name}_left": count / len(self.wall_s[name]) for name, count in self.left.items()}
        return {"steps": self.steps, "dropped": self.dropped, **lists, **means, **left}

    def log_ratios(self) -> list[float]:
        """The mean ln(other / first) of each other code by wall time, trimmed by 20 %."""
        one, *others = self.wall_s.values()
        return [mean_log_ratio(other, one)[0] for other in others]


def settled_step_times(
    contenders: Mapping[str, Side],
    budget_s: float,
    order: random.Random,
    beat: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Let all take short turns until each is steady; return the step time of each, seconds.

    Args:
        budget_s: seconds of all steps together; beyond it a few steps of each must do.
    """
    times_s: dict[str, list[float]] = {name: [] for name in contenders}
    while not _is_settled(times_s, budget_s):
        for name in order.sample(sorted(contenders), len(contenders)):
            known = times_s[name]
            count = max(1, min(10, int(SETTLING_TURN_S / known[-1]))) if known else 1
            known += [max(seconds, 1e-9) for seconds in contenders[name].turn(count, 0).wall_s]
            beat()
    return {name: _late(known) for name, known in times_s.items()}


def _is_settled(times_s: Mapping[str, list[float]], budget_s: float) -> bool:
    fewest = min(map(len, times_s.values()))
    if sum(map(sum, times_s.values())) >= budget_s and fewest >= LEAST_STEPS:
        return True
    return fewest >= MIN_STEPS and all(map(is_steady, times_s.values()))


def _late(times_s: list[float]) -> float:
    """Return the lower quartile of the later half: other programs make steps longer only."""
    later = sorted(times_s[len(times_s) // 2 :])
    return later[len(later) // 4]


def turn_steps(step_times_s: Mapping[str, float], *, apart: bool = False) -> tuple[int, int]:
    """Return how many steps of a turn are timed, and how many before them are dropped.

    Args:
        step_times_s: of each code; the number is the same for all.
        apart: whether each code has a process of its own. Its first step after the other's turn
            takes 0.5 ms more (it had been asleep), its third still 0.04 ms.
    """
    shortest_s = min(step_times_s.values())
    if shortest_s >= SHORT_S and not apart:
        return 1, 0
    mean_s = statistics.fmean(step_times_s.values())
    if shortest_s >= LONG_APART_S:
        return 1, 1
    count = max(2, math.ceil(TURN_S / mean_s))
    return count, max(MIN_DROPPED, math.ceil(MIN_DROPPED_S / mean_s))


def take_rounds(
    contenders: Mapping[str, Side],
    steps: tuple[int, int],
    seconds: float,
    order: random.Random,
    beat: Callable[[], None] = lambda: None,
    *,
    least: int = MIN_ROUNDS,
    enough_error: float = 0.0,
    clock: Clock = time.perf_counter,
) -> Turns:
    """Let each take one turn per round, in random order, until the seconds are spent.

    Args:
        enough_error: standard error of the mean log ratio at which they end, after `LEAST_S`.
        steps: how many steps of a turn are timed, and how many before them are dropped.
        least: rounds that are taken however long they last.
    """
    names = sorted(contenders)
    turns = Turns(
        *steps, {name: [] for name in names}, {name: [] for name in names}, {n: [] for n in names}
    )
    spent_s, taken = 0.0, 0
    while taken < least or not _enough(turns, spent_s, seconds, enough_error):
        began = clock()
        for name in order.sample(names, len(names)):
            turn = contenders[name].turn(*steps)
            turns.wall_s[name].append(statistics.median(turn.wall_s))
            turns.cpu_s[name].append(statistics.median(turn.cpu_s))
            turns.whole[name].append(turn.whole)
            if turn.leaves_threads:
                turns.left[name] = turns.left.get(name, 0) + 1
        spent_s += clock() - began
        taken += 1
        beat()
    return turns


def another_build(found: Sequence[Turns], most: int) -> bool:
    """Return whether the models are to be built again: where builds differ more than twice.

    Args:
        found: the turns of each build so far; a long step is built once.
        most: builds.
    """
    if len(found) >= most or not found[0].dropped:
        return False
    ratios = zip(*(turns.log_ratios() for turns in found), strict=True)
    return len(found) < 2 or any(max(one) - min(one) > BUILDS_DIFFER for one in ratios)


def _enough(turns: Turns, spent_s: float, seconds: float, enough_error: float) -> bool:
    if spent_s >= seconds:
        return True
    if spent_s < LEAST_S or not enough_error:
        return False
    one, *others = turns.wall_s.values()
    return all(mean_log_ratio(other, one)[1] <= enough_error for other in others)


def timed_turn(
    step: Step,
    backend: Any,
    steps: int,
    dropped: int = 0,
    clock: Clock = time.perf_counter,
    cpu_clock: Clock = time.process_time,
) -> Turn:
    """Take the steps to be dropped, then time the others, one by one, each ended by a sync.

    Either part ends early where it takes far longer than steps ever did: on a busy machine.
    """
    gc.collect()  # what the others have left
    threads = python_threads()
    turn_began, cpu_turn_began, count = clock(), cpu_clock(), 0
    synchronise, ends_s = backend.synchronise, turn_began + HELD_UP_S
    for _ in range(dropped):
        synchronise(step())
        count += 1
        if clock() >= ends_s:
            break
    taken = Turn()
    ends_s = clock() + HELD_UP_S
    for _ in range(steps):
        cpu_began, began = cpu_clock(), clock()
        synchronise(step())
        now = clock()
        taken.cpu_s.append(cpu_clock() - cpu_began)
        taken.wall_s.append(now - began)
        if now >= ends_s:
            break
    count += len(taken.wall_s)
    taken.whole = clock() - turn_began, cpu_clock() - cpu_turn_began, count
    taken.leaves_threads = not threads.issuperset(python_threads())
    return taken


def python_threads() -> set[threading.Thread]:
    """Return the threads that Python has started.

    Those of a framework's pool that has once called Python seem to be new as often.
    """
    return {one for one in threading.enumerate() if not isinstance(one, threading._DummyThread)}
