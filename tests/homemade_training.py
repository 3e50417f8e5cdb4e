"""Networks with a training of their own, after Keras's own guides; imported by workers.

`test_homemade_models.py` has the figures of each, worked out by hand.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from homemade_models import classifier
from keras import layers, losses, ops


class Sampling(layers.Layer):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.noise = keras.random.SeedGenerator(1)

    def call(self, mean: Any, log_variance: Any) -> Any:
        noise = keras.random.normal(ops.shape(mean), seed=self.noise)
        return mean + ops.exp(0.5 * log_variance) * noise


class Vae(keras.Model):  # type: ignore[misc]
    """A variational autoencoder: https://keras.io/examples/generative/vae/."""

    def __init__(self) -> None:
        super().__init__()
        inputs = keras.Input((12,))
        body = layers.Dense(16, activation="relu")(inputs)
        mean, log_variance = layers.Dense(2)(body), layers.Dense(2)(body)
        self.encoder = keras.Model(inputs, [mean, log_variance, Sampling()(mean, log_variance)])
        self.decoder = keras.Sequential(
            [keras.Input((2,)), layers.Dense(16, activation="relu"), layers.Dense(12)]
        )
        self.total = keras.metrics.Mean(name="loss")

    @property
    def metrics(self) -> list[Any]:
        return [self.total]

    def call(self, data: Any) -> Any:
        return self.decoder(self.encoder(data)[2])

    def train_step(self, data: Any) -> Any:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            mean, log_variance, code = self.encoder(data)
            error = ops.mean(ops.sum(ops.square(data - self.decoder(code)), axis=1))
            divergence = -0.5 * (1 + log_variance - ops.square(mean) - ops.exp(log_variance))
            loss = error + ops.mean(ops.sum(divergence, axis=1))
        slopes = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(slopes, self.trainable_weights, strict=True))
        self.total.update_state(loss)
        return {"loss": self.total.result()}


def vae() -> Any:
    model = Vae()
    model.compile(optimizer=keras.optimizers.Adam())
    return model


vae.input_spec = lambda samples: np.zeros((samples, 12), np.float32)  # type: ignore[attr-defined]


class Gan(keras.Model):  # type: ignore[misc]
    """Without a `call`, as in https://keras.io/examples/generative/dcgan_overriding_train_step/."""

    def __init__(self) -> None:
        super().__init__()
        self.critic = keras.Sequential(
            [keras.Input((8, 8, 1)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(1)]
        )
        self.generator = keras.Sequential(
            [
                keras.Input((3,)),
                layers.Dense(4 * 4 * 2),
                layers.Reshape((4, 4, 2)),
                layers.Conv2DTranspose(1, 4, strides=2, padding="same"),
            ]
        )

    def compile(self, critic_optimizer: Any, generator_optimizer: Any, loss_fn: Any) -> None:
        super().compile()
        self.critic_optimizer, self.generator_optimizer = critic_optimizer, generator_optimizer
        self.loss_fn = loss_fn
        self.critic_loss = keras.metrics.Mean(name="critic_loss")

    @property
    def metrics(self) -> list[Any]:
        return [self.critic_loss]

    def train_step(self, real: Any) -> Any:
        import tensorflow as tf

        samples = tf.shape(real)[0]
        made = self.generator(tf.random.normal((samples, 3)))
        labels = tf.concat([tf.ones((samples, 1)), tf.zeros((samples, 1))], axis=0)
        with tf.GradientTape() as tape:
            loss = self.loss_fn(labels, self.critic(tf.concat([made, real], axis=0)))
        weights = self.critic.trainable_weights
        self.critic_optimizer.apply_gradients(
            zip(tape.gradient(loss, weights), weights, strict=True)
        )
        with tf.GradientTape() as tape:
            fooled = self.critic(self.generator(tf.random.normal((samples, 3))))
            fool = self.loss_fn(tf.zeros((samples, 1)), fooled)
        weights = self.generator.trainable_weights
        self.generator_optimizer.apply_gradients(
            zip(tape.gradient(fool, weights), weights, strict=True)
        )
        self.critic_loss.update_state(loss)
        return {"critic_loss": self.critic_loss.result()}


def gan() -> Any:
    model = Gan()
    model.compile(
        keras.optimizers.Adam(3e-4),
        keras.optimizers.Adam(3e-4),
        losses.BinaryCrossentropy(from_logits=True),
    )
    return model


class OfNoise(Gan):
    def call(self, noise: Any) -> Any:
        return self.generator(noise)


def gan_of_noise() -> Any:
    """As `gan`; it is trained on images, and makes them of noise where it is called."""
    model = OfNoise()
    model.compile(
        keras.optimizers.Adam(3e-4),
        keras.optimizers.Adam(3e-4),
        losses.BinaryCrossentropy(from_logits=True),
    )
    return model


gan.input_spec = lambda samples: np.ones((samples, 8, 8, 1), np.float32)  # type: ignore[attr-defined]
gan_of_noise.input_spec = gan.input_spec  # type: ignore[attr-defined]


class Distiller(keras.Model):  # type: ignore[misc]
    """After https://keras.io/examples/vision/knowledge_distillation/."""

    def __init__(self, student: Any, teacher: Any) -> None:
        super().__init__()
        self.student, self.teacher = student, teacher

    def compile(self, optimizer: Any, student_loss_fn: Any, distillation_loss_fn: Any) -> None:
        super().compile(optimizer=optimizer)
        self.student_loss_fn = student_loss_fn
        self.distillation_loss_fn = distillation_loss_fn

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        allow_empty: bool = False,
    ) -> Any:
        taught = self.teacher(x, training=False)
        own = self.student_loss_fn(y, y_pred)
        soft = self.distillation_loss_fn(ops.softmax(taught / 3), ops.softmax(y_pred / 3))
        return 0.1 * own + 0.9 * 9 * soft

    def call(self, x: Any) -> Any:
        return self.student(x)


