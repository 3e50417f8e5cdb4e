"""The rate at a latency limit: queues on a hand-made clock whose theory is known, and a run."""

from __future__ import annotations

import dataclasses
import math
import random
import re
from collections.abc import Callable
from decimal import Decimal, localcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fake_worker import FakeInterpreter

from convmark.cli import main
from convmark.core.table import plain
from convmark.report.build import build
from convmark.results.reading import read_run
from convmark.session.latency_limit import TABLE
from convmark.worker import arrivals
from convmark.worker.arrivals import (
    Try,
    chance_of_at_most,
    find_rate,
    schedule,
    serve,
    wait_until,
)
from convmark.worker.timing import Pulse

STEP_S = 0.001


class Machine:
    """A clock that steps and waiting move on."""

    def __init__(self, step_s: Callable[[], float] = lambda: STEP_S) -> None:
        self.now_s, self._step_s = 0.0, step_s

    def clock(self) -> float:
        return self.now_s

    def step(self) -> None:
        self.now_s += self._step_s()

    def wait(self, due_s: float) -> None:
        self.now_s = due_s

    def synchronise(self, token: Any) -> None:
        pass

    def serve(self, due: list[float], batch_size: int = 1, limit_s: float = 1.0) -> Try:
        return serve(self.step, self, batch_size, limit_s, len(due) / due[-1], due,
                     clock=self.clock, wait=self.wait, usage=lambda: None)  # fmt: skip

    def events(self, limit_s: float, batch_size: int = 1, seed: int = 0) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []

        def emit(event: str, **fields: Any) -> None:
            found.append({"event": event, **fields})

        pulse = Pulse(lambda phase: emit("progress", phase=phase), self.clock)
        arrivals.at_limit(self.step, self, batch_size, STEP_S, limit_s, seed, emit, pulse,
                          clock=self.clock, wait=self.wait, usage=lambda: None)  # fmt: skip
        return found


def found_by(machine: Machine, limit_s: float, **more: int) -> dict[str, Any]:
    return machine.events(limit_s, **more)[-1]


# Theory


def late_share_of_md1(load: float, limit_steps: int) -> float:
    """Return the share of requests later than the limit where each takes one step alone.

    Source:
        Erlang (1909): P(wait <= x) = (1 - r) sum_k (r (k - x))^k / k! exp(-r (k - x)), in steps.
    """
    with localcontext() as context:
        context.prec = 80
        r, x = Decimal(load), limit_steps - 1
        terms = ((r * (k - x)) ** k / math.factorial(k) * (-r * (k - x)).exp()
                 for k in range(1, x + 1))  # fmt: skip
        return float(1 - (1 - r) * ((r * x).exp() + sum(terms)))


def load_of_md1(limit_steps: int) -> float:
    low, high = 0.01, 0.999
    for _ in range(40):
        middle = (low + high) / 2
        late = late_share_of_md1(middle, limit_steps) > 0.01
        low, high = (low, middle) if late else (middle, high)
    return low


@pytest.mark.parametrize("limit_steps", [8, 16])
def test_equal_steps_give_the_rate_of_theory(limit_steps: int) -> None:
    theory = load_of_md1(limit_steps) / STEP_S
    found = [found_by(Machine(), limit_steps * STEP_S, seed=seed) for seed in range(3)]
    rate, proved = (sum(one[name] for one in found) / 3 for name in ("rate_per_s", "proved_per_s"))
    assert rate == pytest.approx(theory, rel=0.03)
    assert proved > 0.8 * theory
    assert all(one["proved_per_s"] <= theory for one in found)


def test_random_steps_give_the_rate_of_theory() -> None:
    """Where steps are exponential, a latency is too: its rate is that of steps less requests."""
    draw = random.Random(3)
    machine = Machine(lambda: draw.expovariate(1 / STEP_S))
    theory = (1 - math.log(100) / 16) / STEP_S
    assert found_by(machine, 16 * STEP_S)["rate_per_s"] == pytest.approx(theory, rel=0.05)


