"""Records: what they refuse, and that each cell reads as it was written."""

from __future__ import annotations

import dataclasses
import math
import random
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rows import row

from convmark.core.errors import StoreError
from convmark.results.columnar import read_columns
from convmark.results.reading import read_run
from convmark.results.record import COLUMNS, MEASURED, STATUSES, Record, from_cells, to_cells
from convmark.session.facts import Job
from convmark.session.resume import missing

NAMES = [column.name for column in COLUMNS]
SAMPLES: dict[type, Any] = {int: 3, float: 0.1, str: "text", bool: True}


def cell(name: str, value: Any) -> str:
    return to_cells(row(**{name: value}))[NAMES.index(name)]


def read_with(name: str, text: str) -> Record:
    cells = to_cells(row())
    cells[NAMES.index(name)] = text
    return from_cells(cells)


def refusal(name: str, text: str) -> str:
    with pytest.raises(StoreError) as refused:
        read_with(name, text)
    return str(refused.value)


def test_every_column_is_a_field_of_the_record_with_the_type_that_it_says() -> None:
    hints = typing.get_type_hints(Record)
    assert [field.name for field in dataclasses.fields(Record)] == NAMES
    for column in COLUMNS:
        expected: Any = column.type if column.required else column.type | None
        assert hints[column.name] == expected, column.name


def test_a_record_of_required_fields_alone_comes_back_with_none_for_the_rest() -> None:
    record = row()
    assert from_cells(to_cells(record)) == record
    assert record.error is None
    assert record.step_time_p50_s is None


def test_a_record_with_every_field_set_comes_back_equal() -> None:
    values = {column.name: SAMPLES[column.type] for column in COLUMNS}
    agreeing = {"started": "2026-01-02", "steps": 1000, "effective_batch_size": 9}
    agreeing |= {"time_to_first_step_s": 0.2, "throughput_samples_per_s": 90.0}
    agreeing |= {"paired_log_ratio": 0.0, "step_time_std_s": 0.0, "status": "unsteady"}
    record = Record(**{**values, **agreeing})
    assert from_cells(to_cells(record)) == record
    assert "" not in to_cells(record)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"step_time_min_s": 5.0, "step_time_p50_s": 0.001}, "must be at least 'step_time_min_s'"),
        ({"step_time_p90_s": 0.2, "step_time_max_s": 0.1}, "must be at least 'step_time_p90_s'"),
        ({"trainable_parameters": 11, "parameters": 10}, "must be at most 'parameters', 10"),
        ({"started": "2026-99-01T00:00:00"}, "must be a time of ISO 8601"),
        ({"started": "1969-12-31T23:59:59+00:00"}, "must be a time of ISO 8601 in UTC"),
        ({"started": "2026-01-01T00:00:00+02:00"}, "must be a time of ISO 8601 in UTC"),
        ({"unsteady": "a trend"}, "'unsteady' must be empty where the status is ok"),
        ({"steps": 99, "step_time_p95_s": 0.1}, "needs 100 steps, column 'steps' has 99"),
        ({"steps": 999, "step_time_p99_s": 0.1}, "needs 1,000 steps, column 'steps' has 999"),
        (
            {"step_time_min_s": 0.1, "step_time_max_s": 0.2, "step_time_mean_s": 0.21},
            "must lie between the shortest step time, 0.1, and the longest, 0.2",
        ),
        (
            {"step_time_min_s": 0.1, "step_time_max_s": 0.2, "step_time_std_s": 0.071},
            "must fit step times from 0.1 to 0.2",
        ),
        ({"process": 4, "processes": 3}, "must be at most 'processes', 3"),
        ({"effective_batch_size": 33}, "must be 'batch_size' x 'replicas', 32 x 1"),
        (
            {"trace_s": 0.3, "first_execution_s": 0.3, "time_to_first_step_s": 0.5},
            "must be at least its parts",
        ),
        (
            {"throughput_samples_per_s": 3_200_100.0, "step_time_p50_s": 0.001},
            "within a factor of 100 of the samples of a step over its time",
        ),
        (
            {"throughput_samples_per_s": 3.19, "step_time_p50_s": 0.1},
            "within a factor of 100 of the samples of a step over its time",
        ),
        (
            {"paired_step_time_p50_s": 1.1, "step_time_p50_s": 0.01},
            "within a factor of 100 of 'step_time_p50_s'",
        ),
        (
            {
                "paired_step_time_p50_s": 0.01,
                "reference_step_time_p50_s": 0.01,
                "paired_log_ratio": -4.7,
            },
            "must be near ln",
        ),
        ({"peak_host_memory_bytes": 2**31, "ram_bytes": 2**30}, "must be at most 'ram_bytes'"),
        ({"model_bytes": -1}, "must be at least 0"),
        ({"accuracy": 1.1}, "must be at most 1"),
    ],
)
def test_cells_that_contradict_each_other_are_refused(
    cells: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match=message):
        row(**cells)
    good = dict(zip(NAMES, to_cells(row()), strict=True))
    bad = good | {name: str(value) for name, value in cells.items()}
    lines = [",".join(NAMES), ",".join(bad.values())]
    path = tmp_path / "0001.csv"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(StoreError, match=message):
        read_columns(path, path.read_bytes())


