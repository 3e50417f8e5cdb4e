"""The sessions that are kept of live comparisons, and what a later run takes along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from histories import A_COMMIT, run_of
from test_live import Compare, Earlier, compare, of_graphs  # noqa: F401 - a fixture
from test_verdict import LENET, confirmed
from test_verdicts_file import judgement

from convmark.compare.files import keep_verdicts
from convmark.compare.judgement import LiveComparison, LiveSession
from convmark.compare.sessions_file import (
    TABLE,
    CarriedOver,
    EarlierSessions,
    conditions_of,
    keep_sessions,
    left_undecided,
    live_levels,
)

ROW = run_of("0001", 0.0, code="c2")[0]
CONDITIONS = {LENET: conditions_of(ROW)}


def sessions(*values: float, apart: bool = False) -> tuple[LiveSession, ...]:
    return tuple(LiveSession(wall=value, cpu=None, seconds=1.5, apart=apart) for value in values)


def keep(
    run: Path,
    kept: Sequence[LiveSession],
    verdict: str = "undecided",
    codes: tuple[str, str] = ("c1", "c2"),
    **columns: Any,
) -> Path:
    """Keep a run's sessions against where its file would be."""
    given: dict[str, LiveComparison] = confirmed(verdict, kept=tuple(kept), codes=codes)
    keep_sessions(run, given.items(), {LENET: replace(ROW, code=codes[1], **columns)})
    return run


def earlier(*runs: Path, past: Sequence[str] = (A_COMMIT,)) -> EarlierSessions:
    return EarlierSessions(runs, CONDITIONS, lambda case, commit: commit in past)


def test_conditions_of_a_row_are_those_that_it_had_before_there_were_runtimes() -> None:
    """Other ones would pass over every session that is kept."""
    assert CONDITIONS[LENET] == "f64be64b6d777537"
    assert conditions_of(replace(ROW, runtime="keras")) == CONDITIONS[LENET]
    assert conditions_of(replace(ROW, runtime="litert")) != CONDITIONS[LENET]


def test_an_undecided_case_takes_its_sessions_along_from_run_to_run(tmp_path: Path) -> None:
    first = keep(tmp_path / "0001.csv", sessions(0.01, 0.02))
    found = earlier(first).of(LENET, "c1", "c2", apart=False)
    assert [(one.wall, one.cpu, one.seconds, one.run) for one in found.sessions] == [
        (0.01, None, 1.5, "0001"),
        (0.02, None, 1.5, "0001"),
    ]
    second = keep(tmp_path / "0002.csv", [*found.sessions, *sessions(0.03)])
    again = earlier(first, second)
    kept = again.of(LENET, "c1", "c2", apart=False).sessions
    assert [(one.wall, one.run) for one in kept] == [
        (0.01, "0001"),
        (0.02, "0001"),
        (0.03, "0002"),
    ]


def test_what_all_steps_of_earlier_sessions_took_comes_along(tmp_path: Path) -> None:
    """One session more must not hide that some steps do more work."""
    ((usual, slow), found) = (sessions(0.0, 0.0), ((0.2, 0.1), None))
    both = [replace(usual, all_steps=found[0]), slow]
    first = keep(tmp_path / "0001.csv", both)
    taken = earlier(first).of(LENET, "c1", "c2", apart=False).sessions
    assert tuple(one.all_steps for one in taken) == found
    path, (header, *rows) = TABLE.path(first), TABLE.path(first).read_text().split("\n")
    path.write_text("\n".join(row.rsplit(",", 2)[0] for row in (header, *rows) if row) + "\n")
    taken = earlier(first).of(LENET, "c1", "c2", apart=False).sessions
    assert [one.all_steps for one in taken] == [None, None]


def test_a_run_that_goes_on_takes_its_own_sessions_along_as_its_own(tmp_path: Path) -> None:
    first = keep(tmp_path / "0001.csv", sessions(0.01))
    both = [*earlier(first).of(LENET, "c1", "c2", apart=False).sessions, *sessions(0.02)]
    second = keep(tmp_path / "0002.csv", both)
    goes_on = EarlierSessions([first, second], CONDITIONS, own=second)
    found = goes_on.of(LENET, "c1", "c2", apart=False).sessions
    assert [(one.wall, one.run) for one in found] == [(0.01, "0001"), (0.02, "")]


@pytest.mark.parametrize(
    "question",
    [
        {"old": "c0"},
        {"new": "c3"},
        {"apart": True},
        {"case": "vgg16-train-cpu-b32-float32"},
    ],
)
def test_nothing_is_taken_along_into_another_comparison(
    question: dict[str, Any], tmp_path: Path
) -> None:
    run = keep(tmp_path / "0001.csv", sessions(0.01), commit=None)
    asked = {"case": LENET, "old": "c1", "new": "c2", "apart": False, **question}
    assert earlier(run).of(**asked).sessions == ()


@pytest.mark.parametrize("changes", [{"keras": "3.9.0"}, {"measurement_version": "def"}])
def test_nothing_is_taken_along_under_other_conditions(
    tmp_path: Path, changes: dict[str, str]
) -> None:
    run = keep(tmp_path / "0001.csv", sessions(0.01), **changes)
    assert earlier(run).of(LENET, "c1", "c2", apart=False).sessions == ()


@pytest.mark.parametrize(
    ("walls", "taken"),
    [((0.118, -0.016), 1), ((0.08,), 1), ((0.07, 0.07), 2)],
)
def test_sessions_of_an_earlier_run_are_of_the_median_that_one_graph_is_held_to(
    compare: Compare,  # noqa: F811 - the fixture
    walls: tuple[float, ...],
    taken: int,
) -> None:
    sessions = tuple(LiveSession(wall=one, cpu=None, seconds=2.0) for one in walls)
    given = Earlier(CarriedOver(sessions=sessions))
    (found,), duets = compare({"lenet5": of_graphs("g1", "g1")}, earlier=given)
    assert (found.same, len(duets.plans["lenet5"])) == ("same graph", taken)


