"""The tables of a report, from rows whose figures are known."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from histories import keep_said
from report_rows import FAST, HOSTILE, SLOW, keep_run, measured, results_of_two_machines
from test_verdicts_file import judgement

from convmark.compare.files import step_time_verdicts
from convmark.core.errors import MeasurementError
from convmark.core.table import Table, headings, table_of
from convmark.report.build import build
from convmark.report.comparison import Comparison
from convmark.report.page.layout import layout
from convmark.report.rows import Rows, points, read_rows
from convmark.report.summary import summary
from convmark.report.tables import history as history_module
from convmark.report.tables.hardware import hardware_tables
from convmark.report.tables.history import history
from convmark.report.tables.models import applications, architectures, pareto, pareto_front
from convmark.report.tables.overview import machines, troubles
from convmark.report.tables.scaling import scaling, scaling_of_run
from convmark.report.tables.steps import (
    attainable,
    batch_sizes,
    bytes_per_sample,
    distribution,
    roofline,
)
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


def hardware(frame: pd.DataFrame, rank: str = "burst") -> Table:
    return hardware_tables(frame, Comparison(rank=rank))[0]


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


def test_processes_that_fail_or_are_unsteady_each_for_its_own_reason_have_all(
    tmp_path: Path,
) -> None:
    facts = (
        {"status": "unsteady", "unsteady": "warm-up did not settle in 20 steps"},
        {"status": "unsteady", "unsteady": "step time rose by 35 % from the first third"},
        {"not_judged": "a battery of 9 %"},
        {"not_judged": "heat of 99 degrees"},
        {"status": "crashed", "error": "signal 11"},
        {"status": "timeout"},
    )
    rows = [
        measured(SLOW, 1, "lenet5", number, **{"step_time_p50_s": 0.01, **changes})
        for number, changes in enumerate(facts, 1)
    ]
    table = troubles(points(kept(tmp_path, rows).frame), ["0001"])
    details = [found(table, what=what)["detail"] for what in ("failed", "unsteady", "not judged")]
    assert details == [
        "2 of 6: crashed: signal 11, timeout: no reason given",
        "2 of 4 processes: warm-up did not settle (1), step time rose (1)",
        "a battery (1), heat (1)",
    ]


def test_what_is_shown_is_explained_and_no_percentile_that_is_not(tmp_path: Path) -> None:
    few = dict.fromkeys(("step_time_p95_s", "step_time_p99_s"))
    rows = three(SLOW, 1, "lenet5", 0.01, 0.01, **few)
    table = points(kept(tmp_path, rows).frame)
    captions = [architectures(table, ["0001"]).caption, distribution(table).caption]
    assert not any(name in caption for caption in captions for name in ("p95", "p99"))
    assert "samples/s is measured over windows of steps" in captions[0]
    assert not [word for word in ("Doubts", "Fed", "Other load") if word in captions[0]]
    doubtful = three(SLOW, 1, "lenet5", 0.01, 0.01, status="unsteady", other_cpu_share=0.5)
    loaded = architectures(points(kept(tmp_path / "busy", doubtful).frame), ["0001"]).caption
    assert "Doubts count" in loaded
    assert "Other load is" in loaded
    table = points(kept(tmp_path / "more", three(SLOW, 1, "lenet5", 0.01, 0.01)).frame)
    assert "p95 needs 100 steps in every process." in distribution(table).caption


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
    assert found(table, what="other load")["detail"] == "other programs took 82 % of the CPUs' time"
    assert "Unsteady: The step time changed" in table.caption
    assert "Throttled" not in table.caption
    assert found(table, what="unsteady")["detail"] == "2 of 2 processes: it rose"
    assert found(table, what="wide spread")["detail"].startswith("22.7 % between 3 processes")
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


def test_what_to_be_wary_of_stands_beside_a_figure(tmp_path: Path) -> None:
    rows = three(SLOW, 1, "lenet5", 1.0, 1.0, 1.0)
    rows[0] = dataclasses.replace(rows[0], status="unsteady")
    rows[1] = dataclasses.replace(rows[1], not_judged="hot")
    rows.append(measured(SLOW, 1, "lenet5", 4, status="crashed", error="x", step_time_p50_s=None))
    known = kept(tmp_path, rows, three(SLOW, 2, "vgg16", 1.0, 1.0, 1.0))
    table = points(known.frame)
    for one in (
        architectures(table, ["1", "2"]),
        distribution(table),
        history(table, known.runs, {}),
    ):
        doubts = dict(zip(one.column(one.headings[0].key), one.column("doubts"), strict=True))
        assert list(doubts.values()) == [
            "1 of 4 failed, 1 of 3 unsteady, 1 of 3 not judged",
            None,
        ], one.key


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
    verdicts = step_time_verdicts([run.path for run in rows.runs])
    table = history(points(rows.frame), rows.runs, verdicts)
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


def test_a_percentile_that_a_process_lacks_is_not_that_of_the_others(tmp_path: Path) -> None:
    # the slowest has taken too few steps: a median over the quicker two would be below p50
    *quicker, slowest = three(SLOW, 1, "lenet5", 1.0, 1.1, 5.0, task="infer")
    records = [*quicker, dataclasses.replace(slowest, step_time_p99_s=None)]
    row = found(distribution(points(kept(tmp_path, records).frame)), model="lenet5")
    assert "p99" not in row
    assert row["max"] == pytest.approx(1.1 * 1.5)
    assert [one.get("step_time_p99_s") for one in summary(records)[0].records()] == [None]


def test_scaling_is_against_one_replica_of_the_same_case(tmp_path: Path) -> None:
    rows = kept(
        tmp_path,
        [
            *three(SLOW, 1, "lenet5", 1.0, throughput_samples_per_s=100.0),
            *three(SLOW, 1, "lenet5", 1.0, replicas=2, throughput_samples_per_s=150.0),
            *three(SLOW, 1, "vgg16", 1.0, replicas=2, throughput_samples_per_s=10.0),
        ],
    )
    table = scaling(points(rows.frame), rows.frame)
    assert table.column("replicas") == [1, 2]
    assert table.column("efficiency") == pytest.approx([1, 0.75])
    assert "low" not in table.records()[0]  # one process a side


def test_an_efficiency_is_of_the_processes_that_its_n_counts(tmp_path: Path) -> None:
    alone = three(SLOW, 1, "lenet5", 1.0, 1.0, throughput_samples_per_s=100.0)
    alone[0] = dataclasses.replace(alone[0], status="unsteady", throughput_samples_per_s=1.0)
    two = three(SLOW, 1, "lenet5", 1.0, replicas=2, throughput_samples_per_s=150.0)
    rows = kept(tmp_path, [*alone, *two])
    (of_run,) = scaling_of_run([*alone, *two])
    for table in (scaling(points(rows.frame), rows.frame), of_run):
        assert table.column("efficiency") == pytest.approx([1, 0.75])
        assert table.column("n") == [1, 1]


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
    table = scaling(points(rows.frame), rows.frame)
    case = f"{SLOW} gpu, lenet5, train, batch 32"
    shares = [round(share, 9) for share in table.column("efficiency")]
    found = zip(table.column("series"), table.column("replicas"), shares, strict=True)
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
    assert roofline(points(rows.frame), {("lenet5", ""): 10}).rows == ()
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
                                training_flops_per_sample=2500, parameters=640,
                                input_shape="28x28x1"))  # fmt: skip
    known = rows.frame.assign(peak_flops_per_s=40_000.0, peak_bytes_per_s=1_000.0)
    row = found(roofline(points(known), {("lenet5", "28x28x1"): 30}), model="lenet5")
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
    title = "Verdicts: 1 of 3 cases fails, 1 not decided, run 0001 (a) -> run 0002 (b)"
    assert table.title == title
    assert table.column("case") == ["c", "a", "b"]
    assert "1 more: other metrics, which are unchanged or follow the step time." in table.caption
    assert judged([judgement()], "main", between="").caption.endswith("over all cases.")


# All of them


def test_tables_of_a_hostile_name_hold_it_as_it_is(tmp_path: Path) -> None:
    report = build([results_of_two_machines(tmp_path)])
    names = [table.key for table in report.tables]
    assert names[:2] == ["answers", "architectures"]
    assert names[-2:] == ["machines", "troubles"]
    assert "roofline" not in names
    assert HOSTILE in next(t for t in report.tables if t.key == "architectures").column("model")
    assert report.lead == "6 runs, 2 machines, 9 cases, 144 processes, 1 without figures."


def test_an_end_that_all_rows_share_stays_beside_the_other() -> None:
    columns = headings("case n low high")
    records = [{"case": case, "n": 3, "low": 0.1, "high": high} for case, high in
               (("a", 0.2), ("b", 0.3))]  # fmt: skip
    parts = layout(table_of("hardware", "", "", columns, records))
    assert [heading.key for heading in parts.headings] == ["case", "low", "high"]
    same = layout(table_of("hardware", "", "", columns, [{**one, "high": 1} for one in records]))
    assert [heading.key for heading, _, _ in same.same] == ["n", "low", "high"]


def test_a_narrow_window_keeps_what_rows_of_threads_are_told_apart_by() -> None:
    columns = headings("series threads mean_s n")
    record = {"series": "lenet5", "threads": "default (2)", "mean_s": 0.1, "n": 3}
    found = layout(table_of("cores", "", "", columns, [record]))
    names = [one.split()[1:] for one in found.classes]
    kept = dict(zip([one.key for one in found.headings], names, strict=True))
    assert kept == {"series": ["who"], "threads": ["who"], "mean_s": ["main"], "n": []}


def test_batch_sizes_are_in_the_order_of_numbers_wherever_words_have_them(tmp_path: Path) -> None:
    runs = [
        [
            one
            for model in ("lenet5", "mini_resnet")
            for batch in (1, 8, 32, 128)
            for one in three(SLOW, run, model, 0.01, 0.01, 0.01, task="infer", batch_size=batch)
        ]
        for run in (1, 2)
    ]
    rows = kept(tmp_path, *runs)
    tables = {table.key: table for table in build([tmp_path / "results"]).tables}
    for key, column in (("distribution", "group"), ("pareto", "group"), ("history", "case")):
        texts = dict.fromkeys(text.partition("-jit")[0] for text in tables[key].column(column))
        sizes = [int(re.findall(r"(?:batch |-b)([0-9]+)", text)[0]) for text in texts]
        assert sizes == [1, 8, 32, 128] * (len(sizes) // 4), key
    assert len(rows.runs) == 2
