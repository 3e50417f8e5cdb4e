"""Time per layer: the model runs in pieces, one after another, each timed.

Each pass runs the whole model, so that every piece finds the caches as a step leaves them: its
input just written, its weights not read since the last pass. Passes of a round, in random order:

step      the whole step, as `convmark run` times it, and on a CPU beside it that of the reference
          network, which tells how fast the machine was
spans     a few consecutive rows are a piece
heads     the same, with each span cut after its first rows: a row's time is what it adds to the
          rows before it, so that what the framework fuses is told as it is

In one graph with clocks a span is a group: a convolution or dense layer with the light layers after
it. Elsewhere each piece is a call from Python, which may take longer than a layer of a small model;
so a span is then several groups, and a small model is one span. The cost of a cut is taken off each
span: the graph times it itself; elsewhere it is what two neighbours save where they are one piece.
In training all passes but the step are run twice: forward, and forward with backward. The sum of
the layers' times and the rest (dispatch, fusion over spans, loss and update) is the step time.
"""

from __future__ import annotations

import contextlib
import itertools
import operator
import random
import statistics
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convmark.core.case import PRECISIONS, Case
from convmark.core.tasks import TASKS
from convmark.worker import host, measurement, reference, timing
from convmark.worker.cuts import Cut, Unit, cut, groups_of
from convmark.worker.failure import CaseFailure
from convmark.worker.inputs import flat
from convmark.worker.layer_facts import folded, moved_bytes, unit_facts
from convmark.worker.layer_mode import check_compiled, held_to_the_layers, held_to_the_pieces
from convmark.worker.layer_passes import FORWARD, Pass, Passes, Place, profiled
from convmark.worker.traced import is_variable

SPAN_GROUPS = (2, 4, 8)
"""Groups of a span that is called from Python: each place of a cut is one more pass of a round."""
FEW_GROUPS = 16
"""Of a model whose spans may be the longest: more take long to compile once for each place."""
SPAN_FLOPS = {"cpu": 1e8, "gpu": 1e11}
"""Of a span, where the most groups amount to so many: some milliseconds, of which a call is little.
"""
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

Span = list[Place]
"""Consecutive rows of the table, each of which is one unit or a group."""


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
    heads: Heads, steps_s: Sequence[float], spans: Sequence[Span], borders: Container[int]
) -> tuple[list[float], float]:
    """Return the seconds of each row and the cost of a cut, so that rows sum to the spans.

    A cut of each span is taken off its first row, which has it, and gets no less than nothing.

    Args:
        steps_s: the step of each round.
        borders: units that a group begins at: what a cut costs where the passes have not timed it
            is told by the spans that are cut there, for inside a group it costs fusion too.
    """
    until_s = heads.medians(steps_s)
    cut_s = heads.cut_s()
    if cut_s is None:
        saved = [
            until_s[span[0][0], place]
            + until_s[place, span[-1][1]]
            - until_s[span[0][0], span[-1][1]]
            for span in spans
            for place, _ in span[1:]
            if place in borders
        ]
        cut_s = max(0.0, statistics.median(saved)) if saved else 0.0
    return [row_s for span in spans for row_s in _rows(until_s, span, borders, cut_s)], cut_s


