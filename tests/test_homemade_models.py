"""Models as people write them: parameters and FLOPs worked out by hand, their own training.

Of each kind one is in `homemade_models.py` or `homemade_training.py`. A few are measured in every
run, all with `-m long`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from workers import measured

from convmark.interpreter import Answer, Interpreter

BATCH = 4

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="a worker needs TensorFlow"
)


class Right(NamedTuple):
    """What is right of one kind, trained on batches of four; products are multiply-adds."""

    parameters: int
    forward: int | None
    training: int | None
    loss: str
    optimizer: str | None = None
    """None: the harness's SGD."""


def usual(
    parameters: int, forward: int, first: int, loss: str, optimizer: str | None = None
) -> Right:
    """Return the figures of a network whose backward pass is twice the forward one.

    Args:
        first: products with the inputs, for which no gradient is needed.
    """
    return Right(parameters, forward, 3 * forward - first, loss, optimizer)


BERT = 128 * 4 * 16 * 16 + 2 * 128 * 128 * 16 + 128 * 2 * 16 * 32  # a block of 128 tokens
LSTM_5 = 128 * 4 * 5 * (6 + 5)
CLASSES, SQUARES = "sparse_categorical_crossentropy", "mean_squared_error"
CRITIC, GENERATOR = 36 * 9 * 4 + 144, 3 * 32 + 16 * 32
GAN = (2 * CRITIC + 2 * (36 * 36 + 2 * 144) + GENERATOR) + (
    2 * CRITIC + GENERATOR + 2 * 16 * 32 + 3 * 32
)
"""The critic learns from two images a sample, then the generator through the critic."""

