"""One pass over the pieces of a model, each timed: in one graph with clocks, or piece by piece."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from convmark.core.case import Case
from convmark.worker.backends.step import Chain, Piece
from convmark.worker.cuts import Cut

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
    ) -> tuple[Callable[[Sequence[Any]], list[Any]], list[Any], list[Any]]:
        """Return all units as one function, its layers, and the values that it takes.

        Args:
            within: gives what each unit is called in, by its place.
        """
        units, values = self._cut.units, dict(zip(self._cut.inputs, self._batch, strict=True))
        function = self._cut.function(0, len(units), within=within)
        layers = [one for unit in units for one in unit.holders]
        return function, layers, [values[one] for one in self._cut.taken(units)]

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
                rows = backend.of_layers().reached(backend, one.function, one.layers, given)
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
            if one.inner is None:
                made = self._backend.piece(one.function, one.layers, compiled)
            else:
                made = self._backend.backward_piece(one.function, one.layers, compiled, one.inner)
            self._pieces[key] = made
        return self._pieces[key]
