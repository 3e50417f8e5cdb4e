"""The tables that end a run: summary, scaling over replicas, cards."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import pytest
from rows import row

from convmark.core.case import Case
from convmark.core.statistics import spread
from convmark.core.table import plain
from convmark.report.summary import by_case, cards, summary, summary_text
from convmark.report.tables.scaling import scaling_of_run
from convmark.results.record import Record


def measured(process: int, step_time_s: float, **changes: Any) -> Record:
    return row(
        **{
            "process": process,
            "step_time_p50_s": step_time_s,
            "throughput_samples_per_s": 32 / step_time_s,
            "time_to_first_step_s": 0.5,
            "parameters": 61706,
            "flops_per_sample": 833_040,
            "peak_host_memory_bytes": 16 * 2**20,
            **changes,
        }
    )


def cells(table: str) -> list[dict[str, str]]:
    """Return the table's lines by heading, cut where the rule under the headings says."""
    heading, rule, *lines = table.partition("\n\n")[0].splitlines()  # the caption left out
    places = []
    start = 0
    for dashes in rule.split("  "):
        places.append((start, start + len(dashes)))
        start += len(dashes) + 2
    names = [heading[begin:end].strip() for begin, end in places]
    places[-1] = (places[-1][0], 10_000)
    return [
        dict(zip(names, (line[begin:end].strip() for begin, end in places), strict=True))
        for line in lines
    ]


def test_a_record_is_named_as_its_case() -> None:
    case = Case(
        model="resnet50",
        task="infer",
        device="gpu:0",
        batch_size=8,
        precision="mixed_float16",
        jit="on",
        replicas=2,
        threads="4",
    )
    assert row(**case.as_fields()).case.name == case.name


def test_records_are_grouped_by_case_training_first_and_processes_in_order() -> None:
    records = [
        row(model="b", process=2),
        row(model="b", process=1),
        row(model="a", task="infer", batch_size=32),
        row(model="a", task="infer", batch_size=1),
        row(model="a", batch_size=64),
    ]
    groups = by_case(records)
    assert list(groups) == [
        "a-train-cpu-b64-float32",
        "a-infer-cpu-b1-float32",
        "a-infer-cpu-b32-float32",
        "b-train-cpu-b32-float32",
    ]
    assert [record.process for record in groups["b-train-cpu-b32-float32"]] == [1, 2]


def test_cases_that_differ_in_a_setting_alone_are_in_one_order_however_a_run_mixed_them() -> None:
    shared: dict[str, Any] = {"model": "a", "task": "infer", "batch_size": 1}
    mixed = [
        row(**shared, runtime="openvino"),
        row(**shared, threads="16"),
        row(**shared, threads="2"),
        row(**shared, runtime="litert"),
        row(**shared),
    ]
    named = [name.removeprefix("a-infer-cpu-b1-float32") for name in by_case(mixed)]
    assert named == ["", "-litert", "-openvino", "-t2", "-t16"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], None), ([0.5], None), ([1.0, 1.0], 0.0), ([9.0, 11.0], 0.1), ([8.0, 10.0, 13.0], 0.25)],
)
def test_the_spread_is_half_the_range_over_the_median(
    values: list[float], expected: float | None
) -> None:
    assert spread(values) == (None if expected is None else pytest.approx(expected))


def test_a_case_has_the_median_of_its_processes_their_spread_and_their_count() -> None:
    table = summary_text([measured(1, 0.010), measured(2, 0.008), measured(3, 0.012)])
    assert cells(table) == [
        {
            "case": "lenet5-train-cpu-b32-float32",
            "step p50": "10.0 ms",
            "spread": "20.0 %",
            "samples/s": "3200",
            "first step": "500 ms",
            "host peak": "16.0 MiB",
            "parameters": "61,706",
            "FLOPs": "833 k",
            "n": "3",
        }
    ]


def test_a_column_that_is_empty_for_every_case_is_left_out_and_one_that_is_not_stays() -> None:
    slim = [measured(1, 0.01), measured(1, 0.02, model="resnet50")]
    assert "p99" not in summary_text(slim)
    assert "spread" not in summary_text(slim)
    assert "device peak" not in summary_text(slim)
    assert "note" not in summary_text(slim)
    both = (measured(number, 0.02, model="resnet50", step_time_p99_s=0.03) for number in (1, 2))
    full = [slim[0], *both]
    assert [(line["p99"], line["spread"]) for line in cells(summary_text(full))] == [
        ("", ""),
        ("30.0 ms", "0.0 %"),
    ]


