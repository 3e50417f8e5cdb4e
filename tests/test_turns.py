"""Steps that take turns, on a clock of their own; and what a session of them amounts to."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from workers import happens

from convmark.compare.live.session import session_of
from convmark.interpreter import Answer
from convmark.session.result import missed_of
from convmark.worker import host
from convmark.worker.host import idle_cpus
from convmark.worker.timing import Turn
from convmark.worker.turns import (
    Turns,
    another_build,
    settled_step_times,
    take_rounds,
    timed_turn,
    turn_steps,
)


class Machine:
    """A clock that only steps move; the step that follows another model's takes longer."""

    def __init__(self, cold_s: float = 0.0) -> None:
        self.now_s = 0.0
        self.cold_s = cold_s
        self.last = ""
        self.log: list[str] = []

    def synchronise(self, token: Any) -> None:
        assert token == self.log[-1], "each step is waited for"


class Code:
    def __init__(self, machine: Machine, name: str, *seconds: float) -> None:
        self.machine, self.name = machine, name
        self._seconds, self._taken = seconds, 0

    def turn(self, steps: int, dropped: int) -> Turn:
        machine = self.machine
        machine.now_s += 0.5  # is no part of a step time
        return timed_turn(
            self.step, machine, steps, dropped, lambda: machine.now_s, lambda: machine.now_s / 2
        )

    def step(self) -> str:
        machine = self.machine
        seconds = self._seconds[min(self._taken, len(self._seconds) - 1)]
        self._taken += 1
        machine.now_s += seconds + machine.cold_s * (machine.last != self.name)
        machine.last = self.name
        machine.log.append(self.name)
        return self.name


def pair(machine: Machine, old: float, new: float) -> dict[str, Code]:
    return {"old": Code(machine, "old", old), "new": Code(machine, "new", new)}


def test_turns_of_many_steps_drop_those_that_run_cold() -> None:
    found = {}
    for steps in ((1, 0), (50, 12)):
        machine = Machine(cold_s=0.001)
        codes = pair(machine, 0.001, 0.002)
        turns = take_rounds(codes, steps, 3.0, random.Random(1), clock=lambda m=machine: m.now_s)
        found[steps] = sum(turns.wall_s["new"]) / sum(turns.wall_s["old"])
        assert (turns.steps, turns.dropped) == steps
        assert turns.cpu_s["new"][-1] == pytest.approx(turns.wall_s["new"][-1] / 2)
    assert found[1, 0] < 1.8
    assert found[50, 12] == pytest.approx(2.0)


def test_a_turn_ends_early_on_a_machine_that_is_held_up() -> None:
    machine = Machine()
    codes = pair(machine, 0.1, 0.1)
    take_rounds(codes, (100, 25), 0.0, random.Random(1), clock=lambda: machine.now_s)
    assert len(machine.log) < 6 * 2 * 2 * 5


def test_a_session_names_the_code_whose_steps_leave_threads_at_work() -> None:
    """What these compute falls on the other code, so that the ratio says too little."""
    machine, ends = Machine(), threading.Event()
    codes = pair(machine, 0.01, 0.01)
    plain, started = codes["new"].step, []

    def leaving() -> str:
        if len(started) < 40:
            started.append(threading.Thread(target=ends.wait))
            started[-1].start()
        return plain()

    def told() -> str:
        turns = take_rounds(codes, (1, 0), 0.0, random.Random(1), clock=lambda: machine.now_s)
        found = session_of(answer({"event": "turns", "build": 0, **turns.fields()}))
        return found.refusal or found.disturbing

    try:
        codes["new"].step = leaving  # type: ignore[method-assign]
        assert told().startswith("the new code's steps leave threads at work when they end")
        codes["new"].step = plain  # type: ignore[method-assign]
        assert told() == ""  # though those are still there
        codes["new"].step = codes["old"].step = leaving  # type: ignore[method-assign]
        assert told() == "the steps of both codes leave threads at work"  # in lock-step from here
        started.extend([None] * (39 - len(started)))
        codes["old"].step = plain  # type: ignore[method-assign]
        assert told() == ""  # once, as a pool is made
    finally:
        ends.set()
        for thread in filter(None, started):
            thread.join()


def test_each_round_has_one_turn_of_each_in_random_order() -> None:
    machine = Machine()
    codes = pair(machine, 0.02, 0.02)
    turns = take_rounds(codes, (1, 0), 12.0, random.Random(3), clock=lambda: machine.now_s)
    rounds = [tuple(machine.log[place : place + 2]) for place in range(0, len(machine.log), 2)]
    assert set(rounds) == {("old", "new"), ("new", "old")}
    assert len(rounds) == len(turns.wall_s["old"]) == len(turns.wall_s["new"])


