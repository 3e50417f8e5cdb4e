"""Why the framework lists fewer GPUs than the driver, and the command that fixes it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from convmark.core.backends import BACKENDS, DEFAULT_BACKEND
from convmark.core.text import plain_text
from convmark.machine.gpu.visible import choosing, visible_cards
from convmark.machine.hardware import Machine

# Source: CUDA Toolkit release notes, "Minimum required driver version for CUDA minor version
# compatibility", Linux.
_LEAST_DRIVER = {11: "450.80.02", 12: "525.60.13", 13: "580"}

_INSTALL_ELSEWHERE = {
    "amd": "pip install tensorflow-rocm, of the version that your ROCm needs",
    "apple": "pip install tensorflow-metal",
}

# Source: CUDA driver API, CUresult; the remedies are those of NVIDIA's own guides.
_DRIVER_ERRORS = {
    "CUDA_ERROR_NO_DEVICE": "check that CUDA_VISIBLE_DEVICES names a GPU of `nvidia-smi -L`, "
    "and that a container was started with --gpus all",
    "CUDA_ERROR_SYSTEM_NOT_READY": "sudo systemctl start nvidia-fabricmanager",
    "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH": "restart the machine: the driver was updated while it ran",
    "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE": "remove CUDA's compat folder from LD_LIBRARY_PATH",
    "CUDA_ERROR_UNKNOWN": "sudo modprobe -r nvidia_uvm && sudo modprobe nvidia_uvm",
    "CUDA_ERROR_OPERATING_SYSTEM": "check that you can read and write /dev/nvidia*",
    "CUDA_ERROR_INSUFFICIENT_DRIVER": "update the driver",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why a GPU is not seen, and what mends it."""

    finding: str
    remedy: str


def why_unseen(
    machine: Machine, framework: Mapping[str, Any], environ: Mapping[str, str], listed: int
) -> Cause:
    """Return why the framework lists fewer GPUs than the driver shows, the surest cause first.

    Args:
        framework: what the worker reports; `cuda_trouble` only where it was asked to explain.
        listed: the GPUs that the framework lists.
    """
    if machine.os.startswith("Windows"):
        return Cause(
            finding="TensorFlow since 2.11 uses no GPU on Windows", remedy="run it in WSL 2"
        )
    seen = len(visible_cards(machine.gpus, environ))
    if listed >= seen and (hidden := _hidden(machine, environ, seen)):
        return hidden
    if listed:
        return Cause(finding="some are hidden or too old for it", remedy="see CUDA_VISIBLE_DEVICES")
    vendor = machine.gpus[0].vendor if machine.gpus else "nvidia"
    if vendor in _INSTALL_ELSEWHERE:
        return Cause(
            finding="it was built without support for them", remedy=_INSTALL_ELSEWHERE[vendor]
        )
    cuda = plain_text(str(framework.get("cuda") or ""))
    if not cuda:
        return _without_cuda(framework)
    return (
        _old_driver(machine, cuda)
        or _from_the_worker(framework, cuda)
        or _old_card(machine, framework)
        or _unknown(machine, framework, cuda)
    )


def _hidden(machine: Machine, environ: Mapping[str, str], seen: int) -> Cause | None:
    """Return what hides GPUs from every program, None where nothing does."""
    shown = len(machine.gpus)
    bare = [gpu.index for gpu in machine.gpus if gpu.mig and not gpu.slices]
    if bare:
        return Cause(
            finding=f"GPU {bare[0]} is in MIG mode and has no slice",
            remedy=f"make one (sudo nvidia-smi mig -i {bare[0]} -cgi 0 -C), "
            f"or leave MIG mode (sudo nvidia-smi -i {bare[0]} -mig 0)",
        )
    if seen >= shown:
        return None
    said = [f"{name}={shlex.quote(text)}" for name, text in choosing(environ).items()]
    settings = " ".join(said) or "the environment"
    names = " ".join(choosing(environ)) or "CUDA_VISIBLE_DEVICES"
    return Cause(finding=f"{settings} hides {shown - seen} of {shown}", remedy=f"unset {names}")


