"""Text from outside, made fit to be shown and kept: one printable line."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

__all__ = ["file_text", "plain_text"]

_TERMINAL_ESCAPE = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b[ -/]*[0-~]"
)


def plain_text(text: str) -> str:
    """Return one printable line: no terminal escape, control or invisible character."""
    bare = _TERMINAL_ESCAPE.sub("", text)
    kept = (c for c in bare if c.isspace() or not unicodedata.category(c).startswith("C"))
    return " ".join("".join(kept).split())


def file_text(path: Path) -> str:
    """Return a file's text, nothing where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
