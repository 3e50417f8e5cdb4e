"""The tables of a report, from rows whose figures are known."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from histories import keep_said
from report_rows import FAST, HOSTILE, SLOW, keep_run, measured, results_of_two_machines
from test_verdicts_file import judgement

from convmark.core.errors import MeasurementError, OptionError
from convmark.core.table import Table, headings, table_of
from convmark.report.build import build
from convmark.report.comparison import Comparison
from convmark.report.prices import Price
from convmark.report.rows import Rows, points, read_rows
from convmark.report.tables import history as history_module
from convmark.report.tables.hardware import GEOMETRIC_MEAN, hardware_tables
from convmark.report.tables.history import history, step_time_verdicts
from convmark.report.tables.models import applications, architectures, pareto, pareto_front
from convmark.report.tables.overview import machines, troubles
from convmark.report.tables.steps import (
    attainable,
    batch_sizes,
    bytes_per_sample,
    distribution,
    latency_limit,
    roofline,
    scaling,
)
from convmark.report.tables.steps import sustained as sustained_table
from convmark.report.verdicts import judged
from convmark.results.record import Record


def kept(folder: Path, *runs: list[Record]) -> Rows:
    for rows in runs:
        keep_run(folder / "results", rows)
    return read_rows([folder / "results"])


def planned(plan: str, rows: list[Record]) -> list[Record]:
    return [dataclasses.replace(row, plan=plan) for row in rows]


def three(machine: str, run: int, model: str, *steps_s: float, **changes: Any) -> list[Record]:
    """Return one process per step time."""
    return [
        measured(machine, run, model, number, step_s=step_s, **changes)
        for number, step_s in enumerate(steps_s, 1)
    ]


def found(table: Table, **wanted: Any) -> dict[str, Any]:
    """Return the one row whose cells are so."""
    rows = [
        row
        for row in table.records()
        if all(row.get(key) == value for key, value in wanted.items())
    ]
    assert len(rows) == 1, rows
    return rows[0]


# Table


def test_a_table_leaves_out_columns_that_no_row_fills_and_prints_units() -> None:
    columns = headings("a b c", a=("a", "seconds"), c=("c", "bytes"))
    table = table_of("t", "T", "", columns, [{"a": 0.0101, "b": "x"}, {"a": math.nan, "b": ""}])
    assert [one.key for one in table.headings] == ["a", "b"]
    assert table.rows == ((0.0101, "x"), (None, None))
    assert table.texts() == [["10.1 ms", "x"], ["", ""]]


def test_a_table_refuses_a_row_of_another_width_and_an_unknown_kind() -> None:
    with pytest.raises(MeasurementError, match="t: a row must have 1 cells, has 2"):
        Table(key="t", title="", caption="", headings=tuple(headings("a")), rows=(("x", "y"),))
    with pytest.raises(MeasurementError, match="a: kind must be one of"):
        headings("a", a=("a", "parsecs"))


# Architectures


def test_figures_are_medians_over_processes_of_the_newest_run(tmp_path: Path) -> None:
    rows = kept(
        tmp_path,
        three(SLOW, 1, "lenet5", 9.0, 9.0, 9.0),
        three(SLOW, 2, "lenet5", 0.010, 0.012, 0.020),
    )
    row = found(architectures(points(rows.frame), ["0001", "0002"]), model="lenet5")
    assert row["step_time_p50_s"] == 0.012
    assert row["step_time_p99_s"] == pytest.approx(0.012 * 1.3)
    assert row["spread"] == pytest.approx((0.020 - 0.010) / 2 / 0.012)
    assert (row["n"], row["run"], row["parameters"]) == (3, "0002", 61_706)


def test_a_run_that_only_failed_does_not_hide_the_figures_before_it(tmp_path: Path) -> None:
    failed = [measured(SLOW, 2, "lenet5", 1, status="crashed", error="signal 11")]
    rows = kept(tmp_path, three(SLOW, 1, "lenet5", 0.01, 0.01), failed)
    table = points(rows.frame)
    assert found(architectures(table, ["0001", "0002"]), model="lenet5")["run"] == "0001"
    row = found(troubles(table, ["0001", "0002"]), what="failed")
    assert (row["run"], row["detail"]) == ("0002", "1 of 1: crashed: signal 11")


def test_settings_beyond_the_default_are_named(tmp_path: Path) -> None:
    changes = {"jit": "on", "threads": "1", "precision": "mixed_float16"}
    rows = kept(tmp_path, three(SLOW, 1, "lenet5", 0.01, 0.01, **changes))
    table = architectures(points(rows.frame), ["0001"])
    assert table.column("setting") == ["mixed_float16, jit, 1 thread"]


# Summary


def test_what_makes_a_figure_less_reliable_is_named_the_worst_first(tmp_path: Path) -> None:
    first = [*three(SLOW, 1, "lenet5", 1.0, 1.0, 1.0), *three(SLOW, 1, "vgg16", 1.0, 1.0, 1.0)]
    wide = three(SLOW, 2, "lenet5", 1.0, 1.1, 1.5, other_cpu_share=0.82)
    unsteady = three(SLOW, 2, "resnet50", 1.0, 1.0, status="unsteady", unsteady="it rose")
    rows = kept(tmp_path, planned("a", first), planned("a", [*wide, *unsteady]))
    table = troubles(points(rows.frame), ["0001", "0002"])
    assert [row["what"] for row in table.records()] == [
        "missing", "other load", "unsteady", "wide spread", "few processes",
    ]  # fmt: skip
    missing = found(table, what="missing")
    assert missing["case"] == "vgg16-train-cpu-b32-float32"
    assert (missing["detail"], missing["run"]) == (
        "not in run 0002, the newest of the plan",
        "0001",
    )
    assert found(table, what="other load")["detail"] == "other programs took 82% of the CPUs' time"
    assert "Unsteady: The step time changed" in table.caption
    assert "Throttled" not in table.caption
    assert found(table, what="unsteady")["detail"] == "2 of 2 processes: it rose"
    assert found(table, what="wide spread")["detail"].startswith("22.7% between 3 processes")
    assert found(table, what="few processes")["case"] == "resnet50-train-cpu-b32-float32"


def test_a_throttled_card_and_rows_that_are_no_ground_for_a_verdict_are_told(
    tmp_path: Path,
) -> None:
    rows = kept(tmp_path, three(SLOW, 1, "lenet5", 1.0, 1.0, 1.0))
    told = rows.frame.assign(
        throttle_reasons=["none", "sw_thermal_slowdown", None],
        not_judged=[None, None, "others ran on the card"],
    )
    table = troubles(points(told), ["0001"])
    assert table.column("what") == ["throttled", "not judged"]
    assert table.column("detail") == [
        "clocks were lowered: sw_thermal_slowdown", "others ran on the card",
    ]  # fmt: skip


def test_a_lowered_clock_is_told_with_what_was_reached(tmp_path: Path) -> None:
    clocks = {"throttle_reasons": "power_cap", "sm_clock_mhz": 1275.0}
    rows = kept(tmp_path, three(SLOW, 1, "lenet5", 1.0, 1.0, 1.0, **clocks))
    table = troubles(points(rows.frame), ["0001"])
    assert table.column("detail") == [
        "clocks were lowered, the multiprocessors' to 1275 MHz: power_cap"
    ]


def test_the_throughput_of_fed_steps_stands_beside_the_other(tmp_path: Path) -> None:
    fed = {"input_bound_throughput_samples_per_s": 20.0}
    rows = kept(tmp_path, three(SLOW, 1, "lenet5", 1.0, 1.0, 1.0, **fed))
    table = architectures(points(rows.frame), ["0001"])
    assert table.column("input_bound_throughput_samples_per_s") == [20.0]


def test_a_run_of_other_cases_makes_none_missing(tmp_path: Path) -> None:
    both = [*three(SLOW, 1, "lenet5", 1.0, 1.0, 1.0), *three(SLOW, 1, "vgg16", 1.0, 1.0, 1.0)]
    subset = three(SLOW, 2, "lenet5", 1.0, 1.0, 1.0)
    rows = kept(tmp_path, planned("a", both), planned("b", subset))
    assert not troubles(points(rows.frame), ["0001", "0002"]).rows
    interrupted = three(SLOW, 3, "lenet5", 1.0, 1.0, 1.0)
    rows = kept(tmp_path, planned("a", interrupted))
    (row,) = troubles(points(rows.frame), ["0001", "0002", "0003"]).records()
    assert (row["what"], row["case"]) == ("missing", "vgg16-train-cpu-b32-float32")
    measured_again = three(SLOW, 4, "vgg16", 1.0, 1.0, 1.0)
    rows = kept(tmp_path, planned("c", measured_again))
    assert not troubles(points(rows.frame), ["0001", "0002", "0003", "0004"]).rows


def test_load_is_beside_the_figures_that_were_measured_under_it(tmp_path: Path) -> None:
    quiet = three(SLOW, 1, "vgg16", 1.0, 1.0, 1.0, other_cpu_share=0.09)
    loaded = three(SLOW, 1, "lenet5", 1.0, 1.0, 1.0, other_cpu_share=0.82)
    rows = kept(tmp_path, [*quiet, *loaded], three(FAST, 1, "lenet5", 1.0, 1.0, 1.0))
    table = points(rows.frame)
    own = history(table, rows.runs, {})
    for one in (
        architectures(table, ["1", "2"]),
        distribution(table),
        hardware(rows.frame, {}),
        own,
    ):
        loads = {share for share in one.column("load") if share is not None}
        assert loads == {0.82}, one.key
    assert found(hardware(rows.frame, {}), model="lenet5", hardware=f"{SLOW} cpu")["load"] == 0.82


def test_cases_are_in_the_order_of_their_batch_sizes(tmp_path: Path) -> None:
    rows = [
        row for batch in (128, 2, 32) for row in three(SLOW, 1, "lenet5", 1.0, batch_size=batch)
    ]
    table = architectures(points(kept(tmp_path, rows).frame), ["0001"])
    assert table.column("batch_size") == [2, 32, 128]


def test_a_quiet_history_has_no_troubles(tmp_path: Path) -> None:
    rows = kept(tmp_path, three(SLOW, 1, "lenet5", 1.0, 1.01, 1.02))
    assert troubles(points(rows.frame), ["0001"]).rows == ()


def test_machines_say_what_where_when_and_how_many(tmp_path: Path) -> None:
    rows = read_rows([results_of_two_machines(tmp_path)])
    row = found(machines(rows.frame), hardware=f"{SLOW} cpu")
    assert (row["runs"], row["cases"], row["processes"]) == (4, 9, 4 * 27)
    assert (row["without_figures"], row["commits"]) == (1, 3)
    assert row["framework"] == "TensorFlow 2.20.0, TensorFlow 2.21.0"
    assert (row["first"], row["last"]) == ("2026-01-02 03:04", "2026-01-05 03:04")


# Hardware


def hardware(frame: pd.DataFrame, rank: str = "burst") -> Table:
    return hardware_tables(frame, Comparison(rank=rank))[0]


def price(machine: str, amount: float) -> Price:
    return Price(machine=machine, per_hour=amount, currency="USD", date="2026-01-31",
                 source="the invoice")  # fmt: skip


def test_a_speed_up_is_of_plain_step_times_and_gaps_are_shown(tmp_path: Path) -> None:
    slow = [*three(SLOW, 1, "lenet5", 0.08, 0.08, 0.08), *three(SLOW, 1, "vgg16", 1.0, 1.0, 1.0)]
    rows = kept(tmp_path, slow, three(FAST, 1, "lenet5", 0.02, 0.02, 0.02))
    table = hardware(rows.frame)
    row = found(table, model="lenet5", hardware=f"{FAST} cpu")
    assert row["speedup"] == pytest.approx(4.0)
    assert (row["low"], row["high"]) == pytest.approx((4.0, 4.0))
    gap = found(table, model="vgg16", hardware=f"{FAST} cpu")
    assert (gap["note"], gap["step_time_p50_s"]) == ("not measured", None)
    mean = found(table, model=GEOMETRIC_MEAN)
    assert mean["speedup"] == pytest.approx(4.0)
    assert mean["note"] == f"over 1 of 2 cases, those that {SLOW} cpu has too"


def test_two_processes_give_a_ratio_without_an_interval_and_say_so(tmp_path: Path) -> None:
    rows = kept(tmp_path, three(SLOW, 1, "lenet5", 2.0, 2.0), three(FAST, 1, "lenet5", 1.0, 1.0))
    row = found(hardware(rows.frame), model="lenet5", hardware=f"{SLOW} cpu")
    assert row["speedup"] == pytest.approx(0.5)
    assert row["note"] == "fewer than 3 processes"
    assert "low" not in row


def test_a_case_has_one_step_time_in_every_table_that_of_its_newest_run(tmp_path: Path) -> None:
    rows = kept(
        tmp_path,
        three(SLOW, 1, "lenet5", 2.67, 2.67, 2.67),
        three(SLOW, 2, "lenet5", 1.57, 1.57),
        three(FAST, 1, "lenet5", 1.0, 1.0, 1.0),
    )
    table = points(rows.frame)
    for one in (hardware(rows.frame), architectures(table, ["1", "2", "3"])):
        row = found(one, model="lenet5", hardware=f"{SLOW} cpu")
        assert (row["n"], row["step_time_p50_s"]) == (2, 1.57)


def test_other_software_on_the_other_machine_is_told(tmp_path: Path) -> None:
    rows = kept(
        tmp_path,
        three(SLOW, 1, "lenet5", 2.0, 2.0, 2.0, tensorflow="2.20.0", keras="3.15.0"),
        three(FAST, 1, "lenet5", 1.0, 1.0, 1.0, tensorflow="2.21.0", keras="3.15.0"),
    )
    table = hardware(rows.frame)
    base = next(row for row in table.records() if row["speedup"] == 1)["hardware"]
    (other,) = {f"{SLOW} cpu", f"{FAST} cpu"} - {base}
    row = found(table, model="lenet5", hardware=other)
    assert row["note"] == f"not as on {base}: framework"


def test_a_gpu_is_set_against_the_cpu_of_the_same_machine(tmp_path: Path) -> None:
    cpu, gpu = three(SLOW, 1, "lenet5", 2.0), three(SLOW, 1, "lenet5", 1.0, device="gpu:0")
    rows = kept(tmp_path, [*cpu, *gpu])
    names = {row["hardware"] for row in hardware(rows.frame).records()}
    assert names == {f"{SLOW} cpu", f"{SLOW} gpu:0"}


def test_replicas_are_compared_however_they_are_spread(tmp_path: Path) -> None:
    rows = kept(tmp_path, *(
        [*three(machine, 1, "lenet5", 1.0, replicas=2),
         *three(machine, 1, "lenet5", 1.0, replicas=2, cluster="local")]
        for machine in (SLOW, FAST)
    ))  # fmt: skip
    table = hardware(rows.frame)
    assert table.column("setting")[1:] == [*["2 replicas"] * 2, *["2 replicas (local)"] * 2]


def test_energy_is_told_where_it_is_known(tmp_path: Path) -> None:
    rows = kept(tmp_path, three(SLOW, 1, "lenet5", 2.0), three(FAST, 1, "lenet5", 1.0))
    frame = rows.frame.assign(joules_per_sample=[0.5, 0.25])
    values = {row["hardware"]: row["samples_per_joule"] for row in hardware(frame).records()
              if row["model"] == "lenet5"}  # fmt: skip
    assert sorted(values.values()) == [2, 4]
    assert architectures(points(frame), ["a", "b"]).column("joules_per_sample") == [0.5, 0.25]


def test_a_price_of_an_unknown_machine_is_refused(tmp_path: Path) -> None:
    kept(tmp_path, three(SLOW, 1, "lenet5", 2.0, 2.0))
    with pytest.raises(OptionError, match="--prices: no row is of the machine 'mac'; known: xeon"):
        build([tmp_path / "results"], comparison=Comparison(prices={"mac": price("mac", 1.0)}))


def test_the_first_line_has_the_geometric_mean_and_how_many_intervals_contain_1(
    tmp_path: Path,
) -> None:
    slow = [*three(SLOW, 1, "lenet5", 0.08, 0.082, 0.078), *three(SLOW, 1, "vgg16", 1.0, 1.1, 1.2)]
    fast = [*three(FAST, 1, "lenet5", 0.04, 0.041, 0.039), *three(FAST, 1, "vgg16", 1.2, 1.0, 1.1)]
    rows = kept(tmp_path, slow, fast)
    prices = {FAST: price(FAST, 4.0), SLOW: price(SLOW, 1.0)}
    table = hardware_tables(rows.frame, Comparison(prices=prices, reference=f"{SLOW} cpu"))[0]
    assert table.lead == (
        f"{FAST} cpu is 1.4 times {SLOW} cpu (1.3 to 1.6), 0.35 times per USD/h (0.32 to 0.39); "
        "1 of 2 intervals contains 1 (no difference is shown there).",
        f"Fewer than 3 runs are alike on {FAST} cpu, {SLOW} cpu: how a machine differs from run to "
        "run is not in the intervals.",
    )


def test_the_order_by_sustained_throughput_is_told_and_can_be_chosen(tmp_path: Path) -> None:
    """The fast machine is the slow one after some minutes."""
    rates = {SLOW: (0.08, 400.0), FAST: (0.04, 200.0)}
    rows = kept(tmp_path, *(
        three(machine, 1, "lenet5", *[step_s] * 3, sustained_s=1200.0,
              sustained_throughput_samples_per_s=rate)
        for machine, (step_s, rate) in rates.items()
    ))  # fmt: skip
    reference = f"{SLOW} cpu"
    burst, sustained = (
        hardware_tables(rows.frame, Comparison(reference=reference, rank=rank))[0]
        for rank in ("burst", "sustained")
    )
    (first, *_), (last, *_) = burst.lead, sustained.lead
    assert first.startswith(f"{FAST} cpu is 2 times {reference} (")
    assert last.startswith(f"{FAST} cpu is 0.5 times {reference} (")
    assert f"By sustained throughput the order is another: {reference}, {FAST} cpu." in burst.lead
    assert f"By burst throughput the order is another: {FAST} cpu, {reference}." in sustained.lead
    assert any(line.startswith(f"Sustained: {last[:20]}") for line in burst.lead)
    assert burst.column("hardware")[1:] == [f"{FAST} cpu", reference]
    assert sustained.column("hardware")[1:] == [reference, f"{FAST} cpu"]
    assert found(sustained, model=GEOMETRIC_MEAN)["speedup"] == pytest.approx(0.5)


def sustained(machine: str, rate: float, seconds: float = 600.0, **more: Any) -> list[Record]:
    more |= {"sustained_s": seconds, "sustained_throughput_samples_per_s": rate}
    return [measured(machine, 1, "lenet5", 1, **more)]


def test_sustained_throughputs_of_unlike_times_are_told_with_their_load(tmp_path: Path) -> None:
    slow = sustained(SLOW, 400.0, sustained_other_cpu_share=0.5)
    rows = kept(tmp_path, slow, sustained(FAST, 500.0, 30.0))
    words = f"Steps did not go on for the same time (30 s on {FAST} cpu, 600 s on {SLOW} cpu)"
    for rank in ("burst", "sustained"):
        table = hardware(rows.frame, rank)
        assert table.lead[-1].startswith(words)
        loads = {row["hardware"]: row.get("load") for row in table.records() if row["batch_size"]}
        assert loads == {f"{FAST} cpu": None, f"{SLOW} cpu": 0.5 if rank == "sustained" else None}


def test_what_was_not_sustained_is_no_reference_of_sustained_throughput(tmp_path: Path) -> None:
    """Though it has the most cases."""
    slow = [*three(SLOW, 1, "lenet5", 1.0), *three(SLOW, 1, "mini_resnet", 1.0)]
    rows = kept(tmp_path, slow, sustained(FAST, 500.0), sustained("mac", 250.0))
    table = hardware(rows.frame, "sustained")
    assert table.lead[0].startswith(f"mac cpu is 0.5 times {FAST} cpu")
    (row,) = (one for one in table.records() if one["hardware"] == f"{SLOW} cpu"
              and one["model"] == "lenet5")  # fmt: skip
    assert (row.get("speedup"), row["note"]) == (None, "not sustained")
    (answers, *_) = build([tmp_path / "results"], comparison=Comparison(rank="sustained")).tables
    assert "step times, but those of machines of sustained throughput, above 1" in answers.caption
    with pytest.raises(OptionError, match=f"the reference {SLOW} cpu has no sustained throughput"):
        hardware_tables(rows.frame, Comparison(rank="sustained", reference=f"{SLOW} cpu"))


def test_a_later_run_without_it_does_not_hide_what_was_sustained_or_found_at_a_limit(
    tmp_path: Path,
) -> None:
    at = {"latency_limit_s": 0.01, "latency_limit_rate_per_s": 5.0}
    later = [
        three(SLOW, 2, "lenet5", 1.0),
        three(FAST, 2, "lenet5", 1.0, latency_limit_s=0.02, latency_limit_rate_per_s=7.0),
    ]
    first = sustained(SLOW, 400.0, **at), sustained(FAST, 500.0, **at)
    rows = kept(tmp_path, *first, *later)
    table = points(rows.frame)
    assert sustained_table(table).column("run") == ["0001", "0001"]
    limits = [(row["limit"], row["hardware"]) for row in latency_limit(table).records()]
    assert sorted(limits) == [(0.01, f"{FAST} cpu"), (0.01, f"{SLOW} cpu"), (0.02, f"{FAST} cpu")]
    assert hardware(rows.frame, "sustained").lead[0].startswith(f"{SLOW} cpu is 0.8 times {FAST}")


def test_the_best_batch_is_known_only_where_each_was_sustained(tmp_path: Path) -> None:
    every = [*sustained(FAST, 90.0, batch_size=1), *sustained(FAST, 900.0, batch_size=32)]
    some = [*sustained(SLOW, 90.0, batch_size=1), measured(SLOW, 1, "lenet5", 1, batch_size=32)]
    rows = kept(tmp_path, every, some)
    best = hardware_tables(rows.frame, Comparison(rank="sustained"))[1]
    notes = {row["hardware"]: row["note"] for row in best.records() if row["model"] == "lenet5"}
    assert notes[f"{FAST} cpu"].startswith("best of 1, 32")
    assert notes[f"{SLOW} cpu"].startswith("not known: not each of 1, 32 was sustained")
    assert found(best, model=GEOMETRIC_MEAN).get("speedup") is None


def test_what_was_not_sustained_ranks_nothing(tmp_path: Path) -> None:
    rows = kept(tmp_path, three(SLOW, 1, "lenet5", 1.0), three(FAST, 1, "lenet5", 2.0))
    with pytest.raises(OptionError, match="--rank sustained: no row has a sustained throughput"):
        hardware(rows.frame, "sustained")


def test_the_reference_is_the_machine_that_is_asked_for(tmp_path: Path) -> None:
    kept(tmp_path, three(SLOW, 1, "lenet5", 2.0), three(FAST, 1, "lenet5", 1.0))
    for reference, value in ((SLOW, 2.0), (f"{FAST} cpu", 0.5)):
        found_there = build([tmp_path / "results"], comparison=Comparison(reference=reference))
        table = next(one for one in found_there.tables if one.key == "hardware")
        assert found(table, model=GEOMETRIC_MEAN)["speedup"] == pytest.approx(value)
    with pytest.raises(OptionError, match="--reference: no row is of the machine 'mac'; known"):
        build([tmp_path / "results"], comparison=Comparison(reference="mac"))
    failed = measured("mac", 1, "lenet5", 1, status="error", error="no", step_time_p50_s=None)
    keep_run(tmp_path / "results", [failed])
    with pytest.raises(OptionError, match="--reference: no timed case is measured on 'mac cpu'"):
        build([tmp_path / "results"], comparison=Comparison(reference="mac"))


def test_a_reference_with_several_devices_names_one(tmp_path: Path) -> None:
    gpu = three(SLOW, 1, "lenet5", 1.0, device="gpu:0")
    kept(tmp_path, [*three(SLOW, 1, "lenet5", 2.0), *gpu])
    with pytest.raises(OptionError, match=f"several devices; give '{SLOW} cpu' or '{SLOW} gpu:0'"):
        build([tmp_path / "results"], comparison=Comparison(reference=SLOW))


def test_runs_are_the_unit_where_each_case_has_three(tmp_path: Path) -> None:
    levels = (1.0, 1.1, 1.2)
    runs = [
        three(machine, run, "lenet5", *[level / factor] * 3, tensorflow="2.21.0", code="a")
        for machine, factor in ((SLOW, 1), (FAST, 2))
        for run, level in enumerate(levels, 1)
    ]
    table = hardware(kept(tmp_path, *runs).frame)
    row = next(row for row in table.records() if row["model"] == "lenet5" and row["speedup"] != 1)
    assert (row["runs"], row["n"]) == (3, 3)  # step times shown are the newest run's
    low, high = sorted((row["low"] / row["speedup"], row["high"] / row["speedup"]))
    assert low < 0.85 < 1.18 < high  # processes that agree say nothing of runs that do not
    assert len(table.lead) == 1


@pytest.mark.parametrize(
    ("fact", "note"),
    [("code", "code"), ("os", "has too"), ("packages", "packages")],
)
def test_earlier_runs_of_other_code_packages_or_systems_are_left_out(
    tmp_path: Path, fact: str, note: str
) -> None:
    olds, new = {"code": "c", fact: "ort==1.17"}, {"code": "c", fact: "ort==1.32"}
    table = hardware(
        kept(
            tmp_path,
            *(three(SLOW, n, "lenet5", 9.0, 9.0, 9.0, **olds) for n in (1, 2, 3)),
            three(SLOW, 4, "lenet5", 2.0, 2.0, 2.0, tensorflow="2.20.0", **new),
            three(FAST, 1, "lenet5", 1.0, 1.0, 1.0, **olds),
        ).frame
    )
    row = found(table, model="lenet5", hardware=f"{SLOW} cpu")
    assert (row["runs"], row["step_time_p50_s"]) == (1, 2.0)
    ratios = {one["speedup"] for one in table.records() if one["model"] == "lenet5"}
    assert ratios in ({1.0, 2.0}, {1.0, 0.5})
    notes = "; ".join(one["note"] for one in table.records() if one["note"])
    assert notes.endswith(note)


def test_each_machine_has_its_own_best_batch(tmp_path: Path) -> None:
    slow = [
        *three(SLOW, 1, "lenet5", 1.0, 1.0, 1.0, batch_size=32),
        *three(SLOW, 1, "lenet5", 4.0, 4.0, 4.0, batch_size=64),
    ]
    fast = [
        *three(FAST, 1, "lenet5", 1.0, 1.0, 1.0, batch_size=32),
        *three(FAST, 1, "lenet5", 1.0, 1.0, 1.0, batch_size=64),
    ]
    tables = hardware_tables(kept(tmp_path, slow, fast).frame, Comparison(reference=f"{SLOW} cpu"))
    best = tables[1]
    row = found(best, model="lenet5", hardware=f"{FAST} cpu")
    assert (row["batch_size"], row["speedup"]) == (64, pytest.approx(2.0))
    assert row["note"] == "best of 32, 64"
    assert found(best, model="lenet5", hardware=f"{SLOW} cpu")["batch_size"] == 32


def test_the_loss_stands_beside_reduced_precision(tmp_path: Path) -> None:
    rows = [
        *three(SLOW, 1, "lenet5", 2.0, loss=0.5),
        *three(SLOW, 1, "lenet5", 1.0, loss=0.6, precision="mixed_bfloat16"),
        *three(FAST, 1, "lenet5", 1.0, loss=0.5),
    ]
    table = hardware(kept(tmp_path, rows[:2], rows[2:]).frame)
    row = found(table, setting="mixed_bfloat16", hardware=f"{SLOW} cpu")
    assert (row["loss"], row["loss_float32"]) == (0.6, 0.5)
    plain = found(table, model="lenet5", setting=None, hardware=f"{FAST} cpu")
    assert plain["loss"] is None


def test_the_newest_figures_are_shown_and_the_ratio_is_of_those_that_can_be_judged(
    tmp_path: Path,
) -> None:
    rows = [*three(SLOW, 1, "lenet5", 2.0), *three(SLOW, 1, "vgg16", 3.0, not_judged="hot")]
    hot = measured(SLOW, 1, "lenet5", 2, step_s=9.0, not_judged="hot")
    other = [*three(FAST, 1, "lenet5", 1.0), *three(FAST, 1, "vgg16", 1.0)]
    busy = three(FAST, 2, "lenet5", 5.0, 5.0, 5.0, not_judged="card in use")
    table = hardware(kept(tmp_path, [*rows, hot], other, busy).frame)
    shown = {
        (row["model"], row["hardware"]): (row["step_time_p50_s"], row["n"], row["note"])
        for row in table.records()
    }
    few = "fewer than 3 processes"
    assert shown["lenet5", f"{SLOW} cpu"][:2] == (5.5, 2)
    assert shown["lenet5", f"{SLOW} cpu"][2].startswith(
        f"{few}; speed-up without 1 of 2, not judged: hot"
    )
    assert shown["lenet5", f"{FAST} cpu"][:2] == (5.0, 3)
    earlier = f"{few}; speed-up of earlier runs, as the newest is not judged: card in use"
    assert shown["lenet5", f"{FAST} cpu"][2].startswith(earlier)
    assert shown["vgg16", f"{SLOW} cpu"][2].startswith(f"{few}; not judged: hot")
    ratios = [row["speedup"] for row in table.records() if row["model"] == "lenet5"]
    assert sorted(ratios) in ([0.5, 1.0], [1.0, 2.0])


def test_the_best_batch_is_that_of_the_newest_run(tmp_path: Path) -> None:
    same = {"commit": "a" * 40, "tensorflow": "2.21.0"}
    runs = [
        [
            measured(machine, run, "lenet5", number, batch_size=batch, step_s=step_s, **same)
            for number in (1, 2, 3)
            for batch, step_s in ((8, first_s), (32, 0.35))
        ]
        for machine in (SLOW, FAST)
        for run, first_s in ((1, 0.08), (2, 0.08), (3, 0.16))
    ]
    _, table = hardware_tables(kept(tmp_path, *runs).frame, Comparison())
    for name in (SLOW, FAST):
        row = found(table, model="lenet5", hardware=f"{name} cpu")
        assert row["batch_size"] == 32


def test_one_machine_alone_is_not_compared(tmp_path: Path) -> None:
    rows = kept(tmp_path, three(SLOW, 1, "lenet5", 2.0, 2.0))
    assert hardware(rows.frame).rows == ()


# History


def test_history_has_the_run_behind_each_point_its_interval_and_its_verdict(
    tmp_path: Path,
) -> None:
    rows = kept(
        tmp_path,
        three(SLOW, 1, "lenet5", 1 / math.e, 1.0, math.e, commit="a" * 40, dirty=True),
        three(SLOW, 2, "lenet5", 1.0),
    )
    said = judgement(run="0002", verdict="inconclusive", fails=False)
    keep_said(tmp_path / "results" / SLOW, said)
    table = history(points(rows.frame), rows.runs, step_time_verdicts(rows.runs))
    first, second = table.records()
    assert (first["run"], first["commit"]) == ("0001", "aaaaaaaaaaaa (dirty)")
    # one pooled spread: variance 1 with 2 degrees of freedom, whose quantile is 4.30265
    assert first["high"] == pytest.approx(math.exp(4.30265 / math.sqrt(3)), rel=1e-5)
    assert second["high"] == pytest.approx(math.exp(4.30265), rel=1e-5)
    assert (first["verdict"], second["verdict"]) == (None, "inconclusive")


def test_a_failed_run_stays_in_the_history_with_its_reason(tmp_path: Path) -> None:
    rows = kept(tmp_path, [measured(SLOW, 1, "lenet5", 1, status="timeout", error="hung")],
                three(SLOW, 2, "lenet5", 1.0))  # fmt: skip
    table = history(points(rows.frame), rows.runs, {})
    assert table.column("trouble") == ["timeout: hung", None]
    assert table.column("step_time_p50_s") == [None, 1]


def test_a_long_history_keeps_the_newest_points_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "MOST_POINTS", 12)
    rows = kept(tmp_path, *(three(SLOW, run, "lenet5", 1.0) for run in range(1, 21)))
    table = history(points(rows.frame), rows.runs, {})
    assert table.column("run") == [f"{run:04d}" for run in range(9, 21)]
    assert "The newest 12 runs of each case; 8 earlier points are left out." in table.caption


# Batch size, distribution, replicas, roofline


def test_batch_sizes_need_two(tmp_path: Path) -> None:
    both = [*three(SLOW, 1, "lenet5", 1.0, batch_size=8), *three(SLOW, 1, "lenet5", 2.0)]
    rows = kept(tmp_path, [*both, *three(SLOW, 1, "vgg16", 1.0)])
    table = batch_sizes(points(rows.frame))
    assert table.column("model") == ["lenet5", "lenet5"]
    assert table.column("batch_size") == [8, 32]


def test_distribution_has_the_quantiles_of_the_newest_run(tmp_path: Path) -> None:
    rows = kept(tmp_path, three(SLOW, 1, "lenet5", 1.0, 1.0, task="infer"))
    row = found(distribution(points(rows.frame)), model="lenet5")
    assert row["group"] == f"{SLOW} cpu, infer, batch 32"
    assert [row[name] for name in ("min", "p10", "p50", "p99", "max")] == [0.9, 0.95, 1, 1.3, 1.5]


def test_scaling_is_against_one_replica_of_the_same_case(tmp_path: Path) -> None:
    rows = kept(
        tmp_path,
        [
            *three(SLOW, 1, "lenet5", 1.0, throughput_samples_per_s=100.0),
            *three(SLOW, 1, "lenet5", 1.0, replicas=2, throughput_samples_per_s=150.0),
            *three(SLOW, 1, "vgg16", 1.0, replicas=2, throughput_samples_per_s=10.0),
        ],
    )
    table = scaling(points(rows.frame))
    assert table.column("replicas") == [1, 2]
    assert table.column("efficiency") == [1, 0.75]


def test_each_way_of_spreading_replicas_is_a_series_of_its_own(tmp_path: Path) -> None:
    def two(throughput: float, **changes: Any) -> list[Record]:
        return three(SLOW, 1, "lenet5", 1.0, throughput_samples_per_s=throughput, **changes)

    rows = kept(
        tmp_path,
        [
            *two(100.0, device="gpu:0"),
            *two(90.0, device="gpu:1"),  # what begins at gpu:0 is held against gpu:0 alone
            *two(150.0, device="gpu:0", replicas=2),
            *two(120.0, device="gpu:0", replicas=2, cluster="local"),
            *two(300.0, device="gpu:0", replicas=4, cluster="hosts2"),
        ],
    )
    table = scaling(points(rows.frame))
    case = f"{SLOW} gpu, lenet5, train, batch 32"
    found = zip(
        table.column("series"), table.column("replicas"), table.column("efficiency"), strict=True
    )
    assert list(found) == [
        (case, 1, 1),
        (case, 2, 0.75),
        (f"{case}, hosts2", 1, 1),
        (f"{case}, hosts2", 4, 0.75),
        (f"{case}, local", 1, 1),
        (f"{case}, local", 2, 0.6),
    ]


def test_roofline_needs_ceilings_bytes_and_the_flops_of_the_step_itself(tmp_path: Path) -> None:
    rows = kept(
        tmp_path,
        [
            *three(SLOW, 1, "lenet5", 1.0, task="infer", flops_per_sample=1000,
                   throughput_samples_per_s=10.0),
            *three(SLOW, 1, "vgg16", 1.0, flops_per_sample=1000, throughput_samples_per_s=10.0),
        ],
    )  # fmt: skip
    assert roofline(points(rows.frame), {"lenet5": 10}).rows == ()
    ceilings = rows.frame.assign(peak_flops_per_s=40_000.0, peak_bytes_per_s=1_000.0)
    assert roofline(points(ceilings), {}).rows == ()
    known = ceilings.copy().assign(bytes_per_sample=[50.0, 20.0])
    (infer,) = roofline(points(known), {}).records()  # training whose backward pass is not counted
    assert (infer["intensity"], infer["flops_per_s"]) == (20, 10_000)
    assert (infer["attainable_flops_per_s"], infer["share"]) == (20_000, 0.5)
    counted = known.assign(training_flops_per_sample=2500.0)  # an infer row's would not count
    train = found(roofline(points(counted), {}), model="vgg16")  # under the other ceiling
    assert (train["intensity"], train["flops_per_s"]) == (50, 25_000)
    assert (train["attainable_flops_per_s"], train["share"]) == (40_000, 0.625)


def test_a_described_models_bytes_are_estimated(tmp_path: Path) -> None:
    rows = kept(tmp_path, three(SLOW, 1, "lenet5", 1.0, 1.0, flops_per_sample=1000,
                                training_flops_per_sample=2500, parameters=640))  # fmt: skip
    known = rows.frame.assign(peak_flops_per_s=40_000.0, peak_bytes_per_s=1_000.0)
    row = found(roofline(points(known), {"lenet5": 30}), model="lenet5")
    assert row["intensity"] == 1000 / (4 * (30 + 640 / 32))
    assert bytes_per_sample(30, 640, 32, "mixed_float16") == 100
    assert bytes_per_sample(30, 640, 32, "float32+mixed_bfloat16") == 200
    assert bytes_per_sample(30, 640, 32, "float64") == 400


def test_the_ceilings_meet_at_the_ridge() -> None:
    assert attainable(10.0, 100.0, 10.0) == 100.0
    assert attainable(9.0, 100.0, 10.0) == 90.0
    assert attainable(11.0, 100.0, 10.0) == 100.0


# Pareto front


@pytest.mark.parametrize(
    ("points_", "front"),
    [
        ([], []),
        ([(1, 1)], [True]),
        ([(1, 5), (2, 3), (3, 9)], [True, False, True]),
        ([(2, 3), (2, 5)], [False, True]),  # as many parameters, more throughput
        ([(1, 5), (2, 5)], [True, False]),  # as much throughput, fewer parameters
        ([(1, 5), (1, 5)], [True, True]),
    ],
)
def test_the_front_is_what_none_beats(
    points_: list[tuple[float, float]], front: list[bool]
) -> None:
    assert pareto_front(points_) == front


def test_pareto_groups_like_cases(tmp_path: Path) -> None:
    rows = kept(
        tmp_path,
        [
            *three(SLOW, 1, "lenet5", 0.010),  # 61,706 parameters
            *three(SLOW, 1, "mini_resnet", 0.040),  # 270,218
            *three(SLOW, 1, "lenet5", 0.010, batch_size=64),
        ],
    )
    table = pareto(points(rows.frame))
    assert table.column("group") == [f"{SLOW} cpu, train, batch 32"] * 2
    assert table.column("front") == ["on the front", None]


# As Keras lists its applications


def test_the_applications_table_takes_inference_of_32_samples(tmp_path: Path) -> None:
    infer = {"task": "infer"}
    rows = kept(
        tmp_path,
        [
            *three(SLOW, 1, "lenet5", 0.010, 0.012, 0.014, **infer),
            *three(SLOW, 1, "lenet5", 0.001, device="gpu:0", **infer),
            *three(SLOW, 1, "lenet5", 5.0, **infer, jit="on"),
            *three(SLOW, 1, "lenet5", 5.0, **infer, batch_size=1),
            *three(SLOW, 1, "vgg16", 5.0),
        ],
    )
    table = applications(points(rows.frame), {"lenet5": 5})
    row = found(table, model="lenet5")
    assert (row["cpu_step_s"], row["gpu_step_s"]) == (0.012, 0.001)
    assert (row["depth"], row["parameters"], row["model_bytes"]) == (5, 61_706, 246_824)
    assert table.column("model") == ["lenet5"]
    assert "convmark run --tasks infer --batch-sizes 32" in table.caption


# Verdicts


def test_verdicts_that_fail_come_first_and_the_rest_is_counted() -> None:
    table = judged(
        [
            judgement(case="b", verdict="unchanged", fails=False),
            judgement(case="a", verdict="inconclusive", fails=False),
            judgement(case="c", verdict="regressed", fails=True),
            judgement(case="c", metric="parameters", verdict="unchanged", fails=False),
        ],
        "main",
        between="run 0001 (a) -> run 0002 (b)",
    )
    assert table.title == "Verdicts: 1 of 3 cases fails, run 0001 (a) -> run 0002 (b)"
    assert table.column("case") == ["c", "a", "b"]
    assert "1 more with nothing to add" in table.caption


# All of them


def test_tables_of_a_hostile_name_hold_it_as_it_is(tmp_path: Path) -> None:
    report = build([results_of_two_machines(tmp_path)])
    names = [table.key for table in report.tables]
    assert names[:2] == ["answers", "architectures"]
    assert names[-2:] == ["machines", "troubles"]
    assert "roofline" not in names
    assert HOSTILE in next(t for t in report.tables if t.key == "architectures").column("model")
    assert report.lead == "6 runs, 2 machines, 9 cases, 144 processes, 1 without figures."
