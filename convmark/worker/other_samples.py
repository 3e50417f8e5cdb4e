"""Steps on other samples: a model that keeps what it has computed has no step time.

Samples that are all but the same ask for the same work, whatever a model decides by its samples: a
step on them that takes far longer computes what the others have kept. So does one on samples of
other values that takes far longer the first time than the second, for one that keeps by their shape
or their mean. Samples of another seed give other outputs, unless the weights alone decide these.

Whether a step uses each sample of its batch: one that leaves some out has no throughput.

A step is taken twice from the same weights, the second time with another sample in one place. Where
the results are the same to the bit, the sample may count for nothing, or there may be no telling: a
label may leave it out, a network may give the same for all samples. So more batches are tried, each
with other weights and random numbers, which a layer may drop a sample by, and a step is refused
where one place never counts and another one always does.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from convmark.core.case import Case
from convmark.core.runtimes import DEFAULT_RUNTIME, runtime_of_file
from convmark.core.tasks import TASKS
from convmark.worker.failure import CaseFailure
from convmark.worker.inputs import filled, flat

SLOWER = 3.0
"""Factor by wall and by CPU time from which a step on other samples is another step. Those that
the caches did not hold take up to twice as long where a step is short."""
LONG_S = 0.02
"""Seconds of a step from which on one on other samples must do."""
STEPS = 3
MOST_STEPS = 7
"""Where other samples look slower."""
SPREAD = 1e-3
"""Of the largest value, within which an output is one value."""
CLOSE = 1e-5
"""Of the largest value, within which outputs of other samples and of other weights are the same."""

Times = list[tuple[float, float]]
"""Wall and CPU seconds of steps."""


def hold_other_samples(
    case: Case, model: Any, step: Any, seed: int, backend: Any, *, each: bool = True
) -> None:
    """Take steps on the case's own samples and on others, in turns; then see that each one counts.

    Replicas are left out, steps that have data of their own, and samples that the model refuses.

    Args:
        seed: of the case's own samples.
        each: whether to see that each sample counts, which takes some three steps.

    Raises:
        CaseFailure: the others take far longer, or give the same; or a sample counts for nothing.
    """
    _hold_others(case, model, step, seed, backend)
    if each:
        hold_each_sample(case, model, step, seed, backend)


def _hold_others(case: Case, model: Any, step: Any, seed: int, backend: Any) -> None:
    exported = case.runtime != DEFAULT_RUNTIME
    if case.replicas > 1 or not (exported or step.takes_any):
        return
    others = _Others(case, model, step, seed, backend)
    slower, same = 1.0, False
    try:
        slower = others.slower()
        if slower < SLOWER and not exported and not TASKS[case.task].trains:
            same = others.give_the_same()
    except Exception:  # the model's own code may check its samples; two batches may not fit
        return
    if slower >= SLOWER:
        raise CaseFailure(
            f"{case.model}: every step must compute its results again, but a step on {others.kind} "
            f"takes {slower:.0f} times as long; does the model cache its results?"
        )
    if same:
        raise CaseFailure(
            f"{case.model}: the output must depend on the input, but other samples and "
            "other weights give the same; does the model cache its results?"
        )


class _Others:
    """A step on its own samples and on others."""

    def __init__(self, case: Case, model: Any, step: Any, seed: int, backend: Any) -> None:
        self._model = model
        self._step = step
        self._samples = case.batch_size
        self._trains = TASKS[case.task].trains
        self._exported = case.runtime != DEFAULT_RUNTIME
        self._seed = seed
        self._backend = backend
        self._own = [_on_host(one) for one in flat(step.batch)]
        self._token: Any = None
        self._own_times: Times = []
        self.kind = ""
        """What the other samples are, in words."""

    def slower(self) -> float:
        """Return how many times as long as its own a step on other samples takes."""
        kinds = {"nearly equal samples": self._alike, "new samples": self._scattered}
        for self.kind, make in kinds.items():
            slower = self._slower(make, 0)
            if slower >= SLOWER:  # once more, on others again: a busy machine does it by chance
                self._own_times = Times()
                slower = min(slower, self._slower(make, MOST_STEPS))
            if slower >= SLOWER:
                return slower
        return 1.0

    def _slower(self, make: Callable[[int], Any], before: int) -> float:
        """Do so for one kind of samples, of which only those that are alike ask for equal work.

        Args:
            before: how many samples of the kind were taken.
        """
        own, others, again = self._own_times, Times(), Times()
        slower = 1.0
        for number in range(1, MOST_STEPS + 1):
            batch, is_alike = make(before + number), make == self._alike
            if batch is None and is_alike:  # what takes longer at first is not decided by samples
                batch, is_alike = self._drawn(before + number), False
            if batch is None:
                break
            if is_alike or len(own) < number:
                if number + before > 1:
                    self._step()  # a model may keep the newest result alone
                self._token = self._timed(self._step, own)
            elif min(own)[0] < LONG_S:  # threads that sleep meanwhile take long to wake
                self._backend.synchronise(self._step())
            run = functools.partial(self._step.run, *batch)
            self._timed(run, others)
            by_clock = _ratios(others, own, min if is_alike else median)
            slower = min(by_clock)
            if not is_alike and slower >= SLOWER:
                self._timed(run, again)
                slower = min(slower, *_ratios(others, again, median))
            enough = number >= STEPS or min(own)[0] >= LONG_S
            if max(by_clock) < SLOWER and enough and not again:  # a busy machine moves one clock
                break
        return slower

    def give_the_same(self) -> bool:
        """Whether samples of another seed, and then other weights, give all but the same output.

        A step that is compiled whole is a pure function, which keeps nothing.
        """
        batch = self._drawn(MOST_STEPS + 1)
        if batch is None or self._backend.always_compiles:
            return False
        given = self._values(self._token or self._step())
        if not any(map(_tells, given)) or not _close(given, self._values(self._step.run(*batch))):
            return False
        weights = self._model.get_weights()
        others = list(map(_moved, weights))
        if all(one is other for one, other in zip(weights, others, strict=True)):
            return False
        try:
            self._model.set_weights(others)
            return _close(given, self._values(self._step()))
        finally:
            self._model.set_weights(weights)

    def _timed(self, run: Callable[[], Any], times: Times) -> Any:
        """Add the wall and CPU seconds of a step; return what it gave."""
        cpu_began, began = time.process_time(), time.perf_counter()
        token = run()
        self._backend.synchronise(token)
        times.append((time.perf_counter() - began, time.process_time() - cpu_began))
        return token

    def _alike(self, number: int) -> Any:
        """Return samples that are all but the same: in other last bits, or in another order."""
        alike = [_nudged(one, number) for one in self._own]
        if all(one is other for one, other in zip(self._own, alike, strict=True)):
            if any(one is None for one in self._own) or self._samples <= MOST_STEPS:
                return None  # few samples have few orders, which would come again
            alike = [np.roll(one, number, axis=0) for one in self._own]
            if _equal(self._own, alike):
                return None
        return self._placed(alike)

    def _placed(self, arrays: Sequence[Any]) -> Any:
        """Return a batch of these arrays on the device; what is None stays as it is."""
        pairs = zip(flat(self._step.batch), arrays, strict=True)
        leaves = [kept if one is None else self._backend.tensor(one) for kept, one in pairs]
        return filled(self._step.batch, leaves)

    def _scattered(self, number: int) -> Any:
        """Return the same values in other places and nearer to zero; None of whole numbers alone.

        They are in the range that the samples had, and are of the same shape. Those of a second
        look are further from zero, so that nothing can be kept of the first.
        """
        source = np.random.RandomState(self._seed % 2**16 + number)
        step = number if number <= MOST_STEPS else MOST_STEPS - number
        others = [_mixed(one, source, 1 - step / (MOST_STEPS + 1)) for one in self._own]
        if all(one is other for one, other in zip(self._own, others, strict=True)):
            return None
        return self._placed(others)

    def _drawn(self, number: int) -> Any:
        """Return samples of another seed; None where it gives the same, or another shape."""
        if self._trains or self._exported:
            return None
        batch = (self._backend.device_batch(self._model, self._samples, self._seed + number),)
        drawn = list(map(_on_host, flat(batch)))
        pairs = [(one, two) for one, two in zip(self._own, drawn, strict=True) if one is not None]
        if any((one.shape, one.dtype) != (two.shape, two.dtype) for one, two in pairs):
            return None
        return None if pairs and _equal(*zip(*pairs, strict=True)) else batch

    def _values(self, token: Any) -> list[Any]:
        self._backend.synchronise(token)
        leaves = self._backend.leaves(token[1])
        return [np.asarray(self._backend.array(one)) for one in leaves]


def _ratios(others: Times, own: Times, which: Callable[[Sequence[float]], float]) -> list[float]:
    """Return one of the other steps over the median of one's own, by each clock.

    Args:
        which: the quickest of them; or their median, for some may be of samples that were kept.
    """
    clocks = zip(zip(*others, strict=True), zip(*own, strict=True), strict=True)
    return [which(those) / max(median(these), 1e-9) for those, these in clocks]


def _on_host(value: Any) -> Any:
    """Return the values as an array; None of what is none, such as ragged rows."""
    value = value.cpu() if hasattr(value, "is_cuda") else value
    return np.asarray(value) if hasattr(value, "__array__") else None


def _nudged(array: Any, number: int) -> Any:
    """Return the values so many last bits nearer to zero; what is all whole numbers as it is."""
    if array is None or array.dtype.kind != "f" or _is_whole(array):
        return array
    for _ in range(number):
        array = np.nextafter(array, np.zeros_like(array))
    return array


def _mixed(array: Any, source: Any, scale: float) -> Any:
    """Return the values in a random order, each sample's scaled; whole numbers as they are."""
    if array is None or array.dtype.kind != "f" or _is_whole(array):
        return array
    mixed = source.permutation(array.reshape(-1)).reshape(array.shape)
    factors = scale * source.uniform(0.9, 1, (len(array), *(1,) * (array.ndim - 1)))
    return (mixed * factors).astype(array.dtype)


