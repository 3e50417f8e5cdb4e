"""Whether an exported model computes the same as the Keras model in float32."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from convmark.core.runtimes import ERROR_BOUNDS, RUNTIME_PRECISIONS
from convmark.worker.failure import CaseFailure

BOUNDS_BETWEEN_SAMPLES: Mapping[str, float] = MappingProxyType(
    {"float32": 0.01, "tf32": 0.1, "float16": 0.1, "dynamic_int8": 0.9, "int8": 0.6}
)
"""Of what `error_between_samples` returns: 1 for a file that ignores its input."""
MOST_LOST: Mapping[str, float] = MappingProxyType(
    {"float32": 0.01, "tf32": 0.1, "float16": 0.1, "dynamic_int8": 0.5, "int8": 0.5}
)
"""Of what `lost_entries` returns, and less than that."""
ROUNDING = 16 * float(np.finfo(np.float32).eps)
"""Of an output's largest magnitude: what float32 itself may differ by."""
LEAST_SPREAD = 100 * ROUNDING
"""Of an output's largest magnitude: of one that spreads less, agreement would say nothing."""
UNTRAINED_SPREAD = 0.02
"""The same, of an untrained network of the zoo: a larger one amplifies what is rounded."""
AMPLIFICATIONS = 60
"""Each by about four over all layers."""
INT8_STEP = 1 / 256
LEAST_INT8_SPREAD = 4 * INT8_STEP
"""Of probabilities, which int8 keeps in 256 steps from 0 to 1."""


@dataclass(frozen=True)
class Agreement:
    """How far the outputs of two models lie apart, over all batches."""

    largest_abs_error: float
    largest_rel_error: float
    """Over the largest distance of the output's values from their mean."""
    top1_agreement: float | None
    """Of the first output's last axis; None where the model gives one class for all samples."""
    error_between_samples: float
    """As the function of this name returns it, of the output with the largest."""
    lost_entries: float = 0.0
    """The same."""

    @property
    def columns(self) -> dict[str, float | None]:
        """Those that a row has."""
        return {
            "largest_abs_error": self.largest_abs_error,
            "largest_rel_error": self.largest_rel_error,
            "top1_agreement": self.top1_agreement,
        }


def agreement(
    outputs: Sequence[Sequence[Any]],
    references: Sequence[Sequence[Any]],
    what: str = "the export",
    where: str = "it",
    most: int | None = None,
) -> Agreement:
    """Compare the outputs of each batch with the reference's; what is not finite agrees never.

    Args:
        outputs: for each batch the outputs.
        what, where: as for `check`.
        most: samples, the first ones, of which the largest errors are; all by default. The largest
            of many is larger, and the bounds of rounded weights are of 16.

    Raises:
        CaseFailure: they are not as many, or of another shape.
    """
    shapes = [
        [[np.shape(one) for one in batch] for batch in part] for part in (outputs, references)
    ]
    if shapes[0] != shapes[1]:
        raise CaseFailure(
            f"{what} computes something else: its outputs have the shapes {shapes[0][0]}, the "
            f"Keras model's {shapes[1][0]}; remove {where} to have it exported anew"
        )
    whole = _whole(outputs), _whole(references)
    errors = [
        _errors(*(np.ravel(one[:most]).astype(np.float64) for one in pair))
        for pair in zip(*whole, strict=True)
    ]
    first, wanted = whole[0][0], whole[1][0]
    top1 = None
    if first.ndim > 1 and len(np.unique(np.argmax(wanted, -1))) > 1:
        top1 = float(np.mean(np.argmax(first, -1) == np.argmax(wanted, -1)))
    return Agreement(
        max(one[0] for one in errors),
        max(one[1] for one in errors),
        top1,
        max(map(error_between_samples, _samples(outputs), _samples(references))),
        max(map(lost_entries, *whole)),
    )


def error_between_samples(got: Any, wanted: Any) -> float:
    """Return the error over how far the samples of an output differ, both root mean squares.

    Outputs that are the same for all samples give 1 or more, those of other samples about 1.4.

    Args:
        got: a line of numbers for each sample; what float32 itself may differ by is no error.
    """
    rounding = ROUNDING * float(np.max(np.abs(wanted), initial=0))
    error = np.sqrt(np.mean(np.maximum(0, np.abs(got - wanted) - rounding) ** 2))
    spread = np.sqrt(np.mean((wanted - wanted.mean(0)) ** 2))
    if not np.isfinite(error):
        return math.inf
    return float(error / spread) if spread else (math.inf if error else 0.0)


def lost_entries(got: Any, wanted: Any) -> float:
    """Return the share of an output's entries that an export gives no better than their mean.

    An output may hold numbers of several kinds, such as places in an image and scores. Of the small
    ones no error tells that is related to the spread of all. Probabilities of one distribution are
    of one kind: of these small ones may be lost.

    Args:
        got: (samples, ..., entries).
    """
    if not wanted.size:
        return 0.0
    entries = wanted.shape[-1] if wanted.ndim > 1 else 1
    lines, others = (one.reshape(-1, entries).astype(np.float64) for one in (wanted, got))
    largest = np.max(np.abs(lines), axis=0, initial=0)
    spread = np.sqrt(np.mean((lines - lines.mean(0)) ** 2, axis=0))
    error = np.sqrt(np.mean(np.maximum(0, np.abs(others - lines) - ROUNDING * largest) ** 2, 0))
    told = spread > LEAST_SPREAD * largest
    if not told.any() or (lines.min() >= 0 and np.allclose(lines.sum(1), 1, atol=1e-3)):
        return 0.0
    return float(np.mean(~(error < spread)[told]))


