"""The inputs of a Keras model, with the value ranges that its layers need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from convmark.worker.inputs import Inputs, Leaf, filled, flat, sized, symbols, text_of
from convmark.worker.traced import LayerCall, traced_calls

_PROBE_SAMPLES = 3
"""So that a tensor of one entry a sample is told from one of positions."""


def inputs_of(model: Any, keras: Any, asked: Mapping[str, Sequence[int]]) -> Inputs:
    """Return the inputs of a model.

    Args:
        asked: shapes by name, as `convmark.worker.inputs.sized` takes them.

    Raises:
        ValueError: the model does not tell what it takes, or not in the shape asked for.
    """
    structure = _declared(model)
    if structure is None and "" in asked:
        structure = Leaf("input", (None,) * len(asked[""]))
    if structure is None:
        raise ValueError(
            f"{model.name}: the input shape is not known; call the model on keras.Input(shape) in "
            "its builder, give --input-shape, or give the builder an input_spec"
        )
    names = _names(structure)
    places = iter(names)
    leaves = [_leaf(next(places), symbol) for symbol in flat(structure)]
    try:
        leaves = sized(leaves, asked)
    except ValueError as error:
        raise ValueError(f"{model.name}: {error}") from None
    whole = Inputs(filled(structure, leaves))
    if any(_limits(layer, keras) for layer in model._flatten_layers()) or any(
        leaf.dtype.startswith(("int", "uint")) for leaf in leaves
    ):
        leaves = _ranged(model, keras, whole)
    return Inputs(filled(structure, leaves))


def check_count(model: Any, given: Inputs) -> None:
    """Hold the user's own inputs to being as many as a functional model takes.

    Keras leaves out the last ones of a list that is too long, and what a dictionary has besides.

    Raises:
        ValueError: they are more or fewer.
    """
    holders = (model, getattr(model, "_functional", None))
    structs = [getattr(holder, "_inputs_struct", None) for holder in holders]
    takes = [len(list(flat(one))) for one in structs if one is not None]
    if takes and not isinstance(given.structure, Mapping) and takes[0] != len(given.leaves):
        raise ValueError(
            f"input_spec must return the model's inputs, which are {takes[0]}, got "
            f"{len(given.leaves)}"
        )


class _Shaped:
    """A shape that stands for a tensor, where a model remembers no more."""

    dtype = "float32"
    name = ""

    def __init__(self, shape: Sequence[Any]) -> None:
        self.shape = shape


def _declared(model: Any) -> Any:
    """Return the structure of tensors that a model takes, or None."""
    for holder in (model, getattr(model, "_functional", None)):
        for name in ("_inputs_struct", "_nested_inputs"):
            if (found := getattr(holder, name, None)) is not None:
                return _alone(found)
    if getattr(model, "inputs", None):
        return _alone(list(model.inputs))
    for node in getattr(model, "_inbound_nodes", None) or ():
        arguments = getattr(node, "arguments", None)
        args = arguments.args if arguments is not None else getattr(node, "call_args", ())
        if args and all(hasattr(leaf, "shape") for leaf in flat(args[0])):
            return args[0]
    if hasattr(model, "save_spec") and (spec := model.save_spec()) is not None:  # Keras 2
        return spec[0][0]
    built = model.get_build_config() or {}
    return _shapes(built.get("input_shape", built.get("shapes_dict")))


def _alone(structure: Any) -> Any:
    """Return the only tensor of a list of one, for a model of one input takes it as it is."""
    one = isinstance(structure, (list, tuple)) and len(structure) == 1
    return structure[0] if one and hasattr(structure[0], "shape") else structure


def _shapes(found: Any) -> Any:
    """Return the structure of shapes that a model was built with as stand-ins for tensors."""
    if not found:
        return None
    if isinstance(found, Mapping):
        return {key: _shapes(part) for key, part in found.items()}
    if all(axis is None or isinstance(axis, int) for axis in found):
        return _Shaped(found)
    return [_shapes(part) for part in found]


def _leaf(name: str, symbol: Any) -> Leaf:
    if isinstance(symbol, Leaf):
        return replace(symbol, name=name)
    kind = type(getattr(symbol, "type_spec", None)).__name__  # Keras 2's
    ragged = getattr(symbol, "ragged", False) or kind == "RaggedTensorSpec"
    shape = tuple(None if axis is None else int(axis) for axis in tuple(symbol.shape)[1:])
    if getattr(symbol, "sparse", False) or kind == "SparseTensorSpec":
        raise ValueError(f"{name}: a sparse input needs an input_spec of the builder")
    if ragged and (shape[:1] != (None,) or None in shape[1:]):
        raise ValueError(
            f"{name}: a ragged input of {text_of(shape)} needs an input_spec of the builder; "
            "without one its first axis alone can be open"
        )
    dtype = getattr(symbol.dtype, "name", str(symbol.dtype))
    return Leaf(name, shape, dtype, ragged=_ragged_rows if ragged else None)


def _ragged_rows(values: Any, lengths: Any) -> Any:
    import tensorflow as tf  # no other backend has ragged tensors

    return tf.RaggedTensor.from_row_lengths(tf.convert_to_tensor(values), lengths)


def _names(structure: Any, path: str = "") -> list[str]:
    """Return a name for each leaf: a dictionary's key, else the input layer's, else its place."""
    if isinstance(structure, Mapping):
        parts = [(str(key), part) for key, part in structure.items()]
    elif isinstance(structure, (list, tuple)):
        parts = [(str(place), part) for place, part in enumerate(structure)]
    else:
        return [path or getattr(structure, "name", "") or "input"]
    found: list[str] = []
    for key, part in parts:
        history = getattr(part, "_keras_history", None)
        layer = getattr(history, "operation", getattr(history, "layer", None))
        if layer is not None and not isinstance(structure, Mapping):
            key = layer.name
        found += _names(part, f"{path}.{key}" if path else key)
    return found


# ranges: which layers the inputs reach


def _limits(layer: Any, keras: Any) -> bool:
    """Whether a layer takes only some values."""
    names = ("Embedding", "CategoryEncoding", "StringLookup", "IntegerLookup", "TextVectorization")
    kinds = tuple(getattr(keras.layers, name) for name in names if hasattr(keras.layers, name))
    return isinstance(layer, kinds)


def _ranged(model: Any, keras: Any, inputs: Inputs) -> list[Leaf]:
    """Return the leaves with the ranges that the layers that they reach ask for."""
    leaves = inputs.leaves
    try:
        calls = traced_calls(model, keras, symbols(keras, inputs, _PROBE_SAMPLES))
    except Exception:  # a model may refuse a batch of this size: its smallest table will do
        sizes = [
            int(layer.input_dim) for layer in model._flatten_layers() if hasattr(layer, "input_dim")
        ]
        return [_below(leaf, sizes) for leaf in leaves]
    reached = _Reach(inputs, keras)
    for call in calls:
        reached.see(call)
    return reached.ranged()


def _below(leaf: Leaf, sizes: Sequence[int]) -> Leaf:
    whole = leaf.dtype.startswith(("int", "uint"))
    return replace(leaf, below=min(sizes)) if sizes and whole else leaf


class _Reach:
    """Follows the inputs from layer to layer, as the tensors themselves are handed on."""

    def __init__(self, inputs: Inputs, keras: Any) -> None:
        self._structure = inputs.structure
        self._leaves = leaves = inputs.leaves
        self._keras = keras
        self._from: dict[int, set[int]] = {}
        """Leaves by the identity of the tensors that hold their values."""
        self._begun: set[int] = set()
        """The model's own calls: Keras may trace a model more than once."""
        self._sizes: list[list[int]] = [[] for _ in leaves]
        self._tables: list[list[int]] = [[] for _ in leaves]
        self._words: list[Any] = [None for _ in leaves]
        self._unmatched: list[LayerCall] = []

    def see(self, call: LayerCall) -> None:
        """Note what a call asks of the leaves that reach it, and where it hands them on."""
        if not call.outer:  # the model's own call has begun first and ends last
            return
        self._begin(call)
        reach = self._reach(call)
        layer = call.layer
        if _limits(layer, self._keras):
            self._limit(call, reach)
        elif reach:
            for place in reach:
                self._tables[place] += _own_tables(call)
            for value in call.made:
                kept = {place for place in reach if self._keeps(self._leaves[place], value, layer)}
                self._from.setdefault(id(value), set()).update(kept)

    def _reach(self, call: LayerCall) -> set[int]:
        """Return the leaves that a call takes.

        A functional model may hand its layers copies of what it was given, so its graph tells too
        which of its inputs a layer takes.
        """
        found = set().union(*(self._from.get(id(value), set()) for value in call.taken))
        if found or call.outer is None:
            return found
        outer = call.outer
        struct = getattr(
            outer.layer,
            "_inputs_struct",
            getattr(getattr(outer.layer, "_functional", None), "_inputs_struct", None),
        )
        if struct is None:
            return found
        given = list(_aligned(struct, outer.given))
        for symbol, value in zip(flat(struct), given, strict=True):
            if _takes(call.layer, symbol):
                found |= self._from.get(id(value), set()) or self._reach(outer)
        return found

    def _begin(self, call: LayerCall) -> None:
        whole = call
        while whole.outer is not None:
            whole = whole.outer
        if id(whole) in self._begun:
            return
        self._begun.add(id(whole))
        values = _aligned(self._structure, whole.given)
        for place, value in enumerate(values):
            self._from.setdefault(id(value), set()).add(place)

    def _limit(self, call: LayerCall, reach: set[int]) -> None:
        layer = call.layer
        if hasattr(layer, "get_vocabulary"):
            for place in reach:
                self._words[place] = layer
            return
        if not reach and call.positional and (call.positional[0] or (0,))[0] == _PROBE_SAMPLES:
            self._unmatched.append(call)
        for place in reach:
            self._sizes[place].append(_size(layer))

    @staticmethod
    def _keeps(leaf: Leaf, value: Any, layer: Any) -> bool:
        """Whether a layer's output still holds the leaf's values, as far as can be seen."""
        dtype = str(getattr(value, "dtype", ""))
        return not layer.weights or ("int" in dtype and "float" not in leaf.dtype)

    def ranged(self) -> list[Leaf]:
        hidden = [_size(call.layer) for call in self._unmatched]
        found = []
        for place, leaf in enumerate(self._leaves):
            if self._words[place] is not None:
                found.append(_with_words(leaf, self._words[place]))
            elif self._sizes[place]:
                found.append(replace(leaf, below=min(self._sizes[place])))
            else:
                found.append(_below(leaf, hidden or self._tables[place]))
        return found