MEASURED = {
    "siamese": usual(
        *(9 * 4 + 4 + 784 * 8 + 8 + 9, 2 * (196 * 9 * 4 + 784 * 8) + 8, 2 * 196 * 9 * 4),
        *("binary_crossentropy", "Adam"),
    ),
    "image_with_metadata": usual(
        27 * 2 + 2 + 5 * 4 + 7 * 3 + 3, 36 * 27 * 2 + 7 * 3, 36 * 27 * 2, CLASSES
    ),
    "bert": usual(
        (100 + 2 + 512) * 16 + 4 * (256 + 16) + 2 * 32 + 2 * 512 + 32 + 16 + 34,
        *(BERT + 32, 0, CLASSES),
    ),
    "conv_lstm": usual(
        *(9 * 3 * 8 + 8 + 3, 5 * 64 * 9 * 3 * 8 + 128, 5 * 64 * 9 * 8),
        *("binary_crossentropy", "Adam"),
    ),
    "vae": usual(12 * 16 + 16 + 2 * 34 + 48 + 204, 2 * 192 + 3 * 32, 192, "train_step", "Adam"),
    "detector": usual(
        *(27 * 8 + 8 + 36 + 45, 64 * 8 * (27 + 4 + 5), 64 * 27 * 8),
        *("huber + binary_focal_crossentropy", "SGD"),
    ),
    # turned and zoomed: a matrix of 3 x 3 for each place and channel
    "augmentation": Right(
        *(27 * 4 + 4 + 4 * 4 + 15, 196 * 27 * 4 + 12),
        *(2 * 196 * 27 * 4 + 36 + 2 * 9 * 16 * 16 * 3, CLASSES),
    ),
    "preprocessing": usual(
        *(27 * 4 + 4 + 5 * 6 + 9 + 17 * 2 + 2, 196 * 27 * 4 + 34, 196 * 27 * 4, CLASSES),
    ),
    "shared": usual(50 * 8 + 72, 3 * 10 * 64 + 10 * 8 * 50, 0, SQUARES),
    "variable_length": usual(
        *(60 * 6 + 2 * (4 * 5 * 11 + 20) + 11, 2 * LSTM_5 + 10, 0),
        *("binary_crossentropy", "RMSprop"),
    ),
    "stateful": usual(3 * 5 * 8 + 30 + 12, 10 * (3 * 5 * 8 + 10), 10 * 45, SQUARES),
    "segmenter": usual(
        *(112 + 296 + 132 + 9, 224**2 * (27 * 4 + 8) + 112**2 * (72 * 4 + 128)),
        *(224**2 * 27 * 4, "dice", "Adam"),
    ),
    "built_by_shape": usual(9 * 7 + 7 + 16, 63 + 14, 63, CLASSES),
    "own_build": usual(9 * 7 + 7 + 16 + 1, 63 + 14, 63, CLASSES),
    "products": usual(90 + 30, 64 * 90 + 64 * 30 + 2 * 64 * 64 * 6, 64 * 90, SQUARES),
    # two views, whose similarities within the batch of four are multiplied and differentiated
    "contrastive": Right(16 * 6 + 6, 96, 2 * 2 * 96 + 3 * 4 * 6, "train_step", "Adam"),
    "translator": usual(
        *(24 * (7 + 6 + 1) + 24 * (9 + 6 + 1) + 63, 128 * (24 * 13 + 24 * 15 + 54)),
        *(128 * 24 * (7 + 9), "categorical_crossentropy", "RMSprop"),
    ),
    "reader": usual(
        *(40 + 2 * (15 * (24 + 5) + 30) + 88, 72 * 36 + 12 * (2 * 15 * 29 + 80), 72 * 36),
        *("losses added", "Adam"),
    ),
    "decoder": usual(
        *(480 + 2 * (144 + 12) + 2 * (36 + 3) + 24 + 520,),
        *(128 * (2 * 144 + 2 * 36 + 480) + 2 * 4 * 128 * 128 * 3, 0, CLASSES, "AdamW"),
    ),
    # in its order; of a transposed one the positions are those of its input
    "convolved": usual(
        (72 + 4) + (36 + 4) + (72 + 4) + (144 + 4) + (108 + 3) + (54 + 2) + (36 + 2),
        100 * 72 + 100 * 36 + 25 * 72 + 25 * 144 + 25 * 108 + 4 * 54 + 4 * 36,
        *(100 * 72, SQUARES),
    ),
    "wavenet": usual(20 + 36 + 36 + 5, 128 * (16 + 32 + 32 + 4), 128 * 16, SQUARES),
    "two_results": usual(36 + 21, 30 + 18, 30, SQUARES),
    "volume": usual(27 * 2 + 2 + 6, 32**3 * 54 + 4, 32**3 * 54, CLASSES),
    "mobile": usual(
        *(36 + 36 + 40 + 9 * 2 * 8 + 8 + 72 + 18,),
        *(256 * (36 + 36 + 32 + 144) + 64 + 16, 256 * 36, CLASSES),
    ),
    # the student's three passes, and the teacher's one
    "distillation": Right(
        *(13 * 8 + 36 + 13 * 32 + 132, 12 * 8 + 32, 3 * 128 - 96 + 12 * 32 + 128),
        *("compute_loss", "Adam"),
    ),
    "gan": Right(185 + 128 + 33, None, GAN, "train_step", "Adam + Adam"),
    "gan_of_noise": Right(185 + 128 + 33, None, GAN, "train_step", "Adam + Adam"),
    "diffusion": Right(
        *(3 + 2 * (18 * 6 + 6 + 7), None, 2 * 64 * 18 * 6 + 3 * 64 * 6),
        *("mean_absolute_error + train_step", "AdamW"),
    ),
    # the small kernels are multiplied once a batch
    "lora": Right(
        *(
            32 * 16 + 16 + 32 * 4 + 4 * 16 + 68,
            32 * 16 + 64 + 32 * 4 * 16 // 4,
        ),
        *(2 * 32 * 16 + 3 * 64 + 3 * 32 * 4 * 16 // 4, CLASSES),
    ),
    "int8": Right(12 * 32 + 64 + 32 * 4 + 8, None, None, CLASSES),
    # scales and zeros of groups of rows, and the group of each row, beside the biases
    "int4": Right(
        *(12 * 32 + 3 * 32 + 12 + 32 * 4 + 3 * 4 + 32, 12 * 32 + 32 * 4),
        *(12 * 32 + 2 * 32 * 4, CLASSES),  # its biases alone are trained
    ),
    "spectrum": Right(12, None, None, CLASSES),
    "normalised": Right(60 + 6 + 6 + 14, 60 + 12, None, CLASSES),
    "features": usual(7 + 3, 6, 6, SQUARES, "Adam"),
    # no gradient is needed before the last layer's kernel
    "attention": Right(14, 2 * 6 * 3 * 4 + 6 * 6 * 4 + 72, 288 + 2 * 72, SQUARES),
    "stacked": usual(
        *(16 * 8 + 15 * 9 + 30 + 12, 7 * (16 * 7 + 15 * 9) + 10, 7 * 16 * 3, CLASSES),
    ),
    "ragged": usual(9 * 3 + 3 * 2 + 2, 3 * 2, 0, CLASSES),
    "sparse_rows": Right(50 * 3 + 3, None, None, CLASSES),
    "looped": usual(16, 4 * 16, 0, CLASSES),
    "nested_outputs": usual(
        *(5 * 13, 5 * 12, 5 * 12, "crossentropy + binary_crossentropy + mean_absolute_error"),
        "SGD",
    ),
}
NOTES = {
    "gan": "does not have a `call()` method implemented",
    "gan_of_noise": "the model cannot be traced: ",
    "diffusion": "does not have a `call()` method implemented",
    "int8": "of int8 is no floating-point product",
    "spectrum": "RFFT has no rule",
    "sparse_rows": "SparseFillEmptyRows has no rule",
    "normalised": "the branches of sequential_1/spectral_normalization_1/cond count unlike",
}
REFUSED = {
    ("gan", "infer"): "a model without its own call() cannot infer; measure its training",
    ("two_arguments", "infer"): "its call() must take all inputs as one argument, as fit passes "
    "them, but it also needs extra",
    ("unnormalised(depth=9)", "train"): "the loss must be finite, but it is nan at step 10; try a "
    "smaller --learning-rate",
    ("ragged_twice", "infer"): "grid: a ragged input of ?x? needs an input_spec of the "
    "builder; without one its first axis alone can be open",
    ("sparse", "infer"): "words: a sparse input needs an input_spec of the builder",
    ("stops", "train"): "every step must train, ",
}
OWN_TRAINING = {
    *(
        "contrastive",
        "diffusion",
        "distillation",
        "gan",
        "gan_of_noise",
        "goes_on",
        "stops",
        "two_results",
        "vae",
    ),
}
"""Of `homemade_training.py`."""
QUICK = [
    "gan",
    "gan_of_noise",
    "lora",
    "nested_outputs",
    "preprocessing",
    "ragged",
    "reader",
    "stateful",
]
"""Of different mechanisms."""


@pytest.fixture
def interpreter(interpreter_of: Callable[[str], Interpreter]) -> Interpreter:
    return interpreter_of("tensorflow")


def named(name: str) -> str:
    return f"homemade_{'training' if name in OWN_TRAINING else 'models'}:{name}"


def answered(interpreter: Interpreter, name: str, task: str, **more: Any) -> Answer:
    asked = measured(named(name), task=task, batch_size=BATCH, **more)
    return interpreter.answer({**asked, "fed": False})


def is_right(interpreter: Interpreter, name: str, **more: Any) -> None:
    answer = answered(interpreter, name, "train", **more)
    assert (answer.status, answer.message) == ("ok", "")
    right = MEASURED[name]
    sizes, work, first = (answer.event(one) or {} for one in ("counted", "work", "first_step"))
    assert sizes["parameters"] == right.parameters
    assert work["flops_per_sample"] == (right.forward and 2 * right.forward)
    assert work["training_flops_per_sample"] == (right.training and 2 * right.training)
    assert NOTES.get(name, "None") in str(work["flops_note"])
    assert "untracked_parameters" not in (answer.event("read_back") or {})["model"]
    by = "model" if right.optimizer else "harness"
    trained = tuple(first[one] for one in ("training", "optimizer", "loss_name"))
    assert trained == (by, right.optimizer or "SGD", right.loss)


@pytest.mark.parametrize("name", QUICK)
def test_a_model_is_measured_as_worked_out_by_hand(interpreter: Interpreter, name: str) -> None:
    is_right(interpreter, name)


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_every_backend_counts_the_gradients_of_convolutions_alike(
    backend: str, interpreter_of: Callable[[str], Interpreter]
) -> None:
    is_right(interpreter_of(backend), "convolved", backend=backend)


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(MEASURED.keys() - set(QUICK)))
def test_a_kind_of_model_is_measured_as_worked_out_by_hand(
    interpreter: Interpreter, name: str
) -> None:
    is_right(interpreter, name)


