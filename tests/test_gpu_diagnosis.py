"""Why the framework lists fewer GPUs than the driver shows."""

from __future__ import annotations

import ctypes
import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from nvml_standin import beside, needs_compiler

from convmark.machine.doctor import why_unseen
from convmark.machine.gpu.devices import Gpu, Slice
from convmark.machine.hardware import GIB, Machine
from convmark.worker import inspection

CARDS = tuple(
    Gpu(
        index=i,
        name="NVIDIA H200",
        memory_bytes=140 * GIB,
        uuid=f"GPU-{i}",
        compute_capability="9.0",
        driver_cuda="12.4",
    )
    for i in range(2)
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
SOUND = {"driver_library": True, "driver_error": None, "missing_libraries": []}
FRAMEWORK: dict[str, Any] = {
    "tensorflow": "2.21.0",
    "devices": ["cpu"],
    "cuda": "12.5.1",
    "cudnn": "9",
    "packages": ["tensorflow"],
    "architectures": ["sm_60", "sm_70", "sm_80", "sm_89", "compute_90"],
    "cuda_trouble": SOUND,
}


def why(
    listed: int = 0,
    environ: dict[str, str] | None = None,
    machine: Machine = MACHINE,
    **framework: Any,
) -> tuple[str, str]:
    cause = why_unseen(machine, {**FRAMEWORK, **framework}, environ or {}, listed)
    return cause.finding, cause.remedy


def with_trouble(**changes: Any) -> tuple[str, str]:
    return why(cuda_trouble={**SOUND, **changes})


@pytest.mark.parametrize(
    ("framework", "remedy"),
    [
        ({"packages": ["tensorflow"]}, "pip install 'tensorflow[and-cuda]'"),
        (
            {"packages": ["tensorflow-cpu"]},
            "pip uninstall tensorflow-cpu, then pip install 'tensorflow[and-cuda]'",
        ),
        ({"tensorflow": None, "torch": "2.9", "packages": ["torch"]}, "pip install torch"),
        ({"tensorflow": None, "jax": "0.8", "packages": ["jax"]}, "pip install 'jax[cuda12]'"),
    ],
)
def test_a_wheel_for_the_cpu_is_replaced(framework: dict[str, Any], remedy: str) -> None:
    assert why(cuda=None, cudnn=None, **framework) == ("it was built without CUDA", remedy)


@pytest.mark.parametrize(
    ("cuda", "finding", "remedy"),
    [
        ("13.0", "runs CUDA up to 12.4, too old for CUDA 13.0", "to 580 or later"),
        ("14.1", "runs CUDA up to 12.4, too old for CUDA 14.1", "update the driver"),
    ],
)
def test_a_driver_that_is_too_old_is_updated(cuda: str, finding: str, remedy: str) -> None:
    said, what_to_do = why(cuda=cuda)
    assert finding in said
    assert "550.54.15" in said
    assert what_to_do.endswith(remedy)


@pytest.mark.parametrize("version", ["12.0", "12.9", "11.8"])
def test_a_driver_of_the_same_or_a_newer_major_version_is_no_cause(version: str) -> None:
    assert "too old" not in why(cuda=version)[0]


def test_missing_libraries_are_named() -> None:
    finding, remedy = with_trouble(missing_libraries=["libcudnn.so.9", "libcufft.so.11"])
    assert finding == "libraries of CUDA 12.5.1 are missing: libcudnn.so.9, libcufft.so.11"
    assert remedy == "pip install 'tensorflow[and-cuda]'"


def test_a_container_without_the_driver_s_compute_part_is_started_with_it() -> None:
    finding, remedy = with_trouble(driver_library=False, missing_libraries=["libcudnn.so.9"])
    assert finding == "the driver's library libcuda.so.1 is missing"
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in remedy


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        ("CUDA_ERROR_UNKNOWN", "modprobe nvidia_uvm"),
        ("CUDA_ERROR_SYSTEM_NOT_READY", "nvidia-fabricmanager"),
        ("CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "restart the machine"),
        ("CUDA_ERROR_OUT_OF_SORTS", "restart the machine"),
    ],
)
def test_what_the_driver_itself_says_has_its_own_remedy(error: str, remedy: str) -> None:
    finding, what_to_do = with_trouble(driver_error=error)
    assert finding == f"CUDA does not start: {error}"
    assert remedy in what_to_do


