"""Whether an exported model computes the same as the Keras model in float32."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from convmark.worker.failure import CaseFailure

__all__ = [
    "BOUNDS",
    "UNTRAINED_SPREAD",
    "Agreement",
    "agreement",
    "are_told_apart",
    "check",
    "check_comparable",
]

BOUNDS: Mapping[str, float] = MappingProxyType(
    {"float32": 1e-4, "tf32": 1e-2, "float16": 5e-3, "dynamic_int8": 0.06, "int8": 0.25}
)
"""Of the largest relative error, by precision: docs/decisions/bounds-of-agreement.md."""
ROUNDING = 16 * float(np.finfo(np.float32).eps)
"""Of an output's largest magnitude: what float32 itself may differ by."""
LEAST_SPREAD = 100 * ROUNDING
"""Of an output's largest magnitude: of one that spreads less, agreement would say nothing."""
UNTRAINED_SPREAD = 0.2
"""The same, of an untrained network of the zoo: LeNet-5's."""
LEAST_INT8_SPREAD = 4 / 256
"""Of probabilities, which int8 keeps in 256 steps from 0 to 1."""


@dataclass(frozen=True)
class Agreement:
    """How far the outputs of two models lie apart, over all batches."""

    largest_abs_error: float
    largest_rel_error: float
    """Over the largest distance of the output's values from their mean."""
    top1_agreement: float | None
    """Of the first output's last axis; None where that has a single entry."""


def agreement(outputs: Sequence[Sequence[Any]], references: Sequence[Sequence[Any]]) -> Agreement:
    """Compare the outputs of each batch with the reference's; what is not finite agrees never.

    Args:
        outputs: for each batch the outputs.

    Raises:
        CaseFailure: they are not as many, or of another shape.
    """
    shapes = [
        [[np.shape(one) for one in batch] for batch in part] for part in (outputs, references)
    ]
    if shapes[0] != shapes[1]:
        raise CaseFailure(f"its outputs have the shapes {shapes[0][0]}, the model's {shapes[1][0]}")
    errors = [
        _errors(got, wanted)
        for got, wanted in zip(_joined(outputs), _joined(references), strict=True)
    ]
    first, wanted = (np.concatenate([batch[0] for batch in part]) for part in (outputs, references))
    top1 = None
    if first.ndim > 1 and first.shape[-1] > 1:
        top1 = float(np.mean(np.argmax(first, -1) == np.argmax(wanted, -1)))
    return Agreement(max(one[0] for one in errors), max(one[1] for one in errors), top1)


def are_told_apart(references: Sequence[Sequence[Any]], least: float = LEAST_SPREAD) -> bool:
    """Whether each output has values that lie apart, so that another network would be noticed.

    The probabilities of a deep network that was never trained may all be the same number.
    """
    return all(
        _spread(one) > least * float(np.max(np.abs(one), initial=0)) for one in _joined(references)
    )


def check_comparable(references: Sequence[Sequence[Any]], precision: str, model: str) -> None:
    """Hold the Keras model's outputs to lying so far apart that a broken export would be noticed.

    Raises:
        CaseFailure: any export would agree, or none of this precision could.
    """
    if not are_told_apart(references):
        raise CaseFailure(
            f"{model}: an export cannot be compared, the Keras model gives nearly the same number "
            "everywhere; give it trained weights"
        )
    for values in _joined(references) if precision == "int8" else ():
        is_probability = np.min(values) >= 0 and np.max(values) <= 1
        if is_probability and _spread(values) < LEAST_INT8_SPREAD:
            raise CaseFailure(
                f"{model}: an export in int8 cannot be compared, its probabilities lie at most "
                f"{_spread(values):.2g} from their mean and int8 has steps of 1/256; give it "
                "trained weights, or ask for dynamic_int8"
            )


def _joined(batches: Sequence[Sequence[Any]]) -> list[Any]:
    """Return each output as one line of numbers, over all batches."""
    return [
        np.concatenate([np.ravel(one) for one in parts]).astype(np.float64)
        for parts in zip(*batches, strict=True)
    ]


def _errors(got: Any, wanted: Any) -> tuple[float, float]:
    """Return the largest difference of an output: itself, and over how far its values spread.

    What float32 itself may differ by is no error: the values of an untrained network lie close
    together.
    """
    if not np.isfinite(got).all() or not np.isfinite(wanted).all():
        return math.inf, math.inf
    error = float(np.max(np.abs(got - wanted), initial=0))
    beyond = max(0.0, error - ROUNDING * float(np.max(np.abs(wanted), initial=0)))
    spread = _spread(wanted)
    return error, beyond / spread if spread else (math.inf if beyond else 0.0)


def _spread(values: Any) -> float:
    """Return the largest distance of the values from their mean."""
    return float(np.max(np.abs(values - np.mean(values)))) if values.size else 0.0


def check(found: Agreement, precision: str, what: str, where: str) -> None:
    """Hold an exported model to its bound.

    Args:
        what: begins the message.
        where: the file.

    Raises:
        CaseFailure: it computes something else.
    """
    bound = BOUNDS[precision]
    if not found.largest_rel_error <= bound:
        raise CaseFailure(
            f"{what} computes something else: its outputs lie {found.largest_rel_error:.3g} from "
            f"the Keras model's in float32, relative to the spread of these; the bound for "
            f"{precision} is {bound:g}; remove {where} to have it exported anew"
        )
