"""A model trained on the MNIST digits as the lecture does, by Keras's own `fit`, and tested.

Batches of the case's size, SGD at 0.1, sparse categorical cross-entropy, five epochs, validated
after each; deterministic operations, so that a seed gives the same losses again.

A trained model, exported to a runtime and tested there on the digits.

Source:
    the Paris-Saclay deep learning course (m2dsupsdlclass/lectures-labs), its lab on convolutional
    networks.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convmark.core.case import Case
from convmark.worker import host, mnist, runtimes, timing
from convmark.worker.failure import CaseFailure
from convmark.worker.measurement import Builder, Emit, build
from convmark.worker.runtimes.agreement import agreement, check
from convmark.worker.runtimes.engine import Source
from convmark.worker.runtimes.export import RANGE_BATCHES, kept

_LEAST_PROBABILITY = 1e-7
"""As Keras has it in its cross-entropy."""


def tested(
    case: Case, model: Any, digits: mnist.Split, backend: Any, emit: Callable[..., None]
) -> dict[str, float]:
    """Return loss and accuracy of the exported model on the test digits.

    In int8 the ranges of activations are found with training digits. How far the outputs lie from
    the Keras model's is reported; in float32 it is held to its bound.

    Raises:
        CaseFailure: it cannot be exported or loaded, is of another precision, or computes something
            else.
    """
    batches = batches_of(digits.test.images, case.batch_size)
    function = backend.exported_function(model, [batches[0]])
    references = [backend.exported_outputs(function, [one]) for one in batches]
    shown = digits.training.images[: RANGE_BATCHES * case.batch_size]

    def samples() -> Iterator[Sequence[Any]]:
        for one in batches_of(shown, case.batch_size):
            yield [one]

    digest = backend.exported_digest(function, model)
    if case.precision == "int8":
        digest += f" {RANGE_BATCHES} batches of digits"
    _, make = runtimes.imported(case.runtime, case.model)
    path = kept(case, Source(function, model, samples), digest, emit)
    engine = runtimes.loaded(case, make, path)
    emit("loaded", packages=runtimes.versions(case.runtime))
    runtimes.check_stored(case, engine, engine.multiplies_in())
    outputs = [engine.run([one]) for one in batches]
    where = os.path.dirname(path.rstrip("/"))
    found = agreement(outputs, references, f"{case.name}:", where)
    emit("agreement", **found.columns)
    if case.precision == "float32":
        check(found, case.precision, f"{case.name}:", where)
    values = np.concatenate([one for (one,) in outputs])[: len(digits.test.labels)]
    if not np.isfinite(values).all():
        raise CaseFailure(
            f"{case.name}: the export gives NaN or infinite values on the test digits; use another "
            "--precisions"
        )
    return score(values, digits.test.labels, probabilities=backend.is_softmax(model))


def batches_of(images: Any, size: int) -> list[Any]:
    """Return the images in batches of one size, the last filled up with the first images."""
    missing = -len(images) % size
    return np.split(np.concatenate([images, np.resize(images, (missing, *images.shape[1:]))]),
                    (len(images) + missing) // size)  # fmt: skip


def score(values: Any, labels: Any, *, probabilities: bool) -> dict[str, float]:
    """Return the mean cross-entropy and the share of the samples that are classified rightly.

    Args:
        values: (samples, classes), probabilities or scores, all of them finite.
    """
    values = values.astype(np.float64)
    if not probabilities:
        values = np.exp(values - values.max(axis=1, keepdims=True))
        values /= values.sum(axis=1, keepdims=True)
    of_label = values[np.arange(len(labels)), labels]
    return {
        "loss": float(-np.log(np.clip(of_label, _LEAST_PROBABILITY, 1)).mean()),
        "accuracy": float(np.mean(values.argmax(axis=1) == labels)),
    }


LEARNING_RATE = 0.1
ACCURACY_APART = 0.005
"""Of what `evaluate` says and the outputs give: a model that draws random numbers while it infers
gives other outputs."""

Clock = Callable[[], float]


@dataclass(frozen=True)
class Lesson:
    """What the harness asks of one process."""

    path: str
    """File of the digits."""
    seed: int
    """Of the split; the weights' and the order's is set with the framework's."""
    epochs: int
    fraction: float
    """Share of the training and validation samples that is used."""
    exported: Case | None = None
    """Where a runtime takes the test, the case as it was asked for; Keras alone trains."""


def serve(
    case: Case, builder: Builder, request: Mapping[str, Any], backend: Any, emit: Emit
) -> None:
    """Answer a request of the task accuracy."""
    lesson = Lesson(
        path=request["mnist"],
        seed=request["seed"],
        epochs=request["epochs"],
        fraction=request["fraction"],
        exported=Case(**request["exported"]) if "exported" in request else None,
    )
    learn(case, builder, lesson, backend, emit)


