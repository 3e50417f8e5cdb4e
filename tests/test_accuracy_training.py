"""Training on digits by a real worker: the same seed the same losses, and what is refused."""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import digits
import pytest
from workers import BUILDERS, environ

from convmark.core.case import Case
from convmark.core.runtimes import EXPORTS, RUNTIMES
from convmark.interpreter import Answer, Interpreter

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="a worker needs TensorFlow"
)

Train = Callable[..., Answer]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module")
def train_anew(folder: Path, warm: None) -> Iterator[Train]:
    """Trains on a hundredth of digits that are easily told, in a fresh process."""
    made = digits.write(folder / "mnist.npz")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(BUILDERS)
        exports = {EXPORTS: str(folder / "exports")}
        variables = environ(folder, CONVMARK_TEST_FOLDER=str(folder), **exports)
        with Interpreter(environ=variables) as interpreter:
            yield functools.partial(trained, interpreter, made)


@pytest.fixture(scope="module")
def train(train_anew: Train) -> Train:
    """The same, once for all that ask for it alike."""
    return functools.cache(train_anew)


def trained(
    interpreter: Interpreter,
    file: Path,
    model: str,
    seed: int = 0,
    runtime: str = "keras",
    precision: str = "float32",
    **changes: Any,
) -> Answer:
    case = Case(
        model=model,
        task="accuracy",
        batch_size=64,
        threads="2",
        runtime=runtime,
        precision=precision,
    )
    request = {
        "kind": "accuracy",
        "case": case.as_fields(),
        "seed": seed,
        "mnist": str(file),
        "epochs": 2,
        "fraction": 0.01,
    }
    return interpreter.answer({**request, **changes})


def figures(answer: Answer) -> list[float]:
    """Every loss and accuracy that the worker tells, in order."""
    assert (answer.status, answer.message) == ("ok", "")
    names = ("loss", "accuracy", "validation_loss", "validation_accuracy")
    return [event[name] for event in answer.events for name in names if name in event]


def test_the_same_seed_gives_the_same_losses_and_another_seed_others(
    train: Train, train_anew: Train
) -> None:
    first, again = figures(train("lenet5")), figures(train_anew("lenet5"))
    other = figures(train("lenet5", 1))
    assert len(first) == 2 * 4 + 2
    assert first == again
    assert first[-2] != other[-2]


@pytest.mark.parametrize(("runtime", "precision"), [("litert", "int8"), ("savedmodel", "float32")])
def test_a_runtime_tests_the_weights_that_keras_has_trained(
    runtime: str, precision: str, train: Train
) -> None:
    package = RUNTIMES[runtime].package
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    answer, keras = (
        train("lenet5", fraction=0.04, **more)
        for more in ({"runtime": runtime, "precision": precision}, {})
    )
    assert figures(answer)[:-2] == figures(keras)[:-2]
    tested, of_keras, compared, told = (
        one or {}
        for one in (
            answer.event("tested"),
            keras.event("tested"),
            answer.event("agreement"),
            answer.event("read_back"),
        )
    )
    tolerance = 1e-6 if precision == "float32" else 0.05
    assert tested["accuracy"] == pytest.approx(of_keras["accuracy"], abs=tolerance)
    assert tested["loss"] == pytest.approx(of_keras["loss"], abs=10 * tolerance)
    assert compared["top1_agreement"] > 1 - tolerance
    assert told["precision"] == precision


def test_each_epoch_is_told_with_its_seconds_and_the_model_learns(train: Train) -> None:
    answer = train("lenet5", epochs=5, fraction=0.04)
    epochs = [event for event in answer.events if event["event"] == "epoch"]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3, 4, 5]
    assert {(epoch["samples"], epoch["steps"]) for epoch in epochs} == {
        (2000, math.ceil(2000 / 64))
    }
    assert all(epoch["epoch_time_s"] > 0 and epoch["validation_time_s"] > 0 for epoch in epochs)
    assert epochs[-1]["validation_accuracy"] > 0.9 > epochs[0]["accuracy"]
    tested = answer.event("tested")
    assert tested is not None
    assert tested["accuracy"] > 0.9
    assert (tested["training"], tested["optimizer"]) == ("harness", "SGD")
    data = answer.event("data")
    assert data is not None
    assert (data["training_samples"], data["validation_samples"]) == (2000, 400)
    built = answer.event("built")
    assert built is not None
    assert built["parameters"] == 61_706


