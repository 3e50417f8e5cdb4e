"""Networks that say themselves how they are trained; imported by workers, not a test itself.

Each is of the backend that Keras runs on; those with a `train_step` are TensorFlow's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from convmark_zoo.keras_api import keras

layers, losses, ops = keras.layers, keras.losses, getattr(keras, "ops", None)


def dense(outputs: int = 10, activation: str | None = None, width: int = 8) -> Any:
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(width, activation="relu"),
            layers.Dense(outputs, activation=activation),
        ]
    )


def compiled(loss: Any, outputs: int = 10, activation: str | None = None, **more: Any) -> Any:
    model = dense(outputs, activation)
    model.compile(**{"optimizer": "sgd", "loss": loss, **more})
    return model


def uncompiled() -> Any:
    return dense()


def regularized() -> Any:
    return keras.Sequential([keras.Input((6,)), layers.Dense(10, kernel_regularizer="l2")])


def sparse() -> Any:
    return compiled("sparse_categorical_crossentropy", 4, "softmax", metrics=["accuracy"])


def categorical() -> Any:
    return compiled(losses.CategoricalCrossentropy(from_logits=True))


def binary() -> Any:
    return compiled("binary_crossentropy", 1, "sigmoid", optimizer="adam", metrics=["AUC"])


def regression() -> Any:
    return compiled("mse", 3, optimizer=keras.optimizers.RMSprop(1e-3))


def own_loss_of_classes() -> Any:
    """A loss function of the user's own that takes numbers of classes alone."""

    def crossentropy(targets: Any, scores: Any) -> Any:
        return losses.sparse_categorical_crossentropy(targets, scores, from_logits=True)

    return compiled(crossentropy)


def own_loss_of_nothing() -> Any:
    def refuses(targets: Any, scores: Any) -> Any:
        raise ValueError("no targets suit it")

    return compiled(refuses)


def pixels() -> Any:
    """A segmentation network: a class for every pixel."""
    model = keras.Sequential([keras.Input((4, 4, 1)), layers.Conv2D(3, 1)])
    model.compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def two_outputs() -> Any:
    """Loss weights, and a loss for each output by its name."""
    inputs = keras.Input((6,))
    body = layers.Dense(8, activation="relu")(inputs)
    outputs = {
        "kind": layers.Dense(5, activation="softmax", name="kind")(body),
        "box": layers.Dense(4, name="box")(body),
    }
    model = keras.Model(inputs, outputs)
    model.compile(
        "adam",
        {"kind": "sparse_categorical_crossentropy", "box": "huber"},
        loss_weights={"kind": 1.0, "box": 0.5},
    )
    return model


class AddsLoss(layers.Layer):  # type: ignore[misc]
    def call(self, inputs: Any) -> Any:
        self.add_loss(3.0 + 0 * ops.mean(inputs))
        return inputs


def activity() -> Any:
    """Its loss is of what a layer gives, and of no weight."""
    return keras.Sequential([keras.Input((6,)), layers.Dense(10, activity_regularizer="l2")])


def loss_and_activity() -> Any:
    model = activity()
    model.compile("sgd", "mse")
    return model


def losses_alone() -> Any:
    inputs = keras.Input((6,))
    model = keras.Model(inputs, AddsLoss()(layers.Dense(3)(inputs)))
    model.compile("sgd")
    return model


class AddsLosses(layers.Layer):  # type: ignore[misc]
    """Adds a loss of each sample, as variational autoencoders do."""

    def call(self, inputs: Any) -> Any:
        self.add_loss(3.0 + 0 * ops.mean(inputs, axis=1))
        return inputs


def losses_of_samples() -> Any:
    """Its classes are as likely as each other at first: a loss of ln 10, and 3 of each sample."""
    zeros = layers.Dense(10, kernel_initializer="zeros", kernel_regularizer="l2")
    return keras.Sequential([keras.Input((6,)), zeros, AddsLosses()])


class OwnLoss(keras.Model):  # type: ignore[misc]
    def compute_loss(self, *args: Any, **more: Any) -> Any:
        return 7.0 + 0 * ops.mean(more["y_pred"] if "y_pred" in more else args[2])


def own_compute_loss() -> Any:
    """Left uncompiled, as its user would compile it later."""
    inputs = keras.Input((6,))
    return OwnLoss(inputs, layers.Dense(3)(inputs))


class Detector(keras.Model):  # type: ignore[misc]
    """Compares with boxes of its own structure, in place of what it gives."""

    def compute_loss(self, *args: Any, **more: Any) -> Any:
        truth, found = (more["y"], more["y_pred"]) if "y" in more else args[1:3]
        return ops.mean(ops.square(ops.sum(truth["boxes"], axis=1) - found))


