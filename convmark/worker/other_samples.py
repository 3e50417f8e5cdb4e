"""Inference on other samples: a model that keeps what it has computed has no step time.

Samples that are all but the same ask for the same work, whatever a model decides by its samples: a
step on them that takes far longer computes what the others have kept. Samples of another seed give
other outputs, unless the weights alone decide these.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np

from convmark.core.case import Case
from convmark.core.runtimes import DEFAULT_RUNTIME
from convmark.core.tasks import TASKS
from convmark.worker.failure import CaseFailure
from convmark.worker.inputs import filled, flat

__all__ = ["hold_other_samples"]

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

Times = list[tuple[float, float]]
"""Wall and CPU seconds of steps."""


def hold_other_samples(case: Case, model: Any, step: Any, seed: int, backend: Any) -> None:
    """Take inference steps on the case's own samples and on others, in turns.

    Exported models and replicas are left out, and other samples that the model does not take.

    Args:
        seed: of the case's own samples.

    Raises:
        CaseFailure: the others take far longer, or give the very same.
    """
    if TASKS[case.task].trains or case.replicas > 1 or case.runtime != DEFAULT_RUNTIME:
        return
    others = _Others(model, step, case.batch_size, seed, backend)
    slower, same = 1.0, False
    try:
        slower = others.slower()
        same = slower < SLOWER and others.give_the_same()
    except Exception:  # the model's own code may check its samples; two batches may not fit
        return
    if slower >= SLOWER:
        raise CaseFailure(
            f"{case.model}: a step must compute its samples anew, and one on samples nearly the "
            f"same takes {slower:.0f} times as long; does the model keep what it has computed?"
        )
    if same:
        raise CaseFailure(
            f"{case.model}: the output must depend on the input, other samples and other weights "
            "give the very same; does the model keep what it has computed?"
        )


class _Others:
    """A step on its own samples and on others."""

    def __init__(self, model: Any, step: Any, samples: int, seed: int, backend: Any) -> None:
        self._model = model
        self._step = step
        self._samples = samples
        self._seed = seed
        self._backend = backend
        self._own = [_on_host(one) for one in flat(step.batch)]
        self._token: Any = None

    def slower(self) -> float:
        """Return how many times as long as its own the quickest step on other samples takes."""
        own: Times = []
        others: Times = []
        again: Times = []
        slower = 1.0
        for number in range(1, MOST_STEPS + 1):
            batch, is_alike = self._alike(number), True
            if batch is None:  # what takes longer at first alone is not decided by the samples
                batch, is_alike = self._drawn(number), False
            if batch is None:
                break
            if own and own[-1][0] < LONG_S:
                self._step()  # a model may keep the newest result alone
            self._token = self._timed(self._step, own)
            run = functools.partial(self._step.run, *batch)
            self._timed(run, others)
            if not is_alike:
                self._timed(run, again)
            slower = min(_ratio(others, one) for one in (own, again or own))
            if slower < SLOWER and (number >= STEPS or own[0][0] >= LONG_S):
                break
        return slower

    def give_the_same(self) -> bool:
        """Whether samples of another seed, and then other weights, give the very same output.

        A step that is compiled whole is a pure function, which keeps nothing.
        """
        batch = self._drawn(MOST_STEPS + 1)
        if batch is None or self._backend.always_compiles:
            return False
        given = self._values(self._token or self._step())
        if not any(map(_tells, given)) or not _equal(given, self._values(self._step.run(*batch))):
            return False
        weights = self._model.get_weights()
        others = list(map(_moved, weights))
        if all(one is other for one, other in zip(weights, others, strict=True)):
            return False
        try:
            self._model.set_weights(others)
            return _equal(given, self._values(self._step()))
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
        pairs = zip(flat(self._step.batch), alike, strict=True)
        leaves = [kept if one is None else self._backend.tensor(one) for kept, one in pairs]
        return filled(self._step.batch, leaves)

    def _drawn(self, number: int) -> Any:
        """Return samples of another seed; None where it gives the same, or another shape."""
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


def _ratio(others: Times, own: Times) -> float:
    """Return the quickest other step over the median of one's own, by the clock that says less."""
    clocks = zip(zip(*others, strict=True), zip(*own, strict=True), strict=True)
    return min((min(those) / max(median(these), 1e-9) for those, these in clocks), default=0.0)


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


def _is_whole(array: Any) -> bool:
    finite = array[np.isfinite(array)]
    return bool((finite == np.trunc(finite)).all())


def _equal(some: Sequence[Any], others: Sequence[Any]) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(some, others, strict=True))


def _tells(array: Any) -> bool:
    """Whether values differ among themselves, and are no saturated activations or classes."""
    if array.dtype.kind != "f" or array.size < 2 or np.isin(array, (-1.0, 0.0, 1.0)).all():
        return False
    return bool(np.ptp(array) > SPREAD * np.abs(array).max())


def _moved(array: Any) -> Any:
    """Return other weights: each one's factor and what is added are its own."""
    if array.dtype.kind != "f":
        return array
    by = np.random.RandomState(0).random_sample(array.shape)
    return (array * (1 + by) + by / 10).astype(array.dtype)
