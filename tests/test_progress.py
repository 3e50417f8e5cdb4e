"""Progress on a clock of its own: the time left, and the lines of a plain log."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import pytest
from rows import row

from convmark.core.case import Case
from convmark.results.record import Record
from convmark.session.expected import is_guess
from convmark.session.facts import Job
from convmark.session.progress import Display, RunProgress, TimeLeft, narrowed


def job(model: str, process: int = 1, order: int = 1) -> Job:
    return Job(case=Case(model=model, task="train", batch_size=32), process=process, order=order)


def six(case: Case) -> float:
    return 6.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def lines(log: io.StringIO) -> list[str]:
    return log.getvalue().splitlines()


def measured(**changes: Any) -> Record:
    return row(**{"step_time_p50_s": 0.0123, **changes})


def test_before_anything_has_ended_each_job_is_guessed() -> None:
    assert TimeLeft([job("a"), job("b"), job("c")], six).seconds() == 18.0


def test_a_model_of_unknown_size_has_a_range_until_its_first_process_has_ended() -> None:
    log, clock, sizes = io.StringIO(), Clock(), {}

    def guess_s(unknown_s: float) -> Callable[[Case], float]:
        return lambda case: 30.0 if case.model in sizes else unknown_s

    infer = Job(case=Case(model="nets:small", task="infer", batch_size=1), process=1, order=2)
    shown = RunProgress(
        *(log, guess_s(6.0), clock),
        most_s=guess_s(600.0),
        learn=lambda record: sizes.update({"nets:small": 10.0}),
        is_guess=lambda case: is_guess(case, {}, sizes),
    )
    shown.planned([job("nets:small"), infer])
    shown.began(job("nets:small"))
    clock.now += 45.0
    shown.ended(job("nets:small"), measured())
    assert lines(log) == [
        "convmark: 2 processes to measure, about 12 s to 20 min: the size of nets:small is known "
        "after its first process",
        "[1/2] nets:small-train-cpu-b32-float32 #1: 12.3 ms a step, about 45 s left",
    ]
    assert not is_guess(infer.case, {infer.case.name: 3.0}, {})


def test_once_one_has_ended_the_others_are_taken_to_last_as_long() -> None:
    jobs = [job("a"), job("b"), job("c")]
    left = TimeLeft(jobs, six)
    left.ended(jobs[0], 10.0)
    assert left.seconds() == 20.0


def test_a_case_that_ran_before_is_taken_to_last_as_long_again_and_a_new_one_as_the_mean() -> None:
    jobs = [job("a", 1), job("b", 1), job("c", 1), job("a", 2), job("b", 2)]
    left = TimeLeft(jobs, six)
    left.ended(jobs[0], 2.0)
    left.ended(jobs[1], 10.0)
    assert left.seconds() == 6.0 + 2.0 + 10.0
    left.ended(jobs[2], 3.0)
    left.ended(jobs[3], 4.0)
    assert left.seconds() == 10.0
    left.ended(jobs[4], 10.0)
    assert left.seconds() == 0.0


def test_an_hour_of_training_tells_nothing_of_steps_and_steps_nothing_of_it() -> None:
    steps, learning = (
        job("a"),
        Job(case=Case(model="a", task="accuracy", batch_size=256), process=1, order=2, seed=0),
    )
    left = TimeLeft([steps, learning, job("b"), learning], six)
    assert left.seconds() == 6.0 + 300.0 + 6.0 + 300.0
    left.ended(steps, 4.0)
    assert left.seconds() == 300.0 + 4.0 + 300.0
    left.ended(learning, 70.0)
    assert left.seconds() == 4.0 + 70.0


def test_a_plain_log_has_a_line_for_each_epoch() -> None:
    log = io.StringIO()
    each = Job(case=Case(model="a", task="accuracy", batch_size=256), process=2, order=1, seed=0)
    with RunProgress(log, lambda case: 30.0, Clock()) as shown:
        shown.planned([each])
        shown.began(each)
        shown.phase(each, "epoch 1/5 step 7/196")
        shown.phase(each, "epoch 1/5 ended, validation accuracy 0.9123")
        shown.ended(each, row(task="accuracy", accuracy=0.98123))
    assert lines(log)[1:] == [
        "a-accuracy-cpu-b256-float32 #2: epoch 1/5 ended, validation accuracy 0.9123",
        "[1/1] a-accuracy-cpu-b256-float32 #2: test accuracy 0.9812, about 0 s left",
    ]


def test_a_case_that_has_not_run_takes_its_guess_times_what_the_others_took() -> None:
    jobs = [job("small"), job("large")]
    left = TimeLeft(jobs, lambda case: 2.0 if case.model == "small" else 20.0)
    assert left.seconds() == 22.0
    left.ended(jobs[0], 3.0)
    assert left.seconds() == 30.0


@pytest.mark.parametrize("now", [0.2, 1.0, 4.0])
def test_from_the_second_case_on_the_time_left_is_known_though_the_load_has_changed(
    now: float,
) -> None:
    """Guesses are by the load of the moment, 5 times an idle machine's; rows are of the last run.

    Both were of another load than the `now` of the run, each by a factor of its own.
    """
    idle_s = {"a": 1.2, "b": 3.0, "c": 9.0, "d": 1.5, "e": 2.0, "f": 4.0}
    rows = {"a": 1.5, "b": 1.5, "c": 1.5}
    guess_s = {name: seconds * rows.get(name, 5.0) for name, seconds in idle_s.items()}
    jobs = [job(name, process) for process in (1, 2, 3) for name in "adbcef"]
    log, clock = io.StringIO(), Clock()
    shown = RunProgress(
        log, lambda case: guess_s[case.model], clock, is_known=lambda case: case.model in rows
    )
    shown.planned(jobs)
    for place, each in enumerate(jobs):
        shown.began(each)
        clock.now += idle_s[each.case.model] * now
        shown.ended(each, measured())
        left_s = sum(idle_s[one.case.model] * now for one in jobs[place + 1 :])
        told = shown._left[0].seconds()
        assert place < 1 or left_s / 1.5 <= told <= 1.5 * left_s, (place, left_s, told)


def test_no_jobs_take_no_time() -> None:
    assert TimeLeft([], six).seconds() == 0.0


def test_a_plain_log_has_a_line_at_the_start_and_one_per_process() -> None:
    log, clock = io.StringIO(), Clock()
    jobs = [job("a", 1, 1), job("b", 1, 2), job("a", 2, 3)]
    with RunProgress(log, lambda case: 30.0, clock) as shown:
        shown.planned(jobs)
        for each, seconds in zip(jobs, (50.0, 70.0, 50.0), strict=True):
            shown.began(each)
            shown.phase(each, "warm-up")
            clock.now += seconds
            shown.ended(each, measured())
    assert lines(log) == [
        "convmark: 3 processes to measure, about 1 min 30 s",
        "[1/3] a-train-cpu-b32-float32 #1: 12.3 ms a step, about 1 min 40 s left",
        "[2/3] b-train-cpu-b32-float32 #1: 12.3 ms a step, about 50 s left",
        "[3/3] a-train-cpu-b32-float32 #2: 12.3 ms a step, about 0 s left",
    ]


@pytest.mark.parametrize(
    ("record", "outcome"),
    [
        (measured(), "12.3 ms a step"),
        (measured(status="unsteady"), "12.3 ms a step (unsteady)"),
        (measured(status="unsteady", unsteady="it rose"), "12.3 ms a step (unsteady: it rose)"),
        (row(status="timeout", error="no sign for 600 s"), "timeout: no sign for 600 s"),
    ],
)
def test_a_line_says_what_came_of_the_process(record: Record, outcome: str) -> None:
    log = io.StringIO()
    shown = RunProgress(log, six, Clock())
    shown.planned([job("a")])
    shown.began(job("a"))
    shown.ended(job("a"), record)
    assert f" #1: {outcome}, about " in lines(log)[-1]


def test_orders_are_padded_so_that_the_lines_stand_below_each_other() -> None:
    log = io.StringIO()
    jobs = [job("a", order=number) for number in range(1, 11)]
    shown = RunProgress(log, six, Clock())
    shown.planned(jobs)
    for each in jobs:
        shown.began(each)
        shown.ended(each, measured())
    assert lines(log)[1].startswith("[ 1/10] ")
    assert lines(log)[10].startswith("[10/10] ")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_newest_text_replaces_the_last_on_a_terminal_and_is_a_line_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        with Display(stream, counted=False) as shown:
            shown.update("", "begins")
            shown.newest("[one]")
            shown.newest("two")
    assert file.getvalue() == "[one]\ntwo\n"
    assert "two" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[2K"), "the lane is gone at the end"


def test_a_line_of_eighty_columns_keeps_numbers_time_and_phase_and_shortens_the_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    case, stream = "nets_of_a_shop:two_eyes-train-cpu-b32-float32", Terminal()
    with Display(stream) as shown:
        shown.update("", f"{case} #1 warm-up", done=3, total=12, left="12 min 30 s left")
    bare = re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue())
    line = next(one for one in re.split(r"[\r\n]|\x1b\[\S[A-Z]", bare) if "#1" in one)
    assert len(line.rstrip()) <= 80
    assert line.startswith(" 3/12 ")
    assert line.rstrip().endswith("float32 #1 warm-up")
    assert " 12 min 30 s left nets_of" in line
    with Display(stream, counted=False) as shown:
        shown.newest(f"{case}: session 3, 0 of 1 case decided, at most 14 min 30 s left")
    assert "float32: session 3, 0 of 1 case decided, at most 14 min 30 s left" in stream.getvalue()


def test_a_name_gives_way_before_the_rest_of_a_line_and_a_short_line_stays() -> None:
    text = "lenet5-train-cpu-b32-float32 #1 warm-up"
    assert narrowed(text, len(text)) == text
    assert narrowed(text, 30) == "lenet5-tr…2-float32 #1 warm-up"
    assert narrowed(text, 20) == "lenet…loat32 #1 war…"
    assert [len(narrowed(text, width)) for width in (0, 1, 15, 38)] == [1, 1, 15, 38]


def test_nothing_is_shown_without_a_stream() -> None:
    with RunProgress(None) as shown:
        shown.planned([job("a")])
        shown.began(job("a"))
        shown.phase(job("a"), "steps")
        shown.ended(job("a"), measured(status="error"))


def test_a_live_line_leaves_a_line_behind_for_a_failure_alone() -> None:
    stream = Terminal()
    jobs = [job("a", order=1), job("b", order=2)]
    with RunProgress(stream, six, Clock()) as shown:
        shown.planned(jobs)
        for each, record in zip(
            jobs, (measured(), row(status="error", error="[red] no")), strict=True
        ):
            shown.began(each)
            shown.phase(each, "[steps]")
            shown.ended(each, record)
    assert "b-train-cpu-b32-float32 #1: error: [red] no" in stream.getvalue()
    assert "a step" not in stream.getvalue()


def test_a_lane_that_never_began_ends_quietly() -> None:
    stream = Terminal()
    with RunProgress(stream, six, Clock()):
        pass
    assert stream.getvalue() == ""
