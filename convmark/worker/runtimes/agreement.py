"""Whether an exported model computes the same as the Keras model in float32."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from convmark.worker.failure import CaseFailure

__all__ = ["BOUNDS", "Agreement", "agreement", "check"]

BOUNDS: Mapping[str, float] = MappingProxyType(
    {"float32": 1e-4, "tf32": 1e-2, "float16": 1e-2, "dynamic_int8": 0.25, "int8": 0.25}
)
"""Of the largest relative error, by precision."""


@dataclass(frozen=True)
class Agreement:
    """How far the outputs of two models lie apart, over all batches."""

    largest_abs_error: float
    largest_rel_error: float
    """Over the largest magnitude of the output in the batch."""
    top1_agreement: float | None
    """Of the first output's last axis; None where that has a single entry."""


def agreement(pairs: Iterable[tuple[Sequence[Any], Sequence[Any]]]) -> Agreement:
    """Compare the outputs of each batch with the reference's; what is not finite agrees never.

    Args:
        pairs: for each batch the outputs, and the reference's.

    Raises:
        CaseFailure: they are not as many, or of another shape.
    """
    absolute, relative = [0.0], [0.0]
    same, samples = 0, 0
    for outputs, references in pairs:
        shapes = [[tuple(np.shape(one)) for one in part] for part in (outputs, references)]
        if shapes[0] != shapes[1]:
            raise CaseFailure(f"its outputs have the shapes {shapes[0]}, the model's {shapes[1]}")
        for got, wanted in zip(outputs, references, strict=True):
            error, size = _error(got, wanted)
            absolute.append(error)
            relative.append(error / size if size else (math.inf if error else 0.0))
        first, wanted = outputs[0], references[0]
        if first.ndim > 1 and first.shape[-1] > 1:
            hits = np.argmax(first, -1) == np.argmax(wanted, -1)
            same, samples = same + int(hits.sum()), samples + hits.size
    return Agreement(max(absolute), max(relative), same / samples if samples else None)


def _error(got: Any, wanted: Any) -> tuple[float, float]:
    """Return the largest difference, infinite where one alone is not finite; and the magnitude."""
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    if not np.isfinite(got).all() or not np.isfinite(wanted).all():
        return math.inf, 1.0
    return float(np.max(np.abs(got - wanted), initial=0)), float(np.max(np.abs(wanted), initial=0))


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
            f"the Keras model's in float32, relative to the largest; the bound for {precision} is "
            f"{bound:g}; remove {where} to have it exported anew"
        )
