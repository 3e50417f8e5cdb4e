"""Time per layer: the model runs in pieces, one after another, each ended by a device sync.

Each pass runs the whole model, so that every piece finds the caches as a step leaves them: its
input just written, its weights not read since the last pass. Passes of a round, in random order:

step      the whole step, as `convmark run` times it
groups    a convolution or dense layer, with the light layers after it, is a piece
heads     the same, with each group cut after its first units: a layer's time is what it adds to
          the units before it, so that what the framework fuses is told as it is
pairs     some neighbouring groups run as one piece: what that saves is the cost of a cut, which is
          taken off each group

In training all passes but the step are run twice: forward, and forward with backward. The sum of
the layers' times and the rest (dispatch, fusion over groups, loss and update) is the step time.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convmark.core.case import PRECISIONS, Case
from convmark.core.tasks import TASKS
from convmark.worker import host, measurement, timing
from convmark.worker.cuts import Cut, Unit, cut, groups_of, moved_bytes, unit_facts
from convmark.worker.failure import CaseFailure

__all__ = ["Heads", "serve", "solved"]

MOST_PAIRS = 12
"""Pairs of groups that the cost of a cut is measured at."""
MIN_ROUNDS, MOST_ROUNDS = 4, 400
WARM_ROUNDS = 2
"""Rounds after the first, which compiles, that are not timed."""
OF_LARGEST, RELATIVE = 1e-3, 2e-2
"""By which the pieces' result may differ from the model's: the order of sums differs. A value may
by a share of the largest, which in precisions below float32 is `RELATIVE` too, and of itself."""

FORWARD, WITH_BACKWARD = "forward", "with_backward"

Place = tuple[int, int]
"""A piece: its first unit, and the one after its last."""
Emit = Callable[..., None]


@dataclass
class Heads:
    """Seconds of the pieces, round by round."""

    times_s: dict[Place, list[float]] = field(default_factory=dict)

    def add(self, place: Place, seconds: float) -> None:
        """Keep one time."""
        self.times_s.setdefault(place, []).append(seconds)

    def median(self, place: Place) -> float:
        """Return the median over the rounds, seconds."""
        return statistics.median(self.times_s[place])


def solved(
    heads: Heads, groups: Sequence[Place], pairs: Sequence[Place], *, whole_groups: bool
) -> tuple[list[float], float]:
    """Return the seconds of each row and the cost of a cut, so that rows sum to the groups.

    Args:
        pairs: pieces of two groups.
        whole_groups: a group is one row; else each unit is, by what it adds to those before it.
    """
    by_begin = dict(groups)
    saved = []
    for begin, end in pairs:
        middle = by_begin[begin]
        apart_s = heads.median((begin, middle)) + heads.median((middle, end))
        saved.append(apart_s - heads.median((begin, end)))
    cut_s = max(0.0, statistics.median(saved)) if saved else 0.0
    rows = []
    for begin, end in groups:
        ends = [end] if whole_groups else range(begin + 1, end + 1)
        before_s = cut_s
        for place in ends:
            until_s = heads.median((begin, place))
            rows.append(until_s - before_s)
            before_s = until_s
    return rows, cut_s


def serve(case: Case, builder: Any, request: Mapping[str, Any], backend: Any, emit: Emit) -> None:
    """Measure the layers of a case in this process, and report them.

    Raises:
        CaseFailure: the model cannot be cut, or its pieces do not give what it gives.
        Exception: whatever building or running the model raises.
    """
    seed = request["seed"]
    model = measurement.build(case, builder, seed, backend, emit)
    training, depth = TASKS[case.task].trains, request.get("depth")
    found = _cut(case, model, backend, depth, training=training)
    state = host.state_from_now(backend.companions)
    chain = _Chain(case, found, model, backend, seed)
    if training:  # what the step gives is a loss, may be random, and changes the weights
        inferring = _cut(case, model, backend, depth, training=False)
        forward = backend.inference_step(model, case.batch_size, seed, case.jit == "on")
        _Chain(case, inferring, model, backend, seed).check(forward())
    step, _ = measurement.make_step(case, model, seed, backend)
    if not training:
        chain.check(step())
    pulse = timing.Pulse(lambda phase: emit("progress", phase=phase), time.monotonic)
    rounds = _Rounds(chain, step, backend, random.Random(seed), pulse)
    rounds.take(request["seconds"])
    emit("layers", **rounds.fields(), units=_facts(found, chain, backend))
    emit("state", **state())
    emit("finished")


def _cut(case: Case, model: Any, backend: Any, depth: int | None, *, training: bool) -> Cut:
    try:
        return cut(model, backend, case.batch_size, depth, training=training)
    except CaseFailure as error:
        raise CaseFailure(f"{case.model}: {error}") from None


def _facts(found: Cut, chain: _Chain, backend: Any) -> list[dict[str, Any]]:
    """Return what is known of each row: a unit, or all units of a group."""
    facts = [unit_facts(unit, backend.keras) for unit in found.units]
    groups = [facts[begin:end] for begin, end in chain.groups]
    if chain.whole_groups:
        groups = [
            [_together(found.units[slice(*place)], group)]
            for place, group in zip(chain.groups, groups, strict=True)
        ]
    return [{**one, "group": number} for number, group in enumerate(groups) for one in group]


def _together(units: Sequence[Unit], facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one row's facts of several units that the compiler may fuse."""
    known = [one["flops"] for one in facts]
    return {
        **facts[0],
        "name": " + ".join(one["name"] for one in facts),
        "kind": " + ".join(one["kind"] for one in facts),
        "shape": facts[-1]["shape"],
        "flops": None if None in known else sum(known),
        "moved_bytes": moved_bytes(units),
        "note": "; ".join(filter(None, [one["note"] for one in facts])),
    }


