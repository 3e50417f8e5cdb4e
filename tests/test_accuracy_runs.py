"""The tasks accuracy and waterfall as a user asks for them, with a stand-in for the workers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_worker
import pytest
import scipy.special  # noqa: F401 - an in-process session forgets what it was first to import

from convmark.cli import main
from convmark.report.build import build
from convmark.report.figures import figures_of
from convmark.report.figures.figure import drawn_svg, figure_rows, whole_spec
from convmark.results.reading import read_run
from convmark.results.run_file import RunFile
from convmark.session.learning import TABLE

ACCURACY = ["run", "--tasks", "accuracy", "--models", "lenet5,mini_resnet"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CONVMARK_MNIST", raising=False)
    monkeypatch.setattr("convmark.interpreter.Interpreter", fake_worker.FakeInterpreter)
    return tmp_path


def only_run(folder: Path) -> Path:
    (path,) = folder.glob("results/*/0001.csv")
    return path


def test_a_run_has_a_row_for_each_seed_and_five_epochs_for_each_row(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*ACCURACY, "--seeds", "5,7"]) == 0
    rows = read_run(only_run(folder))
    found = {(row.model, row.process, row.seed, row.processes) for row in rows}
    assert found == {(m, n, s, 2) for m in ("lenet5", "mini_resnet") for n, s in ((1, 5), (2, 7))}
    assert {(row.task, row.batch_size, row.status, row.call_path) for row in rows} == {
        ("accuracy", 256, "ok", "fit")
    }
    assert {(row.fraction, row.epochs, row.target_accuracy) for row in rows} == {(1.0, 5, 0.97)}
    assert {row.seed: row.accuracy for row in rows} == pytest.approx({5: 0.985, 7: 0.987})
    assert {row.samples_to_target for row in rows} == {150_000}
    epochs = TABLE.of(only_run(folder))
    assert len(epochs) == 4 * 5
    assert {(one.order, one.seed) for one in epochs} == {(row.order, row.seed) for row in rows}
    printed = capsys.readouterr()
    assert "epoch 5/5 ended, validation accuracy 0.9850" in printed.err
    assert "test accuracy 0.9870" in printed.err
    summary = printed.out
    assert "0.9860" in summary  # the mean
    assert "0.0014" in summary  # and the spread over the seeds
    assert "2 of 2" in summary
    assert "step p50" not in summary


def test_a_part_of_the_data_is_said_in_the_row_and_under_the_table(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*ACCURACY, "--seeds", "0", "--fraction", "0.1"]) == 0
    assert {row.fraction for row in read_run(only_run(folder))} == {0.1}
    assert "on only a part of the data (--fraction 0.1)" in capsys.readouterr().out


def test_by_default_nothing_is_trained_on_data(folder: Path) -> None:
    assert main(["run", "--models", "lenet5"]) == 0
    assert {row.task for row in read_run(only_run(folder))} == {"train", "infer"}
    assert not list(folder.glob("results/*/*.epochs.csv"))


def test_timed_tasks_and_accuracy_go_together(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--models", "lenet5", "--tasks", "train,accuracy,waterfall", "--seeds", "0,1,2"]
    assert main(["run", *options]) == 0
    tasks = [row.task for row in read_run(only_run(folder))]
    assert {task: tasks.count(task) for task in tasks} == {
        "train": 3,
        "accuracy": 3,
        "waterfall": 3,
    }
    summary = capsys.readouterr().out
    for words in ("step p50", "reached", "predict on batch", "9 rows in"):
        assert words in summary


def test_a_row_that_ctrl_c_met_has_its_epochs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: RunFile, *args: Any) -> None:
        append(self, *args)
        raise KeyboardInterrupt

    append = RunFile.append
    monkeypatch.setattr(RunFile, "append", interrupted)
    assert main([*ACCURACY, "--seeds", "5"]) == 130
    (row,) = read_run(only_run(folder))
    assert [(one.order, one.epoch) for one in TABLE.of(only_run(folder))] == [
        (row.order, number) for number in range(1, 6)
    ]
    monkeypatch.setattr(RunFile, "append", append)
    assert main([*ACCURACY, "--seeds", "5", "--resume"]) == 0
    assert len(TABLE.of(only_run(folder))) == 2 * 5


def test_an_interrupted_run_goes_on_with_the_seeds_that_it_lacks(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*ACCURACY, "--seeds", "5,7,9"]
    monkeypatch.setattr(fake_worker.FakeInterpreter, "interrupt_after", 2)
    assert main(asked) == 130
    monkeypatch.setattr(fake_worker.FakeInterpreter, "interrupt_after", None)
    assert len(read_run(only_run(folder))) == 2
    assert main([*asked[:-1], "5,7", "--resume"]) == 2
    assert "--resume: " in capsys.readouterr().err
    assert main([*asked, "--fraction", "0.5", "--resume"]) == 2
    assert "fraction was 1.0, is 0.5" in capsys.readouterr().err
    assert main([*asked, "--resume"]) == 0
    rows = read_run(only_run(folder))
    assert sorted((row.model, row.seed) for row in rows) == [
        (model, seed) for model in ("lenet5", "mini_resnet") for seed in (5, 7, 9)
    ]
    assert len(TABLE.of(only_run(folder))) == 6 * 5


BAD = [
    (["--mnist", "broken.npz"], {}, "--mnist: {folder}/broken.npz: y_train: expected labels, "),
    ([], {"CONVMARK_MNIST": "/b.npz"}, "CONVMARK_MNIST: /b.npz: y_train: expected labels, "),
    (["--fraction", "2"], {}, "--fraction: must be a number above 0 and at most 1, got '2'"),
    (["--seeds", "a"], {}, "--seeds: must be a whole number of at least 0, got 'a'"),
    (["--batch-sizes", "auto"], {}, "--tasks: --batch-sizes auto searches for train and infer al"),
    (["--shard", "1/2"], {}, "--tasks: --shard shares out train and infer alone, got 'accuracy'"),
    (["--ray", "10.0.0.1:1"], {}, "--tasks: --ray measures train and infer alone, got 'accur"),
    (["--backend", "torch"], {}, "lenet5: task accuracy is of the backend tensorflow and one rep"),
]


@pytest.mark.parametrize(("options", "environ", "message"), BAD)
def test_what_cannot_be_is_refused_on_one_line_before_anything_is_measured(
    options: list[str],
    environ: dict[str, str],
    message: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert main([*ACCURACY, *options]) == 2
    error = capsys.readouterr().err
    assert message.format(folder=folder) in error
    assert error.count("\n") == 1
    assert not list(folder.glob("results/*/*"))


@pytest.mark.parametrize("command", ["ab", "bisect"])
def test_what_compares_step_times_refuses_tasks_without(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sides = [".", "."] if command == "ab" else ["--good", "2.20.0", "--bad", "2.21.0"]
    assert main([command, *sides, "--models", "lenet5", "--tasks", "waterfall"]) == 2
    error = capsys.readouterr().err
    assert f"--tasks: convmark {command} compares train and infer alone, got 'waterfall'" in error


def test_a_report_puts_what_was_published_beside_what_was_trained(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*ACCURACY, "--seeds", "0,1"]) == 0
    assert main([*ACCURACY, "--seeds", "1,2"]) == 0  # seed 1 again: it counts once
    assert main([*ACCURACY, "--seeds", "0", "--fraction", "0.5"]) == 0
    capsys.readouterr()
    assert main(["report", "--style", "accuracy", "--format", "markdown"]) == 0
    report = build([folder / "results"], style="accuracy")
    (table,) = report.tables
    whole, other, part, _ = table.records()
    assert (whole["model"], other["model"], part["model"]) == ("lenet5", "mini_resnet", "lenet5")
    assert whole["accuracy"] == pytest.approx(0.981)
    assert whole["accuracy_sd"] == pytest.approx(0.001)
    assert whole["accuracy_published"] == 0.9819
    assert whole["accuracy_difference"] == pytest.approx(-0.0009)
    assert (whole["loss"], whole["loss_published"]) == (pytest.approx(0.06), 0.0587)
    assert (whole["seeds"], whole["reached"], whole["runs"]) == (3, "3 of 3", "0001, 0002")
    assert (part["part"], part["accuracy_published"]) == (0.5, None)
    printed = capsys.readouterr().out
    assert "0.9810" in printed
    assert " cpu, TensorFlow 2.99.0." in printed  # said once, for it is the same of all
    assert "hardware" not in printed


def test_seeds_that_failed_are_told_in_the_report(folder: Path) -> None:
    assert main(["run", "--tasks", "accuracy", "--models", "lenet5,broken", "--seeds", "0"]) == 1
    (table,) = build([folder / "results"], style="accuracy").tables
    rows = {row["model"]: row for row in table.records()}
    assert (rows["broken"]["seeds"], rows["broken"]["failed"]) == (0, 1)
    assert rows["broken"]["why"] == "error: RuntimeError: no weights"
    assert (rows["lenet5"]["seeds"], rows["lenet5"]["failed"]) == (1, None)


def test_a_full_report_has_both_tables_and_a_figure_and_times_no_accuracy(folder: Path) -> None:
    assert main([*ACCURACY[:1], "--models", "lenet5", "--tasks", "train,accuracy,waterfall"]) == 0
    report = build([folder / "results"])
    tables = {table.key: table for table in report.tables}
    assert [row["task"] for row in tables["architectures"].records()] == ["train"]
    assert len(tables["distribution"].rows) == 1
    assert len(tables["accuracy"].rows) == 1
    ways = tables["waterfall"].records()
    assert [row["way"] for row in ways] == [
        *("compiled step", "compiled step, fed by tf.data", "train_on_batch", "fit"),
        *("compiled step", "predict_on_batch", "predict"),
    ]
    fit = ways[3]
    assert (fit["step_s"], fit["added_s"]) == (pytest.approx(0.012), pytest.approx(0.002))
    assert (fit["added_share"], fit["call_s"]) == (pytest.approx(0.2), pytest.approx(0.2))
    assert ways[0]["added_s"] is None
    (figure,) = [figure for figure in figures_of(report.tables) if figure.key == "waterfall"]
    svg = drawn_svg(whole_spec(figure.specs[0], figure_rows(figure.table)))
    assert "training: fit" in svg
    assert "inference: predict_on_batch" in svg
    assert "added by the way of calling" in svg


def test_a_table_over_versions_leaves_out_what_has_no_step_time(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--models", "lenet5", "--tasks", "train,accuracy"]) == 0
    capsys.readouterr()
    assert main(["compare", "--across", "tensorflow"]) == 0
    printed = capsys.readouterr().out
    assert "lenet5-train" in printed
    assert "accuracy" not in printed


def test_without_either_the_report_has_neither(folder: Path) -> None:
    assert main(["run", "--models", "lenet5", "--tasks", "train"]) == 0
    keys = [table.key for table in build([folder / "results"]).tables]
    assert "accuracy" not in keys
    assert "waterfall" not in keys


SUITE = """
import pytest
from convmark.core.suites import ACCURACY, TRAINING


