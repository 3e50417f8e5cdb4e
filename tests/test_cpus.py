"""Binding to CPUs and to a NUMA node: lists, refusals against a fake /sys, and real workers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from workers import BUILDERS, environ, measured, skip_without, smoked

from convmark.core.case import Case, cpu_list, cpu_numbers
from convmark.core.errors import CaseError, OptionError
from convmark.core.options import read
from convmark.interpreter import Interpreter
from convmark.machine.state import bound, thread_cautions
from convmark.worker import binding
from convmark.worker.failure import CaseFailure

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux binds processes to CPUs")


@pytest.mark.parametrize(
    ("text", "numbers", "written"),
    [
        ("3", [3], "3"),
        ("3,1,0", [0, 1, 3], "0-1,3"),
        ("0-14:2", [0, 2, 4, 6, 8, 10, 12, 14], "0-14:2"),
        ("0,2", [0, 2], "0,2"),
        ("0-1,4-5,4", [0, 1, 4, 5], "0-1,4-5"),
    ],
)
def test_a_list_of_cpus_is_read_as_taskset_reads_it_and_has_one_spelling(
    text: str, numbers: list[int], written: str
) -> None:
    assert cpu_numbers(text) == numbers
    assert cpu_list(numbers) == written
    assert read({"cpus": text}).bound_to == written


@pytest.mark.parametrize("text", ["", "3-1", "0,", "-1", "0-99999", "0-4:0", "x", "0 1"])
def test_what_is_no_list_of_cpus_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(OptionError, match=r"^--cpus: must be CPUs as taskset lists them, such as"):
        read({"cpus": text})


def test_a_case_has_its_cpus_in_its_name_and_in_one_spelling() -> None:
    case = Case(model="net", task="infer", cpus="0-1,3", threads="2")
    assert case.name == "net-infer-cpu-b1-float32-t2-cpus0-1+3"
    assert Case(model="net", task="infer", cpus="numa1").name.endswith("-float32-numa1")
    assert Case(model="net", task="infer", cpus="").cpus is None
    for text in ("1,0", "0,1", "numa", "numa01", "all", "0-99999"):
        with pytest.raises(CaseError, match="cpus must be a list such as"):
            Case(model="net", task="infer", cpus=text)


def test_a_node_and_cpus_of_ones_own_are_not_asked_for_together() -> None:
    assert read({"numa": "1"}).bound_to == "numa1"
    with pytest.raises(
        OptionError, match="--numa: chooses the CPUs itself, got 1 together with --cpus 0"
    ):
        read({"numa": "1"}, {"cpus": "0"})
    assert read({"numa": "1", "cpus": "default"}, {"cpus": "0"}).bound_to == "numa1"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two nodes of four CPUs and one of memory alone; a cpuset leaves 0 to 5 and the first two."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3, 4, 5}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", None, raising=False)  # it is there
    files = {
        "sys/devices/system/cpu/online": "0-7",
        "sys/devices/system/node/online": "0-3",
        "sys/devices/system/node/node0/cpulist": "0-3",
        "sys/devices/system/node/node1/cpulist": "4-7",
        "sys/devices/system/node/node2/cpulist": "",
        "proc/self/status": "Name:\tx\nMems_allowed_list:\t0-2\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    return tmp_path


def test_cpus_and_the_memory_of_a_node_are_what_the_worker_is_told(root: Path) -> None:
    assert bound(None, root) is None
    assert bound("1,3", root) == {"cpus": [1, 3]}
    assert bound("numa0", root) == {"cpus": [0, 1, 2, 3], "node": 0}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("6-9", "--cpus: there is no CPU 8-9, got 6-9; online are 0-7"),
        (
            "4-7",
            "--cpus: this process may not use CPU 6-7, got 4-7; its container, cpuset or taskset "
            "leaves it 0-5",
        ),
        ("numa1", "--numa: this process may not use CPU 6-7, got 1; its container"),
        ("numa2", "--numa: node 2 has memory but no CPUs; choose CPUs with --cpus"),
        ("numa3", "--numa: this process may not use the memory of node 3: its container or cpuset"),
        ("numa4", "--numa: there is no node 4, online are 0-3"),
    ],
)
def test_cpus_that_are_not_there_or_not_for_this_process_are_refused(
    root: Path, asked: str, words: str
) -> None:
    with pytest.raises(OptionError) as refused:
        bound(asked, root)
    assert str(refused.value).startswith(words)


def test_a_system_without_nodes_or_without_binding_says_so(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OptionError, match="this kernel reports no NUMA nodes, got 0; use --cpus"):
        bound("numa0", tmp_path / "nothing")
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(OptionError, match="--cpus: needs Linux, because darwin cannot bind"):
        bound("0", root)


def test_threads_that_cannot_all_run_at_once_are_named() -> None:
    lines = list(thread_cautions(["default", "1", "2", "4", "8"], 4, 1.5))
    assert lines == [
        "--threads 8: more than the 4 logical CPUs that the process may use: the threads take "
        "turns",
        "--threads 2,4: more than the container's quota of 1.5 CPUs: the threads pause when it is "
        "used up",
    ]
    assert list(thread_cautions(["default", "4"], 4, None)) == []


@linux
def test_a_run_on_the_small_cores_alone_is_told_from_one_on_the_large(tmp_path: Path) -> None:
    for number in range(8):
        core = tmp_path / f"cpu{number}"
        (core / "cpufreq").mkdir(parents=True)
        (core / "cpu_capacity").write_text("1024\n" if number < 4 else "446\n")
        (core / "cpufreq/cpuinfo_max_freq").write_text("3000000\n")
    (tmp_path / "cpufreq").mkdir()
    folder = str(tmp_path)
    assert binding.kinds_of([0, 1, 4], folder) == "1024/3000000:2,446/3000000:1"
    assert binding.kinds_of(range(8), folder) == ""  # all of the machine
    for number in range(4):
        (tmp_path / f"cpu{number}" / "cpu_capacity").write_text("446\n")
    assert binding.kinds_of([0, 1], folder) == ""  # one kind of core
    assert binding.kinds_of([0], str(tmp_path / "none")) == ""


def test_a_process_of_other_cpus_than_its_case_is_refused() -> None:
    own = cpu_list(os.sched_getaffinity(0))
    numbers = {"cpus": cpu_numbers(own)}
    case, free = Case(model="net", task="infer", cpus=own), Case(model="net", task="infer")
    binding.check_process(free, None)
    binding.check_process(case, numbers)
    for one, told in ((free, numbers), (case, None), (case, {"cpus": [*numbers["cpus"], 9999]})):
        with pytest.raises(CaseFailure, match=f"the worker is bound to {own}; start the run again"):
            binding.check_process(one, told)
    with pytest.raises(CaseFailure, match=r"threads may run on CPU .*has set their affinity"):
        binding.check_threads(case, {"cpus": [9999]})


# -- real workers ----------------------------------------------------------------------------------

FIRST = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0


@pytest.fixture(scope="module", params=["tensorflow", "torch"])
def one_cpu(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Interpreter, str]]:
    """An interpreter bound to one CPU; PyTorch counts its CPUs as it is imported, by the zygote."""
    variables = environ(tmp_path_factory.mktemp("bound"), OMP_WAIT_POLICY="PASSIVE")
    skip_without(request.param)
    with Interpreter(
        environ=variables, folder=BUILDERS, backend=request.param, cpus=str(FIRST)
    ) as interpreter:
        yield interpreter, request.param


@linux
@pytest.mark.skipif(os.cpu_count() == 1, reason="on one CPU every process is bound to it")
def test_a_bound_worker_has_so_many_threads_and_none_of_them_elsewhere(
    one_cpu: tuple[Interpreter, str],
) -> None:
    interpreter, backend = one_cpu
    asked = measured("settingnets:plain", backend=backend, cpus=str(FIRST))
    asked["case"]["threads"] = "default"
    answer = interpreter.answer({**asked, "smoke": True})
    found = answer.event("read_back") or {}
    assert (answer.status, found["cores"], found["pool_threads"]) == ("ok", 1, 1)
    unbound = interpreter.answer(smoked("settingnets:plain") | {"backend": backend})
    assert "asked for cpus of any number" in unbound.message
    strayed = interpreter.answer({**asked, "case": {**asked["case"], "model": "settingnets:roams"}})
    assert strayed.status == "error"
    assert f"settingnets:roams: cpus {FIRST} was asked for, 1 of " in strayed.message