def test_batches_answer_more_requests_within_the_same_limit() -> None:
    alone, together = (found_by(Machine(), 0.008, batch_size=size) for size in (1, 8))
    assert 7 * alone["rate_per_s"] < together["rate_per_s"] < 8 / STEP_S


def test_a_stall_of_a_short_try_does_not_end_the_search_below() -> None:
    steps = iter([STEP_S] * 100 + [0.2])
    events = Machine(lambda: next(steps, STEP_S)).events(0.008)
    first, second = [one for one in events if one["event"] == "try"][:2]
    assert first["rate_per_s"] == second["rate_per_s"]
    assert (first["holds"], second["holds"]) == (False, True)
    assert events[-1]["rate_per_s"] == pytest.approx(load_of_md1(8) / STEP_S, rel=0.05)


def test_a_try_that_failed_beside_other_programs_is_repeated() -> None:
    rates: list[float] = []

    def at(rate_per_s: float, share: float) -> Try:
        """Hold up to 500/s; every second try has other programs, and late requests."""
        rates.append(rate_per_s)
        busy = len(rates) % 2 == 1
        late = [100 * (busy or rate_per_s > 500)] * 20
        return dataclasses.replace(tried(late), rate_per_s=rate_per_s, other_cpu_share=0.3 * busy)

    best, proved = find_rate(at, 1000.0)
    assert best is not None
    assert 490 <= best.rate_per_s <= 500
    assert proved is not None
    assert rates[0] == rates[1] != rates[-1]


# A try


def test_latency_counts_from_when_a_request_was_due() -> None:
    """The 50th takes 2.5 s, so the next two wait for 1.5 and 0.51 s; all others take 0.01 s."""
    slow = iter([*[0.01] * 49, 2.5, *[0.01] * 150])
    found = Machine(lambda: next(slow)).serve([float(n) for n in range(1, 201)], limit_s=0.3)
    assert (found.p50_s, found.p99_s) == (pytest.approx(0.01), pytest.approx(0.52))
    assert [place for place, late in enumerate(found.late) if late] == [4, 5]
    assert (sum(found.late), found.steps, found.seconds) == (3, 200, pytest.approx(200.01))


def test_a_step_answers_those_that_wait_up_to_a_batch() -> None:
    found = Machine(lambda: 1.0).serve([1.0, 1.1, 1.2, 1.3, 9.0], batch_size=2, limit_s=9.0)
    assert found.steps == 4  # the first; two that wait; the one left; the last
    assert found.p99_s == pytest.approx(2.7)
    assert found.load == pytest.approx(5 / 9 / 2)


def test_a_schedule_is_of_a_poisson_process_with_exactly_the_rate() -> None:
    due = schedule(200.0, 20_000, random.Random(1))
    assert due[-1] == pytest.approx(100.0)
    gaps = [due[0], *(b - a for a, b in pairwise(due))]
    for times in (0.1, 1.0, 3.0):
        share = sum(gap > times / 200 for gap in gaps) / len(gaps)
        assert share == pytest.approx(math.exp(-times), abs=0.01)
    assert due == schedule(200.0, 20_000, random.Random(1))
    assert due != schedule(200.0, 20_000, random.Random(2))


def test_waiting_ends_when_a_request_is_due_and_not_before() -> None:
    now, slept = [0.0], []

    def clock() -> float:
        now[0] += 1e-5
        return now[0]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds + 2e-4  # later than asked for

    wait_until(0.01, clock, sleep)
    assert 0.01 <= now[0] < 0.01 + 2e-5
    assert slept == [pytest.approx(0.0095, abs=1e-4)]
    wait_until(now[0] + 1e-4, clock, sleep)
    assert len(slept) == 1


# Judgement


