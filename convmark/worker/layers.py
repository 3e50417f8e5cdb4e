"""Time per layer: the model runs in pieces, one after another, each timed.

Each pass runs the whole model, so that every piece finds the caches as a step leaves them: its
input just written, its weights not read since the last pass. Passes of a round, in random order:

step      the whole step, as `convmark run` times it
groups    a convolution or dense layer, with the light layers after it, is a piece
heads     the same, with each group cut after its first units: a layer's time is what it adds to
          the units before it, so that what the framework fuses is told as it is
pairs     some neighbouring groups run as one piece: what that saves is the cost of a cut, where
          the pieces are not in one graph with clocks, which times it itself

The cost of a cut is taken off each group. In training all passes but the step are run twice:
forward, and forward with backward. The sum of the layers' times and the rest (dispatch, fusion over
groups, loss and update) is the step time.
"""

from __future__ import annotations

import contextlib
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convmark.core.case import PRECISIONS, Case
from convmark.core.tasks import TASKS
from convmark.worker import host, measurement, timing
from convmark.worker.cuts import Cut, Unit, cut, groups_of, moved_bytes, unit_facts
from convmark.worker.failure import CaseFailure
from convmark.worker.inputs import flat
from convmark.worker.layer_passes import FORWARD, Pass, Passes, Place
from convmark.worker.traced import is_variable

__all__ = ["Heads", "agree", "serve", "solved"]

MOST_PAIRS = 12
"""Pairs of groups that the cost of a cut is measured at."""
MIN_ROUNDS, MOST_ROUNDS = 4, 400
WARM_ROUNDS = 2
"""Rounds after the first, which compiles, that are not timed."""
OF_SPREAD = 1e-2
"""By which the pieces' result may differ from the model's, for the order of sums differs: of the
spread of its values. Probabilities of many classes are nearly equal, so that a share of themselves
would let any others pass."""
ROUNDED, ROUNDED_LOW = 1e-5, 1e-2
"""Of the largest value, in float32 and in lower precisions."""

Emit = Callable[..., None]


@dataclass
class Heads:
    """Seconds of the pieces, pass by pass."""

    passes: dict[int, list[Pass]] = field(default_factory=dict)
    """By the number of the cover."""

    def add(self, cover: int, found: Pass) -> None:
        """Keep the times of one pass, and not its values."""
        kept = Pass(found.seconds, {}, found.cuts_s)
        self.passes.setdefault(cover, []).append(kept)

    def medians(self, steps_s: Sequence[float]) -> dict[Place, float]:
        """Return the median of each piece over the passes, seconds.

        On a busy machine medians sum to less than the median pass, for a pass is disturbed
        somewhere more often than a piece. So those of a cover are scaled to the median step times
        the median ratio of a pass to the step of its round.

        Args:
            steps_s: the step of each round.
        """
        pooled: dict[Place, list[float]] = {}
        for passes in self.passes.values():
            plain = {
                place: statistics.median(one.seconds[place] for one in passes)
                for place in passes[0].seconds
            }
            ratio = statistics.median(
                sum(one.seconds.values()) / step_s
                for one, step_s in zip(passes, steps_s, strict=True)
            )
            scale = ratio * statistics.median(steps_s) / sum(plain.values())
            for place in plain:
                pooled.setdefault(place, []).extend(scale * one.seconds[place] for one in passes)
        return {place: statistics.median(seconds) for place, seconds in pooled.items()}

    def cut_s(self) -> float | None:
        """Return the cost of a cut, where the passes have timed it: the median pass's mean.

        Some cuts wake a thread and take far longer; they are in the whole pass too.
        """
        passes = [one for passes in self.passes.values() for one in passes if one.cuts_s]
        return statistics.median(statistics.fmean(one.cuts_s) for one in passes) if passes else None