@pytest.mark.parametrize(
    ("old_s", "new_s", "expected"),
    [
        (0.003, 0.003, (1, 0)),
        (0.002, 0.002, (3, 3)),
        (0.002, 0.008, (2, 3)),
        (0.0001, 0.0001, (50, 10)),
    ],
)
def test_a_turn_is_one_step_from_2_5_ms_on_and_5_ms_of_shorter_ones_after_a_few_dropped(
    old_s: float, new_s: float, expected: tuple[int, int]
) -> None:
    assert turn_steps({"old": old_s, "new": new_s}) == expected


def test_a_process_that_has_slept_drops_steps_however_long_they_are() -> None:
    assert turn_steps({"old": 0.003, "new": 0.003}, apart=True) == (2, 3)
    assert turn_steps({"old": 0.02, "new": 0.02}, apart=True) == (1, 1)


def test_models_of_short_steps_are_built_twice_and_again_where_builds_differ() -> None:
    def build(ratio: float, dropped: int = 3) -> Turns:
        return Turns(5, dropped, {"new": [ratio * 0.001] * 5, "old": [0.001] * 5})

    assert another_build([build(1.0)], 4)
    assert not another_build([build(1.0, dropped=0)], 4)
    assert not another_build([build(1.0), build(1.03)], 4)
    assert another_build([build(1.0), build(1.05)], 4)
    assert not another_build([build(1.0), build(1.05)], 2)


def test_codes_settle_until_both_are_steady() -> None:
    machine = Machine()
    late = [0.1] * 20 + [0.02]
    codes = {"old": Code(machine, "old", 0.02), "new": Code(machine, "new", *late)}
    found = settled_step_times(codes, 60.0, random.Random(1))
    assert found["old"] == pytest.approx(0.02)
    assert machine.log.count("new") >= 10


def test_settling_ends_with_its_budget() -> None:
    machine = Machine()
    rising = [0.1 * 1.3**number for number in range(40)]
    codes = {"old": Code(machine, "old", 0.02), "new": Code(machine, "new", *rising)}
    settled_step_times(codes, 1.0, random.Random(1))
    assert 4 <= machine.log.count("new") < 10


def answer(*events: dict[str, Any], status: str = "ok") -> Answer:
    return Answer(status=status, message="why" * (status != "ok"), events=[*events], ready_s=0.1)


def test_code_that_is_imported_after_the_first_step_leaves_it_unknown_what_a_side_ran() -> None:
    codes = [{"event": "code", "side": side, "files": []} for side in ("old", "new")]
    late = {"event": "late", "side": "new", "late": "/nets/later.py"}
    found = session_of(answer(*codes, turns(1.0), late)).codes
    missed = "later.py was imported after the first step"
    told = [{**codes[1], "missed": "first"}, {**late, "late": "/nets/w.txt"}]
    assert session_of(answer(*told, turns(1.0))).codes["new"]["missed"] == "first"
    assert [code.get("missed") for code in found.values()] == [None, missed]
    end = {"event": "finished", "late": "/nets/later.py"}
    assert missed_of(answer(codes[0], end)) == missed
    assert missed_of(answer(codes[0], {"event": "finished"})) == ""
    read = {"event": "finished", "late": "/nets/table.npy"}
    assert missed_of(answer(codes[0], read)) == "table.npy was opened after the first step"


def turns(ratio: float, **more: Any) -> dict[str, Any]:
    old = [0.001, 0.002, 0.001, 0.002, 0.001]
    new = [ratio * seconds for seconds in old]
    lists = {"old_wall_s": old, "new_wall_s": new, "old_cpu_s": new, "new_cpu_s": old}
    return {
        "event": "turns",
        "build": 0,
        "steps": 50,
        "dropped": 12,
        **lists,
        **more,
    }


def test_a_session_is_the_trimmed_mean_of_its_pairs() -> None:
    session = session_of(answer(turns(1.1)))
    assert session.wall is not None
    assert session.cpu is not None
    assert session.wall.value == pytest.approx(math.log(1.1))
    assert session.cpu.value == pytest.approx(-math.log(1.1))


def test_a_control_counts_for_the_old_code_and_is_held_against_it() -> None:
    control = {"control_wall_s": [0.0011, 0.0022, 0.0011, 0.0022, 0.0011]}
    session = session_of(answer(turns(1.2, **control, control_cpu_s=[0.001] * 5)))
    assert session.wall is not None
    assert session.control_wall is not None
    assert session.wall.value == pytest.approx(math.log(1.2) - math.log(1.1) / 2)
    assert session.control_wall.value == pytest.approx(math.log(1.1))
    assert session_of(answer(turns(1.2))).control_wall is None


