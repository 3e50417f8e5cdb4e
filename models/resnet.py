"""One residual block between a stem and a classifier: subclassed, and with batch normalisation.

Both follow He et al., "Deep residual learning for image recognition" (2015), arXiv:1512.03385,
figure 2, in the size of the Paris-Saclay deep learning course (m2dsupsdlclass/lectures-labs).
"""

from __future__ import annotations

from typing import Any

from .keras_api import keras
from .shape import MNIST_CLASSES, MNIST_SHAPE

__all__ = ["MiniResNet", "mini_resnet", "mini_resnet_norm"]

WIDTH = 32


class ResidualBlock(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Two 3x3 convolutions and the identity: (batch, h, w, width) to the same shape."""

    def __init__(self, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.first = keras.layers.Conv2D(width, 3, padding="same", activation="relu")
        self.second = keras.layers.Conv2D(width, 3, padding="same")
        self.add = keras.layers.Add()
        self.relu = keras.layers.Activation("relu")

    def call(self, maps: Any) -> Any:
        return self.relu(self.add([self.second(self.first(maps)), maps]))


class MiniResNet(keras.Model):  # type: ignore[misc]  # Keras has no types
    """A 5x5 stem, one residual block and a softmax: (batch, h, w, c) to (batch, 10)."""

    def __init__(self, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stem = keras.layers.Conv2D(width, 5, padding="same")
        self.block = ResidualBlock(width)
        self.flatten = keras.layers.Flatten()
        self.classifier = keras.layers.Dense(MNIST_CLASSES, activation="softmax")

    def call(self, image: Any) -> Any:
        return self.classifier(self.flatten(self.block(self.stem(image))))


class NormalisedConvolution(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """A bias-free 3x3 convolution, batch normalisation, ReLU: (batch, h, w, c) to width maps.

    Source:
        Ioffe and Szegedy, "Batch normalization" (2015), arXiv:1502.03167, section 3.2.
    """

    def __init__(self, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.convolution = keras.layers.Conv2D(width, 3, padding="same", use_bias=False)
        self.normalisation = keras.layers.BatchNormalization()
        self.relu = keras.layers.Activation("relu")

    def call(self, maps: Any) -> Any:
        return self.relu(self.normalisation(self.convolution(maps)))


class NormalisedResidualBlock(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Two normalised convolutions and the identity: (batch, h, w, width) to the same shape."""

    def __init__(self, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.first = NormalisedConvolution(width)
        self.second = NormalisedConvolution(width)
        self.add = keras.layers.Add()
        self.relu = keras.layers.Activation("relu")

    def call(self, maps: Any) -> Any:
        return self.relu(self.add([self.second(self.first(maps)), maps]))


def mini_resnet() -> keras.Model:
    """Return MiniResNet(32), already called: 28x28x1 to 10 classes, 270,218 parameters.

    5x5 convolution (same) to 28x28x32, residual block to 28x28x32, softmax to 10.
    """
    model = MiniResNet(WIDTH, name="mini_resnet")
    model(keras.Input(MNIST_SHAPE))  # makes the weights; on Keras 3 `build` would not
    return model


def mini_resnet_norm() -> keras.Model:
    """Return MiniResNet(32) with batch normalisation in its block, as a functional model.

    28x28x1 to 10 classes, 270,410 parameters, of them 270,282 trainable.
    """
    image = keras.Input(MNIST_SHAPE, name="image")
    x = keras.layers.Conv2D(WIDTH, 5, padding="same", name="stem")(image)
    x = NormalisedResidualBlock(WIDTH, name="block")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    classes = keras.layers.Dense(MNIST_CLASSES, activation="softmax", name="classifier")(x)
    return keras.Model(image, classes, name="mini_resnet_norm")
