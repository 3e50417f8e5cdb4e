"""The timed loops, on a clock that moves only while the device works.

The fake device works as a GPU does: a step only queues its work, and the clock moves when someone
waits for it. So a step that is timed without waiting takes no time here, and its test fails.
"""

from __future__ import annotations

import gc
import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence

import pytest

from convmark.compare.rule.statistics import summary
from convmark.worker import timing
from convmark.worker.phases import fed_windows, first_step
from convmark.worker.timing import (
    MIN_ROUNDS,
    Pulse,
    Rounds,
    WarmUp,
    Windows,
    mean_log_ratio,
    quiet_collector,
    rounds,
    steps,
    timed_step,
    warm_up,
    windows,
)
from convmark.worker.turns import timed_turn

TICK = 1 / 64  # sums of it are exact


class Device:
    """A backend whose `synchronise` moves the clock by the work queued since the last one."""

    def __init__(self) -> None:
        self.now = 100.0
        self.syncs = 0
        self._queued_s = 0.0

    def clock(self) -> float:
        return self.now

    def cpu_clock(self) -> float:
        return self.now / 2

    def step(self, seconds: float) -> Callable[[], float]:
        """Return a step that takes that long and returns it as its result."""
        return self.steps_of([seconds], then=seconds)

    def steps_of(self, seconds: Sequence[float], then: float) -> Callable[[], float]:
        """Return a step that takes each of the times in turn, and `then` ever after."""
        coming = iter(seconds)

        def run() -> float:
            work_s = next(coming, then)
            self._queued_s += work_s
            return work_s

        return run

    def synchronise(self, token: float) -> None:
        assert isinstance(token, float), "a sync waits for a step's result"
        self.syncs += 1
        self.now += self._queued_s
        self._queued_s = 0.0

    def agreed(self, seconds: float) -> float:
        return seconds


class Shared(Device):
    """One of two processes, the other of which takes twice as long."""

    def agreed(self, seconds: float) -> float:
        assert self._queued_s == 0, "processes agree once the device has finished"
        return 2 * seconds


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def pulse(device: Device) -> Pulse:
    """A pulse whose report costs a second, which no timing may hold."""

    def report(phase: str) -> None:
        device.now += 1.0

    return Pulse(report, device.clock)


def test_a_timed_step_ends_when_the_device_has_finished(device: Device) -> None:
    assert timed_step(device.step(3.0), device, device.clock) == (3.0, 3.0)
    assert device.syncs == 1


def test_processes_that_share_a_case_go_by_the_slowest_of_them() -> None:
    device = Shared()
    step, pulse = device.step(TICK), Pulse(lambda phase: None, device.clock)
    assert timed_step(step, device, device.clock)[0] == 2 * TICK
    assert set(steps(step, device, 1.0, pulse, device.clock).wall_s) == {2 * TICK}
    # twice as long, so half as many steps fill a tenth of a second
    found = windows(step, device, 2 * TICK, pulse, device.clock)
    assert set(found.times_s) == {2 * found.steps * TICK}
    pairs = rounds(
        step,
        step,
        device,
        1.0,
        random.Random(0),
        pulse,
        clock=device.clock,
        cpu_clock=device.cpu_clock,
    )
    assert set(pairs.case_wall_s) == set(pairs.reference_wall_s) == {2 * TICK}
    assert len(pairs.case_wall_s) == 1.0 / (4 * TICK)
    assert set(pairs.case_cpu_s) == {TICK / 2}  # the process's own


def test_a_first_step_is_its_tracing_and_its_execution(device: Device) -> None:
    class Traced:
        __call__ = staticmethod(device.step(3.0))

        failed_s = staticmethod(lambda: 0.5)

        @staticmethod
        def trace() -> None:
            device.now += 2.0

    first, token = first_step(Traced(), device, device.clock)
    assert (first.trace_s, first.execution_s, first.total_s, token) == (1.5, 3.0, 4.5, 3.0)


