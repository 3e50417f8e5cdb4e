"""Whether the model (by `compile` or its own methods) or the harness defines the training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from convmark_zoo.keras_api import keras

from convmark.worker.backends.losses import flat_losses, is_from_keras, loss_name
from convmark.worker.failure import CaseFailure
from convmark.worker.inputs import flat

__all__ = [
    "PLAIN",
    "STEPS",
    "Recipe",
    "Training",
    "brings_training",
    "held",
    "is_compiled",
    "overrides",
    "own_function",
]

STEPS = ("train_step", "make_train_function")
_TRAINER = (*STEPS, "train_function", "compute_loss")


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
        found = held(model, keras.optimizers.Optimizer)
        used = [one for one in found if _is_used(one)] or found
        optimizers = [type(getattr(one, "inner_optimizer", one)).__name__ for one in used]
        names = [loss_name(one) for one in flat_losses(getattr(model, "loss", None))]
        names += [name for name in ("compute_loss", *STEPS) if overrides(model, name)]
        names += ["losses added"] if adds_losses else []
        return cls(by, " + ".join(optimizers) or None, " + ".join(dict.fromkeys(names)) or None)


def _is_used(optimizer: Any) -> bool:
    """Whether an optimizer has met the weights that it changes; Keras's old ones do not tell."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    told = getattr(inner, "built", getattr(inner, "_built", None))
    return not hasattr(inner, "build") if told is None else bool(told)


def is_compiled(model: Any) -> bool:
    """Whether `compile` was called, on Keras 2 or 3."""
    return bool(getattr(model, "compiled", False) or getattr(model, "_is_compiled", False))


def brings_training(model: Any) -> bool:
    """Whether the model says itself how it is trained."""
    return is_compiled(model) or overrides(model, *_TRAINER)


def overrides(model: Any, *names: str) -> bool:
    """Whether any of these methods is the model's own and not Keras's."""
    return any(_overrides(model, name) for name in names)


def own_function(model: Any) -> bool:
    """Whether the model makes the whole of `train_function` itself, which takes an iterator."""
    return overrides(model, "make_train_function", "train_function")


def _overrides(model: Any, name: str) -> bool:
    assigned = vars(model).get(name)
    if callable(assigned):  # `fit` assigns a train_function too, which is Keras's
        return not is_from_keras(getattr(assigned, "python_function", assigned))
    holder = next((one for one in type(model).__mro__ if name in vars(one)), None)
    return holder is not None and not is_from_keras(holder)


def held(model: Any, kind: Any) -> list[Any]:
    """Return what the model holds of this kind, each once, the optimizer of `compile` first."""
    found: Iterable[Any] = [getattr(model, "optimizer", None), *flat(list(vars(model).values()))]
    unique = {id(one): one for one in found if isinstance(one, kind)}
    wrapped = {id(getattr(one, "inner_optimizer", None)) for one in unique.values()}
    return [one for number, one in unique.items() if number not in wrapped]
