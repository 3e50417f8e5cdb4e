"""Sustained steps: the worker's intervals on a hand-made clock, the drop, a leak, Ctrl-C."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fake_worker import Answer, FakeInterpreter
from rows import row

from convmark.cli import main
from convmark.core.errors import OptionError
from convmark.core.options import read
from convmark.core.table import plain
from convmark.machine.gpu.cards import watching
from convmark.report.build import build
from convmark.report.summary import sustained as summarised
from convmark.results.reading import read_run
from convmark.session.run import Stretches
from convmark.session.sustained import TABLE, Drop, Interval, drop_of, figures, leak
from convmark.worker import host
from convmark.worker.phases import sustain
from convmark.worker.timing import Pulse

MIB = 2**20


class Machine:
    """A clock that each step moves on; after `slow_from_s` of it a step takes `factor` times."""

    def __init__(self, *, slow_from_s: float = 1e9, factor: float = 1.0, noise: float = 0.03):
        self.now_s, self._draw = 0.0, random.Random(1)
        self._slow_from_s, self._factor, self._noise = slow_from_s, factor, noise

    def clock(self) -> float:
        return self.now_s

    def step(self) -> None:
        slow = self._factor if self.now_s >= self._slow_from_s else 1.0
        self.now_s += 0.01 * slow * (1 + self._noise * abs(self._draw.gauss(0, 1)))

    def synchronise(self, token: Any) -> None:
        pass

    def agreed(self, seconds: float) -> float:
        return seconds

    def held_memory(self) -> int | None:
        return 7 * MIB


def events_of(machine: Machine, seconds: float) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    def emit(event: str, **fields: Any) -> None:
        found.append({"event": event, **fields})

    def usage() -> host.Usage:
        return host.Usage(2 * machine.now_s, machine.now_s, machine.now_s, 4)

    pulse = Pulse(lambda phase: emit("progress", phase=phase), machine.clock)
    sustain(machine.step, machine, 0.01, seconds, emit, pulse, clock=machine.clock,
            usage=usage, memory_bytes=lambda: 100 * MIB)  # fmt: skip
    return found


def rates_of(machine: Machine, seconds: float = 1200) -> list[float]:
    events = events_of(machine, seconds)
    return [one["steps"] / one["seconds"] for one in events if one["event"] == "interval"]


def test_intervals_follow_each_other_and_are_reported_with_progress() -> None:
    begin, *others = events_of(Machine(), 120)
    assert begin == {"event": "phase", "phase": "sustained"}
    intervals = [one for one in others if one["event"] == "interval"]
    assert 55 <= len(intervals) <= 60
    assert intervals[0]["began_s"] == 0
    for before, now in pairwise(intervals):
        assert now["began_s"] == pytest.approx(before["began_s"] + before["seconds"], abs=1e-5)
        assert now["other_cpu_share"] == pytest.approx(0.25)
        assert (now["memory_bytes"], now["device_memory_bytes"]) == (100 * MIB, 7 * MIB)
    progress = [one["phase"] for one in others if one["event"] == "progress"]
    assert re.fullmatch(r"sustained, 1\d\d of 120 s", progress[-1])


@pytest.mark.parametrize("factor", [1.05, 1.4, 3.0])
@pytest.mark.parametrize("slow_from_s", [130.0, 600.0, 1100.0])
def test_a_drop_is_found_within_two_points_and_one_interval(
    slow_from_s: float, factor: float
) -> None:
    drop = drop_of(rates_of(Machine(slow_from_s=slow_from_s, factor=factor)))
    assert drop is not None
    assert drop.share == pytest.approx(1 - 1 / factor, abs=0.02)
    assert abs(drop.place * 20 - slow_from_s) <= 20


def flat(seed: int, noise: float, *, outliers: int = 0) -> list[float]:
    draw = random.Random(seed)
    rates = [1000 * (1 + draw.gauss(0, noise)) for _ in range(60)]
    for place in draw.sample(range(60), outliers):
        rates[place] *= 0.6
    return rates


def test_a_flat_control_is_flat() -> None:
    assert drop_of(rates_of(Machine())) is None
    found = [drop_of(flat(seed, noise, outliers=seed % 3))
             for seed in range(150) for noise in (0.002, 0.01, 0.05)]  # fmt: skip
    assert sum(drop is not None for drop in found) <= 2


def test_what_rises_is_no_drop_and_few_intervals_tell_none() -> None:
    assert drop_of([1.0] * 20 + [1.3] * 20) is None
    assert drop_of([1.0] * 2 + [0.5] * 3) is None
    assert drop_of([1.0] * 3 + [0.5] * 3) == Drop(place=3, share=pytest.approx(0.5))


def test_too_few_intervals_to_search_tell_neither_a_drop_nor_that_there_is_none() -> None:
    told = [figures([interval(n) for n in range(count)], 1) for count in (1, 5, 6)]
    assert [one["sustained_drop"] for one in told] == [None, None, 0.0]


def interval(number: int, memory_bytes: int = 0, rate: float = 1000.0, **more: int) -> Interval:
    return Interval(
        run="0001", order=1, case="a", process=1, began_s=20.0 * number, seconds=20.0, steps=10,
        throughput_samples_per_s=rate, clock_mhz=None, temperature_c=None, power_w=None,
        power_scope=None, memory_bytes=memory_bytes, other_cpu_share=None, **more,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("growth", "words"),
    [(0.01, ""), (0.031, "it grew from 307 to 316 MiB in 1200 s"), (-0.1, "")],
)
def test_memory_must_stay_flat(growth: float, words: str) -> None:
    """What is taken in the first quarter, such as caches, is no leak."""
    held = [200 + 100 * min(1, n / 15) + growth * 300 * n / 30 for n in range(60)]
    found = leak([interval(n, int(mib * MIB)) for n, mib in enumerate(held)])
    assert words in found
    assert bool(found) == bool(words)
    assert leak([interval(n, (n + 1) * MIB) for n in range(5)]) == ""


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"device_memory_bytes": 0.05}, "memory of the device must stay within 2 %"),
        ({"card_memory_bytes": 0.05}, "results of its steps, or another process took it"),
        ({"device_memory_bytes": 0.01, "card_memory_bytes": 0.05}, ""),
    ],
)
def test_a_leak_on_a_device_is_found_while_the_host_s_memory_is_flat(
    columns: dict[str, float], words: str
) -> None:
    """What is in use on the card counts only where the allocator tells nothing."""
    held = [
        {name: int(300 * MIB * (1 + growth * n / 30)) for name, growth in columns.items()}
        for n in range(60)
    ]
    found = leak([interval(n, 100 * MIB, **of_device) for n, of_device in enumerate(held)])
    assert words in found
    assert bool(found) == bool(words)


def test_intervals_of_an_earlier_version_read(tmp_path: Path) -> None:
    path = tmp_path / "0001.sustained.csv"
    TABLE.append(path, [interval(1)])
    text = path.read_text().replace(",device_memory_bytes,card_memory_bytes", "")
    path.write_text(text.replace(",,\n", "\n", 1))
    assert TABLE.read(path) == [interval(1)]


# A run


class Sustaining(FakeInterpreter):
    """Goes on with 24 intervals of 5 s, the last twelve at three quarters of the speed."""

    growth = 0
    interrupted = False

    def answer(self, request: Any, on_event: Callable[..., None] = lambda event: None) -> Any:
        answer = super().answer(request, on_event)
        if not request.get("sustain_s"):
            return answer
        events = [{"event": "phase", "phase": "sustained"}, *map(self._interval, range(24))]
        for number, event in enumerate(events):
            if self.interrupted and number == 20:
                raise KeyboardInterrupt
            answer.events.append(event)
            on_event(event)
        return answer

    def _interval(self, number: int) -> dict[str, Any]:
        held = 100 * MIB + number * self.growth
        told = {"began_s": 5.0 * number, "seconds": 5.0, "steps": 400 if number < 12 else 300}
        return {"event": "interval", **told, "memory_bytes": held, "other_cpu_share": 0.01}


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("convmark.interpreter.Interpreter", Sustaining)
    monkeypatch.setattr("convmark.interpreter.inspection.Interpreter", Sustaining, raising=False)
    return ["run", "--models", "lenet5", "--tasks", "train", "--processes", "2", "--sustain", "2m"]


def rows_and_intervals() -> tuple[list[Any], list[Interval]]:
    (path,) = (one for one in Path("results").glob("*/0001.csv"))
    return read_run(path), TABLE.of(path)


def test_of_searched_sizes_the_fastest_alone_is_sustained_by_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Worker(Sustaining):
        def answer(self, request: Any, on_event: Callable[..., None] = lambda event: None) -> Any:
            if request["kind"] == "measure" and request["case"]["batch_size"] > 128:
                return Answer(status="out_of_memory", message="full", ready_s=0.1)
            return super().answer(request, on_event)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("convmark.interpreter.Interpreter", Worker)
    asked = ["run", "--models", "lenet5", "--tasks", "train", "--batch-sizes", "auto"]
    assert main([*asked, "--processes", "2", "--sustain", "2m"]) == 0
    rows, intervals = rows_and_intervals()
    sustained = [(row.batch_size, row.process) for row in rows if row.sustained_s]
    assert sustained == [(128, 3)]
    assert {row.process for row in rows if row.batch_size == 128} == {1, 2, 3}
    assert len(intervals) == 24


def test_a_search_that_goes_on_sustains_the_size_that_is_the_fastest_by_its_medians(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """64 was the fastest by luck, in its first process; then Ctrl-C came before the last one."""

    class Worker(Sustaining):
        def answer(self, request: Any, on_event: Callable[..., None] = lambda event: None) -> Any:
            if request["kind"] == "measure":
                size = request["case"]["batch_size"]
                if size > 128:
                    return Answer(status="out_of_memory", message="full", ready_s=0.1)
                if request.get("sustain_s") and not stopped:
                    stopped.append(size)
                    raise KeyboardInterrupt
                self.factor = 0.3 if size == 64 and size not in seen else 1.0
                seen.append(size)
            return super().answer(request, on_event)

    seen: list[int] = []
    stopped: list[int] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("convmark.interpreter.Interpreter", Worker)
    asked = ["run", "--models", "lenet5", "--tasks", "train", "--batch-sizes", "auto"]
    asked += ["--processes", "3", "--sustain", "2m"]
    assert main(asked) != 0
    capsys.readouterr()
    assert main([*asked, "--resume"]) == 0
    rows, _ = rows_and_intervals()
    assert stopped == [128]
    assert [(row.batch_size, row.process) for row in rows if row.sustained_s] == [(128, 4)]
    lines = capsys.readouterr().out.splitlines()
    best = next(line for line in lines if line.startswith("lenet5-train-cpu-bauto"))
    assert best.split()[1] == "128"


def test_a_run_keeps_intervals_and_shows_when_the_speed_dropped(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 0
    (first, second), intervals = rows_and_intervals()
    assert (first.sustained_s, second.sustained_s) == (120.0, None)
    assert first.sustained_throughput_samples_per_s == 300 * 32 / 5
    assert (first.sustained_drop, first.sustained_drop_began_s) == (pytest.approx(0.25), 60.0)
    assert [one.began_s for one in intervals] == [5.0 * n for n in range(24)]
    assert {one.case for one in intervals} == {"lenet5-train-cpu-b32-float32"}
    assert first.took_s >= first.sustained_until_s >= first.sustained_from_s
    assert first.command_started < first.started
    assert second.sustained_from_s is None
    assert re.search(r" 1920 +25.0 % +60.0 s", capsys.readouterr().out)
    (table,) = (one for one in build([Path("results")]).tables if one.key == "sustained")
    assert table.column("sustained_drop_began_s") == [60.0]


def test_a_leak_is_the_error_of_the_row(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sustaining, "growth", MIB)
    assert main(command) == 1
    (first, second), intervals = rows_and_intervals()
    assert (first.status, second.status, len(intervals)) == ("error", "ok", 24)
    assert "memory must stay within 2 %" in first.error


def test_ctrl_c_keeps_the_row_and_the_intervals_so_far(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sustaining, "interrupted", True)
    assert main(command) == 130
    (only,), intervals = rows_and_intervals()
    assert (only.status, only.sustained_s, len(intervals)) == ("ok", 95.0, 19)
    assert only.sustained_drop == pytest.approx(0.25)


def test_a_resumed_run_has_no_intervals_of_a_process_that_was_killed(command: list[str]) -> None:
    assert main(command) == 0
    (first, _), intervals = rows_and_intervals()
    (path,) = Path("results").glob("*/0001.csv")
    header, _, second = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text(header + second, encoding="utf-8")  # no row came of the first
    path.with_suffix(".steps.npz").unlink()
    assert main([*command, "--resume"]) == 0
    rows, again = rows_and_intervals()
    assert sorted(row.order for row in rows) == [1, 2]
    assert [(one.order, one.began_s) for one in again] == [
        (first.order, one.began_s) for one in intervals
    ]


def test_a_merge_takes_the_intervals_along_and_they_know_their_rows(command: list[str]) -> None:
    for folder in ("one", "two"):
        assert main([*command, "--results", folder]) == 0
    assert main(["merge", "one", "two"]) == 0
    paths = sorted(Path("results").glob("*/000?.csv"))
    for path, folder in zip(paths, ("one", "two"), strict=True):
        (before,) = Path(folder).glob("*/0001.csv")
        found = TABLE.of(path)
        assert {one.run for one in found} == {path.stem}
        assert [replace(one, run="0001") for one in found] == TABLE.of(before)
        (order,) = {one.order for one in found}
        (row,) = (row for row in read_run(path) if row.order == order)
        assert row.sustained_s == 120


def test_times_are_of_the_machine_s_clock_and_none_where_it_was_set_meanwhile() -> None:
    began = datetime(2026, 1, 2, tzinfo=timezone.utc)
    windows = {"event": "phase", "phase": "windows"}, {"event": "windows"}
    sustained = [{"event": "phase", "phase": "sustained"}, *[{"event": "interval"}] * 8]
    for set_by_s in (0.0, 3600.0, -5.0):
        now_s = [0.0]
        watch = Stretches(
            began,
            lambda s=now_s, by_s=set_by_s: began + timedelta(seconds=s[0] + by_s * (s[0] > 5)),
            lambda s=now_s: s[0],
        )
        for event in (*windows, *sustained):
            now_s[0] += 1.0
            watch.see(event)
        found = watch.columns(32)
        if set_by_s:
            assert found == {}
            continue
        del found["command_started"]
        assert found == {"took_s": 11.0, "windows_from_s": 1.0, "windows_until_s": 2.0,
                         "sustained_from_s": 9.0, "sustained_until_s": 11.0}  # fmt: skip


def test_a_driver_that_is_slow_to_open_does_not_pass_for_a_clock_that_was_set(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    began, now_s = datetime(2026, 1, 2, tzinfo=timezone.utc), [0.0]

    def slow(*given: Any, **more: Any) -> Any:
        now_s[0] += 3.0
        return watching(*given, **more)

    monkeypatch.setattr("convmark.session.run.watching", slow)
    monkeypatch.setattr(
        "convmark.session.run.Stretches",
        lambda started, now: Stretches(
            began, lambda: began + timedelta(seconds=now_s[0]), lambda: now_s[0]
        ),
    )
    monkeypatch.setattr("convmark.session.run.utc_now", lambda: began)
    assert main(command) == 0
    rows, _ = rows_and_intervals()
    assert rows[0].took_s == 3.0


@pytest.mark.parametrize("text", ["20 m", "m", "1e3s", "-5m", "99999999h"])
def test_a_time_needs_its_unit_and_half_a_minute(text: str) -> None:
    with pytest.raises(OptionError, match="--sustain: must be a time from 30s"):
        read({"sustain": text})
    assert read({"sustain": "20m"}).sustain_s == 1200


def test_without_sustained_steps_there_is_no_table() -> None:
    assert summarised([row()]) == []
    (table,) = summarised([row(sustained_s=60.0, sustained_throughput_samples_per_s=900.0,
                               sustained_drop=0.0)])  # fmt: skip
    assert "0.0 %" in plain(table)
