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

from convmark.errors import MeasurementError
from convmark.judging.confirm import LEAST_CHANGE, Decision
from convmark.judging.history import Anchor, CaseHistory, History, by_name
from convmark.judging.judgement import Confirmation, Judgement
from convmark.judging.verdict import METRICS, Review, conclude, flagged, review
from convmark.record import Record

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
        name: CaseHistory(runs=tuple(rows)) for name, rows in cases.items()
    }
    for name, text in (differences or {}).items():
        found[name] = CaseHistory(difference=text)
    return History(cases=found, absent=absent, files=())


def reviewed(now: Sequence[Record], *runs: Sequence[Record]) -> Review:
    """Review a run of one case among three quiet ones: the spread of a suite is known."""

    def others(run: Sequence[Record], name: str) -> list[Record]:
        return [replace(row, run=name, model=f"other{n}") for n in range(3) for row in run]

    earlier = [[*run, *others(run, run[0].run)] for run in runs]
    return review([*now, *others(runs[0], now[0].run)], history_of(*earlier))


def judged(
    now: Sequence[Record],
    *runs: Sequence[Record],
    confirmations: Mapping[str, Confirmation] | None = None,
) -> dict[str, Judgement]:
    """The judgements of a run of one case, by metric."""
    found = conclude(reviewed(now, *runs), confirmations)
    return {one.metric: one for one in found if not one.model.startswith("other")}


def quiet(count: int = 10, **changes: Any) -> list[list[Record]]:
    """A history without surprises: two processes a run, 0.5 % to either side."""
    return [run_of(f"{n:04d}", -0.005, 0.005, **changes) for n in range(1, count + 1)]


def decision(verdict: Any, estimate: float = 0.08, half: float = 0.02) -> Decision:
    return Decision(
        verdict=verdict,
        estimate=estimate,
        low=estimate - half,
        high=estimate + half,
        smallest_visible=0.04,
    )


def confirmed(
    verdict: Any, estimate: float = 0.08, half: float = 0.02, **changes: Any
) -> dict[str, Confirmation]:
    fields = {"decided_by": "wall", "sessions": 5, "anchor": A_COMMIT[:12]}
    return {
        LENET: Confirmation(decision=decision(verdict, estimate, half), **{**fields, **changes})
    }


def reason(text: str) -> dict[str, Confirmation]:
    return {LENET: Confirmation(decision=None, reason=text)}


# Step time, by history


def test_a_step_time_like_its_history_is_unchanged() -> None:
    found = judged(run_of("0011", 0.0, 0.002), *quiet())["step_time"]
    assert (found.verdict, found.note, found.fails, found.unconfirmed) == (
        "unchanged",
        "",
        False,
        False,
    )
    assert found.change == pytest.approx(math.expm1(0.001))
    assert found.low is not None
    assert found.high is not None
    assert -0.05 < found.low < found.change < found.high < 0.05
    assert found.value == pytest.approx(0.010 * (1 + math.exp(0.002)) / 2)
    assert found.baseline == pytest.approx(found.value / (1 + found.change))
    assert found.baseline_runs == tuple(f"{n:04d}" for n in range(1, 11))


@pytest.mark.parametrize(("log_ratio", "is_flagged"), [(0.0520, False), (0.0521, True)])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_case_is_flagged_beyond_one_and_a_half_standard_errors(
    log_ratio: float, is_flagged: bool, sign: int
) -> None:
    # one baseline run: s^2 = 2 x 0.017^2 + (1/2 + 1/2) x 0.025^2 + 2 x 0.001^2 / 2, 1.5 s = 0.05205
    now = run_of("0002", sign * log_ratio, sign * log_ratio)
    found = review(now, history_of(run_of("0001", 0.0, 0.0)))
    assert flagged(found) == ([LENET] if is_flagged else [])


def test_an_interval_too_wide_is_inconclusive_with_what_to_try() -> None:
    found = judged(run_of("0002", 0.02, 0.02), run_of("0001", 0.0, 0.0))["step_time"]
    assert (found.verdict, found.unconfirmed, found.fails) == ("inconclusive", False, False)
    assert found.smallest_visible is not None
    seen = f"{100 * found.smallest_visible:.1f} %"
    assert found.note == f"sees changes from {seen}: try --processes 4 or {LIVE}"