def _rows(
    until_s: Mapping[Place, float], span: Span, borders: Container[int], cut_s: float
) -> Iterator[float]:
    """Yield what each row of a span adds to those before it, and what is missing without it.

    Between groups both tell the same, and the shorter pieces tell it better: their noise is taken
    for a share of their times. Inside a group the rows after it alone have lost what was fused.
    """
    begin, end = span[0][0], span[-1][1]
    before_s = {begin: min(cut_s, until_s[span[0]])}
    before_s |= {stop: until_s[begin, stop] for _, stop in span}
    after_s = {start: until_s[start, end] for start, _ in span if start in borders}
    after_s[end] = min(cut_s, *after_s.values())
    for start, stop in span:
        ways = [(before_s[stop], before_s[start])]
        if start in after_s and stop in after_s:
            ways.append((after_s[start], after_s[stop]))
        weights = [1 / max(one**2 + other**2, 1e-18) for one, other in ways]
        differences = [one - other for one, other in ways]
        yield sum(map(operator.mul, weights, differences)) / sum(weights)


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
        checked.check(token, [checked.groups])
    with held_to_the_layers(case.model, model, found):
        step, _ = measurement.make_step(case, model, seed, backend)
        check_compiled(case.model, backend)
        if training:
            backend.synchronise(step())  # which batch it takes shows, and its variables are made
    if training:
        with held_to_the_pieces(case.model, model, found, backend.as_written):
            backend.synchronise(step())
    with contextlib.nullcontext() if training else _as_before(model):
        token = step()
        backend.synchronise(token)
    emit("first_step")  # the code has run: what other programs open from here on is none of it
    if not training:
        chain.check(token, chain.covers())
    pulse = timing.Pulse(lambda phase: emit("progress", phase=phase), time.monotonic)
    on_cpu = case.device == "cpu"  # the load of a machine does not slow the kernels of a GPU
    beside = backend.reference_step(reference.kind(case.task, case.batch_size)) if on_cpu else None
    rounds = _Rounds(chain, step, beside, backend, random.Random(seed), pulse)
    rounds.take(request["seconds"])
    fields = rounds.fields()
    asked = (case, chain.passes, chain.groups, fields["step_s"], backend)
    together, held = (
        profiled(*asked, lambda: pulse.beat("layers"))
        if request.get("checked", True)
        else (chain.groups, {})
    )
    measurement.count_work(case, model, step, backend, emit)
    emit("layers", **fields, **held, units=_facts(found, chain, together, backend))
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


def _facts(
    found: Cut, chain: _Chain, together: Sequence[Place], backend: Any
) -> list[dict[str, Any]]:
    """Return what is known of each row: a unit, or all units of a group.

    Args:
        together: what a profiler tells apart.
    """
    facts = [unit_facts(unit, backend.keras) for unit in found.units]
    for place, before in folded(found).items():
        facts[place]["folds_into"] = before.name
    group = {unit: place for place, one in enumerate(together) for unit in range(*one)}
    return [
        {
            **_together(found.units[slice(*place)], facts[slice(*place)]),
            "span": number,
            "group": group[place[0]],
        }
        for number, span in enumerate(chain.spans)
        for place in span
    ]


