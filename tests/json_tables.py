"""What `--format json` prints, held to its schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

SCHEMA = Path(__file__).resolve().parent.parent / "docs" / "reference" / "tables.schema.json"


def tables_of(text: str, command: str) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each table by its key, once the text fits the schema."""
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    found = json.loads(text)
    jsonschema.validate(found, json.loads(SCHEMA.read_text(encoding="utf-8")))
    assert found["command"] == command
    for table in found["tables"]:
        keys = [column["key"] for column in table["columns"]]
        assert all(list(row) == keys for row in table["rows"])
    return {table["key"]: table["rows"] for table in found["tables"]}


def rows_of(text: str, command: str) -> list[dict[str, Any]]:
    """Return the rows of the only table."""
    (rows,) = tables_of(text, command).values()
    return rows