def test_what_was_decided_is_measured_anew(tmp_path: Path) -> None:
    first = keep(tmp_path / "0001.csv", sessions(0.01))
    second = keep(tmp_path / "0002.csv", sessions(0.2, 0.2, 0.2), "regressed")
    found = earlier(first, second)
    assert found.of(LENET, "c1", "c2", apart=False).sessions == ()


def test_what_was_decided_is_taken_along_once_its_change_is_accepted(tmp_path: Path) -> None:
    run = keep(tmp_path / "0001.csv", sessions(0.2, 0.21, 0.2), "regressed")
    accepted = EarlierSessions([run], CONDITIONS, is_accepted=[LENET].count)
    found = accepted.of(LENET, "c1", "c2", apart=False)
    assert [(one.wall, one.run) for one in found.sessions] == [
        (value, "0001") for value in (0.2, 0.21, 0.2)
    ]


@pytest.mark.parametrize(
    ("verdicts", "left"),
    [
        ([("inconclusive", "too few sessions with c1: budget spent: about 9 s more")], [LENET]),
        ([("inconclusive", "no live comparison with c1: interrupted")], [LENET]),
        ([("inconclusive", "no live comparison with c1: the old code cannot be run: x")], []),
        ([("inconclusive", "budget spent"), ("unchanged", "2 sessions against c1")], []),
        ([("inconclusive", "budget spent"), ("inconclusive", "--compare-budget 0")], [LENET]),
        ([("inconclusive", "budget spent"), ("new", "no earlier run of this case")], [LENET]),
    ],
)
def test_a_case_that_was_left_undecided_is_known_by_its_last_live_verdict(
    tmp_path: Path, verdicts: list[tuple[str, str]], left: list[str]
) -> None:
    """That it has had no session is no reason to pass it over once more."""
    runs = [tmp_path / f"{number:04}.csv" for number in range(1, len(verdicts) + 1)]
    for run, (verdict, note) in zip(runs, verdicts, strict=True):
        told = judgement(run=run.stem, case=LENET, verdict=verdict, note=note, fails=False)
        keep_verdicts(run, [told])
    assert sorted(left_undecided(runs, [LENET])) == left
    assert not left_undecided(runs, [LENET], of_accepted=True)


def test_an_improvement_of_an_earlier_commit_raises_the_bar(tmp_path: Path) -> None:
    faster = keep(tmp_path / "0001.csv", sessions(-0.101, -0.1, -0.099), "improved", ("c1", "c5"))
    bar = earlier(faster).of(LENET, "c1", "c2", apart=False).bar
    assert -0.1 < bar < -0.08
    assert earlier(faster, past=()).of(LENET, "c1", "c2", apart=False).bar == 0.0
    dirty = keep(
        tmp_path / "0002.csv", sessions(-0.101, -0.1, -0.099), "improved", ("c1", "c5"), commit=None
    )
    assert earlier(dirty).of(LENET, "c1", "c2", apart=False).bar == 0.0


def test_a_run_that_went_on_has_what_its_last_session_has_decided(tmp_path: Path) -> None:
    run = keep(tmp_path / "0001.csv", sessions(0.01))
    keep(run, sessions(0.2, 0.2, 0.2), "regressed")
    assert [one.wall for one in TABLE.of(run)] == [0.2, 0.2, 0.2]


@pytest.mark.parametrize("cell", ["nan", "", "x", "1e999"])
def test_a_damaged_file_gives_nothing(cell: str, tmp_path: Path) -> None:
    run = keep(tmp_path / "0001.csv", sessions(0.0125))
    path = TABLE.path(run)
    path.write_text(path.read_text().replace("0.0125", cell))
    assert earlier(run).of(LENET, "c1", "c2", apart=False).sessions == ()


def test_a_run_s_level_is_of_its_own_sessions_alone(tmp_path: Path) -> None:
    first = keep(tmp_path / "0001.csv", sessions(0.01, 0.03))
    along = earlier(first).of(LENET, "c1", "c2", apart=False).sessions
    second = keep(tmp_path / "0002.csv", [*along, *sessions(0.05, 0.07)])
    assert live_levels(first)[LENET].sessions.estimate == pytest.approx(0.02)
    level = live_levels(second)[LENET]
    found = level.sessions
    assert (found.estimate, found.variance) == (pytest.approx(0.06), pytest.approx(0.0002))
    assert level.kind == (CONDITIONS[LENET], False)
    assert (level.old_code, level.new_code) == ("c1", "c2")
    assert live_levels(keep(tmp_path / "0003.csv", sessions(0.05))) == {}


def test_sessions_with_an_accepted_commit_are_taken_along_and_are_no_level(tmp_path: Path) -> None:
    """A level is against the anchor, whose sessions come first."""
    run = tmp_path / "0001.csv"
    told = [
        *confirmed("regressed", kept=sessions(0.3, 0.32), codes=("c1", "c3")).items(),
        *confirmed("undecided", kept=sessions(0.0, 0.02), codes=("c2", "c3")).items(),
    ]
    keep_sessions(run, told, {LENET: replace(ROW, code="c3")})
    assert live_levels(run)[LENET].sessions.estimate == pytest.approx(0.31)
    assert earlier(run).of(LENET, "c1", "c3", apart=False).sessions == ()
    assert len(earlier(run).of(LENET, "c2", "c3", apart=False).sessions) == 2
