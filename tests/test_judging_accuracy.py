"""Accuracy judged by the spread over seeds; what is faster and learns less is no improvement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from histories import comparability, process
from test_verdict import history_of

from convmark.compare.judgement import Judgement, LiveComparison
from convmark.compare.rule.decision import Decision
from convmark.compare.verdict import conclude, review
from convmark.core.interval import Interval
from convmark.report.verdicts import verdicts_report
from convmark.results.record import Record

LEARNED = "lenet5-accuracy-cpu-b256-float32"
TRAINED = "lenet5-train-cpu-b32-float32"


def learned(run: str, *accuracies: float, **changes: Any) -> list[Record]:
    """Return a process for each seed's accuracy, its steps not timed."""
    fields = {
        "task": "accuracy",
        "batch_size": 256,
        "fraction": 1.0,
        "epochs": 5,
        "dataset": "mnist-1",
        "epoch_time_s": 8.0,
        **dict.fromkeys(("step_time_p50_s", "throughput_samples_per_s", "paired_log_ratio")),
        **dict.fromkeys(("reference", "peak_device_memory_bytes", "peak_host_memory_bytes")),
    }
    return [
        process(run=run, process=n, order=n, seed=n - 1, accuracy=value, **{**fields, **changes})
        for n, value in enumerate(accuracies, 1)
    ]


def judged(
    now: Sequence[Record], *runs: Sequence[Record], **comparisons: LiveComparison
) -> dict[tuple[str, str], Judgement]:
    found = conclude(review(now, history_of(*runs)), comparisons.get("given"))  # type: ignore[arg-type]
    return {(one.task, one.metric): one for one in found}


# standard deviation of 0.87, 0.88 and 0.89: 0.01; allowed 0.005 + 0.02 beside the mean 0.88
@pytest.mark.parametrize(
    ("now", "verdict"),
    [
        (0.8551, "unchanged"),
        (0.8549, "regressed"),
        (0.9049, "unchanged"),
        (0.9051, "improved"),
    ],
)
def test_a_change_counts_beyond_twice_the_spread_over_seeds(now: float, verdict: str) -> None:
    before = learned("0001", 0.87, 0.88, 0.89)
    found = judged(learned("0002", now, now, now), before)["accuracy", "accuracy"]
    assert (found.verdict, found.fails) == (verdict, verdict == "regressed")
    assert found.baseline == pytest.approx(0.88)


@pytest.mark.parametrize(("now", "verdict"), [(0.9751, "unchanged"), (0.9749, "regressed")])
def test_seeds_that_agree_leave_half_a_point_of_a_hundred(now: float, verdict: str) -> None:
    before = learned("0001", 0.98, 0.98)
    assert judged(learned("0002", now, now), before)["accuracy", "accuracy"].verdict == verdict


def test_the_wider_spread_of_both_sides_counts() -> None:
    quiet, wide = (0.980, 0.980), (0.955, 0.975)  # means 0.015 apart, 0.005 + 2 x 0.0141 allowed
    for now, before in ((wide, quiet), (quiet, wide)):
        found = judged(learned("0002", *now), learned("0001", *before))["accuracy", "accuracy"]
        assert found.verdict == "unchanged"


def test_one_seed_on_each_side_tells_no_spread_and_convicts_nobody() -> None:
    found = judged(learned("0002", 0.90), learned("0001", 0.98))["accuracy", "accuracy"]
    assert (found.verdict, found.fails) == ("inconclusive", False)
    assert found.note == "one seed has no spread: try --seeds 0,1,2"
    same = judged(learned("0002", 0.98), learned("0001", 0.98))["accuracy", "accuracy"]
    assert same.verdict == "unchanged"


def test_a_drop_says_how_far_and_how_that_is_known() -> None:
    before = learned("0001", 0.97, 0.98, 0.99)
    found = judged(learned("0002", 0.95, 0.95, 0.95), before)["accuracy", "accuracy"]
    assert found.note == "it learns less: by 0.0300, beyond 0.0250 by the spread over 3 seeds"


def test_an_accuracy_has_no_step_time_and_its_epochs_never_convict() -> None:
    now = learned("0002", 0.98, 0.98, epoch_time_s=80.0)
    found = judged(now, learned("0001", 0.98, 0.98))
    assert [metric for _, metric in found] == [
        *("parameters", "model_bytes", "accuracy", "epoch_time"),
    ]
    slow = found["accuracy", "epoch_time"]
    assert (slow.verdict, slow.fails) == ("inconclusive", False)