def distillation() -> Any:
    teacher = classifier(32)
    teacher.trainable = False
    model = Distiller(classifier(8), teacher)
    model.compile(
        keras.optimizers.Adam(),
        losses.SparseCategoricalCrossentropy(from_logits=True),
        losses.KLDivergence(),
    )
    model.build((None, 12))
    return model


class Contrastive(keras.Model):  # type: ignore[misc]
    """Takes a pair of unlabelled images, as SimCLR does; a matrix of similarities is its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = keras.Sequential([layers.Flatten(), layers.Dense(6)])
        self.temperature = 0.1

    def call(self, images: Any) -> Any:
        return self.encoder(images)

    def train_step(self, data: Any) -> Any:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            first, second = self.encoder(data), self.encoder(tf.reverse(data, [2]))
            similarity = ops.matmul(first, ops.transpose(second)) / self.temperature
            labels = ops.arange(ops.shape(first)[0])
            loss = ops.mean(
                losses.sparse_categorical_crossentropy(labels, similarity, from_logits=True)
            )
        weights = self.encoder.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"loss": loss}


def contrastive() -> Any:
    model = Contrastive()
    model(np.zeros((1, 4, 4, 1), np.float32))
    model.compile(keras.optimizers.Adam(1e-3))
    return model


class TwoResults(keras.Model):  # type: ignore[misc]
    """Gives a tuple, the second of it for nobody's loss."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.scores = layers.Dense(6), layers.Dense(3)

    def call(self, x: Any) -> Any:
        features = self.body(x)
        return self.scores(features), features


def two_results() -> Any:
    model = TwoResults()
    model(keras.Input((5,)))
    return model


class Diffusion(keras.Model):  # type: ignore[misc]
    """Learns to predict noise: https://keras.io/examples/generative/ddim/; without a `call`."""

    def __init__(self) -> None:
        super().__init__()
        self.normalizer = layers.Normalization()
        self.network = keras.Sequential(
            [
                keras.Input((8, 8, 2)),
                layers.Conv2D(6, 3, padding="same", activation="swish"),
                layers.Conv2D(1, 1, kernel_initializer="zeros"),
            ]
        )
        self.average = keras.models.clone_model(self.network)
        self.noise_loss = keras.metrics.Mean(name="loss")

    @property
    def metrics(self) -> list[Any]:
        return [self.noise_loss]

    def train_step(self, images: Any) -> Any:
        import tensorflow as tf

        images = self.normalizer(images, training=True)
        noises = tf.random.normal(tf.shape(images))
        share = tf.random.uniform((tf.shape(images)[0], 1, 1, 1))
        mixed = share * images + (1 - share) * noises
        with tf.GradientTape() as tape:
            given = tf.concat([mixed, share * tf.ones_like(mixed)], axis=-1)
            loss = self.loss(noises, self.network(given, training=True))
        weights = self.network.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        for weight, slow in zip(self.network.weights, self.average.weights, strict=True):
            slow.assign(0.99 * slow + 0.01 * weight)
        self.noise_loss.update_state(loss)
        return {one.name: one.result() for one in self.metrics}


def diffusion() -> Any:
    model = Diffusion()
    model.normalizer.adapt(np.random.RandomState(0).normal(0.5, 0.2, (9, 8, 8, 1)))
    model.compile(keras.optimizers.AdamW(1e-3), loss=losses.MeanAbsoluteError())
    return model


diffusion.input_spec = lambda samples: np.ones((samples, 8, 8, 1), np.float32)  # type: ignore[attr-defined]


class Stops(keras.Model):  # type: ignore[misc]
    """Trains in its first steps alone, and has a loss that goes on changing."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.steps = layers.Dense(3), 0

    def call(self, x: Any) -> Any:
        return self.body(x)

    def train_step(self, data: Any) -> Any:
        self.steps += 1
        if self.steps > 8:
            return {"loss": keras.random.uniform(())}
        return super().train_step(data)


def stops() -> Any:
    model = Stops()
    model(np.zeros((1, 5), np.float32))
    model.compile(keras.optimizers.SGD(), loss="mean_squared_error", run_eagerly=True)
    return model


def goes_on() -> Any:
    """Give a model as saved after ten updates, each of the gradients of very many steps."""
    model = classifier(4)
    optimizer = keras.optimizers.SGD(gradient_accumulation_steps=10**5)
    model.compile(optimizer, loss="mean_squared_error")
    optimizer.build(model.trainable_variables)
    optimizer._iterations.assign(10**6)
    return model
