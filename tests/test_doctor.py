"""The text of `convmark doctor`, from given facts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from convmark.machine.cautions import Caution
from convmark.machine.doctor import UNRELIABLE, device_cautions, findings, findings_text
from convmark.machine.gpu.devices import Gpu
from convmark.machine.hardware import GIB, Machine
from convmark.machine.state import State

CARDS = tuple(
    Gpu(index=i, name="NVIDIA H200", memory_bytes=140 * GIB, uuid=f"GPU-{i}") for i in range(2)
)
MACHINE = Machine(
    name="amd-epyc-16cpu-128gib-2x-nvidia-h200-00000000",
    cpu="AMD EPYC",
    cores=16,
    physical_cores=8,
    ram_bytes=128 * GIB,
    gpus=CARDS,
    driver="550.54.15",
    os="Linux 6.1.0 (Debian GNU/Linux 12)",
)
WITHOUT_GPU = dataclasses.replace(MACHINE, gpus=(), driver=None, name="amd-epyc-00000000")
STATE = State(
    load_average_1min=0.25,
    available_memory_bytes=100 * GIB,
    governors=("performance",),
    on_battery=False,
    steal_fraction=0.0015,
    cpu_temperature_c=41.2,
    cpu_quota_cores=4.0,
)
FRAMEWORK = {
    "python": "3.13.1",
    "executable": "/opt/python/bin/python",
    "tensorflow": "2.21.0",
    "keras": "3.15.0",
    "numpy": "2.4.1",
    "devices": ["cpu", "gpu:0", "gpu:1"],
    "cuda": "12.5.1",
    "cudnn": "9",
}
LOAD = Caution(subject="load", finding="too high", remedy="end other programs")


def page_of(*facts: Any, **more: Any) -> str:
    return findings_text(findings(*facts, **more))


def text(
    machine: Machine = MACHINE, *found: Caution, flags: str | None = "", **framework: Any
) -> str:
    """Lay out the facts above, with the framework's replaced where named."""
    facts = {**FRAMEWORK, **framework}
    return page_of(machine, STATE, found, facts, Path("results"), flags=flags)


def test_a_long_finding_is_wrapped_below_its_own_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    long = Caution(subject="load", finding="too high " * 6, remedy="end " + "other programs " * 4)
    lines = text(MACHINE, long).partition(UNRELIABLE)[2].splitlines()
    assert max(map(len, lines)) <= 40
    assert lines[1:3] == [
        "  load  too high too high too high too",
        "        high too high too high",
    ]


def test_the_findings_are_laid_out_in_aligned_sections() -> None:
    assert (
        text(MACHINE, LOAD, flags="OMP_NUM_THREADS=1")
        == """\
Interpreter
  Python      3.13.1
  executable  /opt/python/bin/python

Framework
  TensorFlow  2.21.0
  Keras       3.15.0
  NumPy       2.4.1
  CUDA        12.5.1
  cuDNN       9

Devices
  framework  cpu, gpu:0, gpu:1
  driver     550.54.15
  GPU 0      NVIDIA H200, 140.0 GiB
  GPU 1      NVIDIA H200, 140.0 GiB

Machine
  name     amd-epyc-16cpu-128gib-2x-nvidia-h200-00000000
  CPU      AMD EPYC
  cores    16 usable, 8 physical
  RAM      128.0 GiB
  OS       Linux 6.1.0 (Debian GNU/Linux 12)
  results  results/amd-epyc-16cpu-128gib-2x-nvidia-h200-00000000

State
  load, 1 min       0.25
  available memory  100.0 GiB
  governor          performance
  power             mains
  CPU time stolen   0.1 %
  CPU temperature   41 degrees Celsius
  CPU quota         4.00 cores

Flags
  set  OMP_NUM_THREADS=1

What will make figures unreliable
  load  too high
        -> end other programs
"""
    )


def test_nothing_found_is_said() -> None:
    last = text().split("\n\n")[-1]
    assert last == "What will make figures unreliable\n  nothing found\n"


def test_what_is_unknown_is_said_to_be_unknown() -> None:
    state = State(load_average_1min=None, available_memory_bytes=GIB)
    machine = dataclasses.replace(WITHOUT_GPU, physical_cores=None)
    lines = page_of(machine, state, [], {}, Path("results")).splitlines()
    for line in (
        "  Python      unknown",
        "  TensorFlow  unknown",
        "  CUDA        unknown",
        "  framework  unknown",
        "  driver     none found",
        "  cores    16 usable, unknown physical",
        "  load, 1 min       unknown",
        "  governor          unknown",
        "  power             no battery known",
        "  CPU time stolen   unknown",
        "  CPU temperature   unknown",
        "  CPU quota         none",
        "  set  not looked at",
        "  nothing found",
    ):
        assert line in lines


def test_what_is_absent_is_said_to_be_absent() -> None:
    lines = text(WITHOUT_GPU, keras=None, cuda=None, cudnn=None, devices=["cpu"]).splitlines()
    assert "  Keras       not installed" in lines
    assert "  CUDA        built without" in lines
    assert "  set  none" in lines


