"""Runtimes: what an exported model costs, and whether it computes the same, beside Keras."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convmark.core.runtimes import DEFAULT_RUNTIME, RUNTIMES
from convmark.core.table import Table, heading, table_of
from convmark.report.rows import latest, records_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["runtimes"]

_SAME = ("hardware", "model", "batch_size", "threads", "asked_shape")
"""What cases must share to stand beside each other."""
_COLUMNS = (
    *_SAME,
    *("task", "backend", "jit", "replicas", "runtime", "precision", "n", "machine", "device"),
    *("step_time_p50_s", "time_to_first_step_s", "export_s", "load_s", "exported_bytes"),
    *("peak_host_memory_bytes", "runtime_threads", "largest_rel_error", "top1_agreement"),
    *("framework", "load"),
)


def runtimes(table: pd.DataFrame) -> Table:
    """Return the newest figures of models that were exported, beside those of Keras.

    Rows are of runs without error: a file that computes something else than the model has none.
    """
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in records_of(latest(table), _COLUMNS):
        plain = (row["task"], row["jit"], row["replicas"]) == ("infer", "off", 1)
        if plain and row["backend"] == RUNTIMES[row["runtime"]].backend:
            groups.setdefault(tuple(str(row[name]) for name in _SAME), []).append(row)
    records = []
    for _, rows in sorted(groups.items()):
        if any(row["runtime"] != DEFAULT_RUNTIME for row in rows):
            rows.sort(key=lambda row: (row["runtime"] == DEFAULT_RUNTIME, row["step_time_p50_s"]))
            records += [_record(row, place) for place, row in enumerate(rows)]
    return table_of(
        "runtimes",
        "Runtimes",
        "Models as they are deployed, fastest first: each exported model has passed the "
        "comparison with the Keras model in float32. The error is the largest difference of an "
        "output over the largest distance of that output from its mean. A step of an exported "
        "model takes its batch from host memory and returns its outputs there. That of Keras has "
        "its batch on the device and returns one number, so it is not ranked: savedmodel is the "
        "same graph, measured as the others are. The file of a runtime is of one batch size.",
        [
            heading("model", "model"),
            heading("hardware", "measured on"),
            heading("batch_size", "batch", "count"),
            heading("runtime", "runtime"),
            heading("precision", "precision"),
            heading("step_time_p50_s", "step p50", "seconds"),
            heading("fastest", "fastest"),
            heading("time_to_first_step_s", "first step", "seconds"),
            heading("load_s", "load", "seconds"),
            heading("export_s", "export", "seconds"),
            heading("exported_bytes", "file", "bytes"),
            heading("peak_host_memory_bytes", "host peak", "bytes"),
            heading("error", "error"),
            heading("top1_agreement", "top-1 agreement", "share"),
            heading("runtime_threads", "threads", "count"),
            heading("n", "n", "count"),
        ],
        records,
    )


def _record(row: dict[str, Any], place: int) -> dict[str, Any]:
    error = row.get("largest_rel_error")
    known = error is not None and error == error
    fastest = "" if place else "yes"
    if row["runtime"] == DEFAULT_RUNTIME:
        fastest = "not ranked"
    return {**row, "fastest": fastest, "error": f"{error:.1e}" if known else ""}
