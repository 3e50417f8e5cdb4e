"""The task waterfall on the harness side: seconds per step of each way to call a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from convmark.core.statistics import quantile

__all__ = ["TASK", "WAYS", "waterfall_columns"]

TASK = "waterfall"

WAYS: Mapping[str, str] = MappingProxyType(
    {
        "compiled_train": "compiled_train_step_s",
        "fed_train": "fed_train_step_s",
        "train_on_batch": "train_on_batch_step_s",
        "fit": "fit_step_s",
        "compiled_infer": "compiled_infer_step_s",
        "predict_on_batch": "predict_on_batch_step_s",
        "predict": "predict_step_s",
    }
)
"""Columns by the worker's name of the way, from the least of Keras to the most, training first."""

_CALLS = MappingProxyType({"fit": "fit_call_s", "predict": "predict_call_s"})


def waterfall_columns(told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures of one process: of each way the median over the rounds.

    A step of fit or predict is the difference of two calls: where that is not above 0, the call has
    varied by more than its steps took, and there is no figure.

    Args:
        told: the worker's events.

    Raises:
        LookupError: the worker has left a way out.
    """
    events = {event["event"]: event for event in told}
    found, state = events["waterfall"], events["state"]
    return {
        "status": "ok",
        "waterfall_rounds": found["rounds"],
        "waterfall_steps": found["steps"]["fit"],
        **{column: _time_of(found["step_s"][way]) for way, column in WAYS.items()},
        **{column: quantile(found["call_s"][way], 0.5) for way, column in _CALLS.items()},
        "load_average_1min": state["load_average_1min"],
        "other_cpu_share": state["other_cpu_share"],
        "involuntary_context_switches": state["involuntary_context_switches"],
    }


def _time_of(times_s: Sequence[float]) -> float | None:
    time_s = quantile(times_s, 0.5)
    return time_s if time_s > 0 else None
