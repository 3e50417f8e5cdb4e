"""Time per layer by the framework's own profiler, as a check of the times of the pieces.

The whole model runs uncut, forward, each unit of it in a scope of its own, by which the profiler's
events are told apart. What runs at the same time counts once in a group. A group is the least that
is compared: of fused operations a profiler names one. Groups that are fused to each other are one.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from convmark.core.case import Case
from convmark.worker.backends.step import SCOPE, Event, scope
from convmark.worker.layer_passes import Passes, Place
from convmark.worker.protocol import one_line

SECONDS, FEWEST, MOST = 1.0, 5, 50
"""Passes that are traced: so many as take about the seconds."""


def profiled(
    case: Case,
    passes: Passes,
    groups: Sequence[Place],
    step_s: float,
    backend: Any,
    beat: Callable[[], object] = lambda: None,
) -> tuple[Sequence[Place], dict[str, Any]]:
    """Return what the event of the layers has of it: a time for each group, or why there is none.

    Nothing where no event is of a unit, as in what XLA compiles as a whole.

    Args:
        step_s: what a step takes about.
        beat: tells between two passes that there is life.

    Returns:
        the groups, too.
    """
    if case.jit == "on" and not backend.always_compiles:  # uncompiled operations are other ones
        return groups, {}
    count = min(MOST, max(FEWEST, int(SECONDS / step_s)))
    try:
        module = backend.of_layers()
        function, layers, values = passes.whole(lambda place: module.named(scope(place)))
        turns = (beat() for _ in range(count))
        traced = list(module.traced(backend, function, layers, values, turns))
        events = on_device(traced, gpu=case.device != "cpu")
    except Exception as error:  # a check that cannot be made ends no measurement
        return groups, {"unprofiled": one_line(f"{type(error).__name__}: {error}")}
    if events is None:
        some = any(is_device for is_device, _ in traced)
        lacks = (
            "events of the GPU, but none with a layer's name" if some else "no events of the GPU"
        )
        return groups, {"unprofiled": f"its trace has {lacks}"}
    groups = fused(events, groups)
    found = busy(events, groups, count)
    return groups, {"profiled": found} if sum(found) > 0 else {}


def on_device(events: Iterable[tuple[bool, Event]], *, gpu: bool) -> list[Event] | None:
    """Return the units' events on the device.

    None where a GPU has none, as where its driver forbids it: the CPU's are launches of kernels.

    Args:
        events: each with whether it is one of a device.
    """
    found: dict[bool, list[Event]] = {True: [], False: []}
    for is_device, event in events:
        if SCOPE.search(event[0]):
            found[is_device].append(event)
    return found[True] or (None if gpu else found[False])


def fused(events: Iterable[Event], groups: Sequence[Place]) -> list[Place]:
    """Return the groups, those as one that have an event together.

    One without any event is fused to the next that has one: an addition may take a convolution in.
    """
    of_unit = {unit: place for place, group in enumerate(groups) for unit in range(*group)}
    follows = [False] * (len(groups) + 1)
    seen = set()
    for text in {text for text, _, _ in events}:
        places = {of_unit[int(one)] for one in SCOPE.findall(text) if int(one) in of_unit}
        seen |= places
        for place in range(min(places, default=0) + 1, max(places, default=0) + 1):
            follows[place] = True
    for place in set(range(len(groups))) - seen:
        follows[place + 1] = True
    if seen:  # what is after the last event
        follows[max(seen) + 1 :] = [True] * (len(groups) - max(seen))
    begins = [group[0] for place, group in enumerate(groups) if not place or not follows[place]]
    return list(zip(begins, [*begins[1:], groups[-1][1]], strict=True))


def busy(events: Iterable[Event], groups: Sequence[Place], passes: int) -> list[float]:
    """Return how long anything of each group ran, the median over the passes.

    Other programs stretch an operation here and there, which would tell in a sum. The passes have
    equally many events, one after another; where they have not they are taken as one.
    """
    of_unit = {unit: place for place, group in enumerate(groups) for unit in range(*group)}
    named = [(SCOPE.search(text), begin, end) for text, begin, end in events]
    units = [(begin, end, int(unit[1])) for unit, begin, end in named if unit]
    seen = sorted((begin, end, of_unit[unit]) for begin, end, unit in units if unit in of_unit)
    size = len(seen) // passes if seen and len(seen) % passes == 0 else max(1, len(seen))
    each = [
        [_together([one[:2] for one in seen[first : first + size] if one[2] == place])
         for place in range(len(groups))]
        for first in range(0, len(seen), size)
    ]  # fmt: skip
    return [statistics.median(group) for group in zip(*each, strict=True)]


def _together(spans: Sequence[tuple[float, float]]) -> float:
    """Return the length of what spans cover, in order of their begin."""
    ends = itertools.accumulate((end for _, end in spans), max, initial=float("-inf"))
    return sum(
        max(0, end - max(begin, until)) for (begin, end), until in zip(spans, ends, strict=False)
    )
