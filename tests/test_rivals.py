"""The CPU time that others took: worked out by hand, and beside real rivals."""

from __future__ import annotations

import multiprocessing
import os
import time

import psutil
import pytest
from workers import happens

from convmark.worker import binding
from convmark.worker.host import Usage, other_cpu_share, usage

TICK = os.sysconf("SC_CLK_TCK")


def test_what_is_neither_idle_nor_ones_own_was_taken_by_others() -> None:
    before = Usage(busy_s=100.0, own_s=7.0, wall_s=50.0, cpus=2)
    now = Usage(busy_s=112.0, own_s=13.0, wall_s=60.0, cpus=2)
    assert other_cpu_share(before, now) == pytest.approx((12 - 6) / (2 * 10))


@pytest.mark.parametrize(("own_s", "share"), [(30.0, 0.0), (-90.0, 1.0)])
def test_the_share_stays_between_none_and_all_of_it(own_s: float, share: float) -> None:
    """The kernel counts its ticks and a process's own time apart."""
    now = Usage(busy_s=20.0, own_s=own_s, wall_s=10.0, cpus=2)
    assert other_cpu_share(Usage(busy_s=0.0, own_s=0.0, wall_s=0.0, cpus=2), now) == share


def test_the_share_is_unknown_where_either_time_is() -> None:
    known = Usage(busy_s=1.0, own_s=1.0, wall_s=1.0, cpus=1)
    assert other_cpu_share(None, known) is None
    assert other_cpu_share(known, None) is None
    assert other_cpu_share(known, known) is None
    fewer = Usage(busy_s=0.6, own_s=1.1, wall_s=2.0, cpus=1)
    assert other_cpu_share(Usage(busy_s=1.0, own_s=1.0, wall_s=1.0, cpus=2), fewer) is None


def test_time_that_is_not_idle_is_counted_of_the_cores_that_one_may_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0}, raising=False)
    pairs = {0: "0,2", 2: "0,2"}  # hyperthreads of one core
    monkeypatch.setattr(binding, "_topology", lambda cpu, name: pairs[cpu])
    stat = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 1 2 4 900 900 8 16 32 0 0\ncpu1 7 7 7 7 7 7 7 7 0 0\n"
    found = usage(lambda: f"{stat}cpu2 100 0 0 5 0 0 0 0 0 0\nintr 5\n")
    assert found is not None
    assert found.busy_s == pytest.approx((1 + 2 + 4 + 8 + 16 + 32 + 100) / TICK)
    assert found.cpus == 2


@pytest.mark.parametrize("text", ["", "cpu  1 2 3 4 5 6 7 8\n", "cpu0 1 2 3\n"])
def test_a_kernel_that_does_not_tell_gives_nothing(text: str) -> None:
    assert usage(lambda: text) is None


def test_no_proc_gives_nothing() -> None:
    def refuse() -> str:
        raise FileNotFoundError("/proc/stat")

    assert usage(refuse) is None


def test_companions_of_the_same_case_are_no_rivals() -> None:
    """The time of a process is told by its own file, whatever its name."""
    stat = "cpu0 1 0 0 0 0 0 0 0 0 0\n"
    process = multiprocessing.get_context("fork").Process(
        target=_spin, args=(time.monotonic() + 60,), daemon=True
    )
    process.start()
    spinning = psutil.Process(process.pid)
    assert happens(lambda: spinning.cpu_times().user >= 0.1, within_s=50)
    alone, together = usage(lambda: stat), usage(lambda: stat, companions=[process.pid or 0])
    process.kill()
    process.join()
    ended = usage(lambda: stat, companions=[process.pid or 0])
    assert alone is not None
    assert together is not None
    assert ended is not None
    assert together.own_s > alone.own_s
    assert ended.own_s >= together.own_s - 2 / TICK  # as a child that has ended


def _spin(until: float) -> None:
    while time.monotonic() < until:
        pass


@pytest.mark.skipif(usage() is None, reason="the kernel does not tell CPU times in /proc/stat")
def test_ones_own_work_is_not_a_rivals_and_a_rivals_is() -> None:
    """The machine may be busy with other things, which have what this process did not get."""
    cpus = len(os.sched_getaffinity(0))
    before, began_s, own_s = usage(), time.monotonic(), time.process_time()
    _spin(began_s + 0.5)
    alone = other_cpu_share(before, usage())
    own_share = (time.process_time() - own_s) / (time.monotonic() - began_s) / cpus
    rival = multiprocessing.get_context("fork").Process(
        target=_spin, args=(time.monotonic() + 1.5,), daemon=True
    )
    rival.start()
    before = usage()
    time.sleep(0.8)
    beside = other_cpu_share(before, usage())
    rival.join()
    assert alone is not None
    assert beside is not None
    assert beside > 0.5 / cpus
    assert alone <= 1 - own_share + 0.1
