"""A model cut at the borders of its layers: its units, and the pieces that run one after another.

The model is called once on symbols. A unit is one call of one layer, or of a block whose layers
cannot be called alone; it takes and gives numbered values. A piece is a few consecutive units; its
outputs are all that later units take. Of a unit that nothing takes anything of it gives all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

from convmark.worker.failure import CaseFailure
from convmark.worker.inputs import mapped, symbols
from convmark.worker.traced import (
    LayerCall,
    Masks,
    is_variable,
    tensors,
    traced_calls,
    with_operations,
)

MOST_TOGETHER = 4
"""Units of a group: a convolution with what a framework may fuse to it, such as its activation."""
OUTSIDE = "computes outside its layers, so they cannot be called separately"
_READ = "takes values that are computed outside of layers; their time is in the rest"
_UNUSED = "does not depend on it: a compiled step leaves it out"


@dataclass(frozen=True)
class Unit:
    """One call of a layer or a block, by the numbers of the values that it takes and gives."""

    name: str
    """Names of the blocks around it and its own, such as `block1/conv`.

    A second call has `#2`, and so has another layer of that name."""
    call: LayerCall
    takes: tuple[int, ...]
    gives: tuple[int, ...]
    """Of its tensors, then of the masks that they have."""
    note: str = ""
    """Why its layers are not cut further."""
    training: Any = None
    """Whether it is told that it trains; None where its own arguments tell it, or nothing does."""

    @property
    def holders(self) -> list[Any]:
        """The layer, and what holds the weights that an operation is given."""
        given = [one for one in tensors([self.call.args, self.call.kwargs]) if is_variable(one)]
        if not given:
            return [self.call.layer]
        trained = [one for one in given if one.trainable]
        more = SimpleNamespace(variables=given, weights=given, trainable_variables=trained)
        return [self.call.layer, more]

    @property
    def weights(self) -> list[Any]:
        """All that it multiplies or adds, and other state."""
        return [one for held in self.holders for one in getattr(held, "weights", None) or ()]

    @property
    def masked(self) -> bool:
        """Whether it takes or gives a mask."""
        return any(one is not None for one in (*self.call.taken_masks, *self.call.made_masks))

    @property
    def may_pass(self) -> list[bool]:
        """Of each value that it gives, whether a gradient may come back through it."""
        stops = type(self.call.layer).__name__ == "StopGradient"
        kinds = [str(one.dtype) for one in tensors(self.call.result)]
        kinds += ["bool"] * (len(self.gives) - len(kinds))  # masks
        return [not stops and ("float" in kind or "complex" in kind) for kind in kinds]

    @property
    def is_heavy(self) -> bool:
        """Whether it holds a weight that multiplies, or is made of layers."""
        return bool(self.call.inner) or any(len(weight.shape) >= 2 for weight in self.weights)


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
    keras: Any = None

    def taken(self, units: Sequence[Unit]) -> list[int]:
        """Return the values that consecutive units need from outside."""
        made: set[int] = set()
        needed: dict[int, None] = {}
        for unit in units:  # one that hands on what it is given gives a value that it takes
            needed |= dict.fromkeys(value for value in unit.takes if value not in made)
            made.update(unit.gives)
        return list(needed)

    def given(self, begin: int, end: int) -> list[int]:
        """Return the values that units `begin` to `end` must return; a step leaves others out."""
        units = self.units[begin:end]
        inside = {value for unit in units for value in unit.takes}
        later = {value for unit in self.units[end:] for value in unit.takes} | set(self.outputs)
        made: dict[int, None] = {}
        for unit in units:
            is_taken = not inside.union(later).isdisjoint(unit.gives)
            made |= dict.fromkeys(one for one in unit.gives if one in later or not is_taken)
        return list(made)

    def trained(self) -> set[int]:
        """Return the values to which a backward pass hands gradients: those after a weight."""
        found: set[int] = set()
        for unit in self.units:
            own = any(getattr(one, "trainable_variables", None) for one in unit.holders)
            if own or found & set(unit.takes):
                found.update(unit.gives)
        return found

    def followed(self) -> set[int]:
        """Return the values through which a loss reaches what comes before: a step has no gradients
        of others, such as those that only a `stop_gradient` takes."""
        found = set(self.outputs)
        for unit in reversed(self.units):
            passed = [
                one for one, is_inner in zip(unit.gives, unit.may_pass, strict=True) if is_inner
            ]
            if not found.isdisjoint(passed):
                found.update(unit.takes)
        return found

    def function(
        self, begin: int, end: int, *, trains: bool = False
    ) -> Callable[[Sequence[Any]], list[Any]]:
        """Return units `begin` to `end` as a function of the values that they need.

        Args:
            trains: whether a backward pass follows, to which only some of the values lead.
        """
        units = self.units[begin:end]
        taken, given = self.taken(units), self.given(begin, end)
        ends = set(given) - self.followed() if trains else ()
        stop = getattr(self.keras, "ops", getattr(self.keras, "backend", None)) if ends else None
        masks = Masks(self.keras) if any(unit.masked for unit in self.units) else None

        def run(values: Sequence[Any]) -> list[Any]:
            known = dict(zip(taken, values, strict=True))
            for unit in units:
                made = tensors(self._called(unit, known, masks))
                if masks:
                    pairs = zip(made, unit.call.made_masks, strict=False)
                    made += [masks.of(one) for one, mask in pairs if mask is not None]
                known.update(zip(unit.gives, made, strict=True))
            return [
                stop.stop_gradient(known[value]) if stop and value in ends else known[value]
                for value in given
            ]

        return run

    def _called(self, unit: Unit, known: Mapping[int, Any], masks: Masks | None) -> Any:
        """Call a unit as the model has called it: with its masks, and told whether it trains."""
        call = unit.call

        def value(one: Any) -> Any:
            if id(one) in self.numbers:
                return known[self.numbers[id(one)]]
            return self._weight(call, one) if is_variable(one) else one

        args, kwargs = mapped(value, call.args), mapped(value, call.kwargs)
        if masks:
            for one, mask in zip(tensors([args, kwargs]), call.taken_masks, strict=False):
                masks.put(one, None if mask is None else known[self.numbers[id(mask)]])
        if unit.training is not None:
            kwargs["training"] = unit.training
        return call.layer(*args, **kwargs)

    def _weight(self, call: LayerCall, weight: Any) -> Any:
        """Return a weight as the block around an operation reads it: in its compute dtype."""
        dtype = getattr(call.outer and call.outer.layer, "compute_dtype", None)
        is_cast = getattr(weight, "_autocast", False) and "float" in str(weight.dtype)
        return self.keras.ops.cast(weight, dtype) if dtype and is_cast else weight


def cut(model: Any, backend: Any, samples: int, depth: int | None, *, training: bool) -> Cut:
    """Return the model as units.

    Args:
        depth: levels of blocks that are opened; None opens all but those that Keras itself has.

    Raises:
        CaseFailure: the model has no layers, or none that can be called alone; or is not so deep.
    """
    root = _traced(model, backend, samples, training)
    if not root.inner:
        raise CaseFailure("has no layers: it computes only in its own call")
    deepest = depth_of(root)
    if depth is not None and depth > deepest:
        raise CaseFailure(f"--depth: must be at most {deepest}, its levels of layers, got {depth}")
    numbers = _Numbers()
    for one in _in_order(backend, [root.args, root.kwargs]):
        numbers.setdefault(id(one), len(numbers))
    inputs = list(numbers.values())
    levels = deepest if depth is None else depth
    opener = _Opener(numbers, backend.keras, reads=not training)
    units = _named(opener.opened(root, levels + 1), numbers)
    results = _in_order(backend, root.result)
    if training:
        results = _with_loss(model, root.result, results)
    outputs = [numbers[id(one)] for one in results]
    noted = _noted(units, outputs, f"the {'loss' if training else 'output'} {_UNUSED}")
    return Cut(noted, inputs, outputs, training, numbers, backend.keras)


def _with_loss(model: Any, structure: Any, results: list[Any]) -> list[Any]:
    """Return the outputs that have a loss of their own, of a compiled model that has some without.

    All where no output has one: the model then adds its losses itself.
    """
    losses = getattr(model, "loss", None)
    if not isinstance(losses, (dict, list, tuple)):
        return results
    from convmark.worker.backends.losses import by_output  # it needs Keras

    found = by_output(model, losses, structure, len(results))
    return [one for one, loss in zip(results, found, strict=True) if loss is not None] or results


def _noted(units: Sequence[Unit], outputs: Sequence[int], unused: str) -> list[Unit]:
    """Return the units; those of which the outputs take nothing have a note."""
    needed, noted = set(outputs), []
    for unit in reversed(units):
        is_unused = needed.isdisjoint(unit.gives)
        needed.update(() if is_unused else unit.takes)
        noted.append(replace(unit, note=unit.note or unused) if is_unused else unit)
    return noted[::-1]


def _traced(model: Any, backend: Any, samples: int, training: bool) -> LayerCall:
    def call_model(model: Any, sample: Any) -> Any:
        return model(sample, training=training)  # as the step calls it

    keras = backend.keras
    for _ in range(2):  # building may call a layer once more
        sample = symbols(keras, backend.inputs(model), samples)
        calls = traced_calls(model, keras, sample, call_model=call_model, operations=True)
        if all(call.was_built for call in calls):
            break
    return next(call for call in reversed(calls) if call.layer is model)


def depth_of(call: LayerCall) -> int:
    """Return the levels of layers in a call that could be opened."""
    inner = [depth_of(one) for one in call.inner if may_open(one)]
    return 1 + max(inner, default=0)


def may_open(call: LayerCall) -> bool:
    """Return whether a call is one of a block: a model, or a layer of the user's with layers."""
    kind = type(call.layer)
    is_model = any(one.__name__ in ("Model", "Sequential", "Functional") for one in kind.__mro__)
    return bool(call.inner) and (is_model or kind.__module__.split(".")[0] not in OWN)


