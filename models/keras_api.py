"""The Keras of this interpreter: `import keras` on Keras 3, TensorFlow's on Keras 2.

From TensorFlow 2.16 on, Keras 2 is the package tf-keras: taken where TF_USE_LEGACY_KERAS asks for
it, as TensorFlow does. JAX and PyTorch know nothing of it.
"""

import os
from importlib.metadata import PackageNotFoundError, version


def _release(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


KERAS_RELEASE = _release("keras")
"""The version as text; that of tf-keras where it is the Keras."""

if (
    not KERAS_RELEASE.startswith("2.")
    and os.environ.get("TF_USE_LEGACY_KERAS") in ("true", "True", "1")
    and os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow"
):
    KERAS_RELEASE = _release("tf_keras")
    if not KERAS_RELEASE:
        raise ImportError(
            "TF_USE_LEGACY_KERAS asks for tf-keras, which is not installed; install it "
            "(pip install tf-keras), or unset the variable"
        )
    import tf_keras as keras
elif KERAS_RELEASE.startswith("2."):
    from tensorflow import keras
else:
    import keras

KERAS_VERSION: tuple[int, ...] = tuple(int(part) for part in KERAS_RELEASE.split(".")[:2])
"""Major and minor version, such as (3, 15)."""

__all__ = ["KERAS_RELEASE", "KERAS_VERSION", "keras"]
