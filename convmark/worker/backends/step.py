"""The interface of a backend, and the step of a case that it makes."""

from __future__ import annotations

import abc
import contextlib
import functools
import importlib
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Step:
    """Called, it runs once on its own batch and returns a token, (probe, result).

    The backend's `synchronise` waits for the probe, which is there only when the whole step has
    finished; its `fingerprint` reads the result.
    """

    run: Callable[..., tuple[Any, Any]]
    """Takes a batch: images, and in training the tuple of targets."""
    batch: tuple[Any, ...]
    """On the device since before the first step."""
    trace: Callable[[], Any] | None = None
    """Makes the graph without running it; None where there is none to be made."""
    takes_any: bool = True
    """Whether `run` takes any batch; else it has its own whatever it is given."""
    equations: Callable[[], Any] | None = None
    """Makes what the step's FLOPs are counted in, where that is not what `trace` makes."""
    failed_s: Callable[[], float] = float
    """Seconds that the first call or trace lost with batches that the step does not take."""
    once: Callable[[], tuple[Any, Any]] | None = None
    """The same on its own batch, where `run` has something to make ready for another one."""

    def __call__(self) -> tuple[Any, Any]:
        return self.run(*self.batch) if self.once is None else self.once()

    def bound(self) -> Callable[[], tuple[Any, Any]]:
        """Return the step as a timed loop calls it, with nothing left to look up."""
        return self.once or functools.partial(self.run, *self.batch)


def _traced(step: Step) -> Any:
    """Return what a step's trace makes; None where there is none, or Python draws numbers for it.

    Then each process has a graph of its own.
    """
    if step.trace is None:
        return None
    drawn = _drawn_state()
    found = step.trace()
    return found if _drawn_state() == drawn else None


def _drawn_state() -> tuple[object, ...]:
    """Return the state of the random numbers of Python and NumPy."""
    _, keys, place, *_ = np.random.get_state(legacy=True)
    return random.getstate(), np.asarray(keys).tobytes(), place


@dataclass(frozen=True)
class Piece:
    """A few consecutive layers of a model, by the numbers of the values that it takes and gives."""

    function: Callable[[Sequence[Any]], list[Any]]
    layers: Sequence[Any]
    takes: Sequence[int]
    gives: Sequence[int]
    inner: Sequence[bool] | None = None
    """Of each value that it takes whether a gradient is passed on to it: not to the model's inputs.
    None where the piece runs forward alone."""


SCOPE = re.compile(r"convmark_unit_(\d+)(?!\d)")
"""What the text of an event has in it that is of a unit."""

Event = tuple[str, float, float]
"""Of a profiler: its text, its begin and its end, in any one unit of time."""


def scope(place: int) -> str:
    """Return the name of what a unit is called in while a profiler looks."""
    return f"convmark_unit_{place}"


Chain = Callable[
    [Sequence[Any], Sequence[Sequence[Any]]], tuple[list[Any], list[float], list[float]]
]
"""Takes the model's inputs, and of each piece the gradients of what it gives; returns the wanted
values, the seconds of each piece, and those of a call that does nothing after each piece."""