def test_libraries_of_a_gpu_are_said_to_be_unused_where_there_is_no_driver() -> None:
    lines = text(WITHOUT_GPU, devices=["cpu"]).splitlines()
    assert "  driver     none found, so the framework's CUDA is not used" in lines
    seen = text(WITHOUT_GPU, devices=["cpu", "gpu:0"]).splitlines()
    assert "  driver     none found" in seen  # nvidia-ml-py has not seen it


def test_a_framework_that_could_not_be_loaded_is_the_first_finding() -> None:
    framework = {"python": "3.13.1", "error": "ImportError: libcudart.so.12\nnot found"}
    page = page_of(MACHINE, STATE, [LOAD], framework, Path("results"))
    assert "  error       ImportError: libcudart.so.12 not found\n" in page
    first = page.split("What will make figures unreliable\n")[1].splitlines()[0]
    assert first == "  framework  could not be loaded: ImportError: libcudart.so.12 not found"
    assert "  load       too high\n" in page


@pytest.mark.parametrize(("backend", "title"), [("jax", "JAX"), ("torch", "PyTorch")])
def test_the_framework_that_was_looked_at_is_named(backend: str, title: str) -> None:
    facts = {key: value for key, value in FRAMEWORK.items() if key != "tensorflow"}
    for told in ({backend: "1.2.3"}, {backend: "1.2.3", "backend": backend}):
        page = page_of(MACHINE, STATE, [], {**facts, **told}, Path("results"))
        (line,) = (line for line in page.splitlines() if "1.2.3" in line)
        assert line.split() == [title, "1.2.3"]
        assert "TensorFlow" not in page
    missing = {"backend": backend, "error": f"{backend} cannot be imported"}
    page = page_of(MACHINE, STATE, [], missing, Path("results"))
    assert f"(pip install {backend})" in page


def test_devices_that_agree_with_the_driver_give_no_caution() -> None:
    assert device_cautions(MACHINE, FRAMEWORK) == []
    assert device_cautions(WITHOUT_GPU, {**FRAMEWORK, "devices": ["cpu"]}) == []
    assert device_cautions(MACHINE, {}) == []


@pytest.mark.parametrize("cuda", [None, ""])
def test_a_framework_built_without_cuda_is_told_to_install_one_with_it(cuda: str | None) -> None:
    (caution,) = device_cautions(MACHINE, {**FRAMEWORK, "devices": ["cpu"], "cuda": cuda})
    assert caution.subject == "GPU"
    assert caution.finding == (
        "the driver shows 2, the framework lists 0: it was built without CUDA"
    )
    assert caution.remedy == "pip install 'tensorflow[and-cuda]'"


def test_a_framework_built_with_cuda_misses_libraries_or_a_newer_driver() -> None:
    (caution,) = device_cautions(MACHINE, {**FRAMEWORK, "devices": ["cpu"]})
    assert "libraries of CUDA 12.5.1 are missing" in caution.finding
    assert "the driver (550.54.15) is too old" in caution.finding
    assert "tensorflow[and-cuda]" in caution.remedy
    assert "update the driver" in caution.remedy


def test_a_framework_that_lists_some_of_the_gpus_has_some_hidden() -> None:
    (caution,) = device_cautions(MACHINE, {**FRAMEWORK, "devices": ["cpu", "gpu:0"]})
    assert caution.finding.startswith("the driver shows 2, the framework lists 1: some are hidden")
    assert "CUDA_VISIBLE_DEVICES" in caution.remedy


def test_windows_is_sent_to_wsl() -> None:
    windows = dataclasses.replace(MACHINE, os="Windows 11 (10.0.22631)")
    (caution,) = device_cautions(windows, {**FRAMEWORK, "devices": ["cpu"], "cuda": None})
    assert "WSL 2" in caution.remedy


def test_gpus_that_nvml_does_not_show_leave_the_results_without_their_name() -> None:
    (caution,) = device_cautions(WITHOUT_GPU, FRAMEWORK)
    assert caution.finding.startswith("the framework lists 2, NVML shows none")
    assert "nvidia-ml-py" in caution.remedy


def test_a_device_caution_is_said_once_even_if_it_is_given_too() -> None:
    given = device_cautions(WITHOUT_GPU, FRAMEWORK)
    assert text(WITHOUT_GPU, *given, LOAD).count("NVML shows none") == 1
    assert text(WITHOUT_GPU).count("NVML shows none") == 1


def test_text_from_outside_cannot_reach_the_terminal() -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31m1\r\n2\u202e\x00"
    machine = dataclasses.replace(MACHINE, cpu=evil, os=evil, driver=evil)
    found = Caution(subject=evil, finding=evil, remedy=evil)
    framework = {**dict.fromkeys(FRAMEWORK, evil), "devices": ["cpu", evil]}
    for facts in (framework, {"error": evil}):
        page = page_of(machine, STATE, [found], facts, Path(evil), flags=evil)
        assert all(c.isprintable() for c in page.replace("\n", ""))
        assert "owned" not in page
        assert "1 2" in page
