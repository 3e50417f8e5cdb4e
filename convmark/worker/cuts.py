"""A model cut at the borders of its layers: its units, and the pieces that run one after another.

The model is called once on symbols. A unit is one call of one layer, or of a block whose layers
cannot be called alone; it takes and gives numbered values. A piece is a few consecutive units; its
outputs are all that later units take, and what nothing takes: no compiler may leave out its work.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from convmark.worker.failure import CaseFailure
from convmark.worker.flops import LayerCall, call_flops, traced_calls
from convmark.worker.inputs import flat, mapped, symbols

__all__ = [
    "Cut",
    "Unit",
    "cut",
    "groups_of",
    "moved_bytes",
    "unit_facts",
]

MOST_TOGETHER = 4
"""Units of a group: a convolution with what a framework may fuse to it, such as its activation."""
_OUTSIDE = "computes outside its layers, which are not called alone"


@dataclass(frozen=True)
class Unit:
    """One call of a layer or a block, by the numbers of the values that it takes and gives."""

    name: str
    """Names of the blocks around it and its own, such as `block1/conv`; a second call has `#2`."""
    call: LayerCall
    takes: tuple[int, ...]
    gives: tuple[int, ...]
    note: str = ""
    """Why its layers are not cut further."""

    @property
    def is_heavy(self) -> bool:
        """Whether it holds a weight that multiplies, or is made of layers."""
        held = getattr(self.call.layer, "weights", None) or ()
        return bool(self.call.inner) or any(len(weight.shape) >= 2 for weight in held)


@dataclass
class Cut:
    """A model as a sequence of units."""

    units: list[Unit]
    inputs: list[int]
    """Values that the model is given."""
    outputs: list[int]
    """Values that it returns."""
    training: bool
    numbers: Mapping[int, int] = field(default_factory=dict)
    """Of the values, by the identity of their symbols."""

    def taken(self, units: Sequence[Unit]) -> list[int]:
        """Return the values that consecutive units need from outside."""
        made: set[int] = set()
        needed: dict[int, None] = {}
        for unit in units:  # one that hands on what it is given gives a value that it takes
            needed |= dict.fromkeys(value for value in unit.takes if value not in made)
            made.update(unit.gives)
        return list(needed)

    def given(self, begin: int, end: int) -> list[int]:
        """Return the values that units `begin` to `end` must return."""
        units = self.units[begin:end]
        inside = {value for unit in units for value in unit.takes}
        later = {value for unit in self.units[end:] for value in unit.takes} | set(self.outputs)
        made = dict.fromkeys(value for unit in units for value in unit.gives)
        return [value for value in made if value in later or value not in inside]

    def trained(self) -> set[int]:
        """Return the values to which a backward pass hands gradients: those after a weight."""
        found: set[int] = set()
        for unit in self.units:
            if getattr(unit.call.layer, "trainable_variables", None) or found & set(unit.takes):
                found.update(unit.gives)
        return found

    def function(self, begin: int, end: int) -> Callable[[Sequence[Any]], list[Any]]:
        """Return units `begin` to `end` as a function of the values that they need."""
        units = self.units[begin:end]
        taken, given = self.taken(units), self.given(begin, end)

        def run(values: Sequence[Any]) -> list[Any]:
            known = dict(zip(taken, values, strict=True))
            for unit in units:
                result = self._called(unit, known)
                known.update(zip(unit.gives, _tensors(result), strict=True))
            return [known[value] for value in given]

        return run

    def _called(self, unit: Unit, known: Mapping[int, Any]) -> Any:
        def value(one: Any) -> Any:
            return known[self.numbers[id(one)]] if id(one) in self.numbers else one

        layer = unit.call.layer
        args, kwargs = mapped(value, unit.call.args), mapped(value, unit.call.kwargs)
        takes = inspect.signature(layer.call).parameters
        if "training" in takes and kwargs.get("training") is None and len(args) < len(takes):
            kwargs["training"] = self.training
        return layer(*args, **kwargs)


def cut(model: Any, backend: Any, samples: int, depth: int | None, *, training: bool) -> Cut:
    """Return the model as units.

    Args:
        depth: levels of blocks that are opened; None opens all but those that Keras itself has.

    Raises:
        CaseFailure: the model has no layers, or none that can be called alone; or is not so deep.
    """
    root = _traced(model, backend, samples, training)
    if not root.inner:
        raise CaseFailure("has no layers: it computes in its own call alone")
    deepest = depth_of(root)
    if depth is not None and depth > deepest:
        raise CaseFailure(f"--depth: must be at most {deepest}, its levels of layers, got {depth}")
    if why := _not_opened(root):
        raise CaseFailure(f"has no layers that can be called alone: it {why}")
    numbers: dict[int, int] = {}
    for one in _in_order(backend, [root.args, root.kwargs]):
        numbers.setdefault(id(one), len(numbers))
    inputs = list(numbers.values())
    units = _named(_opened(root, deepest if depth is None else depth, numbers), numbers)
    outputs = [numbers[id(one)] for one in _in_order(backend, root.result)]
    return Cut(units, inputs, outputs, training, numbers)


def _traced(model: Any, backend: Any, samples: int, training: bool) -> LayerCall:
    def call_model(model: Any, sample: Any) -> Any:
        if "training" in inspect.signature(model.call).parameters:
            return model(sample, training=training)
        return model(sample)

    keras = backend.keras
    for _ in range(2):  # building may call a layer once more
        sample = symbols(keras, backend.inputs(model), samples)
        calls = traced_calls(model, keras, sample, call_model=call_model, operations=True)
        if all(call.was_built for call in calls):
            break
    return next(call for call in reversed(calls) if call.layer is model)


def depth_of(call: LayerCall) -> int:
    """Return the levels of layers in a call that could be opened."""
    inner = [depth_of(one) for one in call.inner if _may_open(one)]
    return 1 + max(inner, default=0)


def _may_open(call: LayerCall) -> bool:
    """Return whether a call is one of a block: a model, or a layer of the user's with layers."""
    kind = type(call.layer)
    is_model = any(one.__name__ in ("Model", "Sequential", "Functional") for one in kind.__mro__)
    return bool(call.inner) and (is_model or kind.__module__.split(".")[0] not in _OWN)