def _together(units: Sequence[Unit], facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one row's facts: of a unit, or of several that the compiler may fuse."""
    if len(units) == 1:
        return dict(facts[0])
    known = [one["flops"] for one in facts]
    return {
        **facts[0],
        **{name: " + ".join(one[name] for one in facts) for name in ("name", "label", "kind")},
        "shape": facts[-1]["shape"],
        "flops": None if None in known else sum(known),
        "moved_bytes": moved_bytes(units),
        "weight_bytes": sum(one["weight_bytes"] or 0 for one in facts),
        "operations": sum(one["operations"] for one in facts),
        "folds_into": next(filter(None, (one.get("folds_into") for one in facts)), None),
        "note": "; ".join(filter(None, [one["note"] for one in facts])),
    }


class _Chain:
    """The pieces of a model, and the covers of it that a pass runs."""

    def __init__(self, case: Case, found: Cut, model: Any, backend: Any, seed: int) -> None:
        self.case = case
        self.cut = found
        self._model = model
        self.whole_groups = case.jit == "on" or backend.always_compiles
        self.groups = groups_of(found.units)
        self.spans = [self._rows(group) for group in self.groups]
        self._backend = backend
        batch = backend.leaves(backend.device_batch(model, case.batch_size, seed))
        self.passes = Passes(case, found, batch, backend)
        # before a training step of JAX takes over the weights that the pieces copy
        self.clocked = self.passes.prepare([self.groups])
        if not self.clocked:
            self.spans = self._spans()
            self.passes.prepare(self.covers())

    def _rows(self, group: Place) -> Span:
        """Return what each has a time of its own: a group that is compiled, or else its units."""
        return [group] if self.whole_groups else [(one, one + 1) for one in range(*group)]

    def _spans(self) -> list[Span]:
        """Return several groups as one: of nearly equal numbers, and two at least."""
        flops = sum(unit_facts(one, self._backend.keras)["flops"] or 0 for one in self.cut.units)
        wanted = SPAN_FLOPS["cpu" if self.case.device == "cpu" else "gpu"]
        count = len(self.groups)
        few = SPAN_GROUPS if count <= FEW_GROUPS else SPAN_GROUPS[:-1]
        most = next((one for one in few if one * flops >= wanted * count), few[-1])
        number = -(-count // most)
        borders = [count * place // number for place in range(number + 1)]
        return [
            [row for group in self.groups[begin:end] for row in self._rows(group)]
            for begin, end in itertools.pairwise(borders)
        ]

    def covers(self) -> list[list[Place]]:
        """Return the covers of the model: the spans, then those cut after their first rows."""
        return [self._cut_after(count) for count in range(max(map(len, self.spans)))]

    def _cut_after(self, count: int) -> list[Place]:
        cover = []
        for span in self.spans:
            begin, end = span[0][0], span[-1][1]
            middle = span[count][0] if count < len(span) else end
            cover += [place for place in ((begin, middle), (middle, end)) if place[0] < place[1]]
        return cover

    def check(self, token: tuple[Any, Any], covers: Sequence[Sequence[Place]]) -> None:
        """Hold the pieces' results to the model's.

        Args:
            token: of the whole step, on the same batch.
            covers: those whose pieces run.
        """
        rounded = ROUNDED if self.case.precision == PRECISIONS[0] else ROUNDED_LOW
        outputs = self._backend.leaves(token[1])
        if len(outputs) != len(self.cut.outputs):  # of ragged and sparse ones each part
            raise CaseFailure(
                f"{self.case.model}: has a ragged or sparse output, which layers are not "
                "timed for; measure it without --layers"
            )
        whole = dict(zip(self.cut.outputs, outputs, strict=True))
        results = []
        for cover in covers:
            with _as_before(self._model):
                results.append(self.passes.run(cover, FORWARD).values)
        for values, (place, want) in itertools.product(results, whole.items()):
            got, wanted = (
                np.asarray(self._backend.array(one), np.float32) for one in (values[place], want)
            )
            if not agree(got, wanted, rounded):
                raise CaseFailure(
                    f"{self.case.model}: its layers, called one by one, give other results than "
                    "the model, so their times would be wrong; try --depth 1"
                )


def agree(got: Any, wanted: Any, rounded: float) -> bool:
    """Whether two results are the same but for the order of sums."""
    if got.shape != wanted.shape or not wanted.size:
        return bool(got.shape == wanted.shape)
    largest, spread = float(np.abs(wanted).max()), float(np.ptp(wanted))
    allowed = max(OF_SPREAD * spread, rounded * largest) if spread else OF_SPREAD * largest
    return bool(np.allclose(got, wanted, rtol=0.0, atol=allowed))


class _Rounds:
    """Rounds of all passes in random order, and what they found."""

    def __init__(
        self,
        chain: _Chain,
        step: Any,
        reference_step: Any,
        backend: Any,
        order: random.Random,
        pulse: timing.Pulse,
    ) -> None:
        self._chain = chain
        self._step = step
        self._reference_step = reference_step
        self._backend = backend
        self._order = order
        self._pulse = pulse
        self._step_s: list[float] = []
        self._reference_s: list[float] = []
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
            self._round(self._shuffled(turns), timed=True)

    def _round(self, turns: Sequence[Any], *, timed: bool) -> None:
        for turn in turns:
            if turn is None:
                for step, found_s in self._shuffled(self._contestants()):
                    timing.timed_step(step, self._backend)  # warms as a step before it would
                    taken_s = timing.timed_step(step, self._backend)[0]
                    if timed:
                        found_s.append(taken_s)
            else:
                number, cover, mode = turn
                found = self._chain.passes.run(cover, mode)
                if timed:
                    self._heads[mode].add(number, found)
            self._pulse.beat("layers")

    def _shuffled(self, turns: Sequence[Any]) -> list[Any]:
        return self._order.sample(turns, len(turns))

    def _contestants(self) -> list[tuple[Any, list[float]]]:
        """Return the step, and where there is one the reference network's, with their times."""
        found = [(self._step, self._step_s)]
        if self._reference_step is not None:
            found.append((self._reference_step, self._reference_s))
        return found

    def fields(self) -> dict[str, Any]:
        """Return the event: seconds of the step, of a cut, and of each row."""
        chain = self._chain
        step_s = statistics.median(self._step_s)
        found: dict[str, Any] = {"step_s": step_s, "rounds": len(self._step_s)}
        if self._reference_s:
            ratios = map(operator.truediv, self._step_s, self._reference_s)
            found["step_per_reference"] = statistics.median(ratios)
        found |= {"clocked": chain.clocked, "whole_groups": chain.whole_groups}
        for mode, heads in self._heads.items():
            borders = {begin for begin, _ in chain.groups}
            rows, cut_s = solved(heads, self._step_s, chain.spans, borders)
            found |= {f"{mode}_s": rows, f"{mode}_cut_s": cut_s}
        return found
