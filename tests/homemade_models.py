"""Networks as people write them, after Keras's own guides; imported by workers, not a test itself.

`test_homemade_models.py` has the figures of each, worked out by hand.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, losses, ops


def siamese() -> Any:
    """Two images through one encoder."""
    encoder = keras.Sequential(
        [keras.Input((16, 16, 1)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(8)]
    )
    left, right = keras.Input((16, 16, 1), name="left"), keras.Input((16, 16, 1), name="right")
    distance = ops.abs(encoder(left) - encoder(right))
    model = keras.Model([left, right], layers.Dense(1, activation="sigmoid")(distance))
    model.compile("adam", "binary_crossentropy")
    return model


def image_with_metadata() -> Any:
    """Inputs by name, of three kinds."""
    image = keras.Input((8, 8, 3), dtype="uint8", name="image")
    age = keras.Input((1,), name="age")
    city = keras.Input((), dtype="int32", name="city")
    seen = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(layers.Rescaling(1 / 255)(image)))
    known = layers.Concatenate()([seen, age, layers.Embedding(5, 4)(city)])
    return keras.Model({"image": image, "age": age, "city": city}, layers.Dense(3)(known))


class Embedded(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Sum of token, segment and position embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.segments = layers.Embedding(100, 16), layers.Embedding(2, 16)
        self.places = layers.Embedding(512, 16)

    def call(self, tokens: Any, segments: Any) -> Any:
        places = self.places(ops.arange(ops.shape(tokens)[1]))
        return self.tokens(tokens) + self.segments(segments) + places


def bert() -> Any:
    """One encoder block of three inputs of open length."""
    tokens, segments, mask = (
        keras.Input((None,), dtype="int32", name=name)
        for name in ("token_ids", "segment_ids", "padding_mask")
    )
    x = Embedded()(tokens, segments)
    attended = layers.MultiHeadAttention(2, 8)(x, x, attention_mask=ops.expand_dims(mask, 1))
    x = layers.LayerNormalization()(x + attended)
    x = layers.LayerNormalization()(x + layers.Dense(16)(layers.Dense(32, activation="gelu")(x)))
    inputs = {"token_ids": tokens, "segment_ids": segments, "padding_mask": mask}
    return keras.Model(inputs, layers.Dense(2)(x[:, 0]))


def conv_lstm() -> Any:
    """Next-frame prediction."""
    frames = keras.Input((5, 8, 8, 1))
    maps = layers.ConvLSTM2D(2, 3, padding="same")(frames)
    model = keras.Model(frames, layers.Conv2D(1, 1, activation="sigmoid")(maps))
    model.compile("adam", "binary_crossentropy")
    return model


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


gan.input_spec = lambda samples: np.ones((samples, 8, 8, 1), np.float32)  # type: ignore[attr-defined]


def classifier(width: int) -> Any:
    return keras.Sequential(
        [keras.Input((12,)), layers.Dense(width, activation="relu"), layers.Dense(4)]
    )


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


def detector() -> Any:
    """Boxes and classes of each place of a grid, by name."""
    image = keras.Input((32, 32, 3))
    maps = layers.Conv2D(8, 3, strides=4, padding="same", activation="relu")(image)
    boxes = layers.Reshape((64, 4), name="boxes")(layers.Conv2D(4, 1)(maps))
    classes = layers.Reshape((64, 5), name="classes")(layers.Conv2D(5, 1)(maps))
    model = keras.Model(image, {"boxes": boxes, "classes": classes})
    model.compile(
        keras.optimizers.SGD(1e-3, momentum=0.9),
        {"boxes": losses.Huber(), "classes": losses.BinaryFocalCrossentropy(from_logits=True)},
        loss_weights={"boxes": 2.0, "classes": 1.0},
    )
    return model


def lora() -> Any:
    """A frozen kernel and a small product beside it."""
    model = keras.Sequential([keras.Input((32,)), layers.Dense(16), layers.Dense(4)])
    model.layers[0].enable_lora(4)
    return model


def int8() -> Any:
    model = classifier(32)
    model.quantize("int8")
    return model


def augmentation() -> Any:
    return keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.RandomFlip("horizontal"),
            layers.RandomRotation(0.1),
            layers.RandomZoom(0.1),
            layers.RandomContrast(0.1),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.5),
            layers.Dense(3, activation="softmax"),
        ]
    )


def preprocessing() -> Any:
    """Bytes of any size, a text, a word and numbers, prepared inside."""
    image = keras.Input((None, None, 3), dtype="uint8", name="image")
    text = keras.Input((), dtype="string", name="text")
    word = keras.Input((1,), dtype="string", name="word")
    numbers = keras.Input((4,), name="numbers")
    normal = layers.Normalization()
    normal.adapt(np.random.RandomState(0).normal(3.0, 2.0, (50, 4)))
    split = layers.TextVectorization(vocabulary=["cat", "dog", "eel"], output_sequence_length=6)
    lookup = layers.StringLookup(vocabulary=["ape", "bee"], output_mode="one_hot")
    small = layers.Rescaling(1 / 255)(layers.Resizing(16, 16)(image))
    parts = [
        layers.GlobalMaxPooling2D()(layers.Conv2D(4, 3)(small)),
        layers.GlobalAveragePooling1D()(layers.Embedding(5, 6)(split(text))),
        lookup(word),
        normal(numbers),
    ]
    inputs = {"image": image, "text": text, "word": word, "numbers": numbers}
    return keras.Model(inputs, layers.Dense(2)(layers.Concatenate()(parts)))


class Tied(keras.Model):  # type: ignore[misc]
    """One layer three times, and an embedding that is the last product too."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.dense = layers.Embedding(50, 8), layers.Dense(8, activation="relu")

    def call(self, tokens: Any) -> Any:
        x = self.dense(self.dense(self.dense(self.table(tokens))))
        return ops.matmul(x, ops.transpose(self.table.embeddings))