def detector() -> Any:
    inputs = keras.Input((6,))
    return Detector(inputs, layers.Dense(4, kernel_initializer="zeros")(inputs))


def detector_of_boxes() -> Any:
    """It gives zeros at first, so that its loss is the square of five boxes of ones."""
    return detector()


def uncompiled_of_boxes() -> Any:
    return uncompiled()


def _boxes(samples: int) -> Any:
    return {"boxes": np.ones((samples, 5, 4), np.float32), "kinds": np.ones((samples, 5), np.int64)}


detector_of_boxes.target_spec = _boxes  # type: ignore[attr-defined]  # of a function
uncompiled_of_boxes.target_spec = _boxes  # type: ignore[attr-defined]


def eager() -> Any:
    return compiled("mse", run_eagerly=True)


def several_at_once() -> Any:
    return compiled("mse", steps_per_execution=5)


def by_xla() -> Any:
    return compiled("mse", jit_compile=True)


def no_loss() -> Any:
    model = dense()
    model.compile("sgd")
    return model


def frozen() -> Any:
    model = dense()
    model.trainable = False
    return model


def frozen_and_compiled() -> Any:
    model = frozen()
    model.compile("sgd", "mse")
    return model


class Compiles(keras.Model):  # type: ignore[misc]
    def compile(self, inner: Any, outer: Any) -> None:
        super().compile()

    def train_step(self, data: Any) -> Any:
        return {}


def compile_of_its_own() -> Any:
    inputs = keras.Input((6,))
    return Compiles(inputs, layers.Dense(3)(inputs))


class Gan(keras.Model):  # type: ignore[misc]
    """Takes images without targets, and has two optimizers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.critic = dense(6), dense(1)
        self.seen = self.add_weight(shape=(), initializer="zeros", trainable=False, name="seen")

    def call(self, inputs: Any) -> Any:
        return self.critic(self.generator(inputs))

    def compile(self, of_generator: Any, of_critic: Any) -> None:
        super().compile()
        self.of_generator, self.of_critic = of_generator, of_critic

    def train_step(self, images: Any) -> Any:
        import tensorflow as tf

        noise = tf.random.normal(tf.shape(images))
        with tf.GradientTape(persistent=True) as tape:
            fake = self.critic(self.generator(noise))
            critic_loss = tf.reduce_mean(fake) - tf.reduce_mean(self.critic(images))
            generator_loss = -tf.reduce_mean(fake)
        for part, optimizer, loss in (
            (self.critic, self.of_critic, critic_loss),
            (self.generator, self.of_generator, generator_loss),
        ):
            weights = part.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        self.seen.assign_add(1.0)
        return {"critic": critic_loss, "generator": generator_loss}


def gan() -> Any:
    model = Gan()
    model(np.zeros((1, 6), np.float32))
    model.compile(keras.optimizers.Adam(), keras.optimizers.SGD())
    return model


class Told(keras.Model):  # type: ignore[misc]
    """Must be told whether it trains, as `fit` does, and leaves an output out."""

    def __init__(self) -> None:
        super().__init__()
        self.body = layers.Dense(3)

    def call(self, inputs: Any, training: bool) -> Any:
        return {"left_out": None, "scores": self.body(inputs)}


def told() -> Any:
    model = Told()
    model(np.zeros((1, 6), np.float32), training=False)
    return model


def told_and_compiled() -> Any:
    model = told()
    model.compile("sgd", {"scores": "mse"})
    return model


class Untold(keras.Model):  # type: ignore[misc]
    """Does not take `training`, so that Keras 3's `fit` drops nothing."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.body, self.drop = layers.Dense(3), layers.Dropout(rate)

    def call(self, inputs: Any) -> Any:
        return self.drop(self.body(inputs))


def untold(rate: float = 0.5) -> Any:
    model = Untold(rate)
    model.build((None, 6))
    model.compile("sgd", "mse")
    return model


class OwnFit(keras.Model):  # type: ignore[misc]
    def fit(self, *args: Any, **more: Any) -> Any:
        return [super(OwnFit, self).fit(*args, **more) for _ in range(2)][-1]


def own_fit() -> Any:
    inputs = keras.Input((6,))
    return OwnFit(inputs, layers.Dense(3)(inputs))


class Product(keras.metrics.Metric):  # type: ignore[misc]
    """Its result multiplies matrices: 2 x 16 x 16 x 16 = 8,192 FLOPs."""

    def __init__(self) -> None:
        super().__init__(name="product")
        self.matrix = self.add_weight(shape=(16, 16), initializer="ones", name="matrix")

    def update_state(self, *args: Any, **more: Any) -> None:
        self.matrix.assign_add(ops.ones((16, 16)))

    def result(self) -> Any:
        return ops.sum(ops.matmul(self.matrix, self.matrix))


