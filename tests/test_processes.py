"""A session in lock-step with stand-ins for the workers: turns, starts, ends and failures."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import fake_worker
import pytest
from test_live import Compare, Duets, changed, compare, of_graphs, verdicts
from test_live import session as duet

from convmark.compare.live.session import (
    LiveSide,
    Session,
    SessionPlan,
    SideFailure,
    lockstep_session,
)
from convmark.core.case import Case
from convmark.core.errors import WorkerError
from convmark.worker.turns import MIN_ROUNDS, MIN_STEPS

__all__ = ["compare"]

CASE = Case(model="lenet5", task="train", batch_size=32)
PLAN = SessionPlan(seed=0, seconds=0.0)


class Stand(fake_worker.StandIn):
    """An interpreter whose worker's steps take so long, with noise of 1 %."""

    def __init__(
        self,
        step_s: float,
        *,
        dies_at: str = "",
        log: list[str] | None = None,
        idle_cpus: float = 0.0,
        bursts: float = 1.0,
        late: str = "",
        missed: str = "",
        leaves_threads: bool = False,
        thread_cpus: float = 0.0,
    ) -> None:
        """Describe it; all steps together take `bursts` times as long as the usual ones say."""
        self.step_s = step_s
        self.bursts = bursts
        self.leaves_threads = leaves_threads
        self.ends: dict[str, Any] = {
            "idle_cpus": idle_cpus,
            "thread_cpus": thread_cpus,
            "late": late,
        }
        self.ends |= {"missed": missed} if missed else {}
        self.dies_at = dies_at
        self.log: list[str] = [] if log is None else log
        self.turns: list[tuple[int, int]] = []
        self.requests: list[Mapping[str, Any]] = []
        self._random = random.Random(step_s)
        self._command: dict[str, int] = {}

    @contextlib.contextmanager
    def live(self, request: Mapping[str, Any]) -> Iterator[Stand]:
        self.requests.append(request)
        self.log.append("start")
        yield self
        self.log.append("gone")

    def command(self, **fields: int) -> None:
        self._command = fields

    def expect(self, name: str) -> dict[str, Any]:
        if name == self.dies_at:
            raise WorkerError("SIGKILL")
        self.log.append(name)
        if name != "turn":
            return {"event": name, "parameters": 61_706, **self.ends}
        steps, dropped = self._command["steps"], self._command["dropped"]
        self.turns.append((steps, dropped))
        times_s = [self.step_s * (1 + self._random.gauss(0, 0.01)) for _ in range(steps)]
        whole_s = self.bursts * sum(times_s)
        told = {"whole": [whole_s, whole_s, steps], "left": self.leaves_threads}
        return {"wall_s": times_s, "cpu_s": times_s, **told}


def contender(stand: Stand, case: Case = CASE) -> LiveSide:
    return LiveSide(case=case, interpreter=stand)  # type: ignore[arg-type] # a stand-in


def session(*stands: Stand, plan: SessionPlan = PLAN) -> Session:
    sides = dict(zip(("old", "new", "control"), map(contender, stands), strict=False))
    return lockstep_session(sides, plan)


def test_a_slower_code_is_slower_by_both_clocks() -> None:
    found = session(Stand(0.010), Stand(0.011))
    assert found.wall is not None
    assert found.cpu is not None
    assert found.wall.value == pytest.approx(math.log(1.1), abs=0.02)
    assert found.cpu.value == pytest.approx(math.log(1.1), abs=0.02)
    assert found.control_wall is None


class Cold(Stand):
    """One that starts with its first worker."""

    @contextlib.contextmanager
    def live(self, request: Mapping[str, Any]) -> Iterator[Stand]:
        self.started_s = 3.0
        with super().live(request) as worker:
            yield worker


def test_the_start_of_interpreters_is_told_of_a_session_and_is_none_of_its_seconds(
    compare: Compare,
) -> None:
    both = Cold(0.010)
    assert [session(*two).started_s for two in ((both, both), (Cold(0.010), Cold(0.010)))] == [3, 6]
    assert session(both, both).started_s == 0.0

    def cold(number: int, noise: random.Random) -> Session:
        return replace(duet(0.0, noise), started_s=1.5 * (number == 1))

    (found,), _ = compare({"lenet5": cold})
    assert [one.seconds for one in found.live] == [0.5, 2.0, 2.0]


def test_work_that_is_done_in_some_steps_tells_in_the_mean_of_all() -> None:
    found = session(Stand(0.010), Stand(0.010, bursts=2.0))
    assert found.wall is not None
    assert found.wall.value == pytest.approx(0.0, abs=0.02)
    assert found.all_steps == pytest.approx([math.log(2)] * 2, abs=0.02)


def test_code_that_is_imported_after_the_first_step_is_told_at_the_end() -> None:
    codes = session(Stand(0.01), Stand(0.01, late="/nets/later.py")).codes
    assert ["missed" in codes[side] for side in ("old", "new")] == [False, True]
    first = session(Stand(0.01), Stand(0.01, late="/nets/later.py", missed="first")).codes
    assert first["new"]["missed"] == "first"


def test_a_control_is_held_against_the_old_code_and_counts_for_it() -> None:
    found = session(Stand(0.010), Stand(0.011), Stand(0.0105))
    assert found.wall is not None
    assert found.control_wall is not None
    assert found.control_wall.value == pytest.approx(math.log(1.05), abs=0.02)
    assert found.wall.value == pytest.approx(math.log(1.1) - math.log(1.05) / 2, abs=0.02)