def test_what_to_try_counts_the_processes_that_are_not_judged_too() -> None:
    steady, unsteady = run_of("0002", 0.02, 0.02)
    now = [steady, replace(unsteady, status="unsteady")]
    found = judged(now, run_of("0001", 0.0, 0.0))["step_time"]
    assert found.verdict == "inconclusive"
    assert "try --processes 4 " in found.note


def test_a_case_that_never_held_still_is_judged_with_the_reason() -> None:
    reason = "step time rose by 35% from the first to the last third of 100 steps"
    now = run_of("0002", 0.02, 0.02, status="unsteady", unsteady=reason)
    found = judged(now, run_of("0001", 0.0, 0.0))
    assert found["step_time"].note.endswith(f"; every process was unsteady: {reason}")
    steady, unsteady = run_of("0002", 0.02, 0.02)
    now = [steady, replace(unsteady, status="unsteady", unsteady=reason)]
    found = judged(now, run_of("0001", 0.0, 0.0))
    assert "unsteady" not in found["step_time"].note


def test_noise_within_the_processes_asks_for_a_longer_time_budget() -> None:
    now = run_of("0011", 0.02, 0.02, paired_log_ratio_se=0.05, threads="2")
    found = judged(now, *quiet(threads="2"))["step_time"]
    assert found.verdict == "inconclusive"
    assert found.note.endswith(f"try a longer --time-budget or {LIVE}")


def test_unlike_loads_never_end_in_unchanged() -> None:
    found = judged(run_of("0011", 0.0, 0.0, other_cpu_share=0.21), *quiet())["step_time"]
    assert found.verdict == "inconclusive"
    assert found.note.startswith(
        "loads are unlike: others took 5% of the CPU time then and 21% now"
    )
    alike = judged(run_of("0011", 0.0, 0.0, other_cpu_share=0.14), *quiet())["step_time"]
    assert alike.verdict == "unchanged"


def test_history_alone_convicts_unconfirmed_and_names_the_command_that_confirms() -> None:
    slow = judged(run_of("0011", 0.3, 0.3), *quiet())["step_time"]
    assert (slow.verdict, slow.unconfirmed, slow.fails) == ("regressed", True, True)
    assert slow.change == pytest.approx(math.expm1(0.3))
    assert slow.note == "`pytest bench --benchmark-compare` confirms"
    fast = judged(run_of("0011", -0.3, -0.3), *quiet())["step_time"]
    assert (fast.verdict, fast.unconfirmed, fast.fails) == ("improved", True, False)


def test_history_alone_does_not_convict_within_ten_per_cent_or_from_one_run() -> None:
    near = judged(run_of("0011", 0.09, 0.09), *quiet())["step_time"]
    assert (near.verdict, near.unconfirmed, near.fails) == ("inconclusive", True, False)
    alone = judged(run_of("0002", 0.5, 0.5), run_of("0001", 0.0, 0.0))["step_time"]
    assert alone.verdict == "inconclusive"
    assert alone.smallest_visible is None
    assert "one baseline run convicts nobody" in alone.note


def test_flagged_cases_share_the_error_rate() -> None:
    found = reviewed(run_of("0011", 0.3, 0.3), *quiet())
    one = conclude(found)[0]
    others = {f"other{n}-train-cpu-b32-float32": reason("no commit")[LENET] for n in range(3)}
    of_many = conclude(found, others)[0]
    assert one.low is not None
    assert of_many.low is not None
    assert of_many.low < one.low


def test_further_processes_are_judged_together_with_the_first() -> None:
    two = reviewed(run_of("0011", 0.04, 0.04), *quiet())
    four = reviewed(run_of("0011", 0.04, 0.04, -0.04, -0.04), *quiet())
    assert flagged(two) == [LENET]
    assert flagged(four) == []
    found = conclude(four, reason("no clean commit"))[0]
    assert (found.verdict, found.unconfirmed) == ("unchanged", False)


def test_the_largest_change_is_handed_out_first_and_a_failed_case_never() -> None:
    models = {"a": 0.1, "b": -0.3, "c": 0.2, "d": 0.9}
    now = [row for model, level in models.items() for row in run_of("0011", level, model=model)]
    now.append(process(run="0011", model="d", process=2, order=9, status="crashed"))
    runs = [
        [row for model in models for row in run_of(f"{n:04d}", 0.0, model=model)]
        for n in range(1, 11)
    ]
    names = [name.partition("-")[0] for name in flagged(review(now, history_of(*runs)))]
    assert names == ["b", "c", "a"]