def test_a_first_step_that_traces_nothing_has_no_time_for_it(device: Device) -> None:
    class Eager:
        trace = None
        failed_s = staticmethod(lambda: 0.5)
        __call__ = staticmethod(device.step(3.0))

    first, _ = first_step(Eager(), device, device.clock)
    assert (first.trace_s, first.execution_s, first.total_s) == (None, 2.5, 2.5)


# Warm-up


def test_a_steady_step_is_warmed_up_by_ten_steps(device: Device, pulse: Pulse) -> None:
    assert warm_up(device.step(TICK), device, 60.0, pulse, clock=device.clock) == WarmUp(10, True)
    assert device.syncs == 10


def test_short_steps_are_warmed_up_for_a_while_however_steady_they_are(
    device: Device, pulse: Pulse
) -> None:
    warm = warm_up(device.step(TICK), device, 60.0, pulse, clock=device.clock, least_s=20 * TICK)
    assert warm == WarmUp(20, True)


def test_ten_steps_are_the_least_even_without_a_budget(device: Device, pulse: Pulse) -> None:
    assert warm_up(device.step(TICK), device, 0.0, pulse, clock=device.clock).steps == 10


def test_slow_first_steps_are_waited_out_and_looked_at_every_fifth_step(
    device: Device, pulse: Pulse
) -> None:
    step = device.steps_of([10.0] * 8, then=1.0)
    assert warm_up(step, device, 1000.0, pulse, clock=device.clock) == WarmUp(15, True)


def test_the_halves_of_the_later_half_may_differ_by_five_per_cent_and_no_more() -> None:
    early = [99.0] * 5
    assert timing.is_steady([*early, 20.0, 20.0, 21.0, 21.0, 21.0])
    assert timing.is_steady([*early, 21.0, 21.0, 20.0, 20.0, 20.0])
    assert not timing.is_steady([*early, 20.0, 20.0, 21.001, 21.001, 21.001])
    assert not timing.is_steady([*early, 21.001, 21.001, 20.0, 20.0, 20.0])


def test_one_disturbed_step_does_not_make_a_warm_up_unsteady() -> None:
    assert timing.is_steady([9.0] * 5 + [1.0, 1.0, 1.0, 50.0, 1.0])


def growing() -> Iterator[float]:
    seconds = 1.0
    while True:
        yield seconds
        seconds *= 1.125


def test_a_step_that_never_settles_ends_unsteady_after_twenty_steps_beyond_the_budget(
    device: Device, pulse: Pulse
) -> None:
    growth = growing()
    step = device.steps_of([next(growth) for _ in range(100)], then=0.0)
    assert warm_up(step, device, 0.0, pulse, clock=device.clock) == WarmUp(20, False)


def test_a_step_that_never_settles_is_given_its_whole_budget(device: Device, pulse: Pulse) -> None:
    growth = growing()
    times_s = [next(growth) for _ in range(100)]
    step = device.steps_of(times_s, then=0.0)
    budget_s = sum(times_s[:33])
    assert warm_up(step, device, budget_s, pulse, clock=device.clock) == WarmUp(33, False)


def test_each_warm_up_step_is_seen_with_its_number_outside_the_timing(
    device: Device, pulse: Pulse
) -> None:
    seen: list[tuple[int, float, float]] = []

    def see(number: int, token: float, seconds: float) -> None:
        device.now += 50.0 * number  # a slow look, and a slower one each time
        seen.append((number, token, pytest.approx(seconds)))

    warm = warm_up(device.step(TICK), device, 60.0, pulse, see, device.clock)
    assert warm == WarmUp(10, True)
    assert seen == [(number, TICK, TICK) for number in range(1, 11)]
    assert warm.times_s == pytest.approx([TICK] * 10)


# Steps


@pytest.mark.parametrize(
    ("budget_s", "count"),
    [
        (0.0, 30),
        (60 * TICK, 30),
        (62 * TICK, 31),
        (198 * TICK, 99),
        (200 * TICK, 100),
        (1998 * TICK, 100),
        (2000 * TICK, 1000),
        (1e6, 1000),
    ],
)
def test_steps_are_30_at_least_then_100_or_1000_if_half_the_budget_holds_them(
    budget_s: float, count: int, device: Device, pulse: Pulse
) -> None:
    taken = steps(device.step(TICK), device, budget_s, pulse, device.clock, device.clock)
    assert taken.wall_s == taken.cpu_s == [TICK] * count
    assert device.syncs == count


