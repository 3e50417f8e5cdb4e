"""Rows that no machine measured: `convmark check-submission` has a finding for each."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_rows import keep_run
from valid_submission import NAMES, NOW, honest, timed

from convmark.machine.hardware import machine_name
from convmark.report.plausible import implausible
from convmark.report.submission import check
from convmark.results.record import COLUMNS, Record
from convmark.worker import timing

Change = Callable[[Record], dict[str, Any]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return results with one published run, against which others are held."""
    monkeypatch.chdir(tmp_path)
    keep_run(Path("main/ada"), honest("slow", 1))
    keep_run(Path("new/ada"), honest("slow", 1))
    return Path("new/ada")


def found(folder: Path, rows: list[Record]) -> dict[str, int | None]:
    """Return the rules that the rows break, with how many of them do."""
    if rows:
        keep_run(folder, rows)
    return {one.rule: one.rows for one in check([folder], [Path("main/ada")], NOW).findings}


def changed(change: Change, run: int = 2) -> list[Record]:
    return [dataclasses.replace(row, **change(row)) for row in honest("slow", run)]


def faster(factor: float, *names: str) -> Change:
    """Divide the step times and these figures, and multiply the throughput."""
    times = [name for name in Record.__dataclass_fields__ if name.startswith("step_time_")]

    def change(row: Record) -> dict[str, Any]:
        old = {name: getattr(row, name) for name in (*times, *names)}
        new = {name: value / factor if value else None for name, value in old.items()}
        return {**new, "throughput_samples_per_s": row.throughput_samples_per_s * factor}

    return change


def with_counts(change: Change, **more: float) -> Change:
    """Change the counts of steps and windows too, as the harness would have chosen them."""

    def whole(row: Record) -> dict[str, Any]:
        new = change(row)
        ratio = row.paired_log_ratio + more["ratio"] if more else row.paired_log_ratio
        counts = timed(new["step_time_p50_s"], row.time_budget_s or 1.0)
        return {**new, **counts, "paired_log_ratio": ratio}

    return whole


def test_what_the_harness_writes_passes(folder: Path) -> None:
    assert found(folder, honest("slow", 2)) == {}
    assert found(folder, honest("fast", 3)) == {}