# Step time, one thread: CPU time beside wall time


def one_thread(run: str, wall: float, cpu: float) -> list[Record]:
    return run_of(
        run, wall, wall, threads="1", paired_log_ratio_cpu=cpu, paired_log_ratio_cpu_se=0.001
    )


CLOCKS = [
    (0.0, 0.0, "unchanged", "", False),
    (0.031, 0.0, "inconclusive", "CPU time agrees with history, wall time does not", False),
    (0.3, 0.0, "regressed", "`pytest bench", True),
    (0.3, -0.3, "regressed", "`pytest bench", True),
    (0.01, 0.3, "regressed", "by CPU time; `pytest bench", True),
    (-0.01, 0.3, "inconclusive", "by CPU time; `pytest bench", False),
    (-0.01, -0.3, "improved", "by CPU time; `pytest bench", False),
]


@pytest.mark.parametrize(("wall", "cpu", "verdict", "note", "fails"), CLOCKS)
def test_with_one_thread_either_clock_flags_and_wall_time_rules(
    wall: float, cpu: float, verdict: str, note: str, fails: bool
) -> None:
    # runs scatter by 1.9 % of wall time, so 1.5 s = 0.032 lies above ln 1.03
    runs = [one_thread(f"{n:04d}", 0.0192 * (-1) ** n, 0.0) for n in range(1, 11)]
    found = reviewed(one_thread("0011", wall, cpu), *runs)
    is_flagged = max(abs(wall), abs(cpu)) > 0.1
    assert bool(flagged(found)) == is_flagged
    step = conclude(found)[0]
    assert (step.verdict, step.fails, step.unconfirmed) == (verdict, fails, is_flagged)
    assert step.note.startswith(note)


def test_with_more_threads_cpu_time_is_not_looked_at() -> None:
    runs = [run_of(f"{n:04d}", 0.0, 0.0, paired_log_ratio_cpu=0.0) for n in range(1, 11)]
    now = run_of("0011", 0.0, 0.0, paired_log_ratio_cpu=0.5, paired_log_ratio_cpu_se=0.001)
    assert flagged(review(now, history_of(*runs))) == []


# Step time, confirmed


def test_a_confirmed_decision_stands_as_it_is() -> None:
    now = run_of("0011", 0.3, 0.3)
    slow = judged(now, *quiet(), confirmations=confirmed("regressed"))["step_time"]
    assert (slow.verdict, slow.fails, slow.unconfirmed) == ("regressed", True, False)
    assert slow.change == pytest.approx(math.expm1(0.08))
    assert slow.low == pytest.approx(math.expm1(0.06))
    assert slow.high == pytest.approx(math.expm1(0.10))
    assert slow.smallest_visible == pytest.approx(math.expm1(0.04))
    assert slow.note == "5 sessions beside 1234567aaaaa"
    fast = judged(now, *quiet(), confirmations=confirmed("improved", decided_by="cpu"))
    assert (fast["step_time"].verdict, fast["step_time"].fails) == ("improved", False)
    assert fast["step_time"].note.endswith("; by CPU time")


def test_confirmed_unchanged_is_taken_back_where_the_history_lies_beyond_the_margin() -> None:
    given = confirmed("unchanged", estimate=0.0)
    moved = judged(run_of("0011", 0.3, 0.3), *quiet(), confirmations=given)["step_time"]
    assert (moved.verdict, moved.fails) == ("inconclusive", False)
    assert moved.note.startswith(
        "5 sessions beside 1234567aaaaa; no change beside it, yet slower by 35.0 % than its history"
    )
    doubtful = judged(run_of("0011", 0.03, 0.03), *quiet(), confirmations=given)["step_time"]
    assert (doubtful.verdict, doubtful.note) == ("unchanged", "5 sessions beside 1234567aaaaa")
    still = judged(run_of("0011", 0.0, 0.0), *quiet(), confirmations=given)["step_time"]
    assert (still.verdict, still.note) == ("unchanged", "5 sessions beside 1234567aaaaa")


def test_confirmed_inconclusive_says_what_to_try() -> None:
    spent = "budget spent: about 9 s more would decide: try a larger --confirm-budget"
    given = confirmed("inconclusive", reason=spent)
    found = judged(run_of("0011", 0.3, 0.3), *quiet(), confirmations=given)["step_time"]
    assert (found.verdict, found.fails) == ("inconclusive", False)
    assert found.note == (
        f"5 sessions beside 1234567aaaaa; {spent}; sees changes from 4.1 %: try an idle machine"
    )