def _takes(layer: Any, symbol: Any) -> bool:
    """Whether a layer takes an input of the graph that it is part of."""
    return any(
        tensor is symbol
        for node in layer._inbound_nodes
        for tensor in getattr(node, "input_tensors", ())
    )


def _aligned(structure: Any, values: Any) -> Iterator[Any]:
    """Yield the values at the places of a structure's leaves, in its order."""
    if isinstance(structure, Mapping):
        for key, part in structure.items():
            yield from _aligned(part, values[key])
    elif isinstance(structure, (list, tuple)):
        for part, value in zip(structure, values, strict=True):
            yield from _aligned(part, value)
    else:
        yield values


def _size(layer: Any) -> int:
    """Return what a layer's numbers must be below."""
    return int(layer.input_dim if hasattr(layer, "input_dim") else layer.num_tokens or 2)


def _own_tables(call: LayerCall) -> list[int]:
    """Return the rows of the tables that a layer of the user's own looks numbers up in."""
    if type(call.layer).__module__.partition(".")[0] in ("keras", "tf_keras", "tensorflow"):
        return []
    inner = {id(weight) for part in call.inner for weight in part.layer.weights}
    own = [weight for weight in call.layer.weights if id(weight) not in inner]
    return [int(weight.shape[0]) for weight in own if len(weight.shape) == 2]


def _with_words(leaf: Leaf, layer: Any) -> Leaf:
    """Return the leaf with the words or numbers of a vocabulary, its marks left out."""
    marks = {"", "[UNK]", -1, getattr(layer, "mask_token", None), getattr(layer, "oov_token", None)}
    words = tuple(word for word in layer.get_vocabulary() if word not in marks)
    texts = type(layer).__name__ == "TextVectorization" and layer._split is not None
    return replace(leaf, choices=words, texts=texts)
