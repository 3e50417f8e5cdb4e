"""Published accuracy of keras.applications against the measured time of an inference step.

Source:
    Keras, "Keras Applications", "Available models", https://keras.io/api/applications/ as of
    21 January 2026 (templates/api/applications/index.md of keras-team/keras-io): top-1 accuracy on
    the ImageNet validation set of the weights that keras.applications brings, and parameters in
    millions. MobileNetV3 is not in that table.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from convmark.core.table import Table, heading, table_of
from convmark.report.tables.architectures import pareto_front, setting
from convmark.report.tables.points import POINT, latest, records_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PUBLISHED_TOP_1", "published"]

PUBLISHED_TOP_1: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "xception": (0.790, 22.9),
        "vgg16": (0.713, 138.4),
        "vgg19": (0.713, 143.7),
        "resnet50": (0.749, 25.6),
        "resnet50v2": (0.760, 25.6),
        "resnet101": (0.764, 44.7),
        "resnet101v2": (0.772, 44.7),
        "resnet152": (0.766, 60.4),
        "resnet152v2": (0.780, 60.4),
        "inceptionv3": (0.779, 23.9),
        "inceptionresnetv2": (0.803, 55.9),
        "mobilenet": (0.704, 4.3),
        "mobilenetv2": (0.713, 3.5),
        "densenet121": (0.750, 8.1),
        "densenet169": (0.762, 14.3),
        "densenet201": (0.773, 20.2),
        "nasnetmobile": (0.744, 5.3),
        "nasnetlarge": (0.825, 88.9),
        "efficientnetb0": (0.771, 5.3),
        "efficientnetb1": (0.791, 7.9),
        "efficientnetb2": (0.801, 9.2),
        "efficientnetb3": (0.816, 12.3),
        "efficientnetb4": (0.829, 19.5),
        "efficientnetb5": (0.836, 30.6),
        "efficientnetb6": (0.840, 43.3),
        "efficientnetb7": (0.843, 66.7),
        "efficientnetv2b0": (0.787, 7.2),
        "efficientnetv2b1": (0.798, 8.2),
        "efficientnetv2b2": (0.805, 10.2),
        "efficientnetv2b3": (0.820, 14.5),
        "efficientnetv2s": (0.839, 21.6),
        "efficientnetv2m": (0.853, 54.4),
        "efficientnetv2l": (0.857, 119.0),
        "convnexttiny": (0.813, 28.6),
        "convnextsmall": (0.823, 50.2),
        "convnextbase": (0.853, 88.5),
        "convnextlarge": (0.863, 197.7),
        "convnextxlarge": (0.867, 350.1),
    }
)
"""By model its top-1 accuracy, a share, and its parameters, millions."""

_ROUNDED = 0.1
"""Millions of parameters by which the published number, rounded or cut, may differ."""

_PRECISIONS = ("float32", "tf32")
"""The published accuracy is of no other."""

_COLUMNS = (
    *("hardware", "case", "source", "model", "task", "batch_size", "precision", "jit", "replicas"),
    *("cluster", "threads", "backend", "runtime", "machine", "device", "framework", "n"),
    *("step_time_p50_s", "parameters"),
)


def published(frame: pd.DataFrame, table: pd.DataFrame) -> Table:
    """Return the newest inference of each model whose accuracy is published, by like cases.

    A model of another input size, another precision or another number of parameters than the
    published one has no published accuracy.

    Args:
        frame: rows, which say what input size was asked for.
        table: points of timed tasks.
    """
    asked = frame[frame["asked_shape"].notna()][POINT].drop_duplicates()
    resized = set(asked.itertuples(index=False, name=None))
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in records_of(latest(table), _COLUMNS):
        if _is_published(row) and tuple(row[name] for name in POINT) not in resized:
            words = [row["hardware"], f"batch {int(row['batch_size'])}", setting(row)]
            groups.setdefault(", ".join(filter(None, words)), []).append(row)
    records = [
        {**row, "group": name, "top_1": PUBLISHED_TOP_1[row["model"]][0], "front": front}
        for name, rows in groups.items()
        if len(rows) > 1
        for row, front in zip(rows, _fronts(rows), strict=True)
    ]
    records.sort(
        key=lambda row: (
            str(row["hardware"]),
            row["batch_size"],
            row["group"],
            row["step_time_p50_s"],
        )
    )
    return _table(records)


def _is_published(row: Mapping[str, Any]) -> bool:
    known = PUBLISHED_TOP_1.get(row["model"])
    return bool(
        known
        and row["task"] == "infer"
        and row["precision"] in _PRECISIONS
        and row["step_time_p50_s"] > 0
        and abs(row["parameters"] / 1e6 - known[1]) <= _ROUNDED
    )


def _fronts(rows: list[dict[str, Any]]) -> list[str]:
    pairs = ((row["step_time_p50_s"], PUBLISHED_TOP_1[row["model"]][0]) for row in rows)
    return ["on the front" if on_front else "" for on_front in pareto_front(pairs)]


def _table(records: list[dict[str, Any]]) -> Table:
    return table_of(
        "published",
        "Published accuracy against step time",
        "Top-1 accuracy on ImageNet is published, not measured here: that of the weights of "
        "keras.applications, from the table on keras.io/api/applications (21 January 2026). Step "
        "time is measured: the median over the processes of the newest run, inference, float32, "
        "with random weights. A model is on the front where no other is both faster and more "
        "accurate: large points, joined by the dashed line.",
        [
            heading("model", "model"),
            heading("group", "cases"),
            heading("step_time_p50_s", "step p50, measured", "seconds"),
            heading("top_1", "top-1, published", "share"),
            heading("parameters", "parameters", "count"),
            heading("n", "n", "count"),
            heading("front", "front"),
        ],
        records,
        keep=["front"],
    )
