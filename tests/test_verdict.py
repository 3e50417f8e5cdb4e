"""A run against its baseline: every verdict, and each rule at its boundary."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from histories import A_COMMIT, process, run_of
from rows import row

from convmark.compare.earlier import by_name
from convmark.compare.history import CaseHistory, History, anchor_of
from convmark.compare.judgement import METRICS, Judgement, LiveComparison
from convmark.compare.rule.decision import Decision
from convmark.compare.verdict import Review, conclude, review
from convmark.core.errors import MeasurementError
from convmark.core.interval import Interval
from convmark.core.text import percent
from convmark.report.summary import summary
from convmark.results.record import Record

LENET = "lenet5-train-cpu-b32-float32"
MIB = 2**20
LIVE = "`pytest bench --benchmark-compare`"


def history_of(
    *runs: Sequence[Record], absent: tuple[Record, ...] = (), differences: Any = None
) -> History:
    """The runs as accepted history, oldest first."""
    cases: dict[str, list[tuple[Record, ...]]] = {}
    for run in runs:
        for name, rows in by_name(run).items():
            cases.setdefault(name, []).append(tuple(rows))
    found: dict[str, CaseHistory] = {
        name: CaseHistory(
            anchor=anchor_of(Path(f"{rows[0][0].run}.csv"), rows[0]), runs=tuple(rows)
        )
        for name, rows in cases.items()
    }
    for name, text in (differences or {}).items():
        found[name] = CaseHistory(difference=text)
    return History(cases=found, absent=absent)


def reviewed(now: Sequence[Record], *runs: Sequence[Record]) -> Review:
    """Review a run of one case among three quiet ones: the spread of a suite is known."""

    def others(run: Sequence[Record], name: str) -> list[Record]:
        return [replace(row, run=name, model=f"other{n}") for n in range(3) for row in run]

    earlier = [[*run, *others(run, run[0].run)] for run in runs]
    return review([*now, *others(runs[0], now[0].run)], history_of(*earlier))


def judged(
    now: Sequence[Record],
    *runs: Sequence[Record],
    comparisons: Mapping[str, LiveComparison] | None = None,
) -> dict[str, Judgement]:
    """The judgements of a run of one case, by metric."""
    found = conclude(reviewed(now, *runs), comparisons)
    return {one.metric: one for one in found if not one.model.startswith("other")}


def quiet(count: int = 10, **changes: Any) -> list[list[Record]]:
    """A history without surprises: two processes a run, 0.5 % to either side."""
    return [run_of(f"{n:04d}", -0.005, 0.005, **changes) for n in range(1, count + 1)]


def decision(
    verdict: Any, estimate: float = 0.08, half: float = 0.02, bar: float = 0.0
) -> Decision:
    return Decision(
        verdict=verdict,
        sessions=5,
        estimate=estimate,
        interval=Interval.around(estimate, half),
        smallest_visible=0.04,
        spread=0.01,
        freedom=20.0,
        bar=bar,
    )


def confirmed(
    verdict: Any, estimate: float = 0.08, half: float = 0.02, **changes: Any
) -> dict[str, LiveComparison]:
    fields = {"anchor": A_COMMIT[:12]}
    made = decision(verdict, estimate, half, changes.pop("bar", 0.0))
    return {LENET: LiveComparison(decision=made, **{**fields, **changes})}


def reason(text: str) -> dict[str, LiveComparison]:
    return {LENET: LiveComparison(decision=None, reason=text)}


# Step time


def test_a_step_time_is_that_of_the_run_s_own_table_and_what_leaves_processes_out_says_so() -> None:
    now = run_of("0011", 0.0, 0.0, 0.2)
    now[2] = replace(now[2], status="unsteady", time_to_first_step_s=9.0)
    now[1] = replace(now[1], time_to_first_step_s=3.0)
    shown = [row["step_time_p50_s"] for row in summary(now)[0].records()]
    for found in (judged(now, *quiet()), judged(now, *quiet(), comparisons=confirmed("regressed"))):
        assert [found["step_time"].value] == shown == [pytest.approx(0.010)]
    now[1] = replace(now[1], step_time_p50_s=0.014)
    (table,) = summary(now)
    found = judged(now, *quiet(), comparisons=confirmed("unchanged"))
    assert found["step_time"].value == table.column("step_time_p50_s")[0]
    first = found["time_to_first_step"]
    assert first.value == 2.0
    assert table.column("time_to_first_step_s") == [3.0]
    assert first.note.endswith("without 1 of 3 processes, unsteady")
    assert "without" not in judged(quiet(1)[0], *quiet())["time_to_first_step"].note


def test_without_a_live_comparison_nothing_is_said_of_other_code() -> None:
    for value in (0.0, 0.3):
        found = judged(run_of("0011", value, value), *quiet())["step_time"]
        assert (found.verdict, found.fails, found.change) == ("inconclusive", False, None)
        assert found.note == f"{LIVE} compares live; by its history {percent(value)}"
        assert found.baseline_runs == ("0001",)


def test_the_reason_why_there_was_no_live_comparison_is_said() -> None:
    given = reason("the old code cannot be run: no module nets")
    found = judged(run_of("0011", 0.3, 0.3), *quiet(), comparisons=given)["step_time"]
    assert (found.verdict, found.fails) == ("inconclusive", False)
    assert found.note == (
        "no live comparison: the old code cannot be run: no module nets; by its history +35.0 %"
    )


@pytest.mark.parametrize("changes", [{"dirty": True}, {"commit": None, "dirty": None}])
def test_an_anchor_whose_code_is_lost_says_so_and_offers_nothing_that_is_live(
    changes: dict[str, Any],
) -> None:
    step = judged(run_of("0011", 0.3), *quiet(**changes))["step_time"]
    assert step.verdict == "inconclusive"
    assert step.note.startswith("run 0001 has no code to run again: ")
    assert "measure the old code again and `convmark accept` that run; " in step.note
    assert "--benchmark-compare" not in step.note


def test_a_case_that_never_held_still_is_judged_with_the_reason() -> None:
    reason = "step time rose by 35% from the first to the last third of 100 steps"
    now = run_of("0002", 0.02, 0.02, status="unsteady", unsteady=reason)
    found = judged(now, run_of("0001", 0.0, 0.0), comparisons=confirmed("unchanged", 0.0))
    assert found["step_time"].note.endswith(f"; every process was unsteady: {reason}")
    assert found["step_time"].verdict == "unchanged"
    now[0] = replace(now[0], unsteady="warm-up did not settle in 20 steps")
    found = judged(now, run_of("0001", 0.0, 0.0), comparisons=confirmed("unchanged", 0.0))
    kinds = "warm-up did not settle (1), step time rose (1)"
    assert found["step_time"].note.endswith(f"; every process was unsteady: {kinds}")


@pytest.mark.parametrize(
    ("said", "verdict", "fails"),
    [
        ("regressed", "regressed", True),
        ("improved", "improved", False),
        ("unchanged", "unchanged", False),
        ("undecided", "inconclusive", False),
    ],
)
def test_a_live_comparison_stands_as_it_is(said: Any, verdict: str, fails: bool) -> None:
    found = judged(run_of("0011", 0.0), *quiet(), comparisons=confirmed(said))["step_time"]
    assert (found.verdict, found.fails) == (verdict, fails)
    assert (found.change, found.low, found.high) == tuple(map(math.expm1, (0.08, 0.06, 0.10)))
    assert found.baseline == pytest.approx(0.010 * math.exp(-0.08))
    assert found.note == "5 sessions against 1234567aaaaa"


def test_a_change_within_the_margin_is_named_and_fails_nothing() -> None:
    for way, change in (("slower", 0.028), ("faster", -0.028)):
        given = confirmed(f"{way}_within_margin", math.log1p(change))
        found = judged(run_of("0011", 0.0), *quiet(), comparisons=given)["step_time"]
        assert (found.verdict, found.fails) == ("unchanged", False)
        assert found.change == pytest.approx(change)
        assert found.note.endswith(f"; {way} by 2.8 %, within the margin")


def test_what_is_slower_than_the_recent_level_alone_says_so() -> None:
    given = confirmed("regressed", 0.01, bar=-0.05)
    found = judged(run_of("0011", 0.0), *quiet(), comparisons=given)["step_time"]
    assert found.fails
    assert found.note.endswith("; +6.2 % against its recent level, which is -4.9 % of the anchor's")


def test_unchanged_is_taken_back_where_the_history_is_far_away() -> None:
    given = confirmed("unchanged", estimate=0.0)
    moved = judged(run_of("0011", 0.3, 0.3), *quiet(), comparisons=given)["step_time"]
    assert (moved.verdict, moved.fails) == ("inconclusive", False)
    assert moved.note.startswith(
        "5 sessions against 1234567aaaaa; no change in the live comparison, but +35.0 % by its "
        "history: "
    )
    busy = run_of("0011", 0.3, 0.3, other_cpu_share=0.5)
    for now in (run_of("0011", 0.1, 0.1), run_of("0011", 0.3, 0.0), run_of("0011", 0.3), busy):
        still = judged(now, *quiet(), comparisons=given)["step_time"]
        assert (still.verdict, still.note) == ("unchanged", "5 sessions against 1234567aaaaa")


@pytest.mark.parametrize("why", ["same code", "same commit"])
def test_the_same_code_is_unchanged_at_no_cost_unless_it_is_far_away(why: str) -> None:
    for value in (0.0, 0.2, -0.2):
        found = judged(run_of("0011", value, value), *quiet(), comparisons=reason(why))
        assert (found["step_time"].verdict, found["step_time"].note) == ("unchanged", why)
        assert found["step_time"].change is None
    for value, size in ((1.5, "+348.2 %"), (-1.5, "-77.7 %")):
        found = judged(run_of("0011", value, value), *quiet(), comparisons=reason(why))
        assert (found["step_time"].verdict, found["step_time"].fails) == ("inconclusive", False)
        assert found["step_time"].note.startswith(f"{why}, but {size} by its history: something")


def test_the_same_code_is_known_by_its_hash() -> None:
    now = run_of("0011", 0.0, 0.0, code="c1", commit=None, dirty=True)
    found = judged(now, *quiet(code="c1"))["step_time"]
    assert (found.verdict, found.note) == ("unchanged", "same code")
    other = replace(now[1], code="c2", status="unsteady")
    assert judged([now[0], other], *quiet(code="c1"))["step_time"].verdict == "inconclusive"


def test_no_figure_of_the_same_code_fails_a_run() -> None:
    def memory(name: str, peak: float, code: str) -> list[Record]:
        return [process(run=name, code=code, peak_device_memory_bytes=int(peak * MIB))]

    for code, verdict in (("c1", "inconclusive"), ("c2", "regressed")):
        found = judged(memory("0011", 300, code), memory("0010", 36, "c1"))["peak_device_memory"]
        assert (found.verdict, found.fails) == (verdict, code == "c2")


def test_a_size_that_was_never_known_to_fit_is_no_loss_where_it_is_out_of_memory() -> None:
    """As of a search for batch sizes, which ends where memory does."""
    full = row(status="out_of_memory", error="too much")
    nothing = History(cases={LENET: CaseHistory()})
    (never,) = conclude(review([full], nothing))
    assert (never.verdict, never.fails) == ("inconclusive", False)
    assert never.note == "out_of_memory in process 1: too much"
    assert judged([full], *quiet(1))["step_time"].fails
    assert conclude(review([*run_of("0011", 0.0), full], nothing))[0].fails
    assert conclude(review([row(status="crashed", error="killed")], nothing))[0].fails


def test_a_live_comparison_needs_no_history() -> None:
    (now, history) = run_of("0011", 0.3), History(cases={LENET: CaseHistory()})
    found = conclude(review(now, history), confirmed("regressed"))[0]
    assert (found.verdict, found.baseline_runs) == ("regressed", ())
    (same,) = conclude(review(now, history), reason("same commit"))
    assert (same.verdict, same.note) == ("unchanged", "same commit")
    (spent,) = conclude(review(now, history), reason("budget spent"))
    assert (spent.verdict, spent.note) == ("inconclusive", "too few sessions: budget spent")


def test_what_the_models_code_sets_is_inconclusive_until_it_is_compared_live() -> None:
    pair = "model:eager was the default, is True, as the model's own code sets it"
    now = run_of("0002", 1.5, 1.5)
    for changes, why in (({}, f"{LIVE} compares live"), ({"dirty": True}, "run 0001 has no code")):
        anchor = anchor_of(Path("0001.csv"), run_of("0001", 0.0, **changes))
        case = CaseHistory(anchor=anchor, difference=pair)
        found = review(now, History(cases={LENET: case}))
        step = conclude(found)[0]
        assert (step.verdict, step.fails) == ("inconclusive", False)
        assert step.note.startswith(why)
        assert step.note.endswith(f"; {pair}")
        live = conclude(found, confirmed("regressed"))[0]
        assert live.fails
        assert live.note == f"5 sessions against {A_COMMIT[:12]}; {pair}"


# What follows the step time


def test_throughput_follows_with_its_direction_reversed_and_does_not_fail_twice() -> None:
    found = judged(run_of("0011", 0.3, 0.3), *quiet(), comparisons=confirmed("regressed"))
    throughput = found["throughput"]
    assert (throughput.verdict, throughput.fails, throughput.unit) == (
        "regressed",
        False,
        "samples/s",
    )
    assert throughput.change == pytest.approx(math.exp(-0.08) - 1)
    assert throughput.low == pytest.approx(math.exp(-0.10) - 1)
    assert throughput.high == pytest.approx(math.exp(-0.06) - 1)
    assert throughput.value == 3200.0
    assert throughput.baseline == pytest.approx(3200 * math.exp(0.08))
    assert "latency_p50" not in found


def test_latency_is_inferences_p50_follows_and_p99_never_convicts() -> None:
    runs = quiet(task="infer", step_time_p99_s=0.5)
    now = run_of("0011", 0.0, 0.0, task="infer", step_time_p99_s=0.6275)
    name, given = now[0].case.name, confirmed("unchanged", 0.0)
    found = judged(now, *runs, comparisons={name: given[LENET]})
    assert found["latency_p50"].verdict == "unchanged"
    p99 = found["latency_p99"]
    assert (p99.verdict, p99.fails, p99.note) == ("inconclusive", False, "shown, never convicts")
    assert p99.change == pytest.approx(0.255)
    edge = run_of("0011", 0.0, 0.0, task="infer", step_time_p99_s=0.625)
    assert judged(edge, *runs)["latency_p99"].verdict == "unchanged"


# Rules of their own


def verdict_of(metric: str, before: float | int, now: float | int, device: str) -> tuple[str, bool]:
    column = next(one.column for one in METRICS if one.name == metric)
    runs = [run_of(f"{n:04d}", 0.0, device=device, **{column: before}) for n in range(1, 4)]
    found = judged(run_of("0004", 0.0, device=device, **{column: now}), *runs)[metric]
    return found.verdict, found.fails


BOUNDARIES = [
    ("peak_device_memory", 100 * MIB, 103 * MIB, "unchanged"),
    ("peak_device_memory", 100 * MIB, 103 * MIB + 1, "regressed"),
    ("peak_device_memory", 100 * MIB, 97 * MIB, "unchanged"),
    ("peak_device_memory", 100 * MIB, 97 * MIB - 1, "improved"),
    ("peak_device_memory", 2 * MIB, 3 * MIB, "unchanged"),
    ("peak_device_memory", 2 * MIB, 3 * MIB + 1, "regressed"),
    ("peak_host_memory", 200 * MIB, 230 * MIB, "unchanged"),
    ("peak_host_memory", 200 * MIB, 230 * MIB + 1, "inconclusive"),
    # t(0.9995, 20) = 3.850; exp(3.850 x 0.2 x sqrt(1 + 1/3)) = 2.4330
    ("peak_host_memory", 200 * MIB, 486 * MIB, "inconclusive"),
    ("peak_host_memory", 200 * MIB, 487 * MIB, "regressed"),
    ("peak_host_memory", 200 * MIB, 82 * MIB, "improved"),
    ("peak_host_memory", 40 * MIB, 56 * MIB, "unchanged"),
    ("peak_host_memory", 40 * MIB, 56 * MIB + 1, "inconclusive"),
    ("time_to_first_step", 2.0, 3.0, "unchanged"),
    ("time_to_first_step", 2.0, 3.01, "inconclusive"),
    ("time_to_first_step", 0.5, 1.0, "unchanged"),
    ("parameters", 61706, 61706, "unchanged"),
    ("parameters", 61706, 61707, "changed"),
    ("trainable_parameters", 61706, 61705, "changed"),
    ("flops_per_sample", 833040, 833042, "changed"),
    ("model_bytes", 246824, 246820, "changed"),
]


@pytest.mark.parametrize(("metric", "before", "now", "verdict"), BOUNDARIES)
def test_each_rule_at_its_boundary(metric: str, before: float, now: float, verdict: str) -> None:
    device = "gpu:0" if metric == "peak_device_memory" else "cpu"
    assert verdict_of(metric, before, now, device) == (verdict, verdict == "regressed")


def test_a_cpus_allocator_peak_hangs_on_what_ran_side_by_side() -> None:
    """Identical code, recorded: nine processes of 35.4 to 36.0 MiB, and one of 45.8."""
    usual, high = 36.0 * MIB, 45.8 * MIB

    def run(name: str, *peaks: float) -> list[Record]:
        return [
            process(run=name, process=n, order=n, peak_device_memory_bytes=int(peak))
            for n, peak in enumerate(peaks, 1)
        ]

    many = [run(f"{number:04d}", usual, usual) for number in range(1, 26)]
    for runs in (many[:1], many):  # however many agree, the next may be the rare one
        found = judged(run("0099", high, usual), *runs)["peak_device_memory"]
        assert (found.verdict, found.fails) == ("inconclusive", False)
    twice = judged(run("0099", 2 * usual, 2 * usual), *many)["peak_device_memory"]
    assert (twice.verdict, twice.fails) == ("regressed", True)


def test_a_case_of_other_sizes_fails_once_and_lists_them() -> None:
    now = run_of("0002", 0.0, parameters=61900, flops_per_sample=800000)
    found = judged(now, run_of("0001", 0.0))
    assert [one.metric for one in found.values() if one.fails] == ["sizes"]
    sizes = found["sizes"]
    assert (sizes.verdict, sizes.baseline_runs) == ("changed", ("0001",))
    assert sizes.note == "parameters 61,706 -> 61,900, FLOPs per sample 833,040 -> 800,000"
    one = found["parameters"]
    assert (one.verdict, one.baseline, one.value) == ("changed", 61706, 61900)
    assert one.smallest_visible is None
    assert found["model_bytes"].verdict == "unchanged"
    assert "sizes" not in judged(run_of("0002", 0.0), run_of("0001", 0.0))


def test_an_exact_metric_is_judged_against_the_anchor_so_that_nothing_creeps_by() -> None:
    runs = tuple(tuple(run_of(f"{n:04d}", 0.0, parameters=100 + n)) for n in (1, 2))
    anchor = anchor_of(Path("0001.csv"), runs[0])
    history = History(cases={LENET: CaseHistory(anchor=anchor, runs=runs)})
    now = run_of("0003", 0.0, parameters=102)
    (found,) = (one for one in conclude(review(now, history)) if one.metric == "parameters")
    assert (found.baseline, found.baseline_runs) == (101, ("0001",))
    assert (found.verdict, found.value) == ("changed", 102)


def test_memory_is_the_median_over_processes_and_runs() -> None:
    def run(name: str, *peaks: int) -> list[Record]:
        return [
            process(
                run=name,
                device="gpu:0",
                process=n,
                order=n,
                peak_device_memory_bytes=peak * MIB,
            )
            for n, peak in enumerate(peaks, 1)
        ]

    found = judged(
        run("0004", 100, 101, 190), run("0001", 100), run("0002", 100), run("0003", 500)
    )["peak_device_memory"]
    assert (found.baseline, found.value) == (100 * MIB, 101 * MIB)
    assert (found.change, found.verdict) == (pytest.approx(0.01), "unchanged")
    assert found.smallest_visible == pytest.approx(0.03)


def test_host_memory_is_held_against_the_spread_of_its_own_processes() -> None:
    """Identical code, recorded: 187 to 294 MB from process to process."""
    peaks = [[189.6, 189.5], [186.6, 215.7], [190.0, 230.0], [187.0, 199.0]]

    def run(name: str, values: list[float]) -> list[Record]:
        return [
            process(run=name, process=n, order=n, peak_host_memory_bytes=int(value * MIB))
            for n, value in enumerate(values, 1)
        ]

    runs = [run(f"{number:04d}", values) for number, values in enumerate(peaks, 1)]
    found = judged(run("0005", [294.4, 198.5]), *runs)["peak_host_memory"]
    assert (found.verdict, found.fails) == ("inconclusive", False)
    assert found.note == "no more than its processes differ by: try --processes"
    twice = judged(run("0005", [500.0, 500.0]), *runs)["peak_host_memory"]
    assert (twice.verdict, twice.fails) == ("regressed", True)


def test_where_many_processes_agree_a_smaller_growth_of_host_memory_convicts() -> None:
    def run(name: str, value: int) -> list[Record]:
        return [
            process(run=name, process=n, order=n, peak_host_memory_bytes=(value + n) * MIB)
            for n in range(1, 4)
        ]

    runs = [run(f"{number:04d}", 200) for number in range(1, 11)]
    assert judged(run("0011", 240), *runs)["peak_host_memory"].verdict == "regressed"


def test_what_one_side_lacks_is_not_judged() -> None:
    found = judged(run_of("0002", 0.0, peak_device_memory_bytes=None), run_of("0001", 0.0))
    assert "peak_device_memory" not in found
    assert "accuracy" not in found


def test_a_baseline_of_zero_has_no_change() -> None:
    found = judged(
        run_of("0002", 0.0, flops_per_sample=2), run_of("0001", 0.0, flops_per_sample=0)
    )["flops_per_sample"]
    assert (found.verdict, found.change) == ("changed", None)


# Without figures


def test_a_case_without_history_is_new() -> None:
    now = run_of("0002", 0.0)
    (found,) = conclude(review(now, History(cases={LENET: CaseHistory()})))
    assert (found.verdict, found.fails, found.baseline, found.value) == ("new", False, None, 0.010)
    assert found.note == "no earlier run of this case; later runs are compared with this one"


def test_a_case_that_cannot_be_compared_is_new_and_says_why() -> None:
    history = history_of(differences={LENET: "keras was 3.9, is 3.15: `convmark history`"})
    (found,) = conclude(review(run_of("0002", 0.0), history))
    assert (found.verdict, found.note) == ("new", "keras was 3.9, is 3.15: `convmark history`")


def test_a_case_that_did_not_run_is_missing_where_all_were_asked_for() -> None:
    gone = process(run="0001", model="vgg16", step_time_p50_s=0.5)
    history = history_of(run_of("0001", 0.0), absent=(gone,))
    now = run_of("0002", 0.0)
    assert "missing" not in {found.verdict for found in conclude(review(now, history))}
    found = conclude(review(now, history), report_missing=True)[-1]
    assert (found.verdict, found.fails, found.run, found.model) == (
        "missing",
        False,
        "0002",
        "vgg16",
    )
    assert (found.baseline, found.value, found.baseline_runs) == (0.5, None, ("0001",))


def test_an_errored_case_fails_and_is_never_unchanged() -> None:
    now = [
        *run_of("0011", 0.0),
        process(run="0011", process=2, order=2, status="crashed", error="signal 11"),
    ]
    found = judged(now, *quiet())
    step = found["step_time"]
    assert (step.verdict, step.fails, step.note) == (
        "inconclusive",
        True,
        "crashed in process 2: signal 11",
    )
    assert "throughput" not in found
    assert found["parameters"].verdict == "unchanged"
    (alone,) = conclude(review([process(run="0011", status="timeout")], history_of(*quiet())))
    assert (alone.verdict, alone.fails, alone.value) == ("inconclusive", True, None)


def test_rows_without_rounds_are_judged_live_all_the_same() -> None:
    now = [process(run="0002", paired_log_ratio=None, paired_log_ratio_se=None)]
    found = judged(now, run_of("0001", 0.0))
    assert (found["step_time"].verdict, found["step_time"].note) == (
        "inconclusive",
        f"{LIVE} compares live",
    )
    given = confirmed("unchanged", 0.0)
    assert judged(now, run_of("0001", 0.0), comparisons=given)["step_time"].verdict == "unchanged"


# The machine


def machine(now_s: float, *before_s: float, **changes: Any) -> Judgement:
    runs = [
        run_of(f"{n:04d}", 0.0, reference_step_time_p50_s=seconds)
        for n, seconds in enumerate(before_s, 1)
    ]
    now = run_of("0099", 0.0, reference_step_time_p50_s=now_s, **changes)
    return conclude(review(now, history_of(*runs)))[-1]


def test_a_slower_machine_is_said_and_fails_nothing() -> None:
    found = machine(0.0125, *[0.010] * 10)
    assert (found.model, found.case, found.verdict, found.fails) == (
        "machine",
        "machine-cpu-large",
        "regressed",
        False,
    )
    assert found.note == "the machine is 25.0 % slower for case and reference alike"
    assert found.change == pytest.approx(0.25)
    assert found.baseline == pytest.approx(0.010)
    assert machine(0.008, *[0.010] * 10).note == (
        "the machine is 20.0 % faster for case and reference alike"
    )


def test_a_machine_within_ten_per_cent_is_unchanged_or_cannot_be_told() -> None:
    # ten runs alike: 0.02 floor x sqrt(1.1) x t(9) 2.262 = 0.0475; ln 1.10 = 0.0953
    assert machine(0.010 * math.exp(0.047), *[0.010] * 10).verdict == "unchanged"
    assert machine(0.010 * math.exp(0.049), *[0.010] * 10).verdict == "inconclusive"
    assert machine(0.010 * math.exp(0.095), *[0.010] * 10).verdict == "inconclusive"
    assert machine(0.010 * math.exp(0.096), *[0.010] * 10).verdict == "regressed"
    assert machine(0.013, 0.010, 0.010 * math.exp(0.2)).verdict == "inconclusive"


def test_fewer_than_three_earlier_runs_tell_nothing_of_the_machine() -> None:
    found = machine(0.02, 0.010)
    assert (found.verdict, found.low, found.high) == ("inconclusive", None, None)
    assert found.note == "1 earlier run is too few to know the spread"
    found = machine(0.02, 0.010, 0.011)
    assert (found.verdict, found.low, found.high) == ("inconclusive", None, None)
    assert found.note == "2 earlier runs are too few to know the spread"
    assert machine(0.02, 0.010, 0.011, 0.010).low is not None


def test_unlike_loads_are_said_beside_the_machine() -> None:
    found = machine(0.0125, *[0.010] * 10, other_cpu_share=0.5)
    assert found.note.endswith(
        "; the loads differ: others took 5 % of the CPUs' time then, 50 % now"
    )


def test_each_reference_and_thread_setting_has_its_row() -> None:
    def rows(run: str) -> list[Record]:
        small = run_of(run, 0.0, task="infer", batch_size=1, reference="small")
        return [*run_of(run, 0.0), *small, *run_of(run, 0.0, model="vgg16", threads="1")]

    found = conclude(review(rows("0003"), history_of(rows("0001"), rows("0002"))))
    machines = [judgement.case for judgement in found if judgement.model == "machine"]
    assert machines == ["machine-cpu-large", "machine-cpu-small", "machine-cpu-large-t1"]


# What cannot be


def test_a_judgement_refuses_nonsense() -> None:
    whole = judged(run_of("0002", 0.0), run_of("0001", 0.0))["parameters"]
    fields = {name: getattr(whole, name) for name in Judgement.__dataclass_fields__}
    with pytest.raises(MeasurementError, match="verdict must be one of regressed, improved"):
        Judgement(**{**fields, "verdict": "slower"})
    with pytest.raises(MeasurementError, match="must not fail"):
        Judgement(**{**fields, "fails": True})
    with pytest.raises(MeasurementError, match="the reason for none"):
        LiveComparison(decision=None)