def told_apart(references: Sequence[Sequence[Any]]) -> float:
    """Return how far samples lie from their mean, over the magnitude: of the output with the least.

    Another network would not be noticed where it is 0, as it may be of a deep one never trained.
    """
    return min(
        (
            float(np.max(np.abs(one - one.mean(0)), initial=0) / (np.max(np.abs(one)) or 1))
            if one.size
            else 0.0
        )
        for one in _samples(references)
    )


def amplify(model: Any, spread: Callable[[], float]) -> None:
    """Lower the variances that batch normalisation divides by until outputs differ enough.

    In an untrained deep network they are 1, so the activations vanish with the depth, and the
    network gives the same whatever it is fed. Lowered too far it gives the same again, one class
    of probability 1: where the outputs never differ enough, it is left where they differ most. No
    step takes another time by it.

    Args:
        spread: as `told_apart` gives it, of the model as it is then.
    """
    found = _norms(model)

    def lower(number: int) -> None:
        for layer in found:
            variance = np.full(layer.moving_variance.shape, 16 ** (-number / len(found)))
            layer.moving_variance.assign(variance)

    most, best = 0.0, 0
    for number in range(1, AMPLIFICATIONS + 1) if found else ():
        lower(number)
        now = spread()
        if now > most:
            most, best = now, number
        if most > UNTRAINED_SPREAD or now < most / 10:
            break
    lower(best)


def has_new_norms(model: Any) -> bool:
    """Whether all batch normalisation of a model is as it begins, so that it was not trained."""
    return bool(_norms(model)) and all(
        np.all(layer.moving_mean.numpy() == 0) and np.all(layer.moving_variance.numpy() == 1)
        for layer in _norms(model)
    )


def _norms(model: Any) -> list[Any]:
    """Return the layers of batch normalisation; one that is never called has no statistics."""
    return [
        one
        for one in model._flatten_layers()
        if "BatchNormalization" in type(one).__name__
        and getattr(one, "moving_mean", None) is not None
        and getattr(one, "moving_variance", None) is not None
    ]


def check_comparable(references: Sequence[Sequence[Any]], precision: str, model: str) -> None:
    """Hold the Keras model's outputs to lying so far apart that a broken export would be noticed.

    Raises:
        CaseFailure: any export would agree, or none of this precision could.
    """
    for number, values in enumerate(_samples(references), 1):
        of = f" in its output {number} of {len(references[0])}" if len(references[0]) > 1 else ""
        if not np.isfinite(values).all():
            raise CaseFailure(
                f"{model}: an export cannot be compared, because the Keras model gives NaN or "
                f"infinite values{of}; use trained weights, or correct the model"
            )
        if not told_apart([[values]]) > LEAST_SPREAD:
            raise CaseFailure(
                f"{model}: an export cannot be compared, because the Keras model gives nearly "
                f"the same for all inputs{of}; use trained weights"
                + ", or measure a model without that output"
                * bool(of)
            )
    for values in _samples(references) if precision == "int8" else ():
        is_probability = np.min(values) >= 0 and np.max(values) <= 1
        between = float(np.max(np.abs(values - values.mean(0))))
        if is_probability and (_spread(values) < LEAST_INT8_SPREAD or between < INT8_STEP):
            raise CaseFailure(
                f"{model}: an export in int8 cannot be compared, because its probabilities are at "
                f"most {_spread(values):.2g} from their mean, between samples {between:.2g}, and "
                "int8 has steps of 1/256; use trained weights, or --precisions dynamic_int8"
            )


def _samples(batches: Sequence[Sequence[Any]]) -> list[Any]:
    """Return each output with a line of numbers for each sample of all batches.

    One number for a whole batch, such as a mean, is a line of its own.
    """
    return [
        one.reshape(len(one), -1).astype(np.float64) if one.size else one.reshape(len(one), 0)
        for one in _whole(batches)
    ]


def _whole(batches: Sequence[Sequence[Any]]) -> list[Any]:
    """Return each output of all batches, one after the other."""
    return [np.concatenate(list(map(np.atleast_1d, parts))) for parts in zip(*batches, strict=True)]


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
    """
    remedy = f"remove {where} to have it exported anew"
    if precision in RUNTIME_PRECISIONS:
        remedy += (
            f"; if the error stays, the file is wrong or {precision} too coarse for this model, "
            "which the outputs do not tell: use --precisions float32"
        )
    between = BOUNDS_BETWEEN_SAMPLES[precision]
    if not found.error_between_samples <= between:
        raise CaseFailure(
            f"{what} computes something else: between samples its outputs do not differ as the "
            f"Keras model's do, the error is {found.error_between_samples:.3g} of their "
            f"difference; the bound for {precision} is {between:g}; {remedy}"
        )
    if not found.lost_entries < MOST_LOST[precision]:
        unlike = "give numbers of unlike size an output of their own, or use another --precisions"
        raise CaseFailure(
            f"{what} computes something else: {100 * found.lost_entries:.0f} % of an output's "
            f"entries are no better than a constant; the bound for {precision} is "
            f"{100 * MOST_LOST[precision]:.0f} %; {remedy if precision == 'float32' else unlike}"
        )
    bound = ERROR_BOUNDS[precision]
    if not found.largest_rel_error <= bound:
        raise CaseFailure(
            f"{what} computes something else: its outputs lie {found.largest_rel_error:.3g} from "
            f"the Keras model's in float32, relative to the spread of these; the bound for "
            f"{precision} is {bound:g}; {remedy}"
        )
