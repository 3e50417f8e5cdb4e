"""The table of exported models on a page: which is the fastest, and which cannot be ranked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_rows import keep_run, measured

from convmark.core.table import Table
from convmark.report.build import build
from convmark.report.rows import read_rows
from convmark.report.tables.runtimes import _fastest, _step_times
from convmark.results.record import COLUMNS
from convmark.worker.runtimes.agreement import ROUNDING


@pytest.fixture
def table_of_rows(tmp_path: Path) -> Callable[..., Table]:
    """Keeps cases of LeNet-5 in a run, mostly three processes each; returns the page's runtimes."""

    def made(*cases: dict[str, Any], spread: float = 0.01, processes: int = 3) -> Table:
        shared = {"task": "infer", "batch_size": 1, "code": "c1", "runtime_threads": 1}
        rows = []
        for place, one in enumerate(cases):
            fields = {"tensorflow": "2.20.0", "run_number": 1, **shared, **one}
            number, step_s = fields.pop("run_number"), fields.pop("step_s", 1e-5)
            for process in range(1, processes + 1):
                its_own = {**fields, "step_s": step_s * (1 + spread * (process - 2))}
                row = measured("xeon-2", number, "lenet5", 3 * place + process, **its_own)
                rows.append(dataclasses.replace(row, process=process))
        for number in sorted({row.run for row in rows}):
            keep_run(tmp_path, [row for row in rows if row.run == number])
        (table,) = (one for one in build([tmp_path]).tables if one.key == "runtimes")
        return table

    return made


LITERT: dict[str, Any] = {"runtime": "litert", "step_s": 1e-5, "packages": "ai-edge-litert==2.3.0"}
OTHER: dict[str, Any] = {"runtime": "openvino", "step_s": 2e-5, "packages": "openvino==2026.4.1"}


def test_a_page_never_calls_keras_the_fastest_whose_step_has_its_batch_on_the_device(
    table_of_rows: Callable[..., Table],
) -> None:
    table = table_of_rows({"step_s": 1e-6}, LITERT, OTHER)
    assert [(one["runtime"], one["fastest"]) for one in table.records()] == [
        ("litert", "yes"),
        ("openvino", None),
        ("keras", "not ranked"),
    ]
    assert "not ranked" in table.caption


def test_the_fastest_that_cannot_be_told_apart_from_others_is_marked_perhaps_as_they_are(
    table_of_rows: Callable[..., Table],
) -> None:
    third = {"runtime": "onnxruntime", "step_s": 1e-3}
    table = table_of_rows(LITERT, {**OTHER, "step_s": 1.02e-5}, third, spread=0.03)
    assert [one["fastest"] for one in table.records()] == ["perhaps", "perhaps", None]


def test_a_runtime_of_one_process_can_be_compared_with_none(
    table_of_rows: Callable[..., Table],
) -> None:
    table = table_of_rows(LITERT, {**OTHER, "step_s": 1e-3}, processes=1)
    assert [one["fastest"] for one in table.records()] == ["not comparable"] * 2


def test_unsteady_processes_rank_nothing_where_a_case_has_steady_ones(tmp_path: Path) -> None:
    changes = [{"step_s": 1e-5}, {"step_s": 2e-5, "status": "unsteady"}, {"step_s": 3e-5}]
    rows = [
        measured("xeon-2", 1, "lenet5", number, task="infer", **{**LITERT, **own})
        for number, own in enumerate(changes, 1)
    ]
    keep_run(tmp_path, rows)
    assert list(_step_times(read_rows([tmp_path]).frame).values()) == [pytest.approx([1e-5, 3e-5])]


def test_one_whose_processes_contradict_its_rank_is_never_marked_the_fastest() -> None:
    """The ranking is by medians, the interval of geometric means."""
    ranked = [{"source": 1, "runtime_threads": 1}] * 2
    slow, quick = [0.99, 1.0, 1.01], [0.49, 0.50, 0.51]
    assert _fastest(ranked, [slow, quick]) == ["perhaps", "perhaps"]


@pytest.mark.parametrize(
    ("changes", "fastest"),
    [
        ({}, ["yes", ""]),
        ({"run_number": 2, "step_s": 1e-3}, ["not comparable", "not comparable"]),
        ({"runtime_threads": 2}, ["yes, threads differ", ""]),
        ({"runtime_threads": None}, ["yes, threads differ", ""]),
        ({"tensorflow": "2.19.0", "run_number": 2}, ["", ""]),
        ({"keras": "3.9.0", "run_number": 2}, ["", ""]),
        ({"code": "c2"}, ["", ""]),
        ({"packages": "openvino==2026.4.1 of-the-model==2.0"}, ["", ""]),
    ],
)
def test_only_rows_of_the_same_versions_and_code_are_ranked_and_other_threads_are_named(
    changes: dict[str, Any], fastest: list[str], table_of_rows: Callable[..., Table]
) -> None:
    table = table_of_rows(LITERT, {**OTHER, **changes})
    assert sorted((one.get("fastest") or "" for one in table.records()), reverse=True) == fastest


def test_keras_stands_beside_exported_models_in_float32_alone(
    table_of_rows: Callable[..., Table],
) -> None:
    table = table_of_rows(LITERT, {}, {"precision": "mixed_bfloat16"})
    assert [(one["runtime"], one["precision"]) for one in table.records()] == [
        ("litert", "float32"),
        ("keras", "float32"),
    ]


def test_an_error_is_a_number_in_a_table_and_a_file_compared_with_nothing_has_none(
    table_of_rows: Callable[..., Table],
) -> None:
    table = table_of_rows({**LITERT, "largest_rel_error": 2.54e-7}, OTHER)
    assert table.column("largest_rel_error") == [2.54e-7, None]
    place = [one.key for one in table.headings].index("largest_rel_error")
    assert [texts[place] for texts in table.texts()] == ["2.5e-07", ""]


def test_an_error_that_float32_may_round_is_not_shown_as_equal_to_the_last_bit(
    table_of_rows: Callable[..., Table],
) -> None:
    errors = {"largest_abs_error": 8.3e-7, "largest_rel_error": 0.0}
    table = table_of_rows({**LITERT, **errors})
    place = [one.key for one in table.headings].index("largest_rel_error")
    assert [texts[place] for texts in table.texts()] == ["within rounding"]
    for text in (table.caption, *(one.meaning for one in COLUMNS if one.name in errors)):
        assert ("float32 may round" in text) == ("divided by" in text), text
    assert f"{ROUNDING:.1e}".replace("e-06", "e-6") in table.caption
