"""The reference network: its steps are paired with those of a case to measure the noise.

FROZEN. A change of anything here or of its raw operations in a backend is a new version, and rows
of different versions are not compared. The network is LeNet-like: 5x5 convolution to 6 maps, 2x2
average pooling, 5x5 convolution to 16 maps, 2x2 average pooling, dense 400-120-84-10, tanh between.

`large` is a training step at batch 64 (about 10 ms on two cores), `small` an inference step at
batch 16 (about 1 ms).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

REFERENCE_VERSION = 1
LEARNING_RATE = 0.01

_BATCH_SIZES = {"large": 64, "small": 16}
_SHAPES = ((5, 5, 1, 6), (6,), (5, 5, 6, 16), (16,), (400, 120), (120,), (120, 84), (84,))
_HEAD_SHAPES = ((84, 10), (10,))

Float32 = npt.NDArray[np.float32]


def kind(task: str, batch_size: int) -> str:
    """Return which reference a case is paired with; the same for every run of the case."""
    return "small" if task == "infer" and batch_size == 1 else "large"


def weights() -> list[Float32]:
    """Return kernels and biases, float32, always the same: Glorot and Bengio (2010), uniform."""
    generator = np.random.RandomState(20240229)  # its stream is frozen by NumPy
    arrays = []
    for shape in _SHAPES + _HEAD_SHAPES:
        if len(shape) == 1:
            arrays.append(np.zeros(shape, np.float32))
            continue
        receptive = int(np.prod(shape[:-2]))
        limit = float(np.sqrt(6.0 / (receptive * (shape[-2] + shape[-1]))))
        arrays.append(generator.uniform(-limit, limit, shape).astype(np.float32))
    return arrays


def batch(which: str) -> tuple[Float32, npt.NDArray[np.int64]]:
    """Return images (batch, 28, 28, 1) in [0, 1) and labels (batch,) of ten classes."""
    generator = np.random.RandomState(20240301)
    size = _BATCH_SIZES[which]
    images = generator.random_sample((size, 28, 28, 1)).astype(np.float32)
    return images, generator.randint(0, 10, size).astype(np.int64)
