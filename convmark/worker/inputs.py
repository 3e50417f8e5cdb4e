"""The inputs of a model: a structure of arrays, each with its shape, dtype and range.

floats       in [0, 1); whole numbers where an Embedding takes them
bytes        uint8, 0 to 255
integers     below the `input_dim` of the Embedding that they reach, else 0 and 1
booleans     both
strings      words of the vocabulary that they reach
ragged       rows of 1 to the open axis's size, spread evenly
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from convmark.worker.failure import message_of

IMAGE_AXIS, SEQUENCE_AXIS, VOLUME_AXIS, CHANNELS = 224, 128, 32, 3
"""What an open axis has where no --input-shape says it; volumes have three axes of space."""
WORDS = ("red", "green", "blue", "black")
TEXT_WORDS = 8
"""Words of a text that a layer splits itself."""

Shape = tuple[Any, ...]


@dataclass(frozen=True)
class Leaf:
    """One input of a model."""

    name: str
    shape: Shape
    """Of one sample."""
    dtype: str = "float32"
    below: int | None = None
    """What whole numbers are drawn below; None for what the dtype has."""
    choices: tuple[Any, ...] = ()
    """A vocabulary's own words or numbers."""
    texts: bool = False
    """Whether a value is several words."""
    chosen: bool = False
    """Whether the model leaves axes of the shape open."""
    ragged: Callable[[Any, Any], Any] | None = None
    """Where each sample has a length of its own: makes the tensor of all values and the lengths.
    The first axis of the shape is the longest."""

    def drawn(self, samples: int, generator: np.random.RandomState) -> Any:
        """Return an array (samples, *shape) of the dtype, or a tensor of ragged rows."""
        if self.ragged is None:
            return self._array((samples, *self.shape), generator)
        lengths = generator.permutation(ragged_lengths(samples, self.shape[0]))
        values = self._array((lengths.sum(), *self.shape[1:]), generator)
        return self.ragged(values, lengths)

    def _array(self, size: Shape, generator: np.random.RandomState) -> Any:
        if self.dtype == "string":
            return self._texts(size, generator)
        if self.choices:
            return np.asarray(self.choices)[generator.randint(0, len(self.choices), size)].astype(
                self.dtype
            )
        kind = np.dtype("float32" if self.dtype == "bfloat16" else self.dtype)  # Keras casts it
        if kind.kind == "f" and self.below is None:
            return generator.random_sample(size).astype(kind)
        if kind.kind == "c":
            return generator.random_sample(size).astype(kind)
        below = self.below or (256 if kind == np.uint8 else 2)
        if kind.kind in "iu":
            below = min(below, int(np.iinfo(kind).max) + 1)
        return generator.randint(0, below, size, dtype=np.int64).astype(kind)

    def _texts(self, size: Shape, generator: np.random.RandomState) -> Any:
        words = np.asarray(self.choices or WORDS, object)
        if not self.texts:
            return words[generator.randint(0, len(words), size)]
        drawn = words[generator.randint(0, len(words), (*size, TEXT_WORDS))]
        return np.apply_along_axis(lambda parts: np.asarray(" ".join(parts), object), -1, drawn)


@dataclass(frozen=True)
class Inputs:
    """All inputs of a model."""

    structure: Any
    """A leaf, or nested lists, tuples and dictionaries of leaves: what the model is called on."""
    own: Callable[[int, int], Any] | None = None
    """The user's own function from samples and seed to a batch."""

    @classmethod
    def of(cls, given: Inputs | Sequence[Any]) -> Inputs:
        """Return the inputs, or those of one sample shape of floats."""
        return given if isinstance(given, Inputs) else cls(Leaf("input", tuple(given)))

    @property
    def leaves(self) -> list[Leaf]:
        """The inputs in order, whatever structure holds them."""
        return list(flat(self.structure))

    @property
    def shapes(self) -> list[Any] | dict[str, list[Any]]:
        """One sample's shape; of several inputs each one's by name."""
        if isinstance(self.structure, Leaf):
            return list(self.structure.shape)
        return {leaf.name: list(leaf.shape) for leaf in self.leaves}

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample; of a string 16 a word, of an axis of unknown size one element."""
        return sum(
            math.prod(axis or 1 for axis in leaf.shape) * item_bytes(leaf.dtype)
            for leaf in self.leaves
        )

    def batch(self, samples: int, seed: int, generator: np.random.RandomState | None = None) -> Any:
        """Return so many samples, in the structure that the model takes.

        Raises:
            ValueError: the user's own function gives another number.
        """
        if self.own is not None:
            return self.own(samples, seed)
        source = generator or np.random.RandomState(seed)
        return mapped(lambda leaf: leaf.drawn(samples, source), self.structure)


def ragged_lengths(samples: int, longest: int) -> Any:
    """Return the rows' lengths, spread evenly from 1 to the longest: the same for every seed."""
    return np.ceil((np.arange(samples) + 0.5) / samples * longest).astype(np.int64)


def own_inputs(function: Callable[..., Any], name: str = "input_spec") -> Inputs:
    """Return the inputs that a user's `input_spec` gives: a function of samples, perhaps a seed.

    Args:
        name: of the function, as a message has it; a `target_spec` gives targets alike.

    Raises:
        ValueError: it gives no batch of one sample.
    """
    if not callable(function):
        raise ValueError(
            f"{name} must be a function from a number of samples to a batch, got "
            f"{type(function).__name__}"
        )
    takes_seed = "seed" in inspect.signature(function).parameters

    def own(samples: int, seed: int) -> Any:
        try:
            batch = function(samples, seed=seed) if takes_seed else function(samples)
        except MemoryError:
            raise
        except Exception as error:  # a user's function may raise anything
            raise ValueError(f"{name}({samples}) failed: {message_of(error)}") from error
        return _checked(batch, samples, name)

    sample = own(1, 0)
    return Inputs(filled(sample, _named(sample)), own)