def test_the_time_of_a_step_has_no_look_up_of_what_waits_for_it(pulse: Pulse) -> None:
    asked: list[str] = []

    class Asked(Device):
        def __getattribute__(self, name: str) -> object:
            asked.append(name)
            return super().__getattribute__(name)

    device = Asked()
    steps(device.step(TICK), device, 0.0, pulse, lambda: 0.0, lambda: 0.0)
    timed_turn(device.step(TICK), device, 9, 9, lambda: 0.0, lambda: 0.0)
    assert asked.count("synchronise") == 2


def test_each_step_time_is_that_of_its_own_step(device: Device, pulse: Pulse) -> None:
    lengths = [TICK * number for number in range(1, 31)]
    step = device.steps_of(lengths, then=0.0)
    assert steps(step, device, 0.0, pulse, device.clock).wall_s == lengths


# Windows


@pytest.fixture(autouse=True)
def windows_of_about_a_tenth_of_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "MIN_WINDOW_S", 0.12 * timing.MIN_WINDOW_S / timing.WINDOW_S)
    monkeypatch.setattr(timing, "WINDOW_S", 0.12)


def test_five_windows_hold_as_many_steps_as_their_length_asks_for(
    device: Device, pulse: Pulse
) -> None:
    # 0.12 s / (1/64 s) = 7.68, so 8 steps
    found = windows(device.step(TICK), device, TICK, pulse, device.clock)
    assert found == Windows(8, [8 * TICK] * 5)
    assert device.syncs == 5


def test_a_long_step_is_a_window_of_its_own(device: Device, pulse: Pulse) -> None:
    assert windows(device.step(2.0), device, 2.0, pulse, device.clock) == Windows(1, [2.0] * 5)


def test_windows_that_came_out_short_are_dropped_and_grow(device: Device, pulse: Pulse) -> None:
    # steps of 1/256 s where 1/64 s was thought: 8 of them last 0.03125 s, so
    # 8 x 0.12 / 0.03125 = 30.72, 31 steps
    found = windows(device.step(TICK / 4), device, TICK, pulse, device.clock)
    assert found == Windows(31, [31 * TICK / 4] * 5)


def test_windows_of_a_quick_moment_are_kept_as_those_of_a_slow_one(
    device: Device, pulse: Pulse
) -> None:
    # if the quick ones were taken again and the slow ones not, the mean of many would read slow
    for step_s in (TICK / 2, TICK, TICK * 2):
        found = windows(device.step(step_s), device, TICK, pulse, device.clock)
        assert found == Windows(8, [8 * step_s] * 5)


def test_a_quick_window_counts_and_has_no_others_dropped(device: Device, pulse: Pulse) -> None:
    # the second of 8 steps is half as long as the others: without it the throughput would be low
    step = device.steps_of([TICK] * 8 + [TICK / 2] * 8, then=TICK)
    found = windows(step, device, TICK, pulse, device.clock)
    assert found == Windows(8, [8 * TICK, 4 * TICK] + [8 * TICK] * 3)
    assert found.run_steps == 5 * 8


@pytest.mark.parametrize(("least_ticks", "count"), [(8.0, 8), (8.125, 9)])
def test_windows_of_just_the_least_length_in_the_mean_are_long_enough(
    least_ticks: float, count: int, device: Device, pulse: Pulse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "MIN_WINDOW_S", least_ticks * TICK)
    monkeypatch.setattr(timing, "WINDOW_S", 9 * TICK)
    found = windows(device.step(TICK), device, 9 * TICK / 8, pulse, device.clock)
    assert found == Windows(count, [count * TICK] * 5)