def scored() -> Any:
    """Forward 6 x 8 + 8 x 3, backward that and 8 x 3 again: 168 multiply-adds a sample."""
    return compiled("mse", 3, metrics=[Product()])


class Squares(keras.Model):  # type: ignore[misc]
    """A step without a loss of Keras's, an optimizer in a dictionary, that returns nothing."""

    def step(self, inputs: Any, targets: Any, weights: Any = 1.0) -> None:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(weights * (self(inputs, training=True) - targets) ** 2)
        slopes = tape.gradient(loss, self.trainable_variables)
        self.own["only"].apply_gradients(zip(slopes, self.trainable_variables, strict=True))


class Unweighted(Squares):
    def train_step(self, data: Any) -> None:
        inputs, targets = data
        self.step(inputs, targets)


class Weighted(Squares):
    def train_step(self, data: Any) -> None:
        inputs, targets, weights = data
        self.step(inputs, targets, weights)


def _squares(kind: Any, outputs: int) -> Any:
    inputs = keras.Input((6,))
    model = kind(inputs, layers.Dense(outputs)(inputs))
    model.compile()
    model.own = {"only": keras.optimizers.Adam()}
    return model


def unweighted() -> Any:
    """Takes squares of what looks like scores of classes."""
    return _squares(Unweighted, 3)


def weighted() -> Any:
    return _squares(Weighted, 1)


class Accumulates(keras.Model):  # type: ignore[misc]
    """Adds gradients up and applies every fourth sum."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.taken = self.add_weight(shape=(), initializer="zeros", trainable=False, name="taken")
        self.sums = [
            self.add_weight(shape=one.shape, initializer="zeros", trainable=False, name="sum")
            for one in self.trainable_variables
        ]

    def train_step(self, data: Any) -> Any:
        import tensorflow as tf

        inputs, targets = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=targets, y_pred=self(inputs, training=True))
        weights = self.trainable_variables
        for total, slope in zip(self.sums, tape.gradient(loss, weights), strict=True):
            total.assign_add(slope)
        self.taken.assign_add(1.0)
        share = tf.cast(tf.equal(self.taken % 4, 0), tf.float32)
        for weight, total in zip(weights, self.sums, strict=True):
            weight.assign_sub(0.01 * share * total)
            total.assign(total * (1 - share))
        return {"loss": loss}


def accumulates() -> Any:
    inputs = keras.Input((6,))
    model = Accumulates(inputs, layers.Dense(3)(inputs))
    model.compile("sgd", "mse")
    return model


class ByName(keras.optimizers.Optimizer):  # type: ignore[misc]
    """Has each weight changed by one of two others, as packages of quantised weights do."""

    def __init__(self) -> None:
        super().__init__(learning_rate=0.0)
        self.others = [("bias", keras.optimizers.Adam()), ("", keras.optimizers.SGD())]
        self.others[0][1].holder = self

    def build(self, variables: Any) -> None:
        super().build(variables)
        for name, other in self.others:
            other.build([one for one in variables if (one.name == "bias") == bool(name)])

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        pairs = list(zip(grads, trainable_variables, strict=True))
        for name, other in self.others:
            chosen = [one for one in pairs if (one[1].name == "bias") == bool(name)]
            other.apply(*map(list, zip(*chosen, strict=True)))


def two_optimizers() -> Any:
    return compiled("mse", optimizer=ByName())


class OwnFunction(keras.Model):  # type: ignore[misc]
    def make_train_function(self, force: bool = False) -> Any:
        def function(iterator: Any) -> Any:
            logs = self.train_step(next(iterator))
            return {"loss": logs["loss"] * 0 + 5.0}

        self.train_function = function
        return function


def own_train_function() -> Any:
    inputs = keras.Input((6,))
    model = OwnFunction(inputs, layers.Dense(3)(inputs))
    model.compile("sgd", "mse")
    return model


class Several(OwnFunction):
    def make_train_function(self, force: bool = False) -> Any:
        def function(iterator: Any) -> Any:
            return [self.train_step(next(iterator)) for _ in range(3)][-1]

        self.train_function = function
        return function


def several_a_call() -> Any:
    inputs = keras.Input((6,))
    model = Several(inputs, layers.Dense(3)(inputs))
    model.compile("sgd", "mse")
    return model


def rate_ends() -> Any:
    rate = keras.optimizers.schedules.PolynomialDecay(0.1, 12, 0.0)
    return compiled("mse", 10, optimizer=keras.optimizers.SGD(rate))


def _wide(optimizer: str) -> Any:
    model = keras.Sequential([keras.Input((512,)), layers.Dense(2048), layers.Dense(10)])
    model.compile(optimizer, losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def wide_sgd() -> Any:
    return _wide("sgd")


def wide_adam() -> Any:
    """Its two slots are 8.0 MiB more than the weights of `wide_sgd`."""
    return _wide("adam")


def one_kernel() -> Any:
    """All of its weights are one tensor of 100 MB."""
    model = keras.Sequential([keras.Input((2500,)), layers.Dense(10_000, use_bias=False)])
    model.compile(keras.optimizers.SGD(1e-6), "mse")
    return model


class Late(keras.Model):  # type: ignore[misc]
    """Says that it is built and makes its layers at the first call."""

    def __init__(self) -> None:
        super().__init__()
        self.body = None

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(1,), initializer="ones", name="scale")
        self.built = True

    def call(self, inputs: Any) -> Any:
        if self.body is None:
            self._tracker.unlock()
            self.body = layers.Dense(5)
        return self.body(inputs) * self.scale


def late() -> Any:
    """6 x 5 + 5 + 1 = 36 parameters."""
    model = Late()
    model.build((None, 6))
    return model


class Shared(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.first, self.again = layers.Dense(6), layers.Dense(2)
        self.same = self.first

    def call(self, inputs: Any) -> Any:
        return self.again(self.same(self.first(inputs)))


def shared() -> Any:
    """6 x 6 + 6 + 6 x 2 + 2 = 56 parameters: the shared layer counts once."""
    model = Shared()
    model.build((None, 6))
    return model


class Deep(keras.Model):  # type: ignore[misc]
    """Has a second head while it trains, as GoogLeNet has."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.second = layers.Dense(5), layers.Dense(3), layers.Dense(2)

    def call(self, inputs: Any, training: bool = False) -> Any:
        body = self.body(inputs)
        return [self.head(body), self.second(body)] if training else self.head(body)


