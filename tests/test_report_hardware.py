"""The tables of a report that hold hardware against hardware."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from report_rows import FAST, SLOW, keep_run, measured
from test_report_tables import found, hardware, kept, three

from convmark.core.errors import OptionError
from convmark.report.across import across
from convmark.report.build import build
from convmark.report.comparison import Comparison, Price
from convmark.report.measured import unlike_words
from convmark.report.rows import points
from convmark.report.tables.cost import cost_tables
from convmark.report.tables.hardware import GEOMETRIC_MEAN, hardware_tables
from convmark.report.tables.models import architectures
from convmark.report.tables.steps import (
    latency_limit,
)
from convmark.report.tables.steps import sustained as sustained_table
from convmark.results.reading import read_run
from convmark.results.record import Record


def price(machine: str, amount: float) -> Price:
    return Price(machine=machine, per_hour=amount, currency="USD", date="2026-01-31",
                 source="the invoice")  # fmt: skip


def test_a_speed_up_is_of_plain_step_times_and_gaps_are_counted(tmp_path: Path) -> None:
    slow = [*three(SLOW, 1, "lenet5", 0.08, 0.08, 0.08), *three(SLOW, 1, "vgg16", 1.0, 1.0, 1.0)]
    rows = kept(tmp_path, slow, three(FAST, 1, "lenet5", 0.02, 0.02, 0.02))
    table = hardware(rows.frame)
    row = found(table, model="lenet5", hardware=f"{FAST} cpu")
    assert row["speedup"] == pytest.approx(4.0)
    assert (row["low"], row["high"]) == pytest.approx((4.0, 4.0))
    assert not [row for row in table.records() if row["model"] == "vgg16"]
    gaps = f"Not measured, of 2 cases: 1 on {FAST} cpu. Cases that only one of them has have no ro"
    assert table.lead[-1] == f"{gaps}w, unless a loss is shown."
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


def test_a_ratio_of_a_newest_run_of_two_steady_processes_has_none_of_an_earlier_run(
    tmp_path: Path,
) -> None:
    *steady, other = three(SLOW, 2, "lenet5", 2.0, 2.0, 9.0, code="c")
    rows = kept(
        tmp_path,
        three(SLOW, 1, "lenet5", 4.0, 4.0, 4.0, code="c", other_cpu_share=0.5),
        [*steady, dataclasses.replace(other, status="unsteady")],
        three(FAST, 1, "lenet5", 1.0, 1.0, 1.0),
    )
    row = found(hardware(rows.frame), model="lenet5", hardware=f"{SLOW} cpu")
    assert (row["mean_s"], 1 / row["speedup"]) == (pytest.approx(2.0), pytest.approx(2.0))
    assert (row["runs"], row["n"], row.get("earlier_load"), row.get("low")) == (1, 3, None, None)
    why = "fewer than 3 processes; speed-up without 1 of 3 processes, unsteady"
    assert row["note"].startswith(why)


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
    assert table.lead[0].endswith(" 1. They differ in framework.")


def test_what_may_bend_a_ratio_of_machines_is_said_with_what_to_do(tmp_path: Path) -> None:
    kept(
        tmp_path,
        three(SLOW, 1, "lenet5", 2.0, 2.1, 2.2, time_budget_s=1.0),
        three(FAST, 1, "lenet5", 1.0, 1.1, 1.2, time_budget_s=2.0),
    )
    tables = {table.key: table for table in build([tmp_path / "results"]).tables}
    bent = "other time budget, which may bend the ratio: measure both again with the same time bud"
    assert bent.removeprefix("other ") in tables["hardware"].lead[0]
    (line,) = [row for row in tables["answers"].records() if " against " in row["of"]]
    assert bent in line["detail"]
    told = unlike_words(["numpy", "keras", "python", "packages", "code", "measurement version"])
    assert told.startswith("other numpy, keras, python, packages and 2 more, which may bend the ")
    assert told.endswith(": measure both again with the same release of convmark and code")


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
    with pytest.raises(
        OptionError, match="--prices: no row is from the machine 'mac'; known: xeon"
    ):
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


def test_a_price_other_load_and_what_bends_a_ratio_do_not_share_a_sentence(
    tmp_path: Path,
) -> None:
    fast = {"time_budget_s": 2.0, "other_cpu_share": 0.89}
    rows = kept(
        tmp_path,
        three(SLOW, 1, "lenet5", 0.08, 0.082, 0.078, time_budget_s=1.0),
        three(FAST, 1, "lenet5", 0.04, 0.041, 0.039, **fast),
    )
    prices = {FAST: price(FAST, 4.0), SLOW: price(SLOW, 1.0)}
    table = hardware_tables(rows.frame, Comparison(prices=prices, reference=f"{SLOW} cpu"))[0]
    ratio, load, bent = table.lead[0].split(". ")
    assert ratio.startswith(f"{FAST} cpu is 2.0 times {SLOW} cpu (")
    assert ratio.endswith("; the interval of its one case does not contain 1")
    assert ratio.count(",") == 1
    assert load == f"Other load: {FAST} cpu 89 %"
    assert bent.startswith("They differ in time budget, which may bend the ratio: ")


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
    words = f"The sustained times differ (30 s on {FAST} cpu, 600 s on {SLOW} cpu)"
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
    assert "step times, but those of machines of sustained throughput: above 1" in answers.caption
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
    assert notes[f"{FAST} cpu"].startswith("best of batch sizes 1, 32")
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
    with pytest.raises(OptionError, match="--reference: no row is from the machine 'mac'; known"):
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


def test_what_rows_of_an_earlier_version_do_not_tell_is_no_other_state_of_a_machine(
    tmp_path: Path,
) -> None:
    told = {"code": "c", "state": "model:untracked_parameters=9 openvino.streams=1"}
    machines = (SLOW, {"code": "c"}), (FAST, told)
    rows = kept(tmp_path, *(three(one, 1, "lenet5", 1.0, 1.0, 1.0, **own) for one, own in machines))
    notes = [one["note"] for one in hardware(rows.frame).records() if one["note"]]
    assert not any("state" in note for note in notes), notes


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
    assert row["note"] == "best of batch sizes 32, 64"
    assert found(best, model="lenet5", hardware=f"{SLOW} cpu")["batch_size"] == 32


def test_a_machine_measured_at_one_batch_alone_has_no_best_to_compare(tmp_path: Path) -> None:
    slow = [
        *three(SLOW, 1, "lenet5", 1.0, 1.0, 1.0, batch_size=1),
        *three(SLOW, 1, "lenet5", 2.0, 2.0, 2.0, batch_size=32),
    ]
    fast = three(FAST, 1, "lenet5", 0.5, 0.5, 0.5, batch_size=1)
    best = hardware_tables(kept(tmp_path, slow, fast).frame, Comparison(reference=f"{SLOW} cpu"))[1]
    row = found(best, model="lenet5", hardware=f"{FAST} cpu")
    assert row["note"] == "not known: measured at batch 1 alone"
    assert not any(one.get("low") for one in best.records())


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
        f"{few}; speed-up without 1 of 2 processes, not judged: hot"
    )
    assert shown["lenet5", f"{FAST} cpu"][:2] == (5.0, 3)
    earlier = f"{few}; speed-up of earlier runs, as the newest is not judged: card in use"
    assert shown["lenet5", f"{FAST} cpu"][2].startswith(earlier)
    assert shown["vgg16", f"{SLOW} cpu"][2].startswith(f"{few}; not judged: hot")
    ratios = [row["speedup"] for row in table.records() if row["model"] == "lenet5"]
    assert sorted(ratios) in ([0.5, 1.0], [1.0, 2.0])


def test_the_same_processes_are_in_the_ratio_of_a_report_and_of_a_table_over_machines(
    tmp_path: Path,
) -> None:
    steady, *others = three(SLOW, 1, "lenet5", 2.0, 9.0, 30.0, code="c1")
    slow = [steady, *(dataclasses.replace(row, status="unsteady") for row in others)]
    fast = three(FAST, 1, "lenet5", 1.0, 1.0, 1.0, code="c1")
    table = hardware(kept(tmp_path, slow, fast).frame)
    row = found(table, model="lenet5", hardware=f"{SLOW} cpu")
    cells = {cell.value: cell for cell in across([slow, fast], "machine")}
    assert row["mean_s"] == pytest.approx(2.0) == cells[SLOW].step_time_p50_s
    without = "without 2 of 3 processes, unsteady"
    assert f"speed-up {without}" in row["note"]
    assert without in cells[SLOW].note
    assert table.lead[0].endswith(" Newest runs: without 2 of 6 processes, unsteady.")
    (change,) = filter(None, [cells[SLOW].to_first])
    assert 1 / row["speedup"] == pytest.approx(2.0) == 1 + change.change


def test_a_speed_up_that_samples_per_second_contradict_says_so_here_and_beside_the_costs(
    tmp_path: Path,
) -> None:
    def told(*rates: float) -> tuple[str, list[str], list[str]]:
        folder = tmp_path / str(rates)
        steps_s = 2.0, 2.02, 2.04
        slow = [
            measured(SLOW, 1, "lenet5", number, step_s=step_s, throughput_samples_per_s=rate)
            for number, (step_s, rate) in enumerate(zip(steps_s, rates, strict=False), 1)
        ]
        first = [three(machine, 1, "alexnet", *steps_s) for machine in (SLOW, FAST)]  # as it should
        fast = [*first[1], *three(FAST, 1, "lenet5", *steps_s)]
        frame = kept(folder, [*first[0], *slow], fast).frame
        prices = {name: price(name, 1.0) for name in (SLOW, FAST)}
        table, cost = hardware(frame), cost_tables(frame, Comparison(prices=prices))[0]
        note = found(table, model="lenet5", hardware=f"{SLOW} cpu").get("note") or ""
        return note, [one for one in table.lead if "windows" in one], list(cost.lead)

    note, (line,), cost = told(160.0, 161.0, 159.0)
    assert "by samples/s 9.9" in note
    answers = build([tmp_path / "(160.0, 161.0, 159.0)" / "results"]).tables[0]
    assert "samples/s tell another ratio" in " ".join(filter(None, answers.column("detail")))
    runs = [read_run(path) for path in (tmp_path / "(160.0, 161.0, 159.0)").rglob("0001.csv")]
    assert "samples/s changed by +890." in across(runs, "machine")[3].note
    case = f"lenet5, train, batch 32: {SLOW} cpu is 1.00 times {FAST} cpu by step time, 9.9"
    assert f"disagree by more than their error in {case}" in line
    assert line.endswith(" times by samples/s. Speed-ups are by step time, costs by samples/s.")
    assert line in cost
    for rates in ((17.0, 17.1, 16.9), (10.0, 100.0, 30.0), (160.0,)):  # near, within, unknown
        note, lines, cost = told(*rates)
        assert (lines, "by samples/s" in note) == ([], False)
        assert not any("disagree" in one for one in cost)


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