def test_builds_that_differ_widen_a_sessions_error() -> None:
    session = session_of(answer(turns(1.0), turns(1.2, build=1)))
    assert session.wall is not None
    assert session.wall.value == pytest.approx(math.log(1.2) / 2)
    assert session.wall.error == pytest.approx(math.log(1.2) / 2)


def test_a_clock_too_coarse_gives_no_ratio() -> None:
    session = session_of(answer(turns(1.1, old_cpu_s=[0.0] * 5)))
    assert session.cpu is None
    assert session.wall is not None


def test_sizes_are_those_after_the_first_step_as_in_a_row() -> None:
    sizes = {"side": "old", "parameters": 6, "trainable_parameters": 5, "model_bytes": 24}
    none = {"event": "built", **sizes, "parameters": 0, "model_bytes": 0}
    session = session_of(answer(none, {"event": "counted", **sizes}, turns(1.1)))
    assert session.sizes["old"]["parameters"] == 6
    assert session.sizes["old"]["model_bytes"] == 24


def test_codes_that_cannot_share_or_run_say_why() -> None:
    refused = session_of(answer({"event": "cannot_share", "reason": "eager"}))
    assert (refused.refusal, refused.wall) == ("eager", None)
    failed = {"event": "cannot_run", "side": "old", "reason": "no module", "status": "error"}
    failure = session_of(answer(failed)).failure
    assert failure is not None
    assert (failure.side, failure.reason) == ("old", "no module")
    built = {"event": "built", "side": "old", "parameters": 1, "trainable_parameters": 1}
    killed = session_of(answer({**built, "model_bytes": 4}, status="out_of_memory"))
    assert killed.refusal == "not enough memory for both: why"
    died = session_of(answer(status="crashed")).failure
    assert died is not None
    assert died.status == "crashed"


@pytest.mark.parametrize(
    ("used", "told", "slept"),
    [([0.1], 0.1, 1), ([1.0, 1.0, 0.2], 0.2, 3), ([0.9] * 6, 0.9, 6), ([2.0, 1.0] * 3, 1.0, 6)],
)
def test_threads_that_spin_for_a_while_after_a_step_are_no_work(
    used: list[float], told: float, slept: int
) -> None:
    """OpenMP's look for more work for up to 0.2 s."""
    now_s, used_s, windows = [0.0], [0.0], iter(used)

    def sleep(seconds: float) -> None:
        now_s.append(now_s[-1] + seconds)
        used_s.append(used_s[-1] + next(windows) * seconds)

    found = idle_cpus(sleep, lambda: now_s[-1], lambda: used_s[-1])
    assert found == pytest.approx(told)
    assert len(now_s) == slept + 1


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells of children")
def test_the_time_of_python_s_other_threads_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that works in bursts is idle at most looks, and slows the other code all the same."""
    own, ends = threading.get_native_id(), threading.Event()
    assert host._scheduled_s(os.getpid(), own)[0] > 0
    thread = threading.Thread(target=ends.wait)
    thread.start()
    try:
        times_s = {own: (5.0, 0.0), thread.native_id: (2.0, 9.0)}  # it waited for CPUs of others
        monkeypatch.setattr(host, "_scheduled_s", lambda pid, one: times_s.get(one, (0.0, 0.0)))
        assert host.threads_of_python_s() == 2.0
    finally:
        ends.set()
        thread.join()


def test_a_thread_of_native_code_that_has_called_python_is_left_by_no_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A framework's pool has many, each of which Python knows from its first call on."""
    machine, there = Machine(), threading.enumerate()

    def one_more() -> list[threading.Thread]:
        there.append(threading._DummyThread.__new__(threading._DummyThread))
        return [*there]

    with monkeypatch.context() as patch:
        patch.setattr(threading, "enumerate", one_more)
        codes, draw = pair(machine, 0.01, 0.01), random.Random(1)
        turns = take_rounds(codes, (1, 0), 0.0, draw, clock=lambda: machine.now_s)
    assert turns.left == {}


def test_what_a_child_computes_counts_as_what_the_process_does() -> None:
    before_s = host._used_s() - time.process_time()
    child = subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"])
    try:
        assert happens(lambda: host._used_s() - time.process_time() > before_s + 0.05, within_s=60)
    finally:
        child.kill()
        child.wait()