_OWN = ("keras", "tf_keras", "tensorflow")


def _opened(
    call: LayerCall, depth: int, numbers: dict[int, int]
) -> Iterator[tuple[LayerCall, str]]:
    """Yield the calls that are units, in order, each with why it is not opened.

    Args:
        numbers: of the values of all units before; those that a block renames are added.
    """
    numbers.update((other, numbers[value]) for other, value in _renamed(call).items())
    for one in call.inner:
        why = _not_opened(one) if depth > 1 and _may_open(one) else ""
        if depth > 1 and _may_open(one) and not why:
            yield from _opened(one, depth - 1, numbers)
        else:
            yield one, why


def _not_opened(call: LayerCall) -> str:
    """Return why the layers inside a call do not amount to it; empty where they do."""
    known = {id(one) for one in _tensors([call.args, call.kwargs])} | set(_renamed(call))
    for one in call.inner:
        if any(id(value) not in known for value in _tensors([one.args, one.kwargs])):
            return _OUTSIDE
        known.update(id(value) for value in _tensors(one.result))
    if any(id(value) not in known for value in _tensors(call.result)):
        return _OUTSIDE
    return ""


def _renamed(call: LayerCall) -> dict[int, int]:
    """Return the identities of a functional model's inputs inside it, by those outside it.

    Keras converts what such a model is given before its first layer gets it; all else that it
    computes are calls. Inputs of one shape cannot be told apart so.
    """
    if not {"Functional", "Sequential"} & {one.__name__ for one in type(call.layer).__mro__}:
        return {}
    given = _tensors([call.args, call.kwargs])
    shapes = [tuple(one.shape) for one in given]
    known = {id(one) for one in given}
    found: dict[int, int] = {}
    for one in call.inner:
        for value in _tensors([one.args, one.kwargs]):
            if id(value) not in known and shapes.count(tuple(value.shape)) == 1:
                found[id(value)] = id(given[shapes.index(tuple(value.shape))])
        known.update(id(value) for value in _tensors(one.result))
    return found