@pytest.mark.parametrize(
    ("runtimes", "caption"),
    [
        (["keras"], "samples/s is measured over windows"),
        (["keras", "litert"], "samples/s of Keras is measured over windows"),
        (["litert", "onnxruntime"], ""),
    ],
)
def test_windows_are_said_of_keras_alone(runtimes: list[str], caption: str) -> None:
    rows = [measured(1, 0.01, task="infer", runtime=name) for name in runtimes]
    (table,) = summary(rows)
    assert table.caption.startswith(caption)
    assert bool(table.caption) == bool(caption)


def test_cells_that_are_empty_say_why_where_other_cases_have_them() -> None:
    held: dict[str, Any] = {"peak_device_memory_bytes": 2**20, "step_time_p99_s": 0.02}
    rows = [measured(1, 0.01, **held), measured(1, 0.01, backend="jax")]
    litert = measured(1, 0.01, task="infer", runtime="litert", step_time_p99_s=0.02)
    failed = row(process=1, model="resnet50", status="error", error="no weights")
    (table,) = summary([*rows, litert, failed])
    assert "p99 is empty of cases with a process of fewer than 1,000 steps. " in table.caption
    told = "device peak is empty where the device's allocator counts nothing: "
    assert table.caption.endswith(f"{told}JAX on cpu, LiteRT on cpu.")
    (table,) = summary([rows[0], measured(1, 0.001, model="conv_layer")])
    assert table.caption.endswith(f"{told}TensorFlow on cpu (the smallest models).")
    for told in ([rows[0]], [rows[0], failed], [rows[1], failed]):
        assert "empty" not in summary(told)[0].caption


def test_figures_beside_a_failed_process_say_their_load() -> None:
    """And the load is that of the processes whose figures they are."""
    rows = [
        measured(1, 0.01, other_cpu_share=0.5),
        measured(2, 0.01, other_cpu_share=0.5, status="unsteady"),
        row(process=3, status="error", error="no weights", other_cpu_share=0.95),
    ]
    (line,) = cells(summary_text(rows))
    assert (line["step p50"], line["n"]) == ("10.0 ms", "2")
    load = "other programs took 50 % of the CPUs' time"
    assert line["note"] == f"error: no weights; 1 of 2 unsteady; {load}"


def test_the_reason_why_a_model_fails_is_said_in_its_first_case_alone() -> None:
    table = summary_text(
        [
            row(status="error", error="no weights", batch_size=1),
            row(status="error", error="no weights", batch_size=8),
            row(status="error", error="no weights", model="resnet50"),
        ]
    )
    notes = [line["note"] for line in cells(table)]
    assert notes == ["error: no weights", "error: as above", "error: no weights"]


def test_a_case_that_failed_has_its_reason_in_place_of_figures() -> None:
    failed = row(model="vgg16", status="out_of_memory", error="killed for memory")
    lines = cells(summary_text([measured(1, 0.01), failed]))
    assert lines[1]["note"] == "out_of_memory: killed for memory"
    assert lines[1]["n"] == "0"
    assert lines[1]["step p50"] == lines[1]["samples/s"] == ""
    assert lines[0]["note"] == ""


def test_a_reason_is_whole_with_what_to_do_at_its_end() -> None:
    error = f"{'net: ' * 30}the input shape is not known; give --input-shape"
    (table,) = summary([row(status="error", error=error)])
    assert table.column("note") == [f"error: {error}"]


def test_a_failed_process_is_named_beside_the_figures_of_the_others() -> None:
    (line,) = cells(summary_text([measured(1, 0.01), row(process=2, status="crashed", error="x")]))
    assert (line["step p50"], line["n"], line["note"]) == ("10.0 ms", "1", "crashed: x")


def test_unknown_flops_have_their_reason() -> None:
    records = [measured(1, 0.01, flops_per_sample=None, flops_note="FFT2D has no rule")]
    (line,) = cells(summary_text(records))
    assert line["note"] == "no FLOPs: FFT2D has no rule"


