"""Inference on other samples: a model that keeps what it has computed has no step time.

The others are the same values in other places. They cost a few short steps, or one long one.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from convmark.core.case import Case
from convmark.core.runtimes import DEFAULT_RUNTIME
from convmark.core.tasks import TASKS
from convmark.worker.failure import CaseFailure
from convmark.worker.inputs import filled, flat, mapped

__all__ = ["hold_other_samples"]

SLOWER = 3.0
"""Factor by wall and by CPU time from which a step on other samples is another step. Those that
the caches did not hold take up to twice as long where a step is short."""
LONG_S = 0.02
"""Seconds of a step from which on one on other samples must do."""
STEPS = 3
SPREAD = 1e-3
"""Of the largest value. A network that was never trained may give nearly one value whatever it is
given, and rounded the same ones."""

Times = list[tuple[float, float]]
"""Wall and CPU seconds of steps."""


def hold_other_samples(case: Case, step: Any, backend: Any) -> None:
    """Take inference steps on the case's own samples and on others, in turns.

    What looks slower is tried again. Exported models and replicas are left out.

    Raises:
        CaseFailure: the others take far longer, or give the very same.
    """
    if TASKS[case.task].trains or case.replicas > 1 or case.runtime != DEFAULT_RUNTIME:
        return
    given = [np.asarray(_on_host(one)) for one in flat(step.batch)]
    if all(np.array_equal(one, _moved(one, 1)) for one in given):
        return
    slower = SLOWER
    for begin in (1, 1 + STEPS):
        own: Times = []
        others: Times = []
        for places in range(begin, begin + STEPS):
            batch = mapped(functools.partial(_placed, backend, places), step.batch)
            token = _timed(step, backend, own)
            other = _timed(functools.partial(step.run, *batch), backend, others)
            if others[0][0] >= LONG_S:
                break
        if _gives_the_same(token, other, backend) and _is_constant(token, step, given, backend):
            raise CaseFailure(
                f"{case.model}: the output must depend on the input, other samples give the very "
                "same; does the model keep what it has computed?"
            )
        slower = min(_ratio(own, others, clock) for clock in (0, 1))
        if slower < SLOWER:
            return
    raise CaseFailure(
        f"{case.model}: a step must compute its samples anew, and one on other samples takes "
        f"{slower:.0f} times as long; does the model keep what it has computed, or do its "
        "samples decide how much it computes?"
    )


def _timed(run: Callable[[], Any], backend: Any, times: Times) -> Any:
    cpu_began, began = time.process_time(), time.perf_counter()
    token = run()
    backend.synchronise(token)
    times.append((time.perf_counter() - began, time.process_time() - cpu_began))
    return token


def _ratio(own: Times, others: Times, clock: int) -> float:
    """Return the quickest other step over the median of one's own."""
    quick, usual = min(one[clock] for one in others), median(one[clock] for one in own)
    return quick / max(usual, 1e-9)


def _on_host(value: Any) -> Any:
    return value.cpu() if hasattr(value, "is_cuda") else value


def _moved(array: Any, places: int) -> Any:
    return np.roll(array.reshape(-1), places).reshape(array.shape)


def _placed(backend: Any, places: int, value: Any) -> Any:
    return backend.tensor(_moved(np.asarray(_on_host(value)), places))


def _is_constant(token: Any, step: Any, given: list[Any], backend: Any) -> bool:
    """Whether a step gives the same even of its smallest and of its largest value alone.

    A model may take its values as a set, as one that ends in the maximum over all places does.
    """
    for extreme in (np.min, np.max):
        leaves = [backend.tensor(np.full_like(one, extreme(one))) for one in given]
        other = step.run(*filled(step.batch, leaves))
        backend.synchronise(other)
        if not _gives_the_same(token, other, backend):
            return False
    return True


def _gives_the_same(one: Any, other: Any, backend: Any) -> bool:
    """Whether two steps gave the same numbers, and such as depend on something."""
    if backend.fingerprint(one) != backend.fingerprint(other):
        return False
    pairs = list(zip(backend.leaves(one[1]), backend.leaves(other[1]), strict=True))
    arrays = [tuple(np.asarray(backend.array(leaf)) for leaf in pair) for pair in pairs]
    same = all(np.array_equal(first, second) for first, second in arrays)
    return same and any(_tells(first) for first, _ in arrays)


def _tells(array: Any) -> bool:
    """Whether values differ among themselves, and are no saturated activations or classes."""
    if array.dtype.kind != "f" or array.size < 2 or np.isin(array, (-1.0, 0.0, 1.0)).all():
        return False
    return bool(np.ptp(array) > SPREAD * np.abs(array).max())
