"""What the caller sees of a fleet while it measures: a line for each node, with the time left."""

from __future__ import annotations

import io
import re

import pytest
from rows import row

from convmark.core.case import Case
from convmark.session.facts import Job
from convmark.session.fleet.run import FleetProgress
from convmark.session.fleet.scheduler import Assignment, Member, Scheduler
from convmark.session.result import Result

CASE = Case(model="lenet5", task="train", batch_size=32)
NAMES = {"x": "rack-1", "y": "rack-2"}
FOUR = [Job(case=CASE, process=number, order=number) for number in range(1, 5)]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def ten_seconds(case: Case) -> float:
    return 10.0


def scheduler_of(**plans: list[Job]) -> Scheduler:
    members = [Member(name=name, host=name, kind="k") for name in plans]
    return Scheduler(members, plans, expected_s=ten_seconds)


def result(status: str = "ok", error: str | None = None) -> Result:
    record = row(status=status, error=error, step_time_p50_s=0.01)
    return Result(case=CASE, record=record, step_times_s=[])


def begin(scheduler: Scheduler, shown: FleetProgress) -> dict[str, Assignment]:
    begun = {one.node: one for one in scheduler.assignments()}
    for one in begun.values():
        shown.began(one)
    return begun


def end(scheduler: Scheduler, shown: FleetProgress, one: Assignment, what: Result) -> None:
    scheduler.ended(one.node)
    shown.ended(one, what)


def last_frame(stream: io.StringIO) -> list[str]:
    """Return the lines that stand on the terminal in the end."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    return [line for line in text.replace("\r", "\n").splitlines() if line.strip()][-2:]


def test_a_terminal_has_a_line_for_each_node_with_the_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream, scheduler, clock = Terminal(), scheduler_of(x=FOUR, y=FOUR), Clock()
    with FleetProgress(stream, scheduler, NAMES, ten_seconds, clock) as shown:
        begun = begin(scheduler, shown)
        clock.now_s = 20.0
        end(scheduler, shown, begun["x"], result())  # twice as long as expected: 3 x 20 s are left
        scheduler.lost("y", "power")
        shown.lost("y", "power")
    first, second = last_frame(stream)
    assert re.match(r"rack-1 +1/4 .* 1 min left", first), first
    assert second.startswith("rack-2")
    assert second.rstrip().endswith("lost: power")


def test_a_live_line_leaves_a_line_behind_for_a_failure_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream, scheduler = Terminal(), scheduler_of(x=FOUR)
    with FleetProgress(stream, scheduler, NAMES, ten_seconds, Clock()) as shown:
        end(scheduler, shown, begin(scheduler, shown)["x"], result("error", "[red] no"))
        end(scheduler, shown, begin(scheduler, shown)["x"], result())
    assert "rack-1 lenet5-train-cpu-b32-float32 #1: error: [red] no" in stream.getvalue()
    assert "a step" not in stream.getvalue()


def test_a_file_has_a_line_for_each_process_with_its_node_and_the_time_left() -> None:
    log, scheduler, clock = io.StringIO(), scheduler_of(x=FOUR, y=[]), Clock()
    shown = FleetProgress(log, scheduler, NAMES, ten_seconds, clock)
    end(scheduler, shown, begin(scheduler, shown)["x"], result())
    scheduler.lost("x", "power")
    shown.lost("x", "power")
    begun = begin(scheduler, shown)
    clock.now_s = 10.0
    end(scheduler, shown, begun["y"], result())
    first, second, third = log.getvalue().splitlines()
    assert re.fullmatch(r"rack-1 \[1/4\] lenet5-.* #1: 10.0 ms a step, about .* left", first)
    assert second == "rack-1: lost: power"
    assert re.fullmatch(r"rack-2 \[1/4\] for rack-1 lenet5-.* #1: .*, about 30 s left", third)


def test_what_is_left_is_what_is_expected_by_how_the_node_has_kept_to_it() -> None:
    scheduler, clock = scheduler_of(x=FOUR), Clock()
    shown = FleetProgress(None, scheduler, NAMES, ten_seconds, clock)
    begun = begin(scheduler, shown)
    assert shown.left_s("x") == 40.0
    clock.now_s = 5.0
    assert shown.left_s("x") == 35.0
    end(scheduler, shown, begun["x"], result())
    assert shown.left_s("x") == 15.0, "half as long as expected"
