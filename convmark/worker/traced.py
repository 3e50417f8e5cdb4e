"""A model called once on symbols: its layer calls, what each takes and gives, and its operations.

A functional graph has its operations (`ops.add`) as nodes. What a block's own `call` computes by
`keras.ops` between its layers is found by calling it again on Keras's symbols (`with_operations`).
What it computes by its framework's functions cannot be found so.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from convmark.worker.inputs import called, flat, mapped

Shape = tuple[int | None, ...]


@dataclass(slots=True, kw_only=True)
class LayerCall:
    """One call of a layer while it is traced; all shapes with the batch axis, which is 1."""

    layer: Any
    was_built: bool
    positional: Sequence[Shape | None]
    named: dict[str, Shape | None]
    taken: list[Any]
    """The tensors themselves, kept so that no other gets their identity."""
    made: list[Any] = field(default_factory=list)
    output: Shape | None = None
    inner: list[LayerCall] = field(default_factory=list)
    outer: LayerCall | None = None
    """The call that it is part of; None of the model's own."""
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    """The arguments, as they came."""
    result: Any = None
    """What it returned."""
    told: Any = None
    """`training` as Keras handed it to the layer's `call`; None where it did not."""
    taken_masks: list[Any] = field(default_factory=list)
    """The mask of each tensor that it takes, None where it has none, as they were then."""
    made_masks: list[Any] = field(default_factory=list)
    """The same of each tensor that it returned."""

    @property
    def given(self) -> Any:
        """The first argument, as it came."""
        return self.args[0] if self.args else None

    @property
    def is_told(self) -> bool:
        """Whether the code that calls it says itself whether it trains."""
        try:
            bound = inspect.signature(self.layer.call).bind_partial(*self.args, **self.kwargs)
        except TypeError:  # Keras takes `training` off where `call` has no such argument
            return "training" in self.kwargs
        return "training" in bound.arguments or "training" in self.kwargs

    @property
    def training(self) -> Any:
        """Whether the layers in it train: as Keras told them; None where none asks."""
        if self.told is not None:
            return self.told
        found = (one.training for one in self.inner if not one.is_told)
        return next((one for one in found if one is not None), None)

    def argument(self, position: int, name: str) -> Shape | None:
        """Return the shape of an argument given by position or by name."""
        if position < len(self.positional):
            return self.positional[position]
        return self.named.get(name)


class Masks:
    """Masks as Keras hangs them on tensors, such as that of an Embedding with `mask_zero`."""

    def __init__(self, keras: Any) -> None:
        self._of: Callable[[Any], Any] = lambda tensor: getattr(tensor, "_keras_mask", None)
        self._set: Callable[[Any, Any], Any] = lambda tensor, mask: setattr(
            tensor, "_keras_mask", mask
        )
        own: Any = sys.modules.get(f"{keras.__name__}.src.backend")  # there is no public name
        if hasattr(own, "get_keras_mask"):
            self._of, self._set = own.get_keras_mask, own.set_keras_mask

    def of(self, tensor: Any) -> Any:
        """Return a tensor's mask, or None."""
        return self._of(tensor)

    def put(self, tensor: Any, mask: Any) -> None:
        """Hang a mask on a tensor, or take it off."""
        if self._of(tensor) is not mask:
            self._set(tensor, mask)


def is_tensor(one: Any) -> bool:
    """Whether it has a shape and a dtype; what is fixed, such as a number, has none."""
    return hasattr(one, "shape") and hasattr(one, "dtype")


def is_variable(one: Any) -> bool:
    """Whether it is a weight, and no tensor that a layer gives."""
    return is_tensor(one) and hasattr(one, "assign") and hasattr(one, "trainable")


def tensors(structure: Any) -> list[Any]:
    return [one for one in flat(structure) if is_tensor(one)]


def traced_calls(
    model: Any,
    keras: Any,
    sample: Any,
    *,
    call_model: Callable[[Any, Any], Any] = called,
    operations: bool = False,
) -> list[LayerCall]:
    """Return the calls of one symbolic forward pass, inner ones before outer ones.

    The model is called from a layer of its own: a functional model called on a `keras.Input`
    would infer its output's shape without calling its layers.

    Args:
        sample: `keras.Input`s in the structure that the model takes.
        call_model: calls the model on the sample.
        operations: whether the operations of a functional graph that are no layers (Keras 3) are
            among the calls.
    """

    class Probe(keras.layers.Layer):  # type: ignore[misc]  # Keras is handed in
        def call(self, sample: Any) -> Any:
            return call_model(model, sample)

    layer = keras.layers.Layer
    with contextlib.ExitStack() as stack:
        calls, running = stack.enter_context(
            _recorded_calls(layer, type(next(flat(sample))), keras)
        )
        if operations and hasattr(keras, "Operation"):
            stack.enter_context(_recorded_operations(keras.Operation, layer, calls, running))
        Probe()(sample)
    for call in calls:
        if call.outer is calls[-1]:
            call.outer = None
    return calls[:-1]


