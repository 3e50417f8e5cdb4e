"""The lock-step engine with stand-ins for the workers: sessions, looks, budget and failures."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from nvml_standin import beside, needs_compiler

from convmark.case import Case
from convmark.errors import WorkerError
from convmark.gpu.devices import Card, Gpu
from convmark.judging.confirm import LOOKS, Clocks
from convmark.lockstep.engine import (
    MOST_LEFT_OUT,
    MOST_STEPS,
    ROUNDS,
    VOID,
    Comparison,
    Plan,
    Side,
    compare,
    lockstep_session,
    primary_clock,
)

CASE = Case(model="lenet5", task="train", batch_size=32)


class Stand:
    """An interpreter whose worker's steps take so long, with noise of 2 % between sessions."""

    def __init__(self, step_s: float, seed: int, *, dies: str = "") -> None:
        self._step_s = step_s
        self._random = random.Random(seed)
        self._dies = dies
        self.sessions = 0
        self.rounds = 0
        self.steps: set[int] = set()
        self.asked_sizes = 0
        self.parameters = 61_706

    @contextlib.contextmanager
    def live(self, request: Mapping[str, Any]) -> Iterator[Stand]:
        if self._dies == "start":
            raise WorkerError("SIGSEGV")
        self.sessions += 1
        self.asked_sizes += request["with_sizes"]
        self._session_s = self._step_s * (1 + self._random.gauss(0, 0.01))
        yield self

    def command(self, steps: int) -> None:
        self.steps.add(steps)
        self._pending = steps

    def expect(self, name: str) -> dict[str, Any]:
        if name == "sizes":
            return {"parameters": self.parameters}
        if name == "warm":
            return {"step_time_s": self._step_s}
        if self._dies == "turn" and self.sessions == 3:
            raise WorkerError("SIGKILL")
        self.rounds += 1
        wall_s = self._pending * self._session_s * (1 + self._random.gauss(0, 0.01))
        return {"wall_s": wall_s, "cpu_s": wall_s}


def plan(**changes: Any) -> Plan:
    return Plan(**{"seed": 0, "warm_up_s": 0.1, "error_rate": 0.01, **changes})


def side(stand: Stand) -> Side:
    return Side(stand, CASE)  # type: ignore[arg-type]


def judged(found: Comparison) -> Clocks:
    assert found.clocks is not None
    return found.clocks


def run(old_s: float, new_s: float, **changes: Any) -> tuple[Comparison, Stand, Stand]:
    old, new = Stand(old_s, 1), Stand(new_s, 2)
    return compare(side(old), side(new), plan(**changes)), old, new


def test_a_slower_code_is_regressed_and_by_how_much() -> None:
    found, _, _ = run(0.010, 0.011)
    assert judged(found).decision.verdict == "regressed"
    assert judged(found).decision.estimate == pytest.approx(0.0953, abs=0.02)


def test_a_faster_code_is_improved() -> None:
    found, _, _ = run(0.011, 0.010)
    assert judged(found).decision.verdict == "improved"


def test_identical_code_is_unchanged() -> None:
    found, old, new = run(0.010, 0.010)
    assert judged(found).decision.verdict == "unchanged"
    assert old.sessions == new.sessions == len(found.wall) in LOOKS


def test_each_round_takes_one_turn_of_either_side() -> None:
    found, old, new = run(0.020, 0.020)
    assert old.rounds == new.rounds
    assert old.rounds == len(found.wall) * int(4.0 / 0.04)
    assert old.steps == {1}


def test_short_steps_are_taken_ten_at_a_time_and_rounds_are_bounded() -> None:
    found, old, _ = run(0.0001, 0.0001)
    assert old.steps == {MOST_STEPS}
    assert old.rounds == len(found.wall) * ROUNDS[1]
    found, old, _ = run(5.0, 5.0)
    assert old.rounds == len(found.wall) * ROUNDS[0]


def test_no_session_begins_that_will_not_fit_and_what_is_known_is_said() -> None:
    left = iter([100.0, 100.0, 100.0, 0.0])
    ticks = iter(range(100))
    old, new = Stand(0.01, 1), Stand(0.01, 2)
    found = compare(
        side(old),
        side(new),
        plan(seconds_left=lambda: next(left)),
        clock=lambda: float(next(ticks)),
    )
    assert found.out_of_time
    assert len(found.wall) == 3
    assert judged(found).decision.verdict in ("inconclusive", "unchanged")


def test_a_budget_of_nothing_gives_no_verdict() -> None:
    found, _, _ = run(0.01, 0.01, seconds_left=lambda: -1.0)
    assert (found.clocks, found.out_of_time, found.wall) == (None, True, ())


