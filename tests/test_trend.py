"""A case over all runs: series, levels, and the commands that compare a change live."""

from __future__ import annotations

import dataclasses
import random
import shlex
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest
from histories import MACHINE, comparability, keep, process, run_of

from convmark.cli import main
from convmark.cli.parsers import parsers
from convmark.compare.rule.statistics import Summary
from convmark.compare.sessions_file import LiveLevel
from convmark.compare.trend import Commits, Point, live_comparison, trend
from convmark.report.tables.history import trend_text
from convmark.results.store import Store

LENET = "lenet5-train-cpu-b32-float32"
CASE = (
    "--models lenet5 --tasks train --devices cpu --batch-sizes 32 --precisions float32 --jit off "
    "--threads default --cpus default --numa default --backend tensorflow --runtime keras "
    "--input-shape default "
    "--optimizer default "
    "--learning-rate default --loss default"
)


def points(levels: Sequence[float], **changes: Any) -> list[Point]:
    """Return a run for each level, each of a commit of its own, with a noise of 0.5 %."""
    rng = random.Random(3)
    return [
        Point(
            run=f"{number:04d}",
            commit=f"{number:012x}" + "0" * 28,
            log_ratio=level + rng.gauss(0, 0.005),
            variance=0.005**2,
            processes=3,
            load=0.05,
            step_time_p50_s=0.010 * (1 + level),
            conditions=comparability(process(**changes)),
        )
        for number, level in enumerate(levels, 1)
    ]


class Line(Commits):
    """Stands for a repository with one line of commits, their numbers as hashes."""

    def __init__(self, known: int = 100) -> None:
        self._known = known

    def parent(self, commit: str) -> str:
        return f"{int(commit[:12], 16) - 1:012x}" + "0" * 28

    def knows(self, commit: str) -> bool:
        return int(commit[:12], 16) <= self._known

    def steps(self, old: str, new: str) -> int | None:
        return int(new[:12], 16) - int(old[:12], 16)


def compared(found: list[Point], commits: Commits | None = None) -> list[str]:
    """Return the lines of the second level."""
    return live_comparison(trend(found).stretches[1], commits or Line())


def sha(number: int) -> str:
    return f"git:{number:012x}"


def test_a_step_is_compared_with_its_parent() -> None:
    found = points([0.0] * 10 + [0.06] * 6)
    stretches = trend(found).stretches
    assert [len(one.points) for one in stretches] == [10, 6]
    assert stretches[1].step_time_p50_s == pytest.approx(0.0106)
    assert compared(found) == [f"convmark ab {sha(10)} {sha(11)} {CASE}"]


def test_commits_that_were_not_measured_are_counted_and_narrowed_down() -> None:
    found = points([0.0] * 10 + [0.06] * 6)
    late = [
        dataclasses.replace(one, commit=f"{int(one.commit[:12], 16) + 7:012x}") for one in found
    ]
    remark, own, narrow = compared(found[:10] + late[10:])
    assert remark.startswith("7 commits before it not measured")
    assert own == f"convmark ab {sha(17)} {sha(18)} {CASE}"
    assert narrow == f"convmark bisect --good {sha(10)} --bad {sha(18)} {CASE}"


def test_a_creep_is_named_and_compared_as_a_stretch() -> None:
    found = points([0.0] * 8 + [0.01 * n for n in range(1, 11)] + [0.10] * 6)
    _, stretch, _ = trend(found).stretches
    assert stretch.level.creep
    first, last = int(stretch.points[0].run), int(stretch.points[-1].run)
    assert (abs(first - 9) <= 2, abs(last - 18) <= 2) == (True, True)
    assert compared(found) == [f"convmark ab {sha(first - 1)} {sha(last)} {CASE}"]


def seen(level: float, noise: float = 0.004) -> Summary:
    """Return three sessions whose mean has this noise."""
    return Summary(estimate=level, variance=3 * noise**2, freedom=2, count=3)


def gated(levels: Sequence[float], noise: float = 0.004) -> list[Point]:
    """Return runs of one process, of which each but the first ran beside the first one's code."""
    rng = random.Random(5)
    found = [
        dataclasses.replace(one, log_ratio=level + rng.gauss(0, 0.02), processes=1, variance=None)
        for one, level in zip(points(levels), levels, strict=True)
    ]
    live = [
        LiveLevel(
            kind=("c", False),
            old_code="old",
            new_code=one.run,
            anchor=found[0].commit[:12],
            sessions=seen(level - levels[0] + rng.gauss(0, noise), noise),
        )
        for one, level in zip(found, levels, strict=True)
    ]
    beside = zip(found[1:], live[1:], strict=True)
    return [found[0], *(dataclasses.replace(one, live=level) for one, level in beside)]


