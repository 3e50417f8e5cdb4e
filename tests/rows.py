"""A plain record for tests; not a test itself."""

from __future__ import annotations

from typing import Any

from convmark.results.record import Record
from convmark.results.schema import SCHEMA_VERSION


def row(**changes: Any) -> Record:
    """Return a record of required fields alone, with changes."""
    fields: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "run": "0001",
        "started": "2026-01-02T03:04:05.678+00:00",
        "process": 1,
        "order": 1,
        "status": "ok",
        "model": "lenet5",
        "task": "train",
        "device": "cpu",
        "batch_size": 32,
        "precision": "float32",
        "jit": "off",
        "replicas": 1,
        "threads": "default",
        "backend": "tensorflow",
    }
    return Record(**{**fields, **changes})