class _Chain:
    """The pieces of a model; a pass runs those that cover it, each on what the others gave."""

    def __init__(self, case: Case, found: Cut, model: Any, backend: Any, seed: int) -> None:
        self.case = case
        self.cut = found
        self.whole_groups = case.jit == "on" or backend.always_compiles
        self.groups = groups_of(found.units)
        self.pairs = _spread(self.groups)
        self._backend = backend
        batch = backend.device_batch(model, case.batch_size, seed)
        self._first = dict(zip(found.inputs, backend.leaves(batch), strict=True))
        self._values = dict(self._first)
        self._trained = found.trained()
        self._targets: dict[int, Any] = {}
        self._pieces: dict[tuple[Place, str], Any] = {}
        for mode in self.modes:  # a training step of JAX takes over the weights that these copy
            for place in {place for cover in self.passes() for place in cover}:
                self._piece(place, mode)

    @property
    def modes(self) -> tuple[str, ...]:
        """What a pass may run."""
        return (FORWARD, WITH_BACKWARD) if self.cut.training else (FORWARD,)

    def passes(self) -> list[list[Place]]:
        """Return the covers of the model: groups, their heads, pairs."""
        longest = max(end - begin for begin, end in self.groups)
        heads = 1 if self.whole_groups else longest
        covers = [self._cut_after(count) for count in range(1, heads)]
        pairs = dict(self.pairs)
        merged, place = [], 0
        ends = dict(self.groups)
        while place < len(self.cut.units):
            end = pairs.get(place, ends[place])
            merged.append((place, end))
            place = end
        return [list(self.groups), *covers, *([merged] if self.pairs else [])]

    def _cut_after(self, count: int) -> list[Place]:
        cover = []
        for begin, end in self.groups:
            middle = min(begin + count, end)
            cover.append((begin, middle))
            if middle < end:
                cover.append((middle, end))
        return cover

    def run(self, cover: Sequence[Place], mode: str, keep: Callable[[Place, float], None]) -> None:
        """Run the pieces of a cover in order, and give each one's seconds."""
        values = dict(self._first)
        for place in cover:
            piece = self._piece(place, mode)
            given = [values[value] for value in self.cut.taken(self.cut.units[slice(*place)])]
            wanted = self.cut.given(*place)
            more = [self._targets[value] for value in wanted] if mode == WITH_BACKWARD else None
            began = time.perf_counter()
            token = piece(given) if more is None else piece(given, more)
            self._backend.synchronise(token)
            keep(place, time.perf_counter() - began)
            values.update(zip(wanted, token[1], strict=True))
        self._values = values
        if mode == FORWARD:
            self._targets = {**values, **self._targets}

    def _piece(self, place: Place, mode: str) -> Any:
        """Return a piece as the backend makes it; it is compiled when it is first called."""
        key = (place, mode)
        if key not in self._pieces:
            units = self.cut.units[slice(*place)]
            function = self.cut.function(*place)
            layers = [unit.call.layer for unit in units]
            compiled = self.case.jit == "on"
            if mode == FORWARD:
                self._pieces[key] = self._backend.piece(function, layers, compiled)
            else:
                inner = [value in self._trained for value in self.cut.taken(units)]
                self._pieces[key] = self._backend.backward_piece(function, layers, compiled, inner)
        return self._pieces[key]

    def check(self, token: tuple[Any, Any]) -> None:
        """Hold the pieces' result to the model's.

        Args:
            token: of the whole step, on the same batch.

        Raises:
            CaseFailure: they differ.
        """
        self.run(self.groups, FORWARD, lambda place, seconds: None)
        whole = self._backend.leaves(token[1])
        of_largest = OF_LARGEST if self.case.precision == PRECISIONS[0] else RELATIVE
        for value, want in zip(self.cut.outputs, whole, strict=True):
            got, wanted = (
                np.asarray(self._backend.array(one), np.float32)
                for one in (self._values[value], want)
            )
            if got.shape != wanted.shape or not np.allclose(
                got, wanted, rtol=RELATIVE, atol=of_largest * float(np.abs(wanted).max())
            ):
                raise CaseFailure(
                    f"{self.case.model}: its layers called one by one do not give what the model "
                    "gives, so their times are not the model's; try --depth 1"
                )


