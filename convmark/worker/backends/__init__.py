"""The frameworks that a worker can measure, one module each, imported only when asked for."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["load"]

_CLASSES = {"tensorflow": "TensorFlow", "jax": "Jax", "torch": "Torch"}


def load(name: str) -> Any:
    """Import the framework and return its backend; no operation is run, no device looked at."""
    module = importlib.import_module(f"convmark.worker.backends.{name}")
    return getattr(module, _CLASSES[name])()
