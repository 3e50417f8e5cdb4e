"""The data of a model that is trained as `fit` would: inputs, and targets made for its losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from convmark_zoo.keras_api import keras

from convmark.worker.backends.losses import (
    Targets,
    class_numbers,
    loss_by_name,
    real_numbers,
    targets_of,
)
from convmark.worker.backends.recipe import PLAIN, STEPS, Recipe, held, is_compiled, overrides
from convmark.worker.backends.step import Step
from convmark.worker.backends.synthetic import is_classes
from convmark.worker.failure import CaseFailure

__all__ = ["Made", "OwnData"]

Made = tuple[Callable[..., Any], Callable[..., Any] | None]
"""The function of a batch, and what traces it."""


class OwnData:
    """Makes the batches of one model's own training step, and gives them to it as `fit` does."""

    def __init__(self, model: Any, backend: Any, recipe: Recipe, default_rate: float) -> None:
        """Compile the model where it was not, and find the targets that its losses take.

        Raises:
            CaseFailure: it cannot be compiled, has no loss, or no targets are known for its loss.
        """
        self._model, self._backend = model, backend
        self._alone = False
        """Whether the step takes the inputs without targets."""
        self._structure = backend.outputs_of(model)
        flat = [] if self._structure is None else backend.leaves(self._structure)
        self._shapes = [tuple(output.shape) for output in flat]
        if not is_compiled(model):
            self._compile(recipe, default_rate)
        elif recipe != PLAIN:
            raise CaseFailure(
                "--optimizer, --learning-rate and --loss are of models that were not compiled; "
                "leave them out, or change its own compile()"
            )
        loss = getattr(model, "loss", None)
        own = overrides(model, "compute_loss", *STEPS)
        self.adds_losses = bool(model.losses) or (loss is None and backend.adds_losses(model))
        if loss is None and not own and not self.adds_losses:
            raise CaseFailure("compile() was given no loss and the model adds none; give it one")
        self._targets = [
            self._targets_of(one, shape)
            for one, shape in zip(self._losses(loss), self._shapes, strict=True)
        ]

    def _compile(self, recipe: Recipe, default_rate: float) -> None:
        model, loss = self._model, None
        if recipe.loss is not None:
            loss = loss_by_name(recipe.loss, self._backend.last_activation(model))
        elif not overrides(model, "compute_loss") and self._shapes:
            classes = is_classes(self._shapes)
            default = "sparse_categorical_crossentropy" if classes else "mean_squared_error"
            loss = loss_by_name(default, self._backend.last_activation(model))
        try:
            with self._backend.scope():
                model.compile(optimizer=recipe.new_optimizer(default_rate), loss=loss)
        except TypeError:
            raise CaseFailure(
                "its compile() takes arguments of its own; call it in the builder"
            ) from None

    def _losses(self, given: Any) -> list[Any]:
        """Return the loss of each output; None where the model does not tell."""
        count = len(self._shapes)
        if given is None:
            return (held(self._model, keras.losses.Loss)[:1] or [None]) * count
        if isinstance(given, dict):
            named = isinstance(self._structure, dict)
            names = sorted(self._structure) if named else getattr(self._model, "output_names", [])
            given = [given.get(name) for name in names]
        if isinstance(given, (list, tuple)):
            return [*given, *[None] * count][:count]  # Keras says what does not fit
        return [given] * count

    def _targets_of(self, loss: Any, shape: tuple[Any, ...]) -> Targets:
        sample = shape[1:]
        if None in sample:
            raise CaseFailure(
                f"no targets can be made for an output of the open shape {sample}; give the "
                "builder an input shape"
            )
        if loss is not None:
            return targets_of(loss, sample, self._backend.tensor)
        return Targets(class_numbers if is_classes(self._shapes) else real_numbers, sample)

    def targets(self, count: int, seed: int) -> tuple[Any, ...]:
        """Return the targets of so many samples, an array for each output."""
        generator = np.random.RandomState(seed)
        return tuple(targets(count, generator) for targets in self._targets)

    def as_given(self, inputs: Any, targets: tuple[Any, ...]) -> Any:
        """Return a batch as `fit` gives it to the step."""
        if self._alone or not targets:
            return (inputs,) if isinstance(inputs, (list, tuple, dict)) else inputs
        return inputs, self._backend.packed(self._structure, list(targets))

    def step(self, make: Callable[[], Made], batch: tuple[Any, ...], *, any_batch: bool) -> Step:
        """Return the step, whose first call finds out what data it takes.

        A step of the model's own that fails is made anew and given the inputs without targets, as a
        step that needs none expects them.

        Args:
            make: makes the function of a batch, and what traces it or None.
            any_batch: whether the function takes any batch, or has its own.
        """
        function, trace = make()
        known = False

        def first(act: Callable[[], Any]) -> Any:
            nonlocal function, trace
            try:
                return act()
            except Exception:  # a user's step may raise anything
                if not self._may_go_without():
                    raise
                function, trace = make()  # what failed while it was traced is of no more use
                try:
                    return act()
                except Exception:
                    self._alone = False
                raise

        def run(*given: Any) -> Any:
            nonlocal known
            if known:
                return function(*given)
            token = first(lambda: function(*given))
            known = True
            return token

        def traced() -> Any:
            assert trace is not None
            return trace(*batch)

        return Step(run, batch, (lambda: first(traced)) if trace else None, any_batch)

    def _may_go_without(self) -> bool:
        """Leave the targets out from here on, where that can be of use."""
        if self._alone or not self._targets or not overrides(self._model, *STEPS):
            return False
        self._alone = True
        return True
