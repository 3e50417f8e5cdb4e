"""Whether a step uses each sample of its batch: one that leaves some out has no throughput.

A step is taken twice from the same weights, the second time with another sample in one place. Where
the results are the same to the bit, the sample may count for nothing, or there may be no telling: a
label may leave it out, a network may give the same for all samples. So more batches are tried, each
with other weights and random numbers, which a layer may drop a sample by, and a step is refused
where one place never counts and another one always does.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from convmark.core.case import Case
from convmark.core.runtimes import DEFAULT_RUNTIME, runtime_of_file
from convmark.core.tasks import TASKS
from convmark.worker.failure import CaseFailure
from convmark.worker.inputs import filled, flat

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
        self._own = list(map(_on_host, flat(step.batch)))
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
        arrays = list(map(_on_host, flat(batch)))
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


def _on_host(value: Any) -> Any:
    """Return the values as an array of one's own."""
    value = value.cpu() if hasattr(value, "is_cuda") else value
    if not hasattr(value, "__array__"):
        raise TypeError(f"{type(value).__name__} is no array")
    return np.array(value)
