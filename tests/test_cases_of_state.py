"""Complaints in a few lines each, kept beside the repository: what a process was is in its row."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from histories import comparability
from test_run import FACTS
from workers import environ

from convmark.compare.comparability import comparable, difference
from convmark.core.case import Case
from convmark.core.options import read
from convmark.interpreter import Interpreter
from convmark.results.commit import Commit
from convmark.results.record import Record
from convmark.session.facts import Job, facts_of
from convmark.session.run import measure

SHARED = Path(__file__).resolve().parents[2] / "shared"
CASES, DIGITS = SHARED / "cases", SHARED / "data" / "mnist.npz"

pytestmark = [
    pytest.mark.usefixtures("warm"),
    pytest.mark.skipif(not CASES.is_dir(), reason="the folder of cases is not beside the checkout"),
    pytest.mark.skipif(
        importlib.util.find_spec("tensorflow") is None, reason="a worker needs TensorFlow"
    ),
]


class Rows:
    """Measures models one by one, each in a fresh process of one interpreter."""

    def __init__(self, interpreter: Interpreter) -> None:
        self._interpreter = interpreter

    def __call__(self, model: str, task: str = "infer", **given: str) -> Record:
        options = read({"time_budget": "0.05", **given})
        case = Case(model=model, task=task, batch_size=8)
        job = Job(case=case, process=1, order=1, seed=0)
        return measure(job, self._interpreter, options, FACTS).record


@contextmanager
def rows_of(folder: Path, tmp_path: Path, **variables: str) -> Iterator[Rows]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with Interpreter(environ=environ(tmp_path, **variables)) as interpreter:
            yield Rows(interpreter)


def test_a_policy_set_by_the_builder_is_the_rows_precision(tmp_path: Path) -> None:
    with rows_of(CASES / "01-policy-set-by-builder", tmp_path) as row:
        plain, mixed = row("policynets:plain"), row("policynets:global_policy", "train")
        refused = row("policynets:global_policy", precisions="float32")
    assert (plain.precision, plain.asked, plain.state) == ("float32", None, None)
    assert (mixed.precision, mixed.asked) == ("float32+mixed_bfloat16", "precision=float32")
    assert mixed.asked_case.precision == "float32"
    assert mixed.measured
    assert not comparable(comparability(plain), comparability(mixed))
    assert refused.status == "error"
    assert "precision float32 was asked for, 4 of 5 layers" in str(refused.error)


def test_functions_left_eager_are_in_the_row_and_end_comparability(tmp_path: Path) -> None:
    with rows_of(CASES / "02-eager-set-at-import", tmp_path) as row:
        compiled, eager = row("eagernets:compiled"), row("eagernets:eager")
    assert (compiled.call_path, eager.call_path) == ("tf.function", "eager")
    assert eager.state == "model:run_functions_eagerly=True"
    now, then = comparability(eager), comparability(compiled)
    same_model = dataclasses.replace(then, model=now.model)
    assert difference(now, same_model).startswith(
        "model:run_functions_eagerly was the default, is True, as the model's own code sets it"
    )


LIMITS = {"KERAS_MAX_EPOCHS": "1", "KERAS_MAX_STEPS_PER_EPOCH": "2"}
TOLD = "max_epochs=1 max_steps_per_epoch=2"


@pytest.fixture(scope="module")
def inherited(warm: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rows]:
    """Rows under a keras.json, and Keras's limits of the epochs, that every process inherits."""
    folder = CASES / "08-keras-json"
    variables = {**LIMITS, "HOME": str(folder / "home")}
    with rows_of(folder, tmp_path_factory.mktemp("inherited"), **variables) as row:
        yield row


def test_keras_json_changes_no_network_of_the_zoo_and_shows_in_the_others(inherited: Rows) -> None:
    zoo = [inherited("lenet5"), inherited("mini_resnet")]
    own = inherited("freeform:cube")
    assert [(one.parameters, one.state) for one in zoo] == [(61_706, TOLD), (270_218, TOLD)]
    assert own.measured
    assert own.state == f"image_data_format=channels_first {TOLD}"


@pytest.mark.skipif(not DIGITS.is_file(), reason="the digits are not beside the checkout")
def test_keras_limit_of_epochs_does_not_shorten_the_task_accuracy(inherited: Rows) -> None:
    learned = inherited("lenet5", "accuracy", fraction="0.005", mnist=str(DIGITS), seeds="0")
    assert learned.measured
    assert learned.epochs == 5
    assert learned.state == TOLD
    assert (learned.accuracy or 0) > 0.2


def test_a_variable_that_nobody_has_thought_of_is_in_the_row() -> None:
    variables = {**os.environ, "TF_SET_ONEDNN_FPMATH_MODE": "BF16"}
    facts = facts_of("0001", FACTS.machine, Commit(sha=None, dirty=None), variables)
    assert "TF_SET_ONEDNN_FPMATH_MODE=BF16" in facts.flags