def test_windows_grow_until_they_are_long_enough(device: Device, pulse: Pulse) -> None:
    # every retry meets steps that became faster still
    step = device.steps_of([TICK / 2] * 20 + [TICK / 8] * 155 + [TICK / 64] * 999, then=TICK / 64)
    found = windows(step, device, TICK * 2, pulse, device.clock)
    assert len(found.times_s) == 5
    assert sum(found.times_s) >= 5 * timing.MIN_WINDOW_S
    assert found.times_s[0] == pytest.approx(found.steps * TICK / 64)


def test_all_steps_that_were_run_are_counted_those_of_dropped_windows_too(
    device: Device, pulse: Pulse
) -> None:
    assert windows(device.step(TICK), device, TICK, pulse, device.clock).run_steps == 5 * 8
    grown = windows(device.step(TICK / 4), device, TICK, pulse, device.clock)
    assert grown.run_steps == 5 * 8 + 5 * 31


@pytest.mark.parametrize(("least_s", "count"), [(0.0, 5), (5 / 8, 5), (5.25 / 8, 6), (1.0, 8)])
def test_windows_go_on_until_they_last_as_long_together_as_is_asked_for(
    least_s: float, count: int, device: Device, pulse: Pulse
) -> None:
    found = windows(device.step(TICK), device, TICK, pulse, device.clock, least_s=least_s)
    assert found == Windows(8, [8 * TICK] * count)
    assert found.run_steps == 8 * count


# Rounds


def paired(device: Device, pulse: Pulse, budget_s: float, seed: int = 0) -> Rounds:
    return rounds(
        device.step(3 * TICK),
        device.step(TICK),
        device,
        budget_s,
        random.Random(seed),
        pulse,
        device.clock,
        device.cpu_clock,
    )


@pytest.mark.parametrize(
    ("budget_s", "count"), [(0.0, 10), (40 * TICK, 10), (41 * TICK, 11), (64 * TICK, 16)]
)
def test_rounds_go_on_until_the_budget_is_spent_and_are_ten_at_least(
    budget_s: float, count: int, device: Device, pulse: Pulse
) -> None:
    found = paired(device, pulse, budget_s)  # a round is 4 ticks
    assert found.case_wall_s == [3 * TICK] * count
    assert found.reference_wall_s == [TICK] * count


def test_rounds_end_once_their_ratio_is_known_well_enough(device: Device, pulse: Pulse) -> None:
    assert len(paired(device, pulse, 1000 * TICK).case_wall_s) == 40
    uneven = itertools.cycle([3 * TICK, 4 * TICK])
    found = rounds(
        lambda: device.step(next(uneven))(),
        device.step(TICK),
        device,
        20_000 * TICK,
        random.Random(0),
        pulse,
        device.clock,
        device.cpu_clock,
    )
    assert 2000 < len(found.case_wall_s) < 2900  # 0.144 / 0.6 / sqrt(n) is 0.005 at 2,300


def test_a_mean_log_ratio_and_its_error_are_those_of_a_trimmed_mean() -> None:
    ratios = [1.0, 1.1, 1.3, 1.2, 9.0]
    expected = summary([math.log(ratio) for ratio in ratios])
    error = (expected.variance / expected.count) ** 0.5
    assert mean_log_ratio(ratios, [1.0] * 5) == pytest.approx((expected.estimate, error))


def test_each_round_has_the_cpu_time_of_both_steps(device: Device, pulse: Pulse) -> None:
    found = paired(device, pulse, 0.0)
    assert found.case_cpu_s == [1.5 * TICK] * 10
    assert found.reference_cpu_s == [0.5 * TICK] * 10


def order_of(seed: int, pulse: Pulse, device: Device) -> str:
    ran: list[str] = []

    def named(name: str) -> Callable[[], float]:
        def run() -> float:
            ran.append(name)
            return TICK

        return run

    rounds(
        named("c"),
        named("r"),
        device,
        0.0,
        random.Random(seed),
        pulse,
        device.clock,
        device.cpu_clock,
    )
    return "".join(ran)


def test_the_reference_warms_up_alone_and_both_run_once_before_the_first_round(
    device: Device, pulse: Pulse
) -> None:
    assert order_of(0, pulse, device)[:12] == "rrrrrrrrrrcr"


