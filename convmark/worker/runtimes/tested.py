"""A trained model, exported to a runtime and tested there on the digits."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from convmark.core.case import Case
from convmark.worker import mnist, runtimes
from convmark.worker.failure import CaseFailure
from convmark.worker.runtimes.agreement import agreement, check
from convmark.worker.runtimes.engine import Source
from convmark.worker.runtimes.export import RANGE_BATCHES, kept

_LEAST_PROBABILITY = 1e-7
"""As Keras has it in its cross-entropy."""


def tested(
    case: Case, model: Any, digits: mnist.Split, backend: Any, emit: Callable[..., None]
) -> dict[str, float]:
    """Return loss and accuracy of the exported model on the test digits.

    In int8 the ranges of activations are found with training digits. How far the outputs lie from
    the Keras model's is reported; in float32 it is held to its bound.

    Raises:
        CaseFailure: it cannot be exported or loaded, is of another precision, or computes something
            else.
    """
    batches = batches_of(digits.test.images, case.batch_size)
    function = backend.exported_function(model, [batches[0]])
    references = [backend.exported_outputs(function, [one]) for one in batches]
    shown = digits.training.images[: RANGE_BATCHES * case.batch_size]

    def samples() -> Iterator[Sequence[Any]]:
        for one in batches_of(shown, case.batch_size):
            yield [one]

    digest = backend.exported_digest(function, model)
    if case.precision == "int8":
        digest += f" {RANGE_BATCHES} batches of digits"
    _, make = runtimes.imported(case.runtime, case.model)
    path = kept(case, Source(function, model, samples), digest, emit)
    engine = runtimes.loaded(case, make, path)
    emit("loaded", packages=runtimes.versions(case.runtime))
    runtimes.check_stored(case, engine, engine.multiplies_in())
    outputs = [engine.run([one]) for one in batches]
    where = os.path.dirname(path.rstrip("/"))
    found = agreement(outputs, references, f"{case.name}:", where)
    emit("agreement", **found.columns)
    if case.precision == "float32":
        check(found, case.precision, f"{case.name}:", where)
    values = np.concatenate([one for (one,) in outputs])[: len(digits.test.labels)]
    if not np.isfinite(values).all():
        raise CaseFailure(
            f"{case.name}: the export gives NaN or infinite values on the test digits; use another "
            "--precisions"
        )
    return score(values, digits.test.labels, probabilities=backend.is_softmax(model))


def batches_of(images: Any, size: int) -> list[Any]:
    """Return the images in batches of one size, the last filled up with the first images."""
    missing = -len(images) % size
    return np.split(np.concatenate([images, np.resize(images, (missing, *images.shape[1:]))]),
                    (len(images) + missing) // size)  # fmt: skip


def score(values: Any, labels: Any, *, probabilities: bool) -> dict[str, float]:
    """Return the mean cross-entropy and the share of the samples that are classified rightly.

    Args:
        values: (samples, classes), probabilities or scores, all of them finite.
    """
    values = values.astype(np.float64)
    if not probabilities:
        values = np.exp(values - values.max(axis=1, keepdims=True))
        values /= values.sum(axis=1, keepdims=True)
    of_label = values[np.arange(len(labels)), labels]
    return {
        "loss": float(-np.log(np.clip(of_label, _LEAST_PROBABILITY, 1)).mean()),
        "accuracy": float(np.mean(values.argmax(axis=1) == labels)),
    }
