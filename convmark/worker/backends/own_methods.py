"""What a model has of its own in place of Keras's methods, and what of it a step leaves out."""

from __future__ import annotations

import re
from typing import Any

from convmark.worker.backends.losses import is_from_keras

STEPS = ("train_step", "make_train_function")
_TRAINER = (*STEPS, "train_function", "compute_loss")
_FITS = ("fit", "train_on_batch")
_PREDICTS = ("predict", "predict_step", "make_predict_function")
_TRAINED_OTHERWISE = re.compile("Dropout|Noise|BatchNormalization|Spectral|Random")
"""Keras's layers that compute otherwise while they train."""


def is_compiled(model: Any) -> bool:
    """Whether `compile` was called, on Keras 2 or 3."""
    return bool(getattr(model, "compiled", False) or getattr(model, "_is_compiled", False))


def brings_training(model: Any) -> bool:
    """Whether the model says itself how it is trained."""
    return is_compiled(model) or overrides(model, *_TRAINER)


def overrides(model: Any, *names: str) -> bool:
    """Whether any of these methods is the model's own and not Keras's."""
    return any(_overrides(model, name) for name in names)


def inference_aside(model: Any) -> dict[str, str]:
    """Return what makes a model's own `predict` another thing than a compiled forward pass.

    Such as methods of its own, which a forward pass does not run: a detector chooses among its
    boxes there.
    """
    found = {name: "not_run" for name in _PREDICTS if overrides(model, name)}
    jit = getattr(model, "jit_compile", getattr(model, "_jit_compile", None))
    found |= {"jit_compile": "not_run"} if is_compiled(model) and jit is True else {}
    return {**found, "run_eagerly": "True"} if model.run_eagerly else found


def training_aside(model: Any) -> dict[str, str]:
    """Return what of a model's own `fit` a step does not run, and whether its layers are not told.

    Keras 3 tells a model that takes `training` that it trains, and no other: its dropout and batch
    normalisation then do as in inference, unless a step of its own tells them.
    """
    found = {name: "not_run" for name in _FITS if overrides(model, name)}
    told = getattr(model, "_call_has_training_arg", True) or overrides(model, *STEPS)
    if told or not is_compiled(model):
        return found
    layers = model._flatten_layers(include_self=False)
    kinds = [type(one) for one in layers if one._call_has_training_arg and getattr(one, "rate", 1)]
    differ = any(_TRAINED_OTHERWISE.search(one.__name__) or not is_from_keras(one) for one in kinds)
    return {**found, "training": "not_told"} if differ else found


def own_function(model: Any) -> bool:
    """Whether the model makes the whole of `train_function` itself, which takes an iterator."""
    return overrides(model, "make_train_function", "train_function")


def _overrides(model: Any, name: str) -> bool:
    assigned = vars(model).get(name)
    if callable(assigned):  # `fit` assigns a train_function too, which is Keras's
        return not is_from_keras(getattr(assigned, "python_function", assigned))
    holder = next((one for one in type(model).__mro__ if name in vars(one)), None)
    return holder is not None and not is_from_keras(holder)
