"""`pytest bench --resume`, with a stand-in for the worker processes."""

from __future__ import annotations

import json
from collections.abc import Callable

import fake_worker
import pytest
import scipy.special  # noqa: F401 - an in-process session forgets what it was first to import

from convmark.results.reading import read_run

SUITE = """
import pytest
from convmark.core.suites import Suite

SUITE = Suite(models=("lenet5", "conv_layer"), tasks=("train",), batch_sizes=(32, 64))


@pytest.mark.convmark(SUITE)
def test_speed(measured, benchmark):
    measured.replay(benchmark)
"""

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> type[fake_worker.FakeInterpreter]:
    class Worker(fake_worker.FakeInterpreter):
        made = 0

    monkeypatch.setattr("convmark.interpreter.Interpreter", Worker)
    monkeypatch.setattr("convmark.machine.hardware.load_nvml", lambda: None)
    return Worker


@pytest.fixture
def run(pytester: pytest.Pytester, worker: type[fake_worker.FakeInterpreter]) -> Run:
    folder = pytester.mkdir("bench")
    (folder / "test_speed.py").write_text(SUITE)
    (pytester.path / "pyproject.toml").write_text(
        "[tool.pytest.ini_options]\n[tool.convmark]\nshort_options = true\nprocesses = 2\n"
    )

    def run_bench(*options: str) -> pytest.RunResult:
        return pytester.runpytest_inprocess("bench", *options, no_reraise_ctrlc=True)

    return run_bench


@pytest.fixture
def interrupted(run: Run, worker: type[fake_worker.FakeInterpreter]) -> Run:
    """What runs the suite again, after Ctrl-C has ended a session at three of its eight rows."""
    worker.interrupt_after = 3
    result = run()
    assert result.ret == 2
    worker.interrupt_after = None
    return run


def test_an_interrupted_session_goes_on_and_its_tests_report_all_steps(
    interrupted: Run, pytester: pytest.Pytester
) -> None:
    (path,) = pytester.path.glob("results/*/*.csv")
    first = path.read_bytes()
    assert len(read_run(path)) == 3
    result = interrupted("--resume", "--benchmark-json=out.json")
    result.assert_outcomes(passed=4)
    assert list(pytester.path.glob("results/*/*.csv")) == [path]
    assert path.read_bytes().startswith(first)
    rows = read_run(path)
    assert [row.order for row in rows] == list(range(1, 9))
    result.stdout.fnmatch_lines(["convmark: resuming *0001.csv: 3 of 8 processes measured"])
    result.stdout.fnmatch_lines(["*8 rows in *0001.csv*"])
    benchmarks = json.loads((pytester.path / "out.json").read_text())["benchmarks"]
    assert [found["stats"]["rounds"] for found in benchmarks] == [200] * 4


def test_nothing_is_started_where_nothing_is_missing(
    run: Run, pytester: pytest.Pytester, worker: type[fake_worker.FakeInterpreter]
) -> None:
    run("--benchmark-json=out.json").assert_outcomes(passed=4)
    (path,) = pytester.path.glob("results/*/*.csv")
    before, out = path.read_bytes(), pytester.path / "out.json"
    info = json.loads(out.read_text())["machine_info"]
    worker.answer = lambda *asked: pytest.fail("a framework is started")  # type: ignore[method-assign,assignment]
    result = run("--resume", "--benchmark-json=out.json")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["convmark: resuming *0001.csv: 8 of 8 processes measured; none*"])
    assert path.read_bytes() == before
    assert json.loads(out.read_text())["machine_info"] == info


def test_a_torn_last_line_is_said_and_its_row_measured_again(
    interrupted: Run, pytester: pytest.Pytester
) -> None:
    (path,) = pytester.path.glob("results/*/*.csv")
    path.write_bytes(path.read_bytes()[:-10])
    result = interrupted("--resume")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["convmark: *0001.csv:4: a torn last line was left out"])
    assert [row.order for row in read_run(path)] == list(range(1, 9))


def test_other_options_are_one_line_and_exit_4(
    interrupted: Run, pytester: pytest.Pytester, worker: type[fake_worker.FakeInterpreter]
) -> None:
    (path,) = pytester.path.glob("results/*/*.csv")
    before = path.read_bytes()
    for option, said in (
        ("--seed=3", "seed was 0, is 3"),
        ("-kconv_layer", "has rows of lenet5-*, which is not selected"),
        ("--models=conv_layer", "has rows of lenet5-*, which is not selected"),
    ):
        result = interrupted("--resume", option)
        assert result.ret == 4
        result.stderr.fnmatch_lines([f"ERROR: --resume: *0001.csv: {said}; *"])
        result.stderr.no_fnmatch_line("*Traceback*")
        assert path.read_bytes() == before


def test_other_options_are_refused_before_a_framework_is_started(
    interrupted: Run, worker: type[fake_worker.FakeInterpreter]
) -> None:
    worker.answer = lambda *asked: pytest.fail("a framework is started")  # type: ignore[method-assign,assignment]
    for compared in ((), ("--benchmark-compare",)):
        result = interrupted("--resume", "--seed=3", *compared)
        assert result.ret == 4
        result.stderr.fnmatch_lines(["ERROR: --resume: *0001.csv: seed was 0, is 3; *"])


def test_a_run_that_goes_on_is_not_compared_with_itself(
    interrupted: Run, pytester: pytest.Pytester
) -> None:
    result = interrupted("--resume", "--benchmark-compare")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["convmark: nothing to compare with yet: *"])


def test_a_run_that_goes_on_is_refused_as_its_own_baseline_by_number_and_by_copy(
    interrupted: Run, pytester: pytest.Pytester
) -> None:
    (path,) = pytester.path.glob("results/*/*.csv")
    before = path.read_bytes()
    (pytester.path / "copy.csv").write_bytes(before)
    for name in ("1", str(path), "copy.csv"):
        result = interrupted("--resume", f"--benchmark-compare={name}")
        assert result.ret == 4
        result.stderr.fnmatch_lines(["ERROR: *the run that is judged*; name an earlier run *"])
        assert path.read_bytes() == before


def test_a_run_that_goes_on_is_compared_with_the_one_before(
    run: Run, worker: type[fake_worker.FakeInterpreter], pytester: pytest.Pytester
) -> None:
    run()
    worker.interrupt_after = 3
    told = "convmark: interrupted, the gate has not passed; --resume continues"
    (line,) = (one for one in run("--benchmark-compare").outlines if told in one)
    assert len(f"! {told} !".replace("--", "--convmark-")) < 80 == len(line)
    worker.interrupt_after = None
    result = run("--resume", "--benchmark-compare", "-v", "--compare-budget=0")
    assert result.ret == 0
    result.stdout.fnmatch_lines_random(["lenet5-train-cpu-b32-float32 (0001)*"])
    assert len(list(pytester.path.glob("results/*/*.csv"))) == 3  # two runs and their verdicts


def test_a_path_taken_for_a_runs_name_is_explained(run: Run, pytester: pytest.Pytester) -> None:
    for path in ("bench", "bench/test_speed.py"):
        result = pytester.runpytest_inprocess("--resume", path)
        assert result.ret == 4
        result.stderr.fnmatch_lines([f"ERROR: --resume: took '{path}' for a run's name; put *"])


def test_without_a_run_there_is_nothing_to_go_on_with(run: Run) -> None:
    result = run("--resume")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: --resume: *has no run yet*"])