def _without_cuda(framework: Mapping[str, Any]) -> Cause:
    remedy = _install(framework)
    packages = framework.get("packages") or ()
    if "tensorflow-cpu" in packages:
        remedy = f"pip uninstall tensorflow-cpu, then {remedy}"
    return Cause(finding="it was built without CUDA", remedy=remedy)


def _install(framework: Mapping[str, Any]) -> str:
    there = next((name for name in BACKENDS if framework.get(name)), DEFAULT_BACKEND)
    return BACKENDS[there].gpu_install


def _old_driver(machine: Machine, cuda: str) -> Cause | None:
    """Return that the driver is too old for the framework's CUDA, where that is known."""
    major = _number(cuda)
    newest = next((gpu.driver_cuda for gpu in machine.gpus if gpu.driver_cuda), None)
    if newest is None or major is None or _number(newest) is None:
        return None
    if (_number(newest) or 0) >= major:
        return None
    least = _LEAST_DRIVER.get(major)
    return Cause(
        finding=f"the driver ({machine.driver or 'unknown'}) runs CUDA up to {newest}, "
        f"too old for CUDA {cuda}",
        remedy=f"update the driver to {least} or later" if least else "update the driver",
    )


def _from_the_worker(framework: Mapping[str, Any], cuda: str) -> Cause | None:
    """Return what the worker found when it was asked to explain."""
    told = framework.get("cuda_trouble")
    if not isinstance(told, Mapping):
        return None
    if told.get("driver_library") is False:
        return Cause(
            finding="the driver's library libcuda.so.1 is missing",
            remedy="install the driver's compute part (apt install libcuda1), or start the "
            "container with --gpus all -e NVIDIA_DRIVER_CAPABILITIES=compute,utility",
        )
    if error := plain_text(str(told.get("driver_error") or "")):
        remedy = _DRIVER_ERRORS.get(error, "restart the machine, else install the driver again")
        return Cause(finding=f"CUDA does not start: {error}", remedy=remedy)
    missing = [plain_text(str(name)) for name in told.get("missing_libraries") or ()]
    if missing:
        return Cause(
            finding=f"libraries of CUDA {cuda} are missing: {', '.join(missing)}",
            remedy=_install(framework),
        )
    return None


def _old_card(machine: Machine, framework: Mapping[str, Any]) -> Cause | None:
    """Return that no card is new enough for what the framework was compiled for."""
    least = [
        number
        for name in framework.get("architectures") or ()
        if (number := _architecture(str(name)))
    ]
    cards = [gpu for gpu in machine.gpus if gpu.compute_capability]
    if not least or len(cards) < len(machine.gpus):
        return None
    newest = max(cards, key=lambda gpu: _capability(gpu.compute_capability or "0.0"))
    if _capability(newest.compute_capability or "0.0") >= min(least):
        return None
    wanted = ".".join(map(str, min(least)))
    return Cause(
        finding=f"{newest.name} has compute capability {newest.compute_capability}, "
        f"it was compiled for {wanted} and later",
        remedy="install an older version of the framework, or one compiled for this card",
    )


def _unknown(machine: Machine, framework: Mapping[str, Any], cuda: str) -> Cause:
    if isinstance(framework.get("cuda_trouble"), Mapping):
        return Cause(
            finding=f"CUDA {cuda} starts and its libraries are installed; the cause is unknown",
            remedy="run the framework's own list of devices with TF_CPP_MIN_LOG_LEVEL=0 "
            "and read what it says",
        )
    return Cause(
        finding=f"the libraries of CUDA {cuda} are missing, "
        f"or the driver ({machine.driver or 'unknown'}) is too old for them",
        remedy=f"{_install(framework)}, else update the driver; also check that "
        "CUDA_VISIBLE_DEVICES hides no GPU",
    )


def _number(version: str) -> int | None:
    digits = re.match(r"\d+", version)
    return int(digits.group()) if digits else None


def _capability(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor or 0)


def _architecture(name: str) -> tuple[int, int] | None:
    """Return (9, 0) of `sm_90` or `compute_90`, None of what is neither."""
    digits = re.fullmatch(r"(?:sm|compute)_(\d+)(\d)[af]?", name)
    return (int(digits.group(1)), int(digits.group(2))) if digits else None
