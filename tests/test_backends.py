"""The three backends do the same work: parameters, FLOPs, losses, reference network; real workers.

`first_losses.py` runs once per backend, each in a process of its own, from weights and batches that
NumPy made. What is not installed is skipped and says so.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forks import Forks, printed
from law import lay_down
from workers import BUILDERS, QUICK_XLA, environ, measured, skip_without

from convmark.core.errors import WorkerError
from convmark.interpreter import Answer, Interpreter

PARAMETERS = {
    "lenet5": 61_706,
    "mini_inception": 896_522,
    "mini_resnet": 270_218,
    "mini_resnet_norm": 270_410,
    "conv_layer": 72,
    "separable_layer": 17,
}
OTHERS = ("jax", "torch")

Results = dict[str, Any]


InterpreterOf = Callable[[str], Interpreter]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("backends")


def first_losses(process: Forks, backend: str) -> Results:
    script = BUILDERS / "first_losses.py"
    found: Results = printed(process.run(script, backend, environ=QUICK_XLA))
    return found


@pytest.fixture(scope="module")
def tensorflow(forks_of: Callable[[str], Forks]) -> Results:
    return first_losses(forks_of("tensorflow"), "tensorflow")


@pytest.fixture(scope="module", params=OTHERS)
def other(request: pytest.FixtureRequest, forks_of: Callable[[str], Forks]) -> Results:
    return first_losses(forks_of(request.param), request.param)


@pytest.mark.parametrize("model", PARAMETERS)
def test_every_backend_counts_the_same_parameters_and_flops(
    model: str, tensorflow: Results, other: Results
) -> None:
    names = ("parameters", "trainable_parameters", "model_bytes", "flops_per_sample")
    ours, theirs = tensorflow["models"][model], other["models"][model]
    assert {name: ours[name] for name in names} == {name: theirs[name] for name in names}
    assert theirs["parameters"] == PARAMETERS[model]


@pytest.mark.parametrize("model", PARAMETERS)
def test_every_backend_says_where_the_weights_and_the_loss_lie(
    model: str, tensorflow: Results, other: Results
) -> None:
    for found in (tensorflow["models"][model], other["models"][model]):
        assert found["held"] == [{"cpu": found["model_bytes"]}, {"cpu": 4}]


def test_pytorch_puts_the_models_of_a_gpu_on_it(other: Results) -> None:
    """Keras forgets the device when its context is let go, and the CPU computes."""
    assert other["device_of_a_gpu"] == ("cuda" if "torch" in other["versions"] else None)


@pytest.mark.parametrize("model", PARAMETERS)
def test_the_same_weights_and_batch_give_the_same_first_loss_and_output(
    model: str, tensorflow: Results, other: Results
) -> None:
    ours, theirs = tensorflow["models"][model], other["models"][model]
    assert theirs["losses"][0] == pytest.approx(ours["losses"][0], rel=0, abs=1e-5)
    assert theirs["output"] == pytest.approx(ours["output"], rel=1e-5)


@pytest.mark.parametrize("model", PARAMETERS)
def test_training_changes_the_weights_alike(
    model: str, tensorflow: Results, other: Results
) -> None:
    ours, theirs = tensorflow["models"][model], other["models"][model]
    assert theirs["losses"] == pytest.approx(ours["losses"], rel=1e-3)
    assert theirs["losses"][0] != theirs["losses"][-1]
    assert theirs["weights"] == pytest.approx(ours["weights"], rel=1e-4)


def test_the_reference_network_is_the_same_everywhere(tensorflow: Results, other: Results) -> None:
    ours, theirs = tensorflow["reference"], other["reference"]
    assert theirs["small"] == pytest.approx(ours["small"], rel=1e-5)
    assert theirs["large"] == pytest.approx(ours["large"], rel=1e-5)
    assert theirs["large"][0] > theirs["large"][-1] > 0


def test_inference_hands_on_what_the_model_changes_of_its_variables(
    tensorflow: Results, other: Results
) -> None:
    """Else JAX leaves out the work that the change takes, and a seed gives the same numbers."""
    assert tensorflow["counted"] == other["counted"] == [1, 2, 3]


def test_pytorch_infers_in_evaluation_mode(other: Results) -> None:
    """A dropout of PyTorch's own would else drop."""
    assert other["mode"] == [0, 0, 0]


def test_another_framework_is_measured_without_tensorflow(other: Results) -> None:
    assert other["tensorflow"] is False


def test_a_framework_knows_whether_it_has_run_anything(tensorflow: Results, other: Results) -> None:
    assert tensorflow["untouched"] == other["untouched"] == [True, False]


@pytest.mark.parametrize("task", ["train", "infer"])
def test_tracing_is_done_once_and_before_the_first_execution(
    task: str, tensorflow: Results, other: Results
) -> None:
    eager = "torch" in other["versions"]
    assert tensorflow["traces"][task] == [1, 0, 0]
    assert other["traces"][task] == ([0, 1, 1] if eager else [1, 0, 0])


def test_the_harness_adds_no_operation_to_an_inference_step_on_a_cpu(tensorflow: Results) -> None:
    layer = {"AddV2", "BiasAdd", "Identity", "MatMul", "NoOp", "Placeholder", "ReadVariableOp"}
    assert set(tensorflow["operations"]) <= layer, "a short step would take 5 to 8 % longer"


