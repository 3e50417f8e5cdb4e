"""Blocks opened into the calls inside them, to any depth, where a block is no more than those.

A block is a model, or a layer of the user's with layers in it. What it computes by operations of
Keras between its layers is opened too; one that computes otherwise stays closed, with a note.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from convmark.worker.traced import LayerCall, is_variable, tensors, with_operations

OUTSIDE = "computes outside its layers, so they cannot be called separately"
_READ = "takes values that are computed outside of layers; their time is in the rest"
OWN = ("keras", "tf_keras", "tensorflow")
"""Packages whose layers are Keras's."""


def depth_of(call: LayerCall) -> int:
    """Return the levels of layers in a call that could be opened."""
    inner = [depth_of(one) for one in call.inner if may_open(one)]
    return 1 + max(inner, default=0)


def may_open(call: LayerCall) -> bool:
    """Return whether a call is one of a block: a model, or a layer of the user's with layers."""
    kind = type(call.layer)
    is_model = any(one.__name__ in ("Model", "Sequential", "Functional") for one in kind.__mro__)
    return bool(call.inner) and (is_model or kind.__module__.split(".")[0] not in OWN)


class Numbers(dict[int, int]):
    """Numbers of values by the identity of their symbols, and what keeps those alive."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Any] = []


_Inside = Sequence[tuple[LayerCall, LayerCall]]
"""Calls inside a block, each as it was traced with all calls and as its values are known, then the
block's own."""


@dataclass
class Opener:
    """Opens blocks into the calls that are units."""

    numbers: Numbers
    """Of the values of all units before; those that a block renames are added."""
    keras: Any
    reads: bool
    """Whether a block may compute with weights outside its layers: not where gradients follow."""

    def opened(
        self, call: LayerCall, depth: int, found: LayerCall | None = None
    ) -> Iterator[tuple[LayerCall, str]]:
        """Yield the calls that are units, in order, each with why it is not opened.

        Args:
            depth: levels of blocks, of which the call is the first.
            found: the call as its values are known.
        """
        found = found or call
        _same(self.numbers, call, found, "args", "kwargs")
        taken, note = tensors([found.args, found.kwargs]), ""
        known = all(id(one) in self.numbers for one in taken)
        if depth > 1 and may_open(call):  # a block that is given a constant stays closed
            if known and (inside := self._inside(call)):
                yield from self._each(call, inside, depth)
                _same(self.numbers, found, call, "result")
                return
            note = OUTSIDE
        elif any(self._is_constant(one) for one in taken):
            note = _READ
        yield replace(call, args=found.args, kwargs=found.kwargs), note
        _same(self.numbers, found, call, "result")

    def _is_constant(self, one: Any) -> bool:
        """Whether it is fixed, and no weight itself; positions and such are whole numbers."""
        is_value = id(one) in self.numbers or is_variable(one)
        return not is_value and "float" in str(one.dtype)

    def _each(
        self, call: LayerCall, inside: _Inside, depth: int
    ) -> Iterator[tuple[LayerCall, str]]:
        self.numbers.kept.append(inside)
        renamed = _renamed(call).items()
        self.numbers.update((other, self.numbers[value]) for other, value in renamed)
        _same(self.numbers, inside[-1][1], call, "args", "kwargs")
        for one, found in inside[:-1]:
            yield from self.opened(one, depth - 1, found)
        _same(self.numbers, call, inside[-1][1], "result")

    def _inside(self, call: LayerCall) -> _Inside:
        """Return the calls that a call amounts to; none where it does more than those."""
        if _amounts(call, call.inner):
            return [*((one, one) for one in call.inner), (call, call)]
        found = with_operations(call, self.keras, reads=self.reads) or []
        inner = [one for _, one in found[:-1]]
        whole = found and _amounts(found[-1][1], inner, self.keras.KerasTensor)
        return found if whole else []


def _same(numbers: dict[int, int], new: LayerCall, known: LayerCall, *fields: str) -> None:
    """Give the values of a call the numbers that they have in another trace of it."""
    for name in fields:
        pairs = zip(tensors(getattr(new, name)), tensors(getattr(known, name)), strict=True)
        for one, other in pairs:
            if id(other) in numbers:
                numbers.setdefault(id(one), numbers[id(other)])


def _amounts(call: LayerCall, inner: Sequence[LayerCall], symbol: Any = object) -> bool:
    """Return whether the calls inside a call amount to it: no value comes from elsewhere.

    Args:
        symbol: the class of values; others are constants.
    """
    known = {id(one) for one in tensors([call.args, call.kwargs])} | set(_renamed(call))

    def unknown(structure: Any) -> bool:
        return any(isinstance(one, symbol) and id(one) not in known for one in tensors(structure))

    for one in inner:
        masks = [mask for mask in one.taken_masks if mask is not None]
        if unknown([one.args, one.kwargs, *masks]):
            return False
        known.update(id(value) for value in tensors([one.result, one.made_masks]))
    return not unknown(call.result)


def _renamed(call: LayerCall) -> dict[int, int]:
    """Return the identities of a functional model's inputs inside it, by those outside it.

    Keras converts what such a model is given before its first layer gets it; all else that it
    computes are calls. Inputs of one shape cannot be told apart so.
    """
    if not {"Functional", "Sequential"} & {one.__name__ for one in type(call.layer).__mro__}:
        return {}
    given = tensors([call.args, call.kwargs])
    shapes = [tuple(one.shape) for one in given]
    known = {id(one) for one in given}
    found: dict[int, int] = {}
    for one in call.inner:
        for value in tensors([one.args, one.kwargs]):
            if id(value) not in known and shapes.count(tuple(value.shape)) == 1:
                found[id(value)] = id(given[shapes.index(tuple(value.shape))])
        known.update(id(value) for value in tensors(one.result))
    return found