@pytest.mark.parametrize(("name", "task"), sorted(REFUSED))
def test_a_model_is_refused_with_the_reason(interpreter: Interpreter, name: str, task: str) -> None:
    answer = answered(interpreter, name, task)
    assert answer.status == "error"
    assert answer.message.startswith(f"{named(name)}: ")
    assert REFUSED[name, task] in answer.message


def test_words_ragged_sparse_and_complex_results_are_results_too(interpreter: Interpreter) -> None:
    answer = answered(interpreter, "every_kind", "infer")
    assert (answer.status, answer.message) == ("ok", "")
    assert (answer.event("work") or {})["flops_per_sample"] == 2 * 6 * 4


@pytest.mark.parametrize(("name", "value"), [("finds_none", 0.0), ("in_numpy", None)])
def test_results_without_values_or_of_numpy_are_results_too(
    interpreter: Interpreter, name: str, value: float | None
) -> None:
    answer = answered(interpreter, name, "infer")
    assert (answer.status, answer.message) == ("ok", "")
    assert value is None or (answer.event("proof") or {})["value"] == value


def test_a_model_that_gives_nothing_is_told_so(interpreter: Interpreter) -> None:
    message = answered(interpreter, "gives_nothing", "infer").message
    assert message.startswith("a model's call() must return tensors, but it returned none")


def test_a_shape_that_a_model_does_not_take_is_named(interpreter: Interpreter) -> None:
    asked = measured("homemade_models:segmenter", batch_size=BATCH)
    answer = interpreter.answer({**asked, "input_shapes": {"": [7, 7, 3]}})
    assert answer.message.startswith("ValueError: Concatenate: Dimension 1 in both shapes must be ")
    assert answer.message.endswith("=7x7x3, try another --input-shape")


def test_a_saved_model_is_not_accused_of_the_updates_that_it_brings(
    interpreter: Interpreter,
) -> None:
    answer = answered(interpreter, "goes_on", "train")
    assert (answer.status, answer.message) == ("ok", "")


def test_a_model_that_diverges_is_measured_at_a_smaller_rate(interpreter: Interpreter) -> None:
    name = "unnormalised(depth=9)"
    answer = answered(interpreter, name, "train", recipe="learning_rate=1e-07")
    assert (answer.status, answer.message) == ("ok", "")
