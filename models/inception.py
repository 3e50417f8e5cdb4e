"""One Inception layer between a stem and a classifier, written in the functional style."""

from __future__ import annotations

from typing import Any

from .keras_api import keras
from .shape import MNIST_CLASSES, MNIST_SHAPE

__all__ = ["mini_inception"]

STEM_WIDTH = 16
BRANCH_WIDTH = 32


def mini_inception() -> keras.Model:
    """Return a network of one Inception layer: 28x28x1 to 10 classes, 896,522 parameters.

    5x5 convolution (same) to 28x28x16, Inception layer to 28x28x112, softmax to 10.

    Source:
        Szegedy et al., "Going deeper with convolutions" (2014), arXiv:1409.4842, figure 2(a), in
        the size of the Paris-Saclay deep learning course (m2dsupsdlclass/lectures-labs).
    """
    image = keras.Input(MNIST_SHAPE, name="image")
    x = keras.layers.Conv2D(STEM_WIDTH, 5, padding="same", name="stem")(image)
    x = _inception_layer(x, BRANCH_WIDTH)
    x = keras.layers.Flatten(name="flatten")(x)
    classes = keras.layers.Dense(MNIST_CLASSES, activation="softmax", name="classifier")(x)
    return keras.Model(image, classes, name="mini_inception")


def _inception_layer(maps: Any, width: int) -> Any:
    """Return 1x1, 3x3, 5x5 and pool side by side: (batch, h, w, c) to (batch, h, w, 3 width + c).

    The pool has no projection, and no 1x1 convolution goes before the larger ones.
    """
    branches = [
        keras.layers.Conv2D(
            width, size, padding="same", activation="relu", name=f"branch_{size}x{size}"
        )(maps)
        for size in (1, 3, 5)
    ]
    pool = keras.layers.MaxPooling2D(3, strides=1, padding="same", name="branch_pool")(maps)
    return keras.layers.Concatenate(name="concatenate")([*branches, pool])
