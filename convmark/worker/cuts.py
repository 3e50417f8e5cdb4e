"""A model cut at the borders of its layers: its units, and the pieces that run one after another.

The model is called once on symbols. A unit is one call of one layer, or of a block whose layers
cannot be called alone; it takes and gives numbered values. A piece is a few consecutive units; its
outputs are all that later units take. Of a unit that nothing takes anything of it gives all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

from convmark.worker.blocks import OWN, Numbers, Opener, depth_of
from convmark.worker.failure import CaseFailure
from convmark.worker.inputs import flat, mapped, symbols
from convmark.worker.traced import LayerCall, Masks, is_variable, tensors, traced_calls

MOST_TOGETHER = 4
"""Units of a group: a convolution with what a framework may fuse to it, such as its activation."""
_ENDS = {"StopGradient", "Ceil", "Floor", "FloorDivide", "Heaviside", "Round", "Sign", "Trunc"}
"""Operations of Keras that a framework may have no gradients of."""
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
    stopped: frozenset[tuple[int, int | None]] = frozenset()
    """Values that it gives, each with one that it takes to which no gradient of it comes; None is
    any weight."""

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

    def comes(self, given: int, taken: int | None) -> bool:
        """Whether a gradient of a value that it gives comes to one that it takes, or a weight."""
        passes = any(on for one, on in zip(self.gives, self.may_pass, strict=True) if one == given)
        return passes and (given, taken) not in self.stopped

    @property
    def may_stop(self) -> bool:
        """Whether it may end gradients: it is not Keras's own, is given a function, or has none."""
        return _may_stop(self.call)

    @property
    def is_heavy(self) -> bool:
        """Whether it holds a weight that multiplies, or is made of layers."""
        return bool(self.call.inner) or any(len(weight.shape) >= 2 for weight in self.weights)


def _may_stop(call: LayerCall) -> bool:
    kind = type(call.layer)
    held = [*vars(call.layer).values(), *flat([call.args, call.kwargs])]
    ends = kind.__module__.partition(".")[0] not in OWN or kind.__name__ in _ENDS
    return ends or any(map(_is_given, held)) or any(map(_may_stop, call.inner))


def _is_given(one: Any) -> bool:
    """Whether it is a function that is no activation of Keras's, such as a `stop_gradient`."""
    place = str(getattr(one, "__module__", ""))
    is_kerass = place.partition(".")[0] in ("keras", "tf_keras") and ".ops" not in place
    return callable(one) and not is_kerass


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
            sources = [*(one for one in unit.takes if one in found), *[None] * own]
            found.update(
                one for one in unit.gives if any(unit.comes(one, source) for source in sources)
            )
        return found

    def followed(self) -> set[int]:
        """Return the values through which a loss reaches what comes before: a step has no gradients
        of others, such as those that only a `stop_gradient` takes."""
        found = set(self.outputs)
        for unit in reversed(self.units):
            given = [one for one in unit.gives if one in found]
            found.update(
                taken for taken in unit.takes if any(unit.comes(one, taken) for one in given)
            )
        return found

    def function(
        self,
        begin: int,
        end: int,
        *,
        trains: bool = False,
        within: Callable[[int], AbstractContextManager[Any]] = nullcontext,
    ) -> Callable[[Sequence[Any]], list[Any]]:
        """Return units `begin` to `end` as a function of the values that they need.

        Args:
            trains: whether a backward pass follows, to which only some of the values lead.
            within: gives what each unit is called in, by its place.
        """
        units = self.units[begin:end]
        taken, given = self.taken(units), self.given(begin, end)
        ends = set(given) - self.followed() if trains else ()
        stop = getattr(self.keras, "ops", getattr(self.keras, "backend", None)) if ends else None
        masks = Masks(self.keras) if any(unit.masked for unit in self.units) else None

        def run(values: Sequence[Any]) -> list[Any]:
            known = dict(zip(taken, values, strict=True))
            for place, unit in enumerate(units, begin):
                with within(place):
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
    numbers = Numbers()
    for one in _in_order(backend, [root.args, root.kwargs]):
        numbers.setdefault(id(one), len(numbers))
    inputs = list(numbers.values())
    levels = deepest if depth is None else depth
    opener = Opener(numbers, backend.keras, reads=not training)
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
