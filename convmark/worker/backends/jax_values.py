"""The values of weights outside their model, as arguments and results of JAX's pure functions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from convmark_zoo.keras_api import keras
from jax.experimental.sparse import JAXSparse

from convmark.worker.backends.keras_parts import ByIdentity
from convmark.worker.backends.keras_state import check_size
from convmark.worker.backends.step import Piece


@dataclass(frozen=True)
class HandedOn:
    """The values that each step hands on to the next."""

    variables: Sequence[Sequence[Any]]
    state: list[Any]
    """One entry: of each part of the variables a list of values."""
    samples: Any
    """What the model is called on."""

    def settle(self) -> None:
        """Have the variables hold the values of now."""
        for part, values in zip(self.variables, self.state[0], strict=True):
            for variable, value in zip(part, values, strict=True):
                variable.assign(value)

    def adds_losses(self, model: Any) -> bool:
        """Whether a training step of the model adds losses: a compiled one's are gone with it."""
        variables = list(model.variables)

        def losses(values: Any, samples: Any) -> Any:
            held = list(zip(variables, values, strict=True))
            with keras.StatelessScope(held, collect_losses=True):
                model(samples, training=True)
                return list(model.losses)

        shapes = [jax.ShapeDtypeStruct(tuple(one.shape), one.dtype) for one in variables]
        with contextlib.suppress(Exception):  # an eager step's code may look at values
            return bool(jax.eval_shape(losses, shapes, self.samples))
        return False

    def kept(self) -> Callable[[], None]:
        """Return what has the next step begin with the values of now, which it takes over.

        Raises:
            MemoryError: these are of too many bytes to keep them a second time.
        """
        check_size(value.nbytes for part in self.state[0] for value in part)
        kept = [list(map(jnp.copy, part)) for part in self.state[0]]

        def restore() -> None:
            for values, part in zip(self.state[0], kept, strict=True):
                values[:] = map(jnp.copy, part)

        return restore


class Copies:
    """Copies of variables' values: a training step takes their own buffers over."""

    def __init__(self) -> None:
        self._copies: ByIdentity[Any] = ByIdentity()

    def pure(self, one: Piece) -> tuple[Callable[[Any, Any], Any], list[Any]]:
        """Return the function with the layers' variables as arguments, and copies of these."""
        variables = variables_of(one.layers)

        def forward(held: Any, values: Any) -> Any:
            with keras.StatelessScope(list(zip(variables, held, strict=True))) as scope:
                before = list(map(scope.get_current_value, variables))
                made = one.function(values)
                now = list(map(scope.get_current_value, variables))
            changed = [new for old, new in zip(before, now, strict=True) if new is not old]
            return made, changed

        return forward, list(map(self._copy_of, variables))

    def _copy_of(self, variable: Any) -> Any:
        if variable not in self._copies:
            self._copies[variable] = jnp.array(variable.value, copy=True)
        return self._copies[variable]


class Reading(keras.StatelessScope):  # type: ignore[misc]  # Keras has no types
    """A scope that keeps the variables that are read in it."""

    def __init__(self, held: list[tuple[Any, Any]]) -> None:
        super().__init__(held)
        self.read: dict[int, Any] = {}

    def get_current_value(self, variable: Any) -> Any:
        """Return the value that the scope has for a variable, or None."""
        self.read[id(variable)] = variable
        return super().get_current_value(variable)


def variables_of(layers: Sequence[Any]) -> list[Any]:
    found = (one for layer in layers for one in getattr(layer, "variables", []))
    return list({id(one): one for one in found}.values())


def is_dense(batch: Any) -> bool:
    """Whether a batch has no sparse arrays, whose samples cannot be cut from those of several."""
    leaves = jax.tree.leaves(batch, is_leaf=lambda one: isinstance(one, JAXSparse))
    return not any(isinstance(one, JAXSparse) for one in leaves)
