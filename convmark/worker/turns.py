"""Two steps that take turns in one process: until both are steady, and then timed, pair by pair.

A step after another model's step runs cold, which distorts steps shorter than a few milliseconds.
Such a step's turn is as many steps as last some 50 ms, the first of them dropped. Clocks, steps and
the order are handed in.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from convmark.worker.timing import Clock, is_steady, log_ratio_error

__all__ = [
    "MIN_PAIRS",
    "SHORT_S",
    "Contender",
    "Pairs",
    "settled_step_times",
    "take_pairs",
    "turn_steps",
]

SHORT_S = 0.0025
"""Seconds of a step from which on a turn is one step."""
MIN_STEPS, LEAST_STEPS = 10, 4
"""Of each code before the timed turns: until it is steady, and once the budget is spent."""
SETTLING_TURN_S = 0.01
MIN_PAIRS = 6
LEAST_S = 0.3
"""Seconds of turns that are always taken."""
HELD_UP_S = 0.2
"""A turn ends then, however few of its steps have been taken."""
DROPPED_SHARE = 0.5
MIN_DROPPED = 2


class Contender(Protocol):
    """One of the codes that take turns."""

    step: Callable[[], Any]

    def active(self, *, all_of_it: bool = ...) -> AbstractContextManager[None]:
        """What the code's turn is taken in; entered and left outside the timing."""


@dataclass(frozen=True)
class Pairs:
    """Wall and process CPU seconds of one step of each code, pair by pair, by the code's name."""

    steps: int
    """Timed steps of a turn, whose medians count; fewer where the machine was held up."""
    dropped: int
    """Steps before them that were not timed."""
    wall_s: dict[str, list[float]] = field(default_factory=dict)
    cpu_s: dict[str, list[float]] = field(default_factory=dict)

    def fields(self) -> dict[str, Any]:
        """All of it for an event, to the nanosecond."""
        lists = {
            f"{name}_{clock}": [round(seconds, 9) for seconds in times]
            for clock, found in (("wall_s", self.wall_s), ("cpu_s", self.cpu_s))
            for name, times in found.items()
        }
        return {"steps": self.steps, "dropped": self.dropped, **lists}


def settled_step_times(
    contenders: Mapping[str, Contender],
    backend: Any,
    budget_s: float,
    order: random.Random,
    beat: Callable[[], None] = lambda: None,
    clock: Clock = time.perf_counter,
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
            with contenders[name].active():
                for _ in range(count):
                    began = clock()
                    backend.synchronise(contenders[name].step())
                    known.append(max(clock() - began, 1e-9))
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


def turn_steps(step_times_s: Mapping[str, float], turn_s: float) -> tuple[int, int]:
    """Return how many steps of a turn are timed, and how many before them are dropped.

    Args:
        step_times_s: of each code; the number is the same for all.
        turn_s: seconds that the timed steps of a turn last where a step is short.
    """
    mean_s = statistics.fmean(step_times_s.values())
    if mean_s >= SHORT_S:
        return 1, 0
    count = max(2, math.ceil(turn_s / mean_s))
    return count, max(MIN_DROPPED, round(DROPPED_SHARE * count))


def take_pairs(
    contenders: Mapping[str, Contender],
    backend: Any,
    steps: tuple[int, int],
    seconds: float,
    order: random.Random,
    beat: Callable[[], None] = lambda: None,
    *,
    least: int = MIN_PAIRS,
    enough_error: float = 0.0,
    clock: Clock = time.perf_counter,
    cpu_clock: Clock = time.process_time,
) -> Pairs:
    """Let each take one turn per pair, in random order, until the seconds are spent.

    Args:
        enough_error: standard error of the mean log ratio at which they end, after `LEAST_S`.
        steps: how many steps of a turn are timed, and how many before them are dropped.
        least: pairs that are taken however long they last.
    """
    count, dropped = steps
    names = sorted(contenders)
    pairs = Pairs(count, dropped, {name: [] for name in names}, {name: [] for name in names})
    spent_s, taken = 0.0, 0
    while taken < least or not _enough(pairs, spent_s, seconds, enough_error):
        began = clock()
        for name in order.sample(names, len(names)):
            with contenders[name].active(all_of_it=False):
                wall_s, cpu_s = _turn(contenders[name].step, backend, steps, clock, cpu_clock)
            pairs.wall_s[name].append(wall_s)
            pairs.cpu_s[name].append(cpu_s)
        spent_s += clock() - began
        taken += 1
        beat()
    return pairs


def _enough(pairs: Pairs, spent_s: float, seconds: float, enough_error: float) -> bool:
    if spent_s >= seconds:
        return True
    if spent_s < LEAST_S or not enough_error:
        return False
    return log_ratio_error(*pairs.wall_s.values()) <= enough_error


def _turn(
    step: Callable[[], Any], backend: Any, steps: tuple[int, int], clock: Clock, cpu_clock: Clock
) -> tuple[float, float]:
    """Return the wall and the CPU seconds of a step of one turn."""
    count, dropped = steps
    ends_s = clock() + HELD_UP_S
    for _ in range(dropped):
        backend.synchronise(step())
        if clock() >= ends_s:
            break
    wall_s: list[float] = []
    cpu_s: list[float] = []
    ends_s = clock() + HELD_UP_S
    for _ in range(count):
        cpu_began, began = cpu_clock(), clock()
        backend.synchronise(step())
        now = clock()
        cpu_s.append(cpu_clock() - cpu_began)
        wall_s.append(now - began)
        if now >= ends_s:  # a busy machine: its steps take far longer than they did
            break
    return statistics.median(wall_s), statistics.median(cpu_s)