def tried(late: list[int], requests: int = 20_000, load: float = 0.5) -> Try:
    return Try(rate_per_s=100.0, requests=requests, seconds=1.0, late=late, p50_s=0.1, p99_s=0.1,
               steps=1, load=load, overrun=False)  # fmt: skip


def test_few_requests_prove_as_little_as_in_mlperf() -> None:
    """459 without a late one, 662 with one: the rules' table of early stopping."""
    for late, least in ((0, 459), (1, 662)):
        assert chance_of_at_most(late, least) < 0.01 <= chance_of_at_most(late, least - 1)
    assert chance_of_at_most(5, 5) == 1.0


def test_late_requests_that_come_together_prove_less_than_as_many_apart() -> None:
    apart, together = tried([3] * 20), tried([60] + [0] * 19)
    assert apart.holds
    assert apart.proved
    assert together.holds
    assert not together.proved


def test_a_queue_that_will_grow_does_not_hold_though_no_request_is_late_yet() -> None:
    due = list(schedule(1.02 / STEP_S, 1000, random.Random(1)))
    found = Machine().serve(due, limit_s=1.0)
    assert (sum(found.late), found.holds) == (0, False)
    assert found_by(Machine(), 1.0)["rate_per_s"] <= 0.95 / STEP_S


def test_a_try_ends_once_far_too_many_are_late() -> None:
    due = list(schedule(2 / STEP_S, 10_000, random.Random(1)))
    found = Machine().serve(due, limit_s=0.005)
    assert found.overrun
    assert not found.holds
    assert found.requests < 1100


def test_more_requests_are_asked_for_where_more_steps_fit_in_the_limit() -> None:
    asked = [arrivals.requests_at(100.0, 1, steps * STEP_S, STEP_S) for steps in (2, 8, 100)]
    assert asked == [1000, 3840, 20_000]
    assert arrivals.requests_at(10_000.0, 256, 0.01, 0.02) == 128_000
    assert arrivals.requests_at(1000.0, 1, 0.2, STEP_S) == 20_000


def test_a_limit_that_load_alone_decides_asks_for_no_more_requests() -> None:
    assert arrivals.requests_at(1000.0, 1, 60.0, STEP_S) == 20_000
    rate_per_s = arrivals.MOST_LOAD / STEP_S
    due = schedule(rate_per_s, 200_000, random.Random(5))
    draw = random.Random(6)
    found = Machine(lambda: draw.expovariate(1 / STEP_S)).serve(
        due, limit_s=arrivals.MOST_STEPS_WAITED * STEP_S
    )
    assert not sum(found.late)


# A run


class Limited(FakeInterpreter):
    """Searches a rate, as a worker with equal steps of 1 ms does."""

    step_s = STEP_S
    interrupted = False

    def other_cpu_share(self, rate_per_s: float) -> float:
        return 0.01

    def answer(self, request: Any, on_event: Callable[..., None] = lambda event: None) -> Any:
        answer = super().answer(request, on_event)
        if not request.get("latency_limit_s"):
            return answer
        assert request["case"]["task"] == "infer"
        events = Machine(lambda: self.step_s).events(request["latency_limit_s"])
        if self.step_s > request["latency_limit_s"]:
            events = [events[0], {**events[-1], "step_time_s": self.step_s}]
            events[-1] |= {"rate_per_s": None, "proved_per_s": None}
        for event in events[:5] if self.interrupted else events:
            if event["event"] == "try":
                event["other_cpu_share"] = self.other_cpu_share(event["rate_per_s"])
            on_event(event)
        if self.interrupted:
            raise KeyboardInterrupt
        return answer


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("convmark.interpreter.Interpreter", Limited)
    monkeypatch.setattr("convmark.interpreter.inspection.Interpreter", Limited, raising=False)
    return ["run", "--models", "lenet5", "--batch-sizes", "1", "--processes", "2",
            "--latency-limit", "8ms"]  # fmt: skip