@contextmanager
def recorded_calls(keras: Any) -> Iterator[list[LayerCall]]:
    """Keep the layer calls made inside, whatever they compute with, inner ones first."""

    class Never:
        """No value has this type: all calls are kept."""

    with _recorded_calls(keras.layers.Layer, Never, keras) as (calls, running):
        if not hasattr(keras, "Operation"):
            yield calls
            return
        with _recorded_operations(keras.Operation, keras.layers.Layer, calls, running):
            yield calls


@contextmanager
def _recorded_calls(
    layer_class: Any, symbol: type, keras: Any
) -> Iterator[tuple[list[LayerCall], list[LayerCall]]]:
    """Keep every layer call made inside, in the order in which they end, and those still running.

    Args:
        layer_class: the base class of all layers.
        symbol: the type of a `keras.Input`. A layer that gets one inside another layer's call is
            part of a graph that is being rebuilt, not of the forward pass, and is left out.
    """
    original, masks = layer_class.__call__, Masks(keras)
    running: list[LayerCall] = []
    finished: list[LayerCall] = []

    @functools.wraps(original)  # its module, too: Keras 2 converts calls of unknown modules
    def recorded(layer: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the layer, and note the call with those inside it."""
        if running and any(isinstance(value, symbol) for value in flat([args, kwargs])):
            return original(layer, *args, **kwargs)
        call = _begun(layer, args, kwargs)
        call.taken_masks = [masks.of(one) for one in tensors([args, kwargs])]
        if running:
            running[-1].inner.append(call)
            call.outer = running[-1]
            if not hasattr(keras, "Operation"):  # Keras 2 has what a block around it was told
                call.told = kwargs.get("training", call.outer.told)
        running.append(call)
        try:
            outputs = original(layer, *args, **kwargs)
        finally:
            running.pop()
        _end(call, outputs)
        call.made_masks = [masks.of(one) for one in tensors(outputs)]
        finished.append(call)
        return outputs

    layer_class.__call__ = recorded
    try:
        yield finished, running
    finally:
        layer_class.__call__ = original


@contextmanager
def _recorded_operations(
    operation_class: Any, layer_class: Any, finished: list[LayerCall], running: list[LayerCall]
) -> Iterator[None]:
    """Keep the calls of operations that are no layers too, and what Keras tells layers."""
    original = operation_class.__call__

    @functools.wraps(original)
    def recorded(operation: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(operation, layer_class) or not running:
            if running and running[-1].layer is operation:
                running[-1].told = kwargs.get("training")
            return original(operation, *args, **kwargs)
        call = _begun(operation, args, kwargs)
        call.outer = running[-1]
        outputs = original(operation, *args, **kwargs)
        running[-1].inner.append(call)
        _end(call, outputs)
        finished.append(call)
        return outputs

    operation_class.__call__ = recorded
    try:
        yield
    finally:
        operation_class.__call__ = original


def _begun(layer: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> LayerCall:
    return LayerCall(
        layer=layer,
        was_built=bool(getattr(layer, "built", True)),
        positional=[_shape(value) for value in args],
        named={name: _shape(value) for name, value in kwargs.items()},
        taken=list(flat([args, kwargs])),
        args=tuple(args),
        kwargs=kwargs,
    )


def _end(call: LayerCall, outputs: Any) -> None:
    call.output, call.made, call.result = _shape(outputs), list(flat(outputs)), outputs


def _shape(structure: Any) -> Shape | None:
    """Return the shape of the first tensor of a structure; None where there is none."""
    first = next(flat(structure), None)
    shape = getattr(first, "shape", None)
    if shape is None or getattr(shape, "rank", 0) is None:
        return None
    return tuple(shape)


def with_operations(
    block: LayerCall, keras: Any, *, reads: bool
) -> list[tuple[LayerCall, LayerCall]] | None:
    """Return the calls inside a block with the operations of Keras between them, in order.

    Its own `call` runs on Keras's symbols, which any other function refuses. The layers must be
    those that the block called before, in the same order.

    Args:
        reads: whether it may compute with weights before its layers do; what comes of that is a
            constant then, which no gradient follows.

    Returns:
        Each call as it was traced before, and on the symbols; of an operation both are the same.
        The last is the block's own. None where it computes otherwise, or sets a weight outside
        its layers.
    """
    if not hasattr(keras, "KerasTensor"):
        return None
    known: dict[int, Any] = {}

    def symbol(one: Any) -> Any:
        if not is_tensor(one) or is_variable(one):
            return one
        dtype = str(getattr(one.dtype, "name", one.dtype)).removeprefix("torch.")
        return known.setdefault(id(one), keras.KerasTensor(tuple(one.shape), dtype))

    def converted(one: Any) -> Any:  # as `Layer.__call__` does before `call`
        layer = block.layer
        if not isinstance(one, keras.KerasTensor) or not layer._convert_input_args:
            return one
        return layer.dtype_policy.convert_input(one, layer.autocast, layer.input_dtype)

    own = replace(
        block, args=mapped(symbol, block.args), kwargs=mapped(symbol, block.kwargs), inner=[]
    )
    if "training" in inspect.signature(block.layer.call).parameters and not block.is_told:
        own.kwargs["training"] = block.told
    kwargs = {name: one for name, one in own.kwargs.items() if name != "training" or _asks(block)}
    try:
        with _symbolic_calls(keras, own) as (read, changed), _weights_by_operations(keras):
            args, kwargs = mapped(converted, own.args), mapped(converted, kwargs)
            _end(own, block.layer.call(*args, **kwargs))
    except Exception:  # whatever a function says that does not know Keras's symbols
        return None
    layers = [one for one in block.inner if isinstance(one.layer, keras.layers.Layer)]
    found = [one for one in own.inner if isinstance(one.layer, keras.layers.Layer)]
    same = [one.layer for one in layers] == [one.layer for one in found]
    if changed or (read and not reads) or not same or not _alike(block, own):
        return None
    traced = iter(layers)
    pairs = [
        (next(traced) if isinstance(one.layer, keras.layers.Layer) else one, one)
        for one in own.inner
    ]
    return [*pairs, (block, own)] if all(_alike(*pair) for pair in pairs) else None


def _asks(call: LayerCall) -> bool:
    return "training" in inspect.signature(call.layer.call).parameters


def _alike(one: LayerCall, other: LayerCall) -> bool:
    """Whether two calls take and give tensors of the same shapes."""
    sides = [
        [
            [tuple(value.shape) for value in tensors(part)]
            for part in (call.args, call.kwargs, call.result)
        ]
        for call in (one, other)
    ]
    return sides[0] == sides[1]


@contextmanager
def _symbolic_calls(keras: Any, block: LayerCall) -> Iterator[tuple[list[Any], list[Any]]]:
    """Keep the calls of layers and operations on symbols that a block's own code makes.

    Gives the weights that this code reads, and those that it sets, itself.
    """
    layer_class, operation_class = keras.layers.Layer, keras.Operation
    originals = layer_class.__call__, operation_class.symbolic_call
    depth, read, changed, nodes = [0], [], [], []

    class Scope(keras.StatelessScope):  # type: ignore[misc]  # Keras is handed in
        def get_current_value(self, variable: Any) -> Any:
            if not depth[0]:
                read.append(variable)
            return super().get_current_value(variable)

        def add_update(self, update: Any) -> None:
            if not depth[0]:
                changed.append(update[0])
            super().add_update(update)

    def keep(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def kept(one: Any, *args: Any, **kwargs: Any) -> Any:
            if depth[0]:
                return original(one, *args, **kwargs)
            call = _begun(one, args, kwargs)
            call.outer = block
            nodes.append((one, len(one._inbound_nodes)))
            depth[0] += 1
            try:
                outputs = original(one, *args, **kwargs)
            finally:
                depth[0] -= 1
            _end(call, outputs)
            if not isinstance(one, layer_class) and not one._inbound_nodes[1:]:
                # its class as Keras writes it, which counts those of the process
                one.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(one).__name__).lower()
            block.inner.append(call)
            return outputs

        return kept

    layer_class.__call__, operation_class.symbolic_call = map(keep, originals)
    try:
        with Scope():
            yield read, changed
    finally:
        layer_class.__call__, operation_class.symbolic_call = originals
        for one, count in nodes:  # the model is as it was
            del one._inbound_nodes[count:]


@contextmanager
def _weights_by_operations(keras: Any) -> Iterator[None]:
    """Have `weight * value` be an operation of Keras as `value * weight` is."""
    names = {"mul": "multiply", "add": "add", "sub": "subtract", "truediv": "true_divide"}
    names |= {"matmul": "matmul", "pow": "power"}
    variable = keras.Variable
    originals = {f"__{name}__": variable.__dict__.get(f"__{name}__") for name in names}

    def by_operation(name: str, plain: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def computed(weight: Any, other: Any) -> Any:
            if isinstance(other, keras.KerasTensor):
                return getattr(keras.ops, names[name])(weight, other)
            return plain(weight, other)

        return computed

    for name in names:
        setattr(variable, f"__{name}__", by_operation(name, getattr(variable, f"__{name}__")))
    try:
        yield
    finally:
        for name, original in originals.items():
            if original is None:
                delattr(variable, name)
            else:
                setattr(variable, name, original)