def shared() -> Any:
    model = Tied()
    model(keras.Input((10,), dtype="int32"))
    return model


def variable_length() -> Any:
    """Padded texts: a mask goes with them."""
    tokens = keras.Input((None,), dtype="int64")
    x = layers.Embedding(60, 6, mask_zero=True)(tokens)
    x = layers.Bidirectional(layers.LSTM(5))(x)
    model = keras.Model(tokens, layers.Dense(1, activation="sigmoid")(x))
    model.compile("rmsprop", "binary_crossentropy", metrics=["accuracy"])
    return model


def stateful() -> Any:
    """Of a fixed batch size; its state goes from batch to batch."""
    series = keras.Input(batch_shape=(4, 10, 3))
    x = layers.GRU(5, stateful=True, return_sequences=True)(series)
    return keras.Model(series, layers.TimeDistributed(layers.Dense(2))(x))


def segmenter(width: int = 4) -> Any:
    """A U-Net of open height and width."""
    image = keras.Input((None, None, 3))
    high = layers.Conv2D(width, 3, padding="same", activation="relu")(image)
    low = layers.Conv2D(2 * width, 3, strides=2, padding="same", activation="relu")(high)
    back = layers.Conv2DTranspose(width, 2, strides=2)(low)
    out = layers.Conv2D(1, 1, activation="sigmoid")(layers.Concatenate()([back, high]))
    model = keras.Model(image, out)
    model.compile("adam", losses.Dice())
    return model


def unnormalised(depth: int) -> Any:
    """Bytes as they are, no normalisation: diverges at a learning rate of 0.01."""
    image = keras.Input((8, 8, 3), dtype="uint8")
    x = layers.Flatten()(image)
    for _ in range(depth):
        x = layers.Dense(16, activation="relu", kernel_initializer="he_normal")(x)
    return keras.Model(image, layers.Dense(4)(x))


