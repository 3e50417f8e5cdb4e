"""Builds the stand-in for NVML and runs Python beside it; not a test itself."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from forks import Forks, printed

SOURCE = Path(__file__).resolve().parent / "nvml" / "standin.c"
NAME = "libnvidia-ml.so.1"

needs_compiler = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("gcc") is None,
    reason="the stand-in for NVML is C for Linux: gcc is needed",
)


@functools.cache
def folder(missing: Sequence[str] = ()) -> tempfile.TemporaryDirectory[str]:
    """Return a folder with the library, without the functions that are to be missing."""
    made = tempfile.TemporaryDirectory(prefix="convmark-nvml-")
    script = Path(made.name) / "hidden.map"
    hidden = "".join(f"{name};" for name in (*missing, "nothing_at_all"))
    script.write_text(f"{{ global: nvml*; local: {hidden} }};\n")
    command = ["gcc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", str(SOURCE)]
    command += ["-o", str(Path(made.name) / NAME), f"-Wl,--version-script={script}"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return made


@functools.cache
def _forks(missing: Sequence[str]) -> Forks:
    """Return what runs code in forks of a harness whose NVML is the stand-in."""
    made = Forks(_environ(missing), "imports", "convmark.session.run,convmark.cli.doctor")
    atexit.register(made.close)
    return made


def _environ(missing: Sequence[str]) -> dict[str, str]:
    hidden = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
    environ = {name: value for name, value in os.environ.items() if name not in hidden}
    return {**environ, "LD_LIBRARY_PATH": folder(missing).name}


def beside(code: str, *, missing: Sequence[str] = (), **variables: object) -> Any:
    """Run code in a Python of its own whose NVML is the stand-in; return what it prints as JSON."""
    given = {name: str(value) for name, value in variables.items()}
    root = SOURCE.parent.parent.parent
    return printed(_forks(tuple(missing)).run(code, cwd=root, environ=given))
