"""How a model is trained: as its own `compile` or methods say, on data made for it, or by us."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from convmark_zoo.keras_api import KERAS_VERSION, keras

from convmark.worker.backends.keras_parts import last_activation
from convmark.worker.backends.losses import (
    Targets,
    by_output,
    class_numbers,
    flat_losses,
    is_classes,
    loss_by_name,
    loss_name,
    real_numbers,
    targets_of,
)
from convmark.worker.backends.own_methods import STEPS, brings_training, is_compiled, overrides
from convmark.worker.backends.step import Step
from convmark.worker.failure import CaseFailure
from convmark.worker.inputs import Inputs, flat, own_inputs

JIT_AND_EAGER = (
    "jit on needs a compiled step, but the model was compiled with "
    "run_eagerly=True; leave out one of them"
)
GUESSED = "; its targets are guesses, give its builder a target_spec if its code takes others"
_LEGACY = [keras.optimizers.legacy.Optimizer] if KERAS_VERSION < (3, 0) else []
OPTIMIZERS = (keras.optimizers.Optimizer, *_LEGACY)


@dataclass(frozen=True)
class Recipe:
    """What the user asks for models that bring no training; None is the harness's own choice."""

    optimizer: str | None = None
    learning_rate: float | None = None
    loss: str | None = None

    @classmethod
    def of(cls, text: str | None) -> Recipe:
        """Return the recipe of a case, whose text is NAME=VALUE pairs."""
        values: dict[str, Any] = dict(part.split("=", 1) for part in (text or "").split())
        if "learning_rate" in values:
            values["learning_rate"] = float(values["learning_rate"])
        return cls(**values)

    def new_optimizer(self, default_rate: float) -> Any:
        """Return the optimizer: plain SGD at the default rate where none is named.

        Raises:
            CaseFailure: this Keras has none of that name.
        """
        rate = self.learning_rate
        if self.optimizer is None:
            return keras.optimizers.SGD(default_rate if rate is None else rate)
        try:
            known = type(keras.optimizers.get(self.optimizer))
        except (TypeError, ValueError):
            raise CaseFailure(
                f"--optimizer must be a name of keras.optimizers, such as adam, got "
                f"{self.optimizer!r}"
            ) from None
        return known() if rate is None else known(learning_rate=rate)


PLAIN = Recipe()


@dataclass(frozen=True)
class Training:
    """How a case is trained, as its row has it."""

    training: str
    """`model` or `harness`."""
    optimizer: str | None
    loss_name: str | None

    def as_fields(self) -> dict[str, str | None]:
        """Return the columns of how a model trains."""
        return asdict(self)

    @classmethod
    def of_compiled(cls, model: Any, by: str, *, adds_losses: bool) -> Training:
        """Return what a compiled model is trained with, as far as it tells."""
        found = held(model, OPTIMIZERS)
        used = [one for one in found if _is_used(one)]
        optimizers = [type(getattr(one, "inner_optimizer", one)).__name__ for one in used]
        names = [loss_name(one) for one in flat_losses(getattr(model, "loss", None))]
        names += [name for name in ("compute_loss", *STEPS) if overrides(model, name)]
        names += ["losses added"] if adds_losses else []
        return cls(by, " + ".join(optimizers) or None, " + ".join(dict.fromkeys(names)) or None)

    @classmethod
    def of_harness(
        cls, recipe: Recipe, rate: float, *, classes: bool, adds_losses: bool
    ) -> Training:
        """Return what the harness trains a model with that brings nothing of its own."""
        names = ["sparse_categorical_crossentropy" if classes else "mean_squared_error"]
        names += ["losses added"] if adds_losses else []
        named = type(recipe.new_optimizer(rate)) if recipe.optimizer else None
        return cls("harness", named.__name__ if named else "SGD", " + ".join(names))


def _is_used(optimizer: Any) -> bool:
    """Whether an optimizer, or one to which it leaves its work, has worked.

    One that `compile` has made, of which a step of the model's own makes no use, has done nothing.
    """
    return any(map(_has_worked, _with_held(optimizer)))


def _with_held(*optimizers: Any) -> list[Any]:
    """Return optimizers and all that they hold, each once; those that only wrap one are left out.

    They may hold each other.
    """
    found: dict[int, Any] = {}
    ahead = list(optimizers)
    while ahead:
        one = ahead.pop()
        inner = getattr(one, "inner_optimizer", one)
        if id(inner) not in found:
            found[id(inner)] = inner
            ahead += [of for of in flat(list(vars(inner).values())) if isinstance(of, OPTIMIZERS)]
    return list(found.values())


def _has_worked(optimizer: Any) -> bool:
    """Whether an optimizer has itself counted updates, or met weights where it does not tell."""
    with contextlib.suppress(AttributeError, RuntimeError, TypeError, ValueError):
        return counted(optimizer) > 0  # JAX's values may be with the step
    told = getattr(optimizer, "built", getattr(optimizer, "_built", None))
    return not hasattr(optimizer, "build") if told is None else bool(told)


