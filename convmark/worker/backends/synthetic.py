"""The synthetic batch of a case, in host memory: seeded, and the same whatever the backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

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

    images: Float32
    """(batch, *sample shape), in [0, 1)."""
    targets: tuple[npt.NDArray[Any], ...]
    """One array of classes, int64 (batch,); else an array of each output's shape, float32."""
    classes: bool
    """Whether the loss is the cross-entropy of classes; else it is the squared error."""


POOL_BATCHES = 4
POOL_BYTES = 1 << 28


def pool_batches(sample_shape: Shape, batch_size: int) -> int:
    """Return how many batches a feed goes round: four, fewer where they were over 256 MiB."""
    batch_bytes = 4 * batch_size * int(np.prod(sample_shape, dtype=np.int64))
    return max(1, min(POOL_BATCHES, POOL_BYTES // batch_bytes))


def images(sample_shape: Shape, batch_size: int, seed: int) -> Float32:
    """Return the images alone: the same that `training_batch` begins with."""
    return _images(sample_shape, batch_size, np.random.RandomState(seed))


def training_batch(
    sample_shape: Shape, output_shapes: Sequence[Shape], batch_size: int, seed: int
) -> Batch:
    """Return a batch for a model of these outputs: scores of classes, or anything else.

    Args:
        output_shapes: with the batch axis, whose size does not count.
    """
    generator = np.random.RandomState(seed)
    pictures = _images(sample_shape, batch_size, generator)
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


def _images(sample_shape: Shape, batch_size: int, generator: np.random.RandomState) -> Float32:
    return generator.random_sample((batch_size, *sample_shape)).astype(np.float32)
