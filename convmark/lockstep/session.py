"""One session: fresh processes in which the old and the new code take turns, and what they say.

A control, where there is one, is the old code once more. Its steps count for the old code too, and
where the two differ nothing that the session says of the new code is to be believed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convmark.option_values import Shapes
from convmark.statistics import Estimate, trimmed_mean

__all__ = ["CONTROL", "NEW", "OLD", "Plan", "Session", "SideFailure", "ratios_of"]

OLD, NEW, CONTROL = "old", "new", "control"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long a session is, and what is asked beside its ratio."""

    seed: int
    """Of the weights, the batch and the order: another one for each session."""
    seconds: float = 1.0
    """Of timed turns, at most."""
    enough_error: float = 0.01
    """Standard error of the session's mean log ratio at which its turns end; 0 for never. What
    sessions differ by is more, so that to know one better would tell little."""
    warm_up_s: float = 0.2
    """Of steps of all codes until they are steady."""
    turn_s: float = 0.005
    """Of the timed steps of a turn where a step is shorter than 2.5 ms."""
    builds: int = 4
    """How often the models are built in the session at most, where a step is shorter than 2.5 ms:
    twice, and again where the two say different things. A build of a model with short steps may be
    a tenth slower than the next, in one process too."""
    with_work: bool = False
    """Whether the old code's FLOPs are counted, and replaced functions of the framework looked
    for."""
    input_shape: Shapes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SideFailure:
    """Why one of the codes cannot be run."""

    side: str
    """`old`, `new` or `control`; empty where the process died of none by name."""
    reason: str
    status: str
    """`error`, `out_of_memory`, `timeout` or `crashed`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What came of one session."""

    wall: Estimate | None = None
    """ln(new / old) of the wall time of a step; None where there is none to tell."""
    cpu: Estimate | None = None
    """The same of process CPU time; None too where the clock is too coarse."""
    control_wall: Estimate | None = None
    """ln(control / old) of the wall time of a step; None without a control."""
    control_cpu: Estimate | None = None
    step_times_s: Mapping[str, float] = field(default_factory=dict)
    """Median wall seconds of a step by side."""
    rounds: int = 0
    codes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The `code` event of each side."""
    sizes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Parameters, bytes and, where they were counted, FLOPs of each side."""
    states: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Precision and call path of each side, read back."""
    first_steps_s: Mapping[str, float] = field(default_factory=dict)
    """The side that was built first pays for what the framework does once in a process."""
    refusal: str = ""
    """Why the codes cannot share a process; empty where they can."""
    failure: SideFailure | None = None


def ratios_of(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the fields of a session that its `turns` events amount to, one of each build."""
    under = [name for name in (OLD, CONTROL) if f"{name}_wall_s" in events[0]] if events else []
    sides = [*under, NEW]
    found: dict[str, Any] = {
        "wall": _log_ratio(events, "wall_s", NEW, under),
        "cpu": _log_ratio(events, "cpu_s", NEW, under),
        "step_times_s": {side: _median(events, f"{side}_wall_s") for side in sides},
        "rounds": sum(len(event[f"{OLD}_wall_s"]) for event in events),
    }
    if CONTROL in under:
        found["control_wall"] = _log_ratio(events, "wall_s", CONTROL, [OLD])
        found["control_cpu"] = _log_ratio(events, "cpu_s", CONTROL, [OLD])
    return found


def _median(events: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(np.median(np.concatenate([event[name] for event in events])))


def _log_ratio(
    events: Sequence[Mapping[str, Any]], clock: str, over: str, under: Sequence[str]
) -> Estimate | None:
    """Return the mean over builds of the log ratio, each build's a trimmed mean of its rounds.

    Its error is that of the rounds, and with several builds at least what these differ by. None
    where no turns of the kind were taken, or the clock is too coarse for them.

    Args:
        under: the sides whose logarithms are averaged: the old code, and its control.
    """
    if not events:
        return None
    values, variances = [], []
    for event in events:
        times_s = np.array([event[f"{side}_{clock}"] for side in (over, *under)], np.float64)
        if (times_s <= 0).any():
            return None
        logs = np.log(times_s)
        found = trimmed_mean(logs[0] - logs[1:].mean(axis=0))
        values.append(found.value)
        variances.append((found.error or 0.0) ** 2)
    count = len(values)
    within = sum(variances) / count**2
    between = float(np.var(values, ddof=1)) / count if count > 1 else 0.0
    return Estimate(value=float(np.mean(values)), error=max(within, between) ** 0.5)
