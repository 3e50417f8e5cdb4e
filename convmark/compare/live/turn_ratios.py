"""What the turns of a session tell: the ratio of two codes, and what one computes between its own.

A turn is some steps of one code. The events `turns` have the seconds of a step of each code, round
by round, one event of each build of the models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from convmark.core.statistics import Estimate, trimmed_mean
from convmark.worker.turns import BUSY_CPUS

Event = Mapping[str, Any]

LEAVES_THREADS = 0.25
"""Share of a code's turns that leave threads: one that is started once, as of a pool, is alone."""
BUSY_THREADS = 0.05
"""CPUs that threads of Python keep busy on the average: a model's usual ones take none."""


def left_threads(turns: Sequence[Event], sides: Sequence[str]) -> dict[str, float]:
    """Return the share of each code's turns that have left threads; 0 where that is no habit."""
    most = {
        side: max((one.get(f"{side}_left", 0.0) for one in turns), default=0.0) for side in sides
    }
    return {side: share if share >= LEAVES_THREADS else 0.0 for side, share in most.items()}


def disturbing(
    turns: Sequence[Event],
    sides: Sequence[str],
    ends: Mapping[str, Event] = MappingProxyType({}),
) -> str:
    """Say what a code computes in the others' turns; empty for nothing, or as much in all.

    Args:
        ends: by side what its process has told at its end, where it had one of its own.
    """
    threads = "the {0} code's steps leave threads at work when they end"
    kinds = [(left_threads(turns, sides), LEAVES_THREADS, threads)]
    for told, least in (("idle_cpus", BUSY_CPUS), ("thread_cpus", BUSY_THREADS)):
        cpus = {side: float(end.get(told, 0.0)) for side, end in ends.items()}
        kinds.append((cpus, least, "the {0} code keeps {1:.2f} CPUs busy between its steps"))
    for by_side, least, text in kinds:
        name = max(by_side, key=by_side.__getitem__, default="")
        if name and by_side[name] - min(by_side.values()) >= least:
            slows = "which slows the other code too; compare the step times of a run of each"
            return f"{text.format(name, by_side[name])}, {slows}"
    return ""


def of_all_steps(events: Sequence[Event], old: str, new: str) -> tuple[float, float] | None:
    """Return the mean over builds of ln(new / old) of both clocks' means over all steps."""
    means = [
        [[event.get(f"{side}_mean_{clock}", 0.0) for side in (old, new)] for event in events]
        for clock in ("wall_s", "cpu_s")
    ]
    if not events or any(min(pair) <= 0 for of_clock in means for pair in of_clock):
        return None
    wall, cpu = (np.mean([math.log(now / then) for then, now in of_clock]) for of_clock in means)
    return float(wall), float(cpu)


def log_ratio(
    events: Sequence[Event], clock: str, over: str, under: Sequence[str]
) -> Estimate | None:
    """Return the mean over builds of the log ratio, each build's a trimmed mean of its rounds.

    Its error is that of the rounds, and with several builds at least what these differ by. None
    where no turns of the kind were taken, or the clock is too coarse for them.

    Args:
        under: the sides whose logarithms are averaged: the old code, and its control.
    """
    values, variances = [], []
    for event in events:
        times_s = np.array([event[f"{side}_{clock}"] for side in (over, *under)], np.float64)
        if (times_s <= 0).any():
            return None
        logs = np.log(times_s)
        found = trimmed_mean(logs[0] - logs[1:].mean(axis=0))
        values.append(found.value)
        variances.append((found.error or 0.0) ** 2)
    if not (count := len(values)):
        return None
    within = sum(variances) / count**2
    between = float(np.var(values, ddof=1)) / count if count > 1 else 0.0
    return Estimate(value=float(np.mean(values)), error=max(within, between) ** 0.5)
