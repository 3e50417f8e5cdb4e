"""The search over real rows: what is tried, what counts as out of memory, what is given up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import fake_worker
import pytest
from rows import row

from convmark.cli import main
from convmark.core.case import Case
from convmark.results.reading import read_run
from convmark.results.record import Record
from convmark.session.auto_batch import choices_table, chosen_cases, explore

LENET = Case(model="lenet5", task="train", batch_size=32)
ON_GPU = Case(model="lenet5", task="train", batch_size=32, device="gpu:0")
GIB = 2**30


class Device:
    """Measures cases: a step takes 1 ms and 10 us a sample, which takes 1 MiB of the host."""

    def __init__(self, holds: int, status: str = "out_of_memory") -> None:
        self.holds = holds
        self.status = status
        self.sizes: list[int] = []

    def __call__(self, case: Case) -> Record:
        size = case.batch_size
        self.sizes.append(size)
        if size > self.holds:
            return row(**case.as_fields(), status=self.status, error="too much")
        step_s = 1e-3 + 1e-5 * size
        return row(
            **case.as_fields(),
            step_time_p50_s=step_s,
            throughput_samples_per_s=size / step_s,
            peak_host_memory_bytes=size * 2**20,
        )


def test_a_device_is_searched_up_to_its_memory() -> None:
    device = Device(holds=200)
    (choice,) = explore([ON_GPU], device, longest_step_s=2.0, free_bytes=lambda: 0)
    assert device.sizes == [32, 64, 128, 256, 192, 224, 208]
    assert choice.whole
    assert choice.found.limited
    assert [case.batch_size for case in chosen_cases([choice])] == [192]


def test_a_cpu_is_not_asked_for_more_than_its_free_memory_would_hold() -> None:
    device = Device(holds=1 << 20)
    (choice,) = explore([LENET], device, longest_step_s=60.0, free_bytes=lambda: GIB)
    assert device.sizes == [32, 64, 128, 256, 512]  # 1,024 MiB are more than 80 % of 1 GiB
    assert not choice.found.limited
    (line,) = choices_table([choice]).splitlines()[2:]
    why = "1024 would take 1.00 GiB, above 80 % of the free memory, 819 MiB"
    assert line.split("  ")[-1] == why
    assert "at least 512" in line


def test_no_size_is_tried_whose_step_would_outlast_the_budget() -> None:
    device = Device(holds=1 << 20)
    (choice,) = explore([ON_GPU], device, longest_step_s=0.01, free_bytes=lambda: GIB)
    assert device.sizes == [32, 64, 128, 256, 512]  # 6.12 ms; twice that is over 10 ms
    assert choice.limit == "a step of 1024 would take 12.2 ms: raise --time-budget to try it"


def test_what_memory_has_limited_needs_no_reason_and_is_no_least() -> None:
    (choice,) = explore([ON_GPU], Device(holds=200), longest_step_s=2.0, free_bytes=lambda: 0)
    assert choice.limit == ""
    assert "at least" not in choices_table([choice])


def test_the_throughput_of_a_size_is_the_median_of_its_processes() -> None:
    device = Device(holds=100)
    (choice,) = explore([ON_GPU], device, longest_step_s=2.0, free_bytes=lambda: GIB)
    best = replace(ON_GPU, batch_size=96)
    rows = [
        row(**best.as_fields(), process=number, throughput_samples_per_s=rate)
        for number, rate in enumerate((900.0, 700.0, 100.0), 1)
    ]
    rows.append(row(**best.as_fields(), process=4, status="out_of_memory"))
    rows.append(row(**ON_GPU.as_fields(), throughput_samples_per_s=1.0))
    (line,) = choices_table([choice], rows).splitlines()[2:]
    assert line.split()[1:] == ["96", "700", "3", "96"]


def test_processes_of_one_machine_share_its_memory() -> None:
    one, two = Device(holds=1 << 20), Device(holds=1 << 20)
    spread = replace(LENET, replicas=2, cluster="local")
    for case, device in ((LENET, one), (spread, two)):
        explore([case], device, longest_step_s=2.0, free_bytes=lambda: GIB)
    assert max(two.sizes) == max(one.sizes) // 2


def test_a_failure_that_is_none_of_memory_ends_that_search_alone() -> None:
    devices = {"gpu:0": Device(holds=100, status="error"), "cpu": Device(holds=1 << 20)}
    first, second = explore(
        [ON_GPU, LENET],
        lambda case: devices[case.device](case),
        longest_step_s=2.0,
        free_bytes=lambda: GIB,
    )
    assert first.failure == "batch size 128: error: too much"
    assert (first.whole, first.found.best) == (False, 64)
    assert second.whole


def test_where_nothing_fits_the_table_says_so() -> None:
    (choice,) = explore([ON_GPU], Device(holds=0), longest_step_s=2.0, free_bytes=lambda: GIB)
    assert not choice.whole
    assert chosen_cases([choice]) == []
    text = choices_table([choice])
    assert "not even one sample fits" in text
    assert "lenet5-train-gpu:0-bauto-float32" in text


def test_the_command_keeps_a_row_of_every_size_and_names_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Worker(fake_worker.FakeInterpreter):
        def answer(self, request, on_event=lambda event: None):  # type: ignore[no-untyped-def]
            if request["kind"] == "measure" and request["case"]["batch_size"] > 128:
                return fake_worker.Answer(status="out_of_memory", message="full", ready_s=0.1)
            return super().answer(request, on_event)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("convmark.interpreter.Interpreter", Worker)
    options = ["--models", "lenet5", "--tasks", "train", "--batch-sizes", "auto"]
    assert main(["run", *options, "--processes", "2"]) == 0
    (path,) = tmp_path.glob("results/*/0001.csv")
    rows = read_run(path)
    sizes = [(row.batch_size, row.process, row.status) for row in rows]
    assert sizes == [
        (32, 1, "ok"),
        (64, 1, "ok"),
        (128, 1, "ok"),
        (256, 1, "out_of_memory"),
        (192, 1, "out_of_memory"),
        (160, 1, "out_of_memory"),
        (144, 1, "out_of_memory"),
        (128, 2, "ok"),
    ]
    assert [row.order for row in rows] == list(range(1, 9))
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if line.startswith("lenet5-train-cpu-bauto"))
    assert line.split()[1:] == ["128", "12800", "2", "128"]


def test_a_size_that_was_fast_by_luck_gives_way_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """64 takes 0.3 of its time once, 128 is the fastest in truth, and has both processes too."""

    class Worker(fake_worker.FakeInterpreter):
        def answer(self, request, on_event=lambda event: None):  # type: ignore[no-untyped-def]
            if request["kind"] == "measure":
                size = request["case"]["batch_size"]
                if size > 128:
                    return fake_worker.Answer(status="out_of_memory", message="full", ready_s=0.1)
                lucky = size == 64 and size not in seen
                seen.append(size)
                self.factor = 0.3 if lucky else 1.0
            return super().answer(request, on_event)

    seen: list[int] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("convmark.interpreter.Interpreter", Worker)
    options = ["--models", "lenet5", "--tasks", "train", "--batch-sizes", "auto"]
    assert main(["run", *options, "--processes", "3"]) == 0
    assert [seen.count(size) for size in (32, 64, 128)] == [1, 3, 3]
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if line.startswith("lenet5-train-cpu-bauto"))
    assert line.split()[1:] == ["128", "12800", "3", "128"]
    (path,) = tmp_path.glob("results/*/0001.csv")
    assert [row.order for row in read_run(path)] == list(range(1, len(read_run(path)) + 1))


def test_a_chosen_size_that_fails_in_a_later_process_fails_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest size may fit once and not again: then it is no size to rely on."""

    class Worker(fake_worker.FakeInterpreter):
        def answer(self, request, on_event=lambda event: None):  # type: ignore[no-untyped-def]
            full = request["kind"] == "measure" and (
                request["case"]["batch_size"] > 32 or self.answered >= 6
            )
            if full:
                self.answered += 1
                return fake_worker.Answer(status="out_of_memory", message="full", ready_s=0.1)
            return super().answer(request, on_event)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("convmark.interpreter.Interpreter", Worker)
    options = ["--models", "lenet5", "--tasks", "train", "--batch-sizes", "auto"]
    assert main(["run", *options, "--processes", "2"]) == 1
    (path,) = tmp_path.glob("results/*/0001.csv")
    assert read_run(path)[-1].process == 2
    assert read_run(path)[-1].status == "out_of_memory"