@pytest.mark.parametrize(
    ("environ", "listed", "finding"),
    [
        ({"CUDA_VISIBLE_DEVICES": "1"}, 1, "CUDA_VISIBLE_DEVICES=1 hides 1 of 2"),
        ({"CUDA_VISIBLE_DEVICES": ""}, 0, "CUDA_VISIBLE_DEVICES='' hides 2 of 2"),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, 0, "CUDA_VISIBLE_DEVICES=-1 hides 2 of 2"),
    ],
)
def test_a_variable_that_hides_gpus_is_quoted(
    environ: dict[str, str], listed: int, finding: str
) -> None:
    assert why(listed, environ) == (finding, "unset CUDA_VISIBLE_DEVICES")


def test_a_variable_is_not_blamed_where_the_framework_lists_even_fewer() -> None:
    finding, _ = why(0, {"CUDA_VISIBLE_DEVICES": "1"}, cuda=None)
    assert finding == "it was built without CUDA"


def test_a_card_in_mig_mode_without_a_slice_is_said() -> None:
    bare = dataclasses.replace(CARDS[0], mig=True)
    machine = dataclasses.replace(MACHINE, gpus=(bare,))
    finding, remedy = why(machine=machine)
    assert finding == "GPU 0 is in MIG mode and has no slice"
    assert "nvidia-smi mig -i 0 -cgi" in remedy
    piece = Slice(index=0, name="H200 MIG 1g", memory_bytes=1, uuid="MIG-1")
    sliced = dataclasses.replace(MACHINE, gpus=(dataclasses.replace(bare, slices=(piece,)),))
    assert "no slice" not in why(machine=sliced)[0]


def test_a_card_older_than_all_that_the_framework_was_compiled_for_is_said() -> None:
    old = dataclasses.replace(CARDS[0], name="Tesla K80", compute_capability="3.7")
    machine = dataclasses.replace(MACHINE, gpus=(old,))
    finding, _ = why(machine=machine)
    assert finding == ("Tesla K80 has compute capability 3.7, it was compiled for 6.0 and later")
    at_the_boundary = dataclasses.replace(old, compute_capability="6.0")
    assert "compiled" not in why(machine=dataclasses.replace(MACHINE, gpus=(at_the_boundary,)))[0]


@pytest.mark.parametrize(("vendor", "package"), [("amd", "rocm"), ("apple", "metal")])
def test_other_makers_cards_need_their_own_package(vendor: str, package: str) -> None:
    card = Gpu(index=0, name="a card", memory_bytes=None, uuid=None, vendor=vendor)
    machine = dataclasses.replace(MACHINE, gpus=(card,))
    finding, remedy = why(machine=machine, cuda=None)
    assert finding == "it was built without support for them"
    assert f"tensorflow-{package}" in remedy


def test_where_all_is_sound_the_cause_is_unknown_and_said_so() -> None:
    finding, remedy = why()
    assert "the cause is unknown" in finding
    assert "TF_CPP_MIN_LOG_LEVEL=0" in remedy


# What the worker finds


class Driver:
    """A stand-in for libcuda.so.1."""

    def __init__(self, code: int, name: bytes) -> None:
        self._code, self._name = code, name

    def cuInit(self, flags: int) -> int:
        return self._code

    def cuGetErrorName(self, code: int, name: Any) -> int:
        assert code == self._code
        ctypes.cast(name, ctypes.POINTER(ctypes.c_char_p))[0] = self._name
        return 0


