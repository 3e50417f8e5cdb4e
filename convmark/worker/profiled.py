"""Time per layer by the framework's own profiler, as a check of the times of the pieces.

The whole model runs uncut, forward, each unit of it in a scope of its own, by which the profiler's
events are told apart. What runs at the same time counts once in a group. A group is the least that
is compared: of fused operations a profiler names one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from convmark.worker.backends.step import SCOPE, Event, scope
from convmark.worker.layer_passes import Passes, Place
from convmark.worker.protocol import one_line

SECONDS, FEWEST, MOST = 1.0, 5, 50
"""Passes that are traced: so many as take about the seconds."""


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
        module = backend.of_layers()
        function, layers, values = passes.whole(lambda place: module.named(scope(place)))
        events = module.traced(backend, function, layers, values, count)
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
