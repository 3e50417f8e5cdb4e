"""Who else is on a card."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from convmark.machine.gpu.sampler import foreign, own_processes


@pytest.mark.parametrize(
    ("now", "before", "expected"),
    [
        (set(), set(), set()),
        ({1}, set(), set()),
        ({1, 5}, set(), {5}),
        ({1, 5}, {5}, {5}),
        ({1}, {5}, set()),
        ({1, 2, 5, 6}, {6}, {5, 6}),
    ],
)
def test_all_but_the_run_s_own_are_foreign(
    now: set[int], before: set[int], expected: set[int]
) -> None:
    assert foreign(now, before, own={1, 2}) == expected


@pytest.mark.parametrize(
    ("now", "before", "count"),
    [
        ({90}, set(), 0),
        ({90, 91}, set(), 1),
        ({90, 91}, {90}, 1),
        ({90}, {90}, 1),
        (set(), {90}, 0),
    ],
)
def test_ids_of_the_host_are_counted_without_knowing_one_s_own(
    now: set[int], before: set[int], count: int
) -> None:
    assert len(foreign(now, before, own={1, 2})) == count


def test_own_processes_are_this_one_and_its_descendants() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert {os.getpid(), child.pid} <= own_processes()
        assert os.getppid() not in own_processes()
    finally:
        child.communicate(b"\n")
    assert child.pid not in own_processes()
