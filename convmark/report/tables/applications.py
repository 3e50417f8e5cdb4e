"""The table that Keras prints for its applications, filled from one's own rows.

Source:
    Keras, "Keras Applications", "Available models": size, accuracy, parameters, depth, and the
    time per inference step on a CPU and on a GPU at batch size 32. The accuracies there are those
    of weights trained on ImageNet, which are not measured here, and so are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from convmark.core.runtimes import DEFAULT_RUNTIME
from convmark.core.table import Table, heading, table_of
from convmark.report.tables.points import latest, records_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BATCH_SIZE", "applications", "filling_command"]

BATCH_SIZE = 32

_COLUMNS = (
    *("model", "device", "hardware", "step_time_p50_s", "parameters", "model_bytes", "task"),
    *("batch_size", "precision", "jit", "threads", "replicas", "runtime", "n"),
)


def applications(table: pd.DataFrame, depths: Mapping[str, int]) -> Table:
    """Return one row per model: its size, and the time of an inference step of 32 samples.

    Args:
        depths: layers with weights, by model, where a model has been described.
    """
    rows = [row for row in records_of(latest(table), _COLUMNS) if row["task"] == "infer"]
    models: dict[str, dict[str, Any]] = {}
    for row in rows:
        model = models.setdefault(row["model"], {"model": row["model"]})
        for key, name in (("parameters", "parameters"), ("model_bytes", "model_bytes")):
            if row[name] == row[name]:
                model[key] = row[name]
        if _counts(row):
            kind = "cpu" if row["device"] == "cpu" else "gpu"
            model[f"{kind}_step_s"] = row["step_time_p50_s"]
            model[f"{kind}_hardware"] = row["hardware"]
            model[f"{kind}_n"] = row["n"]
    for name, model in models.items():
        model["depth"] = depths.get(name)
    return table_of(
        "applications",
        "Models, as Keras lists its applications",
        f"Time per inference step: the median of the newest run's processes, batch size "
        f"{BATCH_SIZE}, float32, without XLA, default threads. Depth counts the layers that hold "
        f"weights, and is known of models that were described. Fill it by: {filling_command()}",
        [
            heading("model", "model"),
            heading("model_bytes", "size", "bytes"),
            heading("parameters", "parameters", "count"),
            heading("depth", "depth", "count"),
            heading("cpu_step_s", "time per step (CPU)", "seconds"),
            heading("gpu_step_s", "time per step (GPU)", "seconds"),
            heading("cpu_n", "n (CPU)", "count"),
            heading("gpu_n", "n (GPU)", "count"),
            heading("cpu_hardware", "CPU measured on"),
            heading("gpu_hardware", "GPU measured on"),
        ],
        sorted(models.values(), key=lambda model: model.get("model_bytes", 0)),
        empty=f"No inference was measured. Fill it by: {filling_command()}",
        keep=["cpu_step_s", "gpu_step_s", "depth"],
    )


def filling_command() -> str:
    """Return the command whose run fills the table."""
    return (
        "convmark run --tasks infer --batch-sizes 32 --processes 3 --describe "
        "--models resnet50,mobilenetv2,efficientnetb0"
    )


def _counts(row: Mapping[str, Any]) -> bool:
    return bool(
        row["batch_size"] == BATCH_SIZE
        and row["precision"] == "float32"
        and row["jit"] == "off"
        and row["threads"] == "default"
        and row["replicas"] == 1
        and row["runtime"] == DEFAULT_RUNTIME
    )