def learn(case: Case, builder: Builder, lesson: Lesson, backend: Any, emit: Emit) -> None:
    """Train the case's model, reporting each epoch as an event, and test it.

    Raises:
        CaseFailure: the digits are not as they should be, the model is not for them, or a loss is
            not finite.
    """
    state = host.state_from_now()
    arrays = mnist.read(lesson.path)
    digits = mnist.split(arrays, lesson.seed, lesson.fraction)
    emit(
        "data",
        dataset=mnist.name_of(arrays),
        training_samples=len(digits.training.labels),
        validation_samples=len(digits.validation.labels),
    )
    model = build(case, builder, lesson.seed, backend, emit)
    check_fits(case, model, backend)
    trained_by = compiled_model(case, model, backend)
    pulse = timing.Pulse(lambda phase: emit("progress", phase=phase), time.monotonic)
    watch = callback(EpochWatch, backend.keras)(
        case,
        backend,
        emit,
        pulse,
        lesson.epochs,
        len(digits.training.labels),
        validation_samples=len(digits.validation.labels),
    )
    test_steps = math.ceil(len(digits.test.labels) / case.batch_size)
    test_watch = callback(TestWatch, backend.keras)(pulse, test_steps)
    with backend.limits_lifted():
        fit(model, digits.training, case.batch_size, [watch], lesson.epochs, digits.validation)
        check_count(case, "epochs of training", watch.epochs, lesson.epochs)
        loss, accuracy = model.evaluate(
            digits.test.images,
            digits.test.labels,
            batch_size=case.batch_size,
            verbose=0,
            callbacks=[test_watch],
        )
    check_count(case, "steps of the test", test_watch.steps, test_steps)
    _check(case, float(loss), "in the test")
    _hold_accuracy(case, model, digits.test, float(accuracy), backend)
    training = backend.training_of(model, trained_by)
    scores = {"loss": float(loss), "accuracy": float(accuracy)}
    if lesson.exported is not None:
        emit("progress", phase=f"test by {lesson.exported.runtime}")
        scores = tested(lesson.exported, model, digits, backend, emit)
    emit("tested", **scores, **training)
    emit("state", **state())
    emit("finished")


def _hold_accuracy(case: Case, model: Any, test: mnist.Digits, told: float, backend: Any) -> None:
    """Hold what `evaluate` says to the classes that the model's outputs choose."""
    step = backend.inference_step(model, case.batch_size, 0, False)
    chosen = []
    for images in batches_of(test.images, case.batch_size):
        token = step.run(backend.tensor(images))
        backend.synchronise(token)
        (scores,) = backend.leaves(token[1])
        chosen.append(backend.array(scores).argmax(axis=-1))
    found = float(np.mean(np.concatenate(chosen)[: len(test.labels)] == test.labels))
    if not abs(found - told) <= ACCURACY_APART:
        raise CaseFailure(
            f"{case.model}: the accuracy must be the share of test digits that the outputs "
            f"classify correctly, {found:.4f}, but evaluate returns {told:.4f}; do not replace "
            "evaluate, test_step or the metric accuracy in the model's code"
        )


def check_count(case: Case, what: str, came: int, asked: int) -> None:
    """Refuse a call of Keras that did less, or more, than it was asked for."""
    if came != asked:
        raise CaseFailure(
            f"{case.model}: {what}: asked for {asked}, got {came}; do not change fit, "
            "evaluate, predict, their limits or `stop_training` in the model's code"
        )


def check_fits(case: Case, model: Any, backend: Any) -> None:
    """Refuse a model that does not take a digit and give a score for each of ten classes."""
    takes = tuple(backend.sample_shape(model))
    made = backend.outputs_of(model)  # further outputs in training are its own affair
    shapes = backend.output_shapes(model) if made is None else map(_shape, backend.leaves(made))
    gives = [tuple(shape)[1:] for shape in shapes]
    if takes != mnist.SAMPLE_SHAPE or gives != [(mnist.CLASSES,)]:
        raise CaseFailure(
            f"{case.model}: the task accuracy needs a model from "
            f"{_by(mnist.SAMPLE_SHAPE)} to {mnist.CLASSES} classes, got one from "
            f"{_by(takes)} to {' and '.join(_by(shape) for shape in gives)}"
        )


def _shape(value: Any) -> tuple[Any, ...]:
    return tuple(value.shape)


def _by(shape: tuple[Any, ...]) -> str:
    return "x".join(str(axis) for axis in shape) or "one number"


def compiled_model(case: Case, model: Any, backend: Any) -> str:
    """Compile the model as the lecture does, and return whose its training is.

    One that was compiled keeps its optimizer and loss, and is the model's own.

    Raises:
        CaseFailure: that loss takes no numbers of classes, which is what the digits have.
    """
    keras = backend.keras
    own = backend.own_compile(model)
    if own and not backend.takes_classes(own[1]):
        raise CaseFailure(
            f"{case.model}: the task accuracy has integer labels, which its own loss does "
            "not accept; compile it with sparse_categorical_crossentropy"
        )
    optimizer, loss = own or (
        keras.optimizers.SGD(LEARNING_RATE),
        keras.losses.SparseCategoricalCrossentropy(from_logits=not backend.is_softmax(model)),
    )
    model.compile(
        optimizer=optimizer, loss=loss, metrics=["accuracy"], jit_compile=case.jit == "on"
    )
    return "model" if own else "harness"


