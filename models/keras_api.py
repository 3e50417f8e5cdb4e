"""The Keras of this interpreter: `import keras` on Keras 3, TensorFlow's on Keras 2."""

from importlib.metadata import version

KERAS_VERSION: tuple[int, ...] = tuple(int(part) for part in version("keras").split(".")[:2])
"""Major and minor version, such as (3, 15)."""

if KERAS_VERSION >= (3, 0):
    import keras
else:
    from tensorflow import keras

__all__ = ["KERAS_VERSION", "keras"]
