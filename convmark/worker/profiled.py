"""Time per layer by the framework's own profiler, as a check of the times of the pieces.

The whole model runs uncut, forward, each unit of it in a scope of its own, by which the profiler's
events are told apart. What runs at the same time counts once in a group. A group is the least that
is compared: of fused operations a profiler names one. The module of a backend's profiler has

named     a scope, by its name
traced    the events of some passes: text, begin and end in any one unit of time
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Any

from convmark.worker.layer_passes import Passes, Place
from convmark.worker.protocol import one_line

SCOPE = re.compile(r"convmark_unit_(\d+)(?!\d)")
"""What the text of a unit's event has in it."""
SECONDS, FEWEST, MOST = 1.0, 5, 50
"""Passes that are traced: so many as take about the seconds."""

Event = tuple[str, float, float]


def profiled(
    passes: Passes, groups: Sequence[Place], step_s: float, backend: Any
) -> dict[str, Any]:
    """Return what the event of the layers has of it: a time for each group, or why there is none.

    Nothing where no event is of a unit, as in what XLA compiles as a whole.

    Args:
        step_s: what a step takes about.
    """
    count = min(MOST, max(FEWEST, int(SECONDS / step_s)))
    try:
        profiler = backend.profiler()
        function, layers, values = passes.whole(
            lambda place: profiler.named(f"convmark_unit_{place}")
        )
        events = profiler.traced(backend, function, layers, values, count)
    except Exception as error:  # a check that cannot be made ends no measurement
        return {"unprofiled": one_line(f"{type(error).__name__}: {error}")}
    found = busy(events, groups)
    return {"profiled": found} if sum(found) > 0 else {}


def busy(events: Iterable[Event], groups: Sequence[Place]) -> list[float]:
    """Return how long anything of each group ran."""
    spans: list[list[tuple[float, float]]] = [[] for _ in groups]
    of_unit = {unit: place for place, group in enumerate(groups) for unit in range(*group)}
    for text, begin, end in events:
        if (unit := SCOPE.search(text)) and int(unit[1]) in of_unit:
            spans[of_unit[int(unit[1])]].append((begin, end))
    return [_together(sorted(one)) for one in spans]


def _together(spans: Sequence[tuple[float, float]]) -> float:
    """Return the length of what spans cover, in order of their begin."""
    ends = itertools.accumulate((end for _, end in spans), max, initial=float("-inf"))
    return sum(
        max(0, end - max(begin, until)) for (begin, end), until in zip(spans, ends, strict=False)
    )


def on_device(events: Iterable[tuple[bool, Event]]) -> list[Event]:
    """Return the units' events on a device, or where it has none those of the CPU.

    Args:
        events: each with whether it is one of a device.
    """
    found: dict[bool, list[Event]] = {True: [], False: []}
    for is_device, event in events:
        if SCOPE.search(event[0]):
            found[is_device].append(event)
    return found[True] or found[False]
