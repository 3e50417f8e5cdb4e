"""The parts of a training step in TensorFlow, for one replica or several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from convmark_zoo.keras_api import KERAS_VERSION, keras

from convmark.worker.backends.keras_parts import NO_RESULT, ends_in_softmax
from convmark.worker.backends.losses import Batch, as_convolution
from convmark.worker.backends.own_training import Made, OwnData
from convmark.worker.backends.step import Step
from convmark.worker.failure import CaseFailure


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
        (scores,) = leaves(output)
        loss = cross_entropy(targets[0], tf.cast(scores, tf.float32))
        return tf.reduce_mean(loss) if replicas > 1 else loss

    return class_loss


def _squared_error(output: Any, targets: Any) -> Any:
    return tf.add_n(
        [
            tf.reduce_mean(tf.square(tf.cast(got, tf.float32) - want))
            for got, want in pairs(leaves(output), targets)
        ]
    )


def built_optimizer(new_optimizer: Callable[[], Any], model: Any) -> Any:
    """Return a new optimizer, its loss scaled where `compile` would scale it."""
    optimizer = new_optimizer()
    if model.dtype_policy.name == "mixed_float16":
        optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
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
                value += tf.add_n(list(map(_total, model.losses)))
            scaled = _scaled(optimizer, value / replicas if replicas > 1 else value)
        return value, _unscaled(optimizer, tape.gradient(scaled, variables))

    return differentiated


def _total(term: Any) -> Any:
    """Return a loss that a model adds as `fit` takes it: the sum of its values."""
    term = tf.cast(term, tf.float32)
    return term if term.shape.rank == 0 else tf.reduce_sum(term)


def fit_function(model: Any, data: OwnData, compiled: bool) -> tuple[Any, str]:
    """Return the model's own step as `fit` would compile it, and how it is called."""

    def train(pictures: Any, targets: Any) -> Any:
        return proof_of(model.train_step(data.as_given(pictures, targets)), model)

    if model.run_eagerly:
        return train, "train_step, eager"
    xla = compiled or bool(getattr(model, "jit_compile", getattr(model, "_jit_compile", False)))
    function = tf.function(
        train,
        jit_compile=xla,
        reduce_retracing=True,
        autograph=KERAS_VERSION < (3, 0),  # as each Keras has it
    )
    return function, f"tf.function(train_step){', XLA' if xla else ''}"


def iterated_step(model: Any, data: OwnData, batch: tuple[Any, ...]) -> Step:
    """Return a step of the model's own `train_function`, which draws its batch from an iterator.

    The first call finds out how many it draws.

    Raises:
        CaseFailure: from that call, where it draws more than one.
    """
    function = model.train_function or model.make_train_function() or model.train_function

    def make() -> Made:
        batches = tf.data.Dataset.from_tensors(data.as_given(*batch)).repeat()
        first, drawn = [iter(batches)], [0]

        def see(number: Any) -> Any:
            drawn[0] = max(drawn[0], int(number))
            return number

        def noted(number: Any, one: Any) -> Any:
            with tf.control_dependencies([tf.numpy_function(see, [number], number.dtype)]):
                return tf.nest.map_structure(tf.identity, one)

        options = tf.data.Options()  # nothing draws data before it is asked for
        options.autotune.enabled = False
        options.experimental_optimization.apply_default_optimizations = False
        if hasattr(options.experimental_optimization, "inject_prefetch"):
            options.experimental_optimization.inject_prefetch = False
        first.append(iter(batches.enumerate(1).map(noted).with_options(options)))

        def run(*_: Any) -> Any:
            found = proof_of(function(first.pop() if len(first) > 1 else first[0]), model)
            if drawn[0] > 1:
                raise CaseFailure(
                    f"{model.name}: its train_function processes {drawn[0]} batches per call, but "
                    "a step is one batch; use steps_per_execution=1"
                )
            return found

        return run, None

    return data.step(make, batch, any_batch=False)


def proof_of(logs: Any, model: Any) -> tuple[Any, list[Any], list[Any]]:
    """Return a step's token of what the model's own step has returned: its loss, or all numbers.

    Of a step that returns none it is a weight. All that the step has returned is the token's third
    part, for a graph leaves out what it does not return: `fit` has the results of the metrics.
    """
    if hasattr(logs, "get_value"):  # an Optional, as Keras 3 wraps them
        logs = logs.get_value()
    made = [tf.convert_to_tensor(one) for one in leaves(logs)]
    loss = logs.get("loss") if isinstance(logs, dict) else None
    found = made if loss is None else [tf.convert_to_tensor(loss)]
    numbers = [tf.cast(one, tf.float32) for one in found if one.dtype != tf.string]
    if not numbers:
        weight = model.trainable_variables[-1]
        numbers = [tf.cast(tf.convert_to_tensor(weight), tf.float32)]
    return tf.reshape(numbers[0], [-1])[0], numbers, made


def leaves(structure: Any) -> list[Any]:
    """Return the leaves of a nested structure that are not None."""
    return [one for one in tf.nest.flatten(structure) if one is not None]


def tensors(structure: Any) -> list[Any]:
    """Return what a model's results are made of: ragged and sparse tensors are several."""
    flat = tf.nest.flatten(structure, expand_composites=True)
    found = [tf.convert_to_tensor(one) for one in flat if one is not None]
    if not found:
        raise CaseFailure(NO_RESULT)
    return found


def probe_of(result: Any) -> Any:
    """Return a scalar of a result, which may have no values, as where a detector finds no box."""
    values = tf.reshape(result, [-1])
    return values[0] if result.shape.num_elements() else tf.pad(values[:1], [[0, 1]])[0]


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


def products(left: Any, right: Any) -> list[Any]:
    """Return the product of two matrices, and the same as a convolution, as arrays."""

    @tf.function(jit_compile=False)  # type: ignore[untyped-decorator]
    def both(one: Any, other: Any, maps: Any, kernel: Any) -> Any:
        return tf.matmul(one, other), tf.nn.conv2d(maps, kernel, 1, "SAME")

    return [one.numpy() for one in both(left, right, *as_convolution(left, right))]
