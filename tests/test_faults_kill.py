"""The harness killed at any moment: no row lost that it had reported, at most one torn line."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import random
import re
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TextIO

import pytest
from fast_worker import PAUSE
from faults import FAST, all_gone, descendants, fast_python, fast_workers, run_files, start
from forks import STARTED, Forks, warm_interpreters
from workers import happens

from convmark.results.reading import StoreWarning, read_run
from convmark.results.record import Record
from convmark.results.store import read_step_times

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="workers end with a killed parent"),
    pytest.mark.usefixtures("forked_commands"),
]

PLAN = ("--models", "lenet5,conv_layer,mini_resnet,mini_inception", *FAST, "--processes", "2")
ROWS = 8

NURSERIES = 2


@dataclass(frozen=True)
class Nursery:
    """Starts runs in one process after another, and kills them."""

    orders: TextIO
    answers: TextIO
    python: Path

    def run(
        self,
        folder: Path,
        *options: str,
        kill_after_s: float | None = None,
        since_file: bool = False,
        piece: int = 0,
        torn: bool = False,
    ) -> tuple[int, float]:
        """Return the status of `convmark run` and its seconds, its output added to folder/output.

        Args:
            since_file: whether seconds count from the making of the results file.
            piece: bytes that each write takes at most, 0 for all.
            torn: whether the kill waits until a line of the results file is half written.
        """
        argv = ["run", "--python", str(self.python), "--results", "results", *PLAN, *options]
        order = {
            "argv": argv,
            "folder": str(folder),
            "output": str(folder / "output"),
            "kill_after_s": kill_after_s,
            "since_file": since_file,
            "piece": piece,
            "torn": torn,
        }
        self.orders.write(json.dumps(order) + "\n")
        self.orders.flush()
        status, seconds = self.answers.readline().split()
        return int(status), float(seconds)


@dataclass(frozen=True)
class Nurseries:
    """Several, and a thread for each: a run waits more than it works."""

    pool: ThreadPoolExecutor
    idle: SimpleQueue[Nursery]

    def run(self, *arguments: Any, **how: Any) -> tuple[int, float]:
        """Run in one that is idle; see `Nursery.run`."""
        nursery = self.idle.get()
        try:
            return nursery.run(*arguments, **how)
        finally:
            self.idle.put(nursery)


@pytest.fixture(scope="module")
def nurseries(harness: Forks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nurseries]:
    python = fast_python(tmp_path_factory.mktemp("fast"))
    idle: SimpleQueue[Nursery] = SimpleQueue()
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(NURSERIES) as pool:
        for _ in range(NURSERIES):
            runtime, orders = tmp_path_factory.mktemp("runtime"), tmp_path_factory.mktemp("orders")
            os.mkfifo(orders / "orders")
            own = {PAUSE: "0.0005", "CONVMARK_RUNTIME": str(runtime)}
            script = Path(__file__).with_name("nursery.py")
            process = harness.start(script, str(orders / "orders"), environ=own)
            STARTED.remove(process)  # it outlives its test
            stack.callback(process.communicate, timeout=30)
            # a file of both ways waits for no reader, should there be none
            given = stack.enter_context(os.fdopen(os.open(orders / "orders", os.O_RDWR), "w"))
            idle.put(Nursery(given, process.stdout, python))
        yield Nurseries(pool, idle)


@dataclass(frozen=True)
class Left:
    """What a killed run has left."""

    rows: list[Record]
    torn: list[str]
    """What the next reading warned of."""
    reported: set[int]
    """The places of the rows that the run had told its user of."""


def left_in(folder: Path) -> Left:
    """Read what is there as the next command would; everything must read."""
    paths = run_files(folder)
    assert len(paths) <= 1
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        rows = read_run(paths[0]) if paths else []
    output = (folder / "output").read_text() if (folder / "output").exists() else ""
    reported = {int(place) for place in re.findall(r"^\[ *(\d+)/\d+\]", output, re.MULTILINE)}
    torn = [str(warning.message) for warning in found if warning.category is StoreWarning]
    return Left(rows=rows, torn=torn, reported=reported)


def nothing_is_lost(left: Left) -> None:
    places = [row.order for row in left.rows]
    assert places == list(range(1, len(places) + 1))
    assert left.reported <= set(places), "a row was reported and is lost"
    assert len(places) - len(left.reported) <= 1, "a row was written long before it was reported"
    assert len(left.torn) <= 1
    for text in left.torn:
        assert re.fullmatch(rf".*0001\.csv:{len(places) + 2}: a torn last line was left out", text)


def killed_at_random(nurseries: Nurseries, folder: Path, times: int, seed: int) -> dict[str, int]:
    """Kill a run so often, each at a moment of its own, and have every tenth go on to its end."""
    moments = random.Random(seed)
    after = [moments.random() for _ in range(times)]
    # most where a row may be torn, and of those every other where one is
    kinds = [(True, 64, True), (True, 0, False), (True, 64, False), (False, 0, False)]
    ways = {kind[:2] for kind in kinds}
    lasts_s = {way: _lasts_s(nurseries, folder / "all", *way) for way in ways}

    def kill(number: int) -> int:
        since_file, piece, torn = kinds[number % len(kinds)]
        place = folder / str(number)
        place.mkdir()
        after_s = after[number] * lasts_s[since_file, piece]
        how = {"since_file": since_file, "piece": piece, "torn": torn}
        return nurseries.run(place, kill_after_s=after_s, **how)[0]

    seen = {"before a file": 0, "header alone": 0, "some rows": 0, "all rows": 0, "torn": 0}
    for number, status in enumerate(nurseries.pool.map(kill, range(times))):
        place = folder / str(number)
        assert status in (-9, 0), (place / "output").read_text()
        left = left_in(place)
        nothing_is_lost(left)
        seen["torn"] += len(left.torn)
        seen[_state(place, left)] += 1
        if number % 10 == 0:
            _goes_on(nurseries, place, left)
        shutil.rmtree(place)
    return seen


def _state(folder: Path, left: Left) -> str:
    if not run_files(folder):
        return "before a file"
    return {0: "header alone", ROWS: "all rows"}.get(len(left.rows), "some rows")


def _lasts_s(nurseries: Nurseries, folder: Path, since_file: bool, piece: int) -> float:
    folder.mkdir()
    status, lasted_s = nurseries.run(folder, since_file=since_file, piece=piece)
    assert status == 0, (folder / "output").read_text()
    assert len(left_in(folder).rows) == ROWS
    shutil.rmtree(folder)
    return lasted_s


def _goes_on(nurseries: Nurseries, folder: Path, left: Left) -> None:
    """Resume; the rows that were there must stay as they were."""
    if not run_files(folder):
        return
    status, _ = nurseries.run(folder, "--resume")
    assert status == 0, (folder / "output").read_text()
    after = left_in(folder)
    assert after.torn == []
    assert after.rows[: len(left.rows)] == left.rows
    assert [row.order for row in after.rows] == list(range(1, ROWS + 1))
    fresh = [row.order for row in after.rows[len(left.rows) :]]
    if fresh:
        assert read_step_times(run_files(folder)[0], fresh) is not None


def test_40_kills_at_random_moments_lose_no_reported_row(
    nurseries: Nurseries, tmp_path: Path
) -> None:
    seen = killed_at_random(nurseries, tmp_path, 40, seed=1)
    assert sum(seen[name] for name in seen if name != "torn") == 40
    assert seen["some rows"] >= 10, seen
    assert seen["torn"] >= 5, seen  # else little was proved of torn lines


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 7))
def test_1000_more_kills_at_random_moments_lose_no_reported_row(
    seed: int, nurseries: Nurseries, tmp_path: Path
) -> None:
    seen = killed_at_random(nurseries, tmp_path, 200, seed)
    print(seen)
    assert seen["some rows"] >= 60, seen
    assert seen["torn"] >= 25, seen


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs real workers")
@pytest.mark.parametrize("rows", [1, pytest.param(3, marks=pytest.mark.long)])
def test_a_kill_with_real_workers_loses_nothing_and_leaves_no_process(
    rows: int, forks_of: Callable[[str], Forks], tmp_path: Path
) -> None:
    options = ("--models", "separable_layer", "--tasks", "train", "--processes", "4")
    command = ("convmark", "run", *options, "--time-budget", "0.1", "--results", "results")
    process = start(*command, folder=tmp_path)
    moments = random.Random(rows)

    def come() -> int:
        return sum(max(0, path.read_bytes().count(b"\n") - 1) for path in run_files(tmp_path))

    try:
        assert happens(lambda: come() >= rows, within_s=120)
        time.sleep(moments.uniform(0, 1.0))
        below = descendants(process.pid)
    finally:
        process.kill()
        output, _ = process.communicate()
    assert all_gone(below, within_s=10)
    (tmp_path / "output").write_text(output)
    nothing_is_lost(left := left_in(tmp_path))
    assert len(left.rows) >= rows
    with warm_interpreters(forks_of("tensorflow")):
        assert _resumed(tmp_path, command) == 0
    after = left_in(tmp_path).rows
    assert after[: len(left.rows)] == left.rows
    assert [row.order for row in after] == list(range(1, 5))


def _resumed(folder: Path, command: tuple[str, ...]) -> int:
    process = start(*command, "--resume", folder=folder)
    output, _ = process.communicate(timeout=120)
    assert "resuming" in output
    return int(process.returncode)


def test_the_workers_of_a_killed_run_end_with_it(tmp_path: Path) -> None:
    fast: Any = ("--python", str(fast_python(tmp_path)), "--results", "results")
    process = start(*("convmark", "run", *fast, "--models", "hangs", *FAST), folder=tmp_path)
    try:
        assert happens(lambda: len(fast_workers(process.pid)) == 3, within_s=60)
        workers = fast_workers(process.pid)  # the zygote, a worker, and what this one has started
    finally:
        process.kill()
        process.communicate()
    assert all_gone(workers, within_s=5)