@pytest.mark.convmark(ACCURACY)
def test_accuracy(measured, benchmark):
    measured.replay(benchmark)


@pytest.mark.convmark(TRAINING)
def test_training(measured, benchmark):
    measured.replay(benchmark)
"""

Bench = Callable[..., pytest.RunResult]


@pytest.fixture
def bench(pytester: pytest.Pytester, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.chdir(pytester.path)
    monkeypatch.setattr("convmark.machine.hardware.load_nvml", lambda: None)
    pytester.mkdir("bench").joinpath("test_both.py").write_text(SUITE)
    (pytester.path / "pyproject.toml").write_text(
        "[tool.pytest.ini_options]\n[tool.convmark]\nshort_options = true\n"
    )

    def run(*options: str) -> pytest.RunResult:
        return pytester.runpytest_inprocess("bench", "--models=lenet5", *options)

    return run


def rows_of(pytester: pytest.Pytester, run: str) -> list[Any]:
    (path,) = pytester.path.glob(f"results/*/{run}.csv")
    return read_run(path)


def test_under_pytest_accuracy_is_asked_for(bench: Bench, pytester: pytest.Pytester) -> None:
    bench().assert_outcomes(passed=1)
    assert {row.task for row in rows_of(pytester, "0001")} == {"train"}
    result = bench("--accuracy", "--benchmark-json=out.json")
    result.assert_outcomes(passed=2)
    rows = rows_of(pytester, "0002")
    assert [row.task for row in rows].count("accuracy") == 3
    assert {row.seed for row in rows if row.task == "accuracy"} == {0, 1, 2}
    found = json.loads((pytester.path / "out.json").read_text())["benchmarks"]
    (learned,) = [one for one in found if "accuracy" in one["name"]]
    assert learned["stats"]["rounds"] == 15  # an epoch each
    assert learned["stats"]["median"] == 8.0
    assert learned["extra_info"]["accuracy"] == pytest.approx([0.98, 0.981, 0.982])


def test_what_was_not_asked_for_again_is_not_missing(
    bench: Bench, pytester: pytest.Pytester
) -> None:
    bench("--accuracy").assert_outcomes(passed=2)
    again = bench("--accuracy", "--benchmark-compare", "--compare-budget=0")
    again.assert_outcomes(passed=2)
    assert "lenet5-accuracy-cpu-b256-float32  accuracy" in again.stdout.str()
    without = bench("--benchmark-compare", "--compare-budget=0")
    without.assert_outcomes(passed=1)
    assert "accuracy-cpu" not in without.stdout.str()


def test_a_seed_that_fails_fails_its_test_alone(bench: Bench) -> None:
    result = bench("--accuracy", "--models=broken,lenet5")
    result.assert_outcomes(passed=2, failed=2)


def test_digits_that_are_not_to_be_had_end_the_session_with_4(bench: Bench) -> None:
    result = bench("--accuracy", "--mnist=broken.npz")
    assert result.ret == 4
    assert "y_train: expected labels, found only x_train" in result.stderr.str()
