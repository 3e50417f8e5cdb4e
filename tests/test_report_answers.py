"""The answers of a report, from rows whose figures are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from histories import keep_said
from report_rows import FAST, SLOW, keep_run
from test_report_tables import three
from test_verdicts_file import judgement

from convmark.compare.judgement import SIZES
from convmark.report.build import build
from convmark.results.record import Record


def answers(folder: Path, *runs: list[Record]) -> dict[str, tuple[str, str]]:
    """Return what was found and its detail, by what it is of."""
    for rows in runs:
        keep_run(folder / "results", rows)
    table = build([folder / "results"]).tables[0]
    return {row["of"]: (row["found"], row["detail"]) for row in table.records()}


def test_models_whose_interval_has_1_are_not_told_apart(tmp_path: Path) -> None:
    close = three(SLOW, 1, "vgg16", 1.00, 1.04, 1.08)
    found = answers(tmp_path, [*three(SLOW, 1, "lenet5", 0.99, 1.03, 1.07), *close])
    winner, detail = found["train, batch 32"]
    assert winner == "lenet5 or vgg16; lenet5: 1.03 s"
    assert "not distinguishable: ratio in [" in detail
    assert found["verdicts"][0] == "none"


def test_every_model_that_may_be_the_fastest_is_named_not_the_next_one_alone(
    tmp_path: Path,
) -> None:
    best, second = three(SLOW, 1, "vgg16", 1.0, 1.01, 1.02), three(SLOW, 1, "lenet5", *[1.2] * 3)
    wide = three(SLOW, 1, "resnet50", 0.7, 1.3, 2.0, other_cpu_share=0.3)
    winner, detail = answers(tmp_path, [*best, *second, *wide])["train, batch 32"]
    assert winner == "vgg16 or resnet50; vgg16: 1.01 s"
    assert detail.startswith("not distinguishable: ratio in [")
    assert detail.endswith("under 30 % other load")
    others = [row for name in "abc" for row in three(SLOW, 1, name, 0.6, 1.2, 2.1)]
    winner, detail = answers(tmp_path, [*best, *second, *wide, *others])["train, batch 32"]
    assert winner == "vgg16, a, b or 2 more; vgg16: 1.01 s"
    assert detail.startswith("not distinguishable: ratio of a in [")


def test_a_rival_without_an_interval_that_is_not_the_next_one_is_named(tmp_path: Path) -> None:
    best, second = three(SLOW, 1, "vgg16", 1.0, 1.01, 1.02), three(SLOW, 1, "lenet5", *[1.1] * 3)
    for step_s, told in ((1.2, "vgg16 or resnet50; vgg16: 1.01 s"), (1.3, "vgg16: 1.01 s a step")):
        thin = three(SLOW, 1, "resnet50", step_s)
        found = answers(tmp_path / str(step_s), [*best, *second, *thin])
        winner, detail = found["train, batch 32"]
        assert winner == told
        unclear = "not distinguishable (no interval: fewer than 3 processes), on"
        assert detail.startswith(unclear if " or " in told else "1.09 times as fast as lenet5 [")


def test_machines_that_have_no_line_are_counted(tmp_path: Path) -> None:
    def machines(count: int) -> list[str]:
        runs = [three(f"m{n}", 1, "lenet5", *[1.0 + n] * 3) for n in range(count)]
        found = answers(tmp_path / str(count), *runs)
        return [of for of in found if "against" in of or "machine" in of]

    assert machines(4) == [f"m{n} cpu against m0 cpu" for n in (1, 2, 3)]
    assert machines(5)[2:] == ["2 more machines"]


def test_a_judged_run_that_compared_nothing_says_so(tmp_path: Path) -> None:
    path = keep_run(tmp_path / "results", three(SLOW, 1, "lenet5", 0.01, 0.01))
    said: dict[str, Any] = {"run": "0001", "change": None, "fails": False}
    keep_said(
        path.parent,
        judgement(case="a", verdict="new", **said),
        judgement(case="b", verdict="new", **said),
        judgement(case="c", verdict="missing", **said),
    )
    found = answers(tmp_path)["regressed"]
    assert found == ("none of 3 cases in run 0001", "2 new, 1 missing")
    found = answers(tmp_path, three(FAST, 1, "lenet5", 0.01, 0.01))["regressed"]
    assert found[0] == f"none of 3 cases in run 0001 of {SLOW}"


def test_a_case_that_regressed_as_accepted_is_not_counted_as_failed(tmp_path: Path) -> None:
    path = keep_run(tmp_path / "results", three(SLOW, 1, "lenet5", 0.01, 0.01))
    slower = judgement(run="0001", case="a", fails=False, accepted="allowed by --allow-change")
    sizes: dict[str, Any] = {"metric": SIZES, "verdict": "changed", "change": None}
    keep_said(path.parent, slower, judgement(run="0001", case="b", fails=True, **sizes))
    found = answers(tmp_path)
    assert found["failed"] == ("1 of 2 cases in run 0001", f"b: {SIZES}")
    assert "regressed" not in found
    assert found["changed as accepted"][0] == "1 of 2 cases in run 0001"
    assert found["changed as accepted"][1].startswith("a: step time +")


def test_what_is_not_decided_stands_beside_what_changed(tmp_path: Path) -> None:
    path = keep_run(tmp_path / "results", three(SLOW, 1, "lenet5", 0.01, 0.01))
    slower = judgement(run="0001", case="a", fails=False, accepted="allowed by --allow-change")
    open_: dict[str, Any] = {"run": "0001", "verdict": "inconclusive", "fails": False}
    keep_said(path.parent, slower, *(judgement(case=name, **open_) for name in "bcd"))
    found = answers(tmp_path)
    assert found["changed as accepted"][0] == "1 of 4 cases in run 0001"
    assert found["not decided"] == ("3 of 4 cases in run 0001", "3 inconclusive")


def test_settings_that_have_no_line_are_counted(tmp_path: Path) -> None:
    def fastest(sizes: list[int]) -> list[str]:
        rows = [
            one for size in sizes for one in three(SLOW, 1, "vgg16", *[1.0] * 3, batch_size=size)
        ]
        found = answers(tmp_path / str(len(sizes)), rows)
        return [of for of in found if of.startswith("train") or "setting" in of]

    assert fastest([1, 2, 3, 4]) == [f"train, batch {size}" for size in (1, 2, 3, 4)]
    assert fastest([1, 2, 3, 4, 5])[-1] == "2 more settings"


def test_a_ratio_that_the_printed_medians_do_not_give_says_of_what_it_is(tmp_path: Path) -> None:
    rows = [*three(SLOW, 1, "lenet5", 1.0, 1.0, 1.3), *three(SLOW, 1, "vgg16", 9.0, 9.0, 9.0)]
    _, detail = answers(tmp_path, rows)["train, batch 32"]
    assert detail.startswith("8.25 times as fast as vgg16 [")
    assert "] in geometric means, 9.00 times in medians, on" in detail


def test_a_trial_of_one_process_names_the_earlier_run_of_more(tmp_path: Path) -> None:
    whole = three(SLOW, 1, "lenet5", 1.0, 1.0, 1.0)
    found = answers(tmp_path, whole, three(SLOW, 2, "lenet5", 0.5))
    winner, detail = found["train, batch 32"]
    assert winner == "lenet5: 500 ms a step"
    assert detail.endswith("lenet5 by 1 process of run 0002, though run 0001 has 3 processes")


def test_a_model_that_is_surely_slower_in_the_mean_is_not_told_as_the_fastest(
    tmp_path: Path,
) -> None:
    """Its median is the smallest, and the geometric mean of its processes is not."""
    steady = three(SLOW, 1, "vgg16", *[1.01] * 9)
    tailed = three(SLOW, 1, "lenet5", *[1.0] * 5, *[1.9] * 4)
    winner, detail = answers(tmp_path, [*tailed, *steady])["train, batch 32"]
    assert winner == "lenet5 or vgg16; lenet5: 1.00 s"
    assert "not distinguishable: ratio in [" in detail


def test_quiet_figures_of_three_processes_can_be_trusted(tmp_path: Path) -> None:
    found = answers(tmp_path, three(SLOW, 1, "lenet5", 1.0, 1.01, 1.02))
    word, detail = found["newest figures"]
    assert (word, detail) == ("good", "1 figure is steady, of 3 processes or more")
    assert found["train, batch 32"] == ("lenet5: 1.01 s a step", f"no other model, on {SLOW} cpu")


def test_where_all_failed_nothing_is_said_of_figures(tmp_path: Path) -> None:
    failed = three(SLOW, 1, "vgg16", 1.0, status="crashed", error="signal 11")
    found = answers(tmp_path, failed)  # no advice on a spread either
    assert found["newest figures"] == ("none", "no case has a figure, 1 case failed")


def test_every_doubt_is_named_and_a_failed_case_counted(tmp_path: Path) -> None:
    loaded = three(SLOW, 1, "lenet5", 1.0, 1.01, other_cpu_share=0.82)
    failed = three(SLOW, 1, "vgg16", 1.0, status="crashed", error="signal 11")
    word, detail = answers(tmp_path, [*loaded, *failed])["newest figures"]
    assert word == "poor"
    assert "1 of 1 figure measured under other load of up to 82 %" in detail
    assert "1 of fewer than 3 processes" in detail
    assert detail.endswith("1 case failed")


def test_models_of_other_input_shapes_recipes_and_versions_are_not_compared(
    tmp_path: Path,
) -> None:
    plain = three(SLOW, 1, "resnet50", 4.0, 4.1, 4.2)
    small = three(SLOW, 1, "vgg16", 0.1, 0.1, 0.1, asked_shape="32x32x3")
    lean = three(SLOW, 1, "lenet5", 0.2, 0.2, 0.2, recipe="loss=mse")
    found = answers(tmp_path, [*plain, *small, *lean])
    for name, step in (("", "resnet50: 4.10 s"), (", 32x32x3", "vgg16: 100 ms"),
                       (", loss=mse", "lenet5: 200 ms")):  # fmt: skip
        assert found[f"train, batch 32{name}"] == (
            f"{step} a step",
            f"no other model, on {SLOW} cpu",
        )
    newer = three(SLOW, 2, "alexnet", 1.0, 1.0, 1.0, tensorflow="2.22.0")
    assert answers(tmp_path, newer)["train, batch 32"] == (
        "alexnet: 1.00 s a step",
        f"no other model, on {SLOW} cpu, TensorFlow 2.22.0",
    )


def test_the_fastest_is_chosen_in_the_setting_that_most_models_share(tmp_path: Path) -> None:
    levels = (("lenet5", 2.0, "keras"), ("vgg16", 4.0, "keras"), ("lenet5", 0.1, "litert"))
    rows = [
        one
        for model, step_s, runtime in levels
        for one in three(SLOW, 1, model, *[step_s] * 3, task="infer", runtime=runtime)
    ]
    found, detail = answers(tmp_path, rows)["infer, batch 32"]
    assert found == "lenet5: 2.00 s a step"
    assert detail == f"2.00 times as fast as vgg16 [2.00, 2.00], on {SLOW} cpu"


OF_VERSIONS = "TensorFlow 2.21.0 against 2.20.0"


def versions(folder: Path, **newer: Any) -> tuple[str, str] | None:
    """Return the answer on two versions, of which the newer ran with these changes."""
    same = {"commit": "a" * 40, "code": "c" * 12, "keras": "3.9"}
    old = three(SLOW, 1, "lenet5", 2.0, 2.0, 2.0, **{**same, "tensorflow": "2.20.0"})
    new = three(SLOW, 2, "lenet5", 1.0, 1.0, 1.0, **{**same, "tensorflow": "2.21.0", **newer})
    return answers(folder, old, new).get(OF_VERSIONS)


def test_two_versions_of_one_machine_have_a_ratio_with_its_interval(tmp_path: Path) -> None:
    ratio = "2.00 times as fast"
    detail = f"over 1 case on {SLOW} cpu [2.00, 2.00]"
    ran = "measured in different runs"
    assert versions(tmp_path / "same") == (ratio, f"{detail}, {ran}")
    other = versions(tmp_path / "other", keras="3.10")
    assert other == (ratio, f"{detail}, other keras too, {ran}")


@pytest.mark.parametrize(
    "newer",
    [
        {"code": "d" * 12},
        {"code": None, "commit": None},
        {"measurement_version": "2"},
        {"python": "3.99"},
        {"flags": "XLA_FLAGS=--xla"},
    ],
    ids=str,
)
def test_a_version_is_not_credited_with_what_else_differs(
    tmp_path: Path, newer: dict[str, Any]
) -> None:
    assert versions(tmp_path, **newer) is None


def test_a_mean_of_1_is_not_the_machine_that_others_are_held_against(tmp_path: Path) -> None:
    runs = [three(name, 1, "lenet5", 1.0, 1.0, 1.0) for name in ("b", "a")]
    found = answers(tmp_path, *runs)
    assert [of for of in found if of.endswith(" cpu")] == ["b cpu against a cpu"]
