"""Other programs that know of a machine's GPUs, asked with a time limit."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["Say", "json_object", "say"]

LIMIT_S = 10.0

Say = Callable[[Sequence[str]], str]
"""Runs a command and returns what it prints, nothing where it fails."""


def say(command: Sequence[str]) -> str:
    """Return what a command prints; nothing where it is not there, fails or takes too long."""
    try:
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT_S
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return ended.stdout.decode(errors="replace") if ended.returncode == 0 else ""


def json_object(text: str) -> dict[str, Any]:
    """Return the JSON object that a text holds, an empty one where it holds none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
