"""NVML through nvidia-ml-py: opened for a while, and asked so that no refusal is an error."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

from convmark.core.text import plain_text

__all__ = ["answer", "available", "load_nvml", "number", "opened", "text"]

_NOT_AVAILABLE = (2**32 - 1, 2**64 - 1)
"""NVML_VALUE_NOT_AVAILABLE is -1, which unsigned answers show as their largest value."""


def load_nvml() -> Any:
    """Return nvidia-ml-py's module, None where it is not installed."""
    try:
        return importlib.import_module("pynvml")
    except ImportError:
        return None


@contextlib.contextmanager
def opened(nvml: Any) -> Iterator[Any]:
    """Give NVML, initialised and shut down after the block; None where it cannot be had."""
    if nvml is None:
        yield None
        return
    try:
        nvml.nvmlInit()
    except (nvml.NVMLError, OSError):
        yield None
        return
    try:
        yield nvml
    finally:
        answer(nvml, "nvmlShutdown")


def answer(nvml: Any, question: str, *arguments: Any) -> Any:
    """Return what a function answers.

    None where the driver or this nvidia-ml-py lacks the function, or it fails, or answers text that
    is none.
    """
    function = getattr(nvml, question, None)
    if function is None:
        return None
    # no NVMLError: what nvidia-ml-py raises where a driver lacks the version of a function it wants
    mismatch = getattr(nvml, "NVMLLibraryMismatchError", nvml.NVMLError)
    try:
        return function(*arguments)
    except (nvml.NVMLError, mismatch, UnicodeDecodeError):
        return None


def number(nvml: Any, question: str, *arguments: Any) -> int | None:
    """Return a function's whole number, None where it has none to give."""
    return available(answer(nvml, question, *arguments))


def available(found: int | None) -> int | None:
    """Return a whole number, None where it is the one that stands for none."""
    return None if found is None or found in _NOT_AVAILABLE else int(found)


def text(nvml: Any, question: str, *arguments: Any) -> str | None:
    """Return a function's text as one printable line, None where it gives none."""
    found = answer(nvml, question, *arguments)
    # Versions of nvidia-ml-py before 11.515 answer in bytes.
    decoded = found.decode(errors="replace") if isinstance(found, bytes) else found
    return plain_text(decoded) or None if decoded else None
