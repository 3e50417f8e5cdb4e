"""Rows of an accuracy, of a waterfall and of exports that no machine measured; what passes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_rows import keep_run
from valid_submission import NOW, honest

from convmark.report.submission import check
from convmark.results.record import COLUMNS, Record
from convmark.session.learning import TABLE, Epoch

FOLDER = Path("new/ada")
ACCURACIES = (0.95, 0.97, 0.98)
LEARNED: dict[str, Any] = {
    **{"dataset": "mnist-06b0d1f124c4", "fraction": 1.0, "training_samples": 50_000, "epochs": 3},
    **{"epoch_time_s": 1.5, "training_loss": 0.1, "training_accuracy": 0.97, "loss": 0.1},
    **{"validation_loss": 0.11, "validation_accuracy": ACCURACIES[-1], "accuracy": 0.979},
    **{"target_accuracy": 0.97, "time_to_target_s": 3.5, "samples_to_target": 100_000},
}
WAYS = {
    **{"waterfall_rounds": 3, "waterfall_steps": 60, "compiled_train_step_s": 0.005},
    **{"fed_train_step_s": 0.006, "fit_step_s": 0.009, "fit_call_s": 0.15},
    **{"compiled_infer_step_s": 0.002, "predict_step_s": 0.004, "predict_call_s": 0.17},
}
EXPORTED = {
    **{"runtime": "litert", "precision": "float32", "exported_bytes": 250_000, "export_s": 0.4},
    **{"largest_abs_error": 1e-7, "largest_rel_error": 1e-6, "top1_agreement": 1.0},
}
TESTED = {name: cell for name, cell in EXPORTED.items() if name != "precision"}
_TIMED = {
    column.name: None
    for column in COLUMNS
    if column.group in ("time", "memory", "check")
    and column.name not in ("process_start_s", "measurement_version", "unsteady")
}


def untimed(task: str, **columns: Any) -> Record:
    (row, *_) = honest("slow", 1)
    sizes = {"flops_per_sample": None, "training_flops_per_sample": None}
    return dataclasses.replace(row, task=task, **{**_TIMED, **sizes, **columns})


LEARNING = untimed("accuracy", **LEARNED)
WATERFALL = untimed("waterfall", **WAYS)
EXPORT = next(
    dataclasses.replace(row, order=1, loss=None, **EXPORTED)
    for row in honest("slow", 1)
    if row.task == "infer"
)


def epochs(row: Record) -> list[Epoch]:
    shared = {name: getattr(row, name) for name in ("run", "order", "model", "device", "batch_size",
              "precision", "jit", "threads", "process", "seed", "fraction")}  # fmt: skip
    return [
        Epoch(**shared, epoch=number, steps=1563, samples=50_000,
              epoch_time_s=2.0 if number == 1 else 1.5, validation_time_s=0.1,
              loss=0.1, accuracy=0.97, validation_loss=0.11,
              validation_accuracy=accuracy)
        for number, accuracy in enumerate(ACCURACIES, 1)
    ]  # fmt: skip


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Record], set[str]]:
    """Return the rules that a run of one row breaks."""
    monkeypatch.chdir(tmp_path)

    def rules(row: Record) -> set[str]:
        path = keep_run(FOLDER, [row])
        if row.task == "accuracy":
            TABLE.keep(path, epochs(LEARNING))
        return {one.rule for one in check([FOLDER], [], NOW).findings}

    return rules


@pytest.mark.parametrize("row", [LEARNING, WATERFALL, EXPORT], ids=lambda row: row.task)
def test_what_the_harness_writes_passes(found: Callable[[Record], set[str]], row: Record) -> None:
    assert found(row) == set()


@pytest.mark.parametrize(
    ("row", "change", "rule"),
    [
        (LEARNING, {"throughput_samples_per_s": 1e9}, "contradicts"),
        (LEARNING, {"cpu_joules_per_sample": 1e-9}, "contradicts"),
        (LEARNING, {"largest_rel_error": 0.0}, "contradicts"),
        (LEARNING, {"accuracy": 0.6}, "contradicts"),
        (LEARNING, {"accuracy": None}, "incomplete"),
        (LEARNING, {"target_accuracy": None, "time_to_target_s": 0.01}, "incomplete"),
        (LEARNING, {**TESTED, "accuracy": 0.6}, "contradicts"),
        (LEARNING, {**TESTED, "precision": "int8", "validation_accuracy": 0.6}, "contradicts"),
        (LEARNING, {"epoch_time_s": 1e-6}, "epochs"),
        (LEARNING, {"time_to_target_s": 2.0, "samples_to_target": 50_000}, "epochs"),
        (LEARNING, {"time_to_target_s": None}, "epochs"),
        (LEARNING, {"fraction": 0.01}, "epochs"),
        (LEARNING, {"order": 2}, "epochs"),
        (WATERFALL, {"accuracy": 0.99}, "contradicts"),
        (WATERFALL, {"fit_step_s": 1e-6}, "contradicts"),
        (WATERFALL, {"compiled_infer_step_s": 1e-6}, "contradicts"),
        (WATERFALL, {"fit_call_s": None}, "incomplete"),
        (WATERFALL, {"compiled_train_step_s": None, "fit_step_s": 1e-6}, "incomplete"),
        (EXPORT, {"largest_rel_error": 0.01}, "contradicts"),
        (EXPORT, {"largest_rel_error": None}, "incomplete"),
        (EXPORT, {"exported_bytes": 1}, "contradicts"),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, dict) else "",
)
def test_what_no_process_has_measured_is_found(
    found: Callable[[Record], set[str]], row: Record, change: dict[str, Any], rule: str
) -> None:
    assert rule in found(dataclasses.replace(row, **change))


@pytest.mark.parametrize("row", [LEARNING, WATERFALL], ids=lambda row: row.task)
def test_a_process_counts_once(found: Callable[[Record], set[str]], row: Record) -> None:
    assert "duplicate" not in found(row)
    assert "duplicate" in found(dataclasses.replace(row, run="0002", process=2))


def test_weights_of_few_bits_may_lose_accuracy(found: Callable[[Record], set[str]]) -> None:
    """OpenVINO's int8 of a trained mini_resnet_norm had an error of 0.6 on one of 10,000 digits."""
    tested = {**TESTED, "precision": "int8", "accuracy": 0.8, "largest_rel_error": 0.6}
    row = dataclasses.replace(LEARNING, **tested)
    assert "contradicts" not in found(row)


def test_a_file_that_was_there_already_has_no_keras_model(
    found: Callable[[Record], set[str]],
) -> None:
    missing = {"largest_abs_error": None, "largest_rel_error": None, "top1_agreement": None}
    assert found(dataclasses.replace(EXPORT, model="net.tflite", export_s=None, **missing)) == set()


def test_the_epochs_of_a_run_are_beside_it(tmp_path: Path) -> None:
    path = keep_run(tmp_path, [LEARNING])
    assert {one.rule for one in check([tmp_path], [], NOW).findings} == {"epochs"}
    TABLE.keep(path, epochs(LEARNING))
    assert TABLE.path(path).exists()
    assert not check([tmp_path], [], NOW).findings