def test_a_creep_that_runs_of_one_process_hide_is_seen_by_their_live_sessions() -> None:
    creeping = gated([0.01 * number for number in range(6)])
    without = [dataclasses.replace(one, live=None) for one in creeping]
    assert len(trend(without).stretches) == 1
    _, creep = trend(creeping).stretches
    assert creep.level.creep
    assert 0.05 in creep.level.interval
    told = trend_text(trend(creeping), Line())
    assert f"creep, seen by the live sessions beside {creeping[0].commit[:12]}:" in told
    assert f"convmark ab {sha(1)} {sha(6)} " in " ".join(told.split())


def test_runs_without_live_sessions_stay_in_the_levels_of_a_creep_that_was_seen_live() -> None:
    runs = gated([0.0] * 20 + [0.007 * number for number in range(7)])
    anchor = runs[19].commit[:12]
    for place, one in enumerate(runs):
        live = dataclasses.replace(one.live, anchor=anchor) if one.live and place > 20 else None
        runs[place] = dataclasses.replace(one, live=live)
    found = trend(runs).stretches
    assert [one.level.creep for one in found] == [False, True, False]
    assert [point for one in found for point in one.points] == runs
    assert found[1].points[0] == runs[21]


def test_a_creep_is_named_though_a_load_moved_the_runs_and_other_sessions_are_more() -> None:
    """A session has both codes under one load, and twelve sessions tell more than three."""
    runs = gated([0.0, 0.010, 0.016, 0.018, 0.024, 0.029, 0.039], noise=0.0)
    runs = [
        dataclasses.replace(one, load=0.05 + 0.5 * (place in (0, 3)))
        for place, one in enumerate(runs)
    ]
    for place, one in enumerate(runs[1:], 1):
        live = dataclasses.replace(one.live, sessions=seen(one.live.sessions.estimate, 0.006))  # type: ignore[type-var, union-attr]
        runs[place] = dataclasses.replace(one, live=live)
    found = trend(runs)
    assert [one.level.creep for one in found.stretches] == [False, True]
    assert [one.run for one in found.stretches[1].points] == [one.run for one in runs[1:]]
    assert found.left_out == []


def test_gates_beside_a_main_branch_that_moves_are_one_chain() -> None:
    creeping = gated([0.01] * 8)
    for place, one in enumerate(creeping[1:], 1):
        last = creeping[place - 1]
        live = dataclasses.replace(
            one.live,  # type: ignore[type-var]
            old_code=last.run,
            anchor=last.commit[:12],
            sessions=seen(0.01),
        )
        creeping[place] = dataclasses.replace(one, live=live)
    _, creep = trend(creeping).stretches
    assert creep.level.creep
    assert 0.07 in creep.level.interval
    assert creep.beside == "earlier commits"


def without_live(runs: Sequence[Point], places: Collection[int]) -> list[Point]:
    return [
        dataclasses.replace(one, live=None) if place in places else one
        for place, one in enumerate(runs)
    ]


def test_a_change_after_the_last_gate_is_named_too() -> None:
    runs = gated([0.0] * 5 + [0.04] * 11 + [0.3] * 6)
    runs = without_live(runs, range(10, 22))
    busy = runs[20] = dataclasses.replace(runs[20], load=0.6)
    found = trend(runs)
    assert [len(one.points) for one in found.stretches] == [5, 11, 5]
    assert [bool(one.beside) for one in found.stretches] == [False, True, False]
    assert found.left_out == [busy]
    seen_live, later = (one.level.interval for one in found.stretches[1:])
    assert 0.04 in seen_live
    assert later.low > 0.2


def test_a_step_between_two_gates_is_looked_for_from_the_one_to_the_other() -> None:
    """The run between them was measured with the new code already."""
    runs = without_live(gated([0.0] * 7 + [0.05] * 8), range(1, 15, 2))
    step = trend(runs).stretches[1]
    assert (step.points[0].run, step.before) == ("0009", runs[6])
    remark, _, narrow = live_comparison(step, Line())
    assert remark.startswith("1 commit before it not measured live; ")
    assert narrow == f"convmark bisect --good {sha(7)} --bad {sha(9)} {CASE}"


def test_where_gates_have_seen_a_stretch_the_runs_own_figures_name_no_commit_in_it() -> None:
    levels = [0.0] * 8 + [0.01 * number for number in range(1, 9)]
    jumped = [0.0] * 12 + [0.08] * 4
    runs = [
        dataclasses.replace(one, live=gate.live)
        for one, gate in zip(points(jumped), gated(levels), strict=True)
    ]
    alone = trend([dataclasses.replace(one, live=None) for one in runs]).stretches
    assert [one.level.creep for one in alone] == [False, False]
    assert [one.level.creep for one in trend(runs).stretches[:2]] == [False, True]
    earlier = points([0.2] * 8 + [0.0] * 4)
    found = trend([*earlier, *runs]).stretches
    assert [one.level.creep for one in found[:3]] == [False, False, True]
    assert len(found[0].points) == 8
    stairs = points([0.0] * 4 + [0.2] * 4 + [0.5] * 8)
    twice = [dataclasses.replace(b, live=a.live) for a, b in zip(runs, stairs, strict=True)]
    both = trend(twice).stretches  # the sessions know of one change alone
    assert [(one.level.creep, one.beside) for one in both] == [(False, "")] * 3