def test_each_round_pairs_one_case_step_with_one_reference_step_in_both_orders(
    device: Device, pulse: Pulse
) -> None:
    order = order_of(0, pulse, device)[12:]
    pairs = [order[place : place + 2] for place in range(0, len(order), 2)]
    assert len(pairs) == 10
    assert set(pairs) == {"cr", "rc"}


def test_the_order_of_the_rounds_follows_the_seed(device: Device, pulse: Pulse) -> None:
    assert order_of(1, pulse, device) == order_of(1, pulse, device)
    assert len({order_of(seed, pulse, device) for seed in range(5)}) > 1


def test_every_step_of_the_rounds_is_waited_for(device: Device, pulse: Pulse) -> None:
    paired(device, pulse, 0.0)
    assert device.syncs == 10 + 2 + 2 * 10


def test_the_lists_of_the_rounds_are_given_by_name_to_the_nanosecond() -> None:
    lists = Rounds([0.12345678949], [0.1], [0.2], [0.3]).lists()
    assert lists == {
        "case_wall_s": [0.123456789],
        "case_cpu_s": [0.1],
        "reference_wall_s": [0.2],
        "reference_cpu_s": [0.3],
    }


# Pulse and collector


def test_a_pulse_reports_at_once_and_then_at_most_once_a_second() -> None:
    device = Device()
    told: list[tuple[float, str]] = []
    pulse = Pulse(lambda phase: told.append((device.now, phase)), device.clock)
    for device.now in (5.0, 5.5, 5.999, 6.0, 6.5, 9.0, 9.5, 10.0):
        pulse.beat("steps")
    assert told == [(5.0, "steps"), (6.0, "steps"), (9.0, "steps"), (10.0, "steps")]


def test_every_loop_gives_a_pulse_with_its_own_phase(device: Device) -> None:
    told: set[str] = set()
    pulse = Pulse(told.add, device.clock)
    second = device.step(1.0)
    warm_up(second, device, 0.0, pulse, clock=device.clock)
    steps(second, device, 0.0, pulse, device.clock)
    windows(second, device, 1.0, pulse, device.clock)
    paired(device, pulse, 60.0)
    assert told == {"warm-up", "steps", "windows", "rounds"}


class Ring:
    """A result that a step leaves in a reference cycle."""

    alive = 0

    def __init__(self) -> None:
        self.itself = self
        Ring.alive += 1

    def __del__(self) -> None:
        Ring.alive -= 1


def test_the_collector_frees_what_steps_leave_in_cycles_and_searches_nothing_older() -> None:
    quiet_collector()
    assert gc.get_freeze_count() > 10_000
    for _ in range(20_000):
        Ring()
    assert Ring.alive < 10_000


def test_no_step_of_a_round_or_turn_frees_what_another_model_left(
    device: Device, pulse: Pulse
) -> None:
    found: list[int] = []

    def case() -> float:
        found.append(Ring.alive)
        Ring()
        return device.step(TICK)()

    gc.collect()
    rounds(case, case, device, 0.0, random.Random(0), pulse, device.clock, device.clock)
    assert found[-2 * MIN_ROUNDS :] == [0] * 2 * MIN_ROUNDS
    timed_turn(case, device, 1, 0, device.clock, device.clock)
    assert found[-1] == 0


# Fed windows


def test_fed_windows_take_a_batch_a_step_and_count_the_time_of_getting_it(
    device: Device, pulse: Pulse
) -> None:
    taken = []

    class Fed:
        @staticmethod
        def run(number: int) -> float:
            taken.append(number)
            return device.step(TICK)()

    def feed() -> Iterator[tuple[int]]:
        for number in itertools.count():
            device.now += TICK
            yield (number,)

    found = fed_windows(Fed(), feed(), device, TICK, pulse, device.clock)
    assert len(found.times_s) == 3
    assert found.times_s == [2 * TICK * found.steps] * 3
    assert taken == list(range(3 + 3 * found.steps))
