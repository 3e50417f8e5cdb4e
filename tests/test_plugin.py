"""`pytest bench` as a pytest-benchmark user knows it, with a stand-in for the worker processes."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import fake_worker
import pytest
import scipy.special  # noqa: F401 - an in-process session forgets what it was first to import

from convmark.results.reading import read_run

SUITE = """
import pytest
from convmark.core.suites import Suite

SUITE = Suite(models=("lenet5", "conv_layer"), tasks=("train",), batch_sizes=(32,))


@pytest.mark.convmark(SUITE)
def test_speed(measured, benchmark):
    measured.replay(benchmark)
"""

LENET5 = "lenet5-train-cpu-b32-float32"

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
        "[tool.pytest.ini_options]\n[tool.convmark]\nshort_options = true\n"
    )

    def run_bench(*options: str) -> pytest.RunResult:
        return pytester.runpytest_inprocess("bench", *options)

    return run_bench


def saved(pytester: pytest.Pytester) -> list[Path]:
    return sorted(pytester.path.glob("results/*/*.csv"))


def test_every_case_becomes_a_test_and_every_process_a_row(
    run: Run, pytester: pytest.Pytester
) -> None:
    result = run()
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines([f"*{LENET5}*", "*6 rows in *0001.csv"])
    rows = read_run(saved(pytester)[0])
    assert [row.process for row in rows] == [1, 1, 2, 2, 3, 3]
    assert {row.model for row in rows} == {"lenet5", "conv_layer"}
    assert all(row.status == "ok" and row.tensorflow == "2.99.0" for row in rows)


def test_the_benchmark_reports_exactly_the_recorded_steps(
    run: Run, pytester: pytest.Pytester
) -> None:
    run("--benchmark-json=out.json").assert_outcomes(passed=2)
    benchmarks = json.loads((pytester.path / "out.json").read_text())["benchmarks"]
    found = {bench["fullname"]: bench for bench in benchmarks}
    bench = found[LENET5]
    rows = [row for row in read_run(saved(pytester)[0]) if row.model == "lenet5"]
    assert bench["stats"]["rounds"] == 300 == sum(row.steps or 0 for row in rows)
    assert bench["stats"]["min"] == min(row.step_time_min_s or 0 for row in rows)
    assert bench["stats"]["max"] == max(row.step_time_max_s or 0 for row in rows)
    assert bench["params"]["model"] == "lenet5"
    assert bench["extra_info"]["parameters"] == 61706


def test_no_stray_folder_is_left(run: Run, pytester: pytest.Pytester) -> None:
    run()
    run("--collect-only")
    run("--benchmark-autosave")
    run("--processes=0")
    assert not (pytester.path / ".benchmarks").exists()


def test_collect_only_starts_no_worker_and_saves_nothing(
    run: Run, pytester: pytest.Pytester, worker: type[fake_worker.FakeInterpreter]
) -> None:
    result = run("--collect-only", "-q")
    result.stdout.fnmatch_lines([f"*test_speed[[]{LENET5}[]]"])
    assert worker.made == 0
    assert saved(pytester) == []


def test_only_selected_cases_are_measured(run: Run, pytester: pytest.Pytester) -> None:
    run("-k", "lenet5").assert_outcomes(passed=1, deselected=1)
    assert {row.model for row in read_run(saved(pytester)[0])} == {"lenet5"}


def test_skipped_benchmarks_are_not_measured(
    run: Run, pytester: pytest.Pytester, worker: type[fake_worker.FakeInterpreter]
) -> None:
    run("--benchmark-skip").assert_outcomes(skipped=2)
    assert worker.made == 0
    assert saved(pytester) == []


def test_a_run_of_several_replicas_ends_with_their_scaling(
    run: Run, pytester: pytest.Pytester
) -> None:
    result = run("--replicas=1,2", "--models=lenet5")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        ["case * replicas * efficiency *", f"{LENET5} * 1 * 100.0 % *", f"{LENET5} * 2 * 100.0 % *"]
    )
    found = {row.case.name: row.effective_batch_size for row in read_run(saved(pytester)[0])}
    assert found == {LENET5: 32, f"{LENET5}-r2": 64}


def test_a_suite_of_replicas_says_what_it_needs_where_it_has_no_case(
    run: Run, pytester: pytest.Pytester
) -> None:
    (pytester.path / "bench" / "test_speed.py").write_text(
        SUITE.replace("batch_sizes=(32,)", "batch_sizes=(32,), scaling=True")
    )
    result = run("--devices=cpu")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    said = "convmark: test_speed has no case here with these options: it measures two GPUs*"
    result.stdout.fnmatch_lines([said])
    run("--devices=cpu", "--replicas=1,2").assert_outcomes(passed=4)


def test_clusters_and_sustained_steps_are_of_the_command_line(
    run: Run, pytester: pytest.Pytester
) -> None:
    (pytester.path / "pyproject.toml").write_text('[tool.convmark]\ncluster = "local"\n')
    result = run()
    assert result.ret == 4
    result.stderr.fnmatch_lines(
        ["ERROR: [[]tool.convmark] cluster: is an option of `convmark run`*"]
    )
    assert run("--replicas=2", "--backend=jax").ret == 4
    (pytester.path / "pyproject.toml").write_text('[tool.convmark]\nsustain = "20m"\n')
    told = "ERROR: [[]tool.convmark] sustain: is an option of `convmark run`, *"
    run().stderr.fnmatch_lines([told])


def test_disabled_benchmarks_run_once_untimed_and_leave_no_row(
    run: Run, pytester: pytest.Pytester
) -> None:
    run("--benchmark-disable").assert_outcomes(passed=2)
    assert saved(pytester) == []


def test_it_works_without_pytest_benchmark(run: Run, pytester: pytest.Pytester) -> None:
    run("-p", "no:benchmark").assert_outcomes(passed=2)
    assert len(saved(pytester)) == 1


def test_columns_sorting_and_grouping_are_pytest_benchmarks_own(run: Run) -> None:
    result = run(
        "--benchmark-columns=median,rounds",
        "--benchmark-sort=name",
        "--benchmark-group-by=param:model",
    )
    result.stdout.fnmatch_lines(["*benchmark 'model=conv_layer': 1 tests*", "*Median*Rounds*"])


def test_the_first_run_ever_has_nothing_to_compare_with_says_so_and_passes(run: Run) -> None:
    result = run("--benchmark-compare", "--benchmark-compare-fail=median:5%")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["convmark: nothing to compare with yet*"])


def test_a_second_run_is_compared_with_the_first(run: Run) -> None:
    run()
    result = run("--benchmark-compare", "-v")
    assert result.ret == 0
    result.stdout.fnmatch_lines_random([f"{LENET5} (0001)*", f"{LENET5} (NOW)*"])


@pytest.mark.parametrize(
    ("options", "shown"),
    [((), False), (("-v",), True), (("--benchmark-sort=name",), True), (("-q",), False)],
)
def test_pytest_benchmarks_table_is_there_where_it_is_asked_for(
    run: Run, options: tuple[str, ...], shown: bool
) -> None:
    assert any("Outliers:" in line for line in run(*options).outlines) is shown


def test_the_history_gives_the_same_statistics_as_the_run_itself(
    run: Run, pytester: pytest.Pytester
) -> None:
    columns = "--benchmark-columns=min,max,mean,stddev,median,iqr,rounds"
    run()
    saved(pytester)[0].rename(pytester.path / "first.csv")
    for path in pytester.path.glob("results/*/*.npz"):
        path.rename(pytester.path / "first.steps.npz")
    result = run("--benchmark-compare=first.csv", columns)
    (then,) = [line for line in result.outlines if line.startswith(f"{LENET5} (first)")]
    (now,) = [line for line in result.outlines if line.startswith(f"{LENET5} (NOW)")]
    assert then.split()[2:] == now.split()[2:]


def test_a_broken_limit_fails_the_test_in_one_line_without_a_traceback(
    run: Run, worker: type[fake_worker.FakeInterpreter], pytester: pytest.Pytester
) -> None:
    run()
    worker.factor = 1.2
    result = run(
        "--benchmark-compare=0001", "--benchmark-compare-fail=median:5%", "--junit-xml=junit.xml"
    )
    result.assert_outcomes(failed=2)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["against 0001.csv: *median*"])
    result.stdout.no_fnmatch_line("*Traceback*")
    failures = ElementTree.parse(pytester.path / "junit.xml").findall(".//failure")
    assert len(failures) == 2


def test_a_limit_that_a_change_breaks_which_is_meant_is_said_and_passes(
    run: Run, worker: type[fake_worker.FakeInterpreter]
) -> None:
    run()
    worker.factor = 1.2
    limit = "--benchmark-compare-fail=median:5%"
    result = run("--benchmark-compare=0001", limit, "--allow-change=lenet5-*")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines([f"convmark: {LENET5}: against 0001*; allowed by --allow-change"])


def test_the_failed_test_runs_again_with_lf(
    run: Run, worker: type[fake_worker.FakeInterpreter]
) -> None:
    run("--models=lenet5,broken").assert_outcomes(passed=1, failed=1)
    run("--models=lenet5,broken", "--lf").assert_outcomes(failed=1)


def test_a_run_that_is_not_there_is_a_usage_error(run: Run) -> None:
    run()
    result = run("--benchmark-compare=0099")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: *no run '0099'*newest: 0001*"])


def test_a_limit_without_a_comparison_is_a_usage_error(run: Run) -> None:
    result = run("--benchmark-compare-fail=median:5%")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: --benchmark-compare-fail: needs --benchmark-compare*"])


def test_a_limit_beside_a_commit_is_a_usage_error_for_no_run_of_it_is_there(run: Run) -> None:
    result = run("--benchmark-compare=git:HEAD", "--benchmark-compare-fail=median:5%")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: --benchmark-compare-fail: *git:HEAD is none; leave it*"])


def test_a_path_taken_for_a_runs_name_is_explained(run: Run, pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_inprocess("--benchmark-compare", "bench")
    assert result.ret == 4
    result.stderr.fnmatch_lines(
        ["ERROR: --benchmark-compare: took the folder 'bench'*pytest bench*"]
    )


def test_a_case_that_fails_is_a_row_and_a_failed_test_and_the_others_go_on(
    run: Run, pytester: pytest.Pytester
) -> None:
    result = run("--models=broken,lenet5")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["error in process 1 of 3: RuntimeError: no weights"])
    result.stdout.no_fnmatch_line("*Traceback*")
    rows = read_run(saved(pytester)[0])
    assert {(row.model, row.status) for row in rows} == {("broken", "error"), ("lenet5", "ok")}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--models=lenet6", "ERROR: lenet6: no such model; *did you mean lenet5*"),
        ("--devices=gpu:0", "ERROR: --devices: gpu:0 does not exist, only cpu*"),
        ("--devices=tpu", "ERROR: --devices: unknown device 'tpu'*"),
        ("--precisions=float8", "ERROR: --precisions: unknown name 'float8'*"),
        (
            "--batch-sizes=0",
            "ERROR: --batch-sizes: must be a whole number of at least 1, or auto*'0'",
        ),
        ("--processes=many", "ERROR: --processes: must be a whole number*'many'"),
        ("--results=file", "ERROR: --results: must be a folder*"),
    ],
)
def test_a_bad_option_is_one_line_and_exit_4_before_anything_is_measured(
    run: Run, pytester: pytest.Pytester, option: str, message: str
) -> None:
    (pytester.path / "file").write_text("")
    result = run(option)
    assert result.ret == 4
    assert [line for line in result.errlines if line] == [
        line for line in result.errlines if line.startswith("ERROR: ")
    ]
    result.stderr.fnmatch_lines([message])
    assert saved(pytester) == []


def test_cases_are_not_measured_side_by_side(run: Run, pytester: pytest.Pytester) -> None:
    pytest.importorskip("xdist", reason="needs pytest-xdist")
    (pytester.path / "bench" / "test_other.py").write_text("def test_other(): pass\n")
    result = pytester.runpytest_subprocess("bench", "-n", "2")
    assert result.ret == 1
    result.assert_outcomes(errors=2, passed=1)
    result.stdout.fnmatch_lines(["*disturb each other: leave out -n*"])
    assert pytester.runpytest_subprocess("bench/test_other.py", "-n", "1").ret == 0
    assert saved(pytester) == []


def test_options_come_from_pyproject_too(run: Run, pytester: pytest.Pytester) -> None:
    (pytester.path / "pyproject.toml").write_text(
        '[tool.pytest.ini_options]\n[tool.convmark]\nprocesses = 1\nmodels = ["lenet5"]\n'
    )
    run()
    assert [row.model for row in read_run(saved(pytester)[0])] == ["lenet5"]


def test_other_benchmarks_keep_their_own_storage(
    pytester: pytest.Pytester, worker: type[fake_worker.FakeInterpreter]
) -> None:
    pytester.makepyfile("def test_sum(benchmark): benchmark.pedantic(sum, ([1, 2],), rounds=3)")
    pytester.runpytest_inprocess("--benchmark-autosave").assert_outcomes(passed=1)
    assert list(pytester.path.glob(".benchmarks/*/*.json"))
    result = pytester.runpytest_inprocess("--benchmark-compare")
    result.stdout.fnmatch_lines_random(["test_sum (0001_*)*", "test_sum (NOW)*"])
    assert worker.made == 0


def test_the_private_seam_of_pytest_benchmark_is_as_expected(
    pytester: pytest.Pytester,
) -> None:
    """Everything that `bridge` relies on; a new pytest-benchmark must be tried when this fails."""
    pytester.makepyfile(
        """
        def test_seam(benchmark, request):
            session = request.config._benchmarksession
            assert hasattr(session, "storage") and hasattr(session, "compare")
            assert hasattr(session, "compare_fail") and hasattr(session, "disabled")
            assert session.compared_mapping == {}
            assert callable(session.handle_loading)
            assert callable(benchmark._timer) and benchmark.skipped is False
            assert benchmark._mode is None
            benchmark.pedantic(int)
            assert benchmark.stats.fullname == benchmark.fullname
        """
    )
    pytester.runpytest_inprocess().assert_outcomes(passed=1)


def test_another_interpreter_is_measured_where_it_is_asked_for(
    run: Run, worker: type[fake_worker.FakeInterpreter], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    made = worker.__init__

    def told(self: fake_worker.FakeInterpreter, *arguments: object, **settings: object) -> None:
        asked.extend(arguments)
        made(self, *arguments, **settings)

    monkeypatch.setattr(worker, "__init__", told)
    assert run("--python", sys.executable).ret == 0
    assert asked == [sys.executable]


def test_pytest_measures_one_interpreter_and_names_the_commands_for_more(run: Run) -> None:
    result = run("--python", sys.executable, "--env", "tensorflow==2.20.*")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: --python, --env: pytest measures one interpreter, got *"])
