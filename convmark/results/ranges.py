"""The range of a column's numbers: what is divided, squared and taken to a power stays a number."""

from __future__ import annotations

import math

from convmark.core.cells import MOST_DIGITS, Column

__all__ = ["range_broken"]

_QUANTILES = ("min", "p10", "p25", "p50", "p75", "p90", "p95", "p99", "max", "mean")

_WAYS = (
    *("compiled_train", "fed_train", "train_on_batch", "fit"),
    *("compiled_infer", "predict_on_batch", "predict"),
)

_GROUPS_OF_FIGURES = ("size", "time", "memory", "state", "learning", "waterfall")

_ABOVE_ZERO = frozenset(
    {
        *(f"step_time_{name}_s" for name in _QUANTILES),
        *("paired_step_time_p50_s", "reference_step_time_p50_s"),
        *("throughput_samples_per_s", "input_bound_throughput_samples_per_s"),
        *("batch_size", "replicas", "process"),
        *(f"{way}_step_s" for way in _WAYS),
        "epoch_time_s",
    }
)

_LOGARITHMS = frozenset(
    f"paired_log_ratio{clock}{error}" for clock in ("", "_cpu") for error in ("", "_se")
)

_MOST_LOGARITHM = 15
"""A step a million times as long as the reference's, or as short."""

_LEAST_FIGURE, _MOST_FIGURE = 1e-30, 1e30
"""Ratios of them, their squares and their powers are still numbers."""


def range_broken(column: Column, value: float) -> str:
    """Return the rule of its range that a number breaks; what is not finite is written as absent.

    Figures are divided, squared and taken to a power: a range that holds spares each of those a
    check of its own.
    """
    if not math.isfinite(value):
        return ""
    if column.name in _ABOVE_ZERO and value <= 0:
        return "must be above 0"
    if column.name in _ABOVE_ZERO and value < _LEAST_FIGURE:
        return f"must be at least {_LEAST_FIGURE:g}"
    if column.name.endswith("_se") and value < 0:
        return "must be at least 0"
    if column.name in _LOGARITHMS and abs(value) > _MOST_LOGARITHM:
        return f"must be a logarithm of at most {_MOST_LOGARITHM}"
    if column.type is int and abs(value) >= 10**MOST_DIGITS:
        return f"must have at most {MOST_DIGITS} digits"
    if column.group in _GROUPS_OF_FIGURES and abs(value) > _MOST_FIGURE:
        return f"must be at most {_MOST_FIGURE:g}"
    return ""
