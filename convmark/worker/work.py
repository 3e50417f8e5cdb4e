"""Counts the FLOPs of operations: 2 x multiply-adds of convolutions and products.

Biases, activations, pooling and normalisation are not counted. An operation that multiplies and
has no rule makes the count empty, with the reason: an empty cell is honest, an undercount is not.

Source:
    He et al., "Deep residual learning for image recognition" (2015), arXiv:1512.03385, section
    3.3, counts multiply-adds so; a FLOP here is half of one, as in a device's data sheet.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

from convmark.worker.failure import message_of


class NoRule(Exception):
    """An operation's FLOPs cannot be told; the message is the reason, one short sentence."""


class Flops(int):
    """A number of FLOPs that knows how many of them multiply numbers of each dtype."""

    by_dtype: Mapping[str, int]

    def __new__(cls, count: int, by_dtype: Mapping[str, int]) -> Flops:
        """Return the number."""
        self = super().__new__(cls, count)
        self.by_dtype = by_dtype
        return self

    def __add__(self, other: int) -> Flops:
        more = getattr(other, "by_dtype", {})
        return Flops(int(self) + int(other), Counter(self.by_dtype) + Counter(more))

    def __mul__(self, times: int) -> Flops:
        by_dtype = {one: count * int(times) for one, count in self.by_dtype.items()}
        return Flops(int(self) * int(times), by_dtype)

    __radd__, __rmul__ = __add__, __mul__


@dataclass(frozen=True)
class Work:
    """FLOPs, or the reason for which there are none."""

    flops: int | None
    note: str | None = None
    dtypes: frozenset[str] = field(default=frozenset(), compare=False)
    """Of the real numbers that are multiplied; those seen so far where the count gave up."""
    by_dtype: Mapping[str, int] = field(default_factory=dict, compare=False)
    """FLOPs of all samples by what they multiply in; none where the count gave up."""
    compiled: bool = field(default=False, compare=False)
    """Whether a part of it says itself that a compiler makes one kernel of it."""
    untracked: int = field(default=0, compare=False)
    """Elements of the weights that it reads and the model does not list, as far as that is seen."""


_SEEN: ContextVar[set[str]] = ContextVar("_SEEN")
"""The dtypes that the count in progress has met, and `_COMPILED`."""
_COMPILED = "compiled"


def counted(count: Callable[[], int]) -> Work:
    """Return what the function counts, or the reason for which it gave up."""
    seen: set[str] = set()
    token = _SEEN.set(seen)
    try:
        found = count()
        work = Work(found, by_dtype=getattr(found, "by_dtype", {}))
    except NoRule as reason:
        work = Work(None, str(reason))
    finally:
        _SEEN.reset(token)
    dtypes = frozenset(seen - {_COMPILED})
    return replace(work, dtypes=dtypes, compiled=_COMPILED in seen)


def note_compiled() -> None:
    """Note that a part of what is counted is compiled whatever the case's jit says."""
    _SEEN.get().add(_COMPILED)


def followed(trace: Callable[[], Any]) -> Any:
    """Return what tracing or running a model gives.

    Raises:
        NoRule: the model raised: one that runs need not take being traced again.
    """
    try:
        return trace()
    except Exception as error:
        raise NoRule(f"the model cannot be traced: {message_of(error)}") from error


def per_sample(work: Work, samples: int) -> Work:
    """Return a step's work shared out over its samples, to the nearest FLOP."""
    return replace(work, flops=None if work.flops is None else round(work.flops / samples))


def elements(shape: Sequence[Any] | None, operation: str) -> int:
    """Return the number of elements.

    Raises:
        NoRule: an axis is not known before the model runs.
    """
    if shape is None or not all(isinstance(axis, int) for axis in shape):
        raise NoRule(f"the shape of {operation} is known only while it runs")
    return math.prod(shape)


def einsum(operation: str, equation: str, shapes: Sequence[Sequence[Any]]) -> int:
    """Return the FLOPs of an einsum of one or two operands: 2 x the product of all labels.

    One that sums over no label has no multiply-adds.

    Raises:
        NoRule: it has more operands, or an axis is not known.
    """
    inputs, _, output = equation.replace(" ", "").partition("->")
    operands = inputs.split(",")
    if len(operands) == 1:
        return 0
    if len(operands) > 2:
        raise NoRule(f"{operation} of {len(operands)} operands has no rule")
    sizes: dict[str, int] = {}
    for labels, shape in zip(operands, shapes, strict=True):
        elements(shape, operation)
        for label, axis in zip(_labels(labels, len(shape)), shape, strict=True):
            sizes[label] = max(axis, sizes.get(label, 1))  # an axis of 1 is broadcast
    kept = {*output, *(label for label in sizes if len(label) > 1)}
    return 2 * math.prod(sizes.values()) if sizes.keys() - kept else 0


def _labels(labels: str, rank: int) -> list[str]:
    """Return one label per axis; those under an ellipsis are counted from its end."""
    before, ellipsis, after = labels.partition("...")
    hidden = rank - len(before) - len(after) if ellipsis else 0
    return [*before, *(f"...{place}" for place in range(hidden, 0, -1)), *after]


def real_numbers(operation: str, kinds: Sequence[str]) -> None:
    """Note in what a product multiplies; refuse any but one of real floating-point numbers.

    Raises:
        NoRule: an operand is of integers (a quantised layer's) or of complex numbers.
    """
    _SEEN.get(set()).update(kinds)
    for kind in kinds:
        if "float" not in kind:
            raise NoRule(f"{operation} of {kind} is no floating-point product")


def product(operation: str, kinds: Sequence[str], count: Callable[[], int]) -> Flops:
    """Return the FLOPs of a product of operands of these dtypes, by the widest of them.

    Raises:
        NoRule: as `real_numbers` says, or as the count does.
    """
    real_numbers(operation, kinds)
    flops = count()
    return Flops(flops, {max(kinds, key=_bits): flops})


def _bits(kind: str) -> int:
    found = re.search(r"\d+", kind)
    return int(found[0]) if found else 0
