"""Answers what an interpreter has: devices, versions, models and runtimes.

For `convmark doctor` also why CUDA may not work in it: checks the libraries of the driver and
toolkit.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from convmark.core.backends import BACKENDS
from convmark.core.model_name import ModelName
from convmark.core.runtimes import RUNTIMES
from convmark.worker import binding, runtimes
from convmark.worker.builders import builder
from convmark.worker.failure import UnknownModelError
from convmark.worker.protocol import one_line

# Source: the file names in NVIDIA's wheels nvidia-cuda-runtime, nvidia-cublas, nvidia-cufft,
# nvidia-cusolver and nvidia-cusparse for CUDA 11, 12 and 13; the number is each library's own.
_LIBRARIES = {
    "11": ("cudart.so.11.0", "cublas.so.11", "cufft.so.10", "cusolver.so.11", "cusparse.so.11"),
    "12": ("cudart.so.12", "cublas.so.12", "cufft.so.11", "cusolver.so.11", "cusparse.so.12"),
    "13": ("cudart.so.13", "cublas.so.13", "cufft.so.12", "cusolver.so.12", "cusparse.so.12"),
}

Load = Callable[[str], Any]
Emit = Callable[..., None]


def inspect(request: dict[str, Any], framework: Any, emit: Emit) -> None:
    """Say what this interpreter has, and which of the models asked for it knows."""
    emit("ready")
    refusals = {}
    for name in request["models"]:
        emit("importing", model=name)
        refusals[name] = _refusal(name, framework)
    emit("imported")
    emit(
        "inspected",
        executable=sys.executable,
        devices=framework.devices(),
        models=refusals,
        sources={name: _source(name) for name, refused in refusals.items() if refused is None},
        runtimes=" ".join(filter(None, map(runtimes.versions, RUNTIMES))),
        memory_trouble=binding.memory_trouble(request.get("bound") or {}),
        **versions(framework),
        **(_explained(framework) if request.get("explain") else {}),
    )


def _explained(framework: Any) -> dict[str, Any]:
    """Say what may keep the framework from a GPU, as far as this interpreter can tell."""
    versions = framework.versions()
    compiled_for = getattr(framework, "architectures", list)
    return {
        "packages": framework_packages(),
        "architectures": compiled_for(),
        "cuda_trouble": cuda_trouble(versions.get("cuda") or "", versions.get("cudnn") or ""),
    }


def versions(framework: Any) -> dict[str, Any]:
    return {"python": ".".join(map(str, sys.version_info[:3])), **framework.versions()}


def _refusal(name: str, framework: Any) -> str | None:
    try:
        builder(name, framework)
    except UnknownModelError as error:
        return one_line(error)
    return None


def _source(name: str) -> list[str] | None:
    """Return the module of a model of the user's own, and its file, or the file of a model.

    None for the zoo's and for presets, or where it is not known.
    """
    parts = ModelName.of(name)
    if parts.file:
        return ["", os.path.abspath(parts.file)]
    module = sys.modules.get(parts.module) if not parts.is_preset else None
    file = getattr(module, "__file__", None)
    return [parts.module, os.path.abspath(file)] if file else None


def framework_packages() -> list[str]:
    """Return which of the frameworks' distributions are installed here."""
    found = []
    for name in (name for one in BACKENDS.values() for name in one.distributions):
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found.append(name)
    return found


def cuda_libraries(cuda: str, cudnn: str) -> list[str]:
    """Return the libraries that a framework built for these versions loads; none if unknown.

    Args:
        cuda: a version such as `12.5.1`.
        cudnn: a version such as `9`, or empty.
    """
    found = [f"lib{name}" for name in _LIBRARIES.get(cuda.partition(".")[0], ())]
    if found and cudnn:
        found.append(f"libcudnn.so.{cudnn.partition('.')[0]}")
    return found


def cuda_trouble(
    cuda: str, cudnn: str, load: Load = ctypes.CDLL, folders: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return what CUDA's driver says, and which of the toolkit's libraries are not to be found.

    Args:
        folders: what is searched beside the system's places, the interpreter's path by default: the
            wheels of NVIDIA put the libraries into nvidia/*/lib there.
    """
    places = _wheel_folders(sys.path if folders is None else folders)
    return {
        "driver_library": _loads("libcuda.so.1", load, []),
        "driver_error": _driver_error(load),
        "missing_libraries": [
            name for name in cuda_libraries(cuda, cudnn) if not _loads(name, load, places)
        ],
    }


def _wheel_folders(path: Sequence[str]) -> list[str]:
    found = []
    for folder in path:
        nvidia = os.path.join(folder or ".", "nvidia")
        if os.path.isdir(nvidia):
            # cu13 has one lib for all; the others one for each package
            found += [os.path.join(nvidia, name, "lib") for name in sorted(os.listdir(nvidia))]
    return found


def _loads(name: str, load: Load, folders: Sequence[str]) -> bool:
    if any(os.path.exists(os.path.join(folder, name)) for folder in folders):
        return True
    try:
        load(name)
    except OSError:
        return False
    return True


def _driver_error(load: Load) -> str | None:
    """Return what cuInit fails with, such as CUDA_ERROR_NO_DEVICE; None where it does not."""
    try:
        driver = load("libcuda.so.1")
        code = int(driver.cuInit(0))
    except (OSError, AttributeError):
        return None
    if code == 0:
        return None
    name = ctypes.c_char_p()
    try:
        driver.cuGetErrorName(code, ctypes.byref(name))
    except AttributeError:
        return f"CUDA error {code}"
    return (name.value or b"").decode("ascii", "replace") or f"CUDA error {code}"