@pytest.mark.parametrize(
    ("changes", "range_"),
    [
        ({"parameters": 70_000}, "of 61,706 to 70,000 parameters"),
        ({"flops_per_sample": 900_000}, "of 833,040 to 900,000 FLOPs"),
    ],
)
def test_processes_that_have_built_unlike_models_are_no_spread_of_one(
    changes: dict[str, int], range_: str
) -> None:
    """As of a builder whose width is drawn at random, or read off a clock."""
    (line,) = cells(summary_text([measured(1, 0.01), measured(2, 0.01, **changes)]))
    assert line["note"] == f"its processes ran unlike models, {range_}"


def test_an_unsteady_process_counts_and_is_mentioned() -> None:
    records = [measured(1, 0.01), measured(2, 0.01, status="unsteady")]
    (line,) = cells(summary_text(records))
    assert (line["n"], line["note"]) == ("2", "1 of 2 unsteady")
    records[1] = dataclasses.replace(records[1], unsteady="step time rose by 35%")
    (line,) = cells(summary_text(records))
    assert line["note"] == "1 of 2 unsteady: step time rose by 35%"


def test_processes_that_differ_have_each_reason_with_its_count() -> None:
    level = "step time changed level by"
    reasons = [
        "warm-up did not settle in 172 steps",
        f"{level} -90 % after step 20 of 100",
        f"{level} a factor of 8.5 after step 43 of 85",
    ]
    records = [
        measured(number, 0.01, status="unsteady", unsteady=reason)
        for number, reason in enumerate(reasons, 1)
    ]
    (line,) = cells(summary_text(records))
    kinds = "warm-up did not settle (1), step time changed level (2)"
    assert line["note"] == f"3 of 3 unsteady: {kinds}"
    (line,) = cells(summary_text(records[1:]))
    assert line["note"] == "2 of 2 unsteady: step time changed level"
    why = dict.fromkeys(("error", "crashed"), "no weights") | {"timeout": "after 9 s"}
    failed = [row(status=one, error=reason) for one, reason in why.items()]
    (line,) = cells(summary_text(failed))
    assert line["note"] == "error: no weights, crashed: no weights, timeout: after 9 s"


def test_a_model_without_multiplications_has_0_flops_and_an_unknown_count_is_empty() -> None:
    records = [
        measured(1, 0.01, model="a", flops_per_sample=0),
        measured(1, 0.01, model="b", flops_per_sample=None),
        measured(1, 0.01, model="c"),
    ]
    assert [line["FLOPs"] for line in cells(summary_text(records))] == ["0", "", "833 k"]


def test_a_name_that_looks_like_a_number_is_left_as_it_is() -> None:
    assert cells(summary_text([measured(1, 0.01, model="1e5")]))[0]["case"].startswith("1e5-train")


def test_no_records_make_an_empty_table() -> None:
    assert "step p50" not in summary_text([])


SCALED = "lenet5-train-cpu-b32-float32"


def spread_over(rate: float, replicas: int = 1, **changes: Any) -> Record:
    return row(throughput_samples_per_s=rate, replicas=replicas, **changes)


def test_efficiency_is_against_as_many_times_one_replica() -> None:
    rows = cells(
        plain(*scaling_of_run([spread_over(300.0, 4), spread_over(150.0, 2), spread_over(100.0)]))
    )
    assert [list(found.values()) for found in rows] == [
        [SCALED, "1", "100", "", "100.0 %", "1"],
        [SCALED, "2", "150", "", "75.0 %", "1"],
        [SCALED, "4", "300", "", "75.0 %", "1"],
    ]


def test_throughputs_are_geometric_means_over_processes_with_spread_and_count() -> None:
    several = [
        spread_over(rate, process=number) for number, rate in enumerate((90.0, 100.0, 130.0), 1)
    ]
    rows = cells(
        plain(*scaling_of_run([*several, spread_over(140.0, 2), spread_over(160.0, 2, process=2)]))
    )
    assert [(found["mean samples/s"], found["spread"], found["n"]) for found in rows] == [
        ("105", "20.0 %", "3"),  # (90 x 100 x 130) ** (1 / 3)
        ("150", "6.7 %", "2"),
    ]
    assert rows[1]["efficiency"] == "71.0 %"  # 149.67 / (2 x 105.37)


