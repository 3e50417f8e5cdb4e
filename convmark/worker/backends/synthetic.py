"""The synthetic batch of a case in host memory: seeded, and the same for every backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from convmark.worker.inputs import Inputs

__all__ = [
    "Batch",
    "images",
    "is_classes",
    "pool_batches",
    "square_matrices",
    "training_batch",
]

Shape = Sequence[Any]
"""Whole numbers, but for the batch axis of an output."""
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Batch:
    """Images and what a model is trained on with them."""

    images: Any
    """What the model is called on: an array (batch, *sample shape), or a structure of several."""
    targets: tuple[npt.NDArray[Any], ...]
    """One array of classes, int64 (batch,); else an array of each output's shape, float32."""
    classes: bool
    """Whether the loss is the cross-entropy of classes; else it is the squared error."""


POOL_BATCHES = 4
POOL_BYTES = 1 << 28


def pool_batches(inputs: Inputs | Shape, batch_size: int) -> int:
    """Return how many batches a feed goes round: four, fewer where they were over 256 MiB."""
    batch_bytes = max(1, batch_size * Inputs.of(inputs).sample_bytes)
    return max(1, min(POOL_BATCHES, POOL_BYTES // batch_bytes))


def images(inputs: Inputs | Shape, batch_size: int, seed: int) -> Any:
    """Return the inputs alone: the same that `training_batch` begins with."""
    return Inputs.of(inputs).batch(batch_size, seed)


def training_batch(
    inputs: Inputs | Shape, output_shapes: Sequence[Shape], batch_size: int, seed: int
) -> Batch:
    """Return a batch for a model of these outputs: scores of classes, or anything else.

    Args:
        inputs: what the model takes, or the shape of one sample of floats.
        output_shapes: with the batch axis, whose size does not count.
    """
    generator = np.random.RandomState(seed)
    pictures = Inputs.of(inputs).batch(batch_size, seed, generator)
    if is_classes(output_shapes):
        classes = generator.randint(0, output_shapes[0][1], batch_size).astype(np.int64)
        return Batch(pictures, (classes,), classes=True)
    targets = [
        generator.standard_normal((batch_size, *shape[1:])).astype(np.float32)
        for shape in output_shapes
    ]
    return Batch(pictures, tuple(targets), classes=False)


def is_classes(output_shapes: Sequence[Shape]) -> bool:
    """Whether a model of these outputs, batch axis included, gives scores of classes."""
    first = output_shapes[0] if len(output_shapes) == 1 else ()
    return len(first) == 2 and (first[1] or 0) > 1


def square_matrices(size: int) -> tuple[Float32, Float32]:
    """Return two matrices of small values, so that a product of them is finite in float16."""
    row = np.linspace(-1, 1, size, dtype=np.float32) / np.sqrt(np.float32(size))
    matrix = np.add.outer(row, row)
    return matrix, matrix.T.copy()