def test_the_same_commit_is_unchanged_unless_the_figures_lie_beyond_the_margin() -> None:
    given = reason("same commit")
    moved = judged(run_of("0011", 1.5, 1.5), *quiet(), confirmations=given)["step_time"]
    assert (moved.verdict, moved.unconfirmed, moved.fails) == ("inconclusive", False, False)
    assert moved.note.startswith("same commit, yet slower by 348.2 %: a file that git does not ")
    for value in (0.0, 0.03):
        still = judged(run_of("0011", value, value), *quiet(), confirmations=given)["step_time"]
        assert (still.verdict, still.note) == ("unchanged", "same commit")


@pytest.mark.parametrize(
    ("log_ratio", "verdict", "note"),
    [
        (0.0, "unchanged", "same code"),
        (0.03, "unchanged", "the machine moved, the code did not: same code"),
        (1.5, "inconclusive", "same code, same state, yet slower by 348.2 %: something that conv"),
        (-1.5, "inconclusive", "same code, same state, yet faster by 77.7 %: something that con"),
    ],
)
def test_the_same_code_is_unchanged_at_no_cost_unless_something_unseen_has_changed(
    log_ratio: float, verdict: str, note: str
) -> None:
    now = run_of("0011", log_ratio, log_ratio, code="c1", commit=None, dirty=True)
    found = reviewed(now, *quiet(code="c1"))
    assert LENET not in flagged(found)
    (step,) = [one for one in conclude(found) if (one.case, one.metric) == (LENET, "step_time")]
    assert (step.verdict, step.fails) == (verdict, False)
    assert step.note.startswith(note)


def test_no_figure_of_the_same_code_fails_a_run() -> None:
    def memory(name: str, peak: float, code: str) -> list[Record]:
        return [process(run=name, code=code, peak_device_memory_bytes=int(peak * MIB))]

    for code, verdict in (("c1", "inconclusive"), ("c2", "regressed")):
        found = judged(memory("0011", 300, code), memory("0010", 36, "c1"))["peak_device_memory"]
        assert (found.verdict, found.fails) == (verdict, code == "c2")


def test_one_process_of_other_code_is_not_the_same_code() -> None:
    now = [
        *run_of("0011", 0.3, code="c1"),
        replace(run_of("0011", 0.3, code="c2")[0], process=2, order=2, status="unsteady"),
    ]
    assert flagged(reviewed(now, *quiet(code="c1"))) == [LENET]
    assert flagged(reviewed(run_of("0011", 0.3), *quiet())) == [LENET]


def test_cpu_time_that_agrees_does_not_hide_wall_time_beyond_the_margin() -> None:
    one = {"threads": "1", "paired_log_ratio_cpu_se": 0.001, "code": "c1"}
    before = [
        run_of(f"{n:04d}", -0.005, 0.005, paired_log_ratio_cpu=0.0, **one) for n in range(1, 11)
    ]
    for wall, cpu in ((0.5, 0.0), (0.0, 0.5)):
        now = run_of("0011", wall, wall, paired_log_ratio_cpu=cpu, **one)
        step = next(
            found
            for found in conclude(reviewed(now, *before))
            if found.model == "lenet5" and found.metric == "step_time"
        )
        assert (step.verdict, step.change) == ("inconclusive", pytest.approx(math.expm1(0.5)))


def test_no_path_says_unchanged_of_an_interval_beyond_the_margin() -> None:
    """Every reason, decision and code, by history and live, over the whole range of changes."""
    given: list[dict[str, Confirmation] | None] = [
        None,
        *(reason(text) for text in ("same code", "same commit", "budget spent", "not judged: hot")),
        reason("run 0001 has no code to run again"),
        *(confirmed(verdict, 0.045, half=0.004) for verdict in ("unchanged", "inconclusive")),
        confirmed("unchanged", 0.0),
    ]
    seen = set()
    for confirmations in given:
        for code in (None, "c1"):
            for value in (-0.2, -0.1, -0.05, -0.03, 0.0, 0.03, 0.04, 0.05, 0.1, 0.2):
                now = run_of("0011", value, value, code=code)
                found = judged(now, *quiet(code=code), confirmations=confirmations)["step_time"]
                seen.add(found.verdict)
                if found.verdict == "unchanged":
                    low, high = found.low, found.high
                    assert low is not None
                    assert high is not None
                    assert math.log1p(low) <= LEAST_CHANGE
                    assert math.log1p(high) >= -LEAST_CHANGE
    assert "unchanged" in seen