def rows_of_inference() -> tuple[list[Any], Path]:
    (path,) = (one for one in Path("results").glob("*/0001.csv"))
    return [row for row in read_run(path) if row.task == "infer"], path


def test_a_run_keeps_the_tries_and_shows_the_rate(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 0
    (first, second), path = rows_of_inference()
    assert first.latency_limit_proved_per_s < first.latency_limit_rate_per_s
    assert first.latency_limit_p50_s < first.latency_limit_p99_s <= first.latency_limit_s == 0.008
    assert (first.latency_limit_confidence, first.latency_limit_note) == (0.99, None)
    assert second.latency_limit_s is None
    kept = TABLE.of(path)
    assert [one.number for one in kept] == list(range(1, len(kept) + 1))
    best = max(one.rate_per_s for one in kept if one.holds and one.requests > 5000)
    assert first.latency_limit_rate_per_s == best  # of the long tries
    assert kept[-1].rate_per_s == first.latency_limit_proved_per_s
    assert kept[-1].proved
    rate = f"{first.latency_limit_rate_per_s:.0f}"
    assert re.search(rf"lenet5-infer-cpu-b1-float32 +8.00 ms +{rate}", capsys.readouterr().out)
    (table,) = (one for one in build([Path("results")]).tables if one.key == "latency_limit")
    assert table.column("latency_limit_rate_per_s") == [first.latency_limit_rate_per_s]


def test_other_load_is_that_of_the_tries_that_tell_the_rate(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(command) == 0
    (first, _), path = rows_of_inference()
    rates = [one.rate_per_s for one in TABLE.of(path)]
    too_high = min(rate for rate in rates if rate > first.latency_limit_rate_per_s)
    busy = {too_high: 0.3, max(rates): 0.7}
    monkeypatch.setattr(Limited, "other_cpu_share", lambda self, rate: busy.get(rate, 0.01))
    assert main(command) == 0
    found = {row.latency_limit_other_cpu_share for row in read_run(path.with_name("0002.csv"))}
    assert found == {0.3, None}


def test_a_limit_below_one_step_is_said_to_be_out_of_reach(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Limited, "step_s", 0.012)
    assert main(command) == 0
    (first, _), _ = rows_of_inference()
    assert first.latency_limit_note == "not reachable: a single step takes 12.0 ms"
    assert first.latency_limit_rate_per_s is None
    assert "not reachable" in capsys.readouterr().out
    (table,) = (one for one in build([Path("results")]).tables if one.key == "latency_limit")
    assert "not reachable: a single step takes 12.0 ms" in plain(table)


def test_ctrl_c_keeps_the_row_and_the_tries_so_far(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Limited, "interrupted", True)
    assert main([*command, "--tasks", "infer"]) == 130
    (only,), path = rows_of_inference()
    count = len(TABLE.of(path))
    assert only.status == "ok"
    assert only.latency_limit_note == f"not found: the search ended early; rates tried: {count}"


def test_a_merge_takes_the_tries_along_and_they_know_their_rows(command: list[str]) -> None:
    for folder in ("one", "two"):
        assert main([*command, "--tasks", "infer", "--results", folder]) == 0
    assert main(["merge", "one", "two"]) == 0
    paths = sorted(Path("results").glob("*/000?.csv"))
    for path, folder in zip(paths, ("one", "two"), strict=True):
        (before,) = Path(folder).glob("*/0001.csv")
        found = TABLE.of(path)
        assert {one.run for one in found} == {path.stem}
        assert [dataclasses.replace(one, run="0001") for one in found] == TABLE.read(
            TABLE.path(before)
        )


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--tasks", "train"], "--latency-limit: is of the task infer, got --tasks train"),
        (["--batch-sizes", "auto"], "--latency-limit: needs --batch-sizes in numbers"),
        (["--replicas", "2", "--cluster", "local"], "must not be given with --cluster"),
    ],
)
def test_what_has_no_rate_is_refused_in_one_line(
    command: list[str], more: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, *more]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
