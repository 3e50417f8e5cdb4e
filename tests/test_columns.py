"""docs/columns.md says what the code says."""

from __future__ import annotations

import importlib
import pkgutil
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import convmark
from convmark.results.record import COLUMNS, STATUSES
from convmark.results.table_file import TableFile

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "columns.md"
SCRIPT: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "columns_page.py"))
BESIDE, columns_page = SCRIPT["BESIDE"], SCRIPT["columns_page"]
# Scripts of users rely on these names: a test must fail before one of them goes.
PROMISED = """
    schema run started commit process status error model task device batch_size
    effective_batch_size precision jit replicas threads backend machine cpu gpu python tensorflow
    keras parameters trainable_parameters model_bytes flops_per_sample time_to_first_step_s
    step_time_min_s step_time_p10_s step_time_p50_s step_time_p90_s step_time_p95_s step_time_p99_s
    step_time_mean_s step_time_std_s reference_step_time_p50_s throughput_samples_per_s
    peak_host_memory_bytes peak_device_memory_bytes accuracy loss
"""


def test_the_page_in_docs_is_the_one_that_the_code_writes() -> None:
    remedy = "docs/columns.md is old; run: python scripts/columns_page.py >docs/columns.md"
    assert PAGE.read_text(encoding="utf-8") == columns_page(), remedy


def test_every_column_has_one_line_with_its_type_its_unit_and_its_meaning() -> None:
    lines = columns_page().partition("## Other files")[0].splitlines()
    for column in COLUMNS:
        (line,) = [line for line in lines if line.startswith(f"| `{column.name}` ")]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        empty = "never" if column.required else ""
        about = [
            column.meaning.replace("<", r"\<"),
            column.type.__name__,
            column.unit,
            empty,
            str(column.since),
        ]
        assert cells[1:] == about


def test_each_group_has_one_table_in_the_order_of_the_columns() -> None:
    groups = [line[3:] for line in columns_page().splitlines() if line.startswith("## ")]
    assert groups == [*dict.fromkeys(column.group for column in COLUMNS), "Other files"]


def test_every_column_of_every_file_says_what_it_means() -> None:
    files = {"run": COLUMNS, **BESIDE}
    empty = [(file, one.name) for file, columns in files.items() for one in columns
             if not one.meaning]  # fmt: skip
    assert empty == []


def vars_of_package() -> Iterator[Any]:
    """Yield what the modules define that keep rows."""
    for room in ("compare", "session"):
        for module in pkgutil.walk_packages(convmark.__path__, "convmark."):
            if module.name.startswith(f"convmark.{room}."):
                yield from vars(importlib.import_module(module.name)).values()


def test_every_file_of_rows_is_on_the_page() -> None:
    """A table of rows that a module of the package keeps has its columns there."""
    files = {id(one): one for one in vars_of_package() if isinstance(one, TableFile)}.values()
    shown = {tuple(columns) for columns in BESIDE.values()}
    assert len(files) >= 10
    assert all(tuple(file.columns) in shown for file in files)


def test_a_column_with_a_unit_in_its_name_has_that_unit() -> None:
    every = [*COLUMNS, *(one for columns in BESIDE.values() for one in columns)]
    units = {"s": "s", "bytes": "bytes", "mhz": "MHz", "w": "W", "c": "degrees Celsius"}
    for ending, unit in units.items():
        for column in every:
            if column.name.endswith(f"_{ending}") and not column.name.endswith("_per_s"):
                assert column.unit == unit, column.name


def test_the_page_names_every_status() -> None:
    assert all(f"`{status}`" in columns_page() for status in STATUSES)


def test_the_promised_columns_are_there() -> None:
    assert set(PROMISED.split()) <= {column.name for column in COLUMNS}
