"""The table of models that Keras publishes, as it is published: nothing in it is measured here.

Source:
    Keras, "Keras Applications", "Available models", https://keras.io/api/applications/ as of
    21 January 2026 (templates/api/applications/index.md of keras-team/keras-io): top-1 accuracy on
    the ImageNet validation set of the weights that keras.applications brings, parameters in
    millions, layers with parameters, and the time per inference step, the average of 30 batches and
    10 repetitions. MobileNetV3 is not in that table, and no times of EfficientNetV2 and ConvNeXt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from convmark.core.runtimes import DEFAULT_RUNTIME

SOURCE = "keras.io/api/applications (21 January 2026)"

BATCH_SIZE = 32
"""Samples of a step of the published times."""

HARDWARE = {"cpu": "AMD EPYC, 92 cores", "gpu": "NVIDIA A100"}
"""What the times were published of, with 1.7 TB of memory."""


class Published(NamedTuple):
    """A line of the table."""

    top_1: float
    """Share of the ImageNet validation set."""
    parameters_million: float
    depth: int | None = None
    cpu_ms: float | None = None
    """Of an inference step of `BATCH_SIZE` samples."""
    gpu_ms: float | None = None

    def step_s(self, kind: str) -> float | None:
        """Return the seconds of a step on a kind of device, `cpu` or `gpu`."""
        found = self.cpu_ms if kind == "cpu" else self.gpu_ms
        return None if found is None else found / 1000


PUBLISHED: Mapping[str, Published] = {
    "xception": Published(0.790, 22.9, 81, 109.4, 8.1),
    "vgg16": Published(0.713, 138.4, 16, 69.5, 4.2),
    "vgg19": Published(0.713, 143.7, 19, 84.8, 4.4),
    "resnet50": Published(0.749, 25.6, 107, 58.2, 4.6),
    "resnet50v2": Published(0.760, 25.6, 103, 45.6, 4.4),
    "resnet101": Published(0.764, 44.7, 209, 89.6, 5.2),
    "resnet101v2": Published(0.772, 44.7, 205, 72.7, 5.4),
    "resnet152": Published(0.766, 60.4, 311, 127.4, 6.5),
    "resnet152v2": Published(0.780, 60.4, 307, 107.5, 6.6),
    "inceptionv3": Published(0.779, 23.9, 189, 42.2, 6.9),
    "inceptionresnetv2": Published(0.803, 55.9, 449, 130.2, 10.0),
    "mobilenet": Published(0.704, 4.3, 55, 22.6, 3.4),
    "mobilenetv2": Published(0.713, 3.5, 105, 25.9, 3.8),
    "densenet121": Published(0.750, 8.1, 242, 77.1, 5.4),
    "densenet169": Published(0.762, 14.3, 338, 96.4, 6.3),
    "densenet201": Published(0.773, 20.2, 402, 127.2, 6.7),
    "nasnetmobile": Published(0.744, 5.3, 389, 27.0, 6.7),
    "nasnetlarge": Published(0.825, 88.9, 533, 344.5, 20.0),
    "efficientnetb0": Published(0.771, 5.3, 132, 46.0, 4.9),
    "efficientnetb1": Published(0.791, 7.9, 186, 60.2, 5.6),
    "efficientnetb2": Published(0.801, 9.2, 186, 80.8, 6.5),
    "efficientnetb3": Published(0.816, 12.3, 210, 140.0, 8.8),
    "efficientnetb4": Published(0.829, 19.5, 258, 308.3, 15.1),
    "efficientnetb5": Published(0.836, 30.6, 312, 579.2, 25.3),
    "efficientnetb6": Published(0.840, 43.3, 360, 958.1, 40.4),
    "efficientnetb7": Published(0.843, 66.7, 438, 1578.9, 61.6),
    "efficientnetv2b0": Published(0.787, 7.2),
    "efficientnetv2b1": Published(0.798, 8.2),
    "efficientnetv2b2": Published(0.805, 10.2),
    "efficientnetv2b3": Published(0.820, 14.5),
    "efficientnetv2s": Published(0.839, 21.6),
    "efficientnetv2m": Published(0.853, 54.4),
    "efficientnetv2l": Published(0.857, 119.0),
    "convnexttiny": Published(0.813, 28.6),
    "convnextsmall": Published(0.823, 50.2),
    "convnextbase": Published(0.853, 88.5),
    "convnextlarge": Published(0.863, 197.7),
    "convnextxlarge": Published(0.867, 350.1),
}
"""By model."""

_ROUNDED = 0.1
"""Millions of parameters by which the published number, rounded or cut, may differ."""


def is_published(model: str, parameters: float) -> bool:
    """Whether a network of so many parameters is the one that the table has under the name."""
    known = PUBLISHED.get(model)
    return known is not None and abs(parameters / 1e6 - known.parameters_million) <= _ROUNDED


def is_of_the_times(row: Mapping[str, object]) -> bool:
    """Whether a case is one whose time may stand in the table: inference of 32 samples, all else
    at its default."""
    return (
        row["task"] == "infer"
        and row["batch_size"] == BATCH_SIZE
        and row["precision"] == "float32"
        and row["jit"] == "off"
        and row["threads"] == "default"
        and not row.get("cpus")
        and row["replicas"] == 1
        and row["runtime"] == DEFAULT_RUNTIME
    )