@pytest.mark.parametrize("task", ["train", "infer"])
def test_a_feed_goes_round_four_batches_the_same_on_every_backend(
    task: str, tensorflow: Results, other: Results
) -> None:
    shapes, values, means = other["fed"][task]
    assert shapes == [[[8, 28, 28, 1], [8]] if task == "train" else [[8, 28, 28, 1]]] * 6
    assert all(0 < value < 10 for value in values)
    assert means == pytest.approx(tensorflow["fed"][task][2], rel=1e-5)
    assert means[:2] == means[4:]
    assert len({round(mean, 6) for mean in means}) == 4


@pytest.fixture(scope="module", params=OTHERS)
def backend(request: pytest.FixtureRequest) -> str:
    skip_without(request.param)
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def asked(backend: str) -> dict[str, Any]:
    model = "builders:lenet5_without_tensorflow"
    return measured(model, task="train", batch_size=16, backend=backend)


@pytest.fixture(scope="module")
def forked(asked: dict[str, Any], backend: str, interpreter_of: InterpreterOf) -> list[Answer]:
    """What two workers answer, one after the other."""
    return [interpreter_of(backend).answer(asked) for _ in range(2)]


def test_workers_forked_before_the_first_operation_measure_one_after_another(
    backend: str, forked: list[Answer]
) -> None:
    first, second = forked
    assert [(answer.status, answer.message) for answer in forked] == [("ok", "")] * 2
    versions = first.event("environment") or {}
    assert versions[backend]
    assert "tensorflow" not in versions
    assert first.event("proof") == second.event("proof")
    assert (second.ready_s or 9) < 1
    step = first.event("first_step") or {}
    assert step["seconds"] == pytest.approx((step["trace_s"] or 0.0) + step["execution_s"])
    assert (step["trace_s"] is None) == (backend == "torch")


def test_a_spawned_worker_does_the_same_work_as_a_forked_one_with_its_framework_alone(
    backend: str, tmp_path: Path, asked: dict[str, Any], forked: list[Answer]
) -> None:
    """And with the standard library, as one of TensorFlow does."""
    variables = environ(tmp_path, **QUICK_XLA, PYTHONPATH=lay_down(tmp_path))
    how = {"backend": backend, "isolation": "spawn", "folder": BUILDERS}
    with Interpreter(environ=variables, **how) as interpreter:
        spawned = interpreter.answer(asked)
    assert (spawned.status, spawned.message) == ("ok", "")
    assert spawned.event("proof") == forked[0].event("proof")


def test_one_thread_is_one_thread(backend: str, interpreter_of: InterpreterOf) -> None:
    asked = measured("mini_resnet", task="train", batch_size=8, backend=backend, threads="1")
    answer = interpreter_of(backend).answer(asked)
    assert (answer.status, answer.message) == ("ok", "")
    rounds = answer.event("rounds") or {}
    assert sum(rounds["case_cpu_s"]) <= 1.1 * sum(rounds["case_wall_s"])


def test_out_of_memory_is_told_apart_from_other_errors(
    backend: str, interpreter_of: InterpreterOf
) -> None:
    interpreter = interpreter_of(backend)
    full = interpreter.answer(measured("builders:asks_for_more_than_there_is", backend=backend))
    other = interpreter.answer(measured("builders:raises", backend=backend))
    assert full.status == "out_of_memory"
    assert other.status == "error"


@pytest.mark.long  # the compiler alone takes most of a minute
def test_torch_compiles_where_it_is_asked_to(interpreter_of: InterpreterOf) -> None:
    asked = measured("lenet5", task="train", batch_size=8, backend="torch")
    compiled = measured("lenet5", task="train", batch_size=8, backend="torch", jit="on")
    answers = [interpreter_of("torch").answer(request) for request in (asked, compiled)]
    assert [(answer.status, answer.message) for answer in answers] == [("ok", "")] * 2
    paths = [(answer.event("first_step") or {})["call_path"] for answer in answers]
    assert paths == ["eager", "torch.compile"]
    losses = [(answer.event("proof") or {})["value"] for answer in answers]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


MANY = """
import functools, json
from convmark.worker import backends
import torch

torch.compile = functools.partial(torch.compile, backend="eager")
backend = backends.load("torch")
backend.configure(device="cpu", threads="1", precision="float32", seed=0)
from keras import Input, Sequential, layers

for count in range(10):
    model = Sequential([Input((4,)), layers.Dense(2)])
    backend.inference_step(model, 2, 0, True)()
print(json.dumps(backend.call_path))
"""


def test_torch_compiles_each_of_many_models_in_a_process(
    forks_of: Callable[[str], Forks],
) -> None:
    skip_without("torch")
    assert printed(forks_of("torch").run(MANY)) == "torch.compile"


def test_a_framework_that_is_not_installed_is_named_with_what_to_do(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['jax'] = None\n")
    variables = environ(folder, PYTHONPATH=str(tmp_path))
    with (
        Interpreter(environ=variables, backend="jax") as interpreter,
        pytest.raises(WorkerError) as refusal,
    ):
        interpreter.answer(measured("lenet5"))
    assert "jax cannot be imported" in str(refusal.value)
    assert "install convmark[jax] in the measured environment" in str(refusal.value)