@pytest.mark.parametrize(("place", "name"), [(0, "old"), (1, "new")])
def test_a_side_that_cannot_be_run_is_named(place: int, name: str) -> None:
    sides = [Stand(0.01, 1), Stand(0.01, 2)]
    sides[place] = Stand(0.01, 3, dies="start")
    found = compare(*map(side, sides), plan())
    assert found.clocks is None
    assert found.reason == f"the {name} code cannot be run: SIGSEGV"


def test_a_worker_that_dies_later_leaves_what_was_found_until_then() -> None:
    found = compare(side(Stand(0.01, 1)), side(Stand(0.01, 2, dies="turn")), plan())
    assert len(found.wall) == 2
    assert judged(found).decision.verdict is not None
    assert "SIGKILL" in found.reason


def test_the_order_of_turns_is_seeded() -> None:
    assert run(0.01, 0.0105)[0] == run(0.01, 0.0105)[0]


def test_every_session_is_told() -> None:
    told: list[int] = []
    old, new = Stand(0.01, 1), Stand(0.01, 2)
    found = compare(
        side(old),
        side(new),
        plan(),
        watch=lambda progress: told.append(progress.sessions),
    )
    assert told == list(range(1, len(found.wall) + 1))


def test_cpu_time_decides_with_one_thread_and_wall_time_else() -> None:
    assert primary_clock(CASE) == "wall"
    assert primary_clock(Case(model="lenet5", task="train", threads="1")) == "cpu"


# -- the control ---------------------------------------------------------------------------------


def beside_control(control_s: float, **changes: Any) -> Comparison:
    sides = [side(Stand(step_s, seed)) for seed, step_s in enumerate((0.010, 0.011, control_s))]
    return compare(*sides[:2], plan(**changes), control=sides[2])


def test_a_control_that_agrees_leaves_the_verdict_alone() -> None:
    found = beside_control(0.010)
    assert judged(found).decision.verdict == "regressed"
    assert len(found.control_wall) == len(found.control_cpu) == len(found.wall)
    assert (found.void, found.reason) == (False, "")


def test_a_control_that_differs_from_its_twin_voids_the_verdict_and_its_figures_stay() -> None:
    found = beside_control(0.0105)
    assert judged(found).decision.verdict == "inconclusive"
    assert judged(found).decision.estimate == pytest.approx(0.0953, abs=0.02)
    assert (found.void, found.reason) == (True, VOID)


def test_turns_are_as_long_with_a_control_as_without() -> None:
    stands = [Stand(0.001, seed) for seed in range(3)]
    compare(side(stands[0]), side(stands[1]), plan(), control=side(stands[2]))
    assert [stand.steps for stand in stands] == [{MOST_STEPS}] * 3


# -- how long it goes on -------------------------------------------------------------------------


def test_it_goes_on_after_a_verdict_until_the_interval_is_as_narrow_as_asked() -> None:
    early, _, _ = run(0.010, 0.012)
    assert len(early.wall) == LOOKS[0]
    narrow, _, _ = run(0.010, 0.012, target=1e-6)
    assert len(narrow.wall) == LOOKS[-1]
    half = (judged(early).decision.high - judged(early).decision.low) / 2
    enough, _, _ = run(0.010, 0.012, target=half)
    assert len(enough.wall) == LOOKS[0]


# -- what the models are -------------------------------------------------------------------------


def test_each_side_tells_its_sizes_once() -> None:
    found, old, new = run(0.010, 0.010)
    assert found.sizes == {"old": {"parameters": 61_706}, "new": {"parameters": 61_706}}
    assert old.asked_sizes == new.asked_sizes == 1


def test_one_session_gives_the_change_and_the_sizes_where_they_are_asked_for() -> None:
    old, new = Stand(0.010, 1), Stand(0.011, 2)
    order = random.Random(0)
    first = lockstep_session(side(old), side(new), plan(), order, with_sizes=True)
    assert first.wall.log_ratio == pytest.approx(0.0953, abs=0.04)
    assert first.sizes["old"] == {"parameters": 61_706}
    assert first.disturbed == ""
    second = lockstep_session(side(old), side(new), plan(), order, with_sizes=False)
    assert (old.sessions, new.sessions) == (2, 2)
    assert (old.asked_sizes, new.asked_sizes) == (1, 1)
    assert not any(second.sizes.values())


def test_one_session_watches_the_cards_of_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    watches = Watches(1)
    monkeypatch.setattr("convmark.lockstep.engine.watching", watches)
    sides = [replace(side(Stand(0.010, seed)), card=CARD) for seed in (1, 2)]
    found = lockstep_session(*sides, plan(), random.Random(0), with_sizes=False)
    assert (found.disturbed, watches.cards) == (HOT, [[CARD, CARD]])


