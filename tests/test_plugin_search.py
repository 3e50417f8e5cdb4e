"""`pytest bench --batch-sizes auto`, with a stand-in for the worker processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import fake_worker
import pytest
import scipy.special  # noqa: F401 - an in-process session forgets what it was first to import

from convmark.interpreter import Answer
from convmark.results.reading import read_run

SUITE = """
import pytest
from convmark.core.suites import Suite

SUITE = Suite(models=("lenet5", "conv_layer"), tasks=("train",), batch_sizes=(32,))


@pytest.mark.convmark(SUITE)
def test_speed(measured, benchmark):
    measured.replay(benchmark)
"""

Run = Callable[..., pytest.RunResult]


class Worker(fake_worker.FakeInterpreter):
    """A device that holds 128 samples; a step of lenet5 takes as long at any size."""

    holds = 128
    beyond = "out_of_memory"
    repeats = True
    """Whether what fits once fits again."""

    def answer(self, request: Any, on_event: Any = lambda event: None) -> Answer:
        if request["kind"] != "measure" or request["smoke"]:
            return super().answer(request, on_event)
        if request["case"]["batch_size"] > self.holds or (not self.repeats and not request["fed"]):
            return Answer(status=self.beyond, message="too much", ready_s=0.1)
        return super().answer(request, on_event)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> type[Worker]:
    class Mine(Worker):
        made = 0

    monkeypatch.setattr("convmark.interpreter.Interpreter", Mine)
    monkeypatch.setattr("convmark.machine.hardware.load_nvml", lambda: None)
    return Mine


@pytest.fixture
def run(pytester: pytest.Pytester, worker: type[Worker]) -> Run:
    folder = pytester.mkdir("bench")
    (folder / "test_speed.py").write_text(SUITE)
    (pytester.path / "pyproject.toml").write_text(
        "[tool.pytest.ini_options]\n[tool.convmark]\nshort_options = true\nprocesses = 2\n"
    )

    def run_bench(*options: str) -> pytest.RunResult:
        return pytester.runpytest_inprocess(
            "bench", "--batch-sizes=auto", *options, no_reraise_ctrlc=True
        )

    return run_bench


def test_each_test_reports_the_size_that_was_found_for_its_case(
    run: Run, pytester: pytest.Pytester
) -> None:
    result = run("--benchmark-json=out.json", "-v", "-k", "lenet5")
    result.assert_outcomes(passed=1, deselected=1)
    result.stdout.fnmatch_lines(
        [
            "convmark: trying lenet5-train-cpu-b32-float32",
            "*test_speed?lenet5-train-cpu-bauto-float32? PASSED*",
            "lenet5-train-cpu-bauto-float32 * 128 *12800 * 2 * 128*",
            "8 rows in *0001.csv",
        ]
    )
    (benchmark,) = json.loads((pytester.path / "out.json").read_text())["benchmarks"]
    assert benchmark["fullname"] == "lenet5-train-cpu-b128-float32"
    assert benchmark["group"] == "train-cpu-b128-float32"
    assert benchmark["stats"]["rounds"] == 200  # 100 steps of either process
    (path,) = pytester.path.glob("results/*/*.csv")
    rows = read_run(path)
    assert [(row.batch_size, row.process, row.measured) for row in rows] == [
        *((size, 1, True) for size in (32, 64, 128)),
        *((size, 1, False) for size in (256, 192, 160, 144)),
        (128, 2, True),
    ]
    assert {row.status for row in rows if not row.measured} == {"out_of_memory"}


def test_a_size_that_fails_but_not_for_memory_fails_its_test_with_the_reason(
    run: Run, worker: type[Worker]
) -> None:
    worker.beyond = "error"
    result = run("-k", "lenet5")
    result.assert_outcomes(failed=1, deselected=1)
    result.stdout.fnmatch_lines(["*error in process 1 of *: too much*"])


def test_where_nothing_fits_the_test_says_so(run: Run, worker: type[Worker]) -> None:
    worker.holds = 0
    result = run("-k", "lenet5")
    result.assert_outcomes(failed=1, deselected=1)
    result.stdout.fnmatch_lines(["*out_of_memory in process 1 of 6: too much*"])
    result.stdout.fnmatch_lines(["lenet5-train-cpu-bauto-float32 *not even one sample fits"])


def test_a_size_that_fits_once_and_not_again_fails_its_test(run: Run, worker: type[Worker]) -> None:
    worker.repeats = False
    result = run("-k", "lenet5")
    result.assert_outcomes(failed=1, deselected=1)
    result.stdout.fnmatch_lines(["*out_of_memory in process 2 of 2: too much*"])


def test_a_search_goes_on_where_it_was_interrupted(
    run: Run, worker: type[Worker], pytester: pytest.Pytester
) -> None:
    worker.interrupt_after = 2
    assert run().ret == 2
    (path,) = pytester.path.glob("results/*/*.csv")
    first = path.read_bytes()
    assert len(read_run(path)) == 2
    worker.interrupt_after = None
    result = run("--resume")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["convmark: resuming *0001.csv: 2 processes measured"])
    assert path.read_bytes().startswith(first)
    rows = read_run(path)
    assert len({(row.case, row.process) for row in rows}) == len(rows) == 16
    assert [row.order for row in rows] == list(range(1, 17))


def test_nothing_is_searched_for_where_benchmarks_are_disabled(
    run: Run, pytester: pytest.Pytester
) -> None:
    run("--benchmark-disable").assert_outcomes(passed=2)
    assert not list(pytester.path.glob("results/*/*.csv"))