def test_live_sessions_of_flat_runs_and_of_several_anchors_name_no_creep() -> None:
    assert len(trend(gated([0.0] * 12)).stretches) == 1
    creeping = gated([0.01 * number for number in range(6)])
    other = dataclasses.replace(creeping[2].live, kind=("c", True))  # type: ignore[type-var]
    creeping[2] = dataclasses.replace(creeping[2], live=other)
    assert len(trend(creeping).stretches) == 1  # five runs are too few


@pytest.mark.parametrize(
    ("commits", "changes", "said"),
    [
        ({10: "", 11: "b" * 40}, {}, "run 0011 ran files that no commit has"),
        ({10: "c" * 40, 11: "c" * 40}, {}, "both sides ran commit cccccccccccc: the machine"),
        ({}, {"replicas": 2}, "several replicas are not compared live"),
    ],
)
def test_what_cannot_be_compared_says_why(
    commits: dict[int, str], changes: dict[str, Any], said: str
) -> None:
    found = points([0.0] * 10 + [0.06] * 6, **changes)
    if commits:
        found[9] = dataclasses.replace(found[9], commit=commits[11])
        found[10] = dataclasses.replace(found[10], commit=commits[10])
    (line,) = compared(found)
    assert said in line


def test_where_the_repository_is_not_known_it_is_said_above_the_command() -> None:
    remark, command = compared(points([0.0] * 10 + [0.06] * 6), Line(known=10))
    assert remark == f"git knows no commit {sha(11)[4:]} here; in the models' repository:"
    assert command == f"convmark ab {sha(10)} {sha(11)} {CASE}"


def test_a_command_chooses_the_case_by_all_that_is_its_own() -> None:
    own = {"model": "my nets:net", "threads": "1", "jit": "on", "asked_shape": "8x8x3"}
    own |= {"recipe": "optimizer=adam learning_rate=0.1", "precision": "mixed_bfloat16"}
    (command,) = compared(points([0.0] * 10 + [0.06] * 6, **own))
    assert command.split(" ", 4)[4] == (
        "--models 'my nets:net' --tasks train --devices cpu --batch-sizes 32 --precisions "
        "mixed_bfloat16 --jit on --threads 1 --cpus default --numa default --backend tensorflow "
        "--runtime keras "
        "--input-shape 8x8x3 --optimizer adam --learning-rate 0.1 --loss default"
    )


def test_other_conditions_are_a_series_of_their_own_wherever_they_stand() -> None:
    old, new = points([0.0] * 8), points([0.3] * 8, tensorflow="2.22.0")
    mixed = [one for pair in zip(old, new, strict=True) for one in pair]
    first, second = trend(mixed).stretches
    assert [one.run for one in first.points] == [one.run for one in old]
    assert (second.level.change, second.before) == (None, None)
    assert second.conditions.startswith("tensorflow was 2.21.0, is 2.22.0")
    assert "from run 0001, a series of its own: tensorflow was" in trend_text(trend(mixed), Line())


def test_every_command_of_a_change_is_one_of_the_command_line() -> None:
    step = points([0.0] * 10 + [0.06] * 6)
    later = [
        dataclasses.replace(one, commit=f"{int(one.run) + 5:012x}{'0' * 28}") for one in step[10:]
    ]
    commands = [shlex.split(one) for one in [*compared(step), *compared([*step[:10], *later])]]
    found = [words for words in commands if words[0] == "convmark"]
    assert [words[1] for words in found] == ["ab", "ab", "bisect"]
    for words in found:
        parsers()[0].parse_args(words[1:])


def test_the_commands_of_a_change_are_as_the_user_pastes_them() -> None:
    told = trend_text(trend(points([0.0] * 10 + [0.06] * 6)), Line(), lambda one: f"venv/cm {one}")
    assert f"\n  venv/cm ab {sha(10)} {sha(11)} " in told
    assert "convmark" not in told