def test_cells_come_back_from_a_mapping_too() -> None:
    record = row(commit="abc", dirty=False)
    assert from_cells(dict(zip(NAMES, to_cells(record), strict=True))) == record


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("parameters", 61706, "61706"),
        ("parameters", 0, "0"),
        ("ram_bytes", 2**70, str(2**70)),
        ("dirty", True, "true"),
        ("dirty", False, "false"),
        ("loss", 0.1, "0.1"),
        ("loss", -0.25, "-0.25"),
        ("loss", -1e-300, "-1e-300"),
        ("loss", 1e22, "1e+22"),
        ("loss", 0.1 + 0.2, "0.30000000000000004"),
        ("loss", 5e-324, "5e-324"),
        ("loss", 0.0, "0.0"),
        ("loss", 3, "3"),
        ("cpu", "Xeon, 2 x 8", "Xeon, 2 x 8"),
        ("cpu", 'a "quoted" name', 'a "quoted" name'),
        ("cpu", "Übergröße 漢字 🙂", "Übergröße 漢字 🙂"),
        ("cpu", " padded ", " padded "),
        ("cpu", "two\nlines", "two lines"),
        ("cpu", "red \x1b[31malert\x07", "red alert"),
        ("cpu", "None", "None"),
        ("cpu", "it's", "it's"),
        ("cpu", "'quoted'", "'quoted'"),
        ("cpu", "'", "'"),
        ("threads", "2", "2"),
    ],
)
def test_a_value_is_written_so_and_comes_back_equal(name: str, value: Any, text: str) -> None:
    record = row(**{name: value})
    assert cell(name, value) == text
    assert from_cells(to_cells(record)) == record


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@sum", "=", "-", "-O3 --fast", "'=1+1", "''-x", "\uff1d1", "\uff20x"],
)
def test_a_text_that_starts_a_formula_gets_an_apostrophe_and_loses_it_again(text: str) -> None:
    assert cell("error", text) == f"'{text}"
    assert read_with("error", cell("error", text)).error == text


@pytest.mark.parametrize("text", ["a=b", "1-1", "'a", "''", " =1", "x@y"])
def test_a_text_that_starts_no_formula_gets_no_apostrophe(text: str) -> None:
    assert cell("error", text) == text
    assert read_with("error", text).error == text


def test_no_cell_of_a_text_starts_a_formula() -> None:
    letters = random.Random(0)
    for _ in range(500):
        text = "".join(letters.choices("'=+-@\t\ra ,\"\n\uff1d", k=letters.randint(1, 5)))
        written = cell("error", text)
        assert not written.startswith(tuple("=+-@\t\r\uff1d"))
        assert read_with("error", written).error == row(error=text).error


def test_negative_numbers_get_no_apostrophe() -> None:
    assert cell("paired_log_ratio", -0.5) == "-0.5"
    assert read_with("paired_log_ratio", "-0.5").paired_log_ratio == -0.5


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_an_empty_cell(value: float) -> None:
    assert cell("loss", value) == ""


