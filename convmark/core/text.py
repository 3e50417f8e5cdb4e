"""Sanitises text from outside: one printable line."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

from convmark.core.files import read_regular

__all__ = [
    "NUMBER",
    "Say",
    "file_text",
    "is_folder_name",
    "is_plain",
    "markdown_cell",
    "natural_order",
    "percent",
    "plain_text",
    "shown",
]

Say = Callable[[str], None]
"""Shows the user a line."""

NUMBER = re.compile(r"[0-9]{1,18}")
"""Of a run or a device, in a text from outside; Python reads none of thousands of digits."""

MOST_NAME_BYTES = 200
"""Of a folder's name; file systems have room for 255."""

_TERMINAL_ESCAPE = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b[ -/]*[0-~]"
)

_MOVING = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of what moves the cursor, turns the writing round or is no character."""

_MARKS = re.compile(r"([\\`*_\[\]|~#])")
_MARKS_BESIDE_CODE = re.compile(r"([\\*_\[\]|~#])")

_CI_COMMAND = re.compile(r"##(?=\w*\[)")


MOST_DIGITS = 18
"""Of a part of a text that is taken for a number."""


def natural_order(value: str) -> tuple[tuple[int, int | str], ...]:
    """Return a key by which 2.9 comes before 2.10, 8 before 32, and names by their letters."""
    parts = re.findall(r"\d+|[^\d.]+", value)
    return tuple(
        (0, int(part)) if part.isdecimal() and len(part) <= MOST_DIGITS else (1, part)
        for part in parts
    )


def plain_text(text: str) -> str:
    """Return one printable line: no terminal escape, control or invisible character."""
    bare = _TERMINAL_ESCAPE.sub("", text)
    kept = (c for c in bare if c.isspace() or not unicodedata.category(c).startswith("C"))
    return " ".join("".join(kept).split())


def percent(log_ratio: float) -> str:
    """Return a change as per cent, from its logarithm."""
    return f"{100 * math.expm1(log_ratio):+.1f} %" if log_ratio < 50 else "no size"


def is_plain(text: str) -> bool:
    """Whether a text is one line without terminal escape, control or invisible character."""
    return text.isprintable() or not any(unicodedata.category(c) in _MOVING for c in text)


def shown(cell: str) -> str:
    """Return a table's cell as it may stand on a terminal and in the log of a CI: inert.

    Source:
        Commands in a log start with `::` or hold `##[`: actions/runner,
        src/Runner.Common/ActionCommand.cs; `##vso[`: Azure Pipelines, "Logging commands".
    """
    line = cell if cell.isprintable() else plain_text(cell)
    line = _CI_COMMAND.sub("# #", line)
    return f": :{line.lstrip()[2:]}" if line.lstrip().startswith("::") else line


def markdown_cell(cell: str, *, code: bool = False) -> str:
    """Keep a cell one cell of plain text in Markdown: no markup, no HTML.

    Args:
        code: whether back quotes stay: a note of ours names commands in them.
    """
    import html  # its table of entities takes longer to load than the rest of `--help`

    marks = _MARKS_BESIDE_CODE if code else _MARKS
    return marks.sub(r"\\\1", html.escape(shown(cell), quote=False))


def is_folder_name(text: str) -> bool:
    """Whether a text from outside may name a folder: one that leads nowhere else, not hidden."""
    plain = bool(text) and is_plain(text) and not any(mark in text for mark in "/\\:")
    return plain and text[0] not in ".-~ " and len(text.encode()) <= MOST_NAME_BYTES


def file_text(path: Path) -> str:
    """Return a file's text, nothing where it cannot be read."""
    try:
        return read_regular(path).decode("utf-8", errors="replace")
    except OSError:
        return ""