def _tensors(structure: Any) -> list[Any]:
    """Return the tensors of a structure; what is fixed, such as a number, is none."""
    return [one for one in flat(structure) if hasattr(one, "shape") and hasattr(one, "dtype")]


def _in_order(backend: Any, structure: Any) -> list[Any]:
    """Return the tensors in the order that the framework has: of a dictionary, by its keys."""
    return _tensors(backend.leaves(structure))


def _named(calls: Iterator[tuple[LayerCall, str]], numbers: dict[int, int]) -> list[Unit]:
    units, seen = [], Counter[str]()
    for call, note in calls:
        takes = tuple(numbers[id(one)] for one in _tensors([call.args, call.kwargs]))
        for one in _tensors(call.result):
            numbers.setdefault(id(one), len(numbers))
        gives = tuple(numbers[id(one)] for one in _tensors(call.result))
        name = _path(call)
        seen[name] += 1
        name += f"#{seen[name]}" if seen[name] > 1 else ""
        units.append(Unit(name, call, takes, gives, note))
    return units


def _path(call: LayerCall) -> str:
    names = [call.layer.name]
    outer = call.outer
    while outer is not None and outer.outer is not None:
        names.append(outer.layer.name)
        outer = outer.outer
    return "/".join(reversed(names))


def groups_of(units: Sequence[Unit]) -> list[tuple[int, int]]:
    """Return where groups begin and end: a layer with weights and the light ones that follow it.

    A framework fuses those; a group is a chain, and has at most `MOST_TOGETHER` units.
    """
    begins: list[int] = []
    for place, unit in enumerate(units):
        follows = place > 0 and set(unit.takes) <= set(units[place - 1].gives)
        full = bool(begins) and place - begins[-1] >= MOST_TOGETHER
        if not follows or full or unit.is_heavy:
            begins.append(place)
    return list(zip(begins, [*begins[1:], len(units)], strict=True))


def unit_facts(unit: Unit, keras: Any) -> dict[str, Any]:
    """Return what is known of a unit without running it: FLOPs and bytes are those of a step."""
    call = unit.call
    return {
        "name": unit.name,
        "kind": type(call.layer).__name__,
        "shape": [None if axis is None else int(axis) for axis in call.output or ()],
        "flops": call_flops(call, keras),
        "moved_bytes": moved_bytes([unit]),
        "settings": _settings(call.layer),
        "note": unit.note,
    }


def moved_bytes(units: Sequence[Unit]) -> int | None:
    """Return the bytes that a chain of units takes, holds as weights and gives, once each."""
    weights = [one for unit in units for one in getattr(unit.call.layer, "weights", None) or ()]
    return _bytes([*_tensors(units[0].call.taken), *weights, *_tensors(units[-1].call.made)])


def _bytes(values: Sequence[Any]) -> int | None:
    total = 0
    for one in values:
        if any(not isinstance(axis, int) for axis in tuple(one.shape)):
            return None
        size = 1
        for axis in tuple(one.shape):
            size *= axis
        name = str(getattr(one.dtype, "name", one.dtype))
        total += size * next(
            (int(bits) // 8 for bits in ("64", "32", "16", "8") if bits in name), 1
        )
    return total


def _settings(layer: Any) -> dict[str, Any]:
    """Return what advice on a convolution goes by."""
    kernel = getattr(layer, "kernel_size", None)
    filters = getattr(layer, "filters", None) or getattr(layer, "units", None)
    return {"kernel": list(kernel) if kernel else None, "channels": filters}