def counted(optimizer: Any) -> int:
    """Return the updates that an optimizer has counted.

    One that collects gradients gives a result of the framework, which of JAX has no `numpy`.
    """
    count = optimizer.iterations
    return int(count.numpy() if hasattr(count, "numpy") else count)


def rates_are_zero(model: Any) -> bool:
    """Whether the optimizers that have worked have learning rates of 0 by now, as schedules end."""
    used = filter(_has_worked, _with_held(*held(model, OPTIMIZERS)))
    with contextlib.suppress(Exception):  # an optimizer of the user's own may raise anything
        rates = [(one.learning_rate, one.iterations) for one in used]
        now = [rate(number) if callable(rate) else rate for rate, number in rates]
        values = [one.numpy() if hasattr(one, "numpy") else one for one in now]
        return bool(values) and not any(map(float, values))
    return False


def added_losses(model: Any) -> bool:
    """Whether a step of the model has added losses, or regularizers of its weights do."""
    return bool(model.losses)


def own_targets(model: Any, target_spec: Callable[..., Any]) -> Inputs:
    """Return the targets that a user's own function gives for a model's own training.

    Raises:
        ValueError: the function gives no batch, or the model does not say how it is trained.
    """
    if not brings_training(model):
        raise ValueError(
            "a target_spec is for a model that says how it is trained; compile() it in its "
            "builder, or leave the target_spec out"
        )
    return own_inputs(target_spec, "target_spec")


def held(model: Any, kind: Any) -> list[Any]:
    """Return what the model holds of this kind, each once, the optimizer of `compile` first."""
    found: Iterable[Any] = [getattr(model, "optimizer", None), *flat(list(vars(model).values()))]
    unique = {id(one): one for one in found if isinstance(one, kind)}
    wrapped = {id(getattr(one, "inner_optimizer", None)) for one in unique.values()}
    return [one for number, one in unique.items() if number not in wrapped]


Made = tuple[Callable[..., Any], Callable[..., Any] | None]
"""The function of a batch, and what traces it."""


@dataclass(frozen=True)
class _Way:
    """One way in which a step may take its batch."""

    guess: int | None
    """Which targets it has; None for the inputs alone."""
    weighted: bool = False
    """Whether the samples' weights come with them."""


