"""The values of a model's variables: looked at between its steps, kept, and given back."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from convmark.worker.backends.keras_parts import elements, item_bytes
from convmark.worker.backends.own_training import OPTIMIZERS, counted, held

MOST_KEPT_BYTES = 1 << 29


def kept_values(model: Any) -> Callable[[], None]:
    """Return what gives a model's, its metrics' and its optimizers' variables the values of now.

    Raises:
        MemoryError: these are of too many bytes to keep them a second time.
    """
    optimizers = held(model, OPTIMIZERS)
    inner = [getattr(one, "inner_optimizer", one) for one in optimizers]
    holders = (model, *getattr(model, "metrics", ()), *optimizers, *inner)
    found = [one for holder in holders for one in _variables(holder)]
    each = list({id(one): one for one in found}.values())
    check_size(elements(one) * item_bytes(one.dtype) for one in each)
    values = [np.array(one.numpy()) for one in each]  # PyTorch's share the memory of the weights

    def restore() -> None:
        for one, value in zip(each, values, strict=True):
            one.assign(value)

    return restore


def check_size(sizes: Iterable[int]) -> None:
    """Raise a MemoryError where values of these numbers of bytes are too many to keep."""
    if sum(sizes) > MOST_KEPT_BYTES:
        raise MemoryError("too many values to keep")


def _variables(holder: Any) -> list[Any]:
    found = holder.variables
    return [*(found() if callable(found) else found)]


MOST_WATCHED, MOST_WATCHED_BYTES, LAST = 12, 1 << 17, 4
"""Trainable weights that are looked at: the last few, which train where all else is frozen, and
the smallest; so that no copy shows in the memory."""


def training_progress(model: Any, *, whole: bool = False) -> tuple[int, str] | None:
    """Return the updates that the model's optimizers have counted, and a hash of some weights.

    Args:
        whole: whether of all trainable weights and all that the optimizers keep, such as gradients
            that are collected; each may be copied.

    Returns:
        None where it does not tell, such as a model whose values are with a step of JAX.
    """
    with contextlib.suppress(Exception):  # a model's own variables and optimizers may raise any
        optimizers = held(model, OPTIMIZERS)
        inner = [getattr(one, "inner_optimizer", one) for one in optimizers]
        updates = sum(counted(one) for one in inner)
        weights = list(model.trainable_variables)
        values = hashlib.sha256()
        kept = [*weights, *itertools.chain(*map(_kept_by, inner))]
        for weight in kept if whole else _watched(weights):
            values.update(weight.numpy().tobytes())
        return updates, values.hexdigest()
    return None


def _kept_by(optimizer: Any) -> list[Any]:
    """Return an optimizer's own variables but for its counts and rates, which tell of no work."""
    return [one for one in _variables(optimizer) if len(one.shape)]


def _watched(weights: list[Any]) -> list[Any]:
    """Return those that are looked at between steps."""
    last, others = weights[-LAST:], weights[:-LAST]
    left, found = MOST_WATCHED_BYTES, list[Any]()
    for weight in [*last, *sorted(others, key=elements)]:
        size = elements(weight) * item_bytes(weight.dtype)
        if size <= left and len(found) < MOST_WATCHED:
            left -= size
            found.append(weight)
    return found
