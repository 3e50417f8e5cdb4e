"""Several replicas with real workers: on logical CPUs, and in processes over 127.0.0.1.

Replica i takes the i-th part of the batch that one replica would have, so two at 16 must train as
one at 32 does: that is how the sum of the gradients is known to be right.
"""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forks import COMMAND, Forked, Forks
from workers import BUILDERS, descendants, environ, happens, is_running, measured

from convmark.interpreter import Answer, Interpreter
from convmark.results.reading import read_run
from convmark.results.record import Record
from convmark.worker.companions import free_addresses

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="a worker needs TensorFlow"
)

LOCAL = {"cluster": {"processes": 2}}


@pytest.fixture(scope="module")
def interpreter(warm: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interpreter]:
    folder = tmp_path_factory.mktemp("replicas")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(BUILDERS)
        variables = environ(folder, CONVMARK_TEST_FOLDER=str(folder))
        with Interpreter(environ=variables, time_limit_s=60) as made:
            made.start()
            yield made


@pytest.fixture
def alone_again(interpreter: Interpreter) -> Iterator[Interpreter]:
    """The interpreter; after the test nothing but its zygote is left."""
    before = descendants()
    yield interpreter
    assert happens(lambda: descendants() <= before, 2.0), descendants() - before


def two(model: str, *, spread: bool, smoke: bool = False, **axes: Any) -> dict[str, Any]:
    """Return a request of two replicas: in one process, or in one each."""
    request = measured(model, replicas=2, cluster="local" if spread else None, **axes)
    return {**request, "smoke": smoke, **(LOCAL if spread else {})}


def proofs(answer: Answer) -> list[float]:
    assert (answer.status, answer.message) == ("ok", "")
    return [event["value"] for event in answer.events if event["event"] == "proof"]


@pytest.mark.parametrize("model", ["lenet5", "mini_resnet"])
def test_replicas_train_as_one_with_their_common_batch_does(
    model: str, alone_again: Interpreter
) -> None:
    """`lenet5` is Sequential, `mini_resnet` subclassed; neither normalises over its batch."""
    alone = alone_again.answer(measured(model, task="train", batch_size=32))
    one = proofs(alone)
    answer = alone_again.answer(two(model, spread=model == "mini_resnet", task="train",
                                    batch_size=16))  # fmt: skip
    assert one[1] < one[0] - 0.01
    assert proofs(answer) == pytest.approx(one, abs=1e-5)
    work, of_one = (each.event("work") or {} for each in (answer, alone))
    assert work["flops_per_sample"] > 0
    trained = of_one["training_flops_per_sample"]
    assert work["training_flops_per_sample"] == pytest.approx(trained, rel=0.01)
    assert (answer.event("windows") or {})["steps"] > 0
    strategy = "MultiWorkerMirroredStrategy" if model == "mini_resnet" else "MirroredStrategy"
    assert (answer.event("first_step") or {})["call_path"] == f"tf.function, {strategy}"
    assert (answer.event("state") or {})["other_cpu_share"] < 1


def test_inference_of_processes_gives_the_output_of_one(alone_again: Interpreter) -> None:
    one = proofs(alone_again.answer(measured("mini_resnet_norm", batch_size=2)))
    answer = alone_again.answer(two("mini_resnet_norm", spread=True, batch_size=1))
    assert proofs(answer) == pytest.approx(one, rel=1e-5)


def test_a_model_that_asks_to_run_eagerly_is_not_measured_in_one_graph(
    alone_again: Interpreter,
) -> None:
    answer = alone_again.answer(two("settingnets:looks", spread=False, smoke=True, batch_size=4))
    assert answer.status == "error"
    assert "several replicas infer in one graph, but the model was compiled" in answer.message


@pytest.mark.parametrize(
    ("builder", "message"),
    [
        ("builders:fails_beside_the_first", "process 2 of the cluster: ValueError: no room here"),
        ("builders:dies_beside_the_first", "process 2 of the cluster: ended without a message"),
    ],
)
def test_a_process_that_fails_ends_the_case_and_tells_why(
    builder: str, message: str, alone_again: Interpreter
) -> None:
    began = time.monotonic()
    answer = alone_again.answer(two(builder, spread=True, smoke=True, task="train", batch_size=4))
    assert (answer.status, answer.message) == ("error", message)
    assert time.monotonic() - began < 30


def spread_over(addresses: list[str], index: int, model: str = "lenet5") -> dict[str, Any]:
    """Return the request of one machine of several."""
    request = measured(model, task="train", batch_size=4, replicas=2, cluster="hosts2")
    return {**request, "smoke": True, "cluster": {"addresses": addresses, "index": index}}