def fit(
    model: Any,
    digits: mnist.Digits,
    batch_size: int,
    callbacks: list[Any],
    epochs: int = 1,
    validation: mnist.Digits | None = None,
) -> None:
    """Train the compiled model for so many epochs, in an order that each epoch shuffles anew."""
    model.fit(
        digits.images,
        digits.labels,
        batch_size=batch_size,
        epochs=epochs,
        validation_data=(validation.images, validation.labels) if validation else None,
        callbacks=callbacks,
        verbose=0,
    )


def callback(kind: type, keras: Any) -> Any:
    """Return the class as one of Keras's callbacks."""
    return type(kind.__name__, (kind, keras.callbacks.Callback), {})


class EpochWatch:
    """The callback that reports epoch and step, and each epoch's seconds, loss, accuracy.

    An epoch's training seconds end when the device has finished its last step. Its `epochs` are
    those that came to their end; an epoch of other steps than its samples make is refused.
    """

    model: Any

    def __init__(
        self,
        case: Case,
        backend: Any,
        emit: Emit,
        pulse: timing.Pulse,
        epochs: int,
        samples: int,
        clock: Clock = time.perf_counter,
        *,
        validation_samples: int = 0,
    ) -> None:
        super().__init__()
        self._supports_tf_logs = True  # on Keras 2, so that no step waits for its logs
        self._case, self._backend, self._emit = case, backend, emit
        self._pulse, self._clock = pulse, clock
        self._epochs, self._samples = epochs, samples
        self._steps = math.ceil(samples / case.batch_size)
        self._validation_steps = math.ceil(validation_samples / case.batch_size)
        self.epoch, self.began_s, self.trained_s = 0, 0.0, 0.0
        self.epochs = self.steps = self.validation_steps = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch, self.began_s, self.trained_s = epoch + 1, self._clock(), 0.0
        self.steps = self.validation_steps = 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        # counted here: one that hooks a batch's end has Keras 3 wait for every step
        self.steps = _counted(self.model, batch, self._steps)
        self._pulse.beat(f"epoch {self.epoch}/{self._epochs} step {batch + 1}/{self._steps}")

    def on_test_begin(self, logs: Any = None) -> None:
        self._trained()

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.validation_steps = _counted(self.model, batch, self._validation_steps)
        self._pulse.beat(f"epoch {self.epoch}/{self._epochs} validation")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Check that all steps were taken and the losses are finite; report the epoch."""
        if not self.trained_s:  # no validation
            self._trained()
        self.epochs += 1
        for what, came, asked in (
            ("training", self.steps, self._steps),
            ("validation", self.validation_steps, self._validation_steps),
        ):
            check_count(self._case, f"{what} steps of epoch {self.epoch}", came, asked)
        found = {name: float(value) for name, value in (logs or {}).items()}
        for name in ("loss", "val_loss"):
            _check(self._case, found.get(name, 0.0), f"in epoch {self.epoch}")
        accuracy = found.get("val_accuracy", found["accuracy"])
        self._emit(
            "epoch",
            phase=f"epoch {self.epoch}/{self._epochs} ended, validation accuracy {accuracy:.4f}",
            epoch=self.epoch,
            steps=self.steps,
            samples=self._samples,
            epoch_time_s=self.trained_s - self.began_s,
            validation_time_s=self._clock() - self.trained_s,
            loss=found["loss"],
            accuracy=found["accuracy"],
            validation_loss=found.get("val_loss"),
            validation_accuracy=found.get("val_accuracy"),
        )

    def _trained(self) -> None:
        self._backend.wait_for(self.model.trainable_variables[-1])
        self.trained_s = self._clock()


class TestWatch:
    """The callback that counts the steps of the test."""

    model: Any

    def __init__(self, pulse: timing.Pulse, steps: int) -> None:
        super().__init__()
        self._pulse, self._steps = pulse, steps
        self.steps = 0

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.steps = _counted(self.model, batch, self._steps)
        self._pulse.beat("test")


def _counted(model: Any, batch: int, asked: int) -> int:
    """Return the steps up to the end of that which begins with this batch.

    A model's own `compile` may have Keras 3 run several as one, of which the last may be fewer.
    """
    at_once = int(getattr(model, "steps_per_execution", 1))
    return batch + 1 if at_once == 1 else min(batch + at_once, asked)


def _check(case: Case, loss: float, when: str) -> None:
    if not math.isfinite(loss):
        raise CaseFailure(f"{case.model}: the loss must be finite, but it is {loss} {when}")
