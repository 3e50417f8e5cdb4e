"""The synthetic batch of a case, and losses by name with the targets for each.

The batch is in host memory, seeded, and the same for every backend.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from convmark_zoo.keras_api import keras

from convmark.worker.failure import CaseFailure
from convmark.worker.inputs import Inputs, flat

Shape = Sequence[Any]
"""Whole numbers, but for the batch axis of an output."""
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Batch:
    """Images and what a model is trained on with them."""

    images: Any
    """What the model is called on: an array (batch, *sample shape), or a structure of several."""
    targets: tuple[npt.NDArray[Any], ...]
    """One array of classes, int64 (batch,); else an array of each output's shape, float32."""
    classes: bool
    """Whether the loss is the cross-entropy of classes; else it is the squared error."""


POOL_BATCHES = 4
POOL_BYTES = 1 << 28


def pool_batches(inputs: Inputs | Shape, batch_size: int) -> int:
    """Return how many batches a feed goes round: four, fewer where they were over 256 MiB."""
    batch_bytes = max(1, batch_size * Inputs.of(inputs).sample_bytes)
    return max(1, min(POOL_BATCHES, POOL_BYTES // batch_bytes))


def images(inputs: Inputs | Shape, batch_size: int, seed: int) -> Any:
    """Return the inputs alone: the same that `training_batch` begins with."""
    return Inputs.of(inputs).batch(batch_size, seed)


def training_batch(
    inputs: Inputs | Shape, output_shapes: Sequence[Shape], batch_size: int, seed: int
) -> Batch:
    """Return a batch for a model of these outputs: scores of classes, or anything else.

    Args:
        inputs: what the model takes, or the shape of one sample of floats.
        output_shapes: with the batch axis, whose size does not count.
    """
    generator = np.random.RandomState(seed)
    pictures = Inputs.of(inputs).batch(batch_size, seed, generator)
    if is_classes(output_shapes):
        classes = generator.randint(0, output_shapes[0][1], batch_size).astype(np.int64)
        return Batch(pictures, (classes,), classes=True)
    targets = [
        generator.standard_normal((batch_size, *shape[1:])).astype(np.float32)
        for shape in output_shapes
    ]
    return Batch(pictures, tuple(targets), classes=False)


def is_classes(output_shapes: Sequence[Shape]) -> bool:
    """Whether a model of these outputs, batch axis included, gives scores of classes."""
    first = output_shapes[0] if len(output_shapes) == 1 else ()
    return len(first) == 2 and (first[1] or 0) > 1


def square_matrices(size: int) -> tuple[Float32, Float32]:
    """Return two matrices of small values, so that a product of them is finite in float16."""
    row = np.linspace(-1, 1, size, dtype=np.float32) / np.sqrt(np.float32(size))
    matrix = np.add.outer(row, row)
    return matrix, matrix.T.copy()


def as_convolution(left: Float32, right: Float32) -> tuple[Float32, Float32]:
    """Return images and a kernel whose convolution is the product of two matrices."""
    side = round(len(left) ** 0.5)
    kernel = np.zeros((3, 3, *right.shape), np.float32)
    kernel[1, 1] = right
    return left.reshape(1, side, side, -1), kernel


Sample = tuple[int, ...]
Generator = np.random.RandomState


@dataclass(frozen=True)
class Targets:
    """Makes the targets of one output."""

    make: Callable[[int, Sample, Generator], Any]
    sample: Sample
    """The output's shape without the batch axis."""

    def __call__(self, count: int, generator: Generator) -> Any:
        return self.make(count, self.sample, generator)


def by_output(model: Any, losses: Any, structure: Any, count: int) -> list[Any]:
    """Return the loss of each output that a model was compiled with, None of one that has none."""
    if isinstance(losses, dict) and not isinstance(structure, dict):
        losses = [losses.get(name) for name in getattr(model, "output_names", [])]
    found = [*_of_each(losses, structure), *[None] * count]
    return found[:count]  # Keras says what does not fit


def _of_each(losses: Any, structure: Any) -> Iterator[Any]:
    """Yield a loss for each output; several that one output has begin with the one that tells."""
    if isinstance(losses, dict) and isinstance(structure, dict):
        for key in sorted(structure):
            yield from _of_each(losses.get(key), structure[key])
    elif not isinstance(losses, (list, tuple)):
        yield from (losses for _ in flat(structure))
    elif isinstance(structure, (list, tuple)) and len(structure) == len(losses):
        for pair in zip(losses, structure, strict=True):
            yield from _of_each(*pair)
    else:
        yield from losses


def targets_of(loss: Any, sample: Sample, tensor: Callable[[Any], Any]) -> Targets:
    """Return the targets that a loss compares an output of this shape with.

    A loss of the user's own is tried on three samples.

    Raises:
        CaseFailure: a loss of the user's own takes none that are known.
    """
    name = loss_name(loss)
    if _is_by_targets(loss):
        return Targets(_bits if sample[-1:] in ((), (1,)) else class_numbers, sample)
    if is_from_keras(_function(loss)):
        return Targets(_TARGETS.get(name.removesuffix("_loss"), real_numbers), sample)
    for make in (_one_hot, real_numbers, class_numbers) if sample else (real_numbers,):
        targets = Targets(make, sample)
        if _takes(loss, targets, tensor):
            return targets
    raise CaseFailure(
        f"no targets are known for its own loss {name}: targets of the output's shape "
        f"{sample} and integer labels both fail; give its builder a target_spec, or "
        "compile it with a loss of keras.losses"
    )


def _takes(loss: Callable[[Any, Any], Any], targets: Targets, tensor: Callable[..., Any]) -> bool:
    scores = np.full((3, *targets.sample), 0.5, np.float32)
    try:
        value = loss(tensor(targets(3, Generator(0))), tensor(scores))
    except Exception:  # a user's loss may raise anything
        return False
    return len(getattr(value, "shape", targets.sample)) <= len(targets.sample)


def class_numbers(count: int, sample: Sample, generator: Generator) -> Any:
    """Numbers of classes, one for each place of the output, whose last axis has their scores."""
    return generator.randint(0, max(2, sample[-1]), (count, *sample[:-1])).astype(np.int64)


def real_numbers(count: int, sample: Sample, generator: Generator) -> Any:
    """Return float32 values of a standard normal, shape (count, *sample)."""
    return generator.standard_normal((count, *sample)).astype(np.float32)


def _one_hot(count: int, sample: Sample, generator: Generator) -> Any:
    numbers = generator.randint(0, sample[-1], (count, *sample[:-1]))
    return np.eye(sample[-1], dtype=np.float32)[numbers]


def _bits(count: int, sample: Sample, generator: Generator) -> Any:
    return generator.randint(0, 2, (count, *sample)).astype(np.float32)


def _shares(count: int, sample: Sample, generator: Generator) -> Any:
    return generator.random_sample((count, *sample)).astype(np.float32)


def _labels(count: int, sample: Sample, generator: Generator) -> Any:
    """Texts of half the output's length; class 0 is CTC's blank."""
    length = max(1, sample[0] // 2)
    return generator.randint(1, max(2, sample[-1]), (count, length)).astype(np.int32)


_TARGETS = {
    "sparse_categorical_crossentropy": class_numbers,
    "categorical_generalized_cross_entropy": class_numbers,
    "circle": class_numbers,
    "ctc": _labels,
    "categorical_crossentropy": _one_hot,
    "categorical_focal_crossentropy": _one_hot,
    "categorical_hinge": _one_hot,
    "kl_divergence": _one_hot,
    "binary_crossentropy": _bits,
    "binary_focal_crossentropy": _bits,
    "hinge": _bits,
    "squared_hinge": _bits,
    "dice": _bits,
    "tversky": _bits,
    "poisson": _shares,
    "mean_squared_logarithmic_error": _shares,
}
"""Of Keras's losses; the others compare with real numbers of the output's shape."""


def flat_losses(losses: Any) -> list[Any]:
    return [one for one in flat(losses) if one]


def _is_by_targets(loss: Any) -> bool:
    """Whether Keras takes it for the binary, sparse or categorical one by the targets."""
    return isinstance(loss, str) and loss.lower() in ("crossentropy", "ce")


def loss_name(loss: Any) -> str:
    """Return a loss's name as the functions of `keras.losses` have it."""
    if _is_by_targets(loss):
        return "crossentropy"
    function = _function(loss)
    name = getattr(function, "__name__", None) or type(function).__name__
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    return "kl_divergence" if snake == "kullback_leibler_divergence" else snake


def is_from_keras(thing: Any) -> bool:
    """Whether a class, a function or an instance's class is Keras's or TensorFlow's."""
    module = getattr(thing, "__module__", None) or type(thing).__module__
    return module.partition(".")[0] in ("keras", "tf_keras", "tensorflow")


def _function(loss: Any) -> Any:
    found = keras.losses.get(loss) if isinstance(loss, str) else loss
    found = getattr(found, "fn", found)
    while isinstance(found, functools.partial):
        found = found.func
    return found


def loss_by_name(name: str, last_activation: str) -> Any:
    """Return the loss of that name; of scores where the model's end gives no probabilities.

    Raises:
        CaseFailure: this Keras has none of that name.
    """
    try:
        found = keras.losses.get(name)
    except (TypeError, ValueError):
        raise CaseFailure(
            f"--loss must be a name of keras.losses, such as mean_squared_error, got {name!r}"
        ) from None
    made = getattr(keras.losses, loss_name(found).title().replace("_", ""), None)
    if made is None or "from_logits" not in inspect.signature(made).parameters:
        return found
    return made(from_logits=last_activation not in ("softmax", "sigmoid"))