def test_a_peer_that_never_comes_is_waited_for_no_longer_than_the_limit(
    alone_again: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorFlow's wait ignores SIGTERM, so the worker is gone by SIGKILL alone."""
    monkeypatch.setattr(alone_again, "_time_limit_s", 3.0)
    addresses = free_addresses(2)
    waiting: list[int] = []
    before = descendants()
    survived: list[bool] = []

    def ask_politely() -> None:
        time.sleep(1.5)
        waiting.extend(descendants() - before)
        for pid in waiting:
            os.kill(pid, signal.SIGTERM)
        time.sleep(0.5)
        survived.extend(is_running(pid) for pid in waiting)

    asking = threading.Thread(target=ask_politely)
    asking.start()
    began = time.monotonic()
    answer = alone_again.answer(spread_over(addresses, 0))
    seconds = time.monotonic() - began
    asking.join()
    assert answer.status == "timeout"
    assert answer.message.startswith(f"{addresses[1]}: did not connect within 3 s; the worker was ")
    assert survived == [True]
    assert 3.0 <= seconds < 3.0 + 2.0 + 2.0  # the limit, the polite end, and a margin
    assert not any(is_running(pid) for pid in waiting)
    with socket.socket() as again:  # nothing of it listens any more
        host, _, port = addresses[0].partition(":")
        assert again.connect_ex((host, int(port))) != 0


def test_machines_that_measure_different_cases_are_told_so(
    interpreter: Interpreter, tmp_path: Path
) -> None:
    addresses = free_addresses(2)
    with Interpreter(environ=environ(tmp_path), time_limit_s=60) as other:
        answers: list[Answer] = []
        asked = other, spread_over(addresses, 1, "mini_resnet")
        there = threading.Thread(target=lambda: answers.append(asked[0].answer(asked[1])))
        there.start()
        answers.append(interpreter.answer(spread_over(addresses, 0)))
        there.join()
    assert {answer.status for answer in answers} == {"error"}
    for answer in answers:
        assert "the machines of the cluster measure different cases" in answer.message


# as a user types it


Run = Callable[..., Forked]


@pytest.fixture
def run(harness: Forks, warm: None) -> Run:
    """Starts `convmark run` in a folder."""
    asked = ("run", "--models=conv_layer", "--tasks=train", "--batch-sizes=4", "--time-budget=0.1")

    def start(folder: Path, *options: str) -> Forked:
        words = (*asked, "--devices=cpu", *options)
        return harness.start(COMMAND, *words, cwd=folder, environ=environ(folder))

    return start


def rows(folder: Path) -> list[Record]:
    return [row for path in sorted(folder.glob("results/*/*.csv")) for row in read_run(path)]


def test_two_machines_start_the_same_command_and_the_first_keeps_the_rows(
    run: Run, tmp_path: Path
) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    cluster = f"--cluster={','.join(free_addresses(2))}"
    commands = []
    for index, folder in enumerate(folders):
        folder.mkdir()
        commands.append(run(folder, cluster, f"--index={index}", "--replicas=1,2", "--processes=2"))
    printed = [command.communicate(timeout=120)[0] for command in commands]
    assert [command.returncode for command in commands] == [0, 0], printed
    first, second = (
        [(row.case.name, row.process, row.status in ("ok", "unsteady")) for row in rows(folder)]
        for folder in folders
    )
    name = "conv_layer-train-cpu-b4-float32"
    assert sorted(first) == [
        (name, 1, True),
        (name, 2, True),
        (f"{name}-r2-hosts2", 1, True),
        (f"{name}-r2-hosts2", 2, True),
    ]
    assert sorted(second) == [(name, 1, True), (name, 2, True)]
    assert "2 more over the cluster, kept by 127.0.0.1:" in printed[1]
    both = [row for row in rows(folders[0]) if row.replicas == 2]
    spread, counted = both[0], sum(row.status == "ok" for row in both) or len(both)
    assert (spread.effective_batch_size, spread.cluster) == (8, "hosts2")
    scatter = r" +\S+ %" * (counted > 1)
    assert re.search(rf"{name} hosts2 +2 +\S+{scatter} +\S+ % +{counted}\b", printed[0])


def test_a_row_says_which_machine_never_came(run: Run, tmp_path: Path) -> None:
    addresses = free_addresses(2)
    command = run(
        tmp_path, "--replicas=2", f"--cluster={','.join(addresses)}", "--index=0",
        "--processes=1", "--time-limit=2",
    )  # fmt: skip
    printed, _ = command.communicate(timeout=120)
    assert command.returncode == 1
    assert "Traceback" not in printed
    (row,) = rows(tmp_path)
    assert row.status == "timeout"
    assert (row.error or "").startswith(f"{addresses[1]}: did not connect within 2 s")


def test_local_processes_are_one_flag(run: Run, tmp_path: Path) -> None:
    command = run(tmp_path, "--replicas=2", "--cluster=local", "--processes=1")
    printed, _ = command.communicate(timeout=120)
    assert command.returncode == 0, printed
    (row,) = rows(tmp_path)
    assert row.measured
    assert row.case.name == "conv_layer-train-cpu-b4-float32-r2-local"
    assert row.call_path == "tf.function, MultiWorkerMirroredStrategy"


def test_an_interpreter_of_its_own_may_have_companions_too(tmp_path: Path) -> None:
    asked = two("conv_layer", spread=True, smoke=True, task="train", batch_size=4)
    with Interpreter(environ=environ(tmp_path), isolation="spawn", time_limit_s=60) as spawning:
        answer = spawning.answer(asked)
    assert (answer.status, answer.message) == ("ok", "")
    assert (answer.event("read_back") or {})[
        "call_path"
    ] == "tf.function, MultiWorkerMirroredStrategy"
