"""Single layers as models: a convolution, and the separable one that stands in for it.

Both are the comparison of the Paris-Saclay deep learning course (m2dsupsdlclass/lectures-labs);
the factorisation is that of Howard et al., "MobileNets" (2017), arXiv:1704.04861, section 3.1.
"""

from __future__ import annotations

from .keras_api import keras
from .shape import MNIST_SHAPE

__all__ = ["conv_layer", "separable_layer"]

MAPS = 8


def conv_layer() -> keras.Model:
    """Return a bias-free 3x3 convolution: 28x28x1 to 26x26x8, 72 parameters."""
    convolution = keras.layers.Conv2D(MAPS, 3, use_bias=False, name="convolution")
    return keras.Sequential([keras.Input(MNIST_SHAPE), convolution], name="conv_layer")


def separable_layer() -> keras.Model:
    """Return a bias-free depthwise 3x3 and a pointwise convolution: 28x28x1 to 26x26x8.

    17 parameters: the depthwise convolution has 9 of them, the pointwise one 8.
    """
    depthwise = keras.layers.DepthwiseConv2D(3, use_bias=False, name="depthwise")
    pointwise = keras.layers.Conv2D(MAPS, 1, use_bias=False, name="pointwise")
    return keras.Sequential(
        [keras.Input(MNIST_SHAPE), depthwise, pointwise], name="separable_layer"
    )
