"""Training as the model defines it, and sizes that are right; real workers and real backends.

`own_steps.py` takes the steps of the networks of `trained_nets.py`, once per backend, in a process
of its own. What is not installed is skipped and says so.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forks import Forks, printed
from trained_kinds import ANYWHERE, CASE, GOING_ON, OF_TENSORFLOW, STOPPING
from workers import BUILDERS, QUICK_XLA, environ, measured, smoked

from convmark.interpreter import Interpreter

SLOTS_BYTES = 2 * 4 * (512 * 2048 + 2048 + 2048 * 10 + 10)
"""Of Adam for `wide_adam`: two of each weight, float32."""

TRAINED_WITH = {
    "uncompiled": ("harness", "SGD", "sparse_categorical_crossentropy"),
    "sparse": ("model", "SGD", "sparse_categorical_crossentropy"),
    "categorical": ("model", "SGD", "categorical_crossentropy"),
    "binary": ("model", "Adam", "binary_crossentropy"),
    "regression": ("model", "RMSprop", "mean_squared_error"),
    "own_loss_of_classes": ("model", "SGD", "crossentropy"),
    "pixels": ("model", "SGD", "sparse_categorical_crossentropy"),
    "two_outputs": ("model", "Adam", "sparse_categorical_crossentropy + huber"),
    "losses_alone": ("model", "SGD", "losses added"),
    "own_compute_loss": ("model", "SGD", "compute_loss"),
    "two_heads_and_a_label": ("model", "SGD", "compute_loss"),
    "eager": ("model", "SGD", "mean_squared_error"),
    "several_at_once": ("model", "SGD", "mean_squared_error"),
    "gan": ("model", "Adam + SGD", "train_step"),
    "told": ("harness", "SGD", "sparse_categorical_crossentropy"),
    "regularized": ("harness", "SGD", "sparse_categorical_crossentropy + losses added"),
    "activity": ("harness", "SGD", "sparse_categorical_crossentropy + losses added"),
    "loss_and_activity": ("model", "SGD", "mean_squared_error + losses added"),
    "losses_of_samples": ("harness", "SGD", "sparse_categorical_crossentropy + losses added"),
    "told_and_compiled": ("model", "SGD", "mean_squared_error"),
    "scored": ("model", "SGD", "mean_squared_error"),
    "unweighted": ("model", "Adam", "train_step"),
    "weighted": ("model", "Adam", "train_step"),
    "accumulates": ("model", None, "mean_squared_error + train_step"),  # it changes them itself
    "own_train_function": ("model", "SGD", "mean_squared_error + make_train_function"),
    "two_optimizers": ("model", "ByName", "mean_squared_error"),
    "by_xla": ("model", "SGD", "mean_squared_error"),
    "mixed": ("model", "SGD", "categorical_crossentropy"),
    "adam": ("harness", "Adam", "sparse_categorical_crossentropy"),
    "slow": ("harness", "SGD", "sparse_categorical_crossentropy"),
    "mae": ("harness", "SGD", "mean_absolute_error"),
}
REFUSED = {
    "own_loss_of_nothing": "no targets are known for its own loss refuses: ",
    "no_loss": "compile() has no loss and the model adds none; give compile() a loss",
    "frozen": "nothing to train: the model has no trainable weights; set trainable = True",
    "frozen_and_compiled": "nothing to train: the model has no trainable weights",
    "compile_of_its_own": "its compile() takes other arguments than Keras's; call it",
    "no optimizer": "--optimizer must be a name of keras.optimizers, such as adam, got 'adan'",
    "no loss of that name": "--loss must be a name of keras.losses, such as mean_squared_error",
    "recipe for compiled": "--optimizer, --learning-rate and --loss are for models that are not",
    "eager, jit on": "jit on needs a compiled step, but the model was compiled with run_eagerly",
}
CALL_PATHS = {
    "tensorflow": ("tf.function", "tf.function(train_step)"),
    "jax": ("jax.jit", "jax.jit(train_step)"),
    "torch": ("eager", "train_step, eager"),
}
PARTS = {"part": 4, "end": 1, "every_other": 4}
LATE = {"late": 36, "shared": 56, "says_built": 14, "two_heads": 65, "judged": 35}

Results = dict[str, Any]


@pytest.fixture(scope="module", params=CALL_PATHS)
def steps(request: pytest.FixtureRequest, forks_of: Callable[[str], Forks]) -> tuple[str, Results]:
    backend: str = request.param
    quick = QUICK_XLA if backend == "jax" else {}
    script = BUILDERS / "own_steps.py"
    return backend, printed(forks_of(backend).run(script, backend, environ=quick))


def test_a_model_is_trained_with_what_it_brings_and_its_row_says_so(
    steps: tuple[str, Results],
) -> None:
    backend, results = steps
    nets = [*ANYWHERE, *(OF_TENSORFLOW if backend == "tensorflow" else ())]
    trained = [*(set(nets) - {*REFUSED, *LATE}), "mixed", "adam", "slow", "mae"]
    found = {
        net: tuple(results[net][name] for name in ("training", "optimizer", "loss_name"))
        for net in trained
    }
    assert found == {net: TRAINED_WITH[net] for net in trained}
    assert all(math.isfinite(value) for net in trained for value in results[net]["values"])


def test_an_optimizer_whose_work_others_do_has_their_rates(steps: tuple[str, Results]) -> None:
    backend, results = steps
    if backend != "tensorflow":
        pytest.skip("its steps are TensorFlow's")
    assert results["two_optimizers"]["moved"]
    assert not results["two_optimizers"]["rests"]


def test_the_steps_train(steps: tuple[str, Results]) -> None:
    _, results = steps
    for net in ("sparse", "categorical", "binary", "regression", "pixels", "two_outputs", "mixed"):
        first, _, third, *_ = results[net]["values"]
        assert results[net]["moved"], net
        assert third < first, net
    assert results["losses_alone"]["values"] == [3.0] * 4
    assert results["own_compute_loss"]["values"] == [7.0] * 4
    assert results["of_boxes"]["values"][0] == 25.0
    assert results["losses_of_samples"]["values"][0] == pytest.approx(math.log(10) + 4 * 3.0)


def test_a_step_is_compiled_as_fit_would(steps: tuple[str, Results]) -> None:
    backend, results = steps
    plain, own = CALL_PATHS[backend]
    assert results["uncompiled"]["call_path"] == results["adam"]["call_path"] == plain
    assert results["sparse"]["call_path"] == results["several_at_once"]["call_path"] == own
    assert results["eager"]["call_path"] == "train_step, eager"
    assert results["paths"] == ["train_step, eager", plain, own]
    if backend == "tensorflow":
        assert results["by_xla"]["call_path"] == "tf.function(train_step), XLA"
        assert results["own_train_function"]["call_path"] == "train_function"
        assert results["own_train_function"]["values"] == [5.0] * 3
        assert "processes 3 batches per call" in results["several a call"]["refused"]
        first, second, third, _ = results["accumulates"]["values"]
        assert first == second == third  # its weights wait for the fourth step


def test_models_of_one_process_are_each_fed_what_their_own_training_takes(
    steps: tuple[str, Results],
) -> None:
    _, results = steps
    assert results["fed"] == {"regression": [[4, 3]], "uncompiled": [[4]], "binary": [[4, 1]]}


def test_the_flops_of_a_models_own_step_are_counted_or_empty_with_the_reason(
    steps: tuple[str, Results],
) -> None:
    backend, results = steps
    assert results["regression"]["work"] == {"flops": 2 * 168, "note": None}
    if backend == "tensorflow":
        assert results["scored"]["work"] == {"flops": 2 * 168 + 8192 // 4, "note": None}
        reason = "a training step that runs eagerly cannot be traced"
        assert results["eager"]["work"] == {"flops": None, "note": reason}


def test_what_cannot_be_trained_is_refused_with_what_to_do(steps: tuple[str, Results]) -> None:
    backend, results = steps
    own = {"own_train_function": "its own make_train_function or train_function is measured"}
    for net, reason in {**REFUSED, **(own if backend != "tensorflow" else {})}.items():
        assert results[net]["refused"].startswith(reason), net
        assert "\n" not in results[net]["refused"]


def test_weights_that_come_with_the_first_call_are_counted_and_trained(
    steps: tuple[str, Results],
) -> None:
    _, results = steps
    for net, parameters in LATE.items():
        sizes = [results[net][name] for name in ("parameters", "trainable_parameters")]
        assert sizes == [parameters, parameters], net
        assert results[net]["model_bytes"] == 4 * parameters
        assert results[net]["moved"], net
    assert results["two_heads"]["still"] == results["judged"]["still"] == 0


def test_a_model_that_trains_twice_a_step_does_twice_the_work(steps: tuple[str, Results]) -> None:
    backend, results = steps
    if backend != "tensorflow":
        pytest.skip("its train_step is TensorFlow's")
    if "twice" not in results:
        pytest.skip(f"{CASE} is not there")
    once, twice = results["twice"]["flops"]
    assert twice == 2 * once > 0
    assert results["twice"]["updates"] == 20


@pytest.mark.parametrize("backend", CALL_PATHS)
def test_training_by_hand_that_stops_or_leaves_samples_out_is_refused_and_other_is_not(
    forks_of: Callable[[str], Forks], backend: str
) -> None:
    quick = QUICK_XLA if backend == "jax" else {}
    found = printed(forks_of(backend).run(BUILDERS / "hand_trained.py", backend, environ=quick))
    assert {kind: found[kind] for kind in GOING_ON} == dict.fromkeys(GOING_ON)
    for kind in STOPPING:
        if kind in found:
            assert f"{kind}: every step must train, but weights changed in " in str(found[kind])
    assert "nothing: a training step must change weights, but no" in str(found["nothing"])
    assert found["whole batch"] is None is found["plain batch"]
    for kind, sample in {**PARTS, "repeats": 4}.items():
        reason = f"{kind}: a step must use each of the 4 samples of a batch, but its results "
        assert f"{reason}are the same whatever sample {sample} is; " in str(found[f"{kind} batch"])


@pytest.fixture(scope="module")
def interpreter(warm: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interpreter]:
    roots = [BUILDERS, *(folder for folder in _cases() if folder.is_dir())]
    variables = environ(tmp_path_factory.mktemp("training"))
    with Interpreter(environ=variables, folder=BUILDERS, import_roots=roots) as one:
        yield one


def _cases() -> list[Path]:
    return [CASE, CASE.parent / "16-late-weights"]


def figures(interpreter: Interpreter, net: str, **more: Any) -> Results:
    answer = interpreter.answer(measured(f"trained_nets:{net}", **{"task": "train", **more}))
    assert answer.status == "ok", answer.message
    return {event["event"]: event for event in answer.events}


def test_a_loss_of_other_targets_than_are_made_for_it_is_given_those_of_the_target_spec(
    interpreter: Interpreter,
) -> None:
    found = figures(interpreter, "detector_of_boxes", batch_size=2)
    assert (found["first_step"]["loss_name"], found["proof"]["step"]) == ("compute_loss", 10)
    guessed = interpreter.answer(measured("trained_nets:detector", task="train"))
    assert (guessed.status, guessed.message.split("; ")[-1]) == (
        "error",
        "its targets are guesses, give its builder a target_spec if its code takes others",
    )
    uncompiled = interpreter.answer(measured("trained_nets:uncompiled_of_boxes", task="train"))
    assert uncompiled.message.startswith(
        "trained_nets:uncompiled_of_boxes: a target_spec is for a model that says how it is "
        "trained; compile() it in its builder"
    )


def test_the_models_own_failure_is_the_rows_error(interpreter: Interpreter) -> None:
    if not CASE.is_dir():
        pytest.skip(f"{CASE} is not there")
    answer = interpreter.answer(measured("ownstep:never", task="train", batch_size=32))
    assert answer.status == "error"
    assert answer.message.endswith("the model's own train_step was called")


@pytest.mark.parametrize("task", ["infer", "train"])
def test_a_model_that_says_it_is_built_has_its_own_sizes(
    interpreter: Interpreter, task: str
) -> None:
    if not CASE.is_dir():
        pytest.skip(f"{CASE} is not there")
    answer = interpreter.answer(measured("late:own_build", task=task, batch_size=8))
    for event in ("built", "counted"):
        found = answer.event(event) or {}
        assert (found["parameters"], found["model_bytes"]) == (38_411, 153_644)
        assert found["trainable_parameters"] == 38_411


def test_adams_slots_are_in_the_peak_of_the_device(interpreter: Interpreter) -> None:
    sgd, adam = (figures(interpreter, net) for net in ("wide_sgd", "wide_adam"))
    assert adam["first_step"]["optimizer"] == "Adam"
    more = adam["peaks"]["device_bytes"] - sgd["peaks"]["device_bytes"]
    assert more >= SLOTS_BYTES
    assert adam["counted"]["parameters"] == sgd["counted"]["parameters"]


def test_no_copy_of_the_weights_is_in_the_peak(interpreter: Interpreter) -> None:
    """Weights, gradients and what an update makes are 320 MB; a copy in each look was 500."""
    if sys.platform != "linux":
        pytest.skip("only Linux can forget a process's peak")
    peaks = figures(interpreter, "one_kernel")["peaks"]
    assert peaks["host_bytes"] <= 400_000_000


def test_what_a_builder_gives_back_is_apart_from_what_the_steps_take(
    interpreter: Interpreter,
) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux can forget a process's peak")
    peaks = figures(interpreter, "uses_much_and_gives_it_back")["peaks"]
    assert peaks["build_host_bytes"] >= 350_000_000
    assert peaks["host_bytes"] <= 200_000_000


def test_a_model_that_grows_while_it_infers_is_an_error(
    interpreter_of: Callable[[str], Interpreter],
) -> None:
    # TensorFlow and JAX run a model's Python once
    answer = interpreter_of("torch").answer(measured("trained_nets:grows", backend="torch"))
    assert answer.status == "error"
    assert "trained_nets:grows: a model must keep its weights during inference" in answer.message


def test_a_net_that_diverges_is_told_what_to_try(interpreter: Interpreter) -> None:
    request = smoked("builders:diverges")
    request["case"]["task"] = "train"
    answer = interpreter.answer(request)
    assert answer.status == "error"
    assert "the loss must be finite" in answer.message
    assert "try a smaller --learning-rate" in answer.message


def test_a_schedule_that_has_come_to_a_rate_of_0_trains_on(interpreter: Interpreter) -> None:
    assert figures(interpreter, "rate_ends")["first_step"]["optimizer"] == "SGD"


def test_several_replicas_take_the_models_own_step(interpreter: Interpreter) -> None:
    first = figures(interpreter, "sparse", replicas=2)["first_step"]
    assert first["training"] == "model"
    assert first["call_path"] == "tf.function(train_step), MirroredStrategy"