def test_an_efficiency_of_three_processes_has_its_interval() -> None:
    """Logarithms 0.1 apart about both means, so that sd = 0.1 and n = 3 on either side."""
    rates = [(rate * math.exp(part), number) for rate, number in ((100.0, 1), (150.0, 2))
             for part in (-0.1, 0.0, 0.1)]  # fmt: skip
    rows = [spread_over(rate, number, process=at) for at, (rate, number) in enumerate(rates, 1)]
    (table,) = scaling_of_run(rows)
    one, two = table.records()
    assert (one["efficiency"], one["low"], one["high"]) == (1, None, None)
    half = 2.7764 * math.sqrt(2 * 0.1**2 / 3)  # Student's t of 4 degrees of freedom
    ends = [0.75 * math.exp(sign * half) for sign in (-1, 1)]
    assert two["efficiency"] == pytest.approx(0.75)
    assert [two["low"], two["high"]] == pytest.approx(ends, rel=1e-3)
    assert not scaling_of_run(rows[1:])[0].records()[1].get("low")


def test_each_way_of_spreading_is_held_against_the_same_single_replica() -> None:
    rows = cells(
        plain(
            *scaling_of_run(
                [spread_over(100.0), spread_over(150.0, 2), spread_over(120.0, 2, cluster="local")]
            )
        )
    )
    assert [(found["case"], found["replicas"], found["efficiency"]) for found in rows] == [
        (SCALED, "1", "100.0 %"),
        (SCALED, "2", "75.0 %"),
        (f"{SCALED} local", "1", "100.0 %"),
        (f"{SCALED} local", "2", "60.0 %"),
    ]


def test_without_a_single_replica_there_is_throughput_and_no_efficiency() -> None:
    (table,) = scaling_of_run([spread_over(150.0, 2), spread_over(100.0, batch_size=64)])
    (found,) = cells(plain(table))
    assert (found["case"], found["mean samples/s"]) == (SCALED, "150")
    assert not found.get("efficiency")


def test_failed_processes_count_for_nothing_and_one_replica_alone_has_no_table() -> None:
    assert scaling_of_run([]) == []
    assert scaling_of_run([spread_over(100.0)]) == []
    failed = spread_over(1.0, 2, status="error")
    assert scaling_of_run([spread_over(100.0), failed]) == []
    rows = cells(
        plain(
            *scaling_of_run(
                [
                    spread_over(100.0),
                    spread_over(1.0, status="crashed"),
                    failed,
                    spread_over(150.0, 2),
                ]
            )
        )
    )
    assert [(found["n"], found["mean samples/s"]) for found in rows] == [("1", "100"), ("1", "150")]


ON_CARD = "lenet5-train-gpu:0-b32-float32"


def on_card(process: int = 1, **changes: Any) -> Record:
    figures = {
        "device": "gpu:0",
        "gpu_samples": 50,
        "sm_clock_mhz": 1275.0,
        "max_sm_clock_mhz": 1410,
        "memory_clock_mhz": 1593.0,
        "max_memory_clock_mhz": 1593,
        "temperature_c": 61.0,
        "power_w": 312.4,
        "power_limit_w": 400.0,
        "gpu_utilisation": 0.87,
        "efficiency": 0.312,
        "input_bound_throughput_samples_per_s": 8000.0,
        "joules_per_sample": 0.00171,
        "peak_device_memory_bytes": 3 << 30,
        "card_peak_memory_bytes": 5 << 30,
        "throttle_reasons": "none",
    }
    return row(process=process, **{**figures, **changes})


def test_each_case_says_the_clock_reached_and_what_lowered_it() -> None:
    (found,) = cells(plain(*cards([on_card(throttle_reasons="idle power_cap")])))
    assert found == {
        "case": ON_CARD,
        "SM MHz": "1275 of 1410",
        "memory MHz": "1593 of 1593",
        "degrees C": "61",
        "card W": "312 of 400",
        "busy": "87 %",
        "of ceiling": "31.2 %",
        "fed samples/s": "8000",
        "card mJ/sample": "1.71",
        "allocator": "3.00 GiB",
        "card": "5.00 GiB",
        "clock lowered by": "idle power_cap",
    }


def test_figures_are_medians_over_processes_and_reasons_those_of_all() -> None:
    records = [
        on_card(1, sm_clock_mhz=1000.0, throttle_reasons="power_cap"),
        on_card(2, sm_clock_mhz=1200.0, throttle_reasons="none"),
        on_card(3, sm_clock_mhz=1100.0, throttle_reasons="idle power_cap"),
        on_card(4, status="error", sm_clock_mhz=1.0, throttle_reasons="sync_boost"),
    ]
    (found,) = cells(plain(*cards(records)))
    assert (found["SM MHz"], found["clock lowered by"]) == ("1100 of 1410", "power_cap idle")