def test_two_settings_are_two_cases_and_one_thread_on_both_sides_makes_cpu_time_decide() -> None:
    single = Case(model="lenet5", task="train", threads="1")
    asked: list[Mapping[str, Any]] = []

    class Told(Stand):
        @contextlib.contextmanager
        def live(self, request: Mapping[str, Any]) -> Iterator[Stand]:
            asked.append(request)
            with super().live(request) as worker:
                yield worker

    def told(case: Case) -> Side:
        return Side(Told(0.01, 1), case)  # type: ignore[arg-type]

    found = compare(told(CASE), told(single), plan())
    assert {request["case"]["threads"] for request in asked} == {"default", "1"}
    assert judged(found).decided_by == "wall"
    assert judged(compare(told(single), told(single), plan())).decided_by == "cpu"


# -- what disturbs the card ----------------------------------------------------------------------

HOT = "the card was slowed (hardware_thermal)"
CARD = Card(gpu=Gpu(index=0, name="Tesla T4", memory_bytes=None, uuid="GPU-1"))


class Watches:
    """Stands for the watch of the cards; the sessions that are named were disturbed."""

    def __init__(self, *disturbed: int) -> None:
        self.cards: list[Sequence[Card]] = []
        self.seen: list[str] = []
        self._disturbed = disturbed

    @contextlib.contextmanager
    def __call__(self, cards: Sequence[Card]) -> Iterator[Watches]:
        self.cards.append(cards)
        yield self

    def see(self, event: Mapping[str, Any]) -> None:
        self.seen.append(event["event"])

    def columns(self, samples_per_step: int) -> dict[str, Any]:
        return {"not_judged": HOT if len(self.cards) in self._disturbed else None}


def on_card(watches: Watches, monkeypatch: pytest.MonkeyPatch, **more: Any) -> Comparison:
    monkeypatch.setattr("convmark.lockstep.engine.watching", watches)
    sides = [replace(side(Stand(0.010, seed)), card=CARD) for seed in (1, 2)]
    return compare(*sides, plan(), **more)


def test_a_session_on_a_slowed_card_is_left_out_and_another_takes_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[tuple[int, int, str]] = []
    watches = Watches(2, 4)
    found = on_card(
        watches,
        monkeypatch,
        watch=lambda now: told.append((now.sessions, now.left_out, now.not_judged)),
    )
    assert judged(found).decision.verdict == "unchanged"
    assert len(found.wall) == len(watches.cards) - 2
    assert found.left_out == (HOT, HOT)
    assert found.left_out_text == f"2 sessions left out: {HOT}"
    assert told[:5] == [(1, 0, ""), (1, 1, HOT), (2, 1, ""), (2, 2, HOT), (3, 2, "")]
    assert watches.cards[0] == [CARD, CARD]
    assert watches.seen[:2] == ["warm_up", "rounds"]


def test_three_sessions_on_a_slowed_card_end_a_comparison_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watches = Watches(1, 2, 3)
    found = on_card(watches, monkeypatch)
    assert (found.clocks, found.wall) == (None, ())
    assert found.reason == f"not judged: {HOT}; compare again when that has ended"
    assert len(watches.cards) == MOST_LEFT_OUT


BESIDE = """
import json, sys, time
sys.path.insert(0, "tests")
from dataclasses import replace
from test_lockstep import Stand, plan, side
from convmark.gpu.devices import Card, read_gpus
from convmark.gpu.nvml import load_nvml
from convmark.lockstep.engine import compare

class Slow(Stand):
    def expect(self, name):
        time.sleep(0.003)
        return super().expect(name)

gpus, _ = read_gpus(load_nvml())
sides = [replace(side(Slow(0.04, seed)), card=Card(gpu=gpus[0])) for seed in (1, 2)]
found = compare(*sides, plan())
verdict = found.clocks and found.clocks.decision.verdict
print(json.dumps([verdict, len(found.wall), found.left_out, found.reason]))
"""


@needs_compiler
def test_sessions_are_watched_through_the_driver_s_library() -> None:
    """A power cap (4) is how a card works, a brake of the hardware (80) is none."""
    verdict, sessions, left_out, reason = beside(BESIDE, STANDIN_REASONS="4")
    assert (verdict, left_out, reason) == ("unchanged", [], "")
    assert sessions in LOOKS
    verdict, sessions, left_out, reason = beside(BESIDE, STANDIN_REASONS="80")
    assert (verdict, sessions) == (None, 0)
    assert left_out == ["the card was slowed (hardware_power_brake)"] * MOST_LEFT_OUT
    assert reason.startswith("not judged: the card was slowed (hardware_power_brake)")