def loads(driver: Driver | None, *there: str) -> Any:
    def load(name: str) -> Any:
        if name == "libcuda.so.1" and driver is not None:
            return driver
        if name not in there:
            raise OSError(f"{name}: cannot open shared object file")
        return object()

    return load


ALL = inspection.cuda_libraries("12.5.1", "9")


def test_the_libraries_follow_the_versions() -> None:
    assert ALL == [
        "libcudart.so.12",
        "libcublas.so.12",
        "libcufft.so.11",
        "libcusolver.so.11",
        "libcusparse.so.12",
        "libcudnn.so.9",
    ]
    assert inspection.cuda_libraries("11.8", "8.6")[-1] == "libcudnn.so.8"
    assert "libcudnn" not in "".join(inspection.cuda_libraries("13.0", ""))
    assert inspection.cuda_libraries("", "") == inspection.cuda_libraries("99.1", "9") == []


def test_a_sound_interpreter_has_no_trouble() -> None:
    found = inspection.cuda_trouble("12.5.1", "9", loads(Driver(0, b""), *ALL), [])
    assert found == SOUND


def test_libraries_in_nvidia_s_wheels_are_found(tmp_path: Path) -> None:
    for name, package in (("libcudart.so.12", "cuda_runtime"), ("libcudnn.so.9", "cudnn")):
        folder = tmp_path / "nvidia" / package / "lib"
        folder.mkdir(parents=True)
        (folder / name).touch()
    found = inspection.cuda_trouble(
        "12.5.1", "9", loads(None, *ALL[1:3]), [str(tmp_path), "/nowhere"]
    )
    assert found["missing_libraries"] == ["libcusolver.so.11", "libcusparse.so.12"]
    assert found["driver_library"] is False
    assert found["driver_error"] is None


@pytest.mark.parametrize(
    ("driver", "error"),
    [
        (Driver(999, b"CUDA_ERROR_UNKNOWN"), "CUDA_ERROR_UNKNOWN"),
        (Driver(12345, b""), "CUDA error 12345"),
    ],
)
def test_what_cuinit_fails_with_is_named(driver: Driver, error: str) -> None:
    assert inspection.cuda_trouble("", "", loads(driver), [])["driver_error"] == error


def test_the_installed_frameworks_are_named() -> None:
    assert set(inspection.framework_packages()) <= {"tensorflow", "tensorflow-cpu", "jax", "torch"}


DOCTOR = """
import contextlib, io, json, os
from convmark.cli import main
with contextlib.redirect_stdout(io.StringIO()) as page:
    status = main(["doctor", "--backend", os.environ["BACKEND"]])
print(json.dumps([status, page.getvalue()]))
"""


@needs_compiler
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_doctor_says_why_a_gpu_that_the_driver_shows_is_not_seen(backend: str) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    status, page = beside(DOCTOR, STANDIN_CARDS="0,1", BACKEND=backend)
    assert status == 0
    lines = page.splitlines()
    assert "  driver     535.54.03, runs CUDA up to 12.2" in lines
    assert any("NVIDIA A100-SXM4-80GB, 80.0 GiB, compute capability 8.0" in line for line in lines)
    assert "  MIG 0:2    1g.20gb, MIG-33333333-aaaa-5000-8000-000000000000" in lines
    unreliable = page.split("What will make figures unreliable\n")[1]
    assert "GPU" in unreliable
    assert "the driver shows 2, the framework lists 0: " in unreliable
    title = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}[backend]
    assert any(line.split()[:1] == [title] for line in lines), page
    causes = (
        *("libcuda.so.1 is missing", "it was built without CUDA", "CUDA does not start"),
        "the driver (535.54.03) runs CUDA up to 12.2, too old for CUDA 13",
    )
    assert any(cause in unreliable for cause in causes), json.dumps(unreliable)