def test_what_no_card_tells_has_no_column_and_a_run_without_cards_no_table() -> None:
    silent = dict.fromkeys(("power_w", "joules_per_sample", "throttle_reasons"))
    (found,) = cells(plain(*cards([on_card(max_sm_clock_mhz=None, **silent)])))
    assert not {"W", "mJ/sample", "clock lowered by"} & found.keys()
    assert found["SM MHz"] == "1275"
    assert cards([row(), on_card(status="crashed")]) == []


def test_a_throughput_far_below_the_step_time_is_explained_with_the_figure() -> None:
    def below(**changes: Any) -> str:
        rows = [measured(n, 0.010, effective_batch_size=32, **changes) for n in (1, 2, 3)]
        return summary(rows)[0].caption.partition("step p50. ")[2]

    name = measured(1, 0.01).case.name
    assert below(throughput_samples_per_s=0.91 * 3200) == ""
    slow = {"throughput_samples_per_s": 0.5 * 3200}
    loaded = below(**slow, other_cpu_share=0.742, step_time_mean_s=0.02)
    assert loaded.startswith(
        f"It is lower by 50 % in {name} (other programs took 74 % of the CPUs' time). "
    )
    slow_steps = (
        "A window is as long as all its steps, and the median step is not moved by the slow"
    )
    assert slow_steps in loaded
    assert slow_steps not in below(**slow, other_cpu_share=0.742, step_time_mean_s=0.01)
    assert f"50 % in {name} (the mean step took 19.0 ms)" in below(**slow, step_time_mean_s=0.019)
    unknown = "(its windows ran slower than its steps before them). The cause is not known."
    assert below(**slow).endswith(unknown)


def test_a_throughput_far_above_the_step_time_is_explained_but_for_a_gpu() -> None:
    def above(model: str = "lenet5", **changes: Any) -> list[Record]:
        changes = {"throughput_samples_per_s": 3.6 * 3200, **changes}
        return [measured(1, 0.010, model=model, effective_batch_size=32, **changes)]

    def told(rows: Sequence[Record]) -> str:
        return summary(rows)[0].caption.partition("step p50. ")[2]

    name = above()[0].case.name
    loaded = f"It is higher by 260 % in {name} (other programs took 84 % of the CPUs' time)."
    assert told(above(other_cpu_share=0.84)) == loaded
    unknown = "(its windows ran faster than its steps before them). The cause is not known."
    assert told(above()) == f"It is higher by 260 % in {name} {unknown}"
    waits = above(step_time_p50_s=0.0002, throughput_samples_per_s=32 / 0.00015)
    assert "33 % in" in told(waits)
    assert told(waits).endswith(
        "(by 50.0 us a step). A step that is timed alone ends with a wait for its result, which "
        "may be all of it."
    )
    assert told(above(throughput_samples_per_s=1.09 * 3200)) == ""
    assert told(above(device="gpu:0")) == ""
    many = [one for n in range(5) for one in above(f"m{n}", throughput_samples_per_s=4000.0 + n)]
    assert re.search(r"25 % in m4-\S+ \([^)]*\) and 4 more\. The", told(many))
    exported = above(task="infer", runtime="litert")
    assert summary(exported)[0].caption.startswith("samples/s is higher by 260 % in ")
    usual = above(task="infer", throughput_samples_per_s=0.5 * 3200)
    both = told([*exported, *usual, *above("m1", throughput_samples_per_s=4000.0)])
    assert "It is lower by 50 %" in both
    assert re.search(r"It is higher by 25 % in m1-\S+ \([^)]*\) and 1 more", both)
    assert "samples/s is higher by 260 % in" in told([*exported, *usual])


def test_rows_that_were_measured_beside_other_runs_are_marked() -> None:
    rows = [measured(n, 0.01, concurrent=n == 2) for n in (1, 2, 3)]
    assert cells(summary_text(rows))[0]["note"] == "beside other benchmark runs"
    alone = cells(summary_text([measured(1, 0.01, concurrent=False)]))[0]
    assert "note" not in alone