class Framework(abc.ABC):
    """What a framework's own operations are needed for; one that lacks any cannot be made."""

    name: str
    """As in `convmark.core.backends`."""
    compiler = "XLA"
    """What compiles a part of a step where the model's own code asks for it."""
    plainly_eager = False
    """Whether a step runs eagerly where nobody asks for anything else."""
    _graph_digest: Any = None
    """Hashes what a step's trace makes, with the batch; None where no graph tells what runs."""

    @abc.abstractmethod
    def versions(self) -> dict[str, str | None]:
        """Versions of what is loaded, and of the CUDA libraries that it wants."""

    @abc.abstractmethod
    def devices(self) -> list[str]:
        """The devices by convmark's names. Initialises CUDA: never in a zygote."""

    @abc.abstractmethod
    def untouched(self) -> bool:
        """Whether no operation has run yet, so that forking is safe."""

    @abc.abstractmethod
    def configure(self, *, device: str, threads: str, precision: str, seed: int) -> None:
        """Set the process up for a case, before any operation."""

    def compile_anew(self) -> None:
        """Have this process compile all by itself, whatever another has kept; after `configure`."""
        return

    @abc.abstractmethod
    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether an error is the framework's way to say that memory was short."""

    @abc.abstractmethod
    def synchronise(self, token: tuple[Any, Any]) -> None:
        """Wait until the device has finished the step of the token."""

    @abc.abstractmethod
    def fingerprint(self, token: tuple[Any, Any]) -> float:
        """The loss, or the output's root mean square; not finite where any output is not."""

    @abc.abstractmethod
    def reset_peak_memory(self) -> None:
        """Have the device allocator's peak begin anew."""

    @abc.abstractmethod
    def peak_memory(self) -> int | None:
        """The most bytes that the device allocator has held; None where it does not tell."""

    @abc.abstractmethod
    def held_memory(self) -> int | None:
        """The bytes that the device allocator holds now; None where it does not tell."""

    @abc.abstractmethod
    def device_of(self, value: Any) -> str | None:
        """The kind of device that holds a tensor, `cpu` or `gpu`; None where it does not tell."""

    @abc.abstractmethod
    def tensor(self, array: Any) -> Any:
        """Return the array on the device."""

    @abc.abstractmethod
    def _training_step(
        self, model: Any, batch: Any, new_optimizer: Callable[[], Any], compiled: bool
    ) -> Step:
        """Return the harness's own step: forward, backward and update; `batch` is in host memory.

        Args:
            new_optimizer: makes the optimizer, which is not built.
        """

    @abc.abstractmethod
    def _fit_step(self, model: Any, data: Any, batch: tuple[Any, ...], compiled: bool) -> Step:
        """Return the model's own step; `batch` is in host memory."""

    @abc.abstractmethod
    def _inference_step(self, model: Any, pictures: Any, compiled: bool) -> Step:
        """Return a forward pass; `pictures` are in host memory."""

    def step_digest(self, step: Step) -> str | None:
        """Return the hash of all that a step computes, and on what, before it is run.

        Steps of one hash do the same work. None where that cannot be told: such steps are timed.
        """
        found = _traced(step) if self._graph_digest is not None else None
        with contextlib.suppress(Exception):
            return self._graph_digest(found, step.batch) if found is not None else None
        return None

    @abc.abstractmethod
    def piece(self, one: Piece, compiled: bool) -> Callable[[Any], tuple[Any, Any]]:
        """Return a function of tensors as a step's part: it gives a probe, and all its results."""

    @abc.abstractmethod
    def backward_piece(self, one: Piece, compiled: bool) -> Callable[[Any, Any], tuple[Any, Any]]:
        """Return the same with its backward pass; called with the tensors and their gradients."""

    def clocked(
        self, pieces: Sequence[Piece], inputs: Sequence[int], outputs: Sequence[int], compiled: bool
    ) -> Chain | None:
        """Return pieces that are timed where they run; None where only Python can time them."""
        return None

    def of_layers(self) -> Any:
        """The module of what the time per layer needs besides pieces.

        named     what a unit is called in under the profiler, by a name
        traced    the profiler's events of some passes, each with whether it is one of a device
        reached   of each result of a function, whether a gradient of it comes to each value that
                  the function takes, and last whether one comes to a weight
        """
        return importlib.import_module(f"convmark.worker.backends.{self.name}_layers")

    def as_written(self) -> contextlib.AbstractContextManager[None]:
        """In which a step that has run before runs its Python code once more, each call once."""
        return contextlib.nullcontext()

    @abc.abstractmethod
    def feed(self, model: Any, task: str, batch_size: int, seed: int) -> Iterator[tuple[Any, ...]]:
        """Yield batches from host memory without end."""

    @abc.abstractmethod
    def work(self, model: Any, samples: int) -> Any:
        """Return the FLOPs of a forward pass per sample."""

    @abc.abstractmethod
    def training_work(self, step: Step, samples: int) -> Any:
        """Return the FLOPs of a training step per sample."""

    @abc.abstractmethod
    def products(self, left: Any, right: Any) -> list[Any]:
        """The product of two matrices of float32, and the same as a convolution, as arrays."""

    @abc.abstractmethod
    def matrix_product(self, size: int) -> Callable[[], Any]:
        """Return a product of two square matrices."""

    @abc.abstractmethod
    def copy(self, size: int) -> Callable[[], Any]:
        """Return a copy of so many bytes."""

    @abc.abstractmethod
    def reference_step(self, kind: str) -> Callable[[], Any]:
        """Return a step of the reference network in the framework's raw operations."""