def test_more_parameters_are_told_of_it_too() -> None:
    now = learned("0002", 0.98, 0.98, parameters=61_707)
    assert judged(now, learned("0001", 0.98, 0.98))["accuracy", "sizes"].fails


def test_a_first_run_is_new_by_its_accuracy_and_a_failed_seed_is_never_unchanged() -> None:
    now = learned("0002", 0.98, 0.98)
    (found,) = conclude(review(now, _empty(LEARNED)))
    assert (found.verdict, found.metric, found.value) == ("new", "accuracy", 0.98)
    broken = learned("0002", 0.98, 0.98)
    broken[1] = learned("0002", 0.5, status="error", error="the loss must be finite, it is nan")[0]
    failed = judged(broken, learned("0001", 0.98, 0.98))["accuracy", "accuracy"]
    assert (failed.verdict, failed.fails) == ("inconclusive", True)
    assert "the loss must be finite" in failed.note


def _empty(*names: str) -> Any:
    from convmark.compare.history import CaseHistory, History

    return History(cases={name: CaseHistory() for name in names})


def test_another_part_of_the_data_is_another_history() -> None:
    from convmark.compare.comparability import difference

    whole, part = learned("0001", 0.98)[0], learned("0002", 0.9, fraction=0.1)[0]
    text = difference(comparability(part), comparability(whole))
    assert text.startswith("fraction was 1.0, is 0.1: ")


def faster(verdict: str = "improved") -> LiveComparison:
    way = -0.2 if verdict == "improved" else 0.0
    decision = Decision(
        verdict=verdict,  # type: ignore[arg-type]
        sessions=5,
        spread=0.01,
        freedom=20.0,
        estimate=way,
        interval=Interval.around(way, 0.01),
        smallest_visible=0.03,
    )
    return LiveComparison(decision=decision, anchor="a" * 40)


def both(now: float) -> dict[tuple[str, str], Judgement]:
    """A run whose training steps are faster, with an accuracy over three seeds."""
    before = [process(run="0001"), *learned("0001", 0.979, 0.980, 0.981)]
    rows = [process(run="0002"), *learned("0002", now, now, now)]
    return judged(rows, before, given={TRAINED: faster()})  # type: ignore[arg-type]


def test_a_faster_model_that_learns_less_is_no_improvement_and_the_summary_says_so() -> None:
    found = both(0.95)
    step = found["train", "step_time"]
    assert (step.verdict, step.fails) == ("inconclusive", False)
    assert step.note.startswith(
        "no improvement, because it learns less: accuracy 0.9800 -> 0.9500; 5 sessions"
    )
    less = found["accuracy", "accuracy"]
    assert (less.verdict, less.fails) == ("regressed", True)
    assert less.note.endswith("so better in step_time, throughput is no improvement")
    assert not any(one.verdict == "improved" for one in found.values())
    summary = verdicts_report(list(found.values()))
    assert "no improvement, because it learns less" in summary


def test_a_faster_model_that_learns_as_well_is_an_improvement() -> None:
    found = both(0.979)
    assert found["train", "step_time"].verdict == "improved"
    assert found["accuracy", "accuracy"].verdict == "unchanged"
    assert found["accuracy", "accuracy"].note == ""
    assert "lenet5-accuracy" in verdicts_report(list(found.values()))


def test_another_model_that_learns_less_takes_nothing_back() -> None:
    before = [process(run="0001"), *learned("0001", 0.979, 0.980, 0.981, model="mini_resnet")]
    rows = [process(run="0002"), *learned("0002", 0.9, 0.9, 0.9, model="mini_resnet")]
    found = judged(rows, before, given={TRAINED: faster()})  # type: ignore[arg-type]
    assert found["train", "step_time"].verdict == "improved"


def test_a_waterfall_is_shown_and_never_judged_but_its_failure_is() -> None:
    none = dict.fromkeys(("step_time_p50_s", "paired_log_ratio", "reference"))
    name = "lenet5-waterfall-cpu-b32-float32"
    row = process(run="0002", task="waterfall", **none)
    assert conclude(review([row], _empty(name))) == []
    failed = process(run="0002", task="waterfall", status="error", error="no", **none)
    (found,) = conclude(review([failed], _empty(name)))
    assert found.fails
