"""Unlike rows in one report: no figure is of both, and no two rows of a table look the same."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from quotients import shown_rows
from report_rows import FAST, SLOW, keep_prices, keep_run, measured
from rich_rows import rich_results
from test_report_tables import found, hardware, kept, three

from convmark.core.options import Options
from convmark.core.table import FACETS
from convmark.report.advice import next_step
from convmark.report.build import build
from convmark.report.command import report
from convmark.report.comparison import Comparison, read_prices
from convmark.report.export import export_of
from convmark.report.figures import figures_of
from convmark.report.rows import points, read_rows
from convmark.report.summary import summary_text
from convmark.report.tables.accuracy import accuracy
from convmark.report.tables.hardware import hardware_tables
from convmark.report.tables.models import applications, pareto, published_times
from convmark.report.tables.scaling import scaling
from convmark.report.tables.steps import batch_sizes, roofline
from convmark.results.record import Record

THRICE = (0.010, 0.0101, 0.0102)

NAMES = ("batch_size", "replicas", "limit", "threads")
"""Columns of numbers that say what a row is of."""

EVERYWHERE: dict[str, Any] = {
    "sustained_s": 60.0,
    "sustained_throughput_samples_per_s": 3000.0,
    "latency_limit_s": 0.01,
    "latency_limit_rate_per_s": 50.0,
    "cpu_power_scope": "package",
    "cpu_power_w": 10.0,
    "cpu_joules_per_sample": 0.1,
    "peak_flops_per_s": 1e12,
    "peak_bytes_per_s": 1e10,
    "training_flops_per_sample": 2_500_000,
}
"""Figures of every table."""


def rows_of(model: str, number: int = 1, **changes: Any) -> list[Record]:
    return three(SLOW, number, model, *THRICE, **changes)


@pytest.mark.parametrize(
    "setting",
    [
        {"precision": "mixed_bfloat16"},
        {"threads": "1"},
        {"cpus": "0-1"},
        {"jit": "on"},
        {"recipe": "optimizer=adam"},
        {"backend": "jax", "tensorflow": None, "jax": "0.9.0"},
        {"asked_shape": "32x32x1"},
    ],
    ids=str,
)
def test_no_two_rows_of_a_table_differ_in_figures_alone(
    tmp_path: Path, setting: dict[str, Any]
) -> None:
    keep_run(tmp_path, rows_of("lenet5", **EVERYWHERE) + rows_of("vgg16", **EVERYWHERE))
    other = [rows_of(model, 2, **EVERYWHERE, **setting) for model in ("lenet5", "vgg16")]
    keep_run(tmp_path, other[0] + other[1])
    report = build([tmp_path])
    assert {"architectures", "sustained", "latency_limit", "energy"} <= {
        table.key for table in report.tables
    }
    for table in report.tables:
        named = [one.key for one in table.headings if not one.numeric or one.key in NAMES]
        told = [tuple(row[key] for key in named if key != "run") for row in table.records()]
        if table.key != "history":  # whose rows are runs
            assert len(set(told)) == len(told), table.key


def test_a_figure_of_another_input_shape_is_none_of_the_model(tmp_path: Path) -> None:
    first = [*three(SLOW, 1, "resnet50", 0.1, 0.1, 0.1), *three(SLOW, 1, "vgg16", 0.2, 0.2, 0.2)]
    keep_run(tmp_path, first)
    keep_run(tmp_path, rows_of("resnet50", 2, asked_shape="32x32x3"))
    tables = {table.key: table for table in build([tmp_path]).tables}
    shown = tables["architectures"].records()
    assert [
        (row["setting"], row["step_time_p50_s"]) for row in shown if row["model"] != "vgg16"
    ] == [
        ("input 32x32x3", 0.0101),
        (None, 0.1),
    ]
    rates = sorted(tables["pareto"].column("throughput_samples_per_s"))
    assert rates == pytest.approx([32 / 0.2 * 1.02, 32 / 0.1 * 1.02])
    case = "resnet50-train-cpu-b32-float32"
    lines = {row["case"]: row["run"] for row in tables["history"].records()}
    assert (lines[case], lines[f"{case}, input 32x32x3"]) == ("0001", "0002")


def test_a_front_is_of_one_version(tmp_path: Path) -> None:
    rows = kept(
        tmp_path,
        rows_of("lenet5", 1, tensorflow="2.19.0") + rows_of("resnet50", 1, tensorflow="2.19.0"),
        rows_of("lenet5", 2, tensorflow="2.21.0") + rows_of("vgg16", 2, tensorflow="2.21.0"),
    )
    table = pareto(points(rows.frame))
    assert [(row["model"], row["group"].rpartition(", ")[2]) for row in table.records()] == [
        ("vgg16", "TensorFlow 2.21.0"),
        ("lenet5", "TensorFlow 2.21.0"),
    ]


@pytest.mark.parametrize("changes", [{"tensorflow": "2.21.0"}, {"code": "b" * 64}], ids=str)
def test_scaling_and_batch_sizes_are_of_one_version_and_code(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    before: dict[str, Any] = {"tensorflow": "2.19.0", "code": "a" * 64}
    now = {**before, **changes}
    two = rows_of("lenet5", 2, replicas=2, **now) + rows_of("vgg16", 2, batch_size=64, **now)
    rows = kept(tmp_path, rows_of("lenet5", 1, **before) + rows_of("vgg16", 1, **before), two)
    table = points(rows.frame)
    assert not scaling(table, rows.frame).rows
    assert not batch_sizes(table).rows
    keep_run(tmp_path / "results", rows_of("lenet5", 3, **now) + rows_of("vgg16", 3, **now))
    frame = read_rows([tmp_path / "results"]).frame
    table = points(frame)
    row = found(scaling(table, frame), replicas=2)
    assert row["efficiency"] == pytest.approx(0.5)
    assert row["low"] <= row["efficiency"] <= row["high"]
    assert batch_sizes(table).column("batch_size") == [32, 64]


def test_times_that_keras_publishes_stand_beside_a_backend(tmp_path: Path) -> None:
    facts: dict[str, Any] = {"task": "infer", "parameters": 25_636_712, "model_bytes": 10**8}
    jax = {"backend": "jax", "tensorflow": None, "jax": "0.9.0"}
    rows = kept(
        tmp_path,
        [
            *three(SLOW, 1, "resnet50", 0.1, 0.1, 0.1, **facts),
            *three(SLOW, 1, "resnet50", 0.05, 0.05, 0.05, **facts, **jax),
            *three(SLOW, 1, "resnet50", 0.02, 0.02, 0.02, runtime="litert",
                   **{**facts, "model_bytes": 1}),
        ],
    )  # fmt: skip
    table = points(rows.frame)
    assert published_times(table).column("framework") == ["JAX 0.9.0", "TensorFlow 2.20.0"]
    (row,) = applications(table, {}).records()
    assert (row["cpu_step_s"], row["cpu_hardware"]) == (0.1, f"{SLOW} cpu, TensorFlow 2.20.0")
    assert row["model_bytes"] == 10**8


def test_a_roofline_takes_no_bytes_of_another_input_shape(tmp_path: Path) -> None:
    facts = {**EVERYWHERE, "task": "infer"}
    rows = kept(tmp_path, rows_of("lenet5", **facts, input_shape="28x28x1"))
    table = points(rows.frame)
    assert roofline(table, {("lenet5", "28x28x1"): 30}).rows
    assert not roofline(table, {("lenet5", "224x224x3"): 30}).rows


@pytest.mark.parametrize("other", [{"seed": 2}, {"code": "b" * 64}], ids=str)
def test_the_loss_of_float32_is_of_the_same_weights(tmp_path: Path, other: dict[str, Any]) -> None:
    alike = {"seed": 1, "code": "a" * 64}
    reduced = {"loss": 0.6, "precision": "mixed_bfloat16"}
    shown = []
    for number, facts in enumerate((alike, {**alike, **other})):
        rows = kept(
            tmp_path / str(number),
            rows_of("lenet5", 1, loss=0.5, **facts),
            rows_of("lenet5", 2, **alike, **reduced),
            three("epyc-64", 1, "lenet5", *THRICE),
        )
        row = found(hardware(rows.frame), setting="mixed_bfloat16", hardware=f"{SLOW} cpu")
        shown.append((row["loss"], row.get("loss_float32")))
    assert shown == [(0.6, 0.5), (0.6, None)]


def test_seeds_of_an_earlier_code_are_in_no_mean(tmp_path: Path) -> None:
    facts: dict[str, Any] = {
        "task": "accuracy", "batch_size": 256, "fraction": 1.0, "epochs": 5,
        "dataset": "mnist", "epoch_time_s": 1.0, "target_accuracy": 0.97,
    }  # fmt: skip
    old = [
        measured(SLOW, 1, "lenet5", number, accuracy=0.5, seed=number, code="a" * 64, **facts)
        for number in (1, 2, 3)
    ]
    new = three(SLOW, 2, "lenet5", 0.01, accuracy=0.98, seed=1, code="b" * 64, **facts)
    rows = kept(tmp_path, old, new)
    (row,) = accuracy(rows.frame, [run.label for run in rows.runs]).records()
    assert (row["accuracy"], row["seeds"], row["runs"]) == (0.98, 1, "0002")


def test_an_export_tells_input_shapes_apart(tmp_path: Path) -> None:
    rows = kept(tmp_path, rows_of("lenet5", 1), rows_of("lenet5", 2, asked_shape="32x32x1"))
    case = "lenet5-train-cpu-b32-float32"
    assert list(json.loads(export_of(rows, "bmf").files[""])) == [f"{case}, input 32x32x1"]
    otava = [path for path in export_of(rows, "otava").files if path.endswith(".csv")]
    assert len(otava) == 2
    told = {one["tags"]["case"] for one in json.loads(export_of(rows, "conbench").files[""])}
    assert told == {case, f"{case}, input 32x32x1"}
    assert f'case="{case}, input 32x32x1"' in export_of(rows, "openmetrics").files[""]


def test_the_line_on_two_machines_says_which_was_under_other_load(tmp_path: Path) -> None:
    busy = three("epyc-64", 1, "lenet5", *THRICE, other_cpu_share=0.82)
    table = hardware(kept(tmp_path, rows_of("lenet5"), busy).frame)
    assert table.lead[0].endswith(" 1. Other load: epyc-64 cpu 82 %.")


def test_a_mean_over_runs_says_the_load_of_an_earlier_one(tmp_path: Path) -> None:
    facts: dict[str, Any] = {"code": "a" * 64, "tensorflow": "2.21.0"}
    for run, load in ((1, 0.82), (2, 0.02), (3, 0.02)):  # the first is of another commit
        facts["commit"] = ("a" if load == 0.82 else "b") * 40
        keep_run(tmp_path, rows_of("lenet5", run, other_cpu_share=load, **facts))
        keep_run(tmp_path, three("epyc-64", run, "lenet5", *THRICE, **facts))
    built = build([tmp_path])
    (table,) = (one for one in built.tables if one.key == "hardware")
    row = found(table, model="lenet5", hardware=f"{SLOW} cpu")
    assert (row["runs"], row.get("load"), row["earlier_load"]) == (3, None, 0.82)
    assert f" Other load: {SLOW} cpu 82 %." in table.lead[0]
    (line,) = (one for one in built.tables[0].records() if " cpu against " in one["of"])
    assert line["detail"].endswith("under 82 % other load")
    assert built.sides is not None
    doubts = {side.doubt for side in built.sides.sides}
    assert doubts == {"82 % other load", "", "82 % other load in an earlier run"}


def test_what_is_set_side_by_side_says_its_other_load(tmp_path: Path) -> None:
    facts: dict[str, Any] = {"code": "a" * 64}
    before = rows_of("lenet5", 1, tensorflow="2.19.0", **facts)
    keep_run(tmp_path, before)
    keep_run(tmp_path, rows_of("lenet5", 2, tensorflow="2.21.0", other_cpu_share=0.82, **facts))
    built = build([tmp_path])
    assert built.sides is not None
    assert [side.doubt for side in built.sides.sides] == ["", "82 % other load"]
    (line,) = (row for row in built.tables[0].records() if "against 2.19.0" in row["of"])
    assert line["detail"].endswith("under 82 % other load")


def test_figures_ring_what_was_measured_under_other_load(tmp_path: Path) -> None:
    drawn = []
    for number, load in enumerate((0.05, 0.82)):
        for machine in (SLOW, FAST):
            rows = [
                row
                for model in ("lenet5", "vgg16")
                for batch in (1, 32)
                for row in three(machine, 1, model, *THRICE, other_cpu_share=load, batch_size=batch)
            ]
            keep_run(tmp_path / str(number), rows)
        figures = figures_of(build([tmp_path / str(number)]).tables)
        drawn.append([one.key for one in figures if "in a ring" in json.dumps(one.specs)])
    every = ["architectures", "hardware", "history", "batch", "distribution", "pareto"]
    assert drawn == [[], every]


def test_machines_that_were_measured_for_another_time_say_so(tmp_path: Path) -> None:
    quick: dict[str, Any] = {"time_budget_s": 0.2, "tensorflow": "2.21.0", "commit": "a" * 40}
    whole = [rows_of("lenet5", number, **{**quick, "time_budget_s": 2.0}) for number in (1, 3, 4)]
    other = three("epyc-64", 1, "lenet5", *THRICE, **quick)
    table = hardware(kept(tmp_path, *whole, rows_of("lenet5", 2, **quick), other).frame)
    row = found(table, model="lenet5", hardware=f"{SLOW} cpu")
    assert (row["runs"], row["note"]) == (3, "not as on epyc-64 cpu: time budget")


def test_a_best_batch_size_says_that_others_ran_on_other_software(tmp_path: Path) -> None:
    rows = kept(
        tmp_path,
        rows_of("lenet5", 1, tensorflow="2.19.0"),
        rows_of("lenet5", 2, batch_size=64, tensorflow="2.21.0"),
        three("epyc-64", 1, "lenet5", *THRICE, tensorflow="2.21.0"),
    )
    best = hardware_tables(rows.frame, Comparison())[1]
    note = found(best, model="lenet5", hardware=f"{SLOW} cpu")["note"]
    assert note.startswith("best of batch sizes 32, 64; the other sizes differ in framework")


@pytest.mark.parametrize("newest_fails", [True, False])
def test_a_seed_that_fails_before_its_code_is_known_takes_no_other_out_of_the_mean(
    tmp_path: Path, newest_fails: bool
) -> None:
    facts: dict[str, Any] = {"task": "accuracy", "batch_size": 256, "fraction": 1.0, "epochs": 5}
    good = three(SLOW, 2, "lenet5", 0.01, 0.01, accuracy=0.98, code="b" * 64, **facts)
    good = [dataclasses.replace(row, seed=row.process) for row in good]
    early: dict[str, Any] = {"status": "crashed", "error": "signal 9", "seed": 3, "code": None}
    bad = [measured(SLOW, 2, "lenet5", 3, **early, **facts)]
    rows = kept(tmp_path, good + bad if newest_fails else bad + good)
    (row,) = accuracy(rows.frame, [run.label for run in rows.runs]).records()
    assert (row["accuracy"], row["seeds"], row["failed"]) == (0.98, 2, 1)


def test_a_load_is_one_figure_wherever_it_is_shown(tmp_path: Path) -> None:
    shares = (0.7411, 0.7538, 0.8812)  # 75 %: neither their mean, nor the largest
    rows = [measured(SLOW, 1, "lenet5", n, other_cpu_share=one) for n, one in enumerate(shares, 1)]
    other = [measured(SLOW, 1, "mini_resnet", n, other_cpu_share=0.02) for n in (1, 2, 3)]
    keep_run(tmp_path, [*rows, *other])
    keep_run(tmp_path, [measured(FAST, 1, "lenet5", n, other_cpu_share=0.02) for n in (1, 2, 3)])
    texts = [summary_text(rows), next_step([*rows, *other], Options())]
    for form in ("text", "markdown"):
        report([tmp_path], output=str(tmp_path / f"report.{form}"), form=form)
        texts.append((tmp_path / f"report.{form}").read_text())
    for text in texts:
        plain = " ".join(text.split())
        told = re.findall(r"([\d.]+ ?%) (?:other load|of the CPUs' time)", plain)
        assert set(told) == {"75 %"}, told
    (table,) = (one for one in build([tmp_path]).tables if one.key == "architectures")
    assert {row["load"] for row in shown_rows(table) if row["load"]} == {"75 %"}


def test_a_level_is_of_the_figures_that_the_history_shows(tmp_path: Path) -> None:
    for run in range(1, 25):
        factor = 1.0 if run < 13 else 1.2
        facts: dict[str, Any] = {
            "paired_log_ratio": math.log(factor) + 0.001 * (run % 3),
            "code": "a" * 64,
        }
        facts["tensorflow"] = "2.21.0"
        steps = [0.010 * factor * (1 + 0.001 * run), 0.0102 * factor, 0.05]
        rows = three(SLOW, run, "lenet5", *steps, **facts)
        rows[2] = dataclasses.replace(rows[2], status="unsteady", unsteady="it grew")
        keep_run(tmp_path, rows)
    tables = {table.key: table for table in build([tmp_path]).tables}
    points_of = {row["run"]: row["step_time_p50_s"] for row in tables["history"].records()}
    levels = tables["levels"].records()
    assert len(levels) == 2
    for row in levels:
        shown = [
            seconds for run, seconds in points_of.items() if row["first"] <= run <= row["last"]
        ]
        assert row["step_time_p50_s"] == pytest.approx(median(shown), rel=1e-6)


def test_a_row_that_names_its_hardware_is_chosen_by_its_machine(tmp_path: Path) -> None:
    place = list(FACETS).index("machine")
    for table in build([rich_results(tmp_path)]).tables:
        if any(one.key == "hardware" for one in table.headings):
            assert all(facets[place] for facets in table.facets), table.key


def test_every_number_of_a_table_has_its_unit(tmp_path: Path) -> None:
    results = rich_results(tmp_path)
    keep_run(results, rows_of("vgg16", 99, **EVERYWHERE))
    prices = read_prices(keep_prices(tmp_path, SLOW))
    for table in build([results], comparison=Comparison(prices=prices)).tables:
        for one in table.headings:
            assert one.kind != "number" or one.unit or one.key == "target", (table.key, one.key)


def test_a_model_that_is_slower_by_the_mean_is_not_the_fastest(tmp_path: Path) -> None:
    """Two processes each: the medians say one thing, the ratio of the means another."""
    keep_run(
        tmp_path, three(SLOW, 1, "lenet5", 0.010, 0.010) + three(SLOW, 1, "vgg16", 0.001, 0.02)
    )
    (line, *_) = build([tmp_path]).tables[0].records()
    assert line["found"].startswith("lenet5 or vgg16; lenet5: ")
    assert line["detail"].startswith("not distinguishable (no interval: ")
