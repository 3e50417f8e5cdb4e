"""The frameworks that a worker can measure, one module each, imported only when needed."""

from __future__ import annotations

import importlib
from typing import Any

from convmark.core.backends import BACKENDS
from convmark.worker.companions import Place


def load(name: str) -> Any:
    """Import the framework and return its backend; no operation is run, no device looked at."""
    module = importlib.import_module(f"convmark.worker.backends.{name}")
    return getattr(module, BACKENDS[name].class_name)()


def replicated(replicas: int, place: Place | None) -> Any:
    """Return TensorFlow's backend of a case of several replicas, in place of the plain one."""
    module = importlib.import_module("convmark.worker.backends.tensorflow_replicas")
    return module.ReplicatedTensorFlow(replicas, place)