def _is_whole(array: Any) -> bool:
    finite = array[np.isfinite(array)]
    return bool((finite == np.trunc(finite)).all())


def _equal(some: Sequence[Any], others: Sequence[Any]) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(some, others, strict=True))


def _close(some: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether outputs are equal but for what a result that was kept may have had added to it."""
    return all(map(_is_close, some, others))


def _is_close(one: Any, other: Any) -> bool:
    if one.shape != other.shape or one.dtype.kind != "f":
        return np.array_equal(one, other)
    within = CLOSE * float(np.abs(one).max(initial=0.0))
    return bool(np.allclose(one, other, rtol=0.0, atol=within))


def _tells(array: Any) -> bool:
    """Whether values differ among themselves, and not all are activations or classes at an end."""
    if array.dtype.kind != "f" or array.size < 2:
        return False
    largest = np.abs(array).max()
    away = np.minimum(np.abs(array), largest - np.abs(array))
    return bool(np.ptp(array) > SPREAD * largest and away.max() > CLOSE * largest)


def _moved(array: Any) -> Any:
    """Return other weights: each one's factor and what is added are its own."""
    if array.dtype.kind != "f":
        return array
    by = np.random.RandomState(0).random_sample(array.shape)
    return (array * (1 + by) + by / 10).astype(array.dtype)


BATCHES = 12
"""On which a place never counts, and another one always, before a step is refused: where half of
all samples count, such as in a loss of the hardest, chance does so once in a million cases."""


def hold_each_sample(case: Case, model: Any, step: Any, seed: int, backend: Any) -> None:
    """Take steps on batches that differ in one sample alone.

    Replicas are left out, steps that have data of their own, models of much memory, and what keeps
    a count in no variable: its steps always differ. Of a Keras model that a runtime has exported
    the outputs are compared with Keras's.
    """
    exported = case.runtime != DEFAULT_RUNTIME
    of_file = exported and runtime_of_file(case.model) == case.runtime
    if case.replicas > 1 or case.batch_size < 2 or not (of_file or step.takes_any):
        return
    try:
        places = _Places(case, model, step, seed, backend, of_file=of_file)
        unused = places.never_used()
    except Exception:  # the model's own code may check its samples; two batches may not fit
        return
    if unused is not None:
        raise CaseFailure(
            f"{case.model}: a step must use each of the {case.batch_size} samples of a batch, but "
            f"its results are the same whatever sample {unused + 1} is; have the model use the "
            "whole batch, or use the --batch-sizes that it takes"
        )


class _Places:
    """A step on batches that differ in the sample at one place."""

    def __init__(
        self, case: Case, model: Any, step: Any, seed: int, backend: Any, *, of_file: bool
    ) -> None:
        self._model, self._step, self._backend = model, step, backend
        self._samples, self._seed, self._of_file = case.batch_size, seed, of_file
        self._task, self._trains = case.task, TASKS[case.task].trains
        self._updates = self._trains and backend.brings_training(model)
        self._restore = backend.kept_values(model) if self._trains else lambda: None
        self._own = list(map(_array_of, flat(step.batch)))
        self._inputs = len(list(flat(step.batch if of_file else step.batch[0])))

    def never_used(self) -> int | None:
        """Return a place whose sample never counts while another one's always does; else None."""
        last = self._samples - 1
        places = dict.fromkeys((last, 0, 1, last // 2))
        counts = dict.fromkeys(places, 0)
        first = self._restore
        try:
            if all(self._used((last, 0), 1).values()):
                return None
            for number in range(1, BATCHES + 1):
                if number > 1 and self._trains:  # the last step has changed the weights
                    self._restore = self._backend.kept_values(self._model)
                used = self._used(counts, number)
                counts = {place: counts[place] + one for place, one in used.items()}
                least, most = min(counts.values(), default=1), max(counts.values(), default=1)
                if least > 0 or (most < number and (most or not self._of_file)):
                    return None
        finally:
            first()
        never = min(counts, key=lambda place: counts[place])
        return never if max(counts.values()) == BATCHES or self._is_constant(counts) else None

    def _is_constant(self, counts: Mapping[int, int]) -> bool:
        """Whether a file gives the same for all inputs, in no output that has a line a sample."""
        if not self._of_file or any(counts.values()):
            return False
        outputs = self._taken(self._own)
        return not any(one.shape[:1] == (self._samples,) for one in outputs)

    def _used(self, places: Iterable[int], number: int) -> dict[int, bool]:
        """Return by place whether the results change with its sample, on the batch of a number.

        A place is left out where both samples are the same, such as padding.
        """
        own = self._own if number == 1 else self._drawn(number)
        others = self._drawn(number + BATCHES)[: self._inputs]
        before = self._taken(own)
        found = {}
        for place in places:
            inputs = [one.copy() for one in own[: self._inputs]]
            pairs = list(zip(inputs, others, strict=True))
            if all(np.array_equal(one[place], other[place]) for one, other in pairs):
                continue
            for one, other in pairs:
                one[place] = other[place]
            after = self._taken([*inputs, *own[self._inputs :]])
            found[place] = len(before) != len(after) or not all(map(np.array_equal, before, after))
        return found

    def _drawn(self, number: int) -> list[Any]:
        """Return the arrays of another batch."""
        seed = self._seed + number
        if self._of_file:
            batch = self._backend.inputs(self._model).batch(self._samples, seed)
        else:
            feed = self._backend.feed(self._model, self._task, self._samples, seed)
            with contextlib.closing(feed):
                batch = next(feed)
        arrays = list(map(_array_of, flat(batch)))
        pairs = zip(arrays, self._own, strict=True)
        if any((one.shape, one.dtype) != (own.shape, own.dtype) for one, own in pairs):
            raise ValueError("a batch of other shapes")
        return arrays

    def _taken(self, arrays: Sequence[Any]) -> list[Any]:
        """Take a step from the weights that were kept; return its results, of training the loss.

        And, where the model updates its weights itself, these.
        """
        self._restore()
        batch = filled(self._step.batch, [self._backend.tensor(one) for one in arrays])
        token = self._step.run(*batch)
        self._backend.synchronise(token)
        if self._of_file:
            return list(map(np.asarray, token[1]))
        if not self._trains:
            leaves = self._backend.leaves(token[1])
            return [np.asarray(self._backend.array(one)) for one in leaves]
        found = [self._backend.fingerprint(token)]
        if self._updates:
            found.append(self._backend.training_progress(self._model, whole=True) or math.nan)
        return found


def _array_of(value: Any) -> Any:
    """Return the values as an array of one's own."""
    value = value.cpu() if hasattr(value, "is_cuda") else value
    if not hasattr(value, "__array__"):
        raise TypeError(f"{type(value).__name__} is no array")
    return np.array(value)