def _checked(batch: Any, samples: int, name: str) -> Any:
    for array in flat(batch):
        shape = getattr(array, "shape", None)
        if shape is None or len(shape) == 0 or shape[0] != samples:
            found = type(array).__name__ if shape is None else tuple(shape)
            raise ValueError(
                f"{name} must return a batch of size {samples}, got {found}; each array "
                "has the samples as its first axis"
            )
    return batch


def _named(batch: Any) -> list[Leaf]:
    leaves = []
    for name, array in _paths(batch):
        dtype = getattr(array.dtype, "name", str(array.dtype)).removeprefix("torch.")
        is_text = dtype in ("object", "string") or dtype.startswith(("str", "bytes"))
        shape = tuple(None if axis is None else int(axis) for axis in tuple(array.shape)[1:])
        leaves.append(Leaf(name or "input", shape, "string" if is_text else dtype))
    return leaves


def _paths(structure: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each leaf with the keys that lead to it."""
    if isinstance(structure, Mapping):
        parts = [(str(key), structure[key]) for key in structure]
    elif isinstance(structure, (list, tuple)):
        parts = [(str(place), part) for place, part in enumerate(structure)]
    else:
        yield path, structure
        return
    for key, part in parts:
        yield from _paths(part, f"{path}.{key}" if path else key)


def mapped(function: Callable[[Any], Any], structure: Any) -> Any:
    """Return the structure with each leaf replaced by what the function gives, in order."""
    if isinstance(structure, Mapping):
        return {key: mapped(function, part) for key, part in structure.items()}
    if isinstance(structure, tuple) and hasattr(structure, "_fields"):
        return type(structure)(*(mapped(function, part) for part in structure))
    if isinstance(structure, (list, tuple)):
        return type(structure)(mapped(function, part) for part in structure)
    return function(structure)


def filled(structure: Any, leaves: Sequence[Any]) -> Any:
    """Return the structure with these in the places of its leaves, in order."""
    left = iter(leaves)
    return mapped(lambda _: next(left), structure)


def flat(structure: Any) -> Iterator[Any]:
    """Yield the leaves of nested lists, tuples and dictionaries, in order."""
    if isinstance(structure, Mapping):
        structure = list(structure.values())
    if isinstance(structure, (list, tuple)):
        for part in structure:
            yield from flat(part)
    else:
        yield structure


def symbols(keras: Any, inputs: Inputs, samples: int | None = None) -> Any:
    def symbol(leaf: Leaf) -> Any:
        if leaf.ragged:
            shape = (None, *leaf.shape[1:])
            return keras.Input(shape, batch_size=samples, dtype=leaf.dtype, ragged=True)
        return keras.Input(tuple(leaf.shape), batch_size=samples, dtype=leaf.dtype)

    return mapped(symbol, inputs.structure)


def called(model: Any, batch: Any, *, training: bool = False) -> Any:
    """Return what a model gives: in inference, where its `call` must be told, or in training."""
    told = inspect.signature(model.call).parameters.get("training")
    if told is not None and (training or told.default is told.empty):
        return model(batch, training=training)
    return model(batch)


def item_bytes(dtype: str) -> int:
    """Return the bytes of one element; 16 of a string."""
    if dtype == "string":
        return 16
    return 2 if dtype == "bfloat16" else int(np.dtype(dtype).itemsize)


def sized(leaves: Sequence[Leaf], asked: Mapping[str, Sequence[int]]) -> list[Leaf]:
    """Return the leaves without open axes: by the shapes asked for, else by the defaults.

    Args:
        asked: shapes by the inputs' names; by the empty name that of the only input.

    Raises:
        ValueError: a shape does not fit, or is of no input.
    """
    names = [leaf.name for leaf in leaves]
    if "" in asked:
        if len(leaves) > 1:
            raise ValueError(
                f"--input-shape must name the input, as in {names[0]}=..., of {', '.join(names)}"
            )
        asked = {names[0]: asked[""], **{name: asked[name] for name in asked if name}}
    for name in asked:
        if name not in names:
            raise ValueError(f"--input-shape: no input is named {name}, only {', '.join(names)}")
    shapes = [
        _fitted(leaf, tuple(asked[leaf.name])) if leaf.name in asked else _by_default(leaf.shape)
        for leaf in leaves
    ]
    return [
        replace(leaf, shape=shape, chosen=None in leaf.shape)
        for leaf, shape in zip(leaves, shapes, strict=True)
    ]


def _fitted(leaf: Leaf, shape: Shape) -> Shape:
    fits = len(shape) == len(leaf.shape) and all(
        own in (None, axis) for own, axis in zip(leaf.shape, shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"--input-shape: {leaf.name} takes {text_of(leaf.shape)}, got {text_of(shape)}"
        )
    return shape


def text_of(shape: Sequence[Any]) -> str:
    """Return a shape as it is printed: 28x28x1, `?` for an open axis, `scalar` without any."""
    return "x".join("?" if axis is None else str(axis) for axis in shape) or "scalar"


def _by_default(shape: Shape) -> Shape:
    """Return the shape of a sample with its open axes set by what the sample seems to be."""
    if None not in shape:
        return shape
    axis = {1: SEQUENCE_AXIS, 2: SEQUENCE_AXIS, 3: IMAGE_AXIS}.get(len(shape), VOLUME_AXIS)
    found = list(shape)
    if len(found) >= 3 and found[-1] is None and found[0] is None:
        found[-1] = CHANNELS
    return tuple(axis if one is None else one for one in found)
