"""What a million samples and a training cost, worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from quotients import skewed
from report_rows import FAST, SLOW, keep_run, measured

from convmark.core.option import ReportOptions
from convmark.core.table import Table
from convmark.report.command import report
from convmark.report.comparison import Comparison, Price
from convmark.report.rows import read_rows
from convmark.report.tables.cost import cost_tables

pytestmark = pytest.mark.filterwarnings("ignore:.*is the only row")  # one is enough here

STATED = {"currency": "USD", "date": "2026-01-31", "source": "the invoice"}


def rented(machine: str, per_hour: float = 3.6) -> Price:
    return Price(machine=machine, per_hour=per_hour, **STATED)


def bought(machine: str) -> Price:
    return Price(machine=machine, per_hour=3.6, bought="so", per_kwh=0.36, **STATED)


def runs(machine: str, *rates: float, **more: Any) -> list[Any]:
    return [
        measured(machine, 1, "lenet5", n, throughput_samples_per_s=rate, step_s=32 / rate, **more)
        for n, rate in enumerate(rates, 1)
    ]


def tables(folder: Path, prices: dict[str, Price], *rows: list[Any]) -> list[Table]:
    for one in rows:
        keep_run(folder / "results", one)
    return cost_tables(read_rows([folder / "results"]).frame, Comparison(prices=prices))


def test_a_million_samples_cost_the_price_over_the_rate_with_the_rate_s_interval(
    tmp_path: Path,
) -> None:
    rates = (900.0, 1000.0, 1111.0)
    found, _ = tables(tmp_path, {SLOW: rented(SLOW)}, runs(SLOW, *rates))
    (row,) = found.records()
    mean = math.prod(rates) ** (1 / 3)
    assert row["cost"] == pytest.approx(1e6 * 0.001 / mean)  # 3.60 an hour are 0.001 a second
    logs = [math.log(rate / mean) for rate in rates]
    half = 4.302653 * math.sqrt(sum(log**2 for log in logs) / 2 / 3)  # t of two degrees of freedom
    ends = (row["low"] / row["cost"], row["high"] / row["cost"])
    assert ends == pytest.approx((math.exp(-half), math.exp(half)))
    assert (row["by"], row["n"], row["energy"]) == ("burst", 3, "in the rent")
    assert found.title == "Cost of a million samples in USD, energy: in the rent"


def test_the_cheapest_comes_first_and_a_machine_without_a_price_has_no_cost(tmp_path: Path) -> None:
    prices = {SLOW: rented(SLOW, 1.0), FAST: rented(FAST, 100.0)}
    rows = runs(SLOW, 1000.0), runs(FAST, 2000.0), runs("mac", 9000.0)
    found, _ = tables(tmp_path, prices, *rows)
    assert found.column("hardware") == [f"{SLOW} cpu", f"{FAST} cpu"]
    assert found.column("note") == ["no interval: burst throughput of 1 process"] * 2
    assert "No price, so left out: mac. Give each a table in the file of --prices." in found.lead
    whole, _ = tables(tmp_path / "priced", {SLOW: rented(SLOW)}, runs(SLOW, 1000.0))
    assert not any("No price" in line for line in whole.lead)


def test_sustained_throughput_counts_where_it_is_the_lower_one(tmp_path: Path) -> None:
    sustained = [
        runs(machine, 1000.0, sustained_s=600.0, sustained_throughput_samples_per_s=rate)
        for machine, rate in ((SLOW, 500.0), (FAST, 1100.0))
    ]
    prices = {SLOW: rented(SLOW), FAST: rented(FAST)}
    found, _ = tables(tmp_path, prices, *sustained)
    assert found.column("by") == ["burst", "sustained"]
    assert found.column("cost") == pytest.approx([1.0, 2.0])


@pytest.mark.parametrize(
    ("columns", "scope", "joules"),
    [
        ({"cpu_joules_per_sample": 2.0, "cpu_power_scope": "package"}, "package", 2.0),
        (
            {"cpu_joules_per_sample": 2.0, "cpu_power_scope": "package", "joules_per_sample": 3.0},
            "card and package",
            5.0,
        ),
        ({}, "not measured", 0.0),
    ],
)
def test_the_energy_of_a_bought_machine_is_added_and_its_scope_stands_in_the_title(
    tmp_path: Path, columns: dict[str, Any], scope: str, joules: float
) -> None:
    rows = runs(SLOW, 1000.0, 1000.0, 1000.0, **columns)
    found, _ = tables(tmp_path, {SLOW: bought(SLOW)}, rows)
    (row,) = found.records()
    assert row["cost"] == pytest.approx(1.0 + joules / 10)  # 0.36 a kWh are 1e-7 a joule
    assert (row["low"], row["high"]) == pytest.approx((row["cost"], row["cost"]))
    assert found.title == f"Cost of a million samples in USD, energy: {scope}"
    assert ("energy is not in it" in (row.get("note") or "")) == (not joules)


def test_costs_with_unlike_energy_are_told_apart(tmp_path: Path) -> None:
    rows = runs(SLOW, 1000.0, joules_per_sample=3.0), runs(FAST, 1000.0)
    found, _ = tables(tmp_path, {SLOW: bought(SLOW), FAST: bought(FAST)}, *rows)
    assert "energy:" not in found.title
    assert found.lead[1].startswith("Not all costs contain the same energy (card, not measured)")
    rent = {SLOW: rented(SLOW), FAST: bought(FAST)}
    found, _ = tables(tmp_path, rent)
    assert found.lead[1].startswith(
        "Not all costs contain the same energy (in the rent, not measur"
    )


def test_only_packages_of_the_newest_scope_are_in_the_energy_of_that_name(tmp_path: Path) -> None:
    rows = [
        [measured(SLOW, run, "lenet5", 1, throughput_samples_per_s=1000.0, commit="c",
                  tensorflow="2.21.0", cpu_power_scope=scope, cpu_joules_per_sample=joules)]
        for run, (scope, joules) in enumerate(
            [("package", 1.0), ("package", 1.0), ("package+dram", 4.0)], 1
        )
    ]  # fmt: skip
    found, _ = tables(tmp_path, {SLOW: bought(SLOW)}, *rows)
    (row,) = found.records()
    assert (row["energy"], row["joules"], row["n"]) == ("package+dram", 4.0, 3)


def test_a_burst_beside_sustained_throughput_and_unlike_times_are_told(tmp_path: Path) -> None:
    def sustained(machine: str, seconds: float) -> list[Any]:
        return runs(machine, 1000.0, sustained_s=seconds, sustained_throughput_samples_per_s=500.0)

    prices = {name: rented(name) for name in (SLOW, FAST, "mac")}
    rows = runs(SLOW, 1000.0), sustained(FAST, 600.0), sustained("mac", 605.0)
    found, _ = tables(tmp_path, prices, *rows)
    (said,) = found.lead[1:]
    assert said.startswith(f"Not sustained on {SLOW} cpu, while others were in the same case")
    found, _ = tables(tmp_path / "other", prices, sustained(FAST, 600.0), sustained("mac", 60.0))
    (said,) = found.lead[1:]
    assert said.startswith(f"The sustained times differ (600 s on {FAST} cpu, 60 s on m")


def test_the_load_and_why_rows_are_not_judged_stand_beside_the_cost(tmp_path: Path) -> None:
    loaded = runs(SLOW, 1000.0, other_cpu_share=0.5, not_judged="other load")
    found, _ = tables(tmp_path, {SLOW: rented(SLOW)}, loaded)
    (row,) = found.records()
    assert row["load"] == 0.5
    assert row["note"].endswith("; not judged: other load")


def test_trainings_to_unlike_targets_are_unlike(tmp_path: Path) -> None:
    trained = [
        [measured(SLOW, run, "lenet5", n, task="accuracy", seed=n, step_time_p50_s=None,
                  epoch_time_s=36.0, time_to_target_s=to_s, target_accuracy=target, fraction=1.0,
                  epochs=5) for n in seeds]
        for run, seeds, target, to_s in ((1, (1, 2, 3), 0.98, 144.0), (2, (1,), 0.5, 36.0))
    ]  # fmt: skip
    _, training = tables(tmp_path, {SLOW: rented(SLOW, 100.0)}, *trained)
    costs = {row["target"]: (row["cost_target"], row["reached"]) for row in training.records()}
    assert costs == {0.98: (pytest.approx(4.0), "3 of 3"), 0.5: (pytest.approx(1.0), "1 of 1")}


def test_several_machines_are_paid_for(tmp_path: Path) -> None:
    rows = runs(SLOW, 1000.0, cluster="hosts2", replicas=2)
    found, _ = tables(tmp_path, {SLOW: rented(SLOW)}, rows)
    assert found.column("cost") == pytest.approx([2.0])
    assert "price of 2 machines" in found.column("note")[0]


def test_a_training_costs_its_epochs_up_to_the_target_over_the_seeds_that_reached_it(
    tmp_path: Path,
) -> None:
    times = [(36.0, 72.0), (36.0, None), (36.0, 144.0)]
    trained = [
        measured(SLOW, 1, "lenet5", n, task="accuracy", seed=n, batch_size=256,
                 step_time_p50_s=None, epoch_time_s=epoch_s, time_to_target_s=target_s,
                 target_accuracy=0.98, fraction=1.0, epochs=5)
        for n, (epoch_s, target_s) in enumerate(times, 1)
    ]  # fmt: skip
    samples, training = tables(tmp_path, {SLOW: rented(SLOW, 100.0)}, trained)
    (row,) = training.records()
    assert row["cost_epoch"] == pytest.approx(1.0)
    assert (row["epoch_low"], row["epoch_high"]) == pytest.approx((1.0, 1.0))
    assert row["cost_target"] == pytest.approx(math.sqrt(8))
    assert (row["reached"], row["target"], "target_low" in row) == ("2 of 3", 0.98, False)
    assert "of the seeds that reached it alone" in row["note"]
    assert not samples.rows
    assert cost_tables(read_rows([tmp_path / "results"]).frame, Comparison()) == []


def test_costs_are_those_that_pandas_computes_from_the_files(tmp_path: Path) -> None:
    energy = {"cpu_power_scope": "package", "cpu_joules_per_sample": 0.4}
    for machine, step_s in ((SLOW, 0.0117), (FAST, 0.0041), ("mac", 0.003)):
        for run, by in enumerate((1.0, 1.7, 1.2), 1):
            rows = [skewed(machine, run, "lenet5", by * step_s * batch / 20, batch_size=batch,
                           **(energy if machine == FAST else {}))
                    for batch in (8, 32)]  # fmt: skip
            keep_run(tmp_path / "results", [row for its in rows for row in its])
    (tmp_path / "prices.toml").write_text(
        'currency = "EUR"\ndate = 2026-01-31\nsource = "the invoice"\n'
        f"[{SLOW}]\nper_hour = 0.5\n"
        f"[{FAST}]\npurchase = 1200\nyears = 3\nhours_per_day = 8\nper_kwh = 0.30\n"
    )
    asked = ReportOptions(prices=str(tmp_path / "prices.toml"))
    report([tmp_path / "results"], output=str(tmp_path / "report.csv"), options=asked)
    cells = pd.read_csv(tmp_path / "report.csv", dtype=str)
    cells = cells[cells["table"] == "cost"]
    shown = cells.pivot_table(index="row", columns="column", values="value", aggfunc="first")
    files = (tmp_path / "results").glob("*/*.csv")
    frame = pd.concat([pd.read_csv(path) for path in files])
    log_s = -np.log(frame["throughput_samples_per_s"])
    by_run = log_s.groupby([frame[name] for name in ("machine", "batch_size", "run")]).mean()
    seconds = np.exp(by_run.groupby(["machine", "batch_size"]).mean())
    per_s = {SLOW: 0.5 / 3600, FAST: 1200 / (3 * 365.25 * 8 * 3600)}
    joules = {SLOW: 0.0, FAST: 0.4}
    assert len(shown) == 4
    for _, row in shown.iterrows():
        machine = row["hardware"].removesuffix(" cpu")
        of_time = seconds[machine, int(row["batch_size"])] * per_s[machine]
        expected = 1e6 * (of_time + 0.30 * joules[machine] / 3.6e6)
        assert float(row["cost"]) == pytest.approx(expected), row
