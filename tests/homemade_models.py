"""Networks as people write them, after Keras's own guides; imported by workers, not a test itself.

`test_homemade_models.py` has the figures of each, worked out by hand.
"""

from __future__ import annotations

import functools
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


def classifier(width: int) -> Any:
    return keras.Sequential(
        [keras.Input((12,)), layers.Dense(width, activation="relu"), layers.Dense(4)]
    )


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


def int4() -> Any:
    model = classifier(32)
    model.quantize("int4")
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


def convolved() -> Any:
    """Dilated, strided, grouped and transposed convolutions, the last larger than its map."""
    image = keras.Input((10, 10, 2))
    x = layers.Conv2D(4, 3, padding="same", dilation_rate=3)(image)
    x = layers.DepthwiseConv2D(3, padding="same", dilation_rate=2)(x)
    x = layers.Conv2D(4, 3, padding="same", strides=2, groups=2)(x)
    x = layers.Conv2D(4, 3, padding="same", dilation_rate=2)(x)
    x = layers.Conv2DTranspose(3, 3, padding="same", strides=2)(x)
    x = layers.Conv2D(2, 3, padding="same", strides=5)(x)
    return keras.Model(image, layers.Conv2D(2, 3, padding="same")(x))


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


class EveryKind(keras.Model):  # type: ignore[misc]
    """Gives a word, rows of any length, a sparse matrix and complex numbers, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = layers.Dense(4)

    def call(self, x: Any) -> Any:
        import tensorflow as tf

        scores = self.scores(x)
        return {
            "word": tf.strings.as_string(tf.argmax(scores, axis=-1)),
            "rows": tf.RaggedTensor.from_tensor(scores, padding=0.0),
            "few": tf.sparse.from_dense(tf.nn.relu(scores)),
            "turned": tf.complex(scores, scores),
        }


def every_kind() -> Any:
    model = EveryKind()
    model(np.ones((1, 6), np.float32))
    return model


class Ends(keras.Model):  # type: ignore[misc]
    """What it gives is of the function that it is made with."""

    def __init__(self, end: Any) -> None:
        super().__init__()
        self.scores, self.end = layers.Dense(4), end

    def call(self, x: Any) -> Any:
        return self.end(self.scores(x))


def _ending(end: Any) -> Any:
    import tensorflow as tf

    model = Ends(lambda scores: end(tf, scores))
    model.compile(run_eagerly=True)
    model.build((None, 6))
    return model


def finds_none() -> Any:
    """As a detector whose scores are all low."""
    model = _ending(lambda tf, scores: tf.boolean_mask(scores, scores[:, 0] > 1e9))
    model.run_eagerly = False
    return model


def in_numpy() -> Any:
    """Its last part is no operation of TensorFlow."""
    return _ending(lambda tf, scores: {"best": scores.numpy().argmax(axis=-1)})


def gives_nothing() -> Any:
    return _ending(lambda tf, scores: None)


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


def nested_outputs() -> Any:
    """Losses in the structure of the outputs: by the targets, with an argument, and plain."""
    x = keras.Input((12,))
    outputs = {
        "head": {
            "kind": layers.Dense(3, activation="softmax", name="kind")(x),
            "flag": layers.Dense(1, activation="sigmoid", name="flag")(x),
        },
        "size": layers.Dense(1, name="size")(x),
    }
    smooth = functools.partial(losses.binary_crossentropy, label_smoothing=0.1)
    model = keras.Model(x, outputs)
    model.compile("sgd", {"head": {"kind": "crossentropy", "flag": smooth}, "size": "mae"})
    return model


def left_as_it_is() -> Any:
    """PyTorch's compiler leaves its convolution out, as its code says."""
    import torch

    class Aside(layers.Conv2D):  # type: ignore[misc]
        call = torch.compiler.disable(layers.Conv2D.call)

    return keras.Sequential(
        [keras.Input((8, 8, 3)), Aside(4, 3), layers.Flatten(), layers.Dense(3)]
    )


def dropped() -> Any:
    return keras.Sequential([keras.Input((12,)), layers.Dropout(0.5), layers.Dense(3)])