OWN = ("keras", "tf_keras", "tensorflow")


class _Numbers(dict[int, int]):
    """Numbers of values by the identity of their symbols, and what keeps those alive."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Any] = []


_Inside = Sequence[tuple[LayerCall, LayerCall]]
"""Calls inside a block, each as it was traced with all calls and as its values are known, then the
block's own."""


@dataclass
class _Opener:
    """Opens blocks into the calls that are units."""

    numbers: _Numbers
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


def _in_order(backend: Any, structure: Any) -> list[Any]:
    """Return the tensors in the order that the framework has: of a dictionary, by its keys."""
    return tensors(backend.leaves(structure))


def _named(calls: Iterator[tuple[LayerCall, str]], numbers: dict[int, int]) -> list[Unit]:
    units, seen = [], Counter[str]()
    for call, note in calls:
        masks = [one for one in call.taken_masks if one is not None]
        if any(id(one) not in numbers for one in masks):
            raise CaseFailure(
                "has no layers that can be called separately: no layer makes the mask of "
                f"{path_of(call)}"
            )
        taken = [*tensors([call.args, call.kwargs]), *masks]
        takes = tuple(numbers[id(one)] for one in taken if id(one) in numbers)
        made = [*tensors(call.result), *(one for one in call.made_masks if one is not None)]
        for one in made:
            numbers.setdefault(id(one), len(numbers))
        gives = tuple(numbers[id(one)] for one in made)
        name = path_of(call)
        seen[name] += 1
        name += f"#{seen[name]}" if seen[name] > 1 else ""
        training = None if call.is_told else call.training
        units.append(Unit(name, call, takes, gives, note, training))
    return units


def path_of(call: LayerCall, name_of: Callable[[Any], str] = lambda layer: layer.name) -> str:
    """Return a layer's name after those of the blocks around it."""
    names = [name_of(call.layer)]
    outer = call.outer
    while outer is not None and outer.outer is not None:
        names.append(name_of(outer.layer))
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