def test_a_compiled_model_keeps_its_optimizer_and_loss(train: Train) -> None:
    tested = train("builders:compiled_digits").event("tested") or {}
    assert (tested["training"], tested["optimizer"]) == ("model", "Adam")
    assert tested["loss_name"] == "sparse_categorical_crossentropy"


def test_progress_shows_epoch_and_step(train: Train) -> None:
    answer = train("lenet5")
    phases = [event["phase"] for event in answer.events if event["event"] == "progress"]
    assert phases[0] == "epoch 1/2 step 1/8"
    ended = [event["phase"] for event in answer.events if event["event"] == "epoch"]
    assert [phase.partition(",")[0] for phase in ended] == ["epoch 1/2 ended", "epoch 2/2 ended"]


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        (
            "separable_layer",
            {},
            "separable_layer: the task accuracy needs a model from 28x28x1 to 10 classes, got one "
            "from 28x28x1 to 26x26x8",
        ),
        (
            "builders:well",
            {},
            "builders:well: the task accuracy needs a model from 28x28x1 to 10 classes, got one "
            "from 4 to 3",
        ),
        (
            "builders:diverges",
            {},
            "builders:diverges: the loss must be finite, but it is nan in epoch 1",
        ),
        (
            "builders:compiled_digits('mse')",
            {},
            "builders:compiled_digits('mse'): the task accuracy has integer labels, "
            "which its own loss does not accept; compile it with sparse_categorical_crossentropy",
        ),
        ("lenet5", {"mnist": "/none.npz"}, "/none.npz: cannot be read: No such file or directory"),
    ],
)
def test_what_cannot_be_trained_is_one_line(
    model: str, changes: dict[str, Any], message: str, train: Train
) -> None:
    answer = train(model, **changes)
    assert (answer.status, answer.message) == ("error", message)


def test_keras_own_limits_do_not_shorten_the_training(train: Train) -> None:
    answer = train("settingnets:limited")
    assert (answer.status, answer.message) == ("ok", "")
    epochs = [event for event in answer.events if event["event"] == "epoch"]
    assert [(epoch["epoch"], epoch["steps"]) for epoch in epochs] == [(1, 8), (2, 8)]
    assert (answer.event("read_back") or {})["model"]["max_steps_per_epoch"] == "1"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("stopping", "training steps of epoch 1: asked for 8, got 1; do not change fit"),
        ("shorter", "training steps of epoch 1: asked for 8, got 1; do not change fit"),
        ("silent", "epochs of training: asked for 2, got 1; do not change fit"),
        ("stingy", "steps of the test: "),
    ],
)
def test_training_that_is_cut_short_is_refused_with_both_counts(
    model: str, message: str, train: Train
) -> None:
    answer = train(f"settingnets:{model}")
    assert answer.status == "error"
    assert answer.message.startswith(f"settingnets:{model}: {message}")


def test_an_accuracy_that_the_models_own_step_counts_otherwise_is_refused(train: Train) -> None:
    answer = train("settingnets:severe")
    assert answer.status == "error"
    assert "outputs classify correctly, 1.0000, but evaluate returns 0.5000;" in answer.message


def test_the_digits_are_looked_at_without_training(train: Train, folder: Path) -> None:
    answer = train("lenet5", kind="digits")
    assert answer.status == "ok"
    found = answer.event("digits")
    assert found is not None
    assert found["path"] == str(folder / "mnist.npz")
    assert answer.event("built") is None
