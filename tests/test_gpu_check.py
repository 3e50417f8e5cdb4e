"""scripts/gpu_check: the proofs of the instruments, and one whole run on the CPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from rows import row

from convmark.core.case import Case
from convmark.interpreter import Answer
from convmark.results.reading import read_run
from convmark.worker.ceiling import held_bytes, synchronised

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))  # scripts, not a package

from gpu_check import (
    ceilings_table,
    energy_proof,
    installed_backend,
    instrument_proofs,
    main,
    measured_ceilings,
)

ROOT = Path(__file__).resolve().parent.parent
MIB = 2**20


class Device:
    """An asynchronous device: a step is queued in 1 s and done in 10 s; some syncs do not wait."""

    def __init__(self, *, waits: bool = True, peaks: list[int | None] | None = None) -> None:
        self.now = 0.0
        self._queued_s = 0.0
        self._waits = waits
        self._peaks = list(peaks or [])
        self.resets = 0
        self.syncs = 0

    def step(self) -> object:
        self.now += 1.0
        self._queued_s += 10.0
        return object()

    def synchronise(self, token: object) -> None:
        self.syncs += 1
        if self._waits:
            self.now += self._queued_s
            self._queued_s = 0.0

    def agreed(self, seconds: float) -> float:
        return seconds

    def reset_peak_memory(self) -> None:
        self.resets += 1

    def peak_memory(self) -> int | None:
        return self._peaks.pop(0)

    def clock(self) -> float:
        return self.now


def proofs(asked: int = 256 * MIB, held: int | None = 256 * MIB, **times_s: float) -> list[Any]:
    times = {"unsynchronised_s": 0.001, "synchronised_s": 0.011, "window_s": 0.010, **times_s}
    return instrument_proofs(
        {
            "case": {"model": "lenet5"},
            "synchronised": times,
            "allocation": {"asked_bytes": asked, "held_bytes": held},
        }
    )


def test_a_step_is_timed_without_a_sync_with_one_each_and_with_one_for_all() -> None:
    device = Device()
    found = synchronised(device.step, device, device.clock)
    assert (found.unsynchronised_s, found.synchronised_s, found.window_s) == (1.0, 11.0, 11.0)
    assert device.syncs == 10 + 8 * (1 + 5)


def test_a_sync_that_does_not_wait_shows() -> None:
    device = Device(waits=False)
    found = synchronised(device.step, device, device.clock)
    assert found.synchronised_s == found.unsynchronised_s == 1.0


def test_what_an_allocation_holds_is_the_growth_of_the_peak() -> None:
    device = Device(peaks=[100, 356])
    assert held_bytes(lambda: b"", device) == 256
    assert device.resets == 1
    assert held_bytes(lambda: b"", Device(peaks=[None, None])) is None


@pytest.mark.parametrize(("synchronised_s", "sound"), [(0.0081, True), (0.0079, False)])
def test_a_synchronised_step_must_not_be_quicker_than_one_of_a_window(
    synchronised_s: float, sound: bool
) -> None:
    assert proofs(synchronised_s=synchronised_s)[0].sound is sound


@pytest.mark.parametrize(
    ("held", "sound"),
    [(100, True), (102, True), (98, True), (103, False), (0, False), (None, None)],
)
def test_the_peak_must_grow_by_what_is_allocated(held: int | None, sound: bool | None) -> None:
    assert proofs(asked=100, held=held)[1].sound is sound


@pytest.mark.parametrize(("power_w", "sound"), [(100.0, True), (80.0, True), (79.0, False)])
def test_the_energy_counter_must_agree_with_the_power(power_w: float, sound: bool) -> None:
    # 0.1 J a sample at 1,000 samples/s are 100 W
    measured = row(joules_per_sample=0.1, throughput_samples_per_s=1000.0, power_w=power_w)
    proof = energy_proof(measured)
    assert proof is not None
    assert proof.sound is sound
    assert "100.0 W by the counter" in proof.finding


@pytest.mark.parametrize("absent", ["joules_per_sample", "throughput_samples_per_s", "power_w"])
def test_without_counter_or_power_nothing_is_said_of_the_energy(absent: str) -> None:
    figures = {"joules_per_sample": 0.1, "throughput_samples_per_s": 1000.0, "power_w": 100.0}
    assert energy_proof(row(**{**figures, absent: None})) is None


def test_the_first_framework_that_is_installed_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert installed_backend() == "tensorflow"
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: object() if name == "torch" else None
    )
    assert installed_backend() == "torch"


def test_a_device_that_is_not_there_is_said_in_one_line(
    warm: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--device", "gpu:7", "--quick", "--results", str(tmp_path)]) == 2
    assert "gpu_check: --device: gpu:7 does not exist, only cpu" in capsys.readouterr().err


def test_the_script_runs_the_command_of_its_own_checkout(tmp_path: Path) -> None:
    ended = subprocess.run(
        [ROOT / "scripts" / "gpu_check", "--help"],
        env={**os.environ, "PYTHON": sys.executable},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("usage: gpu_check [-h] [--device DEVICE]")


def test_one_command_checks_a_device_and_leaves_its_rows(
    warm: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = str(tmp_path / "kept")
    status = main(["--device", "cpu", "--quick", "--results", kept])
    printed = capsys.readouterr()
    assert status in (0, 1), printed.err
    assert "Interpreter\n" in printed.out
    assert "lenet5 training step" in printed.out
    assert "allocated, " in printed.out
    for precision in ("float32", "mixed_float16", "mixed_bfloat16"):
        assert re.search(rf"^{precision} +\d.* [GTM] +\d+ x \d+ +\S+ [GM]iB +(64\.0|128) MiB$",
                         printed.out, re.MULTILINE), printed.out  # fmt: skip
    (path,) = (tmp_path / "kept").glob("*/*.csv")
    rows = read_run(path)
    assert sorted(record.case.name for record in rows) == [
        "lenet5-infer-cpu-b32-float32",
        "lenet5-train-cpu-b32-float32",
    ]
    assert all(record.measured for record in rows)
    assert all(record.case.name in printed.out for record in rows)
    assert all(record.efficiency is None for record in rows)  # the small ceilings are none
    assert not list((tmp_path / "kept").glob("*/ceilings.csv"))


CEILING = {
    "environment": {"tensorflow": "2.21.0"},
    "product": {"matrix_size": 8192, "flops_per_s": 1.5e13},
    "copy": {"copy_bytes": 2**30, "bytes_per_s": 1.2e12},
    "state": {"other_cpu_share": 0.0},
}


def on_gpu(precision: str) -> Case:
    return Case(model="lenet5", task="train", device="gpu:0", precision=precision)


def told(request: Mapping[str, Any]) -> Answer:
    """Answer as a GPU that has no bfloat16."""
    if request["case"]["precision"] == "mixed_bfloat16":
        return Answer(status="error", message="no bfloat16 here", ready_s=0.1)
    events = [{"event": name, **fields} for name, fields in CEILING.items()]
    return Answer(status="ok", message="", ready_s=0.1, events=events)


def test_ceilings_of_each_precision_are_measured_once_and_kept(tmp_path: Path) -> None:
    path, asked, said = tmp_path / "gpu-1" / "ceilings.csv", [], []

    def ask(request: Mapping[str, Any], see: Callable[[Any], None]) -> Answer:
        asked.append((request["case"]["precision"], request["sizes"]))
        return told(request)

    path.parent.mkdir()
    cases = [on_gpu(name) for name in ("float32", "tf32", "mixed_bfloat16")]
    for _ in range(2):
        found = measured_ceilings(cases, ask, path, sizes=None, say=said.append)
    assert asked == [(name, None) for name in
                     ("float32", "tf32", "mixed_bfloat16", "mixed_bfloat16")]  # fmt: skip
    assert [key[2] for key in found] == ["float32", "tf32"]
    assert any("no ceilings of gpu:0 in mixed_bfloat16" in line for line in said)
    table = ceilings_table(found.values())
    assert re.search(r"^tf32 +15\.0 T +8192 x 8192 +1118 GiB +1\.00 GiB$", table, re.MULTILINE)


def test_a_quick_look_at_ceilings_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "ceilings.csv"
    said: list[str] = []
    cases = [on_gpu("float32"), on_gpu("mixed_bfloat16")]
    found = measured_ceilings(cases, told, path, sizes=2, say=said.append)
    assert [key[2] for key in found] == ["float32"]
    assert said == ["no ceilings of gpu:0 in mixed_bfloat16: no bfloat16 here"]
    assert not path.exists()
    assert ceilings_table([]) == "no ceilings known"
