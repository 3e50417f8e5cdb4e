"""What a training step in TensorFlow is made of, whether one replica takes it or several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from convmark_zoo.keras_api import keras

from convmark.worker.backends.keras_model import ends_in_softmax
from convmark.worker.backends.synthetic import Batch

__all__ = ["gradients_of", "loss_of", "pairs", "sgd"]


def loss_of(model: Any, batch: Batch, *, replicas: int = 1) -> Callable[[Any, Any], Any]:
    """Return the loss of outputs and targets: cross-entropy of classes, else squared error.

    Args:
        replicas: where there are several Keras 2 takes no mean of its own, for it might be meant
            over all of them; so this one's is taken here.
    """
    if not batch.classes:
        return _squared_error
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(
        from_logits=not ends_in_softmax(model), **({"reduction": "none"} if replicas > 1 else {})
    )

    def class_loss(output: Any, targets: Any) -> Any:
        (scores,) = tf.nest.flatten(output)
        loss = cross_entropy(targets[0], tf.cast(scores, tf.float32))
        return tf.reduce_mean(loss) if replicas > 1 else loss

    return class_loss


def _squared_error(output: Any, targets: Any) -> Any:
    return tf.add_n(
        [
            tf.reduce_mean(tf.square(tf.cast(got, tf.float32) - want))
            for got, want in pairs(tf.nest.flatten(output), targets)
        ]
    )


def sgd(learning_rate: float, variables: Any) -> Any:
    """Return plain SGD, its loss scaled where gradients are float16."""
    optimizer = keras.optimizers.SGD(learning_rate)
    if keras.mixed_precision.global_policy().name == "mixed_float16":
        optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer)
    optimizer.build(variables)
    return optimizer


def gradients_of(
    model: Any, loss: Callable[[Any, Any], Any], optimizer: Any, *, replicas: int = 1
) -> Callable[[Any, Any], Any]:
    """Return the function from a batch to its loss and its gradients, ready to be applied.

    The gradients are a replica's share of the mean over all: an optimiser adds the shares up.
    """
    variables = model.trainable_variables

    def differentiated(pictures: Any, targets: Any) -> Any:
        with tf.GradientTape() as tape:
            value = loss(model(pictures, training=True), targets)
            if model.losses:
                value += tf.add_n([tf.cast(term, tf.float32) for term in model.losses])
            scaled = _scaled(optimizer, value / replicas if replicas > 1 else value)
        return value, _unscaled(optimizer, tape.gradient(scaled, variables))

    return differentiated


@tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]  # TensorFlow's
def pairs(first: Any, second: Any) -> list[tuple[Any, Any]]:
    """Pair equally many; in traced code TensorFlow 2.12's own zip, without `strict`, would run."""
    return list(zip(first, second, strict=True))


def _scaled(optimizer: Any, loss: Any) -> Any:
    if hasattr(optimizer, "get_scaled_loss"):  # Keras 2
        return optimizer.get_scaled_loss(loss)
    return optimizer.scale_loss(loss) if hasattr(optimizer, "scale_loss") else loss


def _unscaled(optimizer: Any, gradients: Any) -> Any:
    if hasattr(optimizer, "get_unscaled_gradients"):  # Keras 2; Keras 3 does it when applying
        return optimizer.get_unscaled_gradients(gradients)
    return gradients