CHEATS: dict[str, tuple[Change, str]] = {
    "step times and throughput alone": (faster(2), "contradicts"),
    "with the counts of steps and windows": (
        with_counts(faster(2, "paired_step_time_p50_s")), "contradicts",
    ),
    "with the ratio to the reference": (
        with_counts(faster(2, "paired_step_time_p50_s"), ratio=-math.log(2)), "contradicts",
    ),
    "a batch twice as large": (lambda row: {"batch_size": 2 * row.batch_size}, "contradicts"),
    "an accuracy that was not measured": (lambda row: {"accuracy": 0.99}, "contradicts"),
    "fed beyond what the step takes": (
        lambda row: {"input_bound_throughput_samples_per_s": 4 * row.throughput_samples_per_s},
        "contradicts",
    ),
    "a first step below the shortest": (
        lambda row: {"time_to_first_step_s": 1e-5, "trace_s": None}, "contradicts",
    ),
    "energy without power": (lambda row: {"joules_per_sample": 0.1}, "contradicts"),
    "energy of another power": (
        lambda row: {"cpu_power_w": 50.0,
                     "cpu_joules_per_sample": 25.0 / row.throughput_samples_per_s}, "contradicts",
    ),
    "a power that no machine has": (
        lambda row: {"cpu_power_w": 2e4,
                     "cpu_joules_per_sample": 2e4 / row.throughput_samples_per_s}, "ceiling",
    ),
    "an efficiency without a ceiling": (lambda row: {"efficiency": 0.5}, "contradicts"),
    "an efficiency of other FLOP/s": (
        lambda row: {"peak_flops_per_s": 1e12, "efficiency": 0.9}, "contradicts",
    ),
    "a device that is none": (lambda row: {"device": "<b>"}, "format"),
    "a card that the machine has not": (lambda row: {"device": "gpu:0"}, "machine"),
    "FLOPs lowered": (lambda row: {"flops_per_sample": row.flops_per_sample // 2}, "contradicts"),
    "no FLOPs": (lambda row: {"flops_per_sample": None}, "incomplete"),
    "no time budget": (lambda row: {"time_budget_s": None}, "incomplete"),
    "no parameters": (lambda row: {"parameters": None}, "incomplete"),
    "outputs of zero": (lambda row: {"output_rms": row.output_rms and 0.0}, "loss"),
    "a version that is none": (lambda row: {"tensorflow": "newest"}, "format"),
    "a commit that is none": (lambda row: {"commit": "main"}, "format"),
    "another CPU": (lambda row: {"cpu": "CPU fast"}, "machine"),
    "more cores": (lambda row: {"cores": 64}, "machine"),
}  # fmt: skip


@pytest.mark.parametrize("what", CHEATS)
def test_a_row_that_cannot_be_is_found(what: str, folder: Path) -> None:
    change, rule = CHEATS[what]
    assert set(found(folder, changed(change))) == {rule}


H100 = "NVIDIA H100 80GB HBM3"
CARD: dict[str, Any] = {
    "device": "gpu:0", "gpu": H100, "gpu_memory_bytes": 85_520_809_984, "mig": "off",
    "machine": machine_name(cpu="CPU slow", cores=2, ram_bytes=2**34, gpu_names=[H100]),
    "compute_capability": "9.0", "power_limit_w": 700.0, "power_w": 125.0, "idle_power_w": 70.0,
    "max_sm_clock_mhz": 1980, "sm_clock_mhz": 1980.0, "max_memory_clock_mhz": 2619,
    "memory_clock_mhz": 2619.0, "temperature_c": 34.0, "gpu_utilisation": 0.5, "gpu_samples": 90,
    "throttle_reasons": "none", "peak_device_memory_bytes": 2**28, "card_peak_memory_bytes": 2**30,
    "precision": "tf32", "peak_flops_per_s": 3.5e14, "peak_bytes_per_s": 2.8e12,
}  # fmt: skip
"""Of a row on a card, as one was measured."""
OF_CARDS: dict[str, tuple[dict[str, Any], str]] = {
    "more memory than the card's name says": ({"gpu_memory_bytes": 2**40}, "contradicts"),
    "more memory held than there is": ({"peak_device_memory_bytes": 2**37}, "ceiling"),
    "more in use than there is": ({"card_peak_memory_bytes": 2**37}, "ceiling"),
    "beyond the highest clock": ({"sm_clock_mhz": 2500.0}, "ceiling"),
    "beyond the memory's highest clock": ({"memory_clock_mhz": 3000.0}, "ceiling"),
    "beyond the power limit": ({"power_w": 800.0}, "ceiling"),
    "more power when idle": ({"idle_power_w": 300.0}, "ceiling"),
    "energy beyond the power limit": ({"joules_per_sample": 1.0, "power_w": 690.0}, "ceiling"),
    "a temperature that melts": ({"temperature_c": 400.0}, "ceiling"),
    "TF32 on an older card": ({"compute_capability": "7.0"}, "contradicts"),
    "a copy faster than any memory": ({"peak_bytes_per_s": 9e13}, "ceiling"),
    "a matrix product faster than any": ({"peak_flops_per_s": 9e15}, "ceiling"),
    "TF32 on a CPU": ({"device": "cpu"}, "schema"),
    "a card's power on a CPU": (
        {"device": "cpu", "precision": "float32", "peak_flops_per_s": None,
         "peak_bytes_per_s": None}, "contradicts",
    ),
}  # fmt: skip


def test_a_row_on_a_card_passes_and_one_that_no_card_gives_is_found(tmp_path: Path) -> None:
    told = {}
    for number, (what, (change, _)) in enumerate([("", ({}, "")), *OF_CARDS.items()], 1):
        rows = changed(lambda row, change=change: {**CARD, **change}, number)  # type: ignore[misc]
        keep_run(tmp_path / str(number), rows)
        told[what] = {one.rule for one in check([tmp_path / str(number)], [], NOW).findings}
    energies = "energy beyond the power limit"  # its power is another too
    assert told.pop(energies) == {"ceiling", "contradicts"}
    assert told == {"": set(), **{what: {rule} for what, (_, rule) in OF_CARDS.items()
                                  if what != energies}}  # fmt: skip


def test_a_bound_process_has_some_of_the_machines_cpus_and_no_more(folder: Path) -> None:
    assert found(folder, changed(lambda row: {"cpus": "0", "cores": 1})) == {}
    assert set(found(folder, changed(lambda row: {"cpus": "0", "cores": 64}, 3))) == {"machine"}


def test_a_machine_may_have_a_card_that_was_not_measured_on(folder: Path) -> None:
    facts = {"cpu": "CPU slow", "cores": 2, "ram_bytes": 2**34}
    one, two = (
        machine_name(**facts, gpu_names=["NVIDIA H100"] * number)  # type: ignore[arg-type]
        for number in (1, 2)
    )
    assert found(folder, changed(lambda row: {"machine": one})) == {}
    assert found(folder, changed(lambda row: {"machine": two}, 3)) == {}
    other = changed(lambda row: {"machine": one, "device": "gpu:0", "gpu": "NVIDIA A100"}, 4)
    assert found(folder, other) == {"machine": 8}


@pytest.mark.parametrize(
    "figures",
    [
        {"step_time_std_s": 1e-12}, {"cpus_in_use": 9.0}, {"physical_cores": 3},
        {"pool_threads": -5}, {"windows_from_s": 9.0, "windows_until_s": 8.0},
        {"windows_until_s": 9.0, "took_s": 8.0}, {"cpu_idle_power_w": 1e6},
    ],
    ids=lambda figures: " ".join(figures),
)  # fmt: skip
def test_figures_that_no_process_has_contradict(figures: dict[str, Any], folder: Path) -> None:
    assert found(folder, changed(lambda row: figures)) == {"contradicts": 8}


def test_the_clock_of_cpu_time_counts_in_hundredths_of_a_second() -> None:
    step_s = 14e-6
    row = {**dataclasses.asdict(honest("slow", 2)[0]), **timed(step_s, 1.0), "cpus_in_use": 3.9}
    times = {name: step_s for name in row if name.startswith("step_time_")}
    rules = [words for _, words in implausible(as_columns({**row, **times}))]
    assert not [words for words in rules if "cpus_in_use" in words]


@pytest.mark.parametrize("column", ["gpu", "gpu_uuid", "driver", "pcie", "max_sm_clock_mhz"])
def test_a_row_of_the_cpu_has_no_card(column: str, folder: Path) -> None:
    value = 1980 if column == "max_sm_clock_mhz" else "NVIDIA H100"
    assert "contradicts" in found(folder, changed(lambda row: {column: value}))


@pytest.mark.parametrize("cpu", ["CPU slow", "Intel(R) Xeon(R) Platinum 8481C of a long name"])
def test_a_machine_may_have_cards_of_two_kinds_each_of_which_was_measured_on(
    cpu: str, folder: Path
) -> None:
    cards = ["NVIDIA GeForce RTX 3090", "NVIDIA GeForce RTX 4090"]
    two = machine_name(cpu=cpu, cores=2, ram_bytes=2**34, gpu_names=cards)
    for run, gpu in enumerate([*cards, "NVIDIA A100", "NVIDIA GeForce RTX 309"], 3):
        machine = {"machine": two, "cpu": cpu, "gpu": gpu, "device": "gpu:0"}
        rules = found(folder, changed(lambda row, machine=machine: machine, run))
        assert ("machine" in rules) == (gpu not in cards), gpu


def test_a_row_that_was_removed_is_missed_but_of_a_part_of_a_plan(folder: Path) -> None:
    rows = honest("slow", 2)
    assert found(folder, [*rows[:3], *rows[4:]]) == {"incomplete": 1}
    last = dataclasses.replace(rows[-1], order=10**15)
    assert found(folder, [*rows[:-1], last]) == {"incomplete": 1}
    assert found(folder, rows[:-1]) == {}  # as a run that was interrupted
    other_node = changed(lambda row: {"plan": f"91a4 of {NAMES['slow']}/0001"})
    assert found(folder, [*other_node[:3], *other_node[4:]]) == {}


def loop_of(step_s: float, budget_s: float) -> int:
    """Return how many steps the loop that measures takes of steps that are all as long."""

    class Device:
        def synchronise(self, token: Any) -> None:
            now[0] += step_s

        def agreed(self, seconds: float) -> float:
            return seconds

    now = [0.0]
    pulse = timing.Pulse(lambda phase: None, lambda: now[0])
    taken = timing.steps(lambda: None, Device(), budget_s, pulse, lambda: now[0], lambda: now[0])
    return len(taken.wall_s)


@pytest.mark.parametrize("budget_s", [0.02, 0.3, 1.0, 4.0])
@pytest.mark.parametrize("step_s", [2e-5, 0.0004, 0.0006, 0.004, 0.006, 0.0155, 0.03, 2.0])
def test_counts_of_the_loop_that_measures_pass(step_s: float, budget_s: float) -> None:
    names = [name for name in Record.__dataclass_fields__ if name.startswith("step_time_")]
    row = dataclasses.asdict(honest("slow", 2)[0])
    figures = {
        **dict.fromkeys((*names, "paired_step_time_p50_s"), step_s),
        "throughput_samples_per_s": 32 / step_s,
        "paired_log_ratio": math.log(step_s / row["reference_step_time_p50_s"]),
        "time_to_first_step_s": 3.0,
    }
    counts = {**timed(step_s, budget_s), "steps": loop_of(step_s, budget_s)}
    whole = {**row, "flops_per_sample": 1, "training_flops_per_sample": 1, **counts, **figures}
    assert list(implausible(as_columns(whole))) == []
    half = {name: value / 2 for name, value in figures.items() if name in names}
    if counts["steps"] not in (timing.MIN_STEPS, timing.WANTED_STEPS, timing.MAX_STEPS):
        assert list(implausible(as_columns({**whole, **half, "step_time_std_s": 0.0})))


def as_columns(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as `Published` has it: NaN for a number that is absent."""
    numbers = {one.name for one in COLUMNS if one.type in (int, float)}
    return {name: math.nan if value is None and name in numbers else value
            for name, value in row.items()}  # fmt: skip