def test_all_settle_together_before_the_first_timed_turn_and_short_steps_take_5_ms() -> None:
    log: list[str] = []
    old, new = Stand(0.0005, log=log), Stand(0.0005, log=log)
    session(old, new)
    timed = [turn for turn in old.turns if turn[1]]
    assert old.turns[-len(timed) :] == timed  # settling is over by then
    assert sum(steps for steps, dropped in old.turns if not dropped) >= MIN_STEPS
    assert [turn[0] for turn in timed] == pytest.approx([10] * MIN_ROUNDS, abs=2)
    assert all(dropped == 3 for _, dropped in timed)
    assert log.index("turn") > len(log) - 1 - log[::-1].index("first_step")
    long = Stand(0.02)
    session(long, Stand(0.02))
    assert long.turns[-MIN_ROUNDS:] == [(1, 1)] * MIN_ROUNDS


def test_which_side_is_started_first_is_drawn_by_the_seed() -> None:
    firsts = set()
    for seed in range(8):
        started: list[str] = []
        sides = {name: contender(Named(name, started)) for name in ("old", "new")}
        lockstep_session(sides, replace(PLAN, seed=seed))
        firsts.add(started[0])
    assert firsts == {"old", "new"}


class Named(Stand):
    """Notes its name when it is started."""

    def __init__(self, name: str, started: list[str]) -> None:
        super().__init__(0.01)
        self._name, self._started = name, started

    @contextlib.contextmanager
    def live(self, request: Mapping[str, Any]) -> Iterator[Stand]:
        self._started.append(self._name)
        with super().live(request) as worker:
            yield worker


def test_the_turns_are_told_while_the_workers_are_there_and_their_end_is_awaited() -> None:
    log: list[str] = []
    sides = {name: contender(Stand(0.01, log=log)) for name in ("old", "new")}
    lockstep_session(sides, PLAN, lambda event: log.append(f"told {event['event']}"))
    assert log[-5:] == ["told turns", "finished", "finished", "gone", "gone"]


@pytest.mark.parametrize("dies_at", ["code", "first_step", "turn", "finished"])
def test_a_side_that_fails_at_any_time_is_named_and_the_session_says_nothing(dies_at: str) -> None:
    """At the end a model may have diverged, or have changed its process."""
    found = session(Stand(0.01), Stand(0.01, dies_at=dies_at))
    assert found.failure == SideFailure(side="new", reason="SIGKILL", status="error")
    assert found.wall is None


def test_what_one_code_alone_computes_between_its_steps_is_named() -> None:
    """It slows the other code as well, and the ratio would say that nothing has changed."""
    found = session(Stand(0.01, idle_cpus=0.1), Stand(0.01, idle_cpus=0.94))
    assert found.disturbing.startswith("the new code keeps 0.94 CPUs busy between its steps")
    assert session(Stand(0.01, idle_cpus=1.1), Stand(0.01, idle_cpus=0.9)).disturbing == ""
    found = session(Stand(0.01, thread_cpus=0.01), Stand(0.01, thread_cpus=0.25))
    assert found.disturbing.startswith("the new code keeps 0.25 CPUs busy between its steps")
    found = session(Stand(0.01, leaves_threads=True), Stand(0.01))
    assert found.disturbing.startswith("the old code's steps leave threads at work")
    both = session(*(Stand(0.01, leaves_threads=True, thread_cpus=0.3) for _ in range(2)))
    assert (both.disturbing, both.refusal) == ("", "")  # as much in the other's turns


def test_a_code_that_computes_twice_between_its_steps_is_compared_no_further(
    compare: Compare,
) -> None:
    def disturbing(number: int, noise: random.Random) -> Session:
        one = of_graphs("g", "g")(number, noise)
        return replace(one, disturbing=f"the new code keeps {number}.0 CPUs busy")

    def once(number: int, noise: random.Random) -> Session:
        return (disturbing if number == 1 else changed(0.0))(number, noise)

    found, duets = compare({"lenet5": disturbing, "mini_resnet": once, "conv_layer": changed(0.0)})
    assert [one.verdict("")[0] for one in found] == ["inconclusive", "unchanged", "unchanged"]
    told = "the new code keeps 1.0 CPUs busy"
    assert (found[0].closed, len(duets.plans["lenet5"])) == (told, 2)
    assert (found[1].left_out, found[1].same) == ([told], "")  # a busy machine may say so once


@pytest.mark.parametrize("first", [1, 3])
def test_separate_processes_of_which_one_disturbs_the_other_acquit_no_code(
    compare: Compare, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    taken: list[Session] = []

    def processes(*_: object) -> Session:
        says = "the new code keeps 0.9 CPUs busy" if len(taken) + 1 >= first else ""
        taken.append(replace(duet(0.0), disturbing=says))
        return taken[-1]

    monkeypatch.setattr(Duets, "processes", processes)
    (found,), _ = compare({"lenet5": changed(0.2)})
    told = ["not checked: the new code keeps 0.9 CPUs busy"]
    assert (verdicts([found]), found.separate) == (["regressed"], told)
    assert (len(taken), found.disturbing) == (first, taken[-1].disturbing)


def test_sizes_are_asked_for_where_they_are_wanted_and_each_side_has_its_own_case() -> None:
    old, new = Stand(0.01), Stand(0.01)
    single = replace(CASE, threads="1")
    sides = {"old": contender(old), "new": replace(contender(new, single), asked=("threads",))}
    assert lockstep_session(sides, replace(PLAN, with_work=True)).sizes["new"]["parameters"] > 0
    (request,) = new.requests
    assert (request["case"]["threads"], request["asked"]) == ("1", ["threads"])
    assert old.requests[0]["case"]["threads"] == "default"
    assert session(Stand(0.01), Stand(0.01)).sizes == {}
