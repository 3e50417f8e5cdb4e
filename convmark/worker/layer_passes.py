"""One pass over the pieces of a model, each timed: in one graph with clocks, or piece by piece.

Time per layer by the framework's own profiler, as a check of the times of the pieces.

The whole model runs uncut, forward, each unit of it in a scope of its own, by which the profiler's
events are told apart. What runs at the same time counts once in a group. A group is the least that
is compared: of fused operations a profiler names one. Groups that are fused to each other are one.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from convmark.core.case import Case
from convmark.worker.backends.step import SCOPE, Chain, Event, Piece, scope
from convmark.worker.cuts import Cut
from convmark.worker.protocol import one_line

FORWARD, WITH_BACKWARD = "forward", "with_backward"

Place = tuple[int, int]
"""A piece: its first unit, and the one after its last."""


@dataclass(frozen=True)
class Pass:
    """What one pass has found."""

    seconds: dict[Place, float]
    values: Mapping[int, Any]
    """The model's outputs, by their numbers."""
    cuts_s: list[float] = field(default_factory=list)
    """Seconds of calls that do nothing, where they were timed."""


class Passes:
    """Runs the pieces that cover a model, each on what the others gave.

    A value is kept until the last piece that takes it, as in a step: memory that is used again is
    in the caches, and needs no page of its own.
    """

    def __init__(self, case: Case, found: Cut, batch: Sequence[Any], backend: Any) -> None:
        """Take the model's inputs as they are on the device."""
        self._case = case
        self._cut = found
        self._backend = backend
        self._batch = list(batch)
        self._trained: set[int] = set()
        self._targets: dict[int, Any] = {}
        self._chains: dict[tuple[tuple[Place, ...], str], Chain | None] = {}
        self._pieces: dict[tuple[Place, str], Any] = {}

    @property
    def modes(self) -> tuple[str, ...]:
        """What a pass may run."""
        return (FORWARD, WITH_BACKWARD) if self._cut.training else (FORWARD,)

    def prepare(self, covers: Sequence[Sequence[Place]]) -> bool:
        """Make what the covers run, and return whether it is timed in one graph."""
        clocked = self._chain(covers[0], FORWARD) is not None
        is_new, may_stop = not self._pieces, any(unit.may_stop for unit in self._cut.units)
        if self._cut.training and is_new and (clocked or may_stop):
            values = self._every_value()
            self._look_at_gradients(values)
            self._targets = values if clocked else {}
        self._trained = self._cut.trained()
        for mode in () if clocked else self.modes:
            for place in {place for cover in covers for place in cover}:
                self._piece(place, mode)
        return clocked

    def whole(
        self, within: Callable[[int], contextlib.AbstractContextManager[Any]]
    ) -> tuple[Piece, list[Any]]:
        """Return all units as one piece, and the values that it takes.

        Args:
            within: gives what each unit is called in, by its place.
        """
        units, values = self._cut.units, dict(zip(self._cut.inputs, self._batch, strict=True))
        function = self._cut.function(0, len(units), within=within)
        layers = [one for unit in units for one in unit.holders]
        taken = self._cut.taken(units)
        return Piece(function, layers, taken, self._cut.outputs), [values[one] for one in taken]

    def _every_value(self) -> dict[int, Any]:
        """Return the values of all units: a backward pass takes some for gradients."""
        known = dict(zip(self._cut.inputs, self._batch, strict=True))
        for place in range(len(self._cut.units)):
            one = self._described((place, place + 1), FORWARD)
            made = one.function([known[value] for value in one.takes])
            known.update(zip(one.gives, made, strict=True))
        return known

    def _look_at_gradients(self, known: Mapping[int, Any]) -> None:
        """Find out through which of the units that may end gradients none passes.

        Args:
            known: the values of all units: none changes its state from here on.
        """
        units, backend = self._cut.units, self._backend
        for place, unit in enumerate(units):
            if not unit.may_stop:
                continue
            one = self._described((place, place + 1), FORWARD)
            given, rows = [known[value] for value in one.takes], []
            with contextlib.suppress(Exception):  # a step may never ask for such a gradient
                rows = backend.of_layers().reached(backend, one, given)
            stopped = {
                (value, taken)
                for value, row in zip(one.gives, rows, strict=False)
                for taken, comes in zip([*one.takes, None], row, strict=True)
                if not comes
            }
            units[place] = replace(unit, stopped=frozenset(stopped))

    def run(self, cover: Sequence[Place], mode: str) -> Pass:
        chain = self._chain(cover, mode)
        if chain is None:
            return self._one_by_one(cover, mode)
        backward = mode == WITH_BACKWARD
        gives = [self._cut.given(*place) if backward else [] for place in cover]
        targets = [[self._targets[value] for value in one] for one in gives]
        results, seconds, cuts_s = chain(self._batch, targets)
        values = dict(zip(self._cut.outputs, results, strict=True))
        return Pass(dict(zip(cover, seconds, strict=True)), values, cuts_s)

    def _one_by_one(self, cover: Sequence[Place], mode: str) -> Pass:
        values, seconds = dict(zip(self._cut.inputs, self._batch, strict=True)), {}
        for place, done in zip(cover, self._last_taken(cover), strict=True):
            one, piece = self._described(place, mode), self._piece(place, mode)
            given = [[values[value] for value in one.takes]]
            if mode == WITH_BACKWARD:
                given.append([self._targets[value] for value in one.gives])
            began = time.perf_counter()
            token = piece(*given)
            self._backend.synchronise(token)
            seconds[place] = time.perf_counter() - began
            made = dict(zip(one.gives, token[1], strict=True))
            values.update(made)
            if self._cut.training:
                self._targets = {**made, **self._targets}
            del given, token, made
            for value in done:
                del values[value]
        return Pass(seconds, values)

    def _last_taken(self, cover: Sequence[Place]) -> list[list[int]]:
        """Return, for each piece of a cover, the values that no later one takes."""
        last: dict[int, int] = {}
        for number, place in enumerate(cover):
            one = self._described(place, FORWARD)
            last |= dict.fromkeys([*one.takes, *one.gives], number)
        kept = {*self._cut.inputs, *self._cut.outputs}
        return [
            [value for value, place in last.items() if place == number and value not in kept]
            for number in range(len(cover))
        ]

    def _described(self, place: Place, mode: str) -> Piece:
        units = self._cut.units[slice(*place)]
        takes = self._cut.taken(units)
        return Piece(
            function=self._cut.function(*place, trains=mode == WITH_BACKWARD),
            layers=[one for unit in units for one in unit.holders],
            takes=takes,
            gives=self._cut.given(*place),
            inner=None if mode == FORWARD else [value in self._trained for value in takes],
        )

    def _chain(self, cover: Sequence[Place], mode: str) -> Chain | None:
        """Return the cover as the backend makes it; it is compiled when it is first called."""
        key = tuple(cover), mode
        if key not in self._chains:
            pieces = [self._described(place, mode) for place in cover]
            compiled = self._case.jit == "on"
            self._chains[key] = self._backend.clocked(
                pieces, self._cut.inputs, self._cut.outputs, compiled
            )
        return self._chains[key]

    def _piece(self, place: Place, mode: str) -> Any:
        """Return a piece as the backend makes it; it is compiled when it is first called."""
        key = place, mode
        if key not in self._pieces:
            one, compiled = self._described(place, mode), self._case.jit == "on"
            make = self._backend.piece if mode == FORWARD else self._backend.backward_piece
            self._pieces[key] = make(one, compiled)
        return self._pieces[key]


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
        whole, values = passes.whole(lambda place: module.named(scope(place)))
        turns = (beat() for _ in range(count))
        traced = list(module.traced(backend, whole, values, turns))
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
