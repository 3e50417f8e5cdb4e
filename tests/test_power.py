"""Energy of the CPU packages, from a folder in the form of the kernel's powercap tree."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import psutil
import pytest
from rows import row

from convmark.core.table import plain
from convmark.machine import power
from convmark.machine.gpu.devices import Card, Gpu
from convmark.machine.power import (
    Idle,
    PackageWatch,
    Rapl,
    Reading,
    find_rapl,
    idle_power,
    others_busy,
)
from convmark.report.summary import energy
from convmark.report.tables.cost import of_scopes


class SimpleTimes(NamedTuple):
    user: float
    idle: float


RANGE_UJ = 262_143_328_850
"""Of Intel's servers; 65,532,610,987 on AMD's."""
HIDDEN = ": sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"


def zone(root: Path, path: str, name: str, energy_uj: int = 0, range_uj: int = RANGE_UJ) -> Path:
    folder = root / "sys/class/powercap" / path
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    return folder


def server(root: Path, *, drams: tuple[int, ...] = (0, 1)) -> list[Path]:
    """Two packages; their cores, the whole board and the second interface count nothing twice."""
    zones = [zone(root, f"intel-rapl:{n}", f"package-{n}", 5_000_000) for n in (0, 1)]
    for n in (0, 1):
        zone(root, f"intel-rapl:{n}/intel-rapl:{n}:0", "core", 10**12)
    zones += [zone(root, f"intel-rapl:{n}/intel-rapl:{n}:1", "dram", 7_000_000) for n in drams]
    zone(root, "intel-rapl:2", "psys", 10**12)
    zone(root, "intel-rapl-mmio:0", "package-0", 10**12)
    zone(root, "dtpm", "dtpm", 10**12)
    return zones


def spend(zones: list[Path], *joules: float) -> None:
    for folder, spent_j in zip(zones, joules, strict=True):
        path = folder / "energy_uj"
        path.write_text(str((int(path.read_text()) + round(spent_j * 1e6)) % RANGE_UJ))


def ticking(step_s: float) -> Callable[[], float]:
    return map(float, itertools.count(0, step_s)).__next__  # type: ignore[arg-type]


def spent_j(rapl: Rapl, zones: list[Path], *turns: tuple[float, ...], s: float = 1.0) -> Any:
    clock = ticking(s)
    readings = [rapl.read(clock)]
    for joules in turns:
        spend(zones, *joules)
        readings.append(rapl.read(clock))
    return rapl.joules(readings)


def test_packages_and_their_memory_are_counted_once_to_the_microjoule(tmp_path: Path) -> None:
    zones = server(tmp_path)
    rapl = find_rapl(tmp_path)
    assert (rapl.scope, len(rapl.counters), rapl.missing) == ("2 packages+dram", 4, "")
    turns = (100.000001, 50, 10, 5), (1, 2, 3, 4)
    assert spent_j(rapl, zones, *turns) == 175.000001


def test_a_counter_that_has_gone_round_goes_on(tmp_path: Path) -> None:
    folder = zone(tmp_path, "intel-rapl:0", "package-0", RANGE_UJ - 40_000_000)
    rapl = find_rapl(tmp_path)
    assert rapl.scope == "package"
    assert spent_j(rapl, [folder], (30,), (60,), (50,)) == 140


def test_memory_of_some_packages_is_left_out(tmp_path: Path) -> None:
    zones = server(tmp_path, drams=(1,))
    rapl = find_rapl(tmp_path)
    assert rapl.scope == "2 packages"
    assert spent_j(rapl, zones, (100, 50, 10)) == 150


@pytest.mark.parametrize(
    ("before_uj", "now_uj", "s", "range_uj"),
    [
        (0, 100_000_000, 263.0, RANGE_UJ),  # it may have gone round twice
        (0, 100_000_000, 66.0, 65_532_610_987),  # AMD's goes round four times as often
        (500_000_000, 10_000_000, 1.0, RANGE_UJ),  # reset, as after a suspension
        (0, 2_000_000_000, 1.0, RANGE_UJ),  # 2 kW
    ],
)
def test_what_may_be_another_energy_is_none(
    tmp_path: Path, before_uj: int, now_uj: int, s: float, range_uj: int
) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", range_uj=range_uj)
    readings = [
        Reading(time_s=time_s, energies_uj=(energy_uj,))
        for time_s, energy_uj in ((0.0, before_uj), (s, now_uj))
    ]
    assert find_rapl(tmp_path).joules(readings) is None


def test_a_counter_that_cannot_be_read_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server(tmp_path)

    def refused(self: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    plain_text = power.file_text
    monkeypatch.setattr(  # the tests may be run by root, who may read everything
        power, "file_text", lambda path: "" if path.name == "energy_uj" else plain_text(path)
    )
    monkeypatch.setattr(Path, "read_bytes", refused)
    rapl = find_rapl(tmp_path)
    assert HIDDEN in rapl.missing
    assert (rapl.counters, rapl.scope) == ((), "")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"proc/cpuinfo": "flags\t\t: fpu hypervisor\n"}, "none in a virtual machine"),
        ({"sys/x": "", "proc/cpuinfo": "flags : fpu\n"}, "sudo modprobe intel_rapl_msr"),
        ({".dockerenv": ""}, "docker run --security-opt systempaths=unconfined"),
        ({}, "no counters are read on this system"),
    ],
)
def test_a_machine_without_counters_says_why(
    tmp_path: Path, files: dict[str, str], words: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert words in find_rapl(tmp_path).missing


# A case's row

WINDOWS = {"event": "windows", "steps": 10, "times_s": [0.2] * 5, "run_steps": 50}
EVENTS = [
    {"event": "phase", "phase": "windows"},
    {"event": "progress", "phase": "windows"},
    WINDOWS,
    {"event": "peaks"},
]


def watched(
    tmp_path: Path,
    events: list[dict[str, Any]] = EVENTS,
    *,
    s: float = 0.5,
    others: Iterator[tuple[float, float]] | None = None,
) -> dict[str, Any]:
    """Return the columns of a package that takes 40 J between two events, s apart."""
    folder = zone(tmp_path, "intel-rapl:0", "package-0")
    read = (others or itertools.repeat((0.0, 0.0))).__next__
    watch = PackageWatch(find_rapl(tmp_path), 30.0, ticking(s), read)
    for event in events:
        spend([folder], 40)
        watch.see(event)
    return watch.columns(32)


def test_the_energy_of_a_sample_is_the_power_over_the_windows_times_its_time(
    tmp_path: Path,
) -> None:
    assert watched(tmp_path) == {
        "cpu_power_scope": "package",
        "cpu_idle_power_w": 30.0,
        "cpu_power_w": 80.0,  # 80 J in 1 s
        "cpu_joules_per_sample": pytest.approx(80 / (50 * 32)),
    }


@pytest.mark.parametrize(
    "events",
    [
        EVENTS[2:],  # the begin of the windows was not seen
        EVENTS[:2],  # nor their end
        [*EVENTS[:2], {**WINDOWS, "run_steps": 60}],  # the readings span a fifth less than they
        [*EVENTS[:2], {**WINDOWS, "times_s": []}],
        [*EVENTS[:2], {"event": "windows"}],
    ],
)
def test_readings_that_are_not_the_windows_give_no_energy(
    tmp_path: Path, events: list[dict[str, Any]]
) -> None:
    assert not {"cpu_power_w", "cpu_joules_per_sample"} & watched(tmp_path, events).keys()


def test_busy_cpus_that_the_process_may_not_use_leave_the_energy_empty(tmp_path: Path) -> None:
    quiet, busy = ((0.0, 0.0), (2.0, 31.0), (4.0, 62.0)), ((0.0, 0.0), (4.0, 31.0), (8.0, 62.0))
    assert "cpu_power_w" in watched(tmp_path / "quiet", others=iter(quiet))
    assert "cpu_power_w" not in watched(tmp_path / "busy", others=iter(busy))


def test_a_cpu_that_goes_offline_meanwhile_leaves_the_energy_empty(tmp_path: Path) -> None:
    """What the others did is then not known: all their seconds are fewer than before."""
    gone = ((5.0, 90.0), (5.0, 90.5), (3.0, 60.0))
    assert "cpu_power_w" not in watched(tmp_path, others=iter(gone))


def test_cpus_beside_those_of_a_bound_process_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    times = [SimpleTimes(1.0, 9.0), SimpleTimes(2.0, 8.0), SimpleTimes(4.0, 6.0)]
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: times)
    assert others_busy([0]) == (6.0, 20.0)


def test_without_counters_a_row_has_no_scope() -> None:
    assert PackageWatch(Rapl()).columns(32) == {"cpu_power_scope": None, "cpu_idle_power_w": None}


# Idle


def idle(tmp_path: Path, percent: float) -> Idle:
    folder = zone(tmp_path, "intel-rapl:0", "package-0")

    def waited(seconds: float) -> float:
        spend([folder], 12.5 * seconds)
        return percent

    return idle_power(find_rapl(tmp_path), (), busy_percent=waited, clock=ticking(power.IDLE_S))


def test_idle_power_is_measured_before_and_said(tmp_path: Path) -> None:
    assert idle(tmp_path, 3.0) == Idle(cpu_w=12.5, line="idle power: package 12.5 W")


@pytest.mark.parametrize(
    ("powers_w", "utilisation", "found"),
    [
        ([124, 110, 90, 75, 74, 300], 0.0, (74.0, "card X 74.0 W")),
        ([80, 79.9], 0.0, (79.9, "card X 79.9 W")),
        ([100 * 0.9**number for number in range(10)], 0.0, (None, "still falling after 20 s")),
        ([300, 300], 0.5, (None, "unknown")),
    ],
    ids=["just used", "idle", "too long", "in use"],
)
def test_the_idle_power_of_a_card_is_awaited(
    powers_w: list[float],
    utilisation: float,
    found: tuple[float | None, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = iter([power_w for power_w in powers_w for _ in range(4)])  # four looks a round
    reader = SimpleNamespace(
        sample=lambda: SimpleNamespace(power_w=next(left), utilisation=utilisation)
    )
    monkeypatch.setattr(power, "opened", lambda library: nullcontext(library))
    monkeypatch.setattr(power, "load_nvml", object)
    monkeypatch.setattr(power, "reader_of", lambda library, card: reader)
    card = Card(gpu=Gpu(index=0, name="X", memory_bytes=None, uuid=None))
    told = idle_power(Rapl(), [card], busy_percent=lambda _: 1.0, clock=ticking(power.IDLE_S))
    assert told.of_cards([card]) == found[0]
    assert told.line.endswith(found[1])


def test_a_busy_machine_has_no_idle_power(tmp_path: Path) -> None:
    line = "idle power: unknown, 35 % of the CPUs' time was used"
    assert idle(tmp_path, 35.0) == Idle(line=line)


def test_where_nothing_can_be_read_nobody_waits() -> None:
    assert idle_power(Rapl(), (), busy_percent=lambda _: pytest.fail("waited")) == Idle()


# Tables

MEASURED = {
    "cpu_power_scope": "package+dram",
    "cpu_power_w": 80.0,
    "cpu_idle_power_w": 30.0,
    "cpu_joules_per_sample": 0.05,
    "throughput_samples_per_s": 1600.0,
}


def test_every_watt_has_its_scope_and_idle_is_taken_off() -> None:
    card = {"power_w": 300.0, "idle_power_w": 60.0, "joules_per_sample": 0.2}
    of_card, of_package = of_scopes({**MEASURED, **card})
    assert of_card == {
        "scope": "card",
        "power_w": 300.0,
        "idle_w": 60.0,
        "gross_j": 0.2,
        "above_idle_j": pytest.approx(0.2 - 60 / 1600),
        "samples_per_joule": 5.0,
    }
    assert of_package["scope"] == "package+dram"
    assert of_package["above_idle_j"] == pytest.approx(0.05 - 30 / 1600)


def test_the_idle_power_of_one_of_several_machines_is_that_of_a_part_of_the_samples() -> None:
    (found,) = of_scopes({**MEASURED, "cluster": "hosts2", "throughput_samples_per_s": 3200.0})
    assert found["above_idle_j"] == pytest.approx(0.05 - 30 / 1600)
    (none,) = of_scopes({**MEASURED, "cpu_idle_power_w": 100.0})
    assert none["above_idle_j"] is None, "the idle machine took more than the busy one"


def test_a_run_ends_with_the_energy_where_it_was_measured() -> None:
    (table,) = energy([row(process=n, **MEASURED) for n in (1, 2)])
    text = plain(table)
    assert "package+dram" in text
    assert "0.03125" in text
    assert energy([row()]) == []