class OwnData:
    """Makes the batches of one model's own training step, and gives them to it as `fit` does."""

    def __init__(self, model: Any, backend: Any, recipe: Recipe, default_rate: float) -> None:
        """Compile the model where it was not, and find the targets that its losses take.

        Raises:
            CaseFailure: it cannot be compiled, has no loss, or no targets are known for its loss.
        """
        self._model, self._backend = model, backend
        self._given: Inputs | None = backend.given_targets.get(model)
        own = overrides(model, "compute_loss", *STEPS)
        known = getattr(model, "outputs", None)  # the same in training
        # a step of its own may have targets for what it gives in inference alone
        modes = [False] if known else [False, True] if own else [True]
        structures = [backend.outputs_of(model, training=one) for one in modes]
        self._structure = structures[0]
        self._shapes = self._shapes_of(self._structure)
        if not is_compiled(model):
            self._compile(recipe, default_rate)
        elif recipe != PLAIN:
            raise CaseFailure(
                "--optimizer, --learning-rate and --loss are for models that are not "
                "compiled; leave them out, or change the model's compile()"
            )
        loss = getattr(model, "loss", None)
        self._added = bool(model.losses) or (loss is None and backend.adds_losses(model))
        if loss is None and not own and not self._added:
            raise CaseFailure(
                "compile() has no loss and the model adds none; give compile() a loss"
            )
        self._guesses = [] if self._given else self._all_guesses(loss, structures[-1])
        self._ways = [_Way(0)] if self._given else self._ways_to_give()
        self._own_code = own

    def _all_guesses(self, loss: Any, trained: Any) -> list[tuple[Any, list[Targets]]]:
        """Return what the targets may be: structures, and the targets in each.

        Args:
            trained: the structure of the outputs in training.
        """
        losses = self._losses(loss, self._structure)
        found = [self._guess(losses, self._structure)]
        if loss is None and not any(losses) and is_classes(self._shapes):
            real = [Targets(real_numbers, self._shapes[0][1:])]
            found.append((self._structure, real))
        if self._shapes_of(trained) != self._shapes:
            found.append(self._guess(self._losses(loss, trained), trained))
        return found

    def advice_on(self, error: BaseException) -> str:
        """Return what helps where the model's own code may have wanted other targets."""
        mismatch = isinstance(error, (AttributeError, LookupError, TypeError, ValueError))
        return GUESSED if self._own_code and self._given is None and mismatch else ""

    def _compile(self, recipe: Recipe, default_rate: float) -> None:
        model, loss = self._model, None
        options = {} if brings_training(model) else self._backend.compile_options
        if recipe.loss is not None:
            loss = loss_by_name(recipe.loss, last_activation(model))
        elif not overrides(model, "compute_loss") and self._shapes:
            classes = is_classes(self._shapes)
            default = "sparse_categorical_crossentropy" if classes else "mean_squared_error"
            loss = loss_by_name(default, last_activation(model))
        try:
            with self._backend.scope():
                optimizer = recipe.new_optimizer(default_rate)
                model.compile(optimizer=optimizer, loss=loss, **options)
        except TypeError:
            raise CaseFailure(
                "its compile() takes other arguments than Keras's; call it in the builder"
            ) from None

    def described(self, by: str) -> dict[str, str | None]:
        """Return what the model is trained with, as far as it tells once a step was taken."""
        return Training.of_compiled(self._model, by, adds_losses=self._adds_losses).as_fields()

    @functools.cached_property
    def _adds_losses(self) -> bool:
        """Whether layers add losses; what a step or loss of its own does with them is not told."""
        own = overrides(self._model, "compute_loss", *STEPS)
        return self._added or (not own and self._backend.added_losses(self._model))

    def _shapes_of(self, structure: Any) -> list[tuple[Any, ...]]:
        flat = [] if structure is None else self._backend.leaves(structure)
        return [tuple(output.shape) for output in flat]

    def _losses(self, given: Any, structure: Any) -> list[Any]:
        """Return the loss of each output; None where the model does not tell."""
        count = len(self._shapes_of(structure))
        if given is None:
            return (held(self._model, keras.losses.Loss)[:1] or [None]) * count
        return by_output(self._model, given, structure, count)

    def _guess(self, losses: list[Any], structure: Any) -> tuple[Any, list[Targets]]:
        """Return a structure of outputs, and the targets of each."""
        shapes = self._shapes_of(structure)
        classes = is_classes(shapes)
        pairs = zip(losses, shapes, strict=True)
        return structure, [self._targets_of(*pair, classes=classes) for pair in pairs]

    def _targets_of(self, loss: Any, shape: tuple[Any, ...], *, classes: bool) -> Targets:
        sample = shape[1:]
        if None in sample:
            raise CaseFailure(
                f"no targets can be made for an output of the unknown shape {sample}; give "
                "the builder an input shape"
            )
        if loss is not None:
            return targets_of(loss, sample, self._backend.tensor)
        return Targets(class_numbers if classes else real_numbers, sample)

    def targets(self, count: int, seed: int) -> tuple[Any, ...]:
        """Return the targets of so many samples, for each guess an array for each output."""
        if self._given:
            return tuple(self._backend.leaves(self._given.batch(count, seed)))
        generator = np.random.RandomState(seed)
        return tuple(one(count, generator) for _, guess in self._guesses for one in guess)

    def _ways_to_give(self) -> list[_Way]:
        """Return the ways to give a batch, the likely one first; of Keras's own step it is known.

        Inputs alone come last: an eager step may take two samples for inputs and targets.
        """
        guesses = [_Way(place) for place in range(len(self._guesses))]
        if not self._shapes or not overrides(self._model, "compute_loss", *STEPS):
            return guesses[:1]
        if not overrides(self._model, *STEPS):
            return guesses
        return [*guesses, _Way(0, weighted=True), _Way(None)]

    def as_given(self, inputs: Any, targets: tuple[Any, ...]) -> Any:
        """Return a batch as `fit` gives it to the step."""
        way = self._ways[0]
        if self._given:
            return inputs, self._backend.packed(self._given.structure, list(targets))
        if way.guess is None or not targets:
            return (inputs,) if isinstance(inputs, (list, tuple, dict)) else inputs
        structure, guess = self._guesses[way.guess]
        before = sum(len(one) for _, one in self._guesses[: way.guess])
        chosen = list(targets[before : before + len(guess)])
        given = inputs, self._backend.packed(structure, chosen)
        if not way.weighted:
            return given
        return *given, self._backend.tensor(np.ones(chosen[0].shape[0], np.float32))

    def step(
        self,
        make: Callable[[], Made],
        batch: tuple[Any, ...],
        *,
        any_batch: bool,
        equations: Callable[[], Any] | None = None,
    ) -> Step:
        """Return the step, whose first call finds out what data it takes.

        A step of the model's own that fails is made anew and given its batch in the next way.

        Args:
            make: makes the function of a batch, and what traces it or None.
            any_batch: whether the function takes any batch, or has its own.
            equations: as in the step.
        """
        function, trace = make()
        failed_s = 0.0

        def first(act: Callable[[], Any]) -> Any:
            """Act, and keep to the way in which that works."""
            nonlocal function, trace, failed_s
            ways, failure = self._ways, None
            while True:
                began = time.perf_counter()
                try:
                    found = act()
                except Exception as error:  # a user's step may raise anything
                    failed_s += time.perf_counter() - began
                    failure = failure or error
                    if len(self._ways) == 1:
                        self._ways = ways
                        raise failure from None
                    self._ways = self._ways[1:]
                    function, trace = make()  # what failed while it was traced is of no more use
                else:
                    self._ways = self._ways[:1]
                    return found

        def run(*given: Any) -> Any:
            return function(*given) if len(self._ways) == 1 else first(lambda: function(*given))

        def traced() -> Any:
            assert trace is not None
            return trace(*batch)

        return Step(
            run,
            batch,
            (lambda: first(traced)) if trace else None,
            any_batch,
            equations,
            lambda: failed_s,
        )
