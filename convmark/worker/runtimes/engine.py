"""What a runtime is asked to do: convert a model's forward pass, load a file, run a batch."""

from __future__ import annotations

import abc
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

INPUT, OUTPUT = "input_{:02}", "output_{:02}"
"""Names in every exported file: inputs and outputs in the order of the model's own."""


@dataclass(frozen=True)
class Source:
    """A model's forward pass for one batch size, ready to be converted."""

    function: Any
    """The concrete function of a graph of TensorFlow's, whose inputs and outputs have the names
    above; of PyTorch what holds the program."""
    owner: Any
    """Holds the variables of the function."""
    samples: Callable[[], Iterable[Sequence[Any]]]
    """Gives batches like those that the model is measured on, each with an array for each input:
    what an int8 conversion finds the ranges of activations with."""

    def frozen(self) -> Any:
        """Return the function with its variables as constants."""
        from tensorflow.python.framework.convert_to_constants import (
            convert_variables_to_constants_v2,
        )

        return convert_variables_to_constants_v2(self.function)


@dataclass(frozen=True)
class Taken:
    """One input of an exported file."""

    name: str
    shape: tuple[int | None, ...]
    """With the batch axis; None for an axis of any size."""
    dtype: str


class Engine(abc.ABC):
    """A file in its runtime, ready to be called. It is made from a path, threads and a device."""

    call_path: str

    @property
    @abc.abstractmethod
    def taken(self) -> list[Taken]:
        """The inputs, in order."""

    def resize(self, shapes: Sequence[Sequence[int]]) -> None:
        """Make ready for inputs of these shapes; most runtimes need not be told."""
        return None

    @abc.abstractmethod
    def bound(self, arrays: Sequence[Any]) -> Callable[[], Sequence[Any]]:
        """Return what runs a batch and returns its outputs, both arrays of NumPy in host memory.

        Steps of microseconds are timed: what can be looked up once is, before the first call.
        """

    def run(self, arrays: Sequence[Any]) -> Sequence[Any]:
        return self.bound(arrays)()

    @abc.abstractmethod
    def stored_precision(self) -> str:
        """What the file itself computes in, or keeps its weights in."""

    def threads(self) -> int | None:
        """The threads of the runtime's pool as it tells; None where it does not."""
        return None

    def settings(self) -> dict[str, str]:
        """How the runtime runs the file, as it tells once the file is ready."""
        return {}

    def multiplies_in(self) -> Collection[str]:
        """The dtypes of its products on this machine, as it tells; none where it does not."""
        return ()