@pytest.mark.parametrize("moved", [0.0, 0.3])
@pytest.mark.parametrize(
    "why",
    [
        "budget spent: about 9 s more would decide: try a larger --confirm-budget",
        "not judged: the card was slowed (hardware_thermal); compare again when that has ended",
        "interrupted",
    ],
)
def test_a_comparison_that_another_run_could_make_leaves_nothing_to_history(
    why: str, moved: float
) -> None:
    given = reason(why)
    found = judged(run_of("0011", moved, moved), *quiet(), confirmations=given)["step_time"]
    assert (found.verdict, found.unconfirmed, found.fails) == ("inconclusive", False, False)
    assert found.note == f"no live comparison: {why}"
    assert given[LENET].settled


def test_an_anchor_whose_code_cannot_be_run_is_named_and_never_unchanged() -> None:
    why = "the old code cannot be run: no module nets"
    given = {LENET: Confirmation(decision=None, anchor="1234567aaaaa", reason=why)}
    found = judged(run_of("0011", 0.0, 0.0), *quiet(), confirmations=given)["step_time"]
    assert (found.verdict, found.fails) == ("inconclusive", False)
    assert found.note == f"no live comparison with 1234567aaaaa: {why}"
    without = judged(run_of("0011", 0.0, 0.0), *quiet(), confirmations=reason("no repository"))
    assert without["step_time"].verdict == "unchanged"
    assert not given[LENET].settled


def test_a_size_that_was_never_known_to_fit_is_no_loss_where_it_is_out_of_memory() -> None:
    """As of a search for batch sizes, which ends where memory does."""
    full = row(status="out_of_memory", error="too much")
    nothing = History(cases={LENET: CaseHistory()}, absent=(), files=())
    (never,) = conclude(review([full], nothing))
    assert (never.verdict, never.fails) == ("inconclusive", False)
    assert never.note == "out_of_memory in process 1: too much"
    assert judged([full], *quiet(1))["step_time"].fails
    assert conclude(review([*run_of("0011", 0.0), full], nothing))[0].fails
    assert conclude(review([row(status="crashed", error="killed")], nothing))[0].fails


@pytest.mark.parametrize("why", ["no commit", "dirty tree"])
def test_without_the_anchors_code_history_convicts_unconfirmed(why: str) -> None:
    now = run_of("0011", 0.3, 0.3, 0.3, 0.3)
    found = judged(now, *quiet(), confirmations=reason(why))["step_time"]
    assert (found.verdict, found.unconfirmed, found.fails) == ("regressed", True, True)
    assert found.note == f"no live comparison: {why}"


def test_a_live_comparison_needs_no_history() -> None:
    (now, history) = run_of("0011", 0.3), History(cases={LENET: CaseHistory()}, absent=(), files=())
    found = conclude(review(now, history), confirmed("regressed"))[0]
    assert (found.verdict, found.baseline_runs) == ("regressed", ())
    (same,) = conclude(review(now, history), reason("same commit"))
    assert (same.verdict, same.note) == ("unchanged", "same commit")
    (spent,) = conclude(review(now, history), reason("budget spent"))
    assert (spent.verdict, spent.note) == ("inconclusive", "no live comparison: budget spent")


# The anchor's code


def anchored(run: Sequence[Record], **changes: Any) -> tuple[History, Anchor]:
    """A run of one case as history, with the anchor that it is."""
    fields = {"run": "0001", "path": Path("0001.csv"), "commit": A_COMMIT, "dirty": False}
    anchor = Anchor(**{**fields, **changes})
    return History(
        cases={LENET: CaseHistory(anchor=anchor, runs=(tuple(run),))}, absent=(), files=()
    ), anchor


