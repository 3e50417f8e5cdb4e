"""LeNet-5, written in the Sequential style."""

from __future__ import annotations

from .keras_api import keras
from .shape import MNIST_CLASSES, MNIST_SHAPE

__all__ = ["lenet5"]


def lenet5() -> keras.Model:
    """Return LeNet-5: 28x28x1 to 10 classes, 61,706 parameters, 833,040 FLOPs per sample.

    C1 5x5 (same) to 28x28x6, S2 pool to 14x14x6, C3 5x5 to 10x10x16, S4 pool to 5x5x16,
    C5 5x5 to 1x1x120, F6 to 84, softmax to 10; tanh throughout.

    Source:
        LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document
        recognition", Proc. IEEE 86 (1998), section II.B, with maximum pooling, a full C3 and a
        softmax output, as in the Paris-Saclay deep learning course (m2dsupsdlclass/lectures-labs).
    """
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(MNIST_SHAPE),
            layers.Conv2D(6, 5, padding="same", activation="tanh", name="C1"),
            layers.MaxPooling2D(name="S2"),
            layers.Conv2D(16, 5, activation="tanh", name="C3"),
            layers.MaxPooling2D(name="S4"),
            layers.Conv2D(120, 5, activation="tanh", name="C5"),
            layers.Flatten(name="flatten"),
            layers.Dense(84, activation="tanh", name="F6"),
            layers.Dense(MNIST_CLASSES, activation="softmax", name="classifier"),
        ],
        name="lenet5",
    )