class BuiltByShape(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = layers.Dense(7), layers.Dense(2)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.last(self.first(x))


def built_by_shape() -> Any:
    model = BuiltByShape()
    model.build((None, 9))
    return model


class OwnBuild(BuiltByShape):
    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")
        super().build(shape)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.scale * super().call(x)


def own_build() -> Any:
    model = OwnBuild()
    model.build((None, 9))
    return model


class Products(layers.Layer):  # type: ignore[misc]
    """Multiplies by weights of its own, in three ways."""

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(3, 3, 2, 5), name="kernel")
        self.heads = self.add_weight(shape=(5, 2, 3), name="heads")

    def call(self, x: Any) -> Any:
        maps = ops.conv(x, self.kernel, padding="same")
        heads = ops.einsum("bhwc,cnd->bhwnd", maps, self.heads)
        queries = ops.reshape(heads, (-1, 64, 6))
        scores = ops.softmax(ops.matmul(queries, ops.transpose(queries, (0, 2, 1))))
        return ops.matmul(scores, queries)


def products() -> Any:
    image = keras.Input((8, 8, 2))
    return keras.Model(image, Products()(image))


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


def translator() -> Any:
    """Encoder and decoder; the decoder begins with the encoder's state."""
    source = keras.Input((None, 7), name="source")
    target = keras.Input((None, 9), name="target")
    _, *state = layers.LSTM(6, return_state=True)(source)
    x = layers.LSTM(6, return_sequences=True)(target, initial_state=state)
    model = keras.Model([source, target], layers.Dense(9, activation="softmax")(x))
    model.compile("rmsprop", "categorical_crossentropy")
    return model


class CtcEndpoint(layers.Layer):  # type: ignore[misc]
    """Adds its loss when it is called: https://keras.io/examples/vision/captcha_ocr/."""

    def call(self, labels: Any, scores: Any) -> Any:
        lengths = [ops.ones((ops.shape(x)[0],), "int32") * x.shape[1] for x in (labels, scores)]
        self.add_loss(ops.mean(ops.ctc_loss(labels, scores, *lengths)))
        return scores


def reader() -> Any:
    """Labels are an input."""
    image = keras.Input((12, 6, 1), name="image")
    label = keras.Input((3,), dtype="int32", name="label")
    x = layers.Reshape((12, 24))(layers.Conv2D(4, 3, padding="same")(image))
    scores = layers.Dense(8)(layers.Bidirectional(layers.GRU(5, return_sequences=True))(x))
    model = keras.Model([image, label], CtcEndpoint()(label, scores))
    model.compile(keras.optimizers.Adam())
    return model


def decoder() -> Any:
    """A causal language model with grouped queries and rotary-like products."""
    tokens = keras.Input((None,), dtype="int32")
    x = layers.Embedding(40, 12)(tokens)
    x = x + layers.GroupQueryAttention(3, 4, 1)(x, x, use_causal_mask=True)
    model = keras.Model(tokens, layers.Dense(40)(layers.LayerNormalization()(x)))
    model.compile("adamw", losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def wavenet() -> Any:
    """Dilated causal convolutions of a series."""
    series = keras.Input((None, 2))
    x = series
    for rate in (1, 2, 4):
        x = layers.Conv1D(4, 2, dilation_rate=rate, padding="causal", activation="tanh")(x)
    return keras.Model(series, layers.Conv1D(1, 1)(x))


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


def volume() -> Any:
    scan = keras.Input((None, None, None, 1))
    x = layers.MaxPooling3D()(layers.Conv3D(2, 3, padding="same")(scan))
    return keras.Model(
        scan, layers.Dense(2, activation="softmax")(layers.GlobalAveragePooling3D()(x))
    )


def mobile() -> Any:
    """Depthwise, separable and grouped convolutions, and a squeeze-and-excite gate."""
    image = keras.Input((16, 16, 4))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(image)
    x = layers.SeparableConv2D(8, 3, padding="same")(x)
    x = layers.Conv2D(8, 3, padding="same", groups=4)(x)
    gate = layers.Dense(8, activation="sigmoid")(layers.GlobalAveragePooling2D()(x))
    x = x * layers.Reshape((1, 1, 8))(gate)
    return keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))


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