def test_a_text_is_one_printable_line_as_it_is_written() -> None:
    texts = {
        "\tx": "x",
        "two\nlines\r\nand \r more": "two lines and more",
        "\x1b]0;title\x07bell": "bell",
        "\x9b31mcsi": "csi",
        "right\u202eleft": "rightleft",
        "zero\u200bwidth": "zerowidth",
        "no\u00a0break": "no break",
        "\n=1+1": "'=1+1",
        "path \udcff\n": "path ?",
        "x" * 20_000: "x" * 9_997 + "...",
    }
    for text, written in texts.items():
        assert cell("error", text) == written
        record = row(error=text)
        assert from_cells(to_cells(record)) == record


@pytest.mark.parametrize(
    "text", ["a\nb", "a\rb", "a\tb", "\x1b[31m", "a\0b", "\x9b31m", "a\u202eb", "a\u2028b", "\x7f"]
)
def test_a_text_that_is_no_printable_line_is_refused_where_a_file_holds_it(text: str) -> None:
    assert refusal("cpu", text) == (
        f"column 'cpu' must be one line without control characters, got {text!r}"
    )


def test_an_endless_text_is_refused() -> None:
    assert "must be at most 10,000 characters" in refusal("cpu", "x" * 10_002)


@pytest.mark.parametrize(
    ("name", "text", "rule"),
    [
        ("batch_size", "0", "must be above 0"),
        ("replicas", "-1", "must be above 0"),
        ("step_time_p50_s", "0.0", "must be above 0"),
        ("throughput_samples_per_s", "-3.5", "must be above 0"),
        ("paired_log_ratio", "1000.0", "must be a logarithm of at most 15"),
        ("step_time_std_s", "1e+31", "must be at most 1e+30"),
        ("step_time_mean_s", "1e-31", "must be at least 1e-30"),
        ("paired_log_ratio_se", "-0.1", "must be at least 0"),
        ("parameters", "1_000", "must be of type int"),
        ("parameters", " 7", "must be of type int"),
        ("parameters", "\u0663", "must be of type int"),
        ("parameters", "9" * 31, "must be of type int"),
        ("loss", "1_0.5", "must be of type float"),
        ("loss", "0x1p3", "must be of type float"),
        ("loss", "infinity", "must be of type float"),
        ("loss", ".", "must be of type float"),
        ("loss", "", ""),
    ],
)
def test_a_number_out_of_its_range_or_spelled_otherwise_is_refused(
    name: str, text: str, rule: str
) -> None:
    if not rule:
        assert read_with(name, text).loss is None
        return
    assert refusal(name, text).startswith(f"column {name!r} {rule}, got {text[:40]!r}")


def test_a_figure_that_could_not_be_read_again_cannot_be_made() -> None:
    with pytest.raises(StoreError, match=r"column 'step_time_p50_s' must be above 0, got '0\.0'"):
        row(step_time_p50_s=0.0)
    with pytest.raises(StoreError, match="column 'ram_bytes' must have at most 30 digits"):
        row(ram_bytes=10**30)
    assert row(step_time_p50_s=math.nan, paired_log_ratio=math.inf).step_time_p50_s is not None


def test_nul_is_removed_and_cannot_hide_a_formula() -> None:
    assert cell("error", "a\0b\0") == "ab"
    assert cell("error", "\0=1") == "'=1"


def test_a_float_of_numpy_is_written_as_plain_digits() -> None:
    assert cell("loss", np.float64(0.1)) == "0.1"


def test_hundreds_of_random_floats_come_back_bit_for_bit() -> None:
    numbers = random.Random(1)
    for _ in range(300):
        value = numbers.uniform(-1, 1) * 10.0 ** numbers.randint(-300, 300)
        assert read_with("loss", cell("loss", value)).loss == value