def test_at_80_columns_sentences_are_wrapped_and_a_command_stays_on_its_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    mixed = points([0.0] * 8) + points([0.3] * 8, tensorflow="2.22.0", os="x " * 60)
    *_, said, ends, command = trend_text(trend(mixed), Line()).splitlines()
    assert f"{said} {ends}" == (
        "from run 0001, a series of its own: tensorflow was 2.21.0, is 2.22.0, compared live by:"
    )
    assert command == (
        "  convmark ab tensorflow==2.21.0 tensorflow==2.22.0 --models lenet5 --tasks train "
        "--batch-sizes 32"
    )
    other = trend(points([0.0] * 8) + points([0.3] * 8, os="x " * 60))
    assert max(map(len, trend_text(other, Line()).splitlines())) <= 80


def test_a_busy_stretch_is_no_step_and_its_runs_are_named() -> None:
    found = points([0.0] * 10 + [0.2] * 3 + [0.0] * 4)
    busy = [dataclasses.replace(one, load=0.6) for one in found[10:13]]
    told = trend(found[:10] + busy + found[13:])
    assert len(told.stretches) == 1
    assert trend_text(told, Line()) == (
        "no change can be shown with 14 runs\n\n"
        "left out, under another load (60 % of the CPUs' time): runs 0011, 0012, 0013"
    )


def test_a_model_of_other_sizes_and_another_time_budget_begin_a_series_of_their_own() -> None:
    small, wide = ({"parameters": one, "flops_per_sample": 10.0 * one} for one in (38_810, 310_410))
    model = "parameters 38,810 -> 310,410, FLOPs per sample 388,100 -> 3,104,100"

    def told(*facts: dict[str, Any]) -> list[tuple[str, str]]:
        pairs = zip(points([0.0] * len(facts)), facts, strict=True)
        found = trend([dataclasses.replace(point, **own) for point, own in pairs])
        return [(" ".join(p.run for p in one.points), one.conditions) for one in found.stretches]

    assert told(small, small, wide, wide, small) == [
        ("0001 0002 0005", ""),
        ("0003 0004", f"another model than run 0002: {model}"),
    ]
    assert told(small, {"parameters": 38_810}, {}, wide, {}) == [
        ("0001 0002 0003 0005", ""),  # what is not known is no difference
        ("0004", "another model than run 0002: parameters 38,810 -> 310,410"),
    ]
    quick = {"time_budget_s": 0.1}
    assert told({"time_budget_s": 0.6}, quick, {**small, **quick}, {**wide, **quick}) == [
        ("0001", ""),
        ("0002 0003", "time budget was 0.6 s, is 0.1 s"),
        ("0004", f"another model than run 0003: {model}"),
    ]
    other = {**wide, "conditions": comparability(process(threads="1"))}
    ((_, _), (_, conditions)) = told(small, other)
    assert conditions.startswith("threads was default, is 1")


def test_of_two_runs_of_which_one_was_under_other_load_the_other_is_kept() -> None:
    first, second = points([0.0, 0.1])
    busy = dataclasses.replace(second, load=0.5)
    for told in (trend([first, busy]), trend([busy, first])):
        assert ([one.points for one in told.stretches], told.left_out) == ([[first]], [busy])
    unlike = dataclasses.replace(busy, conditions=comparability(process(threads="1")))
    assert len(trend([first, busy, unlike]).stretches) == 2


def test_a_repository_answers_for_parents_and_distances(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        name = ("-c", "user.name=a", "-c", "user.email=a@b")
        done = subprocess.run(
            ["git", "-C", tmp_path, *name, *words], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init", "-q")
    shas = []
    for number in range(3):
        git("commit", "-q", "--allow-empty", "-m", str(number))
        shas.append(git("rev-parse", "HEAD"))
    commits = Commits(tmp_path)
    assert commits.parent(shas[2]) == shas[1]
    assert commits.parent(shas[0]) == ""
    assert (commits.steps(shas[0], shas[2]), commits.steps(shas[2], shas[0])) == (2, None)
    assert (commits.knows(shas[0]), commits.knows("a" * 40)) == (True, False)


def test_history_has_the_levels_below_the_runs_within_80_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVMARK_CACHE", str(tmp_path / "cache"))
    for point in points([0.0] * 10 + [0.06] * 6):
        values = [point.log_ratio - 0.002, point.log_ratio + 0.002]
        keep(Store(Path("results")), run_of(point.run, *values, commit=point.commit))
    assert main(["history", LENET, "--machine", MACHINE]) == 0
    _, table, told, step = capsys.readouterr().out.split("\n\n")
    assert told.startswith("A change is of the ratio to the reference network")
    head, _, before, after = table.splitlines()
    assert max(map(len, table.splitlines())) <= 80
    assert head.split() == ["from", "to", "commit", "to", "n", "p50", "change"]
    assert before.split()[:5] == ["0001", "0010", "00000000", "00000000", "10"]
    assert (after.split()[0], after.split()[7][:3]) == ("0011", "+6.")
    assert step.splitlines()[0] == "run 0011, step:"
    assert f"convmark ab {sha(10)} {sha(11)} {CASE}" in step