def two_heads() -> Any:
    """6 x 5 + 5 + 6 x 3 + 6 x 2 = 65 parameters."""
    model = Deep()
    model(np.zeros((1, 6), np.float32))
    return model


class TrainsBoth(Deep):
    """Its step takes the label of a sample, as `fit` is given it, and trains both heads by it."""

    def compute_loss(self, *args: Any, **more: Any) -> Any:
        y, given = (more["y"], more["y_pred"]) if "y" in more else args[1:3]
        if isinstance(y, (list, tuple)):
            raise TypeError("a label a sample")
        scores = [(y % one.shape[-1], one) for one in given]
        terms = [losses.sparse_categorical_crossentropy(*two, from_logits=True) for two in scores]
        return sum(map(ops.mean, terms))


def two_heads_and_a_label() -> Any:
    model = TrainsBoth()
    model(np.zeros((1, 6), np.float32))
    return model


class Judged(layers.Layer):  # type: ignore[misc]
    """Has a head that only training calls, whose loss it adds."""

    def build(self, shape: Any) -> None:
        self.head, self.judge = layers.Dense(3), layers.Dense(2)
        self.head.build(shape)

    def call(self, inputs: Any, training: bool = False) -> Any:
        if training:
            self.add_loss(ops.mean(ops.square(self.judge(inputs))))
        return self.head(inputs)


def judged() -> Any:
    """6 x 3 + 3 + 6 x 2 + 2 = 35 parameters."""
    inputs = keras.Input((6,))
    return keras.Model(inputs, Judged()(inputs))


class SaysBuilt(keras.Model):  # type: ignore[misc]
    """Says that it is built and has built nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.built = True
        self.body = layers.Dense(2)

    def call(self, inputs: Any) -> Any:
        return self.body(inputs)


def says_built() -> Any:
    """6 x 2 + 2 = 14 parameters."""
    model = SaysBuilt()
    model.build((None, 6))
    return model


class Grows(keras.Model):  # type: ignore[misc]
    """Makes one more layer at every call that Python runs."""

    def __init__(self) -> None:
        super().__init__()
        self.many: list[Any] = []

    def call(self, inputs: Any) -> Any:
        self._tracker.unlock()
        self.many.append(layers.Dense(2))
        return self.many[-1](inputs)


def grows() -> Any:
    model = Grows()
    model(np.zeros((1, 6), np.float32))
    return model


def uses_much_and_gives_it_back() -> Any:
    """Takes 400 MB while it is built."""
    taken = np.ones(50_000_000)
    taken[:] = 2
    del taken
    return dense()
