"""Live comparisons with stand-ins for the interpreters: who gets a session, and what ends it."""

from __future__ import annotations

import contextlib
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from fake_worker import StandIn

from convmark.compare.live import case_result, live
from convmark.compare.live.case_result import OTHER_SOFTWARE, VOID, CaseResult, LiveOptions
from convmark.compare.live.live import compare_live
from convmark.compare.live.session import (
    DuetSide,
    LiveSide,
    Pairing,
    Session,
    SessionPlan,
    SideFailure,
)
from convmark.compare.live.tree import ForeignCode
from convmark.compare.rule.decision import CROSS_CHECKED_BY, Decision
from convmark.compare.sessions_file import CarriedOver, EarlierSessions
from convmark.core.case import Case
from convmark.core.errors import WorkerError
from convmark.core.statistics import Estimate
from convmark.machine.gpu.devices import Card, Gpu

Model = Callable[[int, random.Random], Session]
"""Gives the session of a number, from 1."""

FOUR = ("lenet5", "conv_layer", "dense_layer", "mini_resnet")
SIZES = {"old": {"parameters": 10}, "new": {"parameters": 20}}
HOT = "the card was slowed (hardware_thermal)"
CARD = Card(gpu=Gpu(index=0, name="Tesla T4", memory_bytes=None, uuid="GPU-1"))
NONE: Any = StandIn()


class Code:
    """A code by its hash; it finds files of another where it is foreign."""

    def __init__(self, name: str, *, foreign_from: int = 1000) -> None:
        self.name = name
        self._left = foreign_from

    def settings(self, environ: Mapping[str, str]) -> dict[str, Any]:
        return {"folder": Path(self.name)}

    def check(self, event: Mapping[str, Any]) -> None:
        self._left -= 1
        if self._left <= 0:
            raise ForeignCode(f"{self.name}: /x/net.json is not of the commit")

    def explained(self, message: str) -> str:
        return f"{message}; explained by {self.name}"

    def hash_of(self, event: Mapping[str, Any]) -> str:
        return str(event["hash"])


def session(
    change: float,
    noise: random.Random | None = None,
    hashes: tuple[str, ...] = ("c1", "c2"),
    control: float | None = None,
) -> Session:
    """Return a duet that finds a change, with a noise of 1 % between sessions."""

    def near(value: float) -> Estimate:
        return Estimate(value=value + (noise.gauss(0, 0.01) if noise else 0.0), error=0.001)

    names = ("old", "new", "control")
    codes = {name: {"hash": one} for name, one in zip(names, hashes, strict=False)}
    wall = near(change)
    beside = near(control) if control is not None else None
    return Session(wall=wall, cpu=wall, control_wall=beside, codes=codes, sizes=SIZES)


