"""Why CUDA may not work in this interpreter: checks the libraries of the driver and toolkit.

Asked for by `convmark doctor` alone, in a process that measures nothing.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from convmark.core.backends import BACKENDS

__all__ = ["libraries", "packages", "trouble"]

# Source: the file names in NVIDIA's wheels nvidia-cuda-runtime, nvidia-cublas, nvidia-cufft,
# nvidia-cusolver and nvidia-cusparse for CUDA 11, 12 and 13; the number is each library's own.
_LIBRARIES = {
    "11": ("cudart.so.11.0", "cublas.so.11", "cufft.so.10", "cusolver.so.11", "cusparse.so.11"),
    "12": ("cudart.so.12", "cublas.so.12", "cufft.so.11", "cusolver.so.11", "cusparse.so.12"),
    "13": ("cudart.so.13", "cublas.so.13", "cufft.so.12", "cusolver.so.12", "cusparse.so.12"),
}

Load = Callable[[str], Any]


def packages() -> list[str]:
    """Return which of the frameworks' distributions are installed here."""
    found = []
    for name in (name for one in BACKENDS.values() for name in one.distributions):
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found.append(name)
    return found


def libraries(cuda: str, cudnn: str) -> list[str]:
    """Return the libraries that a framework built for these versions loads; none if unknown.

    Args:
        cuda: a version such as `12.5.1`.
        cudnn: a version such as `9`, or empty.
    """
    found = [f"lib{name}" for name in _LIBRARIES.get(cuda.partition(".")[0], ())]
    if found and cudnn:
        found.append(f"libcudnn.so.{cudnn.partition('.')[0]}")
    return found


def trouble(
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
            name for name in libraries(cuda, cudnn) if not _loads(name, load, places)
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