@pytest.mark.parametrize("log_ratio", [0.02, 0.3])
@pytest.mark.parametrize("share", [0.05, 0.9, None])
def test_an_anchor_without_code_says_so_first_and_offers_nothing_that_is_live(
    log_ratio: float, share: float | None
) -> None:
    now = run_of("0002", log_ratio, log_ratio, other_cpu_share=share)
    for changes in ({"dirty": True}, {"commit": None, "dirty": None}):
        history, anchor = anchored(run_of("0001", 0.0, 0.0), **changes)
        found = review(now, history)
        for given in (None, reason(anchor.lost)):
            step = conclude(found, given)[0]
            assert step.verdict == "inconclusive"
            assert step.note.removeprefix("no live comparison: ").startswith(
                "run 0001 has no code to run again: "
            )
            assert "measure the old code anew and `convmark accept` that run; " in step.note
            assert "convmark ab" not in step.note
            assert "--benchmark-compare" not in step.note


@pytest.mark.parametrize("share", [0.9, None])
def test_an_anchor_with_code_is_offered_live_where_history_cannot_tell(share: float | None) -> None:
    history, _ = anchored(run_of("0001", 0.0, 0.0))
    found = review(run_of("0002", 0.02, 0.02, other_cpu_share=share), history)
    assert LIVE in conclude(found)[0].note
    tried = reason("the old code cannot be run: no module nets")
    note = conclude(found, tried)[0].note
    assert note.startswith("no live comparison: the old code cannot be run: no module nets; ")
    assert LIVE not in note


def test_one_thread_is_offered_where_both_sides_can_have_it() -> None:
    history, _ = anchored(run_of("0001", 0.0, 0.0))
    found = review(run_of("0002", 0.3, 0.3), history)
    note = conclude(found, confirmed("inconclusive"))[0].note
    assert note.endswith("try `convmark ab git:1234567aaaaa . --threads 1` or an idle machine")


def test_what_the_models_code_sets_is_inconclusive_until_it_is_compared_live() -> None:
    pair = "model:eager was the default, is True, as the model's own code sets it"
    plain, anchor = anchored([])
    lost = replace(anchor, dirty=True)
    now = run_of("0002", 1.5, 1.5)
    for one, begins in (
        (anchor, "`pytest bench --benchmark-compare` compares live; its history cannot judge: "),
        (lost, f"{lost.lost}; its history cannot judge: "),
    ):
        case = CaseHistory(anchor=one, difference=pair)
        found = review(now, replace(plain, cases={LENET: case}))
        assert flagged(found) == [LENET]
        step = conclude(found)[0]
        assert (step.verdict, step.fails, step.note) == ("inconclusive", False, begins + pair)
        assert conclude(found, confirmed("regressed"))[0].fails
        (failed,) = conclude(found, reason("budget spent"))
        assert failed.note == f"no live comparison: budget spent; {pair}"


# What follows the step time


def test_throughput_follows_with_its_direction_reversed_and_does_not_fail_twice() -> None:
    found = judged(run_of("0011", 0.3, 0.3), *quiet(), confirmations=confirmed("regressed"))
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
    found = judged(now, *runs)
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
    anchor = Anchor(run="0001", path=Path("0001.csv"), commit=A_COMMIT, dirty=False)
    history = History(cases={LENET: CaseHistory(anchor=anchor, runs=runs)}, absent=(), files=())
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
    (found,) = conclude(review(now, History(cases={LENET: CaseHistory()}, absent=(), files=())))
    assert (found.verdict, found.fails, found.baseline, found.value) == ("new", False, None, 0.010)
    assert found.note == "no earlier run of it: later runs are judged against this one"


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


def test_rows_without_rounds_are_inconclusive() -> None:
    now = [process(run="0002", paired_log_ratio=None, paired_log_ratio_se=None)]
    found = judged(now, run_of("0001", 0.0))
    assert found["step_time"].verdict == "inconclusive"
    assert "no paired rounds" in found["step_time"].note
    assert found["parameters"].verdict == "unchanged"


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
    assert found.note == "1 earlier run tells no spread"
    found = machine(0.02, 0.010, 0.011)
    assert (found.verdict, found.low, found.high) == ("inconclusive", None, None)
    assert found.note == "2 earlier runs tell no spread"
    assert machine(0.02, 0.010, 0.011, 0.010).low is not None


def test_unlike_loads_are_said_beside_the_machine() -> None:
    found = machine(0.0125, *[0.010] * 10, other_cpu_share=0.5)
    assert found.note.endswith(
        "; the loads are unlike: others took 5% of the CPU time then, 50% now"
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
        Confirmation(decision=None)
    with pytest.raises(MeasurementError, match="a decision with a verdict"):
        Confirmation(decision=decision(None))
