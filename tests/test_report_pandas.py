"""The figures of the page of a mixed history against pandas and SciPy on the CSV files alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mixed_history import DESKTOP, LOAD, SERVER, mixed_history
from scipy import stats
from test_report_command import page_of

from convmark.report.command import report

CASE = ["machine", "model", "task", "batch_size", "backend"]
BUSY = 0.1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("pandas")
    report([mixed_history(found)], output=str(found / "report.html"))
    return found


@pytest.fixture(scope="module")
def rows(folder: Path) -> pd.DataFrame:
    """The rows with figures of all runs."""
    files = [pd.read_csv(path, dtype={"run": str}) for path in folder.glob("results/*/[0-9]*.csv")
             if "." not in path.stem]  # fmt: skip
    every = pd.concat(files, ignore_index=True)
    return every[every["status"].isin(["ok", "unsteady"])]


@pytest.fixture(scope="module")
def newest(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of each case's newest run on each machine."""
    return rows[rows["run"] == rows.groupby(CASE)["run"].transform("max")]


@pytest.fixture(scope="module")
def tables(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of the page's tables: a number where a cell has one, else its text."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for (table, row, key), (value, text) in page_of(folder / "report.html").cells.items():
        number = float(value) if value not in (None, "") else None
        found.setdefault(table, {}).setdefault(row, {})[key] = text if number is None else number
    return {table: list(of_table.values()) for table, of_table in found.items()}


def case_of(row: dict[str, Any]) -> tuple[Any, ...]:
    """Return a row's values of `CASE`; of a page with several backends the setting names them."""
    machine = str(row["hardware"]).removesuffix(" cpu")
    backend = str(row.get("setting") or "tensorflow")
    return machine, row["model"], row["task"], int(row["batch_size"]), backend


def half_range(values: pd.Series) -> float:
    return float((values.max() - values.min()) / 2 / values.median())


def test_figures_of_a_case_are_medians_over_the_processes_of_its_newest_run(
    tables: dict[str, list[dict[str, Any]]], newest: pd.DataFrame
) -> None:
    groups = newest.groupby(CASE)
    medians, count = groups.median(numeric_only=True), groups.size()
    spread = groups["step_time_p50_s"].agg(half_range)
    shown = tables["architectures"]
    assert len(shown) == len(medians) == 48
    for row in shown:
        case = case_of(row)
        for name in (
            *("step_time_p50_s", "throughput_samples_per_s", "time_to_first_step_s"),
            *("peak_host_memory_bytes", "parameters", "flops_per_sample", "model_bytes"),
        ):
            assert row[name] == pytest.approx(medians.loc[case, name], rel=1e-12), (case, name)
        assert row["spread"] == pytest.approx(spread[case], rel=1e-12)
        assert row["n"] == count[case]
        load = medians.loc[case, "other_cpu_share"]
        assert row["load"] == (load if load >= BUSY else "")
    assert {row["load"] for row in shown if row["hardware"] == f"{SERVER} cpu"} == {LOAD}


def test_speed_ups_are_welch_s_and_their_mean_is_geometric(
    tables: dict[str, list[dict[str, Any]]], newest: pd.DataFrame
) -> None:
    """Of the newest run's steady processes; of two there is no interval, nor a part in the mean."""
    steady = newest[newest["status"] == "ok"]
    logs = {case: np.log(times) for case, times in steady.groupby(CASE)["step_time_p50_s"]}
    speedups, few = [], []
    for row in tables["hardware"]:
        if row["hardware"] != f"{SERVER} cpu" or row["model"] == "geometric mean":
            continue
        its = case_of(row)
        base = logs[(DESKTOP, *its[1:])]
        speedup = base.mean() - logs[its].mean()
        assert row["speedup"] == pytest.approx(np.exp(speedup), rel=1e-12)
        assert row["mean_s"] == pytest.approx(np.exp(logs[its].mean()), rel=1e-12)
        if len(logs[its]) < 3:
            few.append((its[1:4], row["low"], row["high"]))
            continue
        speedups.append(speedup)
        welch = stats.ttest_ind(base, logs[its], equal_var=False)
        ends = welch.confidence_interval(0.95)
        assert (row["low"], row["high"]) == pytest.approx(np.exp([ends.low, ends.high]), rel=1e-6)
    (mean,) = (row for row in tables["hardware"] if row["model"] == "geometric mean")
    assert (len(speedups), few) == (14, [(("lenet5", "infer", 1), "", "")])
    assert mean["speedup"] == pytest.approx(np.exp(np.mean(speedups)), rel=1e-12)


def test_each_drawing_has_the_figures_of_its_table_from_the_files(
    tables: dict[str, list[dict[str, Any]]], newest: pd.DataFrame
) -> None:
    medians = newest.groupby(CASE).median(numeric_only=True)
    step_times = medians["step_time_p50_s"].to_numpy()
    rates = medians["throughput_samples_per_s"].to_numpy()
    for table, key, known in (
        ("distribution", "p50", step_times),
        ("batch", "step_time_p50_s", step_times),
        ("batch", "throughput_samples_per_s", rates),
        ("pareto", "throughput_samples_per_s", rates),
    ):
        shown = [row[key] for row in tables[table]]
        assert len(shown) > 20
        assert all(np.isclose(known, one, rtol=1e-12).any() for one in shown), table
    quantiles = medians.loc[(DESKTOP, "lenet5", "infer", 1, "tensorflow")]
    group = f"{DESKTOP} cpu, infer, batch 1"
    shown = [one for one in tables["distribution"] if one["group"] == group]
    (row,) = (one for one in shown if one["model"] == "lenet5")
    for name in ("min", "p10", "p25", "p50", "p75", "p90", "max"):
        assert row[name] == pytest.approx(quantiles[f"step_time_{name}_s"], rel=1e-12)
