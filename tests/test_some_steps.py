"""Work that is done in a few steps of many, which the medians of a live comparison pass over."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace

import pytest
from test_gate import decision
from test_live import Compare, compare, of_graphs, session  # noqa: F401 - a fixture
from test_turns import Code, Machine, answer

from convmark.compare.judgement import SAME_GRAPH, LiveComparison, LiveSession
from convmark.compare.live.case_result import CaseResult
from convmark.compare.live.session import Session, session_of
from convmark.compare.rule.decision import USUAL, slower_by_all_steps
from convmark.compare.step_time import step_time
from convmark.worker.turns import take_rounds


@pytest.mark.parametrize("steps", [(1, 0), (3, 3), (3, 5)])
def test_a_session_tells_the_time_of_all_steps_beside_that_of_usual_ones(
    steps: tuple[int, int],
) -> None:
    """One step of eight takes nine times as long, be it one that is timed or a dropped one."""
    machine = Machine()
    every_eighth = itertools.islice(itertools.cycle([0.009] + [0.001] * 7), 5000)
    codes = {"old": Code(machine, "old", 0.001), "new": Code(machine, "new", *every_eighth)}
    turns = take_rounds(codes, steps, 400.0, random.Random(1), clock=lambda: machine.now_s)
    found = session_of(answer({"event": "turns", "build": 0, **turns.fields()}))
    assert found.wall is not None
    assert found.wall.value == pytest.approx(0.0)
    assert found.all_steps == pytest.approx([math.log(2)] * 2, abs=0.03)
    assert (
        session_of(answer({"event": "turns", **replace(turns, whole={}).fields()})).all_steps
        is None
    )


@pytest.mark.parametrize(
    ("sessions", "found"),
    [
        ([(0.20, 0.20)], 0.0),
        ([(0.20, 0.20), (0.22, 0.18)], 0.21),
        ([(0.20, 0.00), (0.20, 0.00)], 0.0),  # other programs have held up single steps
        ([(0.20, 0.20), (0.60, 0.20)], 0.0),  # noise
        ([(0.02, 0.02)] * 9, 0.0),  # within the margin
        ([(-0.20, -0.20)] * 3, 0.0),
    ],
)
def test_all_steps_are_slower_where_both_clocks_of_some_sessions_say_so(
    sessions: list[tuple[float, float]], found: float
) -> None:
    assert slower_by_all_steps(sessions) == pytest.approx(found)


def test_a_case_of_which_some_steps_became_slower_is_not_called_unchanged(
    compare: Compare,  # noqa: F811 - the fixture
) -> None:
    def hidden(number: int, noise: random.Random) -> Session:
        return replace(session(0.0, noise), all_steps=(0.2, 0.2))

    def plain(number: int, noise: random.Random) -> Session:
        return replace(session(0.0, noise), all_steps=(0.0, 0.0))

    others = dict.fromkeys(("conv_layer", "dense_layer", "mini_resnet"), plain)
    found, _ = compare({"lenet5": hidden, **others})
    told = "most steps are unchanged, but all steps together take 22.1 % longer: some do more work"
    assert [one.verdict("")[0] for one in found] == ["inconclusive", *["unchanged"] * 3]
    assert found[0].verdict("")[1].startswith(told)
    comparison = LiveComparison(
        decision=decision("unchanged"), anchor="c1", some_steps=found[0].some_steps
    )
    judged = step_time((), (), comparison, same_code=False, anchor=None)
    assert judged.verdict == "inconclusive"
    assert told in judged.note


def test_one_graph_whose_steps_take_more_cpu_time_together_is_timed(
    compare: Compare,  # noqa: F811 - the fixture
) -> None:
    """Python may do more beside the graph, in a few steps of many."""

    def hidden(number: int, noise: random.Random) -> Session:
        return replace(of_graphs("g", "g")(number, noise), all_steps=(0.2, 0.2))

    (found, other), _ = compare({"lenet5": hidden, "conv_layer": of_graphs("g", "g")})
    assert (found.same, other.same) == ("", SAME_GRAPH)
    assert found.verdict("")[0] == "inconclusive"


def test_a_case_is_not_faster_by_its_usual_steps_alone(
    compare: Compare,  # noqa: F811 - the fixture
) -> None:
    """All steps together need not be slower by more than the margin."""

    def hidden(number: int, noise: random.Random) -> Session:
        return replace(session(-0.2, noise), all_steps=(0.05, 0.05))

    ((found,), _) = compare({"lenet5": hidden}, apart={"lenet5": -0.2})
    verdict, why = found.verdict("")
    assert (found.decision and found.decision.verdict, verdict) == ("improved", "inconclusive")
    assert why.startswith("most steps are improved, but all steps together take 5.1 % longer")


def test_what_is_called_faster_within_the_margin_is_not_slower_by_all_steps() -> None:
    one = LiveSession(wall=-0.02, cpu=None, seconds=1.0, all_steps=(0.02, 0.02))
    found = CaseResult(decision=decision("faster_within_margin", -0.02), live=[one] * 30)
    assert found.verdict("") == ("unchanged", "faster by 2.0 %, within the margin")
    found.look_at_all_steps(USUAL)
    told = "most steps are unchanged, but all steps together take 2.0 % longer"
    assert found.verdict("")[0] == "inconclusive"
    assert found.verdict("")[1].startswith(told)
    plain = CaseResult(decision=decision("unchanged"), live=[one] * 30)
    plain.look_at_all_steps(USUAL)
    assert plain.some_steps == ""  # within the margin