@pytest.mark.parametrize(
    ("name", "text", "rule"),
    [
        ("batch_size", "many", "must be of type int, got 'many'"),
        ("batch_size", "32.0", "must be of type int, got '32.0'"),
        ("batch_size", "", "must not be empty, got ''"),
        ("model", "", "must not be empty, got ''"),
        ("parameters", "1e6", "must be of type int, got '1e6'"),
        ("parameters", "9" * 5000, "must be of type int, got '" + "9" * 40 + "'"),
        ("loss", "low", "must be of type float, got 'low'"),
        ("loss", "0,5", "must be of type float, got '0,5'"),
        ("loss", "nan", "must be finite, got 'nan'"),
        ("loss", "inf", "must be finite, got 'inf'"),
        ("loss", "1e999", "must be finite, got '1e999'"),
        ("dirty", "True", "must be true or false, got 'True'"),
        ("dirty", "1", "must be true or false, got '1'"),
        ("parameters", "x" * 100, "must be of type int, got '" + "x" * 40 + "'"),
    ],
)
def test_a_wrong_cell_is_refused_by_column_rule_and_value(name: str, text: str, rule: str) -> None:
    assert refusal(name, text) == f"column {name!r} {rule}"


def test_a_wrong_cell_with_a_line_break_is_quoted_on_one_line() -> None:
    assert len(refusal("batch_size", "1\n2\r3").splitlines()) == 1


def test_a_status_that_is_none_is_refused_with_those_there_are() -> None:
    assert refusal("status", "fine") == (
        f"lenet5: status must be one of {', '.join(STATUSES)}, got 'fine'"
    )


@pytest.mark.parametrize("count", [0, 1, len(COLUMNS) - 1, len(COLUMNS) + 1])
def test_a_row_of_the_wrong_length_is_refused_with_both_lengths(count: int) -> None:
    with pytest.raises(StoreError, match=rf"must have {len(COLUMNS)} cells, has {count}$"):
        from_cells(["1"] * count)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("run", None, "must not be empty"),
        ("model", "", "must not be empty"),
        ("process", None, "must not be empty"),
        ("parameters", "many", "must be of type int, got 'many'"),
        ("parameters", 1.5, "must be of type int, got '1.5'"),
        ("parameters", True, "must be of type int, got 'True'"),
        ("loss", "low", "must be of type float, got 'low'"),
        ("loss", False, "must be of type float, got 'False'"),
        ("cpu", 7, "must be of type str, got '7'"),
        ("dirty", 1, "must be of type bool, got '1'"),
        ("dirty", "true", "must be of type bool, got 'true'"),
    ],
)
def test_a_record_that_could_not_be_read_again_cannot_be_made(
    name: str, value: Any, rule: str
) -> None:
    with pytest.raises(StoreError) as refused:
        row(**{name: value})
    assert str(refused.value) == f"column {name!r} {rule}"


def test_only_ok_and_unsteady_rows_hold_figures() -> None:
    assert {status for status in STATUSES if row(status=status).measured} == {"ok", "unsteady"}
    assert set(MEASURED) <= set(STATUSES)


def test_a_row_tells_the_case_that_ran_and_the_case_that_was_asked_for() -> None:
    ran = row(precision="float32+mixed_bfloat16", threads="1", asked="precision=float32")
    assert (ran.case.precision, ran.case.threads) == ("float32+mixed_bfloat16", "1")
    assert (ran.asked_case.precision, ran.asked_case.threads) == ("float32", "1")
    both = row(precision="float64", threads="1", asked="precision=float32 threads=default")
    assert both.asked_case == row().case
    assert row().asked_case == row().case


@pytest.mark.parametrize(
    "asked", ["batch_size=1", "precision", "threads=1 precision=float32", " threads=1"]
)
def test_what_was_asked_is_precision_and_threads_alone(asked: str) -> None:
    with pytest.raises(StoreError, match="asked"):
        _ = row(asked=asked).asked_case


def test_a_row_whose_model_set_its_own_precision_is_still_its_plans(tmp_path: Path) -> None:
    jobs = [Job(case=row().case, process=process, order=process) for process in (1, 2)]
    ran = row(precision="float64", asked="precision=float32")
    assert missing(jobs, [ran]) == jobs[1:]
    assert missing(jobs, [row(precision="float64")]) == jobs
    path = tmp_path / "0001.csv"
    lines = [",".join(column.name for column in COLUMNS), ",".join(to_cells(ran)), ""]
    path.write_text("\n".join(lines))
    assert read_run(path) == [ran]
    path.write_text("\n".join(lines).replace("precision=float32", "batch_size=1"))
    with pytest.raises(StoreError, match="column 'asked' must be precision=VALUE"):
        read_run(path)