def with_models(number: int, noise: random.Random) -> Session:
    """Return a duet whose third session builds another model of the old code."""
    sizes = {"old": {"parameters": 10 + number // 3}, "new": {"parameters": 20}}
    return replace(session(0.0, noise), sizes=sizes)


def in_other_precision(number: int, noise: random.Random) -> Session:
    states = {"old": {"precision": "float32"}, "new": {"precision": "mixed_bfloat16"}}
    return replace(session(0.0, noise), states=states)


def of_graphs(
    old: str,
    new: str,
    change: float = 0.0,
    settings: Mapping[str, Any] = MappingProxyType({}),
    error: float = 0.001,
) -> Model:
    """Return duets whose steps have graphs of these hashes, where they have one."""
    graphs = {side: one for side, one in (("old", old), ("new", new)) if one}
    states = {side: {"settings": sets} for side, sets in settings.items()}

    def model(number: int, noise: random.Random) -> Session:
        found = session(change, noise)
        assert found.wall is not None
        wall = replace(found.wall, error=error)
        return replace(found, wall=wall, graphs=graphs, states=states)

    return model


class Earlier(EarlierSessions):
    """What earlier runs of any case give."""

    def __init__(self, given: CarriedOver) -> None:
        super().__init__()
        self._given = given

    def of(self, case: str, old: str, new: str, *, apart: bool) -> CarriedOver:
        return self._given


def changed(change: float) -> Model:
    return lambda number, noise: session(change, noise)


def failing(*numbers: int, side: str = "") -> Model:
    """Return one whose sessions of these numbers die."""

    def model(number: int, noise: random.Random) -> Session:
        if number not in numbers:
            return session(0.0, noise)
        return Session(failure=SideFailure(side=side, reason="SIGSEGV", status="crashed"))

    return model


def refusing(number: int, noise: random.Random) -> Session:
    return Session(refusal="the old code sets threads", sizes=SIZES)


class Duets:
    """Stands for all interpreters, and for the clock: a duet takes 2 s."""

    def __init__(self, models: Mapping[str, Model], apart: Mapping[str, float]) -> None:
        self.models = models
        self.apart = apart
        """Changes in separate processes; NaN for what dies there too."""
        self.plans: dict[str, list[SessionPlan]] = {name: [] for name in models}
        self.sides: list[Mapping[str, DuetSide]] = []
        self.lockstep: list[SessionPlan] = []
        self.now_s = 0.0
        self.said: list[str] = []
        self.seen: list[tuple[int, int, str]] = []
        self._noise = random.Random(7)

    def duet(
        self,
        interpreter: object,
        case: Case,
        sides: Mapping[str, DuetSide],
        plan: SessionPlan,
        on_event: Callable[[dict[str, Any]], None],
    ) -> Session:
        self.now_s += 2.0
        self.plans[case.model].append(plan)
        self.sides.append(sides)
        on_event({"event": "turns"})
        return self.models[case.model](len(self.plans[case.model]), self._noise)

    def see(self, place: int, found: CaseResult, session: Session, disturbed: str) -> None:
        self.seen.append((place, len(found.live), disturbed))

    def processes(
        self,
        sides: Mapping[str, LiveSide],
        plan: SessionPlan,
        on_event: Callable[[dict[str, Any]], None],
    ) -> Session:
        self.now_s += 5.0
        self.lockstep.append(plan)
        on_event({"event": "turns"})
        change = self.apart.get(sides["old"].case.model, 0.0)
        if math.isnan(change):
            return Session(failure=SideFailure(side="old", reason="SIGABRT", status="crashed"))
        wall = Estimate(value=self._noise.gauss(change, 0.01), error=0.001)
        sizes = {"old": {"flops_per_sample": 5}} if plan.with_work else {}
        codes = {name: {"hash": name} for name in sides}
        return Session(wall=wall, cpu=wall, sizes=sizes, codes=codes)


Compare = Callable[..., tuple[list[CaseResult], Duets]]


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch) -> Compare:
    def run(
        models: Mapping[str, Model],
        *,
        budget_s: float = 600.0,
        codes: tuple[Code | None, Code | None] = (Code("old"), Code("new")),
        card: Card | None = None,
        control: bool = False,
        shared: bool = True,
        may_be_same: bool = False,
        apart: Mapping[str, float] = MappingProxyType({}),
        measured: Mapping[str, Any] = MappingProxyType({}),
        **more: Any,
    ) -> tuple[list[CaseResult], Duets]:
        duets = Duets(models, apart)
        monkeypatch.setattr(live, "duet_session", duets.duet)
        monkeypatch.setattr(live, "lockstep_session", duets.processes)
        pairings = []
        for name in models:
            case = Case(model=name, task="train")
            old, new = (LiveSide(case=case, interpreter=NONE, code=one, card=card)
                        for one in codes)  # fmt: skip
            both = {"old": old, "new": new, "control": old if control else None}
            its_own = {"shared": NONE if shared else None, "may_be_same": may_be_same}
            pairings.append(Pairing(case=case, **both, **its_own, **measured))
        terms = LiveOptions(
            seed=3,
            seconds_left=lambda: budget_s - duets.now_s,
            clock=lambda: duets.now_s,
            results=Path("results"),
            **more,
        )
        return compare_live(pairings, terms, duets.said.append, duets.see), duets

    return run


def verdicts(found: Sequence[CaseResult]) -> list[str]:
    return [one.decision.verdict for one in found if one.decision is not None]


def test_identical_codes_with_noise_are_unchanged_after_two_sessions_each(
    compare: Compare,
) -> None:
    found, duets = compare({name: changed(0.0) for name in FOUR})
    assert verdicts(found) == ["unchanged"] * 4
    assert [len(plans) for plans in duets.plans.values()] == [2] * 4
    assert len(duets.said) == 4
    assert duets.said[-1].endswith("; 4 of 4 cases done")


def test_a_slower_case_is_regressed_and_no_other_blamed(compare: Compare) -> None:
    models = {name: changed(0.08 if name == "lenet5" else 0.0) for name in FOUR}
    found, _ = compare(models, apart={"lenet5": 0.08})
    assert verdicts(found) == ["regressed", *["unchanged"] * 3]
    assert found[0].decision is not None
    assert found[0].decision.estimate == pytest.approx(0.08, abs=0.01)


def test_a_decision_that_was_shown_stands_when_later_cases_are_noisy(compare: Compare) -> None:
    noisy = ("vgg16", "resnet50", "xception", "densenet121", "mobilenet", "nasnet_mobile")
    models: dict[str, Model] = {
        **dict.fromkeys(FOUR, lambda number, noise: session(0.001 * (-1) ** number)),
        **dict.fromkeys(noisy, lambda number, noise: session(0.2 * (-1) ** number)),
    }
    found, duets = compare(models, budget_s=60.0)
    assert verdicts(found) == [*["unchanged"] * 4, *["undecided"] * 6]
    assert [len(duets.plans[name]) for name in FOUR] == [2] * 4
    assert [line.partition("-")[0] for line in duets.said] == list(FOUR)


def test_the_progress_shows_per_cent_and_not_the_log_ratio(compare: Compare) -> None:
    models: dict[str, Model] = {"lenet5": lambda number, noise: session(0.39 + 1e-4 * number)}
    _, duets = compare(models, apart={"lenet5": 0.39})
    assert "5 sessions, +47.7 % [" in duets.said[0]
    assert "], regressed; no graph tells what its step does; 1 of 1 case done" in duets.said[0]


def test_each_session_draws_a_seed_and_the_first_asks_for_sizes(compare: Compare) -> None:
    _, duets = compare({"lenet5": changed(0.0), "conv_layer": changed(0.0)})
    plans = [plan for found in duets.plans.values() for plan in found]
    assert len({plan.order for plan in plans}) == len(plans) == 6
    of_rows = [(plan.with_work, plan.seed == 3) for plan in duets.plans["lenet5"]]
    assert of_rows == [(True, True), (False, False), (False, False)]
    sides = duets.sides[0]
    assert {name: str(side.folder) for name, side in sides.items()} == {"old": "old", "new": "new"}
    assert list(sides["old"].left_out) == [Path("results")]


def test_codes_that_cannot_share_a_process_go_to_lock_step_and_it_is_noted(
    compare: Compare,
) -> None:
    found, duets = compare({"lenet5": refusing, "conv_layer": refusing})
    assert verdicts(found) == ["unchanged"] * 2
    assert [one.apart for one in found] == ["the old code sets threads"] * 2
    assert [len(plans) for plans in duets.plans.values()] == [1, 1]  # not tried again
    assert len({plan.order for plan in duets.lockstep}) == len(duets.lockstep) == 6
    assert sum(plan.with_work for plan in duets.lockstep) == 2
    assert found[0].sizes["old"] == {"parameters": 10, "flops_per_sample": 5}
    assert found[0].verdict("")[1] == "in a process each: the old code sets threads"


def test_a_conviction_is_held_against_separate_processes(compare: Compare) -> None:
    models = {"lenet5": changed(0.2), "conv_layer": changed(0.0)}
    found, duets = compare(models, apart={"lenet5": 0.21})
    assert verdicts(found) == ["regressed", "unchanged"]
    assert len(duets.lockstep) == 3
    assert found[0].separate[0].startswith("separate processes +2")
    assert (found[0].apart, found[1].separate, found[0].codes) == ("", [], ("c1", "c2"))


def test_separate_processes_that_contradict_duets_decide(compare: Compare) -> None:
    found, duets = compare({"lenet5": changed(0.2)})
    assert verdicts(found) == ["unchanged"]
    assert [one.apart for one in found[0].live] == [True] * len(duets.lockstep)
    assert found[0].codes == ("old", "new")
    assert re.fullmatch(r"[+-]0\.\d %, but \+2\d\.\d % in one process", found[0].apart)


def test_a_conviction_that_the_check_of_another_brings_is_checked_too(
    compare: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decide(cases: Any, _: object, final: Sequence[Any], before: int) -> list[Decision]:
        one = Decision(verdict="regressed", sessions=2, estimate=0.2, spread=0.01, freedom=9.0)
        late = one if len(cases[1].wall) == CROSS_CHECKED_BY else replace(one, verdict="undecided")
        return [was or now for was, now in zip(final, (late, one), strict=True)]

    monkeypatch.setattr(live, "decide", decide)
    found, duets = compare({"lenet5": changed(0.2), "conv_layer": changed(0.2)})
    assert [", but " in one.apart for one in found] == [True, True]
    assert duets.said[-1].endswith("2 of 2 cases done")


def test_separate_processes_that_run_foreign_code_leave_no_conviction(compare: Compare) -> None:
    class Foreign(dict[str, float]):
        def get(self, *_: object) -> float:
            raise ForeignCode("the old code: /x/net.json is not of the commit")

    (found,), duets = compare({"lenet5": changed(0.08)}, apart=Foreign())
    assert (found.live, found.failed, verdicts([found])) == ([], True, ["undecided"])
    assert "net.json is not of the commit; 1 of 1 case done" in duets.said[-1]


def test_separate_processes_that_die_leave_a_conviction_as_it_is(
    compare: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    died = Session(failure=SideFailure(side="old", reason="SIGSEGV", status="crashed"))
    monkeypatch.setattr(Duets, "processes", lambda *_: died)
    found, _ = compare({"lenet5": changed(0.2)})
    told = "not checked: the codes did not run in separate processes"
    assert (verdicts(found), found[0].separate) == (["regressed"], [told])


def test_one_session_of_separate_processes_is_no_check(
    compare: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Session(wall=Estimate(value=0.0, error=0.001))
    died = Session(failure=SideFailure(side="old", reason="SIGSEGV", status="crashed"))
    sessions = iter([one])
    monkeypatch.setattr(Duets, "processes", lambda *_: next(sessions, died))
    found, _ = compare({"lenet5": changed(0.2)})
    told = "not checked: the codes did not run in separate processes"
    assert (verdicts(found), found[0].separate) == (["regressed"], [told])


def test_separate_processes_that_cannot_be_started_are_told_of(
    compare: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> Session:
        raise WorkerError("python: cannot be started")

    monkeypatch.setattr(Duets, "processes", lost)
    (found,), _ = compare({"lenet5": changed(0.2)})
    told = ["not checked: python: cannot be started"]
    assert (verdicts([found]), found.separate) == (["regressed"], told)


def test_evenly_each_case_gets_as_many_sessions_until_the_time_is_spent(
    compare: Compare,
) -> None:
    one = lambda number, noise: session(0.0, noise, ("c1", "c1"))  # noqa: E731
    found, duets = compare(
        {"lenet5": one, "conv_layer": one}, budget_s=20.5, evenly=True, may_be_same=True
    )
    assert [len(case.live) for case in found] == [5, 5]
    assert [case.closed for case in found] == ["", ""]
    assert duets.said[0] == "lenet5-train-cpu-b1-float32: session 1, about 18 s left"
    assert len(duets.said) == 10
    short, _ = compare(
        {"lenet5": one, "conv_layer": one}, budget_s=6.5, evenly=True, may_be_same=True
    )
    assert [len(case.live) for case in short] == [2, 1]  # a scatter of one rather than of none


def test_evenly_what_the_user_interrupts_keeps_its_sessions(compare: Compare) -> None:
    def interrupted(number: int, noise: random.Random) -> Session:
        if number == 5:
            raise KeyboardInterrupt
        return session(0.0, noise, ("c1", "c1"))

    models: dict[str, Model] = {
        "lenet5": lambda number, noise: session(0.0, noise),
        "conv_layer": interrupted,
    }
    found, _ = compare(models, evenly=True, may_be_same=True)
    assert [one.closed for one in found] == ["interrupted", "interrupted"]
    assert [len(one.live) for one in found] == [5, 4]


def test_a_side_that_cannot_be_built_closes_its_case_alone(compare: Compare) -> None:
    models = {"lenet5": failing(1, side="old"), "conv_layer": changed(0.0)}
    found, duets = compare(models, apart={"lenet5": math.nan})
    assert found[0].closed == "the old code cannot be run: SIGSEGV; explained by old"
    assert len(duets.lockstep) == 1
    assert found[0].needs_s is None
    assert verdicts(found) == ["undecided", "unchanged"]
    assert len(duets.plans["lenet5"]) == 1
    assert any("cannot be run" in line for line in duets.said)


def test_codes_that_fail_only_beside_each_other_are_compared_in_processes_of_their_own(
    compare: Compare,
) -> None:
    """As of a name that both register for the whole process: a slowdown must not pass unseen."""
    found, duets = compare({"lenet5": failing(1, side="new")}, apart={"lenet5": 0.2})
    assert verdicts(found) == ["regressed"]
    assert len(duets.plans["lenet5"]) == 1
    (told,) = found[0].separate
    why = "with the other, the new code cannot be run: SIGSEGV; explained by new"
    assert told == f"in a process each: {why}"


@pytest.mark.parametrize(
    ("numbers", "closed", "duets_taken"),
    [((1,), "", 4), ((2, 3), "the old code cannot be run: SIGABRT; explained by old", 3)],
)
def test_one_death_of_a_session_is_forgiven_and_two_part_the_codes(
    compare: Compare, numbers: tuple[int, ...], closed: str, duets_taken: int
) -> None:
    (found,), duets = compare({"lenet5": failing(*numbers)}, apart={"lenet5": math.nan})
    assert (found.closed, found.apart) == (closed, "")
    assert len(duets.plans["lenet5"]) == duets_taken
    assert all(one.apart == bool(closed) for one in found.live)


def test_a_session_that_times_nothing_counts_as_a_death(compare: Compare) -> None:
    (found,), duets = compare({"lenet5": lambda number, noise: Session()})
    assert (found.apart, found.closed) == (
        "with the other, a code cannot be run: no step was timed",
        "",
    )
    assert len(duets.plans["lenet5"]) == 2


def test_a_code_that_builds_unlike_models_leaves_no_verdict(compare: Compare) -> None:
    (found,), _ = compare({"lenet5": with_models})
    assert "the old code builds different models, of 10 parameters, then of 1" in found.closed
    assert (found.live, found.sizes) == ([], {})  # no row is held against one of them


def test_models_whose_samples_decide_their_flops_are_one_model() -> None:
    """Each session has samples of its own; the control has those of the old code."""
    found = CaseResult()
    found.sizes["old"] = {"parameters": 10, "flops_per_sample": 5}
    case_result.hold_sizes({"old": {"parameters": 10, "flops_per_sample": 6}}, found)
    with pytest.raises(ForeignCode, match="the control code builds different models, of 6 flops"):
        case_result.hold_sizes(
            {"old": {"flops_per_sample": 6}, "control": {"flops_per_sample": 5}}, found
        )


@pytest.mark.parametrize("control", [False, True])
def test_sides_of_unlike_precision_are_compared_by_the_command_alone(
    compare: Compare, control: bool
) -> None:
    (found,), _ = compare({"lenet5": in_other_precision}, control=control)
    assert found.unlike == "precision differs: float32 and mixed_bfloat16"
    assert found.precisions == ("float32", "mixed_bfloat16")
    assert bool(found.live) == control
    assert bool(found.closed) != control


@pytest.mark.parametrize("side", ["old", "new"])
def test_files_that_change_while_a_case_is_compared_leave_no_verdict(
    compare: Compare, side: str
) -> None:
    def edited(number: int, noise: random.Random) -> Session:
        found = session(0.0, noise)
        content = "b" if number > 1 else "a"
        files = [{"path": "/models/net.py", "sha256": content}]
        codes = {**found.codes, side: {**found.codes[side], "files": files}}
        return replace(found, codes=codes)

    found, _ = compare({"lenet5": edited, "conv_layer": changed(0.0)})
    assert verdicts(found) == ["undecided", "unchanged"]
    assert found[0].closed == (
        "/models/net.py has changed since the case was measured; measure and compare it again"
    )
    assert found[0].live == []


def test_a_process_that_cannot_be_started_closes_the_case(compare: Compare) -> None:
    def lost(number: int, noise: random.Random) -> Session:
        raise WorkerError("python: cannot be started")

    found, _ = compare({"lenet5": lost, "conv_layer": changed(0.0)})
    assert found[0].closed == "python: cannot be started"
    assert verdicts(found) == ["undecided", "unchanged"]


def test_a_side_that_runs_foreign_code_closes_the_case_and_its_sessions_do_not_count(
    compare: Compare,
) -> None:
    codes = Code("commit 0123", foreign_from=3), Code("today's code")
    (found,), _ = compare({"lenet5": changed(0.0)}, codes=codes)
    assert found.closed == "commit 0123: /x/net.json is not of the commit"
    assert found.decision is not None
    assert (found.live, found.decision.estimate) == ([], None)


def test_two_codes_of_one_hash_are_the_same_code_after_one_session(compare: Compare) -> None:
    alike: Model = lambda number, noise: session(0.3, hashes=("c1", "c1"))  # noqa: E731
    found, duets = compare({"lenet5": alike, "conv_layer": changed(0.0)})
    assert [one.same for one in found] == ["same code", ""]
    assert (found[0].live, len(duets.plans["lenet5"])) == ([], 1)
    outside_git, _ = compare({"lenet5": alike}, codes=(Code("old"), None))
    assert not outside_git[0].same  # today's files are told from no others


def test_codes_that_make_one_graph_are_decided_by_one_session(compare: Compare) -> None:
    found, duets = compare({"lenet5": of_graphs("g1", "g1"), "conv_layer": changed(0.0)})
    assert [one.same for one in found] == ["same graph", ""]
    assert (found[0].closed, found[0].live) == ("both codes make the same graph", [])
    assert [len(duets.plans[name]) for name in ("lenet5", "conv_layer")] == [1, 3]
    later = (of_graphs("", "", one) for one in (-0.016, 0.02, -0.02))
    noisy = iter((of_graphs("g1", "g1", 0.15), *later))
    (late,), _ = compare({"lenet5": lambda *number: next(noisy)(*number)})
    assert (late.same, len(late.live)) == ("same graph", 3)


@pytest.mark.parametrize(
    ("model", "asked"),
    [
        (lambda: of_graphs("g1", "g2"), {}),
        (lambda: of_graphs("", ""), {}),
        (lambda: of_graphs("g1", "g1", change=0.3), {}),  # the time says otherwise
        (lambda: of_graphs("g1", "g1", change=0.12, error=0.05), {}),  # it says little
        (lambda: of_graphs("g1", "g1"), {"earlier": Earlier(CarriedOver(bar=-0.2))}),
        (lambda: of_graphs("g1", "g1", settings={"old": {}, "new": {"OMP": "1"}}), {}),
        (lambda: of_graphs("g1", "g1"), {"control": True}),  # a figure is asked for
        (lambda: of_graphs("g1", "g1"), {"codes": (Code("old"), None)}),
    ],
)
def test_one_graph_alone_decides_nothing_where_anything_else_differs(
    compare: Compare, model: Callable[[], Model], asked: dict[str, Any]
) -> None:
    (found,), duets = compare({"lenet5": model()}, **asked)
    assert found.same == ""
    assert len(duets.plans["lenet5"]) > 1


def test_a_spent_budget_leaves_the_case_undecided_and_says_what_would_decide(
    compare: Compare,
) -> None:
    def wide(number: int, noise: random.Random) -> Session:
        return session((0.02, 0.01, -0.02, 0.03, -0.01)[number - 1])

    found, duets = compare({"lenet5": wide}, budget_s=11.0)
    assert verdicts(found) == ["undecided"]
    assert duets.now_s == 10.0  # a sixth session would not have fitted
    assert found[0].needs_s == 6.0  # three more, which tell the noise too
    (none,), duets = compare({"lenet5": wide}, budget_s=1.0)
    assert (duets.now_s, none.needs_s) == (0.0, None)  # no session has told the noise


def disturb(monkeypatch: pytest.MonkeyPatch, *numbers: int) -> list[list[str]]:
    """Have the card be slowed in sessions of these numbers; return the events of each session."""
    events: list[list[str]] = []

    class Watch:
        def see(self, event: Mapping[str, Any]) -> None:
            events[-1].append(event["event"])

        def columns(self, samples_per_step: int) -> dict[str, Any]:
            return {"not_judged": HOT if len(events) in numbers else None}

    @contextlib.contextmanager
    def watching(cards: Sequence[Card]) -> Iterator[Watch]:
        assert cards == [CARD]
        events.append([])
        yield Watch()

    monkeypatch.setattr(live, "watching", watching)
    return events


def test_one_graph_decides_nothing_on_a_disturbed_card(
    compare: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    disturb(monkeypatch, 1)
    (found,), duets = compare({"lenet5": of_graphs("g1", "g1")}, card=CARD)
    assert (found.left_out, found.same, len(duets.plans["lenet5"])) == ([HOT], "same graph", 2)


@pytest.mark.parametrize(("disturbed", "closed"), [((1, 2), False), ((1, 2, 4), True)])
def test_sessions_on_a_disturbed_card_are_left_out_and_the_third_closes_the_case(
    compare: Compare, monkeypatch: pytest.MonkeyPatch, disturbed: tuple[int, ...], closed: bool
) -> None:
    events = disturb(monkeypatch, *disturbed)
    (found,), duets = compare({"lenet5": changed(0.0)}, card=CARD)
    assert events[0] == ["warm_up", "rounds"]
    assert duets.said[0].endswith(f"a session is left out: {HOT}")
    if closed:
        assert found.closed == f"not judged: {HOT}; compare again later"
        assert (found.left_out, len(found.live)) == ([HOT] * 3, 1)
    else:
        assert (found.closed, found.left_out, len(found.live)) == ("", [HOT] * 2, 3)
        assert [disturbed for *_, disturbed in duets.seen] == [HOT, HOT, "", "", ""]
        assert verdicts([found]) == ["unchanged"]


def test_ctrl_c_keeps_what_is_decided_and_closes_the_rest(compare: Compare) -> None:
    def stopped(number: int, noise: random.Random) -> Session:
        if number == 2:
            raise KeyboardInterrupt
        return refusing(number, noise) if number > 2 else session(0.0, noise)

    others = dict.fromkeys(("lenet5", "mini_resnet", "mini_inception", "net"), changed(0.0))
    found, duets = compare({**others, "conv_layer": stopped, "dense": stopped})
    assert verdicts(found) == ["unchanged"] * 4 + ["undecided"] * 2
    assert [one.closed for one in found] == [""] * 4 + ["interrupted"] * 2
    assert len(duets.plans["dense"]) == 0


def test_ctrl_c_in_the_check_of_a_conviction_is_told_of(
    compare: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> Session:
        raise KeyboardInterrupt

    monkeypatch.setattr(Duets, "processes", stopped)
    (found,), _ = compare({"lenet5": changed(0.2)})
    assert verdicts([found]) == ["regressed"]
    assert (found.closed, found.separate) == ("interrupted", ["not checked: interrupted"])


# -- the control, and how far it goes on -----------------------------------------------------------


def test_a_control_takes_part_in_each_session_and_leaves_the_verdict_where_it_agrees(
    compare: Compare,
) -> None:
    model: Model = lambda number, noise: session(0.1, noise, ("c1", "c2", "c1"), 0.0)  # noqa: E731
    (found,), duets = compare({"lenet5": model}, control=True, apart={"lenet5": 0.1})
    assert all(sorted(sides) == ["control", "new", "old"] for sides in duets.sides)
    assert {round(plan.seconds, 1) for plan in duets.plans["lenet5"]} == {1.5}
    verdict, note = found.verdict("try a larger --budget")
    assert (found.void, verdict) == (False, "regressed")
    assert note.startswith("separate processes +1")
    assert len(found.control) == len(found.live)


def test_a_control_that_differs_voids_the_verdict_and_its_figures_stay(compare: Compare) -> None:
    model: Model = lambda number, noise: session(0.1, noise, ("c1", "c2", "c1"), 0.06)  # noqa: E731
    (found,), duets = compare({"lenet5": model}, control=True)
    verdict, note = found.verdict("try a larger --budget")
    assert (found.void, verdict, note) == (True, "inconclusive", VOID)
    assert found.decision is not None
    assert found.decision.estimate == pytest.approx(0.1, abs=0.01)
    assert "void; 1 of 1 case done" in duets.said[-1]


def test_it_goes_on_after_a_verdict_until_the_interval_is_as_narrow_as_asked(
    compare: Compare,
) -> None:
    (early,), _ = compare({"lenet5": changed(0.0)})
    (late,), _ = compare({"lenet5": changed(0.0)}, target=0.02)
    assert early.decision is not None
    assert late.decision is not None
    assert early.decision.interval.half_width > 0.02 >= late.decision.interval.half_width
    (spent,), _ = compare({"lenet5": changed(0.0)}, target=1e-4, budget_s=30.0)
    verdict, note = spent.verdict("try a larger --budget")
    assert (len(spent.live), verdict) == (15, "unchanged")
    assert note == "budget spent before the interval was as narrow as --target"


def test_sides_of_different_software_never_share_a_process(compare: Compare) -> None:
    (found,), duets = compare({"lenet5": changed(0.0)}, shared=False)
    assert (found.apart, len(duets.lockstep), duets.sides) == (OTHER_SOFTWARE, 3, [])
    assert found.verdict("try a larger --budget")[1] == ""


def test_one_code_is_compared_with_itself_where_that_is_what_is_wanted(compare: Compare) -> None:
    alike: Model = lambda number, noise: session(0.0, noise, ("c1", "c1"))  # noqa: E731
    (found,), _ = compare({"lenet5": alike}, may_be_same=True)
    assert (found.same, verdicts([found]), len(found.live)) == ("", ["unchanged"], 3)