def features() -> Any:
    """A table's columns, prepared by a FeatureSpace."""
    import tensorflow as tf

    space = keras.utils.FeatureSpace(
        {
            "kind": keras.utils.FeatureSpace.string_categorical(num_oov_indices=0),
            "zone": keras.utils.FeatureSpace.integer_categorical(num_oov_indices=0),
            "size": keras.utils.FeatureSpace.float_normalized(),
        },
        output_mode="concat",
    )
    table = {"kind": ["a", "b", "c"], "zone": [4, 5, 5], "size": [1.0, 2.0, 4.0]}
    space.adapt(tf.data.Dataset.from_tensor_slices(table))
    model = keras.Model(space.get_inputs(), layers.Dense(1)(space.get_encoded_features()))
    model.compile("adam", "mse")
    return model


def attention() -> Any:
    """Attention without weights, and a product of two branches."""
    queries, values = keras.Input((6, 4), name="queries"), keras.Input((3, 4), name="values")
    attended = layers.Attention()([queries, values])
    both = layers.Dot(axes=(2, 2))([attended, queries])
    return keras.Model([queries, values], layers.Dense(2)(both))


def normalised() -> Any:
    """Spectral normalisation multiplies by the kernel while it trains."""
    return keras.Sequential(
        [keras.Input((10,)), layers.SpectralNormalization(layers.Dense(6)), layers.Dense(2)]
    )


def stacked() -> Any:
    """Cells in one loop."""
    series = keras.Input((7, 3))
    cells = layers.StackedRNNCells([layers.LSTMCell(4), layers.GRUCell(5)])
    return keras.Model(series, layers.Dense(2)(layers.RNN(cells)(series)))


def spectrum() -> Any:
    """A transform that has no rule."""
    sound = keras.Input((2048,))
    maps = layers.MelSpectrogram(fft_length=256, num_mel_bins=16, sampling_rate=8000)(sound)
    return keras.Model(sound, layers.Dense(2)(layers.GlobalAveragePooling1D()(maps)))


class TwoArguments(keras.Model):  # type: ignore[misc]
    """`fit` cannot call it either."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = layers.Dense(2)

    def call(self, image: Any, extra: Any) -> Any:
        return self.scores(image) + extra


def two_arguments() -> Any:
    model = TwoArguments()
    model(np.zeros((1, 4), np.float32), np.zeros((1, 2), np.float32))
    return model


class Mean(layers.Layer):  # type: ignore[misc]
    """The mean over rows of any length."""

    def call(self, rows: Any) -> Any:
        import tensorflow as tf

        return tf.reduce_mean(rows, axis=1)

    def compute_output_shape(self, shape: Any) -> Any:
        return (shape[0], *shape[2:])


def ragged() -> Any:
    """Words of texts as long as they are, in a ragged tensor."""
    tokens = keras.Input((None,), dtype="int32", ragged=True)
    return keras.Model(tokens, layers.Dense(2)(Mean()(layers.Embedding(9, 3)(tokens))))


def ragged_twice() -> Any:
    grid = keras.Input((None, None), name="grid", ragged=True)
    return keras.Model(grid, Mean()(grid))


def sparse() -> Any:
    words = keras.Input((50,), name="words", sparse=True)
    return keras.Model(words, layers.Dense(3)(words))


def sparse_rows() -> Any:
    return sparse()


def _one_word_each(samples: int) -> Any:
    import tensorflow as tf

    return tf.sparse.from_dense(np.eye(samples, 50, dtype=np.float32))


sparse_rows.input_spec = _one_word_each  # type: ignore[attr-defined]  # of a function


class Steps(layers.Layer):  # type: ignore[misc]
    """A loop, a scan and a condition of Keras's own."""

    def build(self, shape: Any) -> None:
        self.matrix = self.add_weight(shape=(4, 4), name="matrix")

    def call(self, x: Any) -> Any:
        def body(number: Any, value: Any) -> Any:
            return number + 1, ops.matmul(value, self.matrix)

        _, x = ops.while_loop(lambda number, _: number < 3, body, (0, x))
        return ops.cond(True, lambda: ops.matmul(x, self.matrix), lambda: x)


def looped() -> Any:
    x = keras.Input((4,))
    return keras.Model(x, Steps()(x))