def _spread(groups: Sequence[Place]) -> list[Place]:
    """Return pairs of neighbouring groups, evenly spread, none of two pairs."""
    places = list(range(0, len(groups) - 1, 2))
    step = max(1, -(-len(places) // MOST_PAIRS))
    return [(groups[place][0], groups[place + 1][1]) for place in places[::step]]


class _Rounds:
    """Rounds of all passes in random order, and what they found."""

    def __init__(
        self, chain: _Chain, step: Any, backend: Any, order: random.Random, pulse: timing.Pulse
    ) -> None:
        self._chain = chain
        self._step = step
        self._backend = backend
        self._order = order
        self._pulse = pulse
        self._step_s: list[float] = []
        self._heads = {mode: Heads() for mode in chain.modes}

    def take(self, seconds: float) -> None:
        """Take rounds until the seconds are spent."""
        turns: list[Any] = [None]
        turns += [(cover, mode) for mode in self._chain.modes for cover in self._chain.passes()]
        for _ in range(1 + WARM_ROUNDS):
            self._round(turns, timed=False)
        timing.quiet_collector()
        began = time.monotonic()
        for taken in range(MOST_ROUNDS):
            if taken >= MIN_ROUNDS and time.monotonic() - began >= seconds:
                break
            self._round(self._order.sample(turns, len(turns)), timed=True)

    def _round(self, turns: Sequence[Any], *, timed: bool) -> None:
        for turn in turns:
            if turn is None:
                timing.timed_step(self._step, self._backend)  # warms as a step before it would
                taken_s = timing.timed_step(self._step, self._backend)[0]
                if timed:
                    self._step_s.append(taken_s)
            else:
                cover, mode = turn
                keep = self._heads[mode].add if timed else lambda place, seconds: None
                self._chain.run(cover, mode, keep)
            self._pulse.beat("layers")

    def fields(self) -> dict[str, Any]:
        """Return the event: seconds of the step, of a cut, and of each row."""
        chain = self._chain
        step_s = statistics.median(self._step_s)
        found: dict[str, Any] = {"step_s": step_s, "rounds": len(self._step_s)}
        for mode, heads in self._heads.items():
            rows, cut_s = solved(heads, chain.groups, chain.pairs, whole_groups=chain.whole_groups)
            found |= {f"{mode}_s": rows, f"{mode}_cut_s": cut_s}
        return found