def solved(
    heads: Heads,
    steps_s: Sequence[float],
    groups: Sequence[Place],
    pairs: Sequence[Place],
    *,
    whole_groups: bool,
) -> tuple[list[float], float]:
    """Return the seconds of each row and the cost of a cut, so that rows sum to the groups.

    Args:
        steps_s: the step of each round.
        pairs: pieces of two groups, where the passes have not timed a cut.
        whole_groups: a group is one row; else each unit is, by what it adds to those before it.
    """
    by_begin, until_s = dict(groups), heads.medians(steps_s)
    cut_s = heads.cut_s()
    if cut_s is None:
        saved = [
            until_s[begin, by_begin[begin]] + until_s[by_begin[begin], end] - until_s[begin, end]
            for begin, end in pairs
        ]
        cut_s = max(0.0, statistics.median(saved)) if saved else 0.0
    cut_s = min(cut_s, *(until_s[place] for place in groups))  # each group holds one
    rows = []
    for begin, end in groups:
        before_s = cut_s
        for place in [end] if whole_groups else range(begin + 1, end + 1):
            rows.append(until_s[begin, place] - before_s)
            before_s = until_s[begin, place]
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
        checked = _Chain(case, inferring, model, backend, seed)
        with _as_before(model):
            token = forward()
        checked.check(token)
    step, _ = measurement.make_step(case, model, seed, backend)
    with _as_before(model) if not training else contextlib.nullcontext():
        token = step()
        backend.synchronise(token)
    emit("first_step")  # the code has run: what other programs open from here on is none of it
    if not training:
        chain.check(token)
    pulse = timing.Pulse(lambda phase: emit("progress", phase=phase), time.monotonic)
    rounds = _Rounds(chain, step, backend, random.Random(seed), pulse)
    rounds.take(request["seconds"])
    measurement.count_work(case, model, step, backend, emit)
    emit("layers", **rounds.fields(), units=_facts(found, chain, backend))
    emit("state", **state())
    emit("finished")


@contextlib.contextmanager
def _as_before(model: Any) -> Iterator[None]:
    """Give back after a forward pass what its layers count or draw from, such as a seed's state."""
    states = [getattr(layer, "states", None) for layer in model._flatten_layers()]
    held = [*model.non_trainable_variables, *filter(is_variable, flat(states))]  # RNNs hide theirs
    kept = [(one, np.array(one.numpy())) for one in held]
    yield
    for one, value in kept:
        one.assign(value)


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
    """The pieces of a model, and the covers of it that a pass runs."""

    def __init__(self, case: Case, found: Cut, model: Any, backend: Any, seed: int) -> None:
        self.case = case
        self.cut = found
        self.whole_groups = case.jit == "on" or backend.always_compiles
        self.groups = groups_of(found.units)
        self.pairs = _spread(self.groups)
        self._backend = backend
        batch = backend.leaves(backend.device_batch(model, case.batch_size, seed))
        self.passes = Passes(case, found, batch, backend)
        # before a training step of JAX takes over the weights that the pieces copy
        self.clocked = self.passes.prepare(self.covers())
        if self.clocked:
            self.pairs = []

    def covers(self) -> list[list[Place]]:
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

    def check(self, token: tuple[Any, Any]) -> None:
        """Hold the pieces' result to the model's.

        Args:
            token: of the whole step, on the same batch.

        Raises:
            CaseFailure: they differ.
        """
        values = self.passes.run(self.groups, FORWARD).values
        whole = self._backend.leaves(token[1])
        rounded = ROUNDED if self.case.precision == PRECISIONS[0] else ROUNDED_LOW
        for value, want in zip(self.cut.outputs, whole, strict=True):
            got, wanted = (
                np.asarray(self._backend.array(one), np.float32) for one in (values[value], want)
            )
            if not agree(got, wanted, rounded):
                raise CaseFailure(
                    f"{self.case.model}: its layers called one by one do not give what the model "
                    "gives, so their times are not the model's; try --depth 1"
                )


def agree(got: Any, wanted: Any, rounded: float) -> bool:
    """Whether two results are the same but for the order of sums."""
    if got.shape != wanted.shape or not wanted.size:
        return bool(got.shape == wanted.shape)
    largest, spread = float(np.abs(wanted).max()), float(np.ptp(wanted))
    allowed = max(OF_SPREAD * spread, rounded * largest) if spread else OF_SPREAD * largest
    return bool(np.allclose(got, wanted, rtol=0.0, atol=allowed))


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
        self._heads = {mode: Heads() for mode in chain.passes.modes}

    def take(self, seconds: float) -> None:
        """Take rounds until the seconds are spent."""
        turns: list[Any] = [None]
        for mode in self._chain.passes.modes:
            turns += [(number, cover, mode) for number, cover in enumerate(self._chain.covers())]
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
                number, cover, mode = turn
                found = self._chain.passes.run(cover, mode)
                if timed:
                    self._heads[mode].add(number, found)
            self._pulse.beat("layers")

    def fields(self) -> dict[str, Any]:
        """Return the event: seconds of the step, of a cut, and of each row."""
        chain = self._chain
        step_s = statistics.median(self._step_s)
        found: dict[str, Any] = {"step_s": step_s, "rounds": len(self._step_s)}
        found["clocked"] = chain.clocked
        for mode, heads in self._heads.items():
            rows, cut_s = solved(
                *(heads, self._step_s, chain.groups, chain.pairs), whole_groups=chain.whole_groups
            )
            found |= {f"{mode}_s": rows, f"{mode}_cut_s": cut_s}
        return found
